//! What the engine counts. Nothing decides by it: tests read it, and metrics export it. Plain numbers are atomics; durations
//! are histograms by labels, and cost a short lock for each event that takes milliseconds anyway.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::metrics::{
    family::{Family, MetricConstructor},
    histogram::Histogram,
};

/// Names and values of labels. The values come from closed lists.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Durations by labels.
#[derive(Debug, Clone)]
pub struct Durations<const N: usize>(Family<Labels<N>, Histogram, Buckets>);

/// The upper bounds of a histogram's buckets, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl<const N: usize> Durations<N> {
    /// Creates durations with buckets of these upper bounds, in seconds.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self(Family::new_with_constructor(Buckets(bounds)))
    }

    /// Creates the series of these labels, with no event. Prometheus sees an increase only in a series that it has scraped
    /// before, so a series that begins with its first event hides this event.
    pub fn begin(&self, labels: Labels<N>) {
        drop(self.0.get_or_create(&labels));
    }

    /// Counts one more.
    pub fn observe(&self, labels: Labels<N>, duration: Duration) {
        self.0.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Returns the histograms.
    #[must_use]
    pub fn family(&self) -> &Family<Labels<N>, Histogram, Buckets> {
        &self.0
    }
}

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

/// How a reconcile ends: it succeeded, it asked to be retried, it was dropped at its deadline, or it panicked.
pub const RESULTS: &[&str] = &["success", "retry", "deadline", "panic"];

/// The engine's counters, since the process began.
#[derive(Debug)]
pub struct Stats {
    /// How long reconciles took, by `result`: one of [`RESULTS`].
    pub durations: Durations<1>,
    /// Reconciles that ended, however they ended.
    pub reconciles: Counter,
    /// Reconciles that asked to be retried.
    pub failures: Counter,
    /// Reconciles that panicked.
    pub panics: Counter,
    /// Reconciles that were dropped at their deadline.
    pub deadlines: Counter,
    /// Reconciles that put right what another client had changed.
    pub repairs: Counter,
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

impl Default for Stats {
    fn default() -> Self {
        // A reconcile with nothing to do takes microseconds, one that writes some calls, and the deadline is 60 s.
        let durations = Durations::new(&[0.001, 0.01, 0.05, 0.25, 1.0, 5.0, 20.0, 60.0]);
        for result in RESULTS {
            durations.begin([("result", result)]);
        }
        Self {
            durations,
            reconciles: Counter::default(),
            failures: Counter::default(),
            panics: Counter::default(),
            deadlines: Counter::default(),
            repairs: Counter::default(),
            idle_writes: Counter::default(),
            watch_errors: Counter::default(),
            watch_cuts: Counter::default(),
            relists: Counter::default(),
            pages_split: Counter::default(),
            watch_rebuilds: Counter::default(),
        }
    }
}
