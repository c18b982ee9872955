//! A ManagedSecret as a backup holds it: the spec as it stands, whatever later versions add to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use managed_secrets_api::ManagedSecretSpec;
use managed_secrets_api::keys::{GROUP, KIND, VERSION};
use managed_secrets_api::record::RecordMeta;
use managed_secrets_api::types::Delivery;
use serde_json::{Value, json};

use super::{Place, kept, place};

/// Metadata and spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    /// Name, namespace, labels, annotations.
    pub(crate) metadata: ObjectMeta,
    /// The spec, verbatim.
    pub(crate) spec: Value,
}

impl Object {
    /// Of what a server, or a file, holds; none without a spec that can be one.
    pub(crate) fn parse(object: Value) -> Option<Self> {
        let mut object: DynamicObject = serde_json::from_value(object).ok()?;
        let object = Self { metadata: kept(object.metadata), spec: object.data.get_mut("spec").map(Value::take)? };
        object.typed().map(|_| object)
    }

    /// What a server is sent, and a file holds.
    pub(crate) fn manifest(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": self.metadata, "spec": self.spec,
        })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        place(&self.metadata)
    }

    /// The spec as this version knows it.
    pub(crate) fn typed(&self) -> Option<ManagedSecretSpec> {
        serde_json::from_value(self.spec.clone()).ok()
    }

    /// Whether a restored operator hands it this record, which names it as owner; else what differs.
    ///
    /// A record is taken over by namespace, `metadata.name`, `spec.name` and the place of the target.
    pub(crate) fn fits(&self, record: &RecordMeta) -> Result<(), &'static str> {
        let (_, name) = self.place();
        let Some(spec) = self.typed() else { return Err("its spec") };
        if record.name != spec.name {
            return Err("spec.name");
        }
        let wanted = (spec.delivery() == Delivery::Secret).then(|| (spec.target_name(&name), spec.target_key()));
        if record.target.place() == wanted { Ok(()) } else { Err("its target") }
    }
}
