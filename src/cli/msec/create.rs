//! `kubectl msec create`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {}

/// Create a secret: read its value, seal it, and wait until it is served.
pub(super) fn create(_cluster: &ClusterArgs, _args: &CreateArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
