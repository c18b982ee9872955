//! The rules of the queue, without a clock, a lock or a task: every operation is told what time it is.
//!
//! Guarantees, held by the property tests below:
//! * a key is in flight at most once;
//! * a key added while in flight runs once more afterwards, however often it was added;
//! * a key that was added is handed out, once its time has come;
//! * neither lane waits for ever while the other is full.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

use crate::engine::backoff::{Backoff, Jitter};

/// After a failure: 100 ms, doubled up to five minutes, until a success.
const FAILURES: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(300) };
/// Every so many keys handed out, the lane of resyncs goes first.
const RESYNC_TURN: u32 = 8;

/// How urgent a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Work that nobody waits for: a periodic check, a retry, everything that is found in step at start.
    Resync,
    /// Somebody made or changed something just now, and waits.
    Fresh,
}

/// How a reconcile ended, and with it when its key runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Success: not before somebody adds the key again.
    Done,
    /// Success: again after this time, or earlier if somebody adds the key.
    After(Duration),
    /// Failure: again after the key's growing backoff, and not before `after` (a server's `Retry-After`).
    Retry {
        /// The least time to wait.
        after: Option<Duration>,
    },
}

/// What waits, and what runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Keys waiting, due or not.
    pub waiting: usize,
    /// Keys handed out and not finished.
    pub in_flight: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    due: Instant,
    lane: Lane,
}

impl Turn {
    /// Both wishes in one: as early and as urgent as either.
    fn merge(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self { due: self.due.min(other.due), lane: self.lane.max(other.lane) })
    }
}

/// A place in a lane. The ticket keeps keys of the same instant in the order they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    due: Instant,
    ticket: u64,
}

#[derive(Debug)]
enum State {
    Waiting {
        lane: Lane,
        place: Place,
    },
    InFlight {
        /// The turn asked for since it was handed out.
        again: Option<Turn>,
    },
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Failures in a row.
    failures: u32,
}

/// The queue's state. A key that neither waits nor runs takes no memory.
#[derive(Debug)]
pub struct Core<K> {
    entries: HashMap<K, Entry>,
    fresh: BTreeMap<Place, K>,
    resync: BTreeMap<Place, K>,
    tickets: u64,
    /// Keys handed out since the lane of resyncs last had one.
    since_resync: u32,
}

impl<K> Default for Core<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), fresh: BTreeMap::new(), resync: BTreeMap::new(), tickets: 0, since_resync: 0 }
    }
}

impl<K: Clone + Eq + Hash> Core<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a run of `key` at `due`. Of several wishes for one key the earliest time and the more urgent lane count.
    pub fn add(&mut self, key: K, lane: Lane, due: Instant) {
        let turn = Turn { due, lane };
        let failures = match self.entries.get_mut(&key) {
            None => 0,
            Some(Entry { state: State::InFlight { again }, .. }) => {
                *again = Some(turn.merge(*again));
                return;
            }
            Some(Entry { state: State::Waiting { lane, place }, failures }) => {
                let waiting = Turn { due: place.due, lane: *lane };
                let merged = turn.merge(Some(waiting));
                if merged == waiting {
                    return; // it keeps its place in the order of arrival
                }
                let (lane, place, failures) = (*lane, *place, *failures);
                self.lane(lane).remove(&place);
                return self.wait(key, merged, failures);
            }
        };
        self.wait(key, turn, failures);
    }

    /// Hands out the key whose turn it is at `now`, if there is one. It is in flight until [`Core::finish`].
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        let resync_first = self.since_resync + 1 >= RESYNC_TURN;
        let order = if resync_first { [Lane::Resync, Lane::Fresh] } else { [Lane::Fresh, Lane::Resync] };
        let (lane, place) = order.into_iter().find_map(|lane| {
            let (place, _) = self.lane(lane).first_key_value()?;
            (place.due <= now).then_some((lane, *place))
        })?;
        self.since_resync = if lane == Lane::Resync { 0 } else { self.since_resync.saturating_add(1) };
        let key = self.lane(lane).remove(&place)?;
        let entry = self.entries.get_mut(&key)?;
        entry.state = State::InFlight { again: None };
        Some(key)
    }

    /// Takes `key` back, and schedules what `next` and the wishes that came meanwhile ask for. A key that is not in
    /// flight is left alone.
    pub fn finish(&mut self, key: &K, next: Next, now: Instant, jitter: Jitter) {
        let Some(Entry { state: State::InFlight { .. }, .. }) = self.entries.get(key) else { return };
        let Some((key, Entry { state: State::InFlight { again }, failures })) = self.entries.remove_entry(key) else {
            return;
        };
        let (wish, failures) = match next {
            Next::Done => (None, 0),
            Next::After(delay) => (Some(delay), 0),
            Next::Retry { after } => {
                let failures = failures.saturating_add(1);
                (Some(FAILURES.delay(failures, jitter).max(after.unwrap_or_default())), failures)
            }
        };
        // A delay beyond what the clock can hold means never.
        let wish = wish.and_then(|delay| Some(Turn { due: now.checked_add(delay)?, lane: Lane::Resync }));
        if let Some(turn) = wish.map(|turn| turn.merge(again)).or(again) {
            self.wait(key, turn, failures);
        }
    }

    /// When the next key is due; it may lie in the past. `None` when nothing waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        [&self.fresh, &self.resync].into_iter().filter_map(|lane| Some(lane.first_key_value()?.0.due)).min()
    }

    /// Failures in a row of `key`.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    /// How many keys wait and run.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let waiting = self.fresh.len() + self.resync.len();
        Depth { waiting, in_flight: self.entries.len() - waiting }
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<Place, K> {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Resync => &mut self.resync,
        }
    }

    fn wait(&mut self, key: K, Turn { due, lane }: Turn, failures: u32) {
        self.tickets += 1;
        let place = Place { due, ticket: self.tickets };
        self.lane(lane).insert(place, key.clone());
        self.entries.insert(key, Entry { state: State::Waiting { lane, place }, failures });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain(core: &mut Core<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| core.pop(now)).collect()
    }

    #[test]
    fn first_come_first_served_and_fresh_before_resync() {
        let (mut core, now) = (Core::new(), Instant::now());
        for key in [1, 2] {
            core.add(key, Lane::Resync, now);
        }
        for key in [4, 3, 4] {
            core.add(key, Lane::Fresh, now);
        }
        assert_eq!(drain(&mut core, now), [4, 3, 1, 2]);
    }

    #[test]
    fn a_waiting_resync_that_becomes_fresh_overtakes() {
        let (mut core, now) = (Core::new(), Instant::now());
        for key in [1, 2, 3] {
            core.add(key, Lane::Resync, now);
        }
        core.add(3, Lane::Fresh, now);
        core.add(3, Lane::Resync, now);
        assert_eq!(drain(&mut core, now), [3, 1, 2]);
    }

    #[test]
    fn resyncs_are_not_starved() {
        let (mut core, now) = (Core::new(), Instant::now());
        core.add(0, Lane::Resync, now);
        for key in 1..100 {
            core.add(key, Lane::Fresh, now);
        }
        let order = drain(&mut core, now);
        assert_eq!(order.iter().position(|key| *key == 0), Some(7));
        assert_eq!(order.len(), 100);
    }

    #[test]
    fn of_two_times_the_earlier_counts() {
        let (mut core, now) = (Core::new(), Instant::now());
        core.add(1, Lane::Fresh, now + 5 * SECOND);
        core.add(1, Lane::Fresh, now + 3 * SECOND);
        core.add(1, Lane::Fresh, now + 4 * SECOND);
        assert_eq!(core.next_due(), Some(now + 3 * SECOND));
        assert_eq!(core.pop(now + 2 * SECOND), None);
        assert_eq!(core.pop(now + 3 * SECOND), Some(1));
        core.finish(&1, Next::Done, now, Jitter::NONE);
        assert_eq!(core.next_due(), None);
    }

    #[test]
    fn success_clears_the_failures() {
        let (mut core, now) = (Core::new(), Instant::now());
        for expected in [100, 200, 400, 800] {
            core.add(1, Lane::Fresh, now);
            assert_eq!(core.pop(now), Some(1));
            core.finish(&1, Next::Retry { after: None }, now, Jitter::NONE);
            assert_eq!(core.next_due(), Some(now + Duration::from_millis(expected)));
        }
        assert_eq!(core.failures(&1), 4);
        core.add(1, Lane::Fresh, now);
        core.pop(now);
        core.finish(&1, Next::After(SECOND), now, Jitter::NONE);
        assert_eq!((core.failures(&1), core.next_due()), (0, Some(now + SECOND)));
    }

    #[test]
    fn a_retry_waits_at_least_as_long_as_asked() {
        let (mut core, now) = (Core::new(), Instant::now());
        core.add(1, Lane::Fresh, now);
        core.pop(now);
        core.finish(&1, Next::Retry { after: Some(7 * SECOND) }, now, Jitter::NONE);
        assert_eq!(core.next_due(), Some(now + 7 * SECOND));
    }

    #[test]
    fn a_delay_beyond_the_clock_means_never() {
        let (mut core, now) = (Core::new(), Instant::now());
        core.add(1, Lane::Fresh, now);
        core.pop(now);
        core.finish(&1, Next::After(Duration::MAX), now, Jitter::NONE);
        assert_eq!(core.depth(), Depth::default());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u32, Lane, u64),
        Pop,
        Finish(usize, Next),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let lane = prop_oneof![Just(Lane::Fresh), Just(Lane::Resync)];
        let next = prop_oneof![
            3 => Just(Next::Done),
            1 => (0..3000u64).prop_map(|ms| Next::After(Duration::from_millis(ms))),
            2 => proptest::option::of(0..3000u64)
                .prop_map(|ms| Next::Retry { after: ms.map(Duration::from_millis) }),
        ];
        prop_oneof![
            4 => (0..6u32, lane, prop_oneof![Just(0), 0..2000u64]).prop_map(|(k, l, ms)| Step::Add(k, l, ms)),
            4 => Just(Step::Pop),
            3 => (any::<prop::sample::Index>(), next).prop_map(|(i, next)| Step::Finish(i.index(6), next)),
            2 => (0..1500u64).prop_map(Step::Pass),
        ]
    }

    /// What is expected of one key: the simplest thing that could be right.
    #[derive(Debug, Clone, Copy, Default)]
    struct Expected {
        due: Option<Instant>,
        in_flight: bool,
        failures: u32,
    }

    impl Expected {
        fn want(&mut self, due: Instant) {
            self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        }

        fn finish(&mut self, next: Next, now: Instant) {
            self.in_flight = false;
            let own = match next {
                Next::Done => None,
                Next::After(delay) => Some(delay),
                Next::Retry { after } => {
                    self.failures += 1;
                    Some(FAILURES.delay(self.failures, Jitter::NONE).max(after.unwrap_or_default()))
                }
            };
            if !matches!(next, Next::Retry { .. }) {
                self.failures = 0;
            }
            if let Some(delay) = own {
                self.want(now + delay);
            }
        }
    }

    proptest! {
        #[test]
        fn never_twice_in_flight_and_nothing_lost(steps in proptest::collection::vec(step(), 1..200)) {
            let mut now = Instant::now();
            let mut core = Core::new();
            let mut model = [Expected::default(); 6];
            for step in steps {
                match step {
                    Step::Add(key, lane, ms) => {
                        let due = now + Duration::from_millis(ms);
                        core.add(key, lane, due);
                        model[key as usize].want(due);
                    }
                    Step::Pop => match core.pop(now) {
                        Some(key) => {
                            let expected = &mut model[key as usize];
                            prop_assert!(!expected.in_flight, "twice in flight");
                            prop_assert!(expected.due.is_some_and(|due| due <= now), "not asked for, or not yet");
                            *expected = Expected { due: None, in_flight: true, ..*expected };
                        }
                        None => prop_assert!(
                            model.iter().all(|key| key.in_flight || key.due.is_none_or(|due| due > now)),
                            "something is due and was not handed out"
                        ),
                    },
                    Step::Finish(index, next) => {
                        core.finish(&u32::try_from(index).unwrap(), next, now, Jitter::NONE);
                        if model[index].in_flight {
                            model[index].finish(next, now);
                        }
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                }
                let in_flight = model.iter().filter(|key| key.in_flight).count();
                let waiting = model.iter().filter(|key| !key.in_flight && key.due.is_some()).count();
                prop_assert_eq!(core.depth(), Depth { waiting, in_flight });
                for (key, expected) in (0..).zip(&model) {
                    prop_assert_eq!(core.failures(&key), expected.failures);
                }
            }
        }
    }
}
