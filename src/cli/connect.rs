//! The cluster that a command talks to: the pod's own, or the one that the kubeconfig names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::CliError;
use super::msec::completion;

/// How long a command waits for the cluster before it says that it cannot be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which cluster, and as whom: kubectl's own flags.
#[derive(Args, Clone, Debug, Default)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct ClusterArgs {
    /// Namespace; when absent that of the kubeconfig's context, else default
    #[arg(short, long, value_name = "NAMESPACE", global = true, help_heading = "Cluster",
        add = completion::namespaces())]
    pub namespace: Option<String>,

    /// Context of the kubeconfig
    #[arg(long, value_name = "CONTEXT", global = true, help_heading = "Cluster", add = completion::contexts())]
    pub context: Option<String>,

    /// Kubeconfig file; when absent KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", global = true, help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,

    /// Act as this user
    #[arg(long = "as", value_name = "USER", global = true, help_heading = "Cluster")]
    pub as_user: Option<String>,

    /// Act in this group; may be given several times
    #[arg(long, value_name = "GROUP", global = true, help_heading = "Cluster")]
    pub as_group: Vec<String>,
}

impl ClusterArgs {
    /// Where the cluster is, and as whom it is called. Its `default_namespace` is the one that these arguments mean.
    pub(super) async fn config(&self) -> Result<kube::Config, CliError> {
        let unusable = |error: &dyn std::error::Error| CliError::unreachable("no usable kubeconfig", error);
        let mut config = if self.kubeconfig.is_none() && self.context.is_none() {
            config().await?
        } else {
            let read = match &self.kubeconfig {
                Some(file) => Kubeconfig::read_from(file),
                None => Kubeconfig::read(),
            };
            let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            kube::Config::from_custom_kubeconfig(read.map_err(|error| unusable(&error))?, &options)
                .await
                .map_err(|error| unusable(&error))?
        };
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !self.as_group.is_empty() {
            config.auth_info.impersonate_groups = Some(self.as_group.clone());
        }
        Ok(config)
    }
}

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
