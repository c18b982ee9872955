//! Generated values that are replaced: by a schedule and by a revision.
//!
//! No test waits an hour. A record is made older instead, with the operator's own keys, while no operator runs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use http::Method;
use jiff::{SignedDuration, Timestamp};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys, names::record_name, record::StoredRecord};
use serde_json::{Value, json};

use super::{
    faults::refusal,
    installation::keyring,
    objects::{Site, status},
    operator::{Fault, Setup, Tap},
};

fn version(object: &ManagedSecret) -> i64 {
    status(object).version.unwrap_or_default()
}

/// The value of an object called as its target.
async fn value(site: &Site, name: &str) -> String {
    site.value(name, "value").await.unwrap()
}

/// Makes the value that a record holds so much older.
async fn age(site: &Site, name: &str, by: SignedDuration) {
    let record = site.record(name).await.unwrap();
    let StoredRecord { mut meta, commitment, .. } = StoredRecord::of(&record.metadata).unwrap();
    for date in [&mut meta.created, &mut meta.updated, &mut meta.value_updated] {
        *date = (date.parse::<Timestamp>().unwrap() - by).to_string();
    }
    let seed = keyring().await.active_seed().unwrap();
    let annotations = meta.annotations(&site.namespace, seed, &commitment).unwrap();
    site.as_restorer().await.intrude(&record_name(name), json!({"metadata": {"annotations": annotations}})).await;
}

/// When the next rotation is due, counted from the date of the value.
fn period(object: &ManagedSecret) -> SignedDuration {
    let status = status(object);
    let date = |date: Option<String>| date.unwrap().parse::<Timestamp>().unwrap();
    date(status.next_rotation).duration_since(date(status.value_updated_time))
}

/// Has the operator look at an object once more: it marks a change of another field.
async fn looked_at(site: &Site, name: &str, spec: Value) -> ManagedSecret {
    let mut spec = spec;
    spec["description"] = json!(uuid::Uuid::new_v4().to_string());
    site.apply(name, spec).await;
    site.in_step(name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_rotates_once_however_long_no_operator_ran() {
    let site = Site::new("schedule").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = json!({"name": "DB", "generate": {"rotateEvery": "1h"}});
    site.apply("db", spec.clone()).await;
    site.apply("plain", json!({"name": "PLAIN", "generate": {}})).await;
    let first = site.in_step("db").await;
    let hour = SignedDuration::from_hours(1);
    assert!((hour..=hour + SignedDuration::from_mins(3)).contains(&period(&first)), "{:?}", period(&first));
    assert_eq!(status(&site.in_step("plain").await).next_rotation, None);
    let before = value(&site, "db").await;
    operator.stop().await;

    age(&site, "DB", hour * 100).await;
    age(&site, "PLAIN", hour * 100).await;
    let operator = Setup::of(&site.namespace).start().await;
    site.until("db", "its second version", |object| version(object) == 2).await;
    let second = site.in_step("db").await;
    let after = value(&site, "db").await;
    assert!(before != after && after.len() == 32);
    assert_eq!(period(&second), period(&first), "the same part of the period for the same id");
    let next: Timestamp = status(&second).next_rotation.unwrap().parse().unwrap();
    assert!(next > Timestamp::now() + hour / 2, "{next}");
    assert_eq!(version(&looked_at(&site, "db", spec.clone()).await), 2);
    operator.stop().await;

    // Neither a restart, nor a schedule that is taken away, rotates.
    let operator = Setup::of(&site.namespace).start().await;
    assert_eq!(version(&looked_at(&site, "db", spec).await), 2);
    let last = looked_at(&site, "db", json!({"name": "DB", "generate": {"length": 32}})).await;
    assert_eq!((version(&last), status(&last).next_rotation), (2, None));
    assert!(value(&site, "db").await == after);
    assert_eq!(version(&site.in_step("plain").await), 1, "nothing asks for a new value");
    operator.stop().await;
    let said = site.events("db", "Served").await;
    assert_eq!(said.iter().filter(|note| note.starts_with("version 2:")).count(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_rotates_once_where_it_is_new() {
    let site = Site::new("revision").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |generate: Value| json!({"name": "DB", "generate": generate});
    let steps = [
        (json!({}), 1, "generate"),
        (json!({"revision": "2026-11"}), 2, "generate:2026-11"),
        (json!({"revision": "2026-11", "length": 48}), 2, "generate:2026-11"),
        (json!({"revision": "2026-12", "length": 48}), 3, "generate:2026-12"),
        (json!({"length": 48}), 3, "generate"),
        (json!({"revision": "2026-12", "length": 48}), 4, "generate:2026-12"),
    ];
    let mut before = None::<(i64, String)>;
    for (generate, expected, source) in steps {
        site.apply("db", spec(generate.clone())).await;
        let object = site.in_step("db").await;
        assert_eq!(version(&object), expected, "{generate}");
        let record = site.record("DB").await.unwrap();
        assert_eq!(record.annotations()[keys::ANNO_SOURCE], source, "{generate}");
        let now = value(&site, "db").await;
        if let Some((version, before)) = before {
            assert_eq!(before == now, version == expected, "{generate}");
        }
        before = Some((expected, now));
    }
    let before = value(&site, "db").await;
    assert_eq!(before.len(), 48, "a changed length applies to the next value");
    let counted = |text: &str| operator.metrics().text().unwrap().contains(text);
    assert!(counted("managed_secrets_rotations_total{result=\"success\"} 3\n"), "the first value is no rotation");
    assert!(counted("managed_secrets_rotations_total{result=\"failure\"} 0\n"));

    // A suspended object waits.
    let suspend = json!({"spec": {"suspend": true, "generate": {"revision": "2027-01"}}});
    site.objects().patch("db", &PatchParams::default(), &Patch::Merge(suspend)).await.unwrap();
    let suspended = site.reports("db", "True", "Suspended").await;
    assert!(version(&suspended) == 4 && value(&site, "db").await == before);
    let resume = json!({"spec": {"suspend": null}});
    site.objects().patch("db", &PatchParams::default(), &Patch::Merge(resume)).await.unwrap();
    site.until("db", "the version that waited", |object| version(object) == 5).await;
    site.in_step("db").await;
    assert!(value(&site, "db").await != before);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_fails_for_a_while_keeps_the_value_and_happens_once() {
    let site = Site::new("failing-rotation").await;
    let record = record_name("DB");
    let refused = std::sync::atomic::AtomicUsize::new(0);
    let tap = Tap::new(move |_, request| {
        let concerns = request.method() == Method::PATCH && request.uri().path().ends_with(&record);
        // The first write, which creates it, is no dry run and carries on.
        let dry = request.uri().query().unwrap_or_default().contains("dryRun=");
        if concerns && dry && refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 4 {
            return refusal(500, "InternalError", None);
        }
        Fault::Pass
    });
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    let witness = super::witness::Witness::of(&site).await;
    site.apply("db", json!({"name": "DB", "generate": {"revision": "a"}})).await;
    site.until("db", "its second version", |object| version(object) == 2).await;
    site.in_step("db").await;
    assert_eq!(witness.values("db", "value").await.len(), 2, "one value, and then another");
    assert!(tap.tries(&record_name("DB")).len() > 4);
    let metrics = operator.metrics().text().unwrap();
    assert!(metrics.contains("managed_secrets_rotations_total{result=\"success\"} 1\n"));
    assert!(!metrics.contains("managed_secrets_rotations_total{result=\"failure\"} 0\n"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_comes_while_the_record_is_lost_rotates_once_and_keeps_the_value() {
    let site = Site::new("revision-lost").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |revision: &str| json!({"name": "DB", "generate": {"revision": revision}});
    site.apply("db", spec("a")).await;
    site.in_step("db").await;
    let before = value(&site, "db").await;
    operator.stop().await;
    let lose = async || {
        let record = record_name("DB");
        site.secrets().delete(&record, &kube::api::DeleteParams::default()).await.unwrap();
    };
    lose().await;
    site.apply("db", spec("b")).await;
    let operator = Setup::of(&site.namespace).start().await;
    site.until("db", "its second version", |object| version(object) == 2).await;
    let object = site.in_step("db").await;
    assert_ne!(value(&site, "db").await, before);
    assert_eq!(status(&object).revision.as_deref(), Some("b"));
    assert_eq!(status(&object).history.unwrap().len(), 1, "the value before it is kept");

    // Without another revision, it is the same value.
    let before = value(&site, "db").await;
    operator.stop().await;
    lose().await;
    let operator = Setup::of(&site.namespace).start().await;
    let object = looked_at(&site, "db", spec("b")).await;
    assert_eq!((version(&object), value(&site, "db").await), (2, before));
    operator.stop().await;
}
