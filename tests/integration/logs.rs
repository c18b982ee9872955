//! What the operator says while it works: log lines that tell why each write happened, and events that are said once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use managed_secrets_api::keys::OPERATOR_NAME;
use managed_secrets_cli::say;
use serde_json::{Value, json};
use testkit::{Operator, poll};

use super::{
    admission::{self, Premises},
    installation::{control_plane, operator_kubeconfig},
    objects::{Site, status},
    operator::{PATIENCE, Setup, Tap},
    program::PROGRAM,
};

/// The program, for one namespace, with these flags besides.
async fn start(site: &Site, flags: &[&str]) -> Operator {
    let arguments = [&["--namespace", &site.namespace], flags].concat();
    Operator::start(control_plane().await, PROGRAM, operator_kubeconfig().await, &arguments).await.unwrap()
}

/// An object's life with a write for every reason.
async fn live(site: &Site) {
    site.apply("it", json!({"name": "FIRST", "generate": {"length": 20}})).await;
    site.served("it").await;
    let value = site.value("it", "value").await.unwrap();
    site.apply("it", json!({"name": "SECOND", "generate": {"length": 20}, "description": "renamed"})).await;
    site.served("it").await;
    site.gone(&managed_secrets_api::names::record_name("FIRST")).await;
    site.intrude("it", json!({"stringData": {"value": "edited"}})).await;
    site.delivers("it", "value", &value).await;
    let moved = json!({"name": "SECOND", "generate": {"length": 20}, "target": {"name": "moved"}});
    site.apply("it", moved).await;
    site.served("it").await;
    site.gone("it").await;
}

/// The reasons of writes that `live` must show: the line's message, and why.
const WHY: [(&str, &str); 7] = [
    ("record written", "New"),
    ("target written", "New"),
    ("record written", "Rename"),
    ("Secret deleted", "Leftover"),
    ("target written", "Drift"),
    ("target written", "SpecChanged"),
    ("Secret deleted", "Moved"),
];

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_tell_why_each_write_happened() {
    let site = Site::new("json").await;
    let operator = start(&site, &["--log-format", "json"]).await;
    live(&site).await;
    // To its end: a line that is being written is none yet.
    let log = operator.log_path();
    assert_eq!(operator.stop().await.unwrap(), 0);
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Each reader reads a key that is twice in one object in its own way.
    for (text, line) in log.lines().zip(&lines) {
        let keys = |value: &Value| serde_json::to_string(value).unwrap().len();
        assert_eq!(text.len(), keys(line), "{text}");
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{text}");
    }
    let of_it: Vec<&Value> = lines.iter().filter(|line| line["span"]["name"] == "it").collect();
    for (message, why) in WHY {
        let line = of_it.iter().find(|line| line["message"] == message && line["why"] == why);
        let line = line.unwrap_or_else(|| panic!("no \"{message}\" because of {why} in\n{log}"));
        assert_eq!(line["span"]["namespace"], site.namespace.as_str());
        assert!(line["span"]["generation"].as_i64().is_some_and(|generation| (1..=3).contains(&generation)), "{line}");
    }
    let statuses = of_it.iter().filter(|line| line["message"] == "status written").count();
    assert!(statuses >= 3, "every write of the status is a line");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_people_tell_why_each_write_happened() {
    let site = Site::new("human").await;
    let operator = start(&site, &[]).await;
    live(&site).await;
    // To its end: a line that is being written is none yet.
    let log = operator.log_path();
    assert_eq!(operator.stop().await.unwrap(), 0);
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.contains('\u{1b}'), "no colours where no terminal is");
    let span = format!("reconcile{{namespace=\"{}\" name=\"it\" generation=", site.namespace);
    for (message, why) in WHY {
        let told = log
            .lines()
            .any(|line| line.contains(&span) && line.contains(message) && line.contains(&format!("why={why}")));
        assert!(told, "no \"{message}\" because of {why} in\n{log}");
    }
}

/// Text of others that drives a terminal, forges a line, and hides and reorders text.
const HOSTILE: &str = "a\u{1b}[2J\n::error::b\u{9b}1m\u{202e}c\u{200b}\u{2028}\u{7f}d";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_text_is_visible_and_stays_in_its_line() {
    let premises = Premises::new("hostile").await;
    let (site, own) = (&premises.site, &premises.operator_namespace);
    let plane = admission::control_plane().await;
    let kubeconfig = plane.access().kubeconfig_for(own, OPERATOR_NAME).await.unwrap();
    let folder = format!("/nowhere/{HOSTILE}");
    for format in ["human", "json"] {
        let arguments = [
            ["--namespace", &site.namespace],
            ["--operator-namespace", own],
            ["--log-format", format],
            ["--log-level", "trace"],
            ["--webhook-listen", "127.0.0.1:0"],
            ["--webhook-cert-dir", &folder],
        ];
        let operator = Operator::start(plane, PROGRAM, &kubeconfig, &arguments.concat()).await.unwrap();
        let text =
            json!({"metadata": {"annotations": {"example.com/note": HOSTILE}}, "stringData": {"value": HOSTILE}});
        site.apply(format, json!({"name": format, "generate": {}})).await;
        // JSON can hold what YAML, and with it a server-side apply, cannot.
        let described = Patch::Merge(json!({"spec": {"description": HOSTILE}}));
        site.objects().patch(format, &PatchParams::default(), &described).await.unwrap();
        site.served(format).await;
        let value = site.value(format, "value").await.unwrap();
        site.intrude(format, text).await;
        site.delivers(format, "value", &value).await;
        poll("the folder to be missed", PATIENCE, || async {
            Ok(operator.log()?.contains("could not update the webhooks").then_some(()))
        })
        .await
        .unwrap();
        let log = operator.log_path();
        assert_eq!(operator.stop().await.unwrap(), 0);
        let log = std::fs::read_to_string(log).unwrap();
        for line in log.lines() {
            assert_eq!(say::visible(line), line);
        }
        if format == "human" {
            let shown = say::visible(&folder);
            assert!(
                log.lines().any(|line| line.contains("could not update the webhooks") && line.contains(&shown)),
                "{log}"
            );
            assert!(!log.lines().any(|line| line.starts_with("::")), "{log}");
        } else {
            let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let told = |line: &Value| line["error"].as_str().is_some_and(|error| error.contains(&folder));
            assert!(lines.iter().any(told), "{log}");
        }
    }
}

/// All events about an object: reason, action, type and how often.
async fn events(site: &Site, name: &str) -> Vec<(String, String, String, i32)> {
    let events = Api::<Event>::namespaced(site.client.clone(), &site.namespace);
    let list = events.list(&ListParams::default()).await.unwrap();
    let about = |event: &Event| event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some(name));
    let mut found: Vec<_> = list
        .items
        .into_iter()
        .filter(about)
        .map(|event| {
            let times = event.series.map_or(1, |series| series.count);
            let text = Option::unwrap_or_default;
            (text(event.reason), text(event.action), text(event.type_), times)
        })
        .collect();
    found.sort();
    found
}

/// Waits until these are the events about an object, each once.
async fn told(site: &Site, name: &str, expected: &[(&str, &str, &str)]) {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(reason, action, type_)| ((*reason).to_owned(), (*action).to_owned(), (*type_).to_owned(), 1))
        .collect();
    expected.sort();
    let waited = poll("the events", PATIENCE, || async { Ok((events(site, name).await == expected).then_some(())) });
    assert!(waited.await.is_ok(), "{name}: {:?}, expected {expected:?}", events(site, name).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_said_once() {
    let site = Site::new("events").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("holder", json!({"name": "HELD", "generate": {}})).await;
    site.served("holder").await;
    site.apply("loser", json!({"name": "HELD", "generate": {}})).await;
    site.reports("loser", "False", "NameInUse").await;
    site.foreign_secret("upstream", &[("empty", "")]).await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "empty"}});
    site.apply("invalid", json!({"name": "INVALID", "valueFrom": from})).await;
    site.reports("invalid", "False", "InvalidValue").await;
    let retained = json!({"name": "RETAINED", "generate": {}, "deletionPolicy": "Retain"});
    site.apply("retained", retained.clone()).await;
    site.served("retained").await;
    site.delete("retained").await;
    site.apply("retained", retained).await;
    site.served("retained").await;
    let from = json!({"secretKeyRef": {"name": "source", "key": "token"}});
    site.apply("late", json!({"name": "LATE", "valueFrom": from})).await;
    site.reports("late", "False", "SourceNotFound").await;
    site.foreign_secret("source", &[("token", "one")]).await;
    site.served("late").await;
    site.foreign_secret("edited", &[("token", "one")]).await;
    let from = json!({"secretKeyRef": {"name": "edited", "key": "token"}});
    site.apply("changed", json!({"name": "CHANGED", "valueFrom": from})).await;
    site.served("changed").await;
    site.intrude("edited", json!({"stringData": {"token": "two"}})).await;
    site.until("changed", "its second version", |object| status(object).version == Some(2)).await;
    site.apply("drifted", json!({"name": "DRIFTED", "generate": {}})).await;
    site.served("drifted").await;
    let value = site.value("drifted", "value").await.unwrap();
    site.intrude("drifted", json!({"stringData": {"value": "edited"}})).await;
    site.delivers("drifted", "value", &value).await;

    // Only the status reports a first delivery, unless a failure was reported before it.
    let all = [
        ("holder", &[][..]),
        ("loser", &[("NameInUse", "Reconcile", "Warning")]),
        ("invalid", &[("InvalidValue", "Reconcile", "Warning")]),
        ("late", &[("Served", "NewValue", "Normal"), ("SourceNotFound", "Reconcile", "Warning")]),
        ("changed", &[("Served", "NewValue", "Normal")]),
        ("drifted", &[("TargetDriftCorrected", "Repair", "Warning")]),
        ("retained", &[("RecordTakenOver", "TakeOver", "Normal")]),
    ];
    for (name, expected) in all {
        told(&site, name, expected).await;
    }

    // Neither a new look nor a restart says anything again.
    for (name, _) in all {
        site.nudge(name).await;
    }
    operator.stop().await;
    let operator = Setup::of(&site.namespace).start().await;
    let passes = u64::try_from(all.len()).unwrap();
    poll("a pass for each object", PATIENCE, || async {
        Ok((operator.stats().reconciles.get() >= passes).then_some(()))
    })
    .await
    .unwrap();
    // Events that wait are published before the end.
    operator.stop().await;
    for (name, expected) in all {
        told(&site, name, expected).await;
    }
}

/// What the last passes had to say is said, although the operator was told to end before it could be.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_events_are_said_before_the_end() {
    let site = Site::new("last-events").await;
    let slow = Tap::slow_events(Duration::from_millis(500));
    let operator = Setup::of(&site.namespace).calls(&slow).start().await;
    let names = ["one", "two", "three", "four"];
    let from = json!({"secretKeyRef": {"name": "missing", "key": "token"}});
    for name in names {
        site.apply(name, json!({"name": name, "valueFrom": from})).await;
    }
    for name in names {
        site.reports(name, "False", "SourceNotFound").await;
    }
    operator.stop().await;
    for name in names {
        let events = events(&site, name).await;
        assert_eq!(events, [("SourceNotFound".to_owned(), "Reconcile".to_owned(), "Warning".to_owned(), 1)], "{name}");
    }
}
