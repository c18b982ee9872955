//! Restarts of workloads after a new value is delivered: for pods that read variables, or never read a file again.
//!
//! ```text
//!  pass of a ManagedSecret ──▶ note ──▶ queue of workloads ──▶ read ──▶ judge (pure) ──▶ one apply of all marks
//!                                             ▲                  │ ▲
//!                                             └────── 10 s ──────┘ mark on the workload, and what is delivered
//! ```
//!
//! A [mark](managed_secrets_api::restarts) on the workload's metadata says which version its pods have. What is left to do
//! follows from it and from `status`, so a crash loses nothing, and no delivery restarts a workload twice as long as its mark
//! stays. A version that is delivered again, after another one, restarts it again. A restart writes the mark there and on the
//! pod template, in one request, and always changes the template. The first mark of a workload is on its metadata alone, where
//! it restarts nothing: so naming a workload in `spec.target.restart` restarts it only when another version is delivered. A
//! mark stays when a workload is no longer named, so a workload that is named again is restarted at once if another version is
//! delivered than its mark says.
//!
//! A workload is looked at as soon as a new value is delivered, and restarted ten seconds later, together with what comes
//! meanwhile. The first look decides whether the pods are older than the value: they are if the workload exists. If it has no
//! mark, it gets that of the version before, from which the restart follows also after a crash. No clock is compared.
//!
//! If a version is taken back before the restart, pods that started meanwhile have it, although the mark says the version that
//! is delivered again. The next look then writes a [mark that says no version](Mark::pending), from which the restart follows.
//! An operator that ends before that look does not know of that version.
//!
//! | module | what it does |
//! |---|---|
//! | [`judge`] | from marks and versions to what is to be written |
//! | [`condition`] | `RestartBlocked`: what could not be restarted |
//! | [`run`] | reads and writes workloads |

pub(super) mod condition;
mod judge;
pub(super) mod run;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use managed_secrets_api::{restarts::Mark, types::Workload};
use managed_secrets_engine::queue::{Grouped, Priority, Queue};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    index::{Key, Name},
    view::Own,
};

/// New values that come within this time, and concern one workload, restart it once.
const TOGETHER: Duration = Duration::from_secs(10);

/// A workload in its namespace.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Place {
    /// Namespace.
    pub(super) namespace: Name,
    /// Kind and name.
    pub(super) workload: Workload,
}

impl Grouped for Place {
    type Group = Name;

    fn group(&self) -> &Name {
        &self.namespace
    }
}

/// What an object has delivered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Delivered {
    /// Its id and version.
    pub(super) mark: Mark,
    /// What this object delivered before, until a look has found the workload, or that it does not exist: pods of a workload
    /// without a mark have that other value.
    pub(super) replaces: Option<Mark>,
    /// Whether this operator delivered another version since the workload was last restarted or found up to date, and replaced
    /// it by this one. Pods that started meanwhile have that version, so the workload is restarted even if its mark says this
    /// one. Until a look has found the workload.
    pub(super) again: bool,
    /// Whether this operator delivered it, and a look has found that it is due for a restart. Until the restart.
    pub(super) due: bool,
}

/// What became of the last look at a workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Its marks are as they should be.
    Marked,
    /// It does not exist.
    Missing,
    /// The API server does not let the operator read or write it; why.
    Refused(String),
}

/// What is known of a workload.
#[derive(Debug)]
struct Known {
    /// The objects that name it.
    objects: BTreeMap<Name, Delivered>,
    /// Nothing before the first look.
    outcome: Option<Outcome>,
    /// Until then it is marked, but not restarted: several new values are one restart, and after a start, the objects that
    /// name it come one after the other.
    collects_until: Instant,
}

impl Known {
    fn new() -> Self {
        Self { objects: BTreeMap::new(), outcome: None, collects_until: Instant::now() + TOGETHER }
    }

    /// A new value came.
    fn collect(&mut self) {
        let now = Instant::now();
        if self.collects_until <= now {
            self.collects_until = now + TOGETHER;
        }
    }

    /// Whether the last look could not mark it.
    const fn is_blocked(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Missing | Outcome::Refused(_)))
    }
}

#[derive(Debug, Default)]
struct State {
    workloads: HashMap<Place, Known>,
    /// The workloads that each object names, where it names some.
    named: HashMap<Key, Vec<Workload>>,
}

impl State {
    /// An object does not name a workload any more.
    fn leave(&mut self, key: &Key, workload: Workload) {
        let place = Place { namespace: Name::clone(&key.namespace), workload };
        if let Some(known) = self.workloads.get_mut(&place) {
            known.objects.remove(&key.name);
            if known.objects.is_empty() {
                self.workloads.remove(&place);
            }
        }
    }
}

/// What is to be restarted. It takes memory for objects with `spec.target.restart` only.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    state: Mutex<State>,
    queue: Queue<Place>,
    done: AtomicU64,
}

/// The workloads that an object names.
fn wanted(own: &Own) -> &[Workload] {
    own.spec.target.as_ref().and_then(|target| target.restart.as_deref()).unwrap_or_default()
}

impl Restarts {
    /// A pass of this object ended; `before` is what it had delivered when the pass began.
    pub(super) fn note(&self, key: &Key, before: Option<&Mark>, after: &Own) {
        let mut state = self.state.lock();
        let wanted = if after.deleting { &[] } else { wanted(after) };
        let named = state.named.remove(key).unwrap_or_default();
        let (stay, left): (Vec<_>, Vec<_>) = named.into_iter().partition(|workload| wanted.contains(workload));
        for workload in left {
            state.leave(key, workload);
        }
        let Some(mark) = Mark::delivered(&after.spec, &after.status) else {
            // What it delivered last stays known: it is what the next value replaces.
            if !stay.is_empty() {
                state.named.insert(key.clone(), stay);
            }
            return;
        };
        if wanted.is_empty() {
            return;
        }
        state.named.insert(key.clone(), wanted.to_vec());
        for workload in wanted {
            let place = Place { namespace: Name::clone(&key.namespace), workload: workload.clone() };
            let known = state.workloads.entry(place.clone()).or_insert_with(Known::new);
            let was = known.objects.get(&key.name);
            if was.is_some_and(|was| was.mark == mark) && !known.is_blocked() {
                // It is marked, or a look that will mark it is queued.
                continue;
            }
            let delivered = match was {
                Some(was) if was.mark == mark => was.clone(),
                Some(was) => {
                    let again = was.due || was.again || was.replaces.is_some();
                    Delivered { mark: mark.clone(), replaces: Some(was.mark.clone()), again, due: false }
                }
                None => {
                    let replaces = before.filter(|before| **before != mark).cloned();
                    Delivered { mark: mark.clone(), replaces, again: false, due: false }
                }
            };
            let is_new = delivered.replaces.is_some() && was.is_none_or(|was| was.mark != mark);
            known.objects.insert(Name::clone(&key.name), delivered);
            if is_new {
                known.collect();
            }
            // The sooner there is a mark, the less a crash can lose.
            let delay = if is_new || known.outcome.is_none() { Duration::ZERO } else { TOGETHER };
            self.queue.add_after(place, Priority::Woken, delay);
        }
    }

    /// An object is deleted.
    pub(super) fn forget(&self, key: &Key) {
        let mut state = self.state.lock();
        for workload in state.named.remove(key).unwrap_or_default() {
            state.leave(key, workload);
        }
    }

    /// What became of the last look at each workload that an object names; nothing for those that were not looked at yet.
    pub(super) fn outcomes(&self, own: &Own) -> Vec<(Workload, Option<Outcome>)> {
        let wanted = wanted(own);
        if wanted.is_empty() {
            return Vec::new();
        }
        let (namespace, state) = (Name::from(own.namespace.as_str()), self.state.lock());
        let outcome = |workload: &Workload| {
            let place = Place { namespace: Name::clone(&namespace), workload: workload.clone() };
            (workload.clone(), state.workloads.get(&place).and_then(|known| known.outcome.clone()))
        };
        wanted.iter().map(outcome).collect()
    }

    /// The workloads that are to be looked at.
    #[cfg(test)]
    pub(super) fn queue(&self) -> &Queue<Place> {
        &self.queue
    }

    /// How many workloads were restarted.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn objects(&self, place: &Place) -> BTreeMap<Name, Delivered> {
        self.state.lock().workloads.get(place).map(|known| known.objects.clone()).unwrap_or_default()
    }

    /// How long a workload is not to be restarted yet.
    fn collects_for(&self, place: &Place) -> Duration {
        let until = self.state.lock().workloads.get(place).map(|known| known.collects_until);
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }

    /// A workload has marks of these objects, or does not exist. From now on, a mark that is missing is no reason to restart it
    /// for what they have delivered: another program removed the mark, or the workload is newer. For those that are `due`, it is
    /// still to be restarted.
    fn settled(&self, place: &Place, objects: &BTreeMap<Name, Delivered>, due: &[Name]) {
        let mut state = self.state.lock();
        let Some(known) = state.workloads.get_mut(place) else { return };
        for (name, delivered) in &mut known.objects {
            if objects.get(name).is_some_and(|settled| settled.mark == delivered.mark) {
                // What a cache says after a start may be taken back already: that is no reason to restart anything.
                delivered.due = due.contains(name) && (delivered.due || delivered.replaces.is_some());
                (delivered.replaces, delivered.again) = (None, false);
            }
        }
    }

    /// A workload was looked at. Returns the objects that should say something else now.
    fn looked_at(&self, place: &Place, outcome: Outcome) -> Vec<Key> {
        let mut state = self.state.lock();
        let Some(known) = state.workloads.get_mut(place) else { return Vec::new() };
        let same = known.outcome.as_ref() == Some(&outcome);
        known.outcome = Some(outcome);
        if same {
            return Vec::new();
        }
        let key = |name: &Name| Key { namespace: Name::clone(&place.namespace), name: Name::clone(name) };
        known.objects.keys().map(key).collect()
    }
}
