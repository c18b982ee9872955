//! The value API: reads a value by the secret's name or id.
//!
//! ```text
//!  caller ──▶ API server (aggregator) ──client certificate──▶ ┐
//!  caller ──────────────bearer token────────────────────────▶ ┴ server ▶ caller ──▶ read ──▶ answer
//!                                                              path     who, and   record    JSON, never
//!                                                             (pure)   what they   (live)    stored
//!                                                                      may do
//! ```
//!
//! The value stays encrypted in etcd, and is opened for one answer. Two ways lead here. The API server sends requests for
//! the group `values.managedsecrets.dev` (an `APIService`), after it has authenticated the caller. Or a caller connects
//! directly, with a token of the audience `managedsecrets.dev`, which the API server itself refuses. In both cases the
//! permission is checked here, for the name or id exactly as the request gives it, before anything is read: so a caller
//! without permission cannot tell a missing secret from another one.
//!
//! While the API server cannot discover a registered group, it deletes no namespace. So discovery needs neither a key nor a
//! certificate, and it is served before the keyring is opened: a wrong configuration breaks reads, not namespaces.

mod answer;
mod caller;
mod documents;
mod front_proxy;
mod pace;
mod path;
mod read;
mod server;

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use kube::Client;
use managed_secrets_api::{ManagedSecretSpec, ManagedSecretStatus};
use managed_secrets_crypto::Keyring;
use managed_secrets_engine::{
    health::{Health, Probe},
    stats::Durations,
    watch::Watcher,
};
use parking_lot::Mutex;

pub(crate) use self::{answer::RESULTS, caller::DOORS, front_proxy::WATCH};
use self::{
    caller::Doors,
    front_proxy::Followed,
    pace::{Pace, Places},
    server::{Gate, Server},
};
use crate::{access::Reviewer, webhook::Guest};

/// Options of the value API.
pub struct Options {
    /// Limits of requests.
    pub limits: Limits,
    /// Counters.
    pub stats: Arc<Stats>,
}

/// Limits of requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests for a value that are answered at once through one door, of all callers. Each costs the API server one
    /// request. The caller is known before a request counts.
    pub at_once: usize,
    /// The same of one caller, so that there are always places for others.
    pub at_once_each: usize,
    /// Requests of one caller in a second.
    pub rate: u32,
    /// Requests that a caller may send at once after a pause.
    pub burst: u32,
    /// Connections of API servers that stay open between requests. Others end after their answer, so that there are always
    /// connections for the webhooks.
    pub kept: usize,
    /// The same of callers with a permission that connect themselves.
    pub kept_direct: usize,
    /// Seconds from a request to its answer.
    pub seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { at_once: 64, at_once_each: 16, rate: 50, burst: 200, kept: 96, kept_direct: 32, seconds: 10 }
    }
}

/// How many requests there were, since the process began.
#[derive(Debug)]
pub struct Stats {
    /// How long answers took, by `door` and `result`.
    pub durations: Durations<2>,
}

impl Default for Stats {
    fn default() -> Self {
        // A read is one request to the API server: some milliseconds.
        Self { durations: Durations::new(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0]) }
    }
}

/// What the value API needs from the rest of the operator.
pub trait Operator: Send + Sync + 'static {
    /// Whether the operator serves the namespace.
    fn serves(&self, namespace: &str) -> bool;

    /// Whether the cache knows the namespace. Until then, it could miss the current one of two records.
    fn knows(&self, namespace: &str) -> bool;

    /// Returns the keyring as last read.
    fn keyring(&self) -> Arc<Keyring>;

    /// Reads the keyring again, unless it was just read: another replica may have added a key.
    fn look_again(&self) -> BoxFuture<'_, ()>;

    /// Returns the names of the Secrets that are labelled and named as records with this id, as far as the cache knows.
    fn records(&self, namespace: &str, id: &str) -> Vec<String>;

    /// Returns a ManagedSecret by its `metadata.name`, as far as the cache knows.
    fn object(&self, namespace: &str, name: &str) -> Option<Object>;
}

/// What the cache knows of a ManagedSecret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Object {
    /// Its uid.
    pub uid: String,
    /// `status.id`.
    pub id: Option<String>,
    /// `status.version`.
    pub version: Option<i64>,
    /// The version that is delivered.
    pub delivers: Delivers,
}

/// Which version of its value a secret delivers, and a request that names none gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivers {
    /// The newest of the record.
    Newest,
    /// This one, which may be another than the newest.
    Version(u64),
    /// Its ManagedSecret was deleted and no longer says it. A retained Secret may hold any of the versions.
    Unsaid,
}

impl Object {
    /// The part of a ManagedSecret that matters here.
    #[must_use]
    pub fn new(uid: String, spec: &ManagedSecretSpec, status: &ManagedSecretStatus) -> Self {
        let of_status = |version: Option<i64>| version.and_then(|version| version.try_into().ok());
        let version = match spec.pinned() {
            // No Secret has another one.
            Some(pinned) if status.target.is_none() => Some(pinned),
            // While a version is named, the record has a newer one before the status says that it is not delivered.
            Some(_) => of_status(status.delivered()),
            None => of_status(status.delivered),
        };
        let delivers = version.map_or(Delivers::Newest, Delivers::Version);
        Self { uid, id: status.id.clone(), version: status.version, delivers }
    }
}

/// The value API before and after the rest of the operator has started.
pub struct Values {
    /// What answers on the port of the webhooks.
    pub guest: Guest,
    operator: Arc<OnceLock<Arc<dyn Operator>>>,
}

impl Values {
    /// Starts to give values.
    pub fn connect(&self, operator: Arc<dyn Operator>) {
        // An operator starts once in a process.
        let _ = self.operator.set(operator);
    }
}

/// Starts to follow the front proxy, and returns the routes. Until [`Values::connect`], values are unavailable.
#[must_use]
pub fn start(options: Options, client: &Client, watcher: &Watcher, health: &Health) -> Values {
    let front_proxy = Arc::<Followed>::default();
    front_proxy.watch(watcher);
    let followed = Arc::clone(&front_proxy);
    health.check("front proxy", &[Probe::Ready], move || followed.verdict());
    build(options, client, front_proxy)
}

fn build(options: Options, client: &Client, front_proxy: Arc<Followed>) -> Values {
    let Options { limits, stats } = options;
    let operator = Arc::<OnceLock<_>>::default();
    let server = Server {
        client: client.clone(),
        doors: Doors { front_proxy, reviewer: Reviewer::new(client.clone()) },
        operator: Arc::clone(&operator),
        pace: Mutex::new(Pace::new(limits.rate, limits.burst)),
        aggregated: Gate::new(limits.at_once, limits.kept),
        direct: Gate::new(limits.at_once, limits.kept_direct),
        places: Places::new(limits.at_once_each),
        limits,
        stats,
    };
    Values { guest: Guest { owns: path::is_ours, router: server::router(Arc::new(server)) }, operator }
}
