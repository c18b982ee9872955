//! The metadata of a backing record: what its annotations say, and whether that can be believed.
//!
//! In: a [`SecretView`]. Out: [`RecordMeta`] with the verdict on its MAC, or the annotations and labels to write. All
//! of a record but its ciphertext is here, so a metadata-only watch knows everything that a restart needs.

use std::{collections::BTreeMap, fmt};

use managed_secrets_api::{keys, names, types::DeletionPolicy};
use managed_secrets_crypto::{
    SeedId,
    keyring::Keyring,
    mac::{self, MacInput},
};

use super::view::{Own, SecretView};

pub mod folded;

/// Which source a value came from, and that source's fingerprint; never anything derived from a plaintext.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// Sealed text, by its SHA-256 in hex.
    Sealed {
        /// SHA-256 of the text, in hex.
        sha256: String,
    },
    /// A key of a Secret.
    Secret {
        /// Uid of that Secret.
        uid: String,
        /// Its resourceVersion when it was read.
        resource_version: String,
        /// The key.
        key: String,
    },
    /// Made by the operator.
    Generate,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed { sha256 } => write!(f, "value:sha256:{sha256}"),
            Self::Secret { uid, resource_version, key } => write!(f, "valueFrom:{uid}:{resource_version}:{key}"),
            Self::Generate => f.write_str("generate"),
        }
    }
}

impl Source {
    fn parse(text: &str) -> Option<Self> {
        if text == "generate" {
            return Some(Self::Generate);
        }
        if let Some(sha256) = text.strip_prefix("value:sha256:") {
            return Some(Self::Sealed { sha256: sha256.to_owned() });
        }
        let mut parts = text.strip_prefix("valueFrom:")?.splitn(3, ':');
        Some(Self::Secret {
            uid: parts.next()?.to_owned(),
            resource_version: parts.next()?.to_owned(),
            key: parts.next()?.to_owned(),
        })
    }
}

/// Where a value is delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delivered {
    /// Into a Secret that we made.
    Own {
        /// Its name.
        name: String,
        /// The key of the value.
        key: String,
    },
    /// Into a Secret that existed before.
    Adopted {
        /// Its uid.
        uid: String,
        /// Its name.
        name: String,
        /// The key of the value.
        key: String,
    },
    /// Nowhere.
    None,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { name, key } => write!(f, "own:{name}:{key}"),
            Self::Adopted { uid, name, key } => write!(f, "adopted:{uid}:{name}:{key}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Delivered {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::None);
        }
        if let Some(rest) = text.strip_prefix("own:") {
            let (name, key) = rest.split_once(':')?;
            return Some(Self::Own { name: name.to_owned(), key: key.to_owned() });
        }
        let mut parts = text.strip_prefix("adopted:")?.splitn(3, ':');
        Some(Self::Adopted {
            uid: parts.next()?.to_owned(),
            name: parts.next()?.to_owned(),
            key: parts.next()?.to_owned(),
        })
    }

    /// Whether both name the same place; an adopted Secret and one of our own are the same place under one name.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Name and key of the Secret.
    #[must_use]
    pub fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::Own { name, key } | Self::Adopted { name, key, .. } => Some((name, key)),
            Self::None => None,
        }
    }
}

/// What a record says about its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecordMeta {
    /// The id (UUID).
    pub id: String,
    /// `metadata.name` of the ManagedSecret.
    pub owner: String,
    /// Uid of the ManagedSecret that it was written for.
    pub uid: String,
    /// The human-friendly name.
    pub name: String,
    /// The description.
    pub description: String,
    /// When the secret was created, RFC 3339.
    pub created: String,
    /// When name, description or value last moved, RFC 3339.
    pub updated: String,
    /// When the value last moved, RFC 3339.
    pub value_updated: String,
    /// Counts values, from 1.
    pub version: u64,
    /// Generation of the ManagedSecret that it was made from.
    pub generation: i64,
    /// The deletion policy in force.
    pub deletion_policy: DeletionPolicy,
    /// Where the value came from.
    pub source: Source,
    /// Where the value is delivered.
    pub target: Delivered,
}

impl RecordMeta {
    /// Object name of the record.
    #[must_use]
    pub fn object_name(&self) -> String {
        names::record_name(&self.name)
    }

    /// Reads annotations and labels; `None` where one is absent or malformed.
    #[must_use]
    pub fn parse(view: &SecretView) -> Option<Self> {
        let text = |key: &str| view.annotation(key).map(str::to_owned);
        Some(Self {
            id: view.id()?.to_owned(),
            owner: text(keys::ANNO_OWNER)?,
            uid: text(keys::ANNO_UID)?,
            name: text(keys::ANNO_NAME)?,
            description: text(keys::ANNO_DESCRIPTION)?,
            created: text(keys::ANNO_CREATED)?,
            updated: text(keys::ANNO_UPDATED)?,
            value_updated: text(keys::ANNO_VALUE_UPDATED)?,
            version: canonical(view.annotation(keys::ANNO_VERSION)?)?,
            generation: canonical(view.annotation(keys::ANNO_GENERATION)?)?,
            deletion_policy: match view.annotation(keys::ANNO_DELETION_POLICY)? {
                "Delete" => DeletionPolicy::Delete,
                "Retain" => DeletionPolicy::Retain,
                _ => return None,
            },
            source: Source::parse(view.annotation(keys::ANNO_SOURCE)?)?,
            target: Delivered::parse(view.annotation(keys::ANNO_TARGET)?)?,
        })
    }

    /// The annotations to write, beside the commitment and the MAC over all of it.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        // Destructured without `..`, so that a new field must be given its annotation.
        let Self {
            id: _,
            owner,
            uid,
            name,
            description,
            created,
            updated,
            value_updated,
            version,
            generation,
            deletion_policy,
            source,
            target,
        } = self;
        [
            (keys::ANNO_OWNER, owner.clone()),
            (keys::ANNO_UID, uid.clone()),
            (keys::ANNO_NAME, name.clone()),
            (keys::ANNO_DESCRIPTION, description.clone()),
            (keys::ANNO_CREATED, created.clone()),
            (keys::ANNO_UPDATED, updated.clone()),
            (keys::ANNO_VALUE_UPDATED, value_updated.clone()),
            (keys::ANNO_VERSION, version.to_string()),
            (keys::ANNO_GENERATION, generation.to_string()),
            (keys::ANNO_DELETION_POLICY, policy_text(*deletion_policy).to_owned()),
            (keys::ANNO_SOURCE, source.to_string()),
            (keys::ANNO_TARGET, target.to_string()),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text))
        .collect()
    }

    /// What the MAC covers.
    pub fn with_mac_input<T>(&self, namespace: &str, use_it: impl FnOnce(&MacInput<'_>) -> T) -> T {
        let (version, generation) = (self.version.to_string(), self.generation.to_string());
        let (source, target) = (self.source.to_string(), self.target.to_string());
        use_it(&MacInput {
            namespace,
            object: &self.owner,
            uid: &self.uid,
            id: &self.id,
            name: &self.name,
            description: &self.description,
            created: &self.created,
            updated: &self.updated,
            value_updated: &self.value_updated,
            version: &version,
            generation: &generation,
            deletion_policy: policy_text(self.deletion_policy),
            source: &source,
            target: &target,
        })
    }
}

fn policy_text(policy: DeletionPolicy) -> &'static str {
    match policy {
        DeletionPolicy::Delete => "Delete",
        DeletionPolicy::Retain => "Retain",
    }
}

/// A number written as we write it: `007` or `+7` would be another text for the MAC.
fn canonical<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

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
    /// It carries no record label: somebody else's Secret.
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
        let claimed_uid = view.annotation(keys::ANNO_UID).map(str::to_owned);
        if view.role() != Some(keys::ROLE_RECORD) && view.annotation(keys::ANNO_MAC).is_none() {
            return Self::NotARecord;
        }
        let forged = Self::Forged { claimed_uid: claimed_uid.clone() };
        let commitment = view.annotation(keys::ANNO_COMMITMENT).and_then(mac::parse_commitment);
        let (Some(meta), Some(mac), Some(commitment)) =
            (RecordMeta::parse(view), view.annotation(keys::ANNO_MAC), commitment)
        else {
            return forged;
        };
        // A record under another name than its own is a copy, however genuine.
        if meta.object_name() != view.name {
            return forged;
        }
        match meta.with_mac_input(namespace, |input| mac::verify(|id| keyring.seed(id), input, &commitment, mac)) {
            Ok(()) => Self::Valid { meta: Box::new(meta), commitment },
            Err(mac::MacError::SeedUnknown(seed)) => {
                Self::SeedUnknown { seed, claimed_uid: claimed_uid.unwrap_or_default() }
            }
            Err(_) => forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache keeps no others.
    #[test]
    fn every_annotation_of_a_record_is_a_known_one() {
        let meta = RecordMeta {
            id: String::new(),
            owner: String::new(),
            uid: String::new(),
            name: String::new(),
            description: String::new(),
            created: String::new(),
            updated: String::new(),
            value_updated: String::new(),
            version: 1,
            generation: 1,
            deletion_policy: DeletionPolicy::Delete,
            source: Source::Generate,
            target: Delivered::None,
        };
        let unknown: Vec<_> =
            meta.annotations().into_keys().filter(|key| !keys::ANNOTATIONS.contains(&key.as_str())).collect();
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn sources_and_targets_read_what_they_write() {
        for source in [
            Source::Sealed { sha256: "ab".repeat(32) },
            Source::Secret { uid: "u".into(), resource_version: "12".into(), key: "k.e_y".into() },
            Source::Generate,
        ] {
            assert_eq!(Source::parse(&source.to_string()), Some(source));
        }
        for target in [
            Delivered::Own { name: "db".into(), key: "value".into() },
            Delivered::Adopted { uid: "u-1".into(), name: "db".into(), key: "k".into() },
            Delivered::None,
        ] {
            assert_eq!(Delivered::parse(&target.to_string()), Some(target));
        }
        assert_eq!(canonical::<u64>("007"), None);
        assert_eq!(canonical::<u64>("7"), Some(7));
    }
}
