//! The `ManagedSecret` resource.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a user wants: one named secret, where its value comes from, and where it is delivered.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "managedsecrets.dev",
    version = "v1alpha1",
    kind = "ManagedSecret",
    plural = "managedsecrets",
    shortname = "msec",
    category = "managedsecrets",
    namespaced,
    status = "ManagedSecretStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretSpec {
    /// The human-friendly name, unique in the namespace; may change (a rename).
    pub name: String,
    /// What the secret is for; absent means empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Sealed text ("mss1.…").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SealedValue>,
    /// A key of a Secret in the same namespace, followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
    /// A value made once by the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// Whether the value is delivered as a Secret. `Secret` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The Secret that pods mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What happens to record and target on deletion. `Delete` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// `true` stops all writes to record and target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// `spec.value` as stored: sealed text. Its `Debug` shows nothing, for a value that slipped in as plaintext.
#[derive(Clone, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct SealedValue(pub String);

impl std::fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealedValue(…)")
    }
}

/// A value that another Secret holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// The Secret and its key.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    pub name: String,
    /// Key of its data.
    pub key: String,
}

/// How a value is generated, once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Generate {
    /// Characters; 32 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<i32>,
    /// `Alphanumeric` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<Alphabet>,
}

/// The characters of a generated value.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Alphabet {
    /// `A-Z a-z 0-9`
    #[default]
    Alphanumeric,
    /// `A-Z a-z 0-9` and symbols
    AlphanumericSymbols,
    /// `0-9 a-f`
    Hex,
    /// `A-Z a-z 0-9 - _`
    Base64Url,
}

/// Whether and how the value is delivered.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Delivery {
    /// As a Secret that pods mount.
    #[default]
    Secret,
    /// Not at all: only the encrypted record exists.
    None,
}

/// The Secret that pods mount.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Target {
    /// Its name; `metadata.name` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The key of its data; `value` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its type; `Opaque` when absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Its labels, besides ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its annotations, besides ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Whether a Secret that exists already may be taken over; `Never` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
}

/// Whether an existing Secret may be taken over as the target.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Adoption {
    /// Never touch it.
    #[default]
    Never,
    /// Take it over if no controller owns it and nothing of it would be overwritten.
    IfUnowned,
}

/// What happens to record and target when the ManagedSecret is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// Kubernetes collects both.
    #[default]
    Delete,
    /// Both stay.
    Retain,
}

/// What the operator saw and did.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretStatus {
    /// The secret's id (UUID), given once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name in force: the old one while a rename waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When the secret was created, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_date: Option<String>,
    /// When name, description or value last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_date: Option<String>,
    /// When the value last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_updated_time: Option<String>,
    /// Counts values, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The deletion policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// The backing Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordRef>,
    /// The delivered Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRef>,
    /// `Ready` always; `Reconciling` and `Stalled` while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

/// The backing Secret as last written.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordRef {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion after our last write.
    pub resource_version: String,
}

/// The delivered Secret as last written.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Its name.
    pub name: String,
    /// The key that holds the value.
    pub key: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion after our last write.
    pub resource_version: String,
}
