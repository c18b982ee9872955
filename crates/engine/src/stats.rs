//! What the engine counts. Plain atomics, and nothing decides by them. Tests read all of them, and a debug line reads
//! the idle writes; they are what metrics of reconciles, watches and writes export.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The engine's counters, since the process began.
#[derive(Debug, Default)]
pub struct Stats {
    /// Reconciles that ended, however they ended.
    pub reconciles: Counter,
    /// Reconciles that asked to be retried.
    pub failures: Counter,
    /// Reconciles that panicked.
    pub panics: Counter,
    /// Reconciles that were dropped at their deadline.
    pub deadlines: Counter,
    /// Writes that changed nothing: the object had the same resourceVersion before.
    pub idle_writes: Counter,
    /// Errors of watches: failed lists, failed starts, errors in the stream.
    pub watch_errors: Counter,
    /// Streams of watches that were cut just after their start.
    pub watch_cuts: Counter,
    /// Lists that a watch started after its first one was complete.
    pub relists: Counter,
    /// Pages of lists that were too large, and were requested again with fewer objects.
    pub pages_split: Counter,
    /// Watches that were recreated because they could not resume from their position.
    pub watch_rebuilds: Counter,
}
