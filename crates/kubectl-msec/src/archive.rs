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

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keys::{ANNO_KEYRING_REQUEST, DEFAULT_OPERATOR_NAMESPACE, KIND};
use managed_secrets_api::record::StoredRecord;
use managed_secrets_cli::{CliError, yaml};
use managed_secrets_client::{Manifest, SecretObject};
use serde::Serialize;
use serde_json::Value;

pub(super) use self::intake::{Intake, Others};
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
    /// Key-encryption keys, unencrypted.
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

/// A Secret as a backup holds it. Without a request for a change of the keyring: it was asked of the operator at that time, and
/// the operator that gets the keyring back would carry it out.
pub(super) fn stripped(secret: SecretObject) -> SecretObject {
    let mut metadata = kept(secret.metadata);
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(ANNO_KEYRING_REQUEST);
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    SecretObject { metadata, ..secret }
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

    /// The archive as the operator in this namespace can use it, and that namespace: the keys go where the operator is,
    /// which another cluster may have elsewhere, because nothing in them is bound to a namespace. Without a name, it is
    /// the namespace of the keys, or else the default.
    ///
    /// Keys of several operators are an error if they would get one name, or if no namespace is named: each operator has a
    /// keyring of its own.
    pub(super) fn of_operator(mut self, named: Option<&str>) -> Result<(Self, String), String> {
        let keys = || self.keyrings.iter().chain(&self.keks);
        let namespaces: BTreeSet<_> = keys().filter_map(|key| key.metadata.namespace.as_deref()).collect();
        let Some(namespace) = named else {
            let all: Vec<_> = namespaces.into_iter().collect();
            return match all[..] {
                [] => Ok((self, DEFAULT_OPERATOR_NAMESPACE.to_owned())),
                [one] => {
                    let one = one.to_owned();
                    Ok((self, one))
                }
                _ => Err(format!(
                    "the files contain keys of several operators, in the namespaces {}; restore one backup at a time",
                    all.join(", ")
                )),
            };
        };
        let mut named = BTreeMap::<&str, &SecretObject>::new();
        for key in keys() {
            let name = key.metadata.name.as_deref().unwrap_or_default();
            if let Some(other) = named.insert(name, key).filter(|other| other.data != key.data) {
                let of = |key: &SecretObject| key.metadata.namespace.clone().unwrap_or_default();
                return Err(format!(
                    "the Secrets {}/{name} and {}/{name} would both be restored as {namespace}/{name}; restore one backup \
                     at a time",
                    of(other),
                    of(key)
                ));
            }
        }
        for keys in [&mut self.keyrings, &mut self.keks] {
            let mut seen = BTreeSet::new();
            keys.retain(|key| seen.insert(key.metadata.name.clone()));
            for key in keys {
                key.metadata.namespace = Some(namespace.to_owned());
            }
        }
        Ok((self, namespace.to_owned()))
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

/// Reads files, the manifests in folders, and - for standard input.
pub(super) fn read_files(files: &[PathBuf], others: Others) -> Result<Intake, CliError> {
    let mut intake = Intake::of(others);
    for file in files {
        let paths = if file.is_dir() { manifests_in(file)? } else { vec![file.clone()] };
        for path in paths {
            let shown = path.display();
            let text = if path == Path::new("-") {
                std::io::read_to_string(std::io::stdin().lock())
            } else {
                std::fs::read_to_string(&path)
            };
            // This process wipes the memory that it frees.
            let text = zeroize::Zeroizing::new(text.map_err(|error| CliError::Usage(format!("{shown}: {error}")))?);
            intake.add(&text).map_err(|rule| CliError::Usage(format!("{shown}: {rule}")))?;
        }
    }
    Ok(intake)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
