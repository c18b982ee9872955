//! The pure core: from all that is known to the one next step.
//!
//! In: a [`World`]. Out: a [`Step`]: a read that finds out what is missing, the next write, or the end of the pass. No
//! client, no clock, no randomness but what the world holds. The order of writes is what makes a crash harmless: the
//! record first, then the target, then what is left of an old target, then status, then what is left of an old record.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    types::{Delivery as DeliveryKind, RecordRef, TargetRef},
};
use managed_secrets_crypto::Plaintext;

use super::{
    altered::{self, Altered, Part},
    conditions::{self, UNSEEN_RETRY, Verdict},
    delivery::{self, Action, Leftover, TargetForm},
    record::{RecordMeta, Source},
    view::SecretView,
    world::{Problem, Seen, SourceSeen, World},
};

mod claim;
mod draft;

/// So many passes in a row have to find no list of the sources before that is told: about three seconds.
const UNLISTED: u32 = 5;
/// Links of a ring of values that a message names.
const MAX_LINKS: usize = 8;

/// One step of a pass.
#[derive(Debug)]
pub enum Step {
    /// Find something out.
    Read(Read),
    /// Change something.
    Write(Box<Write>),
    /// Nothing is left to do now.
    Finish(Finish),
}

/// Something to find out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Read {
    /// The ManagedSecret, live, with its sealed text.
    Spec,
    /// The source Secret of `valueFrom`, live.
    Source,
    /// A fresh value from the operating system's randomness.
    Generate,
    /// A Secret that may be record or target, live.
    Secret(String),
}

/// What a write expects to find.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Slot {
    /// No object of that name: a create-only write.
    Free,
    /// This very object at this very version.
    Over {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

impl Slot {
    /// Over an object that is known.
    #[must_use]
    pub fn over(view: &SecretView) -> Self {
        Self::Over { uid: view.uid.clone(), resource_version: view.resource_version.clone() }
    }
}

/// Where a record's bytes come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bytes {
    /// Those of the present record, read live in this pass.
    Keep,
    /// The opened value, sealed again under the live uid at the same version.
    Reseal,
    /// The incoming value.
    Incoming,
    /// The value of the target that outlived its record.
    FromTarget,
}

/// A write of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordWrite {
    /// What must be there.
    pub slot: Slot,
    /// What it will say.
    pub meta: RecordMeta,
    /// Its bytes.
    pub bytes: Bytes,
    /// For [`Bytes::Keep`]: the object name of the record whose bytes are kept.
    pub kept_from: String,
    /// Whether Kubernetes collects it with the ManagedSecret.
    pub owner_reference: bool,
}

/// A write of a target; its value is that of the record.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetWrite {
    /// What must be there.
    pub slot: Slot,
    /// Name of the Secret.
    pub name: String,
    /// The key of the value.
    pub key: String,
    /// The type; absent for an adopted Secret, whose type is not ours to own.
    pub type_: Option<String>,
    /// All labels of ours.
    pub labels: BTreeMap<String, String>,
    /// All annotations of ours.
    pub annotations: BTreeMap<String, String>,
    /// Whether Kubernetes collects it with the ManagedSecret.
    pub owner_reference: bool,
}

/// Something to change.
#[derive(Debug, PartialEq)]
pub enum Write {
    /// A record.
    Record(RecordWrite, Why),
    /// A target.
    Target(TargetWrite, Why),
    /// Give up our key and labels on an adopted Secret.
    Release {
        /// Its name.
        name: String,
        /// What must be there.
        slot: Slot,
    },
    /// Delete a Secret that is ours.
    Delete {
        /// Its name.
        name: String,
        /// What must be there.
        slot: Slot,
        /// Why.
        why: Why,
    },
    /// The status.
    Status(ManagedSecretStatus),
}

impl Write {
    /// Puts right what somebody else changed: a Secret that is there, and not as it was left.
    #[must_use]
    pub fn is_repair(&self) -> bool {
        match self {
            Self::Record(record, why) => *why == Why::OutOfStep && record.slot != Slot::Free,
            Self::Target(target, why) => *why == Why::Drift && target.slot != Slot::Free,
            Self::Release { .. } | Self::Delete { .. } | Self::Status(_) => false,
        }
    }
}

/// Why a write happens: for logs and events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    /// A secret that has no record yet.
    New,
    /// A new value.
    NewValue,
    /// A new name.
    Rename,
    /// The spec moved, but neither name nor value.
    SpecChanged,
    /// A retained record is taken over, or one restored from a backup is bound to its object again.
    TakenOver,
    /// The record was lost and is rebuilt.
    Rebuilt,
    /// The source is another, or was changed, and gives the same value: the record names it as it is now.
    SourceMoved,
    /// Somebody changed it, or an earlier pass ended before its status was written.
    OutOfStep,
    /// Somebody changed, unlabelled or deleted the target.
    Drift,
    /// The target has another type.
    NewType,
    /// It moved to another place.
    Moved,
    /// It is what an interrupted rename left.
    Leftover,
    /// Admission control of others changed it on its way, so it is not what was written.
    Altered,
}

/// The end of a pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finish {
    /// Look again after this time.
    pub after: Option<Duration>,
    /// The caches are behind, or the world moved: count it as a failure, with its backoff.
    pub retry: bool,
}

impl Finish {
    const DONE: Self = Self { after: None, retry: false };

    const fn retry() -> Self {
        Self { after: None, retry: true }
    }

    const fn after(after: Duration) -> Self {
        Self { after: Some(after), retry: false }
    }
}

fn write(write: Write) -> Step {
    Step::Write(Box::new(write))
}

/// Names the next step.
#[must_use]
pub fn decide(world: &World) -> Step {
    match next(world) {
        Ok(step) | Err(step) => step,
    }
}

/// The step that says in the status how a pass failed, if it does not say so already.
#[must_use]
pub fn failed(world: &World, verdict: &Verdict) -> Step {
    if world.gone || world.own.deleting {
        return Step::Finish(Finish::DONE);
    }
    report(world, None, verdict)
}

fn next(world: &World) -> Result<Step, Step> {
    let own = &world.own;
    if world.gone || own.deleting {
        return Ok(Step::Finish(Finish::DONE));
    }
    if world.peers.outdated {
        return Ok(Step::Finish(Finish::retry()));
    }
    if own.namespace == world.settings.operator_namespace {
        let message =
            "the operator manages no ManagedSecret in its own namespace, where its keys live: use another namespace";
        return Ok(report(world, None, &Verdict::Terminal(Problem::new(Reason::NamespaceNotServed, message))));
    }
    if own.spec.suspended() {
        return Ok(report(world, None, &Verdict::Suspended));
    }
    if let Some(violation) = &own.violation {
        return Ok(report(world, None, &Verdict::Terminal(Problem::new(Reason::InvalidSpec, violation.to_string()))));
    }
    let of_record = |altered: &&Altered| altered.part != Part::Target;
    if let Some(altered) = world.altered.iter().filter(of_record).find(|altered| altered.is_spoiled()) {
        if altered.part == Part::NewRecord
            && let Some(seen) = world.present(&altered.secret)
        {
            let (name, slot) = (altered.secret.clone(), Slot::over(&seen.view));
            return Ok(write(Write::Delete { name, slot, why: Why::Altered }));
        }
        return Ok(again(report(world, None, &altered.verdict())));
    }
    match draft::draft(world)? {
        draft::Outcome::Stuck(verdict) => Ok(report(world, None, &verdict)),
        draft::Outcome::Draft(draft) => carry_out(world, &draft),
    }
}

/// A finished pass is followed by the next one, which asks how long to wait.
fn again(step: Step) -> Step {
    match step {
        Step::Finish(finish) => Step::Finish(Finish { after: Some(Duration::ZERO), ..finish }),
        step => step,
    }
}

/// How long a write waits. What others put out of step (`repair`), or change on its way, is not written at full speed. A
/// new value waits only where it was kept out of the record before.
fn repair_wait(world: &World, why: Why, repair: Why, source: &Source) -> Option<Duration> {
    let kept_out = || world.kept_out.as_ref() == Some(source);
    let waits = match why {
        Why::NewValue => kept_out(),
        why => why == repair || altered::is_known(&world.own),
    };
    world.repair_wait.filter(|_| waits)
}

/// From a draft of the record to the next write.
fn carry_out(world: &World, draft: &draft::Draft<'_>) -> Result<Step, Step> {
    let mut later = draft.later;
    let mut altered: Vec<Altered> = world.altered.clone();
    if let Some(record) = draft.pending_write(world)? {
        match (draft.why, repair_wait(world, draft.why, Why::OutOfStep, &draft.meta.source), world.source_wait) {
            // Only its owner reference is missing: the target does not wait for that.
            (_, Some(wait), _) if draft.is_unowned(world) && altered::is_known(&world.own) => {
                later = Some(wait);
                altered.extend(draft.base.map(|base| Altered::unowned_record(&base.view.name)));
            }
            (_, Some(wait), _) => return Ok(Step::Finish(Finish::after(wait))),
            // Whoever touches the source all the time is not followed at full speed; the target does not wait for that.
            (Why::SourceMoved, _, Some(wait)) if draft.base.is_some() => later = Some(wait),
            _ => return Ok(write(Write::Record(record, draft.why))),
        }
    }
    let Some(record) = draft.base else {
        // Unreachable: a draft without a base always has a pending write.
        return Ok(Step::Finish(Finish::retry()));
    };
    let id = &draft.meta.id;
    // A record that goes takes its target with it.
    let mut ids: BTreeSet<&str> =
        draft.others.iter().filter_map(|other| other.record().map(|meta| meta.id.as_str())).collect();
    ids.insert(id);
    let mut verdict = Verdict::Served(served_text(world, draft));
    let mut place = None;
    let of_target = altered.iter().find(|altered| altered.part == Part::Target);
    match &draft.delivery.action {
        Action::Nothing => {}
        Action::Blocked(blocked) => {
            verdict = blocked.clone();
            // What is served at the old place stays until the new one can be written.
            place = world.own.status.target.as_ref().map(|target| target.name.clone());
        }
        Action::Recreate(slot) => {
            confirmed(world, record)?;
            let name = world.own.spec.target_name(&world.own.name).to_owned();
            return Ok(write(Write::Delete { name, slot: slot.clone(), why: Why::NewType }));
        }
        Action::Write(slot) => {
            let form = delivery::target_form(world, &draft.delivery, id)?;
            if of_target.is_none()
                && let Some(why) = target_pending(world, draft, &form)
            {
                if let Some(wait) = repair_wait(world, why, Why::Drift, &draft.meta.source) {
                    return Ok(Step::Finish(Finish::after(wait)));
                }
                confirmed(world, record)?;
                draft.plaintext(world)?;
                let target = delivery::target_write(world, slot.clone(), form, &draft.delivery, id)?;
                return Ok(write(Write::Target(target, why)));
            }
            place = Some(form.name);
        }
    }
    // What is served at the old place stays until the new one holds the value.
    let blocked = matches!(draft.delivery.action, Action::Blocked(_)) || of_target.is_some_and(Altered::is_spoiled);
    if !blocked && let Some((name, leftover)) = delivery::leftover(world, &ids, place.as_deref())? {
        confirmed(world, record)?;
        return Ok(write(match leftover {
            Leftover::Delete(slot) => Write::Delete { name, slot, why: Why::Moved },
            Leftover::Release(slot) => Write::Release { name, slot },
        }));
    }
    let unlike = draft.delivery.trouble(world.own.spec.target_name(&world.own.name));
    let altered = altered.iter().map(Altered::verdict);
    for trouble in altered.chain(draft.troubles.iter().cloned()).chain(unlike) {
        verdict = verdict.and(trouble);
    }
    let step = report(world, Some((draft, record, place)), &verdict);
    if let (Step::Finish(_), Some(other)) = (&step, draft.others.iter().find(|other| !other.view.deleting)) {
        confirmed(world, record)?;
        let slot = Slot::over(&other.view);
        return Ok(write(Write::Delete { name: other.view.name.clone(), slot, why: Why::Leftover }));
    }
    Ok(match step {
        step if !world.altered.is_empty() => again(step),
        Step::Finish(Finish { after, retry }) => {
            Step::Finish(Finish { after: [after, later].into_iter().flatten().min(), retry })
        }
        step => step,
    })
}

/// A target is written or removed only in a pass that has read or written the record: a stale operator finds out there
/// that a newer one was at work.
fn confirmed(world: &World, record: &Seen) -> Result<(), Step> {
    if world.record_confirmed.as_ref() == Some(&record.view.uid) {
        Ok(())
    } else {
        Err(Step::Read(Read::Secret(record.view.name.clone())))
    }
}

/// Before an object waits for something that only the caches show, a live read tells whether it is there: for the end of a
/// Secret each time, and once for what is held by no ManagedSecret that exists.
pub(super) fn looked_at(world: &World, seen: &Seen, reason: Reason) -> Result<(), Step> {
    let lives = |uid: &String| world.peers.living.contains(uid);
    let held = seen.record().is_some_and(|meta| lives(&meta.uid)) || seen.view.owners.iter().any(|it| lives(&it.uid));
    if seen.live || (reason != Reason::WaitingForDeletion && (held || world.says(reason))) {
        Ok(())
    } else {
        Err(Step::Read(Read::Secret(seen.view.name.clone())))
    }
}

/// Why the target has to be written, or nothing if it is known to be as it should be.
fn target_pending(world: &World, draft: &draft::Draft<'_>, target: &TargetForm) -> Option<Why> {
    let own = &world.own;
    let observed = own.status.observed_generation == Some(own.generation);
    let served_before = own.status.target.as_ref().is_some_and(|before| before.name == target.name);
    // In step but for the target itself: whoever changed it, it was not a change of the spec.
    let drifted = observed && served_before && world.record_written.is_none();
    let because = world.record_written.as_ref().map_or(draft.why, |(_, why)| *why);
    let Some(seen) = world.present(&target.name) else {
        return Some(if drifted { Why::Drift } else { because });
    };
    let holds = world.holds.as_ref().is_some_and(|holds| {
        holds.uid == seen.view.uid
            && holds.resource_version == seen.view.resource_version
            && holds.version == draft.meta.version
    });
    let shape = delivery::in_shape(&seen.view, target, &own.uid);
    // A target's type is no part of its metadata. A new generation may have changed it, so one that is not known is
    // applied: the API server refuses another type.
    let type_known =
        (observed && world.record_written.is_none()) || target.type_.is_none() || world.type_of(&seen.view).is_some();
    if holds && shape && type_known {
        return None;
    }
    Some(match (drifted, served_before) {
        (true, _) => Why::Drift,
        (false, true) => because,
        (false, false) => Why::Moved,
    })
}

fn served_text(world: &World, draft: &draft::Draft<'_>) -> String {
    let spec = &world.own.spec;
    let mut text = match spec.delivery() {
        DeliveryKind::Secret => {
            format!("delivered as key {} of Secret {}", spec.target_key(), spec.target_name(&world.own.name))
        }
        DeliveryKind::None => "kept encrypted; spec.delivery is None".to_owned(),
    };
    if draft.meta.source == Source::Generate {
        text.push_str("; generated once: a changed length or alphabet applies to the next generated value");
    }
    text
}

/// Writes the status where it differs, and says when to look again.
fn report(world: &World, served: Option<(&draft::Draft<'_>, &Seen, Option<String>)>, verdict: &Verdict) -> Step {
    let own = &world.own;
    let old = own.status.conditions.as_deref().unwrap_or_default();
    let (conditions, stalls_in) = conditions::follow(old, own.generation, verdict, world.now);
    let mut status = own.status.clone();
    status.observed_generation = Some(own.generation);
    status.conditions = Some(conditions);
    if let Some((draft, record, place)) = served {
        let meta = &draft.meta;
        status.id = Some(meta.id.clone());
        status.name = Some(meta.name.clone());
        status.created_date = Some(meta.created.clone());
        status.updated_date = Some(meta.updated.clone());
        status.value_updated_time = Some(meta.value_updated.clone());
        status.version = i64::try_from(meta.version).ok();
        status.deletion_policy = Some(meta.deletion_policy);
        status.record = Some(RecordRef {
            name: record.view.name.clone(),
            uid: record.view.uid.clone(),
            resource_version: record.view.resource_version.clone(),
        });
        let holds_other = world.altered.iter().any(|altered| altered.part == Part::Target && altered.is_spoiled());
        status.target = match &draft.delivery.action {
            // What is served at the old place is still what status describes, but for a value that has moved since:
            // without a version, it counts neither as in step nor as a copy of the lost record's value.
            action if holds_other || matches!(action, Action::Blocked(_)) => status.target.map(|target| {
                let behind = holds_other || status.version != own.status.version;
                TargetRef { resource_version: if behind { String::new() } else { target.resource_version }, ..target }
            }),
            Action::Nothing | Action::Blocked(_) => None,
            Action::Write(_) | Action::Recreate(_) => {
                place.and_then(|name| world.present(&name)).map(|seen| TargetRef {
                    name: seen.view.name.clone(),
                    key: own.spec.target_key().to_owned(),
                    uid: seen.view.uid.clone(),
                    resource_version: seen.view.resource_version.clone(),
                })
            }
        };
    }
    if status != own.status {
        return write(Write::Status(status));
    }
    let unseen = verdict.problem().is_some_and(|problem| shown_by_no_watch(problem.reason));
    let after = match (stalls_in, unseen) {
        (Some(left), true) => Some(left.min(UNSEEN_RETRY)),
        (Some(left), false) => Some(left),
        (None, true) => Some(UNSEEN_RETRY),
        (None, false) => None,
    };
    Step::Finish(Finish { after, retry: matches!(verdict, Verdict::Transient(_)) })
}

/// Reasons whose cause may go away without any event that reaches us.
fn shown_by_no_watch(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TargetNotOwned
            | Reason::TargetImmutable
            | Reason::NameInUse
            | Reason::TargetInUse
            | Reason::WaitingForDeletion
            | Reason::RecordTampered
            // A record that was restored without its labels, or another Secret in its place.
            | Reason::RecordLost
            | Reason::SeedUnknown
            | Reason::SealedWithUnknownKey
    )
}

/// The source that the spec wants, where the caches alone can tell its fingerprint.
fn wanted_source(world: &World) -> Result<Result<Source, Problem>, Step> {
    let own = &world.own;
    if own.spec.generate.is_some() {
        return Ok(Ok(Source::Generate));
    }
    if let Some(sha256) = &own.sealed_sha256 {
        return Ok(Ok(Source::Sealed { sha256: sha256.clone() }));
    }
    let Some(from) = &own.spec.value_from else {
        return Ok(Err(Problem::new(
            Reason::InvalidSpec,
            "spec: must have exactly one of value, valueFrom and generate",
        )));
    };
    if !world.peers.ring.is_empty() {
        return Ok(Err(Problem::new(Reason::SourceRing, ring_text(&world.peers.ring))));
    }
    let reference = &from.secret_key_ref;
    match &world.source {
        SourceSeen::Present { uid, resource_version } => Ok(Ok(Source::Secret {
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            key: reference.key.clone(),
        })),
        SourceSeen::Absent => {
            let message = format!("spec.valueFrom: Secret {} does not exist", reference.name);
            Ok(Err(Problem::new(Reason::SourceNotFound, message)))
        }
        SourceSeen::Unsynced | SourceSeen::NotWanted => Err(unlisted(world)),
    }
}

/// Which ring of values stands in the way.
fn ring_text(ring: &[String]) -> String {
    let upstream = ring.iter().cycle().skip(1);
    let links: Vec<String> =
        ring.iter().zip(upstream).map(|(to, from)| format!("{to} takes its value from {from}")).collect();
    let more = links.len().saturating_sub(MAX_LINKS);
    let shown = links[..links.len() - more].join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("spec.valueFrom: the sources form a ring: {shown}{more}; give one of them another source or target")
}

/// The end of a pass that needs what the watch on sources has not listed yet. Its first list wakes every object that waits
/// for it, so mostly nobody needs to be told.
fn unlisted(world: &World) -> Step {
    if world.failures < UNLISTED {
        return Step::Finish(Finish::retry());
    }
    let message = "spec.valueFrom: the operator cannot list or watch the Secrets of this namespace yet";
    report(world, None, &Verdict::Transient(Problem::new(Reason::ApiUnavailable, message)))
}

/// The incoming value, read in this pass from the source that the spec wants now.
fn incoming<'w>(world: &'w World, source: &Source) -> Result<(&'w Source, Result<&'w Plaintext, Problem>), Step> {
    let fits = |read: &Source| match (read, source) {
        // The live Secret may be newer than the cache; the key is what the spec says.
        (Source::Secret { key, .. }, Source::Secret { key: wanted, .. }) => key == wanted,
        _ => read == source,
    };
    match &world.incoming {
        Some(incoming) if fits(&incoming.source) => {
            Ok((&incoming.source, incoming.value.as_ref().map_err(Clone::clone)))
        }
        _ if let Some(rejected) = world.rejected.as_ref().filter(|rejected| rejected.source == *source) => {
            Ok((&rejected.source, Err(rejected.problem.clone())))
        }
        _ => Err(Step::Read(match source {
            Source::Generate => Read::Generate,
            Source::Sealed { .. } => Read::Spec,
            Source::Secret { .. } => Read::Source,
        })),
    }
}
