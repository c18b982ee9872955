//! One cluster and one namespace, for the time of one command.

use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::{Client, Resource};

use crate::api::ManagedSecret;
use crate::cli::CliError;
use crate::cli::connect::{ClusterArgs, client_for};

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
