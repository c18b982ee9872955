//! A status is only as good as those who may write it: names in it are no paths and no queries to the plugin.

use serde_json::json;

use super::Plugin;
use crate::integration::objects::Site;

/// The value of a Secret that no object delivers.
const CANARY: &str = "k4n4ry-of-another";

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_a_status_that_would_be_another_path_is_not_asked_for() {
    let site = Site::new("forged").await;
    let plugin = Plugin::new(&site).await;
    let victim = site.foreign_secret("victim", &[("value", CANARY)]).await;
    let object = site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let generation = object.metadata.generation;
    let path = format!("../../{}/secrets/victim", site.namespace);
    for name in ["../secrets/victim", "./victim", "victim?x=y", "victim#x", "victim%20", "Victim\u{1b}[2J", &path] {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Served", "message": "forged",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let reference = json!({
            "name": name, "uid": victim.metadata.uid, "resourceVersion": victim.metadata.resource_version,
        });
        let mut target = reference.clone();
        target["key"] = json!("value");
        let status = json!({
            "observedGeneration": generation, "conditions": [condition], "target": target, "record": reference,
        });
        site.write_status("db", status).await;
        let ran = plugin.run(&["value", "DB"]).await;
        assert!(ran.error(1).contains("was deleted"), "{name:?}: {ran:?}");
        let described = plugin.run(&["describe", "DB"]).await;
        assert_eq!(described.code, 0, "{described:?}");
        // `diff` compares a plain value with the delivered one: it must not call this one the same.
        let manifest = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "db", "namespace": site.namespace}, "spec": {"name": "DB", "value": CANARY},
        });
        let file = plugin.folder.file("db.json", manifest.to_string());
        let compared = plugin.run(&["diff", "-f", &file]).await;
        assert_ne!(compared.code, 0, "{name:?}: {compared:?}");
        for ran in [ran, described, compared] {
            assert!(!ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'), "{ran:?}");
            assert!(!ran.out.contains(CANARY) && !ran.err.contains(CANARY), "{ran:?}");
        }
    }
    // The same status with the Secret's own name shows that the rest of it was believed.
    site.write_status("db", json!({"target": {"name": "victim"}})).await;
    assert_eq!(plugin.run(&["value", "DB"]).await.ok(), CANARY);
}
