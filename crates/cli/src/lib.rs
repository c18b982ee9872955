//! What the command lines of `managed-secrets` and `kubectl msec` share.
//!
//! ```text
//! arguments ─▶ parse ─▶ a command ─▶ Result<(), CliError> ─▶ finish ─▶ one line on stderr and an exit code
//!                          │
//!                          ├─ connect   the cluster that kubectl would talk to, as the same user
//!                          ├─ value     a value from a flag, a file or a prompt     seal   a value, sealed
//!                          └─ say       the only way to the terminal: text of others is made visible
//! ```
//!
//! Each command is a function from its arguments to `Result<(), CliError>`; what an error says and which exit code it
//! gives is decided in [`CliError`] alone. This crate touches the terminal, files that the user names, and the
//! cluster that the kubeconfig names.

// What people read goes through `say`, which makes every character of text that others wrote visible.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod arguments;
pub mod connect;
pub mod error;
mod hardening;
pub mod names;
pub mod permission;
mod prompt;
pub mod say;
pub mod seal;
pub mod sealing_key;
pub mod text;
pub mod value;
pub mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use error::{CliError, Exit};
pub use seal::{SealArgs, SealScope};
pub use sealing_key::KeyArgs;

/// The first thing that either program does: keeps its memory to itself, and reads its arguments. None where help or
/// version was asked for, which is printed then.
pub fn parse<C, I, T>(arguments: I) -> Result<Option<C>, CliError>
where
    C: Parser,
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    hardening::harden_process()?;
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let command = arguments::command::<C>();
    if let Some(problem) = arguments::missing_value(&command, &arguments) {
        return Err(CliError::Usage(problem));
    }
    let matches = command.clone().try_get_matches_from(arguments);
    match matches.and_then(|matches| C::from_arg_matches(&matches).map_err(|error| error.format(&mut command.clone())))
    {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if !error.use_stderr() => {
            error.print().map_err(|error| CliError::failed("cannot print", &error))?;
            Ok(None)
        }
        Err(error) => Err(error::usage(&error)),
    }
}

/// The last thing: what went wrong, in one line on standard error, and the exit code.
#[must_use]
pub fn finish(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(CliError::Found(exit)) => exit.into(),
        Err(error) => {
            say::tell(format_args!("error: {error}"));
            error.exit().into()
        }
    }
}
