//! `versions` and `rollback`: what they list and deliver, what they refuse, and who owns the spec.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::place;
use crate::integration::objects::{Site, status};

/// The columns of `versions`, without the dates.
fn rows(listed: &str) -> Vec<Vec<&str>> {
    let columns = |line| str::split_whitespace(line).enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| word);
    listed.lines().skip(1).map(|line| columns(line).collect()).collect()
}

/// Gives the object `db` these values, one after the other.
async fn values(site: &Site, history: i64, values: &[&str]) -> String {
    let mut sealed = String::new();
    for value in values {
        sealed = site.seal("db", value).await;
        site.apply("db", json!({"name": "DB", "history": history, "value": sealed})).await;
        site.in_step("db").await;
    }
    sealed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_delivers_an_earlier_version_until_it_is_undone() {
    let (site, operator, plugin) = place("rolled-back").await;
    values(&site, 2, &["canary-one", "canary-two", "canary-three", "canary-four"]).await;
    let listed = plugin.run(&["versions", "DB"]).await.ok();
    assert!(listed.starts_with("VERSION"), "{listed}");
    assert_eq!(rows(&listed), [vec!["4", "value", "newest,", "delivered"], vec!["3", "value"], vec!["2", "value"]]);

    // A dry run changes nothing.
    for dry_run in ["--dry-run=client", "--dry-run=server"] {
        plugin.run(&["rollback", "DB", dry_run]).await.ok();
        assert_eq!(site.get("db").await.spec.version, None);
    }
    let refused = plugin.run(&["rollback", "DB", "--to", "1"]).await.error(1).to_owned();
    assert!(refused.contains("version 1 of msec/db is not kept; its record has 4, 3, 2"), "{refused}");

    // The version before the delivered one, each time, as far as there is one.
    for (version, value) in [(3, "canary-three"), (2, "canary-two")] {
        let said = plugin.run(&["rollback", "DB"]).await.ok();
        for part in
            [&format!("version {version} is delivered, the newest is 4"), "kubectl msec rollback msec/db --undo"]
        {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(site.value("db", "value").await.as_deref(), Some(value));
    }
    let refused = plugin.run(&["rollback", "msec/db"]).await.error(1).to_owned();
    assert!(refused.contains("msec/db keeps no version before 2; spec.history"), "{refused}");
    let listed = plugin.run(&["versions", "DB"]).await.ok();
    assert_eq!(rows(&listed), [vec!["4", "value", "newest"], vec!["3", "value"], vec!["2", "value", "delivered"]]);
    let described = plugin.run(&["describe", "DB"]).await.ok();
    assert!(described.contains("version 2 is delivered as spec.version says, the newest is 4"), "{described}");

    // A new value is recorded, and `update` says that it is not delivered.
    let updated = plugin.run_with(&["update", "DB", "--value-stdin"], b"canary-five").await;
    assert!(updated.out.contains("recorded and not delivered: spec.version says 2"), "{updated:?}");
    assert_eq!((status(&site.get("db").await).version, status(&site.get("db").await).delivered), (Some(5), Some(2)));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("canary-two"));

    // The version that is printed is that of the value.
    let named = plugin.run(&["value", "DB", "-o", "json"]).await.ok();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&named).unwrap()["status"]["version"], 2);

    let said = plugin.run(&["rollback", "DB", "--undo"]).await.ok();
    assert!(said.contains("version 5 is delivered, the newest is 5") && !said.contains("--undo"), "{said}");
    assert_eq!(site.value("db", "value").await.as_deref(), Some("canary-five"));
    // No command printed a value.
    for text in [&listed, &described, &said, &updated.out, &updated.err] {
        assert!(!text.contains("canary"), "{text}");
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gitops_tool_manages_is_rolled_back_in_git_or_by_force() {
    let (site, operator, plugin) = place("rolled-back-in-git").await;
    let argo = PatchParams::apply("argocd-controller").force();
    for value in ["one", "two"] {
        let object = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
            "spec": {"name": "DB", "value": site.seal("db", value).await},
        });
        site.objects().patch("db", &argo, &Patch::Apply(&object)).await.unwrap();
        site.in_step("db").await;
    }
    let refused = plugin.run(&["rollback", "DB"]).await.error(1).to_owned();
    for part in ["Argo CD manages msec/db", "set spec.version: 1", "--force"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(site.get("db").await.spec.version, None);
    plugin.run(&["rollback", "DB", "--force"]).await.ok();
    assert_eq!(site.value("db", "value").await.as_deref(), Some("one"));
    let refused = plugin.run(&["rollback", "DB", "--undo"]).await.error(1).to_owned();
    assert!(refused.contains("remove spec.version"), "{refused}");
    plugin.run(&["rollback", "DB", "--undo", "--force"]).await.ok();
    assert_eq!(site.value("db", "value").await.as_deref(), Some("two"));
    operator.stop().await;
}
