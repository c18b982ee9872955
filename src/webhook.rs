//! Seals the plaintext in a manifest before the API server stores it.
//!
//! ```text
//!  API server ──TLS──▶ server ──▶ http ──▶ review ──▶ seal (pure) ──▶ JSON patch
//!      ▲          connections   path, limits  decode     ▲      ▲
//!      │ caBundle, path                                access  keyring
//!      └──────────── certificates ──▶ the leaf that `server` serves
//! ```
//!
//! There are two webhooks. The first replaces a plaintext `spec.value`, and its copy in kubectl's annotation, with a sealed
//! value. The second only warns. Neither has a side effect, so dry runs work. Both may be down: the CRD's own rule refuses
//! a plaintext value, and the API server skips a webhook that it cannot reach.
//!
//! The sealing webhook must not tell a caller whether a guess equals the stored value. It opens the stored value only for a
//! caller who may read that value; for other callers neither answers nor response times depend on it.
//!
//! A request body comes from users and may contain plaintext: this module never logs, repeats or stores any of it.

pub mod access;
mod any_client;
pub mod certificates;
pub mod http;
mod review;
mod seal;
pub mod server;
mod warn;

use std::sync::{Arc, OnceLock};

use ::http::StatusCode;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use managed_secrets_crypto::Keyring;
use managed_secrets_engine::{
    health::{Health, Probe},
    stats::{Counter, Durations},
    watch::Watcher,
};
use tower::ServiceExt as _;

use self::{
    access::Access,
    certificates::{Rotator, Served},
    http::Webhooks,
    server::{ClientCertificates, Limits},
};
use crate::port::Port;

/// Options of the webhooks.
pub struct Options {
    /// The port for the API server. It is already bound, so a port that is in use is an error at the start.
    pub port: Port,
    /// Options of the certificates and the webhook configurations.
    pub certificates: certificates::Options,
    /// Limits of connections and requests.
    pub limits: Limits,
    /// Whether a stored value of cluster scope may be kept.
    pub allow_cluster_scope: bool,
    /// Counters of the webhooks.
    pub stats: Arc<Stats>,
}

/// How often the webhooks were called, since the process began: for tests and for metrics. Nothing decides by it.
#[derive(Debug)]
pub struct Stats {
    /// Calls of the sealing webhook.
    pub seal: Counter,
    /// Calls of the warning webhook.
    pub warn: Counter,
    /// How long answers took, by `webhook` and `verdict` (see [`http::VERDICTS`]).
    pub durations: Durations<2>,
}

impl Default for Stats {
    fn default() -> Self {
        // An answer takes a millisecond or two; the API server waits for at most five seconds.
        let durations = Durations::new(&[0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 5.0]);
        for webhook in [http::SEAL, http::WARN] {
            for verdict in http::VERDICTS {
                durations.begin([("webhook", webhook), ("verdict", verdict)]);
            }
        }
        Self { seal: Counter::default(), warn: Counter::default(), durations }
    }
}

/// What the webhooks need from the rest of the operator.
pub trait Operator: Send + Sync + 'static {
    /// Returns the keyring as last read.
    fn keyring(&self) -> Arc<Keyring>;

    /// Reads the keyring again, unless it was just read: another replica may have added a key.
    fn look_again(&self) -> BoxFuture<'_, ()>;

    /// Returns another object than `object` that holds or wants the name `name`, written as `ManagedSecret "db"`.
    fn holder_of_name(&self, namespace: &str, name: &str, object: &str) -> Option<String>;

    /// Returns another object than `object` that a delivered Secret belongs to, written in the same way.
    fn holder_of_target(&self, namespace: &str, secret: &str, object: &str) -> Option<String>;

    /// Why no new value may be sealed, if so.
    fn refuses_new(&self) -> Option<String> {
        None
    }

    /// Whether the operator restarts workloads.
    fn restarts(&self) -> bool;

    /// Whether the source Secret is known not to exist.
    fn lacks_source(&self, namespace: &str, secret: &str) -> bool;
}

/// A port that is served, and what answers there.
pub struct Listener {
    /// The certificate and the secret paths.
    pub served: Arc<Served>,
    client: Client,
    limits: Limits,
    allow_cluster_scope: bool,
    stats: Arc<Stats>,
    webhooks: Arc<OnceLock<Router>>,
}

/// What else answers on the port: it asks clients for their certificate.
#[derive(Clone)]
pub struct Guest {
    /// Whether a path belongs to it.
    pub owns: fn(&str) -> bool,
    /// Its routes.
    pub router: Router,
}

/// Serves the port, as tasks of the watcher's supervisor that end with its `shutdown`. The webhooks answer after
/// [`Listener::connect`].
pub fn listen(options: Options, client: &Client, watcher: &Watcher, guest: Option<Guest>, health: &Health) -> Listener {
    let Options { port, certificates, limits, allow_cluster_scope, stats } = options;
    let served = Arc::new(Served::default());
    let certified = Arc::clone(&served);
    health.check("webhook certificate", &[Probe::Ready], move || certified.verdict(Timestamp::now()));
    let rotator = Rotator::new(client.clone(), certificates, Arc::clone(&served));
    let moved = rotator.watch(watcher);
    let (spawner, shutdown) = (&watcher.spawner, &watcher.shutdown);
    spawner.spawn("webhook certificates", shutdown.clone(), rotator.keep(moved, shutdown.clone()));
    let webhooks = Arc::<OnceLock<Router>>::default();
    let clients = if guest.is_some() { ClientCertificates::Asked } else { ClientCertificates::Ignored };
    let router = Router::new().fallback(dispatch).with_state(Parts { guest, webhooks: Arc::clone(&webhooks) });
    spawner.spawn(
        "webhooks",
        shutdown.clone(),
        server::serve(port, Arc::clone(&served), clients, router, limits, shutdown.clone()),
    );
    Listener { served, client: client.clone(), limits, allow_cluster_scope, stats, webhooks }
}

impl Listener {
    /// Lets the webhooks answer.
    pub fn connect(&self, operator: Arc<dyn Operator>) {
        let webhooks = Webhooks {
            served: Arc::clone(&self.served),
            access: Access::new(self.client.clone()),
            operator,
            allow_cluster_scope: self.allow_cluster_scope,
            stats: Arc::clone(&self.stats),
        };
        // An operator starts once in a process.
        let _ = self.webhooks.set(http::router(Arc::new(webhooks), self.limits));
    }
}

/// What answers on the port.
#[derive(Clone)]
struct Parts {
    guest: Option<Guest>,
    webhooks: Arc<OnceLock<Router>>,
}

async fn dispatch(State(parts): State<Parts>, request: Request) -> Response {
    let router = match parts.guest {
        Some(guest) if (guest.owns)(request.uri().path()) => Some(guest.router),
        _ => parts.webhooks.get().cloned(),
    };
    match router {
        Some(router) => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod testing;
