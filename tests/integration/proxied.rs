//! The operator outside a cluster, through a proxy: every list, watch and write of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::{Operator, control_plane::quiet_address, poll};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::Site,
    operator::PATIENCE,
    program::PROGRAM,
};

/// A name that leads nowhere: only a proxy gets there.
const SERVER: &str = "https://api.invalid:6443";

/// A proxy for CONNECT, which leads to the API server whatever it is asked for.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(address: SocketAddr) -> Self {
        let config = installation::control_plane().await.access().config().await.unwrap();
        let server: SocketAddr = config.cluster_url.authority().unwrap().as_str().parse().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let said = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            // Every connection ends with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(lead(client, server, Arc::clone(&said)));
            }
        });
        Self { address, asked, task }
    }

    /// Ends it with all connections through it; returns the requests for connections that it got.
    async fn stop(self) -> Vec<String> {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn lead(client: TcpStream, server: SocketAddr, said: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    said.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
    let mut server = TcpStream::connect(server).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// The operator's kubeconfig with another server, and with this proxy-url if it is not null.
async fn kubeconfig(server: &str, proxy_url: &Value) -> PathBuf {
    let access = installation::control_plane().await.access();
    let path = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    // JSON, as the harness writes it.
    let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    cluster["server"] = json!(server);
    // The certificate is for its address, not for that name.
    cluster["tls-server-name"] = json!("127.0.0.1");
    cluster["proxy-url"] = proxy_url.clone();
    let path = path.with_extension(format!("{}.kubeconfig", uuid::Uuid::new_v4().simple()));
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    path
}

async fn start(site: &Site, kubeconfig: &Path, env: &[(&str, &str)]) -> Operator {
    let control_plane = installation::control_plane().await;
    let arguments = ["--namespace", &site.namespace];
    Operator::start_with(control_plane, PROGRAM, kubeconfig, &arguments, env).await.unwrap()
}

async fn says(operator: &Operator, text: &str) {
    poll(text, PATIENCE, || async { Ok(operator.log()?.contains(text).then_some(())) }).await.unwrap();
}

/// The proxy is started after the operator, and goes away and comes back while the operator runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_behind_a_proxy_works_whenever_the_proxy_does() {
    for by_variable in [true, false] {
        let site = Site::new("proxied").await;
        let address = quiet_address().unwrap();
        let proxy = format!("http://me:hunter2@{address}");
        let operator = if by_variable {
            start(&site, &kubeconfig(SERVER, &Value::Null).await, &[("HTTPS_PROXY", &proxy)]).await
        } else {
            let env = [("HTTPS_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "*")];
            start(&site, &kubeconfig(SERVER, &json!(proxy)).await, &env).await
        };
        says(&operator, "waiting for the API server").await;
        let mut asked = Vec::new();
        for name in ["first", "second", "third"] {
            // The operator cannot do it yet.
            site.apply(name, json!({"name": name.to_uppercase(), "generate": {}})).await;
            let proxy = Proxy::start(address).await;
            site.served(name).await;
            asked.extend(proxy.stop().await);
        }
        assert!(asked.len() >= 3 && asked.iter().all(|line| line == "CONNECT api.invalid:6443 HTTP/1.1"), "{asked:?}");
        let log = operator.log().unwrap();
        assert!(!log.contains("hunter2"), "{log}");
        operator.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_calls_what_no_proxy_names_directly() {
    let config = installation::control_plane().await.access().config().await.unwrap();
    // Not a loopback address, which is called directly in any case.
    let server = format!("https://0.0.0.0:{}", config.cluster_url.port_u16().unwrap());
    let kubeconfig = kubeconfig(&server, &Value::Null).await;
    for (exceptions, is_direct) in [("192.0.2.0/24, 0.0.0.0/8", true), ("192.0.2.0/24", false)] {
        let site = Site::new("no-proxy").await;
        let proxy = Proxy::start(quiet_address().unwrap()).await;
        let url = format!("http://{}", proxy.address);
        let operator = start(&site, &kubeconfig, &[("HTTPS_PROXY", &url), ("NO_PROXY", exceptions)]).await;
        site.apply("db", json!({"name": "DB", "generate": {}})).await;
        site.served("db").await;
        operator.kill().await.unwrap();
        let asked = proxy.stop().await;
        assert_eq!(asked.is_empty(), is_direct, "{exceptions}: {asked:?}");
    }
}
