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
//! nothing more.

mod line;
mod operator;
mod oracle;
mod play;
mod regressions;
mod rest;
mod server;
mod steps;
mod store;

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestCaseError},
};

use self::{
    play::Play,
    steps::{Step, steps},
};

fn run(steps: &[Step]) -> Result<(), String> {
    run_with(steps, false)
}

fn run_with(steps: &[Step], attentive: bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
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

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        max_shrink_time: 30_000,
        // A failure that matters becomes one of the `regressions`: no file remembers it.
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        // The same every time, so that a change is told by what it breaks; whoever asks for more gets other ones.
        config.cases = 128;
        config.rng_seed = RngSeed::Fixed(3);
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_comes_to_rest_and_harms_nobody(steps in steps()) {
        run(&steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn one_attentive_operator_keeps_every_id_from_the_first_record_on(steps in steps()) {
        run_with(&steps, true).map_err(TestCaseError::fail)?;
    }
}
