//! `kubectl msec value`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `value`.
#[derive(Args, Clone, Debug)]
pub struct ValueArgs {}

/// Print the value of a secret, and nothing else.
pub(super) fn value(_cluster: &ClusterArgs, _args: &ValueArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
