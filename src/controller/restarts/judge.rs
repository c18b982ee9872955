//! What is to be written on a workload. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use managed_secrets_api::restarts::{Mark, key};

use super::{Delivered, Name};

/// A workload, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// When it was created.
    pub(super) created: Timestamp,
    /// Marks on its pod template.
    pub(super) template: BTreeMap<String, String>,
    /// Marks on its own metadata.
    pub(super) metadata: BTreeMap<String, String>,
}

/// All marks of a workload, as they are to be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Marks {
    /// On its pod template.
    pub(super) template: BTreeMap<String, String>,
    /// On its own metadata.
    pub(super) metadata: BTreeMap<String, String>,
    /// The objects for which it is restarted, and their versions.
    pub(super) restarts: Vec<(Name, i64)>,
}

/// The marks to write; nothing if they are as they should be. Marks of objects that are not known here stay.
#[must_use]
pub(super) fn judge(seen: &Seen, objects: &BTreeMap<Name, Delivered>) -> Option<Marks> {
    let mut marks = Marks { template: seen.template.clone(), metadata: seen.metadata.clone(), ..Marks::default() };
    for (name, Delivered { mark, replaced }) in objects {
        let key = key(name);
        let text = mark.to_string();
        // That on the template goes back with it: by `kubectl rollout undo`, which starts the pods, too.
        let has = marks.metadata.get(&key).or_else(|| marks.template.get(&key));
        let restart = match has.map(|text| Mark::read(text)) {
            Some(Some(has)) if has == *mark => continue,
            Some(_) => true,
            // Pods of a workload that was created later have the new value.
            None => replaced.is_some_and(|replaced| seen.created <= replaced),
        };
        if restart {
            let present = seen.template.get(&key).map(String::as_str);
            marks.template.insert(key.clone(), mark.restarting(present));
            marks.restarts.push((Name::clone(name), mark.version));
        }
        marks.metadata.insert(key, text);
    }
    (marks.template != seen.template || marks.metadata != seen.metadata).then_some(marks)
}

/// The objects that delivered an earlier version than their marks say. Either they went back to it, or the cache is behind.
#[must_use]
pub(super) fn earlier(seen: &Seen, objects: &BTreeMap<Name, Delivered>) -> Vec<Name> {
    let is_earlier = |name: &Name, delivered: &Delivered| {
        let key = key(name);
        let text = seen.metadata.get(&key).or_else(|| seen.template.get(&key));
        let has = text.and_then(|text| Mark::read(text));
        has.is_some_and(|has| has.id == delivered.mark.id && has.version > delivered.mark.version)
    };
    let names = objects.iter().filter(|(name, delivered)| is_earlier(name, delivered));
    names.map(|(name, _)| Name::clone(name)).collect()
}

/// The marks to write that restart nothing, and whether the workload is due for a restart.
#[must_use]
pub(super) fn without_restarts(seen: &Seen, objects: &BTreeMap<Name, Delivered>) -> (Option<Marks>, bool) {
    let due = judge(seen, objects).map(|marks| marks.restarts).unwrap_or_default();
    let mut others = objects.clone();
    for (name, _) in &due {
        others.remove(name);
    }
    (judge(seen, &others), !due.is_empty())
}
