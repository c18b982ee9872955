//! What a cluster installs, from one source: the CRD, manifests, permissions and policies; alert rules and a dashboard.

pub mod manifests;
pub mod monitoring;

use managed_secrets_cli::CliError;

/// The CRD in YAML.
pub fn crd_text() -> Result<String, CliError> {
    managed_secrets_api::crd::to_yaml().map_err(|error| CliError::failed("cannot print the CRD", &error))
}
