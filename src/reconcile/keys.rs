//! The keyring that passes use, and when it is read again.
//!
//! In: the keyring's store. Out: the keyring as it was last read. It is read again when it changes; and as a watch can be
//! behind, a record or sealed text under an unknown key is worth one fresh look: another replica may have rotated, or an
//! administrator restored a keyring beside ours.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, Notify};
use tracing::{info, warn};

use crate::{crypto::Keyring, kek::KeyringStore};

/// The keyring is not read again sooner than this, however many objects lack a key.
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// The keyring in use.
pub struct Keys {
    store: KeyringStore,
    keyring: RwLock<Arc<Keyring>>,
    /// The last try to read it. Held while it is read, so that whoever asks meanwhile waits for what that finds.
    last: Mutex<Option<Try>>,
    renewed: Notify,
}

/// A try to read the keyring.
#[derive(Clone, Copy)]
struct Try {
    ended: Instant,
    read: bool,
}

impl Keys {
    /// Starts with a keyring that was read from `store`.
    #[must_use]
    pub fn new(store: KeyringStore, keyring: Keyring) -> Self {
        Self { store, keyring: RwLock::new(Arc::new(keyring)), last: Mutex::new(None), renewed: Notify::new() }
    }

    /// The keyring as it was last read.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the keyring has been read again. For one waiter.
    pub async fn renewed(&self) {
        self.renewed.notified().await;
    }

    /// Reads the keyring again, unless that was done a moment ago. Whoever asks while it is being read waits for that, so
    /// afterwards [`get`](Self::get) gives what was stored a moment ago. Returns whether it was read.
    pub async fn look_again(&self) -> bool {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        // One that failed while we waited would hardly go better now; any later one is tried.
        let enough = |last: &Try| if last.read { last.ended.elapsed() < LEAST_WAIT } else { last.ended >= asked };
        match last.as_ref().filter(|last| enough(last)) {
            Some(_) => false,
            None => self.read(&mut last).await,
        }
    }

    /// The keyring after a fresh look, if that is another than `known`.
    pub async fn newer_than(&self, known: &Arc<Keyring>) -> Option<Arc<Keyring>> {
        self.look_again().await;
        Some(self.get()).filter(|keyring| !Arc::ptr_eq(keyring, known))
    }

    /// Reads the keyring again: it has changed. Returns whether it was read.
    pub async fn read_again(&self) -> bool {
        let mut last = self.last.lock().await;
        self.read(&mut last).await
    }

    async fn read(&self, last: &mut Option<Try>) -> bool {
        let loaded = self.store.load().await;
        *last = Some(Try { ended: Instant::now(), read: loaded.is_ok() });
        match loaded {
            Ok(keyring) => {
                *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
                self.renewed.notify_one();
                info!("the keyring was read again");
                true
            }
            Err(error) => {
                // What opens still opens: the keyring in use stays.
                warn!(%error, "the keyring was not read again");
                false
            }
        }
    }
}
