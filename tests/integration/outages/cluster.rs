//! An installation as a cluster runs it: two replicas with a service account, restarted when they end, behind one address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    coordination::v1::Lease,
    core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets::install::manifests;
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ControlPlane, Operator, control_plane::quiet_address, poll, supervisor::Process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use super::{Length, authority::Authority, compiled, program};
use crate::integration::{
    admission::balancer::Balancer,
    installation::{self, OPERATOR_NAMESPACE},
    objects::{Site, id, ready},
};

const CLOCK: &str = include_str!("clock.c");
const SLOW_FSYNC: &str = include_str!("slow_fsync.c");

/// The program in the cgroup `CGROUP`, and in a mount namespace in which the folder `ACCOUNT` is where Kubernetes mounts a
/// service account.
const POD_SCRIPT: &str = "[ -z \"$CGROUP\" ] || echo $$ >\"$CGROUP/cgroup.procs\" || exit 99; account=/run/secrets/kubernetes.io/serviceaccount; \
    mount -t tmpfs tmpfs /run && mkdir -p $account && mount --bind \"$ACCOUNT\" $account || exit 99; \
    unset KUBECONFIG; export HOME=/nonexistent LD_PRELOAD=\"$CLOCK\"; exec \"$@\"";
/// How many replicas the Deployment has.
const REPLICAS: usize = 2;
/// A kubelet restarts a container at once, and after this delay when it ends again.
const RESTART: Duration = Duration::from_secs(10);

/// A token of the operator, and the Secret whose deletion ends it.
pub(super) struct Token {
    text: String,
    secret: String,
}

/// One replica.
pub(super) struct Pod {
    pub(super) operator: Arc<Operator>,
    account: PathBuf,
    clock: PathBuf,
    admin: SocketAddr,
    restarts: Arc<AtomicUsize>,
    sent: Arc<Mutex<Sent>>,
    kubelet: JoinHandle<()>,
}

/// Requests of all processes of a pod, as their metrics count them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    earlier: (f64, f64),
    present: (f64, f64),
}

impl Sent {
    /// How many requests were answered.
    pub(super) fn answered(&self) -> f64 {
        self.earlier.0 + self.present.0
    }

    /// How many had no answer.
    pub(super) fn failed(&self) -> f64 {
        self.earlier.1 + self.present.1
    }
}

/// An installation, and what it serves.
pub(super) struct Cluster {
    pub(super) control_plane: ControlPlane,
    pub(super) client: Client,
    pub(super) site: Site,
    pub(super) pods: Vec<Pod>,
    pub(super) length: Length,
    pub(super) authorities: [Authority; 2],
    service: Balancer,
    fsync_delay: PathBuf,
    /// How often it was asked whether all is in step.
    probes: AtomicUsize,
    /// Id and value of each object.
    served: BTreeMap<String, (String, String)>,
    /// What the processes of the control plane and of the pods use, so it must go last.
    folder: TempDir,
}

impl Cluster {
    /// Starts it, and waits until its first objects are served.
    pub(super) async fn start(length: Length) -> Self {
        Self::start_in(length, &[]).await
    }

    /// The same, each replica in one of these cgroups.
    pub(super) async fn start_in(length: Length, cgroups: &[PathBuf]) -> Self {
        let authorities = ["first", "second"].map(Authority::new);
        let folder = tempfile::tempdir().unwrap();
        let fsync_delay = folder.path().join("delay");
        fs::write(&fsync_delay, "0").unwrap();
        let slow = compiled(folder.path(), "slow_fsync", SLOW_FSYNC, &["-pthread"]);
        let clock = compiled(folder.path(), "clock.so", CLOCK, &["-shared", "-fPIC"]);
        let options = testkit::Options {
            serving: Some(authorities[0].serving(&both(&authorities))),
            etcd_under: [slow, fsync_delay.clone()].map(PathBuf::into_os_string).into(),
            ..testkit::Options::default()
        };
        let control_plane = installation::install_on(options, &manifests::Options::default(), &[]).await.unwrap();
        let client = control_plane.access().admin_client().await.unwrap();
        let site = Site::on(&control_plane, "outages").await;
        let service = Balancer::start();
        let mut this = Self {
            client,
            site,
            pods: Vec::new(),
            length,
            authorities,
            service,
            fsync_delay,
            probes: AtomicUsize::new(0),
            served: BTreeMap::new(),
            control_plane,
            folder,
        };
        let mut webhooks = Vec::new();
        for number in 0..REPLICAS {
            let listen = quiet_address().unwrap();
            webhooks.push(listen);
            let pod = this.pod(number, &clock, listen, cgroups.get(number)).await;
            this.pods.push(pod);
        }
        this.service.send_to(&webhooks);
        this.ready().await;
        this.fill().await;
        this
    }

    async fn pod(&self, number: usize, shim: &Path, webhooks: SocketAddr, cgroup: Option<&PathBuf>) -> Pod {
        let folder = self.folder.path();
        let (account, clock) = (folder.join(format!("account-{number}")), folder.join(format!("clock-{number}")));
        fs::create_dir(&account).unwrap();
        fs::write(&clock, 0_i64.to_ne_bytes()).unwrap();
        fs::write(account.join("namespace"), OPERATOR_NAMESPACE).unwrap();
        fs::write(account.join("ca.crt"), &self.authorities[0].certificate).unwrap();
        fs::write(account.join("token"), self.token().await.text).unwrap();
        let admin = quiet_address().unwrap();
        let server = self.control_plane.access().config().await.unwrap().cluster_url;
        let command = Process::of(["unshare", "-rm", "bash", "-c", POD_SCRIPT, "pod"])
            .arg(program())
            .args(["run", "--leader-elect"])
            .args(self.length.election)
            .flag("admin-listen", admin.to_string())
            .flag("webhook-listen", webhooks.to_string())
            .flag("webhook-url", &self.service.url)
            .env("KUBERNETES_SERVICE_HOST", server.host().unwrap())
            .env("KUBERNETES_SERVICE_PORT", server.port().unwrap().as_str())
            .env("POD_NAME", format!("replica-{number}"))
            .env("ACCOUNT", &account)
            .env("CGROUP", cgroup.map_or(Path::new(""), PathBuf::as_path))
            .env("CLOCK", shim)
            .env("CLOCK_OFFSET", &clock);
        let operator = Arc::new(Operator::start_as(&self.control_plane, command).await.unwrap());
        let (restarts, sent) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Sent>>::default());
        let kubelet = tokio::spawn(kubelet(Arc::clone(&operator), admin, Arc::clone(&restarts), Arc::clone(&sent)));
        Pod { operator, account, clock, admin, restarts, sent, kubelet }
    }

    /// A new token of the operator's service account.
    async fn token(&self) -> Token {
        let object = json!({"metadata": {"generateName": "token-"}});
        let secrets = Api::<Secret>::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let secret = secrets.create(&PostParams::default(), &installation::object(object)).await.unwrap();
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            name: secret.metadata.name.clone(),
            uid: secret.uid(),
        };
        let spec = TokenRequestSpec { bound_object_ref: Some(bound), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let answer =
            accounts.create_token_request(keys::OPERATOR_NAME, &PostParams::default(), &request).await.unwrap();
        Token { text: answer.status.unwrap().token.unwrap(), secret: secret.name_any() }
    }

    /// One token for all replicas, as a kubelet mounts it.
    pub(super) async fn mount_token(&self) -> Token {
        let token = self.token().await;
        for pod in &self.pods {
            pod.mount("token", &token.text);
        }
        token
    }

    /// Ends a token, and waits until the API server refuses it: it remembers for 10 seconds that a token is good.
    pub(super) async fn revoke(&self, token: Token) {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        secrets.delete(&token.secret, &DeleteParams::default()).await.unwrap();
        let mut config = self.control_plane.access().config().await.unwrap();
        config.auth_info = kube::config::AuthInfo { token: Some(token.text.into()), ..Default::default() };
        let client = Client::try_from(config).unwrap();
        self.until("the token to be refused", async || {
            let answer = client.apiserver_version().await;
            matches!(answer, Err(kube::Error::Api(status)) if status.code == 401).then_some(())
        })
        .await;
    }

    /// Adds so many milliseconds to each fsync of etcd.
    pub(super) fn slow_down_etcd(&self, milliseconds: u32) {
        fs::write(&self.fsync_delay, milliseconds.to_string()).unwrap();
    }

    /// A new certificate of this authority, with which the API server starts next.
    pub(super) fn replace_serving(&self, authority: usize) {
        self.control_plane.replace_serving(&self.authorities[authority].serving(&both(&self.authorities))).unwrap();
    }

    pub(super) async fn until<T>(&self, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(began.elapsed() < self.length.patience, "gave up waiting for {what}: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last lines of each replica's log.
    fn logs(&self) -> String {
        let logs = self.pods.iter().map(|pod| pod.operator.log().unwrap());
        logs.map(|log| log.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n"))
            .collect::<Vec<_>>()
            .join("\n──\n")
    }

    /// Waits until every replica is ready, and one leads.
    pub(super) async fn ready(&self) {
        for pod in &self.pods {
            self.until("a replica to be ready", async || (pod.ask("/readyz").await?.0 == 200).then_some(())).await;
        }
        self.until("a leader", async || self.leader().await).await;
    }

    /// The number of the replica that holds the Lease.
    pub(super) async fn leader(&self) -> Option<usize> {
        let leases = Api::<Lease>::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let holder = leases.get_opt(keys::OPERATOR_NAME).await.ok()??.spec?.holder_identity?;
        holder.strip_prefix("replica-")?.split_once('_')?.0.parse().ok()
    }

    /// Kills all replicas, and waits until they are started again.
    pub(super) async fn restart(&self) {
        for pod in &self.pods {
            let before = pod.restarts();
            pod.operator.die().unwrap();
            self.until("a restart", async || (pod.restarts() > before).then_some(())).await;
        }
    }

    /// Restarts of all replicas until now.
    pub(super) fn restarts(&self) -> usize {
        self.pods.iter().map(|pod| pod.restarts.load(SeqCst)).sum()
    }

    /// Requests of all replicas until now.
    pub(super) fn sent(&self) -> (f64, f64) {
        let sent = self.pods.iter().map(|pod| *pod.sent.lock().unwrap());
        sent.fold((0.0, 0.0), |sum, sent| (sum.0 + sent.answered(), sum.1 + sent.failed()))
    }

    /// Applies one object of each kind in turn, and waits until they are served.
    async fn fill(&mut self) {
        self.site.source("upstream", "from upstream").await;
        let names: Vec<String> = (0..self.length.objects).map(|number| format!("object-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let spec = match number % 4 {
                0 => json!({"generate": {"length": 20}}),
                1 => json!({"value": format!("plain {number}")}),
                2 => json!({"value": self.site.seal(name, &format!("sealed {number}")).await}),
                _ => json!({"valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}}),
            };
            self.apply(name, spec).await;
        }
        for name in &names {
            self.served(name).await;
        }
        self.served = self.found(&names).await;
        for (number, name) in names.iter().enumerate() {
            let expected = match number % 4 {
                1 => format!("plain {number}"),
                2 => format!("sealed {number}"),
                3 => "from upstream".to_owned(),
                _ => continue,
            };
            assert_eq!(self.served[name].1, expected);
        }
    }

    /// Applies an object whose `spec.name` follows from its name, until it is accepted. Returns how often it was refused.
    pub(super) async fn apply(&self, name: &str, mut spec: Value) -> usize {
        spec["name"] = json!(name.to_uppercase().replace('-', "_"));
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": name, "namespace": self.site.namespace}, "spec": spec,
        });
        let (objects, mut refused) = (self.site.objects(), 0);
        self.until(&format!("{name} to be accepted"), async || {
            let apply = PatchParams::apply("test").force();
            match objects.patch(name, &apply, &Patch::Apply(&object)).await {
                Ok(_) => Some(()),
                // Only an invalid object stays refused, with another message than that of the rule on plain values.
                Err(kube::Error::Api(status)) if status.code == 422 && !status.message.contains("seal") => {
                    panic!("{name}: {}", status.message)
                }
                Err(_) => {
                    refused += 1;
                    None
                }
            }
        })
        .await;
        refused
    }

    /// Waits until the object's present generation is served.
    pub(super) async fn served(&self, name: &str) {
        let objects = self.site.objects();
        self.until(&format!("{name} to be served"), async || {
            let object = objects.get_opt(name).await.ok()??;
            (ready(&object) == ("True".to_owned(), "Served".to_owned())).then_some(())
        })
        .await;
    }

    /// Id and value of these objects.
    async fn found(&self, names: &[String]) -> BTreeMap<String, (String, String)> {
        let all = ListParams::default();
        let objects = self.site.objects().list(&all).await.unwrap().items;
        let ids: BTreeMap<String, String> = objects.iter().map(|object| (object.name_any(), id(object))).collect();
        let secrets = self.site.secrets().list(&all).await.unwrap().items;
        let values = secrets.into_iter().filter_map(|secret| {
            let value = secret.data.as_ref()?.get("value")?;
            Some((secret.name_any(), String::from_utf8_lossy(&value.0).into_owned()))
        });
        let values: BTreeMap<String, String> = values.collect();
        names.iter().map(|name| (name.clone(), (ids[name].clone(), values[name].clone()))).collect()
    }

    /// Waits until what is new is served: an object that the operator generates, one that the webhook seals, and a target
    /// that was deleted. Then checks that nothing was lost.
    pub(super) async fn in_step(&self) {
        let label = self.probes.fetch_add(1, SeqCst);
        let [generated, plain] = ["probe-new", "probe-plain"].map(|kind| format!("{kind}-{label}"));
        self.apply(&generated, json!({"generate": {}})).await;
        self.apply(&plain, json!({"value": format!("plain {label}")})).await;
        let secrets = self.site.secrets();
        let uid = self.until("a target", async || secrets.get("probe-target").await.ok()?.uid()).await;
        self.until("a target to be deleted", async || {
            secrets.delete("probe-target", &DeleteParams::default()).await.ok()
        })
        .await;
        self.served(&generated).await;
        self.served(&plain).await;
        let value = async |name: &str| {
            let secret = secrets.get_opt(name).await.ok()??;
            let value = secret.data.as_ref()?.get("value")?.0.clone();
            Some((secret.uid()?, String::from_utf8_lossy(&value).into_owned()))
        };
        let again = self.until("the target to be back", async || value("probe-target").await.filter(|it| it.0 != uid));
        assert_eq!(again.await.1, "probe");
        assert_eq!(value(&plain).await.unwrap().1, format!("plain {label}"));
        self.ready().await;
        let names: Vec<String> = self.served.keys().cloned().collect();
        assert!(self.found(&names).await == self.served, "an id or a value changed");
    }

    /// The object whose target [`in_step`](Self::in_step) deletes.
    pub(super) async fn probe(&self) {
        self.apply("probe-target", json!({"value": "probe"})).await;
        self.served("probe-target").await;
    }

    /// ManagedSecrets.
    pub(super) fn objects(&self) -> Api<ManagedSecret> {
        self.site.objects()
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        for pod in self.pods.drain(..) {
            pod.kubelet.abort();
            let _ = pod.kubelet.await;
            pod.operator.die().unwrap();
        }
        self.control_plane.stop().await.unwrap();
    }
}

fn both(authorities: &[Authority; 2]) -> String {
    authorities.iter().map(|authority| authority.certificate.as_str()).collect()
}

impl Pod {
    /// Replaces a file of the mounted service account.
    pub(super) fn mount(&self, name: &str, content: &str) {
        let fresh = self.account.join(format!(".{name}"));
        fs::write(&fresh, content).unwrap();
        fs::rename(&fresh, self.account.join(name)).unwrap();
    }

    /// Sets the clock of this replica that many seconds ahead of the API server's.
    pub(super) fn set_clock(&self, ahead: i64) {
        // In place: it is mapped into the memory of the process.
        fs::OpenOptions::new().write(true).open(&self.clock).unwrap().write_all(&ahead.to_ne_bytes()).unwrap();
    }

    /// Status and body of an answer of the port for probes and metrics.
    pub(super) async fn ask(&self, path: &str) -> Option<(u16, String)> {
        ask(self.admin, path).await
    }

    /// Whether it leads, or may lead because its process runs and does not answer.
    pub(super) async fn leads(&self) -> bool {
        match self.ask("/metrics").await {
            Some((200, text)) => text.lines().any(|line| line == "managed_secrets_leader 1.0"),
            _ => self.operator.ended().is_none(),
        }
    }

    /// Requests without an answer until now.
    pub(super) fn failed(&self) -> f64 {
        self.sent.lock().unwrap().failed()
    }

    /// How often it was restarted.
    pub(super) fn restarts(&self) -> usize {
        self.restarts.load(SeqCst)
    }
}

async fn ask(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await.ok().flatten()
}

/// Restarts the program when it ends, and reads how many requests it has sent.
async fn kubelet(operator: Arc<Operator>, admin: SocketAddr, restarts: Arc<AtomicUsize>, sent: Arc<Mutex<Sent>>) {
    let mut restarted: Option<Instant> = None;
    loop {
        if operator.ended().is_some() {
            {
                let mut sent = sent.lock().unwrap();
                let (earlier, present) = (sent.earlier, sent.present);
                *sent = Sent { earlier: (earlier.0 + present.0, earlier.1 + present.1), present: (0.0, 0.0) };
            }
            if let Some(before) = restarted {
                tokio::time::sleep(RESTART.saturating_sub(before.elapsed())).await;
            }
            operator.start_again().await.unwrap();
            restarted = Some(Instant::now());
            restarts.fetch_add(1, SeqCst);
        }
        if let Some((200, text)) = ask(admin, "/metrics").await {
            let lines = text.lines().filter(|line| line.starts_with("managed_secrets_api_requests_total"));
            let mut present = (0.0, 0.0);
            for line in lines {
                let count: f64 = line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).unwrap_or_default();
                if line.contains("code=\"none\"") { present.1 += count } else { present.0 += count }
            }
            sent.lock().unwrap().present = present;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits for as long as a fault lasts.
pub(super) async fn lasts(duration: Duration) {
    let began = Instant::now();
    poll("the fault to be over", duration * 2, || async { Ok((began.elapsed() >= duration).then_some(())) })
        .await
        .unwrap();
}
