//! One cluster and one namespace, for the time of one command.

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Resource};

use super::completion;
use crate::api::ManagedSecret;
use crate::cli::CliError;
use crate::cli::connect::{self, client_for};

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
        let unusable = |error: &(dyn std::error::Error + 'static)| CliError::unreachable("no usable kubeconfig", error);
        let mut config = if self.kubeconfig.is_none() && self.context.is_none() {
            connect::config().await?
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

/// A client and a namespace. Making one sends nothing.
pub(super) struct Session {
    /// The client.
    pub(super) client: Client,
    /// `--namespace`, else that of the kubeconfig's context.
    pub(super) namespace: String,
}

impl Session {
    /// The session that the flags ask for.
    pub(super) async fn open(cluster: &ClusterArgs) -> Result<Self, CliError> {
        let config = cluster.config().await?;
        let namespace = config.default_namespace.clone();
        Ok(Self { client: client_for(config)?, namespace })
    }

    /// Objects of one kind in the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace's ManagedSecrets.
    pub(super) fn objects(&self) -> Api<ManagedSecret> {
        self.api()
    }
}
