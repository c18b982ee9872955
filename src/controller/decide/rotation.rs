//! When a generated value is replaced by a new one. Pure.
//!
//! Two things ask for it: a changed `generate.revision`, which the record's source names, and `generate.rotateEvery`, which
//! counts from the record's `value-updated`. Both are in the authenticated record, and the write of the record moves them,
//! so a crash, a restart or another operator cannot rotate a second time, and a long downtime is made up for by one
//! rotation.
//!
//! The schedule goes by the wall clock of the operator, for what it counts from outlives the process. `value-updated`
//! never goes back. So a clock that jumps forwards rotates once, at most, and when it is corrected, the next rotation
//! comes late by as much as the clock was wrong.

use std::time::Duration;

use jiff::Timestamp;
use managed_secrets_api::{ManagedSecretSpec, types::Delivery};
use uuid::Uuid;

use super::super::{
    facts::Facts,
    record::{RecordMeta, Source},
};

/// A rotation comes later than asked for by up to this part of the period.
const SPREAD: u64 = 20;

/// Whether a generated value that the record `before` has is to be replaced now.
pub(super) fn is_wanted(facts: &Facts, before: &RecordMeta) -> bool {
    let Some(generate) = &facts.snapshot.own.spec.generate else { return false };
    let Source::Generate { revision } = &before.source else { return false };
    let is_asked_for = generate.revision.is_some() && generate.revision != *revision;
    // A record of an earlier object is taken over first.
    let is_bound = before.uid == facts.snapshot.own.uid;
    is_asked_for || is_bound && wait(facts, before).is_some_and(|wait| wait.is_zero())
}

/// How long until the schedule asks for the next value; `None` if it does not, or if the present value waits for its
/// delivery, which comes first.
pub(super) fn wait(facts: &Facts, record: &RecordMeta) -> Option<Duration> {
    let spec = &facts.snapshot.own.spec;
    // While a version is named, a new value would not be delivered.
    let due = next(spec, record).filter(|_| spec.pinned().is_none() && is_delivered(facts, record))?;
    Some(due.duration_since(facts.snapshot.now).try_into().unwrap_or(Duration::ZERO))
}

/// When the schedule asks for the next value, if there is one.
pub(super) fn next(spec: &ManagedSecretSpec, record: &RecordMeta) -> Option<Timestamp> {
    let every = spec.generate.as_ref()?.rotate_every()?;
    let last: Timestamp = record.value_updated.parse().ok()?;
    last.checked_add(every + spread(every, &record.id)).ok()
}

/// Secrets of the same age do not rotate in the same minute: an id is random.
fn spread(every: Duration, id: &str) -> Duration {
    let share = Uuid::try_parse(id).map_or(0, |id| id.as_u128() & u128::from(u32::MAX));
    let most = u128::from(every.as_secs() / SPREAD);
    Duration::from_secs(u64::try_from((most * share) >> u32::BITS).unwrap_or_default())
}

/// Whether the target has the newest value, or there is none to have it. Otherwise pods would miss one value after the
/// other, and the one that they have would be lost. After a failed write of the target, status has the version before.
fn is_delivered(facts: &Facts, record: &RecordMeta) -> bool {
    let own = &facts.snapshot.own;
    let is_newest = own.status.delivered().and_then(|version| u64::try_from(version).ok()) == Some(record.version);
    let has_target = own.status.target.as_ref().is_some_and(|target| !target.resource_version.is_empty());
    own.spec.delivery() == Delivery::None || is_newest && has_target
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn rotations_are_spread_over_a_twentieth_of_the_period() {
        let every = 720 * HOUR;
        let spreads: Vec<_> = (0..10_000).map(|_| spread(every, &Uuid::new_v4().to_string())).collect();
        assert!(spreads.iter().all(|spread| *spread < 36 * HOUR));
        // 10,000 in 36 hours: five in a minute, on average.
        let minute = |spread: &Duration| spread.as_secs() / 60;
        let mut minutes: Vec<_> = spreads.iter().map(minute).collect();
        minutes.sort_unstable();
        let most = minutes.chunk_by(|one, other| one == other).map(<[u64]>::len).max().unwrap();
        assert!(most < 40, "{most} in one minute");
    }

    #[test]
    fn the_spread_belongs_to_the_id() {
        let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3dffffffff";
        assert_eq!(spread(20 * HOUR, id), Duration::from_secs(3599));
        assert_eq!(spread(20 * HOUR, &id.replace("ffffffff", "80000000")), HOUR / 2);
        assert_eq!(spread(20 * HOUR, "no id"), Duration::ZERO);
    }
}
