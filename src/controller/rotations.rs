//! Counts rotations of generated values.
//!
//! In: the facts at the end of a pass. Out: numbers for metrics.

use managed_secrets_engine::stats::Counter;

use super::{
    act::End,
    facts::{Facts, Seen},
    record::Source,
};

/// The new value is in the record.
const SUCCESS: &str = "success";
/// It is not: a call failed, or admission control of others keeps it out. The next pass tries again.
const FAILURE: &str = "failure";

/// How a rotation ends.
pub const RESULTS: [&str; 2] = [SUCCESS, FAILURE];

/// How many rotations there were since the start.
#[derive(Debug, Default)]
pub(super) struct Rotations {
    done: Counter,
    failed: Counter,
}

impl Rotations {
    /// A pass has ended.
    pub(super) fn note(&self, facts: &Facts, end: &End) {
        if facts.written.record.as_ref().is_some_and(|record| record.rotates) {
            self.done.increment();
            return;
        }
        let is_generated = |source: &Source| matches!(source, Source::Generate { .. });
        // A value that became the record's is no longer an incoming one.
        let waits = facts.learned.incoming.as_ref().is_some_and(|incoming| is_generated(&incoming.source));
        let mut records = facts.all_present().filter_map(Seen::record);
        let replaces = records.any(|record| record.uid == facts.snapshot.own.uid && is_generated(&record.source));
        let failed = matches!(end, End::Failed(_)) || !facts.written.altered.is_empty();
        if waits && replaces && failed {
            self.failed.increment();
        }
    }

    /// How many ended in each way.
    pub(super) fn counts(&self) -> [(&'static str, u64); 2] {
        [(SUCCESS, self.done.get()), (FAILURE, self.failed.get())]
    }
}
