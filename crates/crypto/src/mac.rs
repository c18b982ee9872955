//! The annotation that authenticates a record's metadata: `base64(seedId || HMAC-SHA256(MK, M))`.
//!
//! ```text
//! M = LP("MSE1/meta") || LP(each of the fields, in order) || CK                     without earlier values
//! M = LP("MSE1/meta") || LP(each of the fields, in order) || LP(history) || CK      with them
//! ```
//!
//! A record without earlier values has the MAC that it always had. The two forms cannot be confused: behind the fields
//! follow 32 bytes in the first one, and more in the second.
//!
//! CK, the record's key commitment, ties the metadata to one ciphertext. A watch that sees metadata alone can check all
//! of it, because the commitment is an annotation too.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::codec::{self, FieldTooLong};
use super::{Seed, SeedId};

/// How many texts every MAC covers.
pub const FIELDS: usize = 14;

/// The texts that every MAC covers, in the order of `docs/formats.md`. This crate gives them no meaning.
pub type Fields<'a> = [&'a str; FIELDS];

/// All that a MAC covers but the key commitment.
#[derive(Clone, Copy, Debug)]
pub struct Covered<'a> {
    /// The fields.
    pub fields: Fields<'a>,
    /// What the record says about the earlier values that it keeps; empty if it keeps none.
    pub history: &'a str,
}

/// Why metadata is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MacError {
    /// The annotation is not base64 of 40 bytes.
    #[error("the mac must be base64 of 40 bytes")]
    Malformed,
    /// The keyring lacks the seed. Worth one fresh look at the keyring.
    #[error("the keyring has no seed {0}")]
    SeedUnknown(SeedId),
    /// The metadata is not what was signed.
    #[error("the metadata does not match its mac")]
    Mismatch,
}

/// The text of the mac annotation.
pub fn sign(seed: &Seed, covered: &Covered<'_>, commitment: &[u8; 32]) -> Result<String, FieldTooLong> {
    let tag = keyed(seed, covered, commitment)?.finalize().into_bytes();
    Ok(BASE64_STANDARD.encode([seed.id().0.as_slice(), tag.as_slice()].concat()))
}

/// Checks the text of a mac annotation, in constant time.
pub fn verify<'k>(
    lookup: impl FnOnce(SeedId) -> Option<&'k Seed>,
    covered: &Covered<'_>,
    commitment: &[u8; 32],
    mac: &str,
) -> Result<(), MacError> {
    let decoded = BASE64_STANDARD.decode(mac).map_err(|_| MacError::Malformed)?;
    let (seed_id, tag) = decoded.split_first_chunk::<8>().ok_or(MacError::Malformed)?;
    let tag: &[u8; 32] = tag.try_into().map_err(|_| MacError::Malformed)?;
    let seed = lookup(SeedId(*seed_id)).ok_or(MacError::SeedUnknown(SeedId(*seed_id)))?;
    // A field that fits no length prefix was never signed.
    let keyed = keyed(seed, covered, commitment).map_err(|_| MacError::Mismatch)?;
    keyed.verify(tag.into()).map_err(|_| MacError::Mismatch)
}

/// The seed that the text of a mac annotation names, believed as far as a name goes; `None` if the text is not one.
#[must_use]
pub fn seed_named(mac: &str) -> Option<SeedId> {
    let decoded = BASE64_STANDARD.decode(mac).ok()?;
    let (seed_id, tag) = decoded.split_first_chunk::<8>()?;
    (tag.len() == 32).then_some(SeedId(*seed_id))
}

/// The text of the commitment annotation.
#[must_use]
pub fn commitment_text(commitment: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(commitment)
}

/// The commitment in the text of its annotation; `None` if the text is not one.
#[must_use]
pub fn parse_commitment(text: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// `HMAC-SHA256(MK, M)`, ready to finish or compare.
fn keyed(seed: &Seed, covered: &Covered<'_>, commitment: &[u8; 32]) -> Result<Hmac<Sha256>, FieldTooLong> {
    let mut message = Vec::with_capacity(512);
    codec::put(&mut message, b"MSE1/meta")?;
    for field in covered.fields {
        codec::put(&mut message, field.as_bytes())?;
    }
    if !covered.history.is_empty() {
        codec::put(&mut message, covered.history.as_bytes())?;
    }
    message.extend_from_slice(commitment);
    // HMAC's own rule for a key shorter than its block: zeros follow (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(seed.metadata_key().as_slice());
    let mut hmac = Hmac::<Sha256>::new((&*block).into());
    hmac.update(&message);
    Ok(hmac)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const VECTOR: &str = "o2XvHHnhG07q6N8G+RiuJj96iL2SYb7S9C+Ss3gqisoBzJMYcKYK7A==";
    const HISTORY: &str = "6:ZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY=:2026-11-23T08:20:00Z:valueFrom \
                           4:REREREREREREREREREREREREREREREREREREREREREQ=:2026-11-23T08:00:00Z:value";
    const VECTOR_WITH_HISTORY: &str = "o2XvHHnhG07D2+6LRO45Vjg7Yf2OmT8gQfnTrnDbdSbdW30gYEgcwg==";

    fn seed() -> Seed {
        Seed::new(Zeroizing::new([0x11; 32]))
    }

    fn commitment() -> [u8; 32] {
        *crate::mse1::Record::parse(&vector_record()).unwrap().commitment()
    }

    fn vector_record() -> Vec<u8> {
        hex::decode(include_str!("../tests/vectors/mse1.hex").split_whitespace().collect::<String>()).unwrap()
    }

    fn covered() -> Covered<'static> {
        let fields = [
            "prod",
            "db",
            "6f1c3f0e-0000-4000-8000-000000000001",
            "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11",
            "DB_PASSWORD",
            "",
            "2026-11-23T08:00:00Z",
            "2026-11-23T09:00:00Z",
            "2026-11-23T08:30:00Z",
            "7",
            "9",
            "Delete",
            "generate",
            "own:db:value",
        ];
        Covered { fields, history: "" }
    }

    /// The same with two earlier values.
    fn with_history() -> Covered<'static> {
        Covered { history: HISTORY, ..covered() }
    }

    #[test]
    fn matches_the_frozen_vector() {
        assert_eq!(sign(&seed(), &covered(), &commitment()).unwrap(), VECTOR);
        assert_eq!((seed_named(VECTOR), seed_named(&VECTOR[4..])), (Some(seed().id()), None));
        let seed = seed();
        assert_eq!(verify(|id| (id == seed.id()).then_some(&seed), &covered(), &commitment(), VECTOR), Ok(()));
    }

    #[test]
    fn every_field_is_covered() {
        let seed = seed();
        for place in 0..FIELDS {
            let mut forged = covered();
            forged.fields[place] = "x";
            assert_eq!(verify(|_| Some(&seed), &forged, &commitment(), VECTOR), Err(MacError::Mismatch), "{place}");
        }
        for bit in 0..256 {
            let mut other = commitment();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(|_| Some(&seed), &covered(), &other, VECTOR), Err(MacError::Mismatch), "{bit}");
        }
    }

    #[test]
    fn the_history_is_covered_where_there_is_one() {
        let seed = seed();
        assert_eq!(sign(&seed, &with_history(), &commitment()).unwrap(), VECTOR_WITH_HISTORY);
        let check = |covered: &Covered<'_>, mac| verify(|_| Some(&seed), covered, &commitment(), mac);
        assert_eq!(check(&with_history(), VECTOR_WITH_HISTORY), Ok(()));
        for (covered, mac) in [
            (with_history(), VECTOR),
            (covered(), VECTOR_WITH_HISTORY),
            (Covered { history: &HISTORY[1..], ..covered() }, VECTOR_WITH_HISTORY),
        ] {
            assert_eq!(check(&covered, mac), Err(MacError::Mismatch));
        }
    }

    #[test]
    fn text_cannot_move_from_one_field_to_the_next() {
        let mut shifted = covered();
        (shifted.fields[4], shifted.fields[5]) = ("DB_PASSWOR", "D");
        let seed = seed();
        assert_eq!(verify(|_| Some(&seed), &shifted, &commitment(), VECTOR), Err(MacError::Mismatch));
    }

    #[test]
    fn every_single_bit_flip_of_the_mac_is_refused() {
        let seed = seed();
        let decoded = BASE64_STANDARD.decode(VECTOR).unwrap();
        for bit in 0..decoded.len() * 8 {
            let mut flipped = decoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = BASE64_STANDARD.encode(&flipped);
            let verdict = verify(|id| (id == seed.id()).then_some(&seed), &covered(), &commitment(), &text);
            if bit < 64 {
                assert!(matches!(verdict, Err(MacError::SeedUnknown(_))), "{bit}");
            } else {
                assert_eq!(verdict, Err(MacError::Mismatch), "{bit}");
            }
        }
    }

    #[test]
    fn only_canonical_base64_of_forty_bytes_is_a_mac() {
        let seed = seed();
        let no_padding = VECTOR.trim_end_matches('=');
        let loose_bits = VECTOR.replace("7A==", "7B==");
        let short = BASE64_STANDARD.encode([0; 39]);
        let long = BASE64_STANDARD.encode([0; 41]);
        for text in ["", "o2Xv", no_padding, &loose_bits, &short, &long, &format!("{VECTOR}\n"), &format!(" {VECTOR}")]
        {
            assert_eq!(verify(|_| Some(&seed), &covered(), &commitment(), text), Err(MacError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_field_beyond_its_length_prefix_is_neither_signed_nor_believed() {
        let long = "x".repeat(65_536);
        let seed = seed();
        let mut covered = covered();
        covered.fields[5] = &long;
        assert_eq!(sign(&seed, &covered, &commitment()), Err(FieldTooLong));
        assert_eq!(verify(|_| Some(&seed), &covered, &commitment(), VECTOR), Err(MacError::Mismatch));
        let covered = Covered { history: &long, ..super::tests::covered() };
        assert_eq!(sign(&seed, &covered, &commitment()), Err(FieldTooLong));
    }

    #[test]
    fn the_commitment_survives_its_annotation() {
        let text = commitment_text(&commitment());
        assert_eq!(parse_commitment(&text), Some(commitment()));
        assert_eq!(parse_commitment(text.trim_end_matches('=')), None);
        assert_eq!(parse_commitment("AAAA"), None);
    }
}
