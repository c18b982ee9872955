//! The calls of a reconcile, one function each: what is sent, and what is kept of the answer.
//!
//! Everything goes through [`ObjectApi`], which logs no body: kube's own decoding does where it fails.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use managed_secrets_api::{
    ManagedSecret, ManagedSecretStatus,
    keys::{GROUP, KIND, VERSION},
};
use managed_secrets_client::{CREATE_ONLY, CallError, ObjectApi, Run};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    plan::Slot,
    view::{LiveSecret, decode::Lean},
};
use crate::controller::view::Own;

/// Calls in one namespace.
#[derive(Clone)]
pub(super) struct Cluster {
    secrets: ObjectApi,
    objects: ObjectApi,
    namespace: String,
}

/// What to do with an error of a call. `doing` says what was tried, in the words of RBAC.
fn failed(doing: &'static str) -> impl FnOnce(CallError) -> Failure {
    move |error| Failure::of(error, doing)
}

impl Cluster {
    /// Calls in `namespace`.
    #[must_use]
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self {
            secrets: ObjectApi::namespaced::<Secret>(client.clone(), namespace),
            objects: ObjectApi::namespaced::<ManagedSecret>(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Reads a Secret with its data under `keys`; `None` if it is not found.
    pub(super) async fn secret(&self, name: &str, keys: &[&str]) -> Result<Option<LiveSecret>, Failure> {
        let read = self.secrets.get_with(name, |answer| LiveSecret::read(answer, keys)).await;
        read.map_err(failed("get secrets")).map_err(|failure| failure.about(name))
    }

    /// Reads the ManagedSecret with its sealed value; `None` if it is not found.
    pub(super) async fn object(&self, name: &str) -> Result<Option<ManagedSecret>, Failure> {
        let read = self.objects.get::<Lean>(name).await.map_err(failed("get managedsecrets"))?;
        Ok(read.map(ManagedSecret::from))
    }

    /// Applies a whole Secret, or asks what that would store. `body` comes from [`Cluster::whole`], for the same Secret and
    /// the same `slot`.
    pub(super) async fn apply_secret(
        &self,
        name: &str,
        slot: &Slot,
        run: Run,
        body: &Value,
    ) -> Result<LiveSecret, Failure> {
        let doing = if *slot == Slot::Free { "create secrets" } else { "patch secrets" };
        let keys = data_keys(body);
        let written = self.secrets.apply_with(name, run, body, |answer| LiveSecret::read(answer, &keys)).await;
        written.map_err(failed(doing)).map_err(|failure| failure.about(name))
    }

    /// Has what stands in `body`, of an adopted Secret, stay there when this operator gives it up.
    pub(super) async fn leave_in_secret(&self, name: &str, slot: &Slot, body: Value) -> Result<LiveSecret, Failure> {
        let body = self.whole(name, slot, body);
        let keys = data_keys(&body);
        let written = self.secrets.apply_left(name, &body, |answer| LiveSecret::read(answer, &keys)).await;
        written.map_err(failed("patch secrets"))
    }

    /// The body of an apply: `body` with kind, name, namespace and the preconditions of `slot`.
    #[must_use]
    pub(super) fn whole(&self, name: &str, slot: &Slot, mut body: Value) -> Value {
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("Secret");
        body["metadata"]["name"] = json!(name);
        body["metadata"]["namespace"] = json!(self.namespace);
        match slot {
            Slot::Free => body["metadata"]["resourceVersion"] = json!(CREATE_ONLY),
            Slot::Over { uid, resource_version } => {
                // Both: an apply with a stale version alone would recreate a deleted object.
                body["metadata"]["uid"] = json!(uid);
                body["metadata"]["resourceVersion"] = json!(resource_version);
            }
        }
        body
    }

    /// Deletes a Secret, if it still is this one at this version.
    pub(super) async fn delete_secret(&self, name: &str, slot: &Slot) -> Result<(), Failure> {
        let Slot::Over { uid, resource_version } = slot else {
            // Nothing is deleted without knowing what.
            return Err(Failure::Conflict);
        };
        self.secrets.delete(name, uid, resource_version).await.map_err(failed("delete secrets"))?;
        Ok(())
    }

    /// Writes the status of the object at this version: on `/status` a wrong uid is ignored, so the version it is.
    pub(super) async fn write_status(&self, own: &Own, status: &ManagedSecretStatus) -> Result<Own, Failure> {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": {"name": own.name, "namespace": self.namespace, "resourceVersion": own.resource_version},
            "status": status,
        });
        let written = self.objects.apply_status::<Lean>(&own.name, &body).await;
        let object = written.map_err(failed("patch managedsecrets/status"))?;
        Ok(Own::new(object.into()))
    }
}

/// The keys of the data that an apply writes.
fn data_keys(body: &Value) -> Vec<&str> {
    body["data"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}
