//! Replicas that compete for a Lease in simulated time: requests and answers are late or lost, processes are paused at any
//! moment and continue with what they had decided, clocks run at different speeds, and wall clocks show anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "times are positive and some minutes long"
)]

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use k8s_openapi::{api::coordination::v1::LeaseSpec, jiff::Timestamp};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;

use super::{
    Durations,
    candidate::{Candidate, Step, holder},
};

/// True time, in microseconds.
type Time = u64;

const SECOND: Time = 1_000_000;
const END: Time = 900 * SECOND;

/// A Lease and its resourceVersion.
type Stored = Option<(LeaseSpec, u64)>;

enum Event {
    /// A try begins.
    Try,
    /// The API server receives a read.
    Read { try_: u64, lost: bool },
    /// The replica receives the answer.
    Found { try_: u64, stored: Stored },
    /// The API server receives a write that was decided on a version.
    Write { try_: u64, spec: LeaseSpec, on: Option<u64>, sent: Instant, lost: bool },
    /// The replica receives the answer: what was stored, or a conflict.
    Written { try_: u64, stored: Stored, sent: Instant },
    /// The replica gives up a try without an answer.
    GiveUp { try_: u64 },
}

struct Replica {
    candidate: Candidate,
    /// Of its clock: seconds in a true second.
    speed: f64,
    /// The Lease as it wrote it last.
    known: Stored,
    /// Counts tries: answers to earlier ones come too late.
    try_: u64,
    /// It does nothing until then.
    paused: Time,
    /// True time until which it believes that it is the leader.
    leads_until: Time,
    /// The processes that it was so far.
    lives: u64,
}

struct World {
    random: StdRng,
    durations: Durations,
    began: Instant,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    pending: HashMap<u64, (usize, Event)>,
    number: u64,
    replicas: Vec<Replica>,
    stored: Stored,
    version: u64,
    leaders: Vec<String>,
}

impl World {
    fn new(seed: u64, durations: Durations, speeds: (f64, f64)) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(2..5);
        let replicas = (0..count)
            .map(|number| Replica {
                candidate: Candidate::new(format!("{number}-0"), durations),
                speed: random.random_range(speeds.0..=speeds.1),
                known: None,
                try_: 0,
                paused: 0,
                leads_until: 0,
                lives: 0,
            })
            .collect();
        let mut world = Self {
            random,
            durations,
            began: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            number: 0,
            replicas,
            stored: None,
            version: 0,
            leaders: Vec::new(),
        };
        for replica in 0..count {
            world.after(replica, 0, Event::Try);
        }
        world
    }

    fn after(&mut self, replica: usize, delay: Time, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + delay, self.number)));
        self.pending.insert(self.number, (replica, event));
    }

    /// What the clock of a replica shows.
    fn local(&self, replica: usize) -> Instant {
        let seconds = self.now as f64 / SECOND as f64 * self.replicas[replica].speed;
        self.began + Duration::from_secs_f64(seconds)
    }

    fn true_time(&self, replica: usize, local: Instant) -> Time {
        ((local - self.began).as_secs_f64() / self.replicas[replica].speed * SECOND as f64) as Time
    }

    /// A delay that is short, rarely some seconds, and more rarely longer than any deadline.
    fn delay(&mut self) -> Time {
        match self.random.random_range(0..100) {
            0..85 => self.random.random_range(0..SECOND / 20),
            85..97 => self.random.random_range(0..4 * SECOND),
            _ => self.random.random_range(0..40 * SECOND),
        }
    }

    fn lost(&mut self) -> bool {
        self.random.random_range(0..100) < 8
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while let Some(Reverse((at, number))) = self.events.pop() {
            if at > END {
                return Ok(());
            }
            self.now = at;
            let (replica, event) = self.pending.remove(&number).unwrap();
            let of_server = matches!(event, Event::Read { .. } | Event::Write { .. });
            if !of_server && self.replicas[replica].paused > at {
                self.after(replica, self.replicas[replica].paused - at, event);
                continue;
            }
            self.happens(replica, event)?;
            if !of_server && self.random.random_range(0..100) < 4 {
                self.replicas[replica].paused = at + self.delay();
            }
        }
        Ok(())
    }

    fn happens(&mut self, replica: usize, event: Event) -> Result<(), TestCaseError> {
        let now = self.local(replica);
        let current = self.replicas[replica].try_;
        match event {
            Event::Try => {
                if self.replicas[replica].candidate.leads_until().is_some_and(|until| until <= now) {
                    self.dies(replica);
                    return Ok(());
                }
                self.replicas[replica].try_ += 1;
                let try_ = current + 1;
                self.after(replica, 5 * SECOND, Event::GiveUp { try_ });
                let known = self.replicas[replica].known.take();
                let (delay, lost) = (self.delay(), self.lost());
                if known.is_some() {
                    self.after(replica, 0, Event::Found { try_, stored: known });
                } else {
                    self.after(replica, delay, Event::Read { try_, lost });
                }
            }
            Event::Read { try_, lost } => {
                let (delay, stored) = (self.delay(), self.stored.clone());
                if !lost {
                    self.after(replica, delay, Event::Found { try_, stored });
                }
            }
            Event::Found { try_, stored } if try_ == current => {
                let time = Timestamp::from_second(self.random.random_range(-1_000_000..1_000_000)).unwrap();
                let on = stored.as_ref().map(|(_, version)| *version);
                match self.replicas[replica].candidate.step(stored.map(|(spec, _)| spec), now, time) {
                    Step::Write(spec) => {
                        let (delay, lost) = (self.delay(), self.lost());
                        self.after(replica, delay, Event::Write { try_, spec, on, sent: now, lost });
                    }
                    Step::Wait { .. } => self.again(replica),
                    Step::Stop(_) => self.dies(replica),
                }
            }
            Event::Write { try_, spec, on, sent, lost } => {
                let present = self.stored.as_ref().map(|(_, version)| *version);
                let mut answer = None;
                if !lost && present == on {
                    self.version += 1;
                    self.stored = Some((spec, self.version));
                    answer = self.stored.clone();
                }
                let delay = self.delay();
                if !self.lost() {
                    self.after(replica, delay, Event::Written { try_, stored: answer, sent });
                }
            }
            Event::Written { try_, stored, sent } if try_ == current => {
                if let Some((spec, version)) = stored {
                    self.replicas[replica].known = Some((spec.clone(), version));
                    self.won(replica, spec, sent)?;
                }
                self.again(replica);
            }
            Event::GiveUp { try_ } if try_ == current => self.again(replica),
            Event::Found { .. } | Event::Written { .. } | Event::GiveUp { .. } => {}
        }
        Ok(())
    }

    fn won(&mut self, replica: usize, spec: LeaseSpec, sent: Instant) -> Result<(), TestCaseError> {
        let name = holder(&spec).unwrap().to_owned();
        let until = self.replicas[replica].candidate.won(spec, sent).expect("it is the holder");
        let until = self.true_time(replica, until);
        if until <= self.now {
            return Ok(());
        }
        for (other, it) in self.replicas.iter().enumerate().filter(|(other, _)| *other != replica) {
            let end = it.leads_until;
            prop_assert!(
                end <= self.now,
                "at {} both {replica} (until {until}) and {other} (until {end}) lead",
                self.now
            );
        }
        self.replicas[replica].leads_until = until;
        if self.leaders.last() != Some(&name) {
            self.leaders.push(name);
        }
        Ok(())
    }

    /// The next try of a replica: answers to the present one come too late.
    fn again(&mut self, replica: usize) {
        self.replicas[replica].try_ += 1;
        let (retry, now) = (self.durations.retry, self.local(replica));
        let until = self.replicas[replica].candidate.until().map(|until| until.saturating_duration_since(now));
        let pause = until.filter(|left| !left.is_zero()).map_or(retry, |left| left.min(retry));
        self.after(replica, u64::try_from(pause.as_micros()).unwrap(), Event::Try);
    }

    /// The process ends, and another begins in its place.
    fn dies(&mut self, replica: usize) {
        let it = &mut self.replicas[replica];
        it.lives += 1;
        it.try_ += 1;
        it.known = None;
        it.candidate = Candidate::new(format!("{replica}-{}", it.lives), self.durations);
        let delay = self.delay();
        self.after(replica, delay, Event::Try);
    }
}

/// Clocks whose ratio is within what the durations allow: 15 to 10.
const SPEEDS: (f64, f64) = (0.82, 1.22);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_two_replicas_lead_at_one_time(seed: u64) {
        World::new(seed, Durations::default(), SPEEDS).run()?;
    }
}

#[test]
fn the_simulation_changes_leaders_often_and_finds_two_leaders_where_the_assumption_is_violated() {
    let mut changes = 0;
    for seed in 0..50 {
        let mut world = World::new(seed, Durations::default(), SPEEDS);
        world.run().unwrap();
        changes += world.leaders.len();
    }
    assert!(changes > 500, "{changes} changes of leader in 50 runs");
    // One clock runs at less than two thirds of the speed of another.
    let found = (0..50).any(|seed| World::new(seed, Durations::default(), (0.3, 2.0)).run().is_err());
    assert!(found, "the check cannot fail");
}
