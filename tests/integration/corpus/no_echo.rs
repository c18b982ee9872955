//! No refusal shows what was sent as `spec.value`, whatever its JSON type and whichever way it was sent.

use std::process::Output;

use http::Method;
use managed_secrets_api::limits::{BUCKET_MIN, SEALED_MAX};
use serde_json::{Value, json};
use testkit::shared::{self, TestNamespace};

use super::objects::with;
use super::source::sealed_text;
use super::{answer, collection};

/// What must not be found, as text and as a number.
const CANARIES: [&str; 2] = ["c4n4ry", "40414243"];

/// Things that may stand where sealed text belongs.
fn values() -> Vec<Value> {
    vec![
        json!("c4n4ry"),
        json!("mss1.c4n4ry"),
        json!("c4n4ry".repeat(SEALED_MAX)),
        json!(format!("{}c4n4ry\n", sealed_text(1, "shop", "db", BUCKET_MIN))),
        json!(40_414_243),
        json!(-4_041_424_344_i64),
        json!(40_414_243.5),
        json!(4.041_424_3e40),
        json!(["c4n4ry", 40_414_243]),
        json!([["c4n4ry"], { "c4n4ry": "c4n4ry" }, null]),
        json!({ "c4n4ry": "c4n4ry" }),
        json!({ "a": { "c4n4ry": [40_414_243, "c4n4ry", { "b": "c4n4ry" }] }, "metadata": { "name": "c4n4ry" } }),
    ]
}

/// Types that can hold no canary, which must be refused all the same.
fn refused_values() -> Vec<Value> {
    let mut values = values();
    values.extend([json!(true), json!(false), json!(""), json!([]), json!({})]);
    values
}

fn assert_silent(text: &str, way: &str, value: &Value) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{way} of {} echoes {canary}: {text}", kind(value));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// An object whose value is well-formed, to be updated with others.
fn stored() -> Value {
    let mut object = with(json!({ "generate": null, "value": sealed_text(1, "shop", "stored", BUCKET_MIN) }));
    object["metadata"]["name"] = json!("stored");
    object
}

#[tokio::test]
async fn requests_are_refused_without_an_echo() {
    let (namespace, client) = TestNamespace::shared("echo").await.unwrap();
    let collection = collection(&namespace.name);
    let stored_uri = format!("{collection}/stored");
    let (code, text) = answer(&client, Method::POST, &collection, "application/json", &stored()).await;
    assert_eq!(code, 201, "{text}");
    let created: Value = serde_json::from_str(&text[text.find("{\"apiVersion").unwrap()..]).unwrap();

    for value in refused_values() {
        let object = with(json!({ "generate": null, "value": value }));
        let mut update = created.clone();
        update["spec"]["value"] = value.clone();
        let merge = json!({ "spec": { "value": value } });
        let operations = json!([{ "op": "replace", "path": "/spec/value", "value": value }]);
        let mut apply = stored();
        apply["spec"]["value"] = value.clone();

        let requests = [
            ("create", Method::POST, collection.clone(), "application/json", &object),
            ("replace", Method::PUT, stored_uri.clone(), "application/json", &update),
            ("merge patch", Method::PATCH, stored_uri.clone(), "application/merge-patch+json", &merge),
            ("JSON patch", Method::PATCH, stored_uri.clone(), "application/json-patch+json", &operations),
            ("apply", Method::PATCH, format!("{stored_uri}?force=true"), "application/apply-patch+yaml", &apply),
            (
                "apply of a new object",
                Method::PATCH,
                format!("{collection}/db?"),
                "application/apply-patch+yaml",
                &object,
            ),
        ];
        for (way, method, uri, content, body) in requests {
            for validation in ["Ignore", "Warn", "Strict"] {
                for dry_run in ["", "&dryRun=All"] {
                    let mark = if uri.contains('?') { '&' } else { '?' };
                    let uri = format!("{uri}{mark}fieldManager=echo&fieldValidation={validation}{dry_run}");
                    let (code, text) = answer(&client, method.clone(), &uri, content, body).await;
                    let way = format!("{way} ({validation}{dry_run})");
                    assert!(matches!(code, 400 | 422), "{way} of {}: {code}", kind(&value));
                    assert_silent(&text, &way, &value);
                }
            }
        }
    }
}

/// How kubectl sends an object that is new.
const NEW: [&[&str]; 4] = [
    &["create", "-f", "-"],
    &["apply", "-f", "-"],
    &["apply", "--server-side", "-f", "-"],
    &["apply", "--dry-run=server", "-f", "-"],
];

/// How kubectl sends one that is stored already.
const STORED: [&[&str]; 5] = [
    &["apply", "-f", "-"],
    &["apply", "--validate=ignore", "-f", "-"],
    &["apply", "--server-side", "--force-conflicts", "-f", "-"],
    &["replace", "-f", "-"],
    &["diff", "-f", "-"],
];

#[tokio::test]
async fn kubectl_is_refused_without_an_echo() {
    let (namespace, _) = TestNamespace::shared("echo").await.unwrap();
    let access = shared::control_plane().await.unwrap().access();
    let run = async |arguments: &[&str], input: &Value| -> Output {
        let mut all = vec!["--namespace", &namespace.name];
        all.extend(arguments);
        access.kubectl_with_input(&all, &input.to_string()).await.unwrap()
    };
    let created = run(&["apply", "-f", "-"], &stored()).await;
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));

    for value in values() {
        let new = with(json!({ "generate": null, "value": value }));
        let mut update = stored();
        update["spec"]["value"] = value.clone();
        let merge = json!({ "spec": { "value": value } });
        let operations = json!([{ "op": "replace", "path": "/spec/value", "value": value }]);

        let mut commands: Vec<_> = NEW.map(|arguments| (arguments, &new)).into();
        commands.extend(STORED.map(|arguments| (arguments, &update)));
        commands.push((&["patch", "msec", "stored", "--type=merge", "--patch-file=/dev/stdin"], &merge));
        commands.push((&["patch", "msec", "stored", "--type=json", "--patch-file=/dev/stdin"], &operations));
        for (arguments, input) in commands {
            let output = run(arguments, input).await;
            let way = arguments.join(" ");
            assert!(!output.status.success(), "{way} of {} succeeds", kind(&value));
            assert_silent(&String::from_utf8_lossy(&output.stdout), &way, &value);
            assert_silent(&String::from_utf8_lossy(&output.stderr), &way, &value);
        }
    }
}
