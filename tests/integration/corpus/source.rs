//! The corpus: sources of the value.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use managed_secrets_api::limits::{
    AEAD_TAG_BYTES, BUCKET_MAX, BUCKET_MIN, NAMESPACE_MAX, SEALED_ENC_BYTES, SEALED_MAX, SEALED_MIN, SEALED_PREFIX,
    SECRET_KEY_MAX, SECRET_NAME_MAX, VALUE_MAX,
};
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::{Handling, Scope, SealingKey, seal};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Case;
use super::objects::{STRANGE, with};

/// Every case of sources.
pub(super) fn all() -> Vec<Case> {
    let mut cases = combinations();
    cases.extend(sealed());
    cases.extend(references());
    cases.extend(own_targets());
    cases
}

/// Text that has the form of sealed text, which no key can open.
pub(super) fn sealed_text(scope: u8, namespace: &str, name: &str, bucket: usize) -> String {
    let mut bytes = vec![0x01, 0x64, 0x7a, 0x00, 0x01, 0x00, 0x02];
    bytes.extend([0xa5; 8]);
    bytes.push(scope);
    for part in [namespace, name] {
        bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part.bytes());
    }
    bytes.resize(bytes.len() + SEALED_ENC_BYTES + bucket + AEAD_TAG_BYTES, 0x5a);
    format!("{SEALED_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn combinations() -> Vec<Case> {
    let value = json!(sealed_text(1, "shop", "db", BUCKET_MIN));
    let sources = [
        ("value", value),
        ("valueFrom", json!({ "secretKeyRef": { "name": "upstream", "key": "token" } })),
        ("generate", json!({ "length": 20 })),
    ];
    let mut cases = Vec::new();
    for chosen in 0..8_u32 {
        for absent_is_null in [false, true] {
            let mut object = with(json!({}));
            object["spec"].as_object_mut().unwrap().remove("generate");
            for (bit, (key, source)) in sources.iter().enumerate() {
                if chosen & (1 << bit) != 0 {
                    object["spec"][key] = source.clone();
                } else if absent_is_null {
                    object["spec"][key] = Value::Null;
                }
            }
            let exactly_one = chosen.is_power_of_two();
            let wrong: &[_] = if exactly_one { &[] } else { &["spec"] };
            cases.push(Case::new(format!("sources {chosen:03b}, null {absent_is_null}"), object, wrong));
        }
    }
    cases
}

fn sealed() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: String, value: Value, valid: bool| {
        let wrong: &[_] = if valid { &[] } else { &["spec.value"] };
        cases.push(Case::new(what, with(json!({ "generate": null, "value": value })), wrong));
    };
    let places = [
        (3, 0, 0),
        (2, 1, 0),
        (2, NAMESPACE_MAX, 0),
        (1, 1, 1),
        (1, 4, 2),
        (1, 4, 3),
        (1, 4, 4),
        (0x81, 4, 2),
        (0x82, 4, 0),
        (0x83, 0, 0),
    ];
    for (scope, namespace, name) in places.into_iter().chain([(1, NAMESPACE_MAX, SECRET_NAME_MAX)]) {
        for bucket in [BUCKET_MIN, BUCKET_MIN * 2, BUCKET_MAX] {
            let text = sealed_text(scope, &"s".repeat(namespace), &"n".repeat(name), bucket);
            case(format!("sealed: scope {scope}, {namespace}, {name}, {bucket}"), json!(text), true);
        }
    }

    // The real thing: the shortest and the longest value, under a key that the cluster does not have.
    let key = SealingKey::new(Zeroizing::new([7; 32])).unwrap();
    let (namespace, name) = ("shop".to_owned(), "db".to_owned());
    for scope in [Scope::Strict { namespace: namespace.clone(), name }, Scope::Namespace { namespace }, Scope::Cluster]
    {
        for value in ["v".to_owned(), "😀".repeat(VALUE_MAX)] {
            let plaintext = Plaintext::new(Zeroizing::new(value.into_bytes())).unwrap();
            for handling in [Handling::Deliverable, Handling::Kept] {
                let text = seal(key.public(), &scope, handling, &plaintext).unwrap();
                case(format!("really {scope}, {handling:?}"), json!(text), true);
            }
        }
    }

    let good = sealed_text(1, "shop", "db", BUCKET_MIN);
    let last = good.len() - 1;
    for (at, with) in [
        (0, "M"),
        (3, "2"),
        (4, "_"),
        (5, "B"),
        (8, "7"),
        (13, "B"),
        (14, "A"),
        (14, "w"),
        (25, "B"),
        (26, "A"),
        (26, "B"),
        (27, "B"),
        (28, "="),
        (100, "+"),
        (100, "/"),
        (100, " "),
        (100, "\n"),
        (100, "é"),
        (last, "+"),
        (last, "="),
        (last, "\n"),
    ] {
        let mut text = good.clone();
        text.replace_range(at..=at, with);
        case(format!("sealed, with {with:?} at {at}"), json!(text), false);
    }
    // Each length of the last group, with each last character: canonical base64 only.
    for name in ["d", "db", "dbx"] {
        let text = sealed_text(1, "shop", name, BUCKET_MIN);
        for end in ["A", "B", "E", "Q", "g", "w", "0", "-", "_"] {
            let text = format!("{}{end}", &text[..text.len() - 1]);
            let canonical = URL_SAFE_NO_PAD.decode(&text[SEALED_PREFIX.len()..]).is_ok();
            case(format!("sealed for {name:?}, ending in {end}"), json!(text), canonical);
        }
    }
    let shortest = sealed_text(3, "", "", BUCKET_MIN);
    let longest = sealed_text(1, &"s".repeat(NAMESPACE_MAX), &"n".repeat(SECRET_NAME_MAX), BUCKET_MAX);
    assert_eq!((shortest.len(), longest.len()), (SEALED_MIN, SEALED_MAX));
    for (what, text) in [
        ("one group too short", shortest[..SEALED_MIN - 4].to_owned()),
        ("one character too short", shortest[..SEALED_MIN - 1].to_owned()),
        ("one character too long", format!("{longest}A")),
        ("one group too long", format!("{longest}AAAA")),
        ("a trailing newline", format!("{good}\n")),
        ("a leading space", format!(" {good}")),
        ("padding", format!("{good}=")),
        ("the head alone", good[..28].to_owned()),
        ("two texts", format!("{good}{good}")),
    ] {
        case(format!("sealed: {what}"), json!(text), false);
    }
    for text in ["", "mss1.", "mss1.hunter2", "hunter2", "MSS1.AWR6", "mss2.AWR6"].into_iter().chain(STRANGE) {
        case(format!("plaintext {text:?}"), json!(text), false);
    }
    case("plaintext of the longest length".to_owned(), json!("😀".repeat(SEALED_MAX)), false);
    case("plaintext too long for the field".to_owned(), json!("p".repeat(SEALED_MAX + 1)), false);
    for value in [json!(0), json!(-1), json!(12_345_678), json!(u64::MAX), json!(1.5), json!(1e300), json!(true)] {
        case(format!("the value {value}"), value, false);
    }
    for value in [json!([]), json!(["a"]), json!([{ "a": "b" }]), json!({}), json!({ "a": { "b": "c" } })] {
        case(format!("the value {value}"), value, false);
    }
    cases
}

/// Names of Secrets, and whether one may be named.
pub(super) fn secret_names() -> Vec<(String, bool)> {
    let good = ["a", "0", "a-b", "a.b", "a.b-c.0", "msec", "msecx", "a-msec-b"];
    let bad = ["", "A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a.-b", "a/b", "a:b", "msec-", "msec-abc", "MSEC-a"];
    let mut names: Vec<_> = good.map(|name| (name.to_owned(), true)).into();
    names.extend(bad.into_iter().chain(STRANGE).map(|name| (name.to_owned(), false)));
    names.push(("n".repeat(SECRET_NAME_MAX), true));
    names.push(("n".repeat(SECRET_NAME_MAX + 1), false));
    names.push((format!("{}.{}", "n".repeat(126), "m".repeat(126)), true));
    names
}

/// Keys of Secrets, and whether one may be named.
pub(super) fn secret_keys() -> Vec<(String, bool)> {
    let good = ["a", "A", "0", "-", "_", ".a", "a.", "a..b", "a.b-c_D", "value", "-._"];
    let bad = ["", ".", "..", "..a", "...", "a/b", "a b", "a:b", "a\\b", "a,b", "a\n"];
    let mut keys: Vec<_> = good.map(|key| (key.to_owned(), true)).into();
    keys.extend(bad.into_iter().chain(STRANGE).map(|key| (key.to_owned(), false)));
    keys.push(("k".repeat(SECRET_KEY_MAX), true));
    keys.push(("k".repeat(SECRET_KEY_MAX + 1), false));
    keys
}

fn reference(name: &str, key: &str) -> Value {
    json!({ "generate": null, "valueFrom": { "secretKeyRef": { "name": name, "key": key } } })
}

fn references() -> Vec<Case> {
    let names = secret_names().into_iter().map(|(name, valid)| {
        let wrong: &[_] = if valid { &[] } else { &["spec.valueFrom.secretKeyRef.name"] };
        Case::new(format!("source name {name:?}"), with(reference(&name, "token")), wrong)
    });
    let keys = secret_keys().into_iter().map(|(key, valid)| {
        let wrong: &[_] = if valid { &[] } else { &["spec.valueFrom.secretKeyRef.key"] };
        Case::new(format!("source key {key:?}"), with(reference("upstream", &key)), wrong)
    });
    names.chain(keys).collect()
}

/// A source that is the object's own target.
fn own_targets() -> Vec<Case> {
    const SOURCE: &[&str] = &["spec.valueFrom.secretKeyRef.name"];
    let cases: [(Value, &[&'static str]); 9] = [
        (json!({}), SOURCE),
        (json!({ "target": {} }), SOURCE),
        (json!({ "target": { "key": "other" } }), SOURCE),
        (json!({ "delivery": "Secret" }), SOURCE),
        (json!({ "delivery": "None" }), &[]),
        (json!({ "target": { "name": "other" } }), &[]),
        (json!({ "target": { "name": "db" } }), SOURCE),
        (json!({ "target": { "name": "db" }, "delivery": "None" }), &[]),
        (json!({ "target": { "name": null }, "delivery": null }), SOURCE),
    ];
    let mut cases: Vec<_> = cases
        .into_iter()
        .map(|(fields, wrong)| {
            let mut object = with(reference("db", "token"));
            for (key, value) in fields.as_object().unwrap() {
                object["spec"][key] = value.clone();
            }
            Case::new(format!("source `db` and {fields}"), object, wrong)
        })
        .collect();
    let mut renamed = with(reference("upstream", "token"));
    renamed["spec"]["target"] = json!({ "name": "upstream" });
    cases.push(Case::new("source and target `upstream`", renamed, SOURCE));
    cases
}
