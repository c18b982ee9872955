//! Rules of the API server that the operator's safety rests on, and that its model in the unit tests obeys. Not all of
//! them are documented: these tests notice when a supported version behaves otherwise.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod collection;
mod create_only;
mod fields;
mod selectors;
mod writes;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// The field manager of these tests.
const MANAGER: &str = "facts";

/// What identifies one state of one object.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    uid: String,
    resource_version: String,
}

fn identity(object: &impl ResourceExt) -> Identity {
    Identity { uid: object.uid().unwrap(), resource_version: object.resource_version().unwrap() }
}

/// The kind of `facts/gadget.yaml`.
fn gadgets(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("facts.managedsecrets.dev", "v1", "Gadget");
    Api::namespaced_with(client, namespace, &ApiResource::from_gvk_with_plural(&kind, "gadgets"))
}

fn gadget(name: &str) -> Value {
    json!({
        "apiVersion": "facts.managedsecrets.dev/v1",
        "kind": "Gadget",
        "metadata": { "name": name },
        "spec": { "name": name, "size": 1 },
    })
}

fn secret(name: &str, value: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "value": value } })
}

/// `object` with one more field in its metadata.
fn with(mut object: Value, field: &str, value: impl Into<Value>) -> Value {
    object["metadata"][field] = value.into();
    object
}

/// A forced server-side apply of the whole object.
async fn apply<K>(api: &Api<K>, object: &Value) -> kube::Result<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await
}

/// The refusal of the API server.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> Box<Status> {
    match answer {
        Err(kube::Error::Api(status)) => status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn value_of(secret: &Secret) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()["value"].0.clone()).unwrap()
}
