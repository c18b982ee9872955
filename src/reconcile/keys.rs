//! The keyring that passes use, and when it is read again.
//!
//! In: the keyring's store. Out: the keyring as it was last read. A record or sealed text under an unknown key is worth
//! one fresh look: another replica may have rotated, or an administrator restored a keyring beside ours.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tracing::{info, warn};

use crate::{
    crypto::Keyring,
    kek::{KeyringError, KeyringStore},
};

/// The keyring is not read again sooner than this, however many objects lack a key.
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// The keyring in use.
pub struct Keys {
    store: KeyringStore,
    keyring: RwLock<Arc<Keyring>>,
    last_look: Mutex<Option<Instant>>,
}

impl Keys {
    /// Starts with a keyring that was read from `store`.
    #[must_use]
    pub fn new(store: KeyringStore, keyring: Keyring) -> Self {
        Self { store, keyring: RwLock::new(Arc::new(keyring)), last_look: Mutex::new(None) }
    }

    /// The keyring as it was last read.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keyring again, unless that was done a moment ago. Returns whether there is another keyring than `had`.
    ///
    /// One at a time: many objects lack a key at once after a restore, and whoever comes second gets what the first has
    /// read. Told that nothing is new, it would not be looked at again for minutes.
    pub async fn look_again(&self, had: &Arc<Keyring>) -> bool {
        let mut last = self.last_look.lock().await;
        if !Arc::ptr_eq(had, &self.get()) {
            return true;
        }
        if last.is_some_and(|last| last.elapsed() < LEAST_WAIT) {
            return false;
        }
        *last = Some(Instant::now());
        match self.read().await {
            Ok(()) => true,
            Err(error) => {
                // What opens still opens: the keyring in use stays.
                warn!(%error, "the keyring was not read again");
                false
            }
        }
    }

    async fn read(&self) -> Result<(), KeyringError> {
        let keyring = self.store.load().await?;
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
        info!("the keyring was read again");
        Ok(())
    }
}
