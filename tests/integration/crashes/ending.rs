//! How the real program ends: told to, and told twice.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use managed_secrets_api::keys;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use testkit::{Operator, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    super::{
        installation::{self, OPERATOR_NAMESPACE},
        objects::Site,
        operator::PATIENCE,
    },
    load::{MANY, PROGRAM, Stage, is_served, list, served},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_in_flight() {
    let site = Site::new("sigterm").await;
    let control_plane = installation::control_plane().await;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let operator =
        Operator::start(control_plane, PROGRAM, &kubeconfig, &["--namespace", &site.namespace]).await.unwrap();
    let wanted = Stage::of(&site, 0).await;
    // Frozen while there is more and more to do, so that most of it is left when it is told to end.
    operator.pause().unwrap();
    wanted.apply(&site).await;
    operator.resume().unwrap();
    served(&site, MANY / 4).await;
    let log = operator.log_path();
    assert_eq!(operator.stop().await.unwrap(), 0);
    let log = std::fs::read_to_string(log).unwrap();
    let in_flight = log.lines().any(|line| line.contains("no new work") && !line.contains("in_flight=0"));
    // A pass that had begun has come to its end: nothing is half done.
    let objects = list(&site).await;
    let labelled = site.labelled().await;
    let done = objects.iter().filter(|object| is_served(object)).count();
    println!("SIGTERM: {done} of {MANY} objects served, the others not begun");
    assert!(done < MANY && in_flight, "it was told to end too late to show anything");
    assert_eq!(labelled.len(), 2 * done, "a record and a target for each, and none for others");
}

/// A way to the API server that can be made to swallow what is sent to it; what it sends still comes.
struct Gate {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let swallow = Arc::clone(&closed);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let closed = Arc::clone(&swallow);
                tokio::spawn(async move {
                    let Ok(upstream) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = upstream.into_split();
                    let there = pass(from_client, to_server, || !closed.load(Ordering::SeqCst));
                    tokio::join!(there, pass(from_server, to_client, || true));
                });
            }
        });
        Self { address, closed, task }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on what `lets` lets through.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, lets: impl Fn() -> bool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if lets() && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// The operator's kubeconfig with another address of the server.
async fn kubeconfig_by(address: SocketAddr) -> PathBuf {
    let access = installation::control_plane().await.access();
    let path = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let server = server().await.to_string();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&server));
    let other = path.with_extension(format!("{}.kubeconfig", address.port()));
    std::fs::write(&other, text.replace(&server, &address.to_string())).unwrap();
    other
}

async fn server() -> SocketAddr {
    let config = installation::control_plane().await.access().config().await.unwrap();
    config.cluster_url.authority().unwrap().as_str().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_program_at_once() {
    let site = Site::new("impatient").await;
    let control_plane = installation::control_plane().await;
    let gate = Gate::to(server().await).await;
    let kubeconfig = kubeconfig_by(gate.address).await;
    let arguments = ["--namespace", &site.namespace, "--log-level", "debug"];
    let operator = Operator::start(control_plane, PROGRAM, &kubeconfig, &arguments).await.unwrap();
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    // From here on no call is answered, so a pass that begins does not end: it has to read the record first.
    gate.closed.store(true, Ordering::SeqCst);
    let edited = site.apply("db", json!({"name": "DB", "generate": {}, "description": "other"})).await;
    let of_it = format!("name=\"db\" generation={}", edited.metadata.generation.unwrap());
    poll("the pass", PATIENCE, || async {
        let log = operator.log()?;
        Ok(log.lines().any(|line| line.contains("pass begins") && line.contains(&of_it)).then_some(()))
    })
    .await
    .unwrap();
    let said = |text: &'static str| {
        let operator = &operator;
        async move {
            poll(text, PATIENCE, || async { Ok(operator.log()?.contains(text).then_some(())) }).await.unwrap();
        }
    };
    let began = Instant::now();
    signal(&operator);
    said("shutting down").await;
    signal(&operator);
    assert_eq!(operator.exit_code().await.unwrap(), 130, "{}", operator.log().unwrap());
    println!("second signal: ended after {:.1?}", began.elapsed());
    said("second signal").await;
}

/// SIGTERM.
fn signal(operator: &Operator) {
    let pid = std::fs::read_to_string(operator.log_path().with_extension("pid")).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
}
