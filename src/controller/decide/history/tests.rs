//! Which version is delivered, where record and status do not tell the same, or a value does not open.

use std::sync::Arc;

use managed_secrets_api::{
    names::record_name,
    record::{Delivered, History, KeptVersion, Replaced, Unopened},
    types::SourceKind,
};
use managed_secrets_crypto::{
    Seed,
    mse1::{self, OpenError, Place},
};
use serde_json::{Value, json};

use super::super::{
    super::{
        facts::{Facts, Incoming, Known},
        plan::{Step, Write},
        record::{Authenticity, Source},
        seeds::receipts::Receipt,
    },
    decide,
    testing::{ID, delivered, facts_of, own_place, plaintext},
    tests::{outcome, put, put_record, read_record},
};

/// An object whose record has the version 4 and keeps 3 and 2. These fields are in its spec, and in its status besides what
/// every status has.
fn facts(spec: &Value, status: &Value) -> Facts {
    let mut full = json!({
        "record": {"name": record_name("DB"), "uid": "uid-record", "resourceVersion": "1"},
        "observedGeneration": 1, "version": 4, "id": ID, "name": "DB",
    });
    full.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    let is_delivered = spec.get("delivery").is_none();
    if is_delivered {
        full["target"] = json!({"name": "db", "key": "value", "uid": "uid-target", "resourceVersion": "2"});
    }
    let mut facts = facts_of(spec, &full);
    put_record(&mut facts, "DB", |meta| {
        meta.version = 4;
        meta.history = History::new([3, 2].map(kept).into());
        meta.target = if is_delivered { own_place() } else { Delivered::None };
    });
    if is_delivered {
        put(&mut facts, delivered(), Authenticity::NotARecord);
    }
    // No record was re-wrapped: what the target holds follows from the status.
    let none = || "none".to_owned();
    facts.was_rewrapped(Receipt { uid: none(), before: none(), after: none() });
    facts
}

fn kept(version: u64) -> KeptVersion {
    KeptVersion { version, commitment: [0; 32], created: String::new(), source: SourceKind::Generate }
}

/// What the status says of these versions.
fn said(versions: &[i64]) -> Value {
    versions.iter().map(|version| json!({"version": version, "created": "", "source": "generate"})).collect()
}

#[test]
fn without_a_history_in_the_status_nothing_says_which_version_the_target_holds() {
    let holds = |status: Value| facts(&json!({"history": 3}), &status).written.holds.map(|holds| holds.version);
    assert_eq!(holds(json!({"history": said(&[3, 2])})), Some(4));
    assert_eq!(holds(json!({"history": said(&[3, 2]), "delivered": 2})), Some(2));
    // An earlier operator, and its CRD, have dropped `delivered` and `history`.
    for history in [json!({}), json!({"history": said(&[3])}), json!({"history": said(&[4, 3])})] {
        assert_eq!(holds(history), None);
    }
    // So the target is written.
    let mut facts = facts(&json!({"history": 3}), &json!({}));
    assert_eq!(outcome(&decide(&facts)), "look at record");
    read_record(&mut facts);
    assert_eq!(outcome(&decide(&facts)), "write Secret db: Drift");
}

#[test]
fn a_version_under_an_unknown_seed_is_looked_at_until_it_opens() {
    let says = |reason: &str| {
        let time = "2026-11-23T08:00:00Z";
        let condition = json!({"type": "Ready", "status": "False", "reason": reason, "message": "",
            "observedGeneration": 1, "lastTransitionTime": time});
        let spec = json!({"history": 3, "version": 2, "delivery": "None"});
        outcome(&decide(&facts(&spec, &json!({"history": said(&[3, 2]), "conditions": [condition]}))))
    };
    assert_eq!(says("SeedUnknown"), "look at record");
    assert_eq!(says("VersionLost"), "look at record");
    assert_eq!(says("Pending"), "status: Served");
}

#[test]
fn a_version_that_is_no_longer_kept_is_no_repair() {
    // The newest was delivered after an earlier one, which was kept only for that.
    let mut facts = facts(&json!({"history": 0, "version": 4}), &json!({"history": said(&[3, 2])}));
    read_record(&mut facts);
    assert_eq!(outcome(&decide(&facts)), "write record: HistoryChanged");
    // Another program has written the record.
    let Some(Known::Present(seen)) = facts.snapshot.secrets.get_mut(&record_name("DB")) else { panic!("no record") };
    seen.view.resource_version = "9".to_owned();
    assert_eq!(outcome(&decide(&facts)), "write record: OutOfStep");
}

#[test]
fn an_earlier_version_is_delivered_although_the_newest_is_damaged() {
    let pass = |spec: Value, unopened: Unopened, is_stored: bool| {
        let mut facts = facts(&spec, &json!({"history": said(&[3, 2])}));
        facts.snapshot.own.generation = 2;
        read_record(&mut facts);
        let seed = Seed::generate().unwrap();
        let place = Place { namespace: "shop", object: "db" };
        let record = facts.learned.record.as_mut().unwrap();
        record.contents = Err(unopened);
        record.opened = [(3, Ok(plaintext("earlier")))].into();
        if is_stored {
            let bytes = mse1::seal(&seed, &place, "uid-db", 4, &plaintext("newest")).unwrap();
            record.versions = [(4, Arc::new(bytes))].into();
        }
        outcome(&decide(&facts))
    };
    let damaged = || Unopened::Crypto(OpenError::Payload);
    let pinned = || json!({"history": 3, "version": 3});
    assert_eq!(pass(pinned(), damaged(), true), "write record: SpecChanged");
    assert_eq!(pass(json!({"history": 3}), damaged(), true), "status: RecordPayloadTampered");
    // Bytes that are not those of the record are not written into it.
    assert_eq!(pass(pinned(), Unopened::Altered, false), "status: RecordTampered");
}

/// Which version the next write of the record says that the delivered one has replaced, and until when.
fn replaced(facts: &Facts) -> Option<Replaced> {
    let step = decide(facts);
    let Step::Write(write) = step else { panic!("{}", outcome(&step)) };
    let Write::Record(record, _) = *write else { panic!("no write of a record") };
    record.meta.history.replaced().cloned()
}

/// The record was read, and has its values; a new one is generated for the revision `a`, if that is new to it.
fn with_values(facts: &mut Facts, known: Option<Replaced>, is_new: bool) {
    let asked = if is_new { None } else { Some("a".to_owned()) };
    put_record(facts, "DB", |meta| {
        meta.version = 4;
        meta.source = Source::Generate { revision: asked };
        meta.history = History::new([3, 2].map(kept).into()).with_replaced(known);
    });
    read_record(facts);
    let (seed, place) = (Seed::generate().unwrap(), Place { namespace: "shop", object: "db" });
    let sealed = |version| mse1::seal(&seed, &place, "uid-db", version, &plaintext("any")).unwrap();
    let record = facts.learned.record.as_mut().unwrap();
    record.versions = [4, 3, 2].map(|version| (version, Arc::new(sealed(version)))).into();
    record.opened = [3, 2].map(|version| (version, Ok(plaintext("earlier")))).into();
    let source = Source::Generate { revision: Some("a".to_owned()) };
    facts.learned.incoming = Some(Incoming { source, value: Ok(plaintext("new")) });
}

#[test]
fn a_pass_that_ended_before_its_status_has_delivered_what_the_record_says() {
    // A new value comes. Both record and target are at other versions than the status says.
    let pass = |version_in_status: i64, target_in_status: &str| {
        let spec = json!({"history": 3, "target": {"previousKey": "old"}, "generate": {"revision": "a"}});
        let status = json!({"history": said(&[3, 2]), "delivered": 2, "version": version_in_status});
        let mut facts = facts(&spec, &status);
        with_values(&mut facts, None, true);
        facts.snapshot.own.status.record.as_mut().unwrap().resource_version = "0".to_owned();
        facts.snapshot.own.status.target.as_mut().unwrap().resource_version = target_in_status.to_owned();
        facts.written.holds = None;
        replaced(&facts).map(|replaced| replaced.version)
    };
    assert_eq!(pass(3, "0"), None, "the version before the new one");
    assert_eq!(pass(3, "2"), Some(2), "the target was not written yet");
    assert_eq!(pass(3, ""), Some(2), "the target could not be written");
    assert_eq!(pass(4, "0"), Some(2), "other programs have changed both");
}

#[test]
fn the_record_says_which_version_was_delivered_before_where_the_order_does_not() {
    let now = "1970-01-01T00:00:00Z";
    let (until_now, until_newest) = (now.to_owned(), String::new());
    let known = || Some(Replaced { version: 2, until: "1970-01-01T00:00:00Z".to_owned() });
    let pass = |pinned: Option<u64>, delivered: Option<u64>, known: Option<Replaced>, is_new: bool| {
        let mut spec = json!({"history": 3, "target": {"previousKey": "old"}, "generate": {"revision": "a"}});
        spec["version"] = json!(pinned);
        let mut facts = facts(&spec, &json!({"history": said(&[3, 2]), "delivered": delivered}));
        facts.snapshot.own.generation = 2;
        with_values(&mut facts, known, is_new);
        replaced(&facts)
    };
    let said = |version: u64, until: &str| Some(Replaced { version, until: until.to_owned() });
    assert_eq!(pass(None, None, None, true), None, "a new value over the newest");
    assert_eq!(pass(None, Some(2), None, true), said(2, &until_now), "a new value over an earlier one");
    assert_eq!(pass(None, Some(2), None, false), said(2, &until_now), "the newest over an earlier one");
    assert_eq!(pass(None, None, known(), true), None, "a new value later");
    assert_eq!(pass(None, None, known(), false), known(), "another spec later");
    assert_eq!(pass(Some(3), None, None, false), None, "an earlier one");
    assert_eq!(pass(Some(3), None, known(), false), None, "an earlier one later");
    assert_eq!(pass(Some(4), None, None, true), said(3, &until_newest), "the newest named, and a newer one comes");
    assert_eq!(pass(Some(4), None, known(), true), known(), "the same later");
    assert_eq!(pass(Some(9), None, None, true), said(3, &until_newest), "a version that is not kept, and a new value");
}

#[test]
fn an_overlap_that_ended_before_the_value_could_be_delivered_begins_with_the_delivery() {
    let pass = |overlap: &str| {
        let spec = json!({"history": 3, "target": {"previousKey": "old"}, "overlap": overlap});
        let mut facts = facts(&spec, &json!({"history": said(&[3, 2]), "delivered": 3}));
        put_record(&mut facts, "DB", |meta| {
            meta.version = 4;
            meta.value_updated = "1969-12-31T00:00:00Z".to_owned();
            meta.history = History::new([3, 2].map(kept).into());
        });
        read_record(&mut facts);
        let record = facts.learned.record.as_mut().unwrap();
        record.opened = [(3, Ok(plaintext("earlier")))].into();
        let step = decide(&facts);
        let Step::Write(write) = step else { panic!("{}", outcome(&step)) };
        match *write {
            Write::Record(record, _) => record.meta.history.replaced().map(|replaced| replaced.version),
            Write::Target(target, _) => target.content.values.previous.map(|_| 0),
            _ => panic!("no write of record or target"),
        }
    };
    assert_eq!(pass("1h"), Some(3), "the record says so first");
    assert_eq!(pass("48h"), Some(0), "it lasts");
    assert_eq!(pass("0s"), None, "there is none");
}
