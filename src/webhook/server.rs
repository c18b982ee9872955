//! Serves TLS connections and limits what each one may cost.
//!
//! In: a port and the current certificate. Out: requests for the router. HTTP/1.1 only: the API server uses it for
//! webhooks (kubernetes/kubernetes#75791), and a connection carries one request at a time.
//!
//! A replica can be replaced without a lost request. The port opens when there is a certificate, so a probe of the port
//! tells whether the server answers requests. After the signal to stop, the server continues for a time, because API servers
//! and proxies learn of its end later: it accepts new connections, and closes each one after its next answer. A request that
//! still arrives shows that one of them has not learned it yet, so the time begins again, up to a limit.
//!
//! | | limit |
//! |---|---|
//! | connections at once | others wait in the kernel's queue |
//! | handshake, and the first request on a secret path | a few seconds, or the connection ends, but not while a request is answered; a limited number may stay for later use |
//! | a connection that has named a secret path | may idle longer than the API server's own 90 s, so that the server never closes a connection in use |
//! | a request, its body and its answer | each is limited; see [`Limits`] |
//! | an answer that the client does not read | the connection ends |

use std::{sync::Arc, time::Duration};

use axum::Router;
use http::{HeaderValue, header::CONNECTION};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceExt as _};
use tracing::{debug, error, info, warn};

use super::{any_client::AnyClient, certificates::Served, http::Proven};
use crate::port::Port;

/// Limits of connections and requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections that may stay although they have not named a secret path yet. The API server opens some connections that
    /// it uses later or never, and a request is lost if its connection ends at that moment.
    pub spare: usize,
    /// Requests processed at once; each may hold its body and the objects decoded from it.
    pub requests: usize,
    /// Bytes of a body. A review holds two objects. What can be large in one are its own annotations (at most 256 KiB, a limit of
    /// Kubernetes), those of its target (128 KiB) and its template (64 KiB); in JSON, text with escapes is longer.
    pub body: usize,
    /// Time for the handshake, and then for the first request on a secret path.
    pub handshake: Duration,
    /// Time from the head of a request to its answer; the API server waits 10 s.
    pub request: Duration,
    /// Time between requests of a connection.
    pub idle: Duration,
    /// Time from the signal to stop, and from the last request after it, until the server accepts no more connections; at
    /// most [`Limits::longest_drain`].
    pub drain: Duration,
}

impl Limits {
    /// The longest time from the signal to stop until the server accepts no more connections.
    #[must_use]
    pub fn longest_drain(&self) -> Duration {
        self.drain * u32::from(DRAINS)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            spare: 64,
            // Sealing takes a millisecond or two. A request can need ten times the memory of its body, and all requests
            // must fit into the pod's memory beside the operator's caches.
            requests: 4,
            body: 1536 * 1024,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(8),
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(DRAIN_SECONDS.into()),
        }
    }
}

/// The delay after a failed accept: a resource (such as file descriptors) is used up, and only time frees it.
const BREATHER: Duration = Duration::from_millis(200);
/// How long open connections may take to finish their requests.
const FINISH: Duration = Duration::from_secs(10);

/// Default of [`Limits::drain`] in seconds: kube-proxy and the API server usually learn within one or two seconds that an
/// endpoint ends. On nodes without free processor time it can take longer.
pub const DRAIN_SECONDS: u16 = 5;
/// The longest [`Limits::drain`] that `run` accepts, in seconds.
pub const MAX_DRAIN_SECONDS: u16 = 300;
/// How often requests can make the drain begin, with the first time.
pub const DRAINS: u16 = 4;
/// [`Limits::longest_drain`] in seconds, for the default.
pub const LONGEST_DRAIN_SECONDS: u16 = DRAIN_SECONDS * DRAINS;

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificates {
    /// No.
    Ignored,
    /// Yes. Any certificate is accepted, also none: [`Peer`] tells which one it was.
    Asked,
}

/// The certificates that a client showed, its own first. The client has the key of the first one; nothing else of them is
/// checked.
#[derive(Clone, Debug, Default)]
pub struct Peer(Arc<[CertificateDer<'static>]>);

impl Peer {
    /// Takes a copy of the certificates.
    #[must_use]
    pub fn new(certificates: &[CertificateDer<'_>]) -> Self {
        Self(certificates.iter().map(|one| one.clone().into_owned()).collect())
    }

    /// Returns them.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

/// Marks an answer to a client that is never told that a replica ends, such as the API server behind a Service that also names
/// replicas that are not ready. Its requests continue to the end, so they do not make the drain begin again.
#[derive(Clone, Copy, Debug)]
pub struct Untold;

/// Serves from the first certificate until `shutdown` and the drain time, then waits for the open requests.
pub async fn serve(
    port: Port,
    served: Arc<Served>,
    clients: ClientCertificates,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    if shutdown.run_until_cancelled(served.certified()).await.is_none() {
        return;
    }
    let (listener, config) = match (port.open(), tls(served, clients)) {
        (Ok(listener), Ok(config)) => (listener, config),
        (Err(error), _) => return error!(%error, "the webhooks cannot listen on their port"),
        (_, Err(error)) => return error!(%error, "the webhooks cannot configure TLS"),
    };
    let end = CancellationToken::new();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(limits.connections));
    let spare = Arc::new(Semaphore::new(limits.spare));
    let late = Arc::<Notify>::default();
    let mut connections = JoinSet::new();
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving the webhooks");
    }
    let accepting = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (acceptor, router, spare) = (acceptor.clone(), router.clone(), Arc::clone(&spare));
                    let connection = Connection { acceptor, router, limits, spare, late: Arc::clone(&late) };
                    let (leaving, end) = (shutdown.clone(), end.clone());
                    connections.spawn(async move {
                        connection.serve(stream, leaving, end).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "could not accept a connection");
                    sleep(BREATHER).await;
                }
            }
            // Remove ended connections, including those that panicked.
            while connections.try_join_next().is_some() {}
        }
    };
    let leaving = async {
        shutdown.cancelled().await;
        info!(
            seconds = limits.drain.as_secs(),
            "shutting down; still serving the webhooks while API servers move to another replica"
        );
        let quiet = async { while timeout(limits.drain, late.notified()).await.is_ok() {} };
        if timeout(limits.longest_drain(), quiet).await.is_err() {
            warn!("requests of API servers still arrive; the webhooks stop now");
        }
    };
    tokio::select! {
        () = accepting => {}
        () = leaving => {}
    }
    drop(listener);
    end.cancel();
    let _ = timeout(FINISH, async { while connections.join_next().await.is_some() {} }).await;
}

fn tls(served: Arc<Served>, clients: ClientCertificates) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let any_client = AnyClient::new(provider.signature_verification_algorithms);
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Asked => builder.with_client_cert_verifier(Arc::new(any_client)),
    };
    let mut config = builder.with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    /// Permits for connections that name no path in time.
    spare: Arc<Semaphore>,
    /// Told of each answer after the signal to stop.
    late: Arc<Notify>,
}

impl Connection {
    /// Serves until `end`. After `leaving` it gives at most one more answer.
    async fn serve(self, stream: TcpStream, leaving: CancellationToken, end: CancellationToken) {
        let Self { acceptor, router, limits, spare, late } = self;
        let _ = stream.set_nodelay(true);
        // The system ends the connection if the client does not read the answer, or has disappeared.
        #[cfg(target_os = "linux")]
        let _ = set_tcp_user_timeout(&stream, u32::try_from(limits.request.as_millis()).unwrap_or(u32::MAX));
        let stream = match timeout(limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "handshake failed"),
            Err(_) => return debug!("handshake took too long"),
        };
        let proven = Proven::default();
        let peer = Peer::new(stream.get_ref().1.peer_certificates().unwrap_or_default());
        let router = axum::Extension(peer).layer(router);
        let (begun, progress) = watch::channel(Progress::default());
        let answered = begun.clone();
        let router = axum::Extension(proven.clone()).layer(router).map_request(move |request| {
            begun.send_modify(|progress| progress.begun += 1);
            axum_body(request)
        });
        let caller = proven.clone();
        let router = router.map_response(move |mut response: http::Response<axum::body::Body>| {
            answered.send_modify(|progress| progress.answered += 1);
            if leaving.is_cancelled() {
                if caller.get() && response.extensions().get::<Untold>().is_none() {
                    late.notify_one();
                }
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = unproven(&proven, limits, &spare, progress.clone()) => {
                debug!("closing a connection that named no secret path in time");
                if progress.borrow().begun == 0 {
                    return;
                }
                // An answer that is being sent goes to its end.
                connection.as_mut().graceful_shutdown();
                match timeout(limits.request, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
            () = end.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection failed");
        }
    }
}

/// How many requests of a connection have begun, and how many of them were answered.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    begun: u64,
    answered: u64,
}

/// Ends when a connection has not named a secret path in time. It checks only at that time, and if a request is being
/// answered then, after it: the value API learns from its caller whether the connection may stay.
async fn unproven(proven: &Proven, limits: Limits, spare: &Semaphore, mut progress: watch::Receiver<Progress>) {
    sleep(limits.handshake).await;
    answered(&mut progress).await;
    if !proven.get()
        && let Ok(_place) = spare.try_acquire()
    {
        sleep(limits.idle).await;
        answered(&mut progress).await;
    }
    if proven.get() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the requests that have begun are answered.
async fn answered(progress: &mut watch::Receiver<Progress>) {
    let begun = progress.borrow().begun;
    // It fails when the connection has ended, which also ends this wait.
    let _ = progress.wait_for(|progress| progress.answered >= begun).await;
}

fn axum_body(request: http::Request<hyper::body::Incoming>) -> http::Request<axum::body::Body> {
    request.map(axum::body::Body::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
