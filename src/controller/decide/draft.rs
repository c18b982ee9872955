//! The record as it should be: which one this pass goes on from, what it should say, and what stands in the way.

use std::time::Duration;

use managed_secrets_api::{Reason, names::record_name, types::DeletionPolicy};
use managed_secrets_crypto::{Plaintext, mse1::OpenError};

use super::{
    super::{
        conditions::Verdict,
        delivery::{self, Delivery},
        record::{RecordMeta, Source},
        world::{Known, Problem, Seen, SourceSeen, Unopened, World},
    },
    Bytes, Finish, Read, RecordWrite, Slot, Step, Why,
    claim::{Claim, claim},
    incoming, looked_at, report, wanted_source,
};

/// What the record should be.
pub(super) struct Draft<'w> {
    /// The record that this pass goes on from.
    pub(super) base: Option<&'w Seen>,
    /// What it should say.
    pub(super) meta: RecordMeta,
    /// What becomes of the target.
    pub(super) delivery: Delivery,
    /// What stands in the way of some of the spec, while the rest is followed.
    pub(super) troubles: Vec<Verdict>,
    /// Other records of ours, to be removed once this one is in force.
    pub(super) others: Vec<&'w Seen>,
    /// After how long a new value of the source is followed.
    pub(super) later: Option<Duration>,
    /// Why it is written, if it has to be.
    pub(super) why: Why,
    bytes: Bytes,
    slot: Slot,
}

/// What drafting came to.
pub(super) enum Outcome<'w> {
    /// Nothing can be written; the verdict says why.
    Stuck(Verdict),
    /// This is how the record should be.
    Draft(Box<Draft<'w>>),
}

impl<'w> Draft<'w> {
    /// The record's write, unless it stands as drafted.
    pub(super) fn pending_write(&self, world: &'w World) -> Result<Option<RecordWrite>, Step> {
        let kept_from = match self.base {
            None => String::new(),
            Some(base) => {
                let view = &base.view;
                let in_place = self.stands();
                let in_status = world.own.status.record.as_ref().is_some_and(|record| {
                    record.name == view.name
                        && record.uid == view.uid
                        && record.resource_version == view.resource_version
                });
                let written =
                    world.record_written.as_ref().is_some_and(|(version, _)| *version == view.resource_version);
                // A write that loses the owner reference on its way is not tried twice in one pass.
                if in_place && (written || (in_status && !self.is_unowned(world))) {
                    return Ok(None);
                }
                if self.bytes != Bytes::Incoming {
                    open(world, base)?;
                }
                view.name.clone()
            }
        };
        Ok(Some(RecordWrite {
            slot: self.slot.clone(),
            meta: self.meta.clone(),
            bytes: self.bytes,
            kept_from,
            owner_reference: self.meta.deletion_policy == DeletionPolicy::Delete,
        }))
    }

    /// Whether the record says what was drafted.
    fn stands(&self) -> bool {
        self.base.and_then(Seen::record) == Some(&self.meta) && self.bytes == Bytes::Keep
    }

    /// Whether the record says what was drafted, and lacks the owner reference, or has one too many.
    pub(super) fn is_unowned(&self, world: &World) -> bool {
        let wanted = self.meta.deletion_policy == DeletionPolicy::Delete;
        self.stands() && !self.base.is_some_and(|base| delivery::owners_fit(&base.view, wanted, &world.own.uid))
    }

    /// The value that the target gets: that of the record in force.
    pub(super) fn plaintext(&self, world: &'w World) -> Result<&'w Plaintext, Step> {
        match self.base {
            Some(base) => open(world, base),
            None => Err(Step::Finish(Finish::retry())),
        }
    }
}

/// The opened value of a record; a read where it has not been opened yet, a report where it does not open.
fn open<'w>(world: &'w World, record: &'w Seen) -> Result<&'w Plaintext, Step> {
    let read = || Step::Read(Read::Secret(record.view.name.clone()));
    if world.record_confirmed.as_ref() != Some(&record.view.uid) {
        return Err(read());
    }
    match record.commitment().and_then(|commitment| world.opened(commitment)) {
        None => Err(read()),
        Some(Ok(value)) => Ok(value),
        Some(Err(unopened)) => Err(report(world, None, &Verdict::Terminal(why_unopened(&record.view.name, unopened)))),
    }
}

fn why_unopened(name: &str, unopened: &Unopened) -> Problem {
    let (reason, what) = match unopened {
        Unopened::OtherVersion => {
            (Reason::RecordRolledBack, "holds a version that differs from its metadata".to_owned())
        }
        Unopened::Altered => (Reason::RecordTampered, "holds bytes that differ from its metadata".to_owned()),
        Unopened::Crypto(error) => match error {
            OpenError::Format(_) => (Reason::RecordMalformed, format!("is not in the MSE1 format: {error}")),
            OpenError::SeedUnknown(seed) => {
                (Reason::SeedUnknown, format!("is encrypted with seed {seed}, which the keyring does not have"))
            }
            OpenError::Wrap => {
                (Reason::RecordMoved, "was moved here from another object, or its header was changed".to_owned())
            }
            OpenError::Commitment => (Reason::RecordCommitmentMismatch, "does not match its key commitment".to_owned()),
            _ => (Reason::RecordPayloadTampered, "has a changed payload".to_owned()),
        },
    };
    Problem::new(
        reason,
        format!("record {name} {what}; the delivered value stays: restore the record from a backup, or delete it"),
    )
}

/// Where a record of the wanted name may be written.
enum Place<'w> {
    Free,
    Ours(&'w Seen),
    TakeOver(&'w Seen),
    Taken(Verdict),
}

fn place<'w>(world: &'w World, name: &str) -> Result<Place<'w>, Step> {
    let object = record_name(name);
    Ok(match world.secret(&object) {
        Known::Unseen | Known::Absent => match &world.peers.reserved_for {
            Some(peer) if name == world.own.spec.name => Place::Taken(Verdict::Pending(Problem::new(
                Reason::NameInUse,
                format!("the name {name} is reserved for ManagedSecret {peer}"),
            ))),
            _ => Place::Free,
        },
        Known::Present(seen) => match claim(world, seen) {
            Claim::Ours | Claim::Restored | Claim::TakeOver if seen.view.deleting => {
                looked_at(world, seen, Reason::WaitingForDeletion)?;
                Place::Taken(dying(&object))
            }
            Claim::Ours | Claim::Restored => Place::Ours(seen),
            Claim::TakeOver => Place::TakeOver(seen),
            Claim::Dying => {
                looked_at(world, seen, Reason::WaitingForDeletion)?;
                Place::Taken(dying(&object))
            }
            Claim::Refused(problem) => Place::Taken(Verdict::Terminal(problem)),
            Claim::Foreign(problem) => {
                looked_at(world, seen, problem.reason)?;
                Place::Taken(match seen.record() {
                    Some(meta) if meta.name != name => Verdict::Terminal(Problem::new(
                        Reason::NameCollision,
                        format!("the names {name} and {} have the same hash: choose another spec.name", meta.name),
                    )),
                    _ if world.peers.cycle => Verdict::Pending(Problem::new(
                        problem.reason,
                        format!(
                            "{}, which waits for the name that this ManagedSecret holds: rename one of them to a free name first",
                            problem.message
                        ),
                    )),
                    _ => Verdict::Pending(problem),
                })
            }
        },
    })
}

fn dying(object: &str) -> Verdict {
    let message = format!("record {object} of a deleted ManagedSecret is being deleted");
    Verdict::Working(Problem::new(Reason::WaitingForDeletion, message))
}

/// Drafts the record.
pub(super) fn draft(world: &World) -> Result<Outcome<'_>, Step> {
    let own = &world.own;
    let mut records: Vec<&Seen> = world
        .all_present()
        .filter(|seen| seen.record().is_some() && !seen.view.deleting)
        .filter(|seen| matches!(claim(world, seen), Claim::Ours | Claim::Restored))
        .collect();
    // Of two records the higher version wins, then the higher generation, then the one that spec.name names.
    records.sort_by_key(|seen| seen.record().map(|meta| (meta.version, meta.generation, meta.name == own.spec.name)));
    if let Some(base) = records.pop() {
        // A rename may have ended between its new record and its status, and the old record have lost its label since:
        // once status names the new one, nobody would find the old one again.
        if let Some(before) = &own.status.record
            && before.name != base.view.name
            && *world.secret(&before.name) == Known::Unseen
        {
            return Err(Step::Read(Read::Secret(before.name.clone())));
        }
        records.extend(strays(world, base));
        return going_on(world, base, records);
    }
    if let Some(record) = &own.status.record {
        // Absent from the cache is not absent: the record may have lost its label.
        match world.secret(&record.name) {
            Known::Unseen => return Err(Step::Read(Read::Secret(record.name.clone()))),
            Known::Present(seen) => {
                if let Claim::Refused(problem) = claim(world, seen) {
                    return Ok(Outcome::Stuck(Verdict::Terminal(problem)));
                }
            }
            Known::Absent => {}
        }
    }
    match place(world, &own.spec.name)? {
        Place::TakeOver(base) | Place::Ours(base) => going_on(world, base, Vec::new()),
        Place::Taken(verdict) => match &own.status.name {
            // A rename that waits, and the record was lost meanwhile: rebuild it under the name in force.
            Some(name) if own.status.id.is_some() && *name != own.spec.name => match place(world, name)? {
                Place::Free => rebuilt(world, name, Some(verdict)),
                _ => Ok(Outcome::Stuck(verdict)),
            },
            _ => Ok(Outcome::Stuck(verdict)),
        },
        Place::Free if own.status.id.is_some() => rebuilt(world, &own.spec.name, None),
        Place::Free => first(world),
    }
}

/// Authentic records of ours under another id than the one in force: made under an older name by an operator that did
/// not know of the first. Nobody was ever told of such an id.
fn strays<'w>(world: &'w World, base: &'w Seen) -> impl Iterator<Item = &'w Seen> {
    let in_force = base.record().map(|meta| &meta.id).filter(|id| world.own.status.id.as_ref() == Some(id));
    world.all_present().filter(move |seen| {
        let meta = seen.record().filter(|meta| meta.owner == world.own.name && meta.uid == world.own.uid);
        !seen.view.deleting && meta.zip(in_force).is_some_and(|(meta, in_force)| meta.id != *in_force)
    })
}

/// A secret that has no record yet.
fn first(world: &World) -> Result<Outcome<'_>, Step> {
    let wanted = match wanted_source(world)? {
        Ok(source) => source,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let (source, value) = incoming(world, &wanted)?;
    let value = match value {
        Ok(value) => value,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let now = world.date();
    let delivery = delivery::decide(world, &world.fresh_id, None, || Ok(value))?;
    let meta = RecordMeta {
        id: world.fresh_id.clone(),
        created: now.clone(),
        updated: now.clone(),
        value_updated: now,
        version: 1,
        source: source.clone(),
        target: delivery.record.clone(),
        ..skeleton(world, &world.own.spec.name)
    };
    Ok(Outcome::Draft(Box::new(Draft {
        base: None,
        meta,
        delivery,
        troubles: Vec::new(),
        others: Vec::new(),
        later: None,
        why: Why::New,
        bytes: Bytes::Incoming,
        slot: Slot::Free,
    })))
}

/// A record that was lost while status is still there: the same id, dates and version, if the value can be shown to be
/// the same.
fn rebuilt<'w>(world: &'w World, name: &str, trouble: Option<Verdict>) -> Result<Outcome<'w>, Step> {
    let own = &world.own;
    let status = &own.status;
    if !world.own_live {
        // Perhaps it is not lost but renamed, by an operator whose status our cache has not seen.
        return Err(Step::Read(Read::Spec));
    }
    let id = status.id.clone().unwrap_or_default();
    let survivor = survivor(world)?;
    let wanted = match wanted_source(world)? {
        Ok(source) => source,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let (source, bytes, same) = if wanted == Source::Generate {
        if survivor.is_none() {
            let message = "the record was deleted, and the target is not what the operator last wrote: restore one of the two from a backup, or delete this object and apply it again to get a new value";
            return Ok(Outcome::Stuck(Verdict::Terminal(Problem::new(Reason::RecordLost, message))));
        }
        (wanted, Bytes::FromTarget, true)
    } else {
        let (source, value) = incoming(world, &wanted)?;
        match value {
            Ok(value) => (source.clone(), Bytes::Incoming, survivor.is_some_and(|survivor| survivor.same_as(value))),
            Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
        }
    };
    let now = world.date();
    let date = |before: &Option<String>, moved: bool| match before {
        Some(before) if !moved => before.clone(),
        _ => now.clone(),
    };
    let renamed = status.name.as_deref() != Some(name);
    let version = u64::try_from(status.version.unwrap_or(0)).unwrap_or(0);
    let value = || match bytes {
        Bytes::FromTarget => survivor.ok_or(Step::Finish(Finish::retry())),
        _ => incoming(world, &source).and_then(|(_, value)| value.map_err(|_| Step::Finish(Finish::retry()))),
    };
    let delivery = delivery::decide(world, &id, None, value)?;
    let meta = RecordMeta {
        id,
        created: date(&status.created_date, false),
        updated: date(&status.updated_date, !same || renamed),
        value_updated: date(&status.value_updated_time, !same),
        version: if same { version.max(1) } else { version + 1 },
        source,
        target: delivery.record.clone(),
        ..skeleton(world, name)
    };
    Ok(Outcome::Draft(Box::new(Draft {
        base: None,
        meta,
        delivery,
        troubles: trouble.into_iter().collect(),
        others: Vec::new(),
        later: None,
        why: Why::Rebuilt,
        bytes,
        slot: Slot::Free,
    })))
}

/// The value of the target, if it still is what status says we last wrote.
fn survivor(world: &World) -> Result<Option<&Plaintext>, Step> {
    let Some(target) = &world.own.status.target else { return Ok(None) };
    match world.secret(&target.name) {
        Known::Absent => Ok(None),
        Known::Unseen => Err(Step::Read(Read::Secret(target.name.clone()))),
        Known::Present(seen)
            if seen.view.uid != target.uid || seen.view.resource_version != target.resource_version =>
        {
            Ok(None)
        }
        Known::Present(seen) => match world.content.as_ref().filter(|content| content.uid == seen.view.uid) {
            None => Err(Step::Read(Read::Secret(target.name.clone()))),
            Some(content) => Ok(content.values.get(&target.key).and_then(Option::as_ref)),
        },
    }
}

/// A record exists: what of it has to move.
fn going_on<'w>(world: &'w World, base: &'w Seen, others: Vec<&'w Seen>) -> Result<Outcome<'w>, Step> {
    let own = &world.own;
    let Some(before) = base.record() else { return Err(Step::Finish(Finish::retry())) };
    let rebound = before.uid != own.uid;
    if !rebound && before.generation > own.generation {
        // A newer operator, or a newer object than this cache shows, was here.
        return Err(Step::Finish(Finish::retry()));
    }
    if own.status.version.is_some_and(|version| i64::try_from(before.version).is_ok_and(|before| before < version)) {
        // The caches of objects and of records are not in step with each other: only a live look can tell.
        if world.record_confirmed.as_ref() != Some(&base.view.uid) {
            return Err(Step::Read(Read::Secret(base.view.name.clone())));
        }
        let message = format!(
            "record {} is older than status.version; the delivered value stays: restore the newer record, or delete this one",
            base.view.name
        );
        return Ok(Outcome::Stuck(Verdict::Terminal(Problem::new(Reason::RecordRolledBack, message))));
    }
    let mut troubles = Vec::new();
    let (name, slot) = name_and_slot(world, base, before, &mut troubles)?;
    let later = source_held(world, before)?;
    let followed = match later {
        Some(_) => Ok((before.source.clone(), Bytes::Keep)),
        None => source_and_bytes(world, base, before)?,
    };
    let (source, bytes) = match followed {
        Ok(moved) => moved,
        Err(problem) => {
            troubles.push(verdict_of(problem));
            (before.source.clone(), Bytes::Keep)
        }
    };
    let new_value = bytes == Bytes::Incoming;
    let delivery = delivery::decide(world, &before.id, Some(&before.target), || match bytes {
        Bytes::Incoming => match incoming(world, &source)?.1 {
            Ok(value) => Ok(value),
            Err(_) => Err(Step::Finish(Finish::retry())),
        },
        _ => open(world, base),
    })?;
    let description = own.spec.description();
    let moved = new_value || name != before.name || description != before.description;
    let now = world.date();
    // Clocks differ between operators: a date never goes back. The format sorts as text.
    let not_before = |date: &String| date.max(&now).clone();
    let meta = RecordMeta {
        id: before.id.clone(),
        created: before.created.clone(),
        updated: if moved { not_before(&before.updated) } else { before.updated.clone() },
        value_updated: if new_value { not_before(&before.value_updated) } else { before.value_updated.clone() },
        version: before.version + u64::from(new_value),
        source,
        target: delivery.record.clone(),
        ..skeleton(world, &name)
    };
    let why = if rebound {
        Why::TakenOver
    } else if new_value {
        Why::NewValue
    } else if name != before.name {
        Why::Rename
    } else if before.generation != own.generation {
        Why::SpecChanged
    } else if meta.source != before.source && *before == (RecordMeta { source: before.source.clone(), ..meta.clone() })
    {
        Why::SourceMoved
    } else {
        Why::OutOfStep
    };
    let others = if name == before.name {
        others
    } else {
        // Once the new record stands, the next look finds two, and this one is among the others.
        others.into_iter().filter(|other| other.view.name != record_name(&name)).collect()
    };
    Ok(Outcome::Draft(Box::new(Draft {
        base: Some(base),
        meta,
        delivery,
        troubles,
        others,
        later,
        why,
        bytes: if rebound && !new_value { Bytes::Reseal } else { bytes },
        slot,
    })))
}

/// The name in force after this pass, and where its record is written.
fn name_and_slot(
    world: &World,
    base: &Seen,
    before: &RecordMeta,
    troubles: &mut Vec<Verdict>,
) -> Result<(String, Slot), Step> {
    let wanted = &world.own.spec.name;
    if *wanted == before.name {
        return Ok((wanted.clone(), Slot::over(&base.view)));
    }
    Ok(match place(world, wanted)? {
        Place::Free => (wanted.clone(), Slot::Free),
        Place::Ours(older) => (wanted.clone(), Slot::over(&older.view)),
        // A retained record of this name under another id is not this secret.
        Place::TakeOver(other) => {
            let message = format!(
                "the name {wanted} is held by Secret {}, retained from an earlier ManagedSecret: delete the Secret to free the name",
                other.view.name
            );
            troubles.push(Verdict::Pending(Problem::new(Reason::NameInUse, message)));
            (before.name.clone(), Slot::over(&base.view))
        }
        Place::Taken(verdict) => {
            troubles.push(verdict);
            (before.name.clone(), Slot::over(&base.view))
        }
    })
}

/// How long a source that has moved is not followed, because it gave a new value a moment ago.
fn source_held(world: &World, before: &RecordMeta) -> Result<Option<Duration>, Step> {
    let wait = world.value_wait.filter(|_| before.generation == world.own.generation);
    if wait.is_none() || !matches!(world.source, SourceSeen::Present { .. }) {
        return Ok(None);
    }
    Ok(match wanted_source(world)? {
        Ok(wanted) if !unmoved(&before.source, &wanted) => wait,
        _ => None,
    })
}

/// Whether the value moves: first by fingerprint, then, if that moved, by comparing the values.
fn source_and_bytes(world: &World, base: &Seen, before: &RecordMeta) -> Result<Result<(Source, Bytes), Problem>, Step> {
    if world.own.spec.value_from.is_some()
        && world.source == SourceSeen::Unsynced
        && before.generation == world.own.generation
    {
        // Whether it has moved will be known; until then it is the one that this spec was served from.
        return Ok(Ok((before.source.clone(), Bytes::Keep)));
    }
    let wanted = match wanted_source(world)? {
        Ok(source) => source,
        Err(problem) => return Ok(Err(problem)),
    };
    if unmoved(&before.source, &wanted) {
        return Ok(Ok((before.source.clone(), Bytes::Keep)));
    }
    let (source, value) = incoming(world, &wanted)?;
    let value = match value {
        Ok(value) => value,
        Err(problem) => return Ok(Err(problem)),
    };
    if *source == before.source {
        // The live source is the one that the record was made from; the cache was behind.
        return Ok(Ok((before.source.clone(), Bytes::Keep)));
    }
    // A generated value is new by definition; any other is compared.
    let same = *source != Source::Generate && open(world, base)?.same_as(value);
    Ok(Ok((source.clone(), if same { Bytes::Keep } else { Bytes::Incoming })))
}

/// Whether the cache shows the source that the record was made from, or an older state of it.
fn unmoved(before: &Source, cached: &Source) -> bool {
    match (before, cached) {
        (
            Source::Secret { uid, resource_version, key },
            Source::Secret { uid: cached_uid, resource_version: cached_version, key: cached_key },
        ) => {
            let older = |a: &str, b: &str| matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a >= b);
            uid == cached_uid && key == cached_key && older(resource_version, cached_version)
        }
        _ => before == cached,
    }
}

/// What every record of this object says; the rest is filled in by the caller.
fn skeleton(world: &World, name: &str) -> RecordMeta {
    let own = &world.own;
    RecordMeta {
        id: String::new(),
        owner: own.name.clone(),
        uid: own.uid.clone(),
        name: name.to_owned(),
        description: own.spec.description().to_owned(),
        created: String::new(),
        updated: String::new(),
        value_updated: String::new(),
        version: 0,
        generation: own.generation,
        deletion_policy: own.spec.deletion_policy(),
        source: Source::Generate,
        target: super::super::record::Delivered::None,
    }
}

/// Whether another object may heal a problem of the source, or a person is needed.
fn verdict_of(problem: Problem) -> Verdict {
    match problem.reason {
        Reason::SourceNotFound | Reason::SourceKeyNotFound | Reason::SourceRing | Reason::NameInUse => {
            Verdict::Pending(problem)
        }
        _ => Verdict::Terminal(problem),
    }
}
