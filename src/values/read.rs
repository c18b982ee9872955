//! Finds the record of a secret and opens it.
//!
//! In: a namespace, and a name or an id. Out: the record as the API server stores it now, with authentic metadata; then its
//! value. Nothing comes from a cache but hints: which record has an id, and whether the record's owner exists. By name, a
//! read costs one request, because the record's object name follows from the secret's name.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};
use managed_secrets_api::{
    ManagedSecret,
    keys::{ANNO_MAC, GROUP, KIND, LABEL_ID, LABEL_ROLE, RECORD_DATA_KEY, RECORD_PREFIX, ROLE_RECORD, TYPE_RECORD},
    names::record_name,
    record::{RecordMeta, StoredRecord, Unopened, open},
    value::Handle,
};
use managed_secrets_client::{CallError, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::{
    Keyring, Plaintext,
    mac::MacError,
    mse1::{OpenError, Place},
};

use super::Operator;

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
    bytes: SecretBytes,
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
        let others = self.operator.records(self.namespace, &found.meta.id);
        for other in others.iter().filter(|other| **other != record).take(MAX_SECRETS) {
            // A copy that anyone may create must not stop this read.
            let Ok(Some(other)) = self.read(other).await else { continue };
            if other.meta.id == found.meta.id && other.meta.version > found.meta.version {
                return Err(Unread::NotFound);
            }
        }
        Ok(found)
    }

    async fn by_id(&self, id: &str) -> Result<Found, Unread> {
        let known = self.operator.records(self.namespace, id);
        match self.best(id, &known).await {
            Err(Unread::NotFound) => {}
            done => return done,
        }
        // The cache may be behind.
        let (of_type, labelled) =
            (format!("type={TYPE_RECORD}"), format!("{LABEL_ROLE}={ROLE_RECORD},{LABEL_ID}={id}"));
        let secrets = SecretApi::namespaced(self.client.clone(), self.namespace);
        let listed = secrets.list_selected(&of_type, &labelled).await?;
        let names = listed.into_iter().filter_map(|metadata| metadata.name);
        let names: Vec<String> = names.filter(|name| name.starts_with(RECORD_PREFIX)).collect();
        if names.iter().all(|name| known.contains(name)) {
            return Err(Unread::NotFound);
        }
        self.best(id, &names).await
    }

    /// The current one of these records, by the controller's rule: the higher version, then the higher generation.
    async fn best(&self, id: &str, names: &[String]) -> Result<Found, Unread> {
        let mut best: Option<Found> = None;
        let mut trouble = Unread::NotFound;
        for name in names.iter().take(MAX_SECRETS) {
            match self.read(name).await {
                Ok(Some(found)) if found.meta.id == id => {
                    let rank = |found: &Found| (found.meta.version, found.meta.generation);
                    if best.as_ref().is_none_or(|best| rank(best) < rank(&found)) {
                        best = Some(found);
                    }
                }
                Ok(_) => {}
                Err(error) => trouble = error,
            }
        }
        best.ok_or(trouble)
    }

    /// Reads a record. `None` if there is none, or if its secret was deleted.
    async fn read(&self, name: &str) -> Result<Option<Found>, Unread> {
        if !name.starts_with(RECORD_PREFIX) {
            return Ok(None);
        }
        let secrets = SecretApi::namespaced(self.client.clone(), self.namespace);
        let Some(SecretObject { metadata, type_, mut data, .. }) = secrets.get(name).await? else { return Ok(None) };
        if metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let Some(StoredRecord { meta, commitment, .. }) = self.authentic(&metadata).await? else { return Ok(None) };
        if type_.as_deref() != Some(TYPE_RECORD) {
            return Err(Unread::Changed(meta.owner));
        }
        if !self.lives(&metadata, &meta).await? {
            return Ok(None);
        }
        let bytes = data.remove(RECORD_DATA_KEY).unwrap_or_default();
        Ok(Some(Found { meta, commitment, bytes }))
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
    async fn lives(&self, metadata: &ObjectMeta, meta: &RecordMeta) -> Result<bool, Unread> {
        let is_ours = |api_version: &str| api_version.split('/').next() == Some(GROUP);
        let mut owners = metadata.owner_references.iter().flatten();
        let owned = owners.clone().any(|owner| owner.kind == KIND && is_ours(&owner.api_version));
        if owned && !owners.any(|owner| owner.uid == meta.uid) {
            return Ok(false);
        }
        if let Some(object) = self.operator.object(self.namespace, &meta.owner).filter(|object| object.uid == meta.uid)
        {
            // What the object's status says was written after the record.
            let is_older =
                object.version.is_some_and(|version| i64::try_from(meta.version).is_ok_and(|own| own < version));
            let is_other = object.id.is_some_and(|id| id != meta.id);
            return if is_older || is_other { Err(Unread::Changed(meta.owner.clone())) } else { Ok(true) };
        }
        if !owned {
            return Ok(true);
        }
        // The cache may be behind.
        let objects = Api::<ManagedSecret>::namespaced(self.client.clone(), self.namespace);
        let live = objects.get_metadata_opt(&meta.owner).await.map_err(|_| Unread::Owner)?;
        Ok(live.is_some_and(|object| object.metadata.uid.as_deref() == Some(meta.uid.as_str())))
    }

    /// Opens a record that was found.
    pub(super) fn open(&self, found: &Found) -> Result<Plaintext, Unread> {
        let keyring: Arc<Keyring> = self.operator.keyring();
        let place = Place { namespace: self.namespace, object: &found.meta.owner };
        let opened = open(found.bytes.as_slice(), &place, &found.meta, &found.commitment, |id| keyring.seed(id));
        opened.map(|opened| opened.value).map_err(|unopened| match unopened {
            Unopened::Crypto(OpenError::SeedUnknown(_)) => Unread::KeyUnknown,
            _ => Unread::Changed(found.meta.owner.clone()),
        })
    }
}
