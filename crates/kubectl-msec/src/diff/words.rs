//! Differences of two specs in words. Pure. Names, descriptions and places are shown, values never.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use managed_secrets_api::keys::LAST_APPLIED;
use managed_secrets_api::types::{Delivery, Generate};
use managed_secrets_api::{ManagedSecretSpec, overlap};
use serde_json::Value as Json;

/// What becomes of the value that a manifest holds.
pub(super) enum Value {
    /// It stays.
    Same,
    /// It is replaced.
    Changes,
    /// The sealed text differs.
    OtherText,
    /// It cannot be compared, and why.
    Untold(String),
    /// The manifest holds none: it is generated, or another Secret's.
    FromElsewhere,
}

/// What changes between the spec that is live and the one that is wanted, a line each.
pub(super) fn of_spec(
    object: &str,
    live: &ManagedSecretSpec,
    wanted: &ManagedSecretSpec,
    value: &Value,
) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |text: Option<String>| lines.extend(text);
    say(changes("name", &live.name, &wanted.name));
    say(changes("description", &quoted(live.description()), &quoted(wanted.description())));
    let (from, to) = (source(live), source(wanted));
    if from != to {
        let note = if to == "generate" { " (the operator generates a new value)" } else { "" };
        say(Some(format!("source: {from} → {to}{note}")));
    }
    say(match value {
        Value::Same if from == to => None,
        Value::Same => Some("value: unchanged".to_owned()),
        Value::Changes => Some("value: changes".to_owned()),
        Value::OtherText if from == to => {
            Some("value: the sealed value differs; whether the value changes is unknown until it is applied".to_owned())
        }
        Value::OtherText => Some("value: whether it changes is unknown until it is applied".to_owned()),
        Value::Untold(why) => Some(format!("value: whether it changes is unknown: {why}")),
        Value::FromElsewhere => None,
    });
    if let (Some(live), Some(wanted)) = (&live.value_from, &wanted.value_from) {
        let place = |source: &managed_secrets_api::types::ValueFrom| {
            format!("{}/{}", source.secret_key_ref.name, source.secret_key_ref.key)
        };
        say(changes("valueFrom", &place(live), &place(wanted)));
    }
    if let (Some(live), Some(wanted)) = (&live.generate, &wanted.generate) {
        let text = |generate: &Generate| format!("{} {:?}", generate.length(), generate.alphabet());
        say(changes("generate", &text(live), &text(wanted))
            .map(|text| format!("{text} (for the next generated value)")));
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        say(changes("generate.rotateEvery", &text(&live.rotate_every), &text(&wanted.rotate_every)));
        let note = if wanted.revision.is_some() { " (the operator generates a new value)" } else { "" };
        say(changes("generate.revision", &text(&live.revision), &text(&wanted.revision))
            .map(|text| format!("{text}{note}")));
    }
    say(match (live.delivery(), wanted.delivery()) {
        (Delivery::Secret, Delivery::None) => {
            Some(format!("delivery: Secret → None (the Secret {} is deleted)", live.target_name(object)))
        }
        (Delivery::None, Delivery::Secret) => {
            Some(format!("delivery: None → Secret (the Secret {} is created)", wanted.target_name(object)))
        }
        _ => None,
    });
    let moved = changes("target.name", live.target_name(object), wanted.target_name(object));
    say(moved.map(|text| format!("{text} (the Secret moves)")));
    say(changes("target.key", live.target_key(), wanted.target_key()));
    let made = changes("target.type", live.target_type(), wanted.target_type());
    say(made.map(|text| format!("{text} (the Secret is recreated)")));
    say(changes("target.adoption", &of(live.adoption()), &of(wanted.adoption())));
    say(changes("deletionPolicy", &of(live.deletion_policy()), &of(wanted.deletion_policy())));
    let version = |spec: &ManagedSecretSpec| spec.pinned().map_or("newest".to_owned(), |version| version.to_string());
    say(changes("version", &version(live), &version(wanted)));
    say(changes("history", &live.history(), &wanted.history()));
    let text = |text: Option<&str>| text.unwrap_or("none").to_owned();
    say(changes("target.previousKey", &text(overlap::key(live)), &text(overlap::key(wanted))));
    say(changes("overlap", &text(live.overlap.as_deref()), &text(wanted.overlap.as_deref())));
    say(changes("suspend", &live.suspended(), &wanted.suspended()));
    let of_target = |spec: &ManagedSecretSpec| spec.target.clone().unwrap_or_default();
    let (live, wanted) = (of_target(live), of_target(wanted));
    lines.extend(of_maps("target.labels", live.labels, wanted.labels));
    lines.extend(of_maps("target.annotations", live.annotations, wanted.annotations));
    lines.extend(of_maps("target.template", live.template, wanted.template));
    lines
}

/// What a manifest changes of labels or annotations. Other entries may belong to other programs and are not listed.
pub(super) fn of_map(field: &str, live: &BTreeMap<String, String>, wanted: Option<&Json>) -> Vec<String> {
    let entries = wanted.and_then(Json::as_object).into_iter().flatten();
    entries
        .filter(|(key, _)| *key != LAST_APPLIED)
        .filter_map(|(key, wanted)| {
            let field = format!("{field}.{key}");
            match (live.get(key), wanted.as_str()) {
                (Some(live), Some(wanted)) if live != wanted => Some(format!("{field}: changes")),
                (None, Some(_)) => Some(format!("{field}: new")),
                _ => None,
            }
        })
        .collect()
}

/// The same for a target's, which the manifest describes completely.
fn of_maps(
    field: &str,
    live: Option<BTreeMap<String, String>>,
    wanted: Option<BTreeMap<String, String>>,
) -> Vec<String> {
    let (live, wanted) = (live.unwrap_or_default(), wanted.unwrap_or_default());
    let gone = live.keys().filter(|key| !wanted.contains_key(*key)).map(|key| format!("{field}.{key}: removed"));
    let others = wanted.iter().filter_map(|(key, text)| match live.get(key) {
        None => Some(format!("{field}.{key}: new")),
        Some(old) if old != text => Some(format!("{field}.{key}: changes")),
        Some(_) => None,
    });
    gone.chain(others).collect()
}

fn changes<T: Display + PartialEq + ?Sized>(field: &str, live: &T, wanted: &T) -> Option<String> {
    (live != wanted).then(|| format!("{field}: {live} → {wanted}"))
}

/// A text in quotes, its control characters escaped: a description may hold any.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A choice as it is written in a manifest.
fn of(choice: impl Debug) -> String {
    format!("{choice:?}")
}

fn source(spec: &ManagedSecretSpec) -> &'static str {
    match (&spec.value, &spec.value_from, &spec.generate) {
        (Some(_), ..) => "value",
        (_, Some(_), _) => "valueFrom",
        (.., Some(_)) => "generate",
        _ => "none",
    }
}

/// The API server drops nulls before it looks.
pub(super) fn without_nulls(value: Json) -> Json {
    match value {
        Json::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Json::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(live: Json, wanted: Json, value: &Value) -> Vec<String> {
        let spec = |spec| serde_json::from_value(spec).unwrap();
        of_spec("db", &spec(live), &spec(wanted), value)
    }

    #[test]
    fn equal_specs_in_other_forms_are_no_change() {
        let live = json!({"name": "DB", "generate": {}});
        let wanted = json!({
            "name": "DB", "description": "", "generate": {"length": 32, "alphabet": "Alphanumeric"}, "delivery": "Secret",
            "target": {"name": "db", "key": "value", "type": "Opaque", "adoption": "Never", "labels": {}},
            "deletionPolicy": "Delete", "suspend": false,
        });
        assert_eq!(lines(live, wanted, &Value::FromElsewhere), [""; 0]);
    }

    #[test]
    fn every_field_has_its_words() {
        let live = json!({
            "name": "A", "description": "old\n", "value": "mss1.a", "target": {"name": "a", "labels": {"x": "1", "y": "1"}},
        });
        let wanted = json!({
            "name": "B", "generate": {}, "delivery": "None", "deletionPolicy": "Retain", "suspend": true,
            "history": 3, "version": 2, "overlap": "24h",
            "target": {"name": "b", "key": "k", "previousKey": "old", "type": "kubernetes.io/ssh-auth", "adoption": "IfUnowned",
                       "labels": {"x": "2", "z": "1"}, "annotations": {"n": "1"}},
        });
        assert_eq!(
            lines(live, wanted, &Value::FromElsewhere),
            [
                "name: A → B",
                "description: \"old\\n\" → \"\"",
                "source: value → generate (the operator generates a new value)",
                "delivery: Secret → None (the Secret a is deleted)",
                "target.name: a → b (the Secret moves)",
                "target.key: value → k",
                "target.type: Opaque → kubernetes.io/ssh-auth (the Secret is recreated)",
                "target.adoption: Never → IfUnowned",
                "deletionPolicy: Delete → Retain",
                "version: newest → 2",
                "history: 1 → 3",
                "target.previousKey: none → old",
                "overlap: none → 24h",
                "suspend: false → true",
                "target.labels.y: removed",
                "target.labels.x: changes",
                "target.labels.z: new",
                "target.annotations.n: new",
            ]
        );
    }

    #[test]
    fn a_rotation_has_its_words() {
        let of = |generate: Json| json!({"name": "A", "generate": generate});
        let (plain, rotated) = (of(json!({})), of(json!({"rotateEvery": "720h", "revision": "a"})));
        assert_eq!(
            lines(plain.clone(), rotated.clone(), &Value::FromElsewhere),
            ["generate.rotateEvery: none → 720h", "generate.revision: none → a (the operator generates a new value)",]
        );
        assert_eq!(
            lines(rotated, plain, &Value::FromElsewhere),
            ["generate.rotateEvery: 720h → none", "generate.revision: a → none"]
        );
    }

    #[test]
    fn a_value_is_never_shown() {
        let spec = json!({"name": "A", "value": "hunter2"});
        let of = |value| lines(spec.clone(), json!({"name": "A", "value": "hunter3"}), &value);
        assert_eq!(of(Value::Same), [""; 0]);
        assert_eq!(of(Value::Changes), ["value: changes"]);
        assert!(of(Value::OtherText)[0].starts_with("value: the sealed value differs"));
        assert_eq!(of(Value::Untold("why".into())), ["value: whether it changes is unknown: why"]);
    }
}
