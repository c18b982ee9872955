//! Text files that the user names: read as UTF-8, a byte-order mark taken off, UTF-16 refused by its name.

use std::path::Path;

use managed_secrets_crypto::encoding::{is_utf16, without_byte_order_mark};

use super::CliError;

/// The rule for bytes that are not UTF-8. It names UTF-16, which editors on Windows write.
#[must_use]
pub fn not_utf8(bytes: &[u8]) -> &'static str {
    if is_utf16(bytes) { "must be UTF-8, not UTF-16: save it as UTF-8" } else { "must be UTF-8" }
}

/// The text of a file; `called` is what errors call it.
pub fn read(called: &str, file: &Path) -> Result<String, CliError> {
    let bytes = std::fs::read(file).map_err(|error| CliError::Usage(format!("{called}: {error}")))?;
    decode(&bytes).map_err(|rule| CliError::Usage(format!("{called}: {rule}")))
}

fn decode(bytes: &[u8]) -> Result<String, &'static str> {
    // UTF-16 without its mark is valid UTF-8 as well, with NUL in it.
    if is_utf16(bytes) {
        return Err(not_utf8(bytes));
    }
    let text = std::str::from_utf8(without_byte_order_mark(bytes)).map_err(|_| not_utf8(bytes))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_harmless_and_utf16_has_a_name() {
        assert_eq!(decode("\u{feff}{}".as_bytes()).as_deref(), Ok("{}"));
        assert_eq!(decode(b"a\xff"), Err("must be UTF-8"));
        let utf16: Vec<u8> = "{}{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [utf16.clone(), [&[0xff, 0xfe], &utf16[..]].concat()] {
            assert!(decode(&bytes).is_err_and(|rule| rule.contains("UTF-16")));
        }
    }
}
