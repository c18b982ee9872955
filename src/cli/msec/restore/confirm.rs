//! One question on the terminal.

use std::io::{IsTerminal as _, Write as _};

use crate::cli::CliError;

/// Whether there is somebody to ask.
pub(super) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks; anything but "y" or "yes" is a no.
pub(super) fn asked(question: &str) -> Result<bool, CliError> {
    let failed = |error: std::io::Error| CliError::failed("cannot ask", &error);
    eprint!("{question} [y/N] ");
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
