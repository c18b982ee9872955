//! The command line. Every flag is an environment variable as well: `--log-level` is `MANAGED_SECRETS_LOG_LEVEL`.

#![allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use managed_secrets_api::{
    duration,
    keys::{self, DEFAULT_OPERATOR_NAMESPACE},
};
use managed_secrets_cli::CliError;
use managed_secrets_cli::error::EXIT_CODES;
use managed_secrets_cli::seal::SealArgs;
use managed_secrets_crypto::recovery::Recipient;
use managed_secrets_engine::lease::{Durations, DurationsError};
use managed_secrets_engine::run::MAX_WORKERS;
use managed_secrets_kms::{Socket, limits::CALL_SECONDS};

use crate::install::manifests::{
    DEFAULT_IMAGE, DEFAULT_PRIORITY_CLASS, DEFAULT_REPLICAS, HIGHLY_AVAILABLE_REPLICAS, KmsSocket, Options,
    PolicySwitch, Spread,
};
use crate::keyring::{
    kms::{DEFAULT_GRACE, KmsAddress, KmsAddressError},
    providers::Primary,
    sealing, seeds,
};
use crate::logging::LogFormat;
use crate::webhook::server::{DRAIN_SECONDS, MAX_DRAIN_SECONDS};

const EXAMPLES: &str = "\
Examples:
  Install:
    managed-secrets crd | kubectl apply -f -
    managed-secrets manifests --image example.com/managed-secrets:1 | kubectl apply -f -

  Seal a value for the ManagedSecret weather-api-key of the namespace shop:
    printf %s \"$KEY\" | managed-secrets seal --name weather-api-key --namespace shop

  Run outside a cluster:
    KUBECONFIG=~/.kube/config managed-secrets run

Every flag can be given in the environment: --log-level as MANAGED_SECRETS_LOG_LEVEL.";

const RUN_EXAMPLES: &str = "\
Examples:
  managed-secrets run
  managed-secrets run --namespace shop --namespace prod --log-format json
  managed-secrets run --kek-file /run/kek/key --log-level debug
  managed-secrets run --kms aws=unix:///run/kms/plugin.sock";

const MANIFESTS_EXAMPLES: &str = "\
Examples:
  managed-secrets manifests | kubectl apply -f -
  managed-secrets manifests --namespace shop --image example.com/managed-secrets:1
  managed-secrets manifests --high-availability --monitoring
  managed-secrets manifests --restorer system:serviceaccount:velero:velero
  managed-secrets manifests --value-api
  managed-secrets manifests --kms aws=unix:///run/kms/plugin.sock
  managed-secrets manifests --without-operator-namespace | kubectl delete --ignore-not-found -f -";

const CHECK_EXAMPLES: &str = "\
The command needs the permission to create ManagedSecrets in the namespace. It tries again until the time is over, because \
an operator that has just started needs some seconds.

Examples:
  managed-secrets check
  managed-secrets check --namespace shop --timeout 120";

const KMS_CHECK_EXAMPLES: &str = "\
The command sends random bytes to the plugin, encrypts and decrypts them, and checks each answer against the KMS v2 contract \
of Kubernetes. It needs no cluster. A warning is legal, and worth knowing; a plugin with a failed check must not be used.

Examples:
  managed-secrets kms check unix:///run/kms/plugin.sock
  managed-secrets kms check unix:///run/kms/plugin.sock -o json";

const SEAL_EXAMPLES: &str = "\
The value is read byte for byte: `echo` adds a line break to it, `printf %s` does not. \
On a terminal, the command asks for it without echo; the line break that ends it is not part of the value.

Examples:
  printf %s \"$KEY\" | managed-secrets seal --name weather-api-key --namespace shop
  managed-secrets seal --name db --namespace prod --fingerprint efa4…27ad < value.txt
  managed-secrets seal --scope namespace --namespace prod --public-key sealing-key.json < value.txt";

/// Kubernetes secrets with a name, an id, dates and a sealed value.
#[derive(Debug, Parser)]
#[command(name = "managed-secrets", version, arg_required_else_help = false, after_help = EXIT_CODES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator, in a cluster or against the one that KUBECONFIG names
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print the CustomResourceDefinition
    Crd,
    /// Print what a cluster needs to run the operator, except the CustomResourceDefinition
    #[command(after_long_help = MANIFESTS_EXAMPLES)]
    Manifests(ManifestsArgs),
    /// Check that the API server seals plain values: ask it to create a ManagedSecret, without storing it
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Work with KMS plugins
    #[command(arg_required_else_help = false)]
    Kms {
        /// What to do.
        #[command(subcommand)]
        command: KmsCommand,
    },
    /// Seal a value for a cluster: read it from standard input, print the text for spec.value
    #[command(after_long_help = SEAL_EXAMPLES)]
    Seal(SealArgs),
}

/// Who can recover the keys: the same for `run` and for the manifests that start it.
#[derive(Args, Clone, Debug)]
pub struct RecoveryArgs {
    /// Seal every key of the keyring to this recovery key, as `kubectl msec recovery-key generate` prints it; may be given
    /// several times (in the environment: separated by commas)
    #[arg(
        long = "recovery-recipient",
        value_name = "RECIPIENT",
        env = "MANAGED_SECRETS_RECOVERY_RECIPIENT",
        value_delimiter = ','
    )]
    pub recipients: Vec<Recipient>,
}

/// How old keys get: the same for `run` and for the manifests that start it.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
    /// Age at which a new seed replaces the active one, and records are re-wrapped; at least 1h, or 0 to do this on request
    /// only; when absent 2160h
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEED_PERIOD")]
    pub seed_period: Option<KeyPeriod>,

    /// Age at which a new sealing key replaces the active one; the earlier one still opens. At least 1h, or 0 to do this on
    /// request only; when absent 720h
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEALING_KEY_PERIOD")]
    pub sealing_key_period: Option<KeyPeriod>,

    /// Retire a sealing key that only opens, once no sealed value in the cluster has used it for this long, such as 4320h; at
    /// least 1h. When absent, keys are retired on request only, because Git may hold older sealed text
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEALING_KEY_RETAIN", value_parser = retention)]
    pub sealing_key_retain: Option<KeyPeriod>,
}

impl KeyArgs {
    /// When seeds are replaced.
    pub(crate) fn seeds(&self) -> seeds::Timing {
        let default = seeds::Timing::default();
        seeds::Timing { period: self.seed_period.map_or(default.period, |period| period.0), ..default }
    }

    /// When sealing keys are replaced and retired.
    pub(crate) fn sealing(&self) -> sealing::Timing {
        let default = sealing::Timing::default();
        sealing::Timing {
            period: self.sealing_key_period.map_or(default.period, |period| period.0),
            retain: self.sealing_key_retain.and_then(|period| period.0),
            ..default
        }
    }
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct RunArgs {
    /// Watch this namespace only; may be given several times (in the environment: separated by commas)
    #[arg(long = "namespace", value_name = "NAMESPACE", env = "MANAGED_SECRETS_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Namespace of keyring, keys and sealing public key; when absent the pod's own, else managed-secrets-system
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE")]
    pub operator_namespace: Option<String>,

    /// File that holds the key-encryption key; when absent it is kept in a Secret of the operator's namespace
    #[arg(long, value_name = "FILE", env = "MANAGED_SECRETS_KEK_FILE")]
    pub kek_file: Option<PathBuf>,

    /// KMS v2 plugin that holds the key-encryption key, such as aws=unix:///run/kms/plugin.sock; may be given several times
    /// (in the environment: separated by commas). The first one encrypts new keys, the others open what they encrypted
    #[arg(long = "kms", value_name = "NAME=SOCKET", env = "MANAGED_SECRETS_KMS", value_delimiter = ',')]
    pub kms: Vec<KmsAddress>,

    /// Where the key-encryption key is that encrypts new keys: local (a Secret), file or kms; when absent, the first KMS
    /// plugin, else the file, else local. The leader encrypts every key of the keyring again with it
    #[arg(long, value_name = "PROVIDER", env = "MANAGED_SECRETS_KEK_PROVIDER", value_enum)]
    pub kek_provider: Option<KekProvider>,

    /// How long new values are accepted while a KMS plugin does not answer that the keyring needs, such as 24h, or 0
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_KMS_GRACE", default_value_t = KmsGrace(DEFAULT_GRACE))]
    pub kms_grace: KmsGrace,

    /// Who can recover the keys.
    #[command(flatten)]
    pub recovery: RecoveryArgs,

    /// Create a new keyring although records exist that only a lost keyring opens. Nothing is deleted: these records
    /// keep their names and cannot be read until their keyring is restored
    #[arg(long, env = "MANAGED_SECRETS_ALLOW_NEW_KEYRING")]
    pub allow_new_keyring: bool,

    /// How old keys get.
    #[command(flatten)]
    pub keys: KeyArgs,

    /// Accept sealed values of cluster scope: everyone who may create a ManagedSecret in some namespace can have them
    /// opened
    #[arg(long, env = "MANAGED_SECRETS_ALLOW_CLUSTER_SCOPE")]
    pub allow_cluster_scope: bool,

    /// Restart the workloads that spec.target.restart names after a new value is delivered; it needs the permissions that
    /// manifests --restarts adds
    #[arg(long, env = "MANAGED_SECRETS_RESTARTS")]
    pub restarts: bool,

    /// Compete with other replicas for a Lease, and reconcile only as the leader. Every replica serves the webhooks
    #[arg(long, env = "MANAGED_SECRETS_LEADER_ELECT")]
    pub leader_elect: bool,

    /// Seconds after which another replica takes a Lease that its leader does not renew
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_LEADER_ELECT_LEASE_DURATION", default_value = "15")]
    pub leader_elect_lease_duration: u16,

    /// Seconds after which a leader that cannot renew its Lease ends; less than the lease duration
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_LEADER_ELECT_RENEW_DEADLINE", default_value = "10")]
    pub leader_elect_renew_deadline: u16,

    /// Seconds between two tries to take or renew the Lease
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_LEADER_ELECT_RETRY_PERIOD", default_value = "2")]
    pub leader_elect_retry_period: u16,

    /// Address that the webhooks listen on, or off; when absent, every address of the machine
    #[arg(long, value_name = "ADDRESS", env = "MANAGED_SECRETS_WEBHOOK_LISTEN", default_value = DEFAULT_LISTEN)]
    pub webhook_listen: Listen,

    /// Seconds that the webhooks still answer after a signal to stop, while API servers learn of another replica; a request in
    /// this time begins it again, up to four times as long
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_WEBHOOK_DRAIN", default_value_t = DRAIN_SECONDS,
        value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_DRAIN_SECONDS)))]
    pub webhook_drain: u16,

    /// Service by which the API server reaches the webhooks, in the operator's namespace; it reaches the value API by
    /// SERVICE-values
    #[arg(long, value_name = "SERVICE", env = "MANAGED_SECRETS_WEBHOOK_SERVICE", default_value = keys::OPERATOR_NAME)]
    pub webhook_service: String,

    /// URL (https://HOST:PORT) by which the API server reaches the webhooks of an operator outside the cluster
    #[arg(long, value_name = "URL", env = "MANAGED_SECRETS_WEBHOOK_URL")]
    pub webhook_url: Option<http::Uri>,

    /// Folder with the webhooks' certificate (tls.crt, tls.key, ca.crt); when absent the operator creates its own
    #[arg(long, value_name = "FOLDER", env = "MANAGED_SECRETS_WEBHOOK_CERT_DIR")]
    pub webhook_cert_dir: Option<PathBuf>,

    /// Serve the value API, by which values are read by name or id, on the port of the webhooks. With --webhook-listen off,
    /// it listens on every address of the machine, without webhooks
    #[arg(long, env = "MANAGED_SECRETS_VALUE_API")]
    pub value_api: bool,

    /// Address of the port for probes (/livez, /readyz and /startupz) and /metrics, or off; the Deployment sets it
    #[arg(long, value_name = "ADDRESS", env = "MANAGED_SECRETS_ADMIN_LISTEN", default_value = "off")]
    pub admin_listen: Listen,

    /// Address of a port that serves /metrics with TLS, to callers whose token may get the path /metrics, or off; the port
    /// for probes then has no /metrics
    #[arg(long, value_name = "ADDRESS", env = "MANAGED_SECRETS_METRICS_LISTEN", default_value = "off")]
    pub metrics_listen: Listen,

    /// The most objects that the operator works on at once; it begins with 8, and adapts the number to the API server
    #[arg(long, value_name = "N", env = "MANAGED_SECRETS_WORKERS", default_value_t = MAX_WORKERS)]
    pub workers: NonZeroUsize,

    /// Format of log lines
    #[arg(long, value_name = "FORMAT", env = "MANAGED_SECRETS_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, trace, or a list such as info,managed_secrets::engine=debug
    #[arg(long, value_name = "FILTER", env = "MANAGED_SECRETS_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The age at which a key is replaced; `None` if that is done on request only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyPeriod(pub Option<Duration>);

/// The least age at which a key is replaced.
const LEAST_KEY_PERIOD: Duration = duration::hours(1);

impl FromStr for KeyPeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let period = if text == "0" { Some(Duration::ZERO) } else { duration::parse(text) };
        match period {
            Some(Duration::ZERO) => Ok(Self(None)),
            Some(period) if period >= LEAST_KEY_PERIOD => Ok(Self(Some(period))),
            _ => Err("must be hours, minutes and seconds, such as 2160h or 36h30m, of at least 1h, or 0".to_owned()),
        }
    }
}

/// How long a key is kept: a period that is not 0, which could mean "at once" as well as "never".
fn retention(text: &str) -> Result<KeyPeriod, String> {
    let wrong = "must be hours, minutes and seconds, such as 4320h, of at least 1h";
    text.parse().ok().filter(|period| *period != KeyPeriod(None)).ok_or_else(|| wrong.to_owned())
}

impl std::fmt::Display for KeyPeriod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(period) if period.as_secs().is_multiple_of(3600) => write!(f, "{}h", period.as_secs() / 3600),
            Some(period) => write!(f, "{}s", period.as_secs()),
        }
    }
}

/// How long a KMS plugin may be silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KmsGrace(pub Duration);

impl FromStr for KmsGrace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let grace = if text == "0" { Some(Duration::ZERO) } else { duration::parse(text) };
        grace.map(Self).ok_or("must be hours, minutes and seconds, such as 24h or 1h30m, or 0")
    }
}

impl std::fmt::Display for KmsGrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        KeyPeriod(Some(self.0).filter(|grace| !grace.is_zero())).fmt(f)
    }
}

/// Where the KEK is that encrypts new keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KekProvider {
    /// A Secret of the operator's namespace
    Local,
    /// The file of --kek-file
    File,
    /// The first --kms
    Kms,
}

impl RunArgs {
    /// The provider that wraps new keys. An error says which flags contradict each other.
    pub(crate) fn primary(&self) -> Result<Primary, CliError> {
        let usage = |text: String| Err(CliError::Usage(text));
        for (at, kms) in self.kms.iter().enumerate() {
            if self.kms[..at].iter().any(|before| before.name == kms.name) {
                return usage(format!("--kms: the name {:?} is given twice", kms.name));
            }
        }
        match self.kek_provider {
            Some(KekProvider::File) if self.kek_file.is_none() => {
                usage("--kek-provider file: add --kek-file".to_owned())
            }
            Some(KekProvider::Kms) if self.kms.is_empty() => usage("--kek-provider kms: add --kms".to_owned()),
            Some(KekProvider::File) => Ok(Primary::File),
            Some(KekProvider::Kms) => Ok(Primary::Kms),
            None if !self.kms.is_empty() => Ok(Primary::Kms),
            None if self.kek_file.is_some() => Ok(Primary::File),
            Some(KekProvider::Local) | None => Ok(Primary::Local),
        }
    }

    /// The durations of the leader election. An error says which of the flags contradict each other.
    pub(crate) fn durations(&self) -> Result<Durations, CliError> {
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        let (lease, deadline) = (self.leader_elect_lease_duration, self.leader_elect_renew_deadline);
        Durations::new(seconds(lease), seconds(deadline), seconds(self.leader_elect_retry_period)).map_err(|error| {
            let flag = match error {
                DurationsError::Lease => "--leader-elect-lease-duration",
                DurationsError::RenewDeadline => "--leader-elect-renew-deadline",
                DurationsError::Retry => "--leader-elect-retry-period",
            };
            CliError::Usage(format!("{flag}: {error}"))
        })
    }
}

/// Environment variable with the name of the pod, which the Deployment sets.
pub(crate) const POD_NAME: &str = "POD_NAME";

/// Where the webhooks are served when no flag says: on every address of the machine, IPv6 and IPv4.
pub(crate) const DEFAULT_LISTEN: &str = "[::]:8443";

/// Where a port is served; `None` is `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| "must be ADDRESS:PORT or off")
    }
}

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

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Namespace of the ManagedSecret; one that the operator watches, and not its own
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The operator runs without webhooks: check that the API server refuses plain values
    #[arg(long, env = "MANAGED_SECRETS_WITHOUT_WEBHOOKS")]
    pub without_webhooks: bool,

    /// Seconds to try again
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_TIMEOUT", default_value = "60")]
    pub timeout: u16,
}

/// The commands of `kms`.
#[derive(Debug, Subcommand)]
pub enum KmsCommand {
    /// Test whether a KMS v2 plugin does what the contract says
    #[command(after_long_help = KMS_CHECK_EXAMPLES)]
    Check(KmsCheckArgs),
}

/// Arguments of `kms check`.
#[derive(Args, Clone, Debug)]
pub struct KmsCheckArgs {
    /// Address of the plugin: unix:// and the path of its socket
    #[arg(value_name = "SOCKET")]
    pub socket: Socket,

    /// Seconds that a call may take
    #[arg(long, value_name = "SECONDS", env = "MANAGED_SECRETS_TIMEOUT", default_value_t = CALL_SECONDS,
        value_parser = clap::value_parser!(u16).range(1..=600))]
    pub timeout: u16,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", env = "MANAGED_SECRETS_OUTPUT", value_enum, default_value_t)]
    pub output: ReportFormat,
}

/// How a report is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each check
    #[default]
    Text,
    /// JSON, for programs
    Json,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::CommandFactory;
    use managed_secrets_cli::error::usage;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable_of_its_name() {
        let command = Cli::command();
        let mut flags = 0;
        for subcommand in command.get_subcommands() {
            for arg in subcommand.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
                let flag = arg.get_long().expect("every argument is a flag");
                let variable = format!("MANAGED_SECRETS_{}", flag.to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
                flags += 1;
            }
        }
        assert!(flags > 15);
    }

    #[test]
    fn namespaces_may_be_repeated_and_separated() {
        let cli = Cli::try_parse_from(["managed-secrets", "run", "--namespace", "a", "--namespace=b,c"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.namespaces, ["a", "b", "c"]);
    }

    #[test]
    fn manifests_without_flags_are_the_default_installation() {
        let options = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["managed-secrets", "manifests"], arguments].concat()).unwrap();
            let Command::Manifests(args) = cli.command else { panic!("not manifests") };
            Options::from(args)
        };
        assert_eq!(options(&[]), Options::default());
        let available = options(&["--high-availability"]);
        assert_eq!((available.replicas, available.spread), (HIGHLY_AVAILABLE_REPLICAS, Spread::Required));
        assert_eq!(options(&["--high-availability", "--replicas", "5"]).replicas, 5);
        assert_eq!(options(&["--without-priority-class"]).priority_class, None);
        let both = ["managed-secrets", "manifests", "--priority-class=a", "--without-priority-class"];
        assert!(Cli::try_parse_from(both).is_err());
    }

    #[test]
    fn the_first_plugin_encrypts_new_keys_unless_another_provider_is_chosen() {
        let primary = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["managed-secrets", "run"], arguments].concat()).unwrap();
            let Command::Run(args) = cli.command else { panic!("not run") };
            args.primary().map_err(|error| error.to_string())
        };
        let (a, b, file) = ("--kms=a=unix:///run/a/kms.sock", "--kms=b=unix:///run/b/kms.sock", "--kek-file=/run/kek");
        for (arguments, expected) in [
            (&[][..], Primary::Local),
            (&[file], Primary::File),
            (&[file, a, b], Primary::Kms),
            (&[file, a, "--kek-provider=file"], Primary::File),
            (&[file, a, "--kek-provider=local"], Primary::Local),
        ] {
            assert_eq!(primary(arguments), Ok(expected), "{arguments:?}");
        }
        assert!(primary(&["--kek-provider=kms"]).is_err_and(|said| said.contains("add --kms")));
        assert!(primary(&["--kek-provider=file", a]).is_err_and(|said| said.contains("add --kek-file")));
        assert!(primary(&[a, a]).is_err_and(|said| said.contains("twice")));
    }

    #[test]
    fn the_folder_of_a_plugin_is_mounted_from_the_node() {
        let parse = |socket: &str| Cli::try_parse_from(["managed-secrets", "manifests", "--kms", socket]);
        let Command::Manifests(args) = parse("a=unix:///run/kms/a.sock").unwrap().command else {
            panic!("not manifests")
        };
        let folder = "/run/kms".to_owned();
        let expected = KmsSocket { name: "a".to_owned(), socket: "unix:///run/kms/a.sock".to_owned(), folder };
        assert_eq!(Options::from(args).kms, [expected]);
        assert!(parse("a=unix:///a.sock").is_err());
    }

    #[test]
    fn the_leader_election_has_the_default_durations_of_the_engine() {
        let Command::Run(args) = Cli::try_parse_from(["managed-secrets", "run"]).unwrap().command else {
            panic!("not run")
        };
        assert_eq!(args.durations().unwrap(), Durations::default());
        assert!(!args.leader_elect);
    }

    #[test]
    fn the_webhooks_can_be_switched_off() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!("127.0.0.1:1".parse(), Ok(Listen(Some(SocketAddr::from(([127, 0, 0, 1], 1))))));
        assert!(DEFAULT_LISTEN.parse::<Listen>().is_ok_and(|listen| listen.0.is_some()));
        assert!("8443".parse::<Listen>().is_err());
    }

    fn usage_of(arguments: &[&str]) -> String {
        let error = Cli::try_parse_from([&["managed-secrets"], arguments].concat()).expect_err("must be refused");
        usage(&error).to_string()
    }

    #[test]
    fn wrong_usage_is_one_line() {
        for arguments in [
            vec!["run", "--worker", "8"],
            vec!["run", "--workers", "many"],
            vec!["run", "--workers", "0"],
            vec!["run", "--log-format", "xml"],
            vec!["sale"],
            vec![],
            vec!["seal", "--scope"],
        ] {
            let text = usage_of(&arguments);
            assert!(!text.contains('\n') && !text.is_empty() && !text.contains("Usage"), "{text}");
        }
        assert!(usage_of(&["run", "--worker", "8"]).contains("--workers"));
        assert!(usage_of(&["sale"]).contains("seal"));
        assert!(usage_of(&["run", "--log-format", "xml"]).contains("json"));
    }

    #[test]
    fn a_value_given_as_an_argument_is_not_repeated() {
        for arguments in [
            vec!["seal", "hunter2"],
            vec!["seal", "--name", "db", "--namespace", "prod", "hunter2"],
            vec!["seal", "--value=hunter2"],
            vec!["seal", "--value", "hunter2"],
            vec!["seal", "--", "hunter2"],
            vec!["run", "hunter2"],
            vec!["run", "--workers", "hunter2"],
            vec!["run", "--log-format=hunter2"],
            vec!["seal", "--hunter2"],
            vec!["hunter2"],
        ] {
            assert!(!usage_of(&arguments).contains("hunter"), "{arguments:?}");
        }
    }
}
