//! The program on an installation that is limited to two namespaces, and then takes harm: with a right, its
//! key-encryption key or its CRD gone, it says so in one line.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use managed_secrets::install::manifests::Options;
use managed_secrets_api::keys::{OPERATOR_NAME, TYPE_KEK};
use serde_json::json;
use testkit::{ControlPlane, Operator, audit::Mark, poll};

use crate::integration::{
    installation::{self, OPERATOR_NAMESPACE, PATIENCE},
    objects::Site,
    program::{PROGRAM, run},
};

const SERVED: [&str; 2] = ["first", "second"];
const FLAGS: [&str; 4] = ["--namespace", "first", "--namespace", "second"];

fn generated(name: &str) -> serde_json::Value {
    json!({"name": name, "generate": {"length": 20}})
}

async fn site(control_plane: &ControlPlane, namespace: &str) -> Site {
    Site { namespace: namespace.to_owned(), client: control_plane.access().admin_client().await.unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_installation_serves_its_namespaces_and_says_what_it_lacks() {
    let namespaces = SERVED.map(str::to_owned).to_vec();
    let options = Options { namespaces, ..Options::default() };
    let control_plane = installation::install(&options, &["first", "second", "third"]).await.unwrap();
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let (first, second, third) = (
        site(&control_plane, "first").await,
        site(&control_plane, "second").await,
        site(&control_plane, "third").await,
    );

    // Those two, and no other; with rights in those alone.
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &FLAGS).await.unwrap();
    third.apply("not-served", generated("THIRD")).await;
    for site in [&first, &second] {
        site.apply("served", generated("SAME_NAME")).await;
        site.served("served").await;
        site.foreign_secret("upstream", &[("key", "value")]).await;
        let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
        site.apply("followed", json!({"name": "FOLLOWED", "valueFrom": from})).await;
        site.served("followed").await;
    }
    assert!(third.get("not-served").await.status.unwrap().id.is_none());
    let requests = control_plane.requests_since(Mark::default()).await.unwrap();
    let ours: Vec<_> = requests.iter().filter(|request| request.user.username == options.operator_user()).collect();
    assert!(ours.len() > 10);
    let elsewhere = |namespace: &str| !SERVED.contains(&namespace) && namespace != OPERATOR_NAMESPACE;
    for request in &ours {
        let object = request.object();
        assert!(object.resource.is_empty() || !elsewhere(&object.namespace), "{}", request.summary());
        assert_ne!(request.code(), 403, "{}", request.summary());
    }
    assert_eq!(operator.stop().await.unwrap(), 0);

    // A namespace without rights: it says which watch is refused, and goes on with the others.
    let all = [&FLAGS[..], &["--namespace", "third"]].concat();
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &all).await.unwrap();
    says(&operator, &["WARN", "managedsecrets of third", "403 Forbidden"]).await;
    assert_eq!(operator.stop().await.unwrap(), 0);

    // No right to its own keys.
    let bindings = Api::<RoleBinding>::namespaced(first.client.clone(), OPERATOR_NAMESPACE);
    let list = bindings.list(&ListParams::default()).await.unwrap();
    let of_operator = |binding: &&RoleBinding| {
        binding
            .subjects
            .iter()
            .flatten()
            .any(|subject| subject.kind == "ServiceAccount" && subject.name == OPERATOR_NAME)
    };
    let mut binding = list.items.iter().find(of_operator).unwrap().clone();
    bindings.delete(&binding.name_any(), &DeleteParams::default()).await.unwrap();
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &FLAGS).await.unwrap();
    says(&operator, &["WARN", "could not read the keyring", "the operator lacks the permission"]).await;
    // As soon as it has it, it goes on.
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&kube::api::PostParams::default(), &binding).await.unwrap();
    first.apply("later", generated("LATER")).await;
    first.served("later").await;
    assert_eq!(operator.stop().await.unwrap(), 0);

    // The key-encryption key is gone.
    let secrets = Api::<Secret>::namespaced(first.client.clone(), OPERATOR_NAMESPACE);
    let keks = secrets.list(&ListParams::default().fields(&format!("type={TYPE_KEK}"))).await.unwrap();
    assert_eq!(keks.items.len(), 1);
    let kek = keks.items[0].name_any();
    secrets.delete(&kek, &DeleteParams::default()).await.unwrap();
    let before = first.value("served", "value").await;
    let ran = run(&[&["run"], &FLAGS[..]].concat(), Some(&kubeconfig), &[], b"").await;
    let error = ran.error(1);
    assert!(error.contains(&kek) && error.contains("restore"), "{error}");
    assert_eq!(first.value("served", "value").await, before, "what is served stays");
    assert!(secrets.get_opt(&kek).await.unwrap().is_none(), "no new one is made");

    // The CRD is gone; a fresh keyring is no obstacle, once nothing is left that needs the old one.
    secrets.delete(managed_secrets_api::keys::KEYRING_NAME, &DeleteParams::default()).await.unwrap();
    for site in [&first, &second] {
        site.objects().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
        poll("every record to be collected", PATIENCE, || async { Ok(site.labelled().await.is_empty().then_some(())) })
            .await
            .unwrap();
    }
    control_plane.access().kubectl_ok(&["delete", "crd", "managedsecrets.managedsecrets.dev"]).await.unwrap();
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &FLAGS).await.unwrap();
    says(&operator, &["WARN", "waiting for the ManagedSecret resource", "managed-secrets crd"]).await;
    assert_eq!(operator.stop().await.unwrap(), 0);
    control_plane.stop().await.unwrap();
}

/// Waits for a line of the log that contains all these words.
async fn says(operator: &Operator, words: &[&str]) {
    let said = poll("a line of the log", PATIENCE, || async {
        let log = operator.log()?;
        Ok(log.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
    .await;
    assert!(said.is_ok(), "no line with {words:?} in\n{}", operator.log().unwrap());
}
