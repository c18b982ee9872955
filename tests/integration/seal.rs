//! `managed-secrets seal` as a user without any permission: every authenticated user may read the public key.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use managed_secrets_crypto::mss1::{Handling, Sealed};
use serde_json::json;

use super::installation::{control_plane, object};
use super::objects::Site;
use super::operator::{Setup, public_key};

const VALUE: &str = "grüße\n";

fn seal(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_managed-secrets"))
        .arg("seal")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(VALUE.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_sealed_with_the_clusters_key_is_delivered() {
    let site = Site::new("seal").await;
    let operator = Setup::of(&site.namespace).start().await;
    let key = public_key(&site.client).await;
    let account: ServiceAccount = object(json!({"metadata": {"name": "no-rights"}}));
    let accounts = Api::<ServiceAccount>::namespaced(site.client.clone(), &site.namespace);
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let kubeconfig = control_plane().await.access().kubeconfig_for(&site.namespace, "no-rights").await.unwrap();

    let place = ["--name=db", "--namespace", &site.namespace];
    let output = seal(&kubeconfig, &[place.as_slice(), &["--fingerprint", &key.fingerprint()]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    site.apply("db", json!({"name": "DB", "value": text.trim_end()})).await;
    site.delivers("db", "value", VALUE).await;

    let kept = seal(&kubeconfig, &[place.as_slice(), &["--no-delivery"]].concat());
    let kept = Sealed::parse(String::from_utf8(kept.stdout).unwrap().trim_end()).unwrap();
    assert_eq!(kept.handling(), Handling::Kept);
    assert_eq!(Sealed::parse(text.trim_end()).unwrap().handling(), Handling::Deliverable);

    let refused = seal(&kubeconfig, &[place.as_slice(), &["--operator-namespace=kube-system"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("kube-system"));
    operator.stop().await;
}
