//! The keys of the keyring are sealed to the recovery keys, and stay sealed to them, whatever happens to the keyring.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::api::{DeleteParams, Patch, PatchParams};
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    keyring::{Document, State},
    recovery::{Recipient, Recovered, RecoveryKey},
};
use serde_json::json;
use testkit::poll;

use super::{
    lost_keys::Keys,
    metrics::{parse, sum},
    objects::Site,
    operator::{PATIENCE, Running, Setup},
};

impl Keys {
    /// An operator with these recovery keys.
    pub(super) fn covering(&self, site: &Site, recovery: &[Recipient]) -> Setup {
        let (operator_namespace, recovery) = (self.site.namespace.clone(), recovery.to_vec());
        Setup { operator_namespace, recovery, ..Setup::of(&site.namespace) }
    }

    fn start_covering(&self, site: &Site, recovery: &[Recipient]) -> Running {
        self.covering(site, recovery).start_with(self.config.clone())
    }

    async fn stored(&self, name: &str) -> Document {
        let data = self.site.secret(name).await.unwrap().data.unwrap();
        serde_json::from_slice(&data[keys::KEYRING_DATA_KEY].0).unwrap()
    }

    async fn edit(&self, edit: impl FnOnce(&mut Document)) {
        let mut document = self.stored(keys::KEYRING_NAME).await;
        edit(&mut document);
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
        let patch = Patch::Merge(json!({"data": {keys::KEYRING_DATA_KEY: content}}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until the recovery key opens so many keys of the stored keyring.
    pub(super) async fn until_it_opens(&self, key: &RecoveryKey, number: usize) -> Document {
        poll(&format!("{number} keys to be covered"), PATIENCE, || async {
            let Some(secret) = self.site.secret(keys::KEYRING_NAME).await else { return Ok(None) };
            let content = secret.data.unwrap().remove(keys::KEYRING_DATA_KEY).unwrap();
            let document: Document = serde_json::from_slice(&content.0).unwrap();
            let opens = Recovered::open(key, [&document]).len();
            Ok((opens == number && document.entries.len() == number).then_some(document))
        })
        .await
        .unwrap()
    }
}

/// Waits until the operator says that so many keys are not covered.
async fn until_uncovered(operator: &Running, number: f64) {
    poll(&format!("{number} keys without recovery"), PATIENCE, || async {
        let text = operator.metrics().text().unwrap();
        let is_there = text.contains("\nmanaged_secrets_keys_without_recovery ");
        let now = sum(&parse(&text), "managed_secrets_keys_without_recovery", &[]);
        Ok((is_there && (now - number).abs() < 0.5).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_existing_keyring_are_sealed_to_each_recovery_key_and_nothing_else_changes() {
    let (keys, site) = (Keys::new().await, Site::new("covered").await);
    let operator = keys.serve(&site);
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let before = site.in_step("db").await;
    assert!(!operator.metrics().text().unwrap().contains("\nmanaged_secrets_keys_without_recovery "));
    operator.stop().await;
    let bare = keys.stored(keys::KEYRING_NAME).await;
    assert!(bare.entries.iter().all(|entry| entry.recovery.is_empty()));

    let (first, second) = (RecoveryKey::generate().unwrap(), RecoveryKey::generate().unwrap());
    let operator = keys.start_covering(&site, &[first.recipient()]);
    let covered = keys.until_it_opens(&first, 2).await;
    until_uncovered(&operator, 0.0).await;
    operator.stop().await;
    for (bare, covered) in bare.entries.iter().zip(&covered.entries) {
        assert_eq!(managed_secrets_crypto::keyring::Entry { recovery: Vec::new(), ..covered.clone() }, *bare);
    }

    // Another key beside it; then both, by two replicas; then none: nothing is taken away.
    let operator = keys.start_covering(&site, &[second.recipient()]);
    let both = keys.until_it_opens(&second, 2).await;
    until_uncovered(&operator, 0.0).await;
    operator.stop().await;
    let resource_version = async || keys.site.secret(keys::KEYRING_NAME).await.unwrap().metadata.resource_version;
    let stands = resource_version().await;
    let recipients = [first.recipient(), second.recipient()];
    let (one, two) = (keys.start_covering(&site, &recipients), keys.start_covering(&site, &recipients));
    until_uncovered(&one, 0.0).await;
    until_uncovered(&two, 0.0).await;
    one.stop().await;
    two.stop().await;
    let operator = keys.serve(&site);
    site.apply("later", json!({"name": "LATER", "generate": {}})).await;
    site.in_step("later").await;
    operator.stop().await;
    assert_eq!(resource_version().await, stands, "there was nothing to write");
    assert_eq!(Recovered::open(&first, [&both]).len(), 2);
    assert_eq!(site.get("db").await, before);

    // A flag that was forgotten: a key without a copy counts.
    let operator = keys.serve(&site);
    until_uncovered(&operator, 0.0).await;
    keys.replace_the_sealing_key(State::OpenOnly).await;
    until_uncovered(&operator, 1.0).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_removed_damaged_or_missing_is_put_back() {
    let (keys, site) = (Keys::new().await, Site::new("recovered").await);
    let key = RecoveryKey::generate().unwrap();
    let operator = keys.start_covering(&site, &[key.recipient()]);
    keys.until_it_opens(&key, 2).await;
    keys.edit(|document| document.entries[0].recovery.clear()).await;
    keys.until_it_opens(&key, 2).await;
    keys.edit(|document| document.entries[1].recovery[0].sealed = "AAAA".to_owned()).await;
    keys.until_it_opens(&key, 2).await;
    // An intact copy of another key.
    keys.edit(|document| document.entries[0].recovery = document.entries[1].recovery.clone()).await;
    keys.until_it_opens(&key, 2).await;
    // A key that another program adds: here, one of another keyring, under the same key-encryption key.
    keys.replace_the_sealing_key(State::OpenOnly).await;
    keys.until_it_opens(&key, 3).await;
    until_uncovered(&operator, 0.0).await;
    operator.stop().await;
}

/// A keyring beside the operator's own stays as it is, and the operator says that the recovery key does not open it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_restored_keyring_count_as_not_covered() {
    let (keys, other) = (Keys::new().await, Keys::new().await);
    let (site, elsewhere) = (Site::new("beside").await, Site::new("before").await);
    let operator = other.serve(&elsewhere);
    elsewhere.apply("db", json!({"name": "DB", "generate": {}})).await;
    elsewhere.served("db").await;
    operator.stop().await;
    let names: Vec<_> = other.site.secrets().list(&kube::api::ListParams::default()).await.unwrap().items;
    let kek = names.into_iter().find(|it| it.type_.as_deref() == Some(keys::TYPE_KEK)).unwrap();
    let kek_name = kek.metadata.name.clone().unwrap();

    let key = RecoveryKey::generate().unwrap();
    let operator = keys.start_covering(&site, &[key.recipient()]);
    keys.until_it_opens(&key, 2).await;
    until_uncovered(&operator, 0.0).await;
    keys.restore(&kek, &kek_name).await;
    let keyring = other.site.secret(keys::KEYRING_NAME).await.unwrap();
    keys.restore(&keyring, "restored-keyring").await;
    until_uncovered(&operator, 2.0).await;
    assert_eq!(keys.stored("restored-keyring").await, other.stored(keys::KEYRING_NAME).await);
    keys.site.secrets().delete("restored-keyring", &DeleteParams::default()).await.unwrap();
    until_uncovered(&operator, 0.0).await;
    operator.stop().await;
}
