//! `kubectl msec delete`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {}

/// Delete a secret.
pub(super) fn delete(_cluster: &ClusterArgs, _args: &DeleteArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
