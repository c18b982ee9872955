//! Work that is done again whenever there is news: paced, and repeated until it goes well.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::backoff::{Backoff, Jitter, Retries};

/// Paces the rounds of a task. A round is due when there is news, or because the last one failed; between two rounds lies
/// the backoff's base at least, so that news without end is answered at leisure, and more after each failure in a row.
///
/// ```text
/// while rounds.next(news.notified()).await {
///     match work().await {
///         Ok(()) => rounds.succeeded(),
///         Err(_) => rounds.failed(),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Rounds {
    backoff: Backoff,
    retries: Retries,
    last: Option<Last>,
    shutdown: CancellationToken,
}

/// How the last round ended.
#[derive(Debug, Clone, Copy)]
struct Last {
    failed: bool,
    pause: Duration,
}

impl Rounds {
    /// Rounds until `shutdown` is cancelled.
    #[must_use]
    pub fn new(backoff: Backoff, shutdown: CancellationToken) -> Self {
        Self { backoff, retries: Retries::new(backoff), last: None, shutdown }
    }

    /// Waits until the next round is due; `news` is not waited for after a failure. False when it is time to stop.
    pub async fn next(&mut self, news: impl Future<Output = ()>) -> bool {
        let last = self.last.take();
        let due = async {
            if let Some(last) = last {
                sleep(last.pause).await;
            }
            if last.is_none_or(|last| !last.failed) {
                news.await;
            }
        };
        self.shutdown.run_until_cancelled(due).await.is_some()
    }

    /// The round went well.
    pub fn succeeded(&mut self) {
        self.retries.succeeded();
        self.last = Some(Last { failed: false, pause: self.backoff.delay(1, Jitter::random()) });
    }

    /// The round failed, and is to be repeated.
    pub fn failed(&mut self) {
        self.last = Some(Last { failed: true, pause: self.retries.failed() });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::{sync::Notify, time::Instant};

    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(8) };

    #[tokio::test(start_paused = true)]
    async fn a_failed_round_is_repeated_ever_more_slowly_without_news() {
        let mut rounds = Rounds::new(BACKOFF, CancellationToken::new());
        let news = Notify::new();
        news.notify_one();
        assert!(rounds.next(news.notified()).await);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            rounds.failed();
            let began = Instant::now();
            assert!(rounds.next(pending()).await);
            gaps.push(began.elapsed().as_secs_f64());
        }
        for (gap, expected) in gaps.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
            assert!((expected * 0.8..=expected * 1.21).contains(gap), "{gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_without_end_is_paced_and_quiet_is_waited_out() {
        let shutdown = CancellationToken::new();
        let mut rounds = Rounds::new(BACKOFF, shutdown.clone());
        let began = Instant::now();
        for _ in 0..10 {
            assert!(rounds.next(async {}).await);
            rounds.succeeded();
        }
        assert!((7.0..=11.0).contains(&began.elapsed().as_secs_f64()), "the first at once, nine of a second each");
        rounds.failed();
        assert!(rounds.next(pending()).await);
        rounds.succeeded();
        let stop = async {
            tokio::time::sleep(Duration::from_secs(600)).await;
            shutdown.cancel();
        };
        let (due, ()) = tokio::join!(rounds.next(pending()), stop);
        assert!(!due, "no round without news after one that went well");
    }
}
