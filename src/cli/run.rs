//! `managed-secrets run`: from arguments to a running operator.

use std::path::{Path, PathBuf};

use super::{CliError, RunArgs, connect, logging};
use crate::api::keys::DEFAULT_OPERATOR_NAMESPACE;

/// Where Kubernetes mounts the name of the pod's namespace, beside the service account's token.
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What an operator is to do, and where.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The cluster, and as whom it is called.
    pub config: kube::Config,
    /// Namespace of keyring, keys and public key.
    pub operator_namespace: String,
    /// Namespaces that are served; empty means all.
    pub namespaces: Vec<String>,
    /// File that holds the KEK; absent means a Secret of the operator's namespace.
    pub kek_file: Option<PathBuf>,
    /// Whether sealed text of cluster scope is accepted.
    pub allow_cluster_scope: bool,
    /// How many objects are worked on at once.
    pub workers: usize,
}

/// Runs the operator until it is told to stop.
pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    let RunArgs {
        namespaces,
        operator_namespace: asked_for,
        kek_file,
        allow_cluster_scope,
        workers,
        log_format,
        log_level,
    } = args;
    logging::init(log_format, &log_level)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| CliError::failed("cannot start", &error))?;
    runtime.block_on(async {
        serve(RunOptions {
            config: connect::config().await?,
            operator_namespace: operator_namespace(asked_for, Path::new(POD_NAMESPACE_FILE)),
            namespaces,
            kek_file,
            allow_cluster_scope,
            workers: workers.get(),
        })
        .await
    })
}

/// The operator itself.
async fn serve(_options: RunOptions) -> Result<(), CliError> {
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
