//! Watches: one supervised task each, which hands what it sees to a [`Sink`] and never gives up.
//!
//! Built on kube's `watcher`, which lists, watches, resumes, and lists again when the server says 410. What is added:
//!
//! * a backoff of its own for each watch (800 ms to 30 s, with jitter, and not before a `Retry-After`), so that one
//!   that fails holds up no other;
//! * a limit to how fast a stream that is cut again and again is resumed: kube resumes at once (see the module `pulse`);
//! * pages of lists that are bounded in bytes (see the module `pages`);
//! * a deadline for each list, each start and, through the watch timeout, each silence;
//! * a new list when a watch can't be resumed from where it was, also where the server does not say so: after a restore
//!   of etcd (see the module `revision`).
//!
//! Errors are absorbed: counted, and logged by class, status and transport error. Never by the server's text, which can
//! repeat what an object holds.

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

pub use self::set::WatchSet;
use self::{
    pulse::{Monitored, Pulse},
    revision::Revisions,
};
use super::{
    backoff::{Backoff, Jitter},
    stats::Stats,
    supervise::Spawner,
};

/// Takes what a watch sees. Its methods must not block: they are called on the watch's task.
///
/// A panic in one ends the process (see [`supervise`](super::supervise)): after it, nobody knows what was kept.
pub trait Sink<K>: Send + Sync + 'static {
    /// A list begins. It may also begin again before it was done: what was gathered for it so far is void.
    fn init(&self);
    /// An object of the list.
    fn init_apply(&self, object: K);
    /// The list is complete: what was known before and was not in it is gone.
    fn init_done(&self);
    /// An object was made or changed.
    fn apply(&self, object: K);
    /// An object was deleted; this is its last state.
    fn delete(&self, object: K);
}

/// The times that watches keep. The default is what production runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After this long the server ends a watch, and we resume it; whole seconds. Five seconds more without a byte, and
    /// the connection counts as dead. Below 240 s, after which some load balancers drop an idle connection silently.
    pub watch: Duration,
    /// The longest that the answer to a list or to the start of a watch may take to begin, and the longest silence
    /// within a list.
    pub answer: Duration,
    /// Between failures in a row.
    pub backoff: Backoff,
    /// A watch that has been well for this long has no failures behind it.
    pub healthy: Duration,
    /// A stream that ends earlier than this was cut, and counts as a failure.
    pub cut: Duration,
    /// The longest `Retry-After` that is obeyed.
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
    /// What the watches' tasks are given to.
    pub spawner: Spawner,
    /// Where they count.
    pub stats: Arc<Stats>,
    /// Their times.
    pub timing: Timing,
    /// Stops all of them.
    pub shutdown: CancellationToken,
    /// What they share.
    pub common: Arc<Common>,
}

/// What all watches of a process share.
#[derive(Debug)]
pub struct Common {
    /// Leaves to read a page of a list.
    turns: Arc<Semaphore>,
    /// The revisions that they have seen.
    revisions: Revisions,
}

impl Default for Common {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(pages::AT_ONCE)), revisions: Revisions::default() }
    }
}

impl Watcher {
    /// Starts a watch of what `scope` and `select` choose, and hands what it sees to `sink`.
    ///
    /// `scope` makes the `Api` from the client it is given, and from no other: `|client| Api::all(client)`. With
    /// `PartialObjectMeta<K>` only metadata is asked for. The timeout in `select` is overruled by [`Timing::watch`].
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
        let pulse = Arc::new(Pulse::new(self.timing, Arc::clone(&self.stats), Arc::clone(&self.common)));
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

    /// Starts to notice that etcd was restored, for all watches: each that has seen more than there is lists again. Call
    /// it once.
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

/// A watch, as others see it. Dropping it leaves the watch running.
#[derive(Debug, Clone)]
pub struct WatchHandle {
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
}

/// The watch ended before its first list was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch was stopped before it was ready")]
pub struct Stopped;

impl WatchHandle {
    /// Waits until the first list is done, and the sink knows everything there is.
    pub async fn ready(&self) -> Result<(), Stopped> {
        self.ready.clone().wait_for(|ready| *ready).await.map(drop).map_err(|_| Stopped)
    }

    /// Stops the watch. A call of its sink that has begun may still go on; no other begins.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// What one watch's task holds.
struct Task<K, S: ?Sized> {
    api: Api<K>,
    config: watcher::Config,
    sink: Arc<S>,
    pulse: Arc<Pulse>,
    stats: Arc<Stats>,
    timing: Timing,
    ready: watch::Sender<bool>,
}

/// Why kube's watcher is thrown away for a new one.
enum Rebuild {
    /// It could not be started from where it was, several times in a row.
    Starts,
    /// A list made no progress.
    Hang,
    /// The server has gone back behind what it has seen.
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
                Rebuild::Starts => warn!("the watch can't be resumed: listing again"),
                // It took its time already: no further wait.
                Rebuild::Hang => {
                    self.stats.watch_errors.increment();
                    warn!("the list makes no progress: listing again");
                }
                // What was found is in the log already.
                Rebuild::Restored => {}
            }
        }
    }

    /// Follows one watcher of kube's, which recovers by itself from most errors if it is left alone for a while.
    async fn follow(&mut self, trouble: &mut Trouble) -> Rebuild {
        let mut events = pin!(watcher::watcher(self.api.clone(), self.config.clone()));
        let mut listing = true;
        let mut failed_starts = 0;
        loop {
            // A page of a list has the deadlines of `pulse`; this is a second line for what those can't see. Once the
            // list is done, silence is normal, and ended by the watch timeout.
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
            // kube decodes a page as a whole, and then hands it on object by object.
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
                    warn!(error = %Described(&error), ?delay, "the watch failed");
                    sleep(delay).await;
                    if let Error::WatchStartFailed(error) = &error {
                        // kube lists again when a stream says 410, but starts from the same version for ever when
                        // it is refused otherwise.
                        match refusal(error) {
                            // 404: the resource was deleted, and its next life has a history of its own.
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

/// The failures of one watch in a row. Successes between them don't count, only time does: a list that works and a
/// watch that fails, in turns, would otherwise go round at full speed.
#[derive(Debug)]
struct Trouble {
    timing: Timing,
    failures: u32,
    /// When the delay after the last failure was over.
    over: Option<Instant>,
}

impl Trouble {
    fn new(timing: Timing) -> Self {
        Self { timing, failures: 0, over: None }
    }

    /// How long to wait after one more failure, in which the server may have asked for some time.
    fn failed(&mut self, retry_after: Option<Duration>) -> Duration {
        let now = Instant::now();
        if self.over.is_some_and(|over| now.saturating_duration_since(over) >= self.timing.healthy) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let delay = self.timing.backoff.delay(self.failures, Jitter::random());
        // Jitter also on what the server asks for, and only upwards: it says the same to everyone.
        let asked = retry_after.unwrap_or_default().min(self.timing.retry_after);
        let delay = delay.max(Jitter::random().lengthen(asked));
        self.over = now.checked_add(delay);
        delay
    }
}

/// The status by which the server refused to start a watch. A connection that failed or a server that is busy is no
/// refusal: our place in the history is still good, and a list would cost it more.
fn refusal(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) if ![429, 503, 504].contains(&status.code) => Some(status.code),
        _ => None,
    }
}

/// An error of a watch without anything that came out of an object: the server's message and the decoder's can
/// repeat values.
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
            // Of a list or watch, never of one object.
            kube::Error::Api(status) if status.code == 404 => f.write_str(
                "404: the API server does not have this resource; is its CustomResourceDefinition installed?",
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
