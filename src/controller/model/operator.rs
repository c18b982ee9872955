//! An operator of the model: the real index, facts, `decide` and acting, fed by watches that lag as far as a test wants.
//!
//! Its queue is filled only by what the index says is to be woken, by what a pass asks for, and by a restart; so an event
//! that wakes too few shows as a state that never comes to rest rightly.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use jiff::Timestamp;
use managed_secrets_api::restarts::Mark;
use managed_secrets_crypto::Keyring;
use managed_secrets_engine::{
    lease::Leadership,
    queue::{Queue, Workers},
    run::{Next, Reconciler as _},
    stats::Stats,
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::advance};

use super::{
    super::{
        act::{Actor, End},
        cluster::Cluster,
        events::Events,
        facts::{Facts, Settings},
        failure::Failure,
        index::{Index, Key},
        restarts::{Restarts, run::Restarter},
        run::{Leader, RESYNC},
        scopes::Scopes,
        seeds::receipts::Receipts,
        sinks::Shared,
        view::{Own, SecretView, packed::Packed},
    },
    line::{Line, Plan},
    server::{Change, Server, is_labelled},
    store::{NAMESPACE, Stored},
    versions::Pass,
};

/// One after the other.
const WORKERS: Workers = Workers { all: 1, reserved: 0 };

/// The watches of an operator; each lags by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stream {
    Objects,
    Labelled,
    Sources,
}

/// All streams.
pub(super) const STREAMS: [Stream; 3] = [Stream::Objects, Stream::Labelled, Stream::Sources];

#[derive(Default)]
struct State {
    /// How far each stream has been heard, as a place in the server's log.
    heard: [usize; 3],
    queue: BTreeSet<String>,
    /// When to look again, in seconds that passed.
    timers: BTreeMap<String, i64>,
    failures: BTreeMap<String, u32>,
    /// Everything was heard since the last pass that failed, as it is in the time that passes until the next one.
    caught_up: bool,
}

/// The model's time, in seconds. Timers go by what has passed, and dates by the wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) passed: i64,
    /// What the wall clock showed at the beginning, and by how much it was set since.
    pub(super) set: i64,
    /// Hours have passed, or were said to. Each object is looked at in this time, which the model does only then: it would
    /// hide an event that wakes too few.
    pub(super) leapt: bool,
}

impl Clock {
    pub(super) fn wall(self) -> Timestamp {
        Timestamp::from_second(self.set + self.passed).unwrap()
    }
}

/// One operator process after another.
pub(super) struct Operator {
    server: Arc<Mutex<Server>>,
    keyring: Arc<Keyring>,
    clock: Arc<Mutex<Clock>>,
    shared: Arc<Shared>,
    restarts: Mutex<Arc<Restarts>>,
    /// Whether it looks at workloads. Only the leader does, and says in a status what became of them: of two that look at
    /// different times, each would take back what the other one says.
    looks: bool,
    /// When it looked at workloads last, in seconds that had passed.
    looked: Mutex<i64>,
    events: Events,
    stats: Stats,
    state: Mutex<State>,
    /// As if sources had moved often of late.
    pub(super) source_wait: Mutex<Option<Duration>>,
}

/// What a pass did.
#[derive(Debug)]
pub(super) struct Done {
    /// Requests that would write.
    pub(super) writes: usize,
    /// How it ended; nothing where there was no such object or the operator died.
    pub(super) end: Option<End>,
}

fn view(secret: &Stored) -> SecretView {
    serde_json::from_value(secret.metadata()).unwrap()
}

impl Operator {
    pub(super) fn new(
        server: Arc<Mutex<Server>>,
        keyring: Arc<Keyring>,
        clock: Arc<Mutex<Clock>>,
        looks: bool,
    ) -> Self {
        // What is published is another test's matter: the queue fills and the rest is dropped.
        let nothing = Pass { about: String::new(), since: 0, now: clock.lock().wall() };
        let (events, _) = Events::new(&Line::default().client(Arc::clone(&server), nothing));
        let operator = Self {
            server,
            keyring,
            clock,
            shared: Arc::new(Shared {
                index: Mutex::new(Index::default()),
                queue: Queue::new(),
                sources_moved: Notify::new(),
                scopes: Scopes::new(&[]),
                rotation: Arc::default(),
                receipts: Receipts::default(),
            }),
            restarts: Mutex::default(),
            looks,
            looked: Mutex::default(),
            events,
            stats: Stats::default(),
            state: Mutex::default(),
            source_wait: Mutex::default(),
        };
        operator.restart();
        operator
    }

    /// A new process: empty caches, filled by lists.
    pub(super) fn restart(&self) {
        let mut index = Index::default();
        let server = self.server.lock();
        let objects = server.objects.values().map(|object| Packed::new(&Own::new(object.typed()).kept())).collect();
        let labelled = server.secrets.values().filter(|secret| is_labelled(secret));
        let labelled = labelled.map(|secret| (NAMESPACE.to_owned(), Packed::new(&view(secret).kept()))).collect();
        let sources: HashMap<_, _> = server
            .secrets
            .values()
            .map(|secret| (secret.name.clone(), (secret.uid.clone(), secret.revision.to_string())))
            .collect();
        index.replace_objects(None, objects);
        index.replace_secrets(None, labelled);
        index.replace_sources(NAMESPACE, sources);
        let mut state = self.state.lock();
        *state =
            State { heard: [server.log.len(); 3], queue: server.objects.keys().cloned().collect(), ..State::default() };
        *self.shared.index() = index;
        *self.restarts.lock() = Arc::default();
    }

    /// A watch ends and lists again: what it shows replaces what was known.
    pub(super) fn list_again(&self) {
        let (objects, labelled, length) = {
            let server = self.server.lock();
            let objects = server.objects.values().map(|object| Packed::new(&Own::new(object.typed()).kept())).collect();
            let labelled = server.secrets.values().filter(|secret| is_labelled(secret));
            (
                objects,
                labelled.map(|secret| (NAMESPACE.to_owned(), Packed::new(&view(secret).kept()))).collect(),
                server.log.len(),
            )
        };
        let mut woken = self.shared.index().replace_objects(None, objects);
        woken.extend(self.shared.index().replace_secrets(None, labelled));
        let mut state = self.state.lock();
        state.heard[Stream::Objects as usize] = length;
        state.heard[Stream::Labelled as usize] = length;
        state.queue.extend(woken.into_iter().map(|key| key.name.to_string()));
    }

    /// Hears up to `most` changes of a stream.
    pub(super) fn hear(&self, stream: Stream, most: usize) {
        let changes: Vec<Change> = {
            let mut state = self.state.lock();
            let server = self.server.lock();
            let heard = &mut state.heard[stream as usize];
            let changes = server.log[*heard..].iter().take(most).cloned().collect::<Vec<_>>();
            *heard += changes.len();
            changes
        };
        let mut woken = Vec::new();
        let mut index = self.shared.index();
        for change in changes {
            woken.extend(match (stream, change) {
                (Stream::Objects, Change::Object(_, Some(after))) => index.put_object(Own::new(after.typed())),
                (Stream::Objects, Change::Object(Some(before), None)) => {
                    index.remove_object(NAMESPACE, &before.name, Some(&before.uid))
                }
                (Stream::Labelled, Change::Secret(_, Some(after))) if is_labelled(&after) => {
                    index.put_secret(NAMESPACE, view(&after), None)
                }
                // Gone, or without its label: the watch says that it was deleted.
                (Stream::Labelled, Change::Secret(Some(before), _)) if is_labelled(&before) => {
                    index.remove_secret(NAMESPACE, &view(&before))
                }
                (Stream::Sources, Change::Secret(_, Some(after))) => {
                    index.put_source(NAMESPACE, &after.name, after.uid.clone(), after.revision.to_string())
                }
                (Stream::Sources, Change::Secret(Some(before), None)) => index.remove_source(NAMESPACE, &before.name),
                _ => Vec::new(),
            });
        }
        drop(index);
        self.state.lock().queue.extend(woken.into_iter().map(|key| key.name.to_string()));
    }

    /// Hears everything.
    pub(super) fn catch_up(&self) {
        for stream in STREAMS {
            self.hear(stream, usize::MAX);
        }
        self.state.lock().caught_up = true;
    }

    /// Everything is looked at once, as in a resync.
    pub(super) fn wake_all(&self) {
        let names: Vec<String> = self.shared.index().keys().map(|key| key.name.to_string()).collect();
        self.state.lock().queue.extend(names);
    }

    /// Wakes these.
    pub(super) fn wake(&self, names: Vec<String>) {
        self.state.lock().queue.extend(names);
    }

    /// Wakes what has a timer that is due.
    pub(super) fn ring(&self) {
        let now = self.clock.lock().passed;
        let mut state = self.state.lock();
        let due: Vec<String> =
            state.timers.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            state.timers.remove(&name);
            state.queue.insert(name);
        }
    }

    /// The next of the queue.
    pub(super) fn next(&self) -> Option<String> {
        self.state.lock().queue.pop_first()
    }

    /// The id that the cache knows from the status of an object.
    pub(super) fn known_id(&self, name: &str) -> Option<String> {
        let key = Key { namespace: NAMESPACE.into(), name: name.into() };
        self.shared.index().snapshot(&key, Instant::now())?.own.status.id
    }

    /// Whether the cache is what the server holds, once all was heard and no call is on its way.
    pub(super) fn shows_what_is_stored(&self) -> Result<(), String> {
        let server = self.server.lock();
        let objects = server.objects.values().map(|object| (object.name.clone(), object.revision.to_string()));
        let labelled = server.secrets.values().filter(|secret| is_labelled(secret));
        let labelled = labelled.map(|secret| (secret.name.clone(), secret.revision.to_string()));
        let (shown, stored) = (self.shared.index().contents(), [objects.collect(), labelled.collect()]);
        if shown == stored { Ok(()) } else { Err(format!("the cache shows {shown:?}, and there is {stored:?}")) }
    }

    /// No object waits.
    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// A pass of one object, if it is known. With `late`, own writes that no watch has shown are believed no more.
    pub(super) async fn pass(&self, name: &str, plan: Plan, late: bool) -> Done {
        let line = Line::new(plan);
        let key = Key { namespace: NAMESPACE.into(), name: name.into() };
        let at = if late { Instant::now() + Duration::from_secs(6) } else { Instant::now() };
        let snapshot = self.shared.index().snapshot(&key, at);
        let Some(snapshot) = snapshot else {
            self.restarts.lock().forget(&key);
            if let Some(rest) = line.rest() {
                rest.await;
            }
            return Done { writes: 0, end: None };
        };
        let clock = *self.clock.lock();
        let now = clock.wall();
        let begun = Pass { about: name.to_owned(), since: self.server.lock().revision, now };
        let settings = Settings {
            operator_namespace: "managed-secrets-system".to_owned(),
            allow_cluster_scope: false,
            restarts: true,
        };
        let delivered = Mark::delivered(&snapshot.own.spec, &snapshot.own.status);
        let restarts = Arc::clone(&*self.restarts.lock());
        let fresh_id = uuid::Uuid::new_v4().to_string();
        let mut facts = Facts::new(snapshot, settings, &self.keyring, now, fresh_id);
        facts.snapshot.failures = self.state.lock().failures.get(name).copied().unwrap_or_default();
        facts.snapshot.waits.source = *self.source_wait.lock();
        facts.snapshot.restarting.outcomes = restarts.outcomes(&facts.snapshot.own);
        let client = line.client(Arc::clone(&self.server), begun);
        let cluster = Cluster::new(client, NAMESPACE);
        let wake = |keys: Vec<Key>| self.state.lock().queue.extend(keys.into_iter().map(|key| key.name.to_string()));
        let actor = Actor {
            cluster,
            keyring: &self.keyring,
            refused: None,
            index: &self.shared.index,
            events: &self.events,
            stats: &self.stats,
            wake: &wake,
        };
        let end = actor.pass(&mut facts).await;
        if self.looks {
            restarts.note(&key, delivered.as_ref(), &facts.snapshot.own);
        }
        let next = self.shared.index().pass_on(&key);
        self.state.lock().queue.extend(next.into_iter().map(|key| key.name.to_string()));
        if let Some(rest) = line.rest() {
            rest.await;
        }
        if line.dead() {
            self.restart();
            return Done { writes: line.writes(), end: None };
        }
        let retry = match &end {
            End::Finished(finish) => {
                if let Some(after) = finish.after {
                    let after = i64::try_from(after.min(RESYNC).as_secs()).unwrap() + 1;
                    self.state.lock().timers.insert(name.to_owned(), clock.passed + after);
                }
                finish.retry
            }
            // A user made a record immutable: with ever longer waits it would go on forever.
            End::Failed(Failure::Invalid(_)) if self.server.lock().has_a_frozen_record() => facts.snapshot.failures < 3,
            End::Failed(_) => true,
        };
        let mut state = self.state.lock();
        if retry {
            let failures = state.failures.get(name).copied().unwrap_or_default();
            if failures == 0 || std::mem::take(&mut state.caught_up) {
                state.failures.insert(name.to_owned(), failures + 1);
            }
            state.queue.insert(name.to_owned());
        } else {
            state.failures.remove(name);
        }
        Done { writes: line.writes(), end: Some(end) }
    }

    /// Looks at the workloads that are due. Returns the number of writes.
    pub(super) async fn look(&self, plan: Plan) -> usize {
        let passed = self.clock.lock().passed;
        let since = std::mem::replace(&mut *self.looked.lock(), passed);
        advance(Duration::from_secs(u64::try_from(passed - since).unwrap())).await;
        let (line, restarts) = (Line::new(plan), Arc::clone(&*self.restarts.lock()));
        let now = self.clock.lock().wall();
        let begun = Pass { about: "a workload".to_owned(), since: self.server.lock().revision, now };
        let leader = Leader { client: line.client(Arc::clone(&self.server), begun), leadership: Leadership::always() };
        let restarter = Restarter {
            restarts: Arc::clone(&restarts),
            leader,
            shared: Arc::clone(&self.shared),
            events: self.events.clone(),
        };
        while let Some(place) = restarts.queue().next(WORKERS).now_or_never() {
            let next = restarter.reconcile(place.clone()).await;
            restarts.queue().finish(&place, next);
            if line.dead() {
                self.restart();
                return line.writes();
            }
        }
        while let Some(key) = self.shared.queue.next(WORKERS).now_or_never() {
            self.shared.queue.finish(&key, Next::Done);
            self.wake(vec![key.name.to_string()]);
        }
        line.writes()
    }
}
