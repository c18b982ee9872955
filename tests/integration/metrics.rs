//! Metrics of a live operator: what happened is counted, and no label holds what users chose.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets::admin::metrics::{Kind, Label, TABLE};
use serde_json::json;
use testkit::poll;

use super::{
    admission::Premises,
    operator::{PATIENCE, Running},
};

/// One line of a scrape.
#[derive(Debug)]
pub(super) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text format: in the values here, nothing needs an escape.
pub(super) fn parse(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect(line).split(',').filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (name, value) = label.split_once('=').expect(line);
                (
                    name.to_owned(),
                    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(line).to_owned(),
                )
            });
            Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().expect(line) }
        })
        .collect()
}

fn scrape(operator: &Running) -> Vec<Sample> {
    parse(&operator.metrics().text().unwrap())
}

/// The sum of all series of this name with these labels.
pub(super) fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has =
        |sample: &Sample| labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value));
    samples.iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
}

/// Each sample belongs to a row of the table, with exactly its labels, each with a value of its closed list.
fn labels_are_closed(samples: &[Sample]) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    for sample in samples {
        let row = TABLE
            .iter()
            .find(|row| match row.kind {
                Kind::Counter => sample.name == format!("{}_total", row.name),
                Kind::Gauge => sample.name == row.name,
                Kind::Histogram => {
                    sample.name.strip_prefix(row.name).is_some_and(|rest| ["_count", "_sum", "_bucket"].contains(&rest))
                }
            })
            .unwrap_or_else(|| panic!("{sample:?} is not in the table"));
        let mut labels = sample.labels.clone();
        if row.kind == Kind::Histogram && sample.name.ends_with("_bucket") {
            let bound = labels.remove("le").expect("a bound");
            assert!(bound == "+Inf" || bound.parse::<f64>().is_ok(), "{sample:?}");
        }
        let names: Vec<&str> = labels.keys().map(String::as_str).collect();
        let mut expected: Vec<&str> = row.labels.iter().map(|label: &Label| label.name()).collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "{sample:?}");
        for label in row.labels {
            assert!(label.values().contains(&labels[label.name()].as_str()), "{sample:?}");
        }
        seen.insert(row.name);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_operator_counts_what_happens_and_no_label_holds_what_users_chose() {
    let premises = Premises::new("metrics").await;
    let site = &premises.site;
    let operator = premises.start(premises.setup()).await;
    // Text that would break the format.
    let hostile = "x\"}\n# EOF\\ 1";
    site.apply("hostile", json!({"name": "HOSTILE", "description": hostile, "value": hostile})).await;
    site.apply("reason", json!({"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "nowhere", "key": "k"}}}))
        .await;
    site.apply("good", json!({"name": "GOOD", "generate": {}})).await;
    site.served("good").await;
    site.intrude("good", json!({"stringData": {"value": "edited"}})).await;
    poll("all of it to be counted", PATIENCE, || async {
        let samples = scrape(&operator);
        let all = sum(&samples, "managed_secrets_repairs_total", &[]) >= 1.0
            && sum(&samples, "managed_secrets_objects", &[("reason", "Served")]) >= 1.0
            && sum(&samples, "managed_secrets_objects", &[]) >= 2.0
            && sum(&samples, "managed_secrets_webhook_request_duration_seconds_count", &[("verdict", "sealed")]) >= 1.0;
        Ok(all.then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", operator.metrics().text().unwrap()));
    let samples = scrape(&operator);
    let seen = labels_are_closed(&samples);
    let missing: Vec<_> = TABLE.iter().map(|row| row.name).filter(|name| !seen.contains(name)).collect();
    // This operator does not serve the value API, replaces no seed, and has neither KMS plugin nor recovery key.
    let expected = [
        "managed_secrets_value_request_duration_seconds",
        "managed_secrets_seed_rotation_started_timestamp_seconds",
        "managed_secrets_kms_plugins_silent",
        "managed_secrets_kms_grace_over",
        "managed_secrets_keys_without_recovery",
    ];
    assert_eq!(missing, expected, "every other metric exists in a live operator");
    assert!(
        samples.iter().all(|sample| sample.labels.get("check").is_none_or(|check| check != "other")),
        "{samples:?}"
    );
    let text = operator.metrics().text().unwrap();
    for chosen in [site.namespace.as_str(), "hostile", "HOSTILE", "MISSING", "nowhere", &premises.operator_namespace] {
        assert!(!text.contains(chosen), "{chosen}: {text}");
    }
    assert_eq!(text.matches("# EOF").count(), 1);

    let of = |name: &str, labels: &[(&str, &str)]| sum(&samples, name, labels);
    let patched = [("verb", "patch"), ("resource", "secrets"), ("code", "200")];
    assert!(of("managed_secrets_api_requests_total", &patched) >= 1.0, "{text}");
    assert!(of("managed_secrets_api_requests_total", &[("verb", "watch"), ("resource", "managedsecrets")]) >= 1.0);
    assert!(of("managed_secrets_reconcile_duration_seconds_count", &[("result", "success")]) >= 2.0, "{text}");
    assert!((of("managed_secrets_leader", &[]) - 1.0).abs() < 0.1);
    let now = of("process_start_time_seconds", &[]);
    for date in [
        "managed_secrets_oldest_seed_created_timestamp_seconds",
        "managed_secrets_oldest_sealing_key_created_timestamp_seconds",
    ] {
        assert!((of(date, &[]) - now).abs() < 86_400.0, "{date}: {text}");
    }
    assert!(of("managed_secrets_webhook_certificate_expiry_timestamp_seconds", &[]) > now + 86_400.0, "{text}");
    operator.kill().await;
}
