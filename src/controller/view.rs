//! What the operator keeps of the objects it watches: views without values, made from API objects, never written back.
//!
//! In: objects of the API server. Out: [`Own`] (a ManagedSecret whose sealed text is replaced by its SHA-256) and
//! [`SecretView`] (a Secret's metadata, reduced to what decides something). Pure. How they are decoded, without what is
//! not looked at, is in [`decode`]; as what watches decode them, in [`watched`]; digests of labels and annotations, in
//! [`shape`].
//!
//! A view that was read live lacks nothing that decides: of what others may put there in any number, it has a bounded part,
//! and says so ([`bounded`]). A cache keeps what [`Own::kept`] and [`SecretView::kept`] leave: users choose the
//! objects of one namespace, and one memory holds those of all namespaces, so no field is kept without a small bound. It
//! keeps them [`packed`].

pub mod bounded;
pub mod decode;
pub(crate) mod packed;
pub mod shape;
pub mod template;
pub mod watched;

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use managed_secrets_api::{
    ManagedSecret, ManagedSecretSpec, ManagedSecretStatus, Violation,
    keys::{ANNO_FOUND_KEY, ANNO_HISTORY, ANNOTATIONS, CONDITIONS, LABEL_ID, LABEL_ROLE, LABELS, ROLE_RECORD, ROLES},
    limits::{
        DATE_CHARACTERS, DESCRIPTION_MAX, DURATION_CHARACTERS_MAX, HISTORY_MAX, METADATA_KEY_MAX, NAME_MAX,
        RESTARTS_MAX, REVISION_MAX, SECRET_KEY_MAX, SECRET_NAME_MAX, SECRET_TYPE_MAX, STATUS_MESSAGE_BYTES_MAX,
        STATUS_TEXT_MAX, TARGET_METADATA_MAX, TEMPLATE_KEYS_MAX,
    },
    overlap,
    record::is_kept_key,
    types::{Generate, Target},
    validate_spec,
};
use managed_secrets_crypto::{KeyId, mss1::Sealed};
use serde::{Deserialize, de::DeserializeSeed as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::{
    bounded::{Data, LeftOut},
    shape::{MetadataText, Shape, TargetMetadata},
    template::TargetTemplate,
};

/// Most names in a set of [`OwnedFields`]: more than a spec can ask for and the operator adds.
pub const OWNED_MAX: usize = TARGET_METADATA_MAX + 16;
/// Bytes of the operator's annotations that a cache keeps of one Secret. The largest record has less than half of it;
/// what has more was not written by the operator, and nothing that it lacks is believed.
const ANNOTATIONS_KEPT_BYTES: usize = 8 * 1024;
/// Owner references that a view holds of one Secret.
const OWNERS_KEPT_MAX: usize = 16;
/// Owned keys besides the operator's own that a cache keeps of one Secret.
const OTHERS_KEPT_MAX: usize = 2;
/// Owned keys of data that a cache keeps of one Secret: those of the largest template, the value's, and one more, which
/// tells that there are too many.
const DATA_KEYS_KEPT_MAX: usize = TEMPLATE_KEYS_MAX + 2;
/// Longest uid, in bytes. A uid of Kubernetes has 36.
const UID_MAX: usize = 64;
/// Longest name of a field manager, in bytes: what Kubernetes allows.
const MANAGER_MAX: usize = 128;
/// Most bytes of a character in UTF-8.
const CHARACTER_BYTES: usize = 4;

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
    /// The spec without the sealed text, and without the target's labels, annotations and template.
    pub spec: ManagedSecretSpec,
    /// SHA-256 (hex) of the sealed text of `spec.value`, where there is one.
    pub sealed_sha256: Option<String>,
    /// The key that the sealed text of `spec.value` names, where there is one.
    pub sealed_for: Option<KeyId>,
    /// The labels and annotations of `spec.target`.
    pub target_metadata: TargetMetadata,
    /// The template of `spec.target`, where there is one.
    pub template: Option<Box<TargetTemplate>>,
    /// The status; empty when there is none.
    pub status: ManagedSecretStatus,
    /// The first rule that the spec breaks. The API server refuses such specs, unless its CRD is older than this program.
    pub violation: Option<Violation>,
}

impl Own {
    /// Reduces an object of the API server. The sealed text is dropped: only its SHA-256 and the id of its key
    /// stay.
    #[must_use]
    pub fn new(mut object: ManagedSecret) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        let mut violation = validate_spec(&name, &object.spec).into_iter().next();
        if let Some(Violation { path, message: _, reason: _ }) = &mut violation {
            // It may end in a key that the user chose. Cut here, so that the condition says the same after a live read.
            clip(path, METADATA_KEY_MAX);
        }
        let sealed = object.spec.value.take();
        let sealed_sha256 = sealed.as_ref().map(|sealed| hex::encode(Sha256::digest(sealed.0.as_bytes())));
        let sealed_for = sealed.as_ref().and_then(|sealed| Sealed::key_named(&sealed.0));
        let (labels, annotations, template) = match &mut object.spec.target {
            Some(target) => (target.labels.take(), target.annotations.take(), target.template.take()),
            None => (None, None, None),
        };
        let text = MetadataText { labels: labels.unwrap_or_default(), annotations: annotations.unwrap_or_default() };
        Self {
            namespace,
            name,
            uid: object.metadata.uid.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            deleting: object.metadata.deletion_timestamp.is_some(),
            spec: object.spec,
            sealed_sha256,
            sealed_for,
            target_metadata: TargetMetadata::new(text),
            template: template.and_then(TargetTemplate::new).map(Box::new),
            status: object.status.unwrap_or_default(),
            violation,
        }
    }

    /// Reduces a view to what a cache keeps: some KiB, whatever the object holds.
    ///
    /// A text is cut only where it is longer than the API allows, which takes a CRD of another version, and such a spec is
    /// not followed; or where others than the operator wrote the status.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.target_metadata = self.target_metadata.kept();
        self.template = self.template.map(|template| Box::new(template.kept()));
        // Destructured without `..`, so that a new field gets a bound.
        let ManagedSecretSpec {
            name,
            description,
            value: _,
            value_from,
            generate,
            delivery: _,
            target,
            deletion_policy: _,
            history: _,
            version: _,
            overlap,
            suspend: _,
            expires,
            expiry_warning,
        } = &mut self.spec;
        clip(name, NAME_MAX);
        clip_some(expires, DATE_CHARACTERS);
        clip_some(expiry_warning, DURATION_CHARACTERS_MAX);
        clip_some(overlap, DURATION_CHARACTERS_MAX);
        clip_some(description, DESCRIPTION_MAX * CHARACTER_BYTES);
        if let Some(from) = value_from {
            clip(&mut from.secret_key_ref.name, SECRET_NAME_MAX);
            clip(&mut from.secret_key_ref.key, SECRET_KEY_MAX);
        }
        if let Some(Generate { length: _, alphabet: _, rotate_every, revision }) = generate {
            clip_some(rotate_every, DURATION_CHARACTERS_MAX);
            clip_some(revision, REVISION_MAX);
        }
        if let Some(Target {
            name,
            key,
            type_,
            labels: _,
            annotations: _,
            template: _,
            previous_key,
            adoption: _,
            restart,
        }) = target
        {
            clip_some(name, SECRET_NAME_MAX);
            clip_some(key, SECRET_KEY_MAX);
            clip_some(previous_key, SECRET_KEY_MAX);
            clip_some(type_, SECRET_TYPE_MAX);
            if let Some(workloads) = restart {
                workloads.truncate(RESTARTS_MAX);
                workloads.shrink_to_fit();
                for workload in workloads {
                    clip(&mut workload.name, SECRET_NAME_MAX);
                }
            }
        }
        clip_some(&mut self.status.revision, REVISION_MAX);
        if let Some(history) = &mut self.status.history {
            history.truncate(usize::try_from(HISTORY_MAX).unwrap_or_default());
            for earlier in history {
                clip(&mut earlier.created, STATUS_TEXT_MAX);
                clip_some(&mut earlier.delivered_until, STATUS_TEXT_MAX);
            }
        }
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|condition| CONDITIONS.contains(&condition.type_.as_str()));
            conditions.truncate(CONDITIONS.len());
            for condition in conditions {
                clip(&mut condition.message, STATUS_MESSAGE_BYTES_MAX);
                clip(&mut condition.reason, METADATA_KEY_MAX);
            }
        }
        self
    }

    /// The keys that the target's data can have: that of the value, those of the template, and that of the previous value.
    #[must_use]
    pub fn data_keys(&self) -> BTreeSet<&str> {
        self.template_keys().chain([self.spec.target_key()]).chain(overlap::key(&self.spec)).collect()
    }

    /// The key of the target's data that holds the value as it is, unless the template replaces it.
    #[must_use]
    pub fn value_key(&self) -> Option<&str> {
        let key = self.spec.target_key();
        (!self.template_keys().any(|replaced| replaced == key)).then_some(key)
    }

    /// The keys of a target that can be ours: now, and that of the value as status names it. They are what is read of one.
    #[must_use]
    pub fn keys_to_read(&self) -> BTreeSet<&str> {
        let mut keys = self.data_keys();
        keys.extend(self.status.target.as_ref().map(|target| target.key.as_str()));
        keys
    }

    /// The keys of the template.
    pub fn template_keys(&self) -> impl Iterator<Item = &str> {
        self.template.iter().flat_map(|template| template.keys())
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
///
/// A set holds at most [`OWNED_MAX`] names: the operator never owns as many, and anyone may apply under its name.
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

/// A Secret (record, target or one that the operator does not manage) as the reconciler knows it.
///
/// Read live, it has every label and annotation of the operator's and [`OTHERS_MAX`](bounded::OTHERS_MAX) others, and the
/// owner references that decide something. A cache keeps what [`SecretView::kept`] leaves.
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
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What the object has more of than a live view holds; a cache does not keep it.
    pub left_out: LeftOut,
    /// Owner references.
    pub owners: Vec<OwnerRef>,
    /// What our field manager owns of it.
    pub ours: OwnedFields,
    /// Keys of data that were left to an adopted Secret: what of it was given up, and stays. A cache does not keep them.
    pub left: BTreeSet<String>,
    /// The labels and annotations that our field manager owns.
    pub shape: Shape,
    /// The field manager other than ours that wrote last: whom an event about drift names.
    pub other_manager: Option<String>,
    /// `type`; not part of an object's metadata, so known only after a live read or a write of ours.
    pub type_: Option<String>,
    /// `immutable: true`, likewise.
    pub immutable: bool,
}

impl SecretView {
    /// Reduces a view to what a cache keeps: some KiB, whatever others put into the object's metadata.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.labels.retain(|key, _| LABELS.contains(&key.as_str()));
        let mut room = ANNOTATIONS_KEPT_BYTES;
        self.annotations.retain(|key, text| {
            let left = room.checked_sub(key.len() + text.len()).filter(|_| ANNOTATIONS.contains(&key.as_str()));
            room = left.unwrap_or(room);
            left.is_some()
        });
        self.left_out = LeftOut::default();
        self.left = BTreeSet::new();
        clip_some(&mut self.other_manager, MANAGER_MAX);
        // Kubernetes does not bound the type of a Secret.
        clip_some(&mut self.type_, SECRET_TYPE_MAX);
        let OwnedFields { labels, annotations, data, owner_uids, type_: _ } = &mut self.ours;
        keep(labels, &LABELS, OTHERS_KEPT_MAX);
        keep(annotations, &ANNOTATIONS, OTHERS_KEPT_MAX);
        keep(data, &[], DATA_KEYS_KEPT_MAX);
        keep(owner_uids, &[], OTHERS_KEPT_MAX);
        self
    }

    /// An annotation's text.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    /// Whether the watch on records and targets shows it.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.role().is_some_and(|role| ROLES.contains(&role))
    }

    /// The keys of an adopted Secret that we write and that were there before: they must not go when we give them up.
    pub fn found_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.annotation(ANNO_FOUND_KEY).filter(|_| !self.ours.type_).into_iter();
        keys.flat_map(|keys| keys.split(',')).filter(|key| self.ours.data.contains(*key))
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

/// A Secret read live, with the data that was asked for. The bytes are wiped when it is dropped.
#[derive(Default)]
pub struct LiveSecret {
    /// All but the data.
    pub view: SecretView,
    /// The data by key: under the keys that were asked for, those that our field managers own, and those of the earlier values
    /// of a record.
    pub data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl LiveSecret {
    /// Decodes an answer of the API server, with the data under these keys. There may be any number of others.
    pub fn read(answer: &[u8], keys: &[&str]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Object {
            metadata: SecretView,
            #[serde(rename = "type", default)]
            type_: Option<String>,
            #[serde(default)]
            immutable: Option<bool>,
        }
        let Object { metadata, mut type_, immutable } = serde_json::from_slice(answer)?;
        // Kubernetes does not bound the type of a Secret.
        clip_some(&mut type_, SECRET_TYPE_MAX);
        let view = SecretView { type_, immutable: immutable.unwrap_or(false), ..metadata };
        // A record that a backup put back may be another manager's. Which versions it holds, is not known before.
        let holds_some = view.role() == Some(ROLE_RECORD) || view.annotation(ANNO_HISTORY).is_some();
        let wanted = |key: &str| {
            keys.contains(&key)
                || view.ours.data.contains(key)
                || view.left.contains(key)
                || (holds_some && is_kept_key(key))
        };
        let data = Data(wanted).deserialize(&mut serde_json::Deserializer::from_slice(answer))?;
        Ok(Self { view, data })
    }
}

/// Keeps these keys, and so many others: that there are more is all that is asked of them.
fn keep(keys: &mut BTreeSet<String>, fixed: &[&str], others_max: usize) {
    let (mut kept, others): (BTreeSet<_>, BTreeSet<_>) =
        std::mem::take(keys).into_iter().partition(|key| fixed.contains(&key.as_str()));
    kept.extend(others.into_iter().take(others_max).map(|mut key| {
        clip(&mut key, METADATA_KEY_MAX);
        key
    }));
    *keys = kept;
}

/// Cuts a text that has more bytes than any that means something here. What is left is still too long, so that it is
/// equal to nothing that does.
fn clip(text: &mut String, max: usize) {
    if text.len() > max + 1 {
        text.truncate((0..=max + 1).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default());
        text.shrink_to_fit();
    }
}

fn clip_some(text: &mut Option<String>, max: usize) {
    if let Some(text) = text {
        clip(text, max);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
