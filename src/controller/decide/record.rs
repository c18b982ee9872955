//! The record as it should be: which one this pass goes on from, what it should say, and what stands in the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::{
    Reason,
    names::record_name,
    record::History,
    types::{DeletionPolicy, Delivery as DeliveryKind},
};
use managed_secrets_crypto::Plaintext;

use super::{
    super::{
        facts::{Facts, Freshness, Held, Known, Seen, SourceSeen},
        plan::{Bytes, Need, Problem, Read, RecordWrite, Slot, Values, Verdict, Why},
        record::{Delivered, RecordMeta, Source},
    },
    claim::{Claim, claim},
    history::{self, Serving},
    look::{self, content, is_confirmed, open},
    name::{Place, name_and_place, place},
    previous::{self, Overlapping, Previous},
    rotation,
    source::{incoming, wanted_source},
    target::{self, Action, Delivery, Wanted},
};

/// What the record should be.
pub(super) struct Draft<'w> {
    /// The record that this pass goes on from.
    pub(super) base: Option<&'w Seen>,
    /// What it should say.
    pub(super) meta: RecordMeta,
    /// What becomes of the target.
    pub(super) delivery: Delivery<'w>,
    /// What stands in the way of some of the spec, while the rest is followed.
    pub(super) troubles: Vec<Verdict>,
    /// Other records of ours, to be removed once this one is written and in status.
    pub(super) others: Vec<&'w Seen>,
    /// After how long a new value of the source is followed.
    pub(super) later: Option<Duration>,
    /// Why it is written, if it has to be.
    pub(super) why: Why,
    /// Which version of the value is delivered.
    pub(super) serving: Serving,
    /// The value that it should have.
    value: Value<'w>,
    /// What is at the record's place already.
    over: Option<&'w Seen>,
}

/// The value that a record should have.
#[derive(Clone, Copy)]
enum Value<'w> {
    /// That of this record, which is the base.
    Present(&'w Seen),
    /// That of the source.
    Incoming(&'w Arc<Plaintext>),
    /// That of the target that outlived the record.
    Survivor(&'w Arc<Plaintext>),
}

impl<'w> Value<'w> {
    fn is_new(self) -> bool {
        matches!(self, Self::Incoming(_))
    }

    fn plaintext(self, facts: &'w Facts) -> Result<&'w Arc<Plaintext>, Need> {
        match self {
            Self::Present(record) => Ok(&open(facts, record)?.value),
            Self::Incoming(value) | Self::Survivor(value) => Ok(value),
        }
    }
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
    pub(super) fn pending_write(&self, facts: &'w Facts) -> Result<Option<RecordWrite>, Need> {
        if self.base.is_some_and(|base| self.is_in_step(facts, base)) {
            return Ok(None);
        }
        let bytes = match self.value {
            Value::Present(base) => self.bytes_of(facts, base)?,
            Value::Incoming(value) => Bytes::Incoming(Arc::clone(value)),
            Value::Survivor(value) => Bytes::FromTarget(Arc::clone(value)),
        };
        let kept = match self.base {
            Some(base) => history::bytes(facts, base, &self.meta.history)?,
            None => BTreeMap::new(),
        };
        Ok(Some(RecordWrite {
            slot: self.over.map_or(Slot::Free, |seen| Slot::over(&seen.view)),
            meta: self.meta.clone(),
            bytes,
            // Under another name it is another Secret.
            emptied: match self.base.filter(|base| self.over.is_some_and(|over| over.view.name == base.view.name)) {
                Some(base) => history::strays(facts, base, &self.meta.history),
                None => BTreeSet::new(),
            },
            kept,
            owner_reference: self.meta.deletion_policy == DeletionPolicy::Delete,
            // A record that only the cache shows may have been immutable before.
            mutable: self.over.is_none_or(|seen| seen.live && !seen.view.immutable),
            then: None,
        }))
    }

    /// The bytes of a record that keeps its value.
    fn bytes_of(&self, facts: &Facts, base: &Seen) -> Result<Bytes, Need> {
        // A record of another uid opens for that uid alone.
        if self.why == Why::TakenOver {
            return Ok(Bytes::Reseal(Arc::clone(&open(facts, base)?.value)));
        }
        // A newest value that others damaged does not keep an earlier one from being delivered.
        if self.serves_earlier()
            && let Err(unopened) = &look::read(facts, base)?.contents
            && let Some(bytes) = look::bytes_of(facts, base)?.get(&self.meta.version)
        {
            return Ok(Bytes::Unopened(Arc::clone(bytes), unopened.clone()));
        }
        Ok(Bytes::Keep(open(facts, base)?.clone()))
    }

    /// The version that is delivered.
    pub(super) fn served(&self) -> u64 {
        self.serving.version.unwrap_or(self.meta.version)
    }

    /// Whether it is another one than the newest.
    pub(super) fn serves_earlier(&self) -> bool {
        self.served() != self.meta.version
    }

    /// Whether the record stands as drafted, and status, or this pass, knows it at its present version.
    fn is_in_step(&self, facts: &Facts, base: &Seen) -> bool {
        let view = &base.view;
        let in_status = facts.is_current(view);
        let written =
            facts.written.record.as_ref().is_some_and(|record| record.resource_version == view.resource_version);
        // A write that loses the owner reference on its way is not tried twice in one pass.
        self.stands()
            && history::strays(facts, base, &self.meta.history).is_empty()
            && (written || (in_status && !self.is_unowned(facts)))
    }

    /// Whether the record says what was drafted.
    fn stands(&self) -> bool {
        self.base.and_then(Seen::record) == Some(&self.meta) && matches!(self.value, Value::Present(_))
    }

    /// Whether the record says what was drafted, and lacks the owner reference, or has one too many.
    pub(super) fn is_unowned(&self, facts: &Facts) -> bool {
        let wanted = self.meta.deletion_policy == DeletionPolicy::Delete;
        self.stands() && !self.base.is_some_and(|base| target::owners_fit(&base.view, wanted, &facts.snapshot.own.uid))
    }
}

/// Drafts the record.
pub(super) fn draft(facts: &Facts) -> Result<Outcome<'_>, Need> {
    let own = &facts.snapshot.own;
    let mut records: Vec<&Seen> = facts
        .all_present()
        .filter(|seen| seen.record().is_some() && !seen.view.deleting)
        .filter(|seen| matches!(claim(facts, seen), Claim::Ours | Claim::Restored))
        .collect();
    // Before status says an id, the target may: a second record was made by an operator that had not heard of the first.
    // Then, of two records, the higher version wins, then the later date, which never goes back. Of the same second, this
    // object's own comes before one of an earlier object, whose generations count something else; then the higher generation,
    // then the one that spec.name names.
    let delivered = target::unheard::id(facts);
    records.sort_by_key(|seen| {
        let meta = seen.record()?;
        let is_own = meta.uid == own.uid;
        let is_delivered = delivered == Some(meta.id.as_str());
        Some((is_delivered, meta.version, meta.updated.as_str(), is_own, meta.generation, meta.name == own.spec.name))
    });
    if let Some(base) = records.pop() {
        // A rename may have ended between its new record and its status, and the old record have lost its label since:
        // once status names the new one, the operator would not find the old one again.
        if let Some(before) = &own.status.record
            && before.name != base.view.name
            && *facts.secret(&before.name) == Known::Unseen
        {
            return Err(Need::secret(&before.name));
        }
        records.extend(strays(facts, base));
        return going_on(facts, base, records);
    }
    if let Some(record) = &own.status.record {
        // Absent from the cache is not absent: the record may have lost its label.
        match facts.secret(&record.name) {
            Known::Unseen => return Err(Need::secret(&record.name)),
            Known::Present(seen) => {
                if let Claim::Refused(problem) = claim(facts, seen) {
                    return Ok(Outcome::Stuck(Verdict::Terminal(problem)));
                }
            }
            Known::Absent => {}
        }
    }
    match place(facts, &own.spec.name)? {
        Place::TakeOver(base) | Place::Ours(base) => going_on(facts, base, Vec::new()),
        Place::Taken(verdict) => match &own.status.name {
            // A rename that waits, and the record was lost meanwhile: rebuild it under the current name.
            Some(name) if own.status.id.is_some() && *name != own.spec.name => match place(facts, name)? {
                Place::Free => rebuilt(facts, name, Some(verdict)),
                _ => Ok(Outcome::Stuck(verdict)),
            },
            _ => Ok(Outcome::Stuck(verdict)),
        },
        Place::Free if own.status.id.is_some() => rebuilt(facts, &own.spec.name, None),
        Place::Free => first(facts),
    }
}

/// Authentic records of ours under another id than the current one: made under an older name by an operator that did
/// not know of the first. No status ever showed such an id.
fn strays<'w>(facts: &'w Facts, base: &'w Seen) -> impl Iterator<Item = &'w Seen> {
    let current = base.record().map(|meta| &meta.id).filter(|id| facts.snapshot.own.status.id.as_ref() == Some(id));
    facts.all_present().filter(move |seen| {
        let meta =
            seen.record().filter(|meta| meta.owner == facts.snapshot.own.name && meta.uid == facts.snapshot.own.uid);
        !seen.view.deleting && meta.zip(current).is_some_and(|(meta, current)| meta.id != *current)
    })
}

/// A secret that has no record yet.
fn first(facts: &Facts) -> Result<Outcome<'_>, Need> {
    let wanted = match wanted_source(facts)? {
        Ok(source) => source,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let (source, value) = incoming(facts, &wanted)?;
    let value = match value {
        Ok(value) => value,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let now = facts.date();
    let serving = history::serving(facts, None, 1, &History::default())?;
    let delivery = delivery(facts, &serving, &facts.snapshot.fresh_id, None, None, &|| Ok(Values::of(value)))?;
    let meta = RecordMeta {
        id: facts.snapshot.fresh_id.clone(),
        created: now.clone(),
        updated: now.clone(),
        value_updated: now,
        version: 1,
        source: source.clone(),
        target: delivery.record.clone(),
        ..skeleton(facts, &facts.snapshot.own.spec.name)
    };
    Ok(Outcome::Draft(Box::new(Draft {
        base: None,
        meta,
        delivery,
        troubles: Vec::new(),
        others: Vec::new(),
        later: None,
        why: Why::New,
        serving,
        value: Value::Incoming(value),
        over: None,
    })))
}

/// A record that was lost while status is still there: the same id, dates and version, if the value can be shown to be
/// the same.
fn rebuilt<'w>(facts: &'w Facts, name: &str, trouble: Option<Verdict>) -> Result<Outcome<'w>, Need> {
    let own = &facts.snapshot.own;
    let status = &own.status;
    if facts.learned.own != Freshness::Live {
        // Perhaps it is not lost but renamed, by an operator whose status our cache has not seen.
        return Err(Need::Read(Read::Spec));
    }
    let id = status.id.clone().unwrap_or_default();
    let survivor = survivor(facts)?;
    let wanted = match wanted_source(facts)? {
        Ok(source) => source,
        Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
    };
    let (source, value, same) = if matches!(wanted, Source::Generate { .. }) {
        let Some(survivor) = survivor else {
            let message = "the record was deleted, and the target does not hold the newest value as the operator last wrote it: restore one of the two from a backup, or delete this object and apply it again to get a new value";
            return Ok(Outcome::Stuck(Verdict::Terminal(Problem::new(Reason::RecordLost, message))));
        };
        // A revision that came meanwhile asks for a new value, which follows.
        (Source::Generate { revision: status.revision.clone() }, Value::Survivor(survivor), true)
    } else {
        let (source, value) = incoming(facts, &wanted)?;
        match value {
            Ok(value) => {
                (source.clone(), Value::Incoming(value), survivor.is_some_and(|survivor| survivor.same_as(value)))
            }
            Err(problem) => return Ok(Outcome::Stuck(verdict_of(problem))),
        }
    };
    let now = facts.date();
    let date = |before: &Option<String>, moved: bool| match before {
        Some(before) if moved => not_before(before, &now),
        Some(before) => before.clone(),
        None => now.clone(),
    };
    let renamed = status.name.as_deref() != Some(name);
    let version = u64::try_from(status.version.unwrap_or(0)).unwrap_or(0);
    let version = if same { version.max(1) } else { version + 1 };
    let serving = history::serving(facts, None, version, &History::default())?;
    let delivery = delivery(facts, &serving, &id, None, None, &|| Ok(Values::of(value.plaintext(facts)?)))?;
    let meta = RecordMeta {
        id,
        created: date(&status.created_date, false),
        updated: date(&status.updated_date, !same || renamed),
        value_updated: date(&status.value_updated_time, !same),
        version,
        source,
        target: delivery.record.clone(),
        ..skeleton(facts, name)
    };
    Ok(Outcome::Draft(Box::new(Draft {
        base: None,
        meta,
        delivery,
        troubles: trouble.into_iter().collect(),
        others: Vec::new(),
        later: None,
        why: Why::Rebuilt,
        serving,
        value,
        over: None,
    })))
}

/// The value of the target, if it still is what status says we last wrote. Status names no key where a template replaced the
/// value: what is there is not the value.
fn survivor(facts: &Facts) -> Result<Option<&Arc<Plaintext>>, Need> {
    let status = &facts.snapshot.own.status;
    // What it holds may be an earlier version: then the newest is lost.
    let Some(target) = status.target.as_ref().filter(|_| status.delivered.is_none()) else { return Ok(None) };
    match facts.secret(&target.name) {
        Known::Absent => Ok(None),
        Known::Unseen => Err(Need::secret(&target.name)),
        Known::Present(seen)
            if seen.view.uid != target.uid || seen.view.resource_version != target.resource_version =>
        {
            Ok(None)
        }
        Known::Present(seen) => Ok(content(facts, &seen.view)?.values.get(&target.key).and_then(Held::value)),
    }
}

/// A record exists: what of it has to move.
fn going_on<'w>(facts: &'w Facts, base: &'w Seen, others: Vec<&'w Seen>) -> Result<Outcome<'w>, Need> {
    let own = &facts.snapshot.own;
    let Some(before) = base.record() else { return Err(Need::Retry) };
    let rebound = before.uid != own.uid;
    if !rebound && before.generation > own.generation {
        // A newer operator, or a newer object than this cache shows, was here.
        return Err(Need::Retry);
    }
    if own.status.version.is_some_and(|version| i64::try_from(before.version).is_ok_and(|before| before < version)) {
        // The caches of objects and of records are not in step with each other: only a live look can tell.
        if !is_confirmed(facts, base) {
            return Err(Need::secret(&base.view.name));
        }
        let message = format!(
            "record {} is older than status.version; the delivered value stays: restore the newer record, or delete this one",
            base.view.name
        );
        return Ok(Outcome::Stuck(Verdict::Terminal(Problem::new(Reason::RecordRolledBack, message))));
    }
    let mut troubles = Vec::new();
    let (name, over) = name_and_place(facts, base, before, &mut troubles)?;
    let later = source_held(facts, before)?;
    let followed = match later {
        Some(_) => Ok((before.source.clone(), Value::Present(base))),
        None => source_and_value(facts, base, before)?,
    };
    let (source, value) = match followed {
        Ok(moved) => moved,
        Err(problem) => {
            troubles.push(verdict_of(problem));
            (before.source.clone(), Value::Present(base))
        }
    };
    let new_value = value.is_new();
    let version = before.version + u64::from(new_value);
    let history = history::kept(facts, base, before, new_value)?;
    let serving = history::serving(facts, Some((base, before)), version, &history)?;
    let now = facts.date();
    let value_updated = if new_value { not_before(&before.value_updated, &now) } else { before.value_updated.clone() };
    let is_newest = serving.version == Some(version);
    let Overlapping { previous, lost } =
        previous::of(facts, base, serving.version, &history, (version, &value_updated))?;
    troubles.extend(lost.map(Verdict::Terminal));
    let values = || -> Result<Values, Need> {
        let value = match serving.version.filter(|_| !is_newest) {
            Some(earlier) => history::value(facts, base, earlier)?,
            None => value.plaintext(facts)?,
        };
        Ok(Values { previous: history::previous_value(facts, base, previous.as_ref())?, ..Values::of(value) })
    };
    let delivery = delivery(facts, &serving, &before.id, Some(&before.target), previous.clone(), &values)?;
    // Where nothing is written, the delivery says it.
    let is_written = serving.version.is_some() || matches!(delivery.action, Action::Nothing);
    troubles.extend(serving.instead.clone().filter(|_| is_written).map(Verdict::Terminal));
    let description = own.spec.description();
    let moved = new_value || name != before.name || description != before.description;
    let meta = RecordMeta {
        id: before.id.clone(),
        created: before.created.clone(),
        updated: if moved { not_before(&before.updated, &now) } else { before.updated.clone() },
        value_updated,
        version,
        source,
        target: delivery.record.clone(),
        history,
        ..skeleton(facts, &name)
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
    } else if meta.history != before.history
        && facts.is_current(&base.view)
        && *before == (RecordMeta { history: before.history.clone(), ..meta.clone() })
    {
        // Another version is delivered now, so the one that was delivered before is no longer kept for that; or it is still
        // to be delivered beside it.
        Why::HistoryChanged
    } else {
        Why::OutOfStep
    };
    let others = if name == before.name {
        others
    } else {
        // Once the new record stands, the next look finds two, and this one is among the others.
        others.into_iter().filter(|other| other.view.name != record_name(&name)).collect()
    };
    let base = Some(base);
    Ok(Outcome::Draft(Box::new(Draft { base, meta, delivery, troubles, others, later, why, serving, value, over })))
}

/// What becomes of the target: nothing where no version may be delivered.
fn delivery<'w>(
    facts: &'w Facts,
    serving: &Serving,
    id: &str,
    recorded: Option<&Delivered>,
    previous: Option<Previous>,
    values: &dyn Fn() -> Result<Values, Need>,
) -> Result<Delivery<'w>, Need> {
    match &serving.instead {
        Some(problem) if serving.version.is_none() && facts.snapshot.own.spec.delivery() == DeliveryKind::Secret => {
            Ok(Delivery::withheld(facts, recorded, problem))
        }
        _ => target::decide(facts, id, recorded, Wanted { previous, values }),
    }
}

/// How far a date may be in the future, because of a clock that was wrong.
const CLOCK_ERROR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The date of a change that happens `now`. Clocks differ between operators, and are set back: a date never is, unless it is so
/// far in the future that a schedule that counts from it would never come. The format sorts as text.
fn not_before(date: &String, now: &String) -> String {
    let time = |text: &String| text.parse::<Timestamp>().ok();
    let is_wrong = |date: Timestamp| time(now).is_some_and(|now| date.duration_since(now) > CLOCK_ERROR);
    if time(date).is_some_and(is_wrong) { now.clone() } else { date.max(now).clone() }
}

/// How long a source that has moved is not followed, because it gave a new value a moment ago.
fn source_held(facts: &Facts, before: &RecordMeta) -> Result<Option<Duration>, Need> {
    let wait = facts.snapshot.waits.value.filter(|_| before.generation == facts.snapshot.own.generation);
    if wait.is_none() || !matches!(facts.snapshot.source, SourceSeen::Present { .. }) {
        return Ok(None);
    }
    Ok(match wanted_source(facts)? {
        Ok(wanted) if !unmoved(&before.source, &wanted) => wait,
        _ => None,
    })
}

/// Whether the value moves: first by fingerprint, then, if that moved, by comparing the values.
fn source_and_value<'w>(
    facts: &'w Facts,
    base: &'w Seen,
    before: &RecordMeta,
) -> Result<Result<(Source, Value<'w>), Problem>, Need> {
    let unchanged = || (before.source.clone(), Value::Present(base));
    if facts.snapshot.own.spec.value_from.is_some()
        && facts.snapshot.source == SourceSeen::Unsynced
        && before.generation == facts.snapshot.own.generation
    {
        // Whether it has moved will be known; until then it is the one that this spec was served from.
        return Ok(Ok(unchanged()));
    }
    let wanted = match wanted_source(facts)? {
        Ok(source) => source,
        Err(problem) => return Ok(Err(problem)),
    };
    let is_generated = matches!(wanted, Source::Generate { .. });
    if is_generated && matches!(before.source, Source::Generate { .. }) {
        if !rotation::is_wanted(facts, before) {
            // Without a revision where there was one: the record says so, and the value stays.
            return Ok(Ok((wanted, Value::Present(base))));
        }
    } else if unmoved(&before.source, &wanted) {
        return Ok(Ok(unchanged()));
    }
    let (source, value) = incoming(facts, &wanted)?;
    let value = match value {
        Ok(value) => value,
        Err(problem) => return Ok(Err(problem)),
    };
    // A generated value is new by definition; any other is compared.
    if is_generated {
        return Ok(Ok((source.clone(), Value::Incoming(value))));
    }
    if *source == before.source {
        // The live source is the one that the record was made from; the cache was behind.
        return Ok(Ok(unchanged()));
    }
    let same = open(facts, base)?.value.same_as(value);
    Ok(Ok((source.clone(), if same { Value::Present(base) } else { Value::Incoming(value) })))
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
fn skeleton(facts: &Facts, name: &str) -> RecordMeta {
    let own = &facts.snapshot.own;
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
        source: Source::Generate { revision: None },
        target: Delivered::None,
        history: History::default(),
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

#[cfg(test)]
mod tests {
    use super::not_before;

    #[test]
    fn a_date_never_goes_back_unless_a_wrong_clock_has_written_it() {
        let date = |date: &str, now: &str| not_before(&date.to_owned(), &now.to_owned());
        let now = "2026-11-28T10:00:00Z";
        assert_eq!(date("2026-11-27T10:00:00Z", now), now);
        assert_eq!(date("2026-12-05T10:00:00Z", now), "2026-12-05T10:00:00Z");
        assert_eq!(date("2026-12-05T10:00:01Z", now), now, "a schedule that counts from it would come too late");
        assert_eq!(date("2046-11-28T10:00:00Z", now), now);
        assert_eq!(date("", now), now);
    }
}
