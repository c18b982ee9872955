//! What an apply does to an object that is there, and which preconditions hold where.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use testkit::shared::TestNamespace;

use super::{Identity, MANAGER, apply, gadget, gadgets, identity, refusal, secret, value_of, with};

/// `object` for the state `of` only.
fn exactly(object: Value, of: &Identity) -> Value {
    with(with(object, "uid", of.uid.as_str()), "resourceVersion", of.resource_version.as_str())
}

async fn secrets(purpose: &str) -> (TestNamespace, Api<Secret>) {
    let (namespace, client) = TestNamespace::shared(purpose).await.unwrap();
    let secrets = Api::namespaced(client, &namespace.name);
    (namespace, secrets)
}

/// A Secret that was deleted and made again: the first one's identity, and the second one's.
async fn made_again(secrets: &Api<Secret>) -> (Identity, Identity) {
    let first = identity(&apply(secrets, &secret("one", "first")).await.unwrap());
    secrets.delete("one", &DeleteParams::default()).await.unwrap();
    let second = identity(&apply(secrets, &secret("one", "second")).await.unwrap());
    (first, second)
}

#[tokio::test]
async fn an_unchanged_apply_moves_nothing() {
    let (_namespace, secrets) = secrets("unchanged").await;
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one", "labels": { "a": "b" } },
        "data": { "value": "Zmlyc3Q=" },
    });
    let first = apply(&secrets, &object).await.unwrap();
    assert_eq!(apply(&secrets, &object).await.unwrap(), first);
    assert_eq!(apply(&secrets, &exactly(object, &identity(&first))).await.unwrap(), first);
}

#[tokio::test]
async fn an_apply_without_data_deletes_the_data() {
    let (_namespace, secrets) = secrets("without-data").await;
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one", "annotations": { "a": "b" } },
        "data": { "value": "Zmlyc3Q=" },
    });
    apply(&secrets, &object).await.unwrap();
    let bare = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one" } });
    let after = apply(&secrets, &bare).await.unwrap();
    assert_eq!((after.data, after.metadata.annotations), (None, None));
}

#[tokio::test]
async fn what_others_own_survives_our_apply() {
    let (_namespace, secrets) = secrets("others").await;
    apply(&secrets, &secret("one", "first")).await.unwrap();
    let theirs = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one", "labels": { "theirs": "yes" } },
        "stringData": { "other": "kept" },
    });
    secrets.patch("one", &PatchParams::apply("another"), &Patch::Apply(&theirs)).await.unwrap();
    let after = apply(&secrets, &secret("one", "second")).await.unwrap();
    assert_eq!(value_of(&after), "second");
    assert_eq!(after.data.unwrap()["other"].0, b"kept");
    assert_eq!(after.metadata.labels.unwrap()["theirs"], "yes");
}

#[tokio::test]
async fn a_stale_resource_version_is_refused() {
    let (_namespace, secrets) = secrets("stale").await;
    let stale = identity(&apply(&secrets, &secret("one", "first")).await.unwrap());
    let fresh = apply(&secrets, &secret("one", "second")).await.unwrap();
    let status = refusal(apply(&secrets, &exactly(secret("one", "third"), &stale)).await);
    assert!(status.is_conflict(), "{status:?}");
    assert_eq!(secrets.get("one").await.unwrap(), fresh);
    apply(&secrets, &exactly(secret("one", "third"), &identity(&fresh))).await.unwrap();
}

#[tokio::test]
async fn a_resource_version_alone_recreates_what_was_deleted() {
    let (_namespace, secrets) = secrets("recreated").await;
    let gone = identity(&apply(&secrets, &secret("one", "first")).await.unwrap());
    secrets.delete("one", &DeleteParams::default()).await.unwrap();
    let object = with(secret("one", "second"), "resourceVersion", gone.resource_version.as_str());
    let recreated = identity(&apply(&secrets, &object).await.unwrap());
    assert_ne!(recreated.uid, gone.uid);
}

#[tokio::test]
async fn a_uid_does_not_recreate_what_was_deleted() {
    let (_namespace, secrets) = secrets("uid-deleted").await;
    let gone = identity(&apply(&secrets, &secret("one", "first")).await.unwrap());
    secrets.delete("one", &DeleteParams::default()).await.unwrap();
    let status = refusal(apply(&secrets, &exactly(secret("one", "second"), &gone)).await);
    assert_eq!(status.code, 409, "{status:?}");
    assert!(secrets.get_opt("one").await.unwrap().is_none());
}

#[tokio::test]
async fn a_uid_is_refused_by_a_successor() {
    let (_namespace, secrets) = secrets("uid-successor").await;
    let (first, second) = made_again(&secrets).await;
    let untouched = secrets.get("one").await.unwrap();
    // With the successor's resourceVersion, it is the uid alone that refuses: as an immutable field.
    let mixed = Identity { uid: first.uid.clone(), ..second };
    let status = refusal(apply(&secrets, &exactly(secret("one", "third"), &mixed)).await);
    assert_eq!(status.code, 422, "{status:?}");
    let causes = &status.details.as_ref().unwrap().causes;
    assert_eq!(causes[0].field, "metadata.uid", "{status:?}");
    refusal(apply(&secrets, &exactly(secret("one", "third"), &first)).await);
    assert_eq!(secrets.get("one").await.unwrap(), untouched);
}

#[tokio::test]
async fn on_status_a_uid_is_ignored_and_a_resource_version_is_not() {
    let (namespace, client) = TestNamespace::shared("status").await.unwrap();
    let gadgets = gadgets(client, &namespace.name);
    let created = identity(&apply(&gadgets, &gadget("one")).await.unwrap());
    let status_write = |of: &Identity, id: &str| {
        let mut object = exactly(gadget("one"), of);
        object["spec"] = Value::Null;
        object["status"] = json!({ "id": id });
        object
    };
    let write = |object: Value| {
        let gadgets = gadgets.clone();
        async move { gadgets.patch_status("one", &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await }
    };
    let id_of = |object: &DynamicObject| object.data["status"]["id"].clone();

    let wrong_uid = Identity { uid: "00000000-0000-4000-8000-000000000000".to_owned(), ..created.clone() };
    let written = write(status_write(&wrong_uid, "a")).await.unwrap();
    assert_eq!(id_of(&written), "a", "a wrong uid does not protect the status");

    let status = refusal(write(status_write(&created, "b")).await);
    assert!(status.is_conflict(), "{status:?}");
    let written = write(status_write(&identity(&written), "b")).await.unwrap();
    assert_eq!(id_of(&written), "b");
    assert_eq!(written.data["spec"]["size"], 1, "a status write leaves the spec alone");
}

#[tokio::test]
async fn a_delete_obeys_uid_and_resource_version() {
    let (_namespace, secrets) = secrets("delete").await;
    let (first, second) = made_again(&secrets).await;
    let delete = |uid: Option<&str>, resource_version: Option<&str>| {
        let preconditions = Preconditions {
            uid: uid.map(ToOwned::to_owned),
            resource_version: resource_version.map(ToOwned::to_owned),
        };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let secrets = secrets.clone();
        async move { secrets.delete("one", &parameters).await }
    };
    for (uid, resource_version) in [
        (Some(first.uid.as_str()), None),
        (None, Some(first.resource_version.as_str())),
        (Some(second.uid.as_str()), Some(first.resource_version.as_str())),
        (Some(first.uid.as_str()), Some(second.resource_version.as_str())),
    ] {
        let status = refusal(delete(uid, resource_version).await);
        assert!(status.is_conflict(), "{status:?}");
    }
    assert_eq!(identity(&secrets.get("one").await.unwrap()), second);
    delete(Some(&second.uid), Some(&second.resource_version)).await.unwrap();
    assert!(secrets.get_opt("one").await.unwrap().is_none());
}

#[tokio::test]
async fn the_type_of_a_secret_cannot_change() {
    let (_namespace, secrets) = secrets("type").await;
    apply(&secrets, &secret("one", "first")).await.unwrap();
    let mut object = secret("one", "first");
    object["type"] = "example.com/other".into();
    let status = refusal(apply(&secrets, &object).await);
    assert_eq!(status.code, 422, "{status:?}");
    assert_eq!(status.details.as_ref().unwrap().causes[0].field, "type");
}

#[tokio::test]
async fn managed_fields_tell_who_owns_an_owner_reference() {
    let (namespace, client) = TestNamespace::shared("owned").await.unwrap();
    let owner = identity(&apply(&gadgets(client.clone(), &namespace.name), &gadget("owner")).await.unwrap());
    let secrets = Api::<Secret>::namespaced(client, &namespace.name);
    let reference =
        json!([{ "apiVersion": "facts.managedsecrets.dev/v1", "kind": "Gadget", "name": "owner", "uid": owner.uid }]);
    apply(&secrets, &with(secret("one", "first"), "ownerReferences", reference)).await.unwrap();

    // A metadata-only read carries them too.
    let metadata = secrets.get_metadata("one").await.unwrap().metadata;
    let entries = metadata.managed_fields.unwrap();
    let ours = entries.iter().find(|entry| entry.manager.as_deref() == Some(MANAGER)).unwrap();
    let key = format!("k:{}", json!({ "uid": owner.uid }));
    assert!(ours.fields_v1.as_ref().unwrap().0["f:metadata"]["f:ownerReferences"].get(&key).is_some());
}
