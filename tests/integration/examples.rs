//! The files of `examples/`: each is applied as it is, by kubectl, and keeps what it promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod value_api;

use std::{collections::BTreeSet, fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::{Value, json};
use testkit::poll;
use testkit::root;

use super::{
    admission::Premises,
    installation,
    objects::{Site, conditions},
    operator::{PATIENCE, Running, Setup},
};

/// The examples that a test below runs.
const RUN: [&str; 16] = [
    "adoption",
    "certificate",
    "delivery-none",
    "expires",
    "generate",
    "history",
    "overlap",
    "pod",
    "registry-pull",
    "restart",
    "retain",
    "rotate",
    "target",
    "template",
    "value-from",
    "weather-api-key",
];

#[test]
fn every_example_is_run() {
    let files = fs::read_dir(root().join("examples")).unwrap().map(|file| file.unwrap().path());
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names: BTreeSet<_> = files.filter(|path| path.is_file()).map(name).collect();
    assert_eq!(names, RUN.iter().map(|name| format!("{name}.yaml")).collect());
}

/// A namespace with an operator in which an example was applied, and served.
async fn example(name: &str, object: &str) -> (Site, Running, ManagedSecret) {
    assert!(RUN.contains(&name));
    let site = Site::new("example").await;
    // A pod is refused as long as its service account is not there.
    let accounts = Api::<ServiceAccount>::namespaced(site.client.clone(), &site.namespace);
    poll("the service account", PATIENCE, || async { Ok(accounts.get_opt("default").await?) }).await.unwrap();
    let running = Setup::of(&site.namespace).start().await;
    apply(&site, name).await;
    let object = site.served(object).await;
    (site, running, object)
}

async fn apply(site: &Site, name: &str) -> String {
    let file = format!("examples/{name}.yaml");
    let access = installation::control_plane().await.access();
    access.kubectl_ok(&["-n", &site.namespace, "apply", "-f", &file]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn generate() {
    let (site, running, object) = example("generate", "session-key").await;
    let value = site.value("session-key", "value").await.unwrap();
    assert!(value.len() == 48 && value.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    // Applied again, nothing moves.
    assert!(apply(&site, "generate").await.contains("unchanged"));
    assert_eq!(site.get("session-key").await.resource_version(), object.resource_version());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate() {
    let (site, running, object) = example("rotate", "cookie-key").await;
    let status = object.status.unwrap();
    assert!(status.next_rotation > status.value_updated_time);
    // Applied again, nothing moves.
    assert!(apply(&site, "rotate").await.contains("unchanged"));
    // As its comment says: another revision is a new value.
    let before = site.value("cookie-key", "value").await;
    let revision = r#"{"spec": {"generate": {"revision": "2026-12"}}}"#;
    let access = installation::control_plane().await.access();
    access
        .kubectl_ok(&["-n", &site.namespace, "patch", "msec", "cookie-key", "--type=merge", "-p", revision])
        .await
        .unwrap();
    site.until("cookie-key", "its second version", |object| object.status.as_ref().unwrap().version == Some(2)).await;
    assert_ne!(site.value("cookie-key", "value").await, before);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn value_from() {
    let (site, running, _) = example("value-from", "weather-token").await;
    site.delivers("weather-token", "value", "only-an-example").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires() {
    let (site, running, object) = example("expires", "partner-token").await;
    assert_eq!(object.spec.expires.as_deref(), Some("2099-01-01T00:00:00Z"));
    assert_eq!(conditions(&object), ["Ready"]);
    assert!(site.value("partner-token", "value").await.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivery_none() {
    let (site, running, object) = example("delivery-none", "break-glass").await;
    assert!(object.status.unwrap().target.is_none());
    assert_eq!(site.labelled().await, [managed_secrets_api::names::record_name("BREAK_GLASS")]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retain() {
    let (site, running, before) = example("retain", "database").await;
    let value = site.value("database", "value").await;
    site.delete("database").await;
    apply(&site, "retain").await;
    let after = site.served("database").await;
    assert_ne!(after.uid(), before.uid());
    assert_eq!(after.status.unwrap().id, before.status.unwrap().id);
    assert_eq!(site.value("database", "value").await, value);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history() {
    let (site, running, first) = example("history", "rotated-key").await;
    let value = site.value("rotated-key", "value").await;
    let sealed = site.seal("rotated-key", "another").await;
    let change = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        site.objects().patch("rotated-key", &PatchParams::default(), &patch).await.unwrap();
        site.served("rotated-key").await
    };
    change(json!({"generate": null, "value": sealed})).await;
    site.delivers("rotated-key", "value", "another").await;
    change(json!({"version": first.status.unwrap().version})).await;
    assert_eq!(site.value("rotated-key", "value").await, value);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap() {
    let (site, running, _) = example("overlap", "signing-key").await;
    let first = site.value("signing-key", "current").await.unwrap();
    assert_eq!(site.value("signing-key", "previous").await, None);
    let patch = Patch::Merge(json!({"spec": {"generate": {"revision": "a"}}}));
    site.objects().patch("signing-key", &PatchParams::default(), &patch).await.unwrap();
    site.delivers("signing-key", "previous", &first).await;
    assert_ne!(site.value("signing-key", "current").await.unwrap(), first);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adoption() {
    let (site, running, object) = example("adoption", "legacy-password").await;
    assert_eq!(object.status.unwrap().target.unwrap().name, "legacy");
    assert_eq!(site.value("legacy", "username").await.as_deref(), Some("shop"));
    assert_eq!(site.value("legacy", "password").await.unwrap().len(), 32);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn target() {
    let (site, running, _) = example("target", "registry-password").await;
    let secret = site.secrets().get("registry-login").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    assert_eq!(secret.labels()["app.kubernetes.io/name"], "registry");
    assert_eq!(secret.labels()[keys::LABEL_ROLE], keys::ROLE_TARGET);
    assert!(site.value("registry-login", "password").await.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn template() {
    let (site, running, _) = example("template", "shop-database").await;
    assert_eq!(site.value("shop-database", "username").await.as_deref(), Some("shop"));
    let password = site.value("shop-database", "password").await.unwrap();
    let url = site.value("shop-database", "DATABASE_URL").await.unwrap();
    let encoded = url.strip_prefix("postgres://shop:").and_then(|rest| rest.strip_suffix("@db:5432/shop")).unwrap();
    let mut pieces = encoded.split('%');
    let mut decoded = pieces.next().unwrap().to_owned();
    for piece in pieces {
        decoded.push(char::from(u8::from_str_radix(&piece[..2], 16).unwrap()));
        decoded.push_str(&piece[2..]);
    }
    assert_eq!(decoded, password);
    // Applied again, nothing moves.
    assert!(apply(&site, "template").await.contains("unchanged"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registry_pull() {
    let (site, running, object) = example("registry-pull", "registry-pull").await;
    let secret = site.secrets().get("registry-pull").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    let config: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
    let login = &config["auths"]["registry.example.com"];
    let password = login["password"].as_str().unwrap();
    assert_eq!(password.len(), 40);
    assert_eq!(login["auth"], BASE64_STANDARD.encode(format!("shop:{password}")));
    assert_eq!(object.status.unwrap().target.unwrap().key, "");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate() {
    let (site, running, _) = example("certificate", "shop-tls").await;
    let secret = site.secrets().get("shop-tls").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    for (key, label) in [("tls.crt", "CERTIFICATE"), ("tls.key", "PRIVATE KEY")] {
        let text = site.value("shop-tls", key).await.unwrap();
        assert!(text.starts_with(&format!("-----BEGIN {label}-----\n")), "{key}");
    }
    running.stop().await;
}

/// There is no node to run it: the pod's references lead to what is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn pod() {
    let (site, running, _) = example("pod", "api-key").await;
    let pod = Api::<Pod>::namespaced(site.client.clone(), &site.namespace).get("reader").await.unwrap();
    let spec = pod.spec.unwrap();
    let volume = spec.volumes.unwrap().remove(0).secret.unwrap();
    assert!(site.value(&volume.secret_name.unwrap(), "value").await.is_some());
    let variable = spec.containers[0].env.clone().unwrap().remove(0);
    let reference = variable.value_from.unwrap().secret_key_ref.unwrap();
    assert!(site.value(&reference.name, &reference.key).await.is_some());
    running.stop().await;
}

/// There is no node to run it, and this operator restarts nothing: it says so, and delivers the value.
#[tokio::test(flavor = "multi_thread")]
async fn restart() {
    let (site, running, object) = example("restart", "session-secret").await;
    assert_eq!(conditions(&object), ["Ready", "RestartBlocked"]);
    let named = object.spec.target.unwrap().restart.unwrap();
    let deployment = Api::<Deployment>::namespaced(site.client.clone(), &site.namespace).get(&named[0].name).await;
    let variable = deployment.unwrap().spec.template.spec.unwrap().containers.remove(0).env.unwrap().remove(0);
    let reference = variable.value_from.unwrap().secret_key_ref.unwrap();
    assert!(site.value(&reference.name, &reference.key).await.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weather_api_key() {
    let premises = Premises::new("example").await;
    let running = premises.start(premises.setup()).await;
    let apply = ["apply", "-f", "examples/weather-api-key.yaml"];
    Premises::ok(&premises.kubectl(&apply, "").await);
    let object = premises.site.served("weather-api-key").await;
    assert!(!serde_json::to_string(&object).unwrap().contains("only-an-example"));
    assert!(object.status.as_ref().unwrap().target.is_none());
    // Applied again, nothing moves.
    assert!(Premises::ok(&premises.kubectl(&apply, "").await).contains("weather-api-key"));
    assert_eq!(premises.site.get("weather-api-key").await.resource_version(), object.resource_version());
    // As its comment says: without the line, the value is delivered.
    let file = fs::read_to_string(root().join("examples/weather-api-key.yaml")).unwrap();
    let delivered: Vec<_> =
        file.lines().filter(|line| !line.contains("delivery: None") || line.starts_with('#')).collect();
    Premises::ok(&premises.kubectl(&["apply", "-f", "-"], &delivered.join("\n")).await);
    premises.site.delivers("weather-api-key", "value", "only-an-example").await;
    running.stop().await;
}
