//! The cause of each alert, on a real operator.
//!
//! What takes hours or days is not waited for: [`Target`] repeats a scrape. Two causes cannot be made in a test: a memory
//! limit (it would need a control group), and a watch or queue that has been stuck for minutes. For these, the scrape of a real
//! operator in this state is changed in one number.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::ConfigMap};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets::{
    admin::METRICS,
    keyring::{
        kms::{DEFAULT_GRACE, KmsAddress, KmsTiming},
        providers::{Primary, ProviderOptions},
        seeds::Timing,
    },
};
use managed_secrets_api::{keys, names::record_name};
use managed_secrets_crypto::recovery::RecoveryKey;
use managed_secrets_engine::{client, lease};
use serde_json::json;
use testkit::{Operator, control_plane::quiet_address, poll};

use super::Target;
use crate::integration::{
    admission::Premises,
    faults::{FAST, Switch, refusal},
    health::Probes,
    installation::{self, object},
    kms::plugin::Plugin,
    lost_keys::Keys,
    metrics::{parse, sum},
    objects::{Site, in_time},
    operator::{Fault, PATIENCE, Running, Setup, Shared, Tap},
    program::PROGRAM,
    starting::kubeconfig_by,
};

/// Minutes of normal work before a cause: longer than the range of any rate in the rules.
const BEFORE: i64 = 20;
/// Minutes that are longer than any rule holds, with the range of its rate, except one that holds for an hour.
const LONG: i64 = 60;
const LONGER: i64 = 120;

pub(super) async fn of(alert: &str) -> Vec<Target> {
    match alert {
        "ManagedSecretsDown" => down().await,
        "ManagedSecretsNoLeader" => no_leader().await,
        "ManagedSecretsTwoLeaders" => two_leaders().await,
        "ManagedSecretsKeyringLost" => keyring_lost().await,
        "ManagedSecretsValueAtRisk" => value_at_risk().await,
        "ManagedSecretsCertificateExpiring" => certificate_expiring().await,
        "ManagedSecretsSeedRotationStalled" => seed_rotation_stalled().await,
        "ManagedSecretsSealingKeyOverdue" => sealing_key_overdue().await,
        "ManagedSecretsOneReplica" => one_replica().await,
        "ManagedSecretsNotReady" => not_ready().await,
        "ManagedSecretsRestarting" => restarting().await,
        "ManagedSecretsMemoryHigh" => memory_high().await,
        "ManagedSecretsWatchSilent" => watch_silent().await,
        "ManagedSecretsWatchFailing" => watch_failing().await,
        "ManagedSecretsNamespaceWaiting" => namespace_waiting().await,
        "ManagedSecretsQueueOld" => queue_old().await,
        "ManagedSecretsReconcilesFailing" | "ManagedSecretsApiErrors" => calls_failing(500, 2.0).await,
        "ManagedSecretsApiThrottled" => calls_failing(429, 5.0).await,
        "ManagedSecretsReconcilePanics" => panics().await,
        "ManagedSecretsWebhookErrors" => webhook_errors().await,
        "ManagedSecretsWebhookRefusals" => webhook_refusals().await,
        "ManagedSecretsWebhookSlow" => webhook_slow().await,
        "ManagedSecretsKeyringRolledBack" => rolled_back().await,
        "ManagedSecretsKmsSilent" => kms_silent(DEFAULT_GRACE, "managed_secrets_kms_plugins_silent").await,
        "ManagedSecretsKmsGraceOver" => kms_silent(Duration::ZERO, "managed_secrets_kms_grace_over").await,
        "ManagedSecretsKeysWithoutRecovery" => without_recovery().await,
        "ManagedSecretsDriftFight" => drift_fight().await,
        "ManagedSecretsValueExpired" => expiring("Expired", jiff::SignedDuration::from_hours(-1)).await,
        "ManagedSecretsValueExpiresSoon" => expiring("ExpiresSoon", jiff::SignedDuration::from_hours(24)).await,
        "ManagedSecretsNotDelivered" => not_delivered().await,
        unknown => panic!("how is {unknown} caused?"),
    }
}

/// A scrape.
async fn scrape(probes: &Probes) -> Option<String> {
    let (code, text) = probes.ask(METRICS).await?;
    assert_eq!(code, 200);
    Some(text)
}

/// A scrape in which the series of this name and these labels add up to so much at least.
async fn at_least(probes: &Probes, name: &str, labels: &[(&str, &str)], number: f64) -> String {
    poll(&format!("{name} {labels:?} to be {number}"), PATIENCE, || async {
        let text = scrape(probes).await.unwrap();
        Ok((sum(&parse(&text), name, labels) >= number).then_some(text))
    })
    .await
    .unwrap()
}

fn total(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    sum(&parse(text), name, labels)
}

/// The text with the values of a gauge changed.
fn changed(text: &str, gauge: &str, change: impl Fn(f64) -> f64) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((series, value)) if series.split('{').next() == Some(gauge) => {
            format!("{series} {:?}\n", change(value.parse().unwrap()))
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

async fn served(site: &Site, name: &str) {
    site.apply(name, json!({"name": name.to_uppercase(), "generate": {}})).await;
    site.served(name).await;
}

/// An operator that serves an object, with what a scrape finds.
async fn at_work(site: &Site, setup: Setup) -> (Running, Probes, String) {
    let operator = setup.start().await;
    let probes = Probes::of(&operator).await;
    served(site, "first").await;
    let text = at_least(&probes, "managed_secrets_objects", &[("reason", "Served")], 1.0).await;
    (operator, probes, text)
}

/// A leader and a replica that stands by, both healthy; and then the leader is replaced, by another one and a new pod.
pub(super) async fn none() -> Vec<Target> {
    let premises = Premises::new("calm").await;
    let election = |name: &str| {
        Some(lease::Options {
            namespace: premises.operator_namespace.clone(),
            name: keys::OPERATOR_NAME.to_owned(),
            identity: name.to_owned(),
            durations: lease::Durations::default(),
        })
    };
    let leader = premises.start(Setup { election: election("one"), ..premises.setup() }).await;
    let standby = Setup { election: election("two"), webhooks: None, ..premises.setup() };
    let standby = standby.start_with(premises.config.clone());
    let (one, two) = (Probes::of(&leader).await, Probes::of(&standby).await);
    let served_by =
        |probes| async move { at_least(probes, "managed_secrets_objects", &[("reason", "Served")], 2.0).await };
    served(&premises.site, "first").await;
    let expires = in_time(jiff::SignedDuration::from_hours(24 * 365));
    premises.site.apply("plain", json!({"name": "PLAIN", "value": "only-an-example", "expires": expires})).await;
    premises.site.served("plain").await;
    premises.site.intrude("first", json!({"stringData": {"value": "edited"}})).await;
    at_least(&one, "managed_secrets_repairs_total", &[], 1.0).await;
    let (first, second) = (served_by(&one).await, served_by(&two).await);
    assert!(total(&first, "managed_secrets_leader", &[]) > total(&second, "managed_secrets_leader", &[]));
    // It goes on at work.
    premises.site.apply("plain", json!({"name": "PLAIN", "value": "another-example", "expires": expires})).await;
    premises.site.in_step("plain").await;
    let later =
        at_least(&one, "managed_secrets_webhook_request_duration_seconds_count", &[("verdict", "sealed")], 2.0).await;
    let standing_by = served_by(&two).await;
    // The leader is replaced: it ends, and the other one leads.
    leader.stop().await;
    let leading = at_least(&two, "managed_secrets_leader", &[], 1.0).await;
    let targets = vec![
        Target::new(1).shows(&first, BEFORE).repeats(&later, 1).shows(&later, LONGER).fails(1),
        Target::new(2)
            .shows(&second, BEFORE)
            .repeats(&standing_by, 1)
            .shows(&standing_by, LONGER)
            .shows(&leading, LONGER),
        // It starts ten minutes after the leader has ended.
        Target::new(3).later((BEFORE + 1 + LONGER + 10) * 60).shows(&second, LONGER - 10),
    ];
    standby.stop().await;
    targets
}

async fn down() -> Vec<Target> {
    let site = Site::new("down").await;
    let (operator, mut probes, text) = at_work(&site, Setup::of(&site.namespace)).await;
    operator.stop().await;
    probes.close().await;
    assert_eq!(scrape(&probes).await, None, "the port is closed");
    vec![Target::new(1).shows(&text, BEFORE).fails(LONG)]
}

async fn one_replica() -> Vec<Target> {
    let site = Site::new("one-replica").await;
    let (one, _probes, first) = at_work(&site, Setup::of(&site.namespace)).await;
    let (two, mut probes, second) = at_work(&site, Setup::of(&site.namespace)).await;
    two.stop().await;
    probes.close().await;
    assert_eq!(scrape(&probes).await, None, "the port is closed");
    one.kill().await;
    vec![Target::new(1).shows(&first, BEFORE + LONG), Target::new(2).shows(&second, BEFORE).fails(LONG)]
}

async fn no_leader() -> Vec<Target> {
    let premises = Premises::new("no-leader").await;
    let refused = Tap::new(|_, _| refusal(403, "Forbidden", None));
    let election = lease::Options {
        namespace: premises.operator_namespace.clone(),
        name: keys::OPERATOR_NAME.to_owned(),
        identity: "one".to_owned(),
        durations: lease::Durations::default(),
    };
    let clients =
        client::Options { lease_tap: Some(Arc::new(Shared(Arc::clone(&refused)))), ..client::Options::default() };
    let setup = Setup { election: Some(election), webhooks: None, clients, ..premises.setup() };
    let operator = setup.start_with(premises.config.clone());
    let probes = Probes::of(&operator).await;
    let text = poll("a lease to be refused", PATIENCE, || async {
        let text = scrape(&probes).await.unwrap();
        Ok((text.contains("managed_secrets_leader 0") && !refused.seen().is_empty()).then_some(text))
    })
    .await
    .unwrap();
    operator.kill().await;
    vec![Target::new(1).shows(&text, LONG)]
}

async fn two_leaders() -> Vec<Target> {
    let site = Site::new("two-leaders").await;
    let (one, _probes, first) = at_work(&site, Setup::of(&site.namespace)).await;
    let (two, _probes, second) = at_work(&site, Setup::of(&site.namespace)).await;
    one.kill().await;
    two.kill().await;
    vec![Target::new(1).shows(&first, LONG), Target::new(2).shows(&second, LONG)]
}

async fn keyring_lost() -> Vec<Target> {
    let (keys, site) = (Keys::new().await, Site::new("keyring-lost").await);
    let operator = keys.serve(&site);
    let probes = Probes::of(&operator).await;
    let before = at_least(&probes, "managed_secrets_health_check", &[("check", "keyring")], 1.0).await;
    keys.take(keys::KEYRING_NAME).await;
    let text = poll("the check to fail", PATIENCE, || async {
        let text = scrape(&probes).await.unwrap();
        Ok((total(&text, "managed_secrets_health_check", &[("check", "keyring")]) < 1.0).then_some(text))
    })
    .await
    .unwrap();
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}

async fn value_at_risk() -> Vec<Target> {
    let site = Site::new("at-risk").await;
    let (operator, probes, before) = at_work(&site, Setup::of(&site.namespace)).await;
    site.apply("lost", json!({"name": "LOST", "generate": {}, "delivery": "None"})).await;
    site.served("lost").await;
    site.secrets().delete(&record_name("LOST"), &DeleteParams::default()).await.unwrap();
    let text = at_least(&probes, "managed_secrets_objects", &[("reason", "RecordLost")], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}

async fn certificate_expiring() -> Vec<Target> {
    let premises = Premises::new("expiring").await;
    let operator = premises.start(premises.setup()).await;
    let probes = Probes::of(&operator).await;
    let text = scrape(&probes).await.unwrap();
    operator.kill().await;
    // 13 days later it is the same certificate.
    vec![Target::new(1).shows(&text, BEFORE).later(13 * 24 * 3600).shows(&text, LONG)]
}

async fn seed_rotation_stalled() -> Vec<Target> {
    let (keys, site) = (Keys::new().await, Site::new("seed-stalled").await);
    let seeds = Timing { pending: Duration::ZERO, period: None, ..Timing::default() };
    let operator_namespace = keys.site.namespace.clone();
    let operator = Setup { operator_namespace, seeds, ..Setup::of(&site.namespace) }.start_with(keys.config.clone());
    let probes = Probes::of(&operator).await;
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    keys.ask().await;
    let text = at_least(&probes, "managed_secrets_seed_rotation_started_timestamp_seconds", &[], 1.0).await;
    operator.kill().await;
    // Two days later it is the same rotation.
    vec![Target::new(1).shows(&text, BEFORE).later(2 * 24 * 3600).shows(&text, LONG)]
}

async fn sealing_key_overdue() -> Vec<Target> {
    let (keys, site) = (Keys::new().await, Site::new("overdue").await);
    let operator = keys.serve(&site);
    let probes = Probes::of(&operator).await;
    let text = at_least(&probes, "managed_secrets_sealing_key_due_timestamp_seconds", &[], 1.0).await;
    operator.kill().await;
    // 32 days later it is the same key.
    vec![Target::new(1).shows(&text, BEFORE).later(32 * 24 * 3600).shows(&text, LONG)]
}

/// The program, which waits for an API server.
struct Waiting {
    operator: Operator,
    probes: Probes,
}

impl Waiting {
    async fn start() -> Self {
        let kubeconfig = kubeconfig_by(&format!("https://{}", quiet_address().unwrap())).await;
        let address = quiet_address().unwrap();
        let plane = installation::control_plane().await;
        let listen = format!("--admin-listen={address}");
        let operator = Operator::start(plane, PROGRAM, &kubeconfig, &[&listen]).await.unwrap();
        Self { operator, probes: Probes::at(address) }
    }

    async fn scraped(&self) -> String {
        poll("a scrape", PATIENCE, || async { Ok(scrape(&self.probes).await) }).await.unwrap()
    }
}

async fn not_ready() -> Vec<Target> {
    let waiting = Waiting::start().await;
    let text = waiting.scraped().await;
    waiting.operator.kill().await.unwrap();
    vec![Target::new(1).shows(&text, LONG)]
}

async fn restarting() -> Vec<Target> {
    let mut target = Target::new(1);
    let mut last = 0.0;
    for _ in 0..5 {
        let waiting = Waiting::start().await;
        let text = waiting.scraped().await;
        waiting.operator.kill().await.unwrap();
        let started = total(&text, "process_start_time_seconds", &[]);
        assert!(started > last, "{started} {last}");
        last = started;
        target = target.shows(&text, 4);
    }
    vec![target]
}

async fn memory_high() -> Vec<Target> {
    let site = Site::new("memory-high").await;
    let (operator, _probes, text) = at_work(&site, Setup::of(&site.namespace)).await;
    operator.kill().await;
    let used = total(&text, "process_resident_memory_bytes", &[]);
    assert!(used > 1e6 && total(&text, "managed_secrets_memory_limit_bytes", &[]) > used, "{text}");
    let near = changed(&text, "managed_secrets_memory_limit_bytes", |_| used * 1.1);
    vec![Target::new(1).shows(&text, BEFORE).shows(&near, LONG)]
}

/// Seconds by which a clock of the operator is moved forward.
const MOVED: f64 = 600.0;

async fn watch_silent() -> Vec<Target> {
    let site = Site::new("silent").await;
    let switch = Switch::new(|_| true);
    let setup = Setup { timing: FAST, ..Setup::of(&site.namespace).watches(&switch.tap) };
    let (operator, probes, before) = at_work(&site, setup).await;
    switch.on(&Fault::Hang);
    let silence = "managed_secrets_watch_unanswered_seconds";
    let of = [("watch", "managedsecrets")];
    let text = at_least(&probes, silence, &of, FAST.watch.as_secs_f64() * 2.0).await;
    // It is a clock.
    at_least(&probes, silence, &of, total(&text, silence, &of) + 0.5).await;
    operator.kill().await;
    let silent = changed(&text, silence, |seconds| seconds + MOVED);
    vec![Target::new(1).shows(&before, BEFORE).shows(&silent, LONG)]
}

async fn watch_failing() -> Vec<Target> {
    let site = Site::new("refused").await;
    let switch = Switch::new(|_| true);
    let setup = Setup { timing: FAST, ..Setup::of(&site.namespace).watches(&switch.tap) };
    let (operator, probes, before) = at_work(&site, setup).await;
    switch.on(&refusal(403, "Forbidden", None));
    let text = at_least(&probes, "managed_secrets_watches_failing", &[], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}

async fn namespace_waiting() -> Vec<Target> {
    let site = Site::new("waiting").await;
    let switch = Switch::new(|path| path.contains("/managedsecrets"));
    switch.on(&refusal(403, "Forbidden", None));
    let operator = Setup { timing: FAST, ..Setup::of(&site.namespace).watches(&switch.tap) }.start().await;
    let probes = Probes::of(&operator).await;
    let text = at_least(&probes, "managed_secrets_namespaces_waiting", &[], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&text, LONG)]
}

async fn queue_old() -> Vec<Target> {
    let site = Site::new("queue").await;
    let switch = Switch::new(|path| path.contains("/secrets/"));
    let setup = Setup { workers: 1, ..Setup::of(&site.namespace).calls(&switch.tap) };
    let (operator, probes, before) = at_work(&site, setup).await;
    switch.on(&Fault::Hang);
    for number in 0..12 {
        site.apply(&format!("late-{number}"), json!({"name": format!("LATE_{number}"), "generate": {}})).await;
    }
    let (age, new) = ("managed_secrets_queue_oldest_due_seconds", [("priority", "new")]);
    let text = at_least(&probes, age, &new, 1.0).await;
    // It is a clock.
    at_least(&probes, age, &new, total(&text, age, &new) + 0.5).await;
    operator.kill().await;
    let old = changed(&text, age, |seconds| if seconds > 0.0 { seconds + MOVED } else { 0.0 });
    vec![Target::new(1).shows(&before, BEFORE).shows(&old, LONG)]
}

/// Calls that write Secrets get this answer, until there are so many of them.
async fn calls_failing(code: u16, number: f64) -> Vec<Target> {
    let site = Site::new("failing").await;
    let switch = Switch::new(|path| path.contains("/secrets/"));
    let (operator, probes, _) = at_work(&site, Setup::of(&site.namespace).calls(&switch.tap)).await;
    let before = scrape(&probes).await.unwrap();
    let reason = if code == 429 { "TooManyRequests" } else { "InternalError" };
    switch.on(&refusal(code, reason, (code == 429).then_some(1)));
    for number in 0..4 {
        site.apply(&format!("failing-{number}"), json!({"name": format!("FAILING_{number}"), "generate": {}})).await;
    }
    let labels = [("code", if code == 429 { "429" } else { "500" })];
    at_least(&probes, "managed_secrets_reconcile_retries_total", &[], 2.0).await;
    let text = at_least(&probes, "managed_secrets_api_requests_total", &labels, number).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).repeats(&text, LONG)]
}

async fn panics() -> Vec<Target> {
    let site = Site::new("panics").await;
    let record = record_name("PANICS");
    let calls = Tap::new(move |_, request| {
        assert!(!request.uri().path().ends_with(&record), "on purpose");
        Fault::Pass
    });
    let (operator, probes, before) = at_work(&site, Setup::of(&site.namespace).calls(&calls)).await;
    site.apply("panics", json!({"name": "PANICS", "generate": {}})).await;
    let panicked = [("result", "panic")];
    let text = at_least(&probes, "managed_secrets_reconcile_duration_seconds_count", &panicked, 1.0).await;
    operator.kill().await;
    // Once is enough.
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}

const ANSWERS: &str = "managed_secrets_webhook_request_duration_seconds_count";

async fn webhook_errors() -> Vec<Target> {
    let premises = Premises::new("malformed").await;
    let operator = premises.start(premises.setup()).await;
    let probes = Probes::of(&operator).await;
    let before = scrape(&probes).await.unwrap();
    // The API server calls for another resource, since the configuration says so.
    let configurations = Api::<MutatingWebhookConfiguration>::all(premises.site.client.clone());
    let name = premises.configuration(keys::SEAL_CONFIGURATION);
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]);
    let patch = json!([
        {"op": "replace", "path": "/webhooks/0/rules", "value": rules},
        {"op": "remove", "path": "/webhooks/0/matchConditions"},
    ]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    configurations.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    let maps = Api::<ConfigMap>::namespaced(premises.site.client.clone(), &premises.site.namespace);
    let text = poll("a malformed review", PATIENCE, || async {
        let map: ConfigMap = object(json!({"metadata": {"generateName": "any-"}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
        let text = scrape(&probes).await.unwrap();
        Ok((total(&text, ANSWERS, &[("verdict", "malformed")]) >= 1.0).then_some(text))
    })
    .await
    .unwrap();
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).repeats(&text, LONG)]
}

async fn webhook_refusals() -> Vec<Target> {
    let premises = Premises::new("refusals").await;
    let operator = premises.start(premises.setup()).await;
    let probes = Probes::of(&operator).await;
    let before = scrape(&probes).await.unwrap();
    let manifest = premises.manifest("long", &json!({"name": "LONG", "value": "x".repeat(100_000)}));
    for _ in 0..3 {
        Premises::refused(&premises.kubectl(&["create", "-f", "-"], &manifest).await);
    }
    let text = at_least(&probes, ANSWERS, &[("webhook", "seal"), ("verdict", "refused")], 3.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).repeats(&text, LONG)]
}

async fn webhook_slow() -> Vec<Target> {
    let premises = Premises::new("slow").await;
    let switch = Switch::new(|path| path.contains("/localsubjectaccessreviews"));
    let operator = premises.start(premises.setup().calls(&switch.tap)).await;
    let probes = Probes::of(&operator).await;
    let manifest = |value: &str| premises.manifest("slow", &json!({"name": "SLOW", "value": value}));
    Premises::ok(&premises.kubectl(&["create", "-f", "-"], &manifest("one")).await);
    premises.site.served("slow").await;
    let before = scrape(&probes).await.unwrap();
    switch.on(&Fault::Hang);
    // The webhook asks who may read the stored value, and answers when it has waited long enough.
    Premises::ok(&premises.kubectl(&["replace", "-f", "-"], &manifest("two")).await);
    let sealed = total(&before, ANSWERS, &[("verdict", "sealed")]) + total(&before, ANSWERS, &[("verdict", "warned")]);
    let text = poll("the slow answer", PATIENCE, || async {
        let text = scrape(&probes).await.unwrap();
        let now = total(&text, ANSWERS, &[("verdict", "sealed")]) + total(&text, ANSWERS, &[("verdict", "warned")]);
        Ok((now > sealed).then_some(text))
    })
    .await
    .unwrap();
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).repeats(&text, LONG)]
}

async fn drift_fight() -> Vec<Target> {
    let site = Site::new("fight").await;
    let (operator, probes, before) = at_work(&site, Setup::of(&site.namespace)).await;
    site.intrude("first", json!({"stringData": {"value": "edited"}})).await;
    let text = at_least(&probes, "managed_secrets_repairs_total", &[], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).repeats(&text, LONGER)]
}

async fn expiring(reason: &str, left: jiff::SignedDuration) -> Vec<Target> {
    let site = Site::new("expires").await;
    let (operator, probes, before) = at_work(&site, Setup::of(&site.namespace)).await;
    site.apply("expires", json!({"name": "EXPIRES", "generate": {}, "expires": in_time(left)})).await;
    site.served("expires").await;
    let text = at_least(&probes, "managed_secrets_expiring", &[("reason", reason)], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONGER)]
}

async fn not_delivered() -> Vec<Target> {
    let site = Site::new("undelivered").await;
    let (operator, probes, before) = at_work(&site, Setup::of(&site.namespace)).await;
    let from = json!({"secretKeyRef": {"name": "nowhere", "key": "key"}});
    site.apply("missing", json!({"name": "MISSING", "valueFrom": from})).await;
    let text = at_least(&probes, "managed_secrets_objects", &[("reason", "SourceNotFound")], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONGER)]
}

async fn without_recovery() -> Vec<Target> {
    let (keys, site) = (Keys::new().await, Site::new("uncovered").await);
    let operator = keys.serve(&site);
    served(&site, "first").await;
    operator.stop().await;
    let unwritable = Switch::new(|path| path.contains(&format!("/secrets/{}", keys::KEYRING_NAME)));
    unwritable.on(&refusal(403, "Forbidden", None));
    let recipient = RecoveryKey::generate().unwrap().recipient();
    let setup = keys.covering(&site, &[recipient]).calls(&unwritable.tap);
    let operator = setup.start_with(keys.config.clone());
    let probes = Probes::of(&operator).await;
    let text = at_least(&probes, "managed_secrets_keys_without_recovery", &[], 2.0).await;
    unwritable.off();
    operator.kill().await;
    vec![Target::new(1).shows(&text, LONG)]
}

async fn rolled_back() -> Vec<Target> {
    let (keys, site) = (Keys::new().await, Site::new("older").await);
    let operator = keys.serve(&site);
    let probes = Probes::of(&operator).await;
    served(&site, "first").await;
    let before = scrape(&probes).await.unwrap();
    keys.go_back_without(operator).await;
    let operator = keys.serve(&site);
    let probes = Probes::of(&operator).await;
    let text = at_least(&probes, "managed_secrets_keyring_rolled_back", &[], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}

async fn kms_silent(grace: Duration, gauge: &str) -> Vec<Target> {
    let (keys, site, mut plugin) = (Keys::new().await, Site::new("silent").await, Plugin::start().await);
    let soon = Duration::from_millis(200);
    let timing = KmsTiming { healthy: soon, unhealthy: soon, grace, ..KmsTiming::default() };
    let kms = vec![KmsAddress { name: "one".to_owned(), socket: plugin.socket() }];
    let providers = ProviderOptions { primary: Primary::Kms, file: None, kms, timing };
    let setup = Setup { providers, ..keys.covering(&site, &[]) };
    let operator = setup.start_with(keys.config.clone());
    let probes = Probes::of(&operator).await;
    served(&site, "first").await;
    let before = scrape(&probes).await.unwrap();
    plugin.stop();
    let text = at_least(&probes, gauge, &[], 1.0).await;
    operator.kill().await;
    vec![Target::new(1).shows(&before, BEFORE).shows(&text, LONG)]
}
