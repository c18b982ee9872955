//! The `ManagedSecret` resource.
//!
//! The doc comments of types and fields become the descriptions of the CRD: they are what `kubectl explain` shows, so
//! they speak to users; a field whose type is an enum is described by the enum's comment. OpenAPI limits stand at each
//! field; what needs CEL is in [`super::rules`].

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::{
    DATE_CHARACTERS, DESCRIPTION_MAX, DURATION_CHARACTERS_MAX, DURATION_CHARACTERS_MIN, GENERATE_MAX, GENERATE_MIN,
    HISTORY_MAX, NAME_MAX, RESTARTS_MAX, REVISION_MAX, SECRET_KEY_MAX, SECRET_NAME_MAX, SECRET_TYPE_MAX,
    STATUS_TEXT_MAX, TARGET_METADATA_MAX, TEMPLATE_KEYS_MAX, VERSION_MAX,
};
use super::schema;

/// What is wanted: one named secret, where its value comes from, and where it is delivered.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "managedsecrets.dev",
    version = "v1alpha1",
    kind = "ManagedSecret",
    plural = "managedsecrets",
    shortname = "msec",
    category = "managedsecrets",
    namespaced,
    status = "ManagedSecretStatus",
    derive = "PartialEq",
    doc = "A secret with a name of its own, an encrypted record, and a Secret that pods mount.",
    selectable = ".spec.name",
    selectable = ".status.id"
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretSpec {
    /// The human-friendly name, unique in the namespace: letters, digits and `_ + = - @ # $`. Changing it renames the
    /// secret.
    #[schemars(length(min = 1, max = NAME_MAX))]
    pub name: String,
    /// What the secret is for. Empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DESCRIPTION_MAX))]
    pub description: Option<String>,
    /// The sealed value (`mss1.…`). Exactly one of `value`, `valueFrom` and `generate` is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::sealed_value")]
    pub value: Option<SealedValue>,
    /// Takes the value from a key of a Secret in the same namespace, and follows its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
    /// Lets the operator generate a random value: once, or again by `rotateEvery` and `revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// Whether the value is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// The Secret that pods mount. Every field is optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// What happens on deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How many earlier values the record keeps, encrypted, besides the newest. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = HISTORY_MAX))]
    pub history: Option<i32>,
    /// Delivers this version of the value, which must be the newest or one that the record keeps. The operator records newer
    /// values and does not deliver them. The newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = VERSION_MAX))]
    pub version: Option<i64>,
    /// How long `target.previousKey` has the previous value after a new one: hours, minutes and seconds as in `24h` or
    /// `1h30m`. Until the next value when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = DURATION_CHARACTERS_MIN, max = DURATION_CHARACTERS_MAX))]
    pub overlap: Option<String>,
    /// `true` stops all writes to record and target. `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// When the value stops being good, in UTC: `2027-03-01T00:00:00Z`. The operator warns before it and continues to
    /// deliver the value. Never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = DATE_CHARACTERS, max = DATE_CHARACTERS))]
    pub expires: Option<String>,
    /// How long before `expires` the warning begins, in hours, minutes and seconds: `720h`, `1h30m`. 720h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = DURATION_CHARACTERS_MIN, max = DURATION_CHARACTERS_MAX))]
    pub expiry_warning: Option<String>,
}

/// `spec.value` as stored: a sealed value. Its `Debug` shows nothing, for a value that slipped in as plaintext.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
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
    /// Name of the Secret. It must not be this object's own target, and must not begin with `msec-`.
    #[schemars(length(min = 1, max = SECRET_NAME_MAX))]
    pub name: String,
    /// Key of its data.
    #[schemars(length(min = 1, max = SECRET_KEY_MAX))]
    pub key: String,
}

/// How a value is generated, and when it is replaced by another one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generate {
    /// How many characters. 32 when absent. A change applies to the next value that is generated, and generates none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = GENERATE_MIN, max = GENERATE_MAX))]
    pub length: Option<i32>,
    /// Which characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<Alphabet>,
    /// Generates a new value when the present one is this old: a duration such as `720h`, at least `1h`. Up to 5 % later,
    /// so that secrets of the same age do not rotate in the same minute; `status.nextRotation` says when. Never when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = DURATION_CHARACTERS_MIN, max = DURATION_CHARACTERS_MAX))]
    pub rotate_every: Option<String>,
    /// Any text, such as a date. A changed revision generates a new value, once, and so does adding one. Removing it does
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = REVISION_MAX))]
    pub revision: Option<String>,
}

/// Which characters: `Alphanumeric` (when absent), `AlphanumericSymbols`, `Hex` or `Base64Url`.
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

/// Whether the value is delivered as a Secret that pods mount (`Secret`, when absent) or kept in its encrypted record
/// only (`None`).
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
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its name. `metadata.name` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SECRET_NAME_MAX))]
    pub name: Option<String>,
    /// The key of its data. `value` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SECRET_KEY_MAX))]
    pub key: Option<String>,
    /// Its type. `Opaque` when absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SECRET_TYPE_MAX))]
    pub type_: Option<String>,
    /// Labels for it, besides the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::target_labels", extend("maxProperties" = TARGET_METADATA_MAX))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations for it, besides the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::target_annotations", extend("maxProperties" = TARGET_METADATA_MAX))]
    pub annotations: Option<BTreeMap<String, String>>,
    /// More keys of its data, with texts in which `$(value)` stands for the value: `$(value | urlencode)`,
    /// `$("user:" value | base64)`. The filters are `base64`, `urlencode`, `json` and `sha256`; `$$(` is a literal `$(`. A
    /// text for `key` itself replaces the value there. The texts are not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::target_template", extend("maxProperties" = TEMPLATE_KEYS_MAX))]
    pub template: Option<BTreeMap<String, String>>,
    /// One more key of its data, for the value before the delivered one, so that servers can accept both while clients move
    /// to the new one. `spec.overlap` says for how long. The key is absent while there is no previous value, and while
    /// `spec.version` names an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SECRET_KEY_MAX))]
    pub previous_key: Option<String>,
    /// Whether an existing Secret may be taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
    /// Workloads to restart after a new value is delivered, for pods that do not notice it by themselves. The installation
    /// must permit it (`manifests --restarts`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = RESTARTS_MAX))]
    pub restart: Option<Vec<Workload>>,
}

/// A workload in the same namespace.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Workload {
    /// Its kind: `Deployment`, `StatefulSet` or `DaemonSet`.
    pub kind: WorkloadKind,
    /// Its name.
    #[schemars(length(min = 1, max = SECRET_NAME_MAX))]
    pub name: String,
}

/// The kinds of workloads that can be restarted: those of the API group `apps` whose controller replaces pods when their
/// template changes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum WorkloadKind {
    /// Deployment.
    Deployment,
    /// `StatefulSet`.
    StatefulSet,
    /// `DaemonSet`.
    DaemonSet,
}

/// Whether a Secret that exists already may be taken over: `Never` (when absent), or `IfUnowned`, if no controller owns
/// it and nothing of it would be overwritten.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Adoption {
    /// Never touch it.
    #[default]
    Never,
    /// Take it over if no controller owns it and nothing of it would be overwritten.
    IfUnowned,
}

/// What happens to record and target when the ManagedSecret is deleted: `Delete` (when absent) or `Retain`. A change is
/// effective once `status.deletionPolicy` shows it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DeletionPolicy {
    /// Kubernetes deletes both.
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
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub id: Option<String>,
    /// The current name: the old one while a rename waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NAME_MAX))]
    pub name: Option<String>,
    /// When the secret was created, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub created_date: Option<String>,
    /// When name, description or value last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub updated_date: Option<String>,
    /// When the value last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub value_updated_time: Option<String>,
    /// The `generate.revision` for which the value was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = REVISION_MAX))]
    pub revision: Option<String>,
    /// When `generate.rotateEvery` asks for the next value, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub next_rotation: Option<String>,
    /// Counts the values, from 1: the version of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<i64>,
    /// The version that is delivered, if it is not the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub delivered: Option<i64>,
    /// The earlier values that the record keeps, the newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = HISTORY_MAX))]
    pub history: Option<Vec<EarlierVersion>>,
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// The effective deletion policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// The backing Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordRef>,
    /// The delivered Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetRef>,
    /// `Ready` always; `Reconciling`, `Stalled`, `Expiring` and `RestartBlocked` while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Option<Vec<Condition>>,
}

/// An earlier value that the record keeps.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlierVersion {
    /// Its version.
    #[schemars(range(min = 1))]
    pub version: i64,
    /// When it became the value, RFC 3339.
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub created: String,
    /// Where it came from.
    pub source: SourceKind,
    /// Until when it was delivered, RFC 3339: only of the version that was delivered before the present one, and only if
    /// `spec.version` named one of them, or the target could not be written at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub delivered_until: Option<String>,
}

/// Where a value came from: the field of the spec, `value`, `valueFrom` or `generate`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// Sealed text.
    Value,
    /// A key of a Secret.
    ValueFrom,
    /// The operator generated it.
    Generate,
}

impl SourceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Value, Self::ValueFrom, Self::Generate];

    /// The field of the spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::ValueFrom => "valueFrom",
            Self::Generate => "generate",
        }
    }
}

/// The backing Secret as last written.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordRef {
    /// Its name.
    #[schemars(length(max = SECRET_NAME_MAX))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub uid: String,
    /// Its resourceVersion after the operator's last write.
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub resource_version: String,
}

/// The delivered Secret as last written.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Its name.
    #[schemars(length(max = SECRET_NAME_MAX))]
    pub name: String,
    /// The key that holds the value; empty where `spec.target.template` replaces it.
    #[schemars(length(max = SECRET_KEY_MAX))]
    pub key: String,
    /// Its uid.
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub uid: String,
    /// Its resourceVersion after the operator's last write; empty while it holds an older version of the value, because
    /// the newest could not be delivered.
    #[schemars(length(max = STATUS_TEXT_MAX))]
    pub resource_version: String,
}
