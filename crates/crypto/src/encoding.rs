//! What editors and shells put around text: byte-order marks and UTF-16, which Windows writes in many places.

/// U+FEFF. At the beginning of a file it says that text follows; anywhere else it is an invisible character.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// Bytes that [`is_utf16`] looks at: enough to tell text from chance, few enough for any file.
const UTF16_PROBE: usize = 64;

/// The bytes without the UTF-8 byte-order mark that they may begin with.
#[must_use]
pub fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

/// Whether the bytes look like text in UTF-16: they begin with its byte-order mark, or every other byte is zero, as in
/// any text of ASCII letters. For messages only: no decision about a value follows from it.
#[must_use]
pub fn is_utf16(bytes: &[u8]) -> bool {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return true;
    }
    let probe = &bytes[..bytes.len().min(UTF16_PROBE)];
    let zero_at = |first: usize| probe.iter().skip(first).step_by(2).all(|byte| *byte == 0);
    let zero_nowhere_at = |first: usize| probe.iter().skip(first).step_by(2).all(|byte| *byte != 0);
    probe.len() >= 4 && (zero_at(0) && zero_nowhere_at(1) || zero_at(1) && zero_nowhere_at(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf16_is_told_from_utf8_and_from_random_bytes() {
        let text = "apiVersion: v1\n";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for utf16 in [&little[..], &big, &[&[0xff, 0xfe], &little[..]].concat(), &[&[0xfe, 0xff], &big[..]].concat()] {
            assert!(is_utf16(utf16));
        }
        for other in [text.as_bytes(), b"", b"a\0", b"a\0b", &[0; 32], "\u{feff}a".as_bytes(), b"ab\0\0cd", b"a\0bc"] {
            assert!(!is_utf16(other), "{other:?}");
        }
    }

    #[test]
    fn one_mark_at_the_beginning_is_taken_off() {
        assert_eq!(without_byte_order_mark("\u{feff}a\u{feff}".as_bytes()), "a\u{feff}".as_bytes());
        assert_eq!(without_byte_order_mark(b"a"), b"a");
    }
}
