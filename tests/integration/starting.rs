//! How the operator starts: while the API server, the CRD or the permissions of a namespace are not there yet.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::{Api, api::DeleteParams};
use managed_secrets::install::manifests::{self, Options};
use managed_secrets_api::{keys, names::record_name};
use managed_secrets_engine::health::Probe;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::{self, Operator, control_plane::quiet_address, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    faults::refusal,
    installation::{self, OPERATOR_NAMESPACE},
    objects::{Site, status},
    operator::{Fault, PATIENCE, Setup, Tap},
    program::PROGRAM,
};

const WAITING: &str = "waiting for the API server";

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

/// The operator's kubeconfig with another server.
pub(super) async fn kubeconfig_by(server: &str) -> PathBuf {
    let access = installation::control_plane().await.access();
    let path = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let url = access.config().await.unwrap().cluster_url.to_string();
    let text = std::fs::read_to_string(&path).unwrap();
    let url = url.trim_end_matches('/');
    assert!(text.contains(url));
    let other = path.with_extension(format!("{}.kubeconfig", uuid::Uuid::new_v4().simple()));
    std::fs::write(&other, text.replace(url, server)).unwrap();
    other
}

async fn start(kubeconfig: &Path, arguments: &[&str]) -> Operator {
    Operator::start(installation::control_plane().await, PROGRAM, kubeconfig, arguments).await.unwrap()
}

async fn says(operator: &Operator, text: &str) {
    poll(text, PATIENCE, || async { Ok(operator.log()?.contains(text).then_some(())) }).await.unwrap();
}

/// SIGTERM, and a good end.
async fn ends(operator: Operator) -> String {
    let pid = std::fs::read_to_string(operator.log_path().with_extension("pid")).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(operator.exit_code().await.unwrap(), 0, "{}", operator.log().unwrap());
    operator.log().unwrap()
}

/// A server that takes connections, says so, and answers every request with this; or with nothing, for ever.
struct Odd {
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

impl Odd {
    async fn answering(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut client, _)) = listener.accept().await {
                // It fails once the test is over.
                let _ = told.send(());
                let Some(answer) = answer else {
                    open.push(client);
                    continue;
                };
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    while let Ok(1..) = client.read(&mut head).await {
                        if client.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, asked, task }
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_obeyed_while_the_api_server_is_not_there() {
    // Nothing listens; or the name leads nowhere.
    for server in [format!("https://{}", quiet_address().unwrap()), "https://nowhere.invalid:6443".to_owned()] {
        let operator = start(&kubeconfig_by(&server).await, &[]).await;
        says(&operator, WAITING).await;
        let log = ends(operator).await;
        assert!(log.contains(&server), "{log}");
    }
    // A TLS handshake, or an answer, that does not come.
    for scheme in ["https", "http"] {
        let mut silent = Odd::answering(None).await;
        let operator = start(&kubeconfig_by(&format!("{scheme}://{}", silent.address)).await, &[]).await;
        silent.asked.recv().await.unwrap();
        ends(operator).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_is_told_once() {
    let busy = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let mut server = Odd::answering(Some(busy)).await;
    let operator = start(&kubeconfig_by(&format!("http://{}", server.address)).await, &[]).await;
    for _ in 0..4 {
        server.asked.recv().await.unwrap();
    }
    let log = ends(operator).await;
    let told: Vec<&str> = log.lines().filter(|line| line.contains(WAITING)).collect();
    assert!(told.len() == 1 && told[0].contains("503"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_started_first_goes_on_when_the_api_server_is_there() {
    let site = Site::new("early").await;
    let address = quiet_address().unwrap();
    let kubeconfig = kubeconfig_by(&format!("https://{address}")).await;
    let operator = start(&kubeconfig, &["--namespace", &site.namespace]).await;
    says(&operator, WAITING).await;
    let config = installation::control_plane().await.access().config().await.unwrap();
    let server: SocketAddr = config.cluster_url.authority().unwrap().as_str().parse().unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let gate = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    site.apply("db", generated("DB")).await;
    site.served("db").await;
    let log = ends(operator).await;
    gate.abort();
    assert!(log.contains("no longer waiting for the API server"), "{log}");
}

/// A certificate that the kubeconfig does not trust stays so, for the kubeconfig is read once.
#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_cannot_heal_is_an_error() {
    let access = installation::control_plane().await.access();
    // JSON, as the harness writes it.
    let text = std::fs::read_to_string(access.kubeconfig_path()).unwrap();
    let mut untrusted: Value = serde_json::from_str(&text).unwrap();
    untrusted["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data").unwrap();
    let path = access.kubeconfig_path().with_extension("untrusted.kubeconfig");
    std::fs::write(&path, untrusted.to_string()).unwrap();
    let operator = start(&path, &[]).await;
    assert_eq!(operator.exit_code().await.unwrap(), 3, "{}", operator.log().unwrap());
    let log = operator.log().unwrap();
    assert!(log.contains("cannot reach the cluster") && log.contains("certificate"), "{log}");
}

/// The CRD is not installed yet, and then the API server goes away, both after the keyring was read.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_waits_for_the_crd_and_survives_an_outage_in_the_middle_of_its_start() {
    let site = Site::new("no-crd").await;
    let faults = [true, true].map(AtomicBool::new).map(Arc::new);
    let [missing, away] = faults.clone();
    let calls = Tap::new(move |_, request| {
        let of_objects = request.uri().path().contains("/managedsecrets");
        if missing.load(Ordering::SeqCst) && of_objects { refusal(404, "NotFound", None) } else { Fault::Pass }
    });
    let watches = Tap::new(move |_, _| if away.load(Ordering::SeqCst) { Fault::Cut } else { Fault::Pass });
    let operator = Setup::of(&site.namespace).calls(&calls).watches(&watches).start().await;
    site.apply("db", generated("DB")).await;
    let tries = |tap: &Arc<Tap>| tap.seen().iter().filter(|seen| seen.path.contains("/managedsecrets")).count();
    poll("the CRD to be asked for again", PATIENCE, || async { Ok((tries(&calls) > 2).then_some(())) }).await.unwrap();
    assert_eq!(watches.seen().len(), 0, "nothing is watched yet");
    faults[0].store(false, Ordering::SeqCst);
    poll("the watches to fail", PATIENCE, || async { Ok((tries(&watches) > 1).then_some(())) }).await.unwrap();
    faults[1].store(false, Ordering::SeqCst);
    site.served("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_its_role_binding_holds_up_no_other() {
    let namespaces = ["unbound", "bound"].map(str::to_owned).to_vec();
    // On a control plane of its own: the policies of an operator of all namespaces would refuse what this one writes.
    let options = Options { namespaces: namespaces.clone(), ..installation::options() };
    let control_plane = installation::install(&options, &["unbound", "bound"]).await.unwrap();
    let access = control_plane.access();
    let client = access.admin_client().await.unwrap();
    let [other, bound] = ["unbound", "bound"].map(|name| Site { namespace: name.to_owned(), client: client.clone() });
    let text = manifests::print(&options).unwrap();
    let install = || async {
        let output = access.kubectl_with_input(&["apply", "--server-side", "-f", "-"], &text).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let bindings = Api::<RoleBinding>::namespaced(other.client.clone(), &other.namespace);
    let unbind = || async {
        bindings.delete(keys::OPERATOR_NAME, &DeleteParams::default()).await.unwrap();
    };
    let kubeconfig = access.kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let start = || async {
        let config = testkit::access::config_of(&kubeconfig).await.unwrap();
        Setup { namespaces: namespaces.clone(), ..Setup::of("") }.start_with(config)
    };
    // The keys are made, although one namespace cannot be looked into.
    unbind().await;
    let operator = start().await;
    bound.apply("first", generated("FIRST")).await;
    bound.served("first").await;
    operator.stop().await;
    install().await;

    // At the next start too, the other namespace cannot be watched.
    unbind().await;
    let operator = start().await;
    bound.apply("second", generated("SECOND")).await;
    other.apply("db", generated("DB")).await;
    bound.served("second").await;
    assert_eq!(status(&other.get("db").await).observed_generation, None);
    assert!(other.secret(&record_name("DB")).await.is_none());
    // The webhooks of the other namespaces need this operator, so it is ready, and says what is missing.
    let report = operator.health().report(Probe::Ready);
    let text = report.text(false);
    assert!(
        report.passes() && text.contains("namespace unbound") && text.contains("managedsecrets of unbound: "),
        "{text}"
    );
    assert!(text.contains("403") && !text.contains("namespace bound"), "{text}");
    // Its permissions come back: it is served without a restart.
    install().await;
    other.served("db").await;
    // They go while it runs.
    unbind().await;
    other.apply("db", generated("RENAMED")).await;
    bound.apply("third", generated("THIRD")).await;
    bound.served("third").await;
    operator.stop().await;
}
