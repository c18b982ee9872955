//! Certificates: rotated while values are applied, repaired when edited, or brought by somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets::{
    admission::certificates::{
        Source,
        authority::{Document, Lifetimes},
    },
    api::keys,
};
use serde_json::json;
use tokio::time::Instant;

use super::{Premises, Scratch};
use crate::{
    harness::poll,
    integration::{
        objects::version,
        operator::{PATIENCE, Setup},
    },
};

/// Lives so short that a test sees several.
const SHORT: Lifetimes =
    Lifetimes { authority: Duration::from_secs(12), leaf: Duration::from_secs(4), overlap: Duration::from_secs(3) };

impl Premises {
    async fn told(&self) -> (String, Vec<u8>) {
        let webhook = self.sealing(&self.site.client).await.webhooks.unwrap().remove(0);
        (webhook.client_config.url.unwrap_or_default(), webhook.client_config.ca_bundle.unwrap_or_default().0)
    }

    async fn break_the_configuration(&self) {
        let client = json!({"url": "https://127.0.0.1:1/x"});
        let operations = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client}]);
        let patch = || Patch::<()>::Json(serde_json::from_value(operations.clone()).unwrap());
        let params = PatchParams::default();
        let sealing = Api::<MutatingWebhookConfiguration>::all(self.site.client.clone());
        sealing.patch(&self.configuration(keys::SEAL_CONFIGURATION), &params, &patch()).await.unwrap();
        let warning = Api::<ValidatingWebhookConfiguration>::all(self.site.client.clone());
        warning.patch(&self.configuration(keys::WARN_CONFIGURATION), &params, &patch()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_and_certificates_rotate_and_no_apply_is_lost() {
    let premises = Premises::new("rotate").await;
    let setup = Setup { webhooks: Some(premises.webhooks(SHORT)), ..premises.setup() };
    let operator = premises.start(setup).await;
    let (mut told, mut changes, mut applied) = (premises.told().await, 0, 0);
    let first_url = told.0.clone();
    let until = Instant::now() + Duration::from_secs(40);
    while Instant::now() < until && !(changes >= 6 && told.0 != first_url) {
        let manifest = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": "db", "namespace": premises.site.namespace},
            "spec": {"name": "DB", "value": format!("value-{applied}"), "delivery": "None"},
        });
        let params = PatchParams::apply("test").force();
        let answer = premises.site.objects().patch("db", &params, &Patch::Apply(&manifest)).await;
        answer.unwrap_or_else(|error| panic!("apply {applied} after {changes} changes: {error}"));
        applied += 1;
        let now = premises.told().await;
        if now != told {
            changes += 1;
            told = now;
        }
    }
    // Known, used, alone: three changes of bundle or path a rotation.
    assert!(changes >= 4 && told.0 != first_url && applied > 20, "{changes} changes, {applied} applies");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edits_or_deletes_is_put_right() {
    let premises = Premises::new("repair").await;
    let operator = premises.start(premises.setup()).await;
    let told = premises.told().await;
    premises.break_the_configuration().await;
    poll("the configuration to be put right", PATIENCE, || async { Ok((premises.told().await == told).then_some(())) })
        .await
        .unwrap();
    premises.called().await;

    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(
        premises.site.client.clone(),
        &premises.operator_namespace,
    );
    secrets.delete(keys::WEBHOOK_SECRET, &DeleteParams::default()).await.unwrap();
    poll("another authority and path", PATIENCE, || async {
        let now = premises.told().await;
        Ok((now.0 != told.0 && now.1 != told.1).then_some(()))
    })
    .await
    .unwrap();
    premises.called().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_serve_with_one_authority_and_both_are_trusted() {
    let premises = Premises::new("replicas").await;
    let first = premises.start(premises.setup()).await;
    let (url, bundle) = premises.told().await;
    let second = premises.setup().start_with(premises.config.clone());
    // The second writes its own address: behind a Service both would write the same.
    poll("the second to be called", PATIENCE, || async { Ok((premises.told().await.0 != url).then_some(())) })
        .await
        .unwrap();
    assert_eq!(premises.told().await.1, bundle, "one authority");
    let path = |url: &str| url.rsplit('/').nth(1).unwrap().to_owned();
    assert_eq!(path(&premises.told().await.0), path(&url), "one path");
    first.stop().await;
    premises.called().await;
    second.stop().await;
}

/// A folder as a mounted Secret of cert-manager's: PEM files that are replaced.
fn write_certificate(folder: &Scratch) -> Vec<u8> {
    let (now, lives) = (jiff::Timestamp::now(), Lifetimes::default());
    let authorities = Document::due(None, now, lives).unwrap().unwrap();
    let leaf = authorities.issue(&["127.0.0.1".to_owned()], now, lives).unwrap();
    let bundle = authorities.bundle();
    let pem = |label: &str, der: &[u8]| crate::harness::control_plane::pem(label, der);
    let folder = folder.path.parent().unwrap();
    std::fs::write(folder.join("tls.crt"), pem("CERTIFICATE", &leaf.certificate)).unwrap();
    std::fs::write(folder.join("tls.key"), pem("PRIVATE KEY", &leaf.key)).unwrap();
    std::fs::write(folder.join("ca.crt"), &bundle).unwrap();
    bundle.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_a_folder_is_served_and_followed() {
    let premises = Premises::new("folder").await;
    let folder = Scratch::new("note", "");
    let first = write_certificate(&folder);
    let mut webhooks = premises.webhooks(Lifetimes::default());
    webhooks.certificates.source = Source::Folder(folder.path.parent().unwrap().to_owned());
    let operator = premises.start(Setup { webhooks: Some(webhooks), ..premises.setup() }).await;
    assert_eq!(premises.told().await.1, first);
    let second = write_certificate(&folder);
    let both = [second, first].concat();
    poll("the new bundle", PATIENCE, || async { Ok((premises.told().await.1 == both).then_some(())) }).await.unwrap();
    premises.called().await;
    let object = premises.site.apply("db", json!({"name": "DB", "value": "x"})).await;
    assert!(!version(&object).is_empty());
    operator.stop().await;
}
