//! The previous value, which the target has beside the new one during the overlap. Pure.
//!
//! Which one it is, and until when, follows from the record's metadata and the spec: it is the one that was delivered before,
//! and the overlap begins when the newest replaced it. The target says in an annotation which version it has under which key,
//! so metadata alone tells whether it is up to date.

use std::time::Duration;

use managed_secrets_api::{
    keys::ANNO_PREVIOUS,
    overlap::{self, Overlap},
    record::History,
    types::Delivery,
};

use super::{
    super::{
        facts::{Facts, Seen},
        plan::{Need, Problem},
        view::{Own, SecretView},
    },
    history,
};

/// An earlier version that the target has beside the delivered one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Previous {
    /// The version.
    pub(super) version: u64,
    /// Its key.
    pub(super) key: String,
    /// Since when it is the previous one, RFC 3339.
    since: String,
}

/// What becomes of it.
#[derive(Debug, Default)]
pub(super) struct Overlapping {
    /// The target has it.
    pub(super) previous: Option<Previous>,
    /// The record has lost it.
    pub(super) lost: Option<Problem>,
}

impl Previous {
    /// What the target says of it.
    pub(super) fn text(&self) -> String {
        format!("{}:{}", self.version, self.key)
    }
}

/// The previous value of a record that will say `history`, whose newest value has this version and came at `updated`. `base` is
/// the record that there is, and `served` the version that is delivered. Beside an earlier one there is none, unless that was
/// delivered already when a newer value came.
pub(super) fn of(
    facts: &Facts,
    base: &Seen,
    served: Option<u64>,
    history: &History,
    (newest, updated): (u64, &str),
) -> Result<Overlapping, Need> {
    let spec = &facts.snapshot.own.spec;
    let previous = history.previous(newest, updated).filter(|(kept, _)| {
        served == Some(newest) || history.replaced().is_some() && served.is_some_and(|served| kept.version < served)
    });
    let (Some(key), Some((kept, since))) = (overlap::key(spec), previous) else { return Ok(Overlapping::default()) };
    if spec.delivery() == Delivery::None {
        return Ok(Overlapping::default());
    }
    if Overlap::of(spec, since, facts.snapshot.now) == Overlap::None {
        return Ok(Overlapping::default());
    }
    let previous = Some(Previous { version: kept.version, key: key.to_owned(), since: since.to_owned() });
    Ok(match history::opened(facts, base, kept.version)? {
        Some(Err(unopened)) => {
            // What clients may use stays, as long as the target has it.
            let previous = if history::copy(facts, kept.version)?.is_some() { previous } else { None };
            let follows = match &previous {
                Some(_) => "the copy at spec.target.previousKey stays",
                None => "it is not delivered as spec.target.previousKey",
            };
            let lost = Some(history::lost(&base.view.name, kept.version, unopened, follows));
            Overlapping { previous, lost }
        }
        _ => Overlapping { previous, lost: None },
    })
}

/// How long the target still has the previous value; nothing if that has no end, or it has none.
pub(super) fn wait(facts: &Facts, previous: Option<&Previous>) -> Option<Duration> {
    let (own, now) = (&facts.snapshot.own, facts.snapshot.now);
    match Overlap::of(&own.spec, &previous?.since, now) {
        Overlap::Until(end) => end.duration_since(now).try_into().ok(),
        Overlap::Open | Overlap::None => None,
    }
}

/// What the status says of it.
pub(super) fn text(facts: &Facts, previous: &Previous) -> String {
    let Previous { version, key, since } = previous;
    let until = match Overlap::of(&facts.snapshot.own.spec, since, facts.snapshot.now) {
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
