//! Plaintext in a manifest is sealed before it is stored.
//!
//! ```text
//!  API server ──TLS──▶ server ──▶ http ──▶ review ──▶ seal (pure) ──▶ JSON patch
//!      ▲          connections   path, limits  decode     ▲      ▲
//!      │ caBundle, path                                access  keyring
//!      └──────────── certificates ──▶ the leaf that `server` serves
//! ```
//!
//! Two webhooks. The first replaces a plaintext `spec.value`, and its copy in kubectl's annotation, by sealed text; the
//! second only ever warns. Neither has a side effect, so dry runs work; both may be down: the CRD's own rule refuses what
//! was not sealed, and the API server skips what cannot be reached.
//!
//! The sealing webhook must not tell anyone whether a guess is the stored value. Stored text is opened only for a caller
//! who may read the value anyway; for all others it is not touched, so neither answers nor response times depend on it.
//!
//! What comes in here was written by others, and may be plaintext: nothing of a body is ever logged, echoed or kept.

pub mod access;
pub mod certificates;
pub mod http;
pub mod review;
pub mod seal;
pub mod server;
pub mod warn;

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::Client;
use managed_secrets_crypto::Keyring;
use managed_secrets_engine::{stats::Counter, watch::Watcher};

use self::{
    access::Access,
    certificates::{Rotator, Served},
    http::Webhooks,
    server::{Limits, Port},
};

/// How the webhooks are served.
pub struct Options {
    /// Where the API server reaches us; bound already, so that a port that is taken is an error of the start.
    pub port: Port,
    /// Certificates, and how the API server is told of them.
    pub certificates: certificates::Options,
    /// What a connection may cost.
    pub limits: Limits,
    /// Keep stored text of cluster scope.
    pub allow_cluster_scope: bool,
    /// What the webhooks count.
    pub stats: Arc<Stats>,
}

/// How often the webhooks were called, since the process began: for tests now, and for metrics. Nothing decides by it.
#[derive(Debug, Default)]
pub struct Stats {
    /// Calls of the sealing webhook.
    pub seal: Counter,
    /// Calls of the warning webhook.
    pub warn: Counter,
}

/// What the webhooks ask of the rest of the operator.
pub trait Operator: Send + Sync + 'static {
    /// The keyring as it was last read.
    fn keyring(&self) -> Arc<Keyring>;

    /// Reads the keyring again, unless that was done a moment ago: another replica may have added a key.
    fn look_again(&self) -> BoxFuture<'_, ()>;

    /// What holds the name `name`, or wants it too, other than `object`; as `ManagedSecret "db"`.
    fn holder_of_name(&self, namespace: &str, name: &str, object: &str) -> Option<String>;

    /// What a delivered Secret belongs to, other than `object`; likewise.
    fn holder_of_target(&self, namespace: &str, secret: &str, object: &str) -> Option<String>;

    /// Whether a Secret that a value may be taken from is known not to exist.
    fn lacks_source(&self, namespace: &str, secret: &str) -> bool;
}

/// Starts the webhooks as tasks of the watcher's supervisor; they end with its `shutdown`.
pub fn start(options: Options, client: &Client, watcher: &Watcher, operator: Arc<dyn Operator>) {
    let Options { port, certificates, limits, allow_cluster_scope, stats } = options;
    let served = Arc::new(Served::default());
    let rotator = Rotator::new(client.clone(), certificates, Arc::clone(&served));
    let moved = rotator.watch(watcher);
    let (spawner, shutdown) = (&watcher.spawner, &watcher.shutdown);
    spawner.spawn("webhook certificates", shutdown.clone(), rotator.keep(moved, shutdown.clone()));
    let webhooks = Webhooks {
        served: Arc::clone(&served),
        access: Access::new(client.clone()),
        operator,
        allow_cluster_scope,
        stats,
    };
    let router = http::router(Arc::new(webhooks), limits);
    spawner.spawn("webhooks", shutdown.clone(), server::serve(port, served, router, limits, shutdown.clone()));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod testing;
