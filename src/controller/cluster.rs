//! The calls of a reconcile, one function each: what is sent, and what is kept of the answer.
//!
//! Everything goes through [`managed_secrets_client::call`], which logs no body: the client's own decoding does where it fails.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Client, Resource as _,
    api::{DeleteParams, GetParams, Preconditions},
    core::Request,
};
use managed_secrets_api::{
    ManagedSecret, ManagedSecretStatus,
    keys::{GROUP, KIND, VERSION},
};
use managed_secrets_client::{self, CREATE_ONLY, Run, SecretBytes};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    plan::Slot,
    view::{LiveSecret, SecretView, decode::Lean},
};
use crate::controller::view::Own;

/// Calls in one namespace.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// A Secret as it is decoded: its metadata reduced on the way.
#[derive(Deserialize)]
struct SecretAnswer {
    metadata: SecretView,
    #[serde(rename = "type", default)]
    type_: Option<String>,
    #[serde(default)]
    immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, SecretBytes>,
}

impl From<SecretAnswer> for LiveSecret {
    fn from(answer: SecretAnswer) -> Self {
        let view = SecretView { type_: answer.type_, immutable: answer.immutable.unwrap_or(false), ..answer.metadata };
        Self { view, data: answer.data.into_iter().map(|(key, bytes)| (key, bytes.0)).collect() }
    }
}

/// The answer to a deletion: the object or a status, and in any case of some kind. What has none did not come from an API
/// server, and says nothing about the Secret.
#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "kind")]
    _kind: String,
}

impl Cluster {
    /// Calls in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, impl Sized>,
        doing: &str,
    ) -> Result<T, Failure> {
        let request = request.map_err(|_| Failure::Invalid("the request".to_owned()))?;
        managed_secrets_client::call(&self.client, request).await.map_err(|error| Failure::of(error, doing))
    }

    fn secrets(&self) -> Request {
        Request::new(Secret::url_path(&(), Some(&self.namespace)))
    }

    fn objects(&self) -> Request {
        Request::new(ManagedSecret::url_path(&(), Some(&self.namespace)))
    }

    /// Reads a Secret with its data; `None` where there is none.
    pub async fn secret(&self, name: &str) -> Result<Option<LiveSecret>, Failure> {
        let read = self.call::<SecretAnswer>(self.secrets().get(name, &GetParams::default()), "get secrets").await;
        match read {
            Ok(object) => Ok(Some(object.into())),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads the ManagedSecret with its sealed text; `None` where there is none.
    pub async fn object(&self, name: &str) -> Result<Option<ManagedSecret>, Failure> {
        let read = self.call::<Lean>(self.objects().get(name, &GetParams::default()), "get managedsecrets").await;
        match read {
            Ok(object) => Ok(Some(object.into())),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Applies a whole Secret, or asks what that would store. `body` comes from [`Cluster::whole`], for the same Secret and
    /// the same `slot`.
    pub async fn apply_secret(&self, name: &str, slot: &Slot, run: Run, body: &Value) -> Result<LiveSecret, Failure> {
        let doing = if *slot == Slot::Free { "create secrets" } else { "patch secrets" };
        let request = managed_secrets_client::apply(&self.secrets(), name, run, body);
        let written: SecretAnswer = self.call(request, doing).await?;
        Ok(written.into())
    }

    /// Has what stands in `body`, of an adopted Secret, stay there when this operator gives it up.
    pub async fn leave_in_secret(&self, name: &str, slot: &Slot, body: Value) -> Result<LiveSecret, Failure> {
        let request = managed_secrets_client::apply_left(&self.secrets(), name, &self.whole(name, slot, body));
        let written: SecretAnswer = self.call(request, "patch secrets").await?;
        Ok(written.into())
    }

    /// The body of an apply: `body` with kind, name, namespace and the preconditions of `slot`.
    #[must_use]
    pub fn whole(&self, name: &str, slot: &Slot, mut body: Value) -> Value {
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("Secret");
        body["metadata"]["name"] = json!(name);
        body["metadata"]["namespace"] = json!(self.namespace);
        match slot {
            Slot::Free => body["metadata"]["resourceVersion"] = json!(CREATE_ONLY),
            Slot::Over { uid, resource_version } => {
                // Both: an apply with a stale version alone would create a deleted object anew.
                body["metadata"]["uid"] = json!(uid);
                body["metadata"]["resourceVersion"] = json!(resource_version);
            }
        }
        body
    }

    /// Deletes a Secret, if it still is this one at this version.
    pub async fn delete_secret(&self, name: &str, slot: &Slot) -> Result<(), Failure> {
        let Slot::Over { uid, resource_version } = slot else {
            // Nothing is deleted without knowing what.
            return Err(Failure::Conflict);
        };
        let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: Some(resource_version.clone()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.call::<Deleted>(self.secrets().delete(name, &params), "delete secrets").await {
            Ok(_) | Err(Failure::Absent) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Writes the status of the object at this version: on `/status` a wrong uid is ignored, so the version it is.
    pub async fn write_status(&self, own: &Own, status: &ManagedSecretStatus) -> Result<Own, Failure> {
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": {"name": own.name, "namespace": self.namespace, "resourceVersion": own.resource_version},
            "status": status,
        });
        let request = managed_secrets_client::apply_status(&self.objects(), &own.name, &body);
        let object: Lean = self.call(request, "patch managedsecrets/status").await?;
        Ok(Own::new(object.into()))
    }
}
