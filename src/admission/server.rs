//! Connections: TLS, and what each of them may cost.
//!
//! In: a bound listener and the certificate of the moment. Out: requests for the router. HTTP/1.1 only: the API server
//! speaks it, and a connection is one request at a time.
//!
//! | | limit |
//! |---|---|
//! | connections at once | further ones wait in the kernel's queue |
//! | handshake, and the first request on a secret path | a few seconds, or the connection ends; but for a number of them that may be used later |
//! | a connection that has named a secret path | may idle longer than the API server's own 90 s, so that it is never us who close one in use |
//! | a request, its body and its answer | bounded each; see [`Limits`] |
//! | an answer that is not taken | the connection ends |

use std::{net::TcpListener as StdListener, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Layer as _, ServiceExt as _};
use tracing::{debug, error, info, warn};

use super::{certificates::Served, http::Proven};

/// What connections and requests may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections that may stay as long as others though they have not named a secret path yet. The API server makes some
    /// that it uses later or never, and a request on one that ends in this moment is lost.
    pub spare: usize,
    /// Requests in work at once; each may hold its body and what is made of it.
    pub requests: usize,
    /// Bytes of a body. A review holds two objects, and the API server takes no more than 256 KiB of annotations, which
    /// are the only part of ours that can be large; in JSON they can be twice as long.
    pub body: usize,
    /// For the handshake, and then for the first request on a secret path.
    pub handshake: Duration,
    /// From the head of a request to its answer; the API server waits 5 s.
    pub request: Duration,
    /// Between requests of a connection.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            spare: 64,
            // A sealing takes a millisecond or two. A request in work can take ten times its body, and all of them
            // must fit into the pod beside what the operator knows.
            requests: 4,
            body: 1536 * 1024,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(8),
            idle: Duration::from_secs(120),
        }
    }
}

/// After a failed accept, which is a lack of something (file descriptors) that only time gives back.
const BREATHER: Duration = Duration::from_millis(200);
/// How long connections have to finish what they began when we are told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, then lets requests in work end.
pub async fn serve(
    listener: StdListener,
    served: Arc<Served>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let (listener, config) = match (nonblocking(listener), tls(served)) {
        (Ok(listener), Ok(config)) => (listener, config),
        (Err(error), _) => return error!(%error, "the webhooks cannot listen"),
        (_, Err(error)) => return error!(%error, "the webhooks have no TLS"),
    };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(limits.connections));
    let spare = Arc::new(Semaphore::new(limits.spare));
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
                    let connection = Connection { acceptor, router, limits, spare };
                    let stop = shutdown.clone();
                    connections.spawn(async move {
                        connection.serve(stream, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    sleep(BREATHER).await;
                }
            }
            // Ended ones are forgotten, also those that panicked.
            while connections.try_join_next().is_some() {}
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    drop(listener);
    let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
}

fn nonblocking(listener: StdListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn tls(served: Arc<Served>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

struct Connection {
    acceptor: TlsAcceptor,
    router: Router,
    limits: Limits,
    /// Places for those that name no path in time.
    spare: Arc<Semaphore>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, shutdown: CancellationToken) {
        let Self { acceptor, router, limits, spare } = self;
        let _ = stream.set_nodelay(true);
        // Whoever asks and takes no answer, or is gone: the system notices, and ends the connection.
        #[cfg(target_os = "linux")]
        let _ = set_tcp_user_timeout(&stream, u32::try_from(limits.request.as_millis()).unwrap_or(u32::MAX));
        let stream = match timeout(limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%error, "a handshake failed"),
            Err(_) => return debug!("a handshake took too long"),
        };
        let proven = Proven::default();
        let router = axum::Extension(proven.clone()).layer(router).map_request(axum_body);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = unproven(&proven, limits, &spare) => return debug!("a connection named no path in time"),
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection broke");
        }
    }
}

/// Ends when a connection should have named a secret path and has not. Looked at then and not before: whoever has is known
/// by then.
async fn unproven(proven: &Proven, limits: Limits, spare: &Semaphore) {
    sleep(limits.handshake).await;
    if !proven.get()
        && let Ok(_place) = spare.try_acquire()
    {
        sleep(limits.idle).await;
    }
    if proven.get() {
        std::future::pending::<()>().await;
    }
}

fn axum_body(request: http::Request<hyper::body::Incoming>) -> http::Request<axum::body::Body> {
    request.map(axum::body::Body::new)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
