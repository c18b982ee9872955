//! `doctor`: a healthy installation, and each thing that can be wrong with one.
//!
//! There are no nodes and no network of pods here: what a kubelet and the endpoints' controller would report is written
//! by the tests, and everything else is what the API server and a running operator make of the shipped manifests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod breakage;

use std::sync::Mutex;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use managed_secrets::install::manifests::Options;
use managed_secrets_api::keys;
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, poll};

use super::{Plugin, golden, user_with};
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, install, options},
    objects::Site,
    operator::PATIENCE,
    program::PROGRAM,
};

/// One installation on a control plane of its own, with its operator.
struct Clinic {
    plane: ControlPlane,
    site: Site,
    plugin: Plugin,
}

impl Clinic {
    /// Everything installed; no operator yet.
    async fn new() -> Self {
        let plane = install(&Options { webhooks: true, ..options() }, &[]).await.unwrap();
        let site = Site::on(&plane, "clinic").await;
        let plugin = Plugin::on(&plane, &site);
        Self { plane, site, plugin }
    }

    /// With an operator that serves webhooks at the Service's address, and what a cluster with nodes would report.
    async fn healthy() -> (Self, Operator) {
        let clinic = Self::new().await;
        let kubeconfig = clinic.plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
        // Its port is any; the API server is told of the Service.
        let operator =
            Operator::start(&clinic.plane, PROGRAM, &kubeconfig, &["--webhook-listen=127.0.0.1:0"]).await.unwrap();
        let status = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
        let deployments = Api::<Deployment>::namespaced(clinic.site.client.clone(), OPERATOR_NAMESPACE);
        deployments.patch_status(keys::OPERATOR_NAME, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "ready", "labels": {"kubernetes.io/service-name": keys::OPERATOR_NAME}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
        }))
        .unwrap();
        let slices = Api::<EndpointSlice>::namespaced(clinic.site.client.clone(), OPERATOR_NAMESPACE);
        slices.create(&PostParams::default(), &slice).await.unwrap();
        clinic.site.apply("db", json!({"name": "DB", "generate": {}})).await;
        clinic.site.served("db").await;
        (clinic, operator)
    }

    /// What is found, by check.
    async fn findings(&self) -> (i32, Vec<Value>) {
        let ran = self.plugin.run(&["doctor", "-o", "json"]).await;
        let read: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        (ran.code, read["findings"].as_array().unwrap().clone())
    }

    /// Waits until a check finds this. The exit code always says whether there is a problem.
    async fn finds(&self, level: &str, check: &str, says: &str) {
        let last = Mutex::new(Vec::new());
        let found = poll("the finding", PATIENCE, || async {
            let (code, findings) = self.findings().await;
            let is_it = |it: &&Value| {
                it["check"] == check && it["level"] == level && it["what"].as_str().unwrap().contains(says)
            };
            let found = findings.iter().find(is_it).cloned();
            let problems = findings.iter().filter(|it| it["level"] == "problem").count();
            assert_eq!(code != 0, problems > 0, "{findings:?}");
            *last.lock().unwrap() = findings;
            Ok(found)
        })
        .await;
        let found = found.unwrap_or_else(|_| panic!("{level} {check} {says}: {last:#?}"));
        assert_eq!(["ok", "unknown"].contains(&level), found["do"].is_null(), "{found}");
    }

    /// Compares what `doctor` prints with the file that holds it.
    fn compare(&self, name: &str, text: &str) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        golden::matches(name, text, &[(self.site.namespace.clone(), "NAMESPACE"), (version, "VERSION")]);
    }

    async fn kubectl(&self, arguments: &[&str], input: &str) {
        let ran = self.plugin.kubectl(arguments, input.as_bytes()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_installation_has_no_problem() {
    let (clinic, operator) = Clinic::healthy().await;
    for check in ["webhooks", "endpoints", "certificates"] {
        clinic.finds("ok", check, "").await;
    }
    let (code, findings) = clinic.findings().await;
    assert_eq!(code, 0, "{findings:#?}");
    let levels = |check: &str| -> Vec<&str> {
        findings.iter().filter(|it| it["check"] == check).map(|it| it["level"].as_str().unwrap()).collect()
    };
    for check in [
        "server",
        "resource",
        "operator",
        "namespaces",
        "policies",
        "webhooks",
        "endpoints",
        "certificates",
        "keyring",
        "sealing key",
        "secrets",
        "records",
        "your permissions",
    ] {
        assert_eq!(levels(check), ["ok"], "{check}: {findings:#?}");
    }
    // What "local" protects against is said first; what cannot be seen is not called right.
    assert_eq!(findings[0]["check"], "protection");
    assert!(
        findings[0]["what"]
            .as_str()
            .unwrap()
            .contains("not against someone who has a full copy of an unencrypted etcd")
    );
    assert_eq!(levels("audit log"), ["note"]);

    let ran = clinic.plugin.run(&["doctor"]).await;
    let out = ran.ok();
    assert!(
        out.is_ascii() && out.contains("ok       resource: managedsecrets.managedsecrets.dev is established"),
        "{out}"
    );
    clinic.compare("doctor-healthy", &out);
    // The secret path of the webhooks, and the keys, are in what was read, and never in what is said.
    let seal = clinic
        .plugin
        .kubectl(
            &[
                "get",
                "mutatingwebhookconfigurations",
                keys::SEAL_CONFIGURATION,
                "-o",
                "jsonpath={.webhooks[0].clientConfig.service.path}",
            ],
            b"",
        )
        .await
        .out;
    let path = seal.trim_start_matches('/').split('/').next().unwrap().to_owned();
    assert!(path.len() >= 32 && !out.contains(&path), "{path}");
    assert_eq!(operator.stop().await.unwrap(), 0);
    clinic.plane.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_may_not_read_is_unknown_and_no_problem() {
    let (clinic, operator) = Clinic::healthy().await;
    let user = user_with(&clinic.site, &[(&["list"], keys::GROUP, keys::PLURAL)]).await;
    let ran = clinic.plugin.impersonating(&user).run(&["doctor", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let read: Value = serde_json::from_str(&ran.out).unwrap();
    let findings = read["findings"].as_array().unwrap();
    let says = |check: &str, level: &str, text: &str| {
        findings
            .iter()
            .any(|it| it["check"] == check && it["level"] == level && it["what"].as_str().unwrap().contains(text))
    };
    let secrets = format!("needs `kubectl auth can-i list secrets -n {OPERATOR_NAMESPACE}`");
    assert!(says("keyring", "unknown", &secrets), "{findings:#?}");
    let crd = "needs `kubectl auth can-i get \
     customresourcedefinitions.apiextensions.k8s.io/managedsecrets.managedsecrets.dev -A`";
    assert!(says("resource", "unknown", crd), "{findings:#?}");
    assert!(says("secrets", "ok", "all 1 are delivered"), "{findings:#?}");
    let create = format!(
        "permission denied for create: check `kubectl auth can-i create managedsecrets.managedsecrets.dev -n {}`",
        clinic.site.namespace
    );
    assert!(says("your permissions", "note", &create), "{findings:#?}");
    assert!(!says("your permissions", "note", "can-i list managedsecrets.managedsecrets.dev -n"), "{findings:#?}");
    let unreachable = clinic.plugin.run(&["doctor", "--kubeconfig", "/nonexistent/kubeconfig"]).await;
    assert!(unreachable.error(3).contains("kubeconfig"), "{unreachable:?}");
    assert_eq!(operator.stop().await.unwrap(), 0);
    clinic.plane.stop().await.unwrap();
}
