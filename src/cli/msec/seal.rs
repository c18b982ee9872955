//! `kubectl msec seal`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `seal`.
#[derive(Args, Clone, Debug)]
pub struct SealArgs {}

/// Seal one value, or every plain value of manifests in place.
pub(super) fn seal(_cluster: &ClusterArgs, _args: &SealArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
