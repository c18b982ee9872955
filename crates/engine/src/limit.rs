//! How many reconciles run at the same time: as many as the API server answers quickly.
//!
//! A fixed number is wrong somewhere: a distant API server answers late, and needs many requests in flight to be busy; one
//! that is overloaded needs few. So the number follows the answers: while more work waits and at least half of the answers
//! come quickly, it grows by one at a time; when the API server refuses requests because it is busy, it is halved; when most
//! answers come late or not at all, it shrinks by an eighth. It stays between the floor, with which the operator starts, and
//! the configured number.
//!
//! [`Core`] holds the rules, without a clock; [`Limiter`] adds the lock. The client reports each answer, and
//! [`run`](super::run::run) asks for the number.

use std::time::Duration;

use parking_lot::Mutex;

use super::queue::Workers;

/// The number at the start, and the smallest: few enough for any API server, and enough that reconciles which hang leave
/// some to others.
pub const FLOOR: usize = 8;
/// After this many answers, the number is reconsidered.
const WINDOW: usize = 16;
/// An answer that takes longer is late. Healthy API servers answer writes within tens of milliseconds.
const LATE: Duration = Duration::from_millis(250);
/// Most requests that one reconcile has in flight.
const REQUESTS: usize = 2;

/// What became of a request, as far as it tells how busy the API server is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    /// The API server, or a proxy before it, was too busy.
    Busy,
    /// Any other answer, after this time.
    After(Duration),
    /// No answer within this time: the connection failed, or the caller did not wait any longer.
    Missing(Duration),
}

/// The number, shared by the client that reports answers and the workers.
#[derive(Debug)]
pub struct Limiter(Mutex<Core>);

impl Limiter {
    /// At most `max` reconciles at the same time, and at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Mutex::new(Core::new(max)))
    }

    /// A request was answered.
    pub fn answered(&self, answered: Answered) {
        self.0.lock().answered(answered);
    }

    /// How many reconciles may run now, where `running` do.
    #[must_use]
    pub fn workers(&self, running: usize) -> Workers {
        self.0.lock().workers(running)
    }
}

/// The rules.
#[derive(Debug)]
pub struct Core {
    floor: usize,
    max: usize,
    limit: usize,
    /// Answers of this window: all, and those that came late.
    answers: usize,
    late: usize,
    /// Whether as many were running in this window as may.
    full: bool,
    /// Answers to requests that were sent before the number shrank: they say nothing about it.
    old: usize,
}

impl Core {
    /// At most `max`, and at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        let floor = FLOOR.min(max);
        Self { floor, max, limit: floor, answers: 0, late: 0, full: false, old: 0 }
    }

    /// How many may run now, where `running` do. A quarter of them, and at least one, is kept for groups that have none:
    /// groups whose reconciles take long must not hold all workers, be it one group or several.
    pub fn workers(&mut self, running: usize) -> Workers {
        let workers = Workers { all: self.limit, reserved: (self.limit / 4).max(1) };
        // One group alone cannot have more.
        self.full |= running >= workers.all - workers.reserved;
        workers
    }

    /// A request was answered.
    pub fn answered(&mut self, answered: Answered) {
        if self.old > 0 {
            self.old -= 1;
            return;
        }
        match answered {
            Answered::Busy => {
                self.shrink(self.limit / 2);
                return;
            }
            Answered::After(time) => self.late += usize::from(time > LATE),
            Answered::Missing(time) if time > LATE => self.late += 1,
            // No server was there to answer, which says nothing about how busy it is.
            Answered::Missing(_) => return,
        }
        self.answers += 1;
        if self.answers < WINDOW {
            return;
        }
        if self.late * 2 > WINDOW {
            self.shrink(self.limit - self.limit.div_ceil(8));
        } else if self.full {
            self.change(self.limit + 1);
        } else {
            self.change(self.limit);
        }
    }

    fn shrink(&mut self, limit: usize) {
        self.old = self.limit * REQUESTS;
        self.change(limit);
    }

    /// Sets the number, and begins another window.
    fn change(&mut self, limit: usize) {
        self.limit = limit.clamp(self.floor, self.max);
        (self.answers, self.late, self.full) = (0, 0, false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Answered = Answered::After(Duration::from_millis(5));
    const SLOW: Answered = Answered::After(Duration::from_secs(2));
    const MAX: usize = 32;

    /// Answers of which each comes while as many run as may. Returns the number after them.
    fn busy(core: &mut Core, answers: &[Answered]) -> usize {
        for answered in answers {
            core.workers(usize::MAX);
            core.answered(*answered);
        }
        core.workers(0).all
    }

    fn grown() -> Core {
        let mut core = Core::new(MAX);
        assert_eq!(busy(&mut core, &[QUICK; WINDOW * 30]), MAX);
        core
    }

    #[test]
    fn it_grows_while_work_waits_and_answers_are_quick() {
        let mut core = Core::new(MAX);
        assert_eq!(core.workers(0), Workers { all: 8, reserved: 2 });
        assert_eq!(busy(&mut core, &[QUICK; WINDOW]), 9);
        assert_eq!(busy(&mut core, &[QUICK; WINDOW * 3]), 12);
        assert_eq!(core.workers(0).reserved, 3);
        assert_eq!(busy(&mut core, &[QUICK; WINDOW * 30]), MAX);
    }

    #[test]
    fn what_one_group_may_have_is_enough_to_grow() {
        let mut core = Core::new(MAX);
        for _ in 0..WINDOW {
            core.workers(6);
            core.answered(QUICK);
        }
        assert_eq!(core.workers(0).all, 9);
    }

    #[test]
    fn it_stays_where_less_runs_than_may() {
        let mut core = Core::new(MAX);
        for _ in 0..1000 {
            core.workers(5);
            core.answered(QUICK);
        }
        assert_eq!(core.workers(0).all, 8);
    }

    #[test]
    fn a_busy_server_halves_it_once_for_all_that_was_in_flight() {
        let mut core = grown();
        assert_eq!(busy(&mut core, &[Answered::Busy; MAX * REQUESTS + 1]), 16);
        assert_eq!(busy(&mut core, &[Answered::Busy]), 8);
        assert_eq!(busy(&mut core, &[Answered::Busy; WINDOW * 30]), 8, "the floor");
    }

    #[test]
    fn late_answers_shrink_it_and_a_few_of_them_do_not() {
        let mut core = grown();
        assert_eq!(busy(&mut core, &[SLOW; WINDOW]), 28);
        assert_eq!(busy(&mut core, &[SLOW; WINDOW * 30]), 8, "the floor");
        let mixed = [QUICK, SLOW].repeat(WINDOW * 100);
        assert_eq!(busy(&mut core, &mixed), MAX, "half of them, as where a webhook on Secrets takes its time");
    }

    #[test]
    fn requests_without_an_answer_shrink_it_unless_no_server_was_there() {
        let mut core = grown();
        assert_eq!(busy(&mut core, &[Answered::Missing(Duration::from_millis(1)); WINDOW * 30]), MAX);
        assert_eq!(busy(&mut core, &[Answered::Missing(Duration::from_secs(30)); WINDOW * 30]), 8);
    }

    proptest! {
        // No file remembers a failure: one that matters becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_stays_within_its_bounds(max in 0..100usize, answers in prop::collection::vec((0..5u8, 0..100usize), 0..500)) {
            let mut core = Core::new(max);
            for (answered, running) in answers {
                core.answered(match answered { 0 => Answered::Busy, 1 => SLOW, 2 => Answered::Missing(LATE * 2), _ => QUICK });
                let Workers { all, reserved } = core.workers(running);
                prop_assert!(all <= max.max(1) && all >= max.clamp(1, FLOOR), "{all} of {max}");
                prop_assert!(reserved >= 1 && reserved <= all);
            }
        }
    }
}
