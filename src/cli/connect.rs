//! The cluster that a command talks to: the pod's own, or the one that the kubeconfig names.

use std::time::Duration;

use super::CliError;

/// How long a command waits for the cluster before it says that it cannot be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs what talks to a cluster, in a command that does nothing else meanwhile.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start", &error))?;
    runtime.block_on(work)
}

/// Where the cluster is, and as whom we call it.
pub(super) async fn config() -> Result<kube::Config, CliError> {
    let no_cluster = "no cluster: neither in a pod, nor a usable kubeconfig (KUBECONFIG)";
    kube::Config::infer().await.map_err(|error| CliError::unreachable(no_cluster, &error))
}

/// A client for one or two calls of a command that a person waits for.
#[cfg(feature = "operator")]
pub(super) async fn client() -> Result<kube::Client, CliError> {
    client_for(config().await?)
}

/// The same, for a cluster that is known already.
pub(super) fn client_for(mut config: kube::Config) -> Result<kube::Client, CliError> {
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    kube::Client::try_from(config).map_err(|error| CliError::from_kube("cannot call the cluster", &error))
}
