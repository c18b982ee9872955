//! The delivered Secret: its key, type, labels and annotations, moving it, and what happens when it cannot be written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, api::DeleteParams};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, largest_metadata, message, moved},
    operator::{PATIENCE, Setup},
    witness::Witness,
};

fn from(source: &str) -> Value {
    json!({"secretKeyRef": {"name": source, "key": "key"}})
}

/// A spec with this target; left out where nothing is said of it, for an apply that empties a map leaves `null` there.
fn target(target: &Value) -> Value {
    let mut spec = json!({"name": "NAME", "valueFrom": from("source")});
    if *target != json!({}) {
        spec["target"] = target.clone();
    }
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn every_allowed_type_is_delivered_under_its_key_alone() {
    let site = Site::new("types").await;
    let operator = Setup::of(&site.namespace).start().await;
    let cases = [
        ("opaque", "Opaque", "any.key-1_x", "plain"),
        ("user", "kubernetes.io/basic-auth", "username", "admin"),
        ("password", "kubernetes.io/basic-auth", "password", "hunter2"),
        ("ssh", "kubernetes.io/ssh-auth", "ssh-privatekey", "-----BEGIN"),
        ("docker", "kubernetes.io/dockerconfigjson", ".dockerconfigjson", r#"{"auths":{"r.example":{"auth":"YTpi"}}}"#),
        ("own", "example.com/token", "token", "t"),
        ("bare", "my-type", "k", "t"),
    ];
    for (name, type_, key, value) in cases {
        site.source(&format!("{name}-source"), value).await;
        let spec = json!({
            "name": name, "valueFrom": from(&format!("{name}-source")), "target": {"type": type_, "key": key},
        });
        site.apply(name, spec).await;
    }
    for (name, type_, key, value) in cases {
        let object = site.served(name).await;
        let status = object.status.unwrap();
        let secret = site.secret(name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some(type_));
        let data = secret.data.unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), [key]);
        assert_eq!(data[key].0, value.as_bytes());
        let labels = secret.metadata.labels.unwrap();
        assert_eq!(labels[keys::LABEL_ROLE], keys::ROLE_TARGET);
        assert_eq!(labels[keys::LABEL_ID], status.id.unwrap());
        let [owner] = secret.metadata.owner_references.unwrap().try_into().unwrap();
        assert_eq!(Some(owner.uid), object.metadata.uid);
        assert_eq!((owner.controller, owner.block_owner_deletion), (None, None));
        let shown = status.target.unwrap();
        assert_eq!((shown.name.as_str(), shown.key.as_str()), (name, key));
        assert_eq!(Some(shown.resource_version), secret.metadata.resource_version);
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_the_type_forbids_is_refused_without_being_shown() {
    let site = Site::new("refused").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    let spec = target(&json!({"type": "kubernetes.io/dockerconfigjson", "key": ".dockerconfigjson"}));
    site.source("source", "canary-one, not JSON").await;
    site.apply("docker", spec).await;
    let object = site.reports("docker", "False", "WriteRefused").await;
    assert!(message(&object).contains(".dockerconfigjson"), "{}", message(&object));
    assert!(!format!("{object:?}").contains("canary"), "{}", message(&object));
    assert!(site.secret("docker").await.is_none());

    let good = r#"{"auths":{}}"#;
    site.source("source", good).await;
    site.served("docker").await;
    // What is served stays, and no status says that it is up to date, however often the operator looks.
    site.source("source", "{canary-two").await;
    site.reports("docker", "False", "WriteRefused").await;
    for restart in [false, true] {
        if restart {
            operator.stop().await;
            operator = Setup::of(&site.namespace).start().await;
        }
        let before = site.get("docker").await;
        site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
        site.nudge("docker").await;
        site.served("other").await;
        site.delete("other").await;
        site.apply("docker", described(&before.spec, &format!("restart: {restart}"))).await;
        let after = site.reports("docker", "False", "WriteRefused").await;
        assert_eq!(site.value("docker", ".dockerconfigjson").await.as_deref(), Some(good));
        assert!(!message(&after).contains("canary"));
    }
    let better = r#"{"auths":{"x":{}}}"#;
    site.source("source", better).await;
    site.served("docker").await;
    assert_eq!(witness.values("docker", ".dockerconfigjson").await, [Some(good.into()), Some(better.into())]);
    operator.stop().await;
}

/// Whether a Secret has these labels and annotations, and others besides.
fn wears(secret: &Secret, metadata: &Value) -> bool {
    let has = |live: &BTreeMap<String, String>, wanted: &Value| {
        wanted.as_object().unwrap().iter().all(|(key, text)| live.get(key).map(String::as_str) == text.as_str())
    };
    has(secret.labels(), &metadata["labels"]) && has(secret.annotations(), &metadata["annotations"])
}

/// No cache keeps them: a digest tells that they are as they should be, and they are read to be written.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_labels_and_annotations_are_delivered_changed_and_put_right() {
    let site = Site::new("largest").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let until = async |what: &str, metadata: &Value| {
        let worn = poll(what, PATIENCE, || async {
            Ok(site.secret("db").await.filter(|secret| wears(secret, metadata)).map(drop))
        });
        worn.await.unwrap();
    };
    site.source("source", "v").await;
    let first = largest_metadata('a');
    site.apply("db", target(&first)).await;
    site.in_step("db").await;
    until("the first", &first).await;
    let uid = site.secret("db").await.unwrap().metadata.uid;
    // One character of one of them.
    let mut second = first.clone();
    let key = second["annotations"].as_object().unwrap().keys().nth(40).unwrap().clone();
    let edited = second["annotations"][&key].as_str().unwrap().replace('a', "b");
    second["annotations"][&key] = json!(edited);
    site.apply("db", target(&second)).await;
    site.in_step("db").await;
    until("an edited annotation", &second).await;
    let label = second["labels"].as_object().unwrap().keys().nth(40).unwrap().clone();
    let drift = json!({"metadata": {"annotations": {&key: "else"}, "labels": {&label: null}}});
    site.intrude("db", drift.clone()).await;
    until("drift to be put right", &second).await;
    site.in_step("db").await;
    // Also when no event comes.
    operator.stop().await;
    site.intrude("db", drift).await;
    operator = Setup::of(&site.namespace).start().await;
    until("drift of the time between to be put right", &second).await;
    site.in_step("db").await;
    // A name and a value that move meanwhile take all of it along.
    site.source("source", "w").await;
    site.delivers("db", "value", "w").await;
    let third = json!({"name": "moved", "labels": second["labels"], "annotations": {&key: edited}});
    site.apply("db", target(&third)).await;
    site.in_step("db").await;
    let moved = site.secret("moved").await.unwrap();
    assert!(wears(&moved, &third) && moved.annotations().len() == 2, "{:?}", moved.annotations().keys());
    assert_ne!(moved.metadata.uid, uid);
    assert!(site.secret("db").await.is_none());
    operator.stop().await;
}

/// What the Secret had before stays its own, also where the spec's text is too long for a cache.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_keeps_what_it_had_of_the_largest_labels_and_annotations() {
    let site = Site::new("largest-adopted").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    let mut wanted = largest_metadata('a');
    let (key, text) = wanted["annotations"].as_object().unwrap().iter().next().unwrap();
    let had = json!({"metadata": {"annotations": {key: text}}});
    let other = json!({"metadata": {"annotations": {key: "else"}}});
    site.foreign_secret("db", &[("theirs", "t")]).await;
    site.intrude("db", other).await;
    wanted["adoption"] = json!("IfUnowned");
    site.apply("db", target(&wanted)).await;
    let refused = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&refused).contains("has another value"), "{}", message(&refused));
    site.intrude("db", had.clone()).await;
    site.apply("db", described(&target(&wanted), "tried again")).await;
    site.in_step("db").await;
    assert!(wears(&site.secret("db").await.unwrap(), &wanted));
    site.apply("db", json!({"name": "NAME", "valueFrom": from("source"), "delivery": "None"})).await;
    site.served("db").await;
    let left = site.secret("db").await.unwrap();
    assert_eq!(json!(left.annotations()), had["metadata"]["annotations"]);
    assert!(left.labels().is_empty() && left.data.unwrap().keys().eq(["theirs"]));
    operator.stop().await;
}

fn described(spec: &impl serde::Serialize, description: &str) -> Value {
    let mut spec = serde_json::to_value(spec).unwrap();
    spec["description"] = json!(description);
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_none_is_named_by_its_rule_and_what_is_served_stays() {
    let site = Site::new("invalid").await;
    let operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "good").await;
    site.apply("db", target(&json!({}))).await;
    site.served("db").await;
    for bad in [String::new(), "canary".repeat(600)] {
        site.source("source", &bad).await;
        let object = site.reports("db", "False", "InvalidValue").await;
        assert!(message(&object).contains("must"), "{}", message(&object));
        assert!(!format!("{object:?}").contains("canary"));
        assert!(!message(&object).contains("3600"), "its length is shown: {}", message(&object));
        site.source("source", "good").await;
        site.served("db").await;
    }
    site.intrude("source", json!({"data": {"key": "/////w=="}})).await;
    site.reports("db", "False", "InvalidValue").await;
    assert_eq!(site.get("db").await.status.unwrap().version, Some(1));
    assert_eq!(witness.values("db", "value").await, [Some("good".into())]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_annotations_follow_the_spec_and_foreign_ones_stay() {
    let site = Site::new("labels").await;
    let operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "v").await;
    site.apply("db", target(&json!({"labels": {"a": "1", "b": "2"}, "annotations": {"n": "x", "m": "y"}}))).await;
    let first = site.served("db").await;
    site.intrude("db", json!({"metadata": {"labels": {"foreign": "yes"}, "annotations": {"foreign": "yes"}}})).await;
    site.apply("db", target(&json!({"labels": {"a": "changed", "c": "3"}, "annotations": {"n": "z"}}))).await;
    site.served("db").await;
    let secret = site.secret("db").await.unwrap();
    let own = |map: std::collections::BTreeMap<String, String>| {
        map.into_iter().filter(|(key, _)| !key.starts_with(keys::GROUP)).collect::<Vec<_>>()
    };
    let pair = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    assert_eq!(own(secret.metadata.labels.unwrap()), [pair("a", "changed"), pair("c", "3"), pair("foreign", "yes")]);
    assert_eq!(own(secret.metadata.annotations.unwrap()), [pair("foreign", "yes"), pair("n", "z")]);
    assert_eq!(moved(&site.get("db").await), moved(&first), "neither name nor description nor value has moved");

    // A label of another manager under a key that the spec asks for later becomes ours, and goes with the spec's entry.
    site.apply("db", target(&json!({"labels": {"foreign": "ours"}}))).await;
    site.served("db").await;
    assert_eq!(site.secret("db").await.unwrap().metadata.labels.unwrap()["foreign"], "ours");
    site.apply("db", target(&json!({}))).await;
    site.served("db").await;
    let secret = site.secret("db").await.unwrap();
    assert_eq!(own(secret.metadata.labels.unwrap()), []);
    assert_eq!(own(secret.metadata.annotations.unwrap()), [pair("foreign", "yes")]);
    assert_eq!(witness.values("db", "value").await, [Some("v".into())]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_target_is_written_at_its_new_place_before_the_old_one_goes() {
    let site = Site::new("moved").await;
    let operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "v").await;
    site.apply("db", target(&json!({"name": "one"}))).await;
    site.served("db").await;
    site.apply("db", target(&json!({"name": "two", "key": "other"}))).await;
    let object = site.served("db").await;
    site.gone("one").await;
    let shown = object.status.unwrap().target.unwrap();
    assert_eq!((shown.name.as_str(), shown.key.as_str()), ("two", "other"));
    let states = witness.states().await;
    let written = states.iter().position(|state| state.name == "two").unwrap();
    let removed = states.iter().position(|state| state.name == "one" && state.deleted).unwrap();
    assert!(written < removed);
    assert_eq!(witness.values("one", "value").await, [Some("v".into())]);

    // Another key of the same Secret: in one write, the old key with it.
    site.apply("db", target(&json!({"name": "two", "key": "third"}))).await;
    site.served("db").await;
    assert_eq!(witness.values("two", "third").await, [None, Some("v".into())]);
    assert_eq!(witness.values("two", "other").await, [Some("v".into()), None]);
    assert_eq!(witness.uids("two").await.len(), 1);

    site.apply("db", json!({"name": "NAME", "valueFrom": from("source"), "delivery": "None"})).await;
    let object = site.served("db").await;
    site.gone("two").await;
    assert_eq!(object.status.unwrap().target, None);
    site.apply("db", target(&json!({"name": "two"}))).await;
    site.served("db").await;
    site.delivers("two", "value", "v").await;
    assert_eq!(site.get("db").await.status.unwrap().version, Some(1));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_new_place_is_blocked_the_old_one_stays_and_no_stale_value_counts_as_served() {
    let site = Site::new("blocked").await;
    let operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "v1").await;
    site.apply("db", target(&json!({}))).await;
    site.served("db").await;
    let taken = site.foreign_secret("taken", &[("value", "theirs")]).await;
    site.apply("db", target(&json!({"name": "taken"}))).await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("taken"), "{}", message(&object));
    assert_eq!(object.status.unwrap().target.unwrap().name, "db");
    assert_eq!(site.value("db", "value").await.as_deref(), Some("v1"));
    site.source("source", "v2").await;
    site.until("db", "the new value is recorded", |object| object.status.as_ref().unwrap().version == Some(2)).await;
    // Back to the old place, which still holds the old value.
    site.apply("db", target(&json!({}))).await;
    site.served("db").await;
    assert_eq!(site.value("db", "value").await.as_deref(), Some("v2"));

    site.apply("db", target(&json!({"name": "taken"}))).await;
    site.reports("db", "False", "TargetNotOwned").await;
    assert_eq!(site.secret("taken").await.unwrap(), taken);
    site.secrets().delete("taken", &DeleteParams::default()).await.unwrap();
    // No watch shows that: the next look does.
    site.nudge("db").await;
    site.served("db").await;
    site.gone("db").await;
    assert_eq!(witness.values("db", "value").await, [Some("v1".into()), Some("v2".into())]);
    assert_eq!(witness.values("taken", "value").await, [Some("theirs".into()), Some("v2".into())]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_made_immutable_is_reported_and_its_stale_value_never_counts_as_served() {
    let site = Site::new("immutable").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v1").await;
    site.apply("db", target(&json!({}))).await;
    site.served("db").await;
    site.intrude("db", json!({"immutable": true})).await;
    // As long as it holds the value, nothing is amiss.
    site.in_step("db").await;
    site.source("source", "v2").await;
    let object = site.reports("db", "False", "TargetImmutable").await;
    assert!(message(&object).contains("immutable"), "{}", message(&object));
    assert_eq!(object.status.unwrap().version, Some(2));
    for round in ["a", "b"] {
        site.apply("db", described(&site.get("db").await.spec, round)).await;
        site.reports("db", "False", "TargetImmutable").await;
    }
    assert_eq!(site.value("db", "value").await.as_deref(), Some("v1"));
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    site.served("db").await;
    site.delivers("db", "value", "v2").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_type_recreates_the_target_and_never_serves_anything_else() {
    let site = Site::new("retype").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.apply("db", json!({"name": "NAME", "generate": {}, "target": {"key": "password"}})).await;
    site.served("db").await;
    let value = site.value("db", "password").await.unwrap();
    let retyped = |type_: &str| json!({"name": "NAME", "generate": {}, "target": {"key": "password", "type": type_}});
    site.apply("db", retyped("kubernetes.io/basic-auth")).await;
    site.served("db").await;
    // The next one finds out by the refusal: it has not seen the type itself.
    operator.stop().await;
    site.apply("db", retyped("example.com/password")).await;
    operator = Setup::of(&site.namespace).start().await;
    site.served("db").await;
    assert_eq!(site.secret("db").await.unwrap().type_.as_deref(), Some("example.com/password"));
    assert_eq!(witness.values("db", "password").await, [Some(value)]);
    assert_eq!(witness.uids("db").await.len(), 3);
    assert_eq!(site.get("db").await.status.unwrap().version, Some(1));
    operator.stop().await;
}
