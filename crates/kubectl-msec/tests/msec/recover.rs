//! `recovery-key` and `recover`: values from files and a key, without a cluster.

use std::os::unix::fs::PermissionsExt as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use managed_secrets_api::{
    keys::{KEYRING_DATA_KEY, KEYRING_NAME, RECORD_DATA_KEY, TYPE_KEYRING, TYPE_RECORD},
    record::{Delivered, History, KeptVersion, RecordMeta, Source},
    types::{DeletionPolicy, SourceKind},
};
use managed_secrets_crypto::{
    Kek, Keyring, Plaintext, Seed,
    keyring::{Document, KekError, Purpose, Wrapped},
    mse1::{self, Place},
    mss1::{self, Handling, Scope},
    recovery,
};
use serde_json::{Value, json};

use super::{CANARY, Folder, documents};

const KEY: &str = "recovery.key";

/// A cluster of which only files are left.
struct Estate {
    folder: Folder,
    document: Document,
    keyring: Keyring,
}

fn wrap(bytes: &[u8]) -> Result<Wrapped, KekError> {
    let kek = Kek::new(&[3; 32])?;
    Ok(Wrapped::new("local", kek.key_id().to_string(), kek.wrap(bytes)?))
}

impl Estate {
    /// With a recovery key that the plugin has made; its keyring is covered.
    fn new() -> Self {
        let folder = Folder::new();
        let recipient = folder.run(&["recovery-key", "generate", "--out", KEY]).ok().trim().parse().unwrap();
        let mut document = Keyring::generate_entries("2026-11-28T08:00:00Z".parse().unwrap(), wrap).unwrap();
        let kek = Kek::new(&[3; 32]).unwrap();
        let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
        assert!(recovery::cover(&mut document, &keyring, &[recipient]).unwrap());
        Self { folder, document, keyring }
    }

    fn seed(&self) -> &Seed {
        self.keyring.active_seed().unwrap()
    }

    fn keyring_secret(&self) -> Value {
        secret(KEYRING_NAME, "system", TYPE_KEYRING, KEYRING_DATA_KEY, &serde_json::to_vec(&self.document).unwrap())
    }

    /// Opens the keyring again after a change of the document.
    fn open(&mut self) {
        let kek = Kek::new(&[3; 32]).unwrap();
        self.keyring = Keyring::open([&self.document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
    }

    /// A value sealed for the cluster.
    fn seal(&self, value: &str) -> String {
        let value = Plaintext::new(value.as_bytes().to_vec().into()).unwrap();
        let key = self.keyring.current_public_key().unwrap().key;
        mss1::seal(&key, &Scope::Cluster, Handling::Deliverable, &value).unwrap()
    }

    /// A record of the namespace `shop`, under a seed.
    fn record(object: &str, value: &str, seed: &Seed) -> Value {
        Self::record_of(object, value, seed, 7)
    }

    /// The same, of this version; it keeps the one before.
    fn record_of(object: &str, value: &str, seed: &Seed, version: u64) -> Value {
        let seal = |value: &str, version| {
            let plaintext = Plaintext::new(value.as_bytes().to_vec().into()).unwrap();
            mse1::seal(seed, &Place { namespace: "shop", object }, "u", version, &plaintext).unwrap()
        };
        let earlier = seal(&format!("earlier-{object}"), version - 1);
        let meta = RecordMeta {
            id: format!("id-of-{object}"),
            owner: object.to_owned(),
            uid: "u".to_owned(),
            name: object.to_uppercase(),
            description: "for tests".to_owned(),
            created: "2026-11-23T08:00:00Z".to_owned(),
            updated: "2026-11-23T09:00:00Z".to_owned(),
            value_updated: "2026-11-23T08:30:00Z".to_owned(),
            version,
            generation: 9,
            deletion_policy: DeletionPolicy::Delete,
            source: Source::Generate { revision: None },
            target: Delivered::None,
            history: History::new(vec![KeptVersion {
                version: version - 1,
                commitment: *earlier.commitment(),
                created: "2026-11-22T08:00:00Z".to_owned(),
                source: SourceKind::Generate,
            }]),
        };
        let record = seal(value, version);
        let mut secret = secret(&meta.object_name(), "shop", TYPE_RECORD, RECORD_DATA_KEY, record.as_bytes());
        secret["data"][format!("value.{}", version - 1)] = BASE64_STANDARD.encode(earlier.as_bytes()).into();
        secret["metadata"]["labels"] = json!(meta.labels());
        secret["metadata"]["annotations"] = json!(meta.annotations("shop", seed, record.commitment()).unwrap());
        secret
    }

    /// Writes a list, as `kubectl get -o json` does.
    fn list(&self, file: &str, items: &[Value]) {
        self.folder.write(file, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    }
}

fn secret(name: &str, namespace: &str, type_: &str, key: &str, content: &[u8]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": type_, "data": {key: BASE64_STANDARD.encode(content)},
        "metadata": {"name": name, "namespace": namespace, "uid": "x", "resourceVersion": "1"},
    })
}

#[test]
fn a_recovery_key_is_written_once_for_its_owner_alone_and_only_its_recipient_is_shown() {
    let folder = Folder::new();
    let made = folder.run(&["recovery-key", "generate", "--out", KEY]);
    let recipient = made.ok().trim().to_owned();
    let file = folder.read(KEY);
    let key = file.lines().find(|line| line.starts_with(recovery::KEY_PREFIX)).unwrap();
    assert_eq!(std::fs::metadata(folder.path().join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!made.out.contains(key) && !made.err.contains(key));
    assert!(made.err.contains("SHA-256 fingerprint"), "{}", made.err);
    let again = folder.run(&["recovery-key", "generate", "--out", KEY]);
    assert!(again.error(2).contains("already exists"), "{again:?}");
    assert_eq!(folder.read(KEY), file);
    assert_eq!(folder.run(&["recovery-key", "recipient", "--key", KEY]).ok().trim(), recipient);
    let piped = folder.run_with(&["recovery-key", "recipient", "--key", "-"], key);
    assert_eq!(piped.ok().trim(), recipient);
    for text in [&key[..key.len() - 1], CANARY, ""] {
        folder.write("wrong.key", text);
        let wrong = folder.run(&["recovery-key", "recipient", "--key", "wrong.key"]);
        assert!(wrong.error(2).starts_with("wrong.key "), "{wrong:?}");
        assert!(text.is_empty() || !wrong.err.contains(text), "{wrong:?}");
    }
}

#[test]
fn every_value_comes_back_with_its_name_from_files_and_key() {
    let estate = Estate::new();
    let text = estate.seal("not-yet-recorded");
    let object = |name: &str, spec: Value| {
        json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
    };
    let awkward = "yes: \"#\u{1b}[31m\n\tgrüße 😀";
    let objects = [
        object("new", json!({"name": "NEW", "value": text})),
        object("db", json!({"name": "DB", "generate": {}})),
        // Its value has not been generated.
        object("later", json!({"name": "LATER", "generate": {}})),
    ];
    let target = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {},
        "metadata": {"name": "db", "namespace": "shop", "labels": {"managedsecrets.dev/role": "target"}}});
    let other = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {},
        "metadata": {"name": "other", "namespace": "shop"}});
    let records = [Estate::record("db", CANARY, estate.seed()), Estate::record("api", awkward, estate.seed())];
    estate.list("secrets.json", &[&records[..], &[target, other, estate.keyring_secret()]].concat());
    estate.list("objects.json", &objects);

    let command = ["recover", "--key", KEY, "secrets.json", "objects.json", "--out"];
    let ran = estate.folder.run(&[&command[..], &["values.yaml"]].concat());
    assert_eq!(ran.ok(), "");
    assert!(ran.err.contains("5 values recovered") && ran.err.contains("1 other objects"), "{}", ran.err);
    assert!(!ran.err.contains(CANARY), "{}", ran.err);
    let text = estate.folder.read("values.yaml");
    assert!(!text.contains('\u{1b}'));
    let values = documents(&text);
    let expected = json!({
        "namespace": "shop", "object": "db", "name": "DB", "description": "for tests", "id": "id-of-db", "version": 7,
        "created": "2026-11-23T08:00:00Z", "updated": "2026-11-23T09:00:00Z", "valueUpdated": "2026-11-23T08:30:00Z",
        "value": CANARY,
    });
    assert_eq!(values[0], expected);
    let told: Vec<_> =
        values.iter().map(|it| (it["name"].clone(), it["version"].clone(), it["value"].clone())).collect();
    let told_of = |name: &str, version: Value, value: &str| (json!(name), version, json!(value));
    let rest = [
        told_of("DB", json!(6), "earlier-db"),
        told_of("API", json!(7), awkward),
        told_of("API", json!(6), "earlier-api"),
        told_of("NEW", Value::Null, "not-yet-recorded"),
    ];
    assert_eq!(told[1..], rest);
    let mode = std::fs::metadata(estate.folder.path().join("values.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A second run overwrites nothing, and a pipe gets the same.
    assert!(estate.folder.run(&[&command[..], &["values.yaml"]].concat()).error(2).contains("already exists"));
    assert_eq!(documents(estate.folder.run(&[&command[..], &["-"]].concat()).ok()), values);
}

/// What `recover` wrote of each value: name, version, the value, and whether it is unverified.
fn told(folder: &Folder, file: &str) -> Vec<(String, Value, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    documents(&folder.read(file))
        .iter()
        .map(|it| (text(&it["name"]), it["version"].clone(), text(&it["value"]), it["unverified"] == json!(true)))
        .collect()
}

fn value(name: &str, version: u64, value: &str, unverified: bool) -> (String, Value, String, bool) {
    (name.to_owned(), json!(version), value.to_owned(), unverified)
}

/// Flips one bit of the last byte under a key of a Secret's data.
fn damage(secret: &mut Value, key: &str) {
    let mut bytes = BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    secret["data"][key] = BASE64_STANDARD.encode(bytes).into();
}

#[test]
fn what_does_not_open_is_named_and_the_rest_is_written() {
    let estate = Estate::new();
    let good = Estate::record("good", "opens", estate.seed());
    let strange = Seed::generate().unwrap();
    let mut moved = good.clone();
    moved["metadata"]["namespace"] = json!("elsewhere");
    let mut bare = Estate::record("bare", CANARY, estate.seed());
    bare["metadata"]["annotations"] = json!({});
    let lost = Estate::record("lost", CANARY, &strange);
    estate.list("all.json", &[good, moved, bare, lost, estate.keyring_secret()]);
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json", "--out", "values.yaml"]);
    let error = ran.error(1);
    assert!(error.starts_with("4 values were not recovered, 1 object or key was left out; see above"), "{ran:?}");
    for part in
        ["elsewhere/msec-", "version 7): it was", "version 6): it was", &strange.id().to_string(), "not a record"]
    {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    let expected = [value("GOOD", 7, "opens", false), value("GOOD", 6, "earlier-good", false)];
    assert_eq!(told(&estate.folder, "values.yaml"), expected);
}

#[test]
fn a_damaged_value_hides_no_other() {
    let estate = Estate::new();
    let mut newest = Estate::record("newest", "damaged", estate.seed());
    damage(&mut newest, "value");
    let mut earlier = Estate::record("earlier", "intact", estate.seed());
    damage(&mut earlier, "value.6");
    let object = json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "newest", "namespace": "shop"}, "spec": {"name": "NEWEST", "value": estate.seal("from-git")}});
    estate.list("all.json", &[newest, earlier, object, estate.keyring_secret()]);
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json", "--out", "values.yaml"]);
    assert!(ran.error(1).starts_with("2 values were not recovered; see above"), "{ran:?}");
    assert!(ran.err.contains("(secret NEWEST, version 7): the record's payload was altered"), "{}", ran.err);
    assert!(ran.err.contains("(secret EARLIER, version 6): the record's payload was altered"), "{}", ran.err);
    let from_git = ("NEWEST".to_owned(), Value::Null, "from-git".to_owned(), false);
    let expected = [value("NEWEST", 6, "earlier-newest", false), value("EARLIER", 7, "intact", false), from_git];
    assert_eq!(told(&estate.folder, "values.yaml"), expected);
    // The new backup contains the damaged record, and the command does not end as if all were well.
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json", "--new-backup", "rescued/"]);
    assert!(ran.error(1).starts_with("2 values were not recovered; see above"), "{ran:?}");
}

#[test]
fn values_under_altered_metadata_are_written_as_unverified() {
    let estate = Estate::new();
    let mut renamed = Estate::record("renamed", CANARY, estate.seed());
    renamed["metadata"]["annotations"]["managedsecrets.dev/description"] = json!("another");
    // An earlier value in place of the newest: both are of this object, and the record does not prove which it should hold.
    let mut older = Estate::record("older", CANARY, estate.seed());
    older["data"]["value"] = older["data"]["value.6"].clone();
    estate.list("all.json", &[renamed, older, estate.keyring_secret()]);
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json", "--out", "values.yaml"]);
    assert!(ran.error(1).starts_with("2 values are unverified; see above"), "{ran:?}");
    assert!(ran.err.contains("(secret RENAMED, version 6): its metadata was altered"), "{}", ran.err);
    assert!(!ran.err.contains(CANARY));
    let expected = [
        value("RENAMED", 7, CANARY, true),
        value("RENAMED", 6, "earlier-renamed", true),
        value("OLDER", 6, "earlier-older", false),
    ];
    assert_eq!(told(&estate.folder, "values.yaml"), expected);
}

#[test]
fn files_of_different_times_give_every_value_in_any_order() {
    let mut estate = Estate::new();
    let before = estate.keyring_secret();
    let earlier = Estate::record("db", "of-january", estate.seed());
    let now: Timestamp = "2026-11-28T09:00:00Z".parse().unwrap();
    let second = estate.document.add_seed(now, wrap).unwrap();
    assert!(estate.document.activate_seed(second));
    estate.open();
    let recipient = estate.folder.run(&["recovery-key", "recipient", "--key", KEY]).ok().trim().parse().unwrap();
    assert!(recovery::cover(&mut estate.document, &estate.keyring, &[recipient]).unwrap());
    let later = Estate::record_of("db", "of-june", estate.keyring.seed(second).unwrap(), 9);
    let other = Estate::record("other", "since-then", estate.keyring.seed(second).unwrap());
    estate.list("january.json", &[earlier, before]);
    estate.list("june.json", &[later, other, estate.keyring_secret()]);
    let mut expected = [
        value("DB", 9, "of-june", false),
        value("DB", 7, "of-january", false),
        value("DB", 8, "earlier-db", false),
        value("DB", 6, "earlier-db", false),
        value("OTHER", 7, "since-then", false),
        value("OTHER", 6, "earlier-other", false),
    ];
    expected.sort_by_key(|it| it.0.clone() + &it.1.to_string());
    for (index, files) in [["january.json", "june.json"], ["june.json", "january.json"]].into_iter().enumerate() {
        let (out, rescued) = (format!("values-{index}.yaml"), format!("rescued-{index}/"));
        let arguments = [&["recover", "--key", KEY, "--out", &out, "--new-backup", &rescued], &files[..]].concat();
        let ran = estate.folder.run(&arguments);
        assert!(
            ran.ok().is_empty() && !ran.err.contains("warning: the") && !ran.err.contains("warning: record"),
            "{ran:?}"
        );
        let mut found = told(&estate.folder, &out);
        found.sort_by_key(|it| it.0.clone() + &it.1.to_string());
        assert_eq!(found, expected, "{files:?}");
        // The new backup has both seeds, once, and the later record.
        let keyrings = documents(&estate.folder.read(&format!("{rescued}keyring.yaml")));
        assert_eq!(keyrings.len(), 1, "{keyrings:?}");
        let text = estate.folder.read(&format!("{rescued}managed-secrets.yaml"));
        let versions: Vec<_> = documents(&text)
            .iter()
            .map(|it| it["metadata"]["annotations"]["managedsecrets.dev/version"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(versions, ["9", "7"]);
    }
}

#[test]
fn a_new_backup_says_what_it_leaves_out() {
    let mut estate = Estate::new();
    let covered = estate.document.clone();
    let now: Timestamp = "2026-11-28T09:00:00Z".parse().unwrap();
    let added = estate.document.add_seed(now, wrap).unwrap();
    let object = |description: &str| {
        json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "twice", "namespace": "shop"},
            "spec": {"name": "TWICE", "generate": {}, "delivery": "None", "description": description}})
    };
    estate.list("all.json", &[object("one"), object("two"), estate.keyring_secret()]);
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json", "--new-backup", "rescued/"]);
    assert!(ran.error(1).starts_with("2 objects or keys were left out; see above"), "{ran:?}");
    assert!(ran.err.contains(&format!("the key {added} of the keyring is not sealed")), "{}", ran.err);
    assert!(ran.err.contains("ManagedSecret shop/twice differs between these files"), "{}", ran.err);
    assert!(!estate.folder.read("rescued/managed-secrets.yaml").contains("TWICE"));
    // A record says which state is the newest; keys that only an older keyring has stand beside the newer one.
    let mut older = covered;
    older.entries.retain(|entry| entry.purpose == Purpose::Record);
    let mut newer = estate.document.clone();
    newer.entries.retain(|entry| entry.purpose == Purpose::Record && entry.id != added.to_string());
    let sealing: Vec<_> =
        estate.document.entries.iter().filter(|entry| entry.purpose == Purpose::Sealing).cloned().collect();
    older.entries.extend(sealing);
    newer.generation = 5;
    let record = Estate::record("twice", CANARY, estate.seed());
    let keyrings = [older, newer].map(|document| {
        secret(KEYRING_NAME, "system", TYPE_KEYRING, KEYRING_DATA_KEY, &serde_json::to_vec(&document).unwrap())
    });
    estate.list("two.json", &[&[object("for tests"), object("two"), record], &keyrings[..]].concat());
    let ran = estate.folder.run(&["recover", "--key", KEY, "two.json", "--new-backup", "again/"]);
    assert!(ran.ok().is_empty(), "{ran:?}");
    let text = estate.folder.read("again/managed-secrets.yaml");
    assert!(text.contains("description: for tests") && !text.contains("description: two"), "{text}");
    let names: Vec<_> = documents(&estate.folder.read("again/keyring.yaml"))
        .iter()
        .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names[0], KEYRING_NAME);
    assert!(names.len() == 2 && names[1].starts_with("managed-secrets-keyring-restored-"), "{names:?}");
}

#[test]
fn a_key_that_opens_nothing_says_which_key_would() {
    let estate = Estate::new();
    let record = Estate::record("db", CANARY, estate.seed());
    estate.list("records.json", std::slice::from_ref(&record));
    let ran = estate.folder.run(&["recover", "--key", KEY, "records.json", "--out", "v"]);
    assert!(ran.error(1).contains("keyring not found"), "{ran:?}");
    estate.list("all.json", &[record, estate.keyring_secret()]);
    estate.folder.run(&["recovery-key", "generate", "--out", "other.key"]).ok();
    let ran = estate.folder.run(&["recover", "--key", "other.key", "all.json", "--out", "v"]);
    let id = &estate.document.entries[0].recovery[0].recipient;
    assert!(ran.error(1).contains(&format!("has copies for {id}")), "{ran:?}");
    let mut bare = estate.document.clone();
    bare.entries.iter_mut().for_each(|entry| entry.recovery.clear());
    let bare = secret(KEYRING_NAME, "system", TYPE_KEYRING, KEYRING_DATA_KEY, &serde_json::to_vec(&bare).unwrap());
    estate.list("bare.json", &[bare]);
    let ran = estate.folder.run(&["recover", "--key", KEY, "bare.json", "--out", "v"]);
    assert!(ran.error(1).contains("without --recovery-recipient"), "{ran:?}");
    assert!(!estate.folder.files().contains(&"v".to_owned()));
    let ran = estate.folder.run(&["recover", "--key", KEY, "all.json"]);
    assert!(ran.error(2).contains("--out"), "{ran:?}");
}

#[test]
fn a_new_backup_has_the_same_keys_under_a_new_kek() {
    let estate = Estate::new();
    estate.list("all.json", &[Estate::record("db", CANARY, estate.seed()), estate.keyring_secret()]);
    let recover = |arguments: &[&str]| {
        estate.folder.run(&[&["recover", "--key", KEY, "all.json", "--new-backup"], arguments].concat())
    };
    let ran = recover(&["rescued/"]);
    assert!(ran.ok().is_empty() && ran.err.contains("THIS BACKUP CONTAINS THE KEY-ENCRYPTION KEY"), "{ran:?}");
    let data = |file: &str, key: &str| {
        let text = documents(&estate.folder.read(file))[0]["data"][key].as_str().unwrap().to_owned();
        BASE64_STANDARD.decode(text).unwrap()
    };
    let keyring = |file: &str, kek: &Kek| {
        let document: Document = serde_json::from_slice(&data(file, KEYRING_DATA_KEY)).unwrap();
        Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap()
    };
    let kek = Kek::new(&data("rescued/kek.yaml", "kek")).unwrap();
    assert!(keyring("rescued/keyring.yaml", &kek).holds_the_same(&estate.keyring));
    assert!(estate.folder.read("rescued/managed-secrets.yaml").contains("managedsecrets.dev/record"));

    // For an operator with --kek-file, the new backup has no such key.
    estate.folder.write("kek", &BASE64_STANDARD.encode([5; 32]));
    let ran = recover(&["outside/", "--new-kek-file", "kek"]);
    assert!(ran.ok().is_empty() && !ran.err.contains("THIS BACKUP"), "{ran:?}");
    assert!(!estate.folder.path().join("outside/kek.yaml").exists());
    let kek = Kek::new(&[5; 32]).unwrap();
    assert!(keyring("outside/keyring.yaml", &kek).holds_the_same(&estate.keyring));
}
