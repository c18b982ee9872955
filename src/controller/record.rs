//! Whether the metadata of a Secret can be believed to be that of a record.
//!
//! In: a [`SecretView`]. Out: [`Authenticity`]. A record's metadata holds all of it but the ciphertext, so a
//! metadata-only watch knows everything that a restart needs.

use managed_secrets_api::{keys, names, record::StoredRecord};
use managed_secrets_crypto::{SeedId, keyring::Keyring, mac::MacError};

pub use managed_secrets_api::record::{Delivered, RecordMeta, Source};

use super::view::{Own, SecretView};

pub mod folded;

/// Whether a Secret at a record's place can be believed to be a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Authenticity {
    /// The MAC is valid: every field of the metadata was written by an operator with this keyring.
    Valid {
        /// What it says.
        meta: Box<RecordMeta>,
        /// The key commitment that the MAC covers.
        commitment: [u8; 32],
    },
    /// It was made under a seed that the keyring lacks.
    SeedUnknown {
        /// That seed.
        seed: SeedId,
        /// What it claims; only to say so.
        claimed_uid: String,
    },
    /// It carries a record's label or name, and cannot be verified.
    Forged {
        /// The uid that it claims; only to say so.
        claimed_uid: Option<String>,
    },
    /// It has no record label, so the operator did not write it as a record.
    NotARecord,
}

impl Authenticity {
    /// Judges a Secret that an object works with. A record whose description the API server [folded](folded) counts
    /// as valid, with the description that its MAC was made for.
    #[must_use]
    pub fn for_object(view: &SecretView, own: &Own, keyring: &Keyring) -> Self {
        let judged = Self::of(view, &own.namespace, keyring);
        let (Self::Forged { claimed_uid }, Some(stored)) = (&judged, view.annotation(keys::ANNO_DESCRIPTION)) else {
            return judged;
        };
        let wanted = own.spec.description();
        let wanted = (wanted != stored && folded::fold(wanted) == stored).then(|| wanted.to_owned());
        // The description may have been edited since. Only the object's own record is worth more than one try: a Secret
        // that is none could otherwise cost many, and only the operator creates Secrets under the names of records.
        let is_own_place = view.name == names::record_name(&own.spec.name)
            || own.status.record.as_ref().is_some_and(|record| record.name == view.name);
        let unfoldings = (is_own_place && *claimed_uid == Some(own.uid.clone())).then(|| folded::unfoldings(stored));
        let mut meant = view.clone();
        for description in wanted.into_iter().chain(unfoldings.into_iter().flatten()) {
            meant.annotations.insert(keys::ANNO_DESCRIPTION.to_owned(), description);
            let unfolded = Self::of(&meant, &own.namespace, keyring);
            if matches!(unfolded, Self::Valid { .. }) {
                return unfolded;
            }
        }
        judged
    }

    /// Judges a Secret by its metadata alone (microseconds).
    #[must_use]
    pub fn of(view: &SecretView, namespace: &str, keyring: &Keyring) -> Self {
        if view.role() != Some(keys::ROLE_RECORD) && view.annotation(keys::ANNO_MAC).is_none() {
            return Self::NotARecord;
        }
        let forged = || Self::Forged { claimed_uid: view.annotation(keys::ANNO_UID).map(str::to_owned) };
        let Some(record) = StoredRecord::parse(&view.name, &view.labels, &view.annotations) else { return forged() };
        match record.verify(namespace, |id| keyring.seed(id)) {
            Ok(()) => Self::Valid { meta: Box::new(record.meta), commitment: record.commitment },
            Err(MacError::SeedUnknown(seed)) => Self::SeedUnknown { seed, claimed_uid: record.meta.uid },
            Err(MacError::Malformed | MacError::Mismatch) => forged(),
        }
    }
}
