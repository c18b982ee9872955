//! What a backup holds: ManagedSecrets, records, keyrings and key-encryption keys, each without what a server sets.
//!
//! ```text
//!  cluster ──backup──▶ Archive ──text──▶ YAML that kubectl could apply ──parse──▶ Archive ──restore──▶ cluster
//! ```
//!
//! Pure: bytes in, objects out, and back. An object keeps name, namespace, labels and annotations and nothing else of its
//! metadata. Above all no owner references: Kubernetes collects a Secret within a second whose owner no longer exists.

mod intake;
mod keyring;
mod marked;
mod object;
#[cfg(test)]
pub(super) mod testing;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keys::KIND;
use managed_secrets_api::record::StoredRecord;
use managed_secrets_cli::{CliError, yaml};
use managed_secrets_client::{Manifest, SecretObject};
use serde::Serialize;
use serde_json::Value;

pub(super) use self::intake::Intake;
pub(super) use self::keyring::{StoredKeyring, kek_id, kek_of};
pub(super) use self::marked::{Stray, strays};
pub(super) use self::object::Object;

/// The objects of a backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Archive {
    /// ManagedSecrets.
    pub(super) objects: Vec<Object>,
    /// Records: values, encrypted.
    pub(super) records: Vec<SecretObject>,
    /// Keyrings: seeds, wrapped by a key-encryption key.
    pub(super) keyrings: Vec<SecretObject>,
    /// Key-encryption keys, as plaintext.
    pub(super) keks: Vec<SecretObject>,
}

/// Where an object is: namespace and name.
pub(super) type Place = (String, String);

/// Where an object is.
pub(super) fn place(metadata: &ObjectMeta) -> Place {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// What of its metadata an object keeps.
pub(super) fn kept(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, labels, annotations, .. } = metadata;
    ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() }
}

/// A Secret as a backup holds it.
pub(super) fn stripped(secret: SecretObject) -> SecretObject {
    SecretObject { metadata: kept(secret.metadata), ..secret }
}

/// One document of the stream.
#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Secret(Manifest<'a>),
    Object(Value),
}

impl Archive {
    /// The objects as a stream of YAML documents: keys, records, ManagedSecrets, the order in which they are restored.
    pub(super) fn text(&self) -> Result<String, CliError> {
        let secrets = self.keks.iter().chain(&self.keyrings).chain(&self.records).map(Manifest::from);
        let documents: Vec<_> = secrets
            .map(Document::Secret)
            .chain(self.objects.iter().map(|object| Document::Object(object.manifest())))
            .collect();
        if documents.is_empty() { Ok(String::new()) } else { yaml::stream(&documents) }
    }

    /// How many objects.
    pub(super) fn len(&self) -> usize {
        self.objects.len() + self.records.len() + self.keyrings.len() + self.keks.len()
    }

    /// How many of each kind, in words.
    pub(super) fn counts(&self) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        [
            count(self.objects.len(), KIND),
            count(self.records.len(), "record"),
            count(self.keyrings.len(), "keyring"),
            count(self.keks.len(), "key-encryption key"),
        ]
        .join(", ")
    }

    /// Every keyring, read.
    pub(super) fn stored_keyrings(&self) -> Vec<StoredKeyring> {
        self.keyrings.iter().filter_map(StoredKeyring::of).collect()
    }

    /// What the records say about their secrets, by place. Records whose metadata is incomplete are left out.
    pub(super) fn stored_records(&self) -> BTreeMap<Place, StoredRecord> {
        let stored = self.records.iter().map(|record| (place(&record.metadata), StoredRecord::of(&record.metadata)));
        stored.filter_map(|(place, record)| Some((place, record?))).collect()
    }
}

/// The manifests in a folder, in the order of their names: what a restore reads of it.
pub(super) fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let unreadable = |error: std::io::Error| CliError::Usage(format!("{}: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    let is_manifest = |path: &PathBuf| {
        path.extension().and_then(|it| it.to_str()).is_some_and(|it| ["yaml", "yml", "json"].contains(&it))
    };
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).filter(is_manifest).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
