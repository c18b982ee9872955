//! The formats against an independent program: `tests/formats-go`, written in Go from docs/formats.md with Go's standard
//! library alone. It opens what this crate makes, and this crate opens what it seals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use managed_secrets::crypto::keyring::{KekError, SealingKeyStatus, Wrapped};
use managed_secrets::crypto::mac::{self, MacInput};
use managed_secrets::crypto::mse1::{self, Place};
use managed_secrets::crypto::mss1::{self, Scope, Sealed};
use managed_secrets::crypto::{Kek, Keyring, Plaintext};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const UID: &str = "6f1c3f0e-0000-4000-8000-000000000001";

/// Gives the Go program a job; its findings.
fn ask_go(job: &Value) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats-go");
    let mut child = Command::new("go")
        .args(["run", "."])
        .current_dir(folder)
        .env("GOWORK", "off")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs Go 1.26 or newer in PATH (https://go.dev/dl): {error}"));
    child.stdin.take().unwrap().write_all(job.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "go run failed:\n{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn digest(value: &[u8]) -> String {
    hex::encode(Sha256::digest(value))
}

fn value(text: &str) -> Plaintext {
    Plaintext::new(text.as_bytes().to_vec().into()).unwrap()
}

/// Values at the ends of their buckets, and of all widths.
fn values() -> Vec<Plaintext> {
    let mut values: Vec<_> =
        [1, 60, 61, 124, 125, 3500].iter().map(|length| Plaintext::generate(*length, b"abc").unwrap()).collect();
    values.push(value("grüße 😀\n"));
    values.push(value(&"😀".repeat(3500)));
    values
}

/// A keyring made as at the first start, and its document.
fn fresh_keyring(kek: &Kek) -> (Keyring, Value) {
    let wrap = |bytes: &[u8]| {
        Ok::<_, KekError>(Wrapped {
            provider: "file".to_owned(),
            key_id: kek.key_id().to_string(),
            ciphertext: kek.wrap(bytes)?,
        })
    };
    let document = Keyring::generate_entries(jiff::Timestamp::now(), wrap).unwrap();
    let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
    (keyring, serde_json::to_value(&document).unwrap())
}

fn scopes() -> [(u8, Scope); 3] {
    let (namespace, name) = ("prod".to_owned(), "db".to_owned());
    [
        (1, Scope::Strict { namespace: namespace.clone(), name }),
        (2, Scope::Namespace { namespace }),
        (3, Scope::Cluster),
    ]
}

fn metadata() -> MacInput<'static> {
    MacInput {
        namespace: "prod",
        object: "db",
        uid: UID,
        id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11",
        name: "DB_PASSWORD",
        description: "the one with ümlauts",
        created: "2026-11-23T08:00:00Z",
        updated: "2026-11-23T09:00:00Z",
        value_updated: "2026-11-23T08:30:00Z",
        version: "9",
        generation: "12",
        deletion_policy: "Retain",
        source: "valueFrom:uid:12:key",
        target: "none",
    }
}

fn mac_job(input: &MacInput<'_>, commitment: &[u8; 32], mac: &str) -> Value {
    json!({
        "namespace": input.namespace, "name": input.object, "uid": input.uid, "id": input.id, "secretName": input.name,
        "description": input.description, "created": input.created, "updated": input.updated,
        "valueUpdated": input.value_updated, "version": input.version, "generation": input.generation,
        "deletionPolicy": input.deletion_policy, "source": input.source, "target": input.target,
        "commitment": BASE64_STANDARD.encode(commitment), "mac": mac,
    })
}

#[test]
fn go_opens_what_we_make_from_keyring_and_kek_alone() {
    let kek = Kek::generate().unwrap();
    let (keyring, document) = fresh_keyring(&kek);
    let seed = keyring.active_seed().unwrap();
    let public = keyring.current_public_key().unwrap().key;
    let place = Place { namespace: "prod", object: "db" };

    let (mut records, mut sealed, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (index, value) in values().iter().enumerate() {
        let record = mse1::seal(seed, &place, UID, 9 + index as u64, value).unwrap();
        records.push(json!({"namespace": "prod", "name": "db", "bytes": hex::encode(record.as_bytes())}));
        let (_, scope) = &scopes()[index % 3];
        let text = mss1::seal(&public, scope, value).unwrap();
        sealed.push(json!({"namespace": "prod", "name": "db", "text": text}));
        expected.push(digest(value.as_bytes()));
    }
    let record = mse1::seal(seed, &place, UID, 9, &value("x")).unwrap();
    let mac = mac::sign(seed, &metadata(), record.commitment()).unwrap();
    let forged = MacInput { target: "own:db:value", ..metadata() };

    let found = ask_go(&json!({
        "kek": hex::encode(kek.as_bytes()), "keyring": document, "records": records, "sealed": sealed,
        "macs": [mac_job(&metadata(), record.commitment(), &mac), mac_job(&forged, record.commitment(), &mac)],
    }));
    for (index, digest) in expected.iter().enumerate() {
        assert_eq!(found["records"][index], json!({"sha256": digest, "uid": UID, "version": 9 + index}), "{index}");
        assert_eq!(found["sealed"][index], json!({"sha256": digest}), "{index}");
    }
    assert_eq!(found["macs"], json!([{}, {"error": "mismatch"}]));
}

#[test]
fn go_opens_the_frozen_vectors() {
    let record: String = include_str!("vectors/mse1.hex").split_whitespace().collect();
    let commitment = *mse1::Record::parse(&hex::decode(&record).unwrap()).unwrap().commitment();
    let input = MacInput {
        description: "",
        version: "7",
        generation: "9",
        deletion_policy: "Delete",
        source: "generate",
        target: "own:db:value",
        ..metadata()
    };
    let mac = "o2XvHHnhG07q6N8G+RiuJj96iL2SYb7S9C+Ss3gqisoBzJMYcKYK7A==";
    let sealed = include_str!("vectors/mss1.txt").trim_end();
    let found = ask_go(&json!({
        "seeds": ["11".repeat(32)], "sealingSeeds": ["22".repeat(32)],
        "records": [{"namespace": "prod", "name": "db", "bytes": record}, {"namespace": "prod", "name": "db2", "bytes": record}],
        "macs": [mac_job(&input, &commitment, mac)],
        "sealed": [{"namespace": "prod", "name": "db", "text": sealed}, {"namespace": "prod", "name": "db2", "text": sealed}],
    }));
    assert_eq!(found["records"], json!([{"sha256": digest(b"hunter2"), "uid": UID, "version": 7}, {"error": "wrap"}]));
    assert_eq!(found["macs"], json!([{}]));
    assert_eq!(
        found["sealed"],
        json!([{"sha256": digest("grüße".as_bytes())}, {"error": "sealed for another place: prod/db"}])
    );
}

#[test]
fn we_open_what_go_seals() {
    let kek = Kek::generate().unwrap();
    let (keyring, _) = fresh_keyring(&kek);
    let public = keyring.current_public_key().unwrap().key;
    let mut jobs = Vec::new();
    for (index, value) in values().iter().enumerate() {
        let (code, scope) = &scopes()[index % 3];
        jobs.push(json!({
            "scope": code, "namespace": scope.namespace().unwrap_or_default(), "name": scope.name().unwrap_or_default(),
            "publicKey": BASE64_STANDARD.encode(public.as_bytes()),
            "value": std::str::from_utf8(value.as_bytes()).unwrap(),
        }));
    }
    let found = ask_go(&json!({"seal": jobs}));
    for (index, job) in jobs.iter().enumerate() {
        let text = found["seal"][index]["text"].as_str().unwrap_or_else(|| panic!("{}", found["seal"][index]));
        assert!(mss1::well_formed(text), "{index}");
        let sealed = Sealed::parse(text).unwrap();
        assert_eq!(sealed.scope(), &scopes()[index % 3].1);
        let SealingKeyStatus::Usable(key) = keyring.sealing_key(sealed.key_id()) else { panic!("{index}: key") };
        let opened = sealed.open(key, "prod", "db").unwrap();
        assert!(opened.same_as_bytes(job["value"].as_str().unwrap().as_bytes()), "{index}");
    }
}
