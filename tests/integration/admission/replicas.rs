//! Two operators serve the webhooks at once, while the sealing key is replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    client::Body,
};
use managed_secrets::{
    admission::{Stats, certificates::Reached},
    api::{ManagedSecret, keys},
    crypto::{
        Kek, KeyId, Keyring,
        keyring::{Document, KekError, Purpose, State, Wrapped},
        mss1::Sealed,
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Premises;
use crate::{
    harness::poll,
    integration::{
        installation::RESTORER,
        objects::version,
        operator::{PATIENCE, Setup},
    },
};

/// What a Service is in a cluster: one address, and connections to each backend in turn.
struct Balancer {
    url: String,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    /// Cancelled to end the connections of now, of which `open` knows.
    cut: Arc<Mutex<CancellationToken>>,
    open: TaskTracker,
    task: JoinHandle<()>,
}

impl Balancer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let backends = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let (cut, open) = (Arc::<Mutex<CancellationToken>>::default(), TaskTracker::new());
        let (known, next) = (Arc::clone(&backends), AtomicUsize::new(0));
        let (cuts, tasks) = (Arc::clone(&cut), open.clone());
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let backend = {
                    let known = known.lock().unwrap();
                    known[next.fetch_add(1, SeqCst) % known.len()]
                };
                let cut = cuts.lock().unwrap().clone();
                tasks.spawn(join(client, backend, cut));
            }
        });
        Self { url, backends, cut, open, task }
    }

    /// An operator behind this address, once it is [added](Self::add), and what its webhooks count.
    fn replica(&self, premises: &Premises) -> (Setup, SocketAddr, Arc<Stats>) {
        let mut setup = premises.setup();
        let webhooks = setup.webhooks.as_mut().unwrap();
        webhooks.certificates.reached = Reached::Url { url: self.url.clone(), host: "127.0.0.1".to_owned() };
        let (address, stats) = (webhooks.listener.local_addr().unwrap(), Arc::clone(&webhooks.stats));
        (setup, address, stats)
    }

    /// Adds a backend. The API server keeps connections for long: they are ended, while nothing is sent on them, so that
    /// new ones go to all backends.
    async fn add(&self, backend: SocketAddr) {
        self.backends.lock().unwrap().push(backend);
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
        self.open.close();
        self.open.wait().await;
        self.open.reopen();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(mut client: TcpStream, backend: SocketAddr, cut: CancellationToken) {
    let Ok(mut server) = TcpStream::connect(backend).await else { return };
    if cut.run_until_cancelled(copy_bidirectional(&mut client, &mut server)).await.is_none() {
        // Until the client has taken note: it sends nothing more.
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    }
}

/// Waits until somebody answers over TLS.
async fn answers(address: SocketAddr) {
    let mut config = Config::new(format!("https://{address}").parse().unwrap());
    config.accept_invalid_certs = true;
    let client = Client::try_from(config).unwrap();
    poll("the replica to answer", PATIENCE, || async {
        let request = http::Request::get("/").body(Body::empty()).unwrap();
        Ok(client.send(request).await.ok())
    })
    .await
    .unwrap();
}

/// Adds a new sealing key to the keyring, as a restorer; those that were there open from now on, and seal no more.
pub(crate) async fn replace_the_sealing_key(premises: &Premises) {
    let client = super::control_plane().await.access().client_as(RESTORER, &["system:masters"]).await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &premises.operator_namespace);
    let data = async |name: &str, key: &str| secrets.get(name).await.unwrap().data.unwrap()[key].0.clone();
    let content = data(keys::KEYRING_NAME, keys::KEYRING_DATA_KEY).await;
    let mut document: Document = serde_json::from_slice(&content).unwrap();
    let Wrapped { provider, key_id: id, .. } = document.entries[0].wrapped.clone();
    let kek = Kek::new(&data(&format!("{}{id}", keys::KEK_PREFIX), keys::KEK_DATA_KEY).await).unwrap();
    let wrap = |bytes: &[u8]| {
        let ciphertext = kek.wrap(bytes)?;
        Ok::<_, KekError>(Wrapped { provider: provider.clone(), key_id: id.clone(), ciphertext })
    };
    let made = Keyring::generate_entries(jiff::Timestamp::now(), wrap).unwrap();
    for entry in document.entries.iter_mut().filter(|entry| entry.purpose == Purpose::Sealing) {
        entry.state = State::OpenOnly;
    }
    document.entries.extend(made.entries.into_iter().filter(|entry| entry.purpose == Purpose::Sealing));
    let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
    let patch = Patch::Merge(json!({"data": {keys::KEYRING_DATA_KEY: content}}));
    secrets.patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
}

/// The key that an object's value is sealed for.
fn key(object: &ManagedSecret) -> KeyId {
    Sealed::parse(&object.spec.value.as_ref().unwrap().0).unwrap().key_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_sealing_key_is_replaced_every_value_is_sealed_and_opens_and_old_ones_stay() {
    const AT_ONCE: usize = 6;
    let premises = Premises::new("rekey").await;
    let site = &premises.site;
    let apply = async |name: String| {
        // Panics when it is refused: whoever answers must have a key.
        site.apply(&name, json!({"name": name.to_uppercase().replace('-', "_"), "value": format!("value of {name}")}))
            .await
    };
    let balancer = Balancer::start();
    let (setup, address, first) = balancer.replica(&premises);
    balancer.add(address).await;
    let first_operator = premises.start(setup).await;
    let olds: Vec<String> = (0..AT_ONCE).map(|number| format!("old-{number}")).collect();
    join_all(olds.iter().cloned().map(apply)).await;
    let old_objects = join_all(olds.iter().map(|name| site.in_step(name))).await;
    let old_key = key(&old_objects[0]);

    // The first has read the keyring, and knows nothing of the new key; the second starts with it.
    replace_the_sealing_key(&premises).await;
    let (setup, address, second) = balancer.replica(&premises);
    let second_operator = setup.start_with(premises.config.clone());
    answers(address).await;
    balancer.add(address).await;
    let (called, began) = (first.seal.get(), Instant::now());
    let mut names = Vec::new();
    loop {
        let new: Vec<String> = (names.len()..names.len() + AT_ONCE).map(|number| format!("new-{number}")).collect();
        names.extend(new.clone());
        let applied = join_all(new.into_iter().map(apply)).await;
        let replaced = applied.iter().all(|object| key(object) != old_key);
        let both = first.seal.get() > called && second.seal.get() > 0;
        if replaced && both {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "both seal: {both}; all under the new key: {replaced}");
    }
    for name in &names {
        site.delivers(name, "value", &format!("value of {name}")).await;
        site.served(name).await;
    }

    // Sealed under the old key, applied again unchanged, whoever answers: nothing moves.
    let calls = first.seal.get() + second.seal.get();
    for _ in 0..2 {
        let again = join_all(olds.iter().cloned().map(apply)).await;
        for (object, before) in again.iter().zip(&old_objects) {
            assert_eq!(key(object), old_key);
            assert_eq!((version(object), object.metadata.generation), (version(before), before.metadata.generation));
        }
    }
    let calls = first.seal.get() + second.seal.get() - calls;
    assert!(usize::try_from(calls).unwrap() >= 2 * AT_ONCE, "{calls} calls: the webhook was asked");
    first_operator.stop().await;
    second_operator.stop().await;
}
