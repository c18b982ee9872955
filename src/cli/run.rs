//! `managed-secrets run`: from arguments to a running operator.

use std::path::Path;

use super::{CliError, RunArgs, logging};
use crate::api::keys::DEFAULT_OPERATOR_NAMESPACE;

/// Where Kubernetes mounts the name of the pod's namespace, beside the service account's token.
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Runs the operator until it is told to stop.
pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    logging::init(args.log_format, &args.log_level)?;
    let _operator_namespace = operator_namespace(args.operator_namespace, Path::new(POD_NAMESPACE_FILE));
    Err(CliError::Failed("the operator is not part of this build".to_owned()))
}

/// The namespace that is asked for, else the pod's own, else the default.
fn operator_namespace(asked_for: Option<String>, pod_namespace: &Path) -> String {
    asked_for
        .or_else(|| std::fs::read_to_string(pod_namespace).ok().map(|text| text.trim().to_owned()))
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_operators_namespace_is_the_pods_unless_another_is_asked_for() {
        let file = std::env::temp_dir().join(format!("managed-secrets-namespace-{}", std::process::id()));
        std::fs::write(&file, "vault\n").unwrap();
        assert_eq!(operator_namespace(Some("asked".to_owned()), &file), "asked");
        assert_eq!(operator_namespace(None, &file), "vault");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(operator_namespace(None, &file), DEFAULT_OPERATOR_NAMESPACE);
    }
}
