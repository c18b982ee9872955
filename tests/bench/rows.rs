//! The rows of the benchmark: a module each.

pub(crate) mod admission;
pub(crate) mod burst;
pub(crate) mod crypto;
pub(crate) mod drift;
pub(crate) mod fairness;
pub(crate) mod latency;
pub(crate) mod many;
pub(crate) mod reads;
pub(crate) mod rewrap;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use testkit::Result;

use crate::{plot::Plot, report::Figure, stats::float};

/// More objects at once than this were never faster.
const MAX_AT_ONCE: usize = 256;

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

/// Searches the number of objects at once with which the bare client is fastest: doubles it, until two doublings have not
/// helped. Returns it, and the rate with each number.
async fn fastest(size: Size, rate: impl AsyncFn(usize) -> Result<f64>) -> Result<(usize, Vec<(f64, f64)>)> {
    if let Some(at_once) = size.at_once {
        return Ok((at_once, Vec::new()));
    }
    let (mut best, mut best_rate, mut worse, mut at_once) = (1, 0.0, 0, 4);
    let mut curve = Vec::new();
    while worse < 2 && at_once <= MAX_AT_ONCE {
        let rate = rate(at_once).await?;
        curve.push((float(at_once), rate));
        if rate > best_rate * 1.02 {
            (best, best_rate, worse) = (at_once, rate, 0);
        } else {
            worse += 1;
        }
        at_once *= 2;
    }
    Ok((best, curve))
}

/// The plot of such rates.
fn ceiling(file: String, title: String, curve: Vec<(f64, f64)>) -> Plot {
    let lines = vec![("bare client".to_owned(), curve)];
    Plot { file, title, x: "objects at once", y: "objects per second", lines }
}
