//! `managed-secrets crd`: the resource, as `kubectl apply` reads it.

use kube::CustomResourceExt;

use super::{CliError, yaml};
use crate::api::ManagedSecret;

/// The CRD in YAML.
pub(super) fn text() -> Result<String, CliError> {
    yaml::document(&ManagedSecret::crd())
}
