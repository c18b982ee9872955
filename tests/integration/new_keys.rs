//! The keyring changes while operators run: a new sealing key is published and used by all of them, and a revoked one
//! opens nothing any more, without a restart.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Config,
    api::{Patch, PatchParams},
};
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    Kek, Keyring,
    keyring::{Document, KekError, Purpose, State, Wrapped},
    mss1::{PublicKey, PublishedKey},
};
use serde_json::json;
use testkit::poll;

use super::{
    faults::{Switch, refusal},
    lost_keys::Keys,
    objects::{Site, message, ready, sealed},
    operator::{PATIENCE, Setup, Tap, public_key_of},
};

impl Keys {
    /// Adds a new sealing key to the keyring; those that were there are in this state from now on.
    pub(super) async fn replace_the_sealing_key(&self, before: State) {
        let data = async |name: &str, key: &str| self.site.secret(name).await.unwrap().data.unwrap()[key].0.clone();
        let content = data(keys::KEYRING_NAME, keys::KEYRING_DATA_KEY).await;
        let mut document: Document = serde_json::from_slice(&content).unwrap();
        let Wrapped { provider, key_id: id, .. } = document.entries[0].wrapped.clone();
        let kek = Kek::new(&data(&format!("{}{id}", keys::KEK_PREFIX), keys::KEK_DATA_KEY).await).unwrap();
        let wrap = |bytes: &[u8]| {
            let ciphertext = kek.wrap(bytes)?;
            Ok::<_, KekError>(Wrapped::new(provider.clone(), id.clone(), ciphertext))
        };
        let made = Keyring::generate_entries(jiff::Timestamp::now(), wrap).unwrap();
        for entry in document.entries.iter_mut().filter(|entry| entry.purpose == Purpose::Sealing) {
            entry.state = before;
        }
        document.entries.extend(made.entries.into_iter().filter(|entry| entry.purpose == Purpose::Sealing));
        let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
        let patch = Patch::Merge(json!({"data": {keys::KEYRING_DATA_KEY: content}}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(super) async fn published(&self) -> PublicKey {
        public_key_of(&self.site.client, &self.site.namespace).await
    }

    /// Waits until another key than this one is published.
    pub(super) async fn published_after(&self, old: &PublicKey) -> PublicKey {
        poll("another public key", PATIENCE, || async {
            Ok(Some(self.published().await).filter(|key| key.key_id() != old.key_id()))
        })
        .await
        .unwrap()
    }

    async fn map(&self) -> ConfigMap {
        let maps = Api::<ConfigMap>::namespaced(self.site.client.clone(), &self.site.namespace);
        maps.get(keys::PUBLIC_KEY_CONFIGMAP).await.unwrap()
    }

    fn setup(&self, site: &Site) -> (Setup, Config) {
        let setup = Setup { operator_namespace: self.site.namespace.clone(), ..Setup::of(&site.namespace) };
        (setup, self.config.clone())
    }
}

/// Requests about the published key since `began`: reads and writes.
fn asked(tap: &Tap, began: Instant) -> (usize, usize) {
    let seen = tap.seen().into_iter().filter(|seen| seen.at >= began && seen.path.contains("/configmaps/"));
    let (reads, writes): (Vec<_>, Vec<_>) = seen.partition(|seen| seen.method == "GET");
    (reads.len(), writes.len())
}

/// One of two replicas hears nothing of the new key: it does not put the old one back.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_do_not_fight_over_the_public_key() {
    let (keys, site, elsewhere) = (Keys::new().await, Site::new("informed").await, Site::new("uninformed").await);
    let informed = keys.serve(&site);
    let old = keys.published().await;
    let deaf = Switch::new(|path| path.contains("/secrets?") && path.contains("fieldSelector=type"));
    deaf.on(&refusal(500, "InternalError", None));
    let tap = Tap::recording();
    let (setup, config) = keys.setup(&elsewhere);
    let uninformed = setup.calls(&tap).watches(&deaf.tap).start_with(config);
    elsewhere.apply("before", json!({"name": "BEFORE", "generate": {}})).await;
    elsewhere.served("before").await;

    let began = Instant::now();
    keys.replace_the_sealing_key(State::OpenOnly).await;
    let new = keys.published_after(&old).await;
    let map = keys.map().await;
    // It has looked, and once more after it has read the keyring again.
    poll("the other one to have looked", PATIENCE, || async { Ok((asked(&tap, began).0 >= 2).then_some(())) })
        .await
        .unwrap();
    for round in 0..5 {
        // Whatever stands there is put right, by either of them, and by both to the same.
        let maps = Api::<ConfigMap>::namespaced(keys.site.client.clone(), &keys.site.namespace);
        let garbage = json!({"data": {keys::PUBLIC_KEY_DATA_KEY: format!("garbage {round}")}});
        if round > 0 {
            maps.patch(keys::PUBLIC_KEY_CONFIGMAP, &PatchParams::default(), &Patch::Merge(garbage)).await.unwrap();
        } else {
            assert_eq!(asked(&tap, began).1, 0, "it wrote nothing");
            assert_eq!(keys.map().await, map, "neither did");
        }
        poll("the new key", PATIENCE, || async {
            let text = keys.map().await.data.unwrap().remove(keys::PUBLIC_KEY_DATA_KEY).unwrap();
            let Ok(published) = PublishedKey::parse(&text) else { return Ok(None) };
            assert_eq!(published.key.key_id(), new.key_id(), "the old key was put back");
            Ok(Some(()))
        })
        .await
        .unwrap();
    }
    // Both keys open, in both.
    for site in [&site, &elsewhere] {
        for (name, key) in [("old", &old), ("new", &new)] {
            let text = sealed(key, &site.strict(name), name);
            site.apply(name, json!({"name": name, "value": text})).await;
            site.delivers(name, "value", name).await;
            site.served(name).await;
        }
    }
    informed.stop().await;
    uninformed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_opens_nothing_more_and_what_is_served_stays() {
    let (keys, site) = (Keys::new().await, Site::new("revoked").await);
    let mut operator = keys.serve(&site);
    let old = keys.published().await;
    let seal = |key: &PublicKey, name: &str, value: &str| json!({"name": name, "value": sealed(key, &site.strict(name), value)});
    site.apply("served", seal(&old, "served", "one")).await;
    let before = site.in_step("served").await;

    // Published by a running operator, so read by it: no restart is needed.
    keys.replace_the_sealing_key(State::Revoked).await;
    let new = keys.published_after(&old).await;
    site.apply("late", seal(&old, "late", "hunter2")).await;
    let refuses = async || {
        let object = site.reports("late", "False", "SealedWithRevokedKey").await;
        let said = message(&object);
        assert!(said.contains("spec.value") && said.contains(&old.key_id().to_string()), "{said}");
        assert!(!format!("{object:?}").contains("hunter2"));
        assert!(site.secret("late").await.is_none() && site.record("late").await.is_none());
    };
    refuses().await;
    // A new value under it is not taken either.
    site.apply("served", seal(&old, "served", "two")).await;
    let object = site.reports("served", "False", "SealedWithRevokedKey").await;
    assert_eq!(site.value("served", "value").await.as_deref(), Some("one"));
    assert_eq!(object.status.unwrap().version, before.status.unwrap().version);

    operator.stop().await;
    operator = keys.serve(&site);
    site.nudge("late").await;
    site.apply("probe", seal(&new, "probe", "three")).await;
    site.delivers("probe", "value", "three").await;
    refuses().await;
    assert_eq!(ready(&site.get("served").await).1, "SealedWithRevokedKey");
    assert_eq!(keys.published().await.key_id(), new.key_id());

    // Sealed again, with the current key.
    for name in ["late", "served"] {
        site.apply(name, seal(&new, name, "four")).await;
        site.delivers(name, "value", "four").await;
        site.served(name).await;
    }
    operator.stop().await;
}
