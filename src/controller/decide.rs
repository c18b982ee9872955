//! The pure core: from all that is known to the one next step.
//!
//! In: [`Facts`]. Out: a [`Step`]: a read that finds out what is missing, the next write, or the end of the pass. No
//! client, no clock, no randomness but what the facts hold. The order of writes is what makes a crash harmless: the
//! record first, then the target, then what is left of an old target, then status, then what is left of an old record.
//!
//! | module | what it decides |
//! |---|---|
//! | [`claim`] | whose a record is |
//! | [`record`] | which record a pass goes on from, and what it should say |
//! | [`name`] | whether a record of the wanted name may be written |
//! | [`target`] | whose a target is, and what has to be done to it |
//! | [`history`] | which earlier values the record keeps, and which version is delivered |
//! | [`previous`] | which earlier value the target has beside it, and for how long |
//! | [`source`] | which source the spec wants, and whether it gives a value |
//! | [`rotation`] | when a generated value is replaced |
//! | [`status`] | what the status says |
//! | [`look`] | what has to be looked at live before it is acted on |

use std::{collections::BTreeSet, iter, time::Duration};

use managed_secrets_api::Reason;

use self::{
    look::confirmed,
    record::Draft,
    status::{Report, report, say, served_text},
    target::{Action, Leftover, TargetForm},
};
use super::{
    altered::{self, Altered, Part},
    facts::{Facts, Freshness, Seen},
    plan::{Bytes, Finish, Need, Problem, RecordWrite, Step, TargetWrite, Values, Verdict, Why, Write},
    record::Source,
};

mod claim;
mod history;
mod look;
mod name;
mod previous;
mod record;
mod rotation;
mod source;
mod status;
mod target;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod testing;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;

/// Names the next step.
#[must_use]
pub(super) fn decide(facts: &Facts) -> Step {
    match next(facts) {
        Ok(step) => step,
        Err(Need::Read(read)) => Step::Read(read),
        Err(Need::Retry) => Step::Finish(Finish::RETRY),
        Err(Need::Report(verdict)) => say(facts, &verdict),
    }
}

/// The step that says in the status how a pass failed, if it does not say so already.
#[must_use]
pub(super) fn failed(facts: &Facts, verdict: &Verdict) -> Step {
    if facts.learned.own == Freshness::Gone || facts.snapshot.own.deleting {
        return Step::Finish(Finish::DONE);
    }
    say(facts, verdict)
}

fn next(facts: &Facts) -> Result<Step, Need> {
    let own = &facts.snapshot.own;
    if facts.learned.own == Freshness::Gone || own.deleting {
        return Ok(Step::Finish(Finish::DONE));
    }
    if facts.learned.own == Freshness::Renamed {
        return Ok(Step::Finish(Finish::RETRY));
    }
    if own.namespace == facts.snapshot.settings.operator_namespace {
        let message =
            "the operator manages no ManagedSecret in its own namespace, where its keys live: use another namespace";
        return Ok(say(facts, &Verdict::Terminal(Problem::new(Reason::NamespaceNotServed, message))));
    }
    if own.spec.suspended() {
        return Ok(say(facts, &Verdict::Suspended));
    }
    if let Some(violation) = &own.violation {
        return Ok(say(facts, &Verdict::Terminal(Problem::new(Reason::InvalidSpec, violation.to_string()))));
    }
    let of_record = |altered: &&Altered| altered.part != Part::Target;
    if let Some(altered) = facts.written.altered.iter().filter(of_record).find(|altered| altered.is_spoiled()) {
        if altered.part == Part::NewRecord
            && let Some(seen) = facts.present(&altered.secret)
        {
            return Ok(Write::Delete(seen.view.clone(), Why::Altered).into());
        }
        return Ok(again(say(facts, &altered.verdict())));
    }
    match record::draft(facts)? {
        record::Outcome::Stuck(verdict) => Ok(say(facts, &verdict)),
        record::Outcome::Draft(draft) => carry_out(facts, &draft),
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
fn repair_wait(facts: &Facts, why: Why, repair: Why, source: &Source) -> Option<Duration> {
    let kept_out = || facts.written.kept_out.as_ref() == Some(source);
    let waits = match why {
        Why::NewValue => kept_out(),
        why => why == repair || altered::is_known(&facts.snapshot.own),
    };
    facts.snapshot.waits.repair.filter(|_| waits)
}

/// A shorter wait for a repair is over before anyone could act on what the status says of it.
const REPAIR_WAIT_SAID: Duration = Duration::from_secs(5);

/// The end of a pass in which the repair of a target waits. The status says so where the target is known to be wrong: it is
/// missing, or of what the operator wrote, something is another program's now. Where only its version moved, others may have
/// changed nothing but fields of their own.
fn delay_repair(facts: &Facts, form: &TargetForm, wait: Duration) -> Step {
    let own = &facts.snapshot.own;
    let present = facts.present(&form.name).map(|seen| &seen.view);
    let may_be_right = present.is_some_and(|view| form.is_in_shape(view, &own.uid));
    if wait < REPAIR_WAIT_SAID || may_be_right || altered::is_known(own) {
        return Step::Finish(Finish::after(wait));
    }
    let by = present.and_then(|view| view.other_manager.as_deref()).map(|by| format!(" by {by}")).unwrap_or_default();
    let message = format!(
        "target Secret {} was changed or deleted several times in a row{by}: the operator waits before it restores it, each \
         time longer, up to six minutes; stop the program that does this, or choose another spec.target.name",
        form.name
    );
    match say(facts, &Verdict::Pending(Problem::new(Reason::RepairDelayed, message))) {
        Step::Finish(Finish { after, .. }) => Step::Finish(Finish::after(after.map_or(wait, |after| after.min(wait)))),
        step => step,
    }
}

/// From a draft of the record to the next write.
fn carry_out(facts: &Facts, draft: &Draft<'_>) -> Result<Step, Need> {
    let mut later = draft.later;
    let mut altered: Vec<Altered> = facts.written.altered.clone();
    if let Some(record) = draft.pending_write(facts)? {
        match (
            draft.why,
            repair_wait(facts, draft.why, Why::OutOfStep, &draft.meta.source),
            facts.snapshot.waits.source,
        ) {
            // Only its owner reference is missing: the target does not wait for that.
            (_, Some(wait), _) if draft.is_unowned(facts) && altered::is_known(&facts.snapshot.own) => {
                later = Some(wait);
                altered.extend(draft.base.map(|base| Altered::unowned_record(&base.view.name)));
            }
            (_, Some(wait), _) => return Ok(Step::Finish(Finish::after(wait))),
            // A source that changes all the time is not followed at full speed. The target does not wait for that.
            (Why::SourceMoved, _, Some(wait)) if draft.base.is_some() => later = Some(wait),
            _ => {
                let then = target_of_new_value(facts, draft, &record).map(Box::new);
                return Ok(Write::Record(RecordWrite { then, ..record }, draft.why).into());
            }
        }
    }
    let Some(record) = draft.base else {
        // Unreachable: a draft without a base always has a pending write.
        return Ok(Step::Finish(Finish::RETRY));
    };
    let id = &draft.meta.id;
    // A record that goes takes its target with it.
    let mut ids: BTreeSet<&str> =
        draft.others.iter().filter_map(|other| other.record().map(|meta| meta.id.as_str())).collect();
    ids.insert(id);
    let mut verdict = Verdict::Served(served_text(facts, draft));
    let mut place = None;
    let of_target = altered.iter().find(|altered| altered.part == Part::Target);
    match &draft.delivery.action {
        Action::Nothing => {}
        Action::Blocked(blocked) => {
            verdict = blocked.clone();
            // What is served at the old place stays until the new one can be written.
            place = facts.snapshot.own.status.target.as_ref().map(|target| target.name.clone());
        }
        Action::Recreate(seen) => {
            let previous = draft.delivery.previous.as_ref().map(|previous| previous.version);
            let delivered = iter::once(draft.served()).chain(previous);
            if let Some(version) = history::only_in_target(facts, record, delivered)? {
                verdict = Verdict::Terminal(only_copy(&seen.view.name, version));
            } else if of_target.is_none() {
                if let Some(wait) = repair_wait(facts, Why::NewType, Why::Drift, &draft.meta.source) {
                    return Ok(Step::Finish(Finish::after(wait)));
                }
                let form = target::target_form(facts, &draft.delivery, id)?;
                let target = target_write(facts, draft, record, form, None)?;
                return Ok(Write::Retype(seen.view.clone(), target).into());
            }
            place = Some(seen.view.name.clone());
        }
        Action::Write(over) => {
            let form = target::target_form(facts, &draft.delivery, id)?;
            if of_target.is_none()
                && let Some(why) = target_pending(facts, draft, &form)
            {
                if let Some(wait) = repair_wait(facts, why, Why::Drift, &draft.meta.source) {
                    return Ok(delay_repair(facts, &form, wait));
                }
                return Ok(Write::Target(target_write(facts, draft, record, form, *over)?, why).into());
            }
            place = Some(form.name);
        }
    }
    // What is served at the old place stays until the new one holds the value.
    let blocked = matches!(draft.delivery.action, Action::Blocked(_)) || of_target.is_some_and(Altered::is_spoiled);
    if !blocked && let Some(leftover) = target::leftover(facts, &ids, place.as_deref())? {
        confirmed(facts, record)?;
        return Ok(match leftover {
            Leftover::Delete(view) => Write::Delete(view.clone(), Why::Moved).into(),
            Leftover::Release(view) => Write::Release(view.clone()).into(),
        });
    }
    let unlike = draft.delivery.trouble(facts.snapshot.own.spec.target_name(&facts.snapshot.own.name));
    let altered = altered.iter().map(Altered::verdict);
    for trouble in altered.chain(draft.troubles.iter().cloned()).chain(unlike) {
        verdict = verdict.and(trouble);
    }
    let report = report(facts, Some((draft, record, place)), &verdict);
    if let (Report::Current(_), Some(other)) = (&report, draft.others.iter().find(|other| !other.view.deleting)) {
        confirmed(facts, record)?;
        return Ok(Write::Delete(other.view.clone(), Why::Leftover).into());
    }
    Ok(match Step::from(report) {
        step if !facts.written.altered.is_empty() => again(step),
        Step::Finish(Finish { after, retry }) => {
            let rotation = rotation::wait(facts, &draft.meta);
            let overlap = previous::wait(facts, draft.delivery.previous.as_ref());
            Step::Finish(Finish { after: [after, later, rotation, overlap].into_iter().flatten().min(), retry })
        }
        step => step,
    })
}

/// Says that a target cannot be deleted to get another type.
fn only_copy(target: &str, version: u64) -> Problem {
    let message = format!(
        "target Secret {target} has the only copy of version {version}, which the record has lost, so the operator does not \
         recreate it with another type: set spec.target.type back, or deliver another version"
    );
    Problem::new(Reason::VersionLost, message)
}

/// The write of a target `over` what is there, with the values that the record has.
fn target_write(
    facts: &Facts,
    draft: &Draft<'_>,
    record: &Seen,
    form: TargetForm,
    over: Option<&Seen>,
) -> Result<TargetWrite, Need> {
    let version = draft.served();
    let previous = history::previous_value(facts, record, draft.delivery.previous.as_ref())?;
    let values = Values { previous, ..Values::of(history::value(facts, record, version)?) };
    form.write(facts, over, &draft.delivery, &draft.meta.id, version, values)
}

/// The write of the target that follows the write of a new value, if a target exists.
fn target_of_new_value(facts: &Facts, draft: &Draft<'_>, record: &RecordWrite) -> Option<TargetWrite> {
    let (Why::NewValue, Bytes::Incoming(value)) = (draft.why, &record.bytes) else { return None };
    let Action::Write(over @ Some(_)) = draft.delivery.action else { return None };
    if draft.served() != draft.meta.version {
        return None;
    }
    let form = target::target_form(facts, &draft.delivery, &draft.meta.id).ok()?;
    let meta = &draft.meta;
    let previous = history::previous_value(facts, draft.base?, draft.delivery.previous.as_ref()).ok()?;
    let values = Values { previous, ..Values::of(value) };
    let target = form.write(facts, over, &draft.delivery, &meta.id, meta.version, values).ok()?;
    // A key that has to be left to its owner is a write of its own, which comes first.
    target.found_keys.is_empty().then_some(target)
}

/// Why the target has to be written, or nothing if it is known to be as it should be.
fn target_pending(facts: &Facts, draft: &Draft<'_>, target: &TargetForm) -> Option<Why> {
    let own = &facts.snapshot.own;
    let observed = own.status.observed_generation == Some(own.generation);
    let served_before = own.status.target.as_ref().is_some_and(|before| before.name == target.name);
    // Only the target differs, so the change did not come from the spec.
    let drifted = observed && served_before && facts.written.record.is_none();
    let because = facts.written.record.as_ref().map_or(draft.why, |record| record.why);
    let Some(seen) = facts.present(&target.name) else {
        return Some(if drifted { Why::Drift } else { because });
    };
    let holds = facts.written.holds.as_ref().is_some_and(|holds| {
        holds.uid == seen.view.uid
            && holds.resource_version == seen.view.resource_version
            && holds.version == draft.served()
    });
    let shape = target.is_in_shape(&seen.view, &own.uid);
    // A target's type is no part of its metadata. A new generation may have changed it, so one that is not known is
    // applied: the API server refuses another type.
    let type_known =
        (observed && facts.written.record.is_none()) || target.type_.is_none() || facts.type_of(&seen.view).is_some();
    if holds && shape && type_known {
        return None;
    }
    Some(match (drifted, served_before) {
        (true, _) if target.ends_overlap(own, &seen.view) => Why::OverlapEnded,
        (true, _) => Why::Drift,
        (false, true) => because,
        (false, false) => Why::Moved,
    })
}
