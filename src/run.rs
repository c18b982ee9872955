//! The composition root: it builds the parts of the operator, connects them, starts them and waits for their end. The
//! [`controller`], the [`webhook`] and the [`values`] meet only here.
//!
//! In: a client configuration and options. Out: nothing, until the operator is told to stop or cannot continue. Order of
//! a start: the discovery of the value API, the keyring (created at the first start), the CRD, the controller, the webhooks. What does not exist yet is
//! waited for, and logged once, then rarely; [`Health`] says it too.

mod start;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{
    TryFutureExt as _,
    future::{BoxFuture, FutureExt as _, try_join},
};
use kube::Config;
use managed_secrets_api::{Reason, keys::KIND};
use managed_secrets_crypto::{Keyring, recovery::Recipient};
use managed_secrets_engine::{
    client::{self, ClientError, Clients},
    health::{Health, Probe, Verdict},
    lease::{self, Elector, Leadership, Lost, Term},
    limit::Limiter,
    requests::{OTHER, Requests},
    stats::Stats,
    supervise::{self, Supervisor},
    watch::{Common, Timing, Watcher},
};
use tokio_util::sync::CancellationToken;

use self::start::Start;
use crate::{
    admin::{
        metrics::{Metrics, RESOURCES, Reading, Sources},
        secure,
    },
    controller::{
        self,
        index::Holder,
        keys::Keys,
        run::{Done, Leader, Running},
        sinks::Shared,
    },
    keyring::{KeyringError, KeyringStore, OverRecords, providers::ProviderOptions, usage},
    port::Port,
    values,
    webhook::{self, certificates::Served},
};

/// How long tasks have to end after the signal to stop: the workers' own 20 s, and a little. The webhooks' drain comes on
/// top.
const GRACE: Duration = Duration::from_secs(25);

/// How the operator runs.
pub struct Options {
    /// The controller.
    pub controller: controller::run::Options,
    /// The port of the webhooks and of the value API; `None` switches both off.
    pub webhooks: Option<webhook::Options>,
    /// The value API; `None` switches it off. It needs the port of the webhooks.
    pub values: Option<values::Options>,
    /// Who holds the KEKs.
    pub providers: ProviderOptions,
    /// The file that a KEK was read from; it is read again while it does not open the keyring.
    pub kek_file: Option<PathBuf>,
    /// Whether a missing keyring is created although there are records that it does not open.
    pub over_records: OverRecords,
    /// The recovery keys that every key of the keyring is sealed to.
    pub recovery: Vec<Recipient>,
    /// The clients.
    pub clients: client::Options,
    /// The watches.
    pub timing: Timing,
    /// What the engine counts.
    pub stats: Arc<Stats>,
    /// Where the parts report their health.
    pub health: Arc<Health>,
    /// Where the figures of the parts are read.
    pub metrics: Arc<Metrics>,
    /// The port that serves the metrics with the webhooks' certificate to callers with a permission; none if the webhooks are
    /// off.
    pub secure_metrics: Option<Port>,
    /// What the replicas compete for; `None` if this process runs alone.
    pub election: Option<lease::Options>,
}

/// Why the operator ended without a signal to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The clients cannot be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The keyring cannot be used; a person is needed.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A task that must not end has ended.
    #[error(transparent)]
    Task(#[from] supervise::Failure),
    /// Another replica may be the leader now.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Runs until `shutdown` is cancelled and the work in flight is done.
///
/// With an election, every replica serves the webhooks, and the leader reconciles. A leader that is told to stop finishes
/// its work, and then lets another one take over while its own webhooks are still served. A leader that loses the leadership
/// returns an error at once, and the process must end.
pub async fn run(config: &Config, options: Options, shutdown: CancellationToken) -> Result<(), RunError> {
    let Options {
        controller,
        webhooks,
        values,
        providers,
        kek_file,
        over_records,
        recovery,
        clients,
        timing,
        stats,
        health,
        metrics,
        mut secure_metrics,
        election,
    } = options;
    let (election, leadership) = candidacy(election);
    let stopping = shutdown.clone();
    health.check("shutdown", &[Probe::Ready], move || leaving(&stopping));
    // With `--namespace`, no APIService names this operator.
    let persists = webhooks.is_some() && values.is_some() && controller.namespaces.is_empty();
    let start = Start { health: Arc::clone(&health), namespaces: controller.namespaces.clone(), persists };
    start.waits("waiting for the keyring");
    let requests = Arc::new(Requests::new(RESOURCES));
    let clients = connect(config, clients, &requests, &leadership, &controller.workers.limiter)?;
    let supervisor = Supervisor::new();
    let watcher = Watcher {
        client: clients.watch,
        spawner: supervisor.spawner(),
        stats: Arc::clone(&stats),
        timing,
        shutdown: shutdown.clone(),
        common: Arc::default(),
    };
    let (mut grace, mut reviewed, mut read) = (GRACE, None, None);
    if let Some(webhooks) = &webhooks {
        grace += webhooks.limits.longest_drain();
        reviewed = Some(Arc::clone(&webhooks.stats));
        read = values.as_ref().map(|values| Arc::clone(&values.stats));
    }
    let listen = |webhooks, guest| webhook::listen(webhooks, &clients.call, &watcher, guest, &health);
    // While a registered API does not answer, no namespace of the cluster is deleted: it does not wait for the keyring.
    let (mut webhooks, values) =
        (webhooks, values.map(|values| values::start(values, &clients.call, &watcher, &health)));
    let listener = match &values {
        Some(values) => webhooks.take().map(|webhooks| listen(webhooks, Some(values.guest.clone()))),
        None => None,
    };
    let (operator_namespace, restarts_workloads) = (controller.operator_namespace.clone(), controller.restarts);
    let mut secure = |served: &Arc<Served>| {
        if let Some(port) = secure_metrics.take() {
            secure::start(port, served, &metrics, &clients.call, operator_namespace.clone(), &watcher);
        }
    };
    // The metrics say that the keyring is lost.
    if let Some(listener) = &listener {
        secure(&listener.served);
    }
    let store = KeyringStore::new(clients.call.clone(), &controller.operator_namespace, providers);
    let store = store.making(over_records).sealing_to(recovery).replacing_sealing_keys(controller.sealing.period);
    let prepared = shutdown.run_until_cancelled(start.prepare(store, kek_file.as_deref(), &clients.call)).await;
    let Some(keys) = prepared.transpose()? else { return Ok(()) };
    let leader = Leader { client: clients.lead, leadership: leadership.clone() };
    let Running { shared, writers, done } = controller::run::start(controller, &leader, &watcher, &keys, &health);
    let known = Arc::new(Known {
        keys: Arc::clone(&keys),
        shared: Arc::clone(&shared),
        namespaces: start.namespaces,
        operator_namespace: operator_namespace.clone(),
        restarts: restarts_workloads,
    });
    let listener = webhooks.map(|webhooks| listen(webhooks, None)).or(listener);
    if let Some(listener) = &listener {
        listener.connect(Arc::clone(&known) as Arc<dyn webhook::Operator>);
    }
    if let Some(values) = &values {
        values.connect(known);
    }
    let served = listener.map(|listener| listener.served);
    served.iter().for_each(secure);
    let parts = Parts { keys, shared, done, watches: Arc::clone(&watcher.common), served, leadership };
    metrics.connect(Sources {
        stats,
        requests,
        webhooks: reviewed,
        values: read,
        read: Box::new(move || parts.read()),
    });
    watcher.notice_restores();
    // The checks of the parts are registered.
    health.started();
    let supervised = supervisor.run(shutdown.clone(), grace);
    let Some((options, term)) = election else { return Ok(supervised.await?) };
    let elector = Elector::new(clients.lease, options, term);
    elector.watch(&watcher);
    let written = async {
        shutdown.cancelled().await;
        writers.close();
        writers.wait().await;
    };
    try_join(supervised.err_into(), elector.run(written).err_into::<RunError>()).await?;
    Ok(())
}

/// Creates the clients. They count their requests, and report to the workers how busy the API server is.
fn connect(
    config: &Config,
    options: client::Options,
    requests: &Arc<Requests>,
    leadership: &Leadership,
    limiter: &Arc<Limiter>,
) -> Result<Clients, ClientError> {
    let (requests, leadership) = (Arc::clone(requests), leadership.clone());
    let options = client::Options { requests, leadership, limiter: Some(Arc::clone(limiter)), ..options };
    Clients::new(config, &options)
}

/// What this process competes for, and whether it leads: always, if there is no election.
fn candidacy(election: Option<lease::Options>) -> (Option<(lease::Options, Term)>, Leadership) {
    let Some(options) = election else { return (None, Leadership::always()) };
    let (term, leadership) = Leadership::elected();
    (Some((options, term)), leadership)
}

/// A replica that shuts down stays ready, because its webhooks still answer. Kubernetes sends requests to other replicas as
/// soon as a pod is to end. If there are none, kube-proxy sends them to replicas that end and are ready (KEP-1669).
fn leaving(shutdown: &CancellationToken) -> Verdict {
    if shutdown.is_cancelled() {
        Verdict::Degraded("the operator is shutting down; its webhooks still answer for some seconds".to_owned())
    } else {
        Verdict::Good
    }
}

/// What metrics read.
struct Parts {
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    done: Box<dyn Fn() -> Done + Send + Sync>,
    watches: Arc<Common>,
    served: Option<Arc<Served>>,
    leadership: Leadership,
}

impl Parts {
    fn read(&self) -> Reading {
        let ((known, unknown), expiring, pinned, sealed) = {
            let index = self.shared.index();
            (index.reasons(), index.expiring(), index.pinned(), index.sealed())
        };
        let reasons =
            Reason::of_ready().map(|reason| (reason.as_str(), known.get(&reason).copied().unwrap_or_default()));
        let (keyring, done) = (self.keys.get(), (self.done)());
        Reading {
            leader: self.leadership.is_leader(),
            progress: self.shared.queue.progress(),
            watches: self.watches.states(),
            namespaces_waiting: self.shared.scopes.waiting().len(),
            objects: reasons.chain([(OTHER, unknown)]).collect(),
            restarts: done.restarts,
            rotations: done.rotations,
            expiring: expiring.map(|(reason, count)| (reason.as_str(), count)).to_vec(),
            pinned,
            oldest_seed: keyring.oldest_seed(),
            rotation_began: self.leadership.is_leader().then(|| *self.shared.rotation.since.lock()).flatten(),
            rewrapped: self.shared.rotation.counts.rewrapped.load(Ordering::Relaxed),
            records_left: self.shared.rotation.counts.left.load(Ordering::Relaxed),
            records_stuck: self.shared.rotation.stuck.counts(),
            oldest_sealing_key: keyring.oldest_sealing_key(),
            sealing_key_due: keyring.current_public_key().and_then(|published| published.replaced_by()),
            sealed: usage::by_standing(&keyring, &sealed),
            keyring_rolled_back: self.keys.is_rolled_back(),
            keys_under_other_kek: self.keys.due().keys(),
            kms_silent: self.keys.silent_plugins(),
            kms_refuses: self.keys.silent_plugins().map(|_| self.keys.refuses_new().is_some()),
            without_recovery: self.keys.coverage().map(|coverage| coverage.uncovered.len()),
            certificate_expires: self.served.as_ref().and_then(|served| served.expires()),
        }
    }
}

/// What webhooks and value API ask of the controller and its keyring.
struct Known {
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    /// The namespaces that are served; all if empty.
    namespaces: Vec<String>,
    operator_namespace: String,
    restarts: bool,
}

impl values::Operator for Known {
    fn serves(&self, namespace: &str) -> bool {
        namespace != self.operator_namespace
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|served| served == namespace))
    }

    fn knows(&self, namespace: &str) -> bool {
        self.shared.scopes.is_filled(namespace)
    }

    fn keyring(&self) -> Arc<Keyring> {
        self.keys.get()
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        self.keys.look_again().map(drop).boxed()
    }

    fn records(&self, namespace: &str, id: &str) -> Vec<String> {
        self.shared.index().records(namespace, id)
    }

    fn object(&self, namespace: &str, name: &str) -> Option<values::Object> {
        let own = self.shared.index().object(namespace, name)?;
        Some(values::Object::new(own.uid, &own.spec, &own.status))
    }
}

impl webhook::Operator for Known {
    fn keyring(&self) -> Arc<Keyring> {
        self.keys.get()
    }

    fn refuses_new(&self) -> Option<String> {
        self.keys.refuses_new()
    }

    fn look_again(&self) -> BoxFuture<'_, ()> {
        self.keys.look_again().map(drop).boxed()
    }

    fn holder_of_name(&self, namespace: &str, name: &str, object: &str) -> Option<String> {
        self.shared.index().holder_of_name(namespace, name, object).as_ref().map(described)
    }

    fn holder_of_target(&self, namespace: &str, secret: &str, object: &str) -> Option<String> {
        self.shared.index().holder_of_target(namespace, secret, object).as_ref().map(described)
    }

    fn restarts(&self) -> bool {
        self.restarts
    }

    fn lacks_source(&self, namespace: &str, secret: &str) -> bool {
        self.shared.index().lacks_source(namespace, secret)
    }
}

fn described(holder: &Holder) -> String {
    match holder {
        Holder::Object(name) => format!("{KIND} {name:?}"),
        Holder::Secret(name) => format!("Secret {name:?}, which was retained"),
    }
}
