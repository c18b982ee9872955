//! A backup that was tampered with: an attacker's keys are in it, newer than all others, and `active`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    Kek, Keyring,
    keyring::{Document, KekError, Purpose, State, Wrapped},
    mss1::PublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::integration::{
    lost_keys::Keys,
    msec::Plugin,
    objects::{Site, sealed},
    operator::public_key_of,
};

/// An attacker's keys: their KEK, and the entries, created at this time.
struct Attacker {
    kek: Kek,
    document: Document,
    public_key: PublicKey,
}

impl Attacker {
    fn at(created: Timestamp) -> Self {
        let kek = Kek::generate().unwrap();
        let wrap = |bytes: &[u8]| {
            let (provider, key_id) = ("local".to_owned(), kek.key_id().to_string());
            Ok::<_, KekError>(Wrapped::new(provider, key_id, kek.wrap(bytes)?))
        };
        let document = Keyring::generate_entries(created, wrap).unwrap();
        let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
        let public_key = keyring.current_public_key().unwrap().key.clone();
        Self { kek, document, public_key }
    }

    /// A backup's keyring and KEKs with the attacker's keys among them. The keys that were there are called revoked.
    fn tampered_backup(&self, site: &Site, mut keyring: Document) -> Value {
        for entry in &mut keyring.entries {
            entry.state = State::Revoked;
        }
        keyring.entries.extend(self.document.entries.clone());
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&keyring).unwrap());
        let secret = |name: &str, type_: &str, key: &str, content: &str| {
            json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "data": {key: content},
                "metadata": {"name": name, "namespace": site.namespace}})
        };
        let kek_name = format!("{}{}", keys::KEK_PREFIX, self.kek.key_id());
        let kek = BASE64_STANDARD.encode(self.kek.as_bytes());
        json!({"apiVersion": "v1", "kind": "List", "items": [
            secret(keys::KEYRING_NAME, keys::TYPE_KEYRING, keys::KEYRING_DATA_KEY, &content),
            secret(&kek_name, keys::TYPE_KEK, keys::KEK_DATA_KEY, &kek),
        ]})
    }
}

fn fingerprint(backup: &Value) -> String {
    let content = backup["items"][0]["data"][keys::KEYRING_DATA_KEY].as_str().unwrap();
    hex::encode(Sha256::digest(BASE64_STANDARD.decode(content).unwrap()))
}

fn document(secret: &Secret) -> Document {
    serde_json::from_slice(&secret.data.as_ref().unwrap()[keys::KEYRING_DATA_KEY].0).unwrap()
}

fn empty() -> Document {
    Document {
        format: "MSK1".to_owned(),
        generation: 0,
        entries: Vec::new(),
        given_up: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}

async fn keyrings(site: &Site) -> usize {
    let all = ListParams::default().fields(&format!("type={}", keys::TYPE_KEYRING));
    site.secrets().list(&all).await.unwrap().items.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attackers_keys_are_confirmed_by_name_encrypt_nothing_and_revoke_nothing() {
    let (keys, site) = (Keys::new().await, Site::new("tampered").await);
    let operator = keys.serve(&site);
    site.apply("before", json!({"name": "BEFORE", "generate": {}})).await;
    site.served("before").await;
    let own_key = public_key_of(&site.client, &keys.site.namespace).await;
    let own = document(&keys.site.secret(keys::KEYRING_NAME).await.unwrap());

    // Newer than the operator's own, and as far ahead as a clock may be.
    let attacker = Attacker::at(Timestamp::now() + SignedDuration::from_mins(4));
    let backup = attacker.tampered_backup(&keys.site, own.clone());
    let restorer = Plugin::new(&site).await;
    let file = restorer.folder.file("backup.json", backup.to_string());
    let place = ["--operator-namespace", keys.site.namespace.as_str()];
    let restore =
        async |arguments: &[&str]| restorer.restore(&[&[file.as_str(), "--yes"], arguments, &place].concat()).await;
    let ran = restore(&[]).await;
    let expected = format!("--accept-keyring {}", fingerprint(&backup));
    assert!(ran.error(2).contains(&expected) && ran.err.contains("Nothing was written"), "{ran:?}");
    let ran = restore(&["--accept-keyring", &"0".repeat(64)]).await;
    assert!(ran.error(2).contains(&expected), "{ran:?}");
    assert_eq!(keyrings(&keys.site).await, 1);
    let dry = restore(&["--dry-run=client"]).await;
    assert!(dry.ok().contains("keyring") && dry.err.contains(&fingerprint(&backup)), "{dry:?}");

    // Confirmed, its keys open what was sealed for them, and nothing new is sealed or encrypted with them.
    restore(&["--accept-keyring", &fingerprint(&backup)]).await.ok();
    assert_eq!(keyrings(&keys.site).await, 2);
    let text = sealed(&attacker.public_key, &site.strict("theirs"), "sealed-for-them");
    site.apply("theirs", json!({"name": "THEIRS", "value": text})).await;
    site.delivers("theirs", "value", "sealed-for-them").await;
    site.served("theirs").await;
    assert_eq!(public_key_of(&site.client, &keys.site.namespace).await.key_id(), own_key.key_id());
    // What the backup calls revoked still opens: only the operator's own keyring revokes its keys.
    site.apply("ours", json!({"name": "OURS", "value": sealed(&own_key, &site.strict("ours"), "sealed-for-us")})).await;
    site.delivers("ours", "value", "sealed-for-us").await;
    site.served("ours").await;
    operator.stop().await;
    // Nor after a restart.
    let operator = keys.serve(&site);
    site.apply("after", json!({"name": "AFTER", "generate": {}})).await;
    site.served("after").await;
    site.apply("late", json!({"name": "LATE", "value": sealed(&own_key, &site.strict("late"), "sealed-for-us")})).await;
    site.delivers("late", "value", "sealed-for-us").await;
    site.served("late").await;
    assert_eq!(public_key_of(&site.client, &keys.site.namespace).await.key_id(), own_key.key_id());
    let own_seed = own.entries.iter().find(|entry| entry.purpose == Purpose::Record).unwrap().id.clone();
    for name in ["BEFORE", "THEIRS", "OURS", "AFTER", "LATE"] {
        let record = site.record(name).await.unwrap();
        let mac = record.metadata.annotations.unwrap().remove(keys::ANNO_MAC).unwrap();
        let mac = BASE64_STANDARD.decode(mac).unwrap();
        assert_eq!(hex::encode(&mac[..8]), own_seed, "{name}");
    }
    operator.stop().await;
}

/// In an empty cluster the backup's keyring becomes the operator's own: a fingerprint that is given must be its.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_keyring_is_named_and_one_of_the_future_is_refused() {
    let site = Site::new("first-keyring").await;
    let restorer = Plugin::new(&site).await;
    let place = ["--operator-namespace", site.namespace.as_str(), "--yes"];
    let restore = async |backup: &Value, arguments: &[&str]| {
        let file = restorer.folder.file("backup.json", backup.to_string());
        restorer.restore(&[&[file.as_str()], arguments, &place].concat()).await
    };
    // Neither --yes nor its fingerprint makes a date in the future right, nor one that only the outside of it hides.
    let attacker = Attacker::at(Timestamp::now() + SignedDuration::from_hours(1));
    let future = attacker.tampered_backup(&site, empty());
    for arguments in [vec![], vec!["--accept-keyring".to_owned(), fingerprint(&future)]] {
        let ran = restore(&future, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let said = ran.error(1);
        let named = format!("Secret {}/{}", site.namespace, keys::KEYRING_NAME);
        for part in [named.as_str(), &attacker.document.entries[0].id, "is in the future", "Nothing was written"] {
            assert!(said.contains(part), "{ran:?}");
        }
    }
    let mut disguised = attacker;
    for entry in &mut disguised.document.entries {
        entry.created = Timestamp::now().to_string();
    }
    let ran = restore(&disguised.tampered_backup(&site, empty()), &[]).await;
    assert!(ran.error(1).contains("the creation date differs"), "{ran:?}");
    assert_eq!(keyrings(&site).await, 0);
    let present = Attacker::at(Timestamp::now()).tampered_backup(&site, empty());
    let ran = restore(&present, &["--accept-keyring", &fingerprint(&future)]).await;
    assert!(ran.error(2).contains(&fingerprint(&present)), "{ran:?}");
    assert_eq!(keyrings(&site).await, 0);
    let ran = restore(&present, &[]).await;
    assert!(ran.ok().contains("created") && ran.err.contains(&fingerprint(&present)), "{ran:?}");
    assert!(ran.err.contains("becomes the operator's own"), "{ran:?}");
    assert_eq!(keyrings(&site).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_prints_the_fingerprint_that_a_restore_shows() {
    let (keys, site) = (Keys::new().await, Site::new("fingerprint").await);
    let operator = keys.serve(&site);
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    operator.stop().await;
    let secret = keys.site.secret(keys::KEYRING_NAME).await.unwrap();
    let expected = hex::encode(Sha256::digest(&secret.data.unwrap()[keys::KEYRING_DATA_KEY].0));
    let plugin = Plugin::new(&site).await;
    let file = plugin.file_path("backup.yaml");
    let place = ["--operator-namespace", keys.site.namespace.as_str()];
    let ran = plugin.run(&[&["backup", "--with-kek", "--out", file.as_str()], place.as_slice()].concat()).await;
    assert!(ran.ok().is_empty() && ran.err.contains(&expected), "{ran:?}");
    assert!(!plugin.folder.read("backup.yaml").contains(&expected), "beside what it is of, it proves nothing");
    let elsewhere = ["--operator-namespace", site.namespace.as_str(), "--yes", "--wait=false", "--dry-run=client"];
    let ran = plugin.restore(&[&[file.as_str()], elsewhere.as_slice()].concat()).await;
    assert!(ran.err.contains(&expected), "{ran:?}");
}
