//! One cluster and one namespace, for the time of one command.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::{Client, Resource};
use managed_secrets_api::ManagedSecret;
use managed_secrets_cli::CliError;
use managed_secrets_cli::connect::{Connection, Interaction, Overrides, Token, Wanted, path};
use managed_secrets_cli::names;
use serde::de::DeserializeOwned;

use super::completion;

/// Which cluster, and as whom: kubectl's own flags, with kubectl's meaning. An empty value is an absent one.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct ClusterArgs {
    /// Namespace; when absent that of the kubeconfig's context, else default
    #[arg(short, long, value_name = "NAMESPACE", global = true, add = completion::namespaces())]
    pub namespace: Option<String>,

    /// Context of the kubeconfig
    #[arg(long, value_name = "CONTEXT", global = true, add = completion::contexts())]
    pub context: Option<String>,

    /// Kubeconfig file; when absent KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", global = true, value_parser = path())]
    pub kubeconfig: Option<PathBuf>,

    /// Cluster of the kubeconfig; when absent that of the context
    #[arg(long, value_name = "CLUSTER", global = true, hide_short_help = true, add = completion::clusters())]
    pub cluster: Option<String>,

    /// User of the kubeconfig; when absent that of the context
    #[arg(long, value_name = "USER", global = true, hide_short_help = true, add = completion::users())]
    pub user: Option<String>,

    /// Act as this user
    #[arg(long = "as", value_name = "USER", global = true)]
    pub as_user: Option<String>,

    /// Act in this group; may be given several times
    #[arg(long, value_name = "GROUP", global = true)]
    pub as_group: Vec<String>,

    /// Act with this uid
    #[arg(long, value_name = "UID", global = true, hide_short_help = true)]
    pub as_uid: Option<String>,

    /// Address of the API server; when absent that of the kubeconfig's cluster
    #[arg(short, long, value_name = "URL", global = true, hide_short_help = true)]
    pub server: Option<String>,

    /// Bearer token; others who use this machine can read it here, so prefer a kubeconfig
    #[arg(long, value_name = "TOKEN", global = true, hide_short_help = true)]
    pub token: Option<Token>,

    /// File with a client certificate
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub client_certificate: Option<String>,

    /// File with the key of the client certificate
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub client_key: Option<String>,

    /// File with the certificates that the API server's certificate must be signed by
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true)]
    pub certificate_authority: Option<String>,

    /// Do not verify the API server's certificate: others may read and change what is sent
    #[arg(long, value_name = "BOOL", global = true, hide_short_help = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = boolean)]
    pub insecure_skip_tls_verify: Option<bool>,

    /// Name that the API server's certificate must have; when absent that of the address
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true)]
    pub tls_server_name: Option<String>,

    /// How long to wait for the answer to one request, such as 30s; 0 is no limit
    #[arg(long, value_name = "DURATION", global = true, hide_short_help = true, value_parser = request_timeout)]
    pub request_timeout: Option<Duration>,

    /// The kubeconfig is read once, and a credential plugin runs once.
    #[arg(skip)]
    connection: OnceLock<Connection>,

    /// What a credential plugin may do.
    #[arg(skip)]
    interaction: Interaction,
}

impl ClusterArgs {
    /// The namespace that a flag names.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }

    /// The same, for completion: the plugin does not ask on the terminal, and leaves no process running.
    pub(super) fn without_interaction(self) -> Self {
        Self { interaction: Interaction::Forbidden, ..self }
    }

    /// The same without the flags that name another user: the user of the kubeconfig acts.
    pub(super) fn without_impersonation(&self) -> Self {
        let mut own = self.clone();
        (own.as_user, own.as_uid, own.as_group, own.connection) = (None, None, Vec::new(), OnceLock::new());
        own
    }

    /// Which cluster, user and namespace these flags mean.
    pub(super) fn connection(&self) -> Result<&Connection, CliError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let opened = Connection::open(&self.wanted(), self.interaction)?;
        Ok(self.connection.get_or_init(|| opened))
    }

    fn wanted(&self) -> Wanted {
        let text = |flag: &Option<String>| flag.clone().unwrap_or_default();
        let flags = Overrides {
            context: text(&self.context),
            cluster: text(&self.cluster),
            user: text(&self.user),
            namespace: text(&self.namespace),
            server: text(&self.server),
            certificate_authority: text(&self.certificate_authority),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify.unwrap_or_default(),
            tls_server_name: text(&self.tls_server_name),
            token: self.token.clone().unwrap_or_default(),
            client_certificate: text(&self.client_certificate),
            client_key: text(&self.client_key),
            impersonate: text(&self.as_user),
            impersonate_uid: text(&self.as_uid),
            impersonate_groups: self.as_group.clone(),
            request_timeout: self.request_timeout,
        };
        Wanted { kubeconfig: self.kubeconfig.clone(), proxies_in_pod: true, flags }
    }
}

/// The words that Go takes for a boolean.
fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false"),
    }
}

/// A number of seconds, or numbers with units, as `1m30s`: kubectl's form.
fn request_timeout(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "write a number of seconds, or a number with a unit, such as 30s, 2m or 1h";
    // The longest that Go's time.Duration holds: some 292 years.
    const MAX: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());
    const TOO_LONG: &str = "it is too long: write at most 2562047h, or 0 for no limit";
    let fits = |total: Duration| if total <= MAX { Ok(total) } else { Err(TOO_LONG) };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| TOO_LONG).and_then(|seconds| fits(Duration::from_secs(seconds)));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(WRONG)?);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let seconds = match &behind[..end] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(WRONG),
        };
        let number: f64 = number.parse().map_err(|_| WRONG)?;
        let more = Duration::try_from_secs_f64(number * seconds).map_err(|_| TOO_LONG)?;
        total = total.checked_add(more).ok_or(TOO_LONG).and_then(fits)?;
        rest = &behind[end..];
    }
    if text.is_empty() { Err(WRONG) } else { Ok(total) }
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
    pub(super) fn open(cluster: &ClusterArgs) -> Result<Self, CliError> {
        let connection = cluster.connection()?;
        Ok(Self { client: connection.client()?, namespace: connection.namespace().to_owned() })
    }

    /// Objects of one kind in the namespace.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One object of the namespace; `None` if there is none. The name may come from a status or a file: an invalid
    /// name is not requested, because no object has it.
    pub(super) async fn find<K>(&self, name: &str) -> kube::Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug,
    {
        find(self.api(), name).await
    }

    /// The namespace's ManagedSecrets.
    pub(super) fn objects(&self) -> Api<ManagedSecret> {
        self.api()
    }
}

/// The same in another namespace, whose name has been checked.
pub(super) async fn find<K>(api: Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + DeserializeOwned + fmt::Debug,
{
    if names::object(name).is_err() {
        return Ok(None);
    }
    api.get_opt(name).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_request_timeout_is_read_as_kubectl_reads_it() {
        for (text, milliseconds) in
            [("0", 0), ("30", 30_000), ("1s", 1000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(request_timeout(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "-1", "-1s", "1x", "s", "1 s", "one", "1s2", ".s", "1e400s"] {
            assert!(request_timeout(text).is_err(), "{text}");
        }
        let digits = "9".repeat(400);
        for text in [
            "18446744073709551615",
            "18446744073709551615s1s",
            "18446744073709551616",
            "9223372037",
            "2562048h",
            &digits,
        ] {
            assert!(request_timeout(text).is_err(), "{text}");
        }
    }
}
