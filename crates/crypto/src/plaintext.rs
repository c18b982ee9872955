//! The one type that holds a plaintext value.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{RandomError, random};
use crate::limits::{VALUE_MAX, VALUE_MIN};

/// A value: 1 to 3500 Unicode characters, kept byte for byte.
///
/// Zeroized on drop. It has no `Clone`, `Display` or `Serialize`; its `Debug` shows nothing. Code that takes the bytes
/// out ([`Plaintext::as_bytes`]) answers for them.
pub struct Plaintext(Zeroizing<Vec<u8>>);

/// Why bytes are not a value. The texts say the rule, never what was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// No characters.
    #[error("must not be empty")]
    Empty,
    /// More characters than a value may have.
    #[error(
        "must have at most {VALUE_MAX} characters; encrypt longer data with a key that you keep as a secret, and store \
         the ciphertext elsewhere"
    )]
    TooLong,
    /// Not text.
    #[error("must be valid UTF-8; encode binary data as base64, and decode it where it is used")]
    NotUtf8,
}

/// Why no value was generated.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GenerateError {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The length is out of the rule for values.
    #[error("a generated value {0}")]
    Value(#[from] ValueError),
    /// There is nothing to choose from, or a character is not one byte.
    #[error("an alphabet must be 1 to 128 ASCII characters")]
    Alphabet,
}

impl Plaintext {
    /// Checks the rule for values; keeps the bytes as they are.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, ValueError> {
        let characters = std::str::from_utf8(&bytes).map_err(|_| ValueError::NotUtf8)?.chars().count();
        check_length(characters)?;
        Ok(Self(bytes))
    }

    /// `length` characters, each chosen from `alphabet` (ASCII) with equal chance, from the operating system's
    /// randomness.
    pub fn generate(length: usize, alphabet: &[u8]) -> Result<Self, GenerateError> {
        check_length(length)?;
        if alphabet.is_empty() || alphabet.len() > 128 || !alphabet.is_ascii() {
            return Err(GenerateError::Alphabet);
        }
        // A byte beyond the last whole multiple would favour the alphabet's first characters: it is drawn again.
        let fair = 256 - 256 % alphabet.len();
        let mut value = Zeroizing::new(Vec::with_capacity(length));
        while value.len() < length {
            let drawn = random::bytes::<256>()?;
            let missing = length - value.len();
            let choices = drawn.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair);
            value.extend(choices.take(missing).map(|byte| alphabet[byte % alphabet.len()]));
        }
        Ok(Self(value))
    }

    /// The value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What about this value is seldom meant, as words that follow `the value`; `None` where there is nothing to say.
    ///
    /// Such a value is allowed, and is kept as it is. Most come from `echo`, from an editor, or from YAML's `|`, and
    /// the program that gets them refuses a password that looks right. The words depend on the kind of the finding
    /// alone: they repeat no part of the value and do not tell its length.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        // A `Plaintext` is UTF-8.
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        let mut found = Vec::new();
        if text.starts_with('\u{feff}') {
            found.push("begins with a byte-order mark");
        }
        if text.contains('\0') {
            found.push("contains NUL, which no environment variable can hold");
        }
        if text.ends_with(['\n', '\r']) {
            // A PEM file ends in one, and programs expect it (RFC 7468).
            if !is_pem(text) {
                found.push("ends in a line break, which `printf %s` and YAML's `|-` leave out");
            }
        } else if text.ends_with(char::is_whitespace) {
            found.push("ends in white space");
        }
        (!found.is_empty()).then(|| format!("{}; it is kept unchanged", found.join(", and ")))
    }

    /// Whether both are the same value; the time taken depends on lengths only.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.same_as_bytes(&other.0)
    }

    /// Whether this value is these bytes; the time taken depends on lengths only.
    #[must_use]
    pub fn same_as_bytes(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plaintext(…)")
    }
}

/// Whether a text is PEM: it begins with `-----BEGIN ` and its last line begins with `-----END `.
fn is_pem(text: &str) -> bool {
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    text.starts_with("-----BEGIN ") && last.starts_with("-----END ") && last.ends_with("-----")
}

fn check_length(characters: usize) -> Result<(), ValueError> {
    if characters < VALUE_MIN {
        Err(ValueError::Empty)
    } else if characters > VALUE_MAX {
        Err(ValueError::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use super::*;

    fn check(text: &[u8]) -> Result<Vec<u8>, ValueError> {
        Plaintext::new(Zeroizing::new(text.to_vec())).map(|value| value.as_bytes().to_vec())
    }

    #[test]
    fn characters_are_counted_and_bytes_are_kept() {
        assert_eq!(check(b""), Err(ValueError::Empty));
        for text in ["a", " ", "\n", "value\n", "\0", "e\u{301}", "\u{feff}x", &"a".repeat(3500), &"😀".repeat(3500)]
        {
            assert_eq!(check(text.as_bytes()).unwrap(), text.as_bytes());
        }
        assert_eq!(check("a".repeat(3501).as_bytes()), Err(ValueError::TooLong));
        assert_eq!(check("😀".repeat(3501).as_bytes()), Err(ValueError::TooLong));
        for text in [&b"\xff"[..], b"ab\xc3", b"\xed\xa0\x80", b"\xc0\x80"] {
            assert_eq!(check(text), Err(ValueError::NotUtf8));
        }
    }

    #[test]
    fn nothing_shows_in_debug_or_errors() {
        let value = Plaintext::new(Zeroizing::new(b"hunter2".to_vec())).unwrap();
        assert_eq!(format!("{value:?}"), "Plaintext(…)");
        let wrong = check(&[b'h'; 4321]).unwrap_err();
        assert!(wrong.to_string().starts_with("must have at most 3500 characters; "), "{wrong}");
        assert!(ValueError::NotUtf8.to_string().contains("base64"));
    }

    #[test]
    fn what_is_seldom_meant_is_remarked_without_the_value() {
        let pem = "-----BEGIN KEY-----\nhunter2\n-----END KEY-----\n";
        for (text, expected) in [
            ("hunter2", &[][..]),
            ("hunter2\nhunter2", &[]),
            (" hunter2", &[]),
            ("hunter2\u{feff}", &[]),
            (pem, &[]),
            (&pem.replace('\n', "\r\n"), &[]),
            (&pem[1..], &["ends in a line break"]),
            ("-----BEGIN KEY-----\n", &["ends in a line break"]),
            ("hunter2\n", &["ends in a line break"]),
            ("hunter2\r\n", &["ends in a line break"]),
            ("hunter2 \r", &["ends in a line break"]),
            ("\n", &["ends in a line break"]),
            ("hunter2 ", &["ends in white space"]),
            ("hunter2\t", &["ends in white space"]),
            ("hunter2\u{a0}", &["ends in white space"]),
            ("\u{feff}hunter2", &["begins with a byte-order mark"]),
            ("hun\0ter2", &["contains NUL"]),
            ("\u{feff}hun\0ter2\n", &["begins with a byte-order mark", "contains NUL", "ends in a line break"]),
        ] {
            let remark = Plaintext::new(Zeroizing::new(text.into())).unwrap().remark();
            assert_eq!(remark.is_none(), expected.is_empty(), "{text:?}: {remark:?}");
            let remark = remark.unwrap_or_default();
            assert!(expected.iter().all(|part| remark.contains(part)), "{text:?}: {remark}");
            assert_eq!(remark.matches(", and ").count() + 1, expected.len().max(1), "{text:?}: {remark}");
            assert!(!remark.contains("hunter"), "{remark}");
        }
    }

    #[test]
    fn values_are_compared_whole() {
        let value = |text: &[u8]| Plaintext::new(Zeroizing::new(text.to_vec())).unwrap();
        assert!(value(b"abc").same_as(&value(b"abc")));
        for other in [&b"abd"[..], b"Abc", b"ab", b"abcd", b""] {
            assert!(!value(b"abc").same_as_bytes(other));
        }
    }

    #[test]
    fn generated_values_have_the_length_and_alphabet_asked_for() {
        for (length, alphabet) in [(1, &b"x"[..]), (32, b"0123456789abcdef"), (3500, b"ab"), (257, b"abc")] {
            let value = Plaintext::generate(length, alphabet).unwrap();
            assert_eq!(value.as_bytes().len(), length);
            assert!(value.as_bytes().iter().all(|byte| alphabet.contains(byte)));
        }
        assert_eq!(Plaintext::generate(0, b"ab").err(), Some(GenerateError::Value(ValueError::Empty)));
        assert_eq!(Plaintext::generate(3501, b"ab").err(), Some(GenerateError::Value(ValueError::TooLong)));
        for alphabet in [&b""[..], "äö".as_bytes(), &[b'a'; 129]] {
            assert_eq!(Plaintext::generate(5, alphabet).err(), Some(GenerateError::Alphabet));
        }
    }

    #[test]
    fn two_generated_values_differ() {
        let one = Plaintext::generate(32, b"0123456789abcdef").unwrap();
        assert!(!one.same_as(&Plaintext::generate(32, b"0123456789abcdef").unwrap()));
    }

    #[test]
    fn every_character_is_equally_likely() {
        // 100 characters: taking bytes modulo 100 would draw the first 56 half as often again as the rest. With 350 000
        // draws, chi-squared of a fair generator (99 degrees of freedom) exceeds 250 less than once in 10^14 runs; that
        // of a biased one is beyond 10 000.
        let alphabet: Vec<u8> = (20..120).collect();
        let mut counts = [0u32; 128];
        for _ in 0..100 {
            for byte in Plaintext::generate(3500, &alphabet).unwrap().as_bytes() {
                counts[usize::from(*byte)] += 1;
            }
        }
        let expected = 3500.0;
        let chi: f64 =
            alphabet.iter().map(|byte| (f64::from(counts[usize::from(*byte)]) - expected).powi(2) / expected).sum();
        assert!(chi < 250.0, "chi-squared {chi}");
    }
}
