//! The keyring goes back to an older one: an operator that has the later one puts its keys back. One that has not says what is
//! missing, changes no key, and goes on when the keys are back or given up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

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
use managed_secrets_engine::{health::Probe, lease};
use serde_json::json;
use testkit::poll;

use super::{
    lost_keys::Keys,
    metrics::{parse, sum},
    objects::Site,
    operator::{PATIENCE, Running, Setup},
};

impl Keys {
    /// A new sealing key is published and in use, the operator ends, and then the keyring without that key is put back. The
    /// later keyring.
    pub(super) async fn go_back_without(&self, operator: Running) -> Secret {
        let old = self.published().await;
        let before = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        self.replace_the_sealing_key(State::OpenOnly).await;
        self.published_after(&old).await;
        operator.stop().await;
        let later = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        self.put(&before).await;
        later
    }

    /// Writes what this keyring held over the present one.
    async fn put(&self, keyring: &Secret) {
        let patch = Patch::Merge(json!({"data": keyring.data}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.site.client.clone(), &self.site.namespace)
    }

    /// Deletes the ConfigMap: an administrator accepts that keys are lost.
    async fn accept(&self) {
        self.maps().delete(keys::PUBLIC_KEY_CONFIGMAP, &DeleteParams::default()).await.unwrap();
    }

    async fn resource_version(&self) -> Option<String> {
        self.site.secret(keys::KEYRING_NAME).await.unwrap().metadata.resource_version
    }

    /// A replica that competes under this name.
    fn compete(&self, site: &Site, name: &str) -> Running {
        let seconds = Duration::from_secs;
        let election = lease::Options {
            namespace: self.site.namespace.clone(),
            name: keys::OPERATOR_NAME.to_owned(),
            identity: name.to_owned(),
            // Long: this is not about a leader that is slow.
            durations: lease::Durations::new(seconds(120), seconds(90), seconds(1)).unwrap(),
        };
        let operator_namespace = self.site.namespace.clone();
        let setup = Setup { operator_namespace, election: Some(election), ..Setup::of(&site.namespace) };
        setup.start_with(self.config.clone())
    }
}

/// Waits until the operator says that the keyring is too old, or no longer.
pub(super) async fn until_it_says(operator: &Running, rolled_back: f64) {
    until(operator, "managed_secrets_keyring_rolled_back", rolled_back).await;
}

async fn until(operator: &Running, metric: &str, value: f64) {
    poll(&format!("{metric} to be {value}"), PATIENCE, || async {
        let text = operator.metrics().text().unwrap();
        let is_there = text.contains(&format!("\n{metric} "));
        Ok((is_there && (sum(&parse(&text), metric, &[]) - value).abs() < 0.5).then_some(()))
    })
    .await
    .unwrap();
}

fn document(keyring: &Secret) -> Document {
    let content = &keyring.data.as_ref().unwrap()[keys::KEYRING_DATA_KEY].0;
    serde_json::from_slice(content).unwrap()
}

/// Id of the newest key of a keyring.
fn newest(keyring: &Secret) -> String {
    document(keyring).entries.last().unwrap().id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_puts_back_the_keys_that_it_still_has_and_every_value_stays() {
    let (keys, site) = (Keys::new().await, Site::new("went-back").await);
    let operator = super::seeds::setup(&keys, &site).start_with(keys.config.clone());
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    let before = keys.site.secret(keys::KEYRING_NAME).await.unwrap();
    keys.ask().await;
    keys.rotated(2).await;
    keys.replace_the_sealing_key(State::Revoked).await;
    let (value, later) = (site.value("db", "value").await, keys.site.secret(keys::KEYRING_NAME).await.unwrap());
    poll("it has read the later keyring", PATIENCE, || async {
        let map = keys.maps().get(keys::PUBLIC_KEY_CONFIGMAP).await?;
        let seen = map.metadata.annotations.unwrap_or_default().remove(keys::ANNO_KEYRING_SEEN).unwrap_or_default();
        Ok(seen.contains(&newest(&later)).then_some(()))
    })
    .await
    .unwrap();

    // The record is under a seed that the earlier keyring lacks, and the first sealing key opens again.
    keys.put(&before).await;
    let states = |keyring: &Secret| {
        let mut states: Vec<_> = document(keyring).entries.into_iter().map(|it| (it.id, it.state)).collect();
        states.sort();
        states
    };
    poll("the keys to be put back", PATIENCE, || async {
        let now = keys.site.secret(keys::KEYRING_NAME).await.unwrap();
        Ok((states(&now) == states(&later)).then_some(()))
    })
    .await
    .unwrap();
    until_it_says(&operator, 0.0).await;
    site.apply("db", json!({"name": "DB", "generate": {}, "description": "another"})).await;
    site.in_step("db").await;
    assert_eq!(site.value("db", "value").await, value);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_restarts_notices_it_and_changes_no_key_until_the_loss_is_accepted() {
    let (keys, site) = (Keys::new().await, Site::new("woke-up").await);
    let later = keys.go_back_without(keys.serve(&site)).await;
    let stands = keys.resource_version().await;
    let key = RecoveryKey::generate().unwrap();
    let operator = keys.covering(&site, &[key.recipient()]).start_with(keys.config.clone());
    until_it_says(&operator, 1.0).await;
    let said = operator.health().report(Probe::Ready).text(true);
    assert!(said.contains(&newest(&later)) && said.contains("kubectl msec restore"), "{said}");
    keys.ask().await;
    let asked = keys.resource_version().await;
    assert_ne!(asked, stands);
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;

    // What says nothing accepts nothing.
    let none = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_KEYRING_SEEN: null}}}));
    keys.maps().patch(keys::PUBLIC_KEY_CONFIGMAP, &PatchParams::default(), &none).await.unwrap();
    poll("it to be said again", PATIENCE, || async {
        let map = keys.maps().get(keys::PUBLIC_KEY_CONFIGMAP).await?;
        Ok(map.metadata.annotations.is_some_and(|it| it.contains_key(keys::ANNO_KEYRING_SEEN)).then_some(()))
    })
    .await
    .unwrap();
    until_it_says(&operator, 1.0).await;
    assert_eq!(keys.resource_version().await, asked, "it changed the keyring");

    keys.accept().await;
    until_it_says(&operator, 0.0).await;
    poll("the keys to be covered", PATIENCE, || async {
        let document = document(&keys.site.secret(keys::KEYRING_NAME).await.unwrap());
        let covered = document.entries.iter().all(|entry| !entry.recovery.is_empty());
        Ok((covered && document.given_up == [newest(&later)]).then_some(()))
    })
    .await
    .unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_keyring_beside_is_enough_and_its_end_is_noticed() {
    let (keys, site) = (Keys::new().await, Site::new("beside-it").await);
    let later = keys.go_back_without(keys.serve(&site)).await;
    let operator = keys.serve(&site);
    until_it_says(&operator, 1.0).await;
    keys.restore(&later, "later-keyring").await;
    until_it_says(&operator, 0.0).await;
    operator.stop().await;

    keys.site.secrets().delete("later-keyring", &DeleteParams::default()).await.unwrap();
    let operator = keys.serve(&site);
    until_it_says(&operator, 1.0).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stands_by_notices_it_and_accepts_the_loss_without_a_restart() {
    let (keys, site) = (Keys::new().await, Site::new("standing-by").await);
    keys.go_back_without(keys.serve(&site)).await;
    let stands = keys.resource_version().await;
    let first = keys.compete(&site, "first");
    until(&first, "managed_secrets_leader", 1.0).await;
    until_it_says(&first, 1.0).await;
    let second = keys.compete(&site, "second");
    until_it_says(&second, 1.0).await;
    until(&second, "managed_secrets_leader", 0.0).await;

    // A change of leader changes nothing.
    first.stop().await;
    until(&second, "managed_secrets_leader", 1.0).await;
    let third = keys.compete(&site, "third");
    until_it_says(&third, 1.0).await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.in_step("db").await;
    until_it_says(&second, 1.0).await;
    assert_eq!(keys.resource_version().await, stands);

    keys.accept().await;
    until_it_says(&second, 0.0).await;
    until(&second, "managed_secrets_leader", 1.0).await;
    until_it_says(&third, 0.0).await;
    second.stop().await;
    until(&third, "managed_secrets_leader", 1.0).await;
    until_it_says(&third, 0.0).await;
    third.stop().await;
}
