//! The controller: watches, workers and the tasks around the keyring, put together.
//!
//! In: clients, a keyring that is open, and options. Out: supervised tasks and the caches that they fill. A namespace is
//! served as soon as its own stores are filled, independently of the others.
//!
//! Every replica watches, and reads the keyring. Only the leader reconciles, publishes the public key and reports events. A
//! replica that becomes the leader has warm caches, and looks at every object once.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, runtime::watcher};
use managed_secrets_api::{
    keys::{KEYRING_NAME, LABEL_ROLE, PUBLIC_KEY_CONFIGMAP, ROLES, TYPE_KEYRING},
    restarts::Mark,
};
use managed_secrets_engine::{
    backoff::{Backoff, Jitter},
    health::Health,
    lease::Leadership,
    queue::{Priority, Queue},
    rounds::Rounds,
    run::{self, Next, Reconciler},
    stats::Stats,
    watch::{WatchHandle, WatchSet, Watcher},
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, info, info_span, warn};
use uuid::Uuid;

use super::{
    act::{Actor, End},
    cluster::Cluster,
    events::Events,
    facts::{Cached, Facts, Incoming, Rejected, Seen, Settings, Waits},
    failure::Failure,
    health,
    index::{Index, Key, Name},
    kek::{self, Replacer},
    keys::Keys,
    plan::{Finish, Why},
    record::Source,
    restarts::{Restarts, run::Restarter},
    rotations::Rotations,
    scopes::{self, Scopes},
    sealing_keys,
    seeds::{Rotator, receipts::Receipts},
    sinks::{Labelled, Objects, Shared, Sources, Trigger},
    view::{
        SecretView,
        watched::{Stub, WatchedObject, WatchedSecret},
    },
};
use crate::keyring::{KeyringError, publish, published, sealing, seeds::Timing};

/// Every object is looked at once in this time, although nothing happened: it costs no request, and finds what a lost
/// event would have hidden.
pub(super) const RESYNC: Duration = Duration::from_secs(3600);
/// Repairs of one target within this time of each other back off: two controllers must never fight at full speed.
const FIGHT: Duration = Duration::from_secs(60);
/// How long the second, third, … in a row waits.
const AGAIN: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };
/// How long the second, third, … new value in a row of one source waits. Most sources move seldom; but a ring that leaves
/// the namespace, or two programs that copy from each other, move without end.
const VALUES: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// How long the second, third, … status in a row waits that admission control of others changes.
const STATUS: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// Between tries to publish the public key.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(15) };
/// Between reads of the keyring that changes, and tries to read it: a keyring that was deleted and is not restored,
/// is worth a line of the log every five minutes.
const REREAD: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(300) };
/// How long events may still be published after the signal to stop: a call that hangs must not keep the program.
const LAST_EVENTS: Duration = Duration::from_secs(22);
/// How long a pass waits while the record is re-wrapped: about as long as two requests take.
const REWRAP: Duration = Duration::from_millis(50);
/// Objects a page of a list: with sealed text of up to 23 kB each, a page is a few MB.
const PAGE: u32 = 250;

/// How the controller runs.
pub struct Options {
    /// Namespaces to serve; empty means all.
    pub namespaces: Vec<String>,
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Accept sealed text of cluster scope.
    pub allow_cluster_scope: bool,
    /// Restart the workloads of `spec.target.restart`.
    pub restarts: bool,
    /// When seeds are replaced.
    pub seeds: Timing,
    /// When sealing keys are replaced and retired.
    pub sealing: sealing::Timing,
    /// The workers.
    pub workers: run::Options,
}

/// What only the leader may do, and by which client.
#[derive(Clone)]
pub struct Leader {
    /// A client that changes something only while this process is the leader.
    pub client: Client,
    /// Whether it is.
    pub leadership: Leadership,
}

/// A controller that was started.
pub struct Running {
    /// Its caches, which the watches fill from now on.
    pub shared: Arc<Shared>,
    /// The tasks that write as the leader. When they have ended after the signal to stop, another replica may take over.
    pub writers: TaskTracker,
    /// Tells what it has done so far.
    pub done: Box<dyn Fn() -> Done + Send + Sync>,
}

/// What a controller has done since its start, for metrics.
pub struct Done {
    /// How many workloads were restarted.
    pub restarts: u64,
    /// How many rotations ended in each way: one of [`RESULTS`](super::rotations::RESULTS).
    pub rotations: [(&'static str, u64); 2],
}

/// Starts the controller as tasks of the watcher's supervisor; they end with its `shutdown`.
pub fn start(options: Options, leader: &Leader, watcher: &Watcher, keys: &Arc<Keys>, health: &Health) -> Running {
    let shared = Arc::new(Shared {
        index: Mutex::new(Index::default()),
        queue: Queue::new(),
        sources_moved: Notify::new(),
        scopes: Scopes::new(&options.namespaces),
        rotation: Arc::default(),
        receipts: Receipts::default(),
    });
    health::register(health, watcher, &shared, keys, options.workers.deadline);
    let (spawner, shutdown) = (&watcher.spawner, &watcher.shutdown);
    for (scope, watches) in start_watches(watcher, &shared, &options.namespaces) {
        let of = scope.as_ref().map(|namespace| format!(" of {namespace}")).unwrap_or_default();
        let fill = scopes::fill(scope, watches, Arc::clone(&shared), shutdown.clone());
        spawner.spawn(format!("first lists{of}"), shutdown.clone(), fill);
    }
    spawner.spawn("sources", shutdown.clone(), keep_sources(watcher.clone(), Arc::clone(&shared)));
    let namespace = options.operator_namespace.clone();
    let reading = keep_read(watcher.clone(), namespace.clone(), Arc::clone(keys), Arc::clone(&shared));
    spawner.spawn("keyring", shutdown.clone(), reading);
    let writers = TaskTracker::new();
    let publishing = keep_published(watcher.clone(), leader.clone(), namespace, Arc::clone(keys));
    spawner.spawn("public key", shutdown.clone(), writers.track_future(publishing));
    let rotator =
        Rotator::new(leader.clone(), Arc::clone(keys), Arc::clone(&shared), options.namespaces, options.seeds);
    spawner.spawn("seeds", shutdown.clone(), writers.track_future(rotator.run(shutdown.clone())));
    let rotator = sealing_keys::Rotator::new(leader.clone(), Arc::clone(keys), Arc::clone(&shared), options.sealing);
    spawner.spawn("sealing keys", shutdown.clone(), writers.track_future(rotator.run(shutdown.clone())));
    let news = Arc::<Notify>::default();
    for kms in keys.store().plugins() {
        let (keys, shared) = (Arc::clone(keys), Arc::clone(&shared));
        let asking = kek::ask(Arc::clone(kms), keys, shared, Arc::clone(&news), shutdown.clone());
        spawner.spawn(format!("kms {}", kms.name()), shutdown.clone(), asking);
    }
    let replacer = Replacer { leader: leader.clone(), keys: Arc::clone(keys), news };
    spawner.spawn("kek", shutdown.clone(), writers.track_future(replacer.run(shutdown.clone())));
    if keys.store().has_recipients() {
        let covering = keep_covered(watcher.clone(), leader.clone(), Arc::clone(keys));
        spawner.spawn("recovery", shutdown.clone(), writers.track_future(covering));
    }
    let (events, publish_events) = Events::new(&leader.client);
    let stopping = shutdown.clone();
    // It ends with the last pass, which the workers finish after they were told to stop; what that had to say is said too.
    let late = async move {
        stopping.cancelled().await;
        tokio::time::sleep(LAST_EVENTS).await;
    };
    let reporting = async move {
        tokio::select! {
            () = publish_events => {}
            () = late => {}
        }
    };
    spawner.spawn("events", shutdown.clone(), writers.track_future(reporting));
    let (restarts, rotations) = (Arc::<Restarts>::default(), Arc::<Rotations>::default());
    if options.restarts {
        let restarter = Restarter {
            restarts: Arc::clone(&restarts),
            leader: leader.clone(),
            shared: Arc::clone(&shared),
            events: events.clone(),
        };
        spawner.spawn("restarts", shutdown.clone(), writers.track_future(restarter.run(shutdown.clone())));
    }
    let operator = Arc::new(Operator {
        leader: leader.clone(),
        keys: Arc::clone(keys),
        shared: Arc::clone(&shared),
        events,
        settings: Settings {
            operator_namespace: options.operator_namespace,
            allow_cluster_scope: options.allow_cluster_scope,
            restarts: options.restarts,
        },
        restarts: Arc::clone(&restarts),
        rotations: Arc::clone(&rotations),
        repairs: Pace::new(AGAIN),
        source_moves: Pace::new(AGAIN),
        new_values: Pace::new(VALUES),
        altered_status: Pace::new(STATUS),
        rejected: Mutex::default(),
        kept_out: Mutex::default(),
        stats: Arc::clone(&watcher.stats),
    });
    let stats = Arc::clone(&watcher.stats);
    let work = run::run(shared.queue.clone(), operator, stats, options.workers, shutdown.clone());
    spawner.spawn("workers", shutdown.clone(), writers.track_future(work));
    let begin = begin_to_lead(leader.leadership.clone(), Arc::clone(&shared), shutdown.clone());
    spawner.spawn("leadership", shutdown.clone(), begin);
    let done = move || Done { restarts: restarts.done(), rotations: rotations.counts() };
    Running { shared, writers, done: Box::new(done) }
}

/// When this process becomes the leader, has every object looked at: what happened before was the business of another
/// leader, or of none. For objects that are up to date it costs no request.
async fn begin_to_lead(leadership: Leadership, shared: Arc<Shared>, shutdown: CancellationToken) {
    if shutdown.run_until_cancelled(leadership.acquired()).await.is_some() {
        let objects = shared.look_at_all(None);
        debug!(objects, "reconciling as the leader");
        shutdown.cancelled().await;
    }
}

/// What is watched, and the watches that fill its stores: a namespace, or all.
type Started = (Option<String>, Vec<WatchHandle>);

fn start_watches(watcher: &Watcher, shared: &Arc<Shared>, namespaces: &[String]) -> Vec<Started> {
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    // Other roles are not asked for: anyone may make up some.
    let labelled = watcher::Config::default().labels(&format!("{LABEL_ROLE} in ({})", ROLES.join(","))).page_size(PAGE);
    let mut started = Vec::new();
    for scope in scopes {
        let of = scope.as_ref().map(|namespace| format!(" of {namespace}")).unwrap_or_default();
        let objects = Arc::new(Objects::new(Arc::clone(shared), scope.clone()));
        let namespace = scope.clone();
        let objects = watcher.watch(
            format!("managedsecrets{of}"),
            |client| in_scope::<WatchedObject>(client, namespace.as_deref()),
            watcher::Config::default().page_size(PAGE),
            objects,
        );
        let secrets = Arc::new(Labelled::new(Arc::clone(shared), scope.clone()));
        let secrets = watcher.watch(
            format!("secrets{of}"),
            |client| in_scope::<WatchedSecret>(client, scope.as_deref()),
            labelled.clone(),
            secrets,
        );
        started.push((scope, vec![objects, secrets]));
    }
    started
}

fn in_scope<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// One watch on Secrets, metadata only, for each namespace in which some object has a `valueFrom`.
async fn keep_sources(watcher: Watcher, shared: Arc<Shared>) {
    let shutdown = watcher.shutdown.clone();
    let kept: WatchSet<Name> = WatchSet::default();
    let mut running = BTreeSet::new();
    while shutdown.run_until_cancelled(shared.sources_moved.notified()).await.is_some() {
        let wanted: BTreeSet<Name> = shared.index().source_namespaces().cloned().collect();
        kept.retain(|namespace| wanted.contains(namespace));
        for namespace in running.difference(&wanted) {
            shared.index().forget_sources(namespace);
        }
        for namespace in &wanted {
            kept.ensure(Name::clone(namespace), || {
                let sink = Arc::new(Sources::new(Arc::clone(&shared), namespace.to_string()));
                let scope = |client| Api::<Stub<Secret>>::namespaced(client, namespace);
                let config = watcher::Config::default().page_size(PAGE);
                watcher.watch(format!("sources of {namespace}"), scope, config, sink)
            });
        }
        running = wanted;
    }
}

/// Reads the keyring again when it changes: a key that was added is used, and one that was revoked no longer opens
/// anything, without a restart. Every object is looked at then, after those that were edited: some may have lacked
/// the key, and for those that are in step it costs no request.
async fn keep_read(watcher: Watcher, namespace: String, keys: Arc<Keys>, shared: Arc<Shared>) {
    let mut known = keys.get();
    let moved = Arc::new(Notify::new());
    let config = watcher::Config::default().fields(&format!("type={TYPE_KEYRING}"));
    let scope = |client| Api::<Stub<Secret>>::namespaced(client, &namespace);
    watcher.watch("keyring", scope, config, Arc::new(Trigger(Arc::clone(&moved))));
    // What it needs besides, its key-encryption key, no watch shows: a read that fails is repeated without news.
    let mut rounds = Rounds::new(REREAD, watcher.shutdown);
    while rounds.next(moved.notified()).await {
        if keys.read_again().await {
            rounds.succeeded();
            let read = keys.get();
            if !read.holds_the_same(&known) {
                let objects: Vec<Key> = shared.index().keys().collect();
                for key in objects {
                    shared.queue.add(key, Priority::Resync);
                }
            }
            known = read;
        } else {
            rounds.failed();
        }
    }
}

/// Publishes the sealing public key, and puts the ConfigMap right when a user edits or deletes it, or the keyring has
/// another key. Only the leader does, and it creates none again that was deleted since it read it.
/// The other replicas read which keyring was seen.
async fn keep_published(watcher: Watcher, leader: Leader, namespace: String, keys: Arc<Keys>) {
    let moved = Arc::new(Notify::new());
    if !leader.leadership.is_leader() {
        moved.notify_one();
    }
    let config = watcher::Config::default().fields(&format!("metadata.name={PUBLIC_KEY_CONFIGMAP}"));
    let scope = |client| Api::<Stub<ConfigMap>>::namespaced(client, &namespace);
    watcher.watch("public key", scope, config, Arc::new(Trigger(Arc::clone(&moved))));
    let mut renewals = keys.renewals();
    let mut acquired = pin!(leader.leadership.acquired().fuse());
    let mut news = async || {
        tokio::select! {
            () = moved.notified() => {}
            // Its sender lives as long as `keys`.
            _ = renewals.changed() => {}
            () = &mut acquired => {}
        }
    };
    let mut rounds = Rounds::new(RETRY, watcher.shutdown);
    while rounds.next(news()).await {
        match put_right(&leader, &namespace, &keys).await {
            Ok(written) => {
                rounds.succeeded();
                if written {
                    info!(configmap = PUBLIC_KEY_CONFIGMAP, "published the sealing public key");
                }
            }
            Err(error) => {
                rounds.failed();
                warn!(%error, "could not publish the sealing public key; will retry");
            }
        }
    }
}

/// Keeps the keys of the keyring sealed to the recovery keys: when this process becomes the leader, and whenever the keyring
/// was read again.
async fn keep_covered(watcher: Watcher, leader: Leader, keys: Arc<Keys>) {
    let mut renewals = keys.renewals();
    renewals.mark_changed();
    if watcher.shutdown.run_until_cancelled(leader.leadership.acquired()).await.is_none() {
        return;
    }
    let mut rounds = Rounds::new(REREAD, watcher.shutdown);
    let mut news = async || drop(renewals.changed().await);
    while rounds.next(news()).await {
        // Nothing is written while the keyring is too old.
        let covered = keys.coverage().is_none_or(|coverage| coverage.uncovered.is_empty());
        if covered || keys.is_rolled_back() {
            rounds.succeeded();
            continue;
        }
        match keys.cover(&leader.client).await {
            Ok(written) => {
                rounds.succeeded();
                if written {
                    info!(secret = KEYRING_NAME, "sealed the keys of the keyring to the recovery keys");
                }
            }
            Err(error) => {
                rounds.failed();
                warn!(%error, "could not seal the keys of the keyring to the recovery keys; will retry");
            }
        }
    }
}

/// Takes note of what the ConfigMap says about the keyring, and, as the leader, makes it say the current public key. Whether
/// it had to be written.
async fn put_right(leader: &Leader, namespace: &str, keys: &Keys) -> Result<bool, KeyringError> {
    let client = &leader.client;
    let found = published(client, namespace).await?;
    keys.witnessed(&found).await;
    if !leader.leadership.is_leader() {
        return Ok(false);
    }
    if keys.is_rolled_back() && keys.put_back(client).await? {
        warn!(secret = KEYRING_NAME, "put back what the keyring lacked: an earlier one had replaced it");
    }
    if found.stands(&keys.get(), keys.seen().as_ref())? {
        return Ok(false);
    }
    // Another replica may have read a newer keyring, and be right: two that go by different ones would never end.
    keys.read_again().await;
    if found.accepts_loss() && keys.is_rolled_back() {
        keys.accept_loss(client).await?;
        warn!("an administrator has accepted that keys are lost: the operator continues with the keyring as it is");
    }
    publish(client, namespace, &found, &keys.get(), keys.seen().as_ref()).await
}

/// How often the same had to be done again, by object: what is done again and again is done ever more slowly.
struct Pace {
    backoff: Backoff,
    rows: Mutex<HashMap<Key, InARow>>,
}

struct InARow {
    last: Instant,
    times: u32,
}

impl Pace {
    fn new(backoff: Backoff) -> Self {
        Self { backoff, rows: Mutex::default() }
    }

    /// How long it has to wait, if it was done a moment ago.
    fn wait(&self, key: &Key) -> Option<Duration> {
        let rows = self.rows.lock();
        let before = rows.get(key).filter(|before| before.last.elapsed() < self.backoff.cap)?;
        let wait = self.backoff.delay(before.times, Jitter::random());
        wait.checked_sub(before.last.elapsed()).filter(|left| !left.is_zero())
    }

    fn note(&self, key: &Key) {
        let mut rows = self.rows.lock();
        let row = rows.entry(key.clone()).or_insert(InARow { last: Instant::now(), times: 0 });
        // The waits themselves grow beyond the time that counts as one row.
        let one_row = FIGHT.max(self.backoff.delay(row.times, Jitter::NONE) * 2);
        row.times = if row.last.elapsed() < one_row { row.times + 1 } else { 1 };
        row.last = Instant::now();
    }

    fn forget(&self, key: &Key) {
        self.rows.lock().remove(key);
    }
}

/// What reconciles one object.
struct Operator {
    leader: Leader,
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    events: Events,
    settings: Settings,
    /// Of what other clients change.
    repairs: Pace,
    /// Of sources that move without a new value.
    source_moves: Pace,
    /// Of sources that give new values.
    new_values: Pace,
    /// Of statuses that admission control of others changes.
    altered_status: Pace,
    rejected: Mutex<HashMap<Key, Rejected>>,
    /// Sources whose values admission control of others keeps out of the records.
    kept_out: Mutex<HashMap<Key, Source>>,
    restarts: Arc<Restarts>,
    rotations: Arc<Rotations>,
    stats: Arc<Stats>,
}

impl Reconciler for Operator {
    type Key = Key;

    async fn reconcile(&self, key: Key) -> Next {
        let Some(snapshot) = self.shared.index().snapshot(&key, Instant::now()) else {
            self.repairs.forget(&key);
            self.source_moves.forget(&key);
            self.new_values.forget(&key);
            self.altered_status.forget(&key);
            self.rejected.lock().remove(&key);
            self.kept_out.lock().remove(&key);
            self.restarts.forget(&key);
            self.shared.receipts.forget(&key);
            return Next::Done;
        };
        if self.shared.receipts.is_writing(&key) {
            // Its record is at a version that nothing knows yet.
            let urgency = self.shared.index().urgency(&key).unwrap_or(Priority::Woken);
            self.shared.queue.add_after(key, urgency, REWRAP);
            return Next::Done;
        }
        if !self.shared.scopes.is_filled(&key.namespace) {
            // Once it is, all of the namespace is looked at.
            return Next::Done;
        }
        // Also where the pass is dropped at its deadline, or panics: the turn must not be lost.
        let _over = PassOn { shared: &self.shared, key: &key };
        if !self.leader.leadership.is_leader() {
            // Once it is, every object is looked at.
            return Next::Done;
        }
        let generation = snapshot.own.generation;
        let span = info_span!("reconcile", namespace = &*key.namespace, name = &*key.name, generation);
        self.pass(&key, snapshot).instrument(span).await
    }
}

/// Hands on, when it is dropped, the turn that an object has to take a name (see [`index`](super::index)).
struct PassOn<'a> {
    shared: &'a Shared,
    key: &'a Key,
}

impl Drop for PassOn<'_> {
    fn drop(&mut self) {
        let next = self.shared.index().pass_on(self.key);
        self.shared.wake(next);
    }
}

impl Operator {
    async fn pass(&self, key: &Key, cached: Cached) -> Next {
        debug!("pass begins");
        let now = Timestamp::now();
        let delivered = Mark::delivered(&cached.own.spec, &cached.own.status).filter(|_| self.settings.restarts);
        let fresh_id = Uuid::new_v4().to_string();
        let mut keyring = self.keys.get();
        let mut facts = Facts::new(cached.clone(), self.settings.clone(), &keyring, now, fresh_id.clone());
        if facts.lacks_a_key()
            && let Some(newer) = self.keys.newer_than(&keyring).await
        {
            keyring = newer;
            facts = Facts::new(cached, self.settings.clone(), &keyring, now, fresh_id);
        }
        let receipt = self.shared.receipts.of(key);
        if let Some(receipt) = &receipt {
            facts.was_rewrapped(receipt.clone());
        }
        let rotation = &self.shared.rotation;
        let is_news = |view: &SecretView| !rotation.stuck.has(&view.uid, &view.resource_version);
        let is_replaced = |seen: &Seen| seen.seed().is_some_and(|seed| keyring.is_replaced(seed));
        if facts.all_present().any(|seen| is_replaced(seen) && is_news(&seen.view)) {
            rotation.met.notify_one();
        }
        facts.snapshot.failures = self.shared.queue.failures(key);
        // After a pass that failed, what is out of step is most likely our own: a write that was carried out although its
        // answer was lost. That pass has had its own delay.
        if facts.snapshot.failures == 0 {
            facts.snapshot.waits = Waits {
                repair: self.repairs.wait(key),
                source: self.source_moves.wait(key),
                value: self.new_values.wait(key),
                status: self.altered_status.wait(key),
            };
        }
        facts.snapshot.rejected = self.rejected.lock().get(key).cloned();
        facts.snapshot.restarting.outcomes = self.restarts.outcomes(&facts.snapshot.own);
        facts.written.kept_out = self.kept_out.lock().get(key).cloned();
        let cluster = Cluster::new(self.leader.client.clone(), &key.namespace);
        let wake = |keys: Vec<Key>| self.shared.wake(keys);
        let (index, events, stats) = (&self.shared.index, &self.events, &*self.stats);
        let refused = self.keys.refuses_new();
        let actor = Actor { cluster, keyring: &keyring, refused, index, events, stats, wake: &wake };
        let end = actor.pass(&mut facts).await;
        if self.settings.restarts {
            self.restarts.note(key, delivered.as_ref(), &facts.snapshot.own);
        }
        self.rotations.note(&facts, &end);
        // A pass that failed has a backoff of its own.
        if matches!(end, End::Finished(_)) {
            if let Some(receipt) = &receipt {
                self.shared.receipts.spent(key, receipt);
            }
            if facts.written.repaired {
                self.stats.repairs.increment();
                self.repairs.note(key);
            }
            if facts.written.status_altered {
                self.altered_status.note(key);
            }
            match facts.written.record.as_ref().map(|record| record.why) {
                Some(Why::SourceMoved) => self.source_moves.note(key),
                Some(Why::NewValue) if facts.snapshot.own.spec.value_from.is_some() => self.new_values.note(key),
                _ => {}
            }
        }
        if let Some(rejected) = facts.learned.incoming.as_ref().and_then(Incoming::rejected) {
            self.rejected.lock().insert(key.clone(), rejected);
        }
        match facts.written.kept_out.take() {
            Some(source) => drop(self.kept_out.lock().insert(key.clone(), source)),
            None => drop(self.kept_out.lock().remove(key)),
        }
        if facts.lacks_a_key() && self.keys.newer_than(&keyring).await.is_some() {
            return Next::After(Duration::from_millis(50));
        }
        debug!(?end, idle_writes = self.stats.idle_writes.get(), "pass ended");
        next(&end)
    }
}

fn next(end: &End) -> Next {
    match end {
        End::Finished(Finish { retry: true, .. }) => Next::Retry { after: None },
        End::Finished(Finish { after, retry: false }) => {
            // Never later than the next check: a date may be far away, and clocks are set.
            let check = Jitter::random().lengthen(RESYNC);
            Next::After(after.map_or(check, |after| after.min(check)))
        }
        // Nothing can be made there any more; the namespace's end takes the object with it.
        End::Failed(Failure::Terminating) => Next::Done,
        End::Failed(failure) => Next::Retry { after: failure.retry_after() },
    }
}
