//! The corpus: the template of the target.

use managed_secrets_api::{
    limits::{TEMPLATE_BYTES_MAX, TEMPLATE_KEYS_MAX, TEMPLATE_TEXT_MAX},
    template::Template,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};

use super::{
    Case,
    objects::{STRANGE, with},
    source::secret_keys,
};

/// Texts that are generated: with those by hand, some hundred.
const GENERATED: usize = 300;
/// What a text is made of.
const PIECES: [&str; 30] = [
    "$",
    "$$",
    "$(",
    "$(",
    "$$(",
    ")",
    ")",
    "value",
    "value",
    " value",
    " ",
    "|",
    " | ",
    "base64",
    "urlencode",
    "json",
    "sha256",
    "\"",
    "\"a\"",
    "\\n",
    "\\u00e9",
    "\\uD83D",
    "\\",
    "\n",
    "\u{2028}",
    "é",
    "😀",
    "x",
    "$(value)",
    "$(\"x\" value | json)",
];

/// Every case of templates.
pub(super) fn all() -> Vec<Case> {
    let mut cases = texts();
    cases.extend(generated());
    cases.extend(keys());
    cases.extend(sizes());
    cases.extend(certificates());
    cases
}

fn template(template: &Value) -> Value {
    with(json!({ "target": { "template": template } }))
}

const TEXT: &[&str] = &["spec.target.template[k]"];

fn texts() -> Vec<Case> {
    let good = [
        "",
        "shop",
        "$(value)",
        "$(  value  )",
        "$(\"shop:\" value | base64)",
        "$(\"\\u00e9\\\"\\\\\" | json | sha256 | urlencode)",
        "$$(value) $$$(x) $ $$ $a",
        "{{ .Values.x }}",
        "$(\"\u{2028}\")",
    ];
    let bad = [
        "$(",
        "$()",
        "$(valeu)",
        "$(value",
        "$(value | b64)",
        "$(value|)",
        "$(valuevalue)",
        "$(\"a\"\"b\")",
        "$(\"a)",
        "$(\"\\q\")",
        "$(\"\\ud83d\\ude00\")",
        "$(\"a\nb\")",
        "$(value\tvalue)",
        "$(value | json value)",
        "a\n$(VALUE)",
    ];
    let case = |text: &str, wrong: &[&'static str]| {
        Case::new(format!("template {text:?}"), template(&json!({ "fine": "x", "k": text })), wrong)
    };
    let good = good.into_iter().chain(STRANGE).map(|text| case(text, &[]));
    good.chain(bad.into_iter().map(|text| case(text, TEXT))).collect()
}

/// The same in every run. What is expected of them, the parser says; the judges must agree with it.
fn generated() -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(14);
    let mut text = || -> String {
        let pieces = random.random_range(1..9);
        (0..pieces).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect()
    };
    let cases = (0..GENERATED).map(|_| {
        let text = text();
        let wrong: &[_] = if Template::parse(&text).is_ok() { &[] } else { TEXT };
        Case::new(format!("template {text:?}"), template(&json!({ "k": text })), wrong)
    });
    cases.collect()
}

fn keys() -> Vec<Case> {
    // In a copy of the manifest, `value` would read as a plaintext value.
    let reserved = |(key, valid): (String, bool)| (key.clone(), valid && key != "value");
    let keys = secret_keys().into_iter().map(reserved);
    keys.chain([("Value".to_owned(), true)])
        .map(|(key, valid)| {
            let wrong: &[_] = if valid { &[] } else { &["spec.target.template"] };
            Case::new(format!("template with key {key:?}"), template(&json!({ "good": "a", key: "a" })), wrong)
        })
        .collect()
}

fn sizes() -> Vec<Case> {
    const MAP: &[&str] = &["spec.target.template"];
    let mut cases = Vec::new();
    for (count, wrong) in [(0, &[][..]), (TEMPLATE_KEYS_MAX, &[]), (TEMPLATE_KEYS_MAX + 1, MAP)] {
        let texts: Map<_, _> = (0..count).map(|number| (format!("k{number}"), json!("$(value)"))).collect();
        cases.push(Case::new(format!("template of {count} keys"), template(&texts.into()), wrong));
    }
    for character in ["v", "é"] {
        for (length, wrong) in [(TEMPLATE_TEXT_MAX, &[][..]), (TEMPLATE_TEXT_MAX + 1, &["spec.target.template.k"])] {
            let what = format!("template text of {length} times {character}");
            cases.push(Case::new(what, template(&json!({ "k": character.repeat(length) })), wrong));
        }
    }
    for character in ["v", "😀"] {
        for surplus in [0, 1] {
            // Four texts, and their keys.
            let mut texts: Map<String, Value> = Map::new();
            for number in 0..4 {
                let bytes = TEMPLATE_BYTES_MAX / 4 - 2 + if number == 0 { surplus } else { 0 };
                let text = character.repeat(bytes / character.len()) + &"v".repeat(bytes % character.len());
                texts.insert(format!("k{number}"), json!(text));
            }
            let wrong: &[_] = if surplus == 0 { &[] } else { MAP };
            let what = format!("template of {TEMPLATE_BYTES_MAX}+{surplus} bytes in {character:?}");
            cases.push(Case::new(what, template(&texts.into()), wrong));
        }
    }
    // What the API server computes is bounded: the largest template of expressions is within the bounds.
    let expressions = "$(value|json)".repeat((TEMPLATE_BYTES_MAX / 4 - 2) / 13);
    let texts: Map<_, _> = (0..4).map(|number| (format!("k{number}"), json!(expressions))).collect();
    cases.push(Case::new("the largest template of expressions", template(&texts.into()), &[]));
    cases
}

fn certificates() -> Vec<Case> {
    let tls = |key: Option<&str>, texts: Value| {
        with(json!({ "target": { "type": "kubernetes.io/tls", "key": key, "template": texts } }))
    };
    let wrong_key: &[&str] = &["spec.target.key"];
    let no_certificate: &[&str] = &["spec.target.template"];
    [
        (Some("tls.key"), json!({ "tls.crt": "x" }), &[][..]),
        (Some("tls.key"), json!({ "tls.crt": "", "tls.key": "$(value)", "ca.crt": "x" }), &[]),
        (Some("tls.crt"), json!({ "tls.crt": "x" }), wrong_key),
        (None, json!({ "tls.crt": "x" }), wrong_key),
        (Some("tls.key"), json!({ "ca.crt": "x" }), no_certificate),
        (Some("tls.key"), json!({}), no_certificate),
        (Some("tls.key"), Value::Null, no_certificate),
        (None, Value::Null, &["spec.target.key", "spec.target.template"]),
    ]
    .into_iter()
    .map(|(key, texts, wrong)| Case::new(format!("kubernetes.io/tls, key {key:?}, {texts}"), tls(key, texts), wrong))
    .collect()
}
