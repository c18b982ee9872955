//! The metadata of a record, which holds everything about a secret but its value.
//!
//! ```text
//!  RecordMeta ──annotations──▶ a Secret's metadata ──StoredRecord::of──▶ StoredRecord ──verify──▶ authentic or not
//! ```
//!
//! The operator, `kubectl msec` and the tests read, print and authenticate metadata with these types alone. The text of
//! every field and its position under the MAC stand once, in `RecordMeta::fields`. `docs/formats.md` describes them for
//! other programs.

mod history;
mod open;
mod place;
mod rewrap;
mod take_over;

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_crypto::mac::{self, Covered, MacError};
use managed_secrets_crypto::{FieldTooLong, Seed, SeedId};

pub use self::history::{History, KeptVersion, Replaced, is_kept_key, kept_key};
pub use self::open::{Opened, Unopened, open, open_kept, stored};
pub use self::place::{Delivered, Source};
pub use self::rewrap::{NotRewrapped, Rewrapped, seeds_in};
pub use self::take_over::Misfit;
use crate::types::DeletionPolicy;
use crate::{keys, names};

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
    /// When name, description or value last changed, RFC 3339.
    pub updated: String,
    /// When the value last changed, RFC 3339.
    pub value_updated: String,
    /// Counts values, from 1.
    pub version: u64,
    /// Generation of the ManagedSecret that it was made from.
    pub generation: i64,
    /// The effective deletion policy.
    pub deletion_policy: DeletionPolicy,
    /// Where the value came from.
    pub source: Source,
    /// Where the value is delivered.
    pub target: Delivered,
    /// The earlier values that it keeps.
    pub history: History,
}

/// The key of the label or annotation that holds a field.
#[derive(Clone, Copy)]
enum Key {
    Label(&'static str),
    Annotation(&'static str),
}

impl RecordMeta {
    /// Object name of the record.
    #[must_use]
    pub fn object_name(&self) -> String {
        names::record_name(&self.name)
    }

    /// Every field but the history as its text, in the order in which the MAC covers them (after the namespace).
    fn fields(&self) -> [(Key, Cow<'_, str>); mac::FIELDS - 1] {
        // Without `..`: a new field must be stored and authenticated, or this does not compile.
        let Self {
            id,
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
            // Authenticated behind these, where there is one.
            history: _,
        } = self;
        [
            (Key::Annotation(keys::ANNO_OWNER), owner.into()),
            (Key::Annotation(keys::ANNO_UID), uid.into()),
            (Key::Label(keys::LABEL_ID), id.into()),
            (Key::Annotation(keys::ANNO_NAME), name.into()),
            (Key::Annotation(keys::ANNO_DESCRIPTION), description.into()),
            (Key::Annotation(keys::ANNO_CREATED), created.into()),
            (Key::Annotation(keys::ANNO_UPDATED), updated.into()),
            (Key::Annotation(keys::ANNO_VALUE_UPDATED), value_updated.into()),
            (Key::Annotation(keys::ANNO_VERSION), version.to_string().into()),
            (Key::Annotation(keys::ANNO_GENERATION), generation.to_string().into()),
            (Key::Annotation(keys::ANNO_DELETION_POLICY), policy_text(*deletion_policy).into()),
            (Key::Annotation(keys::ANNO_SOURCE), source.to_string().into()),
            (Key::Annotation(keys::ANNO_TARGET), target.to_string().into()),
        ]
    }

    /// Reads labels and annotations; `None` if one is missing or malformed.
    fn parse(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Option<Self> {
        let text = |key: &str| annotations.get(key).cloned();
        let version = canonical(annotations.get(keys::ANNO_VERSION)?)?;
        Some(Self {
            id: labels.get(keys::LABEL_ID)?.clone(),
            owner: text(keys::ANNO_OWNER)?,
            uid: text(keys::ANNO_UID)?,
            name: text(keys::ANNO_NAME)?,
            description: text(keys::ANNO_DESCRIPTION)?,
            created: text(keys::ANNO_CREATED)?,
            updated: text(keys::ANNO_UPDATED)?,
            value_updated: text(keys::ANNO_VALUE_UPDATED)?,
            version,
            generation: canonical(annotations.get(keys::ANNO_GENERATION)?)?,
            deletion_policy: parse_policy(annotations.get(keys::ANNO_DELETION_POLICY)?)?,
            source: Source::parse(annotations.get(keys::ANNO_SOURCE)?)?,
            target: Delivered::parse(annotations.get(keys::ANNO_TARGET)?)?,
            history: match annotations.get(keys::ANNO_HISTORY) {
                Some(text) => History::parse(text, version)?,
                None => History::default(),
            },
        })
    }

    /// The labels of the record.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let role = (keys::LABEL_ROLE.to_owned(), keys::ROLE_RECORD.to_owned());
        let fields = self.fields().into_iter().filter_map(|(key, text)| match key {
            Key::Label(key) => Some((key.to_owned(), text.into_owned())),
            Key::Annotation(_) => None,
        });
        fields.chain([role]).collect()
    }

    /// The annotations of the record: the fields, the key commitment of its bytes, and the MAC over all of it.
    ///
    /// # Errors
    /// If a field is longer than the MAC can cover (65,535 bytes).
    pub fn annotations(
        &self,
        namespace: &str,
        seed: &Seed,
        commitment: &[u8; 32],
    ) -> Result<BTreeMap<String, String>, FieldTooLong> {
        let mac = self.with_covered(namespace, |covered| mac::sign(seed, covered, commitment))?;
        let fields = self.fields().into_iter().filter_map(|(key, text)| match key {
            Key::Annotation(key) => Some((key, text.into_owned())),
            Key::Label(_) => None,
        });
        let history = (!self.history.is_empty()).then(|| (keys::ANNO_HISTORY, self.history.to_string()));
        let proof = [(keys::ANNO_COMMITMENT, mac::commitment_text(commitment)), (keys::ANNO_MAC, mac)];
        Ok(fields.chain(history).chain(proof).map(|(key, text)| (key.to_owned(), text)).collect())
    }

    /// What the MAC covers: the namespace, then every field, then the history.
    fn with_covered<T>(&self, namespace: &str, use_it: impl FnOnce(&Covered<'_>) -> T) -> T {
        let (texts, history) = (self.fields(), self.history.to_string());
        let mut fields = [namespace; mac::FIELDS];
        for (field, (_, text)) in fields[1..].iter_mut().zip(&texts) {
            *field = text;
        }
        use_it(&Covered { fields, history: &history })
    }
}

/// The metadata of a Secret under a record's name, read and not yet authenticated.
///
/// Any user who may write Secrets can have written it: reports may show it, and the operator acts on it only after
/// [`verify`](Self::verify).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredRecord {
    /// What it says about its secret.
    pub meta: RecordMeta,
    /// The key commitment of the record's bytes.
    pub commitment: [u8; 32],
    /// Id of the seed that it was made under.
    pub seed: SeedId,
    mac: String,
}

impl StoredRecord {
    /// Reads the metadata of a Secret called `name`; `None` if a field is missing or malformed, or if the Secret has
    /// another name than the record's own. A record under another name is a copy, even if it is authentic.
    #[must_use]
    pub fn parse(
        name: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Self> {
        let mac = annotations.get(keys::ANNO_MAC)?;
        let record = Self {
            meta: RecordMeta::parse(labels, annotations)?,
            commitment: mac::parse_commitment(annotations.get(keys::ANNO_COMMITMENT)?)?,
            seed: mac::seed_named(mac)?,
            mac: mac.clone(),
        };
        (record.meta.object_name() == name).then_some(record)
    }

    /// The same for the metadata of a Kubernetes object.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        Self::parse(metadata.name.as_deref()?, metadata.labels.as_ref()?, metadata.annotations.as_ref()?)
    }

    /// Checks that the operator of this keyring wrote every field, for a record in this namespace.
    ///
    /// # Errors
    /// [`MacError::SeedUnknown`] if `lookup` does not know the seed, [`MacError::Mismatch`] if a field was changed.
    pub fn verify<'k>(&self, namespace: &str, lookup: impl FnOnce(SeedId) -> Option<&'k Seed>) -> Result<(), MacError> {
        self.meta.with_covered(namespace, |covered| mac::verify(lookup, covered, &self.commitment, &self.mac))
    }
}

fn policy_text(policy: DeletionPolicy) -> &'static str {
    match policy {
        DeletionPolicy::Delete => "Delete",
        DeletionPolicy::Retain => "Retain",
    }
}

fn parse_policy(text: &str) -> Option<DeletionPolicy> {
    [DeletionPolicy::Delete, DeletionPolicy::Retain].into_iter().find(|policy| policy_text(*policy) == text)
}

/// A number in the one form that the operator writes: `007` and `+7` are other texts under the MAC.
fn canonical<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::types::SourceKind;

    const NAMESPACE: &str = "prod";
    const COMMITMENT: [u8; 32] = [7; 32];

    pub(super) fn meta() -> RecordMeta {
        RecordMeta {
            id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".into(),
            owner: "db".into(),
            uid: "6f1c3f0e-0000-4000-8000-000000000001".into(),
            name: "DB_PASSWORD".into(),
            description: "the one with ümlauts".into(),
            created: "2026-11-23T08:00:00Z".into(),
            updated: "2026-11-23T09:00:00Z".into(),
            value_updated: "2026-11-23T08:30:00Z".into(),
            version: 7,
            generation: 9,
            deletion_policy: DeletionPolicy::Retain,
            source: Source::Generate { revision: None },
            target: Delivered::None,
            history: History::default(),
        }
    }

    fn kept(version: u64) -> KeptVersion {
        let created = "2026-11-23T08:00:00Z".to_owned();
        KeptVersion { version, commitment: [9; 32], created, source: SourceKind::Generate }
    }

    fn stored(
        change: impl FnOnce(&mut BTreeMap<String, String>, &mut BTreeMap<String, String>),
        seed: &Seed,
    ) -> Option<StoredRecord> {
        let meta = meta();
        let (mut labels, mut annotations) = (meta.labels(), meta.annotations(NAMESPACE, seed, &COMMITMENT).unwrap());
        change(&mut labels, &mut annotations);
        StoredRecord::parse(&meta.object_name(), &labels, &annotations)
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let seed = Seed::generate().unwrap();
        let record = stored(|_, _| {}, &seed).unwrap();
        assert_eq!((&record.meta, record.commitment, record.seed), (&meta(), COMMITMENT, seed.id()));
        assert_eq!(record.verify(NAMESPACE, |id| (id == seed.id()).then_some(&seed)), Ok(()));
        assert_eq!(record.verify("test", |_| Some(&seed)), Err(MacError::Mismatch));
        assert_eq!(record.verify(NAMESPACE, |_| None), Err(MacError::SeedUnknown(seed.id())));
    }

    #[test]
    fn the_mac_covers_every_field() {
        let seed = Seed::generate().unwrap();
        let changes: [fn(&mut RecordMeta); mac::FIELDS] = [
            |meta| meta.id = "x".into(),
            |meta| meta.owner = "x".into(),
            |meta| meta.uid = "x".into(),
            |meta| meta.name = "x".into(),
            |meta| meta.description = "x".into(),
            |meta| meta.created = "x".into(),
            |meta| meta.updated = "x".into(),
            |meta| meta.value_updated = "x".into(),
            |meta| meta.version = 8,
            |meta| meta.generation = 10,
            |meta| meta.deletion_policy = DeletionPolicy::Delete,
            |meta| meta.source = Source::Sealed { sha256: "x".into() },
            |meta| meta.target = Delivered::Own { name: "x".into(), key: "x".into() },
            |meta| meta.history = History::new(vec![kept(6)]),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut forged = stored(|_, _| {}, &seed).unwrap();
            change(&mut forged.meta);
            assert_ne!(forged.meta, meta(), "{index}");
            assert_eq!(forged.verify(NAMESPACE, |_| Some(&seed)), Err(MacError::Mismatch), "{index}");
        }
        let mut other = stored(|_, _| {}, &seed).unwrap();
        other.commitment[31] ^= 1;
        assert_eq!(other.verify(NAMESPACE, |_| Some(&seed)), Err(MacError::Mismatch));
    }

    #[test]
    fn the_mac_covers_every_part_of_the_history() {
        let seed = Seed::generate().unwrap();
        let meta = RecordMeta { history: History::new(vec![kept(6), kept(4)]), ..meta() };
        let annotations = meta.annotations(NAMESPACE, &seed, &COMMITMENT).unwrap();
        let read = || StoredRecord::parse(&meta.object_name(), &meta.labels(), &annotations).unwrap();
        assert_eq!(read().meta, meta);
        assert_eq!(read().verify(NAMESPACE, |_| Some(&seed)), Ok(()));
        let changes: [fn(&mut KeptVersion); 4] = [
            |kept| kept.version = 5,
            |kept| kept.commitment[31] ^= 1,
            |kept| kept.created = "2026-11-23T08:00:01Z".into(),
            |kept| kept.source = SourceKind::Value,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut forged = read();
            let mut versions: Vec<_> = forged.meta.history.iter().cloned().collect();
            change(&mut versions[0]);
            forged.meta.history = History::new(versions);
            assert_eq!(forged.verify(NAMESPACE, |_| Some(&seed)), Err(MacError::Mismatch), "{index}");
        }
        let mut forged = read();
        let replaced = Replaced { version: 4, until: "2026-11-23T08:00:00Z".into() };
        forged.meta.history = forged.meta.history.with_replaced(Some(replaced));
        assert_eq!(forged.verify(NAMESPACE, |_| Some(&seed)), Err(MacError::Mismatch));
        for versions in [vec![], vec![kept(6)], vec![kept(6), kept(4), kept(3)]] {
            let mut forged = read();
            forged.meta.history = History::new(versions);
            assert_eq!(forged.verify(NAMESPACE, |_| Some(&seed)), Err(MacError::Mismatch));
        }
    }

    /// The cache of the operator keeps no others.
    #[test]
    fn every_label_and_annotation_of_a_record_is_a_known_one() {
        let meta = RecordMeta { history: History::new(vec![kept(6)]), ..meta() };
        let written = meta.annotations(NAMESPACE, &Seed::generate().unwrap(), &COMMITMENT).unwrap();
        assert!(written.keys().all(|key| keys::ANNOTATIONS.contains(&key.as_str())), "{written:?}");
        assert!(meta.labels().keys().all(|key| keys::LABELS.contains(&key.as_str())));
    }

    #[test]
    fn metadata_that_lacks_a_field_is_no_record() {
        let seed = Seed::generate().unwrap();
        for key in meta().annotations(NAMESPACE, &seed, &COMMITMENT).unwrap().into_keys() {
            assert_eq!(stored(|_, annotations| drop(annotations.remove(&key)), &seed), None, "{key}");
        }
        assert_eq!(stored(|labels, _| drop(labels.remove(keys::LABEL_ID)), &seed), None);
    }

    #[test]
    fn a_malformed_field_is_refused() {
        let seed = Seed::generate().unwrap();
        for (key, text) in [
            (keys::ANNO_VERSION, "007"),
            (keys::ANNO_VERSION, "+7"),
            (keys::ANNO_VERSION, "-1"),
            (keys::ANNO_GENERATION, "9.0"),
            (keys::ANNO_DELETION_POLICY, "retain"),
            (keys::ANNO_SOURCE, "value:abc"),
            (keys::ANNO_SOURCE, "valueFrom:uid:12"),
            (keys::ANNO_TARGET, "own:db"),
            (keys::ANNO_TARGET, "adopted:uid:db"),
            (keys::ANNO_TARGET, "None"),
            (keys::ANNO_HISTORY, ""),
            (keys::ANNO_HISTORY, "6:AAAA:2026-11-23T08:00:00Z:generate"),
            (keys::ANNO_COMMITMENT, "AAAA"),
            (keys::ANNO_MAC, "AAAA"),
            // Its own name no longer leads to this Secret.
            (keys::ANNO_NAME, "OTHER"),
        ] {
            let changed = stored(|_, all| drop(all.insert(key.to_owned(), text.to_owned())), &seed);
            assert_eq!(changed, None, "{key}: {text}");
        }
    }

    #[test]
    fn a_field_that_is_too_long_is_not_signed() {
        let long = RecordMeta { description: "x".repeat(65_536), ..meta() };
        assert_eq!(long.annotations(NAMESPACE, &Seed::generate().unwrap(), &COMMITMENT), Err(FieldTooLong));
    }
}
