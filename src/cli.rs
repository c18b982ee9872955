//! The commands and what they print.
//!
//! ```text
//! main ─▶ args (clap) ─▶ run | crd | manifests | seal ─▶ output, or one line on stderr and an exit code
//! ```
//!
//! Each command is a function from its arguments to `Result<(), CliError>`; what an error says and which exit code it
//! gives is decided in [`error`](CliError) alone. This room touches the terminal, files that the user names, and the
//! cluster that the kubeconfig names.

mod args;
mod connect;
mod error;
pub mod generate;
mod hardening;
pub mod logging;
pub mod manifests;
pub mod run;
mod seal;
pub mod webhooks;
mod yaml;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use args::{Cli, Command, ManifestsArgs, RunArgs, SealArgs, SealScope};
pub use error::{CliError, Exit};

/// Runs the command that the arguments (with the program's name first) ask for.
///
/// The caller has installed rustls' crypto provider: a kube client cannot be made without one.
pub fn main<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let outcome = hardening::harden_process().and_then(|()| match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(cli.command),
        Err(error) if !error.use_stderr() => error.print().map_err(|error| CliError::failed("cannot print", &error)),
        Err(error) => Err(error::usage(&error)),
    });
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit().into()
        }
    }
}

fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Crd => print(&crd_text()?),
        Command::Manifests(args) => print(&manifests::print(&args.into())?),
        Command::Seal(args) => seal::seal(&args),
    }
}

/// The CRD in YAML.
fn crd_text() -> Result<String, CliError> {
    crate::api::crd::to_yaml().map_err(|error| CliError::failed("cannot print the CRD", &error))
}

/// Writes to standard output; unlike `print!`, a closed pipe (`| head`) is an error and no panic.
fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failed("cannot write to standard output", &error))
}
