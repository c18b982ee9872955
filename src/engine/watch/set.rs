//! Watches that come and go while the process runs, one a key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::WatchHandle;

/// Watches by key.
#[derive(Debug)]
pub struct WatchSet<Q> {
    watches: Mutex<HashMap<Q, WatchHandle>>,
}

impl<Q> Default for WatchSet<Q> {
    fn default() -> Self {
        Self { watches: Mutex::default() }
    }
}

impl<Q: Eq + Hash> WatchSet<Q> {
    /// The watch of `key`, started by `start` unless it runs already. `start` must not use this set.
    pub fn ensure(&self, key: Q, start: impl FnOnce() -> WatchHandle) -> WatchHandle {
        self.watches().entry(key).or_insert_with(start).clone()
    }

    /// The watch of `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &Q) -> Option<WatchHandle> {
        self.watches().get(key).cloned()
    }

    /// Stops the watches whose key is not `wanted`.
    pub fn retain(&self, mut wanted: impl FnMut(&Q) -> bool) {
        self.watches().retain(|key, watch| {
            let wanted = wanted(key);
            if !wanted {
                watch.stop();
            }
            wanted
        });
    }

    /// How many watches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.watches().len()
    }

    /// Whether there is no watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches().is_empty()
    }

    /// Whether the first list of every watch is done.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.watches().values().all(WatchHandle::is_ready)
    }

    /// The longest silence of any watch; see [`WatchHandle::silent_for`].
    #[must_use]
    pub fn longest_silence(&self) -> Option<Duration> {
        self.watches().values().map(WatchHandle::silent_for).max()
    }

    fn watches(&self) -> MutexGuard<'_, HashMap<Q, WatchHandle>> {
        // A panic of `start` leaves the map as it was.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
