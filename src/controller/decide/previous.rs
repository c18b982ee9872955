//! The previous value, which the target has beside the new one during the overlap. Pure.
//!
//! Which one it is, and until when, follows from the record's metadata and the spec. The target says in an annotation which
//! version it has under which key, so metadata alone tells whether it is up to date.

use std::time::Duration;

use managed_secrets_api::{
    keys::ANNO_PREVIOUS,
    overlap::{self, Overlap},
    record::{History, Unopened},
    types::Delivery,
};

use super::{
    super::{
        facts::{Facts, Seen},
        plan::{Need, Problem},
        view::{Own, SecretView},
    },
    history::{self, Serving},
};

/// An earlier version that the target has beside the delivered one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Previous {
    /// The version.
    pub(super) version: u64,
    /// Its key.
    pub(super) key: String,
}

/// What becomes of it.
#[derive(Debug)]
pub(super) enum Overlapping {
    /// There is none, or the overlap is over.
    No,
    /// The target has it.
    Yes(Previous),
    /// It cannot be delivered.
    Lost(Problem),
}

impl Previous {
    /// What the target says of it.
    pub(super) fn text(&self) -> String {
        format!("{}:{}", self.version, self.key)
    }
}

/// The previous value of a record that will say `history`, and whose newest value came at `updated`. `base` is the record
/// that there is.
pub(super) fn of(
    facts: &Facts,
    base: &Seen,
    serving: &Serving,
    history: &History,
    updated: &str,
) -> Result<Overlapping, Need> {
    let spec = &facts.snapshot.own.spec;
    // Beside an earlier version that the spec names, there is no newer one to move to.
    let is_newest = matches!(serving, Serving::Newest) && spec.delivery() == Delivery::Secret;
    let (Some(key), Some(kept)) = (overlap::key(spec), history.iter().next().filter(|_| is_newest)) else {
        return Ok(Overlapping::No);
    };
    if Overlap::of(spec, updated, facts.snapshot.now) == Overlap::None {
        return Ok(Overlapping::No);
    }
    Ok(match history::opened(facts, base, kept.version)? {
        Some(Err(unopened)) => Overlapping::Lost(lost(base, kept.version, unopened)),
        _ => Overlapping::Yes(Previous { version: kept.version, key: key.to_owned() }),
    })
}

fn lost(base: &Seen, version: u64, unopened: &Unopened) -> Problem {
    history::lost(&base.view.name, version, unopened, "it is not delivered as spec.target.previousKey")
}

/// How long the target still has the previous value; nothing if that has no end, or it has none.
pub(super) fn wait(facts: &Facts, previous: Option<&Previous>, updated: &str) -> Option<Duration> {
    let (own, now) = (&facts.snapshot.own, facts.snapshot.now);
    match Overlap::of(&own.spec, updated, now) {
        Overlap::Until(end) if previous.is_some() => end.duration_since(now).try_into().ok(),
        Overlap::Until(_) | Overlap::Open | Overlap::None => None,
    }
}

/// What the status says of it.
pub(super) fn text(facts: &Facts, previous: &Previous, updated: &str) -> String {
    let Previous { version, key } = previous;
    let until = match Overlap::of(&facts.snapshot.own.spec, updated, facts.snapshot.now) {
        Overlap::Until(end) => format!("until {end}"),
        Overlap::Open | Overlap::None => "until the next value".to_owned(),
    };
    format!("; version {version} as its key {key} {until}")
}

/// Whether our last write gave a Secret the previous value under the key of the spec.
pub(super) fn was_delivered(own: &Own, view: &SecretView) -> bool {
    let said = view.annotation(ANNO_PREVIOUS).filter(|_| view.ours.annotations.contains(ANNO_PREVIOUS));
    said.and_then(|said| said.split_once(':')).is_some_and(|(_, key)| overlap::key(&own.spec) == Some(key))
}
