//! `kubectl msec describe`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `describe`.
#[derive(Args, Clone, Debug)]
pub struct DescribeArgs {}

/// Tell all about one secret: state, who mounts it, what happened, what to do.
pub(super) fn describe(_cluster: &ClusterArgs, _args: &DescribeArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
