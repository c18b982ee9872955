//! `kubectl msec export`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `export`.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {}

/// Print secrets as manifests that can be committed.
pub(super) fn export(_cluster: &ClusterArgs, _args: &ExportArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
