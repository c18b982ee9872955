//! The two encodings every format shares: length-prefixed fields and padded values.

use zeroize::Zeroizing;

use crate::limits::{BUCKET_MAX, BUCKET_MIN};

/// A field is longer than its 16-bit length can say.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a field is longer than 65535 bytes")]
pub struct FieldTooLong;

/// Bytes of the length before a padded value.
const LENGTH: usize = 4;

/// Appends `LP(field)`: a u16 big-endian length, then the field.
pub(super) fn put(out: &mut Vec<u8>, field: &[u8]) -> Result<(), FieldTooLong> {
    let length = u16::try_from(field.len()).map_err(|_| FieldTooLong)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(field);
    Ok(())
}

/// Whether a padded value can have this length.
pub(super) fn is_bucket(length: usize) -> bool {
    length.is_power_of_two() && (BUCKET_MIN..=BUCKET_MAX).contains(&length)
}

/// `pad(value)`, with capacity for the tag that encryption appends. `None` if the value fits no bucket.
pub(super) fn pad(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let bucket = bucket_of(value.len())?;
    let length = u32::try_from(value.len()).ok()?;
    let mut out = Zeroizing::new(Vec::with_capacity(bucket + super::aead::TAG));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    out.resize(bucket, 0);
    Some(out)
}

/// The value inside `pad(value)`, or which rule of padding it breaks.
pub(super) fn unpad(padded: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let (length, rest) = padded.split_first_chunk::<LENGTH>().ok_or("must begin with a length")?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| "must hold the complete value")?;
    let (value, zeros) = rest.split_at_checked(length).ok_or("must hold the complete value")?;
    if bucket_of(length) != Some(padded.len()) {
        return Err("must be no longer than the value needs");
    }
    if zeros.iter().any(|byte| *byte != 0) {
        return Err("must be zeros");
    }
    Ok(Zeroizing::new(value.to_vec()))
}

/// The padded length of a value of this length.
fn bucket_of(length: usize) -> Option<usize> {
    let bucket = length.checked_add(LENGTH)?.checked_next_power_of_two()?.max(BUCKET_MIN);
    (bucket <= BUCKET_MAX).then_some(bucket)
}

/// Reads fields off the front of bytes from outside. Every read is checked; nothing panics.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(head)
    }

    /// The next length-prefixed field.
    pub(super) fn field(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(*self.array::<2>()?);
        let (head, rest) = self.rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some(head)
    }

    /// Everything not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_takes_the_smallest_bucket_that_holds_it() {
        for (length, bucket) in [(0, 64), (1, 64), (60, 64), (61, 128), (124, 128), (125, 256), (16380, 16384)] {
            assert_eq!(pad(&vec![7; length]).unwrap().len(), bucket, "{length}");
        }
        assert!(pad(&[7; 16381]).is_none());
    }

    #[test]
    fn there_are_nine_buckets() {
        let buckets: Vec<_> = (0..40_000).filter(|length| is_bucket(*length)).collect();
        assert_eq!(buckets, [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]);
    }

    #[test]
    fn each_rule_of_padding_is_enforced() {
        let padded = |length: u32, total: usize| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.resize(total, 0);
            bytes
        };
        assert_eq!(unpad(&padded(5, 64)).unwrap().as_slice(), [0; 5]);
        assert_eq!(unpad(&[0; 3]).unwrap_err(), "must begin with a length");
        assert_eq!(unpad(&padded(61, 64)).unwrap_err(), "must hold the complete value");
        assert_eq!(unpad(&padded(u32::MAX, 64)).unwrap_err(), "must hold the complete value");
        assert_eq!(unpad(&padded(60, 128)).unwrap_err(), "must be no longer than the value needs");
        assert_eq!(unpad(&padded(5, 65)).unwrap_err(), "must be no longer than the value needs");
        for place in 9..64 {
            let mut bytes = padded(5, 64);
            bytes[place] = 1;
            assert_eq!(unpad(&bytes).unwrap_err(), "must be zeros", "{place}");
        }
    }

    #[test]
    fn a_field_holds_at_most_what_its_length_can_say() {
        let mut out = Vec::new();
        assert_eq!(put(&mut out, &vec![0; 65536]), Err(FieldTooLong));
        assert!(out.is_empty());
        put(&mut out, b"ab").unwrap();
        assert_eq!(out, [0, 2, b'a', b'b']);
        put(&mut out, &vec![1; 65535]).unwrap();
        let mut reader = Reader::new(&out);
        assert_eq!(reader.field(), Some(&b"ab"[..]));
        assert_eq!(reader.field().map(<[u8]>::len), Some(65535));
        assert!(reader.rest().is_empty() && reader.field().is_none());
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back(value in proptest::collection::vec(any::<u8>(), 0..1000)) {
            let back = unpad(&pad(&value).unwrap()).unwrap();
            prop_assert_eq!(back.as_slice(), value.as_slice());
        }
    }
}
