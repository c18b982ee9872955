//! Completion ends within its time, whatever it reads.

use std::{os::unix::fs::symlink, process::Stdio};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Folder, PATIENCE, PLUGIN, command};

/// A kubeconfig whose cluster and user have these fields.
fn kubeconfig(cluster: &Value, user: &Value) -> String {
    let mut all = json!({"server": "https://127.0.0.1:1"});
    all.as_object_mut().unwrap().extend(cluster.as_object().unwrap().clone());
    json!({
        "current-context": "b",
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
        "clusters": [{"name": "b", "cluster": all}],
        "users": [{"name": "b", "user": user}],
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn completion_gives_up_on_every_file_that_blocks() {
    let folder = Folder::new();
    let program = folder.path().join("kubectl_complete-msec");
    symlink(PLUGIN, &program).unwrap();
    // Opening a pipe that no process writes blocks for ever.
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let none = json!({});
    folder.write("plain", kubeconfig(&none, &none));
    folder.write("token", kubeconfig(&none, &json!({"tokenFile": "pipe"})));
    folder.write("authority", kubeconfig(&json!({"certificate-authority": "pipe"}), &none));
    folder.write("certificate", kubeconfig(&none, &json!({"client-certificate": "pipe", "client-key": "pipe"})));
    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "interactiveMode": "Never",
        "args": ["-c", "cat pipe"]});
    folder.write("plugin", kubeconfig(&none, &json!({"exec": plugin})));
    let mut running = JoinSet::new();
    for (kubeconfig, words) in [
        ("pipe", &["get", ""][..]),
        ("pipe", &["--context", ""]),
        ("pipe", &["--cluster", ""]),
        ("pipe", &["--user", ""]),
        ("pipe", &["get", "--namespace", ""]),
        ("plain", &["--kubeconfig", "pipe", "get", ""]),
        ("plain", &["--certificate-authority", "pipe", "get", ""]),
        ("plain", &["--client-certificate", "pipe", "--client-key", "pipe", "get", ""]),
        ("token", &["get", ""]),
        ("authority", &["get", ""]),
        ("certificate", &["get", ""]),
        ("plugin", &["get", ""]),
    ] {
        let mut command = command(&program, folder.path());
        command.args(words).env("KUBECONFIG", kubeconfig).stdout(Stdio::piped());
        running.spawn(async move { (kubeconfig, words, tokio::time::timeout(PATIENCE, command.output()).await) });
    }
    while let Some(ended) = running.join_next().await {
        let (kubeconfig, words, ended) = ended.unwrap();
        let output = ended.unwrap_or_else(|_| panic!("{kubeconfig} {words:?}: completion does not end")).unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{kubeconfig} {words:?}: {output:?}");
        let last = String::from_utf8(output.stdout).unwrap().lines().last().map(str::to_owned);
        assert!(matches!(last.as_deref(), Some(":0" | ":4")), "{kubeconfig} {words:?}: {last:?}");
    }
}
