//! Which versions of a value may be where: kept by the record, at the target, and at its `previousKey`. Pure, and told
//! from specs, records and times alone: what the operator makes of them is what is judged.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use managed_secrets_api::{ManagedSecretSpec, overlap::Overlap, record::Replaced, types::Delivery};

use super::oracle::OpenRecord;

/// What was so at some time, in order, each with the revision from which on it was.
pub(super) type Past<T> = Vec<(u64, T)>;

/// What was so at any time since a revision.
pub(super) fn since<T>(past: &[(u64, T)], revision: u64) -> &[(u64, T)] {
    let later = past.partition_point(|(from, _)| *from <= revision);
    &past[later.saturating_sub(1)..]
}

/// A request of an operator.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// The ManagedSecret that it works on.
    pub(super) about: String,
    /// The server's revision when the pass began.
    pub(super) since: u64,
    /// What the operator takes for the time, for the whole pass.
    pub(super) now: Timestamp,
}

/// The versions that a record has to keep, the newest first, which goes on from one of `version` that keeps `kept`: the
/// newest ones, as many as the spec asks for. While the spec names a version, that one and what is delivered come first, and
/// so does what is delivered `beside` it.
pub(super) fn kept(
    spec: &ManagedSecretSpec,
    base: Option<&OpenRecord>,
    version: u64,
    delivered: Option<u64>,
    beside: Option<u64>,
) -> Vec<u64> {
    let Some(base) = base else { return Vec::new() };
    let replaced = Some(base.meta.version).filter(|before| *before < version);
    let all = replaced.into_iter().chain(base.kept.keys().rev().copied());
    let pinned = spec.pinned();
    let first = [pinned, delivered.filter(|_| pinned.is_some()), beside];
    let is_held = |version: &u64| first.contains(&Some(*version));
    let (mut kept, others): (Vec<u64>, Vec<u64>) = all.partition(is_held);
    let room = spec.history().saturating_sub(kept.len());
    kept.extend(others.into_iter().take(room));
    kept.sort_unstable_by(|one, other| other.cmp(one));
    kept
}

/// The version that the newest has replaced, if that is not the one before it, as long as both are to be accepted.
pub(super) fn beside(spec: &ManagedSecretSpec, replaced: Option<&Replaced>, now: Timestamp) -> Option<u64> {
    let Replaced { version, until } = replaced?;
    (Overlap::of(spec, until, now) != Overlap::None).then_some(*version)
}

/// What a target may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Served {
    /// The delivered version.
    pub(super) version: u64,
    /// The version beside it, under the key of the previous value.
    pub(super) previous: Option<u64>,
    /// The spec names the delivered version, so it may be older than what was delivered before.
    pub(super) is_named: bool,
}

impl Served {
    /// What a record and the spec that it was made from ask for. Where the spec names a version that is not kept, what was
    /// delivered stays: any of these. Beside an earlier one there is none, unless that was delivered when a newer one came.
    pub(super) fn of(
        spec: &ManagedSecretSpec,
        record: &OpenRecord,
        delivered: &BTreeSet<u64>,
        now: Timestamp,
    ) -> Vec<Self> {
        let (newest, history) = (record.meta.version, &record.meta.history);
        let named = spec.pinned().filter(|pinned| *pinned != newest);
        let versions: Vec<u64> = match named {
            Some(pinned) if record.kept.contains_key(&pinned) => vec![pinned],
            Some(_) => delivered.iter().copied().collect(),
            None => vec![newest],
        };
        let told = history
            .previous(newest, &record.meta.value_updated)
            .filter(|(_, since)| spec.delivery() == Delivery::Secret && Overlap::of(spec, since, now) != Overlap::None);
        let beside = |version: u64| {
            let is_one = |kept: u64| version == newest || history.replaced().is_some() && kept < version;
            told.map(|(kept, _)| kept.version).filter(|kept| is_one(*kept))
        };
        let is_named = spec.pinned().is_some();
        versions.into_iter().map(|version| Self { version, previous: beside(version), is_named }).collect()
    }
}

/// The specs that there were: by uid and generation.
pub(super) type Specs = BTreeMap<(String, i64), ManagedSecretSpec>;

#[cfg(test)]
mod tests {
    use managed_secrets_api::{
        record::{History, KeptVersion},
        types::{DeletionPolicy, SourceKind},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::record::{Delivered, RecordMeta, Source};

    const UPDATED: &str = "2026-11-28T12:00:00Z";

    /// A record of this version that keeps these.
    fn record(version: u64, kept: &[u64]) -> OpenRecord {
        let date = || UPDATED.to_owned();
        let named = |version: &u64| KeptVersion {
            version: *version,
            commitment: [0; 32],
            created: date(),
            source: SourceKind::Generate,
        };
        let history = History::new(kept.iter().map(named).collect());
        let meta = RecordMeta {
            id: String::new(),
            owner: "db".to_owned(),
            uid: String::new(),
            name: "DB".to_owned(),
            description: String::new(),
            created: date(),
            updated: date(),
            value_updated: date(),
            version,
            generation: 1,
            deletion_policy: DeletionPolicy::Delete,
            source: Source::Generate { revision: None },
            target: Delivered::None,
            history,
        };
        let kept = kept.iter().map(|version| (*version, Some(Vec::new()))).collect();
        OpenRecord { meta, value: Vec::new(), kept, kept_keys: Vec::new() }
    }

    fn spec(more: &Value) -> ManagedSecretSpec {
        let mut spec = json!({"name": "DB", "generate": {}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_record_keeps_the_newest_and_what_is_named_and_delivered() {
        let five = record(5, &[2, 3, 4]);
        for (more, version, delivered, expected) in [
            (json!({"history": 3}), 5, Some(5), &[4, 3, 2][..]),
            (json!({"history": 3}), 6, Some(5), &[5, 4, 3]),
            (json!({"history": 10}), 6, Some(5), &[5, 4, 3, 2]),
            (json!({}), 6, Some(2), &[5]),
            (json!({"history": 0}), 6, Some(5), &[]),
            // One that is named is kept whatever the number, and what is delivered until it is delivered.
            (json!({"history": 0, "version": 2}), 6, Some(2), &[2]),
            (json!({"history": 0, "version": 3}), 6, Some(2), &[3, 2]),
            (json!({"history": 2, "version": 2}), 6, Some(2), &[5, 2]),
            (json!({"history": 1, "version": 5}), 6, Some(5), &[5]),
            // What is not there is not kept.
            (json!({"history": 3, "version": 1}), 5, Some(1), &[4, 3, 2]),
        ] {
            assert_eq!(kept(&spec(&more), Some(&five), version, delivered, None), expected, "{more} {version}");
        }
        // So is the one that is beside the newest.
        for (more, expected) in [(json!({}), [2]), (json!({"history": 0}), [2])] {
            assert_eq!(kept(&spec(&more), Some(&five), 6, Some(5), Some(2)), expected);
        }
        assert_eq!(kept(&spec(&json!({"history": 3})), None, 6, Some(5), None), [0; 0], "one that is made again");
    }

    #[test]
    fn a_target_has_one_version_and_during_the_overlap_the_one_before_it() {
        let served = |version, previous, is_named| vec![Served { version, previous, is_named }];
        let (key, delivered) = (json!({"previousKey": "old"}), BTreeSet::from([1]));
        let replacing = |version| {
            let mut record = record(5, &[3, 4]);
            let until = UPDATED.to_owned();
            record.meta.history = record.meta.history.with_replaced(Some(Replaced { version, until }));
            record
        };
        for (more, record, now, expected) in [
            (json!({}), record(5, &[3, 4]), UPDATED, served(5, None, false)),
            (json!({"target": key}), record(5, &[3, 4]), UPDATED, served(5, Some(4), false)),
            (json!({"target": key}), replacing(3), UPDATED, served(5, Some(3), false)),
            (json!({"target": key}), record(5, &[]), UPDATED, served(5, None, false)),
            (
                json!({"target": key, "overlap": "1h"}),
                record(5, &[4]),
                "2026-11-28T12:59:59Z",
                served(5, Some(4), false),
            ),
            (json!({"target": key, "overlap": "1h"}), record(5, &[4]), "2026-11-28T13:00:00Z", served(5, None, false)),
            (json!({"target": key, "version": 3}), record(5, &[3, 4]), UPDATED, served(3, None, true)),
            (json!({"target": key, "version": 4}), replacing(3), UPDATED, served(4, Some(3), true)),
            (json!({"target": key, "version": 5}), record(5, &[3, 4]), UPDATED, served(5, Some(4), true)),
            // What was delivered stays.
            (json!({"target": key, "version": 2}), record(5, &[3, 4]), UPDATED, served(1, None, true)),
        ] {
            assert_eq!(
                Served::of(&spec(&more), &record, &delivered, now.parse().unwrap()),
                expected,
                "{more} at {now}"
            );
        }
    }

    #[test]
    fn what_was_so_since_a_revision_begins_with_what_was_so_then() {
        let past: Past<char> = vec![(3, 'a'), (5, 'b'), (9, 'c')];
        for (revision, expected) in [(0, "abc"), (3, "abc"), (4, "abc"), (5, "bc"), (8, "bc"), (9, "c"), (20, "c")] {
            assert_eq!(since(&past, revision).iter().map(|(_, it)| *it).collect::<String>(), expected, "{revision}");
        }
    }
}
