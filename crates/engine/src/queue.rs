//! The work queue: chooses the next key.
//!
//! [`core::Core`] holds the rules; [`Queue`] adds the clock, the lock and the waiting. Clones share one queue. Nothing
//! here blocks: the lock is held for a few map operations only.

pub mod core;
mod progress;

use std::{hash::Hash, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub use self::{
    core::{Core, Depth, Grouped, Next, Priority, Workers},
    progress::{DueAge, Progress},
};
use super::backoff::Jitter;

/// A queue of keys, shared by all tasks that add keys and the one [`run`](super::run::run) that takes them.
#[derive(Debug)]
pub struct Queue<K: Grouped> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K: Grouped> {
    core: Mutex<Core<K>>,
    changed: Notify,
}

impl<K: Grouped> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Grouped> Default for Queue<K> {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { core: Mutex::default(), changed: Notify::new() }) }
    }
}

impl<K: Clone + Eq + Grouped + Hash> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a run of `key` now.
    pub fn add(&self, key: K, priority: Priority) {
        self.core().add(key, priority, Instant::now().into_std());
        self.inner.changed.notify_one();
    }

    /// Asks for a run of `key` after this time. If it was asked for earlier, that counts: requests that come meanwhile are one
    /// run.
    pub fn add_after(&self, key: K, priority: Priority, delay: Duration) {
        self.core().add(key, priority, Instant::now().into_std() + delay);
        self.inner.changed.notify_one();
    }

    /// Waits until a key is due, and returns it. The key is in flight until [`Queue::finish`]. Cancel safe: a key is taken
    /// only when the function returns. Only one task at a time may wait here: of two, one could miss a change.
    ///
    /// A key is handed out only if there is a worker for its group.
    pub async fn next(&self, workers: Workers) -> K {
        loop {
            let due = {
                let mut core = self.core();
                if let Some(key) = core.pop(Instant::now().into_std(), workers) {
                    return key;
                }
                core.next_due()
            };
            // `notify_one` stores a permit if no task waits yet, so a change since the lock was released is not missed.
            let changed = self.inner.changed.notified();
            match due {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due.into()) => {}
                },
            }
        }
    }

    /// Ends the run of `key`.
    pub fn finish(&self, key: &K, next: Next) {
        self.core().finish(key, next, Instant::now().into_std(), Jitter::random());
        self.inner.changed.notify_one();
    }

    /// Failures in a row of `key`.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.core().failures(key)
    }

    /// Returns how many keys wait and run.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.core().depth()
    }

    /// The workers begin: from now on, [`Progress`] counts the time since a key was taken.
    pub fn begin(&self) {
        self.core().begin(Instant::now().into_std());
    }

    /// Returns how the work goes.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.core().progress(Instant::now().into_std())
    }

    fn core(&self) -> MutexGuard<'_, Core<K>> {
        // Only a panic of a key's own `Hash`, `Eq` or `Clone` could poison the lock; the rules themselves don't panic.
        self.inner.core.lock()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    use crate::testing::within;

    const WORKERS: Workers = Workers { all: 8, reserved: 2 };

    #[tokio::test(start_paused = true)]
    async fn a_waiter_wakes_for_what_comes_and_for_what_falls_due() {
        let queue = Queue::new();
        let [now, earlier, late] = [1, 2, 3];
        for key in [late, earlier] {
            queue.add(key, Priority::Fresh);
            assert_eq!(within(queue.next(WORKERS)).await, key);
        }
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { (queue.next(WORKERS).await, queue.next(WORKERS).await, queue.next(WORKERS).await) }
        });
        let began = Instant::now();
        queue.finish(&late, Next::After(Duration::from_secs(60)));
        sleep_until(began + Duration::from_secs(1)).await;
        queue.finish(&earlier, Next::After(Duration::from_secs(10)));
        queue.add(now, Priority::Resync);
        assert_eq!(within(waiter).await.unwrap(), (now, earlier, late));
        assert_eq!(began.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_wakes_for_what_comes_back() {
        let queue = Queue::new();
        queue.add(1, Priority::Fresh);
        assert_eq!(within(queue.next(WORKERS)).await, 1);
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next(WORKERS).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.finish(&1, Next::After(Duration::from_secs(1)));
        assert_eq!(within(waiter).await.unwrap(), 1);
    }
}
