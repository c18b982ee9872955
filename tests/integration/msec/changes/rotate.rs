//! `rotate`: one secret and several, what it refuses, and who owns the spec.

use kube::api::{Patch, PatchParams};
use managed_secrets_api::ManagedSecret;
use serde_json::json;

use super::place;
use crate::integration::objects::status;

fn version(object: &ManagedSecret) -> i64 {
    status(object).version.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_once_each_and_none_if_one_cannot_be() {
    let (site, operator, plugin) = place("rotated").await;
    for (name, spec) in [
        ("one", json!({"name": "ONE", "generate": {"length": 40}})),
        ("two", json!({"name": "TWO", "generate": {}})),
        ("given", json!({"name": "GIVEN", "value": site.seal("given", "first").await})),
    ] {
        site.apply(name, spec).await;
        site.in_step(name).await;
    }
    let before = site.value("one", "value").await.unwrap();

    let refused = plugin.run(&["rotate", "ONE", "GIVEN"]).await.error(1).to_owned();
    assert!(refused.contains("msec/given is not rotated: its value is not generated"), "{refused}");
    let dry = plugin.run(&["rotate", "ONE", "--dry-run=server"]).await.ok();
    assert_eq!(dry, "managedsecret.managedsecrets.dev/one rotated (server dry run)\n");
    let dry = plugin.run(&["rotate", "ONE", "--dry-run=client"]).await.ok();
    assert_eq!(dry, "managedsecret.managedsecrets.dev/one rotated (dry run)\n");
    assert_eq!(version(&site.get("one").await), 1);

    // Called twice, by its name and by its object: it is rotated once.
    let said = plugin.run(&["rotate", "ONE", "TWO", "msec/one"]).await.ok();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "managedsecret.managedsecrets.dev/one rotated",
            "managedsecret.managedsecrets.dev/two rotated",
            "ONE: version 1 -> 2",
            "TWO: version 1 -> 2",
        ]
    );
    let after = site.value("one", "value").await.unwrap();
    assert!(before != after && after.len() == 40);
    let described = plugin.run(&["describe", "ONE"]).await.ok();
    assert!(described.contains("generated: 40 characters, Alphanumeric; revision 20"), "{described}");

    let said = plugin.run(&["update", "ONE", "--generate", "--rotate-every", "720h"]).await.ok();
    assert!(said.contains("updated"), "{said}");
    let described = plugin.run(&["describe", "ONE"]).await.ok();
    assert!(described.contains("generated: 40 characters, Alphanumeric; rotated every 720h (next: 20"), "{described}");
    let refused = plugin.run(&["update", "ONE", "--generate", "--rotate-every", "1d"]).await.error(2).to_owned();
    assert!(refused.contains("spec.generate.rotateEvery: must be hours"), "{refused}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gitops_tool_manages_is_rotated_in_git_or_by_force() {
    let (site, operator, plugin) = place("rotated-in-git").await;
    let object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
        "spec": {"name": "DB", "generate": {}},
    });
    let argo = PatchParams::apply("argocd-controller").force();
    site.objects().patch("db", &argo, &Patch::Apply(&object)).await.unwrap();
    site.in_step("db").await;
    let refused = plugin.run(&["rotate", "DB"]).await.error(1).to_owned();
    for part in ["Argo CD manages msec/db", "set spec.generate.revision to \"20", "--force"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(version(&site.get("db").await), 1);
    plugin.run(&["rotate", "DB", "--force"]).await.ok();
    assert_eq!(version(&site.get("db").await), 2);
    operator.stop().await;
}
