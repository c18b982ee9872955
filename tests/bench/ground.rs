//! What every row stands on: a control plane with the whole installation, and the operator's program as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Event, Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use managed_secrets::install::manifests::{self, Options};
pub(crate) use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE as OPERATOR_NAMESPACE;
use managed_secrets_api::{ManagedSecret, crd, keys};
use managed_secrets_crypto::mss1::PublishedKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{
    ControlPlane, Error, Operator, Result,
    audit::{Mark, Request},
    control_plane::quiet_address,
    error::Context,
    front_proxy::Authority,
    poll,
};

use crate::stats::float;

/// The longest that any step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1800);
/// Lines of the log of an operator that ended by itself.
const LAST_LINES: usize = 30;

/// Whether the API server keeps an audit log, and etcd all versions of all objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum History {
    /// Requests can be counted.
    Kept,
    /// It may run for long.
    Dropped,
}

impl History {
    fn options(self) -> testkit::Options {
        let none = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None"}]}"#;
        match self {
            Self::Kept => testkit::Options::default(),
            Self::Dropped => testkit::Options {
                audit_policy: Some(none.to_owned()),
                apiserver_flags: vec!["--etcd-compaction-interval=1m".to_owned()],
                ..testkit::Options::default()
            },
        }
    }
}

/// A control plane, and what is installed on it.
pub(crate) struct Ground {
    pub(crate) control_plane: ControlPlane,
    /// A client as administrator.
    pub(crate) admin: Client,
    /// A client with the permissions of the operator, and under its admission policies.
    pub(crate) bare: Client,
    kubeconfig: PathBuf,
    program: PathBuf,
}

impl Ground {
    /// Starts it. The operator's program is the one beside this one.
    pub(crate) async fn start(history: History) -> Result<Self> {
        let options = Options::default();
        let folder = tempfile::tempdir().context("create", Path::new("a temporary folder"))?;
        let printed = manifests::print(&options).map_err(|error| format_error("the manifests", &error))?;
        let files = [("crd.yaml", json(&crd::crd())?.to_string()), ("manifests.yaml", printed)];
        let mut paths = Vec::new();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, content).context("write", &path)?;
            paths.push(path);
        }
        let authority = Arc::new(Authority::new("front-proxy-ca")?);
        let control_plane = testkit::Options {
            manifests: paths,
            front_proxy: Some(authority),
            // Large populations, with all their versions.
            etcd_flags: vec!["--quota-backend-bytes=8589934592".to_owned()],
            ..history.options()
        };
        let control_plane = ControlPlane::start_own(&control_plane).await?;
        let access = control_plane.access();
        let (admin, bare) =
            (access.admin_client().await?, access.client_of(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await?);
        let kubeconfig = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await?;
        let here = std::env::current_exe().context("find", Path::new("this program"))?;
        let program = here.ancestors().nth(2).unwrap_or(Path::new(".")).join("managed-secrets");
        Ok(Self { control_plane, admin, bare, kubeconfig, program })
    }

    /// Starts the operator with these flags, and waits until it has started.
    pub(crate) async fn operator(&self, flags: &[String]) -> Result<Replica> {
        let replica = self.spawn_operator(flags).await?;
        replica.until_started().await?;
        Ok(replica)
    }

    /// Starts the operator with these flags. It logs warnings, unless they say otherwise.
    pub(crate) async fn spawn_operator(&self, flags: &[String]) -> Result<Replica> {
        let admin = quiet_address()?;
        let listen = format!("--admin-listen={admin}");
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain([listen.as_str()]).collect();
        let env = [("MANAGED_SECRETS_LOG_LEVEL", "warn")];
        let operator = Operator::start_with(&self.control_plane, &self.program, &self.kubeconfig, &flags, &env).await?;
        Ok(Replica { pid: operator.pid()?, operator, admin })
    }

    /// Creates a namespace, or uses the one that an earlier row has [emptied](Self::empty_namespace).
    pub(crate) async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = object(json!({"metadata": {"name": name}}))?;
        match Api::all(self.admin.clone()).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => Ok(created.map(drop)?),
        }
    }

    /// Deletes what the rows create in a namespace, and waits until nothing of it is left. The namespace stays: its deletion
    /// takes many seconds, in which the API server does other work. No operator may run, which would restore Secrets.
    pub(crate) async fn empty_namespace(&self, name: &str) -> Result<()> {
        // Otherwise the garbage collector looks at each Secret whose owner is deleted.
        empty::<Secret>(&self.admin, name).await?;
        tokio::try_join!(empty::<ManagedSecret>(&self.admin, name), empty::<Event>(&self.admin, name)).map(drop)
    }

    /// Applies an object as administrator.
    pub(crate) async fn apply(&self, object: &Value) -> Result<()> {
        let text = object.to_string();
        let output = self.control_plane.access().kubectl_with_input(&["apply", "-f", "-"], &text).await?;
        if output.status.success() {
            return Ok(());
        }
        Err(format_error("kubectl apply", &String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// The key that the operator has published.
    pub(crate) async fn public_key(&self) -> Result<PublishedKey> {
        let maps = Api::<ConfigMap>::namespaced(self.admin.clone(), OPERATOR_NAMESPACE);
        poll("the public key", PATIENCE, || async {
            let map = maps.get_opt(keys::PUBLIC_KEY_CONFIGMAP).await?;
            Ok(map
                .and_then(|map| map.data?.remove(keys::PUBLIC_KEY_DATA_KEY))
                .and_then(|text| PublishedKey::parse(&text).ok()))
        })
        .await
    }

    /// CPU seconds that the API server has used so far.
    pub(crate) fn api_server_cpu(&self) -> Result<f64> {
        let path = self.control_plane.supervisor().folder().join("kube-apiserver.pid");
        let text = std::fs::read_to_string(&path).context("read", &path)?;
        cpu(text.trim().parse().map_err(|error| format_error("a process id", &error))?)
    }

    /// What the operator asked for in a namespace since a mark.
    pub(crate) async fn requests(&self, namespace: &str, since: Mark) -> Result<Requests> {
        let user = Options::default().operator_user();
        let all = self.control_plane.requests_since(since).await?;
        Ok(Requests::of(all.iter().filter(|it| it.username() == user && it.object().namespace == namespace)))
    }
}

/// Requests of the operator, without lists and watches.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Requests {
    pub(crate) writes: usize,
    pub(crate) dry_runs: usize,
    pub(crate) reads: usize,
    pub(crate) events: usize,
}

impl Requests {
    /// The number of each kind.
    pub(crate) const fn kinds(&self) -> [(&'static str, usize); 4] {
        let Self { writes, dry_runs, reads, events } = *self;
        [("writes", writes), ("dry runs", dry_runs), ("reads", reads), ("events", events)]
    }

    fn of<'a>(requests: impl Iterator<Item = &'a Request>) -> Self {
        let mut counted = Self::default();
        for request in requests.filter(|it| !matches!(it.verb.as_str(), "list" | "watch")) {
            let count = match request {
                it if it.object().resource == "events" => &mut counted.events,
                it if it.is_dry_run() => &mut counted.dry_runs,
                it if it.is_write() => &mut counted.writes,
                _ => &mut counted.reads,
            };
            *count += 1;
        }
        counted
    }
}

/// One running operator.
pub(crate) struct Replica {
    operator: Operator,
    admin: SocketAddr,
    pid: i32,
}

impl Replica {
    pub(crate) async fn until_started(&self) -> Result<()> {
        poll("the operator to start", PATIENCE, || async {
            self.check()?;
            Ok(self.get("/startupz").await.starts_with("HTTP/1.1 200").then_some(()))
        })
        .await
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&self) -> Result<()> {
        match self.operator.ended() {
            None => Ok(()),
            Some(code) => {
                let log = self.operator.log()?;
                let last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
                let last: Vec<&str> = last.into_iter().rev().collect();
                let why = format!("it ended by itself with exit status {code}: {}", last.join("\n"));
                Err(format_error("the operator", &why))
            }
        }
    }

    /// The answer on a path of its port for probes and metrics; empty if there is none.
    async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut answer = String::new();
        if let Ok(mut stream) = tokio::net::TcpStream::connect(self.admin).await {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            if stream.write_all(request.as_bytes()).await.is_err() || stream.read_to_string(&mut answer).await.is_err()
            {
                answer.clear();
            }
        }
        answer
    }

    /// CPU seconds that it has used so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(self.pid)
    }

    /// Waits until it has nothing to do: for a second it uses next to no CPU. Fails if that takes too long.
    pub(crate) async fn until_idle(&self) -> Result<()> {
        let (began, mut before) = (Instant::now(), self.cpu()?);
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.cpu()?;
            if now - before < 0.03 {
                return Ok(());
            }
            before = now;
        }
        Err(format_error("the operator", &"it is never idle"))
    }

    /// Memory that it holds now, and the most that it has held, in MiB.
    pub(crate) fn memory(&self) -> Result<[f64; 2]> {
        let status = procfs::process::Process::new(self.pid).and_then(|process| process.status());
        let status = status.map_err(|error| format_error("a process", &error))?;
        let mib = |kib: Option<u64>| float(usize::try_from(kib.unwrap_or_default()).unwrap_or_default()) / 1024.0;
        Ok([mib(status.vmrss), mib(status.vmhwm)])
    }

    /// SIGKILL. Fails if it has ended before.
    pub(crate) async fn kill(self) -> Result<()> {
        self.check()?;
        self.operator.kill().await
    }

    /// SIGTERM. Fails if it has ended before, or does not end in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.check()?;
        match self.operator.stop().await? {
            0 => Ok(()),
            code => Err(format_error("the operator", &format!("it stopped with exit status {code}"))),
        }
    }
}

/// Deletes all objects of a kind in a namespace, and waits until none is left.
async fn empty<K>(client: &Client, namespace: &str) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let objects = Api::<K>::namespaced(client.clone(), namespace);
    poll("the namespace to be empty", PATIENCE, || async {
        match objects.delete_collection(&DeleteParams::default(), &ListParams::default()).await {
            // Many objects take longer than the API server has for one request, which has deleted some of them.
            Err(kube::Error::Api(status)) if status.code == 504 => {}
            deleted => drop(deleted?),
        }
        Ok(objects.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty().then_some(()))
    })
    .await
}

/// CPU seconds that a process has used so far.
fn cpu(pid: i32) -> Result<f64> {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    let stat = stat.map_err(|error| format_error("a process", &error))?;
    #[allow(clippy::cast_precision_loss, reason = "hundredths of a second, for days at most")]
    let ticks = (stat.utime + stat.stime) as f64;
    #[allow(clippy::cast_precision_loss, reason = "100 on Linux")]
    let per_second = procfs::ticks_per_second() as f64;
    Ok(ticks / per_second)
}

/// A typed object.
pub(crate) fn object<K: DeserializeOwned>(json: Value) -> Result<K> {
    serde_json::from_value(json).map_err(|error| format_error("an object", &error))
}

/// An object as JSON.
pub(crate) fn json(object: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(object).map_err(|error| format_error("an object", &error))
}

pub(crate) fn format_error(what: &str, why: &impl ToString) -> Error {
    Error::Format { what: what.to_owned(), why: why.to_string() }
}
