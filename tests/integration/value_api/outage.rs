//! What an outage does, and how it ends.
#![allow(clippy::unwrap_used, reason = "tests")]

use http::Request;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, NamespaceCondition},
        rbac::v1::ClusterRole,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::value;
use serde_json::{Value, json};
use testkit::control_plane::{Component, poll};

use super::{Estate, FrontProxy, apply, client::Identity, hidden, is_available, path, run};
use crate::integration::{installation, operator::PATIENCE};

/// Waits until the API server says of the group's discovery document that it could not be read again. That is some moments
/// after the APIService is unavailable, and until then namespaces end.
async fn until_discovery_fails(client: &Client) {
    poll("discovery to fail", PATIENCE, || async {
        let accepts = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let request = Request::get("/apis").header("accept", accepts).body(Vec::new()).unwrap();
        let list: Value = client.request(request).await?;
        let groups = list["items"].as_array().unwrap().iter();
        let mut versions =
            groups.filter(|group| group["metadata"]["name"] == value::GROUP).map(|it| &it["versions"][0]);
        let is_stale = versions.any(|version| version["freshness"] == "Stale");
        Ok((is_stale && !is_available(client).await).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn while_the_operator_is_down_no_namespace_ends_and_then_it_does() {
    let mut estate = Estate::start(FrontProxy::On).await;
    let client = estate.client().await;
    let site = estate.site("outage").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let other = estate.site("other").await;
    hidden(&other, "db", "DB", "hunter3").await;
    let operator = estate.operator.take().unwrap();
    operator.kill().await.unwrap();
    until_discovery_fails(&client).await;
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete(&site.namespace, &DeleteParams::default()).await.unwrap();
    poll("the namespace to wait for discovery", PATIENCE, || async {
        let namespace = namespaces.get(&site.namespace).await?;
        let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
        let waits = |condition: &NamespaceCondition| {
            condition.type_ == "NamespaceDeletionDiscoveryFailure" && condition.status == "True"
        };
        Ok(conditions.iter().any(waits).then_some(()))
    })
    .await
    .unwrap();

    estate.operator = Some(run(&estate.control_plane, estate.address).await);
    poll("the value API to be available", PATIENCE, || async { Ok(is_available(&client).await.then_some(())) })
        .await
        .unwrap();
    poll("the namespace to end", installation::PATIENCE, || async {
        Ok(namespaces.get_opt(&site.namespace).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(estate.aggregated("", &path(&other.namespace, "DB"), &[]).await.value(), "hunter3");

    // The APIService ends with the operator's ClusterRole.
    let services = Api::<APIService>::all(client.clone());
    let owners = services.get(value::API_SERVICE).await.unwrap().metadata.owner_references.unwrap();
    assert_eq!((owners.len(), owners[0].name.as_str()), (1, value::CLUSTER_ROLE));
    // A restored backup names a ClusterRole of this name that was deleted. The garbage collector would act on it.
    estate.control_plane.pause(Component::ControllerManager).await.unwrap();
    let mut former = owners[0].clone();
    former.uid = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".to_owned();
    let restored = json!({"metadata": {"ownerReferences": [former]}});
    services.patch(value::API_SERVICE, &PatchParams::default(), &Patch::Merge(restored)).await.unwrap();
    poll("the owner to be repaired", PATIENCE, || async {
        let found = services.get(value::API_SERVICE).await?.metadata.owner_references;
        Ok((found.as_ref() == Some(&owners)).then_some(()))
    })
    .await
    .unwrap();
    estate.control_plane.resume(Component::ControllerManager).await.unwrap();
    // What an administrator changes stays.
    let change = json!({"spec": {"versionPriority": 7}});
    services.patch(value::API_SERVICE, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let roles = Api::<ClusterRole>::all(client.clone());
    roles.delete(value::CLUSTER_ROLE, &DeleteParams::default()).await.unwrap();
    poll("the APIService to end", installation::PATIENCE, || async {
        Ok(services.get_opt(value::API_SERVICE).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

/// The end of the operator in the middle of a deletion: the namespace waits, and ends after the operator is back.
#[tokio::test]
async fn a_namespace_whose_deletion_began_before_the_operator_died_ends_when_it_is_back() {
    let mut estate = Estate::start(FrontProxy::On).await;
    let client = estate.client().await;
    let site = estate.site("midway").await;
    hidden(&site, "db", "DB", "hunter2").await;
    // What keeps the deletion in its middle.
    let metadata = json!({"name": "held", "namespace": site.namespace, "finalizers": ["example.com/held"]});
    apply(&estate.control_plane, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})).await;
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete(&site.namespace, &DeleteParams::default()).await.unwrap();
    let says = async |condition: &str| {
        poll(condition, installation::PATIENCE, || async {
            let namespace = namespaces.get(&site.namespace).await?;
            let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|one| one.type_ == condition && one.status == "True").then_some(()))
        })
        .await
        .unwrap();
    };
    says("NamespaceFinalizersRemaining").await;
    assert!(site.objects().get_opt("db").await.unwrap().is_none(), "the deletion has begun");
    estate.operator.take().unwrap().kill().await.unwrap();
    until_discovery_fails(&client).await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &site.namespace);
    let release = json!({"metadata": {"finalizers": null}});
    maps.patch("held", &PatchParams::default(), &Patch::Merge(release)).await.unwrap();
    says("NamespaceDeletionDiscoveryFailure").await;

    estate.operator = Some(run(&estate.control_plane, estate.address).await);
    poll("the namespace to end", installation::PATIENCE, || async {
        Ok(namespaces.get_opt(&site.namespace).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_api_server_without_a_front_proxy_is_named_and_tokens_work() {
    let estate = Estate::start(FrontProxy::Off).await;
    let site = estate.site("flags").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let token = estate.reader(&site, "web", &["DB"]).await;
    let path = path(&site.namespace, "DB");
    assert_eq!(estate.direct(&Identity::Token(&token), &path, &[]).await.value(), "hunter2");
    let answer = estate.aggregated("", &path, &[]).await;
    assert_eq!(answer.code, 401, "{answer:?}");
    assert!(answer.message().contains("--requestheader-client-ca-file"), "{answer:?}");
    let log = estate.log();
    assert!(log.contains("--proxy-client-cert-file"), "{log}");
}
