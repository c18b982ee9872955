//! Earlier values: which a record keeps, and what carries them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys, record::StoredRecord, types::SourceKind};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, message, moved, ready, status},
    operator::{PATIENCE, Running, Setup},
};

/// The data of a record, by key.
fn data(record: &Secret) -> BTreeMap<String, Vec<u8>> {
    record.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect()
}

fn keys_of(record: &Secret) -> Vec<String> {
    data(record).into_keys().collect()
}

/// The versions that the status and the record's metadata name.
fn kept(object: &ManagedSecret, record: &Secret) -> Vec<i64> {
    let said: Vec<i64> = status(object).history.unwrap_or_default().iter().map(|kept| kept.version).collect();
    let stored = StoredRecord::of(&record.metadata).unwrap();
    let of_record: Vec<i64> = stored.meta.history.iter().map(|kept| i64::try_from(kept.version).unwrap()).collect();
    assert_eq!(said, of_record);
    said
}

async fn apply(site: &Site, spec: Value) -> ManagedSecret {
    site.apply("db", spec).await;
    site.in_step("db").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_keeps_the_ones_before_it_as_they_were_stored() {
    let site = Site::new("history").await;
    let operator = Setup::of(&site.namespace).start().await;
    let record = async || site.record("DB").await.unwrap();
    let mut stored: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut dates = BTreeMap::new();
    for number in 1..=4_i64 {
        let sealed = site.seal("db", &format!("value {number}")).await;
        let object = apply(&site, json!({"name": "DB", "history": 2, "value": sealed})).await;
        assert_eq!(status(&object).version, Some(number));
        let record = record().await;
        let expected: Vec<i64> = (1..number).rev().take(2).collect();
        assert_eq!(kept(&object, &record), expected);
        for version in expected {
            assert_eq!(data(&record)[&format!("value.{version}")], stored[&format!("value.{version}")], "{version}");
            let said = status(&object).history.unwrap().into_iter().find(|kept| kept.version == version).unwrap();
            assert_eq!((&said.created, said.source), (&dates[&version], SourceKind::Value));
        }
        assert_eq!(keys_of(&record).len(), usize::try_from(number.min(3)).unwrap());
        stored.insert(format!("value.{number}"), data(&record)["value"].clone());
        dates.insert(number, moved(&object).1);
    }
    site.delivers("db", "value", "value 4").await;

    // Without a new value nothing moves: neither with a rename, nor with another description or target.
    let sealed = site.get("db").await.spec.value.unwrap().0;
    for more in [
        json!({"name": "RENAMED"}),
        json!({"name": "RENAMED", "description": "other"}),
        json!({"name": "RENAMED", "target": {"name": "elsewhere"}}),
    ] {
        let mut spec = json!({"history": 2, "value": sealed});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = apply(&site, spec).await;
        let record = site.record("RENAMED").await.unwrap();
        assert_eq!(kept(&object, &record), [3, 2], "{more}");
        assert_eq!(data(&record)["value.3"], stored["value.3"], "{more}");
    }

    // Fewer are kept at once, and none in the end. A new value then replaces the one before it.
    let object = apply(&site, json!({"name": "RENAMED", "value": sealed})).await;
    assert_eq!(kept(&object, &site.record("RENAMED").await.unwrap()), [3], "one, where the spec says nothing");
    let object = apply(&site, json!({"name": "RENAMED", "history": 0, "value": sealed})).await;
    let emptied = site.record("RENAMED").await.unwrap();
    assert_eq!((kept(&object, &emptied), keys_of(&emptied)), (vec![], vec!["value".to_owned()]));
    assert!(!emptied.annotations().contains_key(keys::ANNO_HISTORY));
    let next = site.seal("db", "value 5").await;
    let object = apply(&site, json!({"name": "RENAMED", "history": 0, "value": next})).await;
    let last = site.record("RENAMED").await.unwrap();
    assert_eq!((kept(&object, &last), keys_of(&last)), (vec![], vec!["value".to_owned()]));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_carries_the_earlier_values_of_every_source() {
    let site = Site::new("history-taken").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.source("upstream", "followed").await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    let spec = |source: &str, content: &Value| json!({"name": "DB", "history": 10, "deletionPolicy": "Retain", source: content});
    apply(&site, spec("valueFrom", &from)).await;
    apply(&site, spec("value", &json!(site.seal("db", "sealed").await))).await;
    apply(&site, spec("generate", &json!({}))).await;
    let before = site.record("DB").await.unwrap();
    let object = site.get("db").await;
    assert_eq!(kept(&object, &before), [2, 1]);
    let sources: Vec<SourceKind> = status(&object).history.unwrap().iter().map(|kept| kept.source).collect();
    assert_eq!(sources, [SourceKind::Value, SourceKind::ValueFrom]);

    site.delete("db").await;
    let again = apply(&site, spec("generate", &json!({}))).await;
    let after = site.record("DB").await.unwrap();
    assert_eq!(kept(&again, &after), [2, 1]);
    assert_ne!(data(&after)["value"], data(&before)["value"], "sealed again under the live uid");
    for key in ["value.1", "value.2"] {
        assert_eq!(data(&after)[key], data(&before)[key], "{key}");
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_value_that_others_take_away_is_reported_and_the_rest_stays() {
    let site = Site::new("history-lost").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    for value in ["one", "two", "three", "four"] {
        let sealed = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "history": 3, "value": sealed})).await;
    }
    let good = site.record("DB").await.unwrap();
    let name = good.name_any();
    let change = async |data: Value| {
        let patch = Patch::Merge(json!({"data": data}));
        restorer.secrets().patch(&name, &PatchParams::default(), &patch).await.unwrap();
    };
    // One is deleted, and another is exchanged.
    change(json!({"value.2": null, "value.3": good.data.as_ref().unwrap()["value.1"]})).await;
    let notes = poll("the event", PATIENCE, || async {
        Ok(Some(site.events("db", "VersionLost").await).filter(|notes| !notes.is_empty()))
    })
    .await
    .unwrap();
    assert!(notes[0].contains("any more: 3, 2;"), "{notes:?}");
    let object = site.in_step("db").await;
    assert_eq!(ready(&object), ("True".to_owned(), "Served".to_owned()));
    let record = site.record("DB").await.unwrap();
    assert_eq!((data(&record)["value"].clone(), data(&record)["value.1"].clone()), {
        let good = data(&good);
        (good["value"].clone(), good["value.1"].clone())
    });

    // The next value leaves the lost ones behind, and they take the place of none that is intact.
    let sealed = site.seal("db", "five").await;
    let object = apply(&site, json!({"name": "DB", "history": 3, "value": sealed})).await;
    let record = site.record("DB").await.unwrap();
    assert_eq!(kept(&object, &record), [4, 1]);
    assert_eq!(data(&record)["value.4"], data(&good)["value"]);
    assert_eq!(data(&record)["value.1"], data(&good)["value.1"]);
    assert_eq!(keys_of(&record), ["value", "value.1", "value.4"]);
    assert_eq!(site.events("db", "VersionLost").await.len(), 1);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_value_that_another_manager_holds_is_emptied_when_it_is_not_kept() {
    let site = Site::new("history-held").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let mut newest = String::new();
    for value in ["one", "two", "three"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "history": 2, "value": newest})).await;
    }
    // As a backup program that puts the record back: it owns what it wrote, and one value more than the record lists.
    let record = site.record("DB").await.unwrap();
    let mut held = record.data.clone().unwrap();
    held.insert("value.9".to_owned(), held["value.1"].clone());
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": record.name_any()}, "data": held});
    let velero = PatchParams::apply("velero").force();
    restorer.secrets().patch(&record.name_any(), &velero, &Patch::Apply(&body)).await.unwrap();

    let values = |record: &Secret| -> Vec<String> {
        data(record).into_iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(key, _)| key).collect()
    };
    let until = async |expected: &[&str]| {
        poll("what the record holds", PATIENCE, || async {
            let record = site.record("DB").await.unwrap();
            Ok((values(&record) == expected).then_some(()))
        })
        .await
        .unwrap();
        site.in_step("db").await
    };
    let object = until(&["value", "value.1", "value.2"]).await;
    assert_eq!(kept(&object, &site.record("DB").await.unwrap()), [2, 1]);

    site.apply("db", json!({"name": "DB", "history": 0, "value": newest})).await;
    let object = until(&["value"]).await;
    assert_eq!(kept(&object, &site.record("DB").await.unwrap()), [0; 0]);
    site.delivers("db", "value", "three").await;

    // What is empty is the operator's, so the next write takes it away.
    let sealed = site.seal("db", "four").await;
    apply(&site, json!({"name": "DB", "history": 0, "value": sealed})).await;
    assert_eq!(keys_of(&site.record("DB").await.unwrap()), ["value"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_earlier_values_of_the_largest_size_fit_into_a_record() {
    let site = Site::new("history-large").await;
    let operator = Setup::of(&site.namespace).start().await;
    let largest = |number: u32| char::from_u32(0x1_f600 + number).unwrap().to_string().repeat(3500);
    for number in 0..12 {
        let sealed = site.seal("db", &largest(number)).await;
        apply(&site, json!({"name": "DB", "history": 10, "value": sealed})).await;
    }
    let object = apply(&site, {
        let sealed = site.get("db").await.spec.value.unwrap().0;
        json!({"name": "RENAMED", "history": 10, "value": sealed})
    })
    .await;
    let record = site.record("RENAMED").await.unwrap();
    assert_eq!(kept(&object, &record), (2..=11).rev().collect::<Vec<i64>>());
    let bytes: usize = data(&record).values().map(Vec::len).sum();
    assert!((182_000..184_000).contains(&bytes), "{bytes} bytes: docs/formats.md says 183 KB");
    site.delivers("db", "value", &largest(11)).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_version_is_delivered_and_newer_values_are_recorded() {
    let site = Site::new("pinned").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let mut newest = String::new();
    for value in ["one", "two", "three"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "history": 3, "value": newest})).await;
    }
    let pinned = |value: &str, version: i64, history: i64| json!({"name": "DB", "history": history, "version": version, "value": value});
    let state = |object: &ManagedSecret| (status(object).version, status(object).delivered);
    let object = apply(&site, pinned(&newest, 1, 3)).await;
    assert_eq!(state(&object), (Some(3), Some(1)));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("one"));
    said(&site, "version 1: ").await;
    until_pinned(&operator, 1).await;

    // Newer values are recorded, and what is delivered is kept, also where nothing else is.
    for (number, history) in [(4, 3), (5, 1), (6, 0)] {
        newest = site.seal("db", &format!("value {number}")).await;
        let object = apply(&site, pinned(&newest, 1, history)).await;
        assert_eq!(state(&object), (Some(number), Some(1)));
        assert!(kept(&object, &site.record("DB").await.unwrap()).contains(&1));
        assert_eq!(site.value("db", "value").await.as_deref(), Some("one"));
    }
    assert_eq!(kept(&site.get("db").await, &site.record("DB").await.unwrap()), [1]);

    // A restart changes nothing, and a target that others change gets the delivered value again.
    let before = site.get("db").await;
    operator.stop().await;
    operator = Setup::of(&site.namespace).start().await;
    site.intrude("db", json!({"stringData": {"value": "intruder"}})).await;
    site.delivers("db", "value", "one").await;
    let after = site.in_step("db").await;
    assert_eq!((moved(&after), state(&after)), (moved(&before), state(&before)));

    // A version that is not kept changes nothing, and says which are kept. No value follows, either.
    site.apply("db", pinned(&newest, 2, 0)).await;
    let object = site.reports("db", "False", "VersionNotKept").await;
    assert!(message(&object).contains("the record has 6, 1"), "{}", message(&object));
    newest = site.seal("db", "value 7").await;
    site.apply("db", pinned(&newest, 2, 0)).await;
    let object = site.until("db", "the value", |object| status(object).version == Some(7)).await;
    assert_eq!(status(&object).delivered, Some(1));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("one"));

    // Without a version, the newest.
    let object = apply(&site, json!({"name": "DB", "history": 0, "value": newest})).await;
    assert_eq!(state(&object), (Some(7), None));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("value 7"));
    assert_eq!(kept(&object, &site.record("DB").await.unwrap()), [0; 0]);
    until_pinned(&operator, 0).await;
    operator.stop().await;
}

/// Waits until an event tells of the version that is delivered now.
async fn said(site: &Site, version: &str) {
    poll("an event about the version", PATIENCE, || async {
        let notes = site.events("db", "Served").await;
        Ok(notes.iter().any(|note| note.starts_with(version)).then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until the metric counts so many objects with a named version.
async fn until_pinned(operator: &Running, count: usize) {
    poll("the metric to count it", PATIENCE, || async {
        Ok(operator.metrics().text().unwrap().contains(&format!("\nmanaged_secrets_pinned {count}.0\n")).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_version_is_not_delivered_and_comes_back_with_its_record() {
    let site = Site::new("pinned-lost").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let mut newest = String::new();
    for value in ["one", "two"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "value": newest})).await;
    }
    let good = site.record("DB").await.unwrap();
    let patch = Patch::Merge(json!({"data": {"value.1": good.data.as_ref().unwrap()["value"]}}));
    restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    site.in_step("db").await;
    site.apply("db", json!({"name": "DB", "version": 1, "value": newest})).await;
    let object = site.reports("db", "False", "VersionLost").await;
    assert!(message(&object).contains("version 1"), "{}", message(&object));
    site.delivers("db", "value", "two").await;
    site.nudge("db").await;
    let patch = Patch::Merge(json!({"data": {"value.1": good.data.as_ref().unwrap()["value.1"]}}));
    restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    site.delivers("db", "value", "one").await;
    site.in_step("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_named_version_is_not_there_the_delivered_one_is_repaired() {
    let site = Site::new("pinned-repair").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let mut newest = String::new();
    for value in ["one", "two", "three"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "history": 3, "value": newest})).await;
    }
    let good = site.record("DB").await.unwrap();
    let change = async |data: Value| {
        let patch = Patch::Merge(json!({"data": data}));
        restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    };
    let pinned = |version: i64, target: Value| json!({"name": "DB", "history": 3, "version": version, "value": newest, "target": target});
    let is_repaired = async |value: &str| {
        site.intrude("db", json!({"stringData": {"value": "intruder"}})).await;
        site.delivers("db", "value", value).await;
    };
    site.apply("db", pinned(9, json!({}))).await;
    site.reports("db", "False", "VersionNotKept").await;
    is_repaired("three").await;
    change(json!({"value.1": null})).await;
    site.apply("db", pinned(1, json!({}))).await;
    site.reports("db", "False", "VersionLost").await;
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    site.delivers("db", "value", "three").await;
    let object = site.reports("db", "False", "VersionLost").await;
    assert_eq!((status(&object).version, status(&object).delivered), (Some(3), None));

    // An earlier one, which a newer one does not replace.
    apply(&site, pinned(2, json!({}))).await;
    site.delivers("db", "value", "two").await;
    site.apply("db", pinned(9, json!({}))).await;
    site.reports("db", "False", "VersionNotKept").await;
    is_repaired("two").await;

    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_version_that_the_record_has_lost_is_taken_from_the_target() {
    let site = Site::new("pinned-copy").await;
    let operator = Setup::of(&site.namespace).start().await;
    let restorer = site.as_restorer().await;
    let mut newest = String::new();
    for value in ["one", "two", "three"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "history": 3, "value": newest})).await;
    }
    let pinned = |version: i64, target: Value| json!({"name": "DB", "history": 3, "version": version, "value": newest, "target": target});
    apply(&site, pinned(2, json!({}))).await;
    let good = site.record("DB").await.unwrap();
    let change = async |data: Value| {
        let patch = Patch::Merge(json!({"data": data}));
        restorer.secrets().patch(&good.name_any(), &PatchParams::default(), &patch).await.unwrap();
    };
    change(json!({"value.2": null})).await;
    site.reports("db", "False", "VersionLost").await;
    site.apply("db", pinned(2, json!({"labels": {"team": "shop"}}))).await;
    poll("the label", PATIENCE, || async {
        Ok((site.secret("db").await.unwrap().labels().get("team").map(String::as_str) == Some("shop")).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(site.value("db", "value").await.as_deref(), Some("two"));
    let object = site.reports("db", "False", "VersionLost").await;
    assert!(message(&object).contains("the delivered value stays"), "{}", message(&object));

    // For another type, the Secret would be deleted.
    site.apply("db", pinned(2, json!({"type": "example.com/token"}))).await;
    site.until("db", "the only copy", |object| message(object).contains("has the only copy of version 2")).await;
    let secret = site.secret("db").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("two"));
    site.apply("db", pinned(2, json!({"labels": {"team": "shop"}}))).await;
    site.until("db", "the type back", |object| !message(object).contains("has the only copy")).await;

    // Nothing has it.
    site.intrude("db", json!({"stringData": {"value": "intruder"}})).await;
    site.until("db", "the loss", |object| message(object).contains("does not repair the target Secret")).await;
    change(json!({"value.2": good.data.as_ref().unwrap()["value.2"]})).await;
    site.delivers("db", "value", "two").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_is_not_taken_for_the_newest_of_a_lost_record() {
    let site = Site::new("pinned-record-lost").await;
    let operator = Setup::of(&site.namespace).start().await;
    let lose = async |name: &str| {
        let record = site.record(name).await.unwrap().name_any();
        site.secrets().delete(&record, &DeleteParams::default()).await.unwrap();
    };
    // Nothing has the newest value of a generated secret.
    let generated = |version: Option<i64>| {
        let mut spec = json!({"name": "MADE", "generate": {"revision": "b"}});
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        spec
    };
    site.apply("made", json!({"name": "MADE", "generate": {}})).await;
    site.in_step("made").await;
    let first = site.value("made", "value").await;
    site.apply("made", generated(None)).await;
    site.in_step("made").await;
    site.apply("made", generated(Some(1))).await;
    site.in_step("made").await;
    lose("MADE").await;
    site.reports("made", "False", "RecordLost").await;
    assert_eq!(site.value("made", "value").await, first);

    // The source has it: it becomes a version of its own, and what is delivered stays.
    let mut newest = String::new();
    for value in ["one", "two"] {
        newest = site.seal("db", value).await;
        apply(&site, json!({"name": "DB", "value": newest})).await;
    }
    apply(&site, json!({"name": "DB", "version": 1, "value": newest})).await;
    lose("DB").await;
    let object = site.reports("db", "False", "VersionNotKept").await;
    assert_eq!((status(&object).version, status(&object).delivered), (Some(3), Some(1)));
    site.delivers("db", "value", "one").await;
    let notes = poll("the event", PATIENCE, || async {
        Ok(Some(site.events("db", "VersionLost").await).filter(|notes| !notes.is_empty()))
    })
    .await
    .unwrap();
    assert!(notes[0].contains("any more: 1;"), "{notes:?}");
    apply(&site, json!({"name": "DB", "value": newest})).await;
    site.delivers("db", "value", "two").await;
    operator.stop().await;
}
