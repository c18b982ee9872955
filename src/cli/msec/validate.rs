//! `kubectl msec validate`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `validate`.
#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {}

/// Check manifests without a cluster.
pub(super) fn validate(_cluster: &ClusterArgs, _args: &ValidateArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
