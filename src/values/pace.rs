//! Limits how many requests one caller may send, and how many of them are answered at once.
//!
//! In: the caller's name, and the time. Out: whether the request is within the limit, or how long to wait. Each caller has
//! a bucket that fills at a constant rate and holds a burst, and some of the places for requests that are being answered.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Limit of known callers. More callers than this within a moment share what is left.
const MAX_CALLERS: usize = 4096;

/// The buckets.
#[derive(Debug)]
pub(super) struct Pace {
    /// Requests in a second.
    rate: u32,
    /// Requests at once.
    burst: u32,
    hasher: RandomState,
    /// By the hash of the caller's name: when the bucket would be full.
    full_at: HashMap<u64, Instant>,
}

impl Pace {
    /// Creates buckets that all are full.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        Self { rate: rate.max(1), burst: burst.max(1), hasher: RandomState::new(), full_at: HashMap::new() }
    }

    /// Takes one request of this caller. An error says how long to wait for the next one.
    pub(super) fn take(&mut self, caller: &str, now: Instant) -> Result<(), Duration> {
        let one = Duration::from_secs(1) / self.rate;
        let whole = one * self.burst;
        let key = self.hasher.hash_one(caller);
        if self.full_at.len() >= MAX_CALLERS && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= MAX_CALLERS {
                return Err(one);
            }
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        let after = (*full_at).max(now) + one;
        let debt = after.duration_since(now);
        if debt > whole {
            return Err(debt.saturating_sub(whole));
        }
        *full_at = after;
        Ok(())
    }
}

/// The requests that are being answered. There are as many as the server answers at once, so that their number is bounded.
#[derive(Debug)]
pub(super) struct Places {
    /// Limit for one caller.
    each: usize,
    /// By the caller's name.
    taken: Mutex<HashMap<String, usize>>,
}

impl Places {
    /// Creates places that all are free.
    pub(super) fn new(each: usize) -> Self {
        Self { each: each.max(1), taken: Mutex::default() }
    }

    /// Takes a place of this caller, until what is returned is dropped. `None` if the caller has no more.
    pub(super) fn take(&self, caller: &str) -> Option<Place<'_>> {
        let mut taken = self.taken.lock();
        let count = taken.entry(caller.to_owned()).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { places: self, caller: caller.to_owned() })
    }
}

/// A place that is taken.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    caller: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(count) = taken.get_mut(&self.caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_caller_has_some_of_the_places() {
        let places = Places::new(2);
        let first = places.take("ann").unwrap();
        let second = places.take("ann").unwrap();
        assert!(places.take("ann").is_none());
        assert!(places.take("bob").is_some(), "each caller has its own");
        drop(first);
        assert!(places.take("ann").is_some(), "a place is free when its request is over");
        drop(second);
        assert!(places.taken.lock().is_empty());
    }

    #[test]
    fn a_caller_has_a_burst_and_then_a_rate() {
        let mut pace = Pace::new(10, 3);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(pace.take("ann", now), Ok(()));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(pace.take("ann", now), Err(wait));
        assert_eq!(pace.take("bob", now), Ok(()), "each caller has its own");
        assert_eq!(pace.take("ann", now + wait), Ok(()), "what was refused costs nothing");
        assert_eq!(pace.take("ann", now + wait), Err(wait));
        let later = now + Duration::from_secs(60);
        assert!((0..3).all(|_| pace.take("ann", later).is_ok()), "never more than a burst");
        assert!(pace.take("ann", later).is_err());
    }

    #[test]
    fn the_number_of_known_callers_is_limited() {
        let mut pace = Pace::new(1, 1);
        let now = Instant::now();
        for caller in 0..MAX_CALLERS {
            assert_eq!(pace.take(&caller.to_string(), now), Ok(()));
        }
        assert!(pace.take("one more", now).is_err());
        assert_eq!(pace.full_at.len(), MAX_CALLERS);
        assert_eq!(pace.take("one more", now + Duration::from_secs(2)), Ok(()));
        assert_eq!(pace.full_at.len(), 1);
    }
}
