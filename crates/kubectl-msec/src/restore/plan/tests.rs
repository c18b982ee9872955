use managed_secrets_api::keys::*;
use managed_secrets_api::names::record_name;
use serde_json::{Value, json};

use super::*;
use crate::archive::Intake;
use crate::archive::testing::{self, SEED};

const OWN: &str = "system";

fn meta(id: &str, owner: &str, version: u64) -> RecordMeta {
    RecordMeta { id: id.to_owned(), owner: owner.to_owned(), version, ..testing::meta() }
}

fn record(id: &str, owner: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE_RECORD, "data": {"value": "TVNFMQ=="},
        "metadata": testing::metadata("shop", &meta(id, owner, version)),
    })
}

fn stored_record(id: &str, owner: &str, version: u64) -> StoredRecord {
    StoredRecord::of(&testing::metadata("shop", &meta(id, owner, version))).unwrap()
}

fn object(spec: &Value) -> Value {
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": spec,
        "metadata": {"name": "db", "namespace": "shop"},
    })
}

fn keyring(id: &str, provider: &str, kek: &str) -> Value {
    let document = json!({"format": "MSK1", "entries": [{
        "id": id, "purpose": "record", "state": "active", "created": "2026-11-23T08:00:00Z",
        "wrapped": {"provider": provider, "keyId": kek, "ciphertext": "AAAA"},
    }]});
    let data = SecretObject {
        data: [(
            KEYRING_DATA_KEY.to_owned(),
            managed_secrets_client::SecretBytes::copy_of(document.to_string().as_bytes()),
        )]
        .into(),
        ..SecretObject::default()
    };
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE_KEYRING, "data": data.data,
        "metadata": {"name": KEYRING_NAME, "namespace": OWN},
    })
}

fn stored(keyring: Value) -> StoredKeyring {
    StoredKeyring::of(&serde_json::from_value(keyring).unwrap()).unwrap()
}

fn archive(objects: &[Value]) -> Archive {
    let mut intake = Intake::default();
    for object in objects {
        intake.add(&object.to_string()).unwrap();
    }
    intake.archive
}

/// A cluster with a keyring that has the seed of [`record`].
fn cluster() -> Standing {
    Standing {
        keyrings: Some(vec![stored(keyring(SEED, "local", "k1"))]),
        keks: ["k1".to_owned()].into(),
        ..Standing::default()
    }
}

fn verdicts(archive: Archive, standing: &Standing) -> Vec<Verdict> {
    plan(archive, standing, OWN, Timestamp::now()).unwrap().steps.into_iter().map(|step| step.verdict).collect()
}

fn there() -> Verdict {
    Verdict::There(String::new())
}

fn at(name: &str) -> Place {
    ("shop".to_owned(), name.to_owned())
}

#[test]
fn what_is_missing_is_created_and_what_is_there_is_left() {
    let spec = json!({"name": "DB", "generate": {}});
    let backup = || archive(&[object(&spec), record("the-id", "db", 3)]);
    assert_eq!(verdicts(backup(), &cluster()), [Verdict::Create, Verdict::Create]);
    let mut standing = cluster();
    standing.records.insert(at(&record_name("DB")), Some(stored_record("the-id", "db", 3)));
    assert_eq!(verdicts(backup(), &standing), [there(), Verdict::Create]);
    standing.objects.insert(at("db"), Object::parse(object(&spec)).unwrap());
    assert_eq!(verdicts(backup(), &standing), [there(), there()]);
    // It lived on after the first restore.
    standing.records.insert(at(&record_name("DB")), Some(stored_record("the-id", "db", 4)));
    let moved = verdicts(backup(), &standing);
    assert!(matches!(&moved[0], Verdict::There(note) if note.contains("version 4")), "{moved:?}");
    let other = json!({"name": "DB", "generate": {}, "description": "x"});
    standing.objects.insert(at("db"), Object::parse(object(&other)).unwrap());
    assert!(matches!(&verdicts(backup(), &standing)[1], Verdict::Conflict(why) if why.contains("another spec")));
}

#[test]
fn an_object_that_cannot_take_its_record_over_is_told_of() {
    let notes = |specs: &Value, records: &[Value]| {
        let objects: Vec<_> = std::iter::once(object(specs)).chain(records.iter().cloned()).collect();
        plan(archive(&objects), &cluster(), OWN, Timestamp::now()).unwrap().notes
    };
    let of_name = |name: &str| {
        let meta = RecordMeta { name: name.to_owned(), ..meta("the-id", "db", 3) };
        let metadata = testing::metadata("shop", &meta);
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE_RECORD, "data": {"value": "TVNFMQ=="}, "metadata": metadata})
    };
    let renamed = json!({"name": "NEW", "generate": {}});
    assert_eq!(notes(&json!({"name": "DB", "generate": {}}), &[of_name("DB")]), [""; 0]);
    let said = notes(&renamed, &[of_name("DB")]);
    assert!(said[0].contains("shop/db") && said[0].contains("spec.name"), "{said:?}");
    let moved = json!({"name": "DB", "generate": {}, "target": {"name": "app"}});
    let said = notes(&moved, &[of_name("DB")]);
    assert!(said[0].contains("its target"), "{said:?}");
    // After a crash in a rename there are two records, of which one fits.
    assert_eq!(notes(&renamed, &[of_name("DB"), of_name("NEW")]), [""; 0]);
}

#[test]
fn an_object_whose_record_is_not_restored_is_not_created() {
    let backup = || archive(&[object(&json!({"name": "DB", "generate": {}})), record("the-id", "db", 3)]);
    let mut standing = cluster();
    standing.records.insert(at(&record_name("DB")), Some(stored_record("fresh", "db", 1)));
    let taken = verdicts(backup(), &standing);
    assert!(matches!(&taken[0], Verdict::Conflict(why) if why.contains("the secret fresh")), "{taken:?}");
    assert!(matches!(&taken[1], Verdict::Conflict(why) if why.contains("its record was not restored")), "{taken:?}");
    let unknown = Standing { keyrings: Some(Vec::new()), ..Standing::default() };
    let unread = verdicts(backup(), &unknown);
    assert!(matches!(&unread[0], Verdict::Conflict(why) if why.contains(SEED)), "{unread:?}");
    assert!(matches!(&unread[1], Verdict::Conflict(_)), "{unread:?}");
    // Where the keys may not be looked at, the restorer is told so, and trusted.
    let hidden = plan(backup(), &Standing::default(), OWN, Timestamp::now()).unwrap();
    assert_eq!((hidden.creates(), hidden.notes.len()), (2, 1));
}

#[test]
fn a_keyring_joins_the_one_that_is_there() {
    let of = |id: &str, standing: &Standing| {
        let step =
            plan(archive(&[keyring(id, "local", "k1")]), standing, OWN, Timestamp::now()).unwrap().steps.remove(0);
        (step.item.place().1, step.verdict)
    };
    assert_eq!(of(SEED, &cluster()), (KEYRING_NAME.to_owned(), Verdict::There("all its keys".to_owned())));
    let (name, verdict) = of("00112233", &cluster());
    assert!(name.starts_with("managed-secrets-keyring-restored-"), "{name}");
    assert_eq!(verdict, Verdict::Create);
    let empty = Standing { keyrings: Some(Vec::new()), ..cluster() };
    assert_eq!(of("00112233", &empty), (KEYRING_NAME.to_owned(), Verdict::Create));
}

#[test]
fn the_operators_own_keyring_is_restored_beside_one_that_has_its_keys() {
    let beside = |kek: &str| {
        let mut secret = keyring(SEED, "local", kek);
        secret["metadata"]["name"] = json!("managed-secrets-keyring-restored-00112233");
        secret
    };
    let of = |backup: &[Value], present: Value, keks: &[&str]| {
        let keks = keks.iter().map(|id| (*id).to_owned()).collect();
        let standing = Standing { keyrings: Some(vec![stored(present)]), keks, ..Standing::default() };
        let plan = plan(archive(backup), &standing, OWN, Timestamp::now()).unwrap();
        let steps = plan.steps.into_iter().map(|step| (step.item.place().1, step.verdict));
        (steps.collect::<Vec<_>>(), plan.warnings)
    };
    let created = |name: &str| (name.to_owned(), Verdict::Create);
    let (steps, warnings) = of(&[keyring(SEED, "local", "k1")], beside("k1"), &["k1"]);
    assert_eq!((steps, warnings), (vec![created(KEYRING_NAME)], vec![]));
    // A key whose key-encryption key is lost is not there, and keeps the operator from starting.
    let rescued = [keyring(SEED, "local", "k2"), beside("k2")];
    let (steps, warnings) = of(&rescued, beside("k1"), &["k2"]);
    let [(own, Verdict::Create), (other, Verdict::Create)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(own, KEYRING_NAME);
    assert!(
        other.starts_with("managed-secrets-keyring-restored-") && *other != "managed-secrets-keyring-restored-00112233"
    );
    assert!(warnings[0].contains("does not start while this keyring is there"), "{warnings:?}");
    // With that key, it is there.
    let (steps, warnings) = of(&[beside("k1")], beside("k1"), &["k1"]);
    assert!(matches!(steps[..], [(_, Verdict::There(_))]) && warnings.is_empty(), "{steps:?} {warnings:?}");
}

#[test]
fn no_keyring_is_restored_that_would_not_open() {
    let refused =
        |backup: Value, standing: &Standing| plan(archive(&[backup]), standing, OWN, Timestamp::now()).unwrap_err();
    assert!(refused(keyring("1", "local", "k2"), &cluster()).contains("k2, which is neither in these files"));
    let file = |kek| Standing { keyrings: Some(vec![stored(keyring("2", "file", kek))]), ..Standing::default() };
    assert!(refused(keyring("1", "file", "f1"), &file("f2")).contains("the KEK file f1"));
    let same = plan(archive(&[keyring("1", "file", "f1")]), &file("f1"), OWN, Timestamp::now()).unwrap();
    assert_eq!(same.warnings.len(), 1);
    assert!(same.warnings[0].contains("does not start without --kek-file"));
}
