//! What is to be written on a workload. Pure.

use std::collections::BTreeMap;

use managed_secrets_api::restarts::{Mark, key};

use super::{Delivered, Name};

/// A workload, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Marks on its pod template.
    pub(super) template: BTreeMap<String, String>,
    /// Marks on its own metadata.
    pub(super) metadata: BTreeMap<String, String>,
}

impl Seen {
    /// The mark of an object. That on the template goes back with it: by `kubectl rollout undo`, which starts the pods, too.
    fn mark(&self, object: &str) -> Option<&str> {
        let key = key(object);
        self.metadata.get(&key).or_else(|| self.template.get(&key)).map(String::as_str)
    }
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
    for (name, Delivered { mark, replaces, again, .. }) in objects {
        let key = key(name);
        let text = mark.to_string();
        let restart = match seen.mark(name).map(Mark::read) {
            Some(Some(has)) if has == *mark && !again => continue,
            Some(_) => true,
            None => replaces.is_some(),
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

/// The objects for which the workload is due for a restart.
#[must_use]
pub(super) fn due(seen: &Seen, objects: &BTreeMap<Name, Delivered>) -> Vec<Name> {
    let restarts = judge(seen, objects).map(|marks| marks.restarts).unwrap_or_default();
    restarts.into_iter().map(|(name, _)| name).collect()
}

/// The marks to write that restart nothing, and the objects for which the workload is due for a restart. One that is due, and
/// has no mark, gets that of the version before, and one that has the mark of what is delivered gets one that says no version:
/// from then on, what is left to do follows from the workload.
#[must_use]
pub(super) fn without_restarts(seen: &Seen, objects: &BTreeMap<Name, Delivered>) -> (Option<Marks>, Vec<Name>) {
    let due = due(seen, objects);
    let mut others = objects.clone();
    others.retain(|name, _| !due.contains(name));
    let marks = judge(seen, &others);
    let unchanged = || Marks { template: seen.template.clone(), metadata: seen.metadata.clone(), ..Marks::default() };
    let mut marks = marks.unwrap_or_else(unchanged);
    for (name, Delivered { mark, replaces, .. }) in objects.iter().filter(|(name, _)| due.contains(name)) {
        let text = match seen.mark(name).map(Mark::read) {
            None => replaces.as_ref().map(ToString::to_string),
            Some(has) => (has.as_ref() == Some(mark)).then(|| mark.pending()),
        };
        if let Some(text) = text {
            marks.metadata.insert(key(name), text);
        }
    }
    ((marks.template != seen.template || marks.metadata != seen.metadata).then_some(marks), due)
}
