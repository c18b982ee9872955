//! What can be said of sealed text without a key: its head, its alphabet, its length, and that its base64 is canonical.
//!
//! In base64 each character holds six bits, so the fixed bytes of the head (seven of the suite; the high bits of the
//! scope; the high bits of the namespace's length) fix whole characters or narrow them:
//!
//! ```text
//! char   0..8      9               10..20  20             21                22               23..
//!        AWR6AAEAA [ghij…uv]       keyId   [Ag]           [Qgw]             A                the rest
//!        suite     2 bits of suite         scope, high:   scope 1, 2 or 3   length of the namespace: below 64
//!                                          g where kept
//! ```

use crate::limits::{SEALED_KEY_ID_BYTES, SEALED_MAX, SEALED_MIN, SEALED_PREFIX, SEALED_SUITE};

/// The suite's characters: `01 64 7a 00 01 00` and the high six bits of `02`.
const SUITE: &str = "AWR6AAEAA";
/// The character that holds the high bits of the scope byte, and which it may be: the low one where the text may be
/// delivered, the high one where it is kept.
const SCOPE_AT: usize = (SEALED_SUITE.len() + SEALED_KEY_ID_BYTES) / 3 * 4;
const SCOPE_HIGH: &str = "[Ag]";
/// Last characters of groups that hold one byte, and two: the bits that carry nothing are zero.
const LAST_OF_TWO: &str = "AQgw";
const LAST_OF_THREE: &str = "AEIMQUYcgkosw048";

/// The rule for `spec.value`, which may be anything that JSON has: `text` is the CEL expression for it.
pub(super) fn cel(text: &str) -> String {
    let prefix = SEALED_PREFIX.replace('.', r"\.");
    // 24 characters of head are six whole groups of four.
    format!(
        "type({text}) == string && {text}.size() >= {SEALED_MIN} && {text}.matches(r'^{prefix}{SUITE}[g-v][A-Za-z0-9_-]{{10}}{SCOPE_HIGH}[Qgw]A[A-Za-z0-9_-]([A-Za-z0-9_-]{{4}})*([A-Za-z0-9_-][{LAST_OF_TWO}]|[A-Za-z0-9_-]{{2}}[{LAST_OF_THREE}])?$')"
    )
}

/// CEL: the text is that of a value that is kept: the highest bit of its scope byte is set
/// ([`SEALED_KEPT_BIT`](crate::limits::SEALED_KEPT_BIT)). That byte begins a group of base64, so the bit is the
/// highest of one character, and stands for the upper half of the alphabet.
pub(super) fn kept_cel(text: &str) -> String {
    let prefix = SEALED_PREFIX.replace('.', r"\.");
    format!("{text}.matches(r'^{prefix}[A-Za-z0-9_-]{{{SCOPE_AT}}}[g-z0-9_-]')")
}

/// Whether `text` is well-formed sealed text; says nothing of who can open it.
#[must_use]
pub(crate) fn is_well_formed(text: &str) -> bool {
    let Some(body) = text.strip_prefix(SEALED_PREFIX).map(str::as_bytes) else { return false };
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    (SEALED_MIN..=SEALED_MAX).contains(&text.len())
        && body.iter().all(alphabet)
        && body.starts_with(SUITE.as_bytes())
        && (b'g'..=b'v').contains(&body[9])
        && b"Ag".contains(&body[SCOPE_AT])
        && b"Qgw".contains(&body[21])
        && body[22] == b'A'
        && match (body.len() % 4, body.last()) {
            (0, _) => true,
            (2, Some(last)) => LAST_OF_TWO.as_bytes().contains(last),
            (3, Some(last)) => LAST_OF_THREE.as_bytes().contains(last),
            _ => false,
        }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::limits::{SEALED_ENC_BYTES, SEALED_KEPT_BIT};

    fn text(scope: u8, namespace: &str, name: &str, bucket: usize) -> String {
        let mut bytes = SEALED_SUITE.to_vec();
        bytes.extend([0xff; 8]);
        bytes.push(scope);
        for part in [namespace, name] {
            bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes.resize(bytes.len() + SEALED_ENC_BYTES + bucket + 16, 0xab);
        format!("{SEALED_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn text_of_every_shape_that_the_format_allows_is_well_formed() {
        for (scope, namespace, name) in [(3, 0, 0), (2, 1, 0), (2, 63, 0), (1, 1, 1), (1, 63, 253), (1, 10, 11)] {
            for bucket in [64, 128, 16_384] {
                for scope in [scope, scope | SEALED_KEPT_BIT] {
                    let text = text(scope, &"n".repeat(namespace), &"m".repeat(name), bucket);
                    assert!(is_well_formed(&text), "{scope} {namespace} {name} {bucket}");
                }
            }
        }
        assert_eq!(text(3, "", "", 64).len(), SEALED_MIN);
        assert_eq!(text(1, &"n".repeat(63), &"m".repeat(253), 16_384).len(), SEALED_MAX);
    }

    #[test]
    fn the_suite_is_that_of_the_limits() {
        assert!(URL_SAFE_NO_PAD.encode(SEALED_SUITE).starts_with(SUITE));
    }

    #[test]
    fn no_scope_but_the_six_is_well_formed() {
        for scope in 0..=u8::MAX {
            let known = matches!(scope & !SEALED_KEPT_BIT, 1..=3);
            assert_eq!(is_well_formed(&text(scope, "prod", "db", 64)), known, "{scope}");
        }
    }

    #[test]
    fn other_text_is_not() {
        let good = text(1, "prod", "db", 64);
        assert!(is_well_formed(&good));
        for (at, with) in
            [(0, "M"), (5, "B"), (14, "A"), (14, "w"), (25, "B"), (26, "A"), (26, "B"), (27, "B"), (40, "+"), (40, "é")]
        {
            let mut bad = good.clone();
            bad.replace_range(at..=at, with);
            assert!(!is_well_formed(&bad), "{with} at {at}");
        }
        for bad in [
            "",
            "mss1.",
            "mss1.hunter2",
            "mss1.AWR6AAEAA",
            &good[..SEALED_MIN - 1],
            &format!("{good}\n"),
            &format!("{good}="),
        ] {
            assert!(!is_well_formed(bad));
        }
    }

    #[test]
    fn base64_that_another_encoder_would_not_write_is_refused() {
        for name in ["d", "db", "dbx"] {
            let good = text(1, "prod", name, 64);
            let last = good.chars().last().unwrap();
            for other in ('a'..='z').chain('A'..='Z').chain('0'..='9').filter(|other| *other != last) {
                let text = format!("{}{other}", &good[..good.len() - 1]);
                let canonical = URL_SAFE_NO_PAD.decode(&text[5..]).is_ok();
                assert_eq!(is_well_formed(&text), canonical);
            }
        }
    }
}
