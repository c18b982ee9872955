//! What happens to a cluster happens to an installation of two replicas: its API server restarts, changes its certificate or
//! is away, its tokens rotate, its etcd is slow, its clocks are wrong, and thousands of objects come at once. Nothing is lost,
//! and no storm of requests follows.
//!
//! The replicas are processes that find the cluster as pods do, by a mounted service account, and a [`cluster::Pod`] restarts
//! them as a kubelet does. `make faults` runs the same with the durations of a real outage, the released program and 20,000
//! objects, and prints a table; `make test` runs it in seconds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod authority;
mod cluster;
mod crowd;
mod report;
mod sequence;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::program::PROGRAM;

/// `long` asks for the durations of real outages; `whole`, for all faults, as soon as they are noticed.
const LENGTH: &str = "FAULTS";
/// The program to run; the one that was built with the tests, if it is not set.
const OTHER_PROGRAM: &str = "FAULTS_PROGRAM";

/// Flags of a leader election that does not take long.
const FAST_ELECTION: [&str; 3] =
    ["--leader-elect-lease-duration=3", "--leader-elect-renew-deadline=2", "--leader-elect-retry-period=1"];

/// How long the outages of `make faults` are.
const OUTAGES: &[Option<Duration>] = &[Some(Duration::from_secs(30)), Some(Duration::from_secs(300))];

/// One outage, which ends as soon as it is noticed.
const UNTIL_NOTICED: &[Option<Duration>] = &[None];

/// How long things last.
#[derive(Clone, Copy, Debug)]
struct Length {
    /// Each outage of the API server; `None`: until every replica has noticed it.
    outages: &'static [Option<Duration>],
    /// How long requests are counted before a fault.
    before: Duration,
    /// How long they are counted after the installation is in step again.
    after: Duration,
    /// ManagedSecrets that are served meanwhile.
    objects: usize,
    /// ManagedSecrets that are applied at once.
    crowd: usize,
    /// Whether etcd is slow, and clocks are set, as well.
    is_whole: bool,
    /// Flags of the leader election.
    election: &'static [&'static str],
    /// The longest that anything may take.
    patience: Duration,
}

impl Length {
    fn asked_for() -> Self {
        let seconds = Duration::from_secs;
        let asked_for = std::env::var(LENGTH).unwrap_or_default();
        if asked_for == "long" {
            return Self {
                outages: OUTAGES,
                before: seconds(15),
                after: seconds(60),
                objects: 300,
                crowd: 20_000,
                is_whole: true,
                election: &[],
                patience: seconds(1800),
            };
        }
        Self {
            outages: UNTIL_NOTICED,
            before: seconds(1),
            after: seconds(2),
            objects: 60,
            crowd: 300,
            is_whole: asked_for == "whole",
            // With a slow etcd, no Lease can be renewed that fast.
            election: if asked_for == "whole" { &[] } else { &FAST_ELECTION },
            patience: seconds(180),
        }
    }
}

/// The program under test.
fn program() -> PathBuf {
    std::env::var_os(OTHER_PROGRAM).map_or_else(|| PROGRAM.into(), PathBuf::from)
}

/// Compiles C source into a file of this folder: with the compiler that links Rust programs.
fn compiled(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (text, program) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&text, source).unwrap();
    let done = Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(&text).args(flags).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    program
}
