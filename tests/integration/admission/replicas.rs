//! Two operators serve the webhooks at once, while the sealing key is replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use managed_secrets_crypto::{
    Kek, KeyId, Keyring,
    keyring::{Document, KekError, Purpose, State, Wrapped},
    mss1::Sealed,
};
use serde_json::json;

use super::{
    Premises,
    balancer::{Balancer, answers},
};
use crate::integration::{objects::version, operator::PATIENCE};

/// Adds a new sealing key to the keyring, as a restorer; those that were there open from now on, and seal no more.
pub(crate) async fn replace_the_sealing_key(premises: &Premises) {
    let secrets = Api::<Secret>::namespaced(premises.restorer().await, &premises.operator_namespace);
    let data = async |name: &str, key: &str| secrets.get(name).await.unwrap().data.unwrap()[key].0.clone();
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
        entry.state = State::OpenOnly;
    }
    document.entries.extend(made.entries.into_iter().filter(|entry| entry.purpose == Purpose::Sealing));
    let content = BASE64_STANDARD.encode(serde_json::to_vec(&document).unwrap());
    let patch = Patch::Merge(json!({"data": {keys::KEYRING_DATA_KEY: content}}));
    secrets.patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
}

/// The key that an object's value is sealed for.
fn key(object: &ManagedSecret) -> KeyId {
    Sealed::parse(&object.spec.value.as_ref().unwrap().0).unwrap().key_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_sealing_key_is_replaced_every_value_is_sealed_and_opens_and_old_ones_stay() {
    const AT_ONCE: usize = 6;
    let premises = Premises::new("rekey").await;
    let site = &premises.site;
    let apply = async |name: String| {
        // Panics when it is refused: whoever answers must have a key.
        site.apply(&name, json!({"name": name.to_uppercase().replace('-', "_"), "value": format!("value of {name}")}))
            .await
    };
    let balancer = Balancer::start();
    let (setup, address, first) = balancer.replica(&premises);
    balancer.add(address).await;
    let first_operator = premises.start(setup).await;
    let olds: Vec<String> = (0..AT_ONCE).map(|number| format!("old-{number}")).collect();
    join_all(olds.iter().cloned().map(apply)).await;
    let old_objects = join_all(olds.iter().map(|name| site.in_step(name))).await;
    let old_key = key(&old_objects[0]);

    // The first has read the keyring, and knows nothing of the new key; the second starts with it.
    replace_the_sealing_key(&premises).await;
    let (setup, address, second) = balancer.replica(&premises);
    let second_operator = setup.start_with(premises.config.clone());
    answers(address).await;
    balancer.add(address).await;
    let (called, began) = (first.seal.get(), Instant::now());
    let mut names = Vec::new();
    loop {
        let new: Vec<String> = (names.len()..names.len() + AT_ONCE).map(|number| format!("new-{number}")).collect();
        names.extend(new.clone());
        let applied = join_all(new.into_iter().map(apply)).await;
        let replaced = applied.iter().all(|object| key(object) != old_key);
        let both = first.seal.get() > called && second.seal.get() > 0;
        if replaced && both {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "both seal: {both}; all under the new key: {replaced}");
    }
    for name in &names {
        site.delivers(name, "value", &format!("value of {name}")).await;
        site.served(name).await;
    }

    // Sealed under the old key, applied again unchanged, whoever answers: nothing moves.
    let calls = first.seal.get() + second.seal.get();
    for _ in 0..2 {
        let again = join_all(olds.iter().cloned().map(apply)).await;
        for (object, before) in again.iter().zip(&old_objects) {
            assert_eq!(key(object), old_key);
            assert_eq!((version(object), object.metadata.generation), (version(before), before.metadata.generation));
        }
    }
    let calls = first.seal.get() + second.seal.get() - calls;
    assert!(usize::try_from(calls).unwrap() >= 2 * AT_ONCE, "{calls} calls: the webhook was asked");
    first_operator.stop().await;
    second_operator.stop().await;
}
