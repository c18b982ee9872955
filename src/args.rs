//! The command line. Every flag is an environment variable as well: `--log-level` is `MANAGED_SECRETS_LOG_LEVEL`.

#![allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]

mod keyring;
mod manifests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use managed_secrets_api::keys;
use managed_secrets_cli::CliError;
use managed_secrets_cli::error::EXIT_CODES;
use managed_secrets_cli::seal::SealArgs;
use managed_secrets_engine::lease::{Durations, DurationsError};
use managed_secrets_engine::run::MAX_WORKERS;
use managed_secrets_kms::{Socket, limits::CALL_SECONDS};

pub use self::keyring::{KekProvider, KeyArgs, KeyPeriod, KmsGrace, RecoveryArgs};
pub use self::manifests::ManifestsArgs;
use crate::keyring::{
    kms::{DEFAULT_GRACE, KmsAddress},
    providers::Primary,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
