//! Copies of manifests in annotations: those with a plain value are refused however they are written, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use managed_secrets_api::{ManagedSecret, keys, limits::OBJECT_ANNOTATIONS_BYTES_MAX, rules};
use serde_json::{Value, json};
use testkit::shared::TestNamespace;

use crate::integration::admission::{self, Premises};
use crate::integration::installation::{admin, control_plane, dry_run, expect, object};
use crate::integration::objects::Site;

const KEY: &str = "example.com/copy";
const VALUE: &str = "hunter2";

fn annotated(key: &str, text: &str) -> ManagedSecret {
    object(json!({"metadata": {"name": "db", "annotations": {key: text}}, "spec": {"name": "DB", "generate": {}}}))
}

async fn objects(purpose: &str) -> (TestNamespace, Api<ManagedSecret>) {
    let namespace = TestNamespace::create(control_plane().await, purpose).await.unwrap();
    let objects = Api::namespaced(admin().await, &namespace.name);
    (namespace, objects)
}

/// A copy of a manifest with this value.
fn copy(value: &Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
        "metadata": {"name": "db"},
        "spec": {"name": "DB", "description": "x", "target": {"labels": {"a": "b"}}, "value": value},
    })
}

/// The text in a string of a JSON document, as often as asked for.
fn nested(text: &str, depth: usize) -> String {
    (0..depth).fold(text.to_owned(), |text, _| json!({"applied": text}).to_string())
}

/// Ways to write a copy, with a value that is given as JSON.
fn written(value: &str) -> Vec<String> {
    let copy = copy(&json!("VALUE")).to_string().replace("\"VALUE\"", value);
    let spaced = copy.replace("\":", "\" :\t");
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&copy).unwrap()).unwrap();
    let spec = format!(r#"{{"spec":{{"name":"DB","value":{value}}}}}"#);
    let mut ways = vec![
        copy.replace(r#""kind":"ManagedSecret","#, ""),
        copy.replace(r#""apiVersion":"managedsecrets.dev/v1alpha1","#, ""),
        spec.replace(':', " : "),
        format!("[{spec}]"),
        format!(r#"[{{"op":"replace","path":"/spec/value","value":{value}}}]"#),
        nested(&copy, 1).replace("\\\"", "\\u0022"),
    ];
    for text in [&copy, &spaced, &pretty, &spec] {
        ways.extend((1..4).map(|depth| nested(text, depth)));
    }
    ways.extend([copy, spaced, pretty, spec]);
    // The value of such a patch is an object itself, so that one in it is not looked for.
    if !value.starts_with('{') {
        let whole = format!(r#"{{"deletionPolicy":"Retain","name":"DB","value":{value}}}"#);
        let patches = [
            format!(r#"[{{"op":"replace","path":"/spec","value":{whole}}}]"#),
            format!(r#"[ {{ "value" : {whole}, "path" : "/spec", "op" : "add" }} ]"#),
            format!(r#"[{{"op":"add","path":"/spec/value","value":{value}}}]"#),
            format!(r#"[{{"value":{value},"path":"/spec/value","op":"test"}}]"#),
            // As PHP's encoder writes slashes.
            format!(r#"[{{"op":"add","path":"\/spec\/value","value":{value}}}]"#),
            format!(r#"{{"apiVersion":"managedsecrets.dev\/v1alpha1","value":{value}}}"#),
        ];
        ways.extend(patches.iter().flat_map(|patch| (1..4).map(|depth| nested(patch, depth))));
        ways.extend(patches);
        ways.push(format!(r#"{{"spec.name":"DB","spec.value":{value}}}"#));
    }
    ways
}

const YAML: [&str; 3] = [
    "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nspec:\n  name: DB\n  value: VALUE\n",
    "- kind: 'ManagedSecret'\n  spec:\n    \"value\":   VALUE # secret\n",
    "spec:\n\tvalue: VALUE\nkind: ManagedSecret",
];

#[tokio::test]
async fn a_copy_with_a_plain_value_is_refused_however_it_is_written() {
    let (_namespace, objects) = objects("copies").await;
    let texts =
        ["\"hunter2\"", "\"\"", "\"mss2.hunter2\"", "4711", "-1.5", "true", "[\"hunter2\"]", "{\"a\": \"hunter2\"}"];
    let mut cases: Vec<String> = texts.iter().flat_map(|value| written(value)).collect();
    for value in ["hunter2", "'hunter2'", "\"hunter2\"", "4711", "|\n    hunter2", "[hunter2]"] {
        cases.extend(YAML.map(|yaml| yaml.replace("VALUE", value)));
    }
    let escaped = copy(&json!(VALUE)).to_string();
    cases.extend([
        // As docs/security.md says: what is called `value` looks like one.
        r#"{"kind":"ManagedSecret","metadata":{"labels":{"value":"x"}}}"#.to_owned(),
        escaped.replace("\"value\"", r#""\u0076alue""#),
        escaped.replace("\"value\"", r#""val\u0075e""#),
        escaped.replace("\"spec\"", r#""\u0073pec""#).replace("\"kind\"", r#""\u006Bind""#),
        r#" {"spec":{"a":"\\\\","v\u0061lue":1}}"#.to_owned(),
    ]);
    for text in cases {
        let refusal = "annotation \"example.com/copy\" must not hold a manifest with a plain value";
        let answer = objects.create(&dry_run(), &annotated(KEY, &text)).await;
        assert!(!answer.as_ref().is_err_and(|error| error.to_string().contains(VALUE)), "the value is repeated");
        expect(&text, answer, Some(refusal));
        assert!(rules::holds_plaintext_copy(&text), "the plugin sees as much: {text}");
    }
}

#[tokio::test]
async fn a_packed_copy_is_refused_by_its_key() {
    let (_namespace, objects) = objects("packed").await;
    for key in keys::PACKED_COPIES {
        // What is inside does not count, for it cannot be seen.
        let packed = BASE64_STANDARD_NO_PAD.encode([0x1f, 0x8b, 8, 0]);
        let refusal = format!("annotation \"{key}\" must not hold a packed copy");
        expect(key, objects.create(&dry_run(), &annotated(key, &packed)).await, Some(&refusal));
        // Small objects are not packed, and can be looked at.
        let sealed = copy(&json!("mss1.AAAA")).to_string();
        expect(key, objects.create(&dry_run(), &annotated(key, &sealed)).await, None);
        let plain = copy(&json!(VALUE)).to_string();
        expect(key, objects.create(&dry_run(), &annotated(key, &plain)).await, Some("with a plain value"));
        expect(key, objects.create(&dry_run(), &annotated(&format!("{key}-too"), &packed)).await, None);
    }
}

#[tokio::test]
async fn what_holds_no_plain_value_is_admitted() {
    // The policy on the size of metadata admits hardly more.
    const LARGE: usize = OBJECT_ANNOTATIONS_BYTES_MAX - 1024;
    let (_namespace, objects) = objects("innocent").await;
    let mut innocent = written("\"mss1.AWR6AAEAAg\"");
    innocent.extend(written("null"));
    for value in ["mss1.AWR6AAEAAg", "'mss1.AWR6AAEAAg'", "\"mss1.AWR6AAEAAg\"", "null"] {
        innocent.extend(YAML.map(|yaml| yaml.replace("VALUE", value)));
    }
    let mut described = copy(&json!("mss1.AWR6AAEAAg"));
    for description in [
        r#"takes {"value": "x"} in its body"#,
        "the value: 5",
        "kind: ManagedSecret",
        "value: a line\nvalue: another",
        r"matches [\u0041-\u005A]+",
        r#""spec": see the value "x""#,
    ] {
        described["spec"]["description"] = json!(description);
        innocent.push(described.to_string());
        innocent.push(description.to_owned());
    }
    innocent.extend(
        [
            "",
            "value",
            "spec.value",
            "owner: payments, value: high",
            r#"{"value":"x"}"#,
            r#"[{"name":"latency","value":"20ms"},{"name":"cost","value":5}]"#,
            r#"{"about":"a ManagedSecret","value":"x"}"#,
            r#"{"kind":"Pod","env":[{"name":"A","value":"b"}]}"#,
            r#"{"kind":"ManagedSecret","names":["value","x"]}"#,
            r#"[{"op":"replace","path":"/spec/description","value":"x"}]"#,
            r#"{"path":"/specification","value":"x"}"#,
            r#"{"http":{"paths":[{"path":"/","value":5},{"path":"/api/spec","value":6}]}}"#,
            r#"{"link":"https://example.com/spec/value","value":"x"}"#,
            r#"{"spec.values":"x","specvalue":"y","value":"z"}"#,
            "see /spec/value and /spec",
            r#"{"note":"caf\u00e9 \u003cvalue\u003e \u0026 \u0027\u002B"}"#,
            "kind: Pod\nvalue: x\n",
            "# kind: ManagedSecret\nvalue: x\n",
            "kind: ManagedSecret\n# value: x\nvalueFrom: {secretKeyRef: {name: a, key: value}}\n",
        ]
        .map(str::to_owned),
    );
    // As large as annotations may be, all together.
    let row = r#"{"name":"latency","value":"20ms"},"#;
    innocent.extend([
        "x".repeat(LARGE),
        "value ".repeat(LARGE / 6),
        format!("[{}0]", row.repeat(LARGE / row.len())),
        nested(&format!("[{}0]", row.repeat(LARGE / row.len() * 3 / 4)), 1),
        format!(r#"{{"path":"/spec","x":[{}0]}}"#, r#"{"value":null},"#.repeat(LARGE / 15)),
        nested(&format!(r#"["/spec",{}0]"#, r#"{"value":null},"#.repeat(LARGE / 20)), 1),
    ]);
    for text in innocent {
        let shown: String = text.chars().take(300).collect();
        expect(&shown, objects.create(&dry_run(), &annotated(KEY, &text)).await, None);
        assert!(!rules::holds_plaintext_copy(&text), "the plugin sees no more: {shown}");
    }
}

/// To edit another annotation, you need not clean up first.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_annotation_holds_already_is_not_looked_at() {
    let packed = keys::PACKED_COPIES[0];
    let plain = copy(&json!(VALUE)).to_string();
    let site = Site::on(admission::control_plane().await, "already").await;
    let mut object = annotated(KEY, &plain);
    object.metadata.annotations.as_mut().unwrap().insert(packed.to_owned(), "H4sI".to_owned());
    site.objects().create(&PostParams::default(), &object).await.unwrap();
    let premises = Premises::around(site).await;
    let change = async |annotations: Value| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        premises.site.objects().patch("db", &PatchParams::default(), &patch).await
    };
    expect("another", change(json!({"example.com/a": "b"})).await, None);
    expect("plain", change(json!({KEY: format!("{plain} ")})).await, Some("with a plain value"));
    expect("packed", change(json!({packed: "H4sIA"})).await, Some("must not hold a packed copy"));
    expect("gone", change(json!({KEY: null, packed: null})).await, None);
}
