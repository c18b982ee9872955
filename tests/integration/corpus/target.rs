//! The corpus: the target.

use managed_secrets_api::limits::{
    ANNOTATION_VALUE_MAX, ANNOTATIONS_BYTES_MAX, LABEL_VALUE_MAX, METADATA_KEY_NAME_MAX, RESTARTS_MAX, SECRET_NAME_MAX,
    SECRET_TYPE_MAX, TARGET_METADATA_MAX,
};
use serde_json::{Map, Value, json};

use super::Case;
use super::objects::{STRANGE, with};
use super::source::{secret_keys, secret_names};

/// Every case of targets.
pub(super) fn all() -> Vec<Case> {
    let mut cases = places();
    cases.extend(previous_keys());
    cases.extend(types());
    cases.extend(restarts());
    cases.extend(metadata_keys());
    cases.extend(metadata_values());
    cases.extend(metadata_sizes());
    cases
}

fn target(target: &Value) -> Value {
    with(json!({ "target": target }))
}

fn places() -> Vec<Case> {
    const NAME: &[&str] = &["spec.target.name"];
    let names = secret_names().into_iter().map(|(name, valid)| {
        let wrong: &[_] = if valid { &[] } else { NAME };
        Case::new(format!("target name {name:?}"), target(&json!({ "name": name })), wrong)
    });
    let keys = secret_keys().into_iter().map(|(key, valid)| {
        let wrong: &[_] = if valid { &[] } else { &["spec.target.key"] };
        Case::new(format!("target key {key:?}"), target(&json!({ "key": key })), wrong)
    });
    // The target is called as the object, so the object's name is one of a Secret.
    let unnamed: [(Value, &[&'static str]); 4] = [
        (json!({}), NAME),
        (json!({ "target": { "key": "k" } }), NAME),
        (json!({ "delivery": "None" }), &[]),
        (json!({ "target": { "name": "other" } }), &[]),
    ];
    let unnamed = unnamed.into_iter().map(|(fields, wrong)| {
        let mut object = with(fields.clone());
        object["metadata"]["name"] = json!("msec-db");
        Case::new(format!("metadata.name `msec-db` and {fields}"), object, wrong)
    });
    names.chain(keys).chain(unnamed).collect()
}

fn previous_keys() -> Vec<Case> {
    const KEY: &[&str] = &["spec.target.previousKey"];
    let alone = secret_keys().into_iter().map(|(key, valid)| {
        let wrong: &[_] = if valid { &[] } else { KEY };
        Case::new(format!("previous key {key:?}"), target(&json!({ "key": "k", "previousKey": key })), wrong)
    });
    let beside = [
        (json!({ "previousKey": "value" }), KEY),
        (json!({ "key": "k", "previousKey": "value" }), &[]),
        (json!({ "key": "k", "previousKey": "k" }), KEY),
        (json!({ "previousKey": "old", "template": { "url": "x" } }), &[]),
        (json!({ "previousKey": "url", "template": { "url": "x" } }), KEY),
        (json!({ "key": "url", "previousKey": "old", "template": { "url": "x" } }), &[]),
    ];
    let beside = beside.map(|(fields, wrong)| Case::new(format!("previous key in {fields}"), target(&fields), wrong));
    alone.chain(beside).collect()
}

fn restarts() -> Vec<Case> {
    const LIST: &[&str] = &["spec.target.restart"];
    let mut cases = Vec::new();
    let mut case = |what: &str, restart: Value, wrong: &[&'static str]| {
        cases.push(Case::new(format!("restart {what}"), target(&json!({ "restart": restart })), wrong));
    };
    let workload = |kind: &str, name: &str| json!({ "kind": kind, "name": name });
    for kind in ["Deployment", "StatefulSet", "DaemonSet"] {
        case(kind, json!([workload(kind, "shop")]), &[]);
    }
    for kind in ["", "deployment", "ReplicaSet", "Job", "Deployment\n"] {
        case(&format!("{kind:?}"), json!([workload(kind, "shop")]), &["spec.target.restart[0].kind"]);
    }
    case("nothing", json!([]), &[]);
    case("twice", json!([workload("Deployment", "a"), workload("Deployment", "a")]), &[]);
    for name in ["a", "0", "a.b", "a-b", "1.2"] {
        case(&format!("{name:?}"), json!([workload("Deployment", name)]), &[]);
    }
    for name in ["A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a.-b", "a b", "é", "a\n", "a/b"] {
        case(&format!("{name:?}"), json!([workload("DaemonSet", "fine"), workload("Deployment", name)]), LIST);
    }
    let most = vec![workload("StatefulSet", &"n".repeat(SECRET_NAME_MAX)); RESTARTS_MAX];
    case("the most and longest", json!(most), &[]);
    case("one too many", json!([&most[..], &[workload("Deployment", "a")]].concat()), LIST);
    let long = workload("Deployment", &"n".repeat(SECRET_NAME_MAX + 1));
    case("a name too long", json!([workload("Deployment", "a"), long]), &["spec.target.restart[1].name"]);
    let both = &["spec.target.restart", "spec.target.restart[0].name"];
    case("an empty name", json!([workload("Deployment", "")]), both);
    case("without a name", json!([{ "kind": "Deployment" }]), &["spec.target.restart[0].name"]);
    case("without a kind", json!([{ "name": "a" }]), &["spec.target.restart[0].kind"]);
    case("an unknown field", json!([{ "kind": "Deployment", "name": "a", "namespace": "b" }]), &[]);
    cases
}

fn types() -> Vec<Case> {
    const KEYS: [Option<&str>; 7] = [
        None,
        Some("value"),
        Some("username"),
        Some("password"),
        Some("ssh-privatekey"),
        Some(".dockerconfigjson"),
        Some(".dockercfg"),
    ];
    let built_in: [(&str, &[&str]); 3] = [
        ("kubernetes.io/basic-auth", &["username", "password"]),
        ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
        ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ];
    let mut cases = Vec::new();
    for key in KEYS {
        for (type_, keys) in built_in {
            let wrong: &[_] = if key.is_some_and(|key| keys.contains(&key)) { &[] } else { &["spec.target.key"] };
            let what = format!("type {type_} with key {key:?}");
            cases.push(Case::new(what, target(&json!({ "type": type_, "key": key })), wrong));
        }
        for type_ in ["Opaque", "example.com/own"] {
            let what = format!("type {type_} with key {key:?}");
            cases.push(Case::new(what, target(&json!({ "type": type_, "key": key })), &[]));
        }
    }
    let mut case = |type_: &str, valid: bool| {
        let wrong: &[_] = if valid { &[] } else { &["spec.target.type"] };
        cases.push(Case::new(format!("type {type_:?}"), target(&json!({ "type": type_ })), wrong));
    };
    for type_ in [
        "kubernetes.io/service-account-token",
        "kubernetes.io/dockercfg",
        "kubernetes.io/tls ",
        "kubernetes.io/basic-auth\n",
        "kubernetes.io/",
        "kubernetes.io",
        "bootstrap.kubernetes.io/token",
        "a.b.kubernetes.io/x",
        ".kubernetes.io/x",
        "x.k8s.io/y",
        "a.x.k8s.io",
        "helm.sh/release.v1",
        "helm.sh",
        "managedsecrets.dev/record",
        "managedsecrets.dev/keyring",
        "managedsecrets.dev/kek",
        "managedsecrets.dev",
        "a\nb.kubernetes.io/x",
        "",
    ] {
        case(type_, false);
    }
    for type_ in [
        "opaque",
        "istio.io/key-and-cert",
        "example.com/kubernetes.io",
        "example.com/a/b",
        "notkubernetes.io/x",
        "kubernetes.io.example.com/x",
        "kubernetesXio/x",
        "k8s.io/x",
        "xk8s.io/y",
        "my.helm.sh/x",
        "helm.sh.example.com/x",
        "my.managedsecrets.dev/x",
        "/kubernetes.io",
    ] {
        case(type_, true);
    }
    for strange in STRANGE {
        case(strange, true);
    }
    case(&"t".repeat(SECRET_TYPE_MAX), true);
    case(&"t".repeat(SECRET_TYPE_MAX + 1), false);
    cases
}

fn metadata_keys() -> Vec<Case> {
    let name = |length| "k".repeat(length);
    let good = [
        "a".to_owned(),
        "A".to_owned(),
        "a.b-c_D".to_owned(),
        "app.kubernetes.io/name".to_owned(),
        "x.kubernetes.io/name".to_owned(),
        "k8s.io/name".to_owned(),
        "example.com/value".to_owned(),
        "example.com/Value".to_owned(),
        "Value".to_owned(),
        "kubernetes.io".to_owned(),
        "my.managedsecrets.dev/x".to_owned(),
        name(METADATA_KEY_NAME_MAX),
        format!("example.com/{}", name(METADATA_KEY_NAME_MAX)),
        format!("{}/{}", "d".repeat(SECRET_NAME_MAX), name(METADATA_KEY_NAME_MAX)),
    ];
    let bad = [
        String::new(),
        "/".to_owned(),
        "a/".to_owned(),
        "/a".to_owned(),
        "a/b/c".to_owned(),
        "-a".to_owned(),
        "a-".to_owned(),
        ".a".to_owned(),
        "_a".to_owned(),
        "a:b".to_owned(),
        "Example.com/a".to_owned(),
        "example..com/a".to_owned(),
        "example_.com/a".to_owned(),
        "value".to_owned(),
        "kubernetes.io/name".to_owned(),
        "kubernetes.io/".to_owned(),
        "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
        "managedsecrets.dev/role".to_owned(),
        "managedsecrets.dev/id".to_owned(),
        "managedsecrets.dev/owner".to_owned(),
        name(METADATA_KEY_NAME_MAX + 1),
        format!("example.com/{}", name(METADATA_KEY_NAME_MAX + 1)),
        format!("{}/a", "d".repeat(SECRET_NAME_MAX + 1)),
        format!("{}/{}", "d".repeat(SECRET_NAME_MAX + 1), name(METADATA_KEY_NAME_MAX)),
    ];
    let mut cases = Vec::new();
    for (field, path) in [("labels", "spec.target.labels"), ("annotations", "spec.target.annotations")] {
        let good = good.iter().map(|key| (key.as_str(), true));
        let bad = bad.iter().map(String::as_str).chain(STRANGE).map(|key| (key, false));
        for (key, valid) in good.chain(bad) {
            let wrong: &[_] = if valid { &[] } else { &[path] };
            let object = target(&json!({ field: { "good": "a", key: "a" } }));
            cases.push(Case::new(format!("{field} with key {key:?}"), object, wrong));
        }
    }
    cases
}

fn metadata_values() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |value: &str, wrong: &[&'static str]| {
        let object = target(&json!({ "labels": { "app": value } }));
        cases.push(Case::new(format!("label value {value:?}"), object, wrong));
    };
    for value in ["", "a", "A", "0", "a.b-c_D"] {
        case(value, &[]);
    }
    for value in ["-a", "a-", ".a", "a.", "_", "a b", "a/b", "a:b"].into_iter().chain(STRANGE) {
        case(value, &["spec.target.labels"]);
    }
    case(&"v".repeat(LABEL_VALUE_MAX), &[]);
    case(&"v".repeat(LABEL_VALUE_MAX + 1), &["spec.target.labels.app"]);
    for value in STRANGE.into_iter().chain([""]) {
        let object = target(&json!({ "annotations": { "note": value } }));
        cases.push(Case::new(format!("annotation value {value:?}"), object, &[]));
    }
    for character in ["v", "é"] {
        for (length, valid) in [(ANNOTATION_VALUE_MAX, true), (ANNOTATION_VALUE_MAX + 1, false)] {
            let object = target(&json!({ "annotations": { "note": character.repeat(length) } }));
            let wrong: &[_] = if valid { &[] } else { &["spec.target.annotations.note"] };
            cases.push(Case::new(format!("annotation value of {length} times {character}"), object, wrong));
        }
    }
    cases
}

fn metadata_sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (field, path) in [("labels", "spec.target.labels"), ("annotations", "spec.target.annotations")] {
        for (count, valid) in [(0, true), (1, true), (TARGET_METADATA_MAX, true), (TARGET_METADATA_MAX + 1, false)] {
            let entries: Map<_, _> = (0..count).map(|number| (format!("k{number}"), json!("v"))).collect();
            let wrong: &[_] = if valid { &[] } else { &[path] };
            cases.push(Case::new(format!("{count} {field}"), target(&json!({ field: entries })), wrong));
        }
    }
    for character in ["v", "é", "😀"] {
        for surplus in [0, 1] {
            let entries = annotations(ANNOTATIONS_BYTES_MAX + surplus, character);
            let wrong: &[_] = if surplus == 0 { &[] } else { &["spec.target.annotations"] };
            let what = format!("annotations of {ANNOTATIONS_BYTES_MAX}+{surplus} bytes in {character:?}");
            cases.push(Case::new(what, target(&json!({ "annotations": entries })), wrong));
        }
    }
    cases
}

/// Annotations of that many bytes, keys and values, made of one character as far as possible.
fn annotations(bytes: usize, character: &str) -> Map<String, Value> {
    let mut left = bytes;
    let mut entries = Map::new();
    while left > 0 {
        let key = format!("k{:02}", entries.len());
        let length = (left - key.len()).min(ANNOTATION_VALUE_MAX);
        left -= key.len() + length;
        let value = character.repeat(length / character.len()) + &"v".repeat(length % character.len());
        entries.insert(key, json!(value));
    }
    entries
}
