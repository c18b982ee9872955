//! `kubectl msec update`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `update`.
#[derive(Args, Clone, Debug)]
pub struct UpdateArgs {}

/// Change a secret's name, description or value.
pub(super) fn update(_cluster: &ClusterArgs, _args: &UpdateArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
