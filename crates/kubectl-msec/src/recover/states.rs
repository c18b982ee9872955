//! One state of each object, where files hold several, from backups of different times. Pure.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::keys::KEYRING_DATA_KEY;
use managed_secrets_api::record::{RecordMeta, Source, StoredRecord};
use managed_secrets_cli::CliError;
use managed_secrets_client::{SecretBytes, SecretObject};
use managed_secrets_crypto::keyring::Document;
use managed_secrets_crypto::recovery::Recovered;
use sha2::{Digest as _, Sha256};

use super::record::Opener;
use crate::archive::{Archive, Object, Place, StoredKeyring, place};

/// The archive with one state of each object, and a sentence for each object of which no state was chosen.
///
/// * Keyrings: the newest, and beside it the keys that only the others have.
/// * Records: the newest of those that prove their value.
/// * ManagedSecrets: the one that the record was written for. To choose another one could deliver an older value.
pub(super) fn newest(archive: Archive, recovered: &Recovered) -> Result<(Archive, Vec<String>), CliError> {
    let records = by_place(archive.records, |record| place(&record.metadata));
    let records: Vec<_> = records.into_iter().filter_map(|states| record(states, recovered)).collect();
    let metas: BTreeMap<Place, RecordMeta> = records
        .iter()
        .filter_map(|record| {
            let meta = StoredRecord::of(&record.metadata)?.meta;
            Some(((place(&record.metadata).0, meta.owner.clone()), meta))
        })
        .collect();
    let (mut objects, mut left_out) = (Vec::new(), Vec::new());
    for states in by_place(archive.objects, Object::place) {
        let at = states.first().map(Object::place).unwrap_or_default();
        match object(states, metas.get(&at)) {
            Some(object) => objects.push(object),
            None => left_out.push(format!(
                "ManagedSecret {}/{} differs between these files, and its record shows no state to be the newest; the new \
                 backup does not contain it",
                at.0, at.1
            )),
        }
    }
    let mut keyrings = Vec::new();
    for states in by_place(archive.keyrings, |keyring| place(&keyring.metadata)) {
        keyrings.extend(merged(states)?);
    }
    Ok((Archive { objects, records, keyrings, keks: archive.keks }, left_out))
}

/// The states of each object, in the order of the files.
fn by_place<T>(all: Vec<T>, place: impl Fn(&T) -> Place) -> Vec<Vec<T>> {
    let (mut positions, mut states) = (BTreeMap::new(), Vec::<Vec<T>>::new());
    for one in all {
        let position = *positions.entry(place(&one)).or_insert(states.len());
        states.resize_with(positions.len(), Vec::new);
        if let Some(states) = states.get_mut(position) {
            states.push(one);
        }
    }
    states
}

fn record(states: Vec<SecretObject>, recovered: &Recovered) -> Option<SecretObject> {
    if states.len() < 2 {
        return states.into_iter().next();
    }
    states.into_iter().max_by_key(|record| {
        let stored = StoredRecord::of(&record.metadata);
        stored.map(|stored| {
            let is_whole = Opener::new(record, &stored, recovered).is_whole();
            (is_whole, stored.meta.version, stored.meta.generation, stored.meta.updated)
        })
    })
}

fn object(mut states: Vec<Object>, record: Option<&RecordMeta>) -> Option<Object> {
    if states.len() > 1 {
        states.retain(|object| record.is_some_and(|record| is_of(object, record)));
    }
    states.pop().filter(|_| states.is_empty())
}

/// Whether the record was written for this state of its ManagedSecret, as far as one can tell.
fn is_of(object: &Object, record: &RecordMeta) -> bool {
    let Some(spec) = object.typed() else { return false };
    let text = spec.value.as_ref().map(|text| hex::encode(Sha256::digest(&text.0)));
    let has_source = match &record.source {
        Source::Sealed { sha256 } => text.as_ref() == Some(sha256),
        Source::Secret { .. } | Source::Generate { .. } => text.is_none(),
    };
    has_source && object.fits(record).is_ok() && spec.description.unwrap_or_default() == record.description
}

/// The newest of these keyrings, which have one name, and others beside it with the keys that only they have.
fn merged(mut states: Vec<SecretObject>) -> Result<Vec<SecretObject>, CliError> {
    let size = |keyring: &SecretObject| StoredKeyring::of(keyring).map(|it| (it.document.generation, it.ids().count()));
    states.sort_by_key(|keyring| std::cmp::Reverse(size(keyring)));
    let mut known = BTreeSet::new();
    let mut keyrings = Vec::new();
    for mut secret in states {
        let Some(stored) = StoredKeyring::of(&secret) else { continue };
        if !keyrings.is_empty() {
            let Document { format, generation, entries, given_up, unknown } = stored.document.clone();
            let entries: Vec<_> = entries.into_iter().filter(|entry| !known.contains(&entry.id)).collect();
            if entries.is_empty() {
                continue;
            }
            let rest = serde_json::to_vec_pretty(&Document { format, generation, entries, given_up, unknown })
                .map_err(|error| CliError::failed("cannot write the keyring", &error))?;
            secret.metadata.name = Some(stored.name_beside());
            secret.data = [(KEYRING_DATA_KEY.to_owned(), SecretBytes::copy_of(&rest))].into();
        }
        known.extend(stored.ids().map(str::to_owned));
        keyrings.push(secret);
    }
    Ok(keyrings)
}
