//! Wraps new keys under the KEK of the primary provider.
//!
//! A plugin is asked after the edit of a document: until then, an entry holds a ticket instead of a ciphertext, and the bytes
//! stay here. A document with a ticket does not open, so it is never written.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use managed_secrets_crypto::{
    Kek,
    keyring::{Document, KekError, Wrapped},
    provider::Provider,
};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{KeyringError, KeyringStore, kms::Kms, providers::Primary};

/// Wraps new keys.
pub struct Wrapper(By);

enum By {
    /// A KEK that this process holds.
    Kek { provider: &'static str, kek: Kek },
    /// A plugin: what it is to wrap, and the tickets that this wrapper has given.
    Plugin { kms: Arc<Kms>, tickets: Arc<Tickets>, given: Mutex<Vec<u64>> },
}

/// What plugins are to wrap, by ticket.
#[derive(Default)]
pub(super) struct Tickets {
    next: AtomicU64,
    bytes: Mutex<BTreeMap<u64, Zeroizing<Vec<u8>>>>,
}

impl Wrapper {
    pub(super) fn kek(provider: &'static str, kek: Kek) -> Self {
        Self(By::Kek { provider, kek })
    }

    /// Wraps the bytes of an entry. Give the result to [`KeyringStore::change`] while this wrapper lives.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn wrap(&self, bytes: &[u8]) -> Result<Wrapped, KekError> {
        match &self.0 {
            By::Kek { provider, kek } => Ok(Wrapped::new(*provider, kek.key_id().to_string(), kek.wrap(bytes)?)),
            By::Plugin { kms, tickets, given } => {
                let ticket = tickets.next.fetch_add(1, Relaxed);
                tickets.bytes.lock().insert(ticket, Zeroizing::new(bytes.to_vec()));
                given.lock().push(ticket);
                Ok(Wrapped::new(kms.provider(), ticket.to_string(), String::new()))
            }
        }
    }

    /// Whether this is what it would wrap with, as far as that is known.
    pub(super) fn has_wrapped(&self, wrapped: &Wrapped) -> bool {
        match &self.0 {
            By::Kek { provider, kek } => wrapped.provider == *provider && wrapped.key_id == kek.key_id().to_string(),
            By::Plugin { kms, .. } => {
                wrapped.provider == kms.provider() && kms.key_id().is_none_or(|key_id| key_id == wrapped.key_id)
            }
        }
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        if let By::Plugin { tickets, given, .. } = &self.0 {
            let mut bytes = tickets.bytes.lock();
            for ticket in given.lock().drain(..) {
                bytes.remove(&ticket);
            }
        }
    }
}

impl KeyringStore {
    /// What wraps new keys of the operator's own document. A local KEK is that of its newest key under a local KEK.
    ///
    /// # Errors
    /// If the KEK cannot be read.
    pub async fn wrapper(&self, document: &Document) -> Result<Wrapper, KeyringError> {
        if let Some(wrapper) = self.outside()? {
            return Ok(wrapper);
        }
        let kek = match super::rewrap::newest_local(document) {
            Some(key_id) => self.local_kek(key_id).await?,
            None => self.new_local_kek().await?,
        };
        Ok(Wrapper::kek(Provider::LOCAL, kek))
    }

    /// The same if the primary provider keeps its KEK outside etcd.
    pub(super) fn outside(&self) -> Result<Option<Wrapper>, KeyringError> {
        let copied = |kek: &Kek| Kek::new(kek.as_bytes()).map_err(|error| KeyringError::Generate(error.to_string()));
        Ok(match (self.providers.primary, &self.providers.file, self.providers.kms.first()) {
            (Primary::File, Some(kek), _) => Some(Wrapper::kek(Provider::FILE, copied(kek)?)),
            (Primary::Kms, _, Some(kms)) => {
                let (kms, tickets) = (Arc::clone(kms), Arc::clone(&self.tickets));
                Some(Wrapper(By::Plugin { kms, tickets, given: Mutex::default() }))
            }
            _ => None,
        })
    }

    /// Has plugins wrap what was to be wrapped by them, and puts the ciphertexts into the document.
    pub(super) async fn redeem(&self, document: &mut Document) -> Result<(), KeyringError> {
        let is_ticket =
            |wrapped: &Wrapped| wrapped.ciphertext.is_empty() && wrapped.provider.starts_with(Provider::KMS);
        let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, entry) in document.entries.iter().enumerate().filter(|(_, entry)| is_ticket(&entry.wrapped)) {
            waiting.entry(entry.wrapped.provider.clone()).or_default().push(at);
        }
        for (provider, entries) in waiting {
            let Some(kms) = self.providers.plugin(&provider) else {
                return Err(KeyringError::KmsMissing { provider });
            };
            let bytes_of = |at: &usize| {
                let ticket: u64 = document.entries[*at].wrapped.key_id.parse().ok()?;
                self.tickets.bytes.lock().get(&ticket).cloned()
            };
            let bytes: Option<Vec<_>> = entries.iter().map(bytes_of).collect();
            let bytes = bytes.ok_or_else(|| KeyringError::Generate("a key has no content".to_owned()))?;
            for (at, wrapped) in entries.into_iter().zip(kms.wrap(&bytes).await?) {
                document.entries[at].wrapped = wrapped;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::kms::KmsTiming, *};

    #[tokio::test]
    async fn what_a_plugin_is_to_wrap_stays_out_of_the_document_and_is_forgotten_with_the_wrapper() {
        let address = "one=unix:///run/none/kms.sock".parse().unwrap();
        let (kms, tickets) = (Arc::new(Kms::new(&address, &KmsTiming::default())), Arc::<Tickets>::default());
        let plugin = Wrapper(By::Plugin { kms, tickets: Arc::clone(&tickets), given: Mutex::default() });
        let wrapped = plugin.wrap(b"only-an-example").unwrap();
        assert_eq!((wrapped.provider.as_str(), wrapped.ciphertext.as_str()), ("kms:one", ""));
        assert!(plugin.has_wrapped(&wrapped), "its key is not known yet");
        assert_eq!(tickets.bytes.lock().len(), 1);
        drop(plugin);
        assert!(tickets.bytes.lock().is_empty());
    }
}
