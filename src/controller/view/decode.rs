//! Decodes objects of the API server without what is not looked at.
//!
//! In: JSON. Out: [`SecretView`] and [`ManagedSecret`]. Labels, annotations and `managedFields` have sizes that others
//! choose, and as a tree in memory they take ten times their text. So what is skipped here is never built: of
//! `managedFields` only names that our field manager owns, of a ManagedSecret's metadata nothing but its identity.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use managed_secrets_api::{
    ManagedSecret, ManagedSecretSpec, ManagedSecretStatus,
    keys::{ANNOTATIONS, FIELD_MANAGER, FIELD_MANAGER_LEFT, GROUP, KIND, LABELS},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::{
    OWNED_MAX, OwnedFields, OwnerRef, SecretView,
    bounded::{LeftOut, Owners, Texts},
    shape::Shape,
};

/// What identifies an object, and at which version it is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Head {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
}

impl From<Head> for ObjectMeta {
    fn from(head: Head) -> Self {
        // Destructured without `..`, so that a new field is not forgotten.
        let Head { name, namespace, uid, resource_version, generation, deletion_timestamp } = head;
        Self { name, namespace, uid, resource_version, generation, deletion_timestamp, ..Self::default() }
    }
}

/// A ManagedSecret whose metadata is reduced to its [`Head`].
#[derive(Deserialize)]
pub struct Lean {
    #[serde(default)]
    metadata: Head,
    spec: ManagedSecretSpec,
    #[serde(default)]
    status: Option<ManagedSecretStatus>,
}

impl From<Lean> for ManagedSecret {
    fn from(lean: Lean) -> Self {
        Self { metadata: lean.metadata.into(), spec: lean.spec, status: lean.status }
    }
}

/// A ManagedSecret that may not be one: where its CRD is that of another version.
#[derive(Deserialize)]
pub(super) struct Doubtful {
    #[serde(default)]
    pub(super) metadata: Head,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl Doubtful {
    /// The object, if it can be read. The error would quote what it cannot read, and is dropped.
    pub(super) fn object(self) -> Option<ManagedSecret> {
        let spec = serde_json::from_value(self.spec).ok()?;
        let status = serde_json::from_value(self.status).ok()?;
        Some(ManagedSecret { metadata: self.metadata.into(), spec, status })
    }
}

/// A Secret's metadata, as far as it decides something.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    name: String,
    namespace: Option<String>,
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<IgnoredAny>,
    labels: Texts,
    annotations: Texts,
    owner_references: Owners,
    managed_fields: Managers,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    #[serde(default)]
    controller: Option<bool>,
}

impl Metadata {
    /// The same without what a Secret is judged by.
    pub(super) fn head(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: self.namespace.clone(),
            uid: Some(self.uid.clone()),
            resource_version: Some(self.resource_version.clone()),
            ..ObjectMeta::default()
        }
    }
}

impl From<Owner> for OwnerRef {
    fn from(owner: Owner) -> Self {
        let group = owner.api_version.split_once('/').map(|(group, _)| group);
        Self {
            is_managed_secret: owner.kind == KIND && group == Some(GROUP),
            name: owner.name,
            uid: owner.uid,
            controller: owner.controller.unwrap_or(false),
        }
    }
}

impl From<Metadata> for SecretView {
    fn from(metadata: Metadata) -> Self {
        let Managers { ours, left, other, .. } = metadata.managed_fields;
        let (labels, labels_left_out) = metadata.labels.bounded(&LABELS, &ours.labels);
        let (annotations, annotations_left_out) = metadata.annotations.bounded(&ANNOTATIONS, &ours.annotations);
        Self {
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            deleting: metadata.deletion_timestamp.is_some(),
            shape: Shape::of_owned(&labels, &ours.labels, &annotations, &ours.annotations),
            labels,
            annotations,
            left_out: LeftOut { labels: labels_left_out, annotations: annotations_left_out },
            owners: metadata.owner_references.0,
            ours,
            left,
            other_manager: other,
            type_: None,
            immutable: false,
        }
    }
}

impl<'de> Deserialize<'de> for SecretView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Metadata::deserialize(deserializer).map(Self::from)
    }
}

/// What `managedFields` says: what our field manager owns by its applies, and which other manager wrote last.
#[derive(Default)]
struct Managers {
    ours: OwnedFields,
    /// Keys of data that the manager of what is left owns.
    left: BTreeSet<String>,
    other: Option<String>,
    /// When that other wrote, RFC 3339 in UTC: these texts are ordered as the times are.
    time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manager {
    #[serde(default, rename = "manager")]
    name: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    fields_v1: OwnedFields,
}

impl Managers {
    fn add(&mut self, entry: Manager) {
        if entry.name.as_deref() == Some(FIELD_MANAGER_LEFT) {
            extend(&mut self.left, entry.fields_v1.data);
            return;
        }
        if entry.name.as_deref() != Some(FIELD_MANAGER) {
            if self.other.is_none() || entry.time >= self.time {
                (self.other, self.time) = (entry.name, entry.time);
            }
        } else if entry.operation.as_deref() == Some("Apply") {
            let OwnedFields { labels, annotations, data, owner_uids, type_ } = entry.fields_v1;
            self.ours.type_ |= type_;
            extend(&mut self.ours.labels, labels);
            extend(&mut self.ours.annotations, annotations);
            extend(&mut self.ours.data, data);
            extend(&mut self.ours.owner_uids, owner_uids);
        }
    }
}

/// Adds names up to [`OWNED_MAX`]: there can be any number of entries of one manager.
fn extend(names: &mut BTreeSet<String>, more: BTreeSet<String>) {
    for name in more {
        if names.len() < OWNED_MAX {
            names.insert(name);
        }
    }
}

impl<'de> Deserialize<'de> for Managers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Managers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of field managers")
            }

            fn visit_unit<E>(self) -> Result<Managers, E> {
                Ok(Managers::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Managers, A::Error> {
                let mut managers = Managers::default();
                // One after the other: each is dropped before the next is decoded.
                while let Some(entry) = entries.next_element()? {
                    managers.add(entry);
                }
                Ok(managers)
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

/// The format of `fieldsV1` is that of structured-merge-diff: `f:NAME` for a field or a map key, `k:{…}` for an item of a
/// keyed list.
impl<'de> Deserialize<'de> for OwnedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut owned = Self::default();
        Walk { at: Level::Object, owned: &mut owned }.deserialize(deserializer)?;
        Ok(owned)
    }
}

/// Where in `fieldsV1` a [`Walk`] is.
#[derive(Clone, Copy)]
enum Level {
    Object,
    Data,
    Metadata,
    Labels,
    Annotations,
    Owners,
}

/// A walk over `fieldsV1` that notes names and builds nothing else. What is of another form than expected is skipped.
struct Walk<'a> {
    at: Level,
    owned: &'a mut OwnedFields,
}

impl Walk<'_> {
    /// Takes a key; which level is below it, if that is looked into.
    fn enter(&mut self, key: &str) -> Option<Level> {
        let names = match (self.at, key) {
            (Level::Object, "f:data") => return Some(Level::Data),
            (Level::Object, "f:metadata") => return Some(Level::Metadata),
            (Level::Metadata, "f:labels") => return Some(Level::Labels),
            (Level::Metadata, "f:annotations") => return Some(Level::Annotations),
            (Level::Metadata, "f:ownerReferences") => return Some(Level::Owners),
            (Level::Object, key) => {
                self.owned.type_ |= key == "f:type";
                return None;
            }
            (Level::Metadata, _) => return None,
            (Level::Data, _) => &mut self.owned.data,
            (Level::Labels, _) => &mut self.owned.labels,
            (Level::Annotations, _) => &mut self.owned.annotations,
            (Level::Owners, _) => &mut self.owned.owner_uids,
        };
        let name = match self.at {
            Level::Owners => owner_uid(key),
            _ => key.strip_prefix("f:").map(str::to_owned),
        };
        if names.len() < OWNED_MAX {
            names.extend(name);
        }
        None
    }
}

/// The uid in the key of an owner reference, `k:{"uid":"…"}`.
fn owner_uid(key: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Key {
        uid: String,
    }
    serde_json::from_str(key.strip_prefix("k:")?).ok().map(|key: Key| key.uid)
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set of fields")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match self.enter(&key) {
                Some(at) => map.next_value_seed(Walk { at, owned: &mut *self.owned })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
