//! When one sealing key replaces another, and when one leaves use: the stages, as a pure function.
//!
//! ```text
//!  begin ──▶ pending ──readers have it──▶ activate ──▶ the earlier key opens ──▶ retire, or revoke
//! ```
//!
//! In: the operator's own document, the requests, what this process has seen, and the time. Out: the next [`Step`]. All that
//! must survive a restart is in the document, so whatever is interrupted goes on where it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::keyring_request::{Kind, Request, Requests};
use managed_secrets_crypto::{
    KeyId,
    keyring::{DEFAULT_SEALING_PERIOD, Document, Entry, Purpose, State, Unused},
};

/// The times of a rotation.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The age at which a sealing key is replaced; `None` if that is done on request only.
    pub period: Option<Duration>,
    /// How long no sealed value of the cluster uses a key that only opens until it is retired; `None` if keys are retired on
    /// request only.
    pub retain: Option<Duration>,
    /// How long a leader leads before it replaces or retires a key because of its age: an upgrade, and a clock that is wrong
    /// at the start of a machine, can be noticed before.
    pub grace: Duration,
    /// How long a new key is pending. Watches show it to every replica within seconds.
    pub pending: Duration,
    /// How long a key must have been replaced before it opens nothing any more: replicas that have not noticed may still seal
    /// plain values with it.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Some(DEFAULT_PERIOD),
            retain: None,
            grace: Duration::from_secs(3600),
            pending: Duration::from_secs(5 * 60),
            settle: Duration::from_secs(60),
        }
    }
}

/// The age at which a sealing key is replaced, unless the administrator says otherwise: 30 days.
pub const DEFAULT_PERIOD: Duration = DEFAULT_SEALING_PERIOD.unsigned_abs();
/// The longest sleep: the clock may be set meanwhile, and values come and go.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a process has seen since it began to lead. Times are monotonic.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How long it has led.
    pub leading: Duration,
    /// How long it has known the pending key.
    pub pending: Option<Duration>,
    /// How long it has known the active key as such.
    pub active: Duration,
    /// How many sealed values of the cluster use each key; `None` while not all namespaces have been listed.
    pub used: Option<BTreeMap<KeyId, usize>>,
}

/// What is done next. A step that answers a request removes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Add a pending key, unless there is one; that answers the request for a rotation.
    Begin,
    /// Make this key the active one.
    Activate(KeyId),
    /// Let this key open nothing any more, for ever.
    Revoke(KeyId),
    /// Let this key open nothing any more, until it is reinstated.
    Retire(KeyId),
    /// Let this key open again.
    Reinstate(KeyId),
    /// Remove a request that cannot be carried out.
    Refuse(Request, String),
    /// Note which keys are used.
    Note(BTreeSet<KeyId>),
    /// Nothing for so long, unless there is news.
    Wait(Duration),
}

/// The next step.
#[must_use]
pub fn next(document: &Document, requests: &Requests, seen: &Seen, timing: &Timing, now: Timestamp) -> Step {
    let mut wait = LONGEST;
    let mut replace = false;
    for request in requests.iter() {
        match answer(document, request, seen, timing, now) {
            Answer::Step(step) => return step,
            Answer::After(left) => wait = wait.min(left),
            Answer::Replaced => replace = true,
            Answer::None => {}
        }
    }
    if let Some(entry) = document.pending_sealing_key()
        && let Some(id) = entry.sealing_key_id()
    {
        // By either clock: the wall clock knows what was before this process, and may be set.
        let by_date = entry.created_at().and_then(|created| Duration::try_from(now.duration_since(created)).ok());
        let waited = seen.pending.max(by_date).unwrap_or_default();
        return match timing.pending.checked_sub(waited) {
            Some(left) if !left.is_zero() => Step::Wait(left.min(wait)),
            _ => Step::Activate(id),
        };
    }
    let due = due_in(document, timing, now).map(|due| due.max(timing.grace.saturating_sub(seen.leading)));
    if replace || due == Some(Duration::ZERO) {
        return Step::Begin;
    }
    match retire(document, seen, timing, now) {
        Step::Wait(left) => Step::Wait([due.unwrap_or(LONGEST), left, wait].into_iter().min().unwrap_or(LONGEST)),
        step => step,
    }
}

/// What becomes of a request.
enum Answer {
    /// It is carried out, or refused.
    Step(Step),
    /// It can be carried out after so long.
    After(Duration),
    /// The active key must be replaced first.
    Replaced,
    /// It is not about sealing keys.
    None,
}

fn answer(document: &Document, request: &Request, seen: &Seen, timing: &Timing, now: Timestamp) -> Answer {
    let refuse = |why: &str| Answer::Step(Step::Refuse(request.clone(), why.to_owned()));
    let (Request::Revoke(named) | Request::Retire(named) | Request::Reinstate(named)) = request else {
        let is_ours = *request == Request::Rotate(Kind::Sealing);
        return if is_ours { Answer::Step(Step::Begin) } else { Answer::None };
    };
    let Some((id, entry)) = KeyId::parse(named).and_then(|id| Some((id, document.sealing_entry(id)?))) else {
        let is_seed = document.seeds().any(|entry| entry.id == *named);
        return refuse(if is_seed {
            "it is a seed: records have no other copy. Rotate seeds instead"
        } else {
            "the operator's own keyring has no sealing key with this id"
        });
    };
    let is_active = document.active_key(Purpose::Sealing, now) == Some(named);
    let settled = |step| match timing.settle.saturating_sub(seen.active) {
        Duration::ZERO => Answer::Step(step),
        left => Answer::After(left),
    };
    match request {
        Request::Revoke(_) if is_active => Answer::Replaced,
        Request::Revoke(_) if matches!(entry.state, State::Pending | State::Revoked) => Answer::Step(Step::Revoke(id)),
        Request::Revoke(_) => settled(Step::Revoke(id)),
        Request::Retire(_) if entry.is_retired() => Answer::Step(Step::Retire(id)),
        Request::Retire(_) => match (entry.state, &seen.used) {
            (State::Revoked, _) => refuse("it was revoked, and opens nothing already"),
            (State::Pending, _) => refuse("it is new, and will be the active key"),
            (State::Active, _) => refuse("it is the active key; rotate it first"),
            // Shown by the first lists, or by an hourly look.
            (State::OpenOnly, None) => Answer::After(RELOOK),
            (State::OpenOnly, Some(used)) => match used.get(&id).copied().unwrap_or_default() {
                0 => settled(Step::Retire(id)),
                count => refuse(&format!("sealed values that use it: {count}; seal them again first")),
            },
        },
        _ if entry.state == State::Revoked && !entry.is_retired() => {
            refuse("it was revoked, not retired; seal the values again with the current key")
        }
        _ => Answer::Step(Step::Reinstate(id)),
    }
}

/// Between two looks whether all namespaces have been listed.
const RELOOK: Duration = Duration::from_secs(30);

/// After how long the active key is to be replaced because of its age. Without an active key, that is now.
fn due_in(document: &Document, timing: &Timing, now: Timestamp) -> Option<Duration> {
    let period = SignedDuration::try_from(timing.period?).ok()?;
    let active = document.active_key(Purpose::Sealing, now);
    let created = document.sealing_keys().find(|entry| Some(&*entry.id) == active).and_then(Entry::created_at);
    let Some(created) = created else { return Some(Duration::ZERO) };
    Some(Duration::try_from(created.checked_add(period).ok()?.duration_since(now)).unwrap_or_default())
}

/// What is to do about keys that no sealed value uses.
fn retire(document: &Document, seen: &Seen, timing: &Timing, now: Timestamp) -> Step {
    let Some(retain) = timing.retain else { return Step::Wait(LONGEST) };
    let Some(used) = &seen.used else { return Step::Wait(RELOOK) };
    let used: BTreeSet<KeyId> = used.iter().filter(|(_, count)| **count > 0).map(|(id, _)| *id).collect();
    let keys = || document.sealing_keys().filter(|entry| entry.state == State::OpenOnly);
    // A date in the future is that of a clock that was set since.
    let since = |entry: &Entry| entry.unused.as_ref().and_then(Unused::since).filter(|since| *since <= now);
    if keys().any(|entry| entry.is_unused(&used) != since(entry).is_some()) {
        return Step::Note(used);
    }
    let mut wait = LONGEST;
    for entry in keys() {
        let (Some(id), Some(since)) = (entry.sealing_key_id(), since(entry)) else { continue };
        let unused = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let left = retain.saturating_sub(unused).max(timing.grace.saturating_sub(seen.leading));
        if left.is_zero() {
            return Step::Retire(id);
        }
        wait = wait.min(left);
    }
    Step::Wait(wait)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
