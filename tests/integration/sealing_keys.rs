//! Sealing keys are replaced, retired and revoked while operators run: new values use the new key, and what was sealed before
//! opens for as long as its key does, wherever that is interrupted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use managed_secrets::keyring::sealing::Timing;
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    KeyId,
    keyring::{Document, Entry, Purpose, State},
    mss1::{PublicKey, PublishedKey, SealingKey},
    recovery::RecoveryKey,
};
use serde_json::json;
use testkit::poll;
use zeroize::Zeroizing;

use super::{
    deaths::{Death, Killer, Run, sweep},
    faults::{Switch, refusal},
    lost_keys::Keys,
    metrics::{parse, sum},
    objects::{Site, message, sealed},
    operator::{PATIENCE, Running, Setup, Tap},
};

/// A rotation in moments instead of minutes; only on request.
pub(super) const FAST: Timing = Timing {
    period: None,
    retain: None,
    grace: Duration::ZERO,
    pending: Duration::from_millis(200),
    settle: Duration::from_millis(200),
};
/// More requests than what one sweep asks for has: one that gets there goes round in circles.
const MAX_REQUESTS: usize = 120;

fn setup(keys: &Keys, site: &Site) -> Setup {
    Setup { operator_namespace: keys.site.namespace.clone(), sealing: FAST, ..Setup::of(&site.namespace) }
}

impl Keys {
    async fn own_document(&self) -> Document {
        let secret = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        serde_json::from_slice(&secret.data.unwrap()[keys::KEYRING_DATA_KEY].0).unwrap()
    }

    /// Asks for a change of the keyring, as `kubectl msec keys` does.
    async fn request(&self, text: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_KEYRING_REQUEST: text}}}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until all requests are answered and no key is pending; the keyring then.
    async fn settled(&self) -> Document {
        poll("the requests to be answered", PATIENCE, || async {
            let secret = self.site.secret(keys::KEYRING_NAME).await.unwrap();
            let asked = secret.metadata.annotations.iter().flatten().any(|(key, _)| key == keys::ANNO_KEYRING_REQUEST);
            let content = secret.data.unwrap().remove(keys::KEYRING_DATA_KEY).unwrap();
            let document: Document = serde_json::from_slice(&content.0).unwrap();
            let is_pending = document.pending_sealing_key().is_some();
            Ok((!asked && !is_pending).then_some(document))
        })
        .await
        .unwrap()
    }

    /// Asks for a change, and waits until it is made.
    async fn changed(&self, text: &str) -> Document {
        self.request(text).await;
        self.settled().await
    }

    /// A new key, once it is published.
    async fn replaced(&self, old: &PublicKey) -> PublicKey {
        self.request("rotate sealing").await;
        self.published_after(old).await
    }
}

/// State of each sealing key, the oldest first; a retired one has none.
fn states(document: &Document) -> Vec<Option<State>> {
    document.sealing_keys().map(|entry| (!entry.is_retired()).then_some(entry.state)).collect()
}

pub(super) fn spec(site: &Site, key: &PublicKey, name: &str, value: &str) -> serde_json::Value {
    json!({"name": name, "value": sealed(key, &site.strict(name), value)})
}

/// Waits until the operator counts so many sealed values whose key stands like this.
async fn until_it_counts(operator: &Running, standing: &str, number: f64) {
    poll(&format!("{number} values with a key that is {standing}"), PATIENCE, || async {
        let now =
            sum(&parse(&operator.metrics().text().unwrap()), "managed_secrets_sealed_values", &[("key", standing)]);
        Ok(((now - number).abs() < 0.5).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_seals_what_is_new_and_the_earlier_one_still_opens() {
    let (keys, site) = (Keys::new().await, Site::new("sealing").await);
    let recovery = RecoveryKey::generate().unwrap();
    let tap = Tap::recording();
    let setup = Setup { recovery: vec![recovery.recipient()], ..setup(&keys, &site) }.calls(&tap);
    let operator = setup.start_with(keys.config.clone());
    keys.until_it_opens(&recovery, 2).await;
    let old = keys.published().await;
    let text = spec(&site, &old, "before", "one");
    site.apply("before", text.clone()).await;
    let before = site.in_step("before").await;
    let generation = keys.own_document().await.generation;
    until_it_counts(&operator, "active", 1.0).await;
    let asked = tap.seen().len();

    let new = keys.replaced(&old).await;
    let document = keys.until_it_opens(&recovery, 3).await;
    assert!(document.generation > generation);
    assert_eq!(states(&keys.settled().await), [Some(State::OpenOnly), Some(State::Active)]);
    assert_eq!(document.seeds().count(), 1, "seeds have nothing to do with it");
    until_it_counts(&operator, "open-only", 1.0).await;
    // Nothing is written but the keyring and the public key.
    let written = tap.seen().split_off(asked);
    let written: Vec<_> = written.iter().filter(|seen| seen.is_write() && !seen.path.contains("/events")).collect();
    let meant = |path: &str| path.contains(keys::KEYRING_NAME) || path.contains(keys::PUBLIC_KEY_CONFIGMAP);
    assert!(written.iter().all(|seen| meant(&seen.path)), "{written:#?}");
    assert_eq!(site.get("before").await, before);

    // New text under either key opens; unchanged text is not even read.
    site.apply("after", spec(&site, &new, "after", "two")).await;
    site.apply("late", spec(&site, &old, "late", "three")).await;
    for (name, value) in [("after", "two"), ("late", "three"), ("before", "one")] {
        site.delivers(name, "value", value).await;
        site.in_step(name).await;
    }
    operator.stop().await;
    // After a restart as before.
    let operator = self::setup(&keys, &site).start_with(keys.config.clone());
    site.apply("again", spec(&site, &old, "again", "four")).await;
    site.delivers("again", "value", "four").await;
    until_it_counts(&operator, "open-only", 3.0).await;
    until_it_counts(&operator, "active", 1.0).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_replace_a_key_by_its_age_and_every_key_opens() {
    let (keys, site, elsewhere) = (Keys::new().await, Site::new("by-age").await, Site::new("by-age-too").await);
    let period = Some(Duration::from_secs(3));
    let setup = |site: &Site| Setup { sealing: Timing { period, ..FAST }, ..setup(&keys, site) };
    let first = setup(&site).start_with(keys.config.clone());
    let mut known = vec![keys.published().await];
    let second = setup(&elsewhere).start_with(keys.config.clone());
    while known.len() < 4 {
        let last = known.last().unwrap();
        let map = Api::<ConfigMap>::namespaced(keys.site.client.clone(), &keys.site.namespace);
        let map = map.get(keys::PUBLIC_KEY_CONFIGMAP).await.unwrap();
        let published = PublishedKey::parse(&map.data.unwrap()[keys::PUBLIC_KEY_DATA_KEY]).unwrap();
        let lasts = published.not_after.duration_since(published.not_before);
        assert_eq!(lasts, jiff::SignedDuration::from_secs(3), "the published date follows the period");
        let new = keys.published_after(last).await;
        known.push(new);
    }
    for (n, key) in known.iter().enumerate() {
        for site in [&site, &elsewhere] {
            let name = format!("under-{n}");
            site.apply(&name, spec(site, key, &name, "value")).await;
            site.delivers(&name, "value", "value").await;
            site.served(&name).await;
        }
    }
    let document = keys.own_document().await;
    let ids: Vec<_> = document.sealing_keys().filter_map(Entry::sealing_key_id).collect();
    assert_eq!(&ids[..4], known.iter().map(PublicKey::key_id).collect::<Vec<_>>(), "one key each time, of one of them");
    first.stop().await;
    second.stop().await;
}

/// One of two replicas hears nothing of the new key until it meets a value under it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hears_nothing_reads_a_new_key_when_it_needs_it() {
    let (keys, site, elsewhere) = (Keys::new().await, Site::new("hears").await, Site::new("deaf").await);
    let first = setup(&keys, &site).start_with(keys.config.clone());
    let old = keys.published().await;
    let deaf = Switch::new(|path| path.contains("fieldSelector="));
    deaf.on(&refusal(500, "InternalError", None));
    let second = Setup { sealing: Timing { pending: Duration::from_secs(3600), ..FAST }, ..setup(&keys, &elsewhere) };
    let second = second.watches(&deaf.tap).start_with(keys.config.clone());
    elsewhere.apply("before", spec(&elsewhere, &old, "before", "one")).await;
    elsewhere.in_step("before").await;
    let new = keys.replaced(&old).await;
    elsewhere.apply("after", spec(&elsewhere, &new, "after", "two")).await;
    elsewhere.delivers("after", "value", "two").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_opens_nothing_new_and_an_active_one_is_replaced_first() {
    let (keys, site) = (Keys::new().await, Site::new("leaked").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    let leaked = keys.published().await;
    site.apply("served", spec(&site, &leaked, "served", "one")).await;
    let before = site.in_step("served").await;
    let document = keys.changed(&format!("revoke {}", leaked.key_id())).await;
    assert_eq!(states(&document), [Some(State::Revoked), Some(State::Active)]);
    let second = keys.published_after(&leaked).await;
    site.apply("late", spec(&site, &leaked, "late", "hunter2")).await;
    let said = message(&site.reports("late", "False", "SealedWithRevokedKey").await);
    assert!(said.contains(&leaked.key_id().to_string()), "{said}");
    assert_eq!((site.get("served").await, site.value("served", "value").await), (before, Some("one".to_owned())));
    until_it_counts(&operator, "revoked", 2.0).await;
    // One that is used no more, at once; and none of them comes back.
    let third = keys.replaced(&second).await;
    let document = keys.changed(&format!("revoke {}", second.key_id())).await;
    assert_eq!(states(&document), [Some(State::Revoked), Some(State::Revoked), Some(State::Active)]);
    let generation = document.generation;
    let document =
        keys.changed(&format!("reinstate {0}, retire {0}, reinstate {1}", leaked.key_id(), "0".repeat(16))).await;
    assert_eq!((states(&document).len(), document.generation), (3, generation), "refused, and nothing is written");
    site.apply("late", spec(&site, &third, "late", "two")).await;
    site.delivers("late", "value", "two").await;
    operator.stop().await;
}

/// Waits until the operator has read that this key is retired: until then, it still opens values.
async fn until_it_is_refused(site: &Site, key: &PublicKey) {
    let mut tries = 0;
    loop {
        let name = format!("probe-{tries}");
        site.apply(&name, spec(site, key, &name, "probe")).await;
        let decided = |object: &managed_secrets_api::ManagedSecret| {
            let status = object.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            conditions.iter().any(|it| it.type_ == "Ready" && it.reason != "Pending")
        };
        let object = site.until(&name, "a decision", decided).await;
        let is_refused = format!("{:?}", object.status).contains("SealedWithRetiredKey");
        site.delete(&name).await;
        if is_refused {
            return;
        }
        tries += 1;
        assert!(tries < 100, "a retired key still opens");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_key_is_no_longer_used_and_opens_again_when_it_is_reinstated() {
    let (keys, site) = (Keys::new().await, Site::new("retired").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    let old = keys.published().await;
    // What Git holds, and applies again.
    let in_git = spec(&site, &old, "db", "one");
    site.apply("db", in_git.clone()).await;
    site.in_step("db").await;
    let new = keys.replaced(&old).await;
    until_it_counts(&operator, "open-only", 1.0).await;
    let retire = format!("retire {}", old.key_id());
    let document = keys.changed(&retire).await;
    assert_eq!(states(&document), [Some(State::OpenOnly), Some(State::Active)], "a value uses it");
    let document = keys.changed(&format!("retire {}", new.key_id())).await;
    assert_eq!(states(&document), [Some(State::OpenOnly), Some(State::Active)], "it is the active one");

    site.apply("db", spec(&site, &new, "db", "two")).await;
    site.delivers("db", "value", "two").await;
    until_it_counts(&operator, "open-only", 0.0).await;
    let document = keys.changed(&retire).await;
    assert_eq!(states(&document), [None, Some(State::Active)]);
    until_it_is_refused(&site, &old).await;
    site.apply("db", in_git.clone()).await;
    let object = site.reports("db", "False", "SealedWithRetiredKey").await;
    let said = message(&object);
    assert!(said.contains(&format!("kubectl msec keys reinstate {}", old.key_id())), "{said}");
    assert_eq!(site.value("db", "value").await.as_deref(), Some("two"), "what is delivered stays");
    until_it_counts(&operator, "retired", 1.0).await;

    let document = keys.changed(&format!("reinstate {}", old.key_id())).await;
    assert_eq!(states(&document), [Some(State::OpenOnly), Some(State::Active)]);
    site.delivers("db", "value", "one").await;
    site.in_step("db").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_nothing_uses_is_retired_after_the_time_that_was_set() {
    let (keys, site) = (Keys::new().await, Site::new("retained").await);
    let retaining = Setup { sealing: Timing { retain: Some(Duration::from_secs(1)), ..FAST }, ..setup(&keys, &site) };
    let operator = retaining.start_with(keys.config.clone());
    let used = keys.published().await;
    site.apply("db", spec(&site, &used, "db", "one")).await;
    site.in_step("db").await;
    let unused = keys.replaced(&used).await;
    keys.replaced(&unused).await;
    let document = poll("the unused key to be retired", PATIENCE, || async {
        let document = keys.own_document().await;
        let is_retired =
            document.sealing_entry(unused.key_id()).is_some_and(managed_secrets_crypto::keyring::Entry::is_retired);
        Ok(is_retired.then_some(document))
    })
    .await
    .unwrap();
    assert_eq!(states(&document), [Some(State::OpenOnly), None, Some(State::Active)]);
    assert!(document.sealing_entry(used.key_id()).unwrap().unused.is_none());
    operator.stop().await;
}

/// Whatever stands in the ConfigMap while keys change: in the end it is the active key, and replicas agree.
#[tokio::test(flavor = "multi_thread")]
async fn an_edited_public_key_is_put_right_in_the_middle_of_a_rotation() {
    let (keys, site) = (Keys::new().await, Site::new("edited").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    let old = keys.published().await;
    let maps = Api::<ConfigMap>::namespaced(keys.site.client.clone(), &keys.site.namespace);
    let edit = async |document: String| {
        let patch = Patch::Merge(json!({"data": {keys::PUBLIC_KEY_DATA_KEY: document}}));
        maps.patch(keys::PUBLIC_KEY_CONFIGMAP, &PatchParams::default(), &patch).await.unwrap();
    };
    let theirs = SealingKey::new(Zeroizing::new([0x5a; 32])).unwrap();
    let forged = PublishedKey::new(theirs.public().clone(), jiff::Timestamp::now());
    keys.request("rotate sealing").await;
    edit(forged.to_json().unwrap()).await;
    let document = keys.settled().await;
    edit("garbage".to_owned()).await;
    let active = document.active_key(Purpose::Sealing, jiff::Timestamp::now()).unwrap().to_owned();
    assert_ne!(active, old.key_id().to_string());
    poll("the active key to be published", PATIENCE, || async {
        let text = maps.get(keys::PUBLIC_KEY_CONFIGMAP).await?.data.unwrap().remove(keys::PUBLIC_KEY_DATA_KEY).unwrap();
        Ok(PublishedKey::parse(&text).ok().filter(|published| published.key.key_id().to_string() == active))
    })
    .await
    .unwrap();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_changes_nothing_in_the_end() {
    sweep(MAX_REQUESTS, crashed).await;
}

/// A rotation, a retirement and the revocation of the active key, with a crash.
async fn crashed(death: Option<Death>) -> Result<Run, String> {
    let (keys, site) = (Keys::new().await, Site::new("sealing-crash").await);
    let killer = Killer::new(death);
    let operator = setup(&keys, &site).calls(&killer.tap).start_with(keys.config.clone());
    let first = keys.published().await;
    let second = keys.replaced(&first).await;
    keys.settled().await;
    site.apply("db", spec(&site, &second, "db", "one")).await;
    site.in_step("db").await;
    killer.arm();
    // The second one is the active key, and the first one is not used.
    keys.request(&format!("retire {}, revoke {}", first.key_id(), second.key_id())).await;
    let ended = tokio::select! {
        () = killer.tap.died() => None,
        document = keys.settled() => Some(document),
    };
    let (requests, died) = (killer.requests(), ended.is_none());
    operator.kill().await;
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    let document = match ended {
        Some(document) => document,
        None => keys.settled().await,
    };
    let wanted = [None, Some(State::Revoked), Some(State::Active)];
    if states(&document) != wanted {
        return Err(format!("{:?}", states(&document)));
    }
    let ids: BTreeMap<usize, KeyId> = document.sealing_keys().filter_map(Entry::sealing_key_id).enumerate().collect();
    let third = keys.published_after(&second).await;
    if ids.get(&2) != Some(&third.key_id()) {
        return Err(format!("{} is published, of {ids:?}", third.key_id()));
    }
    site.in_step("db").await;
    if site.value("db", "value").await.as_deref() != Some("one") {
        return Err("another value".to_owned());
    }
    site.apply("new", spec(&site, &third, "new", "two")).await;
    site.delivers("new", "value", "two").await;
    operator.stop().await;
    Ok(Run { requests, died })
}
