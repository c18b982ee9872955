//! The rows of the benchmark: a module each.

pub(crate) mod admission;
pub(crate) mod burst;
pub(crate) mod crypto;
pub(crate) mod drift;
pub(crate) mod fairness;
pub(crate) mod latency;
pub(crate) mod many;
pub(crate) mod reads;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{plot::Plot, report::Figure};

/// How large the rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Objects of a burst.
    pub(crate) objects: usize,
    /// Objects of a large population.
    pub(crate) many: usize,
    /// Repetitions of each figure.
    pub(crate) repetitions: usize,
    /// Edits, reads or writes of each repetition whose latency is taken.
    pub(crate) samples: usize,
    /// For how long the CPU of an idle operator is measured.
    pub(crate) idle: Duration,
    /// Objects that are applied and delivered at once; when absent, the number with which a bare client is fastest.
    pub(crate) at_once: Option<usize>,
}

/// What a row found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) figures: Vec<Figure>,
    pub(crate) plots: Vec<Plot>,
}

/// Says what is being measured, and when. The figures go to standard output, and this does not.
pub(crate) fn progress(what: &str) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let seconds = BEGAN.get_or_init(Instant::now).elapsed().as_secs();
    eprintln!("{seconds:5} s  {what}");
}
