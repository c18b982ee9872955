//! Moves a record from one seed to another, without opening its payload.

use super::{
    Fields, OpenError, PayloadKeys, Place, Record, SealError, Seed, SeedId, UID_MAX, WRAPPED, aead, associated_data,
    random, unwrap, wrap,
};

/// Bytes that a re-wrap replaces: seed id, salt, nonce and wrapped DEK.
const REPLACED: usize = 8 + 32 + aead::NONCE + WRAPPED;
/// Bytes before the uid's text: magic, suite, purpose, version, and the uid's length.
const BEFORE_UID: usize = 4 + 1 + 1 + 8 + 2;

/// Why a record was not re-wrapped. It stays as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RewrapError {
    /// Its wrapped key does not open, or is not the key that the record commits to.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The key could not be wrapped again.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Wraps the record's key under `to`: the seed id, and 92 bytes after it, are new, all others stay. The payload is not
/// opened, so no plaintext exists at any time.
///
/// # Errors
/// [`RewrapError::Open`] as [`open`](super::open), except for what only the payload can show.
pub fn rewrap<'k>(
    record: &Record,
    place: &Place<'_>,
    lookup: impl FnOnce(SeedId) -> Option<&'k Seed>,
    to: &Seed,
) -> Result<Record, RewrapError> {
    let fields = Fields::read(&record.bytes)?;
    let from = lookup(record.seed_id).ok_or(OpenError::SeedUnknown(record.seed_id))?;
    let aad = |label| associated_data(label, place, &record.uid, record.version).map_err(|_| OpenError::Wrap);
    let wrap_aad = aad("MSE1/wrap")?;
    let dek = unwrap(from, &fields, &wrap_aad)?;
    PayloadKeys::derive(&dek, &aad("MSE1/payload")?).matches(&fields)?;

    let (salt, nonce) = (random::bytes().map_err(SealError::from)?, random::bytes().map_err(SealError::from)?);
    let wrapped = wrap(to, &salt, &nonce, &wrap_aad, &dek)?;
    let mut replaced = Vec::with_capacity(REPLACED);
    for part in [to.id().0.as_slice(), salt.as_slice(), nonce.as_slice(), wrapped.as_slice()] {
        replaced.extend_from_slice(part);
    }
    debug_assert!(replaced.len() == REPLACED && record.uid.len() <= UID_MAX, "the format has fixed lengths here");
    let mut bytes = record.bytes.clone();
    let start = BEFORE_UID + record.uid.len();
    bytes.splice(start..start + REPLACED, replaced);
    Ok(Record::parse(&bytes)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::super::{Plaintext, open, seal};
    use super::*;

    const PLACE: Place<'static> = Place { namespace: "prod", object: "db" };

    fn seed_of(byte: u8) -> Seed {
        Seed::new(Zeroizing::new([byte; 32]))
    }

    fn vector() -> Vec<u8> {
        let hex: String = include_str!("../../tests/vectors/mse1.hex").split_whitespace().collect();
        hex::decode(hex).unwrap()
    }

    fn rewrapped(bytes: &[u8], place: &Place<'_>) -> Result<Record, RewrapError> {
        let from = seed_of(0x11);
        rewrap(&Record::parse(bytes)?, place, |id| (id == from.id()).then_some(&from), &seed_of(0x22))
    }

    #[test]
    fn the_vector_opens_under_the_new_seed_and_differs_in_the_hundred_bytes_only() {
        let (before, after) = (vector(), rewrapped(&vector(), &PLACE).unwrap());
        let new = seed_of(0x22);
        assert_eq!(after.seed_id(), new.id());
        let value = open(&after, &PLACE, |id| (id == new.id()).then_some(&new)).unwrap();
        assert!(value.same_as(&Plaintext::new(Zeroizing::new(b"hunter2".to_vec())).unwrap()));
        let old = seed_of(0x11);
        let error = open(&after, &PLACE, |id| (id == old.id()).then_some(&old)).err();
        assert_eq!(error, Some(OpenError::SeedUnknown(new.id())));
        // 52 bytes before the seed id, in a record whose uid has 36.
        let bytes = after.as_bytes();
        assert_eq!((bytes.len(), &bytes[..52], &bytes[152..]), (before.len(), &before[..52], &before[152..]));
        for (name, range) in [("seed id", 52..60), ("salt", 60..92), ("nonce", 92..104), ("wrapped DEK", 104..152)] {
            assert_ne!(bytes[range.clone()], before[range], "{name}");
        }
        // Nothing of a wrap is used twice.
        let again = rewrapped(&vector(), &PLACE).unwrap();
        assert_ne!(again.as_bytes()[60..104], bytes[60..104]);
    }

    #[test]
    fn what_does_not_unwrap_is_left_alone() {
        let elsewhere = Place { namespace: "prod", object: "db2" };
        assert_eq!(rewrapped(&vector(), &elsewhere), Err(OpenError::Wrap.into()));
        let unknown = rewrap(&Record::parse(&vector()).unwrap(), &PLACE, |_| None, &seed_of(0x22));
        assert_eq!(unknown, Err(OpenError::SeedUnknown(seed_of(0x11).id()).into()));
        // Version, uid and wrap are authenticated by the wrap, the commitment by the key. The payload is not looked at.
        for byte in 6..vector().len() {
            let mut altered = vector();
            altered[byte] ^= 1;
            let result = rewrapped(&altered, &PLACE);
            assert_eq!(result.is_ok(), byte >= 184, "byte {byte}: {result:?}");
        }
    }

    proptest! {
        #[test]
        fn any_record_keeps_its_value_over_any_number_of_seeds(
            value in "[ -~]{1,300}", uid in "[a-z0-9-]{0,64}", version: u64, seeds in prop::collection::vec(any::<u8>(), 1..5),
        ) {
            let value = Plaintext::new(Zeroizing::new(value.into_bytes())).unwrap();
            let mut from = seed_of(0);
            let first = seal(&from, &PLACE, &uid, version, &value).unwrap();
            let mut record = first.clone();
            for byte in seeds {
                let to = seed_of(byte);
                record = rewrap(&record, &PLACE, |id| (id == from.id()).then_some(&from), &to).unwrap();
                from = to;
            }
            prop_assert_eq!((record.version(), record.uid(), record.commitment()), (version, &*uid, first.commitment()));
            prop_assert!(open(&record, &PLACE, |id| (id == from.id()).then_some(&from)).unwrap().same_as(&value));
            let start = BEFORE_UID + uid.len();
            prop_assert_eq!(&record.as_bytes()[..start], &first.as_bytes()[..start]);
            prop_assert_eq!(&record.as_bytes()[start + REPLACED..], &first.as_bytes()[start + REPLACED..]);
        }
    }
}
