//! etcd is restored from an earlier copy while the operator runs: every watch notices it and goes on from what is there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{path::Path, process::Command};

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets::install::manifests::Options;
use managed_secrets_api::{
    keys::{KEYRING_NAME, OPERATOR_NAME, PUBLIC_KEY_CONFIGMAP, SEAL_CONFIGURATION, TYPE_KEYRING, WEBHOOK_SECRET},
    limits::SEALED_PREFIX,
};
use serde_json::json;
use testkit::{
    ControlPlane, Operator,
    control_plane::{Component, blocking, quiet_address},
    poll,
};

use crate::integration::{
    installation::{self, OPERATOR_NAMESPACE, PATIENCE, RESTORER, object},
    objects::Site,
    program::PROGRAM,
};

/// Does something with etcd's data while nothing runs.
async fn stopped(control_plane: &ControlPlane, act: impl FnOnce(&Path) + Send + 'static) {
    for component in [Component::ControllerManager, Component::Apiserver, Component::Etcd] {
        control_plane.stop_component(component).await.unwrap();
    }
    let data = control_plane.etcd_dir().unwrap();
    blocking(move || {
        act(&data);
        Ok(())
    })
    .await
    .unwrap();
    for component in [Component::Etcd, Component::Apiserver, Component::ControllerManager] {
        control_plane.start_component(component).await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

async fn until_log(operator: &Operator, what: &str, found: impl Fn(&str) -> bool) {
    let waited = poll(what, PATIENCE, || async { Ok(found(&operator.log()?).then_some(())) }).await;
    assert!(waited.is_ok(), "{what}:\n{}", operator.log().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watch_goes_on_after_etcd_was_restored() {
    let options = Options { webhooks: true, ..installation::options() };
    let control_plane = installation::install(&options, &["shop"]).await.unwrap();
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let client = control_plane.access().admin_client().await.unwrap();
    let shop = Site { namespace: "shop".to_owned(), client: client.clone() };
    let address = quiet_address().unwrap();
    let (listen, url) = (address.to_string(), format!("https://{address}"));
    let arguments = ["--webhook-listen", &listen, "--webhook-url", &url];
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &arguments).await.unwrap();

    let generated = |name: &str| json!({"name": name, "generate": {}});
    shop.foreign_secret("upstream", &[("key", "old")]).await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    shop.apply("followed", json!({"name": "FOLLOWED", "valueFrom": from})).await;
    for name in ["kept", "deleted"] {
        shop.apply(name, generated(&name.to_uppercase())).await;
    }
    for name in ["followed", "kept", "deleted"] {
        shop.served(name).await;
    }
    let before = shop.value("deleted", "value").await;
    stopped(&control_plane, |data| copy(data, &data.with_extension("copy"))).await;

    // What only the lost history knows.
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), "shop");
    for n in 0..150 {
        let name = json!({"metadata": {"name": format!("c{n}")}});
        config_maps.create(&PostParams::default(), &object(name)).await.unwrap();
    }
    shop.intrude("upstream", json!({"data": {"key": "bmV3"}})).await;
    shop.delivers("followed", "value", "new").await;
    shop.apply("lost", generated("LOST")).await;
    shop.served("lost").await;
    shop.objects().delete("deleted", &DeleteParams::default()).await.unwrap();
    poll("its Secret to be collected", PATIENCE, || async {
        Ok(shop.secrets().get_opt("deleted").await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    stopped(&control_plane, |data| {
        std::fs::remove_dir_all(data).unwrap();
        copy(&data.with_extension("copy"), data);
    })
    .await;

    until_log(&operator, "it says that etcd was restored", |log| log.contains("so etcd was restored")).await;
    // The value of the source is that of the copy, and the lost object's name is free.
    shop.delivers("followed", "value", "old").await;
    shop.apply("heir", generated("LOST")).await;
    shop.served("heir").await;
    assert_eq!(shop.value("deleted", "value").await, before, "the restored object has its restored value");
    // Each watch hears what happens now: records and targets, ...
    shop.secrets().delete("deleted", &DeleteParams::default()).await.unwrap();
    shop.delivers("deleted", "value", before.as_deref().unwrap()).await;
    // ... sources, ...
    shop.intrude("upstream", json!({"data": {"key": "bmV3ZXI="}})).await;
    shop.delivers("followed", "value", "newer").await;
    // ... the published key, ...
    let published = Api::<ConfigMap>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    published.delete(PUBLIC_KEY_CONFIGMAP, &DeleteParams::default()).await.unwrap();
    poll("the public key", PATIENCE, || async { Ok(published.get_opt(PUBLIC_KEY_CONFIGMAP).await?.map(drop)) })
        .await
        .unwrap();
    // ... the keyring, ...
    let restorer = control_plane.access().client_as(RESTORER, &["system:masters"]).await.unwrap();
    let keyrings = Api::<Secret>::namespaced(restorer, OPERATOR_NAMESPACE);
    let read = |log: &str| log.matches("reloaded the keyring").count();
    let reads = read(&operator.log().unwrap());
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": "yes"}}}));
    let keyring = keyrings.patch(KEYRING_NAME, &PatchParams::default(), &touch).await.unwrap();
    assert_eq!(keyring.type_.as_deref(), Some(TYPE_KEYRING));
    until_log(&operator, "the keyring is read again", |log| read(log) > reads).await;
    // ... and the webhooks' configuration and certificates.
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let bundle = async || {
        let webhooks = configurations.get(SEAL_CONFIGURATION).await.unwrap().webhooks.unwrap();
        webhooks.into_iter().next().unwrap().client_config.ca_bundle
    };
    let right = bundle().await;
    let spoil = Patch::Json::<()>(
        serde_json::from_value(json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}])).unwrap(),
    );
    configurations.patch(SEAL_CONFIGURATION, &PatchParams::default(), &spoil).await.unwrap();
    poll("the webhook's certificate authority", PATIENCE, || async { Ok((bundle().await == right).then_some(())) })
        .await
        .unwrap();
    keyrings.delete(WEBHOOK_SECRET, &DeleteParams::default()).await.unwrap();
    poll("the webhooks' Secret", PATIENCE, || async { Ok(keyrings.get_opt(WEBHOOK_SECRET).await?.map(drop)) })
        .await
        .unwrap();
    poll("a plain value to be sealed", PATIENCE, || async {
        let manifest = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "plain", "namespace": "shop"}, "spec": {"name": "PLAIN", "value": "only-an-example"},
        });
        let applied = shop.objects().patch("plain", &PatchParams::apply("user"), &Patch::Apply(&manifest)).await;
        Ok(applied
            .ok()
            .and_then(|object| object.spec.value)
            .filter(|value| value.0.starts_with(SEALED_PREFIX))
            .map(drop))
    })
    .await
    .unwrap();
    shop.delivers("plain", "value", "only-an-example").await;
    assert_eq!(operator.stop().await.unwrap(), 0);
    control_plane.stop().await.unwrap();
}
