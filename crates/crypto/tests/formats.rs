//! The formats against an independent program: `tests/formats-go`, written in Go from docs/formats.md with Go's
//! standard library alone. It opens what this crate makes, and this crate opens what it seals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use managed_secrets_api::ManagedSecretSpec;
use managed_secrets_api::keys::ANNO_MAC;
use managed_secrets_api::limits::HISTORY_MAX;
use managed_secrets_api::record::{Delivered, History, KeptVersion, RecordMeta, Source, StoredRecord, open_kept};
use managed_secrets_api::types::{DeletionPolicy, SealedValue, SourceKind};
use managed_secrets_api::validate::validate_spec;
use managed_secrets_crypto::keyring::{Document, KekError, OpenError, Purpose, SealingKeyStatus, Wrapped};
use managed_secrets_crypto::mse1::{self, Place};
use managed_secrets_crypto::mss1::{self, Handling, Scope, Sealed};
use managed_secrets_crypto::recovery::{self, Recovered, RecoveryKey};
use managed_secrets_crypto::{Kek, Keyring, Plaintext};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const UID: &str = "6f1c3f0e-0000-4000-8000-000000000001";
const FROZEN_KEK: &str = "5555555555555555555555555555555555555555555555555555555555555555";
const FROZEN_KEYRING: &str = include_str!("vectors/msk1.json");
const FROZEN_KMS_KEYRING: &str = include_str!("vectors/msk1-kms.json");
const FROZEN_RECOVERY_KEY: &str = include_str!("vectors/recovery-key.txt");
const FROZEN_MAC: &str = "o2XvHHnhG07q6N8G+RiuJj96iL2SYb7S9C+Ss3gqisoBzJMYcKYK7A==";

/// The MAC of the same record with the two earlier values of [`frozen_history`].
const FROZEN_MAC_WITH_HISTORY: &str = "o2XvHHnhG07D2+6LRO45Vjg7Yf2OmT8gQfnTrnDbdSbdW30gYEgcwg==";

/// Gives the Go program a job; its findings. It opens every key of the job's keyring.
fn ask_go(job: &Value) -> Value {
    let found = findings_of_go(job);
    assert_eq!(found["keys"], Value::Null);
    found
}

/// Gives the Go program a job; its findings, under `keys` those about keys that do not open.
fn findings_of_go(job: &Value) -> Value {
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

/// A keyring as the first start creates it, and its document.
fn fresh_keyring(kek: &Kek) -> (Keyring, Value) {
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped::new("file", kek.key_id().to_string(), kek.wrap(bytes)?));
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

/// Whether the API's rule for sealed values, which cannot decode base64, accepts this text.
fn the_api_accepts(text: &str) -> bool {
    let value = Some(SealedValue(text.to_owned()));
    validate_spec("db", &ManagedSecretSpec { name: "DB".to_owned(), value, ..ManagedSecretSpec::default() }).is_empty()
}

fn metadata() -> RecordMeta {
    RecordMeta {
        owner: "db".to_owned(),
        uid: UID.to_owned(),
        id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".to_owned(),
        name: "DB_PASSWORD".to_owned(),
        description: "the one with ümlauts".to_owned(),
        created: "2026-11-23T08:00:00Z".to_owned(),
        updated: "2026-11-23T09:00:00Z".to_owned(),
        value_updated: "2026-11-23T08:30:00Z".to_owned(),
        version: 9,
        generation: 12,
        deletion_policy: DeletionPolicy::Retain,
        source: Source::Secret { uid: "uid".to_owned(), resource_version: "12".to_owned(), key: "key".to_owned() },
        target: Delivered::None,
        history: History::default(),
    }
}

/// What [`FROZEN_MAC`] covers, in the namespace `prod`.
fn frozen_metadata() -> RecordMeta {
    RecordMeta {
        description: String::new(),
        version: 7,
        generation: 9,
        deletion_policy: DeletionPolicy::Delete,
        source: Source::Generate { revision: None },
        target: Delivered::Own { name: "db".to_owned(), key: "value".to_owned() },
        ..metadata()
    }
}

/// Two earlier values, as [`FROZEN_MAC_WITH_HISTORY`] covers them.
fn frozen_history() -> History {
    let kept = |version, byte, created: &str, source| KeptVersion {
        version,
        commitment: [byte; 32],
        created: created.to_owned(),
        source,
    };
    History::new(vec![
        kept(4, 0x44, "2026-11-23T08:00:00Z", SourceKind::Value),
        kept(6, 0x66, "2026-11-23T08:20:00Z", SourceKind::ValueFrom),
    ])
}

fn frozen_record() -> String {
    include_str!("vectors/mse1.hex").split_whitespace().collect()
}

/// The texts that the Go program checks a MAC over: what `docs/formats.md` says about each field, written out.
fn mac_job(meta: &RecordMeta, source: &str, target: &str, commitment: &[u8; 32], mac: &str) -> Value {
    json!({
        "namespace": "prod", "name": meta.owner, "uid": meta.uid, "id": meta.id, "secretName": meta.name,
        "description": meta.description, "created": meta.created, "updated": meta.updated,
        "valueUpdated": meta.value_updated, "version": meta.version.to_string(),
        "generation": meta.generation.to_string(), "deletionPolicy": format!("{:?}", meta.deletion_policy),
        "source": source, "target": target, "history": meta.history.to_string(), "commitment": BASE64_STANDARD.encode(commitment), "mac": mac,
    })
}

#[test]
fn go_opens_what_we_make_from_keyring_and_kek_alone() {
    let kek = Kek::generate().unwrap();
    let (keyring, document) = fresh_keyring(&kek);
    let seed = keyring.active_seed().unwrap();
    let public = keyring.current_public_key().unwrap().key;
    let place = Place { namespace: "prod", object: "db" };

    let (mut records, mut sealed, mut expected, mut opened) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, value) in values().iter().enumerate() {
        let record = mse1::seal(seed, &place, UID, 9 + index as u64, value).unwrap();
        records.push(json!({"namespace": "prod", "name": "db", "bytes": hex::encode(record.as_bytes())}));
        let (_, scope) = &scopes()[index % 3];
        for (handling, found) in [
            (Handling::Deliverable, json!({"sha256": digest(value.as_bytes())})),
            (Handling::Kept, json!({"sha256": digest(value.as_bytes()), "kept": true})),
        ] {
            let text = mss1::seal(&public, scope, handling, value).unwrap();
            sealed.push(json!({"namespace": "prod", "name": "db", "text": text}));
            opened.push(found);
        }
        expected.push(digest(value.as_bytes()));
    }
    let record = mse1::seal(seed, &place, UID, 9, &value("x")).unwrap();
    let mac = metadata().annotations("prod", seed, record.commitment()).unwrap()[ANNO_MAC].clone();
    let mac_job = |target| mac_job(&metadata(), "valueFrom:uid:12:key", target, record.commitment(), &mac);

    let found = ask_go(&json!({
        "kek": hex::encode(kek.as_bytes()), "keyring": document, "records": records, "sealed": sealed,
        "macs": [mac_job("none"), mac_job("own:db:value")],
    }));
    for (index, digest) in expected.iter().enumerate() {
        assert_eq!(found["records"][index], json!({"sha256": digest, "uid": UID, "version": 9 + index}), "{index}");
    }
    assert_eq!(found["sealed"], Value::Array(opened));
    assert_eq!(found["macs"], json!([{}, {"error": "mismatch"}]));
}

#[test]
fn go_opens_the_frozen_vectors_with_the_frozen_keyring() {
    let record = frozen_record();
    let commitment = *mse1::Record::parse(&hex::decode(&record).unwrap()).unwrap().commitment();
    let with_history = RecordMeta { history: frozen_history(), ..frozen_metadata() };
    let sealed = include_str!("vectors/mss1.txt").trim_end();
    let kept = include_str!("vectors/mss1-kept.txt").trim_end();
    let found = ask_go(&json!({
        "kek": FROZEN_KEK, "keyring": serde_json::from_str::<Value>(FROZEN_KEYRING).unwrap(),
        "records": [{"namespace": "prod", "name": "db", "bytes": record}, {"namespace": "prod", "name": "db2", "bytes": record}],
        "macs": [
            mac_job(&frozen_metadata(), "generate", "own:db:value", &commitment, FROZEN_MAC),
            mac_job(&with_history, "generate", "own:db:value", &commitment, FROZEN_MAC_WITH_HISTORY),
            mac_job(&with_history, "generate", "own:db:value", &commitment, FROZEN_MAC),
        ],
        "sealed": [{"namespace": "prod", "name": "db", "text": sealed}, {"namespace": "prod", "name": "db2", "text": sealed}, {"namespace": "prod", "name": "db", "text": kept}],
    }));
    assert_eq!(found["records"], json!([{"sha256": digest(b"hunter2"), "uid": UID, "version": 7}, {"error": "wrap"}]));
    assert_eq!(found["macs"], json!([{}, {}, {"error": "mismatch"}]));
    assert_eq!(
        found["sealed"],
        json!([{"sha256": digest("grüße".as_bytes())}, {"error": "sealed for another place: prod/db"},
            {"sha256": digest("grüße".as_bytes()), "kept": true}])
    );
}

#[test]
fn go_opens_everything_with_the_recovery_key_alone() {
    let kek = Kek::generate().unwrap();
    let (keyring, document) = fresh_keyring(&kek);
    let recovery = RecoveryKey::generate().unwrap();
    let mut document: Document = serde_json::from_value(document).unwrap();
    assert!(recovery::cover(&mut document, &keyring, &[recovery.recipient()]).unwrap());
    let place = Place { namespace: "prod", object: "db" };
    let record = mse1::seal(keyring.active_seed().unwrap(), &place, UID, 9, &value("grüße")).unwrap();
    let public = keyring.current_public_key().unwrap().key;
    let text = mss1::seal(&public, &Scope::Cluster, Handling::Deliverable, &value("hunter2")).unwrap();
    let job = |key: &str, keyring: Value, record: &str, text: &str| {
        json!({
            "recoveryKey": key, "keyring": keyring,
            "records": [{"namespace": "prod", "name": "db", "bytes": record}],
            "sealed": [{"namespace": "prod", "name": "db", "text": text}],
        })
    };
    let found = ask_go(&job(
        &recovery.to_text(),
        serde_json::to_value(&document).unwrap(),
        &hex::encode(record.as_bytes()),
        &text,
    ));
    assert_eq!(found["records"], json!([{"sha256": digest("grüße".as_bytes()), "uid": UID, "version": 9}]));
    assert_eq!(found["sealed"], json!([{"sha256": digest(b"hunter2")}]));

    let frozen = serde_json::from_str(include_str!("vectors/msk1-recovery.json")).unwrap();
    let sealed = include_str!("vectors/mss1.txt").trim_end();
    let found = ask_go(&job(FROZEN_RECOVERY_KEY, frozen, &frozen_record(), sealed));
    assert_eq!(found["records"], json!([{"sha256": digest(b"hunter2"), "uid": UID, "version": 7}]));
    assert_eq!(found["sealed"], json!([{"sha256": digest("grüße".as_bytes())}]));
}

#[test]
fn go_opens_a_keyring_of_a_kms_with_the_recovery_key_and_else_names_the_plugin_that_it_needs() {
    let sealed = include_str!("vectors/mss1.txt").trim_end();
    let job = |key: &str, content: Value, keyring: &Document| {
        json!({
            key: content, "keyring": keyring,
            "records": [{"namespace": "prod", "name": "db", "bytes": frozen_record()}],
            "sealed": [{"namespace": "prod", "name": "db", "text": sealed}],
        })
    };
    let frozen: Document = serde_json::from_str(FROZEN_KMS_KEYRING).unwrap();
    let (seed, sealing_key) = ("a365ef1c79e11b4e", "efa4292736dc4550");
    let opened_record = json!([{"sha256": digest(b"hunter2"), "uid": UID, "version": 7}]);
    let opened_text = json!([{"sha256": digest("grüße".as_bytes())}]);
    let needs = |id: &str| json!({"id": id, "error": "needs the KMS plugin vault"});

    // No plugin, and another one. A KEK does not take its place.
    let other = json!({"aws": "unix:///run/none/kms.sock"});
    for (key, content) in [("kek", json!("")), ("kek", json!(FROZEN_KEK)), ("kms", other)] {
        let found = findings_of_go(&job(key, content, &frozen));
        assert_eq!(found["keys"], json!([needs(seed), needs(sealing_key)]), "{key}");
        assert_eq!(found["records"], json!([{"error": format!("seed {seed} unknown")}]), "{key}");
        assert_eq!(found["sealed"], json!([{"error": format!("sealing key {sealing_key} unknown")}]), "{key}");
    }

    // The recovery key opens everything without the KMS.
    let recovery = json!(FROZEN_RECOVERY_KEY);
    let found = ask_go(&job("recoveryKey", recovery.clone(), &frozen));
    assert_eq!((&found["records"], &found["sealed"]), (&opened_record, &opened_text));

    // The keyring on its way to the KMS: the seed is still under the KEK.
    let file: Document = serde_json::from_str(FROZEN_KEYRING).unwrap();
    let mut mixed = frozen.clone();
    mixed.entries[0].wrapped = file.entries[0].wrapped.clone();
    let found = findings_of_go(&job("kek", json!(FROZEN_KEK), &mixed));
    assert_eq!((&found["keys"], &found["records"]), (&json!([needs(sealing_key)]), &opened_record));

    // A key without a copy does not hold up the other one.
    let mut without = frozen;
    without.entries[0].recovery.clear();
    let found = findings_of_go(&job("recoveryKey", recovery, &without));
    assert_eq!(found["keys"], json!([{"id": seed, "error": "no copy for this recovery key"}]));
    assert_eq!(found["sealed"], opened_text);
}

/// Seed, sealing key and KEK are replaced, one after the other. What was made before each of them still opens.
#[test]
fn go_opens_what_was_made_before_rotations_of_every_key() {
    let (kek, new_kek) = (Kek::generate().unwrap(), Kek::generate().unwrap());
    let recovery = RecoveryKey::generate().unwrap();
    let wrap =
        |kek: &Kek, bytes: &[u8]| Ok::<_, KekError>(Wrapped::new("file", kek.key_id().to_string(), kek.wrap(bytes)?));
    let open = |document: &Document| Keyring::open([document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
    let place = Place { namespace: "prod", object: "db" };
    let (first, document) = fresh_keyring(&kek);
    let mut document: Document = serde_json::from_value(document).unwrap();
    let seal = |keyring: &Keyring| {
        let key = keyring.current_public_key().unwrap().key;
        mss1::seal(&key, &Scope::Cluster, Handling::Deliverable, &value("sealed")).unwrap()
    };
    let record = |keyring: &Keyring, version| {
        mse1::seal(keyring.active_seed().unwrap(), &place, UID, version, &value("recorded")).unwrap()
    };
    let (stays, moves, text) = (record(&first, 1), record(&first, 2), seal(&first));

    // A seed: one record stays under the earlier one, as in a backup, and one is re-wrapped.
    let seed = document.add_seed(jiff::Timestamp::now(), |bytes| wrap(&kek, bytes)).unwrap();
    assert!(document.activate_seed(seed));
    let second = open(&document);
    let under_second = mse1::rewrap(&moves, &place, |id| second.seed(id), second.active_seed().unwrap()).unwrap();
    assert_eq!((moves.seed_id(), under_second.seed_id()), (first.active_seed().unwrap().id(), seed));

    // A sealing key, and copies for the recovery key.
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let more = Keyring::generate_entries(later, |bytes| wrap(&kek, bytes)).unwrap();
    document.entries.extend(more.entries.into_iter().filter(|entry| entry.purpose == Purpose::Sealing));
    let third = open(&document).as_of(later);
    let new_text = seal(&third);
    let key_of = |text: &str| Sealed::parse(text).unwrap().key_id();
    assert_ne!(key_of(&text), key_of(&new_text));
    assert!(recovery::cover(&mut document, &third, &[recovery.recipient()]).unwrap());

    // The KEK.
    let keys = Recovered::open(&recovery, [&document]);
    let rewrapped = keys.rewrap(&document, |bytes| wrap(&new_kek, bytes)).unwrap();
    assert_eq!(rewrapped.entries.len(), document.entries.len());

    let records: Vec<_> = [&stays, &under_second, &record(&third, 3)]
        .map(|record| json!({"namespace": "prod", "name": "db", "bytes": hex::encode(record.as_bytes())}))
        .into();
    let texts = [&text, &new_text].map(|text| json!({"namespace": "prod", "name": "db", "text": text}));
    let opened: Vec<_> =
        (1..=3).map(|version| json!({"sha256": digest(b"recorded"), "uid": UID, "version": version})).collect();
    for (key, content, keyring) in [
        ("kek", hex::encode(kek.as_bytes()), &document),
        ("kek", hex::encode(new_kek.as_bytes()), &rewrapped),
        ("recoveryKey", recovery.to_text().to_string(), &rewrapped),
    ] {
        let found = ask_go(&json!({key: content, "keyring": keyring, "records": records, "sealed": texts}));
        assert_eq!(found["records"], json!(opened), "{key}");
        assert_eq!(found["sealed"], json!([{"sha256": digest(b"sealed")}, {"sha256": digest(b"sealed")}]), "{key}");
    }
}

#[test]
fn go_opens_a_record_that_was_rewrapped_and_its_earlier_value_with_the_recovery_key_alone() {
    let kek = Kek::generate().unwrap();
    let (before, document) = fresh_keyring(&kek);
    let mut document: Document = serde_json::from_value(document).unwrap();
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped::new("file", kek.key_id().to_string(), kek.wrap(bytes)?));
    let new = document.add_seed(jiff::Timestamp::now(), wrap).unwrap();
    assert!(document.activate_seed(new));
    let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
    let recovery = RecoveryKey::generate().unwrap();
    assert!(recovery::cover(&mut document, &keyring, &[recovery.recipient()]).unwrap());

    // As the operator stores it: the newest value and an earlier one, and then both under the new seed.
    let (old, active) = (before.active_seed().unwrap(), keyring.active_seed().unwrap());
    let place = Place { namespace: "prod", object: "db" };
    let [newest, earlier] = [(9, "newest"), (8, "earlier")]
        .map(|(version, text)| mse1::seal(old, &place, UID, version, &value(text)).unwrap());
    let kept = KeptVersion {
        version: 8,
        commitment: *earlier.commitment(),
        created: "2026-11-23T08:00:00Z".to_owned(),
        source: SourceKind::Generate,
    };
    let meta = RecordMeta { version: 9, history: History::new(vec![kept]), ..frozen_metadata() };
    let annotations = meta.annotations("prod", old, newest.commitment()).unwrap();
    let stored = StoredRecord::parse(&meta.object_name(), &meta.labels(), &annotations).unwrap();
    let data = [("value", newest.as_bytes()), ("value.8", earlier.as_bytes())];
    let rewrapped = stored.rewrap("prod", data, |id| keyring.seed(id), active).unwrap();
    assert!(rewrapped.data.values().all(|record| record.seed_id() == new));

    let bytes = |key: &str| hex::encode(rewrapped.data[key].as_bytes());
    let mac = &rewrapped.annotations[ANNO_MAC];
    let found = ask_go(&json!({
        "recoveryKey": *recovery.to_text(), "keyring": document,
        "records": [{"namespace": "prod", "name": "db", "bytes": bytes("value")}],
        "kept": [{"namespace": "prod", "name": "db", "history": meta.history.to_string(), "data": {"value.8": bytes("value.8")}}],
        "macs": [mac_job(&meta, "generate", "own:db:value", newest.commitment(), mac)],
    }));
    assert_eq!(found["records"], json!([{"sha256": digest(b"newest"), "uid": UID, "version": 9}]));
    assert_eq!(found["kept"], json!([[{"sha256": digest(b"earlier"), "uid": UID, "version": 8}]]));
    assert_eq!(found["macs"], json!([{}]));
}

#[test]
fn we_open_the_frozen_vectors_with_the_frozen_keyring() {
    let kek = Kek::new(&hex::decode(FROZEN_KEK).unwrap()).unwrap();
    let document: Document = serde_json::from_str(FROZEN_KEYRING).unwrap();
    assert!(document.entries.iter().all(|entry| entry.wrapped.key_id == kek.key_id().to_string()));
    let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();

    let record = mse1::Record::parse(&hex::decode(frozen_record()).unwrap()).unwrap();
    let place = Place { namespace: "prod", object: "db" };
    assert!(mse1::open(&record, &place, |id| keyring.seed(id)).unwrap().same_as_bytes(b"hunter2"));
    let (meta, seed) = (frozen_metadata(), keyring.active_seed().unwrap());
    let annotations = meta.annotations("prod", seed, record.commitment()).unwrap();
    assert_eq!(annotations[ANNO_MAC], FROZEN_MAC);
    let stored = StoredRecord::parse(&meta.object_name(), &meta.labels(), &annotations).unwrap();
    assert_eq!(stored.meta, meta);
    stored.verify("prod", |id| keyring.seed(id)).unwrap();
    let with_history = RecordMeta { history: frozen_history(), ..frozen_metadata() };
    let annotations = with_history.annotations("prod", seed, record.commitment()).unwrap();
    assert_eq!(annotations[ANNO_MAC], FROZEN_MAC_WITH_HISTORY);
    for (text, handling) in [
        (include_str!("vectors/mss1.txt"), Handling::Deliverable),
        (include_str!("vectors/mss1-kept.txt"), Handling::Kept),
    ] {
        let sealed = Sealed::parse(text.trim_end()).unwrap();
        let SealingKeyStatus::Usable(key) = keyring.sealing_key(sealed.key_id()) else { panic!("the sealing key") };
        assert_eq!(sealed.handling(), handling);
        assert!(sealed.open(key, "prod", "db").unwrap().same_as_bytes("grüße".as_bytes()));
    }
}

/// The annotation that the plugin of [`FROZEN_KMS_KEYRING`] needs back.
const KMS_ANNOTATION: &str = "algorithm.kms.managedsecrets.dev";

/// The cipher of that plugin, for a key of its file: that of `tests/kms`.
fn kms_cipher(key_id: &str) -> Aes256Gcm {
    let file: Value = serde_json::from_str(include_str!("vectors/kms-keys.json")).unwrap();
    let key = BASE64_STANDARD.decode(file["keys"][key_id].as_str().unwrap()).unwrap();
    let key: [u8; 32] = key.try_into().unwrap();
    Aes256Gcm::new(<&Key<Aes256Gcm>>::from(&key))
}

fn kms_encrypt(key_id: &str, nonce: [u8; 12], plaintext: &[u8]) -> Wrapped {
    let mut sealed = plaintext.to_vec();
    kms_cipher(key_id).encrypt_in_place(&Nonce::from(nonce), key_id.as_bytes(), &mut sealed).unwrap();
    let ciphertext = BASE64_STANDARD.encode([nonce.as_slice(), &sealed].concat());
    let annotations = [(KMS_ANNOTATION.to_owned(), BASE64_STANDARD.encode("AES-256-GCM"))].into();
    Wrapped { annotations, ..Wrapped::new("kms:vault", key_id, ciphertext) }
}

fn kms_decrypt(wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, KekError> {
    assert_eq!(wrapped.provider, "kms:vault");
    assert_eq!(wrapped.annotations[KMS_ANNOTATION], BASE64_STANDARD.encode("AES-256-GCM"));
    let sealed = BASE64_STANDARD.decode(&wrapped.ciphertext).unwrap();
    let (nonce, sealed) = sealed.split_first_chunk::<12>().unwrap();
    let mut plaintext = Zeroizing::new(sealed.to_vec());
    kms_cipher(&wrapped.key_id)
        .decrypt_in_place(&Nonce::from(*nonce), wrapped.key_id.as_bytes(), &mut *plaintext)
        .map_err(|_| KekError::Refused)?;
    Ok(plaintext)
}

#[test]
fn we_open_the_frozen_keyring_of_a_kms_and_write_the_same() {
    let document: Document = serde_json::from_str(FROZEN_KMS_KEYRING).unwrap();
    let keyring = Keyring::open([&document], kms_decrypt).unwrap();
    let record = mse1::Record::parse(&hex::decode(frozen_record()).unwrap()).unwrap();
    let place = Place { namespace: "prod", object: "db" };
    assert!(mse1::open(&record, &place, |id| keyring.seed(id)).unwrap().same_as_bytes(b"hunter2"));
    let sealed = Sealed::parse(include_str!("vectors/mss1.txt").trim_end()).unwrap();
    let SealingKeyStatus::Usable(key) = keyring.sealing_key(sealed.key_id()) else { panic!("the sealing key") };
    assert!(sealed.open(key, "prod", "db").unwrap().same_as_bytes("grüße".as_bytes()));

    // The recovery key opens the same without the KMS, which then encrypts the same bytes.
    let recovered = Recovered::open(&RecoveryKey::parse(FROZEN_RECOVERY_KEY).unwrap(), [&document]);
    assert_eq!((recovered.len(), recovered.lost()), (2, &[][..]));
    assert!(mse1::open(&record, &place, |id| recovered.seed(id)).unwrap().same_as_bytes(b"hunter2"));
    let mut nonces = [[0xbb; 12], [0xcc; 12]].into_iter();
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(kms_encrypt("projects/vault/keys/3", nonces.next().unwrap(), bytes));
    let written = recovered.rewrap(&document, wrap).unwrap();
    assert_eq!(serde_json::to_string_pretty(&written).unwrap(), FROZEN_KMS_KEYRING.trim_end());

    // A plugin authenticates no purpose, id and date: what it opens must be what the entry says.
    let [seed, sealing_key] = &document.entries[..] else { panic!("two entries") };
    let mut exchanged = document.clone();
    exchanged.entries[0].wrapped = sealing_key.wrapped.clone();
    exchanged.entries[1].wrapped = seed.wrapped.clone();
    assert!(matches!(Keyring::open([&exchanged], kms_decrypt), Err(OpenError::Entry { what: "the purpose", .. })));
}

#[test]
fn the_page_shows_the_frozen_vectors() {
    let page = include_str!("../../../docs/formats.md");
    let keyring: Value = serde_json::from_str(FROZEN_KEYRING).unwrap();
    for shown in [
        include_str!("vectors/mse1.hex").trim_end(),
        FROZEN_MAC,
        FROZEN_MAC_WITH_HISTORY,
        &frozen_history().to_string().replace(' ', "\n"),
        keyring["entries"][0]["wrapped"]["ciphertext"].as_str().unwrap(),
    ] {
        assert!(page.contains(shown), "docs/formats.md does not show {shown}");
    }
}

#[test]
fn go_opens_the_earlier_values_of_a_record() {
    let kek = Kek::generate().unwrap();
    let (keyring, document) = fresh_keyring(&kek);
    let seed = keyring.active_seed().unwrap();
    let place = Place { namespace: "prod", object: "db" };
    let record =
        |version: u64, uid: &str| mse1::seal(seed, &place, uid, version, &value(&version.to_string())).unwrap();
    // An earlier ManagedSecret of the name wrote the third.
    let stored = [record(8, UID), record(7, UID), record(3, "another-uid")];
    let kept = stored.iter().map(|record| KeptVersion {
        version: record.version(),
        commitment: *record.commitment(),
        created: "2026-11-23T08:00:00Z".to_owned(),
        source: SourceKind::Generate,
    });
    let history = History::new(kept.collect());
    let bytes = |record: &mse1::Record| hex::encode(record.as_bytes());
    let job = |data: Value| json!({"namespace": "prod", "name": "db", "history": history.to_string(), "data": data});
    let [eighth, seventh, third] = stored.each_ref().map(bytes);
    let found = ask_go(&json!({
        "kek": hex::encode(kek.as_bytes()), "keyring": document, "kept": [
            job(json!({"value.8": eighth, "value.7": seventh, "value.3": third})),
            // Lost, exchanged, and one that the history does not name.
            job(json!({"value.7": bytes(&record(7, UID)), "value.3": third, "value.2": seventh})),
        ],
    }));
    let is = |version: u64, uid: &str| json!({"sha256": digest(version.to_string().as_bytes()), "uid": uid, "version": version});
    assert_eq!(found["kept"][0], json!([is(8, UID), is(7, UID), is(3, "another-uid")]));
    assert_eq!(found["kept"][1], json!([{"error": "missing"}, {"error": "another version"}, is(3, "another-uid")]));
    // The operator's own reader agrees.
    for (kept, stored) in history.iter().zip(&stored) {
        let opened = open_kept(stored.as_bytes(), &place, kept, |id| keyring.seed(id)).map_err(drop).unwrap();
        assert!(opened.value.same_as_bytes(kept.version.to_string().as_bytes()));
        assert_eq!(opened.bytes.version(), kept.version);
    }
}

#[test]
fn eleven_records_of_the_largest_value_fit_into_a_secret() {
    /// What Kubernetes allows the data of a Secret (`MaxSecretSize`).
    const SECRET_MAX: usize = 1024 * 1024;
    let seed = managed_secrets_crypto::Seed::generate().unwrap();
    let place = Place { namespace: "prod", object: "db" };
    let largest = value(&"😀".repeat(3500));
    let record = mse1::seal(&seed, &place, &"u".repeat(64), u64::MAX, &largest).unwrap();
    let all = record.as_bytes().len() * (1 + usize::try_from(HISTORY_MAX).unwrap());
    assert!((182_000..184_000).contains(&all), "{all} bytes: docs/formats.md says 183 KB");
    assert!(all < SECRET_MAX / 4, "{all} bytes");
}

#[test]
fn we_open_what_go_seals() {
    let kek = Kek::generate().unwrap();
    let (keyring, _) = fresh_keyring(&kek);
    let public = keyring.current_public_key().unwrap().key;
    let mut jobs = Vec::new();
    for (index, value) in values().iter().enumerate() {
        let (code, scope) = &scopes()[index % 3];
        let kept = if index % 2 == 0 { 0 } else { 0x80 };
        jobs.push(json!({
            "scope": code | kept, "namespace": scope.namespace().unwrap_or_default(), "name": scope.name().unwrap_or_default(),
            "publicKey": BASE64_STANDARD.encode(public.as_bytes()),
            "value": std::str::from_utf8(value.as_bytes()).unwrap(),
        }));
    }
    let found = ask_go(&json!({"seal": jobs}));
    for (index, job) in jobs.iter().enumerate() {
        let text = found["seal"][index]["text"].as_str().unwrap_or_else(|| panic!("{}", found["seal"][index]));
        assert!(the_api_accepts(text), "{index}");
        let sealed = Sealed::parse(text).unwrap();
        let handling = if index % 2 == 0 { Handling::Deliverable } else { Handling::Kept };
        assert_eq!((sealed.scope(), sealed.handling()), (&scopes()[index % 3].1, handling));
        let SealingKeyStatus::Usable(key) = keyring.sealing_key(sealed.key_id()) else { panic!("{index}: key") };
        let opened = sealed.open(key, "prod", "db").unwrap();
        assert!(opened.same_as_bytes(job["value"].as_str().unwrap().as_bytes()), "{index}");
    }
}

#[test]
fn the_api_accepts_whatever_the_format_allows() {
    // Text in format that no key opens: every length of names and value, and every byte a key id can begin with.
    let check = |scope: u8, namespace: usize, name: usize, bucket: usize, key_id: u8| {
        let mut bytes = vec![0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02];
        bytes.extend([key_id; 8]);
        bytes.push(scope);
        for length in [namespace, name] {
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            bytes.resize(bytes.len() + length, b'n');
        }
        bytes.resize(bytes.len() + 1120 + bucket + 16, 0xa5);
        let text = format!("mss1.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let what = format!("{scope} {namespace} {name} {bucket} {key_id}");
        assert!(Sealed::parse(&text).is_ok(), "{what}");
        assert!(the_api_accepts(&text), "{what}");
    };
    for bucket in [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384] {
        check(3, 0, 0, bucket, 0);
        check(0x83, 0, 0, bucket, 0);
        for length in [1, 2, 3, 30, 61, 62, 63] {
            check(2, length, 0, bucket, 0);
            check(1, length, 1, bucket, 0);
            check(0x81, length, 1, bucket, 0);
        }
        for length in [1, 2, 3, 100, 251, 252, 253] {
            check(1, 63, length, bucket, 0);
        }
    }
    for key_id in 0..=255 {
        check(1, 4, 2, 64, key_id);
    }
}
