//! The clients, and a tap that sees their requests.
//!
//! A watch may be silent for minutes; a call may not; a request for the Lease must not be repeated. One client cannot have
//! all these limits:
//!
//! | | watch | call, lead | lease |
//! |---|---|---|---|
//! | connect | 10 s | 10 s | 10 s |
//! | answer | by [`watch`](super::watch), for each list and watch | 30 s with all retries | by [`lease`](super::lease) |
//! | silence in an answer | likewise | 20 s | likewise |
//! | retries | by the watch's own backoff | at most 3, for 429, 503 and 504, after `Retry-After` where given | none |
//!
//! [`Clients::lead`] is [`Clients::call`] with a guard: a request that changes something is sent by the leader only. The
//! guard asks at each attempt, immediately before it is sent, and gives it up when the leadership ends, for example while it
//! waits for a connection.
//!
//! A [`Tap`] sits inside the retries, so it sees each attempt: tests count, delay, refuse, hang and cut there.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use kube::{
    Client, Config,
    client::{
        Body,
        retry::{InvalidBackoff, RetryPolicy},
    },
};
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tower::{
    BoxError, Service,
    retry::{Policy, RetryLayer},
    timeout::TimeoutLayer,
};

#[cfg(any(doc, test))]
use super::lease::NotLeading;
use super::{
    lease::Leadership,
    limit::{Answered, Limiter},
    requests::Requests,
};

/// The name of this client in the API server's audit log and metrics.
const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The clients of one process.
#[derive(Clone)]
pub struct Clients {
    /// For lists and watches, only through [`Watcher`](super::watch::Watcher): this client has no deadline.
    pub watch: Client,
    /// For everything else that every replica may do.
    pub call: Client,
    /// For what only the leader may do. Its requests that change something fail with [`NotLeading`] in other replicas.
    pub lead: Client,
    /// For the Lease of the leader election.
    pub lease: Client,
}

/// Why the clients cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration has unusable certificates, credentials, or an unusable proxy.
    #[error("the client configuration cannot be used")]
    Config(#[source] Box<kube::Error>),
    /// The retry delays of [`Options`] contradict each other.
    #[error("the delays between retries are invalid")]
    Retry(#[source] InvalidBackoff),
}

/// Creates a client from a configuration: as kube does, unless the credentials come from another source.
pub type Connector = Arc<dyn Fn(Config) -> kube::Result<Client> + Send + Sync>;

/// How the clients behave. Production uses the default.
#[derive(Clone)]
pub struct Options {
    /// Creates each client.
    pub connector: Connector,
    /// The longest time for a connection.
    pub connect: Duration,
    /// The longest time until the answer to a call starts, including retries and the waits between them.
    pub call: Duration,
    /// The longest silence within the answer to a call, and the longest time without progress while sending.
    pub read: Duration,
    /// How often a call is sent again.
    pub retries: u32,
    /// The shortest and the longest delay before a call is sent again. If a server asks for a longer one with `Retry-After`,
    /// the client does not retry: the caller gets the answer, and its queue can wait without blocking.
    pub retry_delay: (Duration, Duration),
    /// Sees every exchange of the watch client.
    pub watch_tap: Option<Arc<dyn Tap>>,
    /// Sees every exchange of the clients for calls, [`Clients::call`] and [`Clients::lead`].
    pub call_tap: Option<Arc<dyn Tap>>,
    /// Sees every exchange of the client for the Lease.
    pub lease_tap: Option<Arc<dyn Tap>>,
    /// The name of this replica, which is added to the name of the client in the API server's audit log. Characters that a
    /// header cannot have leave it out.
    pub replica: Option<String>,
    /// Counts the requests of all clients.
    pub requests: Arc<Requests>,
    /// When [`Clients::lead`] may change something.
    pub leadership: Leadership,
    /// Told of each answer to [`Clients::lead`], the client of the reconciles.
    pub limiter: Option<Arc<Limiter>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connector: Arc::new(Client::try_from),
            connect: Duration::from_secs(10),
            call: Duration::from_secs(30),
            read: Duration::from_secs(20),
            retries: 3,
            retry_delay: (Duration::from_millis(50), Duration::from_secs(5)),
            watch_tap: None,
            call_tap: None,
            lease_tap: None,
            replica: None,
            requests: Arc::default(),
            leadership: Leadership::always(),
            limiter: None,
        }
    }
}

impl Clients {
    /// Clients for the API server that `config` names. Must be called within a tokio runtime.
    pub fn new(config: &Config, options: &Options) -> Result<Self, ClientError> {
        let mut config = config.clone();
        let named = options.replica.as_ref().map(|replica| HeaderValue::try_from(format!("{AGENT} ({replica})")));
        let agent = named.and_then(Result::ok).unwrap_or(HeaderValue::from_static(AGENT));
        config.headers.retain(|(name, _)| name != header::USER_AGENT);
        config.headers.push((header::USER_AGENT, agent));
        config.connect_timeout = Some(options.connect);
        config.write_timeout = Some(options.read);
        // kube's own retries continue for minutes: 15 times, and as long as any `Retry-After` says.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let requests = &options.requests;
        let client = |wire, tap: &Option<Arc<dyn Tap>>, limiter: Option<&Arc<Limiter>>| Tapped {
            tap: tap.clone(),
            wire,
            requests: Arc::clone(requests),
            limiter: limiter.cloned(),
        };

        let mut calls = config.clone();
        calls.read_timeout = Some(options.read);
        // Otherwise the time a pooled connection idled counts against its next answer.
        calls.reset_reader_on_write = true;
        let (shortest, longest) = options.retry_delay;
        let policy = RetryPolicy::new(shortest, longest, options.retries, true).map_err(ClientError::Retry)?;
        let limited = |wire, limiter| {
            let service = tower::ServiceBuilder::new()
                .layer(TimeoutLayer::new(options.call))
                .layer(RetryLayer::new(Patient { policy: policy.clone(), longest }))
                .service(client(wire, &options.call_tap, limiter));
            Client::new(service, namespace.clone())
        };
        let wire = Wire::new(calls, &options.connector)?;
        let guarded = wire.clone().guarded(options.leadership.clone());
        let (call, lead) = (limited(wire, None), limited(guarded, options.limiter.as_ref()));

        // Its connections are its own, so a busy client does not delay it.
        let lease = client(Wire::new(config.clone(), &options.connector)?, &options.lease_tap, None);
        config.read_timeout = None;
        let watch = client(Wire::new(config, &options.connector)?, &options.watch_tap, None);
        Ok(Self { watch: Client::new(watch, namespace.clone()), call, lead, lease: Client::new(lease, namespace) })
    }
}

/// An answer of the server. A tap may return another one, with its own body.
pub type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// Stands between a client and the wire.
///
/// It may send the request or not, wait before or after, and return the answer or another one. The simplest tap, which
/// changes nothing, is `Box::pin(async move { wire.send(request).await })`.
pub trait Tap: Send + Sync + 'static {
    /// Answers `request`, usually by sending it.
    fn exchange(&self, request: Request<Body>, wire: Wire) -> BoxFuture<'static, Result<Answer, BoxError>>;
}

/// The way to the server: authentication, TLS, the connection pool, and the guard of what only the leader may do.
#[derive(Clone)]
pub struct Wire {
    client: Client,
    guard: Option<Leadership>,
}

impl Wire {
    fn new(config: Config, connector: &Connector) -> Result<Self, ClientError> {
        let client = connector(config).map_err(|error| ClientError::Config(Box::new(error)))?;
        Ok(Self { client, guard: None })
    }

    /// The same connections, on which only the leader may change something.
    fn guarded(self, leadership: Leadership) -> Self {
        Self { guard: Some(leadership), ..self }
    }

    /// Sends `request`, and returns when the head of the answer has arrived.
    pub async fn send(self, request: Request<Body>) -> Result<Answer, BoxError> {
        let changes = !request.method().is_safe();
        let sending = self.client.send(request);
        let answer = match self.guard {
            Some(leadership) if changes => leadership.within(sending).await?,
            _ => sending.await,
        };
        Ok(answer?.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

/// Tells the limiter what became of a request, also if it is dropped.
struct Report {
    limiter: Option<(Arc<Limiter>, Instant)>,
}

impl Report {
    fn answered(mut self, status: StatusCode) {
        if let Some((limiter, began)) = self.limiter.take() {
            limiter.answered(match status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Answered::Busy,
                _ => Answered::After(began.elapsed()),
            });
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some((limiter, began)) = self.limiter.take() {
            limiter.answered(Answered::Missing(began.elapsed()));
        }
    }
}

/// A service in which each request goes through the tap, if there is one, and else straight over the wire.
#[derive(Clone)]
struct Tapped {
    tap: Option<Arc<dyn Tap>>,
    wire: Wire,
    requests: Arc<Requests>,
    limiter: Option<Arc<Limiter>>,
}

impl Service<Request<Body>> for Tapped {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(())) // the wire waits for itself
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (tap, wire, limiter) = (self.tap.clone(), self.wire.clone(), self.limiter.clone());
        // Before the first poll, so that the wait for a connection counts.
        let mut pending = self.requests.begin(&request);
        let report = Report { limiter: limiter.map(|limiter| (limiter, Instant::now())) };
        Box::pin(async move {
            let answer = match tap {
                Some(tap) => tap.exchange(request, wire).await?,
                None => wire.send(request).await?,
            };
            pending.answered(answer.status().as_u16());
            report.answered(answer.status());
            Ok(answer)
        })
    }
}

/// kube's retry policy, except that it returns the answer if the server asks for more time than `longest`: kube would wait
/// as long as the server says, and the caller would have to wait too.
#[derive(Clone)]
struct Patient {
    policy: RetryPolicy,
    longest: Duration,
}

impl Policy<Request<Body>, Answer, BoxError> for Patient {
    type Future = <RetryPolicy as Policy<Request<Body>, Answer, BoxError>>::Future;

    fn retry(&mut self, request: &mut Request<Body>, result: &mut Result<Answer, BoxError>) -> Option<Self::Future> {
        if let Ok(answer) = result
            && retry_after(answer.headers()).is_some_and(|asked| asked > self.longest)
        {
            return None;
        }
        self.policy.retry(request, result)
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<_, Answer, _>::clone_request(&mut self.policy, request)
    }
}

/// Parses `Retry-After` in seconds, the form that the API server uses.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::testing::{Reply, Server, config_map, failing, status, within};

    async fn get(server: &Arc<Server>) -> (Result<ConfigMap, kube::Error>, Duration) {
        let began = Instant::now();
        let api: Api<ConfigMap> = Api::namespaced(server.clients().call, "n");
        (within(api.get("a")).await, began.elapsed())
    }

    fn good() -> Reply {
        Reply::Whole(200, vec![], config_map("a", "1"))
    }

    fn busy(retry_after: &'static str) -> Reply {
        Reply::Whole(429, vec![("retry-after", retry_after)], status(429, "busy"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_sent_again_while_the_server_is_busy() {
        let server = Server::new([failing(503), failing(504), failing(429)], |_| good());
        let (answer, took) = get(&server).await;
        assert!(answer.is_ok());
        assert_eq!(server.seen().len(), 4);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_bounded() {
        let server = Server::new([], |_| failing(503));
        let (answer, _) = get(&server).await;
        assert!(matches!(answer, Err(kube::Error::Api(status)) if status.code == 503));
        assert_eq!(server.seen().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn other_answers_are_final() {
        for code in [400, 403, 404, 409, 422, 500] {
            let server = Server::new([failing(code)], |_| good());
            assert!(get(&server).await.0.is_err(), "{code}");
            assert_eq!(server.seen().len(), 1, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_obeyed_where_it_is_short() {
        let server = Server::new([busy("3")], |_| good());
        let (answer, took) = get(&server).await;
        assert!(answer.is_ok());
        assert!(took >= Duration::from_secs(3), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_retry_after_is_the_callers_business() {
        let server = Server::new([busy("60")], |_| good());
        let (answer, took) = get(&server).await;
        assert!(matches!(answer, Err(kube::Error::Api(status)) if status.code == 429));
        assert!(took < Duration::from_secs(1), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up() {
        let server = Server::new([], |_| Reply::Hang);
        let (answer, took) = get(&server).await;
        assert!(matches!(answer, Err(kube::Error::Service(_))), "{answer:?}");
        assert!(took >= Duration::from_secs(30) && took < Duration::from_secs(31), "{took:?}");
    }

    /// Reads the head of one request, and starts an answer that is shorter than it says.
    async fn begin_to_answer(listener: TcpListener) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
        // Held open until the client hangs up.
        let _ = stream.read(&mut [0]).await;
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn over_the_wire_it_says_who_it_is_and_gives_up_a_stalled_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        config.headers.push((header::USER_AGENT, HeaderValue::from_static("another client")));
        let options = Options { read: Duration::from_millis(100), ..Options::default() };
        let clients = Clients::new(&config, &options).unwrap();
        let server = tokio::spawn(begin_to_answer(listener));
        let api = Api::<ConfigMap>::namespaced(clients.call, "n");
        let answer = timeout(Duration::from_secs(20), api.get("a")).await.expect("given up");
        assert!(answer.is_err(), "an incomplete answer is an error");
        let head = server.await.unwrap();
        let agents: Vec<_> = head.lines().filter(|line| line.starts_with("user-agent: ")).collect();
        assert_eq!(agents, [format!("user-agent: {AGENT}")]);
    }

    #[tokio::test]
    async fn over_the_wire_no_other_retries_are_made() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let busy = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(busy).await;
            }
        });
        let retry_delay = (Duration::from_millis(1), Duration::from_millis(2));
        let clients = Clients::new(&config, &Options { retry_delay, ..Options::default() }).unwrap();
        for (client, expected) in [(clients.call, 4), (clients.watch, 1)] {
            requests.store(0, Ordering::SeqCst);
            let api = Api::<ConfigMap>::namespaced(client, "n");
            timeout(Duration::from_secs(20), api.get("a")).await.expect("an answer").expect_err("a bad one");
            assert_eq!(requests.load(Ordering::SeqCst), expected);
        }
        server.abort();
    }

    /// Answers every request with this code. Returns how many there were.
    async fn answering(code: u16) -> (Config, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let body = config_map("a", "1").to_string();
                let head = format!("HTTP/1.1 {code} It\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            }
        });
        (config, requests)
    }

    async fn delete(client: &Client) -> Result<(), kube::Error> {
        let api = Api::<ConfigMap>::namespaced(client.clone(), "n");
        let params = kube::api::DeleteParams::default();
        timeout(Duration::from_secs(20), api.delete("a", &params)).await.expect("an end").map(drop)
    }

    fn is_not_leading(error: &kube::Error) -> bool {
        let first: &dyn std::error::Error = error;
        std::iter::successors(Some(first), |error| error.source()).any(<dyn std::error::Error>::is::<NotLeading>)
    }

    #[tokio::test]
    async fn only_the_leader_changes_something_and_every_replica_reads() {
        let (config, requests) = answering(200).await;
        let (term, leadership) = Leadership::elected();
        let clients = Clients::new(&config, &Options { leadership, ..Options::default() }).unwrap();
        let error = delete(&clients.lead).await.unwrap_err();
        assert!(is_not_leading(&error), "{error:?}");
        assert_eq!(requests.load(Ordering::SeqCst), 0);
        Api::<ConfigMap>::namespaced(clients.lead.clone(), "n").get("a").await.unwrap();
        delete(&clients.call).await.unwrap();
        term.begin(Instant::now() + Duration::from_secs(100));
        delete(&clients.lead).await.unwrap();
        assert_eq!(requests.load(Ordering::SeqCst), 3);
        // As after a pause of the process: no task has told the term that it is over.
        term.begin(Instant::now() - Duration::from_millis(1));
        assert!(is_not_leading(&delete(&clients.lead).await.unwrap_err()));
        assert_eq!(requests.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_call_is_not_sent_again_after_the_leadership_ended() {
        let (config, requests) = answering(503).await;
        let (term, leadership) = Leadership::elected();
        let retry_delay = (Duration::from_millis(300), Duration::from_millis(600));
        let options = Options { retry_delay, leadership, ..Options::default() };
        let clients = Clients::new(&config, &options).unwrap();
        term.begin(Instant::now() + Duration::from_secs(100));
        let ends = async {
            while requests.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            term.end();
        };
        let (refused, ()) = tokio::join!(delete(&clients.lead), ends);
        assert!(is_not_leading(&refused.unwrap_err()));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_call_that_waits_for_a_connection_ends_with_the_leadership() {
        // It accepts connections and never begins TLS.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::new(format!("https://{}", listener.local_addr().unwrap()).parse().unwrap());
        let (term, leadership) = Leadership::elected();
        let clients = Clients::new(&config, &Options { leadership, ..Options::default() }).unwrap();
        let began = Instant::now();
        term.begin(began + Duration::from_millis(100));
        assert!(is_not_leading(&delete(&clients.lead).await.unwrap_err()));
        assert!(began.elapsed() < Options::default().connect);
    }

    #[tokio::test]
    async fn the_audit_log_tells_the_replicas_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        let read = Duration::from_millis(100);
        let options = Options { replica: Some("pod-1_2".to_owned()), read, ..Options::default() };
        let clients = Clients::new(&config, &options).unwrap();
        let server = tokio::spawn(begin_to_answer(listener));
        let api = Api::<ConfigMap>::namespaced(clients.call, "n");
        assert!(timeout(Duration::from_secs(20), api.get("a")).await.expect("given up").is_err());
        assert!(server.await.unwrap().contains(&format!("user-agent: {AGENT} (pod-1_2)\r\n")));
        let unusable = Options { replica: Some("a\nb".to_owned()), ..Options::default() };
        assert!(Clients::new(&config, &unusable).is_ok());
    }

    #[test]
    fn retry_after_reads_seconds_and_nothing_else() {
        for (text, seconds) in [("0", Some(0)), ("17", Some(17)), ("-1", None), ("Wed, 21 Oct", None), ("", None)] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers), seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
