//! Moves a stored record, its metadata and its bytes, from one seed to another.
//!
//! A record names seeds in two places: in its MAC, and in the bytes of each value. They can be different ones, where an
//! earlier version wrote metadata under a newer seed and kept the bytes.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_crypto::{
    FieldTooLong, Seed, SeedId,
    mac::MacError,
    mse1::{self, OpenError, Place, Record, RewrapError},
};

use super::{StoredRecord, is_kept_key, stored};
use crate::keys::RECORD_DATA_KEY;

/// What is stored of a record that was re-wrapped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rewrapped {
    /// Every annotation of the record.
    pub annotations: BTreeMap<String, String>,
    /// The bytes of each value, by their key of the data.
    pub data: BTreeMap<String, Record>,
    /// Keys of the data that are to hold nothing: they held an earlier value that was changed. Leaving one out would not
    /// remove it where another field manager owns it.
    pub emptied: BTreeSet<String>,
}

/// Why a record was not re-wrapped. It stays as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotRewrapped {
    /// Its metadata is not authentic, or is under a seed that is not there.
    #[error(transparent)]
    Metadata(#[from] MacError),
    /// It has no bytes, or bytes that its metadata does not describe.
    #[error("the record holds bytes that differ from its metadata")]
    Altered,
    /// Its bytes cannot be re-wrapped.
    #[error(transparent)]
    Bytes(#[from] RewrapError),
    /// A field is too long to be authenticated. Cannot happen with metadata that is authentic.
    #[error(transparent)]
    Field(#[from] FieldTooLong),
}

/// Whether a key of a record's data holds a value in the format MSE1: the present one, or an earlier one.
fn holds_a_value(key: &str) -> bool {
    key == RECORD_DATA_KEY || is_kept_key(key)
}

impl StoredRecord {
    /// Whether metadata or values of this record are under one of these seeds. Only values count that the metadata describes.
    pub fn is_under<'d>(&self, data: impl IntoIterator<Item = (&'d str, &'d [u8])>, seeds: &BTreeSet<SeedId>) -> bool {
        let values = data.into_iter().filter(|(key, _)| self.version_of(key).is_some());
        seeds.contains(&self.seed) || seeds_in(values).any(|seed| seeds.contains(&seed))
    }

    /// The record with its keys under the seed `to`. No value is opened. Keys of the data that the metadata does not describe
    /// are left out. Earlier values that were changed are emptied, because nothing opens them any more. An earlier value whose
    /// seed is not there stays as it is.
    ///
    /// # Errors
    /// If its metadata is not authentic, or if its newest value cannot be unwrapped: then nothing of it may be written.
    pub fn rewrap<'k, 'd>(
        &self,
        namespace: &str,
        data: impl IntoIterator<Item = (&'d str, &'d [u8])>,
        lookup: impl Fn(SeedId) -> Option<&'k Seed>,
        to: &Seed,
    ) -> Result<Rewrapped, NotRewrapped> {
        self.verify(namespace, &lookup)?;
        let place = Place { namespace, object: &self.meta.owner };
        let (mut rewrapped, mut emptied) = (BTreeMap::new(), BTreeSet::new());
        for (key, bytes) in data {
            let Some((version, commitment)) = self.version_of(key) else { continue };
            let is_earlier = key != RECORD_DATA_KEY;
            let Some(record) = stored(bytes, version, commitment) else {
                // An earlier value must not hold up the others.
                if is_earlier {
                    emptied.extend((!bytes.is_empty()).then(|| key.to_owned()));
                    continue;
                }
                return Err(NotRewrapped::Altered);
            };
            let moved = match mse1::rewrap(&record, &place, &lookup, to) {
                Err(RewrapError::Open(OpenError::SeedUnknown(_))) if is_earlier => record,
                Err(RewrapError::Open(_)) if is_earlier => {
                    emptied.insert(key.to_owned());
                    continue;
                }
                moved => moved?,
            };
            rewrapped.insert(key.to_owned(), moved);
        }
        if !rewrapped.contains_key(RECORD_DATA_KEY) {
            return Err(NotRewrapped::Altered);
        }
        let annotations = self.meta.annotations(namespace, to, &self.commitment)?;
        Ok(Rewrapped { annotations, data: rewrapped, emptied })
    }

    /// The version and the key commitment of the value that the metadata describes under a key of the data.
    fn version_of(&self, key: &str) -> Option<(u64, &[u8; 32])> {
        if key == RECORD_DATA_KEY {
            return Some((self.meta.version, &self.commitment));
        }
        let kept = self.meta.history.iter().find(|kept| kept.data_key() == key)?;
        Some((kept.version, &kept.commitment))
    }
}

/// The seeds that a record's bytes name, whatever its metadata is worth.
pub fn seeds_in<'d>(data: impl IntoIterator<Item = (&'d str, &'d [u8])>) -> impl Iterator<Item = SeedId> {
    let values = data.into_iter().filter(|(key, _)| holds_a_value(key));
    values.filter_map(|(_, bytes)| Some(Record::parse(bytes).ok()?.seed_id()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_crypto::{Plaintext, mac};
    use zeroize::Zeroizing;

    use super::super::{History, KeptVersion, RecordMeta, open, open_kept, tests::meta};
    use super::*;
    use crate::{keys, types::SourceKind};

    const NAMESPACE: &str = "prod";

    /// A record as it is stored, whose metadata and bytes may be under different seeds.
    struct Stored {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        data: BTreeMap<String, Vec<u8>>,
    }

    fn value() -> Plaintext {
        Plaintext::new(Zeroizing::new(b"only-an-example".to_vec())).unwrap()
    }

    fn sealed(seed: &Seed, version: u64) -> Record {
        let meta = meta();
        let place = Place { namespace: NAMESPACE, object: &meta.owner };
        mse1::seal(seed, &place, &meta.uid, version, &value()).unwrap()
    }

    impl Stored {
        /// A record with its value and an earlier one, version 3.
        fn new(metadata: &Seed, bytes: &Seed, earlier: &Seed) -> Self {
            let (record, third) = (sealed(bytes, meta().version), sealed(earlier, 3));
            let created = "2026-11-23T08:00:00Z".to_owned();
            let commitment = *third.commitment();
            let kept = KeptVersion { version: 3, commitment, created, source: SourceKind::Generate };
            let meta = RecordMeta { history: History::new(vec![kept]), ..meta() };
            let data = [(RECORD_DATA_KEY, record.as_bytes()), ("value.3", third.as_bytes())];
            Self {
                labels: meta.labels(),
                annotations: meta.annotations(NAMESPACE, metadata, record.commitment()).unwrap(),
                data: data.map(|(key, bytes)| (key.to_owned(), bytes.to_vec())).into(),
            }
        }

        fn parse(&self) -> StoredRecord {
            StoredRecord::parse(&meta().object_name(), &self.labels, &self.annotations).unwrap()
        }

        fn data(&self) -> impl Iterator<Item = (&str, &[u8])> {
            self.data.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()))
        }

        fn rewrap(&self, seeds: &[&Seed], to: &Seed) -> Result<Rewrapped, NotRewrapped> {
            let lookup = |id| seeds.iter().copied().find(|seed| seed.id() == id);
            self.parse().rewrap(NAMESPACE, self.data(), lookup, to)
        }
    }

    fn seeds() -> [Seed; 3] {
        [(); 3].map(|()| Seed::generate().unwrap())
    }

    #[test]
    fn metadata_and_every_value_move_to_the_new_seed() {
        let [old, older, new] = seeds();
        for (metadata, bytes, earlier) in
            [(&old, &old, &old), (&old, &older, &old), (&new, &old, &older), (&old, &new, &new), (&new, &new, &old)]
        {
            let mut stored = Stored::new(metadata, bytes, earlier);
            stored.data.insert("other".to_owned(), b"not a value".to_vec());
            let replaced = [old.id(), older.id()].into();
            assert!(stored.parse().is_under(stored.data(), &replaced));

            let after = stored.rewrap(&[&old, &older, &new], &new).unwrap();
            assert_eq!(after.data.keys().collect::<Vec<_>>(), ["value", "value.3"]);
            let record = StoredRecord::parse(&meta().object_name(), &stored.labels, &after.annotations).unwrap();
            let only_new = |id| (id == new.id()).then_some(&new);
            assert_eq!((&record.meta, record.verify(NAMESPACE, only_new)), (&stored.parse().meta, Ok(())));
            let data = || after.data.iter().map(|(key, record)| (key.as_str(), record.as_bytes()));
            assert!(!record.is_under(data(), &replaced) && seeds_in(data()).all(|seed| seed == new.id()));
            let place = Place { namespace: NAMESPACE, object: &meta().owner };
            let current = after.data[RECORD_DATA_KEY].as_bytes();
            let opened = open(current, &place, &record.meta, &record.commitment, only_new).unwrap();
            assert!(opened.value.same_as(&value()));
            let kept = record.meta.history.get(3).unwrap();
            let opened = open_kept(after.data["value.3"].as_bytes(), &place, kept, only_new).unwrap();
            assert!(opened.value.same_as(&value()));
        }
    }

    #[test]
    fn bytes_that_the_metadata_does_not_describe_neither_move_nor_hold_up_the_record() {
        let [old, stray, new] = seeds();
        let mut stored = Stored::new(&old, &old, &old);
        stored.data.insert("value.5".to_owned(), sealed(&stray, 5).as_bytes().to_vec());
        stored.data.insert("value.6".to_owned(), Vec::new());
        assert_eq!(stored.rewrap(&[&old, &new], &new).unwrap().data.keys().collect::<Vec<_>>(), ["value", "value.3"]);
        assert!(!stored.parse().is_under(stored.data(), &[stray.id()].into()));
        assert!(seeds_in(stored.data()).any(|seed| seed == stray.id()), "but they name the seed");
    }

    #[test]
    fn an_earlier_value_that_was_changed_does_not_hold_up_the_others() {
        let [old, other, new] = seeds();
        let changes: [fn(&mut Vec<u8>, &Seed); 4] = [
            |bytes, _| *bytes = b"garbage".to_vec(),
            // Authentic bytes of the same object, of this version under another commitment and of another version.
            |bytes, seed| *bytes = sealed(seed, 3).as_bytes().to_vec(),
            |bytes, seed| *bytes = sealed(seed, 2).as_bytes().to_vec(),
            // The last byte of the salt, behind a uid of 36 bytes: it does not unwrap.
            |bytes, _| bytes[91] ^= 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut stored = Stored::new(&old, &old, &old);
            change(stored.data.get_mut("value.3").unwrap(), &old);
            let after = stored.rewrap(&[&old, &new], &new).unwrap();
            assert_eq!(after.data.keys().collect::<Vec<_>>(), ["value"], "{number}");
            assert_eq!(after.emptied.iter().collect::<Vec<_>>(), ["value.3"], "{number}");
            let record = StoredRecord::parse(&meta().object_name(), &stored.labels, &after.annotations).unwrap();
            assert_eq!(record.meta, stored.parse().meta, "{number}");
            let data = after.data.iter().map(|(key, record)| (key.as_str(), record.as_bytes()));
            assert!(!record.is_under(data, &[old.id()].into()), "{number}");
        }

        // Once it is empty, it can be left out.
        let mut stored = Stored::new(&old, &old, &old);
        stored.data.insert("value.3".to_owned(), Vec::new());
        assert!(stored.rewrap(&[&old, &new], &new).unwrap().emptied.is_empty());

        // A keyring with its seed opens it again.
        let stored = Stored::new(&old, &old, &other);
        let after = stored.rewrap(&[&old, &new], &new).unwrap();
        assert_eq!(after.data["value.3"].as_bytes(), stored.data["value.3"]);
        assert_eq!(after.data["value"].seed_id(), new.id());
    }

    #[test]
    fn a_record_that_does_not_verify_is_left_alone() {
        let [old, other, new] = seeds();
        let refused = |change: fn(&mut Stored, &Seed)| {
            let mut stored = Stored::new(&old, &old, &old);
            change(&mut stored, &other);
            stored.rewrap(&[&old, &new], &new).unwrap_err()
        };
        let forged = |stored: &mut Stored, _: &Seed| {
            stored.annotations.insert(keys::ANNO_DESCRIPTION.to_owned(), "forged".to_owned());
        };
        assert_eq!(refused(forged), NotRewrapped::Metadata(MacError::Mismatch));
        assert_eq!(refused(|stored, _| stored.data.clear()), NotRewrapped::Altered);
        let exchanged = |stored: &mut Stored, _: &Seed| {
            // Authentic bytes of the same object and version, which the metadata does not describe.
            let seed = Seed::new(Zeroizing::new([1; 32]));
            stored.data.insert(RECORD_DATA_KEY.to_owned(), sealed(&seed, meta().version).as_bytes().to_vec());
        };
        assert_eq!(refused(exchanged), NotRewrapped::Altered);
        let garbage = |stored: &mut Stored, _: &Seed| {
            stored.data.insert(RECORD_DATA_KEY.to_owned(), b"garbage".to_vec());
        };
        assert_eq!(refused(garbage), NotRewrapped::Altered);
        let unwrapped = |stored: &mut Stored, _: &Seed| {
            let bytes = stored.data.get_mut(RECORD_DATA_KEY).unwrap();
            // The last byte of the salt, behind a uid of 36 bytes.
            bytes[91] ^= 1;
        };
        assert!(matches!(refused(unwrapped), NotRewrapped::Bytes(RewrapError::Open(_))));
        let stored = Stored::new(&old, &other, &old);
        assert!(matches!(stored.rewrap(&[&old, &new], &new), Err(NotRewrapped::Bytes(RewrapError::Open(_)))));
        let stored = Stored::new(&other, &old, &old);
        assert_eq!(stored.rewrap(&[&old, &new], &new), Err(NotRewrapped::Metadata(MacError::SeedUnknown(other.id()))));
        assert_eq!(mac::seed_named(&stored.annotations[keys::ANNO_MAC]), Some(other.id()));
    }
}
