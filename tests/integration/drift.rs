//! A user edits, unlabels or deletes a target: the operator restores it, reports it once, and never repeats that at full speed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{INTRUDER, Site, version},
    operator::{PATIENCE, Setup, Tap},
    witness::Witness,
};

const CORRECTED: &str = "TargetDriftCorrected";
const DELAYED: &str = "RepairDelayed";

async fn made(site: &Site) {
    site.source("source", "v").await;
    let spec = json!({
        "name": "NAME", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}},
        "target": {"labels": {"a": "1"}, "annotations": {"b": "2"}},
    });
    site.apply("db", spec).await;
    site.served("db").await;
}

/// What of a target is ours to say.
async fn ours(site: &Site, name: &str) -> Option<Value> {
    let secret = serde_json::to_value(site.secret(name).await?).unwrap();
    let metadata = &secret["metadata"];
    Some(json!([
        metadata["labels"],
        metadata["annotations"],
        metadata["ownerReferences"],
        secret["data"],
        secret["type"]
    ]))
}

/// Waits until the target is as it was, and status knows of it.
async fn put_right(site: &Site, name: &str, before: &Value, what: &str) {
    let waited = poll(what, PATIENCE, || async {
        let object = site.get(name).await;
        let shown = object.status.unwrap().target.map(|target| target.resource_version);
        let in_step = site.secret(name).await.and_then(|secret| secret.resource_version()) == shown;
        Ok((in_step && ours(site, name).await.as_ref() == Some(before)).then_some(()))
    })
    .await;
    assert!(waited.is_ok(), "{what}: {:?} instead of {before:?}", ours(site, name).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_manager_changes_of_ours_is_restored_and_the_manager_is_named() {
    let cases = [
        ("value", json!({"data": {"value": "aW50cnVkZXI="}})),
        ("no-value", json!({"data": {"value": null}})),
        ("no-role", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})),
        ("wrong-role", json!({"metadata": {"labels": {keys::LABEL_ROLE: "record"}}})),
        ("no-id", json!({"metadata": {"labels": {keys::LABEL_ID: null}}})),
        ("label", json!({"metadata": {"labels": {"a": "9"}}})),
        ("no-label", json!({"metadata": {"labels": {"a": null}}})),
        ("annotation", json!({"metadata": {"annotations": {"b": "9"}}})),
        ("no-annotation", json!({"metadata": {"annotations": {"b": null}}})),
        ("owner-annotation", json!({"metadata": {"annotations": {keys::ANNO_OWNER: "other"}}})),
        ("no-owner", json!({"metadata": {"ownerReferences": null}})),
        ("all-labels", json!({"metadata": {"labels": null, "annotations": null, "ownerReferences": null}})),
        ("unmanaged", json!({"metadata": {"managedFields": [{}]}})),
        (
            "unmanaged-edit",
            json!({"metadata": {"managedFields": [{}], "ownerReferences": null}, "data": {"value": "eA=="}}),
        ),
    ];
    let checks = cases.map(|(name, change)| async move {
        let site = Site::new(&format!("drift-{name}")).await;
        let operator = Setup::of(&site.namespace).start().await;
        made(&site).await;
        let before = ours(&site, "db").await.unwrap();
        let uid = site.secret("db").await.unwrap().uid();
        site.intrude("db", change.clone()).await;
        put_right(&site, "db", &before, name).await;
        assert_eq!(site.secret("db").await.unwrap().uid(), uid, "{name}");
        if name == "unmanaged" {
            // It moved nothing but the bookkeeping.
        } else {
            let notes = poll("the event", PATIENCE, || async {
                Ok(Some(site.events("db", CORRECTED).await).filter(|notes| !notes.is_empty()))
            })
            .await
            .unwrap();
            assert_eq!((notes.len(), site.repetitions("db", CORRECTED).await), (1, 0), "{name}: {notes:?}");
            // A manager that only removes fields leaves no trace in the bookkeeping of fields.
            let adds = change["data"]["value"].is_string() || change.to_string().contains('9');
            assert!(!adds || name == "unmanaged-edit" || notes[0].contains(INTRUDER), "{name}: {notes:?}");
        }
        // Our own again: it is removed when the target moves.
        site.apply("db", json!({"name": "NAME", "valueFrom": {"secretKeyRef": {"name": "source", "key": "key"}}, "delivery": "None"})).await;
        site.served("db").await;
        site.gone("db").await;
        assert_eq!(site.record("NAME").await.unwrap().annotations()[keys::ANNO_VERSION], "1");
        operator.stop().await;
    });
    futures::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_target_comes_back_with_the_same_value() {
    let site = Site::new("deleted").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let witness = Witness::of(&site).await;
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    site.served("db").await;
    let before = ours(&site, "db").await.unwrap();
    let value = site.value("db", "value").await;
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    put_right(&site, "db", &before, "deleted").await;
    // Also when no event comes.
    operator.stop().await;
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    operator = Setup::of(&site.namespace).start().await;
    put_right(&site, "db", &before, "deleted with the operator down").await;
    assert_eq!(witness.values("db", "value").await, [value]);
    assert_eq!(site.get("db").await.status.unwrap().version, Some(1));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_fields_of_the_target_are_left_alone_and_no_news() {
    let site = Site::new("foreign").await;
    let operator = Setup::of(&site.namespace).start().await;
    made(&site).await;
    let change =
        json!({"metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "2"}}, "data": {"theirs": "eA=="}});
    site.intrude("db", change).await;
    let intruded = site.secret("db").await.unwrap();
    // Until status knows the target's new version, the operator has not looked.
    site.until("db", "in step", |object| {
        let shown = object.status.as_ref().unwrap().target.as_ref().map(|target| target.resource_version.clone());
        shown == intruded.metadata.resource_version
    })
    .await;
    assert_eq!(site.secret("db").await, Some(intruded));
    // The one event is about what follows; one about the foreign fields would have been the first of a series.
    site.intrude("db", json!({"data": {"value": "eA=="}})).await;
    site.delivers("db", "value", "v").await;
    poll("the event", PATIENCE, || async { Ok((site.events("db", CORRECTED).await.len() == 1).then_some(())) })
        .await
        .unwrap();
    assert_eq!(site.repetitions("db", CORRECTED).await, 0);
    assert_eq!(site.value("db", "theirs").await.as_deref(), Some("x"));
    operator.stop().await;
}

/// Requests of the operator that wrote an object whose path contains this.
fn writes(tap: &Tap, path: &str) -> usize {
    tap.seen().iter().filter(|seen| seen.is_write() && seen.path.contains(path)).count()
}

/// Another manager applies `change` as fast as the operator undoes it (or, where it is not undone, again and again), for some
/// time; how often the operator tried to write a Secret, and wrote the status meanwhile.
async fn fight(site: &Site, tap: &Tap, secret: &str, mut change: impl FnMut(usize) -> Value) -> (usize, usize) {
    let secrets = || tap.tries("/secrets/").len();
    let before = (secrets(), writes(tap, "/status"));
    let began = Instant::now();
    let mut rounds = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    // On a slow machine the fight lasts longer: the waits of the operator double, so that costs it a write or two.
    while began.elapsed() < Duration::from_secs(12) || rounds <= 50 {
        ticks.tick().await;
        site.intrude(secret, change(rounds)).await;
        rounds += 1;
    }
    (secrets() - before.0, writes(tap, "/status") - before.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fight_with_another_controller_slows_down() {
    let fights = ["value", "foreign-label", "record"].map(|what| async move {
        let site = Site::new(&format!("fight-{what}")).await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        made(&site).await;
        let restorer = site.as_restorer().await;
        site.in_step("db").await;
        let told = writes(&tap, "/status");
        let record = managed_secrets_api::names::record_name("NAME");
        let (secrets, statuses) = match what {
            "value" => fight(&site, &tap, "db", |_| json!({"data": {"value": "aW50cnVkZXI="}})).await,
            "record" => {
                fight(&restorer, &tap, &record, |round| json!({"metadata": {"labels": {"theirs": round.to_string()}}}))
                    .await
            }
            _ => fight(&site, &tap, "db", |round| json!({"metadata": {"labels": {"theirs": round.to_string()}}})).await,
        };
        // At once, then after 1, 2, 4, 8 s, each with its jitter.
        assert!((1..=16).contains(&secrets), "{what}: {secrets} tries to write Secrets in 12 s");
        // A write is refused where the other was faster, and there is nothing to tell: that can happen to all of them,
        // but not where the intruder waits for the operator's.
        let least = usize::from(what == "value");
        assert!((least..=16).contains(&statuses), "{what}: {statuses} writes of status in 12 s");
        // When the other gives up, it is put right, and status tells of what is there.
        site.delivers("db", "value", "v").await;
        site.in_step("db").await;
        assert!(writes(&tap, "/status") > told, "{what}: status tells of it");
        operator.stop().await;
    });
    futures::future::join_all(fights).await;
}

/// A repair that waits for some time is no secret: the value that the status calls delivered is not there.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_that_a_repair_waits() {
    let site = Site::new("contested").await;
    let operator = Setup::of(&site.namespace).start().await;
    made(&site).await;
    poll("the status to say that a repair waits", PATIENCE, || async {
        // It is gone already while the operator waits.
        site.secrets().delete("db", &DeleteParams::default()).await.ok();
        let conditions = site.get("db").await.status.unwrap_or_default().conditions;
        let waits = conditions.iter().flatten().any(|it| it.type_ == keys::CONDITION_READY && it.reason == DELAYED);
        Ok(waits.then_some(()))
    })
    .await
    .unwrap();
    let object = site.reports("db", "False", DELAYED).await;
    assert!(object.status.unwrap().target.is_some(), "status names the target that will be restored");
    // Nothing else waits for it.
    site.source("source", "w").await;
    site.delivers("db", "value", "w").await;
    site.in_step("db").await;
    site.served("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repairs_that_change_nothing_are_not_announced_and_a_resync_writes_nothing() {
    let site = Site::new("quiet").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    made(&site).await;
    let before = version(&site.get("db").await);
    // An apply that says what is there already moves no version, so no watch shows it.
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "labels": {"a": "1"}}});
    site.secrets().patch("db", &PatchParams::apply("other").force(), &Patch::Apply(&body)).await.unwrap();
    let owned = site.secret("db").await.unwrap();
    site.until("db", "in step", |object| {
        let shown = object.status.as_ref().unwrap().target.as_ref().map(|target| target.resource_version.clone());
        shown == owned.metadata.resource_version
    })
    .await;
    let settled = version(&site.get("db").await);
    assert_ne!(before, settled, "co-ownership is bookkeeping, and moves the version");
    site.nudge("db").await;
    operator.stop().await;
    let writes = tap.seen().len();
    let again = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&again).start().await;
    // It has something to say: the source is missing.
    let from = json!({"secretKeyRef": {"name": "other-source", "key": "token"}});
    site.apply("other", json!({"name": "OTHER", "valueFrom": from})).await;
    site.reports("other", "False", "SourceNotFound").await;
    let strays: Vec<_> = again
        .seen()
        .into_iter()
        .filter(|seen| seen.path.contains(&site.namespace))
        .filter(|seen| !seen.path.contains("other"))
        .filter(|seen| seen.method != "GET" || !seen.path.contains('?'))
        .collect();
    assert!(strays.is_empty() && writes > 0, "{strays:?}");
    operator.stop().await;
    // Whatever either of them had to say is said: the events of one that is told to end go out before it ends.
    assert_eq!(site.events("other", "SourceNotFound").await.len(), 1);
    assert_eq!(site.events("db", CORRECTED).await, [""; 0]);
}

/// That is no fight over anything of ours: the record follows it at leisure, and the rest does not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_touched_all_the_time_is_followed_at_leisure() {
    let site = Site::new("touched").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    made(&site).await;
    site.in_step("db").await;
    let touch = |round: usize| json!({"metadata": {"labels": {"seen": round.to_string()}}});
    let (secrets, statuses) = fight(&site, &tap, "source", touch).await;
    assert!((1..=16).contains(&secrets), "{secrets} tries to write Secrets in 12 s");
    assert!((1..=16).contains(&statuses), "{statuses} writes of status in 12 s");
    // While the record is still waited for: the target, and a new value.
    site.intrude("source", touch(0)).await;
    site.intrude("db", json!({"data": {"value": "aW50cnVkZXI="}})).await;
    site.delivers("db", "value", "v").await;
    site.source("source", "w").await;
    site.delivers("db", "value", "w").await;
    let status = site.in_step("db").await.status.unwrap();
    assert_eq!(status.version, Some(2));
    operator.stop().await;
}
