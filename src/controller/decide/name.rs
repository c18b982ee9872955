//! The name: whether a record of the wanted name may be written, and what holds it. Pure.

use managed_secrets_api::{Reason, names::record_name};

use super::{
    super::{
        facts::{Facts, Known, Seen},
        plan::{Need, Problem, Verdict},
        record::RecordMeta,
    },
    claim::{Claim, claim},
    look::looked_at,
};

/// Where a record of the wanted name may be written.
pub(super) enum Place<'w> {
    /// Nothing is there.
    Free,
    /// Over this record, which is ours.
    Ours(&'w Seen),
    /// Over this one, which an earlier object left.
    TakeOver(&'w Seen),
    /// Not there.
    Taken(Verdict),
}

/// Where a record of this name may be written.
pub(super) fn place<'w>(facts: &'w Facts, name: &str) -> Result<Place<'w>, Need> {
    let object = record_name(name);
    Ok(match facts.secret(&object) {
        // As for a target: a look is cheaper than another create that fails.
        Known::Unseen if facts.says(Reason::ApiUnavailable) => return Err(Need::secret(&object)),
        Known::Unseen | Known::Absent => match &facts.snapshot.peers.reserved_for {
            Some(peer) if name == facts.snapshot.own.spec.name => Place::Taken(Verdict::Pending(Problem::new(
                Reason::NameInUse,
                format!("the name {name} is reserved for ManagedSecret {peer}"),
            ))),
            _ => Place::Free,
        },
        Known::Present(seen) => match claim(facts, seen) {
            Claim::Ours | Claim::Restored | Claim::TakeOver if seen.view.deleting => {
                looked_at(facts, seen, Reason::WaitingForDeletion)?;
                Place::Taken(dying(&object))
            }
            Claim::Ours | Claim::Restored => Place::Ours(seen),
            Claim::TakeOver => Place::TakeOver(seen),
            Claim::Dying => {
                looked_at(facts, seen, Reason::WaitingForDeletion)?;
                Place::Taken(dying(&object))
            }
            Claim::Refused(problem) => Place::Taken(Verdict::Terminal(problem)),
            Claim::NotOurs(problem) => {
                looked_at(facts, seen, problem.reason)?;
                Place::Taken(match seen.record() {
                    Some(meta) if meta.name != name => Verdict::Terminal(Problem::new(
                        Reason::NameCollision,
                        format!("the names {name} and {} have the same hash: choose another spec.name", meta.name),
                    )),
                    _ if facts.snapshot.peers.cycle => Verdict::Pending(Problem::new(
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

/// The current name after this pass, and what its record is written over.
pub(super) fn name_and_place<'w>(
    facts: &'w Facts,
    base: &'w Seen,
    before: &RecordMeta,
    troubles: &mut Vec<Verdict>,
) -> Result<(String, Option<&'w Seen>), Need> {
    let wanted = &facts.snapshot.own.spec.name;
    if *wanted == before.name {
        return Ok((wanted.clone(), Some(base)));
    }
    Ok(match place(facts, wanted)? {
        Place::Free => (wanted.clone(), None),
        Place::Ours(older) => (wanted.clone(), Some(older)),
        // A retained record of this name under another id is not this secret.
        Place::TakeOver(other) => {
            let message = format!(
                "the name {wanted} is held by Secret {}, retained from an earlier ManagedSecret: delete the Secret to free the name",
                other.view.name
            );
            troubles.push(Verdict::Pending(Problem::new(Reason::NameInUse, message)));
            (before.name.clone(), Some(base))
        }
        Place::Taken(verdict) => {
            troubles.push(verdict);
            (before.name.clone(), Some(base))
        }
    })
}
