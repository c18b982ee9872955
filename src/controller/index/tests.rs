//! Who is woken by what.

mod cache;
mod memory;

use std::collections::BTreeMap;

use managed_secrets_api::keys::{LABEL_ID, LABEL_ROLE, ROLE_RECORD};
use serde_json::{Value, json};

use super::{super::facts::Peers, *};
use crate::controller::view::template::TargetTemplate;

const NAMESPACE: &str = "ns";

/// An object that wants one name and holds another.
fn own(name: &str, version: u64, wants: &str, holds: &str) -> Own {
    let object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"name": wants, "generate": {}},
        "status": {"id": format!("id-{name}"), "name": holds},
    });
    Own::new(serde_json::from_value(object).unwrap())
}

/// The record of a name, as far as the index looks at it.
fn record(of: &str, owner: &str, version: u64) -> SecretView {
    SecretView {
        name: record_name(of),
        uid: format!("uid-{of}"),
        resource_version: version.to_string(),
        annotations: BTreeMap::from([(ANNO_OWNER.to_owned(), owner.to_owned())]),
        ..SecretView::default()
    }
}

/// Objects `a`, `b`, … that hold `A`, `B`, … and want what `wants` says, with their records.
fn index(wants: &[&str]) -> Index {
    let mut index = Index::default();
    for (name, wants) in ["a", "b", "c", "d"].iter().zip(wants) {
        let holds = name.to_uppercase();
        index.put_object(own(name, 1, wants, &holds));
        index.put_secret(NAMESPACE, record(&holds, name, 1), None);
    }
    index
}

fn names(keys: Vec<Key>) -> Vec<String> {
    keys.into_iter().map(|key| key.name.to_string()).collect()
}

fn peers(index: &Index, name: &str) -> Peers {
    let key = Key { namespace: NAMESPACE.into(), name: name.into() };
    index.snapshot(&key, Instant::now()).unwrap().peers
}

#[test]
fn a_circle_that_closes_or_opens_wakes_all_in_it() {
    // a waits for b, b for c; d has nothing to do with them.
    let mut index = index(&["B", "C", "C", "D"]);
    assert!(!peers(&index, "a").cycle);
    assert_eq!(names(index.put_object(own("c", 2, "A", "C"))), ["a", "b", "c"]);
    assert!(["a", "b", "c"].iter().all(|name| peers(&index, name).cycle));
    assert_eq!(names(index.put_object(own("c", 3, "C", "C"))), ["a", "b", "c"]);
    assert!(["a", "b", "c"].iter().all(|name| !peers(&index, name).cycle));
    // Another edit of the same object concerns no other.
    assert_eq!(names(index.put_object(own("c", 4, "C", "C"))), ["c"]);
}

#[test]
fn who_waits_for_a_name_is_woken_when_it_changes_its_holder_and_not_when_the_holder_changes() {
    let mut index = index(&["A"]);
    index.put_object(own("waiter", 1, "A", "W"));
    let written = record("A", "a", 2);
    assert!(index.put_secret(NAMESPACE, written.clone(), Some(Instant::now())).is_empty());
    // The watch shows it, once and again.
    assert!(index.put_secret(NAMESPACE, written.clone(), None).is_empty());
    assert!(index.put_secret(NAMESPACE, written, None).is_empty());
    // What another wrote concerns its owner.
    assert_eq!(names(index.put_secret(NAMESPACE, record("A", "a", 3), None)), ["a"]);
    // Another owner, or its deletion, concerns those that wait.
    assert_eq!(names(index.put_secret(NAMESPACE, record("A", "b", 4), None)), ["a", "waiter"]);
    let mut going = record("A", "b", 5);
    going.deleting = true;
    assert_eq!(names(index.put_secret(NAMESPACE, going, None)), ["waiter"], "one at a time");
    assert_eq!(names(index.pass_on(&Key { namespace: NAMESPACE.into(), name: "waiter".into() })), ["a"]);
}

#[test]
fn a_holder_that_goes_wakes_its_waiters_and_lives_no_more() {
    let mut index = index(&["A"]);
    index.put_object(own("waiter", 1, "A", "W"));
    assert!(peers(&index, "waiter").living.contains("uid-a"));
    assert_eq!(names(index.remove_object(NAMESPACE, "a", None)), ["a", "waiter"]);
    // Its record is still there: retained, perhaps.
    assert!(!peers(&index, "waiter").living.contains("uid-a"));
}

#[test]
fn a_lost_records_name_is_reserved_for_its_owner_and_a_free_one_for_a_mover() {
    let mut index = index(&["A", "B"]);
    let mut owner = own("a", 2, "A", "A");
    owner.status.record = Some(managed_secrets_api::types::RecordRef {
        name: record_name("A"),
        uid: "uid-A".to_owned(),
        resource_version: "1".to_owned(),
    });
    index.put_object(owner.clone());
    index.put_object(own("b", 2, "A", "B"));
    assert_eq!(peers(&index, "b").reserved_for.as_deref(), Some("a"));
    // As long as it wants that name.
    (owner.spec.name, owner.resource_version) = ("FREE".to_owned(), "3".to_owned());
    index.put_object(owner);
    assert_eq!(peers(&index, "b").reserved_for, None);
    let mut new = own("new", 1, "A", "");
    new.status = managed_secrets_api::ManagedSecretStatus::default();
    index.put_object(new);
    assert_eq!(peers(&index, "new").reserved_for.as_deref(), Some("b"));
    assert_eq!(peers(&index, "b").reserved_for, None);
}

#[test]
fn who_waits_for_something_else_is_woken_when_its_name_is_kept_for_another() {
    let mut index = index(&["A"]);
    let mut new = own("new", 1, "FREE", "");
    new.status = managed_secrets_api::ManagedSecretStatus::default();
    index.put_object(new);
    assert_eq!(peers(&index, "new").reserved_for, None);
    // The mover has the turn, and hands it on.
    let pass_on =
        |index: &mut Index, name: &str| names(index.pass_on(&Key { namespace: NAMESPACE.into(), name: name.into() }));
    assert_eq!(names(index.put_object(own("a", 2, "FREE", "A"))), ["a"]);
    assert_eq!(peers(&index, "new").reserved_for.as_deref(), Some("a"));
    assert_eq!(pass_on(&mut index, "a"), ["new"]);
    assert!(pass_on(&mut index, "new").is_empty());
    // Another edit of the mover changes nothing for it; that the mover gives up does.
    assert_eq!(names(index.put_object(own("a", 3, "FREE", "A"))), ["a"]);
    assert!(pass_on(&mut index, "a").is_empty());
    assert_eq!(names(index.put_object(own("a", 4, "A", "A"))), ["a", "new"]);
}

/// An object that takes its value from the target of another.
fn follows(name: &str, version: u64, upstream: &str) -> Own {
    let object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "resourceVersion": version.to_string()},
        "spec": {"name": name, "valueFrom": {"secretKeyRef": {"name": upstream, "key": "value"}}},
    });
    Own::new(serde_json::from_value(object).unwrap())
}

fn target(of: &str, owner: &str, version: u64) -> SecretView {
    SecretView { name: of.to_owned(), ..record(of, owner, version) }
}

#[test]
fn a_ring_of_values_that_closes_or_opens_wakes_all_in_it() {
    let mut index = Index::default();
    for (name, upstream) in [("a", "b"), ("b", "c"), ("c", "outside"), ("d", "a")] {
        index.put_object(follows(name, 1, upstream));
        index.put_secret(NAMESPACE, target(name, name, 1), None);
    }
    assert!(peers(&index, "a").ring.is_empty());
    assert_eq!(names(index.put_object(follows("c", 2, "a"))), ["a", "b", "c"]);
    assert_eq!(peers(&index, "b").ring, ["b", "c", "a"]);
    // It follows the ring, and is no part of it.
    assert!(peers(&index, "d").ring.is_empty());
    assert_eq!(names(index.remove_secret(NAMESPACE, &target("b", "b", 1))), ["a", "b", "c"]);
    assert!(peers(&index, "a").ring.is_empty());
    assert_eq!(names(index.put_secret(NAMESPACE, target("b", "b", 2), None)), ["a", "b", "c"]);
    assert_eq!(names(index.put_object(follows("b", 2, "outside"))), ["a", "b", "c"]);
    assert!(["a", "b", "c"].iter().all(|name| peers(&index, name).ring.is_empty()));
    index.put_object(follows("b", 3, "c"));
    assert_eq!(names(index.remove_object(NAMESPACE, "c", None)), ["a", "b", "c"]);
}

/// Of many objects that want one Secret that does not exist yet, the one that would get it counts, if it delivers under
/// the key that is taken from.
#[test]
fn a_ring_over_a_secret_that_does_not_exist_is_found_by_its_key() {
    let mut index = Index::default();
    let object = |name: &str, version: u64, upstream: (&str, &str), target: (&str, &str), suspend: bool| {
        let mut own = follows(name, version, upstream.0);
        own.spec = serde_json::from_value(json!({
            "name": name, "suspend": suspend, "target": {"name": target.0, "key": target.1},
            "valueFrom": {"secretKeyRef": {"name": upstream.0, "key": upstream.1}},
        }))
        .unwrap();
        own
    };
    index.replace_sources(NAMESPACE, HashMap::new());
    for number in 0..9 {
        index.put_object(object(&format!("other-{number}"), 1, ("outside", "k"), ("shared", "other"), false));
    }
    index.put_object(object("b", 1, ("a-s", "k"), ("shared", "k"), false));
    index.put_object(object("c", 1, ("outside", "k"), ("shared", "k"), false));
    assert!(peers(&index, "b").ring.is_empty());
    assert_eq!(names(index.put_object(object("a", 1, ("shared", "k"), ("a-s", "k"), false))), ["a", "b"]);
    assert_eq!(peers(&index, "a").ring, ["a", "b"]);
    // One that is suspended passes nothing on; the next one of the line would get the Secret, and is in no ring.
    assert_eq!(names(index.put_object(object("b", 2, ("a-s", "k"), ("shared", "k"), true))), ["a", "b"]);
    assert!(peers(&index, "a").ring.is_empty());
    assert_eq!(names(index.put_object(object("b", 3, ("a-s", "k"), ("shared", "k"), false))), ["a", "b"]);
    assert_eq!(names(index.put_object(object("b", 4, ("a-s", "k"), ("shared", "other"), false))), ["a", "b"]);
    assert!(peers(&index, "a").ring.is_empty());
    index.put_object(object("b", 5, ("a-s", "k"), ("shared", "k"), false));
    assert_eq!(peers(&index, "a").ring, ["a", "b"]);
    assert_eq!(names(index.remove_object(NAMESPACE, "b", None)), ["a", "b"]);
    assert!(peers(&index, "a").ring.is_empty());
}

/// A template passes a value on as well.
#[test]
fn a_ring_over_a_key_of_a_template_is_found() {
    let mut index = Index::default();
    let object = |name: &str, version: u64, from: (&str, &str), template: Value| {
        let mut own = follows(name, version, from.0);
        own.spec.value_from.as_mut().unwrap().secret_key_ref.key = from.1.to_owned();
        own.template = TargetTemplate::new(serde_json::from_value(template).unwrap()).map(Box::new);
        own
    };
    index.put_object(object("a", 1, ("b", "value"), json!({"url": "x$(value)", "user": "u"})));
    index.put_object(object("b", 1, ("a", "url"), json!({})));
    for name in ["a", "b"] {
        index.put_secret(NAMESPACE, target(name, name, 1), None);
    }
    assert_eq!(peers(&index, "b").ring, ["b", "a"]);
    assert_eq!(names(index.put_object(object("a", 2, ("b", "value"), json!({"user": "u"})))), ["a", "b"]);
    assert!(peers(&index, "b").ring.is_empty());
    assert_eq!(names(index.put_object(object("a", 3, ("b", "value"), json!({"url": "$(value)"})))), ["a", "b"]);
    assert_eq!(names(index.put_object(object("b", 2, ("a", "other"), json!({})))), ["a", "b"]);
    assert!(peers(&index, "a").ring.is_empty());
}

#[test]
fn of_all_secrets_with_the_labels_of_a_record_those_with_a_records_name_count() {
    const ID: &str = "6e6fcec5-4f59-452e-b760-01087152958a";
    let labels = [(LABEL_ROLE, ROLE_RECORD), (LABEL_ID, ID)].map(|(key, text)| (key.to_owned(), text.to_owned()));
    let labelled = |name: &str| SecretView {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: labels.clone().into(),
        ..SecretView::default()
    };
    let mut index = Index::default();
    let (old, new) = (record_name("OLD"), record_name("NEW"));
    for name in ["a1", "a2", "a3", "a4", "zz", &old, &new] {
        index.put_secret(NAMESPACE, labelled(name), None);
    }
    assert_eq!(BTreeSet::from_iter(index.records(NAMESPACE, ID)), BTreeSet::from([old.clone(), new.clone()]));
    index.remove_secret(NAMESPACE, &labelled("a1"));
    index.remove_secret(NAMESPACE, &labelled(&old));
    assert_eq!(index.records(NAMESPACE, ID), [new]);
    assert!(index.records(NAMESPACE, "7b977328-e080-4273-b655-8dd8c1205f85").is_empty());
}
