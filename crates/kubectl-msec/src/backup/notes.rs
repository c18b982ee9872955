//! What a backup lacks, or cannot do when it is restored. Pure; each note is one sentence for the user.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::record::RecordMeta;
use managed_secrets_crypto::keyring::Purpose;
use managed_secrets_crypto::provider::Provider;

use crate::archive::{Archive, Place, StoredKeyring, Stray, kek_id, strays};

/// Every note about a backup; `with_keys` if the keyring was asked for, `targets` are the Secrets that look delivered.
pub(super) fn notes(archive: &Archive, with_keys: bool, targets: &[ObjectMeta]) -> Vec<String> {
    let mut notes = if with_keys { about_keys(archive) } else { vec![NO_KEYS.to_owned()] };
    let records = archive.stored_records();
    let mut of_owner = BTreeMap::<Place, Vec<&RecordMeta>>::new();
    for ((namespace, _), record) in &records {
        of_owner.entry((namespace.clone(), record.meta.owner.clone())).or_default().push(&record.meta);
    }
    for object in &archive.objects {
        let (namespace, name) = object.place();
        let its = of_owner.remove(&object.place()).unwrap_or_default();
        if its.is_empty() {
            notes.push(format!("ManagedSecret {namespace}/{name} has no record: after a restore, it is a new secret"));
        } else if let Some(what) = object.misfit(its) {
            // After a crash in a rename there are two, of which one fits.
            notes.push(format!(
                "ManagedSecret {namespace}/{name} has a change of {what} that its record does not have yet: after a restore, \
                 it could not take over its record. Let the change finish, and back up again"
            ));
        }
    }
    for ((namespace, owner), retained) in of_owner {
        for record in retained {
            notes.push(format!(
                "the secret {} in the namespace {namespace} is retained: its ManagedSecret {owner} was deleted",
                record.name
            ));
        }
    }
    let of_records: Vec<_> = archive.records.iter().map(|record| record.metadata.clone()).collect();
    for ((namespace, name), stray) in strays(targets, &of_records) {
        let called = format!("Secret {namespace}/{name} has the labels of a delivered Secret");
        notes.push(match stray {
            Stray::Recordless => format!(
                "{called}, but no record of this backup names it: the backup does not contain its value, which may \
                 have no other copy"
            ),
            Stray::CopyOf((namespace, name)) => {
                format!("{called}, but is a copy of {namespace}/{name}: the backup does not contain it")
            }
            Stray::Collected => format!(
                "{called}, but its owner is not in its namespace: the backup does not contain it, and Kubernetes deletes it"
            ),
        });
    }
    let unreadable = archive.records.len() - records.len();
    if unreadable > 0 {
        notes.push(format!("{unreadable} records lack required metadata and cannot be restored"));
    }
    notes
}

const NO_KEYS: &str =
    "the backup does not contain the keyring (--keys): without the keyring, the records cannot be read";

/// What a key is for, in words.
pub(super) fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Record => "for records",
        Purpose::Sealing => "for sealed text",
    }
}

fn about_keys(archive: &Archive) -> Vec<String> {
    let mut notes = Vec::new();
    let keyrings = archive.stored_keyrings();
    if keyrings.is_empty() {
        notes.push(
            "keyring not found in the operator's namespace; name its namespace with --operator-namespace".to_owned(),
        );
    } else if keyrings.len() < archive.keyrings.len() {
        notes.push("a Secret with the type of keyrings does not contain a keyring".to_owned());
    }
    let known: BTreeSet<_> = keyrings.iter().flat_map(StoredKeyring::ids).collect();
    for ((namespace, name), record) in archive.stored_records() {
        let seed = record.seed.to_string();
        if !keyrings.is_empty() && !known.contains(seed.as_str()) {
            notes
                .push(format!("record {namespace}/{name} was encrypted with seed {seed}, which is not in the keyring"));
        }
    }
    let held: BTreeSet<_> = archive.keks.iter().filter_map(kek_id).collect();
    let wrapped: BTreeSet<_> = keyrings.iter().flat_map(StoredKeyring::wrapped_by).collect();
    for (provider, id) in wrapped {
        if provider == Provider::LOCAL && !held.contains(id) {
            let option = if archive.keks.is_empty() { " (--with-kek)" } else { "" };
            notes.push(format!(
                "the backup does not contain the key-encryption key {id}{option}: keep a copy of this key elsewhere; \
                 without it, the records cannot be read"
            ));
        } else if provider == Provider::FILE {
            notes.push(format!(
                "the key-encryption key {id} is in the operator's --kek-file, not in a Secret: keep a copy of that file"
            ));
        } else if provider != Provider::LOCAL {
            notes.push(format!("the provider {provider} keeps the key-encryption key {id}"));
        }
    }
    notes
}
