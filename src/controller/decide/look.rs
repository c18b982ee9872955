//! What has to be looked at live before it is acted on. In: facts. Out: the fact, or the read that finds it out.

use std::{collections::BTreeMap, sync::Arc};

use managed_secrets_api::{Reason, record::Unopened};
use managed_secrets_crypto::mse1::{OpenError, Record};

use super::super::{
    facts::{Confirmed, Content, Facts, Seen},
    plan::{Contents, Need, Problem, Verdict},
    view::SecretView,
};

/// A target is written or removed only in a pass that has read or written the record: a stale operator finds out there
/// that a newer one was at work.
pub(super) fn confirmed(facts: &Facts, record: &Seen) -> Result<(), Need> {
    if is_confirmed(facts, record) { Ok(()) } else { Err(Need::secret(&record.view.name)) }
}

/// Whether a record was read live or written in this pass.
pub(super) fn is_confirmed(facts: &Facts, record: &Seen) -> bool {
    facts.learned.record.as_ref().is_some_and(|confirmed| confirmed.uid == record.view.uid)
}

/// Before an object waits for something that only the caches show, a live read tells whether it is there: for the end of a
/// Secret each time, and once for what is held by no ManagedSecret that exists.
pub(super) fn looked_at(facts: &Facts, seen: &Seen, reason: Reason) -> Result<(), Need> {
    let lives = |uid: &String| facts.snapshot.peers.living.contains(uid);
    let held = seen.record().is_some_and(|meta| lives(&meta.uid)) || seen.view.owners.iter().any(|it| lives(&it.uid));
    if seen.live || (reason != Reason::WaitingForDeletion && (held || facts.says(reason))) {
        Ok(())
    } else {
        Err(Need::secret(&seen.view.name))
    }
}

/// A record, read in this pass.
pub(super) fn read<'f>(facts: &'f Facts, record: &Seen) -> Result<&'f Confirmed, Need> {
    let confirmed = facts.learned.record.as_ref();
    confirmed
        .filter(|confirmed| confirmed.uid == record.view.uid && record.commitment() == Some(&confirmed.commitment))
        .ok_or_else(|| Need::secret(&record.view.name))
}

/// The bytes of a record's value and of the earlier values that it keeps, by version, read in this pass.
pub(super) fn bytes_of<'f>(facts: &'f Facts, record: &Seen) -> Result<&'f BTreeMap<u64, Arc<Record>>, Need> {
    Ok(&read(facts, record)?.versions)
}

/// What a record holds, opened in this pass.
pub(super) fn open<'f>(facts: &'f Facts, record: &Seen) -> Result<&'f Contents, Need> {
    match &read(facts, record)?.contents {
        Ok(contents) => Ok(contents),
        Err(unopened) => Err(Need::Report(Verdict::Terminal(why_unopened(&record.view.name, unopened)))),
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
        format!(
            "record {name} {what}; the delivered value stays: restore the record from a backup, or delete it, which also loses \
             its earlier values"
        ),
    )
}

/// What a Secret that is not a record holds, read in this pass.
pub(super) fn content<'f>(facts: &'f Facts, view: &SecretView) -> Result<&'f Content, Need> {
    facts.learned.content.as_ref().filter(|content| content.uid == view.uid).ok_or_else(|| Need::secret(&view.name))
}
