//! Whose a field is, and what becomes of it when its manager lets go.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::WatchEvent;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testkit::shared::TestNamespace;
use tokio::time::{Duration, timeout};

use super::{MANAGER, apply, gadget, gadgets, refusal, secret, value_of};

/// The longest that an event may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn secrets(purpose: &str) -> (TestNamespace, Api<Secret>) {
    let (namespace, client) = TestNamespace::shared(purpose).await.unwrap();
    let secrets = Api::namespaced(client, &namespace.name);
    (namespace, secrets)
}

fn labelled() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one", "labels": { "ours": "yes", "role": "x" } },
        "data": { "value": "Zmlyc3Q=" },
    })
}

/// A merge patch by another field manager.
async fn meddle(secrets: &Api<Secret>, patch: Value) -> Secret {
    let another = PatchParams { field_manager: Some("another".to_owned()), ..PatchParams::default() };
    secrets.patch("one", &another, &Patch::Merge(patch)).await.unwrap()
}

/// What the bookkeeping says that our manager owns.
fn owned(secret: &Secret) -> Value {
    let entries = secret.managed_fields();
    let ours = entries.iter().find(|entry| entry.manager.as_deref() == Some(MANAGER));
    ours.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| fields.0.clone()).unwrap_or_default()
}

#[tokio::test]
async fn who_changes_a_field_owns_it_from_then_on() {
    let (_namespace, secrets) = secrets("fields-changed").await;
    let first = apply(&secrets, &labelled()).await.unwrap();
    assert!(owned(&first)["f:data"].get("f:value").is_some());
    let after =
        meddle(&secrets, json!({ "metadata": { "labels": { "role": null } }, "data": { "value": "b3RoZXI=" } })).await;
    assert_eq!(value_of(&after), "other");
    assert!(owned(&after)["f:data"].get("f:value").is_none(), "{:?}", owned(&after));
    let labels = &owned(&after)["f:metadata"]["f:labels"];
    assert!(labels.get("f:ours").is_some() && labels.get("f:role").is_none(), "{labels}");
    // What we apply again is ours again, and the same value of two managers is both's.
    let after = apply(&secrets, &labelled()).await.unwrap();
    assert_eq!((value_of(&after).as_str(), after.labels()["role"].as_str()), ("first", "x"));
    let same = meddle(&secrets, json!({ "data": { "value": "Zmlyc3Q=" } })).await;
    assert_eq!(same.resource_version(), after.resource_version());
}

#[tokio::test]
async fn an_apply_of_nothing_takes_away_what_is_ours_alone() {
    let (_namespace, secrets) = secrets("fields-released").await;
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": { "name": "one", "labels": { "theirs": "yes" } },
        "type": "example.com/theirs", "stringData": { "other": "kept", "both": "first" },
    }))
    .unwrap();
    let parameters = PostParams { field_manager: Some("another".to_owned()), ..PostParams::default() };
    let made = secrets.create(&parameters, &theirs).await.unwrap();
    let mut ours = labelled();
    ours["data"]["both"] = json!("Zmlyc3Q=");
    apply(&secrets, &ours).await.unwrap();
    let bare = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one" } });
    let after = apply(&secrets, &bare).await.unwrap();
    assert_eq!((&after.data, after.labels(), &after.type_), (&made.data, made.labels(), &made.type_));
}

#[tokio::test]
async fn immutability_freezes_the_data_and_nothing_else() {
    let (_namespace, secrets) = secrets("fields-frozen").await;
    apply(&secrets, &labelled()).await.unwrap();
    meddle(&secrets, json!({ "immutable": true })).await;
    let mut object = labelled();
    object["metadata"]["labels"]["more"] = json!("yes");
    let after = apply(&secrets, &object).await.unwrap();
    assert_eq!((after.labels()["more"].as_str(), after.immutable), ("yes", Some(true)));
    object["data"]["value"] = json!("c2Vjb25k");
    let status = refusal(apply(&secrets, &object).await);
    assert_eq!(status.code, 422, "{status:?}");
    assert_eq!(status.details.as_ref().unwrap().causes[0].field, "data", "{status:?}");
}

#[tokio::test]
async fn a_finalizer_holds_what_is_deleted_and_writes_still_go_through() {
    let (namespace, client) = TestNamespace::shared("fields-held").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace.name);
    apply(&secrets, &labelled()).await.unwrap();
    let finalized = json!({ "metadata": { "finalizers": ["facts.managedsecrets.dev/hold"] } });
    let free = json!({ "metadata": { "finalizers": null } });
    meddle(&secrets, finalized.clone()).await;
    secrets.delete("one", &DeleteParams::default()).await.unwrap();
    let waiting = secrets.get("one").await.unwrap();
    assert!(waiting.metadata.deletion_timestamp.is_some());
    // So it is for the operator to leave it alone.
    assert_eq!(value_of(&apply(&secrets, &secret("one", "second")).await.unwrap()), "second");
    meddle(&secrets, free.clone()).await;
    assert!(secrets.get_opt("one").await.unwrap().is_none());

    // For an object with a spec, being deleted is a new generation.
    let gadgets = gadgets(client, &namespace.name);
    let before = apply(&gadgets, &gadget("one")).await.unwrap();
    gadgets.patch("one", &PatchParams::default(), &Patch::Merge(finalized)).await.unwrap();
    gadgets.delete("one", &DeleteParams::default()).await.unwrap();
    let waiting = gadgets.get("one").await.unwrap();
    assert_eq!(waiting.metadata.generation, before.metadata.generation.map(|generation| generation + 1));
    gadgets.patch("one", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
}

#[tokio::test]
async fn who_loses_its_label_is_deleted_to_a_watch_on_that_label() {
    let (_namespace, secrets) = secrets("fields-watched").await;
    let first = apply(&secrets, &labelled()).await.unwrap();
    let parameters = kube::api::WatchParams::default().labels("role");
    let mut watch = secrets.watch(&parameters, &first.resource_version().unwrap()).await.unwrap().boxed();
    meddle(&secrets, json!({ "metadata": { "labels": { "role": null } } })).await;
    let event = timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Deleted(secret) if secret.uid() == first.uid()), "{event:?}");
    // And recreated for it, when the label comes back.
    meddle(&secrets, json!({ "metadata": { "labels": { "role": "x" } } })).await;
    let event = timeout(PATIENCE, watch.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&event, WatchEvent::Added(secret) if secret.uid() == first.uid()), "{event:?}");
}
