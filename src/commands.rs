//! The commands of `managed-secrets`: `run`, `crd`, `manifests`, `check`, `kms` and `seal`.

mod check;
mod kms;
mod run;
mod webhooks;

use std::ffi::OsString;
use std::process::ExitCode;

use managed_secrets_cli::{CliError, finish, parse, say, seal};

use crate::args::{Cli, Command};
use crate::install::{self, manifests};
use crate::logging;

/// Runs the command of `managed-secrets` that the arguments (with the program's name first) ask for.
///
/// The caller has installed rustls' crypto provider: a kube client cannot be made without one.
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

fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Crd => say::print_document(&install::crd_text()?),
        Command::Manifests(args) => say::print_document(&manifests::print(&args.into())?),
        Command::Check(args) => check::check(&args),
        Command::Kms { command } => kms::kms(&command),
        Command::Seal(args) => seal::seal(&args),
    }
}
