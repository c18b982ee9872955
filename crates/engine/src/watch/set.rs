//! Watches that come and go while the process runs, one a key.

use std::{collections::HashMap, hash::Hash};

use parking_lot::{Mutex, MutexGuard};

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
    /// Returns the watch of `key`, and starts it with `start` unless it already runs. `start` must not use this set.
    pub fn ensure(&self, key: Q, start: impl FnOnce() -> WatchHandle) -> WatchHandle {
        self.watches().entry(key).or_insert_with(start).clone()
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

    fn watches(&self) -> MutexGuard<'_, HashMap<Q, WatchHandle>> {
        // A panic of `start` leaves the map as it was.
        self.watches.lock()
    }
}
