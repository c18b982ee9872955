//! Reads files into an archive. Accepts only the parts of a backup. Errors contain no content.

use std::collections::HashMap;

use managed_secrets_api::keys::{GROUP, KIND, LABEL_ROLE, ROLE_TARGET, TYPE_KEK, TYPE_KEYRING, TYPE_RECORD, VERSION};
use managed_secrets_api::record::StoredRecord;
use managed_secrets_cli::names;
use managed_secrets_cli::yaml;
use managed_secrets_client::SecretObject;
use serde_json::Value;

use super::{Archive, Object, Place, StoredKeyring, kek_id, place, stripped};

/// What files held, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    others: Others,
    /// The parts of a backup.
    pub(crate) archive: Archive,
    /// How many delivered Secrets were left out: they are delivered again from the records.
    pub(crate) targets: usize,
    /// How many other objects were left out.
    pub(crate) left_out: usize,
    /// What is wrong with parts of a backup that were left out.
    pub(crate) broken: Vec<String>,
    secrets: HashMap<Place, Vec<SecretObject>>,
    objects: HashMap<Place, Vec<Object>>,
}

/// What to do about an object that is no part of a backup, or a broken one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Others {
    /// Refuse the file: a restore must not do less than its user expects.
    #[default]
    Refuse,
    /// Leave it out, and say so: the files may be dumps of everything, and the rest of them is needed. They may also be
    /// backups of different times: an object that differs between them is taken as often as it differs.
    LeaveOut,
}

/// Why an object was not taken.
enum Refusal {
    /// It is no part of a backup.
    Other(String),
    /// It should be one.
    Broken(String),
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self::Broken(problem)
    }
}

impl Intake {
    /// An intake that treats other objects like this.
    pub(crate) fn of(others: Others) -> Self {
        Self { others, ..Self::default() }
    }

    /// Adds what a file holds: documents as [`Archive::text`] makes them, or lists as `kubectl get -o json` does.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), String> {
        for mut document in yaml::read_stream(text)? {
            let is_list = document.get("kind").and_then(Value::as_str).is_some_and(is_list);
            match document.get_mut("items").and_then(Value::as_array_mut) {
                Some(items) if is_list => std::mem::take(items).into_iter().try_for_each(|item| self.object(item))?,
                _ => self.object(document)?,
            }
        }
        Ok(())
    }

    fn object(&mut self, object: Value) -> Result<(), String> {
        match (self.take(object), self.others) {
            (Ok(()), _) => {}
            (Err(Refusal::Other(problem) | Refusal::Broken(problem)), Others::Refuse) => return Err(problem),
            (Err(Refusal::Other(_)), Others::LeaveOut) => self.left_out += 1,
            (Err(Refusal::Broken(problem)), Others::LeaveOut) => self.broken.push(problem),
        }
        Ok(())
    }

    fn take(&mut self, object: Value) -> Result<(), Refusal> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        if namespace.is_empty() || name.is_empty() {
            let problem = "every object of a backup must have metadata.name and metadata.namespace";
            return Err(Refusal::Other(problem.to_owned()));
        }
        let named = format!("{kind} {namespace}/{name}");
        names::namespace(&namespace).and(names::object(&name)).map_err(|rule| format!("{named}: {rule}"))?;
        if kind == KIND && version == format!("{GROUP}/{VERSION}") {
            let object =
                Object::parse(object).ok_or_else(|| format!("{named} must have a spec of {GROUP}/{VERSION}"))?;
            if is_new(&mut self.objects, object.place(), &object, self.others, &named)? {
                self.archive.objects.push(object);
            }
            return Ok(());
        }
        if kind != "Secret" || version != "v1" {
            return Err(Refusal::Other(format!(
                "{named} is not part of a backup: ManagedSecrets of {GROUP}/{VERSION} are, and the operator's Secrets"
            )));
        }
        // The error would quote what it found.
        let secret: SecretObject = serde_json::from_value(object).map_err(|_| format!("{named} must be a Secret"))?;
        self.secret(stripped(secret), &named)
    }

    fn secret(&mut self, secret: SecretObject, named: &str) -> Result<(), Refusal> {
        let role = secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str);
        let all = match secret.type_.as_deref() {
            Some(TYPE_RECORD) => {
                StoredRecord::of(&secret.metadata).ok_or_else(|| format!("{named} is not a record of its name"))?;
                &mut self.archive.records
            }
            Some(TYPE_KEYRING) => {
                StoredKeyring::of(&secret).ok_or_else(|| format!("{named} holds no keyring"))?;
                &mut self.archive.keyrings
            }
            Some(TYPE_KEK) => {
                kek_id(&secret).ok_or_else(|| format!("{named} does not hold the key-encryption key of its name"))?;
                &mut self.archive.keks
            }
            _ if role == Some(ROLE_TARGET) => {
                self.targets += 1;
                return Ok(());
            }
            _ => {
                return Err(Refusal::Other(format!(
                    "{named} is not part of a backup: it is no record, keyring or key-encryption key"
                )));
            }
        };
        if is_new(&mut self.secrets, place(&secret.metadata), &secret, self.others, named)? {
            all.push(secret);
        }
        Ok(())
    }
}

fn is_list(kind: &str) -> bool {
    kind == "List" || kind == "SecretList" || kind == format!("{KIND}List")
}

/// Whether the object is seen for the first time like this. Twice the same is once; twice with different content is nothing
/// that a restore could choose from.
fn is_new<T: Clone + PartialEq>(
    known: &mut HashMap<Place, Vec<T>>,
    place: Place,
    object: &T,
    others: Others,
    named: &str,
) -> Result<bool, String> {
    let states = known.entry(place).or_default();
    if states.contains(object) {
        return Ok(false);
    }
    if !states.is_empty() && others == Others::Refuse {
        return Err(format!("{named} appears twice with different content"));
    }
    states.push(object.clone());
    Ok(true)
}
