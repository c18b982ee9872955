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
    record::{History, KeptVersion, Unopened},
};
use managed_secrets_crypto::{
    Plaintext,
    mse1::{OpenError, Record},
};

use super::{
    super::{
        facts::{Facts, Seen},
        plan::{Need, Problem},
        record::RecordMeta,
    },
    look::{self, bytes_of, read},
    previous::Previous,
};

/// The earlier values that a record keeps that continues `base`, whose metadata is `before`: the newest ones, as many as
/// the spec asks for. With a new value, that of `base` is one of them. While the spec names a version, that one and what is
/// delivered are kept before all others, whatever the number.
pub(super) fn kept(facts: &Facts, base: &Seen, before: &RecordMeta, new_value: bool) -> History {
    let replaced = base.commitment().filter(|_| new_value).map(|commitment| KeptVersion {
        version: before.version,
        commitment: *commitment,
        created: before.value_updated.clone(),
        source: before.source.kind(),
    });
    let own = &facts.snapshot.own;
    let pinned = own.spec.pinned();
    let delivered = own.status.delivered().filter(|_| pinned.is_some()).and_then(|version| version.try_into().ok());
    let all = replaced.into_iter().chain(before.history.iter().cloned());
    let (mut kept, others): (Vec<_>, Vec<_>) = all.partition(|kept| [pinned, delivered].contains(&Some(kept.version)));
    let room = own.spec.history().saturating_sub(kept.len());
    kept.extend(others.into_iter().take(room));
    History::new(kept)
}

/// Which version of the value is delivered.
pub(super) enum Serving {
    /// The newest.
    Newest,
    /// An earlier one, which the record keeps.
    Earlier(u64),
    /// No other than before: what is delivered stays, for this reason.
    Withheld(Problem),
}

/// Which version is delivered of a record that will say `version` and `history`. `base` is the record that there is.
pub(super) fn serving(facts: &Facts, base: Option<&Seen>, version: u64, history: &History) -> Result<Serving, Need> {
    let Some(pinned) = facts.snapshot.own.spec.pinned().filter(|pinned| *pinned != version) else {
        return Ok(Serving::Newest);
    };
    let Some(base) = base.filter(|_| history.get(pinned).is_some()) else {
        let others = history.iter().map(|kept| kept.version.to_string());
        let kept: Vec<_> = std::iter::once(version.to_string()).chain(others).collect();
        let message = format!(
            "spec.version: version {pinned} is not kept; the record has {}: name one of these, or remove spec.version to \
             deliver the newest; the delivered value stays",
            kept.join(", ")
        );
        return Ok(Serving::Withheld(Problem::new(Reason::VersionNotKept, message)));
    };
    Ok(match opened(facts, base, pinned)? {
        Some(Err(unopened)) => Serving::Withheld(lost(&base.view.name, pinned, unopened, "the delivered value stays")),
        _ => Serving::Earlier(pinned),
    })
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

/// The value of a version that `record` has, opened in this pass.
pub(super) fn value<'f>(facts: &'f Facts, record: &Seen, version: u64) -> Result<&'f Arc<Plaintext>, Need> {
    if record.record().is_some_and(|meta| meta.version == version) {
        return Ok(&look::open(facts, record)?.value);
    }
    match read(facts, record)?.opened.get(&version) {
        Some(Ok(value)) => Ok(value),
        // Unreachable: `serving` has withheld it.
        Some(Err(_)) | None => Err(Need::Retry),
    }
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

/// The data keys of `base` that hold values of which neither it nor `history` speaks, as far as this pass has read it.
pub(super) fn strays(facts: &Facts, base: &Seen, history: &History) -> BTreeSet<String> {
    let Ok(read) = read(facts, base) else { return BTreeSet::new() };
    let is_kept = |key: &String| history.iter().any(|kept| kept.data_key() == *key);
    read.strays.iter().filter(|key| !is_kept(key)).cloned().collect()
}
