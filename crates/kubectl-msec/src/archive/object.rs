//! A ManagedSecret as a backup holds it: the whole spec, with fields that only later versions know.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use managed_secrets_api::ManagedSecretSpec;
use managed_secrets_api::keys::{GROUP, KIND, VERSION};
use managed_secrets_api::record::RecordMeta;
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

    /// Whether a restored operator hands this record to it; else the field that differs.
    pub(crate) fn fits(&self, record: &RecordMeta) -> Result<(), String> {
        let Some(spec) = self.typed() else { return Err("its spec".to_owned()) };
        record.fits(&self.place().1, &spec).map_err(|misfit| misfit.to_string())
    }

    /// What keeps it from taking over any of these records; `None` if it takes one over, or there is none.
    pub(crate) fn misfit<'a>(&self, records: impl IntoIterator<Item = &'a RecordMeta>) -> Option<String> {
        let misfits = records.into_iter().map(|record| self.fits(record).err()).collect::<Option<Vec<_>>>()?;
        misfits.into_iter().next()
    }
}
