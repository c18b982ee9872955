//! Keyrings under a KMS plugin: from the first start, while KEKs are replaced, and while the plugin does not answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use managed_secrets::keyring::{
    kms::{KmsAddress, KmsTiming},
    providers::{Primary, ProviderOptions},
};
use managed_secrets_api::keys;
use managed_secrets_crypto::{
    Kek,
    keyring::Document,
    recovery::{Recovered, RecoveryKey},
};
use managed_secrets_engine::health::Probe;
use managed_secrets_kms::Socket;
use serde_json::json;
use testkit::poll;

use super::{
    super::{
        deaths::{Death, Killer, Run, sweep},
        lost_keys::Keys,
        objects::{Site, message},
        operator::{PATIENCE, Running, Setup},
    },
    plugin::{Plugin, given},
};

/// Seconds instead of minutes.
const FAST: KmsTiming = KmsTiming {
    call: Duration::from_secs(5),
    healthy: Duration::from_millis(200),
    unhealthy: Duration::from_millis(200),
    grace: Duration::from_secs(24 * 3600),
    settle: Duration::ZERO,
};
/// More requests than a replacement has: a sweep that gets there goes round in circles.
const MOST: usize = 60;

/// Which providers an operator has. The first plugin is the primary one.
#[derive(Clone, Copy)]
struct Choice<'p> {
    primary: Primary,
    kms: &'p [(&'p str, &'p Socket)],
    file: Option<[u8; 32]>,
}

const LOCAL: Choice<'static> = Choice { primary: Primary::Local, kms: &[], file: None };

fn kms<'p>(kms: &'p [(&'p str, &'p Socket)]) -> Choice<'p> {
    Choice { primary: Primary::Kms, kms, file: None }
}

impl Choice<'_> {
    fn options(self) -> ProviderOptions {
        let address =
            |(name, socket): &(&str, &Socket)| KmsAddress { name: (*name).to_owned(), socket: (*socket).clone() };
        let kms = self.kms.iter().map(address).collect();
        ProviderOptions { primary: self.primary, file: self.file.map(|kek| Kek::new(&kek).unwrap()), kms, timing: FAST }
    }
}

fn setup(keys: &Keys, site: &Site, choice: Choice<'_>) -> Setup {
    let operator_namespace = keys.site.namespace.clone();
    Setup { operator_namespace, providers: choice.options(), ..Setup::of(&site.namespace) }
}

fn start(keys: &Keys, site: &Site, choice: Choice<'_>) -> Running {
    setup(keys, site, choice).start_with(keys.config.clone())
}

async fn document(keys: &Keys) -> Option<Document> {
    let secret = keys.site.secret(keys::KEYRING_NAME).await?;
    serde_json::from_slice(&secret.data?[keys::KEYRING_DATA_KEY].0).ok()
}

/// The local KEKs that are stored.
async fn keks(keys: &Keys) -> Vec<String> {
    let list = ListParams::default().fields(&format!("type={}", keys::TYPE_KEK));
    keys.site.secrets().list(&list).await.unwrap().iter().map(kube::ResourceExt::name_any).collect()
}

/// Waits until every key is under a KEK that fits.
async fn until_under(keys: &Keys, what: &str, fits: impl Fn(&str, &str) -> bool) -> Document {
    poll(&format!("every key under {what}"), PATIENCE, || async {
        let fit =
            |document: &Document| document.entries.iter().all(|it| fits(&it.wrapped.provider, &it.wrapped.key_id));
        Ok(document(keys).await.filter(fit))
    })
    .await
    .unwrap()
}

/// Asks for a new KEK, as `kubectl msec keys rotate --kek` does.
async fn ask(keys: &Keys) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_KEYRING_REQUEST: "rotate kek"}}}));
    keys.site.secrets().patch(keys::KEYRING_NAME, &PatchParams::default(), &patch).await.unwrap();
}

/// Waits until the request is gone.
async fn until_answered(keys: &Keys) {
    poll("the request to be carried out", PATIENCE, || async {
        let secret = keys.site.secret(keys::KEYRING_NAME).await.unwrap();
        Ok((!secret.annotations().contains_key(keys::ANNO_KEYRING_REQUEST)).then_some(()))
    })
    .await
    .unwrap();
}

async fn generated(site: &Site, name: &str) -> String {
    site.apply(name, json!({"name": name, "generate": {}})).await;
    site.in_step(name).await;
    site.value(name, "value").await.unwrap()
}

fn calls(plugin: &Plugin, call: &str) -> usize {
    plugin.calls().iter().filter(|made| made.starts_with(call)).count()
}

/// What of a namespace must not change while a KEK is replaced.
async fn versions(site: &Site) -> BTreeMap<String, Option<String>> {
    let all = site.secrets().list(&ListParams::default()).await.unwrap();
    all.into_iter().map(|secret| (secret.name_any(), secret.resource_version())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_with_a_plugin_stores_no_kek() {
    let (keys, site, plugin) = (Keys::new().await, Site::new("kms-first").await, Plugin::start().await);
    let one = [("one", &plugin.socket())];
    let operator = start(&keys, &site, kms(&one));
    let value = generated(&site, "db").await;
    assert!(keks(&keys).await.is_empty());
    let stored = document(&keys).await.unwrap();
    for entry in &stored.entries {
        assert_eq!((entry.wrapped.provider.as_str(), entry.wrapped.key_id.as_str()), ("kms:one", "1"));
        assert_eq!(entry.wrapped.annotations["algorithm.kms.managedsecrets.dev"], "QUVTLTI1Ni1HQ00=");
    }
    assert_eq!(calls(&plugin, "Encrypt"), stored.entries.len(), "one for each key, and none for a value");
    operator.stop().await;
    // One Decrypt for each key, none for a value, and none when the keyring is read again.
    let (before, decrypts) = (versions(&site).await, calls(&plugin, "Decrypt"));
    let operator = start(&keys, &site, kms(&one));
    generated(&site, "another").await;
    keys.site.intrude(keys::KEYRING_NAME, json!({"metadata": {"labels": {"a": "b"}}})).await;
    generated(&site, "third").await;
    assert_eq!(calls(&plugin, "Decrypt") - decrypts, stored.entries.len());
    assert_eq!(document(&keys).await.unwrap(), stored);
    let now = versions(&site).await;
    assert!(before.iter().all(|(name, version)| now.get(name) == Some(version)), "{before:?} {now:?}");
    assert_eq!(site.value("db", "value").await.unwrap(), value);
    operator.stop().await;

    // Without the plugin's name, and with another plugin in its place: nothing is changed or created.
    let before = versions(&keys.site).await;
    let said = start(&keys, &site, LOCAL).ended().await.unwrap_err().to_string();
    assert!(said.contains("start the operator with --kms one=unix:///PATH"), "{said}");
    let other = Plugin::start().await;
    let others = [("one", &other.socket())];
    let operator = start(&keys, &site, kms(&others));
    until_not_ready(&operator, "KMS plugin one: the plugin answered Decrypt with the error").await;
    operator.kill().await;
    assert_eq!(versions(&keys.site).await, before);
}

/// Waits until the operator says why it is not ready. It counts as started, since no restart helps.
async fn until_not_ready(operator: &Running, says: &str) {
    poll("the operator to say why it is not ready", PATIENCE, || async {
        let report = operator.health().report(Probe::Ready);
        Ok((!report.passes() && report.text(true).contains(says)).then_some(()))
    })
    .await
    .unwrap();
    assert!(operator.health().report(Probe::Started).passes() && operator.health().report(Probe::Live).passes());
}

/// One of the plugins is the one that is given, if one is.
#[tokio::test(flavor = "multi_thread")]
async fn keys_move_from_each_provider_to_each_other_one_while_operators_run() {
    let (keys, site) = (Keys::new().await, Site::new("kms-moves").await);
    let (first, second) = (Plugin::start().await, Plugin::start().await);
    let (a, b) = (given().unwrap_or_else(|| first.socket()), second.socket());
    let operator = start(&keys, &site, LOCAL);
    let value = generated(&site, "db").await;
    operator.stop().await;
    let mut generation = document(&keys).await.unwrap().generation;
    let file = Some([0xfe; 32]);
    let only_a = [("a", &a)];
    let (a_and_b, b_and_a) = ([("a", &a), ("b", &b)], [("b", &b), ("a", &a)]);
    let only_b = [("b", &b)];
    let moves = [
        ("kms:a", kms(&only_a), kms(&only_a)),
        ("kms:b", kms(&b_and_a), kms(&only_b)),
        ("kms:a", kms(&a_and_b), kms(&only_a)),
        (
            "file",
            Choice { primary: Primary::File, kms: &only_a, file },
            Choice { primary: Primary::File, kms: &[], file },
        ),
        ("kms:b", Choice { primary: Primary::Kms, kms: &only_b, file }, kms(&only_b)),
        ("local", Choice { primary: Primary::Local, kms: &only_b, file: None }, LOCAL),
        ("file", Choice { primary: Primary::File, kms: &[], file }, Choice { primary: Primary::File, kms: &[], file }),
        ("local", Choice { primary: Primary::Local, kms: &[], file }, LOCAL),
    ];
    for (n, (provider, during, after)) in moves.into_iter().enumerate() {
        let before = versions(&site).await;
        let operator = start(&keys, &site, during);
        let stored = until_under(&keys, provider, |it, _| it == provider).await;
        generation += 1;
        assert_eq!(stored.generation, generation, "one write, which the check for older keyrings counts");
        let left = || operator.metrics().text().unwrap().contains("\nmanaged_secrets_keys_under_other_kek 0");
        poll("the metric to say so", PATIENCE, || async { Ok(left().then_some(())) }).await.unwrap();
        assert_eq!(versions(&site).await, before, "{provider}: nothing but the keyring is written");
        operator.stop().await;
        // What held the keys before is not needed any more.
        let operator = start(&keys, &site, after);
        generated(&site, &format!("new-{n}")).await;
        assert_eq!(site.value("db", "value").await.as_ref(), Some(&value));
        operator.stop().await;
    }
    assert_eq!(keks(&keys).await.len(), 3, "no KEK is deleted, and none is used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_plugin_encrypts_every_key_of_the_keyring_again() {
    let (keys, site, plugin) = (Keys::new().await, Site::new("kms-rotated").await, Plugin::start().await);
    let one = [("one", &plugin.socket())];
    let recovery = RecoveryKey::generate().unwrap();
    let start = || {
        let setup = setup(&keys, &site, kms(&one));
        Setup { recovery: vec![recovery.recipient()], ..setup }.start_with(keys.config.clone())
    };
    let operator = start();
    let value = generated(&site, "db").await;
    let covered = keys.until_it_opens(&recovery, 2).await;
    let before = versions(&site).await;

    // An answer that names another key than the status is not used.
    plugin.faults(&json!({"encryptKeyId": "3"}));
    plugin.rotate("2");
    let tried = calls(&plugin, "Encrypt");
    poll("two tries", PATIENCE, || async { Ok((calls(&plugin, "Encrypt") >= tried + 2).then_some(())) }).await.unwrap();
    assert_eq!(document(&keys).await.unwrap(), covered);
    for fault in [
        json!({"ciphertextBytes": 1025}),
        json!({"noEncryption": true}),
        json!({"wrongPlaintext": true}),
        json!({"fail": ["Encrypt"]}),
        json!({"hang": ["Encrypt"]}),
    ] {
        plugin.faults(&fault);
        let tried = plugin.calls().len();
        let more = async || Ok((calls_after(&plugin, tried, "Encrypt") >= 1).then_some(()));
        poll(&format!("a try with {fault}"), PATIENCE, more).await.unwrap();
        assert_eq!(document(&keys).await.unwrap(), covered, "{fault}");
    }
    plugin.faults(&json!({}));
    let rotated = until_under(&keys, "the second key", |_, key| key == "2").await;
    assert_eq!(rotated.generation, covered.generation + 1);
    assert_eq!(versions(&site).await, before);
    let copies = |document: &Document| document.entries.iter().map(|it| it.recovery.clone()).collect::<Vec<_>>();
    assert_eq!(copies(&rotated), copies(&covered), "the copies for the recovery key are the same");
    assert_eq!(Recovered::open(&recovery, [&rotated]).len(), 2);
    operator.stop().await;
    plugin.forget("1");
    let operator = start();
    generated(&site, "another").await;
    assert_eq!(site.value("db", "value").await.unwrap(), value);
    operator.stop().await;
}

fn calls_after(plugin: &Plugin, before: usize, call: &str) -> usize {
    plugin.calls()[before..].iter().filter(|made| made.starts_with(call)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_kek_is_replaced_on_request_and_two_replicas_agree() {
    let (keys, site) = (Keys::new().await, Site::new("kek-replaced").await);
    let other_site = Site::new("kek-replaced-too").await;
    // One after the other: of two that start at once, each may create a KEK.
    let first = start(&keys, &site, LOCAL);
    let value = generated(&site, "db").await;
    let second = start(&keys, &other_site, LOCAL);
    generated(&other_site, "db").await;
    let [old] = keks(&keys).await.try_into().unwrap();
    let before = (document(&keys).await.unwrap(), versions(&site).await);
    ask(&keys).await;
    until_answered(&keys).await;
    let is_old = |key_id: &str| old.ends_with(key_id);
    let after = until_under(&keys, "a new KEK", |_, key| !is_old(key)).await;
    let ids: std::collections::BTreeSet<_> = after.entries.iter().map(|entry| &entry.wrapped.key_id).collect();
    assert_eq!(ids.len(), 1, "two that write at once agree");
    assert!(keks(&keys).await.contains(&old), "an administrator removes it");
    assert_eq!(versions(&site).await, before.1);
    let same = |document: &Document| {
        document.entries.iter().map(|it| (it.id.clone(), it.state, it.created.clone())).collect::<Vec<_>>()
    };
    assert_eq!(same(&after), same(&before.0));
    keys.take(&old).await;
    generated(&site, "new").await;
    first.stop().await;
    second.stop().await;
    let operator = start(&keys, &site, LOCAL);
    generated(&site, "newer").await;
    assert_eq!(site.value("db", "value").await.unwrap(), value);
    operator.stop().await;

    // A file is replaced by other means: the request ends, and nothing else happens.
    let file = Choice { primary: Primary::File, kms: &[], file: Some([0xfd; 32]) };
    let operator = start(&keys, &site, file);
    let under_file = until_under(&keys, "the file", |provider, _| provider == "file").await;
    ask(&keys).await;
    until_answered(&keys).await;
    assert_eq!(document(&keys).await.unwrap(), under_file);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_plugin_stops_nothing_for_a_time_and_new_values_after_it() {
    let (keys, site, mut plugin) = (Keys::new().await, Site::new("kms-silent").await, Plugin::start().await);
    let socket = plugin.socket();
    let options = |grace: Duration| ProviderOptions {
        primary: Primary::Kms,
        file: None,
        kms: vec![KmsAddress { name: "one".to_owned(), socket: socket.clone() }],
        timing: KmsTiming { grace, ..FAST },
    };
    let start = |grace: Duration| {
        let setup = setup(&keys, &site, LOCAL);
        Setup { providers: options(grace), ..setup }.start_with(keys.config.clone())
    };
    let metric = async |operator: &Running, line: &str| {
        let says = || operator.metrics().text().unwrap().lines().any(|it| it == line);
        poll(line, PATIENCE, || async { Ok(says().then_some(())) }).await.unwrap();
    };
    let operator = start(FAST.grace);
    let value = generated(&site, "db").await;
    plugin.stop();
    metric(&operator, "managed_secrets_kms_plugins_silent 1.0").await;
    generated(&site, "in-time").await;
    // A keyring that changes meanwhile is read from memory.
    keys.site.intrude(keys::KEYRING_NAME, json!({"metadata": {"labels": {"a": "b"}}})).await;
    generated(&site, "in-time-too").await;
    let ready = operator.health().report(Probe::Ready);
    assert!(ready.passes() && ready.text(true).contains("KMS plugin one: cannot connect"), "{}", ready.text(true));
    operator.stop().await;

    // A restart waits, says so, and goes on by itself.
    let operator = start(Duration::ZERO);
    until_not_ready(&operator, "KMS plugin one: cannot connect to the plugin at").await;
    assert_eq!(site.value("db", "value").await.unwrap(), value, "what is delivered stays");
    plugin.run().await;
    generated(&site, "after").await;
    assert!(operator.health().report(Probe::Ready).passes());

    // The time is over at once. What is delivered stays, is repaired, and can get another description.
    plugin.faults(&json!({"hang": ["Status"]}));
    metric(&operator, "managed_secrets_kms_grace_over 1.0").await;
    site.apply("late", json!({"name": "late", "generate": {}})).await;
    let refused = site.reports("late", "Unknown", "KmsUnreachable").await;
    assert!(
        message(&refused).starts_with("KMS plugin one has not answered for longer than --kms-grace"),
        "{}",
        message(&refused)
    );
    site.intrude("db", json!({"data": {"value": "eA=="}})).await;
    site.delivers("db", "value", &value).await;
    site.apply("db", json!({"name": "db", "generate": {}, "description": "still there"})).await;
    site.in_step("db").await;
    assert!(operator.health().report(Probe::Ready).passes());
    plugin.faults(&json!({}));
    metric(&operator, "managed_secrets_kms_grace_over 0.0").await;
    site.in_step("late").await;
    assert_eq!(site.value("db", "value").await.unwrap(), value);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_request_of_a_replacement_changes_nothing_in_the_end() {
    let plugin = Arc::new(Plugin::start().await);
    for to_plugin in [false, true] {
        sweep(MOST, |death| crashed(death, Arc::clone(&plugin), to_plugin)).await;
    }
}

/// One replacement of the local KEK, by another one or by a plugin, with a crash.
async fn crashed(death: Option<Death>, plugin: Arc<Plugin>, to_plugin: bool) -> Result<Run, String> {
    let (keys, site) = (Keys::new().await, Site::new("kek-crash").await);
    let operator = start(&keys, &site, LOCAL);
    let value = generated(&site, "db").await;
    let before = (versions(&site).await, keks(&keys).await, document(&keys).await.unwrap());
    operator.stop().await;

    let killer = Killer::within(&format!("/namespaces/{}/", keys.site.namespace), death);
    if to_plugin {
        killer.arm();
    }
    let one = [("one", &plugin.socket())];
    let choice = if to_plugin { kms(&one) } else { LOCAL };
    let operator = setup(&keys, &site, choice).calls(&killer.tap).start_with(keys.config.clone());
    if !to_plugin {
        site.nudge("db").await;
        generated(&site, "probe").await;
        killer.arm();
        ask(&keys).await;
    }
    let old = before.1[0].clone();
    let is_new = |provider: &str, key: &str| if to_plugin { provider == "kms:one" } else { !old.ends_with(key) };
    let died = tokio::select! {
        () = killer.tap.died() => true,
        _ = until_under(&keys, "the new KEK", is_new) => false,
    };
    let requests = killer.requests();
    operator.kill().await;
    let operator = start(&keys, &site, choice);
    let after = until_under(&keys, "the new KEK", is_new).await;
    if !to_plugin {
        until_answered(&keys).await;
        site.delete("probe").await;
    }
    generated(&site, "late").await;
    if after.generation != before.2.generation + 1 {
        return Err(format!("{} changes of the keyring", after.generation - before.2.generation));
    }
    let stored = keks(&keys).await.len();
    if stored != if to_plugin { 1 } else { 2 } {
        return Err(format!("{stored} local KEKs are stored"));
    }
    let now = versions(&site).await;
    if site.value("db", "value").await.as_ref() != Some(&value)
        || before.0.iter().any(|(name, it)| now.get(name) != Some(it))
    {
        return Err("a Secret was written".to_owned());
    }
    operator.stop().await;
    Ok(Run { requests, died })
}
