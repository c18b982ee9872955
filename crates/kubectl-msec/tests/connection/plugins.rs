//! Credential plugins: run once, without the value, and with everything that they print counted.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::operator;
use testkit::poll;
use tokio::io::AsyncWriteExt as _;

use super::{
    Folder, PLUGIN, command, finish,
    recorder::{Authority, Recorded, Records, Server},
};

const V1: &str = "client.authentication.k8s.io/v1";
/// The longest that a process may take to end that was killed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Login {
    folder: Folder,
    records: Records,
    server: Server,
    authority: Authority,
}

impl Login {
    async fn new() -> Self {
        let (records, authority) = (Records::default(), Authority::new());
        let server = Server::tls("server", &authority, &authority.server(&["127.0.0.1"]), &records).await;
        Self { folder: Folder::new(), records, server, authority }
    }

    /// A kubeconfig whose user has a plugin with this script, which prints this status.
    fn plugin(&self, script: &str, status: &Value, exec: &Value) {
        let answer = json!({"kind": "ExecCredential", "apiVersion": V1, "status": status});
        self.folder.write("answer", answer.to_string());
        let text = format!("#!/bin/sh\necho run >> runs\n{script}\ncat answer\n");
        let path = self.folder.write("login.sh", text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self.folder.write("ca.pem", &self.authority.certificate);
        let mut all = json!({"apiVersion": V1, "command": "./login.sh", "interactiveMode": "IfAvailable"});
        all.as_object_mut().unwrap().extend(exec.as_object().unwrap().clone());
        let text = json!({
            "current-context": "b",
            "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
            "clusters": [{"name": "b", "cluster":
                {"server": format!("https://{}", self.server.address), "certificate-authority": "ca.pem"}}],
            "users": [{"name": "b", "user": {"exec": all}}],
        });
        self.folder.write("config", text.to_string());
    }

    /// Runs a program with this standard input; what it said, what was sent, and how often the plugin ran.
    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> (String, Vec<Recorded>, usize) {
        let mut command = command(program, self.folder.path());
        command.args(arguments).env("KUBECONFIG", "config").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = tokio::time::timeout(super::PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let runs = fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count();
        let _ = fs::remove_file(self.path("runs"));
        (String::from_utf8_lossy(&output.stderr).into_owned(), self.records.take(), runs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_runs_once_and_does_not_get_the_value() {
    let login = Login::new().await;
    login.plugin("cat > drunk", &json!({"token": "t"}), &json!({}));
    let seal = ["seal", "--name", "a", "-n", "b"];
    let own = ["seal", "--name", "a", "--namespace", "b"];
    for (program, arguments) in [
        (PLUGIN, &["create", "A", "-n", "b"][..]),
        (PLUGIN, &["update", "A", "-n", "b", "--value-stdin"]),
        (PLUGIN, &seal),
        (PLUGIN, &["list"]),
        (operator(), &own),
    ] {
        let (err, sent, runs) = login.run(program, arguments, "line 1\nline 2\n").await;
        assert_eq!(runs, 1, "{arguments:?}: {err}");
        assert!(sent.iter().all(|sent| sent.authorization.as_deref() == Some("Bearer t")) && !sent.is_empty());
        assert_eq!(fs::read_to_string(login.path("drunk")).unwrap(), "", "{arguments:?}");
    }
    // Offline, it does not run at all.
    let (_, sent, runs) = login.run(PLUGIN, &["explain", "NameInUse"], "").await;
    assert_eq!((sent.len(), runs), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_a_certificate_are_both_sent() {
    let login = Login::new().await;
    let alice = login.authority.user("alice");
    let certificate = json!({"clientCertificateData": alice.certificate, "clientKeyData": alice.key});
    let mut both = certificate.clone();
    both["token"] = json!("t");
    for (status, token) in [(certificate, None), (both, Some("Bearer t"))] {
        login.plugin("", &status, &json!({}));
        let (err, sent, runs) = login.run(PLUGIN, &["list"], "").await;
        assert_eq!((sent.len(), runs), (1, 1), "{err}");
        assert!(sent[0].certificate.is_some(), "{sent:?}");
        assert_eq!(sent[0].authorization.as_deref(), token);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_plugin_is_said_without_what_it_printed() {
    let login = Login::new().await;
    let token = json!({"token": "hunter2"});
    for (script, status, exec, says) in [
        ("", &token, json!({"command": "no-such-plugin", "installHint": "run \u{1b}[31mget-it"}), "run [31mget-it"),
        ("cat answer; exit 3", &token, json!({}), "exit status: 3"),
        ("", &token, json!({"interactiveMode": "Always"}), "needs a terminal"),
        ("", &json!({}), json!({}), "neither a token nor a certificate"),
        ("echo hunter2", &token, json!({}), "invalid"),
        ("", &json!({"token": "hunter2\nx"}), json!({}), "HTTP header"),
    ] {
        login.plugin(script, status, &exec);
        let (err, sent, _) = login.run(PLUGIN, &["list"], "").await;
        assert!(err.contains(says) && !err.contains("hunter2") && sent.is_empty(), "{says}: {err}");
        assert!(err.starts_with("error: ") && err.lines().count() == 1, "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_gives_up_and_leaves_no_plugin_running() {
    let login = Login::new().await;
    login.plugin("echo $$ > plugin\nsleep 300 & echo $! > child\nwait", &json!({"token": "t"}), &json!({}));
    std::os::unix::fs::symlink(PLUGIN, login.path("kubectl_complete-msec")).unwrap();
    let began = Instant::now();
    let mut command = command(login.path("kubectl_complete-msec"), login.folder.path());
    command.args(["get", ""]).env("KUBECONFIG", "config");
    let ran = finish(command).await;
    assert!(ran.is_ok && ran.err.is_empty(), "{ran:?}");
    // Not a figure of speed: without giving up, it takes as long as the plugin.
    assert!(began.elapsed() < Duration::from_secs(200));
    for name in ["plugin", "child"] {
        // A plugin that was killed before it wrote its number has none to look for.
        let Ok(number) = fs::read_to_string(login.path(name)) else { continue };
        let process = PathBuf::from(format!("/proc/{}/stat", number.trim()));
        poll("the plugin to end", PATIENCE, || async {
            let stat = fs::read_to_string(&process).unwrap_or_default();
            // Gone, or ended and not yet waited for.
            Ok((stat.is_empty() || stat.contains(") Z ")).then_some(()))
        })
        .await
        .unwrap();
    }
}
