//! The port for kubelets and Prometheus: `/livez`, `/readyz`, `/startupz` and `/metrics`.
//!
//! In: a port, the [`Health`] that the parts of the operator report to, and their [`Metrics`]. Out: answers over HTTP, without
//! TLS and without authentication, as kubelets ask. The answers name namespaces, watches and errors, and never an object
//! or a value. [`secure`] serves the metrics with TLS, for callers with a token, on another port.
//!
//! The port opens before everything else and stays open to the end of the process, so a probe learns why the operator is not
//! ready yet, and that it is about to end.
//!
//! A kubelet restarts a container whose probe gets no answer, so other clients must not be able to hold up its requests:
//! each connection carries one request and ends after a few seconds, and when there are too many, the oldest one ends.

pub mod metrics;
pub mod secure;
mod trust;

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use http::{StatusCode, Uri, header};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use managed_secrets_engine::health::{Health, Probe};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use tracing::{debug, warn};

use self::metrics::Metrics;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Time from a connection to the end of its answer. A request takes about a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);
/// The delay after a failed accept: a resource (such as file descriptors) is used up, and only time frees it.
const BREATHER: Duration = Duration::from_millis(200);

/// The path that says whether the process works.
pub const LIVE: &str = "/livez";
/// The path that says whether the process may receive requests.
pub const READY: &str = "/readyz";
/// The path that says whether the process has started.
pub const STARTED: &str = "/startupz";
/// The path of the metrics.
pub const METRICS: &str = "/metrics";

/// Returns the routes of probes and metrics.
pub fn router(health: &Arc<Health>, metrics: &Arc<Metrics>) -> Router {
    probes(health).merge(scrapes(metrics))
}

/// Returns the routes of probes.
pub fn probes(health: &Arc<Health>) -> Router {
    let probe =
        |probe| get(move |State(health): State<Arc<Health>>, uri: Uri| async move { answer(&health, probe, &uri) });
    Router::new()
        .route(LIVE, probe(Probe::Live))
        .route(READY, probe(Probe::Ready))
        .route(STARTED, probe(Probe::Started))
        .with_state(Arc::clone(health))
}

/// Returns the route of metrics.
fn scrapes(metrics: &Arc<Metrics>) -> Router {
    Router::new().route(METRICS, get(scrape).with_state(Arc::clone(metrics)))
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Result<Text, StatusCode> {
    // Writing to memory does not fail.
    let text = metrics.text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((StatusCode::OK, headers(metrics::CONTENT_TYPE), text))
}

type Text = (StatusCode, [(header::HeaderName, &'static str); 2], String);

fn answer(health: &Health, probe: Probe, uri: &Uri) -> Text {
    let report = health.report(probe);
    let status = if report.passes() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = report.text(is_verbose(uri));
    (status, headers("text/plain; charset=utf-8"), text)
}

fn headers(content_type: &'static str) -> [(header::HeaderName, &'static str); 2] {
    [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store")]
}

/// Whether the query has `verbose`, with any value, as in Kubernetes.
fn is_verbose(uri: &Uri) -> bool {
    let names = uri.query().unwrap_or_default().split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    names.into_iter().any(|name| name == "verbose")
}

/// Serves without TLS until it is dropped.
pub async fn serve(listener: TcpListener, router: Router) -> Infallible {
    serve_by(listener, None, router).await
}

async fn serve_by(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) -> Infallible {
    let mut connections = JoinSet::new();
    let mut open = VecDeque::<AbortHandle>::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(connections.spawn(connection(stream, tls.clone(), router.clone())));
            }
            Err(error) => {
                warn!(%error, "could not accept a connection");
                sleep(BREATHER).await;
            }
        }
        // Remove ended connections, including those that panicked.
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    let served = async {
        match tls {
            None => exchange(stream, router).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => exchange(stream, router).await,
                Err(error) => debug!(%error, "handshake failed"),
            },
        }
    };
    if timeout(PATIENCE, served).await.is_err() {
        debug!("connection took too long");
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let router = router.map_request(|request: http::Request<hyper::body::Incoming>| request.map(axum::body::Body::new));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        debug!(%error, "connection failed");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::net::SocketAddr;

    use managed_secrets_engine::health::Verdict;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::JoinHandle,
    };

    use super::*;

    async fn start(health: &Arc<Health>) -> (SocketAddr, JoinHandle<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (address, tokio::spawn(serve(listener, router(health, &Arc::new(Metrics::new(Arc::clone(health)))))))
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn each_path_answers_for_its_probe_and_says_why() {
        let health = Arc::new(Health::default());
        let (address, server) = start(&health).await;
        assert!(ask(address, LIVE).await.starts_with("HTTP/1.1 200"));
        for path in [READY, STARTED] {
            let answer = ask(address, path).await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the process is starting"), "{answer}");
        }
        health.started();
        health.check("watches", &[Probe::Live], || Verdict::Failed("secrets: silent".to_owned()));
        assert!(ask(address, READY).await.ends_with("\r\n\r\nok\n"));
        assert!(ask(address, "/readyz?verbose").await.ends_with("\r\n\r\nthe check passed\n"));
        let answer = ask(address, LIVE).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("[-] watches: secrets: silent"), "{answer}");
        let answer = ask(address, METRICS).await;
        assert!(answer.contains(metrics::CONTENT_TYPE) && answer.ends_with("# EOF\n"), "{answer}");
        assert!(ask(address, "/").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }

    #[test]
    fn verbose_is_a_name_in_the_query() {
        for (uri, verbose) in
            [("/livez", false), ("/livez?verbose", true), ("/livez?a=b&verbose=1", true), ("/livez?unverbose", false)]
        {
            assert_eq!(is_verbose(&uri.parse().unwrap()), verbose, "{uri}");
        }
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_hold_up_no_probe() {
        let (address, server) = start(&Arc::default()).await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS * 2 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = timeout(PATIENCE / 2, ask(address, LIVE)).await;
        assert!(asked.unwrap().starts_with("HTTP/1.1 200"));
        let ended = timeout(PATIENCE / 2, idle[0].read(&mut [0])).await;
        assert!(matches!(ended.unwrap(), Ok(0) | Err(_)), "the oldest ends");
        server.abort();
    }
}
