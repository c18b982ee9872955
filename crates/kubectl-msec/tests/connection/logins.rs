//! A user and a password in the URL of the server: what kubectl makes of them, beside every other credential.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, command, finish, kubectl,
    recorder::{Authority, Recorded, Records, Server},
};

const EXEC_ANSWER: &str =
    r#"{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "exec"}}"#;

/// What a program sent, which is one request.
async fn sent(program: &std::path::Path, request: &[&str], folder: &Folder, records: &Records) -> Recorded {
    let mut command = command(program, folder.path());
    command.args(request).env("KUBECONFIG", "config");
    let ran = finish(command).await;
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    let mut sent = records.take();
    assert_eq!(sent.len(), 1, "{request:?}: {}", ran.err);
    sent.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_url_says_who_calls_as_it_does_for_kubectl() {
    let (records, authority, folder) = (Records::default(), Authority::new(), Folder::new());
    let secure = Server::tls("secure", &authority, &authority.server(&["127.0.0.1"]), &records).await;
    let plain = Server::plain("plain", &records).await;
    let kubectl = kubectl().await;
    let alice = authority.user("alice");
    for (name, content) in [
        ("ca.pem", &authority.certificate),
        ("alice.pem", &alice.certificate),
        ("alice.key", &alice.key),
        ("login.sh", &format!("#!/bin/sh\necho '{EXEC_ANSWER}'\n")),
        ("token", &"file".to_owned()),
    ] {
        folder.write(name, content);
    }
    fs::set_permissions(folder.path().join("login.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let users = [
        json!({"token": "t"}),
        json!({"tokenFile": "token"}),
        json!({"username": "other", "password": "pw"}),
        json!({"client-certificate": "alice.pem", "client-key": "alice.key"}),
        json!({"client-certificate": "alice.pem", "client-key": "alice.key", "token": "t"}),
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login.sh",
            "interactiveMode": "Never"}}),
    ];
    for (login, header) in [
        ("", None),
        ("me:hunter2@", Some("Basic bWU6aHVudGVyMg==")),
        ("me%40home:hunter2%3A@", Some("Basic bWVAaG9tZTpodW50ZXIyOg==")),
        ("me@", Some("Basic bWU6")),
    ] {
        for server in [format!("https://{login}{}", secure.address), format!("http://{login}{}/prefix", plain.address)]
        {
            for user in &users {
                kubeconfig(&folder, &server, user);
                let theirs = sent(&kubectl, &KUBECTL_REQUEST, &folder, &records).await;
                let ours = sent(PLUGIN.as_ref(), &PLUGIN_REQUEST, &folder, &records).await;
                assert_eq!(ours, theirs, "{server} {user}");
                if header.is_some() {
                    assert_eq!(ours.authorization.as_deref(), header, "{server} {user}");
                }
            }
        }
    }
}

fn kubeconfig(folder: &Folder, server: &str, user: &Value) {
    let text = json!({
        "current-context": "b",
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
        "clusters": [{"name": "b", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
        "users": [{"name": "b", "user": user}],
    });
    folder.write("config", text.to_string());
}
