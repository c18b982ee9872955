//! A model of one namespace in which the real pass runs: real `decide`, world, index, calls and cryptography, against an
//! API server in memory. Only tests.
//!
//! ```text
//!  steps ──▶ play ──▶ operators ──(line: faults, meanwhile)──▶ server ──▶ oracle: at every write
//!                        ▲                                       │
//!                        └────────── log of changes ◀────────────┘      rest: at the end
//! ```
//!
//! Whatever happened, everything must come to rest in a bounded number of passes, woken by events alone, and then write
//! nothing more. `make test` runs a fixed set of seeds, `make simulate` fresh ones.

mod line;
mod operator;
mod oracle;
mod play;
mod regressions;
mod rest;
mod server;
mod steps;
mod store;
mod templates;
mod versions;
mod workload;

use std::time::{Duration, Instant};

use proptest::{
    prelude::ProptestConfig,
    test_runner::{RngSeed, TestCaseError, TestRunner},
};

use self::{
    play::Play,
    steps::{Step, steps},
};

fn run(steps: &[Step]) -> Result<(), String> {
    run_with(steps, false)
}

fn run_with(steps: &[Step], attentive: bool) -> Result<(), String> {
    let runtime = runtime();
    runtime.block_on(async {
        let play = Play::new(attentive);
        let outcome = async {
            for step in steps {
                play.step(step).await;
                play.verdict()?;
            }
            play.come_to_rest().await?;
            play.verdict()
        };
        outcome.await.map_err(|wrong| {
            // Each step as the code that makes it, so that a failure becomes a test by copying.
            let steps: Vec<String> = steps.iter().map(|step| format!("    {step:?},")).collect();
            format!("{wrong}\n{}\n{}", steps.join("\n"), play.story())
        })
    })
}

/// Time stands still, but for what the model says has passed.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Seeds that `make test` runs: the same every time, so that a change is told by what it breaks.
const SEEDS: [u64; 4] = [3, 17, 2026, 81_549];
/// Sequences that one seed gives.
const CASES: u32 = 64;
/// For so many seconds, `make simulate` tries fresh seeds.
const SECONDS: &str = "SIMULATE_SECONDS";
/// The one seed to run, which an earlier run printed.
const SEED: &str = "SIMULATE_SEED";

/// Holds a property against the sequences of every seed that is asked for.
#[allow(clippy::print_stdout, reason = "`make simulate` shows it")]
fn hold(property: impl Fn(&[Step]) -> Result<(), String>) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("must be a number"));
    if let Some(seed) = number(SEED) {
        return hold_for(seed, &property);
    }
    let Some(seconds) = number(SECONDS) else {
        return SEEDS.iter().for_each(|seed| hold_for(*seed, &property));
    };
    let began = Instant::now();
    let mut seeds = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        hold_for(rand::random(), &property);
        seeds += 1;
    }
    println!("{seeds} fresh seeds of {CASES} sequences each");
}

fn hold_for(seed: u64, property: &impl Fn(&[Step]) -> Result<(), String>) {
    let config = ProptestConfig {
        cases: CASES,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_time: 30_000,
        // A failure that matters becomes one of the `regressions`: no file remembers it.
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&steps(), |steps| property(&steps).map_err(TestCaseError::fail));
    if let Err(wrong) = outcome {
        panic!("seed {seed} fails; to run it again: make simulate SEED={seed}\n{wrong}");
    }
}

#[test]
fn any_sequence_comes_to_rest_and_does_no_harm() {
    hold(run);
}

#[test]
fn one_attentive_operator_keeps_every_id_from_the_first_record_on() {
    hold(|steps| run_with(steps, true));
}
