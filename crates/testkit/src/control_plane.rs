//! One control plane: etcd, kube-apiserver and kube-controller-manager on free loopback ports, in a folder of their own.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use serde_json::{Value, json};

use super::access::Access;
use super::binaries::{self, Binaries};
use super::error::{Context, Error, Result};
use super::front_proxy::Authority;
use super::supervisor::{Process, Signal, Supervisor};

const ETCD: &str = "etcd";
const APISERVER: &str = "kube-apiserver";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
/// The API server's folder of certificates.
const CERTIFICATES: &str = "certificates";

/// Long enough for a machine that compiles beside it.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// A free port can be taken by another program before the program binds it.
const START_ATTEMPTS: usize = 3;
/// Between two looks of [`poll`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The issuer and audience of service account tokens.
const ISSUER: &str = "https://kubernetes.default.svc";

/// The controllers that these tests rely on. All of them would only cost time: there are no nodes.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
    serviceaccount-token-controller,resourcequota-controller,clusterrole-aggregation-controller,\
    validatingadmissionpolicy-status-controller,endpointslice-controller";

/// What a control plane is to be like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Manifests (files or folders) applied before the controller manager starts. The garbage collector looks for new
    /// resource types when it starts and then every 30 s only, so CRDs whose objects own others belong here.
    pub manifests: Vec<PathBuf>,
    /// Groups ("" is the core group) whose request and response bodies go into the audit log.
    pub audit_bodies_of: Vec<String>,
    /// An audit policy (YAML) in place of the tests' own.
    pub audit_policy: Option<String>,
    /// The authority of the API server's front proxy, which sends requests to extension API servers; none if absent.
    pub front_proxy: Option<Arc<Authority>>,
    /// Further flags of kube-apiserver.
    pub apiserver_flags: Vec<String>,
    /// Further flags of etcd.
    pub etcd_flags: Vec<String>,
    /// What kube-apiserver identifies itself with; otherwise it signs a certificate for itself.
    pub serving: Option<Serving>,
    /// A program and its arguments that run etcd, to slow it down. etcd then calls fsync, which it otherwise leaves out.
    pub etcd_under: Vec<OsString>,
}

/// A serving certificate of kube-apiserver, in PEM.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities that the administrator and the controllers trust, now and later.
    pub authorities: String,
}

/// A running control plane, or the cluster that was given. Dropping it ends it, if it is ours.
#[derive(Debug)]
pub struct ControlPlane {
    access: Access,
    supervisor: Arc<Supervisor>,
    etcd_url: Option<String>,
}

/// The programs that can be paused, stopped and started again.
#[derive(Clone, Copy, Debug)]
pub enum Component {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    Apiserver,
    /// kube-controller-manager.
    ControllerManager,
}

impl Component {
    const fn name(self) -> &'static str {
        match self {
            Self::Etcd => ETCD,
            Self::Apiserver => APISERVER,
            Self::ControllerManager => CONTROLLER_MANAGER,
        }
    }
}

impl ControlPlane {
    /// The cluster of `KUBECONFIG` if `USE_EXISTING_CLUSTER=true`, else one of our own.
    pub async fn start(options: &Options) -> Result<Self> {
        if Self::is_given_one() { Self::given(options).await } else { Self::start_own(options).await }
    }

    /// Whether the environment gives a cluster.
    #[must_use]
    pub fn is_given_one() -> bool {
        std::env::var("USE_EXISTING_CLUSTER").is_ok_and(|value| value == "true")
    }

    /// One of our own, also where a cluster is given: for tests that look into etcd or stop the API server.
    pub async fn start_own(options: &Options) -> Result<Self> {
        let binaries = blocking(binaries::find_or_build).await?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Self::try_start(&binaries, options).await {
                Err(Error::Ended { log, .. })
                    if attempts < START_ATTEMPTS && log.contains("address already in use") => {}
                result => return result,
            }
        }
    }

    async fn given(options: &Options) -> Result<Self> {
        let kubeconfig = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).ok_or(Error::Setting {
            variable: "KUBECONFIG",
            value: String::new(),
            expected: "the kubeconfig of the cluster that USE_EXISTING_CLUSTER=true speaks of",
        })?;
        let supervisor = Arc::new(Supervisor::start("client")?);
        let access = Access::new(PathBuf::from(kubeconfig), "kubectl".into(), supervisor.folder());
        let this = Self { access, supervisor, etcd_url: None };
        this.wait_until_ready().await?;
        this.apply(&options.manifests).await?;
        Ok(this)
    }

    async fn try_start(binaries: &Binaries, options: &Options) -> Result<Self> {
        let supervisor = Arc::new(Supervisor::start("controlplane")?);
        let folder = supervisor.folder();
        let [etcd_client, etcd_peer, secure] = free_ports()?;
        let etcd_url = format!("http://127.0.0.1:{etcd_client}");
        let token = uuid::Uuid::new_v4().simple().to_string();
        let [private, public] = service_account_keys()?;
        write(&folder.join("service-account.key"), private)?;
        write(&folder.join("service-account.pub"), public)?;
        write(&folder.join("tokens.csv"), format!("{token},admin,admin,system:masters\n"))?;
        let own_policy = || audit_policy(&options.audit_bodies_of).to_string();
        let policy = options.audit_policy.clone().unwrap_or_else(own_policy);
        write(&folder.join("audit-policy.yaml"), policy)?;

        if let Some(serving) = &options.serving {
            write_serving(folder, serving)?;
        }
        supervisor.run(ETCD, &etcd(binaries, &etcd_url, etcd_peer, options))?;
        let front_proxy = options.front_proxy.as_ref().map(|authority| authority.flags(folder)).transpose()?;
        let program = apiserver(binaries, &etcd_url, secure, options).args(front_proxy.unwrap_or_default());
        supervisor.run(APISERVER, &program)?;

        // The API server signs a certificate for itself when it starts, if there is none.
        let certificate = folder.join(CERTIFICATES).join("apiserver.crt");
        let key = folder.join(CERTIFICATES).join("apiserver.key");
        poll("the API server's certificate", START_DEADLINE, || async {
            check_running(&supervisor, &[ETCD, APISERVER])?;
            Ok((certificate.is_file() && key.is_file()).then_some(()))
        })
        .await?;
        let certificate = match &options.serving {
            Some(serving) => serving.authorities.clone().into_bytes(),
            None => fs::read(&certificate).context("read", &certificate)?,
        };
        let kubeconfig = folder.join("admin.kubeconfig");
        write(&kubeconfig, kubeconfig_text(&format!("https://127.0.0.1:{secure}"), &certificate, &token))?;

        let access = Access::new(kubeconfig, binaries.kubectl.clone(), folder);
        let this = Self { access, supervisor, etcd_url: Some(etcd_url) };
        this.wait_until_ready().await?;
        this.apply(&options.manifests).await?;
        this.supervisor.run(CONTROLLER_MANAGER, &controller_manager(binaries))?;
        this.wait_for_controllers().await?;
        Ok(this)
    }

    /// Clients, kubeconfigs and kubectl.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether this is a cluster that was given to us: what a test leaves behind there stays.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.etcd_url.is_none()
    }

    /// Runs further programs (the operator), which end with the control plane.
    #[must_use]
    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    /// etcd's data folder, to search for what must not be there.
    pub fn etcd_dir(&self) -> Result<PathBuf> {
        Ok(self.own("etcd's data folder")?.folder().join("etcd-data"))
    }

    /// Where etcd answers, without a password: its gRPC API, and the same as JSON.
    pub fn etcd_url(&self) -> Result<&str> {
        self.etcd_url.as_deref().ok_or(Error::NotOurs("etcd's address"))
    }

    /// The API server's audit log: one JSON object a line.
    pub fn audit_log(&self) -> Result<PathBuf> {
        Ok(self.own("the audit log")?.folder().join("audit.log"))
    }

    fn own(&self, what: &'static str) -> Result<&Arc<Supervisor>> {
        if self.is_given() { Err(Error::NotOurs(what)) } else { Ok(&self.supervisor) }
    }

    /// Freezes a program: its connections stay open, and nothing answers.
    pub async fn pause(&self, component: Component) -> Result<()> {
        self.supervise(move |supervisor| supervisor.signal(component.name(), Signal::Stop)).await
    }

    /// Lets a frozen program go on.
    pub async fn resume(&self, component: Component) -> Result<()> {
        self.supervise(move |supervisor| supervisor.signal(component.name(), Signal::Continue)).await
    }

    /// Ends a program gracefully.
    pub async fn stop_component(&self, component: Component) -> Result<()> {
        self.supervise(move |supervisor| supervisor.stop(component.name())).await
    }

    /// Ends a program at once: one that serves watches takes its time to end gracefully.
    pub async fn kill_component(&self, component: Component) -> Result<()> {
        self.supervise(move |supervisor| supervisor.kill(component.name())).await
    }

    /// Starts a stopped program again, on the same ports; after the API server, waits until it is ready.
    pub async fn start_component(&self, component: Component) -> Result<()> {
        self.supervise(move |supervisor| supervisor.run_again(component.name())).await?;
        match component {
            Component::Apiserver => self.wait_until_ready().await,
            Component::Etcd | Component::ControllerManager => Ok(()),
        }
    }

    /// Replaces the API server's certificate, which it uses from its next start on.
    pub fn replace_serving(&self, serving: &Serving) -> Result<()> {
        write_serving(self.own("the API server's certificate")?.folder(), serving)
    }

    /// Ends everything and waits until it is gone.
    pub async fn stop(self) -> Result<()> {
        blocking(move || {
            drop(self);
            Ok(())
        })
        .await
    }

    /// Lets everything run on after this process. Returns the id of the process whose end ends it.
    pub fn leave_running(self) -> Result<u32> {
        self.supervisor.leave_running()
    }

    async fn supervise(&self, act: impl FnOnce(&Supervisor) -> Result<()> + Send + 'static) -> Result<()> {
        let supervisor = Arc::clone(self.own("a component to stop")?);
        blocking(move || act(&supervisor)).await
    }

    /// Applies manifests (files or folders), and waits until the API server serves their CRDs.
    pub async fn apply(&self, manifests: &[PathBuf]) -> Result<()> {
        for manifest in manifests {
            let path = manifest.display().to_string();
            self.access.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", &path]).await?;
        }
        if !manifests.is_empty() {
            self.access.kubectl_ok(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await?;
        }
        Ok(())
    }

    /// Ready means that `/readyz` says so, and that the namespace `default` exists: it is made a moment later.
    async fn wait_until_ready(&self) -> Result<()> {
        let client = self.access.admin_client().await?;
        let namespaces = Api::<Namespace>::all(client.clone());
        poll("the API server to be ready", START_DEADLINE, || async {
            if !self.is_given() {
                check_running(&self.supervisor, &[ETCD, APISERVER])?;
            }
            let request = http::Request::get("/readyz")
                .body(Vec::new())
                .map_err(|error| Error::Format { what: "a request".to_owned(), why: error.to_string() })?;
            let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
            let ready = matches!(answer, Ok(Ok(text)) if text == "ok");
            Ok((ready && namespaces.get_metadata_opt("default").await.ok().flatten().is_some()).then_some(()))
        })
        .await
    }

    /// The controllers work when the first service account is there.
    async fn wait_for_controllers(&self) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.access.admin_client().await?, "default");
        poll("the controller manager", START_DEADLINE, || async {
            check_running(&self.supervisor, &[ETCD, APISERVER, CONTROLLER_MANAGER])?;
            Ok(accounts.get_metadata_opt("default").await?.map(drop))
        })
        .await
    }
}

fn check_running(supervisor: &Supervisor, names: &[&str]) -> Result<()> {
    for &name in names {
        if !supervisor.is_running(name)? {
            return Err(Error::Ended { name: name.to_owned(), log: supervisor.log_end(name) });
        }
    }
    Ok(())
}

fn write_serving(folder: &Path, serving: &Serving) -> Result<()> {
    let folder = folder.join(CERTIFICATES);
    fs::create_dir_all(&folder).context("create", &folder)?;
    write(&folder.join("apiserver.crt"), &serving.certificate)?;
    write(&folder.join("apiserver.key"), &serving.key)
}

fn etcd(binaries: &Binaries, client_url: &str, peer_port: u16, options: &Options) -> Process {
    let under = &options.etcd_under;
    let peer_url = format!("http://127.0.0.1:{peer_port}");
    // These data need not survive a power cut, and on most disks fsync is what a write costs.
    let fsync = under.is_empty().then_some("--unsafe-no-fsync");
    let command = under.iter().map(OsString::as_os_str).chain([binaries.etcd.as_os_str()]);
    Process::of(command)
        .flag("name", "test")
        .flag("data-dir", "etcd-data")
        .flag("listen-client-urls", client_url)
        .flag("advertise-client-urls", client_url)
        .flag("listen-peer-urls", &peer_url)
        .flag("initial-advertise-peer-urls", &peer_url)
        .flag("initial-cluster", format!("test={peer_url}"))
        .flag("log-level", "warn")
        .args(fsync)
        .args(&options.etcd_flags)
}

fn apiserver(binaries: &Binaries, etcd_url: &str, port: u16, options: &Options) -> Process {
    // Mutating policies are general since 1.36, and for the asking before.
    let on_request =
        ["--feature-gates=MutatingAdmissionPolicy=true", "--runtime-config=admissionregistration.k8s.io/v1beta1=true"];
    let on_request = on_request.into_iter().filter(|_| matches!(binaries::kubernetes_minor(), Ok("1.34")));
    Process::new(&binaries.apiserver)
        .flag("etcd-servers", etcd_url)
        .flag("bind-address", "127.0.0.1")
        .flag("advertise-address", "127.0.0.1")
        .flag("secure-port", port.to_string())
        .flag("cert-dir", CERTIFICATES)
        .flag("authorization-mode", "RBAC")
        .flag("token-auth-file", "tokens.csv")
        .flag("service-account-issuer", ISSUER)
        .flag("service-account-key-file", "service-account.pub")
        .flag("service-account-signing-key-file", "service-account.key")
        .flag("service-cluster-ip-range", "10.96.0.0/24")
        .flag("allow-privileged", "true")
        // A loopback address is no valid endpoint of the Service `kubernetes`.
        .flag("endpoint-reconciler-type", "none")
        .flag("audit-policy-file", "audit-policy.yaml")
        .flag("audit-log-path", "audit.log")
        // One file: tests that count requests remember a position in it. In MB.
        .flag("audit-log-maxsize", "4000")
        // The tests read etcd's whole history.
        .flag("etcd-compaction-interval", "0")
        .args(on_request)
        .args(&options.apiserver_flags)
}

fn controller_manager(binaries: &Binaries) -> Process {
    Process::new(&binaries.controller_manager)
        .flag("kubeconfig", "admin.kubeconfig")
        .flag("secure-port", "0")
        .flag("leader-elect", "false")
        .flag("controllers", CONTROLLERS)
        .flag("service-account-private-key-file", "service-account.key")
        // Each controller under its own name, as in a real cluster: admission policies tell them apart by it.
        .flag("use-service-account-credentials", "true")
        .flag("concurrent-gc-syncs", "5")
}

/// Everything at level Metadata; with bodies for the chosen groups. Of a request, the moment it came in is left out: what
/// counts is that it was answered, and for a watch that it began.
fn audit_policy(bodies_of: &[String]) -> Value {
    let mut rules = Vec::new();
    if !bodies_of.is_empty() {
        let groups: Vec<_> = bodies_of.iter().map(|group| json!({ "group": group })).collect();
        rules.push(json!({ "level": "RequestResponse", "resources": groups }));
    }
    rules.push(json!({ "level": "Metadata" }));
    json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules })
}

/// A kubeconfig with one cluster and one user. JSON is YAML.
#[must_use]
pub fn kubeconfig_text(server: &str, certificate: &[u8], token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "clusters": [{ "name": "test", "cluster": {
            "server": server,
            "certificate-authority-data": BASE64.encode(certificate),
        }}],
        "users": [{ "name": "test", "user": { "token": token } }],
    })
    .to_string()
}

/// A fresh P-256 key pair to sign service account tokens: the private and the public key as PEM.
fn service_account_keys() -> Result<[String; 2]> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| Error::Key)?;
    let private = pair.to_pkcs8v1().map_err(|_| Error::Key)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| Error::Key)?;
    Ok([pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref())])
}

/// RFC 7468, with lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until the last one is known, so they differ.
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = quiet_listener()?;
        *port = listener.local_addr().context("find", Path::new("a free port"))?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A loopback address that no program listens on, for a program to listen on. Its port is none of those that the system gives
/// to programs that ask for any, so it stays free.
pub fn quiet_address() -> Result<SocketAddr> {
    quiet_listener()?.local_addr().context("find", Path::new("a free port"))
}

fn quiet_listener() -> Result<TcpListener> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        // Below the range of ephemeral ports, which begins at 32768.
        let port = 20_000 + (uuid::Uuid::new_v4().as_u128() % 12_000) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(_) if attempts < 100 => {}
            found => return found.context("find", Path::new("a free port")),
        }
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).context("write", path)
}

/// Asks `probe` again and again until it has an answer.
///
/// It asks at longer and longer intervals: a wait ends an eighth later at most, and many tests that wait at the same time
/// leave the machine to what they wait for.
pub async fn poll<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = probe().await? {
            return Ok(found);
        }
        if began.elapsed() > deadline {
            return Err(Error::Deadline { what: what.to_owned(), seconds: deadline.as_secs() });
        }
        tokio::time::sleep((began.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
    }
}

/// Runs what blocks beside the runtime's own threads.
pub async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(act)
        .await
        .map_err(|error| Error::Io { what: "a blocking task".to_owned(), source: std::io::Error::other(error) })?
}
