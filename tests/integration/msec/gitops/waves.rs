//! Argo CD's sync waves: what comes later waits until a ManagedSecret is served, because of our health check.

use kube::api::ListParams;
use serde_json::{Value, json};

use super::Bench;
use crate::integration::operator::Setup;

/// A ManagedSecret of one wave.
fn in_wave(name: &str, wave: u8) -> Value {
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": name, "annotations": {"argocd.argoproj.io/sync-wave": wave.to_string()}},
        "spec": {"name": name.to_uppercase(), "generate": {}},
    })
}

async fn names(bench: &Bench) -> Vec<String> {
    let list = bench.site.objects().list(&ListParams::default()).await.unwrap();
    list.items.iter().map(kube::ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_waits_until_the_one_before_is_served() {
    let bench = Bench::new("waves").await;
    let objects = [in_wave("first", 0), in_wave("second", 1)];
    // As often as Argo CD looks, nothing comes of it while nobody serves.
    let found = bench.ask("argocd", json!({"objects": objects, "passes": 4})).await;
    assert_eq!(found["phase"], "Running", "{found}");
    let message = found["message"].as_str().unwrap();
    assert_eq!(message, "waiting for healthy state of managedsecrets.dev/ManagedSecret/first");
    assert_eq!(names(&bench).await, ["first"]);

    let operator = Setup::of(&bench.site.namespace).start().await;
    let found = bench.ask("argocd", json!({"objects": objects})).await;
    assert_eq!(found["phase"], "Succeeded", "{found}");
    bench.site.in_step("second").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_fails_when_the_one_before_needs_a_person() {
    let bench = Bench::new("waves").await;
    let operator = Setup::of(&bench.site.namespace).start().await;
    bench.site.foreign_secret("first", &[("key", "of someone else's")]).await;
    let objects = [in_wave("first", 0), in_wave("second", 1)];
    let found = bench.ask("argocd", json!({"objects": objects})).await;
    assert_eq!(found["phase"], "Failed", "{found}");
    assert!(found["results"].to_string().contains("TargetNotOwned"), "{found}");
    assert_eq!(names(&bench).await, ["first"]);

    // Without the check Argo CD would have gone on, with or without an operator.
    let found = bench.ask("argocd", json!({"objects": objects, "lua": ""})).await;
    assert_eq!((found["phase"].as_str(), names(&bench).await.len()), (Some("Succeeded"), 2), "{found}");
    operator.stop().await;
}
