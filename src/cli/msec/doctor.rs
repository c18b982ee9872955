//! `kubectl msec doctor`.

use clap::Args;

use crate::cli::CliError;
use crate::cli::connect::ClusterArgs;

/// Arguments of `doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {}

/// Check an installation, and say what to do about each finding.
pub(super) fn doctor(_cluster: &ClusterArgs, _args: &DoctorArgs) -> Result<(), CliError> {
    Err(CliError::Usage("not built yet".to_owned()))
}
