//! The operator in the tests: run in the test's own process, as its service account and under its policies, with a tap
//! on every request.
//!
//! [`Running`] is one operator for one namespace (or more). [`Tap`] sees each request before it is sent and after it is
//! answered: it records, and it does what a [`Fault`] says. Whatever a tap does, the API server behind it is real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, Config, client::Body};
use managed_secrets::{
    admin::metrics::Metrics,
    controller,
    keyring::{OverRecords, providers::ProviderOptions, sealing, seeds},
    run::{Options, RunError},
    values, webhook,
};
use managed_secrets_api::keys;
use managed_secrets_crypto::{provider::Provider, recovery::Recipient};
use managed_secrets_engine::{
    client::{self, Answer, Tap as EngineTap, Wire},
    health::Health,
    lease,
    limit::Limiter,
    run,
    stats::Stats,
    watch::Timing,
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::{bytes::Bytes, sync::CancellationToken};
use tower::BoxError;

use super::installation::{self, OPERATOR_NAMESPACE};

/// What a tap does to a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    Pass,
    /// The operator dies before the request is sent.
    DieBefore,
    /// The request is sent and answered, and the operator dies before it reads the answer.
    DieAfter,
    /// The server is not asked; this is the answer.
    Answer {
        /// HTTP status.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
        /// The body.
        body: String,
    },
    /// No answer, ever.
    Hang,
    /// The head of a good answer, and then nothing.
    Silence,
    /// The request is sent and answered, and the answer arrives once this is cancelled.
    Late(CancellationToken),
    /// The connection breaks before the request is sent.
    Cut,
    /// The request is sent and carried out, and the connection breaks before the answer.
    Lose,
}

/// One request as a tap saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// HTTP method.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// HTTP status of the answer; 0 if there was none.
    pub(crate) code: u16,
    /// When it was sent.
    pub(crate) at: Instant,
}

impl Seen {
    /// Whether it only asks what a write would do.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.path.contains("dryRun=")
    }

    /// Whether it is a patch that is carried out.
    pub(crate) fn is_write(&self) -> bool {
        self.method == "PATCH" && !self.is_dry_run()
    }
}

type Plan = dyn Fn(usize, &Request<Body>) -> Fault + Send + Sync;

/// Sees every request of one client.
pub(crate) struct Tap {
    plan: Box<Plan>,
    count: AtomicUsize,
    dead: Mutex<bool>,
    died: Notify,
    seen: Mutex<Vec<Seen>>,
    open: Mutex<CancellationToken>,
    /// How long each event is on its way.
    events: Duration,
}

impl Tap {
    /// A tap that asks `plan` what to do with the n-th request (from 0; events are neither counted nor touched).
    pub(crate) fn new(plan: impl Fn(usize, &Request<Body>) -> Fault + Send + Sync + 'static) -> Arc<Self> {
        Self::with(plan, Duration::ZERO)
    }

    /// A tap on whose line each event is that long on its way.
    pub(crate) fn slow_events(delay: Duration) -> Arc<Self> {
        Self::with(|_, _| Fault::Pass, delay)
    }

    fn with(plan: impl Fn(usize, &Request<Body>) -> Fault + Send + Sync + 'static, events: Duration) -> Arc<Self> {
        Arc::new(Self {
            events,
            plan: Box::new(plan),
            count: AtomicUsize::new(0),
            dead: Mutex::new(false),
            died: Notify::new(),
            seen: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// A tap that only records.
    pub(crate) fn recording() -> Arc<Self> {
        Self::new(|_, _| Fault::Pass)
    }

    /// Requests so far, in the order in which they were sent.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Whether a fault has ended the operator.
    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.lock().unwrap()
    }

    /// Tries to write an object whose path contains this. A dry run and the write that follows it are one try.
    pub(crate) fn tries(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.method == "PATCH" && seen.path.contains(path));
        let after_dry_run: Vec<bool> =
            std::iter::once(false).chain(seen.iter().map(|seen| seen.is_dry_run() && seen.code == 200)).collect();
        let mut after_dry_run = after_dry_run.into_iter();
        seen.retain(|seen| !after_dry_run.next().unwrap_or_default() || seen.is_dry_run());
        seen
    }

    fn die(&self) {
        *self.dead.lock().unwrap() = true;
        self.died.notify_waiters();
        self.died.notify_one();
    }

    /// Waits until a fault has ended the operator.
    pub(crate) async fn died(&self) {
        while !self.is_dead() {
            self.died.notified().await;
        }
    }

    /// Breaks every answer that is still coming in.
    pub(crate) fn cut_streams(&self) {
        std::mem::take(&mut *self.open.lock().unwrap()).cancel();
    }

    fn note(&self, method: &str, path: &str) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(Seen { method: method.to_owned(), path: path.to_owned(), code: 0, at: Instant::now() });
        seen.len() - 1
    }
}

/// The engine's side of a tap.
pub(crate) struct Shared(pub(crate) Arc<Tap>);

impl EngineTap for Shared {
    fn exchange(&self, request: Request<Body>, wire: Wire) -> BoxFuture<'static, Result<Answer, BoxError>> {
        let tap = Arc::clone(&self.0);
        Box::pin(async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            if path.contains("/events") {
                tokio::time::sleep(tap.events).await;
                return wire.send(request).await;
            }
            if tap.is_dead() {
                return std::future::pending().await;
            }
            let number = tap.count.fetch_add(1, Ordering::SeqCst);
            let fault = (tap.plan)(number, &request);
            let entry = tap.note(request.method().as_str(), &path);
            match fault {
                Fault::Pass => {
                    let answer = wire.send(request).await?;
                    tap.seen.lock().unwrap()[entry].code = answer.status().as_u16();
                    let open = tap.open.lock().unwrap().clone();
                    Ok(answer.map(|body| until_cut(body, open)))
                }
                Fault::DieBefore => {
                    tap.die();
                    std::future::pending().await
                }
                Fault::DieAfter => {
                    let answer = wire.send(request).await?;
                    tap.seen.lock().unwrap()[entry].code = answer.status().as_u16();
                    tap.die();
                    std::future::pending().await
                }
                Fault::Answer { code, retry_after, body } => {
                    let mut answer = Response::builder().status(StatusCode::from_u16(code)?);
                    if let Some(seconds) = retry_after {
                        answer = answer.header("Retry-After", seconds.to_string());
                    }
                    let type_ = if body.starts_with('<') { "text/html" } else { "application/json" };
                    let body = Full::new(Bytes::from(body)).map_err(BoxError::from).boxed_unsync();
                    Ok(answer.header("Content-Type", type_).body(body)?)
                }
                Fault::Late(until) => {
                    let answer = wire.send(request).await?;
                    tap.seen.lock().unwrap()[entry].code = answer.status().as_u16();
                    until.cancelled().await;
                    Ok(answer)
                }
                Fault::Hang => std::future::pending().await,
                Fault::Silence => Ok(Response::new(StreamBody::new(stream::pending()).boxed_unsync())),
                Fault::Cut => Err(CUT.into()),
                Fault::Lose => {
                    let answer = wire.send(request).await?;
                    tap.seen.lock().unwrap()[entry].code = answer.status().as_u16();
                    answer.into_body().collect().await?;
                    Err(CUT.into())
                }
            }
        })
    }
}

const CUT: &str = "the connection was cut";

/// A body that breaks when `cut` is cancelled.
fn until_cut(body: UnsyncBoxBody<Bytes, BoxError>, cut: CancellationToken) -> UnsyncBoxBody<Bytes, BoxError> {
    let frames = stream::unfold((BodyStream::new(body), cut), |(mut body, cut)| async move {
        match cut.run_until_cancelled(body.next()).await {
            Some(frame) => Some((frame?, (body, cut))),
            None => Some((Err(CUT.into()), (body, CancellationToken::new()))),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// How an operator is run in a test.
pub(crate) struct Setup {
    /// Namespaces to serve.
    pub(crate) namespaces: Vec<String>,
    /// The operator's own namespace.
    pub(crate) operator_namespace: String,
    /// On calls.
    pub(crate) calls: Option<Arc<Tap>>,
    /// On lists and watches.
    pub(crate) watches: Option<Arc<Tap>>,
    /// The watches' times.
    pub(crate) timing: Timing,
    /// Whether a missing keyring is made over records.
    pub(crate) over_records: OverRecords,
    /// Who holds the KEKs.
    pub(crate) providers: ProviderOptions,
    /// The recovery keys.
    pub(crate) recovery: Vec<Recipient>,
    /// Accept cluster scope.
    pub(crate) allow_cluster_scope: bool,
    /// Restart workloads.
    pub(crate) restarts: bool,
    /// When seeds are replaced.
    pub(crate) seeds: seeds::Timing,
    /// When sealing keys are replaced and retired.
    pub(crate) sealing: sealing::Timing,
    /// Workers.
    pub(crate) workers: usize,
    /// The longest that a reconcile may take.
    pub(crate) deadline: Duration,
    /// The clients' times; the taps come from above.
    pub(crate) clients: client::Options,
    /// The webhooks; none unless a test asks for them.
    pub(crate) webhooks: Option<webhook::Options>,
    /// The value API; none unless a test asks for it. It needs the port of the webhooks.
    pub(crate) values: Option<values::Options>,
    /// The leader election; none unless a test asks for it.
    pub(crate) election: Option<lease::Options>,
}

impl Setup {
    /// An operator for one namespace.
    pub(crate) fn of(namespace: &str) -> Self {
        Self {
            namespaces: vec![namespace.to_owned()],
            operator_namespace: OPERATOR_NAMESPACE.to_owned(),
            calls: None,
            watches: None,
            timing: Timing::default(),
            over_records: OverRecords::Refuse,
            providers: Provider::Local.into(),
            recovery: Vec::new(),
            allow_cluster_scope: false,
            restarts: false,
            seeds: seeds::Timing::default(),
            sealing: sealing::Timing::default(),
            workers: 4,
            deadline: run::Options::default().deadline,
            clients: client::Options::default(),
            webhooks: None,
            values: None,
            election: None,
        }
    }

    /// With a tap on calls.
    pub(crate) fn calls(mut self, tap: &Arc<Tap>) -> Self {
        self.calls = Some(Arc::clone(tap));
        self
    }

    /// With a tap on lists and watches.
    pub(crate) fn watches(mut self, tap: &Arc<Tap>) -> Self {
        self.watches = Some(Arc::clone(tap));
        self
    }

    /// Starts it, as the operator's service account.
    pub(crate) async fn start(self) -> Running {
        self.start_with(installation::operator_config().await)
    }

    /// Starts it with a configuration.
    pub(crate) fn start_with(self, config: Config) -> Running {
        let engine_tap = |tap: Option<Arc<Tap>>| tap.map(|tap| Arc::new(Shared(tap)) as Arc<dyn EngineTap>);
        let stats = Arc::<Stats>::default();
        let health = Arc::<Health>::default();
        let metrics = Arc::new(Metrics::new(Arc::clone(&health)));
        let options = Options {
            controller: controller::run::Options {
                namespaces: self.namespaces,
                operator_namespace: self.operator_namespace,
                allow_cluster_scope: self.allow_cluster_scope,
                restarts: self.restarts,
                seeds: self.seeds,
                sealing: self.sealing,
                workers: run::Options {
                    limiter: Arc::new(Limiter::new(self.workers)),
                    deadline: self.deadline,
                    ..run::Options::default()
                },
            },
            webhooks: self.webhooks,
            values: self.values,
            providers: self.providers,
            kek_file: None,
            over_records: self.over_records,
            recovery: self.recovery,
            clients: client::Options {
                call_tap: engine_tap(self.calls),
                watch_tap: engine_tap(self.watches),
                ..self.clients
            },
            timing: self.timing,
            stats: Arc::clone(&stats),
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            secure_metrics: None,
            election: self.election,
        };
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { Box::pin(managed_secrets::run::run(&config, options, stop)).await });
        Running { task, shutdown, stats, health, metrics }
    }
}

/// An operator that runs until it is dropped.
pub(crate) struct Running {
    task: JoinHandle<Result<(), RunError>>,
    shutdown: CancellationToken,
    stats: Arc<Stats>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

impl Running {
    /// Its metrics.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Its health.
    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Its counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Stops it as SIGTERM does, and waits for its end.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.task).await.unwrap().unwrap();
    }

    /// Ends it at once, as SIGKILL does.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Result<(), RunError> {
        (&mut self.task).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The longest that a test waits for anything that comes by itself: long, since a machine that runs other tests may take a
/// minute for what takes a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// The public key that values are sealed with, as the operator publishes it.
pub(crate) async fn public_key(client: &Client) -> managed_secrets_crypto::mss1::PublicKey {
    public_key_of(client, OPERATOR_NAMESPACE).await
}

/// The public key that the operator of this namespace publishes.
pub(crate) async fn public_key_of(client: &Client, namespace: &str) -> managed_secrets_crypto::mss1::PublicKey {
    use k8s_openapi::api::core::v1::ConfigMap;
    let maps = kube::Api::<ConfigMap>::namespaced(client.clone(), namespace);
    testkit::poll("the public key", PATIENCE, || async {
        let map = maps.get_opt(keys::PUBLIC_KEY_CONFIGMAP).await?;
        Ok(map
            .and_then(|map| map.data?.remove(keys::PUBLIC_KEY_DATA_KEY))
            .and_then(|json| managed_secrets_crypto::mss1::PublishedKey::parse(&json).ok()))
    })
    .await
    .unwrap()
    .key
    .clone()
}
