//! `kubectl msec`: every call of the Secrets API as one command, and what Git needs offline.
//!
//! ```text
//!                    ┌─ offline: seal -f, validate, explain            files ─▶ manifests ─▶ files, findings
//! args ─▶ command ───┤
//!                    └─ Session (client, namespace) ─▶ lookup by name or id ─▶ objects ─▶ output
//! ```
//!
//! One module a command, each with its arguments and a function from them to `Result<(), CliError>`. What they share:
//! [`session`] (which cluster), [`lookup`] (which object), [`permission`](managed_secrets_cli::permission) (which
//! permission a refusal names), [`output`] with [`table`] (how objects are shown), [`change`] and [`wait`] (how one is
//! changed, and becomes ready), [`state`] (what its status says), [`users`] (what uses its Secret), [`operator`] (whether
//! it runs). Values are sealed here, before they leave this process; the commands that print a value, or hold one from a
//! cluster, say so in their help.

mod archive;
mod backup;
mod can_read;
mod change;
mod completion;
mod create;
mod delete;
mod delivered;
mod describe;
mod diff;
mod doctor;
mod explain;
mod export;
mod gitops;
mod keys;
mod list;
mod lookup;
mod manifest;
mod operator;
mod output;
mod private_file;
mod progress;
mod public_key;
mod recover;
mod recovery_key;
mod reseal;
mod restarts;
mod restore;
mod rollback;
mod rotate;
mod seal;
mod session;
mod state;
mod table;
mod update;
mod users;
mod validate;
mod value;
mod value_api;
mod versions;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use managed_secrets_cli::connect::block_on;
use managed_secrets_cli::error::EXIT_CODES;
use managed_secrets_cli::{CliError, finish, parse};

use session::ClusterArgs;

const EXAMPLES: &str = "\
Examples:
  printf %s \"$KEY\" | kubectl msec create WEATHER_API_KEY --description OpenWeather
  kubectl msec list
  kubectl msec value WEATHER_API_KEY
  kubectl msec seal -f weather-api-key.yaml

Name a secret by its NAME, by its ID, or as msec/OBJECT by the name of its object.";

/// Secrets with a name, an id, dates and a sealed value
#[derive(Debug, Parser)]
#[command(name = "kubectl-msec", bin_name = "kubectl msec", version, after_help = EXIT_CODES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a secret: read its value, seal it, and wait until it is ready
    Create(create::CreateArgs),
    /// Change a secret's name, description or value
    Update(update::UpdateArgs),
    /// Have new values generated for secrets
    Rotate(rotate::RotateArgs),
    /// List the versions of a secret's value
    Versions(versions::VersionsArgs),
    /// Deliver an earlier version of a secret's value, or the newest again
    Rollback(rollback::RollbackArgs),
    /// Delete a secret
    Delete(delete::DeleteArgs),
    /// Show secrets: everything about them but their values
    Get(list::GetArgs),
    /// List secrets: everything about them but their values
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Print the value of a secret, and nothing else
    Value(value::ValueArgs),
    /// Show who can read the value of a secret, and through what
    CanRead(can_read::CanReadArgs),
    /// Describe one secret: state, what uses it, events, what to do
    Describe(describe::DescribeArgs),
    /// Seal one value, or every plain value of manifests in place
    Seal(seal::SealArgs),
    /// Seal the values of manifests again, for the cluster's current key
    Reseal(reseal::ResealArgs),
    /// Check manifests without a cluster
    Validate(validate::ValidateArgs),
    /// Describe what manifests would change on the cluster, without values
    Diff(diff::DiffArgs),
    /// Show the current public key for sealing, or write it to a file
    PublicKey(public_key::PublicKeyArgs),
    /// List the operator's keys and what uses them, and replace, revoke or retire them
    Keys(keys::KeysArgs),
    /// Print secrets as manifests to commit
    Export(export::ExportArgs),
    /// Back up ManagedSecrets, records and keys as manifests
    Backup(backup::BackupArgs),
    /// Restore a backup into a cluster
    Restore(restore::RestoreArgs),
    /// Open the values of a backup with the recovery key, without a cluster
    Recover(recover::RecoverArgs),
    /// Create a recovery key, or show its public half
    RecoveryKey(recovery_key::RecoveryKeyArgs),
    /// Check an installation, and say what to do about each finding
    Doctor(doctor::DoctorArgs),
    /// Explain the reason of a condition, and what to do about it
    Explain(explain::ExplainArgs),
}

/// Runs the command that the arguments (with the program's name first) ask for.
pub fn main<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    if completion::is_asked_for(arguments.first()) {
        return finish(completion::complete_words(arguments.into_iter().skip(1).collect()));
    }
    finish(parse::<Cli, _, _>(arguments).and_then(|cli| cli.map_or(Ok(()), dispatch)))
}

fn dispatch(Cli { cluster, command }: Cli) -> Result<(), CliError> {
    match command {
        Command::Create(args) => block_on(create::create(&cluster, &args)),
        Command::Update(args) => block_on(update::update(&cluster, &args)),
        Command::Rotate(args) => block_on(rotate::rotate(&cluster, &args)),
        Command::Versions(args) => block_on(versions::versions(&cluster, &args)),
        Command::Rollback(args) => block_on(rollback::rollback(&cluster, &args)),
        Command::Delete(args) => block_on(delete::delete(&cluster, &args)),
        Command::Get(args) => block_on(list::get(&cluster, &args)),
        Command::List(args) => block_on(list::list(&cluster, &args)),
        Command::Value(args) => block_on(value::value(&cluster, &args)),
        Command::CanRead(args) => block_on(can_read::can_read(&cluster, &args)),
        Command::Describe(args) => block_on(describe::describe(&cluster, &args)),
        Command::Seal(args) => seal::seal(&cluster, &args),
        Command::Reseal(args) => reseal::reseal(&cluster, &args),
        Command::Validate(args) => validate::validate(&cluster, &args),
        Command::Diff(args) => diff::diff(&cluster, &args),
        Command::PublicKey(args) => block_on(public_key::public_key(&cluster, &args)),
        Command::Keys(args) => block_on(keys::keys(&cluster, &args)),
        Command::Export(args) => block_on(export::export(&cluster, &args)),
        Command::Backup(args) => block_on(backup::backup(&cluster, &args)),
        Command::Restore(args) => block_on(restore::restore(&cluster, &args)),
        Command::Recover(args) => recover::recover(&args),
        Command::RecoveryKey(args) => recovery_key::recovery_key(&args),
        Command::Doctor(args) => block_on(doctor::doctor(&cluster, &args)),
        Command::Explain(args) => explain::explain(&args),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::builder::OsStringValueParser;
    use clap::{Arg, Command};
    use managed_secrets_cli::arguments;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        arguments::command::<Cli>().debug_assert();
    }

    /// A command with all its options, each of which takes any text, whatever else is required.
    fn with_texts(mut command: Command) -> Command {
        command.build();
        let any = |arg: Arg| {
            let takes_next = arguments::takes_next(&arg);
            if takes_next { arg.value_parser(OsStringValueParser::new()).required(false) } else { arg }
        };
        command.mut_args(any).ignore_errors(true)
    }

    #[test]
    fn every_option_takes_a_value_that_begins_with_a_dash_as_kubectl_does() {
        let mut options = 0;
        for command in arguments::command::<Cli>().get_subcommands() {
            let mut root = arguments::command::<Cli>();
            root.build();
            let built = root.find_subcommand(command.get_name()).unwrap().clone();
            for option in built.get_arguments().filter(|arg| arguments::takes_next(arg)) {
                let long = format!("--{}", option.get_long().unwrap());
                let short = option.get_short().map(|letter| format!("-{letter}"));
                for name in std::iter::once(long).chain(short) {
                    for value in ["-abc", "-1", "--abc", "-", "--"] {
                        let words = [command.get_name(), &*name, value];
                        let matches = with_texts(built.clone()).try_get_matches_from(words).unwrap();
                        let taken = matches.get_raw(option.get_id().as_str()).into_iter().flatten();
                        assert_eq!(taken.collect::<Vec<_>>(), [value], "{words:?}");
                    }
                }
                options += 1;
            }
        }
        assert!(options > 100, "options that take values: {options}");
    }
}
