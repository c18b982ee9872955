//! The keyring in the cluster: read, and made once.
//!
//! Guarantees: no Secret is ever overwritten or deleted here. Writes are create-only, KEK first, keyring second, and
//! after each write everything is read again; so of two replicas that start together one wins and both end with the same
//! keyring. (The loser's KEK may stay behind, unused: deleting a KEK is never worth the risk.)

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use managed_secrets_api::keys::{
    KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK, TYPE_KEYRING, TYPE_RECORD,
};
use managed_secrets_client::{CallError, Created, SecretApi, SecretBytes, SecretObject};
use managed_secrets_crypto::Kek;
use managed_secrets_crypto::keyring::{Document, GenerateError, KekError, Keyring, Origin, Part, Wrapped};
use managed_secrets_crypto::provider::Provider;
use parking_lot::Mutex;

use crate::keyring::KeyringError;

/// Rounds of "write, lose, read again" before giving up for now.
const ROUNDS: usize = 5;

/// Where the keyring is kept, and who unwraps it.
pub struct KeyringStore {
    client: Client,
    namespace: String,
    provider: Provider,
    over_records: OverRecords,
    /// What was told of the keyring, so that it is told once.
    told: Mutex<BTreeSet<String>>,
}

/// Whether a keyring may be made although there are records that it does not open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OverRecords {
    /// No: the keyring that opens them is to be restored.
    #[default]
    Refuse,
    /// Yes: an administrator says that it is lost for good. The records are left as they are.
    Allow,
}

/// What to do about served namespaces whose Secrets the operator may not list, when a keyring is missing. They may hold
/// records that a lost keyring opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unreadable {
    /// Make no keyring.
    Refuse,
    /// Make one if another namespace can be read, so that one missing `RoleBinding` does not stop all others. No value is
    /// lost by that: records name their key, so those under a lost one are left as they are, and open when it is restored.
    PassOver,
}

/// The KEKs that a keyring names.
struct Keks<'a> {
    local: BTreeMap<String, Kek>,
    file: Option<&'a Kek>,
}

impl KeyringStore {
    /// The keyring of the operator that runs in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, provider: Provider) -> Self {
        let over_records = OverRecords::Refuse;
        Self { client, namespace: namespace.to_owned(), provider, over_records, told: Mutex::default() }
    }

    /// The same, which makes a missing keyring over records or does not.
    #[must_use]
    pub fn making(self, over_records: OverRecords) -> Self {
        Self { over_records, ..self }
    }

    /// Reads and opens the keyring, live; makes nothing. For one fresh look when a record names an unknown seed.
    pub async fn load(&self) -> Result<Keyring, KeyringError> {
        self.find(Timestamp::now()).await?.ok_or_else(|| KeyringError::Missing { namespace: self.namespace.clone() })
    }

    /// Reads and opens the keyring. If the operator has none of its own, and no namespace of `served` (empty: all) has a
    /// record that one was made for, makes KEK and keyring. A keyring that joined does not count as its own: nothing new
    /// is encrypted under it.
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

    /// The operator's own keyring with those that joined it, opened and merged; `None` if it has none of its own.
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
        let keyring = Keyring::open(parts, |wrapped| {
            // `keks_of` found every KEK that is named, or we would not be here.
            keks.get(wrapped).ok_or(KekError::Refused)?.unwrap(&wrapped.ciphertext)
        })?;
        self.tell(&keyring, now, &stored, &documents);
        Ok(Some(keyring.as_of(now)))
    }

    /// Tells once what is wrong with keys, and in which Secrets they are.
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
                    "a key has a creation date in the future: it opens, and is not used for new values if another key can \
                     be; check the clocks, and where this keyring comes from"
                );
            }
        }
        for id in keyring.ignored_revocations() {
            if self.is_news(format!("{id} is revoked beside")) {
                tracing::warn!(
                    namespace = %self.namespace,
                    secret = secrets_of(id),
                    key = id,
                    "a restored keyring calls a key of the operator's own keyring revoked: that is ignored; if the key must \
                     be revoked, say so in {KEYRING_NAME}"
                );
            }
        }
    }

    fn is_news(&self, told: String) -> bool {
        self.told.lock().insert(told)
    }

    fn document(&self, secret: &SecretObject) -> Result<Document, KeyringError> {
        let content = secret.data.get(KEYRING_DATA_KEY).map(SecretBytes::as_slice).unwrap_or_default();
        serde_json::from_slice(content).map_err(|_| KeyringError::Document {
            namespace: self.namespace.clone(),
            name: secret.metadata.name.clone().unwrap_or_default(),
        })
    }

    /// Every KEK that the documents name. Seeds wrapped by a provider that is no longer the chosen one still open.
    async fn keks_of(&self, documents: &[Document]) -> Result<Keks<'_>, KeyringError> {
        let file = match &self.provider {
            Provider::File(kek) => Some(kek),
            Provider::Local => None,
        };
        let mut keks = Keks { local: BTreeMap::new(), file };
        for entry in documents.iter().flat_map(|document| &document.entries) {
            let Wrapped { provider, key_id, .. } = &entry.wrapped;
            if keks.get(&entry.wrapped).is_some() {
                continue;
            }
            match (provider.as_str(), file) {
                (Provider::LOCAL, _) => {
                    keks.local.insert(key_id.clone(), self.local_kek(key_id).await?);
                }
                (Provider::FILE, None) => return Err(KeyringError::FileMissing { key_id: key_id.clone() }),
                (Provider::FILE, Some(given)) => {
                    return Err(KeyringError::FileWrong { key_id: key_id.clone(), given: given.key_id().to_string() });
                }
                _ => return Err(KeyringError::UnknownProvider { provider: provider.clone() }),
            }
        }
        Ok(keks)
    }

    /// The local KEK with this id, read live.
    async fn local_kek(&self, key_id: &str) -> Result<Kek, KeyringError> {
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
        // By type, which policy protects: a label alone is anyone's to set or to remove, and makes no record.
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
            "there is no keyring, and the operator may not list Secrets in these namespaces: going on without them. A \
             record there that a lost keyring opens stays as it is, and says SeedUnknown until that keyring is restored"
        );
        Ok(())
    }

    /// One try to make the keyring. Whether it was ours or another's that was made, the caller reads what is there.
    async fn create(&self, now: Timestamp) -> Result<(), KeyringError> {
        let document = match &self.provider {
            Provider::File(kek) => generate(now, Provider::FILE, kek)?,
            Provider::Local => generate(now, Provider::LOCAL, &self.stored_local_kek().await?)?,
        };
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
                "made a new keyring: back this Secret up together with its key-encryption key"
            ),
            Created::Exists => self.refuse_if_name_is_taken().await?,
        }
        Ok(())
    }

    /// The local KEK to wrap new seeds by: one that stands alone (an earlier start got no further), else a new one,
    /// stored before anything is wrapped by it. Beside a keyring that joined, the KEK that stands came with that one, and
    /// others may know it.
    async fn stored_local_kek(&self) -> Result<Kek, KeyringError> {
        if self.list(TYPE_KEYRING, "read the keyring").await?.is_empty() {
            let stored = self.list(TYPE_KEK, "read the key-encryption keys").await?;
            if let Some(kek) = stored.iter().find_map(kek_in) {
                return Ok(kek);
            }
        }
        let kek = Kek::generate()?;
        let name = format!("{KEK_PREFIX}{}", kek.key_id());
        let secret = SecretObject {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            type_: Some(TYPE_KEK.to_owned()),
            immutable: Some(true),
            data: [(KEK_DATA_KEY.to_owned(), SecretBytes::copy_of(kek.as_bytes()))].into(),
        };
        match self.secrets().create(secret).await.map_err(failed("create the key-encryption key"))? {
            Created::Yes(_) => {
                tracing::info!(
                    namespace = %self.namespace,
                    secret = name,
                    "made a new key-encryption key: back this Secret up"
                );
                Ok(kek)
            }
            // Another object has the name of 32 random bytes: not by chance.
            Created::Exists => Err(KeyringError::KekWrong { namespace: self.namespace.clone(), name }),
        }
    }

    /// After a refused create: another replica's keyring is fine, anything else holds the name for ever.
    async fn refuse_if_name_is_taken(&self) -> Result<(), KeyringError> {
        match self.secrets().get(KEYRING_NAME).await.map_err(failed("read the keyring"))? {
            Some(secret) if secret.type_.as_deref() != Some(TYPE_KEYRING) => {
                Err(KeyringError::NameTaken { namespace: self.namespace.clone() })
            }
            _ => Ok(()),
        }
    }

    async fn list(&self, type_: &str, what: &'static str) -> Result<Vec<SecretObject>, KeyringError> {
        self.secrets().list(&format!("type={type_}")).await.map_err(failed(what))
    }

    fn secrets(&self) -> SecretApi {
        SecretApi::namespaced(self.client.clone(), &self.namespace)
    }
}

impl Keks<'_> {
    fn get(&self, wrapped: &Wrapped) -> Option<&Kek> {
        match wrapped.provider.as_str() {
            Provider::LOCAL => self.local.get(&wrapped.key_id),
            Provider::FILE => self.file.filter(|kek| kek.key_id().to_string() == wrapped.key_id),
            _ => None,
        }
    }
}

/// The KEK that a Secret holds, if it is what its type and name say.
fn kek_in(secret: &SecretObject) -> Option<Kek> {
    let kek = Kek::new(secret.data.get(KEK_DATA_KEY)?.as_slice()).ok()?;
    let named = secret.metadata.name.as_deref()?.strip_prefix(KEK_PREFIX)?;
    (secret.type_.as_deref() == Some(TYPE_KEK) && named == kek.key_id().to_string()).then_some(kek)
}

/// The first entries, wrapped by this KEK.
fn generate(now: Timestamp, provider: &str, kek: &Kek) -> Result<Document, KeyringError> {
    let wrap = |plaintext: &[u8]| {
        Ok(Wrapped {
            provider: provider.to_owned(),
            key_id: kek.key_id().to_string(),
            ciphertext: kek.wrap(plaintext)?,
        })
    };
    Keyring::generate_entries(now, wrap).map_err(|error| match error {
        GenerateError::Random(random) | GenerateError::Wrap(KekError::Random(random)) => random.into(),
        error => KeyringError::Generate(error.to_string()),
    })
}

fn failed(what: &'static str) -> impl FnOnce(CallError) -> KeyringError {
    move |source| KeyringError::Api { what, source }
}
