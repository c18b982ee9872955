//! A stored keyring and a stored key-encryption key, as far as they can be told apart without opening anything.

use jiff::Timestamp;
use managed_secrets_api::keyring_request::Requests;
use managed_secrets_api::keys::{
    ANNO_KEYRING_REQUEST, KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK,
};
use managed_secrets_client::SecretObject;
use managed_secrets_crypto::Kek;
use managed_secrets_crypto::keyring::{Document, Entry, FORMAT};
use sha2::{Digest as _, Sha256};

/// One keyring Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StoredKeyring {
    /// The Secret's name.
    pub(crate) name: String,
    /// What it holds: every key wrapped.
    pub(crate) document: Document,
    /// SHA-256 of what it holds, in hex.
    pub(crate) fingerprint: String,
    /// What is asked of the operator.
    pub(crate) requests: Requests,
}

impl StoredKeyring {
    /// Reads it; none where it holds no document of the format.
    pub(crate) fn of(secret: &SecretObject) -> Option<Self> {
        let content = secret.data.get(KEYRING_DATA_KEY)?.as_slice();
        let document: Document = serde_json::from_slice(content).ok()?;
        let fingerprint = hex::encode(Sha256::digest(content));
        let request = secret.metadata.annotations.as_ref().and_then(|all| all.get(ANNO_KEYRING_REQUEST));
        (document.format == FORMAT).then(|| Self {
            name: secret.metadata.name.clone().unwrap_or_default(),
            document,
            fingerprint,
            requests: request.map(|text| Requests::parse(text)).unwrap_or_default(),
        })
    }

    /// The name of its Secret where another one has the name of the operator's own keyring.
    pub(crate) fn name_beside(&self) -> String {
        let digits = self.fingerprint.get(..8).unwrap_or_default();
        format!("{KEYRING_NAME}-restored-{digits}")
    }

    /// Ids of its keys.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.document.entries.iter().map(|entry| entry.id.as_str())
    }

    /// Keys with a creation date that is later than `now`, by more than clocks differ.
    pub(crate) fn ahead_of(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        self.document.entries.iter().filter(move |entry| entry.is_ahead_of(now))
    }

    /// The same, and keys without a date, which the operator would refuse; with what is wrong.
    pub(crate) fn implausible(&self, now: Timestamp) -> impl Iterator<Item = (&Entry, &'static str)> {
        let dateless = self.document.entries.iter().filter(|entry| entry.created_at().is_none());
        let ahead = self.ahead_of(now).map(|entry| (entry, "is in the future"));
        ahead.chain(dateless.map(|entry| (entry, "is not a date")))
    }

    /// Who wraps its keys: provider and key id, each once.
    pub(crate) fn wrapped_by(&self) -> Vec<(&str, &str)> {
        let wraps = self.document.entries.iter().map(|entry| &entry.wrapped);
        let mut wrapped: Vec<_> = wraps.map(|it| (it.provider.as_str(), it.key_id.as_str())).collect();
        wrapped.sort_unstable();
        wrapped.dedup();
        wrapped
    }
}

/// The id of the key-encryption key in a Secret, if it is what its type and name say.
pub(crate) fn kek_id(secret: &SecretObject) -> Option<String> {
    kek_of(secret).map(|kek| kek.key_id().to_string())
}

/// The key-encryption key in a Secret, if it is what its type and name say.
pub(crate) fn kek_of(secret: &SecretObject) -> Option<Kek> {
    let kek = Kek::new(secret.data.get(KEK_DATA_KEY)?.as_slice()).ok()?;
    let named = secret.metadata.name.as_deref()?.strip_prefix(KEK_PREFIX)?;
    (secret.type_.as_deref() == Some(TYPE_KEK) && named == kek.key_id().to_string()).then_some(kek)
}
