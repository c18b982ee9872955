//! Computes how long to wait after the n-th failure in a row. Pure: the caller passes the random factor.

use std::time::Duration;

/// An exponential backoff: `base`, doubled with each failure, up to `cap`, times a [`Jitter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub base: Duration,
    /// The longest delay, before jitter.
    pub cap: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row; the first failure is 1.
    #[must_use]
    pub fn delay(self, failures: u32, jitter: Jitter) -> Duration {
        // 2^31 times any useful base is above every cap; the limit only keeps the shift defined.
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap).mul_f64(jitter.0)
    }
}

/// A random factor between 0.8 and 1.2, so that tasks that failed together do not retry together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// No jitter: the factor 1.
    pub const NONE: Self = Self(1.0);
    const SPREAD: f64 = 0.2;

    /// A fresh random factor.
    #[must_use]
    pub fn random() -> Self {
        Self::at(rand::random_range(0.0..=1.0))
    }

    /// Returns `least` plus up to two fifths: for a delay that a server asked for, because it asks many clients for the same
    /// delay.
    #[must_use]
    pub fn lengthen(self, least: Duration) -> Duration {
        least.mul_f64(self.0 + Self::SPREAD)
    }

    /// The factor at `position` of the range, 0 being the smallest and 1 the largest.
    #[must_use]
    pub fn at(position: f64) -> Self {
        Self(1.0 - Self::SPREAD + 2.0 * Self::SPREAD * position.clamp(0.0, 1.0))
    }
}

/// Failures in a row of something that is tried again, and how long to wait after them.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    backoff: Backoff,
    failures: u32,
}

impl Retries {
    /// None failed yet.
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// A try failed. Returns how long to wait before the next one.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, Jitter::random())
    }

    /// A try went well: the next failure is the first of a row again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(300) };

    #[test]
    fn doubles_up_to_the_cap() {
        let delays: Vec<_> = (1..=4).map(|n| BACKOFF.delay(n, Jitter::NONE).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800]);
        assert_eq!(BACKOFF.delay(12, Jitter::NONE).as_millis(), 204_800);
        assert_eq!(BACKOFF.delay(13, Jitter::NONE), BACKOFF.cap);
        assert_eq!(BACKOFF.delay(u32::MAX, Jitter::NONE), BACKOFF.cap);
    }

    #[test]
    fn jitter_is_a_fifth_either_way() {
        assert_eq!(BACKOFF.delay(1, Jitter::at(0.0)), Duration::from_millis(80));
        assert_eq!(BACKOFF.delay(1, Jitter::at(1.0)), Duration::from_millis(120));
        let spread: Vec<_> = (0..32).map(|_| BACKOFF.delay(1, Jitter::random())).collect();
        assert!(spread.iter().all(|d| (80..=120).contains(&d.as_millis())));
        assert!(spread.iter().any(|d| d != &spread[0]), "thirty-two equal delays are not random");
    }
}
