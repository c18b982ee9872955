//! Watches: one supervised task each, which passes its events to a [`Sink`] and never gives up.
//!
//! Built on kube's `watcher`, which lists, watches, resumes, and lists again when the server says 410. This module adds:
//!
//! * a separate backoff for each watch (800 ms to 30 s, with jitter, and not before a `Retry-After`), so that a watch that
//!   fails delays no other;
//! * a limit to how fast a stream is resumed that is cut repeatedly: kube resumes at once (see the module `pulse`);
//! * pages of lists that are bounded in bytes (see the module `pages`);
//! * a deadline for each list, each start and, through the watch timeout, each silence;
//! * a new list if a watch cannot resume from its position, also if the server does not say so: after a restore of etcd (see
//!   the module `revision`).
//!
//! Errors are counted, and logged by class, status and transport error, but never with the server's text, which can repeat
//! the content of an object.

mod contact;
mod pages;
mod pulse;
mod revision;
mod set;
#[cfg(test)]
mod tests;

use std::{
    error::Error as _,
    fmt::{self, Debug, Display},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource,
    runtime::watcher::{self, Error, Event},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info_span, warn};

use self::{
    contact::Contacts,
    pulse::{Monitored, Pulse},
    revision::Revisions,
};
pub use self::{contact::WatchState, set::WatchSet};
use super::{
    backoff::{Backoff, Jitter},
    stats::Stats,
    supervise::Spawner,
};

/// Receives the events of a watch. Its methods must not block: the watch's task calls them.
///
/// A panic in one ends the process (see [`supervise`](super::supervise)), because its state is unknown afterwards.
pub trait Sink<K>: Send + Sync + 'static {
    /// A list starts. It may also start again before it is complete: then discard its objects so far.
    fn init(&self);
    /// An object of the list.
    fn init_apply(&self, object: K);
    /// The list is complete: known objects that were not in it are deleted.
    fn init_done(&self);
    /// An object was created or changed.
    fn apply(&self, object: K);
    /// An object was deleted; this is its last state.
    fn delete(&self, object: K);
}

/// The deadlines and delays of watches. Production uses the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After this time the server ends a watch, and the client resumes it; whole seconds. After five more seconds without a
    /// byte the connection counts as dead. Below 240 s, after which some load balancers drop an idle connection silently.
    pub watch: Duration,
    /// The longest time until the answer to a list or to the start of a watch starts, and the longest silence within a list.
    pub answer: Duration,
    /// The delay between failures in a row.
    pub backoff: Backoff,
    /// After this long without a failure, the earlier failures of a watch do not count any more.
    pub healthy: Duration,
    /// A stream that ends earlier than this counts as cut, and as a failure.
    pub cut: Duration,
    /// The longest `Retry-After` that a watch follows.
    pub retry_after: Duration,
    /// Refused starts in a row after which a watch begins again with a list.
    pub starts: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(200),
            answer: Duration::from_secs(30),
            backoff: Backoff { base: Duration::from_millis(800), cap: Duration::from_secs(30) },
            healthy: Duration::from_secs(120),
            cut: Duration::from_secs(5),
            retry_after: Duration::from_secs(120),
            starts: 5,
        }
    }
}

/// Starts watches.
#[derive(Clone)]
pub struct Watcher {
    /// The client made for watches, [`Clients::watch`](super::client::Clients::watch).
    pub client: Client,
    /// Starts the tasks of the watches.
    pub spawner: Spawner,
    /// Their counters.
    pub stats: Arc<Stats>,
    /// Their deadlines and delays.
    pub timing: Timing,
    /// Stops all of them.
    pub shutdown: CancellationToken,
    /// Their shared state.
    pub common: Arc<Common>,
}

/// The shared state of all watches of a process.
#[derive(Debug)]
pub struct Common {
    /// Permits to read a page of a list.
    turns: Arc<Semaphore>,
    /// The revisions that they have seen.
    revisions: Revisions,
    /// When they last heard from the server.
    contacts: Contacts,
}

impl Common {
    /// Returns how each watch is.
    #[must_use]
    pub fn states(&self) -> Vec<WatchState> {
        self.contacts.states()
    }
}

impl Default for Common {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(pages::AT_ONCE)),
            revisions: Revisions::default(),
            contacts: Contacts::default(),
        }
    }
}

impl Watcher {
    /// Starts a watch of the objects that `scope` and `select` choose, and passes its events to `sink`.
    ///
    /// `scope` must create the `Api` from the client that it is given: `|client| Api::all(client)`. With
    /// `PartialObjectMeta<K>` the watch requests only metadata. [`Timing::watch`] replaces the timeout in `select`.
    pub fn watch<K, S>(
        &self,
        name: impl Into<String>,
        scope: impl FnOnce(Client) -> Api<K>,
        select: watcher::Config,
        sink: Arc<S>,
    ) -> WatchHandle
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        S: Sink<K> + ?Sized,
    {
        let name = name.into();
        let pulse = Arc::new(Pulse::new(name.clone(), self.timing, Arc::clone(&self.stats), Arc::clone(&self.common)));
        let namespace = self.client.default_namespace().to_owned();
        let api = scope(Client::new(Monitored::new(self.client.clone(), Arc::clone(&pulse)), namespace));
        self.common.revisions.register(api.resource_url(), &select, &pulse.seen);
        let (ready, is_ready) = watch::channel(false);
        let stop = self.shutdown.child_token();
        let seconds = u32::try_from(self.timing.watch.as_secs()).unwrap_or(u32::MAX).max(1);
        let task = Task {
            api,
            config: select.timeout(seconds),
            sink,
            pulse: Arc::clone(&pulse),
            stats: Arc::clone(&self.stats),
            timing: self.timing,
            ready,
        };
        let span = info_span!(parent: None, "watch", name);
        let until = stop.clone();
        let run = async move {
            let mut task = task;
            tokio::select! {
                biased;
                () = until.cancelled() => {}
                () = task.run() => {}
            }
        };
        self.spawner.spawn(format!("watch {name}"), stop.clone(), run.instrument(span));
        WatchHandle { ready: is_ready, stop }
    }

    /// Starts to detect a restore of etcd, for all watches: each watch that has seen a later revision than the present one
    /// lists again. Call it once.
    ///
    /// It costs a list of one object's metadata for each watched resource every half minute.
    pub fn notice_restores(&self) {
        let (client, common, answer) = (self.client.clone(), Arc::clone(&self.common), self.timing.answer);
        let until = self.shutdown.clone();
        let follow = async move {
            until.run_until_cancelled(common.revisions.follow(client, answer)).await;
        };
        self.spawner.spawn("revisions", self.shutdown.clone(), follow);
    }
}

/// A handle of a watch. Dropping it does not stop the watch.
#[derive(Debug, Clone)]
pub struct WatchHandle {
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
}

/// The watch ended before its first list was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch was stopped before it was ready")]
pub struct Stopped;

impl WatchHandle {
    /// Waits until the first list is complete, and the sink knows all objects.
    pub async fn ready(&self) -> Result<(), Stopped> {
        self.ready.clone().wait_for(|ready| *ready).await.map(drop).map_err(|_| Stopped)
    }

    /// Stops the watch. A running call of its sink may still finish; no other starts.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// The state of one watch's task.
struct Task<K, S: ?Sized> {
    api: Api<K>,
    config: watcher::Config,
    sink: Arc<S>,
    pulse: Arc<Pulse>,
    stats: Arc<Stats>,
    timing: Timing,
    ready: watch::Sender<bool>,
}

/// Why kube's watcher is replaced by a new one.
enum Rebuild {
    /// It could not resume from its position, several times in a row.
    Starts,
    /// A list made no progress.
    Hang,
    /// The server's revision is lower than one that the watch has seen.
    Restored,
}

impl<K, S> Task<K, S>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K> + ?Sized,
{
    async fn run(&mut self) {
        let mut trouble = Trouble::new(self.timing);
        loop {
            let why = self.follow(&mut trouble).await;
            self.stats.watch_rebuilds.increment();
            match why {
                Rebuild::Starts => warn!("the watch cannot be resumed; listing again"),
                // It has already waited: no further delay.
                Rebuild::Hang => {
                    self.stats.watch_errors.increment();
                    warn!("the list makes no progress; listing again");
                    self.pulse.contact.failed("the list makes no progress".to_owned());
                }
                // The reason is already in the log.
                Rebuild::Restored => {}
            }
        }
    }

    /// Follows one watcher of kube, which recovers from most errors by itself after a delay.
    async fn follow(&mut self, trouble: &mut Trouble) -> Rebuild {
        let mut events = pin!(watcher::watcher(self.api.clone(), self.config.clone()));
        let mut listing = true;
        let mut failed_starts = 0;
        loop {
            // A page of a list has the deadlines of `pulse`; this deadline is for stalls that `pulse` cannot see. After the
            // list, silence is normal, and the watch timeout ends it.
            let event = if listing {
                match timeout(self.timing.answer * 4, events.next()).await {
                    Ok(event) => event,
                    Err(_) => return Rebuild::Hang,
                }
            } else {
                tokio::select! {
                    biased;
                    () = self.pulse.seen.restored() => return Rebuild::Restored,
                    event = events.next() => event,
                }
            };
            // kube decodes a page as a whole, and then returns it object by object.
            self.pulse.decoded();
            match event {
                Some(Ok(event)) => {
                    failed_starts = 0;
                    listing = match event {
                        Event::Init | Event::InitApply(_) => true,
                        Event::InitDone | Event::Apply(_) | Event::Delete(_) => false,
                    };
                    self.hand_over(event);
                }
                Some(Err(error)) => {
                    self.stats.watch_errors.increment();
                    let delay = trouble.failed(self.pulse.take_retry_after());
                    let described = Described(&error).to_string();
                    warn!(error = described, ?delay, "the watch failed");
                    self.pulse.contact.failed(described);
                    sleep(delay).await;
                    if let Error::WatchStartFailed(error) = &error {
                        // kube lists again when a stream says 410, but after other refusals it starts from the same version
                        // without end.
                        match refusal(error) {
                            // 404: the resource was deleted; if it is created again, it has another history.
                            Some(404 | 410) => return Rebuild::Starts,
                            Some(_) => failed_starts += 1,
                            None => {}
                        }
                        if failed_starts >= self.timing.starts {
                            return Rebuild::Starts;
                        }
                    }
                }
                // kube's stream never ends.
                None => return Rebuild::Starts,
            }
        }
    }

    fn hand_over(&self, event: Event<K>) {
        if let Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) = &event {
            self.pulse.seen.note(object.meta().resource_version.as_deref().unwrap_or_default());
        }
        match event {
            Event::Init => {
                self.pulse.seen.forget();
                if *self.ready.borrow() {
                    self.stats.relists.increment();
                    debug!("listing again");
                }
                self.sink.init();
            }
            Event::InitApply(object) => self.sink.init_apply(object),
            Event::InitDone => {
                self.sink.init_done();
                self.ready.send_replace(true);
            }
            Event::Apply(object) => self.sink.apply(object),
            Event::Delete(object) => self.sink.delete(object),
        }
    }
}

/// The failures of one watch in a row. A success does not end the row, only time does: otherwise a list that works and a
/// watch that fails would alternate at full speed.
#[derive(Debug)]
struct Trouble {
    timing: Timing,
    failures: u32,
    /// When the delay after the last failure ended.
    over: Option<Instant>,
}

impl Trouble {
    fn new(timing: Timing) -> Self {
        Self { timing, failures: 0, over: None }
    }

    /// Returns how long to wait after one more failure. The server may have asked for a delay.
    fn failed(&mut self, retry_after: Option<Duration>) -> Duration {
        let now = Instant::now();
        if self.over.is_some_and(|over| now.saturating_duration_since(over) >= self.timing.healthy) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let delay = self.timing.backoff.delay(self.failures, Jitter::random());
        // The server's delay gets jitter too, and only upwards: the server sends the same delay to all clients.
        let asked = retry_after.unwrap_or_default().min(self.timing.retry_after);
        let delay = delay.max(Jitter::random().lengthen(asked));
        self.over = now.checked_add(delay);
        delay
    }
}

/// Returns the status with which the server refused to start a watch. A failed connection or a busy server is no refusal:
/// the position in the history is still valid, and a list would cost the server more.
fn refusal(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) if ![429, 503, 504].contains(&status.code) => Some(status.code),
        _ => None,
    }
}

/// Describes an error of a watch without the content of objects: the messages of the server and of the decoder can repeat
/// values.
struct Described<'a>(&'a Error);

impl Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, error) = match self.0 {
            Error::InitialListFailed(error) => ("list failed", error),
            Error::WatchStartFailed(error) => ("start failed", error),
            Error::WatchFailed(error) => ("stream failed", error),
            Error::WatchError(status) => {
                return write!(f, "error in the stream: {} {}", status.code, status.reason);
            }
            Error::NoResourceVersion => return f.write_str("an object without a resource version"),
        };
        write!(f, "{what}: ")?;
        match error {
            // The status of a list or watch, never of one object.
            kube::Error::Api(status) if status.code == 404 => f.write_str(
                "404: the API server does not have this resource; check that its CustomResourceDefinition is installed",
            ),
            kube::Error::Api(status) => write!(f, "{} {}", status.code, status.reason),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => f.write_str("the answer can't be decoded"),
            transport => {
                write!(f, "{transport}")?;
                let mut source = transport.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}
