//! Faults of calls: each different request of a step is struck once (or as often as retries go, and once more), and in
//! the end everything is as without the fault: served, once, with the right version.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::join_all;
use managed_secrets_api::{keys::KEK_PREFIX, names::record_name};
use managed_secrets_engine::client;
use serde_json::json;

use super::{answer, refusal};
use crate::integration::{
    objects::Site,
    operator::{Fault, Setup, Tap},
    witness::Witness,
};

/// How often each request was struck.
type Struck = Arc<Mutex<HashMap<String, usize>>>;

/// A tap that strikes each different request `times` times, and then lets it pass.
fn striking(fault: Fault, times: usize) -> (Arc<Tap>, Struck) {
    let struck = Struck::default();
    let counts = Arc::clone(&struck);
    let tap = Tap::new(move |_, request| {
        let mut counts = counts.lock().unwrap();
        let path = request.uri().path();
        // Each key-encryption key has a name of its own, and is the same request all the same.
        let path = path.split_once(KEK_PREFIX).map_or(path, |(before, _)| before);
        let count = counts.entry(format!("{} {path}", request.method())).or_default();
        *count += 1;
        if *count <= times { fault.clone() } else { Fault::Pass }
    });
    (tap, struck)
}

/// Created, given a new value, renamed, moved, deleted, while each request of each step is struck.
async fn recovers(purpose: &str, fault: Fault, times: usize) {
    let site = Site::new(purpose).await;
    let (tap, struck) = striking(fault, times);
    let clients = client::Options { call: Duration::from_secs(2), ..client::Options::default() };
    let operator = Setup { clients, ..Setup::of(&site.namespace).calls(&tap) }.start().await;
    let witness = Witness::of(&site).await;
    site.foreign_secret("upstream", &[("token", "one")]).await;
    let spec = |name: &str, target: &str| {
        let source = json!({"secretKeyRef": {"name": "upstream", "key": "token"}});
        json!({"name": name, "valueFrom": source, "target": {"name": target}})
    };
    site.apply("object", spec("FIRST", "here")).await;
    let created = site.served("object").await.status.unwrap();
    assert_eq!(site.value("here", "value").await.as_deref(), Some("one"));

    struck.lock().unwrap().clear();
    let patch = kube::api::Patch::Merge(json!({"stringData": {"token": "two"}}));
    site.secrets().patch("upstream", &kube::api::PatchParams::default(), &patch).await.unwrap();
    site.delivers("here", "value", "two").await;
    site.until("object", "the new version described", |object| object.status.as_ref().unwrap().version == Some(2))
        .await;

    struck.lock().unwrap().clear();
    site.apply("object", spec("SECOND", "there")).await;
    let moved = site.served("object").await.status.unwrap();
    site.gone("here").await;
    assert_eq!(site.value("there", "value").await.as_deref(), Some("two"));
    // A request that was carried out although its answer was lost, or that was sent again, counts once.
    assert_eq!((moved.version, moved.id), (Some(2), created.id));
    assert_eq!(moved.created_date, created.created_date);
    site.gone(&record_name("FIRST")).await;
    let mut ours = site.labelled().await;
    ours.sort();
    assert_eq!(ours, [record_name("SECOND"), "there".to_owned()]);

    let shown = serde_json::to_string(&site.get("object").await).unwrap();
    assert!(!shown.contains("hunter") && !shown.contains("log in"), "what was answered is quoted: {shown}");

    // Nothing wrong and nothing empty was served on the way, and nothing was made twice.
    let values = |values: &[&str]| values.iter().map(|value| Some((*value).to_owned())).collect::<Vec<_>>();
    assert_eq!(witness.values("here", "value").await, values(&["one", "two"]));
    assert_eq!(witness.values("there", "value").await, values(&["two"]));
    assert_eq!((witness.uids("here").await.len(), witness.uids("there").await.len()), (1, 1));

    site.delete("object").await;
    site.gone("there").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_may_fail() {
    let page = |code| Fault::Answer { code, retry_after: None, body: "<html>please log in</html>".to_owned() };
    // Side by side: most of the time they wait. The last two go on for longer than the client tries by itself.
    let cases = [
        ("call-cut", Fault::Cut, 1),
        ("call-lost", Fault::Lose, 1),
        ("call-hang", Fault::Hang, 1),
        ("call-500", refusal(500, "InternalError", None), 1),
        ("call-json", answer(r#"{"metadata": 7, "data": "hunter2"}"#), 1),
        ("call-html", page(200), 1),
        ("call-502", page(502), 1),
        ("call-503", refusal(503, "ServiceUnavailable", None), 5),
        ("call-504", refusal(504, "Timeout", None), 5),
    ];
    join_all(cases.into_iter().map(|(purpose, fault, times)| recovers(purpose, fault, times))).await;
}

/// The server asks for time, shorter and longer than calls are sent again by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_obeyed() {
    join_all([(2, "Too many requests, please try again later."), (7, "busy")].map(async |(seconds, body)| {
        let site = Site::new("call-busy").await;
        let busy = Fault::Answer { code: 429, retry_after: Some(seconds), body: body.to_owned() };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (times, namespace) = (Arc::clone(&asked), site.namespace.clone());
        let tap = Tap::new(move |_, request| {
            let object = format!("/namespaces/{namespace}/managedsecrets/asked");
            if !request.uri().path().contains(&object) {
                return Fault::Pass;
            }
            let mut times = times.lock().unwrap();
            times.push(Instant::now());
            if times.len() == 1 { busy.clone() } else { Fault::Pass }
        });
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        let sealed = site.seal("asked", "hunter2").await;
        site.apply("asked", json!({"name": "ASKED", "value": sealed})).await;
        site.until("asked", "asked for", |_| !asked.lock().unwrap().is_empty()).await;
        // No other object has to wait.
        site.apply("other", json!({"name": "OTHER", "generate": {}})).await;
        site.served("other").await;
        site.served("asked").await;
        let times = asked.lock().unwrap().clone();
        let waited = times[1] - times[0];
        assert!(waited >= Duration::from_secs(seconds), "only {waited:?} of {seconds} s");
        operator.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn a_create_that_failed_is_followed_by_a_look_and_not_by_another_try() {
    let site = Site::new("hidden").await;
    // Without a label of ours, so no cache shows it; the server takes too long for a create over it, as for a very large one.
    site.foreign_secret("hidden", &[("token", "theirs")]).await;
    let tap = Tap::new(|_, request| {
        let is_create = request.method() == "PATCH" && request.uri().path().ends_with("/secrets/hidden");
        if is_create { refusal(504, "Timeout", None) } else { Fault::Pass }
    });
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("object", json!({"name": "HIDDEN", "generate": {}, "target": {"name": "hidden"}})).await;
    site.reports("object", "False", "TargetNotOwned").await;
    let seen = tap.seen();
    let on_target = seen.iter().filter(|seen| seen.path.split('?').next().is_some_and(|it| it.ends_with("/hidden")));
    let methods: Vec<_> = on_target.map(|seen| seen.method.as_str()).collect();
    let look = methods.iter().position(|method| *method == "GET").unwrap();
    assert!(look > 0 && methods[look..].iter().all(|method| *method == "GET"), "{methods:?}");
    operator.stop().await;
    assert_eq!(site.value("hidden", "token").await.as_deref(), Some("theirs"));
}
