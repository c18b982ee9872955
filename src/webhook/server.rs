//! Connections: TLS, and what each of them may cost.
//!
//! In: a port and the certificate of the moment. Out: requests for the router. HTTP/1.1 only: the API server speaks it to
//! webhooks (kubernetes/kubernetes#75791), and a connection is one request at a time.
//!
//! A replica is replaced without a lost request. The port is opened when there is a certificate, so a probe of the port
//! tells whether requests would be answered. A server that is told to stop goes on for a while, because API servers and
//! proxies learn later that it leaves: it takes new connections, and ends each one after its next answer.
//!
//! | | limit |
//! |---|---|
//! | connections at once | further ones wait in the kernel's queue |
//! | handshake, and the first request on a secret path | a few seconds, or the connection ends; but for a number of them that may be used later |
//! | a connection that has named a secret path | may idle longer than the API server's own 90 s, so that it is never us who close one in use |
//! | a request, its body and its answer | bounded each; see [`Limits`] |
//! | an answer that is not taken | the connection ends |

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use http::{HeaderValue, header::CONNECTION};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::{io::Errno, net::sockopt::set_ipv6_v6only};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
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
    /// From the signal to stop until no more connections are taken.
    pub drain: Duration,
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
            drain: Duration::from_secs(DRAIN_SECONDS.into()),
        }
    }
}

/// After a failed accept, which is a lack of something (file descriptors) that only time gives back.
const BREATHER: Duration = Duration::from_millis(200);
/// How long connections have to finish what they began when no more are taken.
const FINISH: Duration = Duration::from_secs(10);
/// Connections that the system completes before they are accepted; what std has.
const BACKLOG: u32 = 128;

/// Seconds of [`Limits::drain`] when nothing else is said: kube-proxy and the API server usually learn within one or two
/// that an endpoint leaves.
pub const DRAIN_SECONDS: u16 = 5;

/// A port that is ours. Connections to it are refused until [`serve`] opens it.
#[derive(Debug)]
pub struct Port(TcpSocket);

impl Port {
    /// Takes the port. An IPv6 address that is unspecified (`[::]`) stands for IPv4, too, and for IPv4 alone on a machine
    /// that has no IPv6. Must be called in a runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        bind_with(address, socket).map(Self)
    }

    /// Where it is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn open(self) -> io::Result<TcpListener> {
        self.0.listen(BACKLOG)
    }
}

fn bind_with<T>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    bind(address).or_else(|error| match without_ipv6(address, &error) {
        Some(ipv4) => bind(ipv4),
        None => Err(error),
    })
}

/// The address to take instead where the error says that the machine has no IPv6.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let lacks = matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    (lacks && is_any).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Of a process that has just ended, connections may be left.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // The system's default can be changed (net.ipv6.bindv6only).
        set_ipv6_v6only(&socket, false)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

/// Serves from the first certificate until `shutdown` and a while longer, then lets requests in work end.
pub async fn serve(port: Port, served: Arc<Served>, router: Router, limits: Limits, shutdown: CancellationToken) {
    if shutdown.run_until_cancelled(served.certified()).await.is_none() {
        return;
    }
    let (listener, config) = match (port.open(), tls(served)) {
        (Ok(listener), Ok(config)) => (listener, config),
        (Err(error), _) => return error!(%error, "the webhooks cannot listen"),
        (_, Err(error)) => return error!(%error, "the webhooks have no TLS"),
    };
    let end = CancellationToken::new();
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
                    let (leaving, end) = (shutdown.clone(), end.clone());
                    connections.spawn(async move {
                        connection.serve(stream, leaving, end).await;
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
    let leaving = async {
        shutdown.cancelled().await;
        info!(seconds = limits.drain.as_secs(), "serving the webhooks until those who call them know another replica");
        sleep(limits.drain).await;
    };
    tokio::select! {
        () = accepting => {}
        () = leaving => {}
    }
    drop(listener);
    end.cancel();
    let _ = timeout(FINISH, async { while connections.join_next().await.is_some() {} }).await;
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
    /// Serves until `end`, and from `leaving` on for one more answer at most.
    async fn serve(self, stream: TcpStream, leaving: CancellationToken, end: CancellationToken) {
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
        let router = router.map_response(move |mut response: http::Response<axum::body::Body>| {
            if leaving.is_cancelled() {
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
            () = unproven(&proven, limits, &spare) => return debug!("a connection named no path in time"),
            () = end.cancelled() => {
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
