//! `examples/value-api/`: the pod's request and the programs, each run as it is, with the token of the pod's service account.
//!
//! There is no node, so this machine is the pod: it has the account's folder in another place, and the API server at another
//! address. Go and Rust are always there. curl and Python may be missing; the test then says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// The example itself, whose function the test calls.
#[path = "../../../examples/value-api/read_value.rs"]
#[allow(dead_code, reason = "its `main` runs in a program of its own")]
mod read_value;

use std::{fs, path::Path, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use testkit::{control_plane::blocking, poll, root};

use crate::integration::{objects::Site, operator::PATIENCE, value_api::Estate};

/// The secret of `examples/value-api/pod.yaml`, and the service account that may read it.
const NAME: &str = "PAYMENT_TOKEN";
const ACCOUNT: &str = "checkout";

/// The folder that Kubernetes mounts into a pod of the account, and the variables that it sets.
struct Mounted {
    folder: tempfile::TempDir,
    host: String,
    port: String,
}

impl Mounted {
    async fn new(estate: &Estate, site: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = fs::read_to_string(estate.control_plane.access().kubeconfig_path()).unwrap();
        let kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let authority = BASE64_STANDARD.decode(cluster["certificate-authority-data"].as_str().unwrap()).unwrap();
        fs::write(folder.path().join("ca.crt"), authority).unwrap();
        fs::write(folder.path().join("token"), estate.token(site, ACCOUNT, &[]).await).unwrap();
        fs::write(folder.path().join("namespace"), &site.namespace).unwrap();
        let server: http::Uri = cluster["server"].as_str().unwrap().parse().unwrap();
        let (host, port) = (server.host().unwrap().to_owned(), server.port_u16().unwrap().to_string());
        Self { folder, host, port }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a program as in the pod; `None` if this machine does not have it.
    async fn run(&self, program: &str, arguments: &[&str]) -> Option<(bool, String, String)> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root()).env("SERVICE_ACCOUNT_DIR", self.path());
        command.env("KUBERNETES_SERVICE_HOST", &self.host).env("KUBERNETES_SERVICE_PORT", &self.port);
        let output = match blocking(move || Ok(command.output())).await.unwrap() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{program}: {error}"),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }
}

/// The script of the pod's container.
fn script(mounted: &Mounted) -> String {
    let file = fs::read_to_string(root().join("examples/value-api/pod.yaml")).unwrap();
    let documents: Vec<Value> =
        file.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    let pod = documents.iter().find(|document| document["kind"] == "Pod").unwrap();
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    for place in ["/var/run/secrets/kubernetes.io/serviceaccount", "kubernetes.default.svc", "/values/value.json"] {
        assert_eq!(script.matches(place).count(), 1, "{place}");
    }

    script
        .replace("/var/run/secrets/kubernetes.io/serviceaccount", mounted.path().to_str().unwrap())
        .replace("kubernetes.default.svc", &format!("{}:{}", mounted.host, mounted.port))
        .replace("/values/value.json", mounted.path().join("value.json").to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_program_reads_the_value_and_no_other() {
    let estate = Estate::shared().await;
    let site = estate.site("example").await;
    let access = estate.control_plane.access();
    access.kubectl_ok(&["-n", &site.namespace, "apply", "-f", "examples/value-api/pod.yaml"]).await.unwrap();
    site.served("payment-token").await;
    let mounted = Mounted::new(estate, &site).await;

    // Rust first, until the role is effective: its answer is what the others must print.
    let kubeconfig = access.kubeconfig_for(&site.namespace, ACCOUNT).await.unwrap();
    let mut config = testkit::access::config_of(&kubeconfig).await.unwrap();
    config.default_namespace.clone_from(&site.namespace);
    let found = poll("the role to be effective", PATIENCE, || async {
        Ok(read_value::read_value(config.clone(), NAME).await.ok())
    })
    .await
    .unwrap();
    let (id, value) = (found.status.id.clone(), found.status.value.as_str().to_owned());
    assert_eq!((value.len(), found.status.version), (40, 1));
    assert!(read_value::read_value(config, &id).await.is_err(), "the role names no id");

    let programs =
        [("go", "run", "examples/value-api/read_value.go"), ("python3", "-I", "examples/value-api/read_value.py")];
    for (program, flag, file) in programs {
        let Some((ok, out, err)) = mounted.run(program, &[flag, file, NAME]).await else {
            assert_ne!(program, "go", "Go is required");
            eprintln!("{program} is not on this machine: {file} was not run");
            continue;
        };
        assert!(ok && out == value, "{file}: {err}");
        for (other, says) in [(id.as_str(), "403"), ("OTHER#@", "403")] {
            let (ok, out, err) = mounted.run(program, &[flag, file, other]).await.unwrap();
            assert!(!ok && out.is_empty() && err.contains(says) && !err.contains(&value), "{file} {other}: {err}");
        }
    }

    if mounted.run("curl", &["--version"]).await.is_none() {
        eprintln!("curl is not on this machine: the script of examples/value-api/pod.yaml was not run");
        return;
    }
    let (ok, out, err) = mounted.run("sh", &["-euc", &script(&mounted)]).await.unwrap();
    assert!(ok && out == "the value was read\n", "{out} {err}");
    let read: Value = serde_json::from_slice(&fs::read(mounted.path().join("value.json")).unwrap()).unwrap();
    assert_eq!(read["status"]["value"], value);
}
