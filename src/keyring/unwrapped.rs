//! Unwraps the entries of documents: reads local KEKs, and asks KMS plugins.
//!
//! What a plugin has unwrapped stays in memory for as long as a document has it: a keyring is read again at each change, and a
//! plugin may not answer then. The seeds are in memory anyway.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::try_join_all;
use managed_secrets_crypto::{
    Kek,
    keyring::{Document, Entry, KekError, Wrapped},
    provider::Provider,
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{KeyringError, KeyringStore};

/// Calls of plugins at once.
const AT_ONCE: usize = 8;

/// What tells two wraps apart: provider, id of the KEK, ciphertext.
type WrapId = (String, String, String);
type Bytes = Arc<Zeroizing<Vec<u8>>>;

/// What plugins have unwrapped.
#[derive(Default)]
pub(super) struct Remembered(Mutex<BTreeMap<WrapId, Bytes>>);

impl Remembered {
    /// Forgets what these documents do not have.
    pub(super) fn retain(&self, documents: &[Document]) {
        let mut all = self.0.lock();
        if all.is_empty() {
            return;
        }
        let entries = documents.iter().flat_map(|document| &document.entries);
        let ids: std::collections::BTreeSet<_> = entries.map(|entry| id(&entry.wrapped)).collect();
        all.retain(|id, _| ids.contains(id));
    }
}

fn id(wrapped: &Wrapped) -> WrapId {
    (wrapped.provider.clone(), wrapped.key_id.clone(), wrapped.ciphertext.clone())
}

/// The KEKs that documents name, and what plugins have unwrapped of them.
pub(super) struct Keks<'a> {
    local: BTreeMap<String, Kek>,
    file: Option<&'a Kek>,
    kms: BTreeMap<WrapId, Bytes>,
}

impl KeyringStore {
    /// Returns what unwraps every entry of the documents. Seeds of another provider than the primary one open all the same.
    pub(super) async fn keks_of(&self, documents: &[Document]) -> Result<Keks<'_>, KeyringError> {
        let file = self.providers.file.as_ref();
        let mut keks = Keks { local: BTreeMap::new(), file, kms: BTreeMap::new() };
        let mut of_plugins = Vec::new();
        for entry in documents.iter().flat_map(|document| &document.entries) {
            let Wrapped { provider, key_id, .. } = &entry.wrapped;
            if provider.starts_with(Provider::KMS) {
                of_plugins.push(entry);
                continue;
            }
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
        for entries in of_plugins.chunks(AT_ONCE) {
            keks.kms.extend(try_join_all(entries.iter().map(|entry| self.of_plugin(entry))).await?);
        }
        Ok(keks)
    }

    /// What a plugin unwraps of an entry. It is asked once.
    async fn of_plugin(&self, entry: &Entry) -> Result<(WrapId, Bytes), KeyringError> {
        let id = id(&entry.wrapped);
        let known = self.remembered.0.lock().get(&id).cloned();
        if let Some(bytes) = known.filter(|bytes| entry.verify(bytes).is_ok()) {
            return Ok((id, bytes));
        }
        let Some(kms) = self.providers.plugin(&entry.wrapped.provider) else {
            return Err(KeyringError::KmsMissing { provider: entry.wrapped.provider.clone() });
        };
        let bytes = Arc::new(kms.unwrap(entry).await?);
        self.remembered.0.lock().insert(id.clone(), Arc::clone(&bytes));
        Ok((id, bytes))
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

    /// Opens what one of these KEKs has wrapped. [`KeyringStore::keks_of`] has found every KEK that its documents name.
    pub(super) fn unwrap(&self, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, KekError> {
        if let Some(bytes) = self.kms.get(&id(wrapped)) {
            return Ok(Zeroizing::clone(bytes));
        }
        self.get(wrapped).ok_or(KekError::Refused)?.unwrap(&wrapped.ciphertext)
    }
}
