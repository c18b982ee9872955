//! `adoption: IfUnowned`: whose Secret may be taken over, what happens to it, and what never does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{
    objects::{Site, message},
    operator::Setup,
    witness::Witness,
};

fn spec(target: &Value) -> Value {
    let mut target = target.clone();
    target["adoption"] = json!("IfUnowned");
    json!({"name": "NAME", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}, "target": target})
}

async fn create(site: &Site, secret: Value) -> Secret {
    site.secrets().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap()
}

/// What of a Secret is none of ours: all its data but our key, and its labels and annotations without our prefix.
fn foreign_part(secret: &Secret, key: &str) -> Value {
    let mut secret = serde_json::to_value(secret).unwrap();
    let ours = |name: &str| name.split_once('/').is_some_and(|(prefix, _)| prefix == keys::GROUP);
    secret["data"].as_object_mut().unwrap().remove(key);
    for map in ["labels", "annotations"] {
        if let Some(map) = secret["metadata"][map].as_object_mut() {
            map.retain(|name, _| !ours(name));
        }
    }
    let metadata = &secret["metadata"];
    let labels = metadata["labels"].as_object().filter(|labels| !labels.is_empty());
    let annotations = metadata["annotations"].as_object().filter(|annotations| !annotations.is_empty());
    json!({
        "data": secret["data"], "type": secret["type"], "uid": metadata["uid"], "owners": metadata["ownerReferences"],
        "labels": labels, "annotations": annotations,
    })
}

fn adopted(secret: &Secret, key: &str) -> String {
    format!("adopted:{}:{}:{key}", secret.uid().unwrap(), secret.name_any())
}

async fn recorded_target(site: &Site) -> String {
    site.record("NAME").await.unwrap().annotations()[keys::ANNO_TARGET].clone()
}

fn theirs(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"team": "theirs"}, "annotations": {"note": "theirs"}},
        "stringData": {"other": "kept", "third": "kept too"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_owned_or_would_lose_something_is_not_adopted() {
    let site = Site::new("unadopted").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "wanted").await;
    let controller = site.foreign_secret("controller", &[]).await.uid().unwrap();
    let owner =
        json!([{"apiVersion": "v1", "kind": "Secret", "name": "controller", "uid": controller, "controller": true}]);
    let cases = [
        ("controlled", json!({"metadata": {"ownerReferences": owner}}), "a controller owns it", "TargetNotOwned"),
        ("labelled", json!({"metadata": {"labels": {keys::LABEL_ROLE: "target"}}}), keys::LABEL_ROLE, "TargetNotOwned"),
        (
            "as-record",
            json!({"metadata": {"labels": {keys::LABEL_ROLE: "record"}}}),
            keys::LABEL_ROLE,
            "TargetNotOwned",
        ),
        ("typed", json!({"type": "example.com/other"}), "its type is not", "TargetNotOwned"),
        ("filled", json!({"stringData": {"value": "canary"}}), "holds another value", "TargetNotOwned"),
        ("longer", json!({"stringData": {"value": "wanted\n"}}), "holds another value", "TargetNotOwned"),
        ("binary", json!({"data": {"value": "/w=="}}), "holds another value", "TargetNotOwned"),
        ("empty", json!({"stringData": {"value": ""}}), "holds another value", "TargetNotOwned"),
        ("immutable", json!({"immutable": true}), "immutable", "TargetImmutable"),
        ("relabelled", json!({"metadata": {"labels": {"team": "canary"}}}), "its label team has", "TargetNotOwned"),
        (
            "noted",
            json!({"metadata": {"annotations": {"note": "canary"}}}),
            "its annotation note has",
            "TargetNotOwned",
        ),
    ];
    let mut before = Vec::new();
    for (name, mut secret, ..) in cases.clone() {
        secret["metadata"]["name"] = json!(name);
        before.push(create(&site, secret).await);
        let mut spec = spec(&json!({"labels": {"team": "ours"}, "annotations": {"note": "ours"}}));
        spec["name"] = json!(name);
        site.apply(name, spec).await;
    }
    for ((name, _, text, reason), before) in cases.iter().zip(&before) {
        let object = site.reports(name, "False", reason).await;
        assert!(message(&object).contains(text), "{name}: {}", message(&object));
        assert!(!format!("{object:?}").contains("canary"));
        assert_eq!(site.secret(name).await.as_ref(), Some(before), "{name}");
    }
    // A person takes away what stands in the way.
    site.intrude("filled", json!({"data": {"value": null}})).await;
    site.nudge("filled").await;
    site.served("filled").await;
    assert_eq!(site.value("filled", "value").await.as_deref(), Some("wanted"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_leave_nothing_is_adopted() {
    let site = Site::new("never").await;
    let operator = Setup::of(&site.namespace).start().await;
    let before = create(&site, theirs("db")).await;
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("db"), "{}", message(&object));
    assert_eq!(site.secret("db").await, Some(before));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_gets_our_key_and_keeps_all_that_is_its_own() {
    let site = Site::new("adopted").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "v1").await;
    let before = create(&site, theirs("db")).await;
    let others = foreign_part(&before, "value");
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    assert_eq!(recorded_target(&site).await, adopted(&before, "value"));
    let check = |secret: Secret, key: &str| {
        assert_eq!(foreign_part(&secret, key), others);
        assert_eq!(secret.metadata.owner_references, None);
        assert_eq!(secret.labels()[keys::LABEL_ROLE], keys::ROLE_TARGET);
    };
    check(site.secret("db").await.unwrap(), "value");
    site.source("source", "v2").await;
    site.delivers("db", "value", "v2").await;
    site.served("db").await;
    check(site.secret("db").await.unwrap(), "value");

    // It stays adopted through anything: a changed mind about adoption, a restart, a lost label, another key.
    site.apply("db", json!({"name": "NAME", "valueFrom": spec(&json!({}))["valueFrom"]})).await;
    site.served("db").await;
    operator.stop().await;
    operator = Setup::of(&site.namespace).start().await;
    site.intrude("db", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})).await;
    poll_label(&site, "db").await;
    operator.stop().await;
    site.intrude("db", json!({"metadata": {"labels": {keys::LABEL_ROLE: null, keys::LABEL_ID: null}}})).await;
    site.apply("db", spec(&json!({"key": "password"}))).await;
    operator = Setup::of(&site.namespace).start().await;
    site.served("db").await;
    assert_eq!(recorded_target(&site).await, adopted(&before, "password"));
    check(site.secret("db").await.unwrap(), "password");

    // Its type is its own.
    site.apply("db", spec(&json!({"key": "password", "type": "kubernetes.io/basic-auth"}))).await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("never recreates"), "{}", message(&object));
    check(site.secret("db").await.unwrap(), "password");
    assert_eq!(recorded_target(&site).await, adopted(&before, "password"));
    site.apply("db", spec(&json!({"key": "password"}))).await;
    site.served("db").await;

    // It moves away: our key and labels go, and nothing else.
    site.apply("db", spec(&json!({"name": "elsewhere"}))).await;
    site.served("db").await;
    let left = site.secret("db").await.unwrap();
    assert_eq!(foreign_part(&left, "password"), others);
    assert_eq!(left.data.as_ref().unwrap().len(), 2);
    assert!(!left.labels().keys().chain(left.annotations().keys()).any(|key| key.contains(keys::GROUP)), "{left:?}");
    assert_eq!(recorded_target(&site).await, "own:elsewhere:value");
    assert_eq!(
        witness.values("db", "value").await,
        [None, Some("v1".into()), Some("v2".into()), None],
        "never a wrong value"
    );
    assert_eq!(witness.values("db", "password").await, [None, Some("v2".into()), None]);
    operator.stop().await;
}

/// Waits until the operator has put its label back.
async fn poll_label(site: &Site, name: &str) {
    testkit::poll("the label", super::operator::PATIENCE, || async {
        let secret = site.secret(name).await.unwrap();
        Ok(secret.labels().contains_key(keys::LABEL_ROLE).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_outlives_the_managed_secret_with_its_key() {
    let site = Site::new("outlives").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    // Holding the very same value, it may be adopted as well.
    let mut same = theirs("db");
    same["stringData"]["value"] = json!("v");
    let before = create(&site, same).await;
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    site.delete("db").await;
    // The record is collected, so the collector has been here.
    site.gone(&managed_secrets_api::names::record_name("NAME")).await;
    let after = site.secret("db").await.unwrap();
    assert_eq!(foreign_part(&after, "value"), foreign_part(&before, "value"));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("v"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_none_releases_an_adopted_secret() {
    let site = Site::new("released").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    let before = create(&site, theirs("db")).await;
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    let source = spec(&json!({}))["valueFrom"].clone();
    site.apply("db", json!({"name": "NAME", "valueFrom": source, "delivery": "None"})).await;
    site.served("db").await;
    let after = site.secret("db").await.unwrap();
    assert_eq!(after.data, before.data);
    assert_eq!(
        (after.uid(), after.labels(), after.annotations()),
        (before.uid(), before.labels(), before.annotations())
    );
    assert_eq!(recorded_target(&site).await, "none");
    // And it can be adopted again.
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    assert_eq!(recorded_target(&site).await, adopted(&before, "value"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_that_vanishes_is_replaced_by_one_of_our_own() {
    let site = Site::new("vanished").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v").await;
    create(&site, theirs("db")).await;
    site.apply("db", spec(&json!({}))).await;
    let object = site.served("db").await;
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    site.delivers("db", "value", "v").await;
    let after = site.served("db").await;
    let secret = site.secret("db").await.unwrap();
    assert_eq!(secret.data.as_ref().unwrap().len(), 1);
    let owner = secret.metadata.owner_references.unwrap().remove(0);
    assert_eq!(Some(owner.uid), object.metadata.uid);
    assert_eq!(recorded_target(&site).await, "own:db:value");
    assert_eq!(after.status.unwrap().version, Some(1));
    // One of our own: it goes with the object.
    site.delete("db").await;
    site.gone("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_is_remembered_while_it_is_blocked_and_its_key_moves() {
    let site = Site::new("remembered").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v1").await;
    let before = create(&site, theirs("db")).await;
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    site.intrude("db", json!({"immutable": true})).await;
    site.source("source", "v2").await;
    site.reports("db", "False", "TargetImmutable").await;
    site.apply("db", spec(&json!({"key": "password"}))).await;
    site.reports("db", "False", "TargetImmutable").await;
    assert_eq!(recorded_target(&site).await, adopted(&before, "password"));
    let after = site.secret("db").await.unwrap();
    assert_eq!((after.uid(), after.metadata.owner_references), (before.uid(), None));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("v1"));
    operator.stop().await;
}

/// Made immutable, it cannot give our key back: that stays, and all else of ours goes.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_secret_that_was_made_immutable_is_given_up_with_its_key() {
    let site = Site::new("frozen").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v1").await;
    let source = spec(&json!({}))["valueFrom"].clone();
    for (name, away) in [
        ("moved", json!({"name": "MOVED", "valueFrom": source, "target": {"name": "elsewhere"}})),
        ("undelivered", json!({"name": "UNDELIVERED", "valueFrom": source, "delivery": "None"})),
    ] {
        let before = create(&site, theirs(name)).await;
        let mut spec = spec(&json!({}));
        spec["name"] = json!(name.to_uppercase());
        site.apply(name, spec).await;
        site.served(name).await;
        site.intrude(name, json!({"immutable": true})).await;
        site.apply(name, away).await;
        site.served(name).await;
        let left = site.secret(name).await.unwrap();
        assert_eq!(foreign_part(&left, "value"), foreign_part(&before, "value"), "{name}");
        assert_eq!(site.value(name, "value").await.as_deref(), Some("v1"), "{name}");
        let marks = left.labels().keys().chain(left.annotations().keys()).any(|key| key.contains(keys::GROUP));
        assert!(!marks, "{name}: {left:?}");
        let target = site.get(name).await.status.unwrap().target.map(|target| target.name);
        assert_ne!(target.as_deref(), Some(name));
    }
    site.delivers("elsewhere", "value", "v1").await;
    operator.stop().await;
}

/// Who wrote what was there before an adoption.
#[derive(Clone, Copy, Debug)]
enum Writer {
    /// Another program, by server-side apply.
    Apply,
    /// kubectl, by an update.
    Update,
    /// No known manager: the bookkeeping of managers was cleared.
    Unknown,
}

impl Writer {
    async fn write(self, site: &Site, secret: &Value) -> Secret {
        let name = secret["metadata"]["name"].as_str().unwrap().to_owned();
        if let Self::Apply = self {
            let mut secret = secret.clone();
            (secret["apiVersion"], secret["kind"]) = (json!("v1"), json!("Secret"));
            let params = PatchParams::apply("someone").force();
            return site.secrets().patch(&name, &params, &Patch::Apply(&secret)).await.unwrap();
        }
        let created = create(site, secret.clone()).await;
        match self {
            Self::Unknown => site.intrude(&name, json!({"metadata": {"managedFields": [{}]}})).await,
            Self::Apply | Self::Update => created,
        }
    }
}

/// A label, an annotation and the key with the very same value: adopted, rotated and given up, they are as they were, but
/// for the value; and so is a key that the value has left.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_an_adoption_stays_when_it_ends() {
    let site = Site::new("before").await;
    let operator = Setup::of(&site.namespace).start().await;
    let same = json!({"labels": {"team": "theirs", "ours": "yes"}, "annotations": {"note": "theirs", "ours": "yes"}});
    let from = spec(&json!({}))["valueFrom"].clone();
    for writer in [Writer::Apply, Writer::Update, Writer::Unknown] {
        for rotated in [false, true] {
            site.source("source", "v1").await;
            let name = format!("{writer:?}-{rotated}").to_lowercase();
            let mut secret = theirs(&name);
            secret["data"] = json!({"value": BASE64_STANDARD.encode("v1"), "other": BASE64_STANDARD.encode("kept")});
            secret.as_object_mut().unwrap().remove("stringData");
            let before = writer.write(&site, &secret).await;
            let mut adopting = spec(&same);
            adopting["name"] = json!(name);
            site.apply(&name, adopting.clone()).await;
            site.served(&name).await;
            let adopted = site.secret(&name).await.unwrap();
            assert_eq!((adopted.labels()["ours"].as_str(), adopted.labels()["team"].as_str()), ("yes", "theirs"));
            if rotated {
                site.source("source", "v2").await;
                site.delivers(&name, "value", "v2").await;
                // By way of another key, which is not theirs.
                adopting["target"]["key"] = json!("moved");
                site.apply(&name, adopting.clone()).await;
                site.served(&name).await;
                site.delivers(&name, "moved", "v2").await;
            }
            site.apply(&name, json!({"name": name, "valueFrom": from, "delivery": "None"})).await;
            site.served(&name).await;
            let after = site.secret(&name).await.unwrap();
            let value = if rotated { "v2" } else { "v1" };
            assert_eq!(site.value(&name, "value").await.as_deref(), Some(value), "{name}");
            assert_eq!(after.data.as_ref().unwrap().len(), 2, "{name}");
            assert_eq!((after.labels(), after.annotations()), (before.labels(), before.annotations()), "{name}");
            assert_eq!(foreign_part(&after, "value"), foreign_part(&before, "value"), "{name}");
        }
    }
    operator.stop().await;
}

/// A label that an adopted Secret has of its own is not overwritten later either; the value goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_an_adopted_secret_is_not_overwritten_by_a_later_spec() {
    let site = Site::new("later").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "v1").await;
    let before = create(&site, theirs("db")).await;
    let others = foreign_part(&before, "value");
    site.apply("db", spec(&json!({}))).await;
    site.served("db").await;
    for (target, field) in [
        (json!({"labels": {"team": "canary"}}), "label team"),
        (json!({"annotations": {"note": "canary"}}), "annotation note"),
    ] {
        site.apply("db", spec(&target)).await;
        let object = site.reports("db", "False", "TargetNotOwned").await;
        assert!(message(&object).contains(&format!("its {field} has another value")), "{}", message(&object));
        assert!(!message(&object).contains("canary") && !message(&object).contains("theirs"));
        let value = format!("v-{}", field.replace(' ', "-"));
        site.source("source", &value).await;
        site.delivers("db", "value", &value).await;
        assert_eq!(foreign_part(&site.secret("db").await.unwrap(), "value"), others);
        site.apply("db", spec(&json!({}))).await;
        site.served("db").await;
    }
    operator.stop().await;
}
