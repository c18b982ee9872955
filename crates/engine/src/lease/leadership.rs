//! What the rest of the process knows of the leadership.

use std::{future::poll_fn, pin::pin, task::Poll};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Whether this process may change the cluster. Cheap to clone and to ask.
///
/// A leadership ends by itself at a time on the monotonic clock: a process that was stopped for longer finds out at the next
/// question, before any task had time to learn it from the API server.
#[derive(Clone, Debug)]
pub struct Leadership(Source);

#[derive(Clone, Debug)]
enum Source {
    /// There is no election.
    Always,
    /// The end of the present term, if there is one.
    Elected(watch::Receiver<Option<Instant>>),
}

/// The elector's side of a [`Leadership`].
#[derive(Debug)]
pub struct Term(watch::Sender<Option<Instant>>);

/// A request that only the leader may send was not sent, or its answer not awaited, because this process is not the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica is not the leader")]
pub struct NotLeading;

impl Leadership {
    /// The leadership of a process that runs without election.
    #[must_use]
    pub const fn always() -> Self {
        Self(Source::Always)
    }

    /// A leadership that depends on an election, which begins its terms.
    #[must_use]
    pub fn elected() -> (Term, Self) {
        let (sender, receiver) = watch::channel(None);
        (Term(sender), Self(Source::Elected(receiver)))
    }

    /// Whether this process is the leader now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        match &self.0 {
            Source::Always => true,
            Source::Elected(until) => is_future(*until.borrow()),
        }
    }

    /// Waits until this process is the leader.
    pub async fn acquired(&self) {
        if let Source::Elected(until) = &self.0
            && until.clone().wait_for(|until| is_future(*until)).await.is_err()
        {
            // The election ended without success: no term begins.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until this process is not the leader.
    pub async fn ended(&self) {
        let Source::Elected(until) = &self.0 else { return std::future::pending().await };
        let mut until = until.clone();
        loop {
            let end = *until.borrow_and_update();
            let Some(end) = end.filter(|end| is_future(Some(*end))) else { return };
            tokio::select! {
                () = sleep_until(end) => {}
                // Without a sender no term is prolonged.
                Err(_) = until.changed() => return sleep_until(end).await,
                else => {}
            }
        }
    }

    /// Runs `work`, which must not outlive the leadership, and drops it when the leadership ends.
    pub async fn within<F: Future>(&self, work: F) -> Result<F::Output, NotLeading> {
        let mut work = pin!(work);
        // A process that was stopped may continue with `work` before the runtime notices that the timer of `ended` is over.
        let checked =
            poll_fn(|cx| if self.is_leader() { work.as_mut().poll(cx).map(Ok) } else { Poll::Ready(Err(NotLeading)) });
        tokio::select! {
            biased;
            () = self.ended() => Err(NotLeading),
            done = checked => done,
        }
    }
}

impl Term {
    /// This process is the leader until then, unless this is called again.
    pub(crate) fn begin(&self, until: Instant) {
        self.0.send_replace(Some(until));
    }

    /// This process is not the leader any more.
    pub(crate) fn end(&self) {
        self.0.send_replace(None);
    }
}

fn is_future(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;
    use crate::testing::within;

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_by_itself_and_can_be_prolonged_and_ended() {
        let (term, leadership) = Leadership::elected();
        assert!(!leadership.is_leader());
        let began = Instant::now();
        term.begin(began + Duration::from_secs(10));
        within(leadership.acquired()).await;
        assert!(leadership.is_leader());
        tokio::time::sleep(Duration::from_secs(6)).await;
        term.begin(began + Duration::from_secs(16));
        within(leadership.ended()).await;
        assert_eq!(began.elapsed(), Duration::from_secs(16));
        assert!(!leadership.is_leader());
        term.begin(began + Duration::from_secs(60));
        assert!(leadership.is_leader());
        term.end();
        within(leadership.ended()).await;
        assert_eq!(began.elapsed(), Duration::from_secs(16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_is_prolonged_does_not_end_before() {
        let (term, leadership) = Leadership::elected();
        let began = Instant::now();
        term.begin(began + Duration::from_secs(10));
        let prolong = async {
            for seconds in 1..30 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                term.begin(began + Duration::from_secs(10 + seconds));
            }
        };
        let ((), ()) = tokio::join!(prolong, within(leadership.ended()));
        assert_eq!(began.elapsed(), Duration::from_secs(39));
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_dropped_when_the_term_ends_also_without_an_elector() {
        let (term, leadership) = Leadership::elected();
        assert_eq!(leadership.within(async { 1 }).await, Err(NotLeading));
        let began = Instant::now();
        term.begin(began + Duration::from_secs(10));
        assert_eq!(leadership.within(async { 1 }).await, Ok(1));
        drop(term);
        assert_eq!(within(leadership.within(pending::<()>())).await, Err(NotLeading));
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_election_it_is_always_the_leader() {
        let leadership = Leadership::always();
        assert!(leadership.is_leader());
        within(leadership.acquired()).await;
        assert_eq!(leadership.within(async { 1 }).await, Ok(1));
    }
}
