//! The values of an archive, opened with recovered keys. Pure. Problems name a record and never show a value.
//!
//! The files may hold several states of one object, from backups of different times. Every state counts: a version that one
//! of them gives is recovered, and one that several give is written once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::record::{KeptVersion, RecordMeta, StoredRecord};
use managed_secrets_client::SecretObject;
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::Sealed;
use managed_secrets_crypto::recovery::Recovered;
use serde_json::json;

use super::record::{Opened, Opener, Version};
use crate::archive::{Archive, Object, Place, place};

/// What was opened, and what was not.
#[derive(Default)]
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    /// A sentence for each value that did not open.
    pub(super) lost: Vec<String>,
    /// A sentence for each value whose name, or whose place among the versions, is not proven.
    pub(super) doubts: Vec<String>,
}

/// One value and what is known about it.
pub(super) struct Value {
    namespace: String,
    source: Source,
    plaintext: Plaintext,
}

/// Where a value was.
enum Source {
    /// In a record.
    Record(Box<RecordMeta>),
    /// Kept in a record: an earlier version.
    Kept(Box<RecordMeta>, KeptVersion),
    /// In a record that does not prove what it says of this version.
    Unverified(Box<RecordMeta>, u64, String),
    /// In the sealed text of a ManagedSecret whose newest value no record proves.
    Manifest { object: String, name: String, description: String },
}

impl Value {
    /// The document that is written.
    pub(super) fn document(&self) -> serde_json::Value {
        // A value is UTF-8.
        let value = String::from_utf8_lossy(self.plaintext.as_bytes());
        match &self.source {
            Source::Record(meta) => json!({
                "namespace": self.namespace, "object": meta.owner, "name": meta.name, "description": meta.description,
                "id": meta.id, "version": meta.version, "created": meta.created, "updated": meta.updated,
                "valueUpdated": meta.value_updated, "value": value,
            }),
            Source::Kept(meta, kept) => json!({
                "namespace": self.namespace, "object": meta.owner, "name": meta.name, "description": meta.description,
                "id": meta.id, "version": kept.version, "valueUpdated": kept.created, "value": value,
            }),
            Source::Unverified(meta, version, _) => json!({
                "namespace": self.namespace, "object": meta.owner, "name": meta.name, "description": meta.description,
                "id": meta.id, "version": version, "unverified": true, "value": value,
            }),
            Source::Manifest { object, name, description } => json!({
                "namespace": self.namespace, "object": object, "name": name, "description": description, "value": value,
            }),
        }
    }
}

/// What all states of a record give for one version.
#[derive(Default)]
struct Slot {
    /// Different values of one version come from clusters that went different ways.
    values: Vec<Value>,
    /// Why a state gives none.
    lost: Option<String>,
}

impl Slot {
    fn is_proven(&self) -> bool {
        self.values.iter().any(|value| !matches!(value.source, Source::Unverified(..)))
    }

    fn add(&mut self, value: Value) {
        match self.values.iter_mut().find(|known| known.plaintext.same_as(&value.plaintext)) {
            None => self.values.push(value),
            Some(known) if matches!(known.source, Source::Unverified(..)) => *known = value,
            Some(_) => {}
        }
    }
}

/// One secret: a record's name, and the id of the secret.
type Secret = (Place, String);

/// The states of all records.
#[derive(Default)]
struct States {
    /// The position of each secret in the files.
    positions: BTreeMap<Secret, usize>,
    /// By position, the ManagedSecrets that its records name.
    owners: Vec<BTreeSet<Place>>,
    /// By position, the newest version first.
    slots: BTreeMap<(usize, Reverse<u64>), Slot>,
}

impl States {
    fn add(&mut self, record: &SecretObject, recovered: &Recovered) {
        // An intake accepts no other.
        let Some(stored) = StoredRecord::of(&record.metadata) else { return };
        let (namespace, name) = place(&record.metadata);
        let secret = ((namespace.clone(), name.clone()), stored.meta.id.clone());
        let next = self.owners.len();
        let position = *self.positions.entry(secret).or_insert(next);
        self.owners.resize_with(self.positions.len(), BTreeSet::new);
        if let Some(owners) = self.owners.get_mut(position) {
            owners.insert((namespace.clone(), stored.meta.owner.clone()));
        }
        for Version { number, kept, value } in Opener::new(record, &stored, recovered).versions() {
            let slot = self.slots.entry((position, Reverse(number))).or_default();
            let called = format!("record {namespace}/{name} (secret {}, version {number})", stored.meta.name);
            match value {
                Err(why) => slot.lost = Some(format!("{called}: {why}")),
                Ok(Opened { plaintext, doubt }) => {
                    let meta = Box::new(stored.meta.clone());
                    let source = match (doubt, kept) {
                        (Some(why), _) => Source::Unverified(meta, number, format!("{called}: {why}")),
                        (None, Some(kept)) => Source::Kept(meta, kept),
                        (None, None) => Source::Record(meta),
                    };
                    slot.add(Value { namespace: namespace.clone(), source, plaintext });
                }
            }
        }
    }

    /// ManagedSecrets that records name, and whether a record proves the newest value of each.
    fn owners(&self) -> BTreeMap<Place, bool> {
        let mut all = BTreeMap::new();
        for (position, owners) in self.owners.iter().enumerate() {
            let newest = self.slots.range((position, Reverse(u64::MAX))..).next();
            let is_proven = newest.is_some_and(|(_, slot)| slot.is_proven());
            for owner in owners {
                all.entry(owner.clone()).and_modify(|all_proven| *all_proven &= is_proven).or_insert(is_proven);
            }
        }
        all
    }
}

/// Opens every version in every record, and the sealed text of every ManagedSecret whose newest value no record proves.
pub(super) fn open(archive: &Archive, recovered: &Recovered) -> Found {
    let mut states = States::default();
    for record in &archive.records {
        states.add(record, recovered);
    }
    let owners = states.owners();
    let mut found = Found::default();
    for Slot { values, lost } in states.slots.into_values() {
        found.lost.extend(lost.filter(|_| values.is_empty()));
        found.doubts.extend(values.iter().filter_map(|value| match &value.source {
            Source::Unverified(_, _, why) => Some(format!("{why}; its value is written as unverified")),
            _ => None,
        }));
        found.values.extend(values);
    }
    sealed_texts(archive, recovered, &owners, &mut found);
    found
}

/// Opens the sealed text of every ManagedSecret, unless a record proves its newest value. If a record exists, its problem
/// is told already.
fn sealed_texts(archive: &Archive, recovered: &Recovered, owners: &BTreeMap<Place, bool>, found: &mut Found) {
    let mut slots = BTreeMap::<_, Slot>::new();
    for object in archive.objects.iter().filter(|object| owners.get(&object.place()) != Some(&true)) {
        let (namespace, name) = object.place();
        let slot = slots.entry(object.place()).or_default();
        match sealed_in(object, recovered) {
            None => {}
            Some(Ok((plaintext, source))) => slot.add(Value { namespace, source, plaintext }),
            Some(Err(why)) => {
                slot.lost = Some(format!("ManagedSecret {namespace}/{name} has no record, and its sealed value {why}"));
            }
        }
    }
    for (place, Slot { values, lost }) in slots {
        found.lost.extend(lost.filter(|_| values.is_empty() && !owners.contains_key(&place)));
        found.values.extend(values);
    }
}

/// The value in an object's sealed text; none if it has no sealed text.
fn sealed_in(object: &Object, recovered: &Recovered) -> Option<Result<(Plaintext, Source), String>> {
    let (namespace, name) = object.place();
    let spec = object.typed()?;
    let text = spec.value?.0;
    let opened = Sealed::parse(&text).map_err(|_| "is not in the format".to_owned()).and_then(|sealed| {
        let unknown = || format!("needs the sealing key {}, which the recovery key did not open", sealed.key_id());
        let key = recovered.sealing_key(sealed.key_id()).ok_or_else(unknown)?;
        sealed.open(key, &namespace, &name).map_err(|error| format!("does not open: {error}"))
    });
    Some(opened.map(|value| {
        (value, Source::Manifest { object: name, name: spec.name, description: spec.description.unwrap_or_default() })
    }))
}
