//! The cluster that a command talks to: the one that kubectl would talk to, as the same user.
//!
//! ```text
//! flags ──────────────┐
//! KUBECONFIG, ~/.kube ┴▶ kubeconfig ─▶ choice (pure) ─┐
//!                                                     ├─▶ Connection ─▶ client: credentials ─▶ transport: proxy, TLS
//! nothing asked for: the pod's service account ───────┘
//! ```
//!
//! The pod's own cluster is meant only if nothing was asked for: no flag, no `KUBECONFIG`, and no `~/.kube/config`. A
//! kubeconfig that cannot be used is an error, never a reason to take another cluster.

mod choice;
mod client;
mod credentials;
mod kubeconfig;
mod login;
mod plugin;
mod proxy;
mod transport;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use http::Uri;
use kube::{Client, Config, config::InClusterError};
use managed_secrets_api::{is_namespace_name, limits::NAMESPACE_MAX};

use self::{
    choice::{Choice, ChoiceError, DEFAULT_NAMESPACE},
    credentials::Credentials,
    kubeconfig::{Cluster, KubeconfigError, User},
    login::{Login, LoginError},
    proxy::ProxyError,
};
pub use self::{
    choice::{Overrides, Token},
    credentials::CredentialsError,
    kubeconfig::{Kubeconfig, Location},
    plugin::Interaction,
};
use super::CliError;

/// How long a command waits for the cluster before it says that it cannot be reached.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where Kubernetes mounts a pod's service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Runs what talks to a cluster, in a command that does nothing else meanwhile.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start", &error))?;
    let done = runtime.block_on(work);
    // Without waiting for threads that are still blocked, such as a look-up of a name that is given up.
    runtime.shutdown_background();
    done
}

/// Reads a path that may be empty, which clap's own parser of paths refuses.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What a command asks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// Whether the proxies of the environment count for the cluster of this pod too, as they do for kubectl. The
    /// operator reaches its own cluster directly.
    pub proxies_in_pod: bool,
    /// kubectl's other flags.
    pub flags: Overrides,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No kubeconfig can be read.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// It cannot be used.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// Its credentials cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The address of the API server.
    #[error("the server of the cluster is not a URL; write https://HOST:PORT")]
    Server,
    /// Its user or password, which is not repeated.
    #[error("the server of the cluster cannot be used: {0}")]
    ServerLogin(#[from] LoginError),
    /// What would lead to another path of the API.
    #[error(
        "{0:?} is not a valid namespace name; write at most {NAMESPACE_MAX} lower-case letters, digits and `-`, with a \
         letter or digit at both ends"
    )]
    Namespace(String),
    /// Whom to act as.
    #[error("{0}")]
    ActAs(&'static str),
    /// The CA bundle.
    #[error("the certificate authority of the cluster cannot be used: {0}")]
    Authority(String),
    /// A proxy.
    #[error("the proxy that {0} names cannot be used: {1}")]
    Proxy(&'static str, ProxyError),
    /// Nothing says which cluster.
    #[error("no cluster is configured: {0} does not exist and this is not a pod; set KUBECONFIG or use --kubeconfig")]
    Nothing(String),
    /// A flag needs a kubeconfig.
    #[error("{flag} needs a kubeconfig and {home} does not exist; set KUBECONFIG or use --kubeconfig")]
    Flag {
        /// Which flag.
        flag: &'static str,
        /// `~/.kube/config`
        home: String,
    },
    /// The pod's service account.
    #[error("the service account of this pod cannot be used: {0}")]
    InCluster(#[from] InClusterError),
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Namespace(_) | ConnectError::ActAs(_) => Self::Usage(error.to_string()),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

/// A cluster, a user and a namespace. Nothing is sent before a client is used.
#[derive(Clone)]
pub struct Connection {
    config: Config,
    credentials: Credentials,
    /// `--request-timeout`; zero is no limit.
    limit: Option<Duration>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds keys.
        f.debug_struct("Connection").field("server", &self.server()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads the kubeconfig, once, and decides which cluster is meant.
    pub fn open(wanted: &Wanted, interaction: Interaction) -> Result<Self, ConnectError> {
        let location = Location::of(wanted.kubeconfig.as_deref());
        let flags = &wanted.flags;
        match location.read()? {
            Some(kubeconfig) => Self::of(choice::choose(&kubeconfig, flags)?, flags, interaction),
            // A server needs no kubeconfig.
            None if !flags.server.is_empty() => {
                Self::of(choice::choose(&Kubeconfig::default(), flags)?, flags, interaction)
            }
            None => Self::in_cluster(wanted, &location),
        }
    }

    fn of(choice: Choice, flags: &Overrides, interaction: Interaction) -> Result<Self, ConnectError> {
        let Choice { cluster, user, namespace } = choice;
        let (url, login) = server(&cluster.server)?;
        let mut config = Config::new(url.clone());
        config.default_namespace = namespace_or_default(namespace)?;
        config.disable_compression = cluster.disable_compression;
        config.proxy_url = if cluster.proxy_url.is_empty() {
            environments_proxy(&url)?
        } else {
            Some(proxy::parse(&cluster.proxy_url).map_err(|error| ConnectError::Proxy("proxy-url", error))?)
        };
        impersonate(&mut config, &user);
        let mut credentials = Credentials::none();
        // As kubectl: what is secret is not sent over plain HTTP.
        if url.scheme_str() == Some("https") {
            let authority = authority(&cluster)?;
            config.root_cert = authority.as_deref().map(certificates).transpose()?;
            config.root_cert_file = authority_file(&cluster);
            config.accept_invalid_certs = cluster.insecure_skip_tls_verify;
            config.tls_server_name = Some(cluster.tls_server_name.clone()).filter(|name| !name.is_empty());
            identify(&mut config, &user);
            credentials = Credentials::of(&user, &cluster, authority.as_deref(), interaction)?;
        }
        // As Go: what the URL says goes first, over plain HTTP too.
        if let Some(login) = login {
            credentials = Credentials::fixed(login.basic()?);
        }
        Ok(Self { config, credentials, limit: flags.request_timeout })
    }

    /// The cluster that this pod is in.
    fn in_cluster(wanted: &Wanted, location: &Location) -> Result<Self, ConnectError> {
        let flags = &wanted.flags;
        let home = || location.to_string();
        if let Some(flag) = flags.choosing() {
            return Err(ConnectError::Flag { flag, home: home() });
        }
        if !is_in_cluster() {
            return Err(ConnectError::Nothing(home()));
        }
        let mut config = Config::incluster()?;
        let named = Some(flags.namespace.clone()).filter(|namespace| !namespace.is_empty());
        config.default_namespace = namespace_or_default(named)?;
        if wanted.proxies_in_pod {
            config.proxy_url = environments_proxy(&config.cluster_url)?;
        }
        let mut user = User::default();
        user.impersonate.clone_from(&flags.impersonate);
        user.impersonate_uid.clone_from(&flags.impersonate_uid);
        user.impersonate_groups.clone_from(&flags.impersonate_groups);
        choice::check_impersonation(&user).map_err(ConnectError::ActAs)?;
        impersonate(&mut config, &user);
        // kube would send the file's token with the line break that it may end in.
        let file = config.auth_info.token_file.take();
        let credentials = match file {
            _ if !flags.token.0.is_empty() => Credentials::token(&flags.token.0)?,
            Some(file) => Credentials::token_file(file.into()),
            None => Credentials::none(),
        };
        if !flags.certificate_authority.is_empty() {
            let cluster = Cluster { certificate_authority: flags.certificate_authority.clone(), ..Cluster::default() };
            config.root_cert = authority(&cluster)?.as_deref().map(certificates).transpose()?;
            config.root_cert_file = authority_file(&cluster);
        }
        Ok(Self { config, credentials, limit: flags.request_timeout })
    }

    /// The address of the API server, to be shown: scheme, host and port. What else a URL holds may be secret.
    pub fn server(&self) -> String {
        shown(&self.config.cluster_url)
    }

    /// The same with the path, by which a proxy before several clusters tells them apart: for a question to the user.
    /// It goes into no log.
    pub fn server_with_path(&self) -> String {
        let path = self.config.cluster_url.path().trim_end_matches('/');
        format!("{}{path}", self.server())
    }

    /// The namespace that is meant; never empty.
    pub fn namespace(&self) -> &str {
        &self.config.default_namespace
    }

    /// Whether the CA bundle is in a file that is read again: then a server that is not trusted now may be trusted later.
    pub fn reads_authority_again(&self) -> bool {
        self.config.root_cert_file.is_some()
    }

    /// The configuration, without credentials.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A client for calls of a command that a user waits for. It belongs to the runtime that it is created in.
    pub fn client(&self) -> Result<Client, CliError> {
        self.client_with(true)
    }

    /// The same, but it does not repeat a request that is answered with 429, 503 or 504: for a command that can act on this
    /// answer. kube's own client repeats it for a minute and longer.
    pub fn client_without_retries(&self) -> Result<Client, CliError> {
        self.client_with(false)
    }

    fn client_with(&self, retries: bool) -> Result<Client, CliError> {
        let mut config = self.config.clone();
        // 0 is no limit, as for kubectl.
        let patience = Some(self.limit.unwrap_or(PATIENCE)).filter(|patience| !patience.is_zero());
        config.connect_timeout = patience;
        config.read_timeout = patience;
        config.default_retry = retries;
        self.client_of(config).map_err(|error| CliError::from_kube("cannot call the cluster", &error))
    }

    /// A client for this configuration, which is [`config`](Self::config) with other timeouts.
    pub fn client_of(&self, config: Config) -> kube::Result<Client> {
        client::client(config, self.credentials.clone(), self.limit.filter(|limit| !limit.is_zero()))
    }
}

/// The URL of an API server, and the user and the password in it. As for kubectl, it is plain HTTP without a scheme,
/// and has no path then.
fn server(text: &str) -> Result<(Uri, Option<Login>), ConnectError> {
    let has_scheme = text.contains("://");
    let url = if has_scheme { text.to_owned() } else { format!("http://{text}") };
    let url: Uri = url.parse().map_err(|_| ConnectError::Server)?;
    let is_api = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty());
    if !is_api || (!has_scheme && url.path() != "/") {
        return Err(ConnectError::Server);
    }
    let login = Login::of(&url)?;
    // URLs are shown and logged.
    let mut parts = url.into_parts();
    if let Some(authority) = parts.authority.take() {
        let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        parts.authority = Some(host.parse().map_err(|_| ConnectError::Server)?);
    }
    Ok((Uri::from_parts(parts).map_err(|_| ConnectError::Server)?, login))
}

/// Scheme, host and port of a URL.
fn shown(url: &Uri) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or_default(), url.host().unwrap_or_default())
}

/// The namespace to use. It becomes part of the URLs of requests as it is, so that another text would be another path.
fn namespace_or_default(named: Option<String>) -> Result<String, ConnectError> {
    let namespace = named.or_else(pods_namespace).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    if is_namespace_name(&namespace) { Ok(namespace) } else { Err(ConnectError::Namespace(namespace)) }
}

/// The proxy that the environment names for this server.
fn environments_proxy(server: &Uri) -> Result<Option<Uri>, ConnectError> {
    proxy::Environment::read().proxy_for(server).map_err(|(name, error)| ConnectError::Proxy(name, error))
}

/// The cluster's CA bundle, PEM; `None` means the system's.
fn authority(cluster: &Cluster) -> Result<Option<Vec<u8>>, ConnectError> {
    let authority = if cluster.certificate_authority.is_empty() {
        Some(cluster.certificate_authority_data.clone()).filter(|data| !data.is_empty())
    } else {
        let file = &cluster.certificate_authority;
        Some(fs::read(file).map_err(|error| ConnectError::Authority(format!("cannot read {file}: {error}")))?)
    };
    if authority.is_some() && cluster.insecure_skip_tls_verify {
        let problem = "insecure-skip-tls-verify is set as well; remove one";
        return Err(ConnectError::Authority(problem.to_owned()));
    }
    Ok(authority)
}

/// The file of the cluster's CA bundle. kube reads it again each minute: a cluster may get a new authority while the operator
/// runs.
fn authority_file(cluster: &Cluster) -> Option<PathBuf> {
    Some(cluster.certificate_authority.clone()).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// The certificates of a CA bundle, DER.
fn certificates(bundle: &[u8]) -> Result<Vec<Vec<u8>>, ConnectError> {
    let problem = |text: &str| ConnectError::Authority(text.to_owned());
    let blocks = pem::parse_many(bundle).map_err(|_| problem("it is not valid PEM"))?;
    let found: Vec<_> =
        blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
    if found.is_empty() { Err(problem("it holds no PEM certificate")) } else { Ok(found) }
}

fn impersonate(config: &mut Config, user: &User) {
    // client-go ignores the rest without a user.
    if user.impersonate.is_empty() {
        return;
    }
    let info = &mut config.auth_info;
    info.impersonate = Some(user.impersonate.clone());
    info.impersonate_uid = Some(user.impersonate_uid.clone()).filter(|uid| !uid.is_empty());
    info.impersonate_groups = Some(user.impersonate_groups.clone()).filter(|groups| !groups.is_empty());
    info.impersonate_user_extra = Some(user.impersonate_extra.clone().into_iter().collect());
}

/// The client certificate of the kubeconfig.
fn identify(config: &mut Config, user: &User) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let encoded = |data: &Vec<u8>| Some(STANDARD.encode(data)).filter(|text| !text.is_empty());
    let info = &mut config.auth_info;
    info.client_certificate = given(&user.client_certificate);
    info.client_certificate_data = encoded(&user.client_certificate_data);
    if info.client_certificate.is_some() || info.client_certificate_data.is_some() {
        info.client_key = given(&user.client_key);
        info.client_key_data = encoded(&user.client_key_data).map(Into::into);
    }
}

/// Whether this is a pod with a service account: client-go's `inClusterClientConfig.Possible`.
fn is_in_cluster() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("KUBERNETES_SERVICE_HOST")
        && is_set("KUBERNETES_SERVICE_PORT")
        && Path::new(SERVICE_ACCOUNT).join("token").is_file()
}

/// The namespace of this pod, which is kubectl's default in a pod, with or without a kubeconfig.
fn pods_namespace() -> Option<String> {
    if !is_in_cluster() {
        return None;
    }
    let named = env::var("POD_NAMESPACE").ok().filter(|name| !name.is_empty());
    let mounted = || fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok();
    named.or_else(mounted).map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const CANARY: &str = "k4n4ry";

    fn connection(server: String, namespace: &str) -> Result<Connection, ConnectError> {
        let choice = Choice {
            cluster: Cluster { server, ..Cluster::default() },
            user: User::default(),
            namespace: Some(namespace.to_owned()),
        };
        Connection::of(choice, &Overrides::default(), Interaction::Forbidden)
    }

    #[test]
    fn a_namespace_that_would_be_another_path_is_refused() {
        let long = "a".repeat(NAMESPACE_MAX + 1);
        for wrong in
            ["", "a/b", "other/managedsecrets/db?x=", "..", "a.b", "-a", "a-", "A", "a%2fb", "a b", "\u{e4}", &long]
        {
            let error = connection("https://api".to_owned(), wrong).unwrap_err();
            assert!(matches!(error, ConnectError::Namespace(_)), "{wrong:?}: {error}");
            assert!(matches!(CliError::from(error), CliError::Usage(_)), "{wrong:?}");
        }
        for right in ["a", "0", "a-b", "shop-2", &long[1..]] {
            assert_eq!(connection("https://api".to_owned(), right).unwrap().namespace(), right);
        }
    }

    #[test]
    fn what_is_secret_in_a_servers_url_is_not_shown() {
        for user in [format!("admin:{CANARY}"), CANARY.to_owned()] {
            for scheme in ["https://", "http://", ""] {
                let connection = connection(format!("{scheme}{user}@api:6443"), "shop").unwrap();
                assert!(connection.server().ends_with("://api:6443"), "{}", connection.server());
                assert!(!connection.config.cluster_url.to_string().contains(CANARY));
            }
        }
        let error = connection(format!("https://admin:{CANARY}%zz@api"), "shop").unwrap_err();
        assert!(matches!(error, ConnectError::ServerLogin(_)), "{error}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
        for (url, expected) in [
            (format!("https://api:6443/{CANARY}?{CANARY}"), "https://api:6443"),
            ("https://[::1]:6443/".to_owned(), "https://[::1]:6443"),
            ("https://api".to_owned(), "https://api"),
        ] {
            assert_eq!(connection(url, "shop").unwrap().server(), expected);
        }
        for (url, expected) in [
            ("https://rancher/k8s/clusters/c-1/?x=y", "https://rancher/k8s/clusters/c-1"),
            ("https://api:6443/", "https://api:6443"),
            ("api", "http://api"),
        ] {
            assert_eq!(connection(url.to_owned(), "shop").unwrap().server_with_path(), expected);
        }
    }
}
