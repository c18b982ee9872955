//! The rules of the queue, by example and by property.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// More workers than any test needs.
const ALL: Workers = Workers { all: usize::MAX, reserved: 0 };

fn drain<K: Clone + Eq + Grouped + Hash>(core: &mut Core<K>, now: Instant) -> Vec<K> {
    std::iter::from_fn(|| core.pop(now, ALL)).collect()
}

/// A group and a number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Of(u32, u32);

impl Grouped for Of {
    type Group = u32;

    fn group(&self) -> &u32 {
        &self.0
    }
}

#[test]
fn a_group_with_much_to_do_delays_no_other() {
    let (mut core, now) = (Core::new(), Instant::now());
    for number in 0..1000 {
        core.add(Of(1, number), Priority::Fresh, now);
    }
    for number in 0..3 {
        core.add(Of(2, number), Priority::Fresh, now);
    }
    core.add(Of(3, 0), Priority::Fresh, now);
    let order = drain(&mut core, now);
    assert_eq!(order[..6], [Of(1, 0), Of(2, 0), Of(3, 0), Of(1, 1), Of(2, 1), Of(1, 2)]);
    assert_eq!(order.len(), 1004);
    let fresh = &core.due[Priority::Fresh];
    assert!(fresh.groups.is_empty() && fresh.turns.is_empty(), "what is worked off takes no memory");
}

#[test]
fn an_edit_goes_ahead_of_the_resyncs_of_all_groups() {
    let (mut core, now) = (Core::new(), Instant::now());
    for group in 0..100 {
        core.add(Of(group, 0), Priority::Resync, now);
    }
    core.add(Of(7, 1), Priority::Fresh, now);
    assert_eq!(core.pop(now, ALL), Some(Of(7, 1)));
}

#[test]
fn progress_tells_the_age_of_what_waits_and_of_what_runs() {
    let (mut core, now) = (Core::new(), Instant::now());
    assert_eq!(core.progress(now).since_taken, None, "the workers have not begun");
    core.begin(now);
    core.add(Of(1, 1), Priority::Fresh, now);
    core.add(Of(1, 2), Priority::Fresh, now + SECOND);
    core.add(Of(2, 1), Priority::Resync, now + SECOND * 2);
    core.add(Of(2, 2), Priority::Resync, now + SECOND * 100);
    let due = |core: &mut Core<Of>, at| {
        let [fresh, .., resync] = core.progress(at).due.map(|due| (due.keys, due.oldest));
        [fresh, resync]
    };
    // No worker has looked since they became due.
    assert_eq!(due(&mut core, now + SECOND * 5), [(2, Some(SECOND * 5)), (1, Some(SECOND * 3))]);
    assert_eq!(core.progress(now + SECOND * 5).since_taken, Some(SECOND * 5));
    assert_eq!(core.pop(now + SECOND * 5, ALL), Some(Of(1, 1)));
    assert_eq!(core.pop(now + SECOND * 6, ALL), Some(Of(1, 2)));
    let progress = core.progress(now + SECOND * 7);
    assert_eq!((progress.oldest_in_flight, progress.since_taken), (Some(SECOND * 2), Some(SECOND)));
    core.finish(&Of(1, 1), Next::Done, now + SECOND * 7, Jitter::NONE);
    assert_eq!(core.progress(now + SECOND * 7).oldest_in_flight, Some(SECOND));
    core.finish(&Of(1, 2), Next::Done, now + SECOND * 7, Jitter::NONE);
    assert_eq!(core.progress(now + SECOND * 7).oldest_in_flight, None);
    assert!(core.taken.is_empty());
    assert_eq!(due(&mut core, now + SECOND * 7), [(0, None), (1, Some(SECOND * 5))]);
}

#[test]
fn the_last_worker_is_for_a_group_that_has_none() {
    const THREE: Workers = Workers { all: 3, reserved: 1 };
    let (mut core, now) = (Core::new(), Instant::now());
    for number in 0..9 {
        core.add(Of(1, number), Priority::Fresh, now);
    }
    assert_eq!(
        [core.pop(now, THREE), core.pop(now, THREE), core.pop(now, THREE)],
        [Some(Of(1, 0)), Some(Of(1, 1)), None]
    );
    assert_eq!(core.next_due(), None, "it waits for no time, but for a key to be finished");
    core.add(Of(2, 0), Priority::Resync, now);
    assert_eq!(core.pop(now, THREE), Some(Of(2, 0)));
    core.finish(&Of(1, 1), Next::Done, now, Jitter::NONE);
    assert_eq!(core.pop(now, THREE), None, "one is free, and it is the last one");
    core.finish(&Of(2, 0), Next::Done, now, Jitter::NONE);
    assert_eq!([core.pop(now, THREE), core.pop(now, THREE)], [Some(Of(1, 2)), None]);
    assert_eq!(core.depth(), Depth { waiting: 6, in_flight: 2 });
}

#[test]
fn first_come_first_served_and_fresh_before_resync() {
    let (mut core, now) = (Core::new(), Instant::now());
    for key in [1, 2] {
        core.add(key, Priority::Resync, now);
    }
    for key in [4, 3, 4] {
        core.add(key, Priority::Fresh, now);
    }
    assert_eq!(drain(&mut core, now), [4, 3, 1, 2]);
}

#[test]
fn an_edit_goes_ahead_of_what_comes_in_large_numbers_in_its_group() {
    let (mut core, now) = (Core::new(), Instant::now());
    for number in 0..10_000 {
        core.add(Of(1, number), Priority::Woken, now);
        core.add(Of(1, 10_000 + number), Priority::New, now);
    }
    let taken: Vec<_> = std::iter::from_fn(|| core.pop(now, ALL)).take(100).collect();
    let new = taken.iter().filter(|key| key.1 >= 10_000).count();
    assert!((80..=90).contains(&new), "new objects go ahead of those that are woken, which have their turns: {new}");
    for number in 0..20 {
        core.add(Of(1, 50_000 + number), Priority::Fresh, now);
    }
    let taken: Vec<_> = std::iter::from_fn(|| core.pop(now, ALL)).take(30).collect();
    let position = |number: u32| taken.iter().position(|key| key.1 == 50_000 + number).unwrap();
    assert!(position(0) <= 2 && position(19) <= 28, "{taken:?}");
}

#[test]
fn a_waiting_resync_that_becomes_fresh_overtakes() {
    let (mut core, now) = (Core::new(), Instant::now());
    for key in [1, 2, 3] {
        core.add(key, Priority::Resync, now);
    }
    core.add(3, Priority::Fresh, now);
    core.add(3, Priority::Resync, now);
    assert_eq!(drain(&mut core, now), [3, 1, 2]);
}

#[test]
fn resyncs_are_not_starved() {
    let (mut core, now) = (Core::new(), Instant::now());
    core.add(0, Priority::Resync, now);
    for key in 1..100 {
        core.add(key, Priority::Fresh, now);
    }
    let order = drain(&mut core, now);
    assert_eq!(order.iter().position(|key| *key == 0), Some(7));
    assert_eq!(order.len(), 100);
}

#[test]
fn of_two_times_the_earlier_counts() {
    let (mut core, now) = (Core::new(), Instant::now());
    core.add(1, Priority::Fresh, now + 5 * SECOND);
    core.add(1, Priority::Fresh, now + 3 * SECOND);
    core.add(1, Priority::Fresh, now + 4 * SECOND);
    assert_eq!(core.next_due(), Some(now + 3 * SECOND));
    assert_eq!(core.pop(now + 2 * SECOND, ALL), None);
    assert_eq!(core.pop(now + 3 * SECOND, ALL), Some(1));
    core.finish(&1, Next::Done, now, Jitter::NONE);
    assert_eq!(core.next_due(), None);
}

#[test]
fn success_clears_the_failures() {
    let (mut core, now) = (Core::new(), Instant::now());
    for expected in [100, 200, 400, 800] {
        core.add(1, Priority::Fresh, now);
        assert_eq!(core.pop(now, ALL), Some(1));
        core.finish(&1, Next::Retry { after: None }, now, Jitter::NONE);
        assert_eq!(core.next_due(), Some(now + Duration::from_millis(expected)));
    }
    assert_eq!(core.failures(&1), 4);
    core.add(1, Priority::Fresh, now);
    core.pop(now, ALL);
    core.finish(&1, Next::After(SECOND), now, Jitter::NONE);
    assert_eq!((core.failures(&1), core.next_due()), (0, Some(now + SECOND)));
}

#[test]
fn a_retry_waits_at_least_as_long_as_asked() {
    let (mut core, now) = (Core::new(), Instant::now());
    core.add(1, Priority::Fresh, now);
    core.pop(now, ALL);
    core.finish(&1, Next::Retry { after: Some(7 * SECOND) }, now, Jitter::NONE);
    assert_eq!(core.next_due(), Some(now + 7 * SECOND));
    core.add(1, Priority::Fresh, now + SECOND);
    assert_eq!(core.next_due(), Some(now + 7 * SECOND), "an event does not shorten what the server asked for");
    core.pop(now + 7 * SECOND, ALL);
    core.finish(&1, Next::Retry { after: Some(Duration::MAX) }, now, Jitter::NONE);
    assert_eq!(core.next_due(), Some(now + LONGEST_PAUSE));
}

#[test]
fn a_delay_beyond_the_clock_means_never() {
    let (mut core, now) = (Core::new(), Instant::now());
    core.add(1, Priority::Fresh, now);
    core.pop(now, ALL);
    core.finish(&1, Next::After(Duration::MAX), now, Jitter::NONE);
    assert_eq!(core.depth(), Depth::default());
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize, Priority, u64),
    Pop,
    Finish(usize, Next),
    Pass(u64),
}

const KEYS: usize = 9;
const WORKERS: Workers = Workers { all: 4, reserved: 1 };

/// Three groups of three.
fn key(number: usize) -> Of {
    let number = u32::try_from(number).unwrap();
    Of(number / 3, number % 3)
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop::sample::select(&Priority::ALL[..]);
    let next = prop_oneof![
        3 => Just(Next::Done),
        1 => (0..3000u64).prop_map(|ms| Next::After(Duration::from_millis(ms))),
        2 => proptest::option::of(0..3000u64)
            .prop_map(|ms| Next::Retry { after: ms.map(Duration::from_millis) }),
    ];
    prop_oneof![
        4 => (0..KEYS, priority, prop_oneof![Just(0), 0..2000u64]).prop_map(|(k, l, ms)| Step::Add(k, l, ms)),
        4 => Just(Step::Pop),
        3 => (any::<prop::sample::Index>(), next).prop_map(|(i, next)| Step::Finish(i.index(KEYS), next)),
        2 => (0..1500u64).prop_map(Step::Pass),
    ]
}

/// What is expected of one key: the simplest thing that could be right.
#[derive(Debug, Clone, Copy, Default)]
struct Expected {
    turn: Option<Turn>,
    in_flight: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Expected {
    fn want(&mut self, turn: Turn) {
        let turn = turn.merge(self.turn);
        self.turn = Some(Turn { due: self.not_before.map_or(turn.due, |time| turn.due.max(time)), ..turn });
    }

    fn finish(&mut self, next: Next, now: Instant) {
        self.in_flight = false;
        self.not_before = match next {
            Next::Retry { after } => after.map(|after| now + after),
            Next::Done | Next::After(_) => None,
        };
        if let Some(turn) = self.turn {
            self.want(turn);
        }
        let own = match next {
            Next::Done => None,
            Next::After(delay) => Some(delay),
            Next::Retry { .. } => {
                self.failures += 1;
                Some(FAILURES.delay(self.failures, Jitter::NONE))
            }
        };
        if !matches!(next, Next::Retry { .. }) {
            self.failures = 0;
        }
        if let Some(delay) = own {
            self.want(Turn { due: now + delay, priority: Priority::Resync });
        }
    }

    /// It waits in this priority, and its time has come.
    fn due(&self, now: Instant) -> Option<Priority> {
        self.turn.filter(|turn| !self.in_flight && turn.due <= now).map(|turn| turn.priority)
    }
}

/// Everything that the queue promises of one step, told from the keys alone.
#[derive(Default)]
struct Model {
    keys: [Expected; KEYS],
    /// How often the first group was passed over for the second, in this priority, while it had a key for it.
    overtaken: HashMap<(u32, u32, Priority), u32>,
    /// How often a priority with a key that could have been handed out was passed over.
    passed: HashMap<Priority, u32>,
    /// Keys handed out since a priority last had one.
    since: HashMap<Priority, u32>,
}

impl Model {
    fn in_flight(&self, group: u32) -> usize {
        (0..KEYS).filter(|number| key(*number).0 == group && self.keys[*number].in_flight).count()
    }

    fn free(&self) -> usize {
        WORKERS.all - self.keys.iter().filter(|key| key.in_flight).count()
    }

    /// The priorities in which a group has a key that may be handed out.
    fn ready(&self, group: u32, now: Instant) -> Vec<Priority> {
        let mut priorities: Vec<Priority> =
            (0..KEYS).filter(|number| key(*number).0 == group).filter_map(|n| self.keys[n].due(now)).collect();
        let free = self.free();
        priorities.retain(|_| free > WORKERS.reserved || (free > 0 && self.in_flight(group) == 0));
        priorities
    }

    /// Forgets who was passed over where nothing of the group waits any more, or none of it may be handed out.
    fn rest(&mut self, now: Instant) {
        for group in 0..3 {
            let ready = self.ready(group, now);
            self.overtaken.retain(|(waiting, _, priority), _| *waiting != group || ready.contains(priority));
        }
    }

    fn handed_out(&mut self, number: usize, now: Instant) -> Result<(), TestCaseError> {
        let group = key(number).0;
        let Some(priority) = self.keys[number].due(now) else {
            return Err(TestCaseError::fail("twice in flight, not asked for, or not yet"));
        };
        prop_assert!(
            self.free() > WORKERS.reserved || (self.free() > 0 && self.in_flight(group) == 0),
            "no worker is left for this group"
        );
        let ready: Vec<Vec<Priority>> = (0..3).map(|group| self.ready(group, now)).collect();
        for other in 0..3 {
            let waits = other != group && ready[other as usize].contains(&priority);
            let overtaken = self.overtaken.entry((other, group, priority)).or_default();
            *overtaken = if waits { *overtaken + 1 } else { 0 };
            prop_assert!(*overtaken <= 1, "group {group} went ahead of {other} twice in a row");
        }
        for other in 0..3 {
            self.overtaken.insert((group, other, priority), 0);
        }
        let out_of_turn = self.since.get(&priority).copied().unwrap_or_default() + 1 < TURN;
        for other in Priority::ALL {
            let waits = other != priority && ready.iter().flatten().any(|ready| *ready == other);
            prop_assert!(!(waits && other > priority && out_of_turn), "{priority:?} went ahead of {other:?}");
            let passed = self.passed.entry(other).or_default();
            *passed = if waits { *passed + 1 } else { 0 };
            // Others may have their turn at the same time.
            prop_assert!(*passed < TURN + 2, "{other:?} waits for ever");
            let since = self.since.entry(other).or_default();
            *since = if other == priority { 0 } else { *since + 1 };
        }
        self.keys[number] = Expected { turn: None, in_flight: true, not_before: None, ..self.keys[number] };
        Ok(())
    }
}

proptest! {
    // No file remembers a failure: one that matters becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds(steps in proptest::collection::vec(step(), 1..300)) {
        let mut now = Instant::now();
        let mut core = Core::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Add(number, priority, ms) => {
                    let due = now + Duration::from_millis(ms);
                    core.add(key(number), priority, due);
                    model.keys[number].want(Turn { due, priority });
                }
                Step::Pop => match core.pop(now, WORKERS) {
                    Some(popped) => {
                        let number = (0..KEYS).find(|number| key(*number) == popped).unwrap();
                        model.handed_out(number, now)?;
                    }
                    None => prop_assert!(
                        (0..3).all(|group| model.ready(group, now).is_empty()),
                        "something is due and was not handed out"
                    ),
                },
                Step::Finish(number, next) => {
                    core.finish(&key(number), next, now, Jitter::NONE);
                    if model.keys[number].in_flight {
                        model.keys[number].finish(next, now);
                    }
                }
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
            model.rest(now);
            let in_flight = model.keys.iter().filter(|key| key.in_flight).count();
            let waiting = model.keys.iter().filter(|key| !key.in_flight && key.turn.is_some()).count();
            prop_assert_eq!(core.depth(), Depth { waiting, in_flight });
            for (number, expected) in model.keys.iter().enumerate() {
                prop_assert_eq!(core.failures(&key(number)), expected.failures);
            }
        }
    }
}
