//! What an outage does, and how it ends.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::{
    api::{
        core::v1::{Namespace, NamespaceCondition},
        rbac::v1::ClusterRole,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::value;
use serde_json::json;
use testkit::control_plane::poll;

use super::{Estate, FrontProxy, client::Identity, hidden, is_available, path, run};
use crate::integration::{installation, operator::PATIENCE};

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
    poll("the API server to notice", PATIENCE, || async { Ok((!is_available(&client).await).then_some(())) })
        .await
        .unwrap();
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
