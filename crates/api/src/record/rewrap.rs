//! Moves a stored record, its metadata and its bytes, from one seed to another.
//!
//! A record names seeds in two places: in its MAC, and in the bytes of each value. They can be different ones, where an
//! earlier version wrote metadata under a newer seed and kept the bytes.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_crypto::{
    FieldTooLong, Seed, SeedId,
    mac::MacError,
    mse1::{self, Place, Record, RewrapError},
};

use super::{StoredRecord, is_kept_key};
use crate::keys::RECORD_DATA_KEY;

/// What is stored of a record that was re-wrapped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rewrapped {
    /// Every annotation of the record.
    pub annotations: BTreeMap<String, String>,
    /// The bytes of each value, by their key of the data.
    pub data: BTreeMap<String, Record>,
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

/// Whether a key of a record's data holds a value in the format MSE1: the present one, or one that is kept. One that the
/// operator has emptied holds none.
fn holds_a_value(key: &str, bytes: &[u8]) -> bool {
    key == RECORD_DATA_KEY || is_kept_key(key) && !bytes.is_empty()
}

impl StoredRecord {
    /// The seeds that a record names: in its metadata, and in the bytes of each value. Nothing of it is authenticated: a
    /// record that only looks as if it needed a seed counts as one that does.
    pub fn seeds_named<'d>(&self, data: impl IntoIterator<Item = (&'d str, &'d [u8])>) -> BTreeSet<SeedId> {
        seeds_in(data).chain([self.seed]).collect()
    }

    /// The record with its keys under the seed `to`. No value is opened.
    ///
    /// # Errors
    /// If its metadata is not authentic, or if one of its values cannot be unwrapped: then nothing of it may be written.
    pub fn rewrap<'k, 'd>(
        &self,
        namespace: &str,
        data: impl IntoIterator<Item = (&'d str, &'d [u8])>,
        lookup: impl Fn(SeedId) -> Option<&'k Seed>,
        to: &Seed,
    ) -> Result<Rewrapped, NotRewrapped> {
        self.verify(namespace, &lookup)?;
        let place = Place { namespace, object: &self.meta.owner };
        let mut rewrapped = BTreeMap::new();
        for (key, bytes) in data.into_iter().filter(|(key, bytes)| holds_a_value(key, bytes)) {
            let record = Record::parse(bytes).map_err(RewrapError::from)?;
            let is_current = key == RECORD_DATA_KEY;
            if is_current && (*record.commitment() != self.commitment || record.version() != self.meta.version) {
                return Err(NotRewrapped::Altered);
            }
            rewrapped.insert(key.to_owned(), mse1::rewrap(&record, &place, &lookup, to)?);
        }
        if !rewrapped.contains_key(RECORD_DATA_KEY) {
            return Err(NotRewrapped::Altered);
        }
        let annotations = self.meta.annotations(namespace, to, &self.commitment)?;
        Ok(Rewrapped { annotations, data: rewrapped })
    }
}

/// The seeds that a record's bytes name, whatever its metadata is worth.
pub fn seeds_in<'d>(data: impl IntoIterator<Item = (&'d str, &'d [u8])>) -> impl Iterator<Item = SeedId> {
    let values = data.into_iter().filter(|(key, bytes)| holds_a_value(key, bytes));
    values.filter_map(|(_, bytes)| Some(Record::parse(bytes).ok()?.seed_id()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_crypto::{Plaintext, mac};
    use zeroize::Zeroizing;

    use super::super::{open, tests::meta};
    use super::*;
    use crate::keys;

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
        fn new(metadata: &Seed, bytes: &Seed) -> Self {
            let (meta, record) = (meta(), sealed(bytes, meta().version));
            Self {
                labels: meta.labels(),
                annotations: meta.annotations(NAMESPACE, metadata, record.commitment()).unwrap(),
                data: [(RECORD_DATA_KEY.to_owned(), record.as_bytes().to_vec())].into(),
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
        for (metadata, bytes) in [(&old, &old), (&old, &older), (&new, &old), (&old, &new)] {
            let mut stored = Stored::new(metadata, bytes);
            stored.data.insert("value.3".to_owned(), sealed(&older, 3).as_bytes().to_vec());
            stored.data.insert("other".to_owned(), b"not a value".to_vec());
            stored.data.insert("value.2".to_owned(), Vec::new());
            let named = stored.parse().seeds_named(stored.data());
            assert_eq!(named, [metadata.id(), bytes.id(), older.id()].into());

            let after = stored.rewrap(&[&old, &older, &new], &new).unwrap();
            assert_eq!(after.data.keys().collect::<Vec<_>>(), ["value", "value.3"]);
            let record = StoredRecord::parse(&meta().object_name(), &stored.labels, &after.annotations).unwrap();
            let only_new = |id| (id == new.id()).then_some(&new);
            assert_eq!((&record.meta, record.verify(NAMESPACE, only_new)), (&meta(), Ok(())));
            let data = || after.data.iter().map(|(key, record)| (key.as_str(), record.as_bytes()));
            assert_eq!(record.seeds_named(data()), [new.id()].into());
            let place = Place { namespace: NAMESPACE, object: &meta().owner };
            let current = after.data[RECORD_DATA_KEY].as_bytes();
            let opened = open(current, &place, &record.meta, &record.commitment, only_new).unwrap();
            assert!(opened.value.same_as(&value()));
            assert!(mse1::open(&after.data["value.3"], &place, only_new).unwrap().same_as(&value()));
        }
    }

    #[test]
    fn a_record_that_does_not_verify_is_left_alone() {
        let [old, other, new] = seeds();
        let refused = |change: fn(&mut Stored, &Seed)| {
            let mut stored = Stored::new(&old, &old);
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
            stored.data.insert("value.3".to_owned(), b"garbage".to_vec());
        };
        assert!(matches!(refused(garbage), NotRewrapped::Bytes(RewrapError::Open(_))));
        let unknown = |stored: &mut Stored, other: &Seed| {
            stored.data.insert("value.3".to_owned(), sealed(other, 3).as_bytes().to_vec());
        };
        assert!(matches!(refused(unknown), NotRewrapped::Bytes(RewrapError::Open(_))));
        let unwrapped = |stored: &mut Stored, _: &Seed| {
            let bytes = stored.data.get_mut(RECORD_DATA_KEY).unwrap();
            // The last byte of the salt, behind a uid of 36 bytes.
            bytes[91] ^= 1;
        };
        assert!(matches!(refused(unwrapped), NotRewrapped::Bytes(RewrapError::Open(_))));
        let stored = Stored::new(&other, &old);
        assert_eq!(stored.rewrap(&[&old, &new], &new), Err(NotRewrapped::Metadata(MacError::SeedUnknown(other.id()))));
        assert_eq!(mac::seed_named(&stored.annotations[keys::ANNO_MAC]), Some(other.id()));
    }
}
