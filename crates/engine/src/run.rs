//! The workers take keys from the queue, reconcile them in parallel, and schedule the next run.
//!
//! Each reconcile is a separate task with a deadline. A panic in one is counted, logged and retried with the key's backoff;
//! it ends neither the workers nor the process.

use std::{collections::HashMap, fmt::Debug, future::Future, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, error::Elapsed, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, warn};

pub use super::queue::Next;
use super::{
    limit::Limiter,
    queue::{Grouped, Queue},
    stats::Stats,
};

/// The most reconciles at the same time, unless the operator is told otherwise. Each has one or two requests in flight, and
/// an API server serves some hundreds at a time, for all of its clients.
pub const MAX_WORKERS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Reconciles keys.
pub trait Reconciler: Send + Sync + 'static {
    /// The key of an object: a kind and a name, never an object. It is logged when a reconcile panics or takes too long.
    type Key: Clone + Debug + Eq + Grouped<Group: Send> + Hash + Send + Sync + 'static;

    /// Reconciles the object that `key` names. Runs for one key never overlap. It is dropped at the deadline, at any await.
    fn reconcile(&self, key: Self::Key) -> impl Future<Output = Next> + Send;
}

/// How [`run`] works.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many reconciles run at the same time.
    pub limiter: Arc<Limiter>,
    /// The longest a reconcile may take.
    pub deadline: Duration,
    /// How long reconciles in flight may continue after the shutdown started.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let limiter = Arc::new(Limiter::new(MAX_WORKERS.get()));
        Self { limiter, deadline: Duration::from_secs(60), drain: Duration::from_secs(20) }
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
    queue.begin();
    let mut flights = Flights { queue: &queue, stats: &stats, tasks: JoinSet::new(), keys: HashMap::new() };
    loop {
        let workers = options.limiter.workers(flights.tasks.len());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = flights.tasks.join_next_with_id() => flights.land(&ended),
            key = queue.next(workers), if flights.tasks.len() < workers.all => {
                flights.start(&reconciler, key, options.deadline);
            }
        }
    }
    info!(in_flight = flights.tasks.len(), "no new work; finishing the reconciles in flight");
    let drained = async {
        while let Some(ended) = flights.tasks.join_next_with_id().await {
            flights.land(&ended);
        }
    };
    if timeout(options.drain, drained).await.is_err() {
        // The next process continues them: every step can be repeated.
        warn!(abandoned = flights.tasks.len(), "reconciles did not finish in time");
    }
}

/// Reconciles in flight. Dropping it aborts them.
struct Flights<'a, K: Grouped> {
    queue: &'a Queue<K>,
    stats: &'a Stats,
    tasks: JoinSet<Result<Next, Elapsed>>,
    keys: HashMap<Id, (K, Instant)>,
}

impl<K: Clone + Debug + Eq + Grouped<Group: Send> + Hash + Send + Sync + 'static> Flights<'_, K> {
    fn start<R: Reconciler<Key = K>>(&mut self, reconciler: &Arc<R>, key: K, deadline: Duration) {
        let reconciler = Arc::clone(reconciler);
        let task = {
            let key = key.clone();
            async move { timeout(deadline, reconciler.reconcile(key)).await }
        };
        let id = self.tasks.spawn(task.in_current_span()).id();
        self.keys.insert(id, (key, Instant::now()));
    }

    fn land(&mut self, ended: &Result<(Id, Result<Next, Elapsed>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((key, began)) = self.keys.remove(&id) else { return };
        let (next, result) = match ended {
            Ok((_, Ok(next @ Next::Retry { .. }))) => (*next, "retry"),
            Ok((_, Ok(next))) => (*next, "success"),
            Ok((_, Err(Elapsed { .. }))) => {
                self.stats.deadlines.increment();
                warn!(?key, "reconcile exceeded its deadline; dropped it");
                (Next::Retry { after: None }, "deadline")
            }
            // The task contains the panic. The payload may hold data and is not read.
            Err(_) => {
                self.stats.panics.increment();
                error!(?key, "reconcile panicked");
                (Next::Retry { after: None }, "panic")
            }
        };
        self.stats.durations.observe([("result", result)], began.elapsed());
        self.stats.reconciles.increment();
        if matches!(next, Next::Retry { .. }) {
            self.stats.failures.increment();
        }
        self.queue.finish(&key, next);
    }
}

/// From now on, a panic anywhere in the process is logged with its location in the source, and WITHOUT its message: the
/// message of an index out of range or of a failed conversion shows data.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        error!(place, "panic");
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use testkit::{child, is_child};
    use tokio::{task::JoinHandle, time::sleep};

    use super::*;
    use crate::{
        queue::{Depth, Priority},
        testing::within,
    };

    type Script = Box<dyn Fn(u32, usize) -> (Duration, Option<Next>) + Send + Sync>;

    /// Runs by a script: from the key and how often it ran, how long it takes and how it ends (`None`: by a panic).
    struct Scripted {
        script: Script,
        runs: Mutex<Vec<(u32, Instant)>>,
        side_by_side: AtomicUsize,
        most: AtomicUsize,
        finished: AtomicUsize,
    }

    impl Reconciler for Scripted {
        type Key = u32;

        async fn reconcile(&self, key: u32) -> Next {
            let nth = {
                let mut runs = self.runs.lock().unwrap();
                runs.push((key, Instant::now()));
                runs.iter().filter(|(ran, _)| *ran == key).count()
            };
            let now = self.side_by_side.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let guard = Leave(&self.side_by_side);
            let (takes, ends) = (self.script)(key, nth);
            sleep(takes).await;
            drop(guard);
            self.finished.fetch_add(1, Ordering::SeqCst);
            ends.expect("a panic on purpose")
        }
    }

    struct Leave<'a>(&'a AtomicUsize);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct Running {
        queue: Queue<u32>,
        reconciler: Arc<Scripted>,
        stats: Arc<Stats>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    fn start(script: impl Fn(u32, usize) -> (Duration, Option<Next>) + Send + Sync + 'static) -> Running {
        let reconciler = Arc::new(Scripted {
            script: Box::new(script),
            runs: Mutex::default(),
            side_by_side: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
        });
        let (queue, stats, shutdown) = (Queue::new(), Arc::new(Stats::default()), CancellationToken::new());
        let run = run(queue.clone(), reconciler.clone(), stats.clone(), Options::default(), shutdown.clone());
        Running { queue, reconciler, stats, shutdown, task: tokio::spawn(run) }
    }

    impl Running {
        fn runs(&self, key: u32) -> Vec<Instant> {
            let runs = self.reconciler.runs.lock().unwrap();
            runs.iter().filter(|(ran, _)| *ran == key).map(|(_, at)| *at).collect()
        }

        fn finished(&self) -> usize {
            self.reconciler.finished.load(Ordering::SeqCst)
        }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_counted_and_retried_and_affects_no_other_key() {
        let it = start(|key, nth| (Duration::ZERO, (key != 1 || nth > 3).then_some(Next::Done)));
        it.queue.add(1, Priority::Fresh);
        it.queue.add(2, Priority::Fresh);
        sleep(seconds(5)).await;
        assert_eq!((it.runs(1).len(), it.runs(2).len()), (4, 1));
        assert_eq!((it.stats.panics.get(), it.stats.failures.get(), it.stats.reconciles.get()), (3, 3, 5));
        let gaps: Vec<_> = it.runs(1).windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[1] > gaps[0] && gaps[2] > gaps[1], "the backoff grows: {gaps:?}");
        assert_eq!(it.queue.depth(), Depth::default());
        assert!(!it.task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_is_dropped_at_its_deadline() {
        let it = start(|_, nth| (if nth == 1 { seconds(100_000) } else { Duration::ZERO }, Some(Next::Done)));
        it.queue.add(1, Priority::Fresh);
        sleep(seconds(62)).await;
        let runs = it.runs(1);
        assert_eq!(runs.len(), 2);
        assert!(runs[1] - runs[0] >= seconds(60));
        assert_eq!((it.stats.deadlines.get(), it.stats.failures.get(), it.stats.panics.get()), (1, 1, 0));
        assert_eq!(it.reconciler.side_by_side.load(Ordering::SeqCst), 0, "the first run was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn eight_run_side_by_side_and_no_more() {
        let it = start(|_, _| (seconds(1), Some(Next::Done)));
        for key in 0..20 {
            it.queue.add(key, Priority::Fresh);
        }
        sleep(Duration::from_millis(2500)).await;
        assert_eq!(it.reconciler.most.load(Ordering::SeqCst), 8);
        assert_eq!(it.finished(), 16);
        sleep(seconds(1)).await;
        assert_eq!(it.finished(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_that_hangs_leaves_workers_to_the_others() {
        // Above 100, all keys are of one group, and hang.
        let it = start(|key, _| (if key > 100 { seconds(50) } else { seconds(1) }, Some(Next::Done)));
        for key in 101..200 {
            it.queue.add(key, Priority::Fresh);
        }
        sleep(seconds(1)).await;
        assert_eq!(it.reconciler.side_by_side.load(Ordering::SeqCst), 6);
        for key in 1..5 {
            it.queue.add(key, Priority::Resync);
        }
        sleep(seconds(3)).await;
        assert_eq!(it.finished(), 4, "as fast as if there were no others");
    }

    #[tokio::test(start_paused = true)]
    async fn groups_that_hang_leave_workers_to_the_others() {
        // Up to 100, each key is a group of its own; above, all are of one. Those above 50 hang.
        let it = start(|key, _| (if key > 50 { seconds(50) } else { seconds(1) }, Some(Next::Done)));
        for key in (101..200).chain([60]) {
            it.queue.add(key, Priority::Fresh);
        }
        sleep(seconds(1)).await;
        assert_eq!(it.reconciler.side_by_side.load(Ordering::SeqCst), 6, "two workers are left, for other groups");
        for key in 1..5 {
            it.queue.add(key, Priority::Resync);
        }
        sleep(seconds(5)).await;
        assert_eq!(it.finished(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_during_a_run_runs_once_more_after_it() {
        let it = start(|_, _| (seconds(1), Some(Next::Done)));
        it.queue.add(1, Priority::Fresh);
        sleep(Duration::from_millis(500)).await;
        for _ in 0..10 {
            it.queue.add(1, Priority::Fresh);
        }
        sleep(seconds(10)).await;
        let runs = it.runs(1);
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1] - runs[0], seconds(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_later_runs_later_and_a_server_may_ask_for_more() {
        let it = start(|key, nth| {
            let next = match (key, nth) {
                (1, 1) => Next::After(seconds(30)),
                (2, 1) => Next::Retry { after: Some(seconds(30)) },
                _ => Next::Done,
            };
            (Duration::ZERO, Some(next))
        });
        it.queue.add(1, Priority::Fresh);
        it.queue.add(2, Priority::Fresh);
        sleep(seconds(29)).await;
        assert_eq!([1, 2].map(|key| it.runs(key).len()), [1, 1]);
        sleep(seconds(2)).await;
        assert_eq!([1, 2].map(|key| it.runs(key).len()), [2, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_finishes_what_is_in_flight_and_begins_nothing() {
        let it = start(|_, _| (seconds(10), Some(Next::Done)));
        for key in 0..9 {
            it.queue.add(key, Priority::Fresh);
        }
        sleep(seconds(1)).await;
        it.shutdown.cancel();
        let began = Instant::now();
        within(it.task).await.unwrap();
        assert_eq!(began.elapsed(), seconds(9));
        assert_eq!(it.reconciler.finished.load(Ordering::SeqCst), 8);
        assert_eq!(it.queue.depth(), Depth { waiting: 1, in_flight: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_for_ever() {
        let it = start(|_, _| (seconds(50), Some(Next::Done)));
        it.queue.add(1, Priority::Fresh);
        sleep(seconds(1)).await;
        it.shutdown.cancel();
        let began = Instant::now();
        within(it.task).await.unwrap();
        assert_eq!(began.elapsed(), seconds(20));
        assert_eq!(it.reconciler.finished.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        const NAME: &str = "run::tests::a_panic_is_logged_with_its_place_and_without_its_message";
        const CANARY: &str = "hunter2";
        if is_child(NAME) {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            log_panics();
            let panicked = std::thread::spawn(|| panic!("{CANARY}")).join();
            assert!(panicked.is_err());
            return;
        }
        let output = child(NAME).unwrap();
        assert!(output.status.success());
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(log.contains("ERROR") && log.contains(file!()), "{log}");
        assert!(!log.contains(CANARY));
    }
}
