//! Health: each probe of an operator turns when something is wrong, says what, and turns back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use managed_secrets::{
    admin::{self, LIVE, READY, STARTED, metrics::Metrics},
    webhook::certificates::authority::Lifetimes,
};
use managed_secrets_api::{keys, names::record_name};
use managed_secrets_engine::health::Health;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use testkit::{Operator, control_plane::quiet_address, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    admission::{self, Premises},
    faults::{FAST, Switch, refusal},
    installation,
    lost_keys::Keys,
    objects::Site,
    operator::{Fault, PATIENCE, Running, Setup, Tap},
    program::PROGRAM,
};

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

/// The port for probes.
pub(super) struct Probes {
    address: SocketAddr,
    server: Option<JoinHandle<std::convert::Infallible>>,
}

impl Probes {
    /// Of an operator in this process.
    pub(super) async fn of(operator: &Running) -> Self {
        Self::on(operator.health(), operator.metrics()).await
    }

    async fn on(health: &Arc<Health>, metrics: &Arc<Metrics>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(admin::serve(listener, admin::router(health, metrics)));
        Self { address, server: Some(server) }
    }

    /// Of a program that serves it here.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address, server: None }
    }

    /// Closes the port of an operator in this process, as its end does.
    pub(super) async fn close(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Status and body; `None` if the port is closed.
    pub(super) async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().unwrap(), body.to_owned()))
    }

    /// Waits until it answers so, with this text in the body. Returns the body.
    pub(super) async fn says(&self, path: &str, code: u16, text: &str) -> String {
        let last = Mutex::new(None);
        let said = poll(&format!("{path} to say {code} and {text:?}"), PATIENCE, || async {
            let answer = self.ask(path).await;
            last.lock().unwrap().clone_from(&answer);
            Ok(answer.filter(|(is, body)| *is == code && body.contains(text)))
        })
        .await;
        said.unwrap_or_else(|error| panic!("{error}; the last answer: {last:?}")).1
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_watch_fails_liveness_and_one_that_is_refused_does_not() {
    let site = Site::new("hung-watch").await;
    let switch = Switch::new(|_| true);
    let operator = Setup { timing: FAST, ..Setup::of(&site.namespace).watches(&switch.tap) }.start().await;
    let probes = Probes::of(&operator).await;
    for path in [LIVE, READY, STARTED] {
        probes.says(path, 200, "ok").await;
    }

    switch.on(&refusal(403, "Forbidden", None));
    let watch = format!("managedsecrets of {}", site.namespace);
    let said = probes.says(READY, 200, &format!("{watch}: start failed: 403 Forbidden")).await;
    assert!(said.starts_with("ok\n"), "{said}");
    // Longer than a silent watch would be allowed to be: the server was heard, so a restart would repair nothing.
    let since = tokio::time::Instant::now();
    poll("three timeouts", PATIENCE, || async {
        assert_eq!(probes.ask(LIVE).await.unwrap().0, 200);
        Ok((since.elapsed() > FAST.watch * 4).then_some(()))
    })
    .await
    .unwrap();

    switch.on(&Fault::Hang);
    let said = probes.says(LIVE, 503, &watch).await;
    assert!(said.contains("[-] watches: nothing heard"), "{said}");
    switch.off();
    probes.says(LIVE, 200, "ok").await;
    poll("the trouble to be over", PATIENCE, || async {
        Ok(probes.ask(READY).await.filter(|(_, said)| said == "ok\n"))
    })
    .await
    .unwrap();
    site.apply("db", generated("DB")).await;
    site.served("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stuck_worker_fails_liveness() {
    let site = Site::new("stuck").await;
    // A worker that blocks its thread cannot be dropped at its deadline. It goes on when `block` is dropped.
    let (block, blocked) = mpsc::channel::<()>();
    let (record, blocked) = (record_name("STUCK"), Mutex::new(Some(blocked)));
    let calls = Tap::new(move |_, request| {
        if request.uri().path().ends_with(&record)
            && let Some(blocked) = blocked.lock().unwrap().take()
        {
            blocked.recv().unwrap_err();
        }
        Fault::Pass
    });
    let setup = Setup { deadline: Duration::from_secs(2), ..Setup::of(&site.namespace).calls(&calls) };
    let operator = setup.start().await;
    let probes = Probes::of(&operator).await;
    probes.says(READY, 200, "ok").await;
    site.apply("stuck", generated("STUCK")).await;
    probes.says(LIVE, 503, "[-] workers: a reconcile has been running for").await;
    // The others still work.
    site.apply("other", generated("OTHER")).await;
    site.served("other").await;
    drop(block);
    probes.says(LIVE, 200, "ok").await;
    site.served("stuck").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_keyring_fails_readiness() {
    let (keys, site) = (Keys::new().await, Site::new("unkeyed").await);
    let operator = keys.serve(&site);
    let probes = Probes::of(&operator).await;
    probes.says(READY, 200, "ok").await;
    let keyring = keys.take(keys::KEYRING_NAME).await;
    let said = probes.says(READY, 503, "[-] keyring: ").await;
    assert!(said.contains("restore Secret") && said.contains(&keys.site.namespace), "{said}");
    assert_eq!(probes.ask(LIVE).await.unwrap().0, 200, "a restart would make it worse");
    keys.restore(&keyring, keys::KEYRING_NAME).await;
    probes.says(READY, 200, "ok").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_webhook_certificate_fails_readiness() {
    /// As sound as those of production.
    const SHORT: Lifetimes =
        Lifetimes { authority: Duration::from_secs(60), leaf: Duration::from_secs(9), overlap: Duration::from_secs(3) };
    let premises = Premises::new("expired").await;
    let switch = Switch::new(|path| path.contains("/secrets/managed-secrets-webhook"));
    let setup = Setup { webhooks: Some(premises.webhooks(SHORT)), ..premises.setup().calls(&switch.tap) };
    switch.on(&refusal(500, "InternalError", None));
    let operator = setup.start_with(premises.config.clone());
    let probes = Probes::of(&operator).await;
    let said = probes.says(READY, 503, "[-] webhook certificate: there is no certificate yet: ").await;
    assert!(said.contains("managed-secrets-webhook"), "{said}");
    probes.says(STARTED, 200, "ok").await;
    switch.off();
    probes.says(READY, 200, "ok").await;
    // From now on, no certificate is renewed.
    switch.on(&refusal(500, "InternalError", None));
    probes.says(READY, 503, "[-] webhook certificate: the certificate expired at ").await;
    switch.off();
    probes.says(READY, 200, "ok").await;
    premises.called().await;
    operator.kill().await;
}

/// The program, as a kubelet meets it.
#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_before_the_api_server_is_there() {
    let control_plane = installation::control_plane().await;
    let kubeconfig = super::starting::kubeconfig_by(&format!("https://{}", quiet_address().unwrap())).await;
    let address = quiet_address().unwrap();
    let listen = format!("--admin-listen={address}");
    let operator = Operator::start(control_plane, PROGRAM, &kubeconfig, &[&listen]).await.unwrap();
    let probes = Probes::at(address);
    probes.says(LIVE, 200, "ok").await;
    for path in [READY, STARTED] {
        probes.says(path, 503, "[-] start: waiting for the API server at ").await;
    }
    // Its port is taken, which is an error.
    let second = Operator::start(control_plane, PROGRAM, &kubeconfig, &[&listen]).await.unwrap();
    assert_ne!(second.exit_code().await.unwrap(), 0);
    assert!(second.log().unwrap().contains(&format!("cannot serve probes and metrics on {address}")));
    assert_eq!(operator.stop().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_the_operator_stays_ready_and_serves_webhooks() {
    let premises = Premises::new("sigterm").await;
    let kubeconfig =
        premises.access().await.kubeconfig_for(&premises.operator_namespace, keys::OPERATOR_NAME).await.unwrap();
    let [webhooks, admin] = [(); 2].map(|()| quiet_address().unwrap());
    let arguments = [
        format!("--namespace={}", premises.site.namespace),
        format!("--operator-namespace={}", premises.operator_namespace),
        format!("--webhook-listen={webhooks}"),
        format!("--webhook-url=https://{webhooks}"),
        "--webhook-drain=300".to_owned(),
        format!("--admin-listen={admin}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let operator = Operator::start(admission::control_plane().await, PROGRAM, &kubeconfig, &arguments).await.unwrap();
    let probes = Probes::at(admin);
    let said = probes.says("/readyz?verbose", 200, "the check passed").await;
    for check in ["keyring", "caches", "webhook certificate", "shutdown"] {
        assert!(said.contains(&format!("[+] {check}: ok")), "{said}");
    }
    premises.called().await;
    let pid = std::fs::read_to_string(operator.log_path().with_extension("pid")).unwrap();
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::TERM).unwrap();
    probes.says("/readyz?verbose", 200, "[!] shutdown: the operator is shutting down").await;
    probes.says(LIVE, 200, "ok").await;
    // A plain value that is accepted was sealed by the webhook.
    premises.called().await;
    operator.kill().await.unwrap();
}
