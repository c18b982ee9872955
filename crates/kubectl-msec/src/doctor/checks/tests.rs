//! The rules of the checks. `tests/integration/msec/doctor` breaks a cluster in most of these ways.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keyring_request::Requests;
use managed_secrets_api::keys::{
    ANNO_KEYRING_SEEN, CONDITION_READY, CONDITION_STALLED, GROUP, KEYRING_NAME, LABEL_ID, LABEL_ROLE, OPERATOR_NAME,
    POLICIES, PUBLIC_KEY_DATA_KEY, ROLE_TARGET, SEAL_CONFIGURATION, SEAL_WEBHOOK, WARN_CONFIGURATION, WARN_WEBHOOK,
};
use managed_secrets_api::limits::AUTHORITY_DAYS;
use managed_secrets_api::record::RecordMeta;
use managed_secrets_api::types::DeletionPolicy;
use managed_secrets_api::{ManagedSecret, crd::crd as current_crd};
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::{Handling, PublicKey, PublishedKey, Scope, SealingKey, seal};
use managed_secrets_crypto::provider::Provider;
use managed_secrets_crypto::recovery::{RecoveryCopy, RecoveryKey};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::{
    facts::{NEEDS, Served},
    finding::{Level, Read},
};
use super::*;
use crate::archive::{StoredKeyring, testing};

fn unknown<T>() -> Read<T> {
    Read::Unknown("needs `x`".to_owned())
}

/// Nothing could be read.
fn blind() -> Facts {
    Facts {
        now: Timestamp::now(),
        own: "system".to_owned(),
        namespace: "shop".to_owned(),
        server: unknown(),
        crd: unknown(),
        deployment: unknown(),
        served: unknown(),
        account: unknown(),
        endpoints: unknown(),
        mutating: unknown(),
        validating: unknown(),
        api_service: unknown(),
        front_proxy: unknown(),
        policies: unknown(),
        bindings: unknown(),
        authorities: unknown(),
        keyrings: unknown(),
        keks: unknown(),
        public_key: unknown(),
        objects: unknown(),
        records: unknown(),
        targets: unknown(),
        permissions: unknown(),
    }
}

fn levels(check: &str, facts: &Facts) -> Vec<Level> {
    let check = CHECKS.iter().find(|it| it.name == check).unwrap();
    check.findings(facts).into_iter().map(|finding| finding.level).collect()
}

#[test]
fn names_are_told_apart_and_what_is_not_read_is_never_a_problem() {
    let names: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), CHECKS.len());
    for check in &CHECKS {
        let findings = check.findings(&blind());
        let known = check.name == "audit log";
        assert!(findings.iter().all(|it| (it.level == Level::Unknown) != known), "{findings:?}");
        assert!(findings.iter().all(|it| known || it.what == "cannot be checked: needs `x`"), "{findings:?}");
        assert_eq!(findings.len(), 1);
    }
}

/// An object of the API, which has what these rules need.
fn object<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn known<T: DeserializeOwned>(json: Value) -> Read<T> {
    Read::Known(object(json))
}

/// The operator's Deployment.
fn deployment(replicas: i32, available: i32, image: &str, argument: &str) -> Read<Option<Deployment>> {
    let container = json!({"name": "operator", "image": image, "args": [argument]});
    let template = json!({"spec": {"containers": [container]}});
    known(json!({
        "spec": {"replicas": replicas, "selector": {}, "template": template},
        "status": {"availableReplicas": available},
    }))
}

/// The Deployment names some of three recovery keys, or is not known; every key of the keyring has copies for others.
fn recoverable(named: &[usize], copied: &[usize]) -> Facts {
    let recipients = [(); 3].map(|()| RecoveryKey::generate().unwrap().recipient());
    let Facts { keyrings: Read::Known(mut keyrings), .. } = keyring(KEYRING_NAME, "active", 1, Provider::LOCAL) else {
        panic!("a keyring")
    };
    for entry in keyrings.iter_mut().flat_map(|(_, keyring)| &mut keyring.as_mut().unwrap().document.entries) {
        let copy = |it: &usize| RecoveryCopy { recipient: recipients[*it].id().to_string(), ..RecoveryCopy::default() };
        entry.recovery = copied.iter().map(copy).collect();
    }
    let texts: Vec<_> = named.iter().map(|it| recipients[*it].to_string()).collect();
    let argument = format!("--recovery-recipient={}", texts.join(","));
    let deployment = if named.is_empty() { unknown() } else { with_flag(&argument).deployment };
    Facts { keyrings: Read::Known(keyrings), deployment, ..blind() }
}

/// The operator has seen a keyring with these keys.
fn seen(keys: &[&str]) -> Read<Option<ConfigMap>> {
    let text = json!({"generation": 9, "keys": keys}).to_string();
    known(json!({"metadata": {"annotations": {(ANNO_KEYRING_SEEN): text}}}))
}

fn with_flag(argument: &str) -> Facts {
    Facts { deployment: deployment(2, 2, "i", argument), ..blind() }
}

/// The operator has the variable of the value API instead of the flag.
fn with_variable() -> Facts {
    let container = json!({"name": "operator", "env": [{"name": "MANAGED_SECRETS_VALUE_API", "value": "true"}]});
    let deployment = json!({"spec": {"selector": {}, "template": {"spec": {"containers": [container]}}}});
    Facts { deployment: known(deployment), ..blind() }
}

fn operator(replicas: i32, available: i32, image: &str) -> Facts {
    let account = known(json!({"metadata": {}}));
    Facts { deployment: deployment(replicas, available, image, "run"), account, ..blind() }
}

/// The operator serves a namespace only, which exists or not, and gives it permissions there or not.
fn serves(exists: bool, bound: bool) -> Facts {
    Facts { served: Read::Known(vec![Served { namespace: "shop".to_owned(), exists, bound }]), ..blind() }
}

fn server(minor: &str) -> Facts {
    Facts { server: Read::Known(("1".to_owned(), minor.to_owned())), ..blind() }
}

/// This version's CRD, established or not, with or without a change of its spec.
fn crd(is_established: &str, change: fn(&mut Value)) -> Facts {
    let mut found = serde_json::to_value(current_crd()).unwrap();
    let condition = json!({"type": "Established", "status": is_established, "reason": "R", "message": "names in use"});
    found["status"] = json!({"conditions": [condition]});
    change(&mut found["spec"]);
    Facts { crd: known(found), ..blind() }
}

/// Every policy, each with a binding of this action.
fn policies(failure_policy: &str, action: &str) -> Facts {
    let policy = |name: &&str| json!({"metadata": {"name": name}, "spec": {"failurePolicy": failure_policy}});
    let binding = |name: &&str| json!({"metadata": {}, "spec": {"policyName": name, "validationActions": [action]}});
    let (policies, bindings) = (POLICIES.iter().map(policy).collect(), POLICIES.iter().map(binding).collect());
    Facts { policies: known(policies), bindings: known(bindings), ..with_flag("run") }
}

/// Both webhook configurations with this client, and one of another program, whose rules concern these resources.
fn webhooks(client: &Value, other: &str, resources: &str) -> Facts {
    let webhook = |name: &str| {
        let (side_effects, versions) = ("None", ["v1"]);
        json!({"name": name, "clientConfig": client, "sideEffects": side_effects, "admissionReviewVersions": versions})
    };
    let mut theirs = webhook("other.example.com");
    theirs["rules"] = json!([{
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resources], "operations": ["CREATE"],
    }]);
    let mutating = json!([
        {"metadata": {"name": SEAL_CONFIGURATION}, "webhooks": [webhook(SEAL_WEBHOOK)]},
        {"metadata": {"name": other}, "webhooks": [theirs]},
    ]);
    let validating = json!([{"metadata": {"name": WARN_CONFIGURATION}, "webhooks": [webhook(WARN_WEBHOOK)]}]);
    Facts { mutating: known(mutating), validating: known(validating), ..with_flag("run") }
}

fn trusted() -> Value {
    json!({"caBundle": "YQ==", "service": {"name": OPERATOR_NAME, "namespace": "system"}})
}

fn endpoints(ready: bool) -> Facts {
    let slice = json!({
        "metadata": {}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
    });
    Facts { endpoints: known(json!([slice])), ..webhooks(&trusted(), "zzz", "pods") }
}

/// The certificate authority was created so many days ago.
fn authority(days: &[i64]) -> Facts {
    let created = days.iter().map(|days| Timestamp::now() - SignedDuration::from_hours(24 * days)).collect();
    Facts { authorities: Read::Known(Some(created)), ..with_flag("run") }
}

/// The APIService of the value API in this state, whose Service is in this namespace, owned or not, and an operator that
/// serves the API or not.
fn registered(status: &str, namespace: &str, is_owned: bool, argument: &str) -> Facts {
    let owner = json!([{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": "r", "uid": "u"}]);
    let condition = json!({"type": "Available", "status": status, "reason": "R", "message": "no endpoints"});
    let service = json!({
        "metadata": {"ownerReferences": if is_owned { owner } else { json!([]) }},
        "spec": {"service": {"name": OPERATOR_NAME, "namespace": namespace}, "groupPriorityMinimum": 1, "versionPriority": 1},
        "status": {"conditions": [condition]},
    });
    Facts { api_service: known(service), ..front_proxy("proxy", "[\"front-proxy\"]", argument) }
}

/// What the API server publishes of its front proxy, where users' certificates are signed by `users`.
fn front_proxy(authority: &str, names: &str, argument: &str) -> Facts {
    let data = json!({
        "client-ca-file": "users", "requestheader-client-ca-file": authority, "requestheader-allowed-names": names,
    });
    Facts { front_proxy: known(json!({"metadata": {}, "data": data})), ..with_flag(argument) }
}

/// A registered, available API with this front proxy.
fn trusts(authority: &str, names: &str) -> Facts {
    let facts = registered("True", "system", true, "--value-api");
    Facts { front_proxy: front_proxy(authority, names, "").front_proxy, ..facts }
}

/// The public key of which the keyring has the other half.
fn public_key() -> PublicKey {
    SealingKey::new(Zeroizing::new([0x22; 32])).unwrap().public().clone()
}

/// A keyring of this name, with a key for records and one for sealing, which are in this state, were created so many days
/// ago, and are encrypted by this provider with the key `kek`.
fn keyring(name: &str, state: &str, days: i64, provider: &str) -> Facts {
    let created = (Timestamp::now() - SignedDuration::from_hours(24 * days)).to_string();
    let wrapped = json!({"provider": provider, "keyId": "kek", "ciphertext": ""});
    let entry = |purpose: &str, id: &str| json!({"id": id, "purpose": purpose, "state": state, "created": created, "wrapped": wrapped});
    let id = public_key().key_id().to_string();
    let document = json!({"format": "MSK1", "entries": [entry("record", testing::SEED), entry("sealing", &id)]});
    let stored = StoredKeyring {
        name: name.to_owned(),
        document: object(document),
        fingerprint: "fingerprint".to_owned(),
        requests: Requests::default(),
    };
    let keks = Read::Known(BTreeSet::from(["kek".to_owned()]));
    Facts { keyrings: Read::Known(vec![(name.to_owned(), Some(stored))]), keks, ..blind() }
}

#[test]
fn a_seed_that_is_being_replaced_is_noted_and_one_that_takes_days_is_a_warning() {
    let facts = |hours: i64, earlier: Value, state: &str| {
        let created = |hours| (Timestamp::now() - SignedDuration::from_hours(hours)).to_string();
        let entry = |id: &str, state: &str, hours: i64, more: Value| {
            let wrapped = json!({"provider": Provider::LOCAL, "keyId": "kek", "ciphertext": ""});
            let mut entry =
                json!({"id": id, "purpose": "record", "state": state, "created": created(hours), "wrapped": wrapped});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let mut facts = keyring(KEYRING_NAME, "active", 100, Provider::LOCAL);
        let Read::Known(keyrings) = &mut facts.keyrings else { panic!("a keyring") };
        let before = if state == "active" { "open-only" } else { "active" };
        let entries = [entry("0102030405060708", before, 2000, earlier), entry(testing::SEED, state, hours, json!({}))];
        keyrings[0].1.as_mut().unwrap().document = object(json!({"format": "MSK1", "entries": entries}));
        facts
    };
    let said = |facts: &Facts| {
        let found = CHECKS.iter().find(|it| it.name == "keyring").unwrap().findings(facts);
        let moves = |it: &Finding| it.what.contains("0102030405060708") || it.what.contains("pending");
        found.into_iter().find(moves).map(|it| it.level)
    };
    let since = json!({"unused": {"since": "2026-01-01T00:00:00Z"}});
    let confirmed = json!({"unused": {"since": "2026-01-01T00:00:00Z", "confirmed": "2026-01-01T02:00:00Z"}});
    for (hours, earlier, state, level) in [
        (1, json!({}), "active", Some(Level::Note)),
        (1, since.clone(), "active", Some(Level::Note)),
        (25, json!({}), "active", Some(Level::Warning)),
        (25, since, "active", Some(Level::Warning)),
        (25, confirmed, "active", None),
        (0, json!({}), "pending", Some(Level::Note)),
        (25, json!({}), "pending", Some(Level::Warning)),
    ] {
        assert_eq!(said(&facts(hours, earlier.clone(), state)), level, "{hours} {earlier} {state}");
    }
}

#[test]
fn a_request_that_waits_is_noted_and_one_that_nothing_carries_out_is_a_warning() {
    let said = |text: &str| -> Vec<_> {
        let mut facts = keyring(KEYRING_NAME, "active", 1, Provider::LOCAL);
        let Read::Known(keyrings) = &mut facts.keyrings else { panic!("a keyring") };
        keyrings[0].1.as_mut().unwrap().requests = Requests::parse(text);
        let found = CHECKS.iter().find(|it| it.name == "keyring").unwrap().findings(&facts);
        found.into_iter().filter(|it| it.what.contains(" asked for ")).map(|it| (it.level, it.what)).collect()
    };
    assert!(said("").is_empty());
    let waits = "the operator was asked for this, and has not done it: rotate seed";
    assert_eq!(said("rotate seed"), [(Level::Note, waits.to_owned())]);
    let both = said("rotate seed, revoke all\n");
    let [(Level::Note, _), (Level::Warning, unknown)] = &both[..] else { panic!("{both:?}") };
    assert!(unknown.ends_with(": revoke all"), "{unknown}");
}

/// The keyring of an operator in good health.
fn own_keyring() -> Facts {
    keyring(KEYRING_NAME, "active", 1, Provider::LOCAL)
}

/// These facts, with the public key of the keyring published, created so many days ago.
fn published(days: i64, facts: Facts) -> Facts {
    let created = Timestamp::now() - SignedDuration::from_hours(24 * days);
    published_text(&PublishedKey::new(public_key(), created).to_json().unwrap(), facts)
}

fn published_text(text: &str, facts: Facts) -> Facts {
    Facts { public_key: known(json!({"metadata": {}, "data": {PUBLIC_KEY_DATA_KEY: text}})), ..facts }
}

/// A ManagedSecret whose value was sealed for the key of this seed.
fn sealed_for(seed: u8) -> Read<Vec<ManagedSecret>> {
    let key = SealingKey::new(Zeroizing::new([seed; 32])).unwrap();
    let (scope, value) = (Scope::Cluster, Plaintext::new(Zeroizing::new(b"hunter2".to_vec())).unwrap());
    let text = seal(key.public(), &scope, Handling::Deliverable, &value).unwrap();
    let metadata = json!({"name": "db", "namespace": "shop"});
    known(json!([{
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ManagedSecret", "metadata": metadata,
        "spec": {"name": "DB", "value": text},
    }]))
}

/// A ManagedSecret that was created so many seconds ago and has these conditions.
fn managed(ago: i64, conditions: &Value) -> Facts {
    let created = Timestamp::now() - SignedDuration::from_secs(ago);
    let json = json!([{
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
        "metadata": {"name": "db", "namespace": "shop", "creationTimestamp": created.to_string()},
        "status": {"conditions": conditions},
    }]);
    Facts { objects: known(json), ..blind() }
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    let time = "2026-11-23T08:00:00Z";
    json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": time})
}

/// These records, and the Secrets that look delivered.
fn delivered(records: Vec<ObjectMeta>, targets: &Value) -> Facts {
    Facts { records: Read::Known(records), targets: known(targets.clone()), objects: known(json!([])), ..own_keyring() }
}

/// A Secret with the labels that a target of this secret has, in a namespace, with an owner or without.
fn target(namespace: &str, id: &str, is_owned: bool) -> Value {
    let owner = json!([{"apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ManagedSecret", "name": "db", "uid": "u"}]);
    let owners = if is_owned { owner } else { json!([]) };
    let labels = json!({LABEL_ROLE: ROLE_TARGET, LABEL_ID: id});
    json!([{"name": "db", "namespace": namespace, "labels": labels, "ownerReferences": owners}])
}

fn permissions(allowed: bool) -> Facts {
    Facts { permissions: Read::Known(vec![(NEEDS[0], allowed)]), ..blind() }
}

/// The rules of the recovery key.
fn rules_of_recovery() -> Vec<(&'static str, Facts, Level, &'static str)> {
    use Level::{Note, Ok, Warning};
    vec![
        ("recovery key", keyring(KEYRING_NAME, "active", 1, Provider::LOCAL), Note, "no recovery key"),
        ("recovery key", recoverable(&[], &[1]), Ok, "each of 2 keys is sealed to the recovery keys"),
        ("recovery key", recoverable(&[1, 2], &[1, 2]), Ok, "each of 2 keys"),
        ("recovery key", recoverable(&[1, 2], &[1]), Warning, "does not open"),
        ("recovery key", recoverable(&[2], &[1]), Warning, "does not open"),
        (
            "recovery key",
            Facts { deployment: with_flag("run").deployment, ..recoverable(&[], &[1]) },
            Warning,
            "no new ones",
        ),
    ]
}

fn two_replicas() -> Facts {
    operator(2, 2, "registry/managed-secrets:latest")
}

/// One rule per row: the check, what it looks at, and what it finds.
fn rules() -> Vec<(&'static str, Facts, Level, &'static str)> {
    use Level::{Note, Ok, Problem, Unknown, Warning};
    let local = own_keyring;
    let record = || testing::metadata("shop", &testing::meta());
    let no_target = || json!([]);
    let no_keyring = || Read::Known(Vec::new());
    let no_document = || Read::Known(vec![(KEYRING_NAME.to_owned(), None)]);
    let delivers = || condition(CONDITION_READY, "True", "Served");
    let lacks = |reason| condition(CONDITION_READY, "False", reason);
    let stalled = |reason| condition(CONDITION_STALLED, "True", reason);
    vec![
        // What the keys protect against.
        ("protection", local(), Note, "is a Secret in system"),
        ("protection", keyring(KEYRING_NAME, "active", 1, Provider::FILE), Ok, "outside etcd"),
        // The server's version.
        ("server", server("34"), Ok, "Kubernetes 1.34"),
        ("server", server("37+"), Ok, "Kubernetes 1.37+"),
        ("server", server("33"), Warning, "not supported"),
        ("server", server("38"), Warning, "not supported"),
        ("server", server("x"), Warning, "not supported"),
        // The CRD.
        ("resource", crd("True", |_| {}), Ok, "is that of this version"),
        ("resource", crd("False", |_| {}), Problem, "not established: names in use"),
        ("resource", crd("True", |spec| spec["scope"] = json!("Cluster")), Problem, "differs from that of version"),
        ("resource", Facts { crd: Read::Known(None), ..blind() }, Problem, "not found"),
        // Deployment and service account.
        ("operator", two_replicas(), Ok, "2 of 2 replicas available"),
        ("operator", operator(2, 1, "i"), Warning, "1 of 2 replicas are available"),
        ("operator", operator(2, 0, "i"), Problem, "none of 2 replicas is available"),
        ("operator", operator(0, 0, "i"), Problem, "0 replicas"),
        ("operator", operator(1, 1, "i:0.0.1"), Note, "the operator runs i:0.0.1"),
        ("operator", Facts { account: Read::Known(None), ..two_replicas() }, Problem, "no new pod starts"),
        ("operator", Facts { deployment: Read::Known(None), ..blind() }, Warning, "not found"),
        // Namespaces.
        ("namespaces", Facts { served: Read::Known(Vec::new()), ..blind() }, Ok, "all namespaces"),
        ("namespaces", serves(true, true), Ok, "watches shop"),
        ("namespaces", serves(true, false), Problem, "RoleBinding shop/managed-secrets not found"),
        ("namespaces", serves(false, false), Problem, "namespace not found"),
        // Policies.
        ("policies", policies("Fail", "Deny"), Ok, "are effective"),
        ("policies", policies("Ignore", "Deny"), Problem, "its failurePolicy is not Fail"),
        ("policies", policies("Fail", "Audit"), Problem, "no binding with the action Deny"),
        ("policies", Facts { policies: known(json!([])), ..policies("Fail", "Deny") }, Warning, "not found"),
        // Webhook configurations.
        ("webhooks", webhooks(&trusted(), "zzz", "*"), Ok, "both are installed"),
        ("webhooks", webhooks(&trusted(), "0-a", "pods"), Ok, "no other webhook sees plain values"),
        ("webhooks", webhooks(&trusted(), "0-a", "*"), Warning, "0-a before the operator's"),
        ("webhooks", webhooks(&json!({"url": "https://x"}), "zzz", "*"), Problem, "has no CA bundle"),
        ("webhooks", Facts { mutating: known(json!([])), ..webhooks(&trusted(), "zzz", "*") }, Problem, "not found"),
        ("webhooks", Facts { validating: known(json!([])), ..webhooks(&trusted(), "zzz", "*") }, Warning, "not found"),
        ("webhooks", with_flag("--webhook-listen=off"), Note, "the webhooks are off"),
        // How they are reached.
        ("endpoints", endpoints(true), Ok, "has ready endpoints: 1"),
        ("endpoints", endpoints(false), Problem, "has no ready endpoint"),
        ("endpoints", webhooks(&json!({"url": "https://x"}), "zzz", "*"), Note, "have a URL"),
        // The certificate authority.
        ("certificates", authority(&[1]), Ok, "is valid until"),
        ("certificates", authority(&[4000, 1]), Ok, "is valid until"),
        ("certificates", authority(&[i64::from(AUTHORITY_DAYS) * 2 / 3 + 2]), Warning, "should have been renewed"),
        ("certificates", authority(&[i64::from(AUTHORITY_DAYS) + 1]), Problem, "expired"),
        ("certificates", authority(&[]), Warning, "not found"),
        ("certificates", with_flag("--webhook-cert-dir=/x"), Note, "come from a folder"),
        // The keyring, and what encrypts it.
        ("keyring", local(), Ok, "2 keys, each with its key-encryption key"),
        ("keyring", keyring(KEYRING_NAME, "active", 1, Provider::FILE), Note, "needs the KEK file"),
        ("keyring", keyring(KEYRING_NAME, "active", 1, "kms:aws"), Note, "needs the KMS plugin aws"),
        (
            "keyring",
            Facts { keks: Read::Known(["kek", "old"].map(str::to_owned).into()), ..local() },
            Note,
            "needs these key-encryption keys: managed-secrets-kek-old",
        ),
        ("keyring", keyring(KEYRING_NAME, "open-only", 1, Provider::LOCAL), Problem, "no active key for records"),
        ("keyring", keyring(KEYRING_NAME, "active", -3, Provider::LOCAL), Warning, "a creation date in the future"),
        ("keyring", keyring("other", "active", 1, Provider::LOCAL), Problem, "encrypts nothing new"),
        ("keyring", Facts { keyrings: no_keyring(), ..blind() }, Problem, "keyring not found"),
        ("keyring", Facts { keks: Read::Known(BTreeSet::new()), ..local() }, Problem, "cannot start again"),
        ("keyring", Facts { keks: unknown(), ..local() }, Unknown, "needs `x`"),
        ("keyring", Facts { keyrings: no_document(), ..local() }, Problem, "does not start"),
        ("keyring", Facts { public_key: seen(&["gone"]), ..local() }, Problem, "it lacks the keys gone"),
        ("keyring", Facts { public_key: seen(&[]), ..local() }, Ok, "2 keys, each with its key-encryption key"),
        // The published key.
        ("sealing key", published(1, local()), Ok, "is published, until"),
        ("sealing key", published(400, local()), Warning, "should have been replaced"),
        ("sealing key", published(1, keyring("other", "active", 1, Provider::LOCAL)), Problem, "is not in the keyring"),
        ("sealing key", published(1, blind()), Unknown, "needs `x`"),
        ("sealing key", published_text("x", local()), Problem, "is invalid"),
        ("sealing key", Facts { objects: sealed_for(0x22), ..published(1, local()) }, Ok, "is published, until"),
        ("sealing key", Facts { objects: sealed_for(0x23), ..published(1, local()) }, Note, "than the active one: 1"),
        ("sealing key", Facts { public_key: Read::Known(None), ..local() }, Problem, "contains no public key"),
        // ManagedSecrets.
        ("secrets", managed(500, &json!([delivers()])), Ok, "all 1 are delivered"),
        ("secrets", managed(500, &json!([lacks("NameInUse")])), Warning, "not delivered yet: NameInUse: 1 (shop/db)"),
        ("secrets", managed(5, &json!([lacks("N"), stalled("N")])), Problem, "stuck until you act: N: 1 (shop/db)"),
        ("secrets", managed(5, &json!([])), Warning, "not delivered yet: Pending"),
        ("secrets", managed(500, &json!([])), Problem, "stuck until you act: Pending"),
        // Records; the table below has the rules of retained ones.
        ("records", delivered(vec![], &no_target()), Ok, "all 0 belong"),
        ("records", delivered(vec![record()], &no_target()), Warning, "have no ManagedSecret"),
        ("records", delivered(vec![ObjectMeta::default()], &no_target()), Problem, "lack required metadata"),
        (
            "records",
            Facts { keyrings: no_keyring(), ..delivered(vec![record()], &no_target()) },
            Problem,
            "with a seed",
        ),
        // Delivered Secrets.
        ("targets", delivered(vec![record()], &target("shop", "the-id", true)), Ok, "all 1 have their record"),
        ("targets", delivered(vec![record()], &target("test", "the-id", false)), Note, "are copies"),
        ("targets", delivered(vec![record()], &target("test", "the-id", true)), Note, "have an owner reference"),
        ("targets", delivered(vec![], &target("shop", "the-id", false)), Warning, "but no record"),
        // What the user may do.
        ("your permissions", permissions(true), Ok, "you may run every command"),
        ("your permissions", permissions(false), Note, "permission denied for get"),
        ("audit log", blind(), Note, "cannot see whether the API server logs plain values"),
    ]
}

/// The same for the value API.
fn rules_of_the_value_api() -> Vec<(&'static str, Facts, Level, &'static str)> {
    use Level::{Note, Ok, Problem, Unknown, Warning};
    vec![
        ("value API", Facts { api_service: Read::Known(None), ..with_flag("run") }, Ok, "off"),
        ("value API", Facts { api_service: Read::Known(None), ..with_flag("--value-api") }, Warning, "not found"),
        ("value API", Facts { api_service: Read::Known(None), ..with_variable() }, Warning, "not found"),
        (
            "value API",
            Facts { api_service: Read::Known(None), served: serves(true, true).served, ..with_flag("--value-api") },
            Ok,
            "answers requests to its Service",
        ),
        ("value API", registered("True", "system", true, "--value-api"), Ok, "is available"),
        (
            "value API",
            registered("False", "system", true, "--value-api"),
            Problem,
            "no namespace of the cluster finishes",
        ),
        ("value API", registered("Unknown", "system", true, "run"), Problem, "(R: no endpoints)"),
        ("value API", registered("True", "system", false, "--value-api"), Warning, "no ClusterRole owns"),
        ("value API", registered("False", "team-a", true, "--value-api"), Note, "in the namespace team-a"),
        ("value API", trusts("users", "[\"front-proxy\"]"), Ok, "is available"),
        ("value API", trusts("proxy", "[]"), Ok, "is available"),
        ("value API", trusts("users", "[]"), Problem, "any name for its front proxy"),
        ("value API", trusts("", "[]"), Problem, "does not say who it is"),
        (
            "value API",
            Facts { front_proxy: unknown(), ..registered("True", "system", true, "--value-api") },
            Unknown,
            "needs `x`",
        ),
    ]
}

#[test]
fn every_rule() {
    let rules: Vec<_> = rules().into_iter().chain(rules_of_recovery()).chain(rules_of_the_value_api()).collect();
    for Check { name, .. } in &CHECKS {
        assert!(rules.iter().any(|(check, ..)| check == name), "no rule of the check {name}");
    }
    for (name, facts, level, says) in &rules {
        let check = CHECKS.iter().find(|check| check.name == *name).unwrap();
        let findings = check.findings(facts);
        let expected = findings.iter().any(|finding| finding.level == *level && finding.what.contains(says));
        assert!(expected, "{name} must find {level:?} \"{says}\": {findings:#?}");
        // Where all is well, nothing else is said.
        assert!(*level != Level::Ok || findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
    }
}

#[test]
fn webhooks_that_are_off_need_neither_endpoints_nor_certificates() {
    for check in ["endpoints", "certificates"] {
        assert_eq!(levels(check, &with_flag("--webhook-listen=off")), []);
    }
}

#[test]
fn a_record_is_retained_if_its_owner_is_another_secret_by_now() {
    let kept = RecordMeta { deletion_policy: DeletionPolicy::Retain, ..testing::meta() };
    let lost = testing::meta();
    let object = |name: &str, id: Option<&str>| -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": name, "generate": {}},
            "metadata": {"name": "db", "namespace": "shop"}, "status": {"id": id},
        }))
        .unwrap()
    };
    for (case, object, of_kept, of_lost) in [
        ("its own", object("DB", Some("the-id")), Level::Ok, Level::Ok),
        ("its own, in a rename", object("NEW", Some("the-id")), Level::Ok, Level::Ok),
        ("taken over soon", object("DB", None), Level::Ok, Level::Ok),
        ("another secret", object("DB", Some("other")), Level::Note, Level::Warning),
        ("cannot be taken over", object("NEW", None), Level::Note, Level::Warning),
    ] {
        for (meta, level) in [(&kept, of_kept), (&lost, of_lost)] {
            let facts = Facts {
                keyrings: Read::Known(Vec::new()),
                objects: Read::Known(vec![object.clone()]),
                records: Read::Known(vec![testing::metadata("shop", meta)]),
                ..blind()
            };
            let findings = levels("records", &facts);
            // The seed is unknown, which is another finding.
            let others: Vec<_> = findings.into_iter().filter(|it| *it != Level::Problem).collect();
            let expected = if level == Level::Ok { vec![] } else { vec![level] };
            assert_eq!(others, expected, "{case}");
        }
    }
}

#[test]
fn an_installation_for_some_namespaces_has_names_of_its_own() {
    for policy in POLICIES {
        assert!(is_named(Some(&format!("{policy}.team-a")), policy, "team-a"));
        assert!(is_named(Some(&policy.to_owned()), policy, "team-a"));
        assert!(!is_named(Some(&format!("{policy}.team-b")), policy, "team-a"));
    }
    assert!(!is_named(None, SEAL_CONFIGURATION, "x"));
}
