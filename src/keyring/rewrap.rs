//! Replaces KEKs: wraps the keys of the operator's own keyring again, all in one write.
//!
//! ```text
//!  another provider is primary ┐
//!  the plugin has a new key    ├─▶ due ──▶ unwrap each ──▶ wrap each ──▶ change (one write)
//!  an administrator asks       ┘            (old KEK)      (new KEK)
//! ```
//!
//! Guarantees: nothing but the wraps changes. The KEK from before is never deleted, and opens backups of the keyring. A
//! replacement that is interrupted goes on with the local KEK that it has created.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use managed_secrets_api::{
    keyring_request::{Kind, Request},
    keys::{ANNO_KEK_FOR, TYPE_KEK},
};
use managed_secrets_client::SecretObject;
use managed_secrets_crypto::{
    Kek,
    keyring::{Document, Entry, GenerateError},
    provider::Provider,
};
use tracing::warn;

use super::{KeyringError, KeyringStore, providers::Primary, store::kek_in, wrapper::Wrapper};

/// The request of an administrator.
pub(super) const ASKED: Request = Request::Rotate(Kind::Kek);

/// What is due of the keyring that was read last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// How many keys another provider has wrapped.
    pub moves: usize,
    /// How many keys the primary provider has wrapped under another KEK than the one that wraps new keys.
    pub stale: usize,
    /// A new KEK was asked for.
    pub asked: bool,
}

impl Due {
    /// How many keys are under another KEK than the one that wraps new keys.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.moves + self.stale
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.keys() == 0 && !self.asked
    }
}

/// Id of the local KEK that wraps new keys: that of the newest key under a local one.
pub(super) fn newest_local(document: &Document) -> Option<&str> {
    let local = document.entries.iter().filter(|entry| entry.wrapped.provider == Provider::LOCAL);
    local.max_by_key(|entry| (entry.created_at(), &entry.id)).map(|entry| entry.wrapped.key_id.as_str())
}

/// What is due of a document, if `provider` wraps new keys with the KEK `key_id` (`None`: not known).
fn due(document: &Document, provider: &str, key_id: Option<&str>, asked: bool) -> Due {
    let mut due = Due { asked, ..Due::default() };
    for Entry { wrapped, .. } in &document.entries {
        if wrapped.provider != provider {
            due.moves += 1;
        } else if key_id.is_some_and(|key_id| key_id != wrapped.key_id) {
            due.stale += 1;
        }
    }
    due
}

impl KeyringStore {
    /// What is due of the keyring that was read last, as far as the status of the plugin is known.
    #[must_use]
    pub fn due(&self) -> Due {
        let provider = self.providers.primary();
        let of_kms = self.providers.plugin(&provider).and_then(|kms| kms.key_id());
        let of_file = self.providers.file.as_ref().map(|kek| kek.key_id().to_string());
        let of = |document: &Document| {
            let key_id = match self.providers.primary {
                Primary::Local => newest_local(document),
                Primary::File => of_file.as_deref(),
                Primary::Kms => of_kms.as_deref(),
            };
            due(document, &provider, key_id, self.is_kek_asked())
        };
        self.history.own(of).unwrap_or_default()
    }

    /// Wraps each key of the operator's own keyring that another KEK has wrapped than the one that wraps new keys; if a new
    /// KEK was asked for, every key under a new one. Returns how many keys it wrapped.
    ///
    /// A KEK in a file is replaced by other means, so a request for a new one is removed.
    pub async fn rewrap(&self, writer: &Client) -> Result<usize, KeyringError> {
        let (metadata, own) = self.own().await?;
        let asked = own.requests.iter().any(|request| *request == ASKED);
        let wrapper = match self.providers.primary {
            Primary::Local if asked => {
                Wrapper::kek(Provider::LOCAL, self.local_kek_for(&metadata, &own.document).await?)
            }
            _ => self.wrapper(&own.document).await?,
        };
        let all = asked && self.providers.primary != Primary::File;
        let is_due = |entry: &Entry| all || !wrapper.has_wrapped(&entry.wrapped);
        let keks = self.keks_of(std::slice::from_ref(&own.document)).await?;
        let change = self.change(writer, |own| {
            if own.requests.remove(&ASKED) != asked {
                // Another leader has done it meanwhile, or it was asked for just now.
                return Err(KeyringError::Contended);
            }
            let mut count = 0;
            for entry in own.document.entries.iter_mut().filter(|entry| is_due(entry)) {
                // One that came meanwhile is left for the next round.
                let Ok(bytes) = keks.unwrap(&entry.wrapped) else { continue };
                entry.verify(&bytes).map_err(|what| KeyringError::Entry { id: entry.id.clone(), what })?;
                entry.wrapped = wrapper.wrap(&bytes).map_err(|error| KeyringError::from(GenerateError::Wrap(error)))?;
                count += 1;
            }
            Ok(count)
        });
        let count = change.await?;
        if asked && !all {
            warn!(
                "a new key-encryption key was asked for, and the present one is in a file: move to another provider and back"
            );
        }
        Ok(count)
    }

    /// A new local KEK for the keyring as it is stored now, or the one that was created for it by a try that ended early.
    pub(super) async fn new_local_kek(&self) -> Result<Kek, KeyringError> {
        let (metadata, own) = self.own().await?;
        self.local_kek_for(&metadata, &own.document).await
    }

    async fn local_kek_for(&self, metadata: &ObjectMeta, document: &Document) -> Result<Kek, KeyringError> {
        let purpose = format!("{}/{}", metadata.uid.as_deref().unwrap_or_default(), document.generation);
        let is_for_it = |secret: &&SecretObject| {
            let annotations = secret.metadata.annotations.as_ref();
            annotations.and_then(|annotations| annotations.get(ANNO_KEK_FOR)) == Some(&purpose)
        };
        let stored = self.list(TYPE_KEK, "read the key-encryption keys").await?;
        match stored.iter().filter(is_for_it).find_map(kek_in) {
            Some(kek) => Ok(kek),
            None => self.create_local_kek(Some(purpose)).await,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(keys: &[(&str, &str, &str)]) -> Document {
        let entries: Vec<_> = keys
            .iter()
            .map(|(created, provider, key_id)| {
                json!({
                    "id": created, "purpose": "record", "state": "active", "created": format!("2026-11-28T{created}Z"),
                    "wrapped": {"provider": provider, "keyId": key_id, "ciphertext": ""},
                })
            })
            .collect();
        serde_json::from_value(json!({"format": "MSK1", "entries": entries})).unwrap()
    }

    #[test]
    fn the_newest_local_key_names_the_local_kek() {
        let document = document(&[("08:00:00", "local", "a"), ("09:00:00", "local", "b"), ("10:00:00", "file", "c")]);
        assert_eq!(newest_local(&document), Some("b"));
        assert_eq!(newest_local(&Document { entries: Vec::new(), ..document }), None);
    }

    #[test]
    fn keys_of_another_provider_or_another_kek_are_due() {
        let document = document(&[("08:00:00", "local", "a"), ("09:00:00", "kms:x", "1"), ("10:00:00", "kms:x", "2")]);
        let rows = [
            ("kms:x", Some("2"), (1, 1)),
            ("kms:x", None, (1, 0)),
            ("kms:y", Some("2"), (3, 0)),
            ("local", Some("a"), (2, 0)),
            ("local", Some("b"), (2, 1)),
        ];
        for (provider, key_id, (moves, stale)) in rows {
            assert_eq!(
                due(&document, provider, key_id, false),
                Due { moves, stale, asked: false },
                "{provider} {key_id:?}"
            );
        }
        assert!(!due(&Document { entries: Vec::new(), ..document }, "local", None, true).is_nothing());
    }
}
