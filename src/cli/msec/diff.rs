//! `kubectl msec diff`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffArgs {}

/// Say in words what manifests would change on the cluster.
pub(super) fn diff(_cluster: &ClusterArgs, _args: &DiffArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
