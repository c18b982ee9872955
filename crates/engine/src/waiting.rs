//! Logs what the process waits for: at once, then rarely.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::backoff::{Backoff, Retries};

/// How often the same reason is logged again.
const AGAIN: Duration = Duration::from_secs(300);
/// The delay between tries.
const TRIES: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(15) };
/// How many reasons are remembered: with more of them, the oldest is logged again.
const REASONS: usize = 8;

/// A wait, with the reasons that were logged.
#[derive(Debug)]
pub struct Waiting {
    what: String,
    tries: Retries,
    told: Vec<(String, Instant)>,
}

impl Waiting {
    /// Creates a wait for `what`, in words that follow "waiting for".
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), tries: Retries::new(TRIES), told: Vec::new() }
    }

    /// Logs why the wait continues, unless this reason was logged in the last five minutes. Returns whether it was logged.
    pub fn because(&mut self, why: &str) -> bool {
        self.told.retain(|(_, at)| at.elapsed() < AGAIN);
        if self.told.iter().any(|(told, _)| told == why) {
            return false;
        }
        if self.told.len() == REASONS {
            self.told.remove(0);
        }
        self.told.push((why.to_owned(), Instant::now()));
        warn!(reason = why, "waiting for {}", self.what);
        true
    }

    /// Logs why a try failed, and waits until the next one is due.
    pub async fn pause(&mut self, why: &str) {
        self.because(why);
        sleep(self.tries.failed()).await;
    }

    /// Ends the wait, and logs that if the wait was logged.
    pub fn over(self) {
        if !self.told.is_empty() {
            info!("no longer waiting for {}", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_told_at_once_and_then_every_five_minutes() {
        let mut waiting = Waiting::new("a server");
        let (mut told, mut pauses) = (0, 0);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1500) {
            for why in ["refused", "no answer"] {
                told += usize::from(waiting.because(why));
            }
            waiting.pause("refused").await;
            pauses += 1;
        }
        assert_eq!(told, 10, "two reasons, five times each");
        assert!((100..=140).contains(&pauses), "{pauses}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_reasons_take_no_memory() {
        let mut waiting = Waiting::new("a server");
        for n in 0..100 {
            assert!(waiting.because(&n.to_string()));
        }
        assert_eq!(waiting.told.len(), REASONS);
    }
}
