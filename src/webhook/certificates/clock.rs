//! Notices that the wall clock was set. Validities are in wall-clock time, and sleeps are not.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(30);
/// A larger difference than this is no drift that a time service corrects slowly.
const STEP: Duration = Duration::from_secs(60);

/// Ends when the wall clock, which `now` reads, has been set since this call.
pub(super) fn set(now: impl Fn() -> Timestamp) -> impl Future<Output = ()> {
    let (wall, own) = (now(), Instant::now());
    async move {
        loop {
            sleep(EVERY).await;
            let expected = wall.saturating_add(own.elapsed()).unwrap_or(Timestamp::MAX);
            if now().duration_since(expected).unsigned_abs() > STEP {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_either_way_is_noticed_and_drift_is_not() {
        const DAY: i64 = 24 * 3600;
        for (step, is_noticed) in [(DAY, true), (-DAY, true), (120, true), (50, false), (-50, false), (0, false)] {
            let (began, ahead) = (Instant::now(), Cell::new(0));
            let wall = || {
                let second = i64::try_from(began.elapsed().as_secs()).unwrap_or_default() + ahead.get();
                Timestamp::from_second(1_800_000_000 + second).unwrap_or_default()
            };
            let steps = async {
                sleep(EVERY * 10).await;
                ahead.set(step);
            };
            let waits = async { timeout(EVERY * 20, set(wall)).await.is_ok().then(|| began.elapsed()) };
            let ((), noticed) = tokio::join!(steps, waits);
            assert_eq!(noticed.is_some(), is_noticed, "{step}");
            assert!(noticed.is_none_or(|after| after >= EVERY * 10 && after <= EVERY * 11), "{step}: {noticed:?}");
        }
    }
}
