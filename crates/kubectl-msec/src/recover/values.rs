//! The values of an archive, opened with recovered keys. Pure. Problems name a record and never show a value.

use std::collections::BTreeSet;

use managed_secrets_api::keys::RECORD_DATA_KEY;
use managed_secrets_api::record::{self, KeptVersion, RecordMeta, StoredRecord, Unopened};
use managed_secrets_client::{SecretBytes, SecretObject};
use managed_secrets_crypto::mac::MacError;
use managed_secrets_crypto::mse1::{OpenError, Place};
use managed_secrets_crypto::mss1::Sealed;
use managed_secrets_crypto::recovery::Recovered;
use managed_secrets_crypto::{Plaintext, SeedId};
use serde_json::json;

use crate::archive::{Archive, Object, place};

/// What was opened, and what was not.
#[derive(Default)]
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    /// A sentence for each value that did not open.
    pub(super) problems: Vec<String>,
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
    /// In the sealed text of a ManagedSecret that has no record.
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
            Source::Manifest { object, name, description } => json!({
                "namespace": self.namespace, "object": object, "name": name, "description": description, "value": value,
            }),
        }
    }
}

/// Opens every record, and the sealed text of every ManagedSecret without one.
pub(super) fn open(archive: &Archive, recovered: &Recovered) -> Found {
    let mut found = Found::default();
    let mut recorded = BTreeSet::new();
    for record in &archive.records {
        let (namespace, name) = place(&record.metadata);
        let Some(stored) = StoredRecord::of(&record.metadata) else {
            found.problems.push(format!("record {namespace}/{name} lacks required metadata"));
            continue;
        };
        recorded.insert((namespace.clone(), stored.meta.owner.clone()));
        let mut problem = |version: Option<u64>, why: String| {
            let version = version.map_or_else(String::new, |version| format!(", version {version}"));
            found.problems.push(format!("record {namespace}/{name} (secret {}{version}): {why}", stored.meta.name));
        };
        let opener = Opener { record, namespace: &namespace, recovered };
        let plaintext = match opener.newest(&stored) {
            Ok(plaintext) => plaintext,
            Err(why) => {
                problem(None, why);
                continue;
            }
        };
        let mut values = vec![(Source::Record(Box::new(stored.meta.clone())), plaintext)];
        for kept in &stored.meta.history {
            match opener.kept(&stored, kept) {
                Ok(plaintext) => values.push((Source::Kept(Box::new(stored.meta.clone()), kept.clone()), plaintext)),
                Err(why) => problem(Some(kept.version), why),
            }
        }
        let value = |(source, plaintext)| Value { namespace: namespace.clone(), source, plaintext };
        found.values.extend(values.into_iter().map(value));
    }
    for object in archive.objects.iter().filter(|object| !recorded.contains(&object.place())) {
        let (namespace, name) = object.place();
        match sealed_in(object, recovered) {
            None => {}
            Some(Ok((plaintext, source))) => found.values.push(Value { namespace, source, plaintext }),
            Some(Err(why)) => {
                found
                    .problems
                    .push(format!("ManagedSecret {namespace}/{name} has no record, and its sealed value {why}"));
            }
        }
    }
    found
}

/// Opens the values of a record.
struct Opener<'a> {
    record: &'a SecretObject,
    namespace: &'a str,
    recovered: &'a Recovered,
}

impl Opener<'_> {
    /// The newest value, if the record is authentic.
    fn newest(&self, stored: &StoredRecord) -> Result<Plaintext, String> {
        stored.verify(self.namespace, |id| self.recovered.seed(id)).map_err(|error| match error {
            MacError::SeedUnknown(id) => unknown(id),
            MacError::Malformed | MacError::Mismatch => "its metadata was altered".to_owned(),
        })?;
        let (at, lookup) = (self.place(stored), |id| self.recovered.seed(id));
        let opened = record::open(self.bytes(RECORD_DATA_KEY), &at, &stored.meta, &stored.commitment, lookup);
        opened.map(|opened| opened.value).map_err(|error| unopened(&error))
    }

    /// An earlier value of a record that is authentic.
    fn kept(&self, stored: &StoredRecord, kept: &KeptVersion) -> Result<Plaintext, String> {
        let (at, lookup) = (self.place(stored), |id| self.recovered.seed(id));
        let opened = record::open_kept(self.bytes(&kept.data_key()), &at, kept, lookup);
        opened.map(|opened| opened.value).map_err(|error| unopened(&error))
    }

    fn place<'s>(&'s self, stored: &'s StoredRecord) -> Place<'s> {
        Place { namespace: self.namespace, object: &stored.meta.owner }
    }

    fn bytes(&self, key: &str) -> &[u8] {
        self.record.data.get(key).map(SecretBytes::as_slice).unwrap_or_default()
    }
}

fn unknown(id: SeedId) -> String {
    format!("it was encrypted with seed {id}, which the recovery key did not open")
}

fn unopened(error: &Unopened) -> String {
    match error {
        Unopened::Crypto(OpenError::SeedUnknown(id)) => unknown(*id),
        Unopened::Crypto(error) => error.to_string(),
        Unopened::OtherVersion => "its data has another version than its metadata".to_owned(),
        Unopened::Altered => "its data is not what its metadata describes".to_owned(),
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
