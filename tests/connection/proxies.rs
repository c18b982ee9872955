//! Proxies: the same way to the same server as kubectl.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, command, finish, kubectl,
    recorder::{Authority, Recorded, Records, Server},
};

/// A proxy that speaks HTTP CONNECT and SOCKS5, records what it is asked for, and leads to one server.
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
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let said = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let said = Arc::clone(&said);
                tokio::spawn(async move {
                    let Ok((mut client, wanted)) = negotiate(client).await else { return };
                    said.lock().unwrap().push(wanted);
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
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

/// What the client wants to reach, once it was told that it does.
async fn negotiate(mut client: TcpStream) -> std::io::Result<(TcpStream, String)> {
    let first = client.read_u8().await?;
    if first == 5 {
        let methods = client.read_u8().await?;
        client.read_exact(&mut vec![0; methods.into()]).await?;
        client.write_all(&[5, 0]).await?;
        client.read_exact(&mut [0; 3]).await?;
        let is_address = client.read_u8().await? == 1;
        let host = if is_address {
            std::net::Ipv4Addr::from(client.read_u32().await?).to_string()
        } else {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        };
        let port = client.read_u16().await?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return Ok((client, format!("SOCKS5 {host}:{port}")));
    }
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| format!(" {value}"))
    });
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    Ok((client, target + &authorization.unwrap_or_default()))
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
    async fn new() -> Self {
        let (records, authority) = (Records::default(), Authority::new());
        let own = authority.server(&["0.0.0.0", "127.0.0.1", "api.example"]);
        let server = Server::tls("server", &authority, &own, &records).await;
        let proxy = Proxy::to(server.address).await;
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
        let theirs = self.run(false, env).await;
        let ours = self.run(true, env).await;
        assert_eq!(ours.0, theirs.0, "{env:?}: {} {}", ours.2, theirs.2);
        assert_eq!(ours.1, theirs.1, "{env:?}: {} {}", ours.2, theirs.2);
        assert_eq!(ours.1.len(), 1, "{env:?}: {}", ours.2);
        !ours.0.is_empty()
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
    for proxy in ["ftp://me:hunter2@proxy", "socks5://me:hunter2@proxy", "http://me:hunter2@"] {
        net.kubeconfig("https://api.example", &json!(proxy));
        let (_, _, err) = net.run(true, &[]).await;
        assert!(err.contains("proxy-url") && !err.contains("hunter2"), "{err}");
        net.kubeconfig("https://api.example", &Value::Null);
        let (_, _, err) = net.run(true, &[("HTTPS_PROXY", proxy.to_owned())]).await;
        assert!(err.contains("HTTPS_PROXY") && !err.contains("hunter2"), "{err}");
    }
}
