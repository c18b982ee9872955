//! The command as a user meets it: what it prints, its one line when something is wrong, and its exit codes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use managed_secrets_api::keys::{PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use managed_secrets_crypto::mss1::PublishedKey;
use serde_json::json;
use tempfile::TempDir;
use testkit::control_plane::quiet_address;

use super::{
    installation::{OPERATOR_NAMESPACE, control_plane},
    objects::Site,
    operator::{Setup, public_key},
    program::{Ran, run},
};

mod limited;
mod round_trip;

/// A folder of one test, removed with it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A kubeconfig for a server at this address.
    fn kubeconfig(&self, server: &str) -> PathBuf {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": server}}],
            "users": [{"name": "a", "user": {}}],
        });
        self.file("kubeconfig", text.to_string())
    }
}

async fn offline(arguments: &[&str]) -> Ran {
    run(arguments, None, &[], b"").await
}

#[tokio::test]
async fn help_and_version_are_what_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/command/help");
    let update = std::env::var_os("UPDATE").is_some_and(|update| update == "1");
    for command in ["", "run", "crd", "manifests", "check", "seal"] {
        let arguments: Vec<_> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let ran = offline(&arguments).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        let file = folder.join(format!("{}.txt", if command.is_empty() { "managed-secrets" } else { command }));
        if update {
            fs::write(&file, &ran.out).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(ran.out, expected, "{}: UPDATE=1 rewrites it", file.display());
        assert!(ran.out.lines().all(|line| line.chars().count() <= 120), "{command}: lines too long for a terminal");
    }
    let version = offline(&["--version"]).await;
    assert_eq!((version.code, version.out), (0, format!("managed-secrets {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn what_is_printed_is_what_is_shipped() {
    for (command, file) in [("crd", "crds/managedsecrets.yaml"), ("manifests", "deploy/manifests.yaml")] {
        let printed = offline(&[command]).await;
        assert_eq!((printed.code, printed.err.as_str()), (0, ""), "{command}");
        let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let objects = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert_eq!(objects(&printed.out), objects(&shipped), "{command}");
    }
}

#[tokio::test]
async fn wrong_usage_is_one_line_and_two() {
    let folder = Folder::new();
    let short = folder.file("short", b"too short");
    let short = short.to_str().unwrap();
    for (arguments, says) in [
        (&[][..], "subcommand"),
        (&["sale"], "seal"),
        (&["run", "--worker", "8"], "--worker"),
        (&["run", "--workers", "0"], "--workers"),
        (&["run", "--log-format", "xml"], "json"),
        (&["run", "--log-level", "managed_secrets=loud"], "--log-level"),
        (&["run", "--kek-file", "/nonexistent/kek"], "/nonexistent/kek"),
        (&["run", "--kek-file", short], "32 random bytes"),
        (&["manifests", "--without-policy", "all"], "--without-policy"),
        (&["seal", "--namespace", "shop"], "--name"),
        (&["seal", "--name", "db"], "--namespace"),
        (&["seal", "--scope", "cluster", "--name", "db"], "--scope cluster"),
        (&["seal", "--name", "db", "--namespace", "shop", "--fingerprint", "efa4"], "--fingerprint"),
        (&["seal", "--name", "db", "--namespace", "shop", "--public-key", "/nonexistent/key"], "/nonexistent/key"),
        (&["seal", "hunter2"], "standard input"),
    ] {
        let ran = offline(arguments).await;
        let error = ran.error(2);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn the_environment_is_as_good_as_flags() {
    for (name, value, arguments, says) in [
        ("MANAGED_SECRETS_WORKERS", "none", &["run"][..], "--workers"),
        ("MANAGED_SECRETS_LOG_LEVEL", "managed_secrets=loud", &["run"], "--log-level"),
        ("MANAGED_SECRETS_LOG_FORMAT", "xml", &["run"], "json"),
        ("MANAGED_SECRETS_KEK_FILE", "/nonexistent/kek", &["run"], "/nonexistent/kek"),
        ("MANAGED_SECRETS_SCOPE", "galaxy", &["seal"], "--scope"),
        ("MANAGED_SECRETS_NAME", "db", &["seal"], "--namespace is missing"),
        ("MANAGED_SECRETS_NAMESPACE", "shop", &["seal"], "--name is missing"),
    ] {
        let ran = run(arguments, None, &[(name, value)], b"").await;
        let error = ran.error(2);
        assert!(error.contains(says), "{name}: {error}");
    }
    let from_environment = [
        ("MANAGED_SECRETS_IMAGE", "example.com/it:1"),
        ("MANAGED_SECRETS_NAMESPACE", "shop,prod"),
        ("MANAGED_SECRETS_OPERATOR_NAMESPACE", "vault"),
        ("MANAGED_SECRETS_RESTORER", "jane"),
        ("MANAGED_SECRETS_WITHOUT_POLICY", "operator-writes"),
    ];
    let flags = [
        "manifests",
        "--image=example.com/it:1",
        "--namespace=shop",
        "--namespace=prod",
        "--operator-namespace=vault",
        "--restorer=jane",
        "--without-policy=operator-writes",
    ];
    let by_environment = run(&["manifests"], None, &from_environment, b"").await;
    let by_flags = offline(&flags).await;
    assert_eq!(by_flags.code, 0, "{}", by_flags.err);
    assert_eq!(by_environment.out, by_flags.out);
    // A flag counts more than the environment.
    let both = run(&flags, None, &[("MANAGED_SECRETS_IMAGE", "other")], b"").await;
    assert_eq!(both.out, by_flags.out);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_is_one_line_and_three() {
    let folder = Folder::new();
    // It accepts connections, and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("http://{}", mute.local_addr().unwrap());
    let nobody = quiet_address().unwrap();
    for server in [mute, format!("https://{nobody}")] {
        let kubeconfig = folder.kubeconfig(&server);
        // `run` waits for it (see the module `starting`); what a person runs does not.
        let seal = ["seal", "--name", "db", "--namespace", "shop"];
        let seal = super::program::run(&seal, Some(&kubeconfig), &[], b"hunter2").await;
        assert!(seal.error(3).contains(PUBLIC_KEY_CONFIGMAP), "{seal:?}");
    }
    let none = offline(&["run"]).await;
    assert!(none.error(3).contains("KUBECONFIG"), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_seal_refuses() {
    let site = Site::new("refuses").await;
    let operator = Setup::of(&site.namespace).start().await;
    let key = public_key(&site.client).await;
    let kubeconfig = control_plane().await.access().kubeconfig_path();
    let maps = kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(site.client.clone(), OPERATOR_NAMESPACE);
    let document = maps.get(PUBLIC_KEY_CONFIGMAP).await.unwrap().data.unwrap().remove(PUBLIC_KEY_DATA_KEY).unwrap();
    assert_eq!(PublishedKey::parse(&document).unwrap().key.fingerprint(), key.fingerprint());

    let folder = Folder::new();
    let good = folder.file("good", &document);
    let good = good.to_str().unwrap();
    let text = folder.file("text", "no document");
    // Another key under the id of the good one.
    let mut forged: serde_json::Value = serde_json::from_str(&document).unwrap();
    forged["keyId"] = json!("0011223344556677");
    let forged = folder.file("forged", forged.to_string());
    let place = ["seal", "--name", "db", "--namespace", &site.namespace];
    let seal =
        async |flags: &[&str], value: &[u8]| run(&[&place[..], flags].concat(), Some(kubeconfig), &[], value).await;

    for (flags, value, code, says) in [
        (&["--public-key", good][..], &b""[..], 2, "must not be empty"),
        (&["--public-key", good], &[b'a'; 3501], 2, "at most 3500 characters"),
        (&["--public-key", good], b"\xff\xfe", 2, "must be UTF-8, not UTF-16"),
        (&["--public-key", good], b"\xff", 2, "valid UTF-8"),
        (&["--public-key", text.to_str().unwrap()], b"hunter2", 1, "public key"),
        (&["--public-key", forged.to_str().unwrap()], b"hunter2", 1, "public key"),
        (&["--public-key", good, "--fingerprint", &"0".repeat(64)], b"hunter2", 1, "--fingerprint"),
        (&["--fingerprint", &"0".repeat(64)], b"hunter2", 1, &key.fingerprint()),
        (&["--operator-namespace", &site.namespace], b"hunter2", 1, "--operator-namespace"),
    ] {
        let ran = seal(flags, value).await;
        let error = ran.error(code);
        assert!(error.contains(says) && !error.contains("hunter"), "{flags:?}: {error}");
    }
    // Without a pin it says whose key it was; with the right one it has nothing to say.
    let unpinned = seal(&[], b"hunter2").await;
    assert!(unpinned.code == 0 && unpinned.err.contains(&key.fingerprint()), "{unpinned:?}");
    let pinned = seal(&["--fingerprint", &key.fingerprint()], b"hunter2").await;
    assert_eq!((pinned.code, pinned.err.as_str()), (0, ""));
    operator.stop().await;
}
