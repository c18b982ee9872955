//! Finds the record of a secret and opens it.
//!
//! In: a namespace, and a name or an id. Out: the record as the API server stores it now, with authentic metadata; then its
//! value. Nothing comes from a cache but hints: which record has an id, whether the record's owner exists, and which version
//! it delivers. By name, a read costs one request, because the record's object name follows from the secret's name.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use managed_secrets_api::{
    ManagedSecret,
    keys::{ANNO_MAC, GROUP, KIND, LABEL_ID, LABEL_ROLE, RECORD_DATA_KEY, RECORD_PREFIX, ROLE_RECORD, TYPE_RECORD},
    names::record_name,
    record::{KeptVersion, RecordMeta, StoredRecord, Unopened, open, open_kept},
    value::Handle,
};
use managed_secrets_client::{CallError, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::{
    Keyring, Plaintext,
    mac::MacError,
    mse1::{OpenError, Place},
};

use super::{Object, Operator};

/// Limit of records that are read for one request. Usually there is one; an interrupted rename leaves two. Secrets that
/// users label as records do not count: a policy keeps the type and the names of records for the operator.
const MAX_SECRETS: usize = 4;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// There is no such secret.
    #[error("not found")]
    NotFound,
    /// The keyring lacks a key.
    #[error("the record is encrypted with a key that the operator does not have; restore the keyring")]
    KeyUnknown,
    /// The record is not as the operator wrote it.
    #[error("the record was changed by another program; the conditions of ManagedSecret {0:?} say how to repair it")]
    Changed(String),
    /// The API server did not give the record.
    #[error("the record could not be read: {0}")]
    Call(#[from] CallError),
    /// The API server did not say whether the record's owner exists.
    #[error("the owner of the record could not be read")]
    Owner,
}

/// A record with authentic metadata.
pub(super) struct Found {
    /// What it says about its secret.
    pub(super) meta: RecordMeta,
    commitment: [u8; 32],
    data: BTreeMap<String, SecretBytes>,
    /// Which of the earlier values it is about; `None` is the newest.
    earlier: Option<KeptVersion>,
    /// The version that is delivered, if its object names one.
    delivered: Option<i64>,
}

/// The secret of a record exists.
struct Life {
    /// The version that is delivered, if its ManagedSecret names one.
    delivered: Option<i64>,
}

impl Found {
    /// The version that is delivered: the newest, unless the record keeps the one that its ManagedSecret names.
    pub(super) fn delivered(&self) -> u64 {
        let named = self.delivered.and_then(|version| version.try_into().ok());
        named.filter(|version| self.meta.history.get(*version).is_some()).unwrap_or(self.meta.version)
    }

    /// The same record, but about one version of the value; `None` if the record does not keep it.
    pub(super) fn of_version(mut self, version: u64) -> Option<Self> {
        if version != self.meta.version {
            let kept = self.meta.history.get(version)?.clone();
            self.meta.version = kept.version;
            self.meta.value_updated.clone_from(&kept.created);
            self.earlier = Some(kept);
        }
        Some(self)
    }
}

/// The current one of the records that were read so far.
#[derive(Default)]
struct Best {
    found: Option<Found>,
    /// Why one of them does not count.
    changed: Option<Unread>,
}

impl Best {
    /// Takes a record of the secret with this id, if it is the current one by the controller's rule: the higher version,
    /// then the higher generation. A changed record does not count. A record that could not be read may be the current one,
    /// so there is no answer without it.
    fn weigh(&mut self, id: &str, read: Result<Option<Found>, Unread>) -> Result<(), Unread> {
        let rank = |found: &Found| (found.meta.version, found.meta.generation);
        match read {
            Ok(Some(found)) if found.meta.id == id => {
                if self.found.as_ref().is_none_or(|best| rank(best) < rank(&found)) {
                    self.found = Some(found);
                }
            }
            Ok(_) => {}
            Err(changed @ Unread::Changed(_)) => self.changed = Some(changed),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Reads records of one namespace.
pub(super) struct Reader<'a> {
    pub(super) client: &'a Client,
    pub(super) operator: &'a dyn Operator,
    pub(super) namespace: &'a str,
}

impl Reader<'_> {
    /// Finds the record that is the secret's current one.
    pub(super) async fn find(&self, handle: Handle<'_>) -> Result<Found, Unread> {
        match handle {
            Handle::Name(name) => self.by_name(name).await,
            Handle::Id(id) => self.by_id(id).await,
        }
    }

    async fn by_name(&self, name: &str) -> Result<Found, Unread> {
        let record = record_name(name);
        let found = self.read(&record).await?.filter(|found| found.meta.name == name).ok_or(Unread::NotFound)?;
        // A rename that was interrupted leaves the old record, which may hold an older value.
        let id = found.meta.id.clone();
        let mut others = self.operator.records(self.namespace, &id);
        others.retain(|other| *other != record);
        let current = self.best(&id, &others, Some(found)).await?;
        // The secret has another name now.
        if current.meta.name == name { Ok(current) } else { Err(Unread::NotFound) }
    }

    async fn by_id(&self, id: &str) -> Result<Found, Unread> {
        let known = self.operator.records(self.namespace, id);
        let missing = match self.best(id, &known, None).await {
            Err(missing @ (Unread::NotFound | Unread::Changed(_))) => missing,
            done => return done,
        };
        // The cache may be behind.
        let (of_type, labelled) =
            (format!("type={TYPE_RECORD}"), format!("{LABEL_ROLE}={ROLE_RECORD},{LABEL_ID}={id}"));
        let secrets = SecretApi::namespaced(self.client.clone(), self.namespace);
        let listed = secrets.list_selected(&of_type, &labelled).await?;
        let names = listed.into_iter().filter_map(|metadata| metadata.name);
        let names: Vec<String> = names.filter(|name| name.starts_with(RECORD_PREFIX)).collect();
        if names.iter().all(|name| known.contains(name)) {
            return Err(missing);
        }
        self.best(id, &names, None).await
    }

    /// The current one of a secret's records: of `first` and those with these names.
    async fn best(&self, id: &str, names: &[String], first: Option<Found>) -> Result<Found, Unread> {
        let mut best = Best { found: first, changed: None };
        for name in names.iter().take(MAX_SECRETS) {
            best.weigh(id, self.read(name).await)?;
        }
        best.found.ok_or(best.changed.unwrap_or(Unread::NotFound))
    }

    /// Reads a record. `None` if there is none, or if its secret was deleted.
    async fn read(&self, name: &str) -> Result<Option<Found>, Unread> {
        if !name.starts_with(RECORD_PREFIX) {
            return Ok(None);
        }
        let secrets = SecretApi::namespaced(self.client.clone(), self.namespace);
        let Some(SecretObject { metadata, type_, data, .. }) = secrets.get(name).await? else { return Ok(None) };
        if metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let Some(StoredRecord { meta, commitment, .. }) = self.authentic(&metadata).await? else { return Ok(None) };
        if type_.as_deref() != Some(TYPE_RECORD) {
            return Err(Unread::Changed(meta.owner));
        }
        let Some(Life { delivered }) = self.lives(&metadata, &meta).await? else { return Ok(None) };
        Ok(Some(Found { meta, commitment, data, earlier: None, delivered }))
    }

    /// The metadata of a record, if its MAC is valid. `None` if the Secret does not say that it is a record.
    async fn authentic(&self, metadata: &ObjectMeta) -> Result<Option<StoredRecord>, Unread> {
        let has_role = metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.get(LABEL_ROLE).is_some_and(|role| role == ROLE_RECORD));
        let has_mac = metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ANNO_MAC));
        if !has_role && !has_mac {
            return Ok(None);
        }
        let Some(record) = StoredRecord::of(metadata) else { return Err(Unread::Changed(String::new())) };
        let verify = |keyring: &Keyring| record.verify(self.namespace, |id| keyring.seed(id));
        let mut verified = verify(&self.operator.keyring());
        if matches!(verified, Err(MacError::SeedUnknown(_))) {
            self.operator.look_again().await;
            verified = verify(&self.operator.keyring());
        }
        match verified {
            Ok(()) => Ok(Some(record)),
            Err(MacError::SeedUnknown(_)) => Err(Unread::KeyUnknown),
            Err(MacError::Malformed | MacError::Mismatch) => Err(Unread::Changed(record.meta.owner)),
        }
    }

    /// Whether the secret of a record exists: its ManagedSecret does, or the record has no owner, because it was retained
    /// or restored. A record with another owner waits for the garbage collector.
    async fn lives(&self, metadata: &ObjectMeta, meta: &RecordMeta) -> Result<Option<Life>, Unread> {
        let is_ours = |api_version: &str| api_version.split('/').next() == Some(GROUP);
        let mut owners = metadata.owner_references.iter().flatten();
        let owned = owners.clone().any(|owner| owner.kind == KIND && is_ours(&owner.api_version));
        if owned && !owners.any(|owner| owner.uid == meta.uid) {
            return Ok(None);
        }
        if let Some(object) = self.operator.object(self.namespace, &meta.owner)
            && fits(&object, meta)?
        {
            return Ok(Some(Life { delivered: object.delivered }));
        }
        if !owned {
            return Ok(Some(Life { delivered: None }));
        }
        // The cache may be behind.
        let objects = Api::<ManagedSecret>::namespaced(self.client.clone(), self.namespace);
        let live = objects.get_opt(&meta.owner).await.map_err(|_| Unread::Owner)?;
        let Some(ManagedSecret { metadata, spec, status }) = live else { return Ok(None) };
        let object = Object::new(metadata.uid.unwrap_or_default(), &spec, &status.unwrap_or_default());
        Ok(fits(&object, meta)?.then_some(Life { delivered: object.delivered }))
    }

    /// Opens a record that was found.
    pub(super) fn open(&self, found: &Found) -> Result<Plaintext, Unread> {
        let keyring: Arc<Keyring> = self.operator.keyring();
        let place = Place { namespace: self.namespace, object: &found.meta.owner };
        let bytes = |key: &str| found.data.get(key).map(SecretBytes::as_slice).unwrap_or_default();
        let opened = match &found.earlier {
            Some(kept) => open_kept(bytes(&kept.data_key()), &place, kept, |id| keyring.seed(id)),
            None => open(bytes(RECORD_DATA_KEY), &place, &found.meta, &found.commitment, |id| keyring.seed(id)),
        };
        opened.map(|opened| opened.value).map_err(|unopened| match unopened {
            Unopened::Crypto(OpenError::SeedUnknown(_)) => Unread::KeyUnknown,
            _ => Unread::Changed(found.meta.owner.clone()),
        })
    }
}

/// Whether a record was written for this object. An error if it is not the one that the object's status names: the status
/// is written after the record.
fn fits(object: &Object, meta: &RecordMeta) -> Result<bool, Unread> {
    if object.uid != meta.uid {
        return Ok(false);
    }
    let is_older = object.version.is_some_and(|version| i64::try_from(meta.version).is_ok_and(|own| own < version));
    let is_other = object.id.as_ref().is_some_and(|id| *id != meta.id);
    if is_older || is_other { Err(Unread::Changed(meta.owner.clone())) } else { Ok(true) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::{
        record::{Delivered, History, Source},
        types::DeletionPolicy,
    };
    use serde_json::json;

    use super::*;

    fn found(name: &str, version: u64, generation: i64) -> Found {
        let date = || "2026-11-23T09:00:00Z".to_owned();
        let meta = RecordMeta {
            id: "id".to_owned(),
            owner: "db".to_owned(),
            uid: "uid".to_owned(),
            name: name.to_owned(),
            description: String::new(),
            created: date(),
            updated: date(),
            value_updated: date(),
            version,
            generation,
            deletion_policy: DeletionPolicy::Delete,
            source: Source::Generate { revision: None },
            target: Delivered::None,
            history: History::default(),
        };
        Found { meta, commitment: [0; 32], data: BTreeMap::new(), earlier: None, delivered: None }
    }

    /// The name of the current one of these records.
    fn current(reads: impl IntoIterator<Item = Result<Option<Found>, Unread>>) -> Result<Option<String>, Unread> {
        let mut best = Best::default();
        for read in reads {
            best.weigh("id", read)?;
        }
        Ok(best.found.map(|found| found.meta.name))
    }

    #[test]
    fn of_two_records_the_controllers_rule_finds_the_current_one() {
        for (old, new) in [((1, 5), (2, 4)), ((2, 4), (2, 5))] {
            let [old, new] = [("OLD", old), ("NEW", new)]
                .map(|(name, (version, generation))| move || Ok(Some(found(name, version, generation))));
            assert_eq!(current([old(), new()]).unwrap().as_deref(), Some("NEW"));
            assert_eq!(current([new(), old()]).unwrap().as_deref(), Some("NEW"));
        }
        let other =
            || Found { meta: RecordMeta { id: "other".to_owned(), ..found("OTHER", 9, 9).meta }, ..found("", 9, 9) };
        assert_eq!(current([Ok(Some(found("DB", 1, 1))), Ok(Some(other())), Ok(None)]).unwrap().as_deref(), Some("DB"));
    }

    /// The record is written before the target and the status.
    #[test]
    fn a_new_value_is_not_the_delivered_one_while_a_version_is_named() {
        let kept = |version| KeptVersion {
            version,
            commitment: [0; 32],
            created: String::new(),
            source: managed_secrets_api::types::SourceKind::Generate,
        };
        let delivered = |spec: serde_json::Value, status: serde_json::Value| {
            let spec = serde_json::from_value(spec).unwrap();
            let object = Object::new("uid".to_owned(), &spec, &serde_json::from_value(status).unwrap());
            let mut found = found("DB", 5, 1);
            found.meta.history = History::new([4, 3].map(kept).into());
            Found { delivered: object.delivered, ..found }.delivered()
        };
        let spec = |version: Option<i64>| json!({"name": "DB", "generate": {}, "version": version});
        for (version, status, expected) in [
            // The version that is named was the newest until now.
            (Some(4), json!({"version": 4}), 4),
            (Some(4), json!({"version": 5, "delivered": 4}), 4),
            // One that is not kept: what was delivered stays.
            (Some(9), json!({"version": 4}), 4),
            (Some(3), json!({"version": 5}), 5),
            (None, json!({"version": 4}), 5),
            (None, json!({"version": 5, "delivered": 3}), 3),
            // The record keeps it no more.
            (Some(2), json!({"version": 4, "delivered": 2}), 5),
        ] {
            assert_eq!(delivered(spec(version), status.clone()), expected, "{version:?} {status}");
        }
    }

    #[test]
    fn a_record_that_could_not_be_read_may_be_the_current_one() {
        let old = || Ok(Some(found("OLD", 1, 1)));
        let errors: [fn() -> Unread; 3] =
            [|| Unread::Call(CallError::Unreachable(String::new())), || Unread::KeyUnknown, || Unread::Owner];
        for error in errors {
            assert!(current([old(), Err(error())]).is_err(), "{}", error());
            assert!(current([Err(error()), old()]).is_err(), "{}", error());
        }
        // A changed record does not count.
        assert_eq!(current([Err(Unread::Changed(String::new())), old()]).unwrap().as_deref(), Some("OLD"));
    }

    #[test]
    fn a_record_that_is_older_than_its_objects_status_is_not_current() {
        let meta = found("DB", 2, 1).meta;
        let object = |uid: &str, id: Option<&str>, version| Object {
            uid: uid.to_owned(),
            id: id.map(str::to_owned),
            version,
            delivered: None,
        };
        for fit in [object("uid", None, None), object("uid", Some("id"), Some(2)), object("uid", Some("id"), Some(1))] {
            assert!(fits(&fit, &meta).unwrap(), "{fit:?}");
        }
        // Another object of the same name.
        assert!(!fits(&object("other", Some("id"), Some(2)), &meta).unwrap());
        for wrong in [object("uid", Some("id"), Some(3)), object("uid", Some("other"), Some(2))] {
            assert!(matches!(fits(&wrong, &meta), Err(Unread::Changed(owner)) if owner == "db"), "{wrong:?}");
        }
    }
}
