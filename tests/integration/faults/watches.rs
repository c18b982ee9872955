//! Faults of lists and watches. While one lasts, objects are created, edited and deleted and a target is lost; after it,
//! all of that is found.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::DeleteParams;
use managed_secrets_api::names::record_name;
use managed_secrets_engine::{
    backoff::{Backoff, Jitter},
    watch::Timing,
};
use serde_json::json;
use testkit::poll;

use super::{PATIENCE, Switch, answer, refusal};
use crate::integration::{
    objects::{Site, message},
    operator::{Fault, Setup},
};

/// As in production, but in seconds instead of minutes.
pub(in crate::integration) const FAST: Timing = Timing {
    watch: Duration::from_secs(2),
    answer: Duration::from_secs(1),
    backoff: Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) },
    healthy: Duration::from_secs(120),
    cut: Duration::from_secs(1),
    retry_after: Duration::from_secs(5),
    starts: 5,
};

const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version","reason":"Expired","code":410}}
"#;

/// Which requests a fault is meant for.
type Meant = fn(&str) -> bool;

fn watches(path: &str) -> bool {
    path.contains("watch=true")
}

fn setup(site: &Site, switch: &Switch) -> Setup {
    Setup { timing: FAST, ..Setup::of(&site.namespace).watches(&switch.tap) }
}

fn generated(name: &str) -> serde_json::Value {
    json!({"name": name, "generate": {"length": 20}})
}

/// Waits until the watch on ManagedSecrets has asked this often in vain.
async fn asked(switch: &Switch, began: Instant, times: usize) {
    poll("requests during the fault", PATIENCE, || async {
        let asked = switch.asked_since(began);
        let most = asked.iter().filter(|(asker, _)| asker.contains("managedsecrets")).map(|(_, seen)| seen.len()).max();
        Ok(most.filter(|most| *most >= times))
    })
    .await
    .unwrap();
}

/// No watch has asked more often than its backoff allows, nor sooner than the server asked for.
fn no_storm(switch: &Switch, began: Instant, least: Duration) {
    for (asker, seen) in switch.asked_since(began) {
        // The first may follow at once: it was not refused yet. The list after a watch that is gone may, too.
        let refused = seen.iter().filter(|seen| seen.code != 200).skip(1).collect::<Vec<_>>();
        for (failures, pair) in (1..).zip(refused.windows(2)) {
            let delay = FAST.backoff.delay(failures, Jitter::at(0.0)).max(least);
            let waited = pair[1].at - pair[0].at;
            assert!(waited >= delay, "{asker}: only {waited:?} after failure {failures}, not {delay:?}");
        }
    }
}

/// The fault strikes an operator that is well.
async fn survives(purpose: &str, meant: Meant, fault: Fault, least: Duration) {
    let site = Site::new(purpose).await;
    let switch = Switch::new(meant);
    let operator = setup(&site, &switch).start().await;
    for name in ["edited", "deleted", "drifted"] {
        site.apply(name, generated(&name.to_uppercase())).await;
        site.served(name).await;
    }
    let before = site.value("drifted", "value").await;
    let kept = site.get("edited").await.status.unwrap().id;

    let began = Instant::now();
    switch.on(&fault);
    site.apply("created", generated("CREATED")).await;
    site.apply("edited", generated("RENAMED")).await;
    site.delete("deleted").await;
    site.secrets().delete("drifted", &DeleteParams::default()).await.unwrap();
    asked(&switch, began, 4).await;
    no_storm(&switch, began, least);
    switch.off();

    site.served("created").await;
    let edited = site.served("edited").await.status.unwrap();
    assert_eq!((edited.name.as_deref(), &edited.id), (Some("RENAMED"), &kept));
    site.gone(&record_name("EDITED")).await;
    site.delivers("drifted", "value", &before.unwrap()).await;
    site.gone("deleted").await;
    site.gone(&record_name("DELETED")).await;

    // And the watch is a watch again.
    site.apply("after", generated("AFTER")).await;
    site.served("after").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_watches_fail_is_found_afterwards() {
    let all: Meant = |_| true;
    let streams: Meant = watches;
    let none = Duration::ZERO;
    let busy = refusal(429, "TooManyRequests", Some(2));
    let malformed = answer("{\"type\":\"ADDED\",\"object\":[]}\nnonsense\n");
    // Side by side: most of the time they wait.
    let cases = [
        ("cut", all, Fault::Cut, none),
        ("short", streams, answer(""), none),
        ("gone", streams, refusal(410, "Expired", None), none),
        ("gone-in-stream", streams, answer(GONE), none),
        ("gone-for-lists", all, refusal(410, "Expired", None), none),
        ("busy", all, busy, Duration::from_secs(2)),
        ("error", all, refusal(500, "InternalError", None), none),
        ("hang", all, Fault::Hang, none),
        ("silent", streams, Fault::Silence, none),
        ("malformed", streams, malformed, none),
        ("proxy", all, answer("<html>please log in</html>"), none),
    ];
    join_all(cases.into_iter().map(|(purpose, meant, fault, least)| survives(purpose, meant, fault, least))).await;
}

/// The fault is there before the operator is.
async fn starts_late(purpose: &str, fault: Fault) {
    let site = Site::new(purpose).await;
    let switch = Switch::new(|_| true);
    switch.on(&fault);
    let began = Instant::now();
    site.apply("early", generated("EARLY")).await;
    let operator = setup(&site, &switch).start().await;
    asked(&switch, began, 3).await;
    no_storm(&switch, began, Duration::ZERO);
    assert!(site.get("early").await.status.unwrap().id.is_none(), "nothing is decided before every store is filled");
    switch.off();
    site.served("early").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_list_that_fails() {
    let cases = [
        ("first-cut", Fault::Cut),
        ("first-hang", Fault::Hang),
        ("first-silence", Fault::Silence),
        ("first-busy", refusal(429, "TooManyRequests", Some(1))),
        ("first-gone", refusal(410, "Expired", None)),
        ("first-broken", refusal(503, "ServiceUnavailable", None)),
        ("first-nonsense", answer("{\"items\": 7}")),
    ];
    join_all(cases.map(|(purpose, fault)| starts_late(purpose, fault))).await;
}

/// The watch on sources has no selector.
fn is_of_sources(path: &str) -> bool {
    path.contains("/secrets?") && !path.contains("labelSelector") && !path.contains("fieldSelector")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_that_fails_holds_up_no_other() {
    let site = Site::new("one-watch").await;
    let switch = Switch::new(is_of_sources);
    let operator = setup(&site, &switch).start().await;
    site.foreign_secret("upstream", &[("token", "one")]).await;
    let from = json!({"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}});
    site.apply("from", from).await;
    site.served("from").await;
    site.apply("other", generated("OTHER")).await;
    site.served("other").await;
    let value = site.value("other", "value").await.unwrap();

    switch.on(&refusal(500, "InternalError", None));
    let edited = json!({"stringData": {"token": "two"}});
    let patch = kube::api::Patch::Merge(edited);
    site.secrets().patch("upstream", &kube::api::PatchParams::default(), &patch).await.unwrap();
    site.apply("new", generated("NEW")).await;
    site.served("new").await;
    site.secrets().delete("other", &DeleteParams::default()).await.unwrap();
    site.delivers("other", "value", &value).await;
    assert_eq!(site.value("from", "value").await.as_deref(), Some("one"));
    switch.off();
    site.delivers("from", "value", "two").await;
    operator.stop().await;
}

/// What is served stays in step, and who waits is told why.
#[tokio::test(flavor = "multi_thread")]
async fn sources_that_cannot_be_listed_hold_up_only_what_needs_them() {
    let site = Site::new("unlisted").await;
    let switch = Switch::new(is_of_sources);
    let operator = setup(&site, &switch).start().await;
    site.foreign_secret("upstream", &[("token", "one")]).await;
    let from = |name: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}});
    site.apply("from", from("FROM")).await;
    let before = site.in_step("from").await.status.unwrap();
    operator.stop().await;

    site.intrude("from", json!({"stringData": {"value": "edited"}})).await;
    switch.on(&refusal(403, "Forbidden", None));
    let operator = setup(&site, &switch).start().await;
    site.delivers("from", "value", "one").await;
    site.apply("new", from("NEW")).await;
    let told = site.reports("new", "Unknown", "ApiUnavailable").await;
    assert!(message(&told).contains("spec.valueFrom"), "{}", message(&told));
    site.apply("from", from("RENAMED")).await;
    site.reports("from", "Unknown", "ApiUnavailable").await;
    assert_eq!(site.value("from", "value").await.as_deref(), Some("one"));

    switch.off();
    site.served("new").await;
    let after = site.served("from").await.status.unwrap();
    assert_eq!((after.name.as_deref(), after.version, after.id), (Some("RENAMED"), before.version, before.id));
    operator.stop().await;
}
