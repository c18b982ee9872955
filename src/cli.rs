//! The commands of both programs and what they print.
//!
//! ```text
//! managed-secrets ─▶ args (clap) ─▶ run | crd | manifests | seal ─┬─▶ output, or one line on stderr and an exit code
//! kubectl-msec ────▶ msec::args ──▶ msec::…  ─────────────────────┘
//! ```
//!
//! Each command is a function from its arguments to `Result<(), CliError>`; what an error says and which exit code it
//! gives is decided in [`error`](CliError) alone. This room touches the terminal, files that the user names, and the
//! cluster that the kubeconfig names. What only the operator needs stands behind the feature `operator`.

mod connect;
mod error;
mod hardening;
pub mod msec;
mod names;
mod prompt;
mod rights;
mod say;
mod seal;
mod sealing_key;
mod text;
mod value;
mod yaml;

#[cfg(feature = "operator")]
mod args;
#[cfg(feature = "operator")]
pub mod generate;
#[cfg(feature = "operator")]
pub mod logging;
#[cfg(feature = "operator")]
pub mod manifests;
#[cfg(feature = "operator")]
pub mod run;
#[cfg(feature = "operator")]
pub mod webhooks;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "operator")]
pub use args::{Cli, Command, ManifestsArgs, RunArgs};
pub use error::{CliError, Exit};
pub use seal::{SealArgs, SealScope};
pub use sealing_key::KeyArgs;

/// Runs the command of `managed-secrets` that the arguments (with the program's name first) ask for.
///
/// The caller has installed rustls' crypto provider: a kube client cannot be made without one.
#[cfg(feature = "operator")]
pub fn main<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let format = logging::LogFormat::asked_for(&arguments);
    let outcome = parse::<Cli, _, _>(arguments).and_then(|cli| cli.map_or(Ok(()), |cli| dispatch(cli.command)));
    match (format, &outcome) {
        (logging::LogFormat::Json, Err(error)) => {
            say::tell_json(&logging::fatal_line(error));
            error.exit().into()
        }
        _ => finish(outcome),
    }
}

#[cfg(feature = "operator")]
fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Crd => say::print_document(&crd_text()?),
        Command::Manifests(args) => say::print_document(&manifests::print(&args.into())?),
        Command::Seal(args) => seal::seal(&args),
    }
}

/// The CRD in YAML.
#[cfg(feature = "operator")]
fn crd_text() -> Result<String, CliError> {
    crate::api::crd::to_yaml().map_err(|error| CliError::failed("cannot print the CRD", &error))
}

/// The first thing that either program does: keeps its memory to itself, and reads its arguments. None where help or
/// version was asked for, which is printed then.
fn parse<C, I, T>(arguments: I) -> Result<Option<C>, CliError>
where
    C: Parser,
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    hardening::harden_process()?;
    match C::try_parse_from(arguments) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if !error.use_stderr() => {
            error.print().map_err(|error| CliError::failed("cannot print", &error))?;
            Ok(None)
        }
        Err(error) => Err(error::usage(&error)),
    }
}

/// The last thing: what went wrong, in one line on standard error, and the exit code.
fn finish(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(CliError::Found(exit)) => exit.into(),
        Err(error) => {
            say::tell(format_args!("error: {error}"));
            error.exit().into()
        }
    }
}
