//! `kubectl msec restore`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {}

/// Restore a backup into a cluster.
pub(super) fn restore(_cluster: &ClusterArgs, _args: &RestoreArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
