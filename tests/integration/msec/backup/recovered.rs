//! The cluster is gone: what is left is a backup and the recovery key.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use managed_secrets_api::{keys, names::record_name};
use managed_secrets_crypto::keyring::Document;
use serde_json::{Value, json};
use testkit::ControlPlane;

use super::{documents, elsewhere, serve};
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, install, options},
    msec::Plugin,
    objects::{Site, id},
    operator::{PATIENCE, Running, Setup},
    seeds::FAST,
};

/// The operator of a cluster, with a recovery key.
async fn serve_covered(plane: &ControlPlane, site: &Site, recipient: &str) -> Running {
    let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let setup = Setup { recovery: vec![recipient.parse().unwrap()], seeds: FAST, ..Setup::of(&site.namespace) };
    setup.start_with(testkit::access::config_of(&kubeconfig).await.unwrap())
}

/// Each newest value by its name, as `recover` writes them: before the earlier ones.
fn by_name(text: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for value in documents(text) {
        found.entry(value["name"].as_str().unwrap().to_owned()).or_insert(value);
    }
    found
}

/// Asks for a new seed, and waits until no record is under the earlier one.
async fn rotate_the_seed(plugin: &Plugin) {
    let request = format!("{}=rotate seed", keys::ANNO_KEYRING_REQUEST);
    let annotate = ["-n", OPERATOR_NAMESPACE, "annotate", "secret", keys::KEYRING_NAME, &request];
    plugin.kubectl(&annotate, b"").await.ok();
    testkit::poll("the seed to be replaced", PATIENCE, || async {
        let ran =
            plugin.kubectl(&["-n", OPERATOR_NAMESPACE, "get", "secret", keys::KEYRING_NAME, "-o", "json"], b"").await;
        let keyring: Secret = serde_json::from_str(&ran.ok()).unwrap();
        let document: Document = serde_json::from_slice(&keyring.data.unwrap()[keys::KEYRING_DATA_KEY].0).unwrap();
        let unused = document.seeds().filter(|entry| entry.is_confirmed_unused()).count();
        Ok((document.seeds().count() == 2 && unused == 1).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_the_recovery_key_give_every_value_without_a_cluster_and_make_a_new_one() {
    let plane = install(&options(), &[]).await.unwrap();
    let site = Site::on(&plane, "gone").await;
    let plugin = Plugin::on(&plane, &site);
    let key = plugin.file_path("recovery.key");
    let recipient = plugin.run(&["recovery-key", "generate", "--out", &key]).await.ok().trim().to_owned();
    let operator = serve_covered(&plane, &site, &recipient).await;
    let public = crate::integration::operator::public_key(&site.client).await;
    let scope = site.strict("sealed");
    let sealed = crate::integration::objects::sealed(&public, &scope, "canary-of-the-estate");
    site.apply("sealed", json!({"name": "SEALED", "value": sealed, "description": "kept in a safe"})).await;
    site.apply("generated", json!({"name": "GENERATED", "generate": {}})).await;
    site.apply("gone", json!({"name": "GONE", "generate": {}, "deletionPolicy": "Retain"})).await;
    // A value that the record keeps, and records that are re-wrapped: the recovery key opens all of them.
    let first = (id(&site.in_step("generated").await), site.value("generated", "value").await.unwrap());
    site.apply("generated", json!({"name": "GENERATED", "generate": {"revision": "2"}})).await;
    site.in_step("generated").await;
    rotate_the_seed(&plugin).await;
    let mut expected = BTreeMap::new();
    for (object, name) in [("sealed", "SEALED"), ("generated", "GENERATED"), ("gone", "GONE")] {
        let served = site.in_step(object).await;
        let value = site.value(object, "value").await.unwrap();
        expected.insert(name.to_owned(), (id(&served), value));
    }
    assert_eq!(expected["SEALED"].1, "canary-of-the-estate");
    site.delete("gone").await;
    testkit::poll("the doctor to see the recovery key", PATIENCE, || async {
        let ran = plugin.run(&["doctor"]).await;
        let line = ran.out.lines().find(|line| line.contains("recovery key:")).map(str::to_owned);
        Ok(line.filter(|line| line.contains("the operator adds no new ones")))
    })
    .await
    .unwrap();
    operator.stop().await;

    // Two ways to save it: a backup without the key-encryption key, and what kubectl shows of all Secrets.
    plugin.backup_into("backup/", &["-A", "--keys"]).await;
    let dump = plugin.kubectl(&["get", "secrets", "-A", "-o", "yaml"], b"").await;
    let dump = plugin.folder.file("secrets.yaml", dump.ok());
    drop(plane);

    let backup = plugin.file_path("backup");
    for (source, out) in [(&backup, "of-backup.yaml"), (&dump, "of-dump.yaml")] {
        let out_path = plugin.file_path(out);
        let ran = plugin.run(&["recover", "--key", &key, source, "--out", &out_path]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.err.contains("canary") && ran.out.is_empty(), "{ran:?}");
        let found = by_name(&plugin.folder.read(out));
        let told: BTreeMap<_, _> = found
            .iter()
            .map(|(name, it)| {
                let text = |field: &str| it[field].as_str().unwrap().to_owned();
                (name.clone(), (text("id"), text("value")))
            })
            .collect();
        assert_eq!(told, expected, "{source}");
        assert_eq!(found["SEALED"]["description"], "kept in a safe");
        let text = |value: &Value, field: &str| value[field].as_str().unwrap().to_owned();
        let kept = documents(&plugin.folder.read(out))
            .into_iter()
            .find(|value| value["version"] == json!(1) && value["name"] == "GENERATED");
        let kept = kept.unwrap();
        assert_eq!((text(&kept, "id"), text(&kept, "value")), first, "{source}");
        assert_ne!(first.1, expected["GENERATED"].1);
    }

    // Its key-encryption key is lost with it. A new cluster goes on with a new one.
    let rescued = plugin.file_path("rescued/");
    let ran = plugin.run(&["recover", "--key", &key, &backup, "--new-backup", &rescued]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let plane = install(&options(), &[]).await.unwrap();
    let plugin_there = Plugin::on(&plane, &site);
    let arguments = ["restore", &rescued, "--yes", "--create-namespaces", "--wait=false"];
    let who = ["--as", crate::integration::installation::RESTORER, "--as-group", "system:masters"];
    plugin_there.run(&[&arguments[..], &who].concat()).await.ok();
    let there = elsewhere(&plane, &site).await;
    let operator = serve(&plane, &there).await;
    for (object, name) in [("sealed", "SEALED"), ("generated", "GENERATED")] {
        let served = there.in_step(object).await;
        assert_eq!((id(&served), there.value(object, "value").await.unwrap()), expected[name]);
    }
    assert!(there.secret(&record_name("GONE")).await.is_some(), "a retained record is restored, too");
    operator.stop().await;

    // There, too, the key-encryption key alone is lost: the keyring is replaced, and no record changes.
    let key_of_there = there.get("sealed").await.status.unwrap().record;
    let secrets = Api::<Secret>::namespaced(there.client.clone(), OPERATOR_NAMESPACE);
    let fields = ListParams::default().fields(&format!("type={}", keys::TYPE_KEK));
    put_a_keyring_beside(&plugin_there, &secrets, &who).await;
    plugin_there.backup_into("again/", &["-A", "--keys"]).await;
    secrets.delete_collection(&DeleteParams::default(), &fields).await.unwrap();
    let (again, rescued) = (plugin_there.file_path("again"), plugin_there.file_path("rescued/"));
    let key_text = std::fs::read_to_string(&key).unwrap();
    let arguments = ["recover", "--key", "-", &again, "--new-backup", &rescued];
    let ran = plugin_there.run_with(&arguments, key_text.as_bytes()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let fields = ListParams::default().fields(&format!("type={}", keys::TYPE_KEYRING));
    secrets.delete_collection(&DeleteParams::default(), &fields).await.unwrap();
    let files = ["keyring.yaml", "kek.yaml"].map(|file| format!("{rescued}{file}"));
    let arguments = ["restore", &files[0], &files[1], "--yes", "--wait=false"];
    restore_confirmed(&plugin_there, &[&arguments[..], &who].concat()).await;
    let operator = serve(&plane, &there).await;
    there.apply("probe", json!({"name": "PROBE", "generate": {}})).await;
    there.served("probe").await;
    let served = there.in_step("sealed").await;
    assert_eq!(served.status.unwrap().record, key_of_there);
    operator.stop().await;
}

/// Makes a copy of the operator's own keyring, as one that was restored beside it and has all its keys.
async fn put_a_keyring_beside(plugin: &Plugin, secrets: &Api<Secret>, who: &[&str]) {
    let mut beside = secrets.get(keys::KEYRING_NAME).await.unwrap();
    beside.metadata =
        ObjectMeta { name: Some(format!("{}-restored-00112233", keys::KEYRING_NAME)), ..ObjectMeta::default() };
    let mut beside = serde_json::to_value(&beside).unwrap();
    beside
        .as_object_mut()
        .unwrap()
        .extend([("apiVersion".to_owned(), json!("v1")), ("kind".to_owned(), json!("Secret"))]);
    let create = ["create", "-n", OPERATOR_NAMESPACE, "-f", "-"];
    plugin.kubectl(&[&create[..], who].concat(), beside.to_string().as_bytes()).await.ok();
}

/// Restores keyrings. One that stood beside the operator's own is confirmed by its fingerprint, as all that come with it.
async fn restore_confirmed(plugin: &Plugin, arguments: &[&str]) {
    let told = plugin.run(arguments).await;
    let fingerprints: Vec<_> = told.err.lines().filter_map(|line| line.split_once("SHA-256 fingerprint: ")).collect();
    assert_eq!((told.code, fingerprints.len()), (2, 2), "{told:?}");
    let accepted: Vec<_> = fingerprints.iter().flat_map(|(_, it)| ["--accept-keyring", it]).collect();
    plugin.run(&[arguments, &accepted].concat()).await.ok();
}
