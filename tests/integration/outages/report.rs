//! Figures of faults, as a table.

use std::{fmt, time::Duration};

/// What one fault did.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) fault: String,
    /// Answered requests a second of all replicas: before, during and after.
    pub(super) before: f64,
    pub(super) during: f64,
    pub(super) after: f64,
    /// Requests a second without an answer, during the fault.
    pub(super) failed: f64,
    /// Requests that the API server's audit log has from the end of the fault on.
    pub(super) requests: usize,
    /// How many of them there may be.
    pub(super) bound: usize,
    /// How long the fault lasted.
    pub(super) lasted: Duration,
    /// How long it took until everything was in step again.
    pub(super) in_step: Duration,
    /// The longest time in which no edit was carried out.
    pub(super) gap: Duration,
    /// Restarts of replicas.
    pub(super) restarts: usize,
    /// The most memory of a replica, in KiB.
    pub(super) peak: u64,
}

/// The rows so far.
#[derive(Default)]
pub(super) struct Report(pub(super) Vec<Row>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "fault",
            "lasted",
            "in step",
            "no edit",
            "before",
            "during",
            "no answer",
            "after",
            "requests",
            "at most",
            "restarts",
            "peak",
        ];
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let rate = |rate: f64| format!("{rate:.1}/s");
        let rows = self.0.iter().map(|row| {
            [
                row.fault.clone(),
                seconds(row.lasted),
                seconds(row.in_step),
                seconds(row.gap),
                rate(row.before),
                rate(row.during),
                rate(row.failed),
                rate(row.after),
                row.requests.to_string(),
                row.bound.to_string(),
                row.restarts.to_string(),
                format!("{} MiB", row.peak / 1024),
            ]
        });
        for line in std::iter::once(head.map(str::to_owned)).chain(rows) {
            let [fault, rest @ ..] = line;
            write!(f, "{fault:<44}")?;
            for cell in rest {
                write!(f, "{cell:>10}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
