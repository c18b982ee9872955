//! In a pod: its own cluster is used only if nothing asks for another.
//!
//! A pod is made with a mount namespace of its own, in which a service account lies where Kubernetes puts it. The trap is
//! a listener that is the pod's cluster.

use std::path::Path;

use serde_json::json;
use testkit::operator;
use tokio::process::Command;

use super::{
    Folder, KUBECTL_REQUEST, PLUGIN, PLUGIN_REQUEST, Ran, command, finish, kubectl,
    recorder::{Authority, Recorded, Records, Server},
};

/// Mounts the service account of the folder `sa` and runs the rest.
const POD: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && \
                   cp sa/* /run/secrets/kubernetes.io/serviceaccount/ || exit 99; exec \"$@\"";

struct Pod {
    folder: Folder,
    records: Records,
    trap: Server,
    authority: Authority,
}

impl Pod {
    async fn new() -> Self {
        let (folder, records, authority) = (Folder::new(), Records::default(), Authority::new());
        let trap = Server::tls("pod", &authority, &authority.server(&["127.0.0.1"]), &records).await;
        folder.write("sa/token", "pods-token");
        folder.write("sa/namespace", "pods-namespace");
        folder.write("sa/ca.crt", &authority.certificate);
        Self { folder, records, trap, authority }
    }

    /// Runs a program in the pod, in its folder.
    async fn run(&self, program: impl AsRef<Path>, arguments: &[&str], env: &[(&str, &str)]) -> (Ran, Vec<Recorded>) {
        let mut inside: Command = command("unshare", self.folder.path());
        inside.args(["-rm", "bash", "-c", POD, "pod"]).arg(program.as_ref()).args(arguments);
        inside.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        inside.env("KUBERNETES_SERVICE_PORT", self.trap.address.port().to_string());
        inside.envs(env.iter().copied());
        let ran = finish(inside).await;
        (ran, self.records.take())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_cannot_be_used_never_means_the_pods_cluster() {
    let pod = Pod::new().await;
    let good = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "b",
        "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b"}}],
        "clusters": [{"name": "b", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "b", "user": {"token": "t"}}],
    });
    let broken = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut text = good.clone();
        change(&mut text);
        pod.folder.write(name, text.to_string());
        name.to_owned()
    };
    pod.folder.write("yaml", format!("{good}\n - [broken"));
    pod.folder.write("empty", "");
    let mut files =
        vec!["yaml".to_owned(), "empty".to_owned(), "sa".to_owned(), "/nonexistent".to_owned(), ":".to_owned()];
    files.push(broken("down", &|_| ()));
    files.push(broken("context", &|text| text["current-context"] = json!("gone")));
    files.push(broken("no-context", &|text| text["current-context"] = json!("")));
    files.push(broken("cluster", &|text| text["clusters"] = json!([])));
    files.push(broken("user", &|text| text["users"] = json!([])));
    files.push(broken("server", &|text| text["clusters"][0]["cluster"]["server"] = json!("https://a b")));
    files.push(broken("no-server", &|text| text["clusters"][0]["cluster"] = json!({})));
    files.push(broken("proxy", &|text| text["clusters"][0]["cluster"]["proxy-url"] = json!("ftp://proxy")));
    files.push(broken("ca", &|text| text["clusters"][0]["cluster"]["certificate-authority"] = json!("/none.crt")));
    files.push(broken("ca-data", &|text| text["clusters"][0]["cluster"]["certificate-authority-data"] = json!("!")));
    files.push(broken("token", &|text| text["users"][0]["user"] = json!({"tokenFile": "/none"})));
    files.push(broken("key", &|text| text["users"][0]["user"] = json!({"client-certificate": "/none"})));
    files.push(broken("exec", &|text| text["users"][0]["user"] = json!({"exec": {"command": "/bin/false"}})));
    for file in &files {
        let env = [("KUBECONFIG", file.as_str())];
        let seal = ["seal", "--name", "a", "--namespace", "b"];
        // The operator waits for a server that does not answer.
        let run = ["5", operator(), "run", "--webhook-listen", "off"];
        for (program, arguments) in [(PLUGIN, &PLUGIN_REQUEST[..]), (operator(), &seal), ("timeout", &run)] {
            let (ran, sent) = pod.run(program, arguments, &env).await;
            assert!(!ran.is_ok && sent.is_empty(), "{program} {arguments:?} with {file}: {ran:?} {sent:?}");
            assert!(ran.err.contains("error: ") || ran.err.contains("waiting for the API server"), "{ran:?}");
        }
    }
    for flags in [
        ["--kubeconfig", "/nonexistent"],
        ["--context", "b"],
        ["--cluster", "b"],
        ["--user", "b"],
        ["--client-certificate", "sa/ca.crt"],
        ["--client-key", "sa/ca.crt"],
        ["--tls-server-name", "other"],
        ["--token=t", "--insecure-skip-tls-verify"],
        ["--token=t", "--as-uid=1"],
        ["--token=t", "--as-group=admins"],
        ["-n", "other/managedsecrets/db?x="],
    ] {
        let (ran, sent) = pod.run(PLUGIN, &[&PLUGIN_REQUEST[..], &flags].concat(), &[]).await;
        assert!(!ran.is_ok && sent.is_empty(), "{flags:?}: {ran:?} {sent:?}");
    }
    // The folder is HOME.
    pod.folder.write(".kube/config", "{}");
    let (ran, sent) = pod.run(PLUGIN, &PLUGIN_REQUEST, &[]).await;
    assert!(!ran.is_ok && sent.is_empty(), "{ran:?} {sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_kubeconfig_it_is_the_pods_cluster_as_for_kubectl() {
    let (pod, kubectl) = (Pod::new().await, kubectl().await);
    pod.folder.write("other.pem", &pod.authority.certificate);
    for (flags, env) in [
        (&[][..], &[][..]),
        (&["-n", "shop"], &[]),
        (&["-n", ""], &[]),
        (&[], &[("POD_NAMESPACE", "named")]),
        (&[], &[("KUBECONFIG", "")]),
        (&["--token", "other"], &[]),
        (&["--certificate-authority", "other.pem"], &[]),
    ] {
        let (_, theirs) = pod.run(&kubectl, &[&KUBECTL_REQUEST[..], flags].concat(), env).await;
        let (ran, ours) = pod.run(PLUGIN, &[&PLUGIN_REQUEST[..], flags].concat(), env).await;
        assert_eq!(ours, theirs, "{flags:?} {env:?}: {ran:?}");
        assert_eq!(ours.len(), 1, "{flags:?} {env:?}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_a_line_break_is_sent_without_it() {
    let pod = Pod::new().await;
    pod.folder.write("sa/token", "pods-token\n");
    let (ran, sent) = pod.run(PLUGIN, &PLUGIN_REQUEST, &[]).await;
    assert_eq!(sent.len(), 1, "{ran:?}");
    assert_eq!(sent[0].authorization.as_deref(), Some("Bearer pods-token"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_counts_for_the_commands_and_not_for_the_operator() {
    let pod = Pod::new().await;
    // Loopback addresses, of which the trap's is one, are called directly: this address is never reached.
    let env = [("HTTPS_PROXY", "ftp://me:hunter2@127.0.0.1:1"), ("KUBERNETES_SERVICE_HOST", "192.0.2.1")];
    let seal = ["seal", "--name", "a", "--namespace", "b"];
    for (program, arguments) in [(PLUGIN, &PLUGIN_REQUEST[..]), (operator(), &seal)] {
        let (ran, _) = pod.run(program, arguments, &env).await;
        assert!(!ran.is_ok && ran.err.contains("HTTPS_PROXY") && !ran.err.contains("hunter2"), "{ran:?}");
    }
    let run = ["2", operator(), "run", "--webhook-listen", "off", "--operator-namespace", "b"];
    let (ran, _) = pod.run("timeout", &run, &env).await;
    assert!(!ran.err.contains("HTTPS_PROXY") && ran.err.contains("starting"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_without_a_namespace_means_that_of_the_pod_as_for_kubectl() {
    let (pod, kubectl) = (Pod::new().await, kubectl().await);
    let records = Records::default();
    let other = Server::tls("other", &pod.authority, &pod.authority.server(&["127.0.0.1"]), &records).await;
    for namespace in [json!(null), json!(""), json!("default"), json!("shop")] {
        let text = json!({
            "current-context": "b",
            "contexts": [{"name": "b", "context": {"cluster": "b", "user": "b", "namespace": namespace}}],
            "clusters": [{"name": "b", "cluster":
                {"server": format!("https://{}", other.address), "certificate-authority": "sa/ca.crt"}}],
            "users": [{"name": "b", "user": {"token": "t"}}],
        });
        pod.folder.write("config", text.to_string());
        let env = [("KUBECONFIG", "config")];
        pod.run(&kubectl, &KUBECTL_REQUEST, &env).await;
        let theirs = records.take();
        let (ran, _) = pod.run(PLUGIN, &PLUGIN_REQUEST, &env).await;
        assert_eq!(records.take(), theirs, "{namespace}: {ran:?}");
        assert_eq!(theirs.len(), 1, "{namespace}");
    }
}
