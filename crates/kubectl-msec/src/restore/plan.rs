//! What to do about each object of a backup, given what the cluster contains. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use managed_secrets_api::keys::KEYRING_NAME;
use managed_secrets_api::record::{RecordMeta, StoredRecord};
use managed_secrets_client::SecretObject;
use managed_secrets_crypto::keyring::Entry;
use managed_secrets_crypto::provider::Provider;

use super::standing::Standing;
use super::trust::{self, NewKeyring};
use crate::archive::{Archive, Object, Place, StoredKeyring, kek_id, kek_of, place};

/// One object of the backup.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// A key-encryption key.
    Kek(SecretObject),
    /// A keyring.
    Keyring(SecretObject),
    /// A record, and what it says of itself.
    Record(SecretObject, StoredRecord),
    /// A ManagedSecret, and what its record says.
    Object(Object, Option<RecordMeta>),
}

/// What the command does about an object, or did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is created.
    Create,
    /// It exists already; a remark, or empty.
    There(String),
    /// It is not restored, and why.
    Conflict(String),
}

/// An object and its verdict.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) item: Item,
    pub(super) verdict: Verdict,
}

/// Steps in their order, and what to print before.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) notes: Vec<String>,
    /// What may keep the operator from starting.
    pub(super) warnings: Vec<String>,
    /// Keyrings that the command creates.
    pub(super) new_keyrings: Vec<NewKeyring>,
}

impl Item {
    /// Where it goes.
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Kek(secret) | Self::Keyring(secret) | Self::Record(secret, _) => place(&secret.metadata),
            Self::Object(object, _) => object.place(),
        }
    }

    /// Its kind, namespace and name, for messages.
    pub(super) fn called(&self) -> String {
        let (namespace, name) = self.place();
        let kind = match self {
            Self::Kek(_) => "key-encryption key",
            Self::Keyring(_) => "keyring",
            Self::Record(..) => "record",
            Self::Object(..) => "ManagedSecret",
        };
        format!("{kind} {namespace}/{name}")
    }
}

impl Plan {
    /// How many objects are created.
    pub(super) fn creates(&self) -> usize {
        self.steps.iter().filter(|step| step.verdict == Verdict::Create).count()
    }

    /// What is created, in words.
    pub(super) fn summary(&self) -> String {
        let mut created = Archive::default();
        for step in self.steps.iter().filter(|step| step.verdict == Verdict::Create) {
            match step.item.clone() {
                Item::Kek(secret) => created.keks.push(secret),
                Item::Keyring(secret) => created.keyrings.push(secret),
                Item::Record(secret, _) => created.records.push(secret),
                Item::Object(object, _) => created.objects.push(object),
            }
        }
        created.counts()
    }
}

/// The records that name one ManagedSecret as their owner.
#[derive(Default)]
struct Recorded {
    records: Vec<RecordMeta>,
    /// One of them is not restored.
    is_lost: bool,
}

impl Recorded {
    /// The record with the highest version; of two with the same, the first.
    fn newest(self) -> Option<RecordMeta> {
        self.records.into_iter().rev().max_by_key(|record| record.version)
    }
}

/// The whole plan at the time `now`. An error if the keys would keep the operator from starting, or have dates in the
/// future.
pub(super) fn plan(archive: Archive, standing: &Standing, own: &str, now: Timestamp) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let (keyrings, restored) = (standing.keyrings.as_deref().unwrap_or_default(), archive.stored_keyrings());
    let here: BTreeSet<_> = archive.keks.iter().filter_map(kek_id).chain(standing.keks.iter().cloned()).collect();
    check_wrapping(&here, standing, &restored, own, &mut plan)?;
    for kek in archive.keks.iter().cloned() {
        let there = kek_id(&kek).is_some_and(|id| standing.keks.contains(&id));
        let verdict = if there { Verdict::There(String::new()) } else { Verdict::Create };
        plan.steps.push(Step { item: Item::Kek(kek), verdict });
    }
    let keks: Vec<_> = archive.keks.iter().filter_map(kek_of).collect();
    for keyring in archive.keyrings.iter().cloned() {
        let in_backup = StoredKeyring::of(&keyring);
        let step = keyring_step(keyring, keyrings, &here);
        if let (Item::Keyring(created), Verdict::Create) = (&step.item, &step.verdict)
            && let Some((stored, in_backup)) = StoredKeyring::of(created).zip(in_backup)
        {
            trust::check_dates(&in_backup, own, now)?;
            trust::check_opens(&in_backup, own, &keks)?;
            plan.new_keyrings.push(NewKeyring::of(&stored, &stored.name, keyrings));
        }
        plan.steps.push(step);
    }
    let seeds: BTreeSet<_> = keyrings.iter().chain(&restored).flat_map(|it| it.ids().map(str::to_owned)).collect();
    if standing.keyrings.is_none() {
        plan.notes.push(format!(
            "it is unknown whether the namespace {own} has the keys of these records: you may not list its Secrets"
        ));
    }
    let mut of_owner = BTreeMap::<Place, Recorded>::new();
    let mut stored = archive.stored_records();
    for secret in archive.records {
        let at = place(&secret.metadata);
        // An intake accepts no other.
        let Some(record) = stored.remove(&at) else { continue };
        let known = standing.keyrings.is_none() || seeds.contains(&record.seed.to_string());
        let verdict = record_verdict(&record, standing.records.get(&at), known, own);
        let fits = matches!(verdict, Verdict::Create | Verdict::There(_));
        let of_owner = of_owner.entry((at.0, record.meta.owner.clone())).or_default();
        of_owner.is_lost |= !fits;
        of_owner.records.push(record.meta.clone());
        plan.steps.push(Step { item: Item::Record(secret, record), verdict });
    }
    for object in archive.objects {
        let (namespace, name) = object.place();
        let recorded = of_owner.remove(&object.place());
        let fits = recorded.as_ref().map(|recorded| !recorded.is_lost);
        let verdict = object_verdict(&object, standing.objects.get(&object.place()), fits);
        if verdict == Verdict::Create {
            match &recorded {
                None => plan
                    .notes
                    .push(format!("ManagedSecret {namespace}/{name} has no record in the backup: it becomes a new secret")),
                Some(recorded) => plan.notes.extend(object.misfit(&recorded.records).map(|what| {
                    format!(
                        "ManagedSecret {namespace}/{name} differs from its record in {what}, so it cannot take over the \
                         record: restore it as the record has it, and change it afterwards"
                    )
                })),
            }
        }
        plan.steps.push(Step { item: Item::Object(object, recorded.and_then(Recorded::newest)), verdict });
    }
    Ok(plan)
}

/// The operator must be able to open every keyring: with one that it cannot open, it does not start. `keks` are the ids of the
/// local key-encryption keys that are there, or restored.
fn check_wrapping(
    keks: &BTreeSet<String>,
    standing: &Standing,
    restored: &[StoredKeyring],
    own: &str,
    plan: &mut Plan,
) -> Result<(), String> {
    let present = standing.keyrings.as_deref().unwrap_or_default();
    let files_of = |keyrings: &[StoredKeyring]| -> BTreeSet<String> {
        let wraps = keyrings.iter().flat_map(StoredKeyring::wrapped_by);
        wraps.filter(|(provider, _)| *provider == Provider::FILE).map(|(_, id)| id.to_owned()).collect()
    };
    for keyring in restored {
        for (provider, id) in keyring.wrapped_by() {
            if provider == Provider::LOCAL && !keks.contains(id) {
                return Err(format!(
                    "the keyring {} is encrypted with the key-encryption key {id}, which is neither in these files nor \
                     in {own}: with this keyring, the operator would not start. Nothing was written; add a backup with \
                     that key (backup --with-kek)",
                    keyring.name
                ));
            }
        }
    }
    for keyring in present {
        let lost =
            keyring.wrapped_by().into_iter().find(|(provider, id)| *provider == Provider::LOCAL && !keks.contains(*id));
        plan.warnings.extend(lost.map(|(_, id)| {
            format!(
                "the keyring {own}/{} is encrypted with the key-encryption key {id}, which is not in {own}: the operator does \
                 not start while this keyring is there. Restore that key, or delete the keyring if the key is lost",
                keyring.name
            )
        }));
    }
    let (here, new) = (files_of(present), files_of(restored));
    if let (Some(here), Some(new)) = (here.iter().next(), new.iter().find(|id| !here.contains(*id))) {
        return Err(format!(
            "the backup's keyring is encrypted with the KEK file {new}, and the cluster's with the KEK file {here}: the \
             operator reads one --kek-file, so it would not start. Nothing was written"
        ));
    }
    let plugins_of = |keyrings: &[StoredKeyring]| -> BTreeSet<String> {
        let wraps = keyrings.iter().flat_map(StoredKeyring::wrapped_by);
        wraps.filter_map(|(provider, _)| provider.strip_prefix(Provider::KMS)).map(str::to_owned).collect()
    };
    for name in &plugins_of(restored) - &plugins_of(present) {
        plan.warnings.push(format!(
            "the keyring is encrypted by the KMS plugin {name}: the operator does not start without --kms {name}=unix:///PATH \
             and this plugin's key"
        ));
    }
    for id in new {
        plan.warnings.push(format!(
            "the keyring is encrypted with the KEK file {id}: the operator does not start without --kek-file and this file"
        ));
    }
    Ok(())
}

/// A restored keyring joins the existing ones: the operator reads and merges all of them. If the name of the operator's own
/// keyring is taken, it gets another name; its keys then only open values, and the operator encrypts nothing new with them.
///
/// The operator's own keyring is restored whenever it is missing, because the operator cannot go on with others alone. A key
/// whose key-encryption key is lost is as good as missing.
fn keyring_step(mut keyring: SecretObject, present: &[StoredKeyring], keks: &BTreeSet<String>) -> Step {
    let Some(stored) = StoredKeyring::of(&keyring) else {
        return Step {
            item: Item::Keyring(keyring),
            verdict: Verdict::Conflict("it does not contain a keyring".to_owned()),
        };
    };
    let is_here = |name: &str| present.iter().any(|it| it.name == name);
    let opens = |entry: &&Entry| entry.wrapped.provider != Provider::LOCAL || keks.contains(&entry.wrapped.key_id);
    let entries = present.iter().flat_map(|it| &it.document.entries).filter(opens);
    let known: BTreeSet<_> = entries.map(|entry| entry.id.as_str()).collect();
    let is_missing = stored.name == KEYRING_NAME && !is_here(KEYRING_NAME);
    if !is_missing && stored.ids().all(|id| known.contains(id)) {
        return Step { item: Item::Keyring(keyring), verdict: Verdict::There("all its keys".to_owned()) };
    }
    if is_here(&stored.name) {
        keyring.metadata.name = Some(stored.name_beside());
    }
    Step { item: Item::Keyring(keyring), verdict: Verdict::Create }
}

fn record_verdict(
    backup: &StoredRecord,
    standing: Option<&Option<StoredRecord>>,
    seed_known: bool,
    own: &str,
) -> Verdict {
    let StoredRecord { meta: backup, seed, .. } = backup;
    match standing.map(|it| it.as_ref().map(|here| &here.meta)) {
        None if !seed_known => Verdict::Conflict(format!(
            "was encrypted with seed {seed}, which is neither in these files nor in {own}: add a backup with the keyring"
        )),
        None => Verdict::Create,
        Some(None) => Verdict::Conflict("it exists but lacks required metadata".to_owned()),
        Some(Some(here)) if here.id == backup.id && here.owner == backup.owner => {
            Verdict::There(if here.version == backup.version {
                String::new()
            } else {
                format!("with version {}; the backup has version {}", here.version, backup.version)
            })
        }
        Some(Some(here)) => Verdict::Conflict(format!(
            "its name {} belongs to the secret {} of ManagedSecret {}, created {}, before the restore. To restore the \
             backup's secret, delete that ManagedSecret, and its record if it stays, and restore again",
            here.name, here.id, here.owner, here.created
        )),
    }
}

fn object_verdict(backup: &Object, standing: Option<&Object>, record_fits: Option<bool>) -> Verdict {
    match (standing, record_fits) {
        (Some(here), _) if here.spec == backup.spec => Verdict::There(String::new()),
        (Some(_), _) => Verdict::Conflict("it exists with another spec and stays unchanged".to_owned()),
        (None, Some(false)) => {
            Verdict::Conflict("its record was not restored; without the record, it would be a new secret".to_owned())
        }
        (None, _) => Verdict::Create,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
