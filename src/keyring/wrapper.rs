//! Wraps new keys under the KEK of the provider in use.

use managed_secrets_crypto::{
    Kek,
    keyring::{Document, Entry, KekError, Wrapped},
    provider::Provider,
};

use super::{KeyringError, KeyringStore};

/// A KEK that wraps new keys.
pub struct Wrapper {
    provider: &'static str,
    kek: Kek,
}

impl Wrapper {
    /// Wraps the bytes of an entry.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn wrap(&self, bytes: &[u8]) -> Result<Wrapped, KekError> {
        Ok(Wrapped::new(self.provider, self.kek.key_id().to_string(), self.kek.wrap(bytes)?))
    }
}

impl KeyringStore {
    /// The KEK for new keys of the operator's own document. A local one is that of its newest seed under a local KEK.
    ///
    /// # Errors
    /// If the KEK cannot be read.
    pub async fn wrapper(&self, document: &Document) -> Result<Wrapper, KeyringError> {
        let copied = |kek: &Kek| Kek::new(kek.as_bytes()).map_err(|error| KeyringError::Generate(error.to_string()));
        match self.provider() {
            Provider::File(kek) => Ok(Wrapper { provider: Provider::FILE, kek: copied(kek)? }),
            Provider::Local => {
                let local = document.seeds().filter(|entry| entry.wrapped.provider == Provider::LOCAL);
                let kek = match local.max_by_key(|entry| entry.created_at()) {
                    Some(Entry { wrapped, .. }) => self.local_kek(&wrapped.key_id).await?,
                    None => self.stored_local_kek().await?,
                };
                Ok(Wrapper { provider: Provider::LOCAL, kek })
            }
        }
    }
}
