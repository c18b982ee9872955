//! The overlap: for how long a target has the previous value beside the new one. Pure; the operator and `kubectl msec` use the
//! same definition.

use std::time::Duration;

use jiff::Timestamp;

use super::{duration, types::ManagedSecretSpec};

/// The key of the target that holds the previous value during the overlap.
#[must_use]
pub fn key(spec: &ManagedSecretSpec) -> Option<&str> {
    spec.target.as_ref()?.previous_key.as_deref()
}

/// How long the previous value stays beside a new one that came at `updated`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overlap {
    /// It is over, or there is none: no key is named, or what is delivered is not the newest.
    None,
    /// Until the next value.
    Open,
    /// Until then.
    Until(Timestamp),
}

impl Overlap {
    /// At `now`, for a spec and the date of its newest value.
    #[must_use]
    pub fn of(spec: &ManagedSecretSpec, updated: &str, now: Timestamp) -> Self {
        if key(spec).is_none() {
            return Self::None;
        }
        let Some(overlap) = spec.overlap.as_deref().and_then(duration::parse) else { return Self::Open };
        match ends(updated, overlap) {
            Some(end) if end > now => Self::Until(end),
            Some(_) => Self::None,
            // Beyond the calendar.
            None => Self::Open,
        }
    }
}

fn ends(updated: &str, overlap: Duration) -> Option<Timestamp> {
    updated.parse::<Timestamp>().ok()?.checked_add(overlap).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_overlap_begins_with_the_value_and_ends_on_time() {
        let spec = |target, overlap: Option<&str>| -> ManagedSecretSpec {
            serde_json::from_value(json!({"name": "DB", "target": target, "overlap": overlap})).unwrap()
        };
        let (updated, named) = ("2026-11-23T08:00:00Z", json!({"previousKey": "old"}));
        let at = |now: &str| -> Timestamp { now.parse().unwrap() };
        let end = at("2026-11-23T09:30:00Z");
        for (spec, now, expected) in [
            (spec(json!({}), Some("1h30m")), updated, Overlap::None),
            (spec(named.clone(), None), "2999-01-01T00:00:00Z", Overlap::Open),
            (spec(named.clone(), Some("1h30m")), updated, Overlap::Until(end)),
            // A clock that was set back.
            (spec(named.clone(), Some("1h30m")), "2026-11-22T08:00:00Z", Overlap::Until(end)),
            (spec(named.clone(), Some("1h30m")), "2026-11-23T09:29:59Z", Overlap::Until(end)),
            (spec(named.clone(), Some("1h30m")), "2026-11-23T09:30:00Z", Overlap::None),
            (spec(named, Some("0s")), updated, Overlap::None),
        ] {
            assert_eq!(Overlap::of(&spec, updated, at(now)), expected, "{spec:?} at {now}");
        }
    }
}
