//! What the start waits for: the keyring, and the CRD.
//!
//! In: the store of the keyring, and a client. Out: the keyring. What it waits for is logged once, then rarely; [`Health`]
//! says it too.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, Client, core::PartialObjectMeta};
use managed_secrets_api::ManagedSecret;
use managed_secrets_crypto::{Keyring, provider::Provider};
use managed_secrets_engine::{
    health::{Health, Probe, Verdict},
    waiting::Waiting,
};
use tokio::time::Instant;

use crate::{
    controller::{health::KEYRING, keys::Keys},
    keyring::{KeyringError, KeyringStore, Unreadable},
};

/// How long a first start waits for the permission to look for records in every served namespace: manifests are applied
/// one object after the other, and permissions take effect a moment later.
const UNREADABLE_PATIENCE: Duration = Duration::from_secs(10);

/// A start.
pub(super) struct Start {
    pub(super) health: Arc<Health>,
    /// The namespaces that are served; all if empty.
    pub(super) namespaces: Vec<String>,
    /// Whether the process answers discovery meanwhile, which its end would interrupt: it counts as started, and waits until
    /// an administrator mends what is wrong.
    pub(super) persists: bool,
}

impl Start {
    /// Says what the start waits for.
    pub(super) fn waits(&self, why: impl Into<String>) {
        if self.persists { self.health.waiting(why) } else { self.health.starting(why) }
    }

    /// Waits for the keyring, and then for the CRD.
    pub(super) async fn prepare(
        &self,
        mut store: KeyringStore,
        kek_file: Option<&Path>,
        client: &Client,
    ) -> Result<Arc<Keys>, KeyringError> {
        let keyring = self.open_keyring(&mut store, kek_file).await?;
        self.waits("waiting for the ManagedSecret resource");
        self.wait_for_crd(client).await;
        Ok(Arc::new(Keys::new(store, keyring)))
    }

    /// Opens the keyring, or creates it at the first start; waits for an API server that does not answer yet, and a while
    /// for permissions that are being granted. If it persists, it also waits for an administrator. It reads `kek_file`, the
    /// file of the store's KEK, before each further try.
    async fn open_keyring(&self, store: &mut KeyringStore, kek_file: Option<&Path>) -> Result<Keyring, KeyringError> {
        let mut waiting = Waiting::new("the keyring");
        let began = Instant::now();
        let (mut is_lost, mut unread) = (false, None);
        loop {
            let unreadable =
                if began.elapsed() < UNREADABLE_PATIENCE { Unreadable::Refuse } else { Unreadable::PassOver };
            let error = match store.load_or_create(Timestamp::now(), &self.namespaces, unreadable).await {
                Err(error) if self.persists || error.is_retryable() => error,
                done => {
                    if is_lost {
                        self.health.check(KEYRING, &[Probe::Ready], || Verdict::Good);
                    }
                    waiting.over();
                    return done;
                }
            };
            let why = match unread {
                Some(unread) => format!("{error}; {unread}"),
                None => error.to_string(),
            };
            // An error that may pass does not say that a lost keyring is back.
            if !error.is_retryable() || error.is_of_kms() {
                is_lost = true;
                let why = why.clone();
                self.health.check(KEYRING, &[Probe::Ready], move || Verdict::Failed(why.clone()));
            }
            let waits = format!("waiting for the keyring: {why}");
            // No restart helps against a plugin that does not answer.
            if error.is_of_kms() {
                self.health.waiting(waits);
            } else {
                self.waits(waits);
            }
            waiting.pause(&why).await;
            unread = match kek_file.map(Provider::file) {
                Some(Ok(Provider::File(kek))) => {
                    store.set_file(kek);
                    None
                }
                // It may be replaced at this moment: the KEK that was read before stays.
                Some(Err(error)) => Some(error.to_string()),
                Some(Ok(Provider::Local)) | None => None,
            };
        }
    }

    /// Waits until the API server knows the resource. Anything but a clear no counts as yes: the watches will find out.
    async fn wait_for_crd(&self, client: &Client) {
        let api: Api<PartialObjectMeta<ManagedSecret>> = match self.namespaces.first() {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let one = kube::api::ListParams::default().limit(1);
        let mut waiting = Waiting::new("the ManagedSecret resource");
        while matches!(api.list_metadata(&one).await, Err(kube::Error::Api(status)) if status.code == 404) {
            waiting.pause("not installed: apply the output of `managed-secrets crd`").await;
        }
        waiting.over();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{convert::Infallible, fs};

    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use http::{Request, Response};
    use kube::client::Body;
    use managed_secrets_api::keys::{KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEYRING};
    use managed_secrets_crypto::{Kek, keyring::Wrapped};
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// Two KEKs, as files hold them. Their bytes are no text.
    const RIGHT: [u8; 32] = [0xfe; 32];
    const WRONG: [u8; 32] = [0xff; 32];

    /// An API server that has one keyring, which the right KEK opens.
    fn api_server() -> Client {
        let kek = Kek::new(&RIGHT).unwrap();
        let wrap = |bytes: &[u8]| {
            kek.wrap(bytes).map(|ciphertext| Wrapped::new(Provider::FILE, kek.key_id().to_string(), ciphertext))
        };
        let document = Keyring::generate_entries(Timestamp::UNIX_EPOCH, wrap).unwrap();
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
        let list = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": [
            {"metadata": {"name": KEYRING_NAME}, "type": TYPE_KEYRING, "data": {KEYRING_DATA_KEY: content}},
        ]});
        let list = list.to_string().into_bytes();
        let service = service_fn(move |_: Request<Body>| {
            let answer = Response::new(Body::from(list.clone()));
            async move { Ok::<_, Infallible>(answer) }
        });
        Client::new(service, "default")
    }

    fn start(persists: bool) -> Start {
        Start { health: Arc::default(), namespaces: Vec::new(), persists }
    }

    fn keyring_check(health: &Health) -> Option<bool> {
        health.checks().into_iter().find_map(|(name, passes)| (name == KEYRING).then_some(passes))
    }

    /// Waits until the probe's report contains a text.
    async fn says(health: &Health, text: &str) {
        let said = async {
            while !health.report(Probe::Ready).text(true).contains(text) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), said).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_persists_reads_the_kek_file_before_each_try() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kek");
        fs::write(&file, WRONG).unwrap();
        let start = start(true);
        let mut store = KeyringStore::new(api_server(), "keys", Provider::file(&file).unwrap());
        assert_eq!(keyring_check(&start.health), None);
        let corrected = async {
            says(&start.health, "mount the file that the keyring was created with").await;
            assert_eq!(keyring_check(&start.health), Some(false), "an alert can see it");
            fs::remove_file(&file).unwrap();
            says(&start.health, "cannot be read").await;
            says(&start.health, "mount the file that the keyring was created with").await;
            fs::write(&file, RIGHT).unwrap();
        };
        let (opened, ()) = tokio::join!(start.open_keyring(&mut store, Some(&file)), corrected);
        assert!(opened.is_ok());
        assert_eq!(keyring_check(&start.health), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_does_not_persist_ends_with_the_error() {
        let start = start(false);
        let wrong = Provider::File(Kek::new(&WRONG).unwrap());
        let mut store = KeyringStore::new(api_server(), "keys", wrong);
        let error = start.open_keyring(&mut store, None).await.err().unwrap();
        assert!(matches!(error, KeyringError::FileWrong { .. }), "{error}");
        assert_eq!(keyring_check(&start.health), None);
    }
}
