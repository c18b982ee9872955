//! `kubectl msec keys`: the keys of the operator's keyring: which there are, what uses them, and requests to change them.
//!
//! ```text
//!  keyrings, sealed values, records ─▶ Listed (pure) ─▶ table or JSON
//!  rotate, revoke, retire, reinstate ─▶ checks (pure) ─▶ a request on the keyring ─▶ wait until the operator has answered
//! ```
//!
//! The plugin never writes a key, and reads none but wrapped ones: it writes a request, and the operator decides.

mod list;
mod request;
mod usage;

use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use managed_secrets_api::keyring_request::{Kind, Request};
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;
use managed_secrets_cli::{CliError, names};

use super::output::ReportFormat;
use super::session::{ClusterArgs, Session};
use super::wait;

const EXAMPLES: &str = "\
Examples:
  # Which keys there are, and what uses them
  kubectl msec keys list

  # A new sealing key now; the earlier one still opens
  kubectl msec keys rotate

  # The private half of a sealing key became known to others
  kubectl msec keys revoke efa4292736dc4550";

/// Arguments of `keys`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// The commands of `keys`.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// List the keys, and how many sealed values and records use each of them
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Replace the sealing key, the seed or the key-encryption key by a new one
    Rotate(RotateArgs),
    /// Let a sealing key open nothing any more, because others know it
    Revoke(RevokeArgs),
    /// Let a sealing key that nothing uses open nothing any more, until it is reinstated
    Retire(ChangeArgs),
    /// Let a retired sealing key open again
    Reinstate(ChangeArgs),
}

/// Arguments of `keys list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Where the keys are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: ReportFormat,
}

/// Where the keys are.
#[derive(Args, Clone, Debug)]
pub struct PlaceArgs {
    /// Namespace of the operator
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,
}

/// Arguments of `keys rotate`.
#[derive(Args, Clone, Debug)]
pub struct RotateArgs {
    /// Replace the seed, under which records are encrypted, instead of the sealing key; the operator then moves all records to
    /// the new one
    #[arg(long)]
    pub seed: bool,

    /// Replace the key-encryption key, which encrypts seeds and sealing keys, instead of the sealing key; no record changes
    #[arg(long, conflicts_with = "seed")]
    pub kek: bool,

    /// Where the keys are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Arguments of `keys revoke`.
#[derive(Args, Clone, Debug)]
pub struct RevokeArgs {
    /// The key, its place and whether to wait.
    #[command(flatten)]
    pub change: ChangeArgs,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `keys retire` and `keys reinstate`.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// Id of the key, 16 hex digits, as `kubectl msec keys list` shows it
    #[arg(value_name = "ID", value_parser = id)]
    pub key: String,

    /// Where the keys are.
    #[command(flatten)]
    pub place: PlaceArgs,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Whether to wait, and how long. A new key is pending for five minutes.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Wait until the operator has done it; --wait=false returns once the request is stored
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    pub wait: bool,

    /// How long to wait, such as 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = wait::timeout)]
    pub timeout: Duration,
}

fn id(text: &str) -> Result<String, &'static str> {
    managed_secrets_crypto::KeyId::parse(text)
        .map(|id| id.to_string())
        .ok_or("must be the id of a key, 16 hex digits; kubectl msec keys list shows them")
}

/// Lists keys, or asks the operator to change them.
pub(super) async fn keys(cluster: &ClusterArgs, args: &KeysArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let asked = match &args.command {
        KeysCommand::List(args) => return list::list(&session, args).await,
        KeysCommand::Rotate(args) => {
            let kind = match (args.seed, args.kek) {
                (true, _) => Kind::Seed,
                (false, true) => Kind::Kek,
                (false, false) => Kind::Sealing,
            };
            (Request::Rotate(kind), &args.place, &args.wait, true)
        }
        KeysCommand::Revoke(RevokeArgs { change, yes }) => {
            (Request::Revoke(change.key.clone()), &change.place, &change.wait, *yes)
        }
        KeysCommand::Retire(args) => (Request::Retire(args.key.clone()), &args.place, &args.wait, true),
        KeysCommand::Reinstate(args) => (Request::Reinstate(args.key.clone()), &args.place, &args.wait, true),
    };
    let (request, place, wait, yes) = asked;
    request::ask(&session, &request, place, wait, yes).await
}
