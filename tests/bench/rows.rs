//! The rows of the benchmark: a module each.

pub(crate) mod burst;
pub(crate) mod latency;
pub(crate) mod reads;

use crate::{plot::Plot, report::Figure};

/// How large the rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Objects of a burst.
    pub(crate) objects: usize,
    /// Repetitions of each figure.
    pub(crate) repetitions: usize,
    /// Edits, reads or writes of each repetition whose latency is taken.
    pub(crate) samples: usize,
    /// Objects that are applied and delivered at once; when absent, the number with which a bare client is fastest.
    pub(crate) at_once: Option<usize>,
}

/// What a row found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) figures: Vec<Figure>,
    pub(crate) plots: Vec<Plot>,
}

/// Says what is being measured. The figures go to standard output, and this does not.
pub(crate) fn progress(what: &str) {
    eprintln!("· {what}");
}

/// A number for arithmetic with measured ones.
#[allow(clippy::cast_precision_loss, reason = "numbers of objects and requests are far below 2^52")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}
