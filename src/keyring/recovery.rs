//! Keeps every key of the operator's own keyring sealed to the recovery keys.

use kube::Client;
use managed_secrets_crypto::{Keyring, recovery};

use super::{KeyringError, KeyringStore};

impl KeyringStore {
    /// Adds the missing copies of keys for the recovery keys, and replaces damaged ones. Returns whether it wrote the keyring.
    ///
    /// `keyring` is the stored one as it was read last. A key that it lacks is left for the next call. Keyrings beside the
    /// operator's own stay as they are.
    pub async fn cover(&self, writer: &Client, keyring: &Keyring) -> Result<bool, KeyringError> {
        let edit = |own: &mut super::OwnKeyring| {
            recovery::cover(&mut own.document, keyring, &self.recipients).map_err(KeyringError::from)
        };
        self.change(writer, edit).await
    }
}
