//! The keyring that passes use, and when it is read again.
//!
//! In: the keyring's store. Out: the keyring as it was last read. It is read again when it changes; and as a watch can be
//! behind, a record or sealed text under an unknown key is worth one fresh look: another replica may have rotated, or an
//! administrator restored a keyring beside ours.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::Client;
use managed_secrets_crypto::{Keyring, SeedId, keyring::Seen, recovery::Coverage};
use managed_secrets_engine::health::Verdict;
use parking_lot::RwLock;
use tokio::sync::{Mutex, Notify, watch};
use tracing::{info, warn};

use crate::keyring::{Due, KeyringError, KeyringStore, Published, RESTORE, kms::Kms};

/// The keyring is not read again sooner than this, however many objects lack a key.
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// The keyring in use.
pub struct Keys {
    store: KeyringStore,
    keyring: RwLock<Arc<Keyring>>,
    /// The last one that was read and lacked no key.
    complete: RwLock<Arc<Keyring>>,
    /// The last try to read it. Held while it is read, so that a task that asks meanwhile waits for the result.
    last: Mutex<Option<Try>>,
    renewed: watch::Sender<()>,
    changed: Notify,
    /// Why the last try failed.
    trouble: RwLock<Option<KeyringError>>,
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
        let keyring = Arc::new(keyring);
        Self {
            store,
            complete: RwLock::new(Arc::clone(&keyring)),
            keyring: RwLock::new(keyring),
            last: Mutex::new(None),
            renewed: watch::Sender::new(()),
            changed: Notify::new(),
            trouble: RwLock::default(),
        }
    }

    /// The keyring as it was last read.
    #[must_use]
    pub fn get(&self) -> Arc<Keyring> {
        Arc::clone(&self.keyring.read())
    }

    /// Whether values may be sealed with the keyring in use. One that was lost opens what it opened, but what is sealed with
    /// it could not be opened after a restart.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match &*self.trouble.read() {
            None => match self.store.rollback() {
                None => Verdict::Good,
                Some(rollback) => Verdict::Degraded(format!("{rollback}; {RESTORE}")),
            },
            Some(error) if error.is_retryable() => Verdict::Degraded(format!("not read again: {error}")),
            Some(error) => Verdict::Failed(error.to_string()),
        }
    }

    /// Tells each time that the keyring has been read again.
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<()> {
        self.renewed.subscribe()
    }

    /// What the recovery keys can open of the keyring in use; `None` if there is no recovery key, neither in the options nor in
    /// the keyring.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        self.store.coverage()
    }

    /// Whether the stored keyring is older than one that was seen before.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.store.rollback().is_some()
    }

    /// Why no new value may be encrypted, if so.
    #[must_use]
    pub fn refuses_new(&self) -> Option<String> {
        self.store.refuses_new()
    }

    /// What is due of key-encryption keys.
    #[must_use]
    pub fn due(&self) -> Due {
        self.store.due()
    }

    /// How many KMS plugins do not answer as they should; `None` if there are none.
    #[must_use]
    pub fn silent_plugins(&self) -> Option<usize> {
        let plugins = self.store.plugins();
        (!plugins.is_empty()).then(|| plugins.iter().filter(|kms| kms.trouble().is_some()).count())
    }

    /// Whether the KMS plugins answer. What is in memory works without them, so one that is silent fails no probe.
    pub(super) fn kms_verdict(&self) -> Verdict {
        let silent = |kms: &Arc<Kms>| kms.trouble().map(|(_, error)| format!("KMS plugin {}: {error}", kms.name()));
        let silent: Vec<_> = self.store.plugins().iter().filter_map(silent).chain(self.refuses_new()).collect();
        if silent.is_empty() { Verdict::Good } else { Verdict::Degraded(silent.join("; ")) }
    }

    /// What to publish about the newest keyring that was seen.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.store.seen()
    }

    /// Takes note of what is published about the newest keyring that an operator saw. It reads the keyring again if that
    /// may be newer than the one in use.
    pub async fn witnessed(&self, found: &Published) {
        if !self.is_rolled_back() && self.store.is_behind(found.seen().as_ref()) {
            self.read_again().await;
        }
        let was_rolled_back = self.is_rolled_back();
        self.store.note_published(found);
        if was_rolled_back && !self.is_rolled_back() {
            // The keys that were lost open nothing more.
            self.read_again().await;
        }
    }

    /// Puts back what the stored keyring lacks of an earlier one, if this process still has it. Returns whether it did.
    pub async fn put_back(&self, leader: &Client) -> Result<bool, KeyringError> {
        let done = self.store.put_back(leader).await?;
        if done {
            self.read_again().await;
        }
        Ok(done)
    }

    /// Accepts that keys of an earlier keyring are lost, for all replicas.
    pub async fn accept_loss(&self, leader: &Client) -> Result<(), KeyringError> {
        self.store.accept_loss(leader).await?;
        self.read_again().await;
        Ok(())
    }

    /// Whether new values may be written under this seed in great number: as far as this process knows, the keyring in use is
    /// the stored one, and this is its active seed.
    pub(super) fn is_active(&self, seed: SeedId) -> bool {
        let is_stored = self.trouble.read().is_none() && !self.is_rolled_back();
        is_stored && self.get().active_seed().is_some_and(|active| active.id() == seed)
    }

    /// Seals the keys of the stored keyring to the recovery keys, where that is missing. Returns whether it wrote.
    pub async fn cover(&self, leader: &Client) -> Result<bool, KeyringError> {
        self.store.cover(leader, &self.get()).await
    }

    /// Waits until the keyring has been read again. For the task that replaces seeds.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Where the keyring is stored.
    pub(super) fn store(&self) -> &KeyringStore {
        &self.store
    }

    /// Reads the keyring again, unless that was done a moment ago. A task that asks while it is being read waits for that, so
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
            Ok(mut keyring) => {
                // While keys are missing, those that this process still has open what they opened.
                if self.is_rolled_back() {
                    keyring = keyring.beside(Arc::clone(&self.complete.read()));
                }
                let keyring = Arc::new(keyring);
                if !self.is_rolled_back() {
                    *self.complete.write() = Arc::clone(&keyring);
                }
                *self.keyring.write() = keyring;
                *self.trouble.write() = None;
                self.renewed.send_replace(());
                self.changed.notify_one();
                info!("reloaded the keyring");
                true
            }
            Err(error) => {
                // What opens still opens: the keyring in use stays.
                warn!(%error, "could not reload the keyring; the current one stays in use");
                *self.trouble.write() = Some(error);
                false
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use futures::future::join_all;
    use http::{Request, Response, StatusCode};
    use http_body_util::Full;
    use jiff::Timestamp;
    use kube::{Client, client::Body};
    use managed_secrets_api::keys::{KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEYRING};
    use managed_secrets_crypto::{Kek, keyring::Wrapped, provider::Provider};
    use serde_json::{Value, json};
    use tokio::sync::Semaphore;
    use tokio_util::bytes::Bytes;
    use tower::{BoxError, service_fn};

    use super::*;

    /// An API server that has one keyring, or fails, and answers when it is let to.
    struct Server {
        asked: AtomicUsize,
        answers: Semaphore,
        code: std::sync::Mutex<StatusCode>,
        list: Value,
    }

    fn kek() -> Kek {
        Kek::new(&[7; 32]).unwrap()
    }

    fn keys() -> (Arc<Server>, Keys) {
        let kek = kek();
        let wrap =
            |bytes: &[u8]| kek.wrap(bytes).map(|ciphertext| Wrapped::new("file", kek.key_id().to_string(), ciphertext));
        let document = Keyring::generate_entries(Timestamp::UNIX_EPOCH, wrap).unwrap();
        let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
        let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": [
            {"metadata": {"name": KEYRING_NAME}, "type": TYPE_KEYRING, "data": {KEYRING_DATA_KEY: content}},
        ]});
        let server = Arc::new(Server {
            asked: AtomicUsize::new(0),
            answers: Semaphore::new(0),
            code: std::sync::Mutex::new(StatusCode::OK),
            list,
        });
        let asked = Arc::clone(&server);
        let service = service_fn(move |_: Request<Body>| {
            let server = Arc::clone(&asked);
            async move {
                server.asked.fetch_add(1, SeqCst);
                server.answers.acquire().await?.forget();
                let code = *server.code.lock().unwrap();
                let body = if code == StatusCode::OK { server.list.to_string() } else { "{}".to_owned() };
                let body = Full::new(Bytes::from(body));
                Ok::<_, BoxError>(Response::builder().status(code).body(body)?)
            }
        });
        let client = Client::new(service, "default");
        let store = KeyringStore::new(client, "keys", Provider::File(kek));
        (server, Keys::new(store, keyring))
    }

    /// Five ask at once; one answer is let go, once the server was asked.
    async fn five(server: &Server, keys: &Keys) -> Vec<(bool, Arc<Keyring>)> {
        let known = keys.get();
        let looks = join_all((0..5).map(|_| async {
            let newer = keys.newer_than(&known).await.is_some();
            (newer, keys.get())
        }));
        let answer = async {
            while server.asked.load(SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            server.answers.add_permits(1);
        };
        tokio::join!(looks, answer).0
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_task_that_asks_while_it_is_read_waits_for_it() {
        let (server, keys) = keys();
        let known = keys.get();
        let found = five(&server, &keys).await;
        assert_eq!(server.asked.load(SeqCst), 1, "one of them reads, for all");
        for (newer, keyring) in &found {
            assert!(*newer && !Arc::ptr_eq(keyring, &known));
        }
        // Read a moment ago: enough for who asks now, and news to who still has the one before.
        assert!(keys.newer_than(&known).await.is_some());
        assert!(keys.newer_than(&keys.get()).await.is_none());
        assert_eq!(server.asked.load(SeqCst), 1);
        let mut renewals = keys.renewals();
        assert!(!renewals.has_changed().unwrap());
        // But not where it is known to have changed.
        server.answers.add_permits(1);
        assert!(keys.read_again().await);
        assert_eq!(server.asked.load(SeqCst), 2);
        renewals.changed().await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_look_that_failed_is_none() {
        let (server, keys) = keys();
        let known = keys.get();
        *server.code.lock().unwrap() = StatusCode::INTERNAL_SERVER_ERROR;
        let found = five(&server, &keys).await;
        assert_eq!(server.asked.load(SeqCst), 1, "what waited for it does not fail once more");
        assert!(found.iter().all(|(newer, keyring)| !*newer && Arc::ptr_eq(keyring, &known)), "what opens still opens");
        assert!(matches!(keys.verdict(), Verdict::Degraded(why) if why.contains("read the keyring")));
        // The next one tries, at once.
        *server.code.lock().unwrap() = StatusCode::OK;
        server.answers.add_permits(1);
        assert!(keys.look_again().await);
        assert_eq!(server.asked.load(SeqCst), 2);
        assert_eq!(keys.verdict(), Verdict::Good);
    }
}
