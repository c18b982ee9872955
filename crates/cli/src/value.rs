//! Where a command takes a value from: standard input, a file, or a terminal that does not echo.
//!
//! Never from an argument: every user of the machine can read those, and shells keep them. Errors
//! do not contain the value. A value that is probably a mistake gets one note on standard error, and is taken as it is.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use managed_secrets_api::limits::VALUE_MAX;
use managed_secrets_crypto::encoding::is_utf16;
use managed_secrets_crypto::{Plaintext, ValueError};
use zeroize::Zeroizing;

use super::prompt::{self, PromptError, Refused};
use super::{CliError, say};

/// Bytes of the longest value: a Unicode scalar value is at most four in UTF-8.
const VALUE_BYTES_MAX: usize = 4 * VALUE_MAX;
/// What a value from standard input is called.
const VALUE: &str = "the value";
/// What to do where a prompt cannot take a value.
const PIPE: &str = "nothing was read; write the value to a file and pass it as standard input (`< FILE`)";

/// From standard input, byte for byte; a terminal is asked without echo.
pub fn from_standard_input() -> Result<Plaintext, CliError> {
    let value = if std::io::stdin().is_terminal() { ask() } else { read(VALUE, std::io::stdin().lock()) };
    value.inspect(|value| remark("the value", value))
}

/// From a file, byte for byte; `-` is standard input.
pub fn from_file(file: &Path) -> Result<Plaintext, CliError> {
    if file == Path::new("-") {
        return from_standard_input();
    }
    let name = file.display();
    let input = File::open(file).map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
    let called = format!("{name}: {VALUE}");
    read(&called, input).inspect(|value| remark(&called, value))
}

/// Prints a note if a value is probably a mistake.
pub fn remark(called: &str, value: &Plaintext) {
    if let Some(remark) = value.remark() {
        say::tell(format_args!("note: {called} {remark}"));
    }
}

/// Asks on the terminal, without echo; the line break that ends the line is not part of the value.
fn ask() -> Result<Plaintext, CliError> {
    let bytes = prompt::hidden("Value (not shown): ", VALUE_BYTES_MAX).map_err(|error| match error {
        PromptError::Terminal(error) => CliError::failed("cannot read the value from the terminal", &error),
        PromptError::Refused(Refused::TooLong) => broken_rule(VALUE, ValueError::TooLong),
        PromptError::Refused(Refused::Control) => {
            CliError::Usage(format!("a control character was typed or pasted at the prompt; {PIPE}"))
        }
        PromptError::Refused(Refused::Lines) => {
            CliError::Usage(format!("more than one line was typed or pasted at the prompt; {PIPE}"))
        }
        PromptError::Refused(Refused::TypedAhead) => {
            CliError::Usage("text was typed before the prompt was shown; nothing was read; try again".to_owned())
        }
    })?;
    Plaintext::new(bytes).map_err(|rule| match rule {
        ValueError::NotUtf8 => CliError::Usage(format!("the terminal does not send UTF-8; {PIPE}")),
        rule => broken_rule(VALUE, rule),
    })
}

/// Reads the value byte for byte.
fn read(called: &str, input: impl Read) -> Result<Plaintext, CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(VALUE_BYTES_MAX + 1));
    input
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failed(&format!("cannot read {called}"), &error))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(broken_rule(called, ValueError::TooLong));
    }
    let is_utf16 = is_utf16(&bytes);
    Plaintext::new(bytes).map_err(|rule| match rule {
        ValueError::NotUtf8 if is_utf16 => CliError::Usage(format!(
            "{called} must be UTF-8, not UTF-16: save it as UTF-8, or as base64 if it is binary data"
        )),
        rule => broken_rule(called, rule),
    })
}

fn broken_rule(called: &str, rule: ValueError) -> CliError {
    CliError::Usage(format!("{called} {rule}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_read_byte_for_byte() {
        for text in [" a\n", "\u{feff}x", "line\r\n", &"😀".repeat(3500)] {
            assert_eq!(read(VALUE, text.as_bytes()).unwrap().as_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn a_value_out_of_its_rule_is_refused_without_its_length() {
        for (bytes, rule) in [
            (Vec::new(), "must not be empty"),
            (vec![0xff], "must be valid UTF-8; encode binary data as base64"),
            (vec![0xff, 0xfe, b'a', 0], "must be UTF-8, not UTF-16"),
            (vec![b'a'; 3501], "must have at most 3500 characters; "),
            // Cut off in the middle of a character, it must not be called invalid UTF-8.
            ("ä".repeat(7001).into_bytes(), "must have at most 3500 characters; "),
        ] {
            let error = read("key.txt: the value", bytes.as_slice()).expect_err("refused");
            assert!(error.to_string().starts_with(&format!("key.txt: the value {rule}")), "{error}");
            assert_eq!(error.exit(), crate::Exit::Usage);
        }
    }
}
