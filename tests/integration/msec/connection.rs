//! A credential plugin in front of the real API server: every byte of a value arrives, and one command logs in once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::{Value, json};

use super::Plugin;
use crate::integration::{installation::control_plane, objects::Site, operator::Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_logs_in_once_and_the_login_does_not_read_the_value() {
    let site = Site::new("login").await;
    let operator = Setup::of(&site.namespace).start().await;
    let mut plugin = Plugin::new(&site).await;
    let (own, view) = (control_plane().await.access(), ["config", "view", "--raw", "--minify", "-o", "json"]);
    let mut kubeconfig: Value = serde_json::from_str(&own.kubectl_ok(&view).await.unwrap()).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap().to_owned();
    let version = "client.authentication.k8s.io/v1";
    let answer = json!({"kind": "ExecCredential", "apiVersion": version, "status": {"token": token}});
    plugin.folder.file("answer", answer.to_string());
    let folder = plugin.folder.path().to_owned();
    // It reads what it is given, as one that asks for a code does.
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho run >> runs\ncat >> drunk\ncat answer\n";
    let path = plugin.folder.file("login.sh", script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    kubeconfig["users"][0]["user"] =
        json!({"exec": {"apiVersion": version, "command": path, "interactiveMode": "IfAvailable"}});
    let file = plugin.folder.file("kubeconfig", kubeconfig.to_string());
    plugin.env.push(("KUBECONFIG".to_owned(), file));

    let value = "line 1\nline 2\nline 3\n";
    for (arguments, input) in [
        (&["create", "A"][..], value),
        (&["create", "B", "--generate"], ""),
        (&["list"], ""),
        (&["describe", "A"], ""),
        (&["value", "A"], ""),
        (&["update", "A", "--value-stdin"], "line 1\nanother\n"),
    ] {
        fs::write(folder.join("runs"), "").unwrap();
        let ran = plugin.run_with(arguments, input.as_bytes()).await;
        let printed = ran.ok();
        assert_eq!(plugin.folder.read("runs"), "run\n", "{arguments:?}: {}", ran.err);
        if arguments[0] == "value" {
            assert_eq!(printed, value);
        }
    }
    assert_eq!(plugin.folder.read("drunk"), "", "a part of a value went to the plugin");
    site.delivers("a", "value", "line 1\nanother\n").await;
    operator.stop().await;
}
