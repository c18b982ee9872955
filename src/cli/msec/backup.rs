//! `kubectl msec backup`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {}

/// Back up ManagedSecrets, records and keys as manifests.
pub(super) fn backup(_cluster: &ClusterArgs, _args: &BackupArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
