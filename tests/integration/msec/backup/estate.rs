//! Secrets of every kind, moved to another cluster.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::{keys, names::record_name};
use serde_json::{Value, json};
use testkit::ControlPlane;

use super::{documents, elsewhere, other_cluster, report_replicas, serve};
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, RESTORER, install, options},
    msec::Plugin,
    objects::{Site, moved, next_second, status},
    operator::Setup,
};

/// Name of each object, and the Secret and key that it is delivered into.
const DELIVERED: [(&str, &str, &str); 6] = [
    ("sealed", "sealed", "value"),
    ("followed", "elsewhere", "token"),
    ("generated", "generated", "value"),
    ("kept", "kept", "value"),
    ("renamed", "renamed", "value"),
    ("adopted", "theirs", "password"),
];

/// One of each kind, all served, some with a past.
async fn build(site: &Site) {
    site.source("upstream", "canary-of-the-source").await;
    site.foreign_secret("theirs", &[("username", "theirs")]).await;
    let first = site.seal("sealed", "canary-first").await;
    let second = site.seal("sealed", "canary-second").await;
    let hidden = site.seal("hidden", "canary-hidden").await;
    let adopting = json!({"name": "theirs", "key": "password", "adoption": "IfUnowned"});
    site.apply("sealed", json!({"name": "SEALED", "value": first})).await;
    site.apply(
        "followed",
        json!({
            "name": "FOLLOWED", "target": {"name": "elsewhere", "key": "token"},
            "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}},
        }),
    )
    .await;
    site.apply("generated", json!({"name": "A=B@$#-+=", "description": "Wetter: 天気 # \"x\"", "generate": {}})).await;
    site.apply("kept", json!({"name": "KEPT", "generate": {}, "deletionPolicy": "Retain"})).await;
    site.apply("hidden", json!({"name": "HIDDEN", "value": hidden, "delivery": "None"})).await;
    site.apply("renamed", json!({"name": "OLD", "generate": {}})).await;
    site.apply("adopted", json!({"name": "ADOPTED", "generate": {}, "target": adopting})).await;
    site.apply("gone", json!({"name": "GONE", "generate": {}, "deletionPolicy": "Retain"})).await;
    for name in ["sealed", "renamed", "gone", "adopted", "followed", "generated", "kept", "hidden"] {
        site.served(name).await;
    }
    next_second().await;
    // An earlier version is delivered.
    site.apply("sealed", json!({"name": "SEALED", "value": second, "history": 2, "version": 1})).await;
    site.apply("renamed", json!({"name": "NEW", "generate": {}})).await;
    site.delete("gone").await;
    site.until("sealed", "a second version", |object| status(object).version == Some(2)).await;
    for name in ["sealed", "renamed"] {
        site.in_step(name).await;
    }
    site.gone(&managed_secrets_api::names::record_name("OLD")).await;
}

/// Of each secret: id, name, dates and version, and the delivered value.
async fn told(site: &Site) -> BTreeMap<String, Value> {
    let mut told = BTreeMap::new();
    let delivered = DELIVERED.iter().map(|(object, secret, key)| (*object, Some((*secret, *key))));
    for (name, place) in delivered.chain([("hidden", None)]) {
        let object = site.in_step(name).await;
        let (updated, value_updated, version) = moved(&object);
        let status = status(&object);
        let value = match place {
            Some((secret, key)) => Some(site.value(secret, key).await.expect("a value")),
            None => None,
        };
        told.insert(
            name.to_owned(),
            json!([
                status.id,
                status.name,
                status.created_date,
                updated,
                value_updated,
                version,
                status.deletion_policy,
                value,
                status.delivered,
                status.history,
            ]),
        );
    }
    told
}

async fn namespace(site: &Site) {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": site.namespace}})).unwrap();
    Api::all(site.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// What is for its owners to restore: the source, and the rest of an adopted Secret.
async fn what_others_restore(site: &Site) {
    site.source("upstream", "canary-of-the-source").await;
    site.foreign_secret("theirs", &[("username", "theirs")]).await;
}

/// Values in clear must stand nowhere, in no way of writing.
fn holds_no_value(text: &str, told: &BTreeMap<String, Value>) {
    let delivered = told.values().filter_map(|secret| secret[7].as_str());
    for value in delivered.chain(["canary-first", "canary-second", "canary-hidden"]) {
        let hex = hex::encode(value);
        // Base64 of a text within a text differs with where it begins: all three ways, without their ends.
        let shifted = (0..3).map(|at| {
            let text = BASE64_STANDARD.encode(format!("{}{value}", &"xxx"[..at]));
            text[4..text.len() - 4].to_owned()
        });
        for form in shifted.chain([value.to_owned(), hex]) {
            assert!(!text.contains(&form), "a value is in the backup");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_secret_moves_into_a_cluster_whose_operator_runs() {
    let site = Site::new("moved").await;
    let operator = Setup::of(&site.namespace).start().await;
    build(&site).await;
    let before = told(&site).await;
    let plugin = Plugin::new(&site).await;
    let text = plugin.backup_into("backup.yaml", &["--keys"]).await;
    holds_no_value(&text, &before);
    let header: Vec<_> = text.lines().take_while(|line| line.starts_with('#')).collect();
    let header = header.join("\n");
    for says in ["7 ManagedSecrets, 8 records, 1 keyring, 0 key-encryption keys", "(for sealed text)", "is retained"] {
        assert!(header.contains(says), "{says}: {header}");
    }
    assert!(header.contains("does not contain the key-encryption key"), "{header}");
    for document in documents(&text) {
        let metadata = document["metadata"].as_object().unwrap();
        let kept = ["name", "namespace", "labels", "annotations"];
        assert!(metadata.keys().all(|key| kept.contains(&key.as_str())), "{metadata:?}");
        assert!(document["status"].is_null() && document["kind"] != "Namespace");
    }
    plugin.backup_into("kek/", &["--with-kek"]).await;
    for file in ["managed-secrets.yaml", "keyring.yaml", "kek.yaml"] {
        let mode = std::fs::metadata(plugin.file_path(&format!("kek/{file}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    holds_no_value(&plugin.folder.read("kek/managed-secrets.yaml"), &before);
    assert!(plugin.folder.read("kek/kek.yaml").contains("This key and the records together reveal every"));
    operator.stop().await;

    let plane = other_cluster().await;
    let there = elsewhere(plane, &site).await;
    let restorer = Plugin::on(plane, &there);
    // Without the key-encryption key, no operator could start with the keyring: nothing is written.
    let backup = plugin.file_path("backup.yaml");
    let missing = restorer.restore(&[&backup, "--yes", "--create-namespaces"]).await;
    assert!(missing.error(1).contains("neither in these files nor in managed-secrets-system"), "{missing:?}");
    let unmade = restorer.restore(&[&plugin.file_path("kek"), "--yes"]).await;
    assert!(unmade.error(1).contains("--create-namespaces"), "{unmade:?}");

    namespace(&there).await;
    what_others_restore(&there).await;
    let operator = serve(plane, &there).await;
    let own_key = crate::integration::operator::public_key(&there.client).await.fingerprint();
    let dry = restorer.restore(&[&plugin.file_path("kek"), "--dry-run", "server"]).await;
    assert!(dry.ok().contains("ManagedSecret ") && there.labelled().await.is_empty(), "{dry:?}");
    let ran = restorer.restore_trusted(&plugin.file_path("kek"), &["--timeout=40s"]).await;
    let out = ran.ok();
    assert!(out.ends_with("7 secrets are delivered with the backup's ids, dates and versions\n"), "{ran:?}");
    assert_eq!(told(&there).await, before);
    // The keys joined those of the cluster, which go on being the ones to seal for.
    assert_eq!(crate::integration::operator::public_key(&there.client).await.fingerprint(), own_key);
    // What was retained holds its name, and is taken over by whoever is called as it was.
    there.apply("gone", json!({"name": "GONE", "generate": {}, "deletionPolicy": "Retain"})).await;
    there.served("gone").await;
    assert_eq!(there.value("theirs", "username").await.as_deref(), Some("theirs"));

    let again = restorer.restore(&[&plugin.file_path("kek"), "--yes"]).await;
    let out = again.ok();
    assert!(
        again.err.contains("note: 0 created, ") && again.err.contains(" already there, 0 not restored"),
        "{again:?}"
    );
    assert!(!out.contains(": created"), "{out}");
    assert_eq!(told(&there).await, before);
    operator.stop().await;
}

/// No status shows that the operator runs, and its Deployment says little or nothing: a note says so.
async fn what_is_not_known_is_said(plane: &ControlPlane, restorer: &Plugin, restore: &[&str]) {
    let says = async |text: &str| {
        let ran = restorer.restore(restore).await;
        let note = format!("note: every status is older than this restore, so none shows that the operator runs{text}");
        assert!(ran.code == 0 && ran.err.contains(&note), "{ran:?}");
    };
    report_replicas(plane, 2).await;
    says("; its Deployment reports an available replica").await;
    let deployments = Api::<Deployment>::namespaced(plane.access().admin_client().await.unwrap(), OPERATOR_NAMESPACE);
    let patch = async |status: Value| {
        let patch = Patch::Merge(json!({"status": status}));
        deployments.patch_status(keys::OPERATOR_NAME, &PatchParams::default(), &patch).await.unwrap();
    };
    // A replica that crashes again and again has been available for a short time only.
    let available = json!({"type": "Available", "status": "True", "lastTransitionTime": "2026-11-23T09:00:00Z"});
    patch(json!({"conditions": [available]})).await;
    says("; its Deployment reports an available replica, since 2026-11-23T09:00:00Z\n").await;
    patch(json!({"conditions": null, "observedGeneration": 1})).await;
    let spec = Patch::Merge(json!({"spec": {"revisionHistoryLimit": 3}}));
    let changed = deployments.patch(keys::OPERATOR_NAME, &PatchParams::default(), &spec).await.unwrap();
    assert!(changed.metadata.generation > Some(1));
    let unknown = ", and it is unknown whether it runs: ";
    says(&format!(
        "{unknown}the status of its Deployment {OPERATOR_NAMESPACE}/managed-secrets is older than its spec\n"
    ))
    .await;
    patch(json!({"observedGeneration": null})).await;
    // An operator that something else started.
    let mut deployment = deployments.get(keys::OPERATOR_NAME).await.unwrap();
    deployments.delete(keys::OPERATOR_NAME, &DeleteParams::default()).await.unwrap();
    says(&format!("{unknown}Deployment {OPERATOR_NAMESPACE}/managed-secrets not found\n")).await;
    (deployment.metadata.uid, deployment.metadata.resource_version) = (None, None);
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
}

/// With the operator down, every status is from before the restore, whatever it says.
async fn old_status_is_no_delivery(plane: &ControlPlane, there: &Site, restorer: &Plugin, backup: &str) {
    let restore = [backup, "--yes", "--timeout=1s"];
    report_replicas(plane, 0).await;
    let ran = restorer.restore(&restore).await;
    assert!(ran.out.ends_with("with the backup's ids, dates and versions, as before this restore\n"), "{ran:?}");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("error: the operator is not available: none of 2 replicas is available. What"), "{ran:?}");
    what_is_not_known_is_said(plane, restorer, &restore).await;

    report_replicas(plane, 0).await;
    let client = plane.access().client_as(RESTORER, &["system:masters"]).await.unwrap();
    let secrets = Api::<Secret>::namespaced(client, &there.namespace);
    for (lost, says) in [
        // A record that this restore writes is another one than the status names.
        (record_name("SEALED"), "sealed is not delivered: the operator has not looked at its record yet"),
        ("generated".to_owned(), "generated is not delivered: the Secret generated that its status names was deleted"),
    ] {
        secrets.delete(&lost, &DeleteParams::default()).await.unwrap();
        let ran = restorer.restore(&restore).await;
        assert!(ran.out.contains(says), "{ran:?}");
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(" restored, but not delivered yet: the operator is not available: "), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_gets_the_keys_before_its_operator_starts() {
    let site = Site::new("newly").await;
    let operator = Setup::of(&site.namespace).start().await;
    build(&site).await;
    let before = told(&site).await;
    let plugin = Plugin::new(&site).await;
    plugin.backup_into("backup/", &["--with-kek"]).await;
    operator.stop().await;

    let plane = install(&options(), &[]).await.unwrap();
    let there = elsewhere(&plane, &site).await;
    let restorer = Plugin::on(&plane, &there);
    let ran = restorer.restore(&[&plugin.file_path("backup"), "--yes", "--create-namespaces", "--wait=false"]).await;
    assert!(ran.ok().contains(&format!("namespace {}: created", site.namespace)), "{ran:?}");
    // Nobody serves it yet: that is said, and what is missing.
    let early = restorer.restore(&[&plugin.file_path("backup"), "--yes", "--timeout=1s"]).await;
    assert_eq!(early.code, 1, "{early:?}");
    let says = "7 secrets are restored, but not delivered yet: the operator is not available: none of 2 replicas is \
                available, and it has not published its key yet; check `kubectl -n managed-secrets-system logs \
                deployment/managed-secrets`";
    assert!(early.err.contains(says), "{early:?}");

    what_others_restore(&there).await;
    let operator = serve(&plane, &there).await;
    report_replicas(&plane, 2).await;
    let ran = restorer.restore(&[&plugin.file_path("backup"), "--yes", "--timeout=40s"]).await;
    assert!(ran.ok().contains("7 secrets are delivered with the backup's"), "{ran:?}");
    assert_eq!(told(&there).await, before);
    let keyrings = Site { namespace: OPERATOR_NAMESPACE.to_owned(), client: there.client.clone() };
    let names: Vec<_> = keyrings.secrets().list(&kube::api::ListParams::default()).await.unwrap().items;
    let names: Vec<_> = names.iter().filter_map(|secret| secret.metadata.name.as_deref()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with(keys::KEYRING_NAME)).count(), 1, "{names:?}");

    operator.stop().await;
    old_status_is_no_delivery(&plane, &there, &restorer, &plugin.file_path("backup")).await;
    let operator = serve(&plane, &there).await;
    report_replicas(&plane, 2).await;
    let ran = restorer.restore(&[&plugin.file_path("backup"), "--yes", "--timeout=40s"]).await;
    assert!(ran.ok().contains("7 secrets are delivered with the backup's"), "{ran:?}");
    assert_eq!(told(&there).await, before);

    // What moves on is told apart from what is wrong.
    next_second().await;
    there
        .apply("kept", json!({"name": "KEPT", "description": "new", "generate": {}, "deletionPolicy": "Retain"}))
        .await;
    there.served("kept").await;
    let later = restorer.restore(&[&plugin.file_path("backup"), "--yes"]).await;
    assert!(
        later.err.contains("1 of") && later.out.contains("kept: not restored: it exists with another spec"),
        "{later:?}"
    );
    operator.stop().await;
    plane.stop().await.unwrap();
}
