//! The keyring goes back to an older one: the operator says so and what is missing, changes no key, and goes on when the keys
//! are back or given up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    keyring::{Document, State},
    recovery::RecoveryKey,
};
use serde_json::json;
use testkit::poll;

use super::{
    lost_keys::Keys,
    metrics::{parse, sum},
    objects::Site,
    operator::{PATIENCE, Running},
};

impl Keys {
    /// A new sealing key is published and in use, and then the keyring without it is put back. The later keyring.
    pub(super) async fn go_back(&self) -> Secret {
        let old = self.published().await;
        let before = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        self.replace_the_sealing_key(State::OpenOnly).await;
        self.published_after(&old).await;
        let later = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        let patch = Patch::Merge(json!({"data": before.data}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
        later
    }
}

/// Waits until the operator says that the keyring is too old, or no longer.
async fn until_it_says(operator: &Running, rolled_back: f64) {
    poll(&format!("rolled back to be {rolled_back}"), PATIENCE, || async {
        let text = operator.metrics().text().unwrap();
        let is_there = text.contains("\nmanaged_secrets_keyring_rolled_back ");
        let now = sum(&parse(&text), "managed_secrets_keyring_rolled_back", &[]);
        Ok((is_there && (now - rolled_back).abs() < 0.5).then_some(()))
    })
    .await
    .unwrap();
}

/// Id of the newest key of a keyring.
fn newest(keyring: &Secret) -> String {
    let content = &keyring.data.as_ref().unwrap()[keys::KEYRING_DATA_KEY].0;
    let document: Document = serde_json::from_slice(content).unwrap();
    document.entries.last().unwrap().id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_runs_notices_an_older_keyring_and_is_content_when_the_later_one_stands_beside_it() {
    let (keys, site) = (Keys::new().await, Site::new("went-back").await);
    let operator = keys.serve(&site);
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    until_it_says(&operator, 0.0).await;
    let later = keys.go_back().await;
    until_it_says(&operator, 1.0).await;
    let said = operator.health().report(managed_secrets_engine::health::Probe::Ready).text(true);
    assert!(said.contains(&newest(&later)) && said.contains("kubectl msec restore"), "{said}");
    // What is there continues.
    site.apply("more", json!({"name": "MORE", "generate": {}})).await;
    site.served("more").await;
    keys.restore(&later, "later-keyring").await;
    until_it_says(&operator, 0.0).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_restarts_notices_it_and_changes_no_key_until_the_loss_is_accepted() {
    let (keys, site) = (Keys::new().await, Site::new("woke-up").await);
    let operator = keys.serve(&site);
    keys.go_back().await;
    until_it_says(&operator, 1.0).await;
    operator.stop().await;
    let stands = keys.site.secret(keys::KEYRING_NAME).await.unwrap().metadata.resource_version;

    let key = RecoveryKey::generate().unwrap();
    let operator = keys.covering(&site, &[key.recipient()]).start_with(keys.config.clone());
    until_it_says(&operator, 1.0).await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    let now = keys.site.secret(keys::KEYRING_NAME).await.unwrap().metadata.resource_version;
    assert_eq!(now, stands, "it changed the keyring");

    let maps = Api::<ConfigMap>::namespaced(keys.site.client.clone(), &keys.site.namespace);
    maps.delete(keys::PUBLIC_KEY_CONFIGMAP, &DeleteParams::default()).await.unwrap();
    until_it_says(&operator, 0.0).await;
    keys.until_it_opens(&key, 2).await;
    operator.stop().await;
}
