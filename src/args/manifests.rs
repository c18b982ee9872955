//! The arguments of `manifests`, and the installation that they choose.

#![allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]

use std::path::Path;

use clap::{Args, ValueEnum as _};
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;

use super::{KekProvider, KeyArgs, RecoveryArgs};
use crate::install::manifests::{
    DEFAULT_IMAGE, DEFAULT_PRIORITY_CLASS, DEFAULT_REPLICAS, HIGHLY_AVAILABLE_REPLICAS, KmsSocket, Options,
    PolicySwitch, Spread,
};
use crate::keyring::kms::{KmsAddress, KmsAddressError};

/// Arguments of `manifests`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ManifestsArgs {
    /// Namespace that the operator runs in
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE)]
    pub operator_namespace: String,

    /// Container image of the operator
    #[arg(long, value_name = "IMAGE", env = "MANAGED_SECRETS_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,

    /// Watch this namespace only, with permissions in it alone; may be given several times (in the environment:
    /// separated by commas)
    #[arg(long = "namespace", value_name = "NAMESPACE", env = "MANAGED_SECRETS_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// User who may write records, keys and status, to restore a backup; may be given several times (in the
    /// environment: separated by commas)
    #[arg(long = "restorer", value_name = "USER", env = "MANAGED_SECRETS_RESTORER", value_delimiter = ',')]
    pub restorers: Vec<String>,

    /// File that holds the key-encryption key, in a volume that you add to the Deployment
    #[arg(long, value_name = "FILE", env = "MANAGED_SECRETS_KEK_FILE")]
    pub kek_file: Option<String>,

    /// KMS v2 plugin that holds the key-encryption key, such as aws=unix:///run/kms/plugin.sock; may be given several times
    /// (in the environment: separated by commas). The folder of the socket is mounted from the node
    #[arg(long = "kms", value_name = "NAME=SOCKET", env = "MANAGED_SECRETS_KMS", value_delimiter = ',',
        value_parser = mountable)]
    pub kms: Vec<KmsAddress>,

    /// Where the key-encryption key is that encrypts new keys: local (a Secret), file or kms; when absent, the first KMS
    /// plugin, else the file, else local
    #[arg(long, value_name = "PROVIDER", env = "MANAGED_SECRETS_KEK_PROVIDER", value_enum)]
    pub kek_provider: Option<KekProvider>,

    /// Who can recover the keys.
    #[command(flatten)]
    pub recovery: RecoveryArgs,

    /// How old keys get.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Let the operator accept sealed values of cluster scope
    #[arg(long, env = "MANAGED_SECRETS_ALLOW_CLUSTER_SCOPE")]
    pub allow_cluster_scope: bool,

    /// Leave out the namespace, to uninstall everything but the keys in it
    #[arg(long, env = "MANAGED_SECRETS_WITHOUT_OPERATOR_NAMESPACE")]
    pub without_operator_namespace: bool,

    /// Leave out the webhooks: values must be sealed before they are applied
    #[arg(long, env = "MANAGED_SECRETS_WITHOUT_WEBHOOKS")]
    pub without_webhooks: bool,

    /// Serve /metrics with TLS, to callers with a token, instead of on the port for probes
    #[arg(long, env = "MANAGED_SECRETS_SECURE_METRICS", conflicts_with = "without_webhooks")]
    pub secure_metrics: bool,

    /// Let values be read by name or id: serve the value API, and register it with the API server unless --namespace is
    /// given
    #[arg(long, env = "MANAGED_SECRETS_VALUE_API")]
    pub value_api: bool,

    /// Let the operator restart workloads that spec.target.restart names: it may then get and patch Deployments,
    /// StatefulSets and DaemonSets
    #[arg(long, env = "MANAGED_SECRETS_RESTARTS")]
    pub restarts: bool,

    /// Leave user and group ids to OpenShift, which gives each namespace its own
    #[arg(long, env = "MANAGED_SECRETS_OPENSHIFT")]
    pub openshift: bool,

    /// Leave out an admission policy; may be given several times (in the environment: separated by commas)
    #[arg(
        long = "without-policy",
        value_name = "POLICY",
        env = "MANAGED_SECRETS_WITHOUT_POLICY",
        value_enum,
        value_delimiter = ','
    )]
    pub without_policies: Vec<PolicySwitch>,

    /// Number of replicas; 2, or 3 with --high-availability
    #[arg(long, value_name = "N", env = "MANAGED_SECRETS_REPLICAS", value_parser = clap::value_parser!(u16).range(1..))]
    pub replicas: Option<u16>,

    /// Spread the replicas evenly over nodes, strictly, and over zones, if possible
    #[arg(long, env = "MANAGED_SECRETS_HIGH_AVAILABILITY")]
    pub high_availability: bool,

    /// Priority class of the replicas
    #[arg(long, value_name = "CLASS", env = "MANAGED_SECRETS_PRIORITY_CLASS", default_value = DEFAULT_PRIORITY_CLASS)]
    pub priority_class: String,

    /// Leave out the priority class: the replicas have the cluster's default priority
    #[arg(long, env = "MANAGED_SECRETS_WITHOUT_PRIORITY_CLASS", conflicts_with = "priority_class")]
    pub without_priority_class: bool,

    /// Leave out the NetworkPolicy, which limits who may connect to the replicas
    #[arg(long, env = "MANAGED_SECRETS_WITHOUT_NETWORK_POLICY")]
    pub without_network_policy: bool,

    /// Add a ServiceMonitor, by which the Prometheus operator scrapes the replicas, and let Prometheus connect to them
    #[arg(long, env = "MANAGED_SECRETS_MONITORING")]
    pub monitoring: bool,
}

/// A plugin whose folder can be mounted.
fn mountable(text: &str) -> Result<KmsAddress, String> {
    let address: KmsAddress = text.parse().map_err(|error: KmsAddressError| error.to_string())?;
    match address.socket.path().parent() {
        Some(folder) if folder != Path::new("/") => Ok(address),
        _ => Err("the socket must be in a folder of its own, such as /run/kms/plugin.sock".to_owned()),
    }
}

fn socket(address: &KmsAddress) -> KmsSocket {
    let folder = address.socket.path().parent().map(|folder| folder.display().to_string());
    KmsSocket { name: address.name.clone(), socket: address.socket.to_string(), folder: folder.unwrap_or_default() }
}

impl From<ManifestsArgs> for Options {
    fn from(args: ManifestsArgs) -> Self {
        let ManifestsArgs {
            operator_namespace,
            image,
            namespaces,
            restorers,
            kek_file,
            kms,
            kek_provider,
            recovery,
            keys,
            allow_cluster_scope,
            without_operator_namespace,
            without_webhooks,
            secure_metrics,
            value_api,
            restarts,
            openshift,
            without_policies,
            replicas,
            high_availability,
            priority_class,
            without_priority_class,
            without_network_policy,
            monitoring,
        } = args;
        let (webhooks, with_namespace) = (!without_webhooks, !without_operator_namespace);
        let (spread, default_replicas) = if high_availability {
            (Spread::Required, HIGHLY_AVAILABLE_REPLICAS)
        } else {
            (Spread::Preferred, DEFAULT_REPLICAS)
        };
        Self {
            operator_namespace,
            image,
            namespaces,
            restorers,
            kek_file,
            kms: kms.iter().map(socket).collect(),
            kek_provider: kek_provider.and_then(|it| Some(it.to_possible_value()?.get_name().to_owned())),
            recovery_recipients: recovery.recipients.iter().map(ToString::to_string).collect(),
            seed_period: keys.seed_period.map(|period| period.to_string()),
            sealing_key_period: keys.sealing_key_period.map(|period| period.to_string()),
            sealing_key_retain: keys.sealing_key_retain.map(|period| period.to_string()),
            allow_cluster_scope,
            with_namespace,
            webhooks,
            secure_metrics,
            value_api,
            restarts,
            openshift,
            without_policies,
            replicas: replicas.unwrap_or(default_replicas),
            spread,
            priority_class: (!without_priority_class).then_some(priority_class),
            network_policy: !without_network_policy,
            monitoring,
        }
    }
}
