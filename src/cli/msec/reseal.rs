//! `kubectl msec reseal`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `reseal`.
#[derive(Args, Clone, Debug)]
pub struct ResealArgs {}

/// Seal the values of manifests again, for the cluster's present key.
pub(super) fn reseal(_cluster: &ClusterArgs, _args: &ResealArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
