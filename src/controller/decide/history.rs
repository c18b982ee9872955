//! Which earlier values the record keeps, and which version is delivered. Pure.

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use managed_secrets_api::{
    Reason,
    keys::ANNO_PREVIOUS,
    overlap::Overlap,
    record::{History, KeptVersion, Replaced, Unopened},
    types::{Delivery, TargetRef},
};
use managed_secrets_crypto::{
    Plaintext,
    mse1::{OpenError, Record},
};

use super::{
    super::{
        facts::{Facts, Held, Holds, Seen},
        plan::{Need, Problem},
        record::RecordMeta,
    },
    look::{self, bytes_of, content, read},
    previous::Previous,
};

/// The earlier values that a record keeps that continues `base`, whose metadata is `before`: the newest ones, as many as
/// the spec asks for. With a new value, that of `base` is one of them, and those that were lost go. While the spec names a
/// version, that one and what is delivered are kept before all others, whatever the number; and so is what is delivered
/// beside it during an overlap.
pub(super) fn kept(facts: &Facts, base: &Seen, before: &RecordMeta, new_value: bool) -> Result<History, Need> {
    let own = &facts.snapshot.own;
    let came = base.commitment().filter(|_| new_value).map(|commitment| KeptVersion {
        version: before.version,
        commitment: *commitment,
        created: before.value_updated.clone(),
        source: before.source.kind(),
    });
    let replaced = replaced(facts, base, before, new_value)?;
    let pinned = own.spec.pinned();
    let delivered = delivered(facts, Some((base, before))).filter(|_| pinned.is_some());
    let first = [pinned, delivered, overlapping(facts, replaced.as_ref())];
    let (mut kept, mut others): (Vec<_>, Vec<_>) =
        came.into_iter().chain(before.history.iter().cloned()).partition(|kept| first.contains(&Some(kept.version)));
    if let (true, Ok(read)) = (new_value, read(facts, base)) {
        // What was lost must not take the place of what is there.
        let opens = read.contents.as_ref().err().is_none_or(Unopened::lacks_a_key);
        others.retain(|kept| read.versions.contains_key(&kept.version) && (opens || kept.version != before.version));
    }
    let room = own.spec.history().saturating_sub(kept.len());
    kept.extend(others.into_iter().take(room));
    Ok(History::new(kept).with_replaced(replaced))
}

/// The version that the target has, as far as this pass knows. `base` is the record that there is, and its metadata.
fn delivered(facts: &Facts, base: Option<(&Seen, &RecordMeta)>) -> Option<u64> {
    let own = &facts.snapshot.own;
    let said = own.status.delivered().and_then(|version| version.try_into().ok());
    let Some(target) = &own.status.target else { return said.filter(|_| own.spec.delivery() == Delivery::None) };
    let Some(seen) = facts.present(&target.name) else { return said };
    if let Some(holds) = held(facts, seen) {
        return Some(holds.version);
    }
    // A pass ended before its status: the record is ahead of it, and the target, which was as written, has been since.
    let is_ahead = |(_, before): &(&Seen, &RecordMeta)| {
        own.status.version.and_then(|version| version.try_into().ok()) != Some(before.version)
            || own.status.observed_generation != Some(before.generation)
    };
    let moved = !target.resource_version.is_empty() && !is_as_written(facts, seen);
    base.filter(|base| moved && is_ahead(base)).map_or(said, |(_, before)| Some(before.version))
}

/// The version that the delivered one has replaced, where that is not told by the order of the versions: the spec named an
/// earlier one, or the target could not be written when the newest came.
fn replaced(facts: &Facts, base: &Seen, before: &RecordMeta, new_value: bool) -> Result<Option<Replaced>, Need> {
    let own = &facts.snapshot.own;
    let known = before.history.replaced().cloned();
    let newest = before.version + u64::from(new_value);
    let Some(has) = delivered(facts, Some((base, before))) else { return Ok(known.filter(|_| !new_value)) };
    let wanted = match own.spec.pinned().filter(|pinned| *pinned != newest) {
        None => newest,
        Some(pinned) if is_there(facts, base, before, pinned)? => pinned,
        // Until it is there, what is delivered stays.
        Some(_) => has,
    };
    if wanted == has {
        // What is beside it stays, too: a newer value that is not delivered changes nothing.
        let told = before.history.previous(before.version, &before.value_updated);
        let told = told.filter(|_| new_value && has == before.version);
        let told = told.map(|(kept, until)| Replaced { version: kept.version, until: until.to_owned() });
        return Ok(known.or(told));
    }
    if wanted != newest || has == before.version {
        // Beside an earlier version there is none: there is no newer one to move to.
        return Ok(None);
    }
    // A pass that ended early goes on with what it began, if clients still had time for it.
    let begun = before.history.previous(before.version, &before.value_updated);
    let is_over = begun.is_none_or(|(_, until)| !lasts(facts, until)) && lasts(facts, &facts.date());
    let begins = new_value || before.generation != own.generation || is_over;
    Ok(if begins { Some(Replaced { version: has, until: facts.date() }) } else { known })
}

/// Whether a record has a version, and it opens as far as this pass knows.
fn is_there(facts: &Facts, base: &Seen, before: &RecordMeta, version: u64) -> Result<bool, Need> {
    let is_kept = before.version == version || before.history.get(version).is_some();
    Ok(is_kept && !matches!(opened(facts, base, version)?, Some(Err(_))))
}

/// Whether an overlap that began then lasts.
fn lasts(facts: &Facts, since: &str) -> bool {
    Overlap::of(&facts.snapshot.own.spec, since, facts.snapshot.now) != Overlap::None
}

/// The version that is still to be beside the delivered one.
fn overlapping(facts: &Facts, replaced: Option<&Replaced>) -> Option<u64> {
    replaced.filter(|replaced| lasts(facts, &replaced.until)).map(|replaced| replaced.version)
}

/// Which version of the value is delivered.
pub(super) struct Serving {
    /// The version; nothing where what is delivered cannot be written again, and has to stay as it is.
    pub(super) version: Option<u64>,
    /// Why it is not the one that the spec names.
    pub(super) instead: Option<Problem>,
}

/// Which version is delivered of a record that will say `version` and `history`. `base` is the record that there is, and
/// its metadata. While the version that the spec names cannot be delivered, it is the one that was delivered before.
pub(super) fn serving(
    facts: &Facts,
    base: Option<(&Seen, &RecordMeta)>,
    version: u64,
    history: &History,
) -> Result<Serving, Need> {
    let Some(pinned) = facts.snapshot.own.spec.pinned().filter(|pinned| *pinned != version) else {
        return Ok(Serving { version: Some(version), instead: None });
    };
    let unopened = match base.filter(|_| history.get(pinned).is_some()) {
        Some((record, _)) => match opened(facts, record, pinned)? {
            Some(Err(unopened)) => Some((record, unopened)),
            _ => return Ok(Serving { version: Some(pinned), instead: None }),
        },
        None => None,
    };
    let delivered = match (delivered(facts, base), base) {
        (Some(delivered), _) if delivered == version => Some(delivered),
        (Some(delivered), Some((record, _))) if can_be_written(facts, record, delivered, history)? => Some(delivered),
        _ => None,
    };
    let target = facts.snapshot.own.status.target.as_ref().map(|target| facts.present(&target.name));
    let is_damaged = target.is_some_and(|target| !target.is_some_and(|seen| is_as_written(facts, seen)));
    let follows = if delivered.is_none() && is_damaged {
        "the value that was delivered is lost, so the operator does not repair the target Secret"
    } else {
        "the delivered value stays"
    };
    let problem = match unopened {
        Some((record, unopened)) => lost(&record.view.name, pinned, unopened, follows),
        None => not_kept(pinned, version, history, follows),
    };
    Ok(Serving { version: delivered, instead: Some(problem) })
}

/// Says that a version is not kept, and what follows.
fn not_kept(pinned: u64, version: u64, history: &History, follows: &str) -> Problem {
    let others = history.iter().map(|kept| kept.version.to_string());
    let kept: Vec<_> = std::iter::once(version.to_string()).chain(others).collect();
    let message = format!(
        "spec.version: version {pinned} is not kept; the record has {}: name one of these, or remove spec.version to \
         deliver the newest; {follows}",
        kept.join(", ")
    );
    Problem::new(Reason::VersionNotKept, message)
}

/// Whether an earlier value is there to be delivered: the record keeps it, or the target still has it.
fn can_be_written(facts: &Facts, record: &Seen, version: u64, history: &History) -> Result<bool, Need> {
    if history.get(version).is_some() && !matches!(opened(facts, record, version)?, Some(Err(_))) {
        return Ok(true);
    }
    Ok(copy(facts, version)?.is_some())
}

/// An earlier value, if this pass has read the record.
pub(super) fn opened<'f>(
    facts: &'f Facts,
    record: &Seen,
    version: u64,
) -> Result<Option<&'f Result<Arc<Plaintext>, Unopened>>, Need> {
    match read(facts, record) {
        Ok(read) => Ok(read.opened.get(&version)),
        // Once the status says that it cannot be opened, only a look tells that it can be again.
        Err(need) if facts.says(Reason::VersionLost) || facts.says(Reason::SeedUnknown) => Err(need),
        Err(_) => Ok(None),
    }
}

/// The value of a version that `record` has, opened in this pass. If the record has lost it, that of the target.
pub(super) fn value<'f>(facts: &'f Facts, record: &Seen, version: u64) -> Result<&'f Arc<Plaintext>, Need> {
    if record.record().is_some_and(|meta| meta.version == version) {
        return Ok(&look::open(facts, record)?.value);
    }
    match read(facts, record)?.opened.get(&version) {
        Some(Ok(value)) => Ok(value),
        // Without a copy this is unreachable: `serving` and `previous::of` have asked for it.
        Some(Err(_)) | None => copy(facts, version)?.ok_or(Need::Retry),
    }
}

/// The value of a version in the target, if the target is as the operator last wrote it. Status names no key where a
/// template replaced the value: what is there is not the value.
pub(super) fn copy(facts: &Facts, version: u64) -> Result<Option<&Arc<Plaintext>>, Need> {
    let status = &facts.snapshot.own.status;
    let Some(target) = &status.target else { return Ok(None) };
    let Some(seen) = facts.present(&target.name).filter(|seen| is_as_written(facts, seen)) else { return Ok(None) };
    let delivered = delivered(facts, None);
    let view = &seen.view;
    let said = view.annotation(ANNO_PREVIOUS).filter(|_| view.ours.annotations.contains(ANNO_PREVIOUS));
    let previous = said.and_then(|said| said.split_once(':')).filter(|(said, _)| *said == version.to_string());
    let key = match previous {
        _ if delivered == Some(version) => target.key.as_str(),
        Some((_, key)) => key,
        None => return Ok(None),
    };
    Ok(content(facts, view)?.values.get(key).and_then(Held::value))
}

/// The first of `versions` that `record` has lost: the target has the only copy of its value.
pub(super) fn only_in_target(
    facts: &Facts,
    record: &Seen,
    versions: impl IntoIterator<Item = u64>,
) -> Result<Option<u64>, Need> {
    let newest = record.record().map(|meta| meta.version);
    let opened = &read(facts, record)?.opened;
    let is_lost = |version: &u64| newest != Some(*version) && !matches!(opened.get(version), Some(Ok(_)));
    Ok(versions.into_iter().find(is_lost))
}

/// What a target is known to hold in this pass.
fn held<'f>(facts: &'f Facts, seen: &Seen) -> Option<&'f Holds> {
    let is_it = |holds: &&Holds| holds.uid == seen.view.uid && holds.resource_version == seen.view.resource_version;
    facts.written.holds.as_ref().filter(is_it)
}

/// Whether a target is as status, or this pass, last wrote it.
fn is_as_written(facts: &Facts, seen: &Seen) -> bool {
    let is_said =
        |target: &TargetRef| target.uid == seen.view.uid && target.resource_version == seen.view.resource_version;
    held(facts, seen).is_some() || facts.snapshot.own.status.target.as_ref().is_some_and(is_said)
}

/// The value that the target has beside the delivered one, and its key.
pub(super) fn previous_value(
    facts: &Facts,
    record: &Seen,
    previous: Option<&Previous>,
) -> Result<Option<(String, Arc<Plaintext>)>, Need> {
    let value = |previous: &Previous| Ok((previous.key.clone(), Arc::clone(value(facts, record, previous.version)?)));
    previous.map(value).transpose()
}

/// Says that an earlier value cannot be delivered, and what follows.
pub(super) fn lost(record: &str, version: u64, unopened: &Unopened, follows: &str) -> Problem {
    if let Unopened::Crypto(OpenError::SeedUnknown(seed)) = unopened {
        let message = format!(
            "version {version} of record {record} is encrypted with seed {seed}, which the keyring does not have; \
             {follows}: restore that keyring"
        );
        return Problem::new(Reason::SeedUnknown, message);
    }
    let message = format!(
        "version {version} of record {record} was deleted or changed by another program; {follows}: restore the record \
         from a backup"
    );
    Problem::new(Reason::VersionLost, message)
}

/// The bytes of the earlier values of `history` that `base` has. One that was lost, or changed by others, is left out.
pub(super) fn bytes(facts: &Facts, base: &Seen, history: &History) -> Result<BTreeMap<u64, Arc<Record>>, Need> {
    if history.is_empty() {
        return Ok(BTreeMap::new());
    }
    let stored = bytes_of(facts, base)?;
    let of = |kept: &KeptVersion| Some((kept.version, Arc::clone(stored.get(&kept.version)?)));
    Ok(history.iter().filter_map(of).collect())
}

/// The data keys of `base` that a write of `history` is to empty, as far as this pass has read it.
pub(super) fn strays(facts: &Facts, base: &Seen, history: &History) -> BTreeSet<String> {
    let Ok(read) = read(facts, base) else { return BTreeSet::new() };
    let is_written =
        |key: &String| history.iter().any(|kept| kept.data_key() == *key && read.versions.contains_key(&kept.version));
    read.strays.iter().filter(|key| !is_written(key)).cloned().collect()
}
