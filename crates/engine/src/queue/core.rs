//! The rules of the queue, without a clock, a lock or a task: the caller passes the time to every operation.
//!
//! Keys belong to groups (see [`Grouped`]), and groups take turns. Guarantees, held by the property tests below:
//! * a key is in flight at most once;
//! * a key added while in flight runs once more afterwards, however often it was added;
//! * a key that was added is handed out, once its time has come;
//! * no priority waits for ever while others are full;
//! * between two keys of one group and priority, every other group gets at most one key of that priority: however much a group
//!   has waiting, no other waits longer for it than for a single key;
//! * the last free workers are for groups that have no key in flight: however many groups hang, a group waits for none of
//!   them while one is left.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt::Debug,
    hash::Hash,
    ops::{Index, IndexMut},
    time::{Duration, Instant},
};

use super::progress::{DueAge, Progress};
use crate::backoff::{Backoff, Jitter};

/// After a failure: 100 ms, doubled up to five minutes, until a success.
const FAILURES: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(300) };
/// The longest that a key waits because the server asked for it.
const LONGEST_PAUSE: Duration = FAILURES.cap;
/// Each priority has one key of this many, whatever else is due.
const TURN: u32 = 8;

/// How urgent a key is. What comes in large numbers at once does not delay what comes one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work that no user waits for: a periodic check, a retry, every object that is up to date at start.
    Resync,
    /// Another object changed, on which this one depends: one change can concern thousands.
    Woken,
    /// A user has just created the object, and waits: an installation creates many.
    New,
    /// A user has just changed the object, and waits.
    Fresh,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::New, Self::Woken, Self::Resync];
}

/// How a reconcile ended, and so when its key runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Success: not before the key is added again.
    Done,
    /// Success: again after this time, or earlier if the key is added.
    After(Duration),
    /// Failure: again after the key's growing backoff, and not before `after` (a server's `Retry-After`), even if the key is
    /// added again. No key waits longer than five minutes because a server asks for it.
    Retry {
        /// The shortest time to wait.
        after: Option<Duration>,
    },
}

/// The number of waiting and running keys.
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
    priority: Priority,
}

impl Turn {
    /// Combines two requests: as early and as urgent as either of them.
    fn merge(self, other: Option<Self>) -> Self {
        other.map_or(self, |other| Self { due: self.due.min(other.due), priority: self.priority.max(other.priority) })
    }

    fn not_before(self, time: Option<Instant>) -> Self {
        Self { due: time.map_or(self.due, |time| self.due.max(time)), ..self }
    }
}

/// How many keys may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// In all.
    pub all: usize,
    /// Of these, so many are kept for groups that have no key in flight.
    pub reserved: usize,
}

/// A key that belongs to a group, such as the namespace of an object. Groups take turns, so that none holds up another.
pub trait Grouped {
    /// The group.
    type Group: Clone + Debug + Eq + Hash;

    /// The group that this key belongs to. Always the same for one key.
    fn group(&self) -> &Self::Group;
}

/// A position in the order of a group. The ticket keeps keys of the same instant in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    due: Instant,
    ticket: u64,
}

#[derive(Debug)]
enum State {
    /// Not due when it was last looked at.
    Later { priority: Priority, place: Place },
    /// Due: in its priority, in the order of its group.
    Due { priority: Priority, place: Place },
    InFlight {
        /// When it was handed out.
        taken: Place,
        /// The turn asked for since it was handed out.
        again: Option<Turn>,
    },
}

/// What a key's failures leave behind until it succeeds.
#[derive(Debug, Clone, Copy, Default)]
struct History {
    /// Failures in a row.
    failures: u32,
    /// The server asked for no request before this time.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    history: History,
}

/// Due keys of one urgency, by group.
#[derive(Debug)]
struct DueKeys<K: Grouped> {
    groups: HashMap<K::Group, BTreeMap<Place, K>>,
    /// Exactly the groups in `groups`, the next one in front.
    turns: VecDeque<K::Group>,
}

impl<K: Grouped> Default for DueKeys<K> {
    fn default() -> Self {
        Self { groups: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<K: Grouped> DueKeys<K> {
    fn insert(&mut self, place: Place, key: K) {
        if let Some(keys) = self.groups.get_mut(key.group()) {
            keys.insert(place, key);
            return;
        }
        let group = key.group().clone();
        self.turns.push_back(group.clone());
        self.groups.insert(group, BTreeMap::from([(place, key)]));
    }

    /// Removes a key out of turn. A group that is then empty keeps its position in the order until its turn comes.
    fn remove(&mut self, key: &K, place: Place) {
        if let Some(keys) = self.groups.get_mut(key.group()) {
            keys.remove(&place);
        }
    }

    /// When the oldest key became due.
    fn oldest(&self) -> Option<Instant> {
        self.groups.values().filter_map(|keys| keys.first_key_value()).map(|(place, _)| place.due).min()
    }

    fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// The first key of the first group that may have one. That group is the last one then.
    fn take(&mut self, may: impl Fn(&K::Group) -> bool) -> Option<K> {
        // Groups that may not run a key keep their position. There are at most as many as workers, so this is fast.
        let mut next = 0;
        loop {
            if !may(self.turns.get(next)?) {
                next += 1;
                continue;
            }
            let group = self.turns.remove(next)?;
            let Some(keys) = self.groups.get_mut(&group) else { continue };
            let key = keys.pop_first().map(|(_, key)| key);
            if keys.is_empty() {
                self.groups.remove(&group);
            } else {
                self.turns.push_back(group);
            }
            if key.is_some() {
                return key;
            }
        }
    }
}

/// The queue's state. A key that neither waits nor runs takes no memory.
#[derive(Debug)]
pub struct Core<K: Grouped> {
    entries: HashMap<K, Entry>,
    later: BTreeMap<Place, K>,
    due: ByPriority<DueKeys<K>>,
    /// Keys in flight, by group; no group without any.
    in_flight: HashMap<K::Group, usize>,
    /// When each key in flight was handed out.
    taken: BTreeSet<Place>,
    /// When a key was last handed out, or the workers began.
    last_taken: Option<Instant>,
    tickets: u64,
    /// Keys handed out since a priority last had one.
    since: ByPriority<u32>,
}

/// Something for each priority.
#[derive(Debug)]
struct ByPriority<T>([T; Priority::ALL.len()]);

impl<T: Default> Default for ByPriority<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> Index<Priority> for ByPriority<T> {
    type Output = T;

    fn index(&self, priority: Priority) -> &T {
        &self.0[priority as usize]
    }
}

impl<T> IndexMut<Priority> for ByPriority<T> {
    fn index_mut(&mut self, priority: Priority) -> &mut T {
        &mut self.0[priority as usize]
    }
}

impl<K: Grouped> Default for Core<K> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            later: BTreeMap::new(),
            due: ByPriority::default(),
            in_flight: HashMap::new(),
            taken: BTreeSet::new(),
            last_taken: None,
            tickets: 0,
            since: ByPriority::default(),
        }
    }
}

impl<K: Clone + Eq + Grouped + Hash> Core<K> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a run of `key` at `due`. Of several requests for one key, the earliest time and the higher priority count.
    pub fn add(&mut self, key: K, priority: Priority, due: Instant) {
        let turn = Turn { due, priority };
        let (place, before, history) = match self.entries.get_mut(&key) {
            None => return self.wait(key, turn, History::default()),
            Some(Entry { state: State::InFlight { again, .. }, .. }) => {
                *again = Some(turn.merge(*again));
                return;
            }
            Some(Entry { state: State::Later { priority, place } | State::Due { priority, place }, history }) => {
                (*place, Turn { due: place.due, priority: *priority }, *history)
            }
        };
        let merged = turn.merge(Some(before)).not_before(history.not_before);
        if merged == before {
            return; // it keeps its position in the order of arrival
        }
        if self.later.remove(&place).is_none() {
            self.due[before.priority].remove(&key, place);
        }
        self.wait(key, merged, history);
    }

    /// Hands out the key whose turn it is at `now`, if there is one and a worker for it. It is in flight until
    /// [`Core::finish`].
    pub fn pop(&mut self, now: Instant, workers: Workers) -> Option<K> {
        self.promote(now);
        let free = workers.all.saturating_sub(self.in_flight.values().sum());
        if free == 0 {
            return None;
        }
        // Those whose turn it is, and then all, the most urgent first.
        let has_turn = Priority::ALL.map(|priority| self.since[priority] + 1 >= TURN);
        let turns = Priority::ALL.into_iter().zip(has_turn).filter_map(|(priority, has)| has.then_some(priority));
        let (priority, key) = turns.chain(Priority::ALL).find_map(|priority| {
            let may = |group: &K::Group| free > workers.reserved || !self.in_flight.contains_key(group);
            Some((priority, self.due[priority].take(may)?))
        })?;
        for other in Priority::ALL {
            self.since[other] = if other == priority { 0 } else { self.since[other].saturating_add(1).min(TURN) };
        }
        *self.in_flight.entry(key.group().clone()).or_default() += 1;
        self.tickets += 1;
        let taken = Place { due: now, ticket: self.tickets };
        let entry = self.entries.get_mut(&key)?;
        entry.state = State::InFlight { taken, again: None };
        self.taken.insert(taken);
        self.last_taken = Some(now);
        Some(key)
    }

    /// Ends the run of `key`, and schedules the run that `next` and the requests during the run ask for. A key that is not in
    /// flight is not changed.
    pub fn finish(&mut self, key: &K, next: Next, now: Instant, jitter: Jitter) {
        let Some(Entry { state: State::InFlight { .. }, .. }) = self.entries.get(key) else { return };
        let Some((key, Entry { state: State::InFlight { taken, again }, history })) = self.entries.remove_entry(key)
        else {
            return;
        };
        self.taken.remove(&taken);
        if let Some(running) = self.in_flight.get_mut(key.group()) {
            *running -= 1;
            if *running == 0 {
                self.in_flight.remove(key.group());
            }
        }
        let (wish, history) = match next {
            Next::Done => (None, History::default()),
            Next::After(delay) => (Some(delay), History::default()),
            Next::Retry { after } => {
                let failures = history.failures.saturating_add(1);
                let not_before = after.and_then(|after| now.checked_add(after.min(LONGEST_PAUSE)));
                (Some(FAILURES.delay(failures, jitter)), History { failures, not_before })
            }
        };
        // A delay that the clock cannot represent means never.
        let wish = wish.and_then(|delay| Some(Turn { due: now.checked_add(delay)?, priority: Priority::Resync }));
        if let Some(turn) = wish.map(|turn| turn.merge(again)).or(again) {
            self.wait(key, turn.not_before(history.not_before), history);
        }
    }

    /// When the next of the keys is due that were not due at the last [`Core::pop`]; it may lie in the past. Those that
    /// were, and were not handed out, wait for a [`Core::finish`]. `None` when nothing waits for a time.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|(place, _)| place.due)
    }

    /// Failures in a row of `key`.
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.history.failures)
    }

    /// Returns how many keys wait and run.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let in_flight = self.in_flight.values().sum();
        Depth { waiting: self.entries.len() - in_flight, in_flight }
    }

    /// The workers begin: from now on, due keys should be taken.
    pub fn begin(&mut self, now: Instant) {
        self.last_taken = Some(now);
    }

    /// Returns how the work goes at `now`.
    pub fn progress(&mut self, now: Instant) -> Progress {
        self.promote(now);
        let since = |then: Instant| now.saturating_duration_since(then);
        let oldest = |due: &DueKeys<K>| due.oldest().map(since);
        let of = |priority| {
            let due = &self.due[priority];
            DueAge { priority, keys: due.len(), oldest: oldest(due) }
        };
        Progress {
            due: Priority::ALL.map(of),
            depth: self.depth(),
            oldest_in_flight: self.taken.first().map(|taken| since(taken.due)),
            since_taken: self.last_taken.map(since),
        }
    }

    fn wait(&mut self, key: K, Turn { due, priority }: Turn, history: History) {
        self.tickets += 1;
        let place = Place { due, ticket: self.tickets };
        self.later.insert(place, key.clone());
        self.entries.insert(key, Entry { state: State::Later { priority, place }, history });
    }

    /// Moves the keys that have become due into their priorities.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().due <= now) {
            let key = first.remove();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if let State::Later { priority, place } = entry.state {
                entry.state = State::Due { priority, place };
                self.due[priority].insert(place, key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
