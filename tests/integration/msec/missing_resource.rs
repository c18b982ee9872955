//! The CustomResourceDefinition is deleted while the operator runs, and comes back.

use kube::api::ListParams;
use managed_secrets_api::{crd, keys, names::record_name};
use serde_json::json;
use testkit::{Operator, poll};

use super::Plugin;
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, PATIENCE, install, options},
    objects::{Site, id, message},
    program::PROGRAM,
};

const NOT_INSTALLED: &str =
    "the ManagedSecret resource is not installed in this cluster; install it with `managed-secrets crd";

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_when_the_resource_is_back() {
    let plane = install(&options(), &[]).await.unwrap();
    let site = Site::on(&plane, "resource").await;
    let plugin = Plugin::on(&plane, &site);
    let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let operator = Operator::start(&plane, PROGRAM, &kubeconfig, &[]).await.unwrap();
    site.source("upstream", "v").await;
    let target = |name: &str| json!({"name": name, "key": "password", "adoption": "IfUnowned"});
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    let specs = [
        ("generated", json!({"name": "GENERATED", "generate": {}})),
        ("kept", json!({"name": "KEPT", "generate": {}, "deletionPolicy": "Retain"})),
        ("followed", json!({"name": "FOLLOWED", "valueFrom": from, "target": target("theirs-1")})),
        ("drawn", json!({"name": "DRAWN", "generate": {}, "target": target("theirs-2")})),
    ];
    for name in ["theirs-1", "theirs-2"] {
        site.foreign_secret(name, &[("username", "theirs")]).await;
    }
    for (name, spec) in &specs {
        site.apply(name, spec.clone()).await;
        site.in_step(name).await;
    }
    let (kept, generated) = (id(&site.get("kept").await), id(&site.get("generated").await));
    let theirs = (site.secret("theirs-1").await.unwrap(), site.secret("theirs-2").await.unwrap());
    let kept_value = site.value("kept", "value").await;

    let name = format!("{}.{}", keys::PLURAL, keys::GROUP);
    assert_eq!(plugin.kubectl(&["delete", "crd", &name], b"").await.code, 0);
    // Every command says what is missing. (Some begin with other questions.)
    let file = plugin.folder.file(
        "objects.yaml",
        format!(
            "apiVersion: {}/{}\nkind: {}\nmetadata: {{name: x, namespace: {}}}\nspec: {{name: X, generate: {{}}}}\n",
            keys::GROUP,
            keys::VERSION,
            keys::KIND,
            site.namespace
        ),
    );
    for command in [
        &["list"][..],
        &["get", "KEPT"],
        &["value", "KEPT"],
        &["describe", "KEPT"],
        &["create", "NEW", "--generate", "--wait=false"],
        &["update", "KEPT", "--description", "x"],
        &["delete", "KEPT", "--yes"],
        &["export", "KEPT"],
        &["diff", "-f", &file],
        &["backup"],
        &["restore", &file, "--yes"],
    ] {
        let ran = plugin.run(command).await;
        assert!(ran.code != 0 && ran.err.contains(NOT_INSTALLED), "{command:?}: {ran:?}");
    }
    poll("the operator to notice", PATIENCE, || async {
        Ok(operator.log()?.contains("check that its CustomResourceDefinition is installed").then_some(()))
    })
    .await
    .unwrap();

    install_again(&plugin, &name).await;
    for (name, spec) in &specs {
        site.apply(name, spec.clone()).await;
    }
    // One that was its ManagedSecret's is a new secret; what was retained is taken over, and what was adopted is again,
    // where that loses nothing.
    let object = site.served("generated").await;
    assert_ne!(id(&object), generated);
    assert_eq!(id(&site.served("kept").await), kept);
    assert_eq!(site.value("kept", "value").await, kept_value);
    site.served("followed").await;
    let followed = site.secret("theirs-1").await.unwrap();
    assert_eq!((followed.metadata.uid, followed.data), (theirs.0.metadata.uid, theirs.0.data));
    let object = site.reports("drawn", "False", "TargetNotOwned").await;
    assert!(message(&object).contains("its record is missing"), "{}", message(&object));
    assert_eq!(site.secret("theirs-2").await.unwrap().data, theirs.1.data);
    // Of the old objects, no record is left.
    let records = ListParams::default().fields(&format!("type={}", keys::TYPE_RECORD));
    let mut names: Vec<_> =
        site.secrets().list(&records).await.unwrap().items.into_iter().filter_map(|it| it.metadata.name).collect();
    names.sort();
    let mut expected: Vec<_> = ["GENERATED", "KEPT", "FOLLOWED", "DRAWN"].map(record_name).to_vec();
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(operator.stop().await.unwrap(), 0);
    plane.stop().await.unwrap();
}

/// Installs the resource again, and waits until it is served.
async fn install_again(plugin: &Plugin, name: &str) {
    let crd = serde_json::to_string(&crd::crd()).unwrap();
    let create = poll("the old resource to be gone", PATIENCE, || async {
        Ok((plugin.kubectl(&["create", "-f", "-"], crd.as_bytes()).await.code == 0).then_some(()))
    });
    create.await.unwrap();
    let wait = ["wait", "--for=condition=Established", &format!("crd/{name}"), "--timeout=60s"];
    assert_eq!(plugin.kubectl(&wait, b"").await.code, 0);
    poll("the resource to be served", PATIENCE, || async {
        Ok((plugin.kubectl(&["get", keys::PLURAL, "-A"], b"").await.code == 0).then_some(()))
    })
    .await
    .unwrap();
}
