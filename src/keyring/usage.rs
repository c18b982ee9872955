//! How many sealed values use keys of each standing.

use std::collections::BTreeMap;

use managed_secrets_crypto::{KeyId, Keyring, keyring::SealingKeyStatus};

/// What may be done with the key that a value was sealed with: it is used for new values, it opens, it was retired, it was
/// revoked, or the keyring does not have it.
pub(crate) const STANDINGS: [&str; 5] = ["active", "open-only", "retired", "revoked", "unknown"];

/// Counts sealed values by the standing of their key. In: how many use each key.
#[must_use]
pub(crate) fn by_standing(keyring: &Keyring, sealed: &BTreeMap<KeyId, usize>) -> [(&'static str, usize); 5] {
    let current = keyring.current_public_key().map(|published| published.key.key_id());
    let mut counts = STANDINGS.map(|standing| (standing, 0));
    for (key, count) in sealed {
        let at = match keyring.sealing_key(*key) {
            SealingKeyStatus::Usable(_) if current == Some(*key) => 0,
            SealingKeyStatus::Usable(_) => 1,
            SealingKeyStatus::Retired => 2,
            SealingKeyStatus::Revoked => 3,
            SealingKeyStatus::Unknown => 4,
        };
        if let Some((_, total)) = counts.get_mut(at) {
            *total += count;
        }
    }
    counts
}
