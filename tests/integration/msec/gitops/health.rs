//! Every state of the condition table, brought about for real: kstatus, Argo CD's health check and `kubectl wait` agree.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::ManagedSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Bench, HEALTH_CHECK, ask, page};
use crate::integration::{
    objects::{conditions, in_time, ready, status},
    operator::{Fault, Setup, Tap},
};

const HEAD: &str = "\
| state | `Ready` | reason | other condition | kstatus (Flux, Helm 4) | Argo CD | `kubectl wait --for=condition=Ready` |
|---|---|---|---|---|---|---|
";

/// What the tools make of one object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Judgement {
    kstatus: String,
    flux_kstatus: String,
    argocd: String,
    argocd_message: String,
    argocd_without: String,
}

struct Table<'a> {
    bench: &'a Bench,
    rows: String,
}

impl Table<'_> {
    /// One state: what is stored now, and what each tool says to it.
    async fn state(&mut self, title: &str, object: &ManagedSecret, kstatus: &str) {
        let name = object.name_any();
        let mut stored = serde_json::to_value(object).unwrap();
        stored["apiVersion"] = json!("managedsecrets.dev/v1alpha1");
        stored["kind"] = json!("ManagedSecret");
        let found: Vec<Judgement> = ask("health", &json!({"lua": HEALTH_CHECK, "objects": [stored]})).await;
        let judged = &found[0];
        // One look; nothing is waited for.
        let wait = ["wait", "--for=condition=Ready", &format!("msec/{name}"), "--timeout=0"];
        let waited = self.bench.kubectl(&wait, "").await;
        assert!(waited.code == 0 || waited.err.contains("condition not met"), "{title}: {waited:?}");

        assert_eq!(judged.kstatus, kstatus, "{title}: {:?}", status(object).conditions);
        assert_eq!(judged.flux_kstatus, kstatus, "{title}");
        let health = match kstatus {
            "Current" => "Healthy",
            "Failed" => "Degraded",
            _ => "Progressing",
        };
        assert_eq!(judged.argocd, health, "{title}: {}", judged.argocd_message);
        assert!(!judged.argocd_message.is_empty(), "{title}");
        // What Argo CD knows by itself is that something is being deleted.
        let without = if kstatus == "Terminating" { "Progressing" } else { "" };
        assert_eq!(judged.argocd_without, without, "{title}");
        assert_eq!(waited.code == 0, kstatus == "Current", "{title}: {waited:?}");
        let ready = status(object).conditions.unwrap().into_iter().find(|it| it.type_ == "Ready").unwrap();
        let besides: Vec<_> = conditions(object).into_iter().filter(|type_| type_ != "Ready").collect();
        let besides = if besides.is_empty() { "—".to_owned() } else { format!("`{}`", besides.join("`, `")) };
        let met = if waited.code == 0 { "met" } else { "waits" };
        writeln!(
            self.rows,
            "| {title} | {} | `{}` | {besides} | {kstatus} | {health} | {met} |",
            ready.status, ready.reason
        )
        .unwrap();
    }
}

/// A spec whose value comes from a Secret that is not there.
fn sourceless(name: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "none", "key": "key"}}})
}

/// Moves the transition times of an object's conditions three minutes back, as the restorer.
async fn age(bench: &Bench, object: &ManagedSecret) {
    let mut conditions: Vec<Condition> = status(object).conditions.unwrap();
    for condition in &mut conditions {
        condition.last_transition_time.0 -= jiff::SignedDuration::from_mins(3);
    }
    bench.site.write_status(&object.name_any(), json!({ "conditions": conditions })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kstatus_argocd_and_ready_agree_in_every_state() {
    let bench = Bench::new("health").await;
    let site = &bench.site;
    let mut table = Table { bench: &bench, rows: HEAD.to_owned() };

    let pending = site.apply("pending", json!({"name": "PENDING", "generate": {}})).await;
    table.state("new, no operator", &pending, "InProgress").await;

    // Secrets cannot be written while this is set.
    let broken = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&broken);
    let tap = Tap::new(move |_, request| {
        let writes = request.uri().path().contains("/secrets") && request.method() != http::Method::GET;
        if writes && now.load(Ordering::SeqCst) {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "on purpose"});
            Fault::Answer { code: 503, retry_after: None, body: body.to_string() }
        } else {
            Fault::Pass
        }
    });
    broken.store(true, Ordering::SeqCst);
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    let working = site.reports("pending", "Unknown", "ApiUnavailable").await;
    table.state("in progress; in this test, writes of Secrets fail", &working, "InProgress").await;
    broken.store(false, Ordering::SeqCst);
    let served = site.in_step("pending").await;
    table.state("delivered", &served, "Current").await;

    let expires = in_time(jiff::SignedDuration::from_hours(24));
    site.apply("expires", json!({"name": "EXPIRES", "generate": {}, "expires": expires})).await;
    let expires = site.until("expires", "served and warned of", |object| {
        ready(object).1 == "Served" && conditions(object).contains(&"Expiring".to_owned())
    });
    table.state("delivered; the value expires soon, or has expired", &expires.await, "Current").await;

    broken.store(true, Ordering::SeqCst);
    site.secrets().delete("pending", &DeleteParams::default()).await.unwrap();
    let passing = site.reports("pending", "True", "ApiUnavailable").await;
    table.state("delivered before; now a write fails", &passing, "Current").await;
    broken.store(false, Ordering::SeqCst);
    site.in_step("pending").await;

    site.foreign_secret("taken", &[("key", "of someone else's")]).await;
    site.apply("taken", json!({"name": "TAKEN", "generate": {}})).await;
    let person = site.reports("taken", "False", "TargetNotOwned").await;
    table.state("you must act", &person, "Failed").await;

    site.apply("waiting", sourceless("WAITING")).await;
    let waiting = site.reports("waiting", "False", "SourceNotFound").await;
    table.state("waits for another object, up to 2 minutes", &waiting, "InProgress").await;
    age(&bench, &waiting).await;
    let is_stalled = |object: &ManagedSecret| conditions(object).contains(&"Stalled".to_owned());
    let stalled = site.until("waiting", "stalled", is_stalled).await;
    table.state("the same, after 2 minutes", &stalled, "Failed").await;

    site.apply("served", json!({"name": "SERVED", "generate": {}})).await;
    site.in_step("served").await;
    site.apply("served", json!({"name": "SERVED", "generate": {}, "suspend": true})).await;
    let suspended = site.reports("served", "True", "Suspended").await;
    table.state("suspended after delivery", &suspended, "Current").await;
    let mut spec = sourceless("WAITING");
    spec["suspend"] = json!(true);
    site.apply("waiting", spec).await;
    let suspended = site.reports("waiting", "False", "Suspended").await;
    table.state("suspended before delivery", &suspended, "InProgress").await;
    site.apply("new", json!({"name": "NEW", "generate": {}, "suspend": true})).await;
    let suspended = site.reports("new", "Unknown", "Suspended").await;
    table.state("suspended from the beginning", &suspended, "InProgress").await;

    let finalizer = |value: Value| Patch::Merge(json!({"metadata": {"finalizers": value}}));
    let params = PatchParams::default();
    site.objects().patch("pending", &params, &finalizer(json!(["example.com/hold"]))).await.unwrap();
    site.objects().delete("pending", &DeleteParams::default()).await.unwrap();
    table.state("being deleted, blocked by a finalizer", &site.get("pending").await, "Terminating").await;
    site.objects().patch("pending", &params, &finalizer(Value::Null)).await.unwrap();

    site.apply("served", json!({"name": "SERVED", "generate": {}})).await;
    site.in_step("served").await;
    operator.stop().await;
    let spec = json!({"name": "SERVED", "description": "changed", "generate": {}});
    let unseen = site.apply("served", spec).await;
    table.state("changed, and no operator has seen it yet", &unseen, "InProgress").await;
    page::hold(&table.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_status_at_all_is_not_healthy() {
    let bare = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "bare", "generation": 1}, "spec": {"name": "BARE", "generate": {}},
    });
    let found: Vec<Judgement> = ask("health", &json!({"lua": HEALTH_CHECK, "objects": [bare]})).await;
    // kstatus takes it for finished: why the CRD gives each object a first condition.
    assert_eq!((found[0].kstatus.as_str(), found[0].argocd.as_str()), ("Current", "Progressing"));
}
