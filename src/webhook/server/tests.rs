use std::{io, net::SocketAddr, time::Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::webhook::{
    access::Access,
    certificates::{
        authority::{Document, Lifetimes},
        folder,
    },
    http::{Webhooks, router},
    testing::{Alone, document, keyring, object, readers, review},
};

/// Longer than any limit of these tests, for a machine that compiles beside it.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long that nobody who keeps within them is late, on such a machine either.
const LIMITS: Limits = Limits {
    connections: 4,
    spare: 0,
    requests: 2,
    body: 64 * 1024,
    handshake: Duration::from_secs(20),
    request: Duration::from_secs(20),
    idle: Duration::from_secs(120),
    drain: Duration::ZERO,
};
/// Shorter where somebody is to be sent away, but long enough for what he has to do before.
const A_MOMENT: Duration = Duration::from_secs(3);

struct Server {
    address: SocketAddr,
    served: Arc<Served>,
    authorities: Document,
    path: String,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    fn start(limits: Limits) -> Self {
        let server = Self::without_certificate(limits);
        server.certify();
        server
    }

    fn without_certificate(limits: Limits) -> Self {
        Self::with_routes(limits, |routes| routes)
    }

    fn with_routes(limits: Limits, change: impl Fn(Router) -> Router) -> Self {
        let (now, lives) = (jiff::Timestamp::now(), Lifetimes::default());
        let authorities = Document::due(None, now, lives).unwrap().unwrap();
        let served = Arc::new(Served::default());
        served.set_paths(&authorities);
        let operator = Arc::new(Alone::new(keyring(&[document(1)])));
        let access = Access::new(readers().0);
        let webhooks = Webhooks {
            served: Arc::clone(&served),
            access,
            operator,
            allow_cluster_scope: false,
            stats: Arc::default(),
        };
        let routes = change(router(Arc::new(webhooks), limits));
        let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.address().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(
            port,
            Arc::clone(&served),
            ClientCertificates::Ignored,
            routes,
            limits,
            shutdown.clone(),
        ));
        let path = authorities.path(now, lives).to_owned();
        Self { address, served, authorities, path, shutdown, task }
    }

    fn certify(&self) {
        let leaf =
            self.authorities.issue(&["127.0.0.1".to_owned()], jiff::Timestamp::now(), Lifetimes::default()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.to_vec()));
        self.served.set_certificate(folder::certified(vec![CertificateDer::from(leaf.certificate)], key).unwrap());
    }

    /// A connection. The port is opened a moment after the certificate is there.
    async fn raw(&self) -> TcpStream {
        let opened = async {
            loop {
                match TcpStream::connect(self.address).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        sleep(Duration::from_millis(5)).await;
                    }
                    connected => return connected.unwrap(),
                }
            }
        };
        timeout(PATIENCE, opened).await.expect("the port is opened")
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_on(self.raw().await).await
    }

    async fn connect_on(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authorities.bundle().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A connection, and the answer to the first request on it. On a busy machine the time of a connection can be over before
    /// its first request arrives: then another one is tried.
    async fn ask_first(&self, text: &str) -> (TlsStream<TcpStream>, String) {
        let asked = async {
            loop {
                let Ok(mut stream) = self.connect().await else { continue };
                let answer = ask(&mut stream, text).await;
                if !answer.is_empty() {
                    return (stream, answer);
                }
            }
        };
        timeout(PATIENCE, asked).await.expect("an answer")
    }

    /// Waits until a connection ends on which nothing is asked: on a busy machine within its handshake.
    async fn send_away(&self) {
        if let Ok(mut stream) = self.connect().await {
            closed(&mut stream).await;
        }
    }

    fn good(&self) -> String {
        let body = review("ann", &object("db", json!({"value": "plain"})), &serde_json::Value::Null).to_string();
        self.head(body.len()) + &body
    }

    fn head(&self, length: usize) -> String {
        let path = &self.path;
        format!(
            "POST /{path}/seal HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    }
}

/// Sends, and reads one answer's head and body.
async fn ask(stream: &mut TlsStream<TcpStream>, text: &str) -> String {
    // It may be answered, and the connection closed, before all of it is sent: the answer is what counts.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap_or(0);
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let length = |head: &str| {
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())
        };
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head).unwrap_or(0));
        if read == 0 || whole {
            return text;
        }
    }
}

/// Waits until the other side closes.
async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Duration {
    let began = Instant::now();
    let mut buffer = [0; 1024];
    let end = async { while stream.read(&mut buffer).await.unwrap_or(0) > 0 {} };
    timeout(PATIENCE, end).await.expect("the server closes the connection");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_answered_one_after_another_on_one_connection() {
    let server = Server::start(Limits { handshake: A_MOMENT, ..LIMITS });
    let (mut stream, first) = server.ask_first(&server.good()).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    for _ in 0..2 {
        let answer = ask(&mut stream, &server.good()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"allowed\":true"), "{answer}");
    }
    // Proven, it may idle: longer than a stranger may.
    sleep(A_MOMENT * 2).await;
    assert!(ask(&mut stream, &server.good()).await.starts_with("HTTP/1.1 200"));
    server.shutdown.cancel();
    timeout(PATIENCE, server.task).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_refused_until_there_is_a_certificate() {
    let server = Server::without_certificate(LIMITS);
    for _ in 0..3 {
        let refused = TcpStream::connect(server.address).await.expect_err("no certificate").kind();
        assert_eq!(refused, io::ErrorKind::ConnectionRefused);
        tokio::task::yield_now().await;
    }
    assert!(Port::bind(server.address).is_ok_and(|port| port.open().is_ok()), "the port is not open");
    server.certify();
    let answer = ask(&mut server.connect().await.unwrap(), &server.good()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A port that is open already is an error of the start.
    assert_eq!(Port::bind(server.address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_it_stops_at_once() {
    let server = Server::without_certificate(Limits { drain: PATIENCE * 2, ..LIMITS });
    server.shutdown.cancel();
    timeout(PATIENCE, server.task).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_serves_on_and_sends_its_callers_elsewhere() {
    let server = Server::start(Limits { drain: PATIENCE / 4, ..LIMITS });
    let (mut before, mut idle) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    for stream in [&mut before, &mut idle] {
        let answer = ask(stream, &server.good()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
    }
    server.shutdown.cancel();
    for mut stream in [before, server.connect().await.unwrap()] {
        let answer = ask(&mut stream, &server.good()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
        closed(&mut stream).await;
    }
    // Then it ends, also the connections on which nothing was asked.
    closed(&mut idle).await;
    timeout(PATIENCE, server.task).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_serves_as_long_as_callers_still_come() {
    let server = Server::start(Limits { drain: A_MOMENT, ..LIMITS });
    server.connect().await.unwrap();
    server.shutdown.cancel();
    let began = Instant::now();
    while began.elapsed() < A_MOMENT * 2 {
        let answer = ask(&mut server.connect().await.unwrap(), &server.good()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // Now no caller comes any more.
    timeout(PATIENCE, server.task).await.expect("it ends").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_never_learn_do_not_keep_it() {
    let server = Server::start(Limits { drain: Duration::from_millis(300), ..LIMITS });
    server.connect().await.unwrap();
    server.shutdown.cancel();
    let asked = async {
        while let Ok(stream) = TcpStream::connect(server.address).await {
            let Ok(mut stream) = server.connect_on(stream).await else { continue };
            ask(&mut stream, &server.good()).await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_are_never_told_do_not_make_it_wait_longer() {
    let limits = Limits { drain: A_MOMENT * 2, ..LIMITS };
    let untold = async |mut response: axum::response::Response| {
        response.extensions_mut().insert(Untold);
        response
    };
    let server = Server::with_routes(limits, |routes| routes.layer(axum::middleware::map_response(untold)));
    server.certify();
    server.connect().await.unwrap();
    server.shutdown.cancel();
    let asked = async {
        while let Ok(stream) = TcpStream::connect(server.address).await {
            let Ok(mut stream) = server.connect_on(stream).await else { continue };
            ask(&mut stream, &server.good()).await;
        }
    };
    // Any answer that counted would have made it twice the time.
    timeout(limits.drain * 2, asked).await.expect("it ends after the first drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_sent_away() {
    let server = Server::start(Limits { connections: 8, handshake: A_MOMENT, ..LIMITS });
    // No handshake; half a handshake; no request; half a head; the wrong path.
    let silent = async { closed(&mut server.raw().await).await };
    let half = async {
        let mut half = server.raw().await;
        half.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
        closed(&mut half).await;
    };
    let mute = server.send_away();
    let slow = async {
        let Ok(mut slow) = server.connect().await else { return };
        let _ = slow.write_all(b"POST /").await;
        closed(&mut slow).await;
    };
    let lost = async {
        let request = "POST /x/seal HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";
        let (mut lost, answer) = server.ask_first(request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        closed(&mut lost).await;
    };
    // And all the while it serves others.
    let good = async {
        assert!(server.ask_first(&server.good()).await.1.starts_with("HTTP/1.1 200"));
    };
    tokio::join!(silent, half, mute, slow, lost, good);
}

/// The value API keeps a connection after it knows the caller, or does not.
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_ends_while_a_request_is_answered() {
    for kept in [true, false] {
        let (asked, answer) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (handler_asked, handler_answer) = (Arc::clone(&asked), Arc::clone(&answer));
        let places = Arc::new(Semaphore::new(usize::from(kept)));
        let slow = move |axum::Extension(proven): axum::Extension<Proven>| {
            let (asked, answer) = (Arc::clone(&handler_asked), Arc::clone(&handler_answer));
            let places = Arc::clone(&places);
            async move {
                asked.notify_one();
                answer.notified().await;
                proven.keep(&places);
                "x".repeat(1 << 20)
            }
        };
        let server = Server::with_routes(Limits { handshake: A_MOMENT, ..LIMITS }, |_| {
            Router::new().route("/slow", axum::routing::get(slow.clone()))
        });
        server.certify();
        let request = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
        // On a busy machine the time of a connection can be over before its request arrives: then another one is tried.
        let asking = async {
            loop {
                let Ok(mut stream) = server.connect().await else { continue };
                let _ = stream.write_all(request.as_bytes()).await;
                tokio::select! {
                    () = asked.notified() => return stream,
                    _ = closed(&mut stream) => {}
                }
            }
        };
        let mut stream = timeout(PATIENCE, asking).await.expect("the request arrives");
        // The time of a later connection is over, so that of this one is, too.
        server.send_away().await;
        answer.notify_one();
        let text = ask(&mut stream, "").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.len() > 1 << 20, "{kept}: {} bytes", text.len());
        if kept {
            answer.notify_one();
            assert!(ask(&mut stream, request).await.starts_with("HTTP/1.1 200"), "a known caller stays");
        } else {
            closed(&mut stream).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(Limits { request: Duration::from_millis(900), ..LIMITS });
    let mut stuck = server.connect().await.unwrap();
    let answer = ask(&mut stuck, &(server.head(1000) + "{\"api")).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // A byte now and then is no progress.
    let mut dripping = server.connect().await.unwrap();
    dripping.write_all(server.head(1000).as_bytes()).await.unwrap();
    let (mut answers, mut drops) = tokio::io::split(dripping);
    let drip = async {
        while drops.write_all(b" ").await.is_ok() && drops.flush().await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = timeout(PATIENCE, async { tokio::join!(drip, closed(&mut answers)) });
    ended.await.expect("the server closes the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused() {
    let server = Server::start(LIMITS);
    for (text, expected) in [
        (server.head(LIMITS.body + 1) + &"x".repeat(LIMITS.body + 1), "413"),
        // As much as the server reads of a head, and no end of it: what it leaves unread when it closes would make the
        // system drop its answer.
        (format!("POST /{}", "x".repeat(64 * 1024 - "POST /".len())), "431"),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(200)), "431"),
        ("hello\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = server.connect().await.unwrap();
        let answer = ask(&mut stream, &text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{}", &answer[..answer.len().min(100)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_connections_are_held_and_each_place_is_given_back() {
    let server = Server::start(Limits { handshake: A_MOMENT, ..LIMITS });
    let mut idle = Vec::new();
    for _ in 0..LIMITS.connections * 3 {
        idle.push(server.raw().await);
    }
    // Strangers hold their places for a moment only.
    assert!(server.ask_first(&server.good()).await.1.starts_with("HTTP/1.1 200"));
    drop(idle);
}

/// As the API server does it: it makes a connection for a request that then goes another way, and keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn some_connections_may_be_used_later() {
    let server = Server::start(Limits { spare: 1, handshake: A_MOMENT, ..LIMITS });
    let (mut one, mut other) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    let left = tokio::select! {
        _ = closed(&mut one) => &mut other,
        _ = closed(&mut other) => &mut one,
    };
    assert!(ask(left, &server.good()).await.starts_with("HTTP/1.1 200"));
    // Its place goes to nobody else for now.
    server.send_away().await;
    assert!(ask(left, &server.good()).await.starts_with("HTTP/1.1 200"));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answer_is_sent_away() {
    let limits = Limits { connections: 1, body: 8 << 20, request: Duration::from_secs(15), ..LIMITS };
    let server = Server::start(limits);
    // Longer than what the system keeps for whoever takes nothing: here 4 MiB to send, and what he has room for.
    let copy = json!({"a": "x".repeat(6 << 20), "spec": {"value": "plain"}}).to_string();
    let mut object = object("db", json!({"value": "plain"}));
    object["metadata"]["annotations"] = json!({managed_secrets_api::keys::LAST_APPLIED: copy});
    let body = review("ann", &object, &serde_json::Value::Null).to_string();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut greedy = server.connect_on(socket.connect(server.address).await.unwrap()).await.unwrap();
    greedy.write_all((server.head(body.len()) + &body).as_bytes()).await.unwrap();
    // He reads nothing, and yet his place is free again, long before an idle one would be.
    let mut good = timeout(PATIENCE, server.connect()).await.expect("a place").unwrap();
    assert!(ask(&mut good, &server.good()).await.starts_with("HTTP/1.1 200"));
    drop(greedy);
}

#[tokio::test(flavor = "multi_thread")]
async fn also_whoever_knows_the_path_cannot_stay_for_ever() {
    let server = Server::start(Limits { idle: A_MOMENT, ..LIMITS });
    let gone = async {
        let mut gone = server.connect().await.unwrap();
        assert!(ask(&mut gone, &server.good()).await.starts_with("HTTP/1.1 200"));
        closed(&mut gone).await;
    };
    // Half-closed: he has said all he will say, and is answered.
    let half = async {
        let mut half = server.connect().await.unwrap();
        half.write_all(server.good().as_bytes()).await.unwrap();
        half.shutdown().await.unwrap();
        closed(&mut half).await;
    };
    tokio::join!(gone, half);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_no_stated_length_is_bounded_too() {
    let server = Server::start(LIMITS);
    let path = &server.path;
    // One byte more than the limit, and no end: what the server leaves unread when it closes would make the system drop
    // its answer. A body of the wrong type is not read at all, so none is sent.
    let chunks = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(LIMITS.body / 0x1000) + "1\r\nx\r\n";
    let head = |kind: &str, body: &str| {
        format!("POST /{path}/seal HTTP/1.1\r\nhost: x\r\n{kind}transfer-encoding: chunked\r\n\r\n{body}")
    };
    for (kind, body, expected) in [("content-type: application/json\r\n", chunks.as_str(), "413"), ("", "", "415")] {
        let mut stream = server.connect().await.unwrap();
        let answer = ask(&mut stream, &head(kind, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{}", &answer[..answer.len().min(100)]);
        assert!(!answer.contains("xxxx"));
    }
}
