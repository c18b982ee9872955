//! What can be said of sealed text without decoding it: enough for a rule in CEL, which has no base64.
//!
//! Passing here means "looks like sealed text"; [`super::Sealed::parse`] decides. Every sealed text passes.

use super::scope::{NAME_MAX, NAMESPACE_MAX};
use super::{ENC, SUITE};
use crate::crypto::aead;
use crate::crypto::codec::{BUCKET_MAX, BUCKET_MIN};

/// What every sealed text begins with.
pub const PREFIX: &str = "mss1.";
/// What follows [`PREFIX`] in every sealed text: base64 of the suite. The suite's 56 bits fill nine characters and two
/// bits of a tenth, which is therefore one of `g` to `v`.
pub const FIXED: &str = "AWR6AAEAA";
/// The characters after [`PREFIX`], as a regular expression's class (base64url, RFC 4648 section 5).
pub const ALPHABET: &str = "[A-Za-z0-9_-]";
/// Fewest characters of a sealed text: cluster scope, smallest bucket.
pub const LENGTH_MIN: usize = text_length(bytes(0, 0, BUCKET_MIN));
/// Most characters of a sealed text: the longest names, largest bucket.
pub const LENGTH_MAX: usize = text_length(bytes(NAMESPACE_MAX, NAME_MAX, BUCKET_MAX));

/// A regular expression (RE2) that every sealed text matches: prefix, suite, key id, then `A[Qgw]A` for the scope byte
/// (1, 2 or 3), which begins at a character, and the upper bits of the namespace's length.
///
/// With it go [`LENGTH_MIN`], [`LENGTH_MAX`], and that the length is not 2 modulo 4 (base64 without padding never has
/// 1 modulo 4 characters; the prefix has 5). The four together are [`well_formed`].
pub const PATTERN: &str = "^mss1[.]AWR6AAEAA[g-v][A-Za-z0-9_-]{10}A[Qgw]A[A-Za-z0-9_-]+$";

/// Characters from the suite to the scope byte: the tenth of the suite, and what is left of the key id.
const KEY_ID: usize = 10;

/// Whether this looks like sealed text: exactly what [`PATTERN`] and the rules for the length beside it say.
#[must_use]
pub fn well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(FIXED)) else { return false };
    let rest = rest.as_bytes();
    (LENGTH_MIN..=LENGTH_MAX).contains(&text.len())
        && text.len() % 4 != 2
        && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        && matches!(rest, [b'g'..=b'v', rest @ ..] if matches!(rest.get(KEY_ID..), Some([b'A', b'Q' | b'g' | b'w', b'A', ..])))
}

/// Bytes before base64.
const fn bytes(namespace: usize, name: usize, bucket: usize) -> usize {
    const KEY_ID_AND_SCOPE: usize = 8 + 1;
    SUITE.len() + KEY_ID_AND_SCOPE + 2 + namespace + 2 + name + ENC + bucket + aead::TAG
}

/// Characters of `bytes` bytes: four for three, unpadded.
const fn text_length(bytes: usize) -> usize {
    PREFIX.len() + (bytes * 4).div_ceil(3)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use crate::crypto::KeyId;
    use crate::crypto::mss1::{Scope, Sealed, header};

    /// Sealed text in format; it opens with no key.
    fn text(scope: &Scope, key_id: [u8; 8], bucket: usize) -> String {
        let mut bytes = header(KeyId(key_id), scope).unwrap();
        bytes.resize(bytes.len() + ENC + bucket + aead::TAG, 0xa5);
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    fn strict(namespace: usize, name: usize) -> Scope {
        Scope::Strict { namespace: "n".repeat(namespace), name: "o".repeat(name) }
    }

    #[test]
    fn every_length_that_sealed_text_can_have_is_well_formed() {
        let mut lengths = std::collections::BTreeSet::new();
        for bucket in (6..=14).map(|power| 1 << power) {
            let mut check = |scope: &Scope, namespace: usize, name: usize| {
                let text = text(scope, [0; 8], bucket);
                assert_eq!(text.len(), text_length(bytes(namespace, name, bucket)));
                assert!(well_formed(&text), "{scope} {bucket}");
                assert!(Sealed::parse(&text).is_ok(), "{scope} {bucket}");
                lengths.insert(text.len());
            };
            check(&Scope::Cluster, 0, 0);
            for namespace in 1..=NAMESPACE_MAX {
                check(&Scope::Namespace { namespace: "n".repeat(namespace) }, namespace, 0);
                check(&strict(namespace, 1), namespace, 1);
            }
            for name in 1..=NAME_MAX {
                check(&strict(NAMESPACE_MAX, name), NAMESPACE_MAX, name);
            }
        }
        assert_eq!((lengths.first(), lengths.last()), (Some(&LENGTH_MIN), Some(&LENGTH_MAX)));
        assert_eq!((LENGTH_MIN, LENGTH_MAX), (1632, 23813));
    }

    #[test]
    fn every_key_id_and_scope_is_well_formed() {
        let scopes = [Scope::Cluster, Scope::Namespace { namespace: "n".repeat(63) }, strict(63, 253), strict(1, 1)];
        for scope in &scopes {
            for byte in 0..=255 {
                assert!(well_formed(&text(scope, [byte; 8], 64)), "{scope} {byte}");
            }
        }
    }

    #[test]
    fn what_is_not_sealed_text_is_refused() {
        let good = text(&strict(4, 2), [0xe9; 8], 64);
        assert!(well_formed(&good));
        let with = |at: usize, character: &str| {
            let mut text = good.clone();
            text.replace_range(at..=at, character);
            text
        };
        let filler = "A".repeat(2000);
        for (what, text) in [
            ("empty", String::new()),
            ("a word", "mss1.hunter2".to_owned()),
            ("a long word", format!("mss1.hunter2{filler}")),
            ("no prefix", good[5..].to_owned()),
            ("capitals", with(0, "M")),
            ("another suite", with(13, "B")),
            ("the tenth character below", with(14, "f")),
            ("the tenth character above", with(14, "w")),
            ("scope 0", with(26, "A")),
            ("scope 4", with(25, "B")),
            ("a namespace of 64 characters", with(27, "B")),
            ("padding", format!("{good}==")),
            ("a line end", format!("{good}\n")),
            ("a character of plain base64", with(900, "+")),
            ("a space", with(900, " ")),
            ("not ASCII", with(900, "é")),
            ("one character short of any", good[..LENGTH_MIN - 1].to_owned()),
            ("longer than any", format!("{good}{}", "A".repeat(LENGTH_MAX))),
        ] {
            assert!(!well_formed(&text), "{what}");
        }
        let impossible: String =
            (0..4).map(|extra| format!("{good}{}", "A".repeat(extra))).find(|t| t.len() % 4 == 2).unwrap();
        assert!(!well_formed(&impossible));
    }
}
