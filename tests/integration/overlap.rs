//! `spec.target.previousKey` and `spec.overlap`: the previous value beside the new one, and its end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, message, status},
    operator::{PATIENCE, Setup},
    witness::Witness,
};

/// Follows the Secret `source`, with this target and more fields of the spec.
fn spec(target: &Value, more: &Value) -> Value {
    let mut spec = json!({
        "name": "DB", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}, "target": target,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

/// All data of a Secret.
async fn data(site: &Site, secret: &str) -> Option<BTreeMap<String, String>> {
    let data = site.secret(secret).await?.data.unwrap_or_default();
    Some(data.into_iter().map(|(key, bytes)| (key, String::from_utf8(bytes.0).unwrap())).collect())
}

/// Waits until the Secret holds exactly this, and status knows of it.
async fn holds(site: &Site, secret: &str, expected: &[(&str, &str)]) {
    let expected = map(expected);
    let waited = poll("the values", PATIENCE, || async {
        Ok((data(site, secret).await.as_ref() == Some(&expected)).then_some(()))
    })
    .await;
    assert!(waited.is_ok(), "{secret} holds {:?}, and {expected:?} is wanted", data(site, secret).await);
    site.in_step("db").await;
}

/// The version and key that a target says it has beside the delivered one.
async fn said(site: &Site, secret: &str) -> Option<String> {
    site.secret(secret).await.unwrap().annotations().get(keys::ANNO_PREVIOUS).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_value_stays_beside_the_new_one_until_the_overlap_ends() {
    let site = Site::new("overlap").await;
    let operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.source("source", "one").await;
    site.apply("db", spec(&json!({"previousKey": "old"}), &json!({"overlap": "3s"}))).await;
    holds(&site, "db", &[("value", "one")]).await;
    site.source("source", "two").await;
    holds(&site, "db", &[("value", "two")]).await;
    assert_eq!(said(&site, "db").await, None);
    // Both come in one write, and the previous one goes in another.
    let mut states: Vec<_> = witness.states().await.into_iter().filter(|state| state.name == "db").collect();
    states.dedup_by(|one, other| one.data == other.data);
    let seen: Vec<_> = states.into_iter().map(|state| state.data).collect();
    assert_eq!(seen, [map(&[("value", "one")]), map(&[("old", "one"), ("value", "two")]), map(&[("value", "two")])]);
    // No other program changed it.
    assert!(site.events("db", "TargetDriftCorrected").await.is_empty());
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_end_the_previous_value_stays_until_the_next_and_follows_the_target() {
    let site = Site::new("overlap-open").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    site.source("source", "one").await;
    let target = json!({"previousKey": "old"});
    site.apply("db", spec(&target, &json!({}))).await;
    holds(&site, "db", &[("value", "one")]).await;
    for (value, before) in [("two", "one"), ("three", "two")] {
        site.source("source", value).await;
        holds(&site, "db", &[("old", before), ("value", value)]).await;
    }
    assert_eq!(said(&site, "db").await.as_deref(), Some("2:old"));
    let object = site.get("db").await;
    assert!(message(&object).contains("version 2 as its key old until the next value"), "{}", message(&object));

    // It is restored like any other key, and a restart of the operator alone writes nothing.
    site.intrude("db", json!({"data": {"old": null}})).await;
    holds(&site, "db", &[("old", "two"), ("value", "three")]).await;
    let (secret, before) = (site.secret("db").await, status(&site.get("db").await));
    operator.stop().await;
    operator = Setup::of(&site.namespace).start().await;
    site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
    site.nudge("db").await;
    site.served("other").await;
    assert_eq!((site.secret("db").await, status(&site.get("db").await)), (secret, before));

    // The keys change places, and move with the target.
    site.apply("db", spec(&json!({"key": "old", "previousKey": "value"}), &json!({}))).await;
    holds(&site, "db", &[("old", "three"), ("value", "two")]).await;
    site.apply("db", spec(&json!({"name": "moved", "previousKey": "old", "template": {"t": "=$(value)"}}), &json!({})))
        .await;
    holds(&site, "moved", &[("old", "two"), ("t", "=three"), ("value", "three")]).await;
    site.gone("db").await;

    // Beside an earlier version that the spec names, there is none.
    let target = json!({"name": "moved", "previousKey": "old"});
    site.apply("db", spec(&target, &json!({"version": 2}))).await;
    holds(&site, "moved", &[("value", "two")]).await;
    site.apply("db", spec(&target, &json!({}))).await;
    holds(&site, "moved", &[("old", "two"), ("value", "three")]).await;

    // An overlap that is over, one that is not, and no key.
    site.apply("db", spec(&target, &json!({"overlap": "0s"}))).await;
    holds(&site, "moved", &[("value", "three")]).await;
    site.apply("db", spec(&target, &json!({"overlap": "24h"}))).await;
    holds(&site, "moved", &[("old", "two"), ("value", "three")]).await;
    assert!(message(&site.get("db").await).contains("version 2 as its key old until 20"));
    site.apply("db", spec(&json!({"name": "moved"}), &json!({}))).await;
    holds(&site, "moved", &[("value", "three")]).await;
    assert_eq!(said(&site, "moved").await, None);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_another_program_in_an_adopted_secret_stays() {
    let site = Site::new("overlap-adopted").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("source", "one").await;
    site.foreign_secret("db", &[("theirs", "x"), ("same", "one")]).await;
    let target = |previous: &str| json!({"adoption": "IfUnowned", "previousKey": previous});
    site.apply("db", spec(&target("theirs"), &json!({}))).await;
    holds(&site, "db", &[("same", "one"), ("theirs", "x"), ("value", "one")]).await;
    // It holds something else, so nothing is written.
    site.source("source", "two").await;
    let object = site.reports("db", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("choose another spec.target.previousKey"), "{}", message(&object));
    assert_eq!(data(&site, "db").await.unwrap(), map(&[("same", "one"), ("theirs", "x"), ("value", "one")]));
    // It holds the very same value: it is followed while the overlap lasts, and left as it is when the overlap ends.
    site.apply("db", spec(&target("same"), &json!({}))).await;
    holds(&site, "db", &[("same", "one"), ("theirs", "x"), ("value", "two")]).await;
    site.apply("db", spec(&target("same"), &json!({"overlap": "0s"}))).await;
    holds(&site, "db", &[("same", "one"), ("theirs", "x"), ("value", "two")]).await;
    assert_eq!(said(&site, "db").await, None);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_previous_value_is_reported_and_the_newest_is_delivered() {
    let site = Site::new("overlap-lost").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    for value in ["one", "two"] {
        site.source("source", value).await;
        site.apply("db", spec(&json!({}), &json!({}))).await;
        holds(&site, "db", &[("value", value)]).await;
    }
    let good = site.record("DB").await.unwrap();
    let change = async |data: Value| {
        let patch = Patch::Merge(json!({"data": data}));
        restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    };
    change(json!({"value.1": null})).await;
    site.in_step("db").await;
    site.apply("db", spec(&json!({"previousKey": "old"}), &json!({}))).await;
    let object = site.reports("db", "False", "VersionLost").await;
    assert!(message(&object).contains("version 1") && message(&object).contains("previousKey"), "{}", message(&object));
    assert_eq!(data(&site, "db").await.unwrap(), map(&[("value", "two")]));
    // It comes back.
    change(json!({"value.1": good.data.as_ref().unwrap()["value.1"]})).await;
    holds(&site, "db", &[("old", "one"), ("value", "two")]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_previous_value_that_the_record_has_lost_stays_while_the_target_has_it() {
    let site = Site::new("overlap-kept").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let target = |more: Value| {
        let mut target = json!({"previousKey": "old"});
        target.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec(&target, &json!({}))
    };
    for value in ["one", "two"] {
        site.source("source", value).await;
        site.apply("db", target(json!({}))).await;
        site.delivers("db", "value", value).await;
    }
    holds(&site, "db", &[("old", "one"), ("value", "two")]).await;
    let good = site.record("DB").await.unwrap();
    let change = async |data: Value| {
        let patch = Patch::Merge(json!({"data": data}));
        restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    };
    change(json!({"value.1": null})).await;
    let object = site.reports("db", "False", "VersionLost").await;
    assert!(message(&object).contains("the copy at spec.target.previousKey stays"), "{}", message(&object));
    assert_eq!(data(&site, "db").await.unwrap(), map(&[("old", "one"), ("value", "two")]));
    // It follows the spec: other labels, and another key.
    site.apply("db", target(json!({"previousKey": "older", "labels": {"team": "shop"}}))).await;
    let moved = map(&[("older", "one"), ("value", "two")]);
    poll("the values under the other key", PATIENCE, || async {
        Ok((data(&site, "db").await.as_ref() == Some(&moved)).then_some(()))
    })
    .await
    .unwrap();
    site.reports("db", "False", "VersionLost").await;

    // What others change there is not known any more: the key is theirs, and no longer said to have version 1.
    assert_eq!(said(&site, "db").await.as_deref(), Some("1:older"));
    site.intrude("db", json!({"stringData": {"older": "intruder"}})).await;
    let is_lost =
        |object: &managed_secrets_api::ManagedSecret| message(object).contains("it is not delivered as spec.target");
    site.until("db", "the loss", is_lost).await;
    assert_eq!(said(&site, "db").await, None);
    assert_eq!(data(&site, "db").await.unwrap(), map(&[("older", "intruder"), ("value", "two")]));
    // Once the record has it again, it is delivered over that.
    change(json!({"value.1": good.data.as_ref().unwrap()["value.1"]})).await;
    holds(&site, "db", &[("older", "one"), ("value", "two")]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_value_is_the_one_that_was_delivered_before() {
    let site = Site::new("overlap-delivered").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |value: &str, history: i64, version: Option<i64>| {
        let mut spec = json!({"name": "DB", "value": value, "history": history, "target": {"previousKey": "old"}});
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        spec
    };
    let mut newest = String::new();
    for value in ["one", "two", "three"] {
        newest = site.seal("db", value).await;
        site.apply("db", spec(&newest, 3, None)).await;
        site.delivers("db", "value", value).await;
    }
    holds(&site, "db", &[("old", "two"), ("value", "three")]).await;
    site.apply("db", spec(&newest, 3, Some(1))).await;
    holds(&site, "db", &[("value", "one")]).await;

    // No client ever had the third value, or the second one after it.
    newest = site.seal("db", "four").await;
    site.apply("db", spec(&newest, 3, None)).await;
    holds(&site, "db", &[("old", "one"), ("value", "four")]).await;
    let until = |object: &managed_secrets_api::ManagedSecret| -> Vec<i64> {
        let history = status(object).history.unwrap();
        history.into_iter().filter(|kept| kept.delivered_until.is_some()).map(|kept| kept.version).collect()
    };
    assert_eq!(until(&site.get("db").await), [1]);
    // It stays although fewer are kept, and goes with the next value.
    site.apply("db", spec(&newest, 1, None)).await;
    holds(&site, "db", &[("old", "one"), ("value", "four")]).await;
    newest = site.seal("db", "five").await;
    site.apply("db", spec(&newest, 1, None)).await;
    holds(&site, "db", &[("old", "four"), ("value", "five")]).await;
    assert!(until(&site.get("db").await).is_empty());

    // A value that is only recorded changes nothing that is delivered.
    let before = site.secret("db").await;
    site.apply("db", spec(&newest, 1, Some(5))).await;
    site.in_step("db").await;
    newest = site.seal("db", "six").await;
    site.apply("db", spec(&newest, 1, Some(5))).await;
    let object = site.in_step("db").await;
    assert_eq!((status(&object).version, status(&object).delivered), (Some(6), Some(5)));
    assert_eq!(data(&site, "db").await.unwrap(), map(&[("old", "four"), ("value", "five")]));
    assert_eq!(site.secret("db").await, before);
    site.apply("db", spec(&newest, 1, None)).await;
    holds(&site, "db", &[("old", "five"), ("value", "six")]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_begins_when_the_value_is_delivered() {
    let site = Site::new("overlap-late").await;
    let operator = Setup::of(&site.namespace).start().await;
    let (first, second) = (site.seal("db", "one").await, site.seal("db", "two").await);
    let spec = |value: &str, version: Option<i64>| {
        let mut spec = json!({"name": "DB", "value": value, "overlap": "3s", "target": {"previousKey": "old"}});
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        spec
    };
    site.apply("db", spec(&first, None)).await;
    site.in_step("db").await;
    site.apply("db", spec(&second, Some(1))).await;
    let object = site.in_step("db").await;
    let recorded: jiff::Timestamp = status(&object).value_updated_time.unwrap().parse().unwrap();
    poll("the end of an overlap that begins with the record", PATIENCE, || async {
        Ok((jiff::Timestamp::now().duration_since(recorded).as_secs() > 3).then_some(()))
    })
    .await
    .unwrap();
    let witness = Witness::of(&site).await;
    site.apply("db", spec(&second, None)).await;
    holds(&site, "db", &[("value", "two")]).await;
    let mut states: Vec<_> = witness.states().await.into_iter().filter(|state| state.name == "db").collect();
    states.dedup_by(|one, other| one.data == other.data);
    let seen: Vec<_> = states.into_iter().map(|state| state.data).collect();
    assert_eq!(seen, [map(&[("value", "one")]), map(&[("old", "one"), ("value", "two")]), map(&[("value", "two")])]);
    operator.stop().await;
}
