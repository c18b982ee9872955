//! What a record says of itself in its metadata.
//!
//! Readable without a key, and believed as far as a report goes: the operator checks its mac before it acts on any of
//! it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keys::{
    ANNO_CREATED, ANNO_DELETION_POLICY, ANNO_MAC, ANNO_NAME, ANNO_OWNER, ANNO_TARGET, ANNO_UID, ANNO_UPDATED,
    ANNO_VALUE_UPDATED, ANNO_VERSION, LABEL_ID,
};
use managed_secrets_api::names::record_name;
use managed_secrets_crypto::{SeedId, mac};

/// A record's metadata, as far as people ask for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RecordInfo {
    /// The human-friendly name.
    pub(crate) name: String,
    /// `metadata.name` of its ManagedSecret.
    pub(crate) owner: String,
    /// The uid of that one when the record was last written.
    pub(crate) uid: String,
    /// The id.
    pub(crate) id: String,
    /// When the secret was created.
    pub(crate) created: String,
    /// When name, description or value last changed.
    pub(crate) updated: String,
    /// When the value last changed.
    pub(crate) value_updated: String,
    /// The value's version.
    pub(crate) version: i64,
    /// The effective deletion policy.
    pub(crate) deletion_policy: String,
    /// The seed that it was made under.
    pub(crate) seed: SeedId,
    target: String,
}

impl RecordInfo {
    /// Reads it; none where something is missing, or stands under another's name.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        let info = Self {
            name: annotation(ANNO_NAME)?,
            owner: annotation(ANNO_OWNER)?,
            uid: annotation(ANNO_UID)?,
            id: metadata.labels.as_ref()?.get(LABEL_ID)?.clone(),
            created: annotation(ANNO_CREATED)?,
            updated: annotation(ANNO_UPDATED)?,
            value_updated: annotation(ANNO_VALUE_UPDATED)?,
            version: annotation(ANNO_VERSION)?.parse().ok()?,
            deletion_policy: annotation(ANNO_DELETION_POLICY)?,
            seed: mac::seed_named(&annotation(ANNO_MAC)?)?,
            target: annotation(ANNO_TARGET)?,
        };
        (metadata.name.as_deref() == Some(&record_name(&info.name))).then_some(info)
    }

    /// Name and key of the Secret that it delivers into, as the annotation has it: `own:NAME:KEY`,
    /// `adopted:UID:NAME:KEY` or `none`.
    pub(crate) fn delivered(&self) -> Option<(&str, &str)> {
        let place = match self.target.split_once(':')? {
            ("own", place) => place,
            ("adopted", rest) => rest.split_once(':')?.1,
            _ => return None,
        };
        place.split_once(':')
    }
}
