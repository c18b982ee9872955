//! What a Service is in a cluster: one address in front of several operators.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use kube::{Client, Config, client::Body};
use managed_secrets::webhook::{Stats, certificates::Reached};
use testkit::poll;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Premises;
use crate::integration::operator::{PATIENCE, Setup};

/// One address, and connections to each backend in turn.
pub(in crate::integration) struct Balancer {
    /// Where it is.
    pub(in crate::integration) url: String,
    backends: Arc<Mutex<Vec<SocketAddr>>>,
    /// Cancelled to end the connections of now, of which `open` knows.
    cut: Arc<Mutex<CancellationToken>>,
    open: TaskTracker,
    task: JoinHandle<()>,
}

impl Balancer {
    /// With no backend yet.
    pub(in crate::integration) fn start() -> Self {
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
                let mut backends = known.lock().unwrap().clone();
                let first = next.fetch_add(1, SeqCst) % backends.len().max(1);
                backends.rotate_left(first);
                let cut = cuts.lock().unwrap().clone();
                tasks.spawn(join(client, backends, cut));
            }
        });
        Self { url, backends, cut, open, task }
    }

    /// An operator behind this address, once it is [added](Self::add), and what its webhooks count.
    pub(super) fn replica(&self, premises: &Premises) -> (Setup, SocketAddr, Arc<Stats>) {
        let mut setup = premises.setup();
        let webhooks = setup.webhooks.as_mut().unwrap();
        webhooks.certificates.reached = Reached::Url { url: self.url.clone(), host: "127.0.0.1".to_owned() };
        let (address, stats) = (webhooks.port.address().unwrap(), Arc::clone(&webhooks.stats));
        (setup, address, stats)
    }

    /// Adds a backend. The API server keeps connections for long: new ones are made, that go to all backends.
    pub(super) async fn add(&self, backend: SocketAddr) {
        self.backends.lock().unwrap().push(backend);
        self.cut().await;
    }

    /// Sends new connections to these backends, and leaves those of now alone.
    pub(in crate::integration) fn send_to(&self, backends: &[SocketAddr]) {
        *self.backends.lock().unwrap() = backends.to_vec();
    }

    /// This backend, and no other from now on.
    pub(super) async fn only(&self, backend: SocketAddr) {
        *self.backends.lock().unwrap() = vec![backend];
        self.cut().await;
    }

    /// Ends all connections, while nothing is sent on them.
    pub(super) async fn cut(&self) {
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

/// Joins a client to the first of these backends whose port is open.
async fn join(mut client: TcpStream, backends: Vec<SocketAddr>, cut: CancellationToken) {
    let mut opened = None;
    for backend in backends {
        opened = TcpStream::connect(backend).await.ok();
        if opened.is_some() {
            break;
        }
    }
    let Some(mut server) = opened else { return };
    if cut.run_until_cancelled(copy_bidirectional(&mut client, &mut server)).await.is_none() {
        // Until the client has taken note: it sends nothing more.
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    }
}

/// Waits until somebody answers over TLS.
pub(super) async fn answers(address: SocketAddr) {
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
