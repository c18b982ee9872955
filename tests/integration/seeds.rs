//! A seed is replaced while operators run: every record moves to the new one, nothing else is written, and no value is lost
//! wherever it is interrupted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets::keyring::seeds::Timing;
use managed_secrets_api::{
    keys,
    names::record_name,
    record::{StoredRecord, seeds_in},
};
use managed_secrets_crypto::{
    SeedId,
    keyring::{Document, Entry},
    recovery::{Recovered, RecoveryKey},
};
use serde_json::{Value, json};
use testkit::poll;
use tokio_util::sync::CancellationToken;

use super::{
    deaths::{Death, Killer, Run, sweep},
    faults::{Switch, refusal},
    lost_keys::Keys,
    objects::{Site, moved},
    operator::{Fault, PATIENCE, Running, Setup, Tap},
    witness::Witness,
};

/// A rotation in seconds instead of hours; only on request.
pub(super) const FAST: Timing = Timing {
    period: None,
    grace: Duration::ZERO,
    pending: Duration::from_millis(200),
    apart: Duration::from_secs(1),
    again: Duration::from_millis(100),
    stuck: Duration::from_secs(1),
};
/// More requests than a rotation of two records has: a sweep that gets there goes round in circles.
const MOST: usize = 120;

pub(super) fn setup(keys: &Keys, site: &Site) -> Setup {
    Setup { operator_namespace: keys.site.namespace.clone(), seeds: FAST, ..Setup::of(&site.namespace) }
}

impl Keys {
    async fn document(&self) -> Document {
        let secret = self.site.secret(keys::KEYRING_NAME).await.unwrap();
        serde_json::from_slice(&secret.data.unwrap()[keys::KEYRING_DATA_KEY].0).unwrap()
    }

    async fn seeds(&self) -> Vec<SeedId> {
        self.document().await.seeds().map(|entry| entry.seed_id().unwrap()).collect()
    }

    /// Asks for a new seed, as `kubectl msec keys rotate --seed` does.
    pub(super) async fn ask(&self) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_KEYRING_REQUEST: "rotate seed"}}}));
        self.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits until there are so many seeds, and none but the newest is in use.
    pub(super) async fn rotated(&self, seeds: usize) -> Document {
        poll("the rotation to end", PATIENCE, || async {
            let document = self.document().await;
            let is_over = |entry: &&Entry| entry.is_confirmed_unused();
            let all = document.seeds().count();
            let over = document.seeds().filter(is_over).count();
            Ok((all == seeds && over == seeds - 1 && document.pending_seed().is_none()).then_some(document))
        })
        .await
        .unwrap()
    }
}

/// The seeds that the records of a namespace name, in metadata and bytes.
async fn named(site: &Site) -> BTreeSet<SeedId> {
    let list = ListParams::default().fields(&format!("type={}", keys::TYPE_RECORD));
    let records = site.secrets().list(&list).await.unwrap().items;
    records.iter().flat_map(seeds_of).collect()
}

fn seeds_of(record: &Secret) -> BTreeSet<SeedId> {
    let stored = StoredRecord::of(&record.metadata).unwrap();
    let data = record.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
    seeds_in(data).chain([stored.seed]).collect()
}

/// The state of every Secret that is no record.
async fn others(site: &Site) -> BTreeMap<String, Option<String>> {
    let list = site.secrets().list(&ListParams::default()).await.unwrap();
    let others = list.into_iter().filter(|secret| secret.type_.as_deref() != Some(keys::TYPE_RECORD));
    others.map(|secret| (secret.name_any(), secret.resource_version())).collect()
}

/// A generated value, retained if the object is called `kept`.
fn spec(name: &str) -> Value {
    let policy = if name == "kept" { "Retain" } else { "Delete" };
    json!({"name": name, "generate": {}, "deletionPolicy": policy})
}

/// The same with a revision, which made its second value. An apply that takes the revision away would leave no `generate`.
fn second(name: &str) -> Value {
    let mut spec = spec(name);
    spec["generate"]["revision"] = json!("a");
    spec
}

/// Three objects, and a record that a deleted one has left. Returns the first values of `one` and `kept`, which have had
/// another one since, so that their records keep these.
async fn filled(site: &Site) -> [String; 2] {
    for name in ["one", "two", "three", "kept"] {
        site.apply(name, spec(name)).await;
        site.in_step(name).await;
    }
    let first = async |name: &str| site.value(name, "value").await.unwrap();
    let values = [first("one").await, first("kept").await];
    for name in ["one", "kept"] {
        site.apply(name, second(name)).await;
        site.in_step(name).await;
        assert_ne!(first(name).await, values[usize::from(name == "kept")]);
    }
    site.delete("kept").await;
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_moves_to_the_new_seed_and_nothing_else_is_written() {
    let (keys, site) = (Keys::new().await, Site::new("seeds").await);
    let tap = Tap::recording();
    let operator = setup(&keys, &site).calls(&tap).start_with(keys.config.clone());
    let earlier = filled(&site).await;
    let [old] = keys.seeds().await.try_into().unwrap();
    assert_eq!(named(&site).await, [old].into());
    let before = others(&site).await;
    let objects = async || {
        let mut objects = Vec::new();
        for name in ["one", "two", "three"] {
            let object = site.in_step(name).await;
            objects.push((moved(&object), object.status.unwrap().created_date));
        }
        objects
    };
    let (described, value) = (objects().await, site.value("one", "value").await);
    let asked = tap.seen().len();

    keys.ask().await;
    let document = keys.rotated(2).await;
    let [entry_of_old, entry_of_new] = document.seeds().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(entry_of_old.seed_id(), Some(old), "it opens what a backup holds");
    let new = entry_of_new.seed_id().unwrap();
    assert_eq!(named(&site).await, [new].into());
    let request =
        keys.site.secret(keys::KEYRING_NAME).await.unwrap().annotations().get(keys::ANNO_KEYRING_REQUEST).cloned();
    assert_eq!(request, None, "the request is carried out");
    assert_eq!(objects().await, described);
    assert_eq!((others(&site).await, site.value("one", "value").await), (before, value.clone()));

    // A dry run and a write for each record, a status for each object, and lists.
    let seen = &tap.seen()[asked..];
    let count = |method: &str, part: &str, dry: bool| {
        let inside = format!("/namespaces/{}/", site.namespace);
        let fits = |seen: &&super::operator::Seen| {
            seen.method == method && seen.path.contains(&inside) && seen.path.contains(part) && seen.is_dry_run() == dry
        };
        seen.iter().filter(fits).count()
    };
    assert_eq!((count("PATCH", "/secrets/msec-", true), count("PATCH", "/secrets/msec-", false)), (4, 4), "{seen:#?}");
    assert_eq!((count("PATCH", "/secrets/", true), count("PATCH", "/secrets/", false)), (4, 4), "{seen:#?}");
    assert_eq!((count("PATCH", "/status", false), count("GET", "/secrets/", false)), (3, 0), "{seen:#?}");

    // New values are under the new seed; the record of a deleted object can be taken over.
    site.apply("one", json!({"name": "one", "generate": {"revision": "a"}, "description": "another"})).await;
    site.in_step("one").await;
    site.apply("new", json!({"name": "NEW", "generate": {}})).await;
    site.in_step("new").await;
    site.apply("kept", second("kept")).await;
    site.in_step("kept").await;
    assert_eq!(named(&site).await, [new].into());
    assert_eq!(site.value("one", "value").await, value);

    // The values before them moved as well, and go with a take-over and a rename.
    for (name, earlier) in ["one", "kept"].into_iter().zip(earlier) {
        let mut named = second(name);
        named["name"] = json!(format!("{name}-renamed"));
        named["version"] = json!(1);
        site.apply(name, named).await;
        site.delivers(name, "value", &earlier).await;
        let object = site.in_step(name).await;
        assert_eq!(object.status.unwrap().version, Some(2));
    }
    operator.stop().await;
}

/// One of two replicas hears nothing of the new seed until it meets a record under it.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_make_one_seed_and_one_that_hears_nothing_reads_it_when_it_needs_it() {
    let (keys, site, elsewhere) = (Keys::new().await, Site::new("seeds-one").await, Site::new("seeds-other").await);
    let first = setup(&keys, &site).start_with(keys.config.clone());
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    let deaf = Switch::new(|path| path.contains("/secrets?") && path.contains("fieldSelector=type"));
    deaf.on(&refusal(500, "InternalError", None));
    let both = vec![site.namespace.clone(), elsewhere.namespace.clone()];
    let second = Setup { namespaces: both, ..setup(&keys, &elsewhere) }.watches(&deaf.tap);
    let second = second.start_with(keys.config.clone());
    elsewhere.apply("db", json!({"name": "db", "generate": {}})).await;
    elsewhere.in_step("db").await;
    keys.ask().await;
    let document = keys.rotated(2).await;
    let new = document.seeds().nth(1).unwrap().seed_id().unwrap();
    assert_eq!(named(&site).await, [new].into());
    first.stop().await;
    site.apply("db", json!({"name": "db", "generate": {}, "description": "another"})).await;
    site.in_step("db").await;
    assert_eq!(named(&site).await, [new].into());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_from_a_backup_under_a_retired_seed_is_served_and_moves_to_the_active_one() {
    let (keys, site) = (Keys::new().await, Site::new("seeds-restored").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    let value = site.value("db", "value").await;
    let saved = site.record("db").await.unwrap();
    keys.ask().await;
    let new = keys.rotated(2).await.seeds().nth(1).unwrap().seed_id().unwrap();

    let live = site.record("db").await.unwrap();
    let mut restored = Secret { metadata: live.metadata.clone(), ..saved.clone() };
    restored.metadata.annotations = saved.metadata.annotations;
    restored.metadata.managed_fields = None;
    let secrets = site.as_restorer().await.secrets();
    secrets.replace(&record_name("db"), &PostParams::default(), &restored).await.unwrap();
    poll("the record to move again", PATIENCE, || async { Ok((named(&site).await == [new].into()).then_some(())) })
        .await
        .unwrap();
    site.in_step("db").await;
    assert_eq!(site.value("db", "value").await, value);
    keys.rotated(2).await;

    // A record that was forged or damaged stays as it is, and its seed is not retired.
    let mut damaged = site.record("db").await.unwrap();
    damaged.data = saved.data;
    damaged.metadata.managed_fields = None;
    site.apply("db", json!({"name": "db", "generate": {}, "suspend": true})).await;
    let bytes = damaged.data.as_mut().unwrap().get_mut("value").unwrap();
    let last_of_wrap = bytes.0.len() - 64 - 16 - 12 - 32 - 1;
    bytes.0[last_of_wrap] ^= 1;
    let replaced = secrets.replace(&record_name("db"), &PostParams::default(), &damaged).await.unwrap();
    keys.ask().await;
    let stuck =
        || operator.metrics().text().unwrap().contains("managed_secrets_rewrap_records_stuck{cause=\"unverified\"} 1");
    poll("the record to be counted", PATIENCE, || async { Ok(stuck().then_some(())) }).await.unwrap();
    let now = site.record("db").await.unwrap();
    assert_eq!((now.data, now.metadata.resource_version), (replaced.data, replaced.metadata.resource_version));
    poll("the seed that the damaged bytes name to count as used", PATIENCE, || async {
        Ok(keys.document().await.seeds().next().unwrap().unused.is_none().then_some(()))
    })
    .await
    .unwrap();
    operator.stop().await;
}

/// A backup program owns it, so an apply without it does not remove it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_earlier_value_that_another_manager_holds_keeps_no_seed_in_use() {
    let (keys, site) = (Keys::new().await, Site::new("seeds-held").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    let spec = |suspend: bool| json!({"name": "db", "generate": {"revision": "b"}, "suspend": suspend});
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    site.apply("db", spec(false)).await;
    site.in_step("db").await;
    let value = site.value("db", "value").await;
    // No pass mends the record before its re-wrap.
    site.apply("db", spec(true)).await;
    site.reports("db", "True", "Suspended").await;
    let exchanged = json!({"value.1": site.record("db").await.unwrap().data.unwrap()["value"]});
    let body =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": record_name("db")}, "data": exchanged});
    let velero = PatchParams::apply("velero").force();
    let secrets = site.as_restorer().await.secrets();
    secrets.patch(&record_name("db"), &velero, &Patch::Apply(&body)).await.unwrap();

    keys.ask().await;
    let new = keys.rotated(2).await.seeds().nth(1).unwrap().seed_id().unwrap();
    assert_eq!(named(&site).await, [new].into());
    let emptied = site.record("db").await.unwrap();
    assert!(emptied.data.as_ref().unwrap()["value.1"].0.is_empty());
    let text = operator.metrics().text().unwrap();
    assert_eq!(text.matches("managed_secrets_rewrap_records_stuck{").count(), 3, "{text}");
    assert!(
        !text.lines().any(|line| line.starts_with("managed_secrets_rewrap_records_stuck{") && !line.ends_with(" 0.0"))
    );

    // The loss is reported once, and what is empty goes.
    site.apply("db", spec(false)).await;
    site.in_step("db").await;
    assert!(!site.record("db").await.unwrap().data.unwrap().contains_key("value.1"));
    assert_eq!(site.value("db", "value").await, value);
    let notes = poll("the event", PATIENCE, || async {
        Ok(Some(site.events("db", "VersionLost").await).filter(|notes| !notes.is_empty()))
    })
    .await
    .unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    operator.stop().await;
}

/// The keyring of another cluster, and what was encrypted with it, come to this one.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_restored_keyring_move_to_the_active_seed_and_need_it_no_longer() {
    let (keys, other) = (Keys::new().await, Keys::new().await);
    let (site, moved_in) = (Site::new("seeds-here").await, Site::new("seeds-there").await);
    let operator = setup(&other, &moved_in).start_with(other.config.clone());
    moved_in.apply("db", json!({"name": "db", "generate": {}})).await;
    moved_in.in_step("db").await;
    let value = moved_in.value("db", "value").await;
    operator.stop().await;
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    operator.stop().await;
    let both = vec![site.namespace.clone(), moved_in.namespace.clone()];
    let operator = Setup { namespaces: both, ..setup(&keys, &site) }.start_with(keys.config.clone());
    let [active] = keys.seeds().await.try_into().unwrap();
    assert_eq!(named(&moved_in).await, other.seeds().await.into_iter().collect());

    let secrets = other.site.secrets().list(&ListParams::default()).await.unwrap().items;
    let kek = secrets.into_iter().find(|it| it.type_.as_deref() == Some(keys::TYPE_KEK)).unwrap();
    keys.restore(&kek, &kek.name_any()).await;
    keys.restore(&other.site.secret(keys::KEYRING_NAME).await.unwrap(), "restored-keyring").await;
    poll("the records to move", PATIENCE, || async { Ok((named(&moved_in).await == [active].into()).then_some(())) })
        .await
        .unwrap();
    moved_in.in_step("db").await;

    keys.take("restored-keyring").await;
    keys.take(&kek.name_any()).await;
    moved_in.apply("db", json!({"name": "db", "generate": {}, "description": "another"})).await;
    moved_in.in_step("db").await;
    assert_eq!(moved_in.value("db", "value").await, value);
    operator.stop().await;
}

/// The watch on keyrings shows nothing: only reads do.
#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_records_moves_to_a_seed_of_a_keyring_that_was_deleted_meanwhile() {
    let (keys, site) = (Keys::new().await, Site::new("seeds-deleted").await);
    let deaf = Switch::new(|path| path.contains("/secrets?") && path.contains("fieldSelector=type"));
    let (held, armed) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let (until, is_armed) = (held.clone(), Arc::clone(&armed));
    let tap = Tap::new(move |_, request| {
        let is_rewrap = request.method() == "PATCH" && request.uri().path().contains("/secrets/msec-");
        if is_rewrap && is_armed.load(Ordering::SeqCst) { Fault::Late(until.clone()) } else { Fault::Pass }
    });
    let operator = setup(&keys, &site).calls(&tap).watches(&deaf.tap).start_with(keys.config.clone());
    // More than a page.
    let records = 60;
    for number in 0..records {
        site.apply(&format!("s{number}"), json!({"name": format!("s{number}"), "generate": {}})).await;
    }
    for number in 0..records {
        site.in_step(&format!("s{number}")).await;
    }
    let [old] = keys.seeds().await.try_into().unwrap();
    let written = tap.tries("/secrets/msec-").len();
    armed.store(true, Ordering::SeqCst);
    keys.ask().await;
    poll("the first re-wrap", PATIENCE, || async { Ok((tap.tries("/secrets/msec-").len() > written).then_some(())) })
        .await
        .unwrap();
    deaf.on(&refusal(500, "InternalError", None));
    let keyring = keys.take(keys::KEYRING_NAME).await;
    armed.store(false, Ordering::SeqCst);
    held.cancel();
    poll("a read of the keyring", PATIENCE, || async {
        let is_it = |seen: &super::operator::Seen| seen.code == 404 && seen.path.ends_with(keys::KEYRING_NAME);
        Ok(tap.seen().iter().any(is_it).then_some(()))
    })
    .await
    .unwrap();
    let list = ListParams::default().fields(&format!("type={}", keys::TYPE_RECORD));
    let left = site.secrets().list(&list).await.unwrap().items;
    let left = left.iter().filter(|record| seeds_of(record).contains(&old)).count();
    assert!(left >= records - 50, "{left} records are left");

    deaf.off();
    keys.restore(&keyring, keys::KEYRING_NAME).await;
    keys.rotated(2).await;
    assert!(!named(&site).await.contains(&old));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_ever_stored_without_its_copy_for_the_recovery_key() {
    let (keys, site) = (Keys::new().await, Site::new("seeds-covered").await);
    let (key, witness) = (RecoveryKey::generate().unwrap(), Witness::of(&keys.site).await);
    let recovery = vec![key.recipient()];
    let timing = Timing { pending: Duration::ZERO, ..FAST };
    let operator = Setup { recovery, seeds: timing, ..setup(&keys, &site) }.start_with(keys.config.clone());
    site.apply("db", json!({"name": "db", "generate": {}})).await;
    site.in_step("db").await;
    keys.ask().await;
    keys.rotated(2).await;
    operator.stop().await;
    let states = witness.values(keys::KEYRING_NAME, keys::KEYRING_DATA_KEY).await;
    assert!(states.len() > 3, "{}", states.len());
    for state in states {
        let document: Document = serde_json::from_str(&state.unwrap()).unwrap();
        assert_eq!(Recovered::open(&key, [&document]).len(), document.entries.len());
    }
}

/// The keyring of a moment before is put back in the middle, beside what was there: no value is lost, and it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_keyring_from_a_backup_in_the_middle_of_a_rotation_loses_nothing() {
    let (keys, site) = (Keys::new().await, Site::new("seeds-old-keyring").await);
    let operator = setup(&keys, &site).start_with(keys.config.clone());
    filled(&site).await;
    let value = site.value("one", "value").await;
    let saved = keys.site.secret(keys::KEYRING_NAME).await.unwrap();
    keys.ask().await;
    let [old] = keys.seeds().await[..1].try_into().unwrap();
    poll("the new seed in use", PATIENCE, || async { Ok((named(&site).await != [old].into()).then_some(())) })
        .await
        .unwrap();
    operator.kill().await;
    let newer = keys.take(keys::KEYRING_NAME).await;
    keys.restore(&newer, "newer-keyring").await;
    keys.restore(&saved, keys::KEYRING_NAME).await;

    let operator = setup(&keys, &site).start_with(keys.config.clone());
    keys.ask().await;
    let document = keys.rotated(2).await;
    let new = document.seeds().nth(1).unwrap().seed_id().unwrap();
    for name in ["one", "two", "three"] {
        let mut described = if name == "one" { second(name) } else { spec(name) };
        described["description"] = json!("another");
        site.apply(name, described).await;
        site.in_step(name).await;
    }
    assert_eq!(site.value("one", "value").await, value);
    let records = ["one", "two", "three"].map(|name| site.record(name));
    for record in futures::future::join_all(records).await {
        assert_eq!(seeds_of(&record.unwrap()), [new].into());
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_of_a_rotation_changes_nothing_in_the_end() {
    sweep(MOST, rotate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_that_seals_keys_to_a_recovery_key_changes_nothing_in_the_end() {
    sweep(MOST, cover).await;
}

/// One rotation to the retirement of the earlier seed, of records with earlier values and with a recovery key.
async fn rotate(death: Option<Death>) -> Result<Run, String> {
    let (keys, site) = (Keys::new().await, Site::new("seeds-crash").await);
    let (killer, key) = (Killer::new(death), RecoveryKey::generate().unwrap());
    let start = |tap: &Arc<Tap>| {
        let setup = Setup { recovery: vec![key.recipient()], ..setup(&keys, &site) };
        setup.calls(tap).start_with(keys.config.clone())
    };
    let operator: Running = start(&killer.tap);
    for (name, revision) in [("one", "a"), ("two", "a"), ("two", "b")] {
        site.apply(name, json!({"name": name, "generate": {"revision": revision}})).await;
        site.in_step(name).await;
    }
    keys.until_it_opens(&key, 2).await;
    let (before, value) = (others(&site).await, site.value("one", "value").await);
    killer.arm();
    keys.ask().await;
    let ended = tokio::select! {
        () = killer.tap.died() => None,
        document = keys.rotated(2) => Some(document),
    };
    let (requests, died) = (killer.requests(), ended.is_none());
    operator.kill().await;
    let operator = start(&Tap::recording());
    let document = match ended {
        Some(document) => document,
        None => keys.rotated(2).await,
    };
    for name in ["one", "two"] {
        site.in_step(name).await;
    }
    let new = document.seeds().nth(1).and_then(Entry::seed_id).unwrap();
    let named = named(&site).await;
    if named != [new].into() {
        return Err(format!("records name {named:?}, and the new seed is {new}"));
    }
    // After a crash the operator may write a target again; what it delivers is the same.
    let after = others(&site).await;
    if before.keys().ne(after.keys()) || site.value("one", "value").await != value {
        return Err(format!("other Secrets: {after:?} instead of {before:?}, or another value"));
    }
    if Recovered::open(&key, [&document]).len() != document.entries.len() {
        return Err("the recovery key does not open every key".to_owned());
    }
    operator.stop().await;
    Ok(Run { requests, died })
}

/// The first start with a recovery key, over a keyring that has no copies.
async fn cover(death: Option<Death>) -> Result<Run, String> {
    let (keys, site) = (Keys::new().await, Site::new("cover-crash").await);
    let (killer, key) = (Killer::new(death), RecoveryKey::generate().unwrap());
    let operator = keys.serve(&site);
    site.apply("one", json!({"name": "one", "generate": {}})).await;
    let object = site.in_step("one").await;
    operator.stop().await;
    let bare = keys.document().await;
    killer.arm();
    let operator = keys.covering(&site, &[key.recipient()]).calls(&killer.tap).start_with(keys.config.clone());
    let ended = tokio::select! {
        () = killer.tap.died() => None,
        document = keys.until_it_opens(&key, 2) => Some(document),
    };
    let (requests, died) = (killer.requests(), ended.is_none());
    operator.kill().await;
    let operator = keys.covering(&site, &[key.recipient()]).start_with(keys.config.clone());
    let covered = keys.until_it_opens(&key, 2).await;
    operator.stop().await;
    let without = covered.entries.iter().map(|entry| Entry { recovery: Vec::new(), ..entry.clone() });
    if bare.entries != without.collect::<Vec<_>>() || site.get("one").await != object {
        return Err("more than the copies has changed".to_owned());
    }
    Ok(Run { requests, died })
}
