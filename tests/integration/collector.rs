//! What the garbage collector of Kubernetes has seen.
//!
//! It takes an owner reference away from what it has seen, when the owner is deleted with `--cascade=orphan`. What it sees
//! later has an owner that does not exist, and it deletes that.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use serde_json::json;
use testkit::poll;

use super::operator::PATIENCE;

/// Waits until the collector has seen every Secret of the namespace that exists now. It handles what happens to Secrets in its
/// order: once it has deleted one whose owner does not exist, it has seen all that were there before.
pub(crate) async fn has_seen_all(client: Client, namespace: &str) {
    let secrets = Api::<Secret>::namespaced(client, namespace);
    let absent = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "absent", "uid": "00000000-0000-4000-8000-000000000000"});
    let orphan = Secret {
        metadata: ObjectMeta {
            generate_name: Some("seen-".to_owned()),
            owner_references: Some(vec![serde_json::from_value(absent).unwrap()]),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let name = secrets.create(&PostParams::default(), &orphan).await.unwrap().metadata.name.unwrap();
    poll("the collector", PATIENCE, || async { Ok(secrets.get_opt(&name).await?.is_none().then_some(())) })
        .await
        .unwrap();
}
