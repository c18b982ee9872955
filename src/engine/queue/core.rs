//! The rules of the queue, without a clock, a lock or a task: every operation is told what time it is.
//!
//! Guarantees, held by the property tests below:
//! * a key is in flight at most once;
//! * a key added while in flight runs once more afterwards, however often it was added;
//! * a key that was added is handed out, once its time has come, unless it was forgotten;
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
        /// Forgotten since: how this run ends no longer schedules anything.
        forgotten: bool,
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
            Some(Entry { state: State::InFlight { again, .. }, .. }) => {
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
        entry.state = State::InFlight { again: None, forgotten: false };
        Some(key)
    }

    /// Takes `key` back, and schedules what `next` and the wishes that came meanwhile ask for. A key that is not in
    /// flight is left alone.
    pub fn finish(&mut self, key: &K, next: Next, now: Instant, jitter: Jitter) {
        let Some(Entry { state: State::InFlight { .. }, .. }) = self.entries.get(key) else { return };
        let Some((key, Entry { state: State::InFlight { again, forgotten }, failures })) =
            self.entries.remove_entry(key)
        else {
            return;
        };
        let (wish, failures) = match next {
            _ if forgotten => (None, 0),
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

    /// Drops what waits for `key` and its failures. A run in flight goes on, but how it ends schedules nothing.
    pub fn forget(&mut self, key: &K) {
        match self.entries.get_mut(key) {
            None => {}
            Some(Entry { state: State::InFlight { again, forgotten }, failures }) => {
                *again = None;
                *forgotten = true;
                *failures = 0;
            }
            Some(Entry { state: State::Waiting { lane, place }, .. }) => {
                let (lane, place) = (*lane, *place);
                self.lane(lane).remove(&place);
                self.entries.remove(key);
            }
        }
    }

    /// When the next key is due; it may lie in the past. `None` when nothing waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        [&self.fresh, &self.resync].into_iter().filter_map(|lane| Some(lane.first_key_value()?.0.due)).min()
    }

    /// For how long the oldest key that is due has been waiting to be handed out: a queue that grows old is stuck.
    #[must_use]
    pub fn oldest_due(&self, now: Instant) -> Option<Duration> {
        self.next_due().and_then(|due| now.checked_duration_since(due))
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
