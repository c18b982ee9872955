//! The workers: take keys from the queue, reconcile them side by side, and put back what comes next.
//!
//! Each reconcile is a task of its own with a deadline. A panic in one is counted, logged and retried with the key's
//! backoff; it ends neither the workers nor the process.

use std::{collections::HashMap, fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{error::Elapsed, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

pub use super::queue::Next;
use super::{queue::Queue, stats::Stats};

/// What does the work.
pub trait Reconciler: Send + Sync + 'static {
    /// What is reconciled: a kind and a name, never an object. Logged when a reconcile panics or takes too long.
    type Key: Clone + Debug + Eq + Hash + Send + Sync + 'static;

    /// Brings what `key` names in order. Runs for one key never overlap. Dropped at the deadline, at any await.
    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Next> + Send;
}

/// How [`run`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Reconciles at the same time, at least one.
    pub workers: usize,
    /// The longest a reconcile may take.
    pub deadline: Duration,
    /// How long reconciles in flight may go on after the shutdown began.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 8, deadline: Duration::from_secs(60), drain: Duration::from_secs(20) }
    }
}

/// Reconciles the queue's keys until `shutdown` is cancelled, then finishes what is in flight.
pub async fn run<R: Reconciler>(
    queue: Queue<R::Key>,
    reconciler: Arc<R>,
    stats: Arc<Stats>,
    options: Options,
    shutdown: CancellationToken,
) {
    let mut flights = Flights { queue: &queue, stats: &stats, tasks: JoinSet::new(), keys: HashMap::new() };
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = flights.tasks.join_next_with_id() => flights.land(ended),
            key = queue.next(), if flights.tasks.len() < options.workers.max(1) => {
                flights.start(&reconciler, key, options.deadline);
            }
        }
    }
    info!(in_flight = flights.tasks.len(), "no new work: finishing what is in flight");
    let drained = async {
        while let Some(ended) = flights.tasks.join_next_with_id().await {
            flights.land(ended);
        }
    };
    if timeout(options.drain, drained).await.is_err() {
        // The next process finds them unfinished and goes on: every step can be repeated.
        warn!(abandoned = flights.tasks.len(), "reconciles did not finish in time");
    }
}

/// Reconciles in flight. Dropping it aborts them.
struct Flights<'a, K> {
    queue: &'a Queue<K>,
    stats: &'a Stats,
    tasks: JoinSet<Result<Next, Elapsed>>,
    keys: HashMap<Id, K>,
}

impl<K: Clone + Debug + Eq + Hash + Send + Sync + 'static> Flights<'_, K> {
    fn start<R: Reconciler<Key = K>>(&mut self, reconciler: &Arc<R>, key: K, deadline: Duration) {
        let reconciler = Arc::clone(reconciler);
        let task = {
            let key = key.clone();
            async move { timeout(deadline, reconciler.reconcile(key)).await }
        };
        let id = self.tasks.spawn(task.in_current_span()).id();
        self.keys.insert(id, key);
    }

    fn land(&mut self, ended: Result<(Id, Result<Next, Elapsed>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(key) = self.keys.remove(&id) else { return };
        let next = match ended {
            Ok((_, Ok(next))) => next,
            Ok((_, Err(Elapsed { .. }))) => {
                self.stats.deadlines.increment();
                warn!(?key, "reconcile exceeded its deadline and was dropped");
                Next::Retry { after: None }
            }
            // Its task is the fence: what panicked is gone with it. The payload may hold data and is not looked at.
            Err(_) => {
                self.stats.panics.increment();
                error!(?key, "reconcile panicked");
                Next::Retry { after: None }
            }
        };
        self.stats.reconciles.increment();
        if matches!(next, Next::Retry { .. }) {
            self.stats.failures.increment();
        }
        self.queue.finish(&key, next);
    }
}

/// From now on, a panic anywhere in the process is logged with its place in the source, and WITHOUT its message: the
/// message of an index out of range or of a failed conversion shows data.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "panic");
    }));
}
