//! `managed-secrets crd`: the resource, as `kubectl apply` reads it.

use super::{CliError, yaml};

/// The CRD in YAML.
pub(super) fn text() -> Result<String, CliError> {
    yaml::document(&crate::api::crd::crd())
}
