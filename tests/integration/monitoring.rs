//! Alert rules and dashboard, with Prometheus' own libraries (`tests/monitoring`), on scrapes of a real operator.
//!
//! The cause of each alert is made on the operator, which is scraped before and after. Time is then moved forward by the
//! evaluator: it repeats the last scrape for as long as the rule asks for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod causes;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use managed_secrets::{
    admin::metrics::{Kind, Row, TABLE},
    install::monitoring::{self, alerts::ALERTS, dashboard::ROWS},
};
use managed_secrets_cli::yaml;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testkit::{binaries, control_plane::blocking};

use super::program::{clean, finish};

/// Seconds between two scrapes, and between two evaluations.
const INTERVAL: i64 = 30;
/// How many causes are made at once.
const AT_ONCE: usize = 3;
/// What Prometheus adds to the labels of a series, as the Prometheus operator configures it; and the bound of a bucket.
const LABELS_OF_PROMETHEUS: [&str; 5] = ["job", "namespace", "pod", "instance", "le"];

/// Gives the program a job; its findings.
async fn ask<T: DeserializeOwned>(command: &str, job: &Value) -> T {
    let program = blocking(binaries::evaluator).await.unwrap();
    let mut run = std::process::Command::new(program);
    run.arg(command);
    clean(&mut run);
    let ran = finish(run, job.to_string().as_bytes()).await;
    assert_eq!(ran.code, 0, "{command}: {}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn rules() -> String {
    yaml::document(&monitoring::rules()).unwrap()
}

/// One address that Prometheus scrapes, and what it finds there from some time on.
struct Target {
    labels: Value,
    at: i64,
    phases: Vec<Value>,
}

impl Target {
    /// The replica of this number, from now on.
    fn new(number: u8) -> Self {
        Self {
            labels: json!({
                "job": "managed-secrets-metrics", "namespace": "managed-secrets-system",
                "pod": format!("managed-secrets-{number}"), "instance": format!("10.0.0.{number}:8080"),
            }),
            // A multiple of the interval, so that several targets are scraped together.
            at: jiff::Timestamp::now().as_second() / INTERVAL * INTERVAL,
            phases: Vec::new(),
        }
    }

    fn phase(mut self, text: Option<&str>, minutes: i64, grows: bool) -> Self {
        let seconds = minutes * 60;
        self.phases.push(json!({
            "target": self.labels, "from": self.at, "seconds": seconds, "text": text, "grows": grows,
        }));
        self.at += seconds;
        self
    }

    /// Each scrape finds this.
    fn shows(self, text: &str, minutes: i64) -> Self {
        self.phase(Some(text), minutes, false)
    }

    /// The first scrape finds this. What was counted since the scrape before is counted again before each one that follows.
    fn repeats(self, text: &str, minutes: i64) -> Self {
        self.phase(Some(text), minutes, true)
    }

    /// Each scrape fails.
    fn fails(self, minutes: i64) -> Self {
        self.phase(None, minutes, false)
    }

    /// Nothing is evaluated for this time.
    fn later(mut self, seconds: i64) -> Self {
        self.at += seconds / INTERVAL * INTERVAL;
        self
    }
}

/// An alert that fired.
#[derive(Debug, Deserialize)]
struct Firing {
    alert: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

async fn evaluate(targets: Vec<Target>) -> Vec<Firing> {
    let phases: Vec<Value> = targets.into_iter().flat_map(|target| target.phases).collect();
    ask("evaluate", &json!({"rules": rules(), "phases": phases, "intervalSeconds": INTERVAL})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_alert_fires_when_its_cause_is_made() {
    let checked = stream::iter(ALERTS).map(|alert| async move {
        let firing = evaluate(causes::of(alert.name).await).await;
        let Some(fired) = firing.iter().find(|fired| fired.alert == alert.name) else {
            return Some(format!("{} did not fire, but {firing:?}", alert.name));
        };
        assert_eq!(fired.labels["severity"], alert.severity.as_str());
        for text in fired.annotations.values() {
            assert!(
                !text.contains("{{") && !text.contains("error expanding") && !text.contains("<no value>"),
                "{text}"
            );
        }
        None
    });
    let silent: Vec<String> = checked.buffer_unordered(AT_ONCE).filter_map(async |silent| silent).collect().await;
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_alert_fires_for_a_healthy_operator() {
    let firing = evaluate(causes::none().await).await;
    assert!(firing.is_empty(), "{firing:?}");
}

/// What one part of a query reads.
#[derive(Debug, Deserialize)]
struct Selector {
    metric: String,
    labels: BTreeMap<String, Vec<String>>,
}

/// The row of a series, and whether it is a bucket.
fn row(metric: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| match row.kind {
        Kind::Counter => metric.strip_suffix("_total") == Some(row.name),
        Kind::Gauge => metric == row.name,
        Kind::Histogram => {
            metric.strip_prefix(row.name).is_some_and(|suffix| ["_count", "_sum", "_bucket"].contains(&suffix))
        }
    })
}

/// What is wrong with what a query reads.
fn faults(query: &str, selector: &Selector) -> Vec<String> {
    let Some(row) = row(&selector.metric) else { return vec![format!("{query}: no metric {:?}", selector.metric)] };
    let mut faults = Vec::new();
    for (name, values) in &selector.labels {
        if LABELS_OF_PROMETHEUS.contains(&name.as_str()) {
            continue;
        }
        let Some(label) = row.labels.iter().find(|label| label.name() == name) else {
            faults.push(format!("{query}: {} has no label {name}", selector.metric));
            continue;
        };
        let known = label.values();
        let unknown = values.iter().filter(|value| !known.contains(&value.as_str()));
        faults.extend(unknown.map(|value| format!("{query}: {name} is never {value:?}")));
    }
    faults
}

#[tokio::test]
async fn rules_and_panels_read_only_metrics_that_exist() {
    let names: Vec<String> = ask("check", &json!({"rules": rules()})).await;
    assert_eq!(names, ALERTS.iter().map(|alert| alert.name).collect::<Vec<_>>());

    let alerts = ALERTS.iter().map(|alert| (alert.expression)());
    // Grafana puts in a duration.
    let panels = ROWS.iter().flat_map(|row| row.panels).flat_map(|panel| panel.queries);
    let panels = panels.map(|(query, _)| query.replace("$__rate_interval", "2m"));
    let queries: Vec<String> = alerts.chain(panels).collect();
    let read: Vec<Vec<Selector>> = ask("queries", &json!({"queries": queries})).await;
    let pairs = queries.iter().zip(&read);
    let faults: Vec<String> = pairs
        .clone()
        .flat_map(|(query, selectors)| selectors.iter().flat_map(move |selector| faults(query, selector)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(pairs.clone().all(|(_, selectors)| !selectors.is_empty()));

    // Each metric is on the dashboard, so a new one is not forgotten.
    let shown: BTreeSet<&str> =
        read.iter().skip(ALERTS.len()).flatten().filter_map(|selector| Some(row(&selector.metric)?.name)).collect();
    let hidden: Vec<&str> = TABLE.iter().map(|row| row.name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(hidden, ["process_virtual_memory_bytes"], "not on the dashboard");
}

#[tokio::test]
async fn the_evaluator_finds_faults() {
    // What the test above must be able to see.
    let query = "rate(managed_secrets_nothing_total[5m]) + managed_secrets_objects{reason=\"Nothing\",color=\"red\"}";
    let read: Vec<Vec<Selector>> = ask("queries", &json!({"queries": [query]})).await;
    let found: Vec<String> = read[0].iter().flat_map(|selector| faults("q", selector)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
}
