//! KMS v2 plugins: `managed-secrets kms check` against Kubernetes' own plugin server, which does right or wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part of the plugin")]

mod keyring;
pub(crate) mod plugin;

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_crypto::keyring::{Document, Wrapped};
use managed_secrets_kms::{Call, Encrypted, KmsError, Plugin as Client, Violation, check};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::root;

use self::plugin::Plugin;
use super::program::run;

/// Long enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// A keyring under the plugin of `tests/kms` with the keys of `kms-keys.json`.
const FROZEN_KEYRING: &str = include_str!("../../crates/crypto/tests/vectors/msk1-kms.json");

/// What `kms check -o json` says: the level and the message of each check, and the exit code.
async fn conformance(plugin: &Plugin, timeout: &str) -> (BTreeMap<String, (String, String)>, i32) {
    conformance_of(&plugin.socket().to_string(), timeout).await
}

async fn conformance_of(socket: &str, timeout: &str) -> (BTreeMap<String, (String, String)>, i32) {
    let ran = run(&["kms", "check", socket, "-o", "json", "--timeout", timeout], None, &[], b"").await;
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["socket"], json!(socket));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let checks: BTreeMap<_, _> =
        checks.map(|check| (text(&check["name"]), (text(&check["level"]), text(&check["message"])))).collect();
    assert_eq!(checks.len(), check::NAMES.len());
    (checks, ran.code)
}

/// The plugin that is given, or a plugin of this project on Kubernetes' own server.
#[tokio::test]
async fn a_plugin_passes_the_conformance_test() {
    if let Some(socket) = plugin::given() {
        let (checks, code) = conformance_of(&socket.to_string(), "30").await;
        assert_eq!(code, 0, "{checks:#?}");
        return;
    }
    let plugin = Plugin::start().await;
    let (checks, code) = conformance(&plugin, "30").await;
    assert_eq!(code, 0, "{checks:?}");
    for (name, (level, message)) in &checks {
        // How fast this machine is now is no matter of the test.
        assert!(level == "ok" || name == "latency", "{name}: {level}: {message}");
    }
    assert_eq!(checks["annotations"].1, "1, needed to decrypt");

    let ran = run(&["kms", "check", &plugin.socket().to_string()], None, &[], b"").await;
    let text = ran.ok();
    assert!(text.contains("ok       round trip: decrypts to what was encrypted\n"), "{text}");
    assert_eq!(text.lines().count(), check::NAMES.len());
}

#[tokio::test]
async fn each_fault_fails_the_check_that_is_named_after_it() {
    let plugin = Plugin::start().await;
    for (faults, name, says) in [
        (json!({"version": "v1beta1"}), "version", "must be v2 or v2beta1"),
        (json!({"healthz": "no\nKMS"}), "healthz", "no KMS"),
        (json!({"statusKeyId": ""}), "key id", "1 to 1024 bytes"),
        (json!({"statusKeyId": "k".repeat(1025)}), "key id", "1 to 1024 bytes"),
        (json!({"restlessKeyId": true}), "key id", "differed between two answers"),
        (json!({"fail": ["Status"]}), "version", "the KMS does not answer"),
        (json!({"fail": ["Encrypt"]}), "encrypt", "answered Encrypt with the error Unknown"),
        (json!({"ciphertextBytes": 0}), "encrypt", "1 to 1024 bytes"),
        (json!({"ciphertextBytes": 1025}), "encrypt", "1 to 1024 bytes"),
        (json!({"annotations": {"noDomain": "x"}}), "encrypt", "fully qualified domain name"),
        (json!({"annotationBytes": 33 * 1024}), "encrypt", "must not be larger than 32768 bytes"),
        (json!({"noEncryption": true}), "encrypt", "must not appear in the answer"),
        (json!({"encryptKeyId": "2"}), "key id of encrypt", "the one of the last status"),
        (
            json!({"fail": ["Decrypt"]}),
            "round trip",
            "answered Decrypt with the error Unknown: the KMS does not answer",
        ),
        (json!({"wrongPlaintext": true}), "round trip", "must decrypt to what was encrypted"),
        (json!({"acceptsAll": true}), "altered ciphertext", "must be refused"),
        (json!({"crashOnAltered": true}), "altered ciphertext", "must be refused with an error: cannot connect"),
    ] {
        plugin.faults(&faults);
        let (checks, code) = conformance(&plugin, "30").await;
        assert_eq!(code, 1, "{faults}");
        let (level, message) = &checks[name];
        assert!(level == "failed" && message.contains(says), "{faults}: {name}: {level}: {message}");
    }
    // Azure's plugin refuses every key but its own, and needs its annotations: that is no fault.
    plugin.faults(&json!({"strict": true}));
    let (checks, code) = conformance(&plugin, "30").await;
    assert_eq!(code, 0, "{checks:?}");
}

#[tokio::test]
async fn a_plugin_that_hangs_or_vanishes_is_an_error_in_time() {
    let mut plugin = Plugin::start().await;
    plugin.faults(&json!({"hang": ["Decrypt"]}));
    let (checks, code) = conformance(&plugin, "2").await;
    assert_eq!(code, 1);
    assert_eq!(checks["round trip"].1, "the plugin did not answer Decrypt within 2 s");
    // On what every reader of the keyring can send.
    plugin.faults(&json!({"hangOnAltered": true}));
    let (checks, code) = conformance(&plugin, "2").await;
    assert_eq!((code, checks["round trip"].0.as_str()), (1, "ok"));
    let (level, message) = &checks["altered ciphertext"];
    assert!(level == "failed" && message.contains("did not answer Decrypt within 2 s"), "{level}: {message}");
    plugin.stop();
    let (checks, code) = conformance(&plugin, "2").await;
    assert_eq!((code, checks["version"].0.as_str()), (1, "failed"));
    assert!(checks["version"].1.contains("cannot connect to the plugin"), "{:?}", checks["version"]);
    assert_eq!(checks["latency"].0, "skipped");
}

#[tokio::test]
async fn a_client_connects_again_after_the_plugin_was_restarted() {
    let mut plugin = Plugin::start().await;
    let client = Client::new(&plugin.socket(), PATIENCE);
    let status = client.status().await.unwrap();
    let encrypted = client.encrypt(&[7; 100], &status).await.unwrap();
    plugin.stop();
    assert!(matches!(client.status().await.unwrap_err(), KmsError::Connect { .. } | KmsError::Refused { .. }));
    plugin.run().await;
    assert_eq!(client.decrypt(&encrypted).await.unwrap().as_slice(), [7; 100]);
    // A key that was replaced in between: the answer names another one than the status that was asked before.
    plugin.rotate("2");
    let error = client.encrypt(&[7; 100], &status).await.unwrap_err();
    assert_eq!(error, KmsError::Violation { call: Call::Encrypt, what: Violation::OtherKey });
    assert_eq!(client.status().await.unwrap().key_id, "2");
    assert_eq!(client.decrypt(&encrypted).await.unwrap().as_slice(), [7; 100]);
}

/// The keyring of `docs/formats.md` under a KMS plugin, opened through the plugin by the operator's client, and by the Go program
/// that shares no code with the operator.
#[tokio::test]
async fn the_frozen_keyring_of_a_plugin_opens_in_both_languages() {
    let frozen: Document = serde_json::from_str(FROZEN_KEYRING).unwrap();
    let plugin = Plugin::start().await;
    plugin.hold(&serde_json::from_str(include_str!("../../crates/crypto/tests/vectors/kms-keys.json")).unwrap());
    let client = Client::new(&plugin.socket(), PATIENCE);
    for entry in &frozen.entries {
        let Wrapped { key_id, ciphertext, annotations, .. } = &entry.wrapped;
        let annotations = annotations.iter().map(|(key, value)| (key.clone(), BASE64_STANDARD.decode(value).unwrap()));
        let opened = client
            .decrypt(&Encrypted {
                ciphertext: BASE64_STANDARD.decode(ciphertext).unwrap(),
                key_id: key_id.clone(),
                annotations: annotations.collect(),
            })
            .await
            .unwrap();
        assert_eq!(entry.verify(&opened), Ok(()));
    }

    let record: String = include_str!("../../crates/crypto/tests/vectors/mse1.hex").split_whitespace().collect();
    let sealed = include_str!("../../crates/crypto/tests/vectors/mss1.txt").trim_end();
    let socket = plugin.socket().to_string();
    let ask = |keyring: &Document| {
        let job = json!({
            "kms": {"vault": socket}, "keyring": keyring,
            "records": [{"namespace": "prod", "name": "db", "bytes": record}],
            "sealed": [{"namespace": "prod", "name": "db", "text": sealed}],
        });
        tokio::task::spawn_blocking(move || ask_go(&job))
    };
    let found = ask(&frozen).await.unwrap();
    assert_eq!(found["keys"], Value::Null);
    let digest = |value: &str| json!(hex::encode(Sha256::digest(value)));
    assert_eq!((&found["records"][0]["sha256"], &found["sealed"][0]["sha256"]), (&digest("hunter2"), &digest("grüße")));

    // What the plugin refuses, and what it opens although it is the key of another entry.
    let mut altered = frozen.clone();
    altered.entries[0].wrapped.annotations.clear();
    altered.entries[1].wrapped.key_id = "projects/vault/keys/4".to_owned();
    let refused = ask(&altered).await.unwrap();
    for (index, says) in ["the annotation is missing", "no such key"].into_iter().enumerate() {
        let error = refused["keys"][index]["error"].as_str().unwrap();
        assert!(error.starts_with("Decrypt: status \"2\"") && error.contains(says), "{error}");
    }
    let mut exchanged = frozen.clone();
    exchanged.entries[0].wrapped = frozen.entries[1].wrapped.clone();
    exchanged.entries[1].wrapped = frozen.entries[0].wrapped.clone();
    let refused = ask(&exchanged).await.unwrap();
    let errors: Vec<_> = refused["keys"].as_array().unwrap().iter().map(|key| &key["error"]).collect();
    assert_eq!(errors, ["is not what is wrapped"; 2]);
}

/// Gives the Go program of `docs/formats.md` a job; its findings. Blocks.
fn ask_go(job: &Value) -> Value {
    let mut child = Command::new("go")
        .args(["run", "."])
        .current_dir(root().join("crates/crypto/tests/formats-go"))
        .env("GOWORK", "off")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn wrong_usage_is_one_line() {
    for (socket, says) in [
        ("/run/kms/plugin.sock", "must be unix:// and an absolute path"),
        ("unix:///@kms", "must not be an abstract socket"),
    ] {
        let ran = run(&["kms", "check", socket], None, &[], b"").await;
        assert!(ran.error(2).contains(says), "{ran:?}");
    }
}
