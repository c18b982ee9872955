//! Reads the keyring from the cluster and creates it once.
//!
//! Guarantees: this module never overwrites or deletes a Secret ([`change`](super::change) does). Writes are create-only, KEK first, keyring second, and
//! after each write it reads everything again. So if two replicas start together, one wins and both end with the same
//! keyring. (The KEK of the other may remain unused: deleting a KEK is never worth the risk.)

use std::collections::BTreeSet;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use managed_secrets_api::keys::{
    ANNO_KEK_FOR, KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK, TYPE_KEYRING, TYPE_RECORD,
};
use managed_secrets_client::{CallError, Created, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::Kek;
use managed_secrets_crypto::keyring::{DEFAULT_SEALING_PERIOD, Document, Keyring, Origin, Part, Seen};
use managed_secrets_crypto::provider::Provider;
use managed_secrets_crypto::recovery::{self, Coverage, Recipient};
use parking_lot::Mutex;

use crate::keyring::{
    KeyringError,
    change::requests,
    providers::Providers,
    publish::published,
    rewrap::ASKED,
    rollback::History,
    unwrapped::Remembered,
    wrapper::{Tickets, Wrapper},
};

/// Limit of rounds of "write, lose, read again" before the store returns an error.
const ROUNDS: usize = 5;

/// Reads and creates the keyring.
pub struct KeyringStore {
    pub(super) client: Client,
    namespace: String,
    pub(super) providers: Providers,
    pub(super) remembered: Remembered,
    pub(super) tickets: Arc<Tickets>,
    /// Whether the keyring that was read last asks for a new KEK.
    is_kek_asked: AtomicBool,
    over_records: OverRecords,
    pub(super) recipients: Vec<Recipient>,
    /// The age at which a sealing key is replaced.
    sealing_period: Option<SignedDuration>,
    /// What they can open of the keyring that was read last; without them, what has a copy for any.
    coverage: Mutex<Option<Coverage>>,
    pub(super) history: History,
    /// Warnings about the keyring that were logged, so that each one is logged once.
    told: Mutex<BTreeSet<String>>,
}

/// Whether the store may create a keyring although records exist that it does not open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OverRecords {
    /// No: the administrator must restore the keyring that opens them.
    #[default]
    Refuse,
    /// Yes: an administrator says that the old keyring is permanently lost. The records do not change.
    Allow,
}

/// What to do, if the keyring is missing, about managed namespaces whose Secrets the operator may not list. They may have
/// records that a lost keyring opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// Create no keyring.
    Refuse,
    /// Create one if another namespace can be read, so that one missing `RoleBinding` does not stop all namespaces. This
    /// loses no value: records name their key, so records of a lost key do not change, and open when the key is restored.
    PassOver,
}

impl KeyringStore {
    /// Creates the store for the operator in `namespace`. Needs a Tokio runtime if there are KMS plugins.
    #[must_use]
    pub fn new(client: Client, namespace: &str, providers: impl Into<Providers>) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            providers: providers.into(),
            remembered: Remembered::default(),
            tickets: Arc::default(),
            is_kek_asked: AtomicBool::new(false),
            over_records: OverRecords::Refuse,
            recipients: Vec::new(),
            sealing_period: Some(DEFAULT_SEALING_PERIOD),
            coverage: Mutex::default(),
            history: History::default(),
            told: Mutex::default(),
        }
    }

    /// Sets whether the store may create a keyring although records exist.
    #[must_use]
    pub fn making(self, over_records: OverRecords) -> Self {
        Self { over_records, ..self }
    }

    /// Sets the recovery keys that every key of the keyring is sealed to.
    #[must_use]
    pub fn sealing_to(self, recipients: Vec<Recipient>) -> Self {
        Self { recipients, ..self }
    }

    /// Sets the age at which a sealing key is replaced, which the published key says; `None` if that is done on request only.
    #[must_use]
    pub fn replacing_sealing_keys(self, period: Option<Duration>) -> Self {
        let sealing_period = period.map(|period| SignedDuration::try_from(period).unwrap_or(SignedDuration::MAX));
        Self { sealing_period, ..self }
    }

    /// What the recovery keys can open of the keyring that was read last; `None` if there is no recovery key, neither in the
    /// options nor in the keyring.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        self.coverage.lock().clone()
    }

    /// Whether keys are sealed to recovery keys.
    #[must_use]
    pub fn has_recipients(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Replaces the KEK file, which was read again.
    pub fn set_file(&mut self, kek: Kek) {
        self.providers.file = Some(kek);
    }

    /// Reads and opens the keyring from the API server; creates nothing. Used when a record names an unknown seed.
    pub async fn load(&self) -> Result<Keyring, KeyringError> {
        self.find(Timestamp::now()).await?.ok_or_else(|| KeyringError::Missing { namespace: self.namespace.clone() })
    }

    /// Reads and opens the keyring. If the operator has none of its own, and no namespace of `served` (empty: all) has a
    /// record, it creates KEK and keyring. A restored keyring of another operator does not count as its own: the operator
    /// encrypts nothing new with it.
    pub async fn load_or_create(
        &self,
        now: Timestamp,
        served: &[String],
        unreadable: Unreadable,
    ) -> Result<Keyring, KeyringError> {
        for _ in 0..ROUNDS {
            if let Some(keyring) = self.find(now).await? {
                return Ok(keyring);
            }
            if self.over_records == OverRecords::Refuse {
                self.refuse_if_records_exist(served, unreadable).await?;
            }
            self.create(now).await?;
        }
        Err(KeyringError::Contended)
    }

    /// Returns the operator's own keyring merged with the joined ones; `None` if it has none of its own.
    async fn find(&self, now: Timestamp) -> Result<Option<Keyring>, KeyringError> {
        let stored = self.list(TYPE_KEYRING, "read the keyring").await?;
        let is_own = |secret: &SecretObject| secret.metadata.name.as_deref() == Some(KEYRING_NAME);
        if !stored.iter().any(is_own) {
            return Ok(None);
        }
        let documents = stored.iter().map(|secret| self.document(secret)).collect::<Result<Vec<_>, _>>()?;
        let keks = self.keks_of(&documents).await?;
        let parts = stored.iter().zip(&documents).map(|(secret, document)| {
            let origin = if is_own(secret) { Origin::Own } else { Origin::Joined };
            Part { document, origin }
        });
        let parts: Vec<_> = parts.collect();
        let keyring = Keyring::open(parts.iter().copied(), |wrapped| keks.unwrap(wrapped))?;
        self.tell(&keyring, now, &stored, &documents);
        self.remembered.retain(&documents);
        let asked = stored
            .iter()
            .filter(|secret| is_own(secret))
            .any(|secret| requests(&secret.metadata).iter().any(|it| *it == ASKED));
        self.is_kek_asked.store(asked, Relaxed);
        self.history.read(&parts, &self.namespace);
        *self.coverage.lock() = if self.has_recipients() {
            Some(recovery::coverage(&documents, &keyring, &self.recipients))
        } else {
            recovery::copied(&documents)
        };
        Ok(Some(keyring.as_of(now).with_sealing_period(self.sealing_period)))
    }

    /// Opens a document as the operator's own, without those beside it.
    pub(super) async fn open_own(&self, document: &Document) -> Result<Keyring, KeyringError> {
        let keks = self.keks_of(std::slice::from_ref(document)).await?;
        Ok(Keyring::open([document], |wrapped| keks.unwrap(wrapped))?)
    }

    /// Logs once each problem with keys, and the Secrets that hold them.
    fn tell(&self, keyring: &Keyring, now: Timestamp, stored: &[SecretObject], documents: &[Document]) {
        let secrets_of = |id: &str| {
            let holds = |document: &Document| document.entries.iter().any(|entry| entry.id == id);
            let holding = stored.iter().zip(documents).filter(|(_, document)| holds(document));
            holding.filter_map(|(secret, _)| secret.metadata.name.clone()).collect::<Vec<_>>().join(", ")
        };
        for id in keyring.ahead_of(now) {
            if self.is_news(format!("{id} is ahead")) {
                tracing::warn!(
                    namespace = %self.namespace,
                    secret = secrets_of(&id),
                    key = id,
                    "a key has a creation date in the future, so the operator uses it for new values only if it has no \
                     other key; check the clocks, and where this keyring comes from"
                );
            }
        }
        for id in keyring.ignored_revocations() {
            if self.is_news(format!("{id} is revoked beside")) {
                tracing::warn!(
                    namespace = %self.namespace,
                    secret = secrets_of(id),
                    key = id,
                    "a restored keyring revokes a key of the operator's own keyring, so the operator ignores that; to revoke \
                     the key, revoke it in {KEYRING_NAME}"
                );
            }
        }
    }

    fn is_news(&self, told: String) -> bool {
        self.told.lock().insert(told)
    }

    pub(super) fn document(&self, secret: &SecretObject) -> Result<Document, KeyringError> {
        let content = secret.data.get(KEYRING_DATA_KEY).map(SecretBytes::as_slice).unwrap_or_default();
        serde_json::from_slice(content).map_err(|_| KeyringError::Document {
            namespace: self.namespace.clone(),
            name: secret.metadata.name.clone().unwrap_or_default(),
        })
    }

    /// Reads the local KEK with this id from the API server.
    pub(super) async fn local_kek(&self, key_id: &str) -> Result<Kek, KeyringError> {
        let name = format!("{KEK_PREFIX}{key_id}");
        let found = self.secrets().get(&name).await.map_err(failed("read the key-encryption key"))?;
        let secret = found
            .ok_or_else(|| KeyringError::KekMissing { namespace: self.namespace.clone(), key_id: key_id.to_owned() })?;
        kek_in(&secret).ok_or_else(|| KeyringError::KekWrong { namespace: self.namespace.clone(), name })
    }

    async fn refuse_if_records_exist(&self, served: &[String], unreadable: Unreadable) -> Result<(), KeyringError> {
        let apis = if served.is_empty() {
            vec![("all namespaces", SecretApi::all(self.client.clone()))]
        } else {
            let of = |namespace: &String| SecretApi::namespaced(self.client.clone(), namespace);
            served.iter().map(|namespace| (namespace.as_str(), of(namespace))).collect()
        };
        let (looked_for, mut denied) = (apis.len(), Vec::new());
        // Selected by type, which a policy protects. A label is not enough: every user can set or remove it.
        let selector = format!("type={TYPE_RECORD}");
        for (place, api) in apis {
            match api.any(&selector).await {
                Ok(None) => {}
                Ok(Some(ObjectMeta { namespace, name, .. })) => {
                    return Err(KeyringError::RecordsWithoutKeyring {
                        record: format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default()),
                        namespace: self.namespace.clone(),
                    });
                }
                Err(CallError::Refused(refusal)) if refusal.is_forbidden() => denied.push(place),
                Err(error) => return Err(failed("look for records")(error)),
            }
        }
        if denied.is_empty() {
            return Ok(());
        }
        let namespaces = denied.join(", ");
        if unreadable == Unreadable::Refuse || denied.len() == looked_for {
            return Err(KeyringError::Unreadable { namespaces });
        }
        tracing::warn!(
            namespaces,
            "keyring not found, and the operator may not list Secrets in these namespaces; continuing without them. Records \
             of a lost keyring there do not change, and their objects report SeedUnknown until you restore that keyring"
        );
        Ok(())
    }

    /// Tries once to create the keyring. Another replica may win, so the caller reads the keyring afterwards.
    async fn create(&self, now: Timestamp) -> Result<(), KeyringError> {
        let wrapper = match self.outside()? {
            Some(wrapper) => wrapper,
            None => Wrapper::kek(Provider::LOCAL, self.stored_local_kek().await?),
        };
        let mut document = Keyring::generate_entries(now, |bytes| wrapper.wrap(bytes))?;
        self.redeem(&mut document).await?;
        let keyring = self.open_own(&document).await?;
        recovery::cover(&mut document, &keyring, &self.recipients)?;
        // The keys of one that was here before: to start with new keys accepts that those are lost.
        let before = published(&self.client, &self.namespace).await?.seen();
        document.given_up = before.iter().flat_map(Seen::ids).map(str::to_owned).collect();
        let json = serde_json::to_vec_pretty(&document).map_err(|error| KeyringError::Generate(error.to_string()))?;
        let secret = SecretObject {
            metadata: ObjectMeta { name: Some(KEYRING_NAME.to_owned()), ..ObjectMeta::default() },
            type_: Some(TYPE_KEYRING.to_owned()),
            data: [(KEYRING_DATA_KEY.to_owned(), SecretBytes::copy_of(&json))].into(),
            ..SecretObject::default()
        };
        match self.secrets().create(secret).await.map_err(failed("create the keyring"))? {
            Created::Yes(_) => tracing::info!(
                namespace = %self.namespace,
                secret = KEYRING_NAME,
                "created a new keyring; back up this Secret together with its key-encryption key"
            ),
            Created::Exists => self.refuse_if_name_is_taken().await?,
        }
        Ok(())
    }

    /// Returns the local KEK that encrypts new seeds: an existing KEK without a keyring (an earlier start ended early), or
    /// else a new one, which is stored before it encrypts anything. If a joined keyring exists, an existing KEK came with
    /// it and others may know it, so it is not used.
    async fn stored_local_kek(&self) -> Result<Kek, KeyringError> {
        if self.list(TYPE_KEYRING, "read the keyring").await?.is_empty() {
            let stored = self.list(TYPE_KEK, "read the key-encryption keys").await?;
            if let Some(kek) = stored.iter().find_map(kek_in) {
                return Ok(kek);
            }
        }
        self.create_local_kek(None).await
    }

    /// Creates a local KEK; `purpose` is the keyring that it was created for, if there is one.
    pub(super) async fn create_local_kek(&self, purpose: Option<String>) -> Result<Kek, KeyringError> {
        let kek = Kek::generate()?;
        let name = format!("{KEK_PREFIX}{}", kek.key_id());
        let annotations = purpose.map(|purpose| [(ANNO_KEK_FOR.to_owned(), purpose)].into());
        let secret = SecretObject {
            metadata: ObjectMeta { name: Some(name.clone()), annotations, ..ObjectMeta::default() },
            type_: Some(TYPE_KEK.to_owned()),
            immutable: Some(true),
            data: [(KEK_DATA_KEY.to_owned(), SecretBytes::copy_of(kek.as_bytes()))].into(),
        };
        match self.secrets().create(secret).await.map_err(failed("create the key-encryption key"))? {
            Created::Yes(_) => {
                tracing::info!(
                    namespace = %self.namespace,
                    secret = name,
                    "created a new key-encryption key; back up this Secret"
                );
                Ok(kek)
            }
            // Another object has a name that follows from 32 random bytes: this is no coincidence.
            Created::Exists => Err(KeyringError::KekWrong { namespace: self.namespace.clone(), name }),
        }
    }

    /// Checks the Secret after a refused create: a keyring of another replica is fine, another type is an error.
    async fn refuse_if_name_is_taken(&self) -> Result<(), KeyringError> {
        match self.secrets().get(KEYRING_NAME).await.map_err(failed("read the keyring"))? {
            Some(secret) if secret.type_.as_deref() != Some(TYPE_KEYRING) => {
                Err(KeyringError::NameTaken { namespace: self.namespace.clone() })
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn list(&self, type_: &str, what: &'static str) -> Result<Vec<SecretObject>, KeyringError> {
        self.secrets().list(&format!("type={type_}")).await.map_err(failed(what))
    }

    /// Whether the keyring that was read last asks for a new KEK.
    pub(super) fn is_kek_asked(&self) -> bool {
        self.is_kek_asked.load(Relaxed)
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn secrets(&self) -> SecretApi {
        SecretApi::namespaced(self.client.clone(), &self.namespace)
    }
}

/// The KEK that a Secret holds, if it is what its type and name say.
pub(super) fn kek_in(secret: &SecretObject) -> Option<Kek> {
    let kek = Kek::new(secret.data.get(KEK_DATA_KEY)?.as_slice()).ok()?;
    let named = secret.metadata.name.as_deref()?.strip_prefix(KEK_PREFIX)?;
    (secret.type_.as_deref() == Some(TYPE_KEK) && named == kek.key_id().to_string()).then_some(kek)
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(CallError) -> KeyringError {
    move |source| KeyringError::Api { what, source }
}
