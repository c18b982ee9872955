use managed_secrets_crypto::{
    Kek,
    keyring::{KekError, Keyring, Wrapped},
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn wrap(bytes: &[u8]) -> Result<Wrapped, KekError> {
    let kek = Kek::new(&[7; 32])?;
    Ok(Wrapped::new("local", kek.key_id().to_string(), kek.wrap(bytes)?))
}

/// A leader, its clocks and what is stored. A process remembers [`Seen`], and a restart loses it.
struct World {
    document: Document,
    requests: Requests,
    wall: Timestamp,
    seen: Seen,
    timing: Timing,
    known: Option<String>,
    steps: Vec<Step>,
}

impl World {
    fn new() -> Self {
        let wall = "2026-01-01T00:00:00Z".parse().unwrap();
        let document = Keyring::generate_entries(wall, wrap).unwrap();
        Self {
            document,
            requests: Requests::default(),
            wall,
            seen: Seen { used: Some(BTreeMap::new()), ..Seen::default() },
            timing: Timing::default(),
            known: None,
            steps: Vec::new(),
        }
    }

    fn ask(&mut self, text: &str) {
        Requests::parse(text).iter().for_each(|request| self.requests.add(request.clone()));
    }

    fn pass(&mut self, time: Duration) {
        self.wall = self.wall.checked_add(time).unwrap();
        self.seen.leading += time;
        self.seen.active += time;
        self.seen.pending = self.seen.pending.map(|it| it + time);
    }

    fn restart(&mut self) {
        self.seen = Seen { used: self.seen.used.clone(), ..Seen::default() };
        self.known = None;
    }

    /// Carries out one step.
    fn step(&mut self) -> Step {
        self.seen.pending = self.document.pending_sealing_key().map(|_| self.seen.pending.unwrap_or_default());
        let active = self.document.active_key(Purpose::Sealing, self.wall).map(str::to_owned);
        if self.known != active {
            (self.known, self.seen.active) = (active, Duration::ZERO);
        }
        let step = next(&self.document, &self.requests, &self.seen, &self.timing, self.wall);
        match &step {
            Step::Begin => {
                self.requests.remove(&Request::Rotate(Kind::Sealing));
                if self.document.pending_sealing_key().is_none() {
                    self.document.add_sealing_key(self.wall, wrap).unwrap();
                }
            }
            Step::Activate(id) => assert!(self.document.activate_sealing_key(*id)),
            Step::Revoke(id) => {
                assert!(self.document.revoke_sealing_key(*id, self.wall));
                self.requests.remove(&Request::Revoke(id.to_string()));
            }
            Step::Retire(id) => {
                assert!(self.document.retire_sealing_key(*id, self.wall));
                self.requests.remove(&Request::Retire(id.to_string()));
            }
            Step::Reinstate(id) => {
                assert!(self.document.reinstate_sealing_key(*id));
                self.requests.remove(&Request::Reinstate(id.to_string()));
            }
            Step::Refuse(request, _) => assert!(self.requests.remove(request)),
            Step::Note(used) => self.document.note_used(used, self.wall),
            Step::Wait(time) => {
                assert!(!time.is_zero(), "{:?}", self.steps);
                self.pass(*time);
            }
        }
        self.steps.push(step.clone());
        assert!(self.steps.len() < 20_000, "it goes round in circles");
        step
    }

    /// Steps until nothing is asked for and nothing is pending; how long that took.
    fn settle(&mut self) -> Duration {
        let began = self.wall;
        while !self.requests.is_empty() || self.document.pending_sealing_key().is_some() {
            self.step();
        }
        Duration::try_from(self.wall.duration_since(began)).unwrap()
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.wall.checked_add(time).unwrap();
        while self.wall < end {
            self.step();
        }
    }

    /// Id and state of each sealing key, the oldest first.
    fn keys(&self) -> Vec<(KeyId, State)> {
        self.document.sealing_keys().map(|entry| (entry.sealing_key_id().unwrap(), entry.state)).collect()
    }

    fn states(&self) -> Vec<State> {
        self.keys().into_iter().map(|(_, state)| state).collect()
    }

    fn refused(&mut self, text: &str) -> String {
        self.ask(text);
        match self.step() {
            Step::Refuse(_, why) => why,
            step => panic!("{text}: {step:?}"),
        }
    }
}

#[test]
fn a_key_is_replaced_each_period_and_the_new_one_is_pending_first() {
    let mut world = World::new();
    world.run_for(DAY * 100);
    assert_eq!(world.states(), [State::OpenOnly, State::OpenOnly, State::OpenOnly, State::Active]);
    let begun = world.steps.iter().position(|step| *step == Step::Begin).unwrap();
    assert_eq!(world.steps[begun + 1], Step::Wait(world.timing.pending));
    let id = world.keys()[1].0;
    assert_eq!(world.steps[begun + 2], Step::Activate(id));
    // An old key that meets a new leader: after the grace.
    let mut world = World::new();
    world.wall = world.wall.checked_add(DAY * 365).unwrap();
    assert_eq!(world.step(), Step::Wait(world.timing.grace));
    assert_eq!(world.step(), Step::Begin);
    // Switched off.
    let mut world = World::new();
    world.timing.period = None;
    world.run_for(DAY * 365);
    assert_eq!(world.states(), [State::Active]);
}

#[test]
fn a_rotation_that_is_interrupted_anywhere_goes_on_and_makes_one_key() {
    for at in 0..4 {
        let mut world = World::new();
        world.ask("rotate sealing");
        for _ in 0..at {
            world.step();
        }
        world.restart();
        assert!(world.settle() <= world.timing.pending * 2, "{at}: {:?}", world.steps);
        assert_eq!(world.states(), [State::OpenOnly, State::Active], "{at}");
    }
    // Asked for again while one is under way: that one answers.
    let mut world = World::new();
    world.ask("rotate sealing");
    world.step();
    world.ask("rotate sealing, rotate seed");
    world.step();
    assert_eq!(world.requests.to_string(), "rotate seed", "of another task");
    assert_eq!(world.states(), [State::Active, State::Pending]);
}

#[test]
fn an_active_key_is_revoked_once_another_one_has_replaced_it_everywhere() {
    let mut world = World::new();
    let old = world.keys()[0].0;
    world.ask(&format!("revoke {old}"));
    let took = world.settle();
    assert_eq!(took, world.timing.pending + world.timing.settle, "{:?}", world.steps);
    assert_eq!(world.states(), [State::Revoked, State::Active]);
    // A leader that begins in between waits again, for it cannot know how long the others know.
    let mut world = World::new();
    let old = world.keys()[0].0;
    world.ask(&format!("revoke {old}"));
    while !matches!(world.step(), Step::Activate(_)) {}
    world.restart();
    assert_eq!(world.settle(), world.timing.settle);
    assert_eq!(world.states(), [State::Revoked, State::Active]);
    // One that was replaced long ago, at once; one that is pending, too.
    world.ask("rotate sealing");
    world.step();
    let pending = world.keys()[2].0;
    world.ask(&format!("revoke {pending}"));
    assert_eq!(world.step(), Step::Revoke(pending));
    assert_eq!(world.states(), [State::Revoked, State::Active, State::Revoked]);
}

#[test]
fn requests_that_cannot_be_carried_out_say_why() {
    let mut world = World::new();
    world.ask("rotate sealing");
    world.settle();
    let [old, active] = world.keys().into_iter().map(|(id, _)| id).collect::<Vec<_>>().try_into().unwrap();
    let seed = world.document.seeds().next().unwrap().id.clone();
    for verb in ["revoke", "retire", "reinstate"] {
        assert!(world.refused(&format!("{verb} {seed}")).contains("is a seed"), "{verb}");
        assert!(world.refused(&format!("{verb} 0123456789abcdef")).contains("no sealing key"), "{verb}");
    }
    assert!(world.refused(&format!("retire {active}")).contains("rotate it first"));
    world.seen.used = Some([(old, 3)].into());
    assert!(world.refused(&format!("retire {old}")).contains("use it: 3"));
    // Not known yet.
    world.seen.used = None;
    world.pass(MINUTE);
    world.ask(&format!("retire {old}"));
    assert_eq!(world.step(), Step::Wait(RELOOK));
    world.seen.used = Some([(active, 3)].into());
    assert_eq!(world.step(), Step::Retire(old));
    world.ask(&format!("reinstate {old}"));
    assert_eq!(world.step(), Step::Reinstate(old));
    world.pass(MINUTE);
    world.ask(&format!("revoke {old}"));
    assert_eq!(world.step(), Step::Revoke(old));
    assert!(world.refused(&format!("reinstate {old}")).contains("was revoked"));
    assert!(world.refused(&format!("retire {old}")).contains("was revoked"));
}

#[test]
fn a_key_that_nothing_uses_is_retired_after_the_time_that_was_set_and_not_before() {
    let mut world = World::new();
    world.timing.period = None;
    world.ask("rotate sealing");
    world.settle();
    let old = world.keys()[0].0;
    let is_retired = |world: &World| world.document.sealing_entry(old).unwrap().is_retired();
    world.run_for(DAY * 100);
    assert!(!is_retired(&world), "never, unless it was asked for");
    world.timing.retain = Some(DAY * 10);
    world.seen.used = Some([(old, 1)].into());
    world.run_for(DAY * 100);
    assert!(!is_retired(&world), "it is used");
    world.seen.used = None;
    world.run_for(DAY);
    assert!(!is_retired(&world), "it is not known");
    world.seen.used = Some(BTreeMap::new());
    world.run_for(DAY * 9);
    assert!(!is_retired(&world));
    // Used again for a moment: it counts from there.
    world.seen.used = Some([(old, 1)].into());
    world.run_for(DAY);
    world.seen.used = Some(BTreeMap::new());
    world.run_for(DAY * 9);
    assert!(!is_retired(&world));
    world.restart();
    world.run_for(DAY * 2);
    assert!(is_retired(&world), "{:?}", world.steps.iter().rev().take(5).collect::<Vec<_>>());
    let notes = world.steps.iter().filter(|step| matches!(step, Step::Note(_))).count();
    assert_eq!(notes, 3, "it writes what has changed");
    // An active key is never retired, however long nothing uses it.
    world.run_for(DAY * 400);
    assert_eq!(world.states(), [State::Revoked, State::Active]);
}

#[test]
fn a_keyring_without_an_active_key_gets_one() {
    let mut world = World::new();
    for entry in world.document.entries.iter_mut().filter(|entry| entry.purpose == Purpose::Sealing) {
        entry.state = State::Revoked;
    }
    assert_eq!(world.step(), Step::Wait(world.timing.grace));
    assert_eq!(world.step(), Step::Begin);
    world.settle();
    assert_eq!(world.states(), [State::Revoked, State::Active]);
}

#[test]
fn a_clock_that_is_set_by_a_day_makes_no_second_key_and_ends_the_rotation() {
    let day = SignedDuration::from_hours(24);
    for by in [day, -day] {
        for at in 0..4 {
            let mut world = World::new();
            world.ask("rotate sealing");
            for _ in 0..at {
                world.step();
            }
            world.wall = world.wall.checked_add(by).unwrap();
            let led = world.seen.leading;
            world.settle();
            assert!(world.seen.leading.saturating_sub(led) <= world.timing.pending, "{by} {at}: {:?}", world.steps);
            world.wall = world.wall.checked_add(-by).unwrap();
            world.run_for(DAY);
            assert_eq!(world.states(), [State::OpenOnly, State::Active], "{by} {at}");
        }
    }
}
