//! What the operator keeps of the objects it watches: views without values, made from API objects, never written back.
//!
//! In: objects of the API server. Out: [`Own`] (a ManagedSecret whose sealed text is replaced by its SHA-256) and
//! [`SecretView`] (a Secret's metadata, reduced to what decides something). Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::ResourceExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::api::{
    ManagedSecret, ManagedSecretSpec, ManagedSecretStatus, Violation,
    keys::{FIELD_MANAGER, GROUP, KIND, LABEL_ID, LABEL_ROLE},
    validate_spec,
};

/// A ManagedSecret as the reconciler knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    /// Namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// A deletionTimestamp is set: nothing is written for it any more.
    pub deleting: bool,
    /// The spec without the sealed text.
    pub spec: ManagedSecretSpec,
    /// SHA-256 (hex) of the sealed text of `spec.value`, where there is one.
    pub sealed_sha256: Option<String>,
    /// The status; empty when there is none.
    pub status: ManagedSecretStatus,
    /// Rules that the spec breaks. The API server refuses such specs, unless its CRD is older than this program.
    pub violations: Vec<Violation>,
}

impl Own {
    /// Reduces an object of the API server. The sealed text is dropped: only its SHA-256 stays.
    #[must_use]
    pub fn new(mut object: ManagedSecret) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        let violations = validate_spec(&name, &object.spec);
        let sealed_sha256 = object.spec.value.take().map(|sealed| hex::encode(Sha256::digest(sealed.0.as_bytes())));
        Self {
            namespace,
            name,
            uid: object.metadata.uid.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            spec: object.spec,
            sealed_sha256,
            status: object.status.unwrap_or_default(),
            violations,
        }
    }
}

/// An owner reference of a Secret, as far as it decides something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnerRef {
    /// Whether it points to a ManagedSecret (of any version of our group).
    pub is_managed_secret: bool,
    /// `name` of the owner.
    pub name: String,
    /// `uid` of the owner.
    pub uid: String,
    /// `controller: true`.
    pub controller: bool,
}

/// Which fields of an object our field manager owns, from server-side apply's bookkeeping.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OwnedFields {
    /// Label keys.
    pub labels: BTreeSet<String>,
    /// Annotation keys.
    pub annotations: BTreeSet<String>,
    /// Data keys.
    pub data: BTreeSet<String>,
    /// Uids in owner references.
    pub owner_uids: BTreeSet<String>,
    /// The Secret's type: owned only if we made the Secret, for an adopted one's type is never applied.
    pub type_: bool,
}

/// A Secret (record, target or a stranger's) as the reconciler knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecretView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// A deletionTimestamp is set: it is never written.
    pub deleting: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations: those with our prefix and those that our field manager owns.
    pub annotations: BTreeMap<String, String>,
    /// Owner references.
    pub owners: Vec<OwnerRef>,
    /// What our field manager owns of it.
    pub ours: OwnedFields,
    /// The field manager other than ours that wrote last: whom an event about drift names.
    pub other_manager: Option<String>,
    /// `type`; not part of an object's metadata, so known only after a live read or a write of ours.
    pub type_: Option<String>,
    /// `immutable: true`, likewise.
    pub immutable: bool,
}

impl SecretView {
    /// Reduces an object's metadata.
    #[must_use]
    pub fn from_meta(meta: ObjectMeta) -> Self {
        let managed = meta.managed_fields.unwrap_or_default();
        let ours = owned_fields(&managed);
        let other_manager = managed
            .iter()
            .filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
            .max_by(|a, b| a.time.as_ref().map(|t| t.0).cmp(&b.time.as_ref().map(|t| t.0)))
            .and_then(|entry| entry.manager.clone());
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.retain(|key, _| is_our_key(key) || ours.annotations.contains(key));
        Self {
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            labels: meta.labels.unwrap_or_default(),
            annotations,
            owners: meta
                .owner_references
                .unwrap_or_default()
                .into_iter()
                .map(|owner| OwnerRef {
                    is_managed_secret: owner.kind == KIND
                        && owner.api_version.split_once('/').is_some_and(|(group, _)| group == GROUP),
                    name: owner.name,
                    uid: owner.uid,
                    controller: owner.controller.unwrap_or(false),
                })
                .collect(),
            ours,
            other_manager,
            type_: None,
            immutable: false,
        }
    }

    /// An annotation's text.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// What it is to us, by its label.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.labels.get(LABEL_ROLE).map(String::as_str)
    }

    /// The secret's id, by its label.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.labels.get(LABEL_ID).map(String::as_str)
    }

    /// The reference to a ManagedSecret called `name` with another uid: its owner is gone, and Kubernetes collects it.
    #[must_use]
    pub fn is_dying(&self, name: &str, uid: &str) -> bool {
        self.owners.iter().any(|owner| owner.is_managed_secret && owner.name == name && owner.uid != uid)
    }
}

/// A Secret read live, with its data. The bytes are wiped when it is dropped.
#[derive(Default)]
pub struct LiveSecret {
    /// All but the data.
    pub view: SecretView,
    /// The data by key.
    pub data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

fn is_our_key(key: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| prefix == GROUP)
}

/// Reads `fieldsV1` of every Apply entry of our manager. The format is that of structured-merge-diff: `f:NAME` for a
/// field or a map key, `k:{…}` for an item of a keyed list.
fn owned_fields(entries: &[ManagedFieldsEntry]) -> OwnedFields {
    let mut owned = OwnedFields::default();
    let ours = entries
        .iter()
        .filter(|e| e.manager.as_deref() == Some(FIELD_MANAGER) && e.operation.as_deref() == Some("Apply"));
    for fields in ours.filter_map(|entry| entry.fields_v1.as_ref().map(|fields| &fields.0)) {
        owned.type_ |= fields.get("f:type").is_some();
        owned.data.extend(field_names(fields.get("f:data")));
        let Some(meta) = fields.get("f:metadata") else { continue };
        owned.labels.extend(field_names(meta.get("f:labels")));
        owned.annotations.extend(field_names(meta.get("f:annotations")));
        let items = meta.get("f:ownerReferences").and_then(Value::as_object);
        owned.owner_uids.extend(items.into_iter().flatten().filter_map(|(item, _)| {
            let key: Value = serde_json::from_str(item.strip_prefix("k:")?).ok()?;
            Some(key.get("uid")?.as_str()?.to_owned())
        }));
    }
    owned
}

fn field_names(fields: Option<&Value>) -> impl Iterator<Item = String> + '_ {
    fields
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("f:").map(str::to_owned))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_our_manager_owns_and_who_wrote_last() {
        let meta: ObjectMeta = serde_json::from_value(json!({
            "name": "db", "uid": "u1", "resourceVersion": "7",
            "labels": {"managedsecrets.dev/role": "target", "team": "a"},
            "annotations": {"managedsecrets.dev/owner": "db", "big": "x", "mine": "y"},
            "ownerReferences": [{"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "name": "db", "uid": "o1"}],
            "managedFields": [
                {"manager": "managed-secrets", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-11-23T08:00:00Z", "fieldsV1": {
                    "f:type": {}, "f:data": {"f:value": {}},
                    "f:metadata": {"f:labels": {"f:managedsecrets.dev/role": {}}, "f:annotations": {"f:mine": {}},
                        "f:ownerReferences": {"k:{\"uid\":\"o1\"}": {}}}}},
                {"manager": "early", "operation": "Update", "time": "2026-11-23T07:00:00Z", "fieldsV1": {}},
                {"manager": "late", "operation": "Update", "time": "2026-11-23T09:00:00Z", "fieldsV1": {"f:data": {"f:other": {}}}}
            ]
        }))
        .unwrap();
        let view = SecretView::from_meta(meta);
        assert!(view.ours.type_);
        assert_eq!(view.ours.data, BTreeSet::from(["value".to_owned()]));
        assert_eq!(view.ours.owner_uids, BTreeSet::from(["o1".to_owned()]));
        assert_eq!(view.other_manager.as_deref(), Some("late"));
        assert_eq!(view.annotations.keys().collect::<Vec<_>>(), ["managedsecrets.dev/owner", "mine"]);
        assert!(view.is_dying("db", "o2") && !view.is_dying("db", "o1") && !view.is_dying("other", "o2"));
    }
}
