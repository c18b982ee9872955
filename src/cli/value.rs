//! Where a command takes a value from: standard input, a file, or a terminal that does not echo.
//!
//! Never from an argument: every user of the machine can read those, and shells keep them. What is wrong with a value is
//! said without it.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use zeroize::Zeroizing;

use super::CliError;
use crate::api::limits::VALUE_MAX;
use crate::crypto::{Plaintext, ValueError};

/// Bytes of the longest value: a Unicode scalar value is at most four in UTF-8.
const VALUE_BYTES_MAX: usize = 4 * VALUE_MAX;

/// From standard input, byte for byte; a terminal is asked without echo.
pub(super) fn from_standard_input() -> Result<Plaintext, CliError> {
    if std::io::stdin().is_terminal() { ask() } else { read(std::io::stdin().lock()) }
}

/// From a file, byte for byte; `-` is standard input.
pub(super) fn from_file(file: &Path) -> Result<Plaintext, CliError> {
    if file == Path::new("-") {
        return from_standard_input();
    }
    read(File::open(file).map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?)
}

/// Asks on the terminal, without echo; the line break that ends the line is not part of the value.
fn ask() -> Result<Plaintext, CliError> {
    let line = rpassword::prompt_password("Value (not shown): ")
        .map_err(|error| CliError::failed("cannot read the value", &error))?;
    checked(Zeroizing::new(line.into_bytes()))
}

/// Reads the value byte for byte.
fn read(input: impl Read) -> Result<Plaintext, CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(VALUE_BYTES_MAX + 1));
    input
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failed("cannot read the value", &error))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(broken_rule(ValueError::TooLong));
    }
    checked(bytes)
}

fn checked(bytes: Zeroizing<Vec<u8>>) -> Result<Plaintext, CliError> {
    Plaintext::new(bytes).map_err(broken_rule)
}

fn broken_rule(rule: ValueError) -> CliError {
    CliError::Usage(format!("the value {rule}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_read_byte_for_byte() {
        for text in [" a\n", "\u{feff}x", "line\r\n", &"😀".repeat(3500)] {
            assert_eq!(read(text.as_bytes()).unwrap().as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_value_out_of_its_rule_is_refused_without_its_length() {
        for (bytes, rule) in [
            (Vec::new(), "must not be empty"),
            (vec![0xff], "must be valid UTF-8"),
            (vec![b'a'; 3501], "must have at most 3500 characters"),
            // Cut off in the middle of a character, it must not be called invalid UTF-8.
            ("ä".repeat(7001).into_bytes(), "must have at most 3500 characters"),
        ] {
            let error = read(bytes.as_slice()).expect_err("refused");
            assert_eq!(error.to_string(), format!("the value {rule}"));
            assert_eq!(error.exit(), crate::cli::Exit::Usage);
        }
    }
}
