//! Finds the record of a secret and opens it.
//!
//! In: a namespace, and a name or an id. Out: the record as the API server stores it now, with authentic metadata; then its
//! value. Nothing comes from a cache but hints: which record has an id, whether the record's owner exists, and which version
//! it delivers. By name, a read costs one request, because the record's object name follows from the secret's name.

use std::{collections::BTreeMap, iter, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use managed_secrets_api::{
    ManagedSecret,
    keys::{ANNO_MAC, GROUP, KIND, LABEL_ID, LABEL_ROLE, RECORD_DATA_KEY, RECORD_PREFIX, ROLE_RECORD, TYPE_RECORD},
    names::record_name,
    record::{Delivered, KeptVersion, RecordMeta, StoredRecord, Unopened, open, open_kept},
    value::{Handle, VERSION_PARAMETER},
};
use managed_secrets_client::{CallError, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::{
    Keyring, Plaintext,
    mac::MacError,
    mse1::{OpenError, Place},
};

use super::{Delivers, Object, Operator};

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
    /// The record does not keep the version that is delivered.
    #[error(
        "version {version} is the one to deliver, and its record does not keep it: the conditions of ManagedSecret \
         {owner:?} say why; to read the newest, which is not delivered, add ?{VERSION_PARAMETER}={newest}"
    )]
    NotKept {
        /// The version.
        version: u64,
        /// `metadata.name` of the ManagedSecret.
        owner: String,
        /// The newest version.
        newest: u64,
    },
    /// The ManagedSecret was deleted, and no version of the record is the value in the Secret that it left.
    #[error(
        "its ManagedSecret was deleted, and Secret {secret:?} does not show which version is delivered; to read the newest, \
         add ?{VERSION_PARAMETER}={newest}"
    )]
    Unsaid {
        /// Name of the Secret.
        secret: String,
        /// The newest version.
        newest: u64,
    },
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
    delivers: Delivers,
}

impl Found {
    /// Whether the record has this version.
    fn has(&self, version: u64) -> bool {
        version == self.meta.version || self.meta.history.get(version).is_some()
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
        let Some(delivers) = self.lives(&metadata, &meta).await? else { return Ok(None) };
        Ok(Some(Found { meta, commitment, data, earlier: None, delivers }))
    }

    /// The version to return where the request names none: the one that is delivered. Never another one: a caller who reads
    /// the value here and one who reads the Secret must get the same.
    pub(super) async fn delivered(&self, found: &Found) -> Result<u64, Unread> {
        match found.delivers {
            Delivers::Newest => Ok(found.meta.version),
            Delivers::Version(version) if found.has(version) => Ok(version),
            Delivers::Version(version) => {
                let (owner, newest) = (found.meta.owner.clone(), found.meta.version);
                Err(Unread::NotKept { version, owner, newest })
            }
            Delivers::Unsaid => self.retained(found).await,
        }
    }

    /// The version that the Secret of a retained record holds; the newest if there is no such Secret.
    async fn retained(&self, found: &Found) -> Result<u64, Unread> {
        let meta = &found.meta;
        let (Delivered::Own { name, key } | Delivered::Adopted { name, key, .. }) = &meta.target else {
            return Ok(meta.version);
        };
        if meta.history.is_empty() {
            return Ok(meta.version);
        }
        let secrets = SecretApi::namespaced(self.client.clone(), self.namespace);
        let is_ours = |secret: &SecretObject| {
            secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ID)).is_some_and(|id| *id == meta.id)
        };
        let Some(secret) = secrets.get(name).await?.filter(is_ours) else { return Ok(meta.version) };
        let held = secret.data.get(key).map(SecretBytes::as_slice).unwrap_or_default();
        let versions = iter::once(None).chain(meta.history.iter().map(Some));
        for earlier in versions {
            // One that does not open is not the one that the Secret holds, as far as anyone can tell.
            if self.open_version(found, earlier).is_ok_and(|value| value.same_as_bytes(held)) {
                return Ok(earlier.map_or(meta.version, |kept| kept.version));
            }
        }
        Err(Unread::Unsaid { secret: name.clone(), newest: meta.version })
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
    /// or restored. If so, which version it delivers. A record with another owner waits for the garbage collector.
    async fn lives(&self, metadata: &ObjectMeta, meta: &RecordMeta) -> Result<Option<Delivers>, Unread> {
        let is_ours = |api_version: &str| api_version.split('/').next() == Some(GROUP);
        let mut owners = metadata.owner_references.iter().flatten();
        let owned = owners.clone().any(|owner| owner.kind == KIND && is_ours(&owner.api_version));
        if owned && !owners.any(|owner| owner.uid == meta.uid) {
            return Ok(None);
        }
        if let Some(object) = self.operator.object(self.namespace, &meta.owner)
            && fits(&object, meta)?
        {
            return Ok(Some(object.delivers));
        }
        if !owned {
            return Ok(Some(Delivers::Unsaid));
        }
        // The cache may be behind.
        let objects = Api::<ManagedSecret>::namespaced(self.client.clone(), self.namespace);
        let live = objects.get_opt(&meta.owner).await.map_err(|_| Unread::Owner)?;
        let Some(ManagedSecret { metadata, spec, status }) = live else { return Ok(None) };
        let object = Object::new(metadata.uid.unwrap_or_default(), &spec, &status.unwrap_or_default());
        Ok(fits(&object, meta)?.then_some(object.delivers))
    }

    /// Opens a record that was found.
    pub(super) fn open(&self, found: &Found) -> Result<Plaintext, Unread> {
        self.open_version(found, found.earlier.as_ref())
    }

    fn open_version(&self, found: &Found, earlier: Option<&KeptVersion>) -> Result<Plaintext, Unread> {
        let keyring: Arc<Keyring> = self.operator.keyring();
        let place = Place { namespace: self.namespace, object: &found.meta.owner };
        let bytes = |key: &str| found.data.get(key).map(SecretBytes::as_slice).unwrap_or_default();
        let opened = match earlier {
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
        record::{History, Source},
        types::DeletionPolicy,
    };
    use serde_json::{Value, json};

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
        Found { meta, commitment: [0; 32], data: BTreeMap::new(), earlier: None, delivers: Delivers::Newest }
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
    fn what_is_delivered_is_never_replaced_by_the_newest() {
        use Delivers::{Newest, Version};
        let delivers = |version: Option<i64>, status: Value| {
            let spec = serde_json::from_value(json!({"name": "DB", "generate": {}, "version": version})).unwrap();
            Object::new("uid".to_owned(), &spec, &serde_json::from_value(status).unwrap()).delivers
        };
        let target = json!({"name": "db", "key": "value", "uid": "u", "resourceVersion": "7"});
        for (version, status, expected) in [
            (None, json!({"version": 4, "target": target}), Newest),
            (None, json!({}), Newest),
            // The version that is named was the newest until now.
            (Some(4), json!({"version": 4, "target": target}), Version(4)),
            (Some(4), json!({"version": 5, "delivered": 4, "target": target}), Version(4)),
            // The status does not follow the spec yet, or cannot: what was delivered stays.
            (Some(9), json!({"version": 4, "target": target}), Version(4)),
            (Some(3), json!({"version": 5, "target": target}), Version(5)),
            (None, json!({"version": 5, "delivered": 3, "target": target}), Version(3)),
            (Some(2), json!({"version": 4, "delivered": 1, "target": target}), Version(1)),
            // No Secret holds any.
            (Some(3), json!({"version": 5}), Version(3)),
            (Some(9), json!({"version": 1}), Version(9)),
            (Some(9), json!({}), Version(9)),
        ] {
            assert_eq!(delivers(version, status.clone()), expected, "{version:?} {status}");
        }
        let kept = |version| KeptVersion {
            version,
            commitment: [0; 32],
            created: String::new(),
            source: managed_secrets_api::types::SourceKind::Generate,
        };
        let mut found = found("DB", 5, 1);
        found.meta.history = History::new([4, 3].map(kept).into());
        assert_eq!([1, 2, 3, 4, 5, 6].map(|version| found.has(version)), [false, false, true, true, true, false]);
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
            delivers: Delivers::Newest,
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
