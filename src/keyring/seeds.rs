//! When one seed replaces another: the stages, as a pure function.
//!
//! ```text
//!  begin ──▶ pending ──readers have it──▶ activate ──▶ list and re-wrap ──an hour──▶ list again ──▶ unused
//! ```
//!
//! In: the operator's own document, what this process has seen, and the time. Out: the next [`Step`]. All that must survive a
//! restart is in the document, so a rotation that was interrupted goes on where it was. What this process has seen makes up
//! for a clock that is set.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use managed_secrets_crypto::{
    SeedId,
    keyring::{Document, Entry, Unused},
};

/// The times of a rotation.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The age at which a seed is replaced; `None` if that is done on request only.
    pub period: Option<Duration>,
    /// How long a leader leads before it replaces a seed because of its age: an upgrade and a clock that is wrong at the start
    /// of a machine can be noticed before.
    pub grace: Duration,
    /// How long a new seed is pending. Watches show it to every replica within seconds; a replica that has missed it reads the
    /// keyring when it meets a record under a seed that it lacks.
    pub pending: Duration,
    /// How long after a list that showed no record under a seed the second one begins: longer than any write takes that began
    /// before.
    pub apart: Duration,
    /// How long after a list the next one begins, where records are left.
    pub again: Duration,
    /// The same where nothing is left but records that cannot be moved, at most: the time doubles with each such list.
    pub stuck: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Some(DEFAULT_PERIOD),
            grace: Duration::from_secs(3600),
            pending: Duration::from_secs(5 * 60),
            apart: Duration::from_secs(3600),
            again: Duration::from_secs(5 * 60),
            stuck: Duration::from_secs(6 * 3600),
        }
    }
}

/// The age at which a seed is replaced, unless the administrator says otherwise: 90 days.
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(90 * 24 * 3600);
/// The longest sleep: the clock may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a process has seen since it began to lead. Times are monotonic.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub struct Seen {
    /// How long it has led.
    pub leading: Duration,
    /// How long it has known the pending seed.
    pub pending: Option<Duration>,
    /// Its last list of all records.
    pub listed: Option<LastList>,
    /// A new seed was asked for.
    pub asked: bool,
    /// A record under a seed that was replaced was met since that list, or a keyring was put beside the operator's own.
    pub met: bool,
    /// The active seed is sealed to a recovery key, and a new one would not be.
    pub unrecoverable: bool,
    /// Records may be under a seed that only a keyring beside the operator's own has.
    pub joined: bool,
}

/// The last list.
#[derive(Clone, Copy, Debug)]
pub struct LastList {
    /// How long ago it ended.
    pub ago: Duration,
    /// What it left.
    pub left: Left,
}

/// What a list left under seeds that were replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// It was complete, and showed no record under them.
    Nothing,
    /// Records, perhaps: some were moved, or not every namespace was listed.
    Some,
    /// Nothing but records that cannot be moved: this many lists in a row.
    Stuck(u32),
}

/// What is done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Add a pending seed, unless there is one; that answers the request.
    Begin,
    /// Make this seed the active one.
    Activate(SeedId),
    /// List all records, re-wrap those under a seed that was replaced, and note what the list showed.
    List,
    /// Nothing for so long, unless there is news.
    Wait(Duration),
}

/// The next step.
#[must_use]
pub fn next(document: &Document, seen: &Seen, timing: &Timing, now: Timestamp) -> Step {
    if seen.asked {
        return Step::Begin;
    }
    if let Some(entry) = document.pending_seed()
        && let Some(id) = entry.seed_id()
    {
        // By either clock: the wall clock knows what was before this process, and may be set.
        let by_date = entry.created_at().and_then(|created| Duration::try_from(now.duration_since(created)).ok());
        let waited = seen.pending.max(by_date).unwrap_or_default();
        return match timing.pending.checked_sub(waited) {
            Some(left) if !left.is_zero() => Step::Wait(left),
            _ => Step::Activate(id),
        };
    }
    // A flag that was forgotten must not move every record out of reach of the recovery key; a request is no accident.
    let due = due_in(document, timing, now).filter(|_| !seen.unrecoverable);
    let due = due.map(|due| due.max(timing.grace.saturating_sub(seen.leading)));
    if due == Some(Duration::ZERO) {
        return Step::Begin;
    }
    let list = list_in(document, seen, timing, now);
    if list == Some(Duration::ZERO) {
        return Step::List;
    }
    Step::Wait([due, list].into_iter().flatten().min().unwrap_or(LONGEST).min(LONGEST))
}

/// After how long the active seed is to be replaced because of its age.
fn due_in(document: &Document, timing: &Timing, now: Timestamp) -> Option<Duration> {
    let due = document.newest_seed()?.checked_add(SignedDuration::try_from(timing.period?).ok()?).ok()?;
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default())
}

/// After how long the records are listed, if a seed may still be in use that was replaced.
fn list_in(document: &Document, seen: &Seen, timing: &Timing, now: Timestamp) -> Option<Duration> {
    let outstanding: Vec<_> = document.superseded_seeds(now).filter(|entry| !entry.is_confirmed_unused()).collect();
    if outstanding.is_empty() && !seen.met && !seen.joined {
        return None;
    }
    Some(match seen.listed {
        // A process before this one may have made the first list.
        None if !seen.met && !seen.joined => {
            let since = |entry: &&Entry| entry.unused.as_ref().and_then(Unused::since);
            match outstanding.iter().map(since).collect::<Option<Vec<_>>>() {
                None => Duration::ZERO,
                Some(dates) => {
                    let ago = dates.into_iter().max().map(|since| now.duration_since(since));
                    let ago = ago.and_then(|ago| Duration::try_from(ago).ok()).unwrap_or_default();
                    timing.apart.saturating_sub(ago)
                }
            }
        }
        None => Duration::ZERO,
        Some(LastList { ago, left }) => {
            let wait = match left {
                Left::Nothing if !seen.met => timing.apart,
                // What stays where it is costs a list each time, and nothing is lost by waiting.
                Left::Stuck(lists) if !seen.met => {
                    timing.again.saturating_mul(1_u32.checked_shl(lists).unwrap_or(u32::MAX)).min(timing.stuck)
                }
                Left::Nothing | Left::Some | Left::Stuck(_) => timing.again,
            };
            wait.saturating_sub(ago)
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use managed_secrets_crypto::{
        Kek,
        keyring::{KekError, Keyring, Listed, Wrapped},
    };

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn wrap(bytes: &[u8]) -> Result<Wrapped, KekError> {
        let kek = Kek::new(&[7; 32])?;
        Ok(Wrapped::new("local", kek.key_id().to_string(), kek.wrap(bytes)?))
    }

    /// A leader, its clocks and what is stored. A process remembers [`Seen`], and a restart loses it.
    struct World {
        document: Document,
        wall: Timestamp,
        seen: Seen,
        timing: Timing,
        /// The seeds that records name. A list re-wraps them all, except what is stuck.
        named: BTreeSet<SeedId>,
        /// The seed of a record that cannot be moved.
        stuck: Option<SeedId>,
        steps: Vec<Step>,
    }

    impl World {
        fn new() -> Self {
            let wall = "2026-01-01T00:00:00Z".parse().unwrap();
            let document = Keyring::generate_entries(wall, wrap).unwrap();
            let named = document.seeds().filter_map(Entry::seed_id).collect();
            let seen = Seen::default();
            Self { document, wall, seen, timing: Timing::default(), named, stuck: None, steps: Vec::new() }
        }

        fn pass(&mut self, time: Duration) {
            self.wall = self.wall.checked_add(time).unwrap();
            self.seen.leading += time;
            self.seen.pending = self.seen.pending.map(|it| it + time);
            self.seen.listed = self.seen.listed.map(|it| LastList { ago: it.ago + time, ..it });
        }

        fn restart(&mut self) {
            self.seen = Seen::default();
        }

        fn set(&mut self, by: SignedDuration) {
            self.wall = self.wall.checked_add(by).unwrap();
        }

        /// Carries out one step.
        fn step(&mut self) -> Step {
            self.seen.pending = self.document.pending_seed().map(|_| self.seen.pending.unwrap_or_default());
            let step = next(&self.document, &self.seen, &self.timing, self.wall);
            match step {
                Step::Begin => {
                    if self.document.pending_seed().is_none() {
                        self.document.add_seed(self.wall, wrap).unwrap();
                    }
                    self.seen.asked = false;
                }
                Step::Activate(id) => {
                    assert!(self.document.activate_seed(id));
                    self.seen.pending = None;
                }
                Step::List => {
                    let superseded: BTreeSet<_> =
                        self.document.superseded_seeds(self.wall).filter_map(Entry::seed_id).collect();
                    self.named.extend(self.stuck);
                    let found = self.named.iter().filter(|seed| superseded.contains(seed)).count();
                    let left = match (found, self.stuck, self.seen.listed) {
                        (0, ..) => Left::Nothing,
                        (1, Some(_), Some(LastList { left: Left::Stuck(lists), .. })) => Left::Stuck(lists + 1),
                        (1, Some(_), _) => Left::Stuck(1),
                        _ => Left::Some,
                    };
                    let listed = Listed { named: &self.named, complete: true, began: self.wall, ended: self.wall };
                    let apart = SignedDuration::try_from(self.timing.apart).unwrap();
                    self.document.note_listed(&listed, apart);
                    self.named = [self.active()].into();
                    self.seen.listed = Some(LastList { ago: Duration::ZERO, left });
                    self.seen.met = false;
                }
                Step::Wait(wait) => {
                    assert!(!wait.is_zero(), "it would turn in circles");
                    self.pass(wait);
                }
            }
            self.steps.push(step);
            step
        }

        fn active(&self) -> SeedId {
            let keyring = Keyring::open([&self.document], |wrapped| Kek::new(&[7; 32])?.unwrap(&wrapped.ciphertext));
            keyring.unwrap().as_of(self.wall).active_seed().unwrap().id()
        }

        /// Goes on until no seed is outstanding, with a restart after each `every` steps.
        fn until_done(&mut self, every: usize) {
            for n in 1..200 {
                self.step();
                if n % every == 0 {
                    self.restart();
                }
                if self.is_done() {
                    return;
                }
            }
            assert!(self.is_done(), "no end: {:?}", self.steps);
        }

        fn is_done(&self) -> bool {
            let mut superseded = self.document.superseded_seeds(self.wall);
            self.document.pending_seed().is_none() && superseded.all(Entry::is_confirmed_unused)
        }

        fn seeds(&self) -> usize {
            self.document.seeds().count()
        }
    }

    #[test]
    fn a_seed_is_replaced_by_its_age_and_retired_after_two_lists() {
        let mut world = World::new();
        let old = world.active();
        while world.seeds() == 1 {
            world.step();
        }
        let age = world.wall.duration_since("2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(age, SignedDuration::try_from(DEFAULT_PERIOD).unwrap());
        assert_eq!(world.active(), old);
        let began = world.wall;
        world.until_done(usize::MAX);
        assert_ne!(world.active(), old);
        let lists = world.steps.iter().filter(|step| **step == Step::List).count();
        assert_eq!(lists, 3, "one that re-wraps, and two that show nothing: {:?}", world.steps);
        let took = Duration::try_from(world.wall.duration_since(began)).unwrap();
        assert_eq!(took, world.timing.pending + world.timing.again + world.timing.apart);
        assert!(world.document.seeds().any(|entry| entry.seed_id() == Some(old)), "its records open for ever");
        // And nothing more until the next period.
        while world.seeds() == 2 {
            assert!(matches!(world.step(), Step::Wait(_) | Step::Begin));
        }
    }

    #[test]
    fn a_rotation_survives_a_restart_after_each_step() {
        for every in 1..6 {
            let mut world = World::new();
            world.seen.asked = true;
            world.step();
            world.until_done(every);
            assert_eq!(world.seeds(), 2, "{every}");
            assert_eq!(world.named, [world.active()].into());
        }
    }

    #[test]
    fn a_new_leader_waits_before_it_replaces_a_seed_because_of_its_age() {
        let mut world = World::new();
        world.pass(DEFAULT_PERIOD + DAY);
        world.restart();
        assert_eq!(world.step(), Step::Wait(world.timing.grace));
        assert_eq!(world.step(), Step::Begin);
        // A request is answered at once, and one that comes meanwhile by the same seed.
        let mut world = World::new();
        for _ in 0..2 {
            world.seen.asked = true;
            assert_eq!(world.step(), Step::Begin);
            assert!(!world.seen.asked);
            assert_eq!(world.seeds(), 2);
        }
    }

    #[test]
    fn without_a_period_a_seed_is_replaced_on_request_only() {
        let mut world = World::new();
        world.timing.period = None;
        world.pass(DAY * 4000);
        assert_eq!(world.step(), Step::Wait(LONGEST));
        assert_eq!(world.seeds(), 1);
    }

    #[test]
    fn a_seed_that_a_recovery_key_opens_is_not_replaced_by_age_with_one_that_it_does_not_open() {
        let mut world = World::new();
        world.seen.unrecoverable = true;
        world.pass(DAY * 400);
        assert_eq!(world.step(), Step::Wait(LONGEST));
        world.seen.asked = true;
        assert_eq!(world.step(), Step::Begin);
    }

    #[test]
    fn a_clock_that_is_set_by_a_day_makes_no_second_seed_and_ends_the_rotation() {
        let day = SignedDuration::from_hours(24);
        for by in [day, -day] {
            for at in 0..7 {
                let mut world = World::new();
                world.timing.period = Some(DAY * 30);
                world.seen.asked = true;
                for _ in 0..at {
                    world.step();
                }
                world.set(by);
                let began = world.seen.leading;
                world.until_done(usize::MAX);
                assert!(world.seen.leading.saturating_sub(began) < DAY, "{by} {at}: {:?}", world.steps);
                world.set(-by);
                world.until_done(usize::MAX);
                assert_eq!(world.seeds(), 2, "{by} {at}");
            }
        }
    }

    #[test]
    fn a_record_under_a_retired_seed_is_found_and_the_seed_retired_again() {
        let mut world = World::new();
        let old = world.active();
        world.seen.asked = true;
        world.until_done(usize::MAX);
        assert!(matches!(world.step(), Step::Wait(_)));
        // Restored from a backup: a pass meets it.
        world.named.insert(old);
        world.seen.met = true;
        while world.step() != Step::List {}
        assert!(!world.is_done() && world.named == [world.active()].into());
        world.until_done(usize::MAX);
    }

    #[test]
    fn records_that_come_again_are_moved_again_and_keep_their_seed() {
        let mut world = World::new();
        let old = world.active();
        world.seen.asked = true;
        for _ in 0..40 {
            world.step();
            world.named.insert(old);
        }
        assert!(!world.is_done());
        let waits = world.steps.iter().filter(|step| **step == Step::Wait(world.timing.again)).count();
        assert!(waits > 10, "{:?}", world.steps);
        // The next rotation does not wait for them.
        world.seen.asked = true;
        assert_eq!(world.step(), Step::Begin);
    }

    #[test]
    fn a_record_that_cannot_be_moved_costs_ever_fewer_lists_until_a_pass_meets_another_one() {
        let mut world = World::new();
        world.stuck = Some(world.active());
        world.seen.asked = true;
        while world.seeds() == 1 {
            world.step();
        }
        let lists = |world: &World| world.steps.iter().filter(|step| **step == Step::List).count();
        let began = world.wall;
        while world.wall.duration_since(began) < SignedDuration::from_hours(24) {
            world.step();
        }
        // After 0, 10, 30, 70, 150, 310 and 670 minutes, and then every six hours.
        assert!((7..10).contains(&lists(&world)), "{:?}", world.steps);
        assert!(!world.is_done());
        let before = lists(&world);
        world.seen.met = true;
        let began = world.wall;
        while lists(&world) == before {
            world.step();
        }
        let waited = Duration::try_from(world.wall.duration_since(began)).unwrap();
        assert!(waited <= world.timing.again, "{waited:?}");
        world.stuck = None;
        world.until_done(usize::MAX);
    }

    #[test]
    fn records_under_a_seed_beside_the_own_ones_are_listed_until_there_are_none() {
        let mut world = World::new();
        world.timing.period = None;
        assert_eq!(world.step(), Step::Wait(LONGEST));
        (world.seen.joined, world.seen.met) = (true, true);
        assert_eq!(world.step(), Step::List);
        assert_eq!(world.step(), Step::Wait(world.timing.apart.min(LONGEST)));
        world.seen.joined = false;
        assert_eq!(world.step(), Step::Wait(LONGEST));
        // A restarted leader lists them once.
        world.restart();
        world.seen.joined = true;
        assert_eq!(world.step(), Step::List);
    }

    #[test]
    fn an_old_document_that_is_restored_begins_again_where_it_was() {
        let mut world = World::new();
        world.seen.asked = true;
        world.step();
        let pending = world.document.clone();
        while !matches!(world.step(), Step::Activate(_)) {}
        let active = world.active();
        // The document of a moment before, over the one that has the new seed active: the same seed becomes active again.
        world.document = pending;
        world.until_done(usize::MAX);
        assert_eq!((world.active(), world.seeds()), (active, 2));
    }
}
