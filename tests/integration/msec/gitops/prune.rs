//! Pruning: ManagedSecrets go, and what the operator made of the others is neither pruned nor fought over.

use kube::ResourceExt as _;
use serde_json::json;

use super::{Bench, Entry, OWNER, ways::ALLOWED};
use crate::integration::{objects::version, operator::Setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_delivered_secret_with_the_very_label_is_not_pruned() {
    let bench = Bench::new("prune").await;
    let site = &bench.site;
    let operator = Setup::of(&site.namespace).start().await;
    let entry = Entry::of(site, "labelled", "the value").await;
    let mut labelled = entry.manifest();
    // A user may ask for the label that the pruning goes by, on the delivered Secret.
    labelled["spec"]["target"] = json!({"labels": {"app": OWNER}});
    let selector = format!("app={OWNER}");
    let prune = [&["apply", "-f", "-", "--prune", "-l", &selector], &ALLOWED[..]].concat();

    let first = bench.kubectl(&prune, &labelled.to_string()).await;
    first.ok();
    let made = site.in_step("labelled").await;
    let secret = site.secret("labelled").await.unwrap();
    assert_eq!(secret.labels().get("app").map(String::as_str), Some(OWNER));
    // What must be pruned stands beside: a Secret that was applied with the same label.
    let applied = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "applied", "labels": {"app": OWNER}}, "stringData": {"key": "x"}});
    bench.kubectl(&["apply", "-f", "-"], &applied.to_string()).await.ok();

    let again = bench.kubectl(&prune, &labelled.to_string()).await.ok();
    assert!(again.contains("secret/applied pruned") && again.contains("labelled unchanged"), "{again}");
    let same = site.secret("labelled").await.unwrap();
    assert_eq!((same.uid(), same.resource_version()), (secret.uid(), secret.resource_version()));
    assert_eq!(version(&site.get("labelled").await), version(&made));
    operator.stop().await;
}
