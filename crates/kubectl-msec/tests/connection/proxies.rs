//! Proxies: the same way to the same server as kubectl.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, command, finish, kubectl,
    recorder::{Authority, Recorded, Records, Server},
};

/// What a SOCKS5 proxy says to a client that has a login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Socks {
    /// It needs none.
    Open,
    /// It needs one.
    Login,
    /// It needs one, and this is not it.
    WrongLogin,
}

/// A proxy that speaks HTTP, with and without CONNECT, and SOCKS5; records what it is asked for, and leads to one server.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn to(server: SocketAddr, socks: Socks) -> Self {
        Self::start(server, socks, None).await
    }

    /// A proxy that is itself called over TLS.
    async fn over_tls(server: SocketAddr, acceptor: TlsAcceptor) -> Self {
        Self::start(server, Socks::Open, Some(acceptor)).await
    }

    async fn start(server: SocketAddr, socks: Socks, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let said = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (said, acceptor) = (Arc::clone(&said), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => lead(client, server, socks, &said).await,
                        Some(acceptor) => lead(acceptor.accept(client).await?, server, socks, &said).await,
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// Serves one client.
async fn lead(mut client: impl Stream, to: SocketAddr, socks: Socks, said: &Mutex<Vec<String>>) -> io::Result<()> {
    let wanted = negotiate(&mut client, socks).await?;
    said.lock().unwrap().push(wanted.by);
    let mut server = TcpStream::connect(to).await?;
    server.write_all(&wanted.head).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// A connection of a client, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// What a client wants of a proxy.
struct Wanted {
    /// How it asks, as whom and for which server.
    by: String,
    /// What the server must be sent before all else.
    head: Vec<u8>,
}

/// Reads what a client wants to reach, and tells it that it does.
async fn negotiate(client: &mut impl Stream, socks: Socks) -> io::Result<Wanted> {
    let first = client.read_u8().await?;
    if first == 5 { by_socks(client, socks).await } else { by_http(client, first).await }
}

/// RFC 1928 and RFC 1929.
async fn by_socks(client: &mut impl Stream, socks: Socks) -> io::Result<Wanted> {
    async fn text(client: &mut impl Stream) -> io::Result<String> {
        let mut text = vec![0; client.read_u8().await?.into()];
        client.read_exact(&mut text).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
    let mut methods = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut methods).await?;
    let mut login = String::new();
    let method = if socks == Socks::Open { 0 } else { 2 };
    if !methods.contains(&method) {
        client.write_all(&[5, 0xff]).await?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    client.write_all(&[5, method]).await?;
    if method == 2 {
        assert_eq!(client.read_u8().await?, 1);
        login = format!("{}:{}@", text(client).await?, text(client).await?);
        client.write_all(&[1, u8::from(socks == Socks::WrongLogin)]).await?;
    }
    client.read_exact(&mut [0; 3]).await?;
    let host = match client.read_u8().await? {
        1 => std::net::Ipv4Addr::from(client.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from(client.read_u128().await?).to_string(),
        _ => text(client).await?,
    };
    let port = client.read_u16().await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(Wanted { by: format!("SOCKS5 {login}{host}:{port}"), head: Vec::new() })
}

async fn by_http(client: &mut impl Stream, first: u8) -> io::Result<Wanted> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let target = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let login = text.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| format!(" {value}"))
    });
    let login = login.unwrap_or_default();
    if target.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        return Ok(Wanted { by: target + &login, head: Vec::new() });
    }
    // Which method and path is the programs' own affair; which server is not.
    let url = target.split(' ').nth(1).unwrap_or_default();
    let server: Vec<_> = url.splitn(4, '/').take(3).collect();
    Ok(Wanted { by: format!("HTTP {}{login}", server.join("/")), head })
}

/// A server, and a proxy that leads to it whatever it is asked for.
struct Net {
    folder: Folder,
    records: Records,
    server: Server,
    proxy: Proxy,
    kubectl: std::path::PathBuf,
    authority: Authority,
}

impl Net {
    /// With a server over TLS.
    async fn new() -> Self {
        Self::with(Socks::Open).await
    }

    /// With a server over TLS, and this SOCKS5 proxy.
    async fn with(socks: Socks) -> Self {
        let (records, authority) = (Records::default(), Authority::new());
        let own = authority.server(&["0.0.0.0", "127.0.0.1", "api.example"]);
        let server = Server::tls("server", &authority, &own, &records).await;
        Self::to(server, records, authority, socks).await
    }

    /// With a server over plain HTTP.
    async fn plain() -> Self {
        let records = Records::default();
        let server = Server::plain("server", &records).await;
        Self::to(server, records, Authority::new(), Socks::Login).await
    }

    async fn to(server: Server, records: Records, authority: Authority, socks: Socks) -> Self {
        let proxy = Proxy::to(server.address, socks).await;
        Self { folder: Folder::new(), records, server, proxy, kubectl: kubectl().await, authority }
    }

    /// A kubeconfig with this server and, if it is not null, this proxy-url.
    fn kubeconfig(&self, server: &str, proxy_url: &Value) {
        self.folder.write("ca.pem", &self.authority.certificate);
        let text = json!({
            "current-context": "b",
            "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
            "clusters": [{"name": "b", "cluster":
                {"server": server, "certificate-authority": "ca.pem", "proxy-url": proxy_url}}],
            "users": [{"name": "b", "user": {"token": "t"}}],
        });
        self.folder.write("config", text.to_string());
    }

    /// What the proxy was asked for, and what the server was sent.
    async fn run(&self, is_ours: bool, env: &[(&str, String)]) -> (Vec<String>, Vec<Recorded>, String) {
        let (program, request) = if is_ours {
            (PLUGIN.as_ref(), &PLUGIN_REQUEST[..])
        } else {
            (self.kubectl.as_path(), &KUBECTL_REQUEST[..])
        };
        let mut command = command(program, self.folder.path());
        command.args(request).env("KUBECONFIG", "config").envs(env.iter().map(|(name, value)| (name, value)));
        let ran = finish(command).await;
        (self.proxy.take(), self.records.take(), ran.err)
    }

    /// Both go the same way and arrive; whether it leads through the proxy.
    async fn way(&self, env: &[(&str, String)]) -> bool {
        !self.asked(env).await.is_empty()
    }

    /// Both go the same way and arrive; what the proxy was asked for.
    async fn asked(&self, env: &[(&str, String)]) -> Vec<String> {
        let theirs = self.run(false, env).await;
        let ours = self.run(true, env).await;
        assert_eq!(ours.0, theirs.0, "{env:?}: {} {}", ours.2, theirs.2);
        assert_eq!(ours.1, theirs.1, "{env:?}: {} {}", ours.2, theirs.2);
        assert_eq!(ours.1.len(), 1, "{env:?}: {}", ours.2);
        ours.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environments_proxy_and_exceptions_are_those_of_kubectl() {
    let net = Net::new().await;
    let port = net.server.address.port();
    // No loopback address for either program, and ours all the same.
    net.kubeconfig(&format!("https://0.0.0.0:{port}"), &Value::Null);
    let proxy = format!("http://{}", net.proxy.address);
    let bare = net.proxy.address.to_string();
    let socks = format!("socks5://{}", net.proxy.address);
    for (name, value) in [
        ("HTTPS_PROXY", &proxy),
        ("https_proxy", &proxy),
        ("HTTPS_PROXY", &bare),
        ("HTTPS_PROXY", &socks),
        ("HTTP_PROXY", &proxy),
        ("http_proxy", &proxy),
        ("HTTPS_PROXY", &proxy.replace("//", "//me:pw%40@")),
        ("HTTPS_PROXY", &proxy.replace("//", "//me@")),
    ] {
        let is_proxied = net.way(&[(name, value.clone())]).await;
        assert_eq!(is_proxied, name.eq_ignore_ascii_case("https_proxy"), "{name}={value}");
    }
    let mut proxied = 0;
    let exceptions = [
        "",
        "*",
        " * ",
        "0.0.0.0",
        "0.0.0.1",
        "0.0.0.0/8",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "0.0.0",
        ".0.0.0",
        ".0",
        "x,0.0.0.0",
        "x, 0.0.0.0/8 ,y",
        ",,",
        ":80",
        "0.0.0.0:1",
        "*.example",
        "localhost",
        "0.0.0.0 x",
    ];
    for no in
        exceptions.iter().map(ToString::to_string).chain([format!("0.0.0.0:{port}"), format!("x,0.0.0.0:{port},*y")])
    {
        for name in ["NO_PROXY", "no_proxy"] {
            proxied += u32::from(net.way(&[("HTTPS_PROXY", proxy.clone()), (name, no.clone())]).await);
        }
    }
    assert!(proxied > 10 && proxied < 34, "{proxied}: both ways must be in the table");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_resolved_by_the_proxy_and_proxy_url_goes_first() {
    let net = Net::new().await;
    let port = net.server.address.port();
    let dead = || ("HTTPS_PROXY", "http://127.0.0.1:1".to_owned());
    let everything = || ("NO_PROXY", "*".to_owned());
    for proxy in [format!("http://{}", net.proxy.address), format!("socks5://{}", net.proxy.address)] {
        // A name that only the proxy knows.
        net.kubeconfig(&format!("https://api.example:{port}"), &Value::Null);
        assert!(net.way(&[("HTTPS_PROXY", proxy.clone()), ("NO_PROXY", "example.com,.api.example".to_owned())]).await);
        net.kubeconfig(&format!("https://api.example:{port}"), &json!(proxy));
        assert!(net.way(&[]).await);
        assert!(net.way(&[dead(), everything()]).await);
        // Also for a loopback address.
        net.kubeconfig(&format!("https://127.0.0.1:{port}"), &json!(proxy));
        assert!(net.way(&[]).await);
    }
    net.kubeconfig(&format!("https://127.0.0.1:{port}"), &Value::Null);
    assert!(!net.way(&[dead()]).await, "a loopback address is called directly");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_proxy_is_used_where_no_other_variable_is_set() {
    let net = Net::new().await;
    let port = net.server.address.port();
    net.kubeconfig(&format!("https://0.0.0.0:{port}"), &Value::Null);
    for name in ["ALL_PROXY", "all_proxy"] {
        let (asked, sent, err) = net.run(true, &[(name, format!("socks5://{}", net.proxy.address))]).await;
        assert_eq!((asked, sent.len()), (vec![format!("SOCKS5 0.0.0.0:{port}")], 1), "{name}: {err}");
    }
    let env = [("ALL_PROXY", format!("http://{}", net.proxy.address)), ("NO_PROXY", "0.0.0.0".to_owned())];
    assert!(net.run(true, &env).await.0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_be_used_is_named_without_its_password() {
    let net = Net::new().await;
    for proxy in ["ftp://me:hunter2@proxy", "socks5://:hunter2@proxy", "http://me:hunter2%@proxy", "http://me:hunter2@"]
    {
        net.kubeconfig("https://api.example", &json!(proxy));
        let (_, _, err) = net.run(true, &[]).await;
        assert!(err.contains("proxy-url") && !err.contains("hunter2"), "{err}");
        net.kubeconfig("https://api.example", &Value::Null);
        let (_, _, err) = net.run(true, &[("HTTPS_PROXY", proxy.to_owned())]).await;
        assert!(err.contains("HTTPS_PROXY") && !err.contains("hunter2"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_gets_user_and_password_if_it_asks_for_them() {
    let long = "p".repeat(255);
    for (socks, user, seen) in [
        (Socks::Login, "me:pw%40%3A".to_owned(), "me:pw@:@".to_owned()),
        (Socks::Login, format!("me:{long}"), format!("me:{long}@")),
        (Socks::Open, "me:pw".to_owned(), String::new()),
    ] {
        let net = Net::with(socks).await;
        let proxy = format!("socks5://{user}@{}", net.proxy.address);
        let port = net.server.address.port();
        net.kubeconfig(&format!("https://api.example:{port}"), &json!(proxy));
        assert_eq!(net.asked(&[]).await, [format!("SOCKS5 {seen}api.example:{port}")], "{socks:?}");
        net.kubeconfig(&format!("https://0.0.0.0:{port}"), &Value::Null);
        let expected = [format!("SOCKS5 {seen}0.0.0.0:{port}")];
        assert_eq!(net.asked(&[("HTTPS_PROXY", proxy.clone())]).await, expected, "{socks:?}");
        // kubectl does not know this variable.
        assert_eq!(net.run(true, &[("ALL_PROXY", proxy)]).await.0, expected, "{socks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_a_proxy_refuses_is_an_error_without_it() {
    let net = Net::with(Socks::WrongLogin).await;
    net.kubeconfig("https://api.example", &json!(format!("socks5://me:hunter2@{}", net.proxy.address)));
    let (_, sent, err) = net.run(true, &[]).await;
    assert!(sent.is_empty() && err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    assert!(err.contains("Password auth failure") && !err.contains("hunter2"), "{err}");
    // Without a login, it is refused before.
    net.kubeconfig("https://api.example", &json!(format!("socks5://{}", net.proxy.address)));
    let (_, sent, err) = net.run(true, &[]).await;
    assert!(sent.is_empty() && err.contains("No acceptable auth methods"), "{err}");
}

/// Neither program sends its token over plain HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn requests_over_plain_http_are_sent_to_the_proxy_as_kubectl_sends_them() {
    let net = Net::plain().await;
    let address = net.proxy.address;
    let (basic, socks) = (format!("http://me:pw%40@{address}"), format!("socks5://me:pw@{address}"));
    for (server, proxy, expected) in [
        ("http://api.example", format!("http://{address}"), "HTTP http://api.example"),
        ("http://api.example:8080/prefix", format!("http://{address}"), "HTTP http://api.example:8080"),
        ("api.example:8080", format!("http://{address}"), "HTTP http://api.example:8080"),
        ("http://api.example", basic, "HTTP http://api.example Basic bWU6cHdA"),
        ("http://api.example", socks.clone(), "SOCKS5 me:pw@api.example:80"),
        ("http://api.example:8080", socks, "SOCKS5 me:pw@api.example:8080"),
    ] {
        net.kubeconfig(server, &json!(proxy));
        assert_eq!(net.asked(&[]).await, [expected], "{server} {proxy}");
        net.kubeconfig(server, &Value::Null);
        assert_eq!(net.asked(&[("HTTP_PROXY", proxy.clone())]).await, [expected], "{server} {proxy}");
        let port = net.server.address.port();
        net.kubeconfig(&format!("http://0.0.0.0:{port}"), &Value::Null);
        assert!(!net.way(&[("HTTP_PROXY", proxy.clone()), ("NO_PROXY", "0.0.0.0".to_owned())]).await);
    }
}

/// The certificate of the proxy must be one that the cluster's authority signed; for a server over plain HTTP, which has
/// none, one that the system trusts.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_be_called_over_tls() {
    let mut net = Net::new().await;
    let acceptor = |net: &Net| net.authority.acceptor(&net.authority.server(&["127.0.0.1"]));
    net.proxy = Proxy::over_tls(net.server.address, acceptor(&net)).await;
    let proxy = format!("https://me:pw@{}", net.proxy.address);
    net.kubeconfig("https://api.example", &json!(proxy));
    assert_eq!(net.asked(&[]).await, ["CONNECT api.example:443 Basic bWU6cHc="]);

    let mut net = Net::plain().await;
    net.proxy = Proxy::over_tls(net.server.address, acceptor(&net)).await;
    let proxy = format!("https://me:pw@{}", net.proxy.address);
    net.kubeconfig("http://api.example", &json!(proxy));
    let env = [("SSL_CERT_FILE", "ca.pem".to_owned())];
    assert_eq!(net.asked(&env).await, ["HTTP http://api.example Basic bWU6cHc="]);
    let (asked, sent, err) = net.run(true, &[]).await;
    assert!(asked.is_empty() && sent.is_empty() && err.contains("certificate"), "{err}");
}
