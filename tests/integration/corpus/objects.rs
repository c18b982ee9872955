//! The corpus: what it is made of, and what concerns the object and its name.

use managed_secrets_api::limits::{
    DESCRIPTION_MAX, GENERATE_MAX, HISTORY_MAX, NAME_MAX, REVISION_MAX, ROTATE_EVERY_HOURS_MAX, SECRET_NAME_MAX,
    VERSION_MAX,
};
use serde_json::{Value, json};

use super::{Case, lifecycle, source, target, template};

/// Characters of `spec.name`, spelled out.
const NAME_CHARACTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=-@#$";

/// Every object.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![Case::new("the smallest object", with(json!({})), &[])];
    cases.extend(names());
    cases.extend(descriptions());
    cases.extend(choices());
    cases.extend(rotations());
    cases.extend(expiry());
    cases.extend(lifecycle::all());
    cases.extend(shapes());
    cases.extend(metadata());
    cases.extend(source::all());
    cases.extend(target::all());
    cases.extend(template::all());
    cases
}

/// A valid object called `db`, with `fields` of its spec replaced.
pub(super) fn with(fields: Value) -> Value {
    let mut object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1",
        "kind": "ManagedSecret",
        "metadata": { "name": "db" },
        "spec": { "name": "DB", "generate": {} },
    });
    let Value::Object(fields) = fields else { panic!("fields are an object") };
    for (key, value) in fields {
        object["spec"][key] = value;
    }
    object
}

/// Text that surprises: an empty one, line ends, characters of several bytes, combining, astral, invisible.
pub(super) const STRANGE: [&str; 18] = [
    "a\n",
    "a\r\n",
    "\n",
    "a\nb",
    "a\t",
    " ",
    "a ",
    "\u{0}",
    "a\u{0}",
    "\u{7f}",
    "é",
    "e\u{301}",
    "Ａ",
    "٣",
    "😀",
    "\u{200b}",
    "\u{feff}a",
    "\u{10ffff}",
];

fn names() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: String, name: &str, valid: bool| {
        let wrong: &[_] = if valid { &[] } else { &["spec.name"] };
        cases.push(Case::new(what, with(json!({ "name": name })), wrong));
    };
    for character in ' '..='~' {
        let valid = NAME_CHARACTERS.contains(character);
        case(format!("name {character:?} alone"), &character.to_string(), valid);
        case(format!("name with {character:?} inside"), &format!("a{character}b"), valid);
    }
    for strange in STRANGE {
        case(format!("name {strange:?}"), strange, false);
    }
    for (length, valid) in [(0, false), (1, true), (2, true), (NAME_MAX, true), (NAME_MAX + 1, false), (5000, false)] {
        case(format!("name of {length} characters"), &"n".repeat(length), valid);
    }
    for length in [NAME_MAX, NAME_MAX + 1] {
        case(format!("name of {length} astral characters"), &"😀".repeat(length), false);
        case(format!("name of {length} characters of two bytes"), &"é".repeat(length), false);
    }
    cases
}

fn descriptions() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |what: String, description: &str, valid: bool| {
        let wrong: &[_] = if valid { &[] } else { &["spec.description"] };
        cases.push(Case::new(what, with(json!({ "description": description })), wrong));
    };
    for character in ["d", "é", "😀", "\u{301}", "\n", "\u{0}"] {
        for (length, valid) in [(0, true), (1, true), (DESCRIPTION_MAX, true), (DESCRIPTION_MAX + 1, false)] {
            case(format!("description of {length} times {character:?}"), &character.repeat(length), valid);
        }
    }
    for strange in STRANGE {
        case(format!("description {strange:?}"), strange, true);
    }
    cases
}

/// Fields with a closed set of values, and the length of a generated one.
fn choices() -> Vec<Case> {
    let mut cases = Vec::new();
    let sets: [(&str, &'static str, &[&str]); 5] = [
        ("/spec/delivery", "spec.delivery", &["Secret", "None"]),
        ("/spec/deletionPolicy", "spec.deletionPolicy", &["Delete", "Retain"]),
        ("/spec/target/adoption", "spec.target.adoption", &["Never", "IfUnowned"]),
        (
            "/spec/generate/alphabet",
            "spec.generate.alphabet",
            &["Alphanumeric", "AlphanumericSymbols", "Hex", "Base64Url"],
        ),
        ("/spec/suspend", "spec.suspend", &[]),
    ];
    for (pointer, path, choices) in sets {
        let mut case = |value: Value, valid: bool| {
            let mut object = with(json!({ "target": {} }));
            set(&mut object, pointer, value.clone());
            let wrong: &[_] = if valid { &[] } else { &[path] };
            cases.push(Case::new(format!("{path}: {value}"), object, wrong));
        };
        for choice in choices {
            case(json!(choice), true);
            case(json!(choice.to_lowercase()), false);
            case(json!(format!("{choice}\n")), false);
        }
        case(json!(""), false);
        case(json!("Other"), false);
        case(json!(true), choices.is_empty());
        case(json!(false), choices.is_empty());
    }
    let max = f64::from(GENERATE_MAX);
    let numbers = [
        (json!(0), false),
        (json!(1), true),
        (json!(GENERATE_MAX), true),
        (json!(GENERATE_MAX + 1), false),
        (json!(-1), false),
        (json!(32.0), true),
        (json!(max), true),
        (json!(32.5), false),
        (json!(0.999), false),
        (json!(2_147_483_648_u32), false),
        (json!(u64::MAX), false),
        (json!(i64::MIN), false),
        (json!(1e300), false),
    ];
    for (length, valid) in numbers {
        let wrong: &[_] = if valid { &[] } else { &["spec.generate.length"] };
        cases.push(Case::new(format!("length {length}"), with(json!({ "generate": { "length": length } })), wrong));
    }
    for (history, target, valid) in [
        (json!(0), json!({"previousKey": "old"}), false),
        (json!(1), json!({"previousKey": "old"}), true),
        (json!(0), json!({"key": "old"}), true),
    ] {
        let wrong: &[_] = if valid { &[] } else { &["spec.history"] };
        let object = with(json!({ "history": history, "target": target }));
        cases.push(Case::new(format!("history {history} with {target}"), object, wrong));
    }
    for (number, history, version) in [
        (json!(-1), false, false),
        (json!(0), true, false),
        (json!(1), true, true),
        (json!(HISTORY_MAX), true, true),
        (json!(HISTORY_MAX + 1), false, true),
        (json!(2.0), true, true),
        (json!(2.5), false, false),
        (json!(VERSION_MAX), false, true),
        (json!(VERSION_MAX + 1), false, false),
        (json!(i64::MAX), false, false),
        (json!(1e300), false, false),
        (json!("1"), false, false),
    ] {
        for (field, path, valid) in [("history", "spec.history", history), ("version", "spec.version", version)] {
            let wrong: &[_] = if valid { &[] } else { &[path] };
            cases.push(Case::new(format!("{field} {number}"), with(json!({ field: number })), wrong));
        }
    }
    cases
}

/// When a generated value is replaced.
fn rotations() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |field: &str, text: &str, valid: bool| {
        let path = match field {
            "rotateEvery" => "spec.generate.rotateEvery",
            _ => "spec.generate.revision",
        };
        let wrong: &[_] = if valid { &[] } else { &[path] };
        cases.push(Case::new(format!("{field} {text:?}"), with(json!({"generate": {(field): text}})), wrong));
    };
    let (longest, longer) = (format!("{ROTATE_EVERY_HOURS_MAX}h"), format!("{ROTATE_EVERY_HOURS_MAX}h1s"));
    for text in ["1h", "720h", "1h30m", "60m", "3600s", "59m60s", "0h60m0s", "01h", "1h0m", &longest, "87599h60m"] {
        case("rotateEvery", text, true);
    }
    // What Go accepts beyond it, what is too short or too long, and what is no duration.
    for text in [
        "",
        "h",
        "0",
        "1",
        "1d",
        "1w",
        "1H",
        "1.5h",
        "90.5m",
        "-1h",
        "+1h",
        "1h ",
        " 1h",
        "30m1h",
        "1h1h",
        "3600000ms",
        "1µs",
        "0h",
        "59m",
        "59m59s",
        "3599s",
        &longer,
        "99999h",
        "100000h",
        "2562048h",
        "99999999999999999999h",
        "1hour",
        "٣h",
    ] {
        case("rotateEvery", text, false);
    }
    for character in ' '..='~' {
        let valid = character.is_ascii_alphanumeric() || "._:+/-".contains(character);
        case("revision", &format!("a{character}"), valid);
    }
    for text in ["2026-11", "2026-11-28T15:04:05Z", "v1.2.3+build", "a/b", "-", "_"] {
        case("revision", text, true);
    }
    for (length, valid) in [(0, false), (1, true), (REVISION_MAX, true), (REVISION_MAX + 1, false)] {
        case("revision", &"r".repeat(length), valid);
    }
    for text in STRANGE {
        case("rotateEvery", text, false);
        case("revision", text, false);
    }
    cases
}

/// Dates and durations.
fn expiry() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |field: &str, path: &'static str, text: &str, valid: bool| {
        let wrong: &[_] = if valid { &[] } else { &[path] };
        cases.push(Case::new(format!("{field} {text:?}"), with(json!({ field: text })), wrong));
    };
    let mut dates: Vec<(String, bool)> = [
        ("2027-03-01T00:00:00Z", true),
        ("2000-01-01T00:00:00Z", true),
        ("2999-12-31T23:59:59Z", true),
        ("1999-12-31T23:59:59Z", false),
        ("3000-01-01T00:00:00Z", false),
        ("2027-03-01T24:00:00Z", false),
        ("2027-03-01T23:60:00Z", false),
        ("2027-03-01T23:59:60Z", false),
        ("2027-03-01T00:00:00z", false),
        ("2027-03-01t00:00:00Z", false),
        ("2027-03-01 00:00:00Z", false),
        ("2027-03-01T00:00:00", false),
        ("2027-03-01", false),
        ("2027-03-01T00:00:00.000Z", false),
        ("2027-03-01T00:00:00+00:00", false),
        ("2027-03-01T00:00+00:00", false),
        ("2027-03-0aT00:00:00Z", false),
        ("2027-03-٠1T00:00:00Z", false),
        ("\n2027-03-01T00:00:00Z", false),
        ("2027-3-01T00:00:000Z", false),
    ]
    .map(|(text, valid)| (text.to_owned(), valid))
    .into();
    for year in [2000, 2004, 2027, 2028, 2100, 2400, 2096] {
        for month in 0..=13 {
            let days = match month {
                2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                1..=12 => 31,
                _ => 0,
            };
            for day in [0, 1, days, days + 1] {
                dates.push((format!("{year}-{month:02}-{day:02}T12:00:00Z"), (1..=days).contains(&day)));
            }
        }
    }
    for (text, valid) in &dates {
        case("expires", "spec.expires", text, *valid);
    }
    for strange in STRANGE {
        case("expires", "spec.expires", strange, false);
        case("expiryWarning", "spec.expiryWarning", strange, false);
        case("expiryWarning", "spec.expiryWarning", &format!("1h{strange}"), false);
        case("overlap", "spec.overlap", strange, false);
    }
    for (text, valid) in [
        ("720h", true),
        ("0s", true),
        ("1h30m", true),
        ("1h30m15s", true),
        ("90m", true),
        ("720h0m0s", true),
        ("00001h", true),
        ("87600h", true),
        ("87600h0m1s", false),
        ("87601h", false),
        ("87599h999999m", false),
        ("999999h999999m999999s", false),
        ("1000000h", false),
        ("30m1h", false),
        ("1h1h", false),
        ("1.5h", false),
        ("-1h", false),
        ("+1h", false),
        ("1d", false),
        ("30", false),
        ("h", false),
        ("", false),
        ("1ms", false),
        ("1 h", false),
        ("1H", false),
        ("000000000000000000000001h", false),
        ("0000000000000000000000001h", false),
    ] {
        case("expiryWarning", "spec.expiryWarning", text, valid);
        case("overlap", "spec.overlap", text, valid);
    }
    cases
}

/// Each field holding each type of JSON; server and validator must agree, whatever they say.
fn shapes() -> Vec<Case> {
    const FIELDS: [&str; 36] = [
        "/spec",
        "/spec/name",
        "/spec/description",
        "/spec/value",
        "/spec/valueFrom",
        "/spec/valueFrom/secretKeyRef",
        "/spec/valueFrom/secretKeyRef/name",
        "/spec/valueFrom/secretKeyRef/key",
        "/spec/generate",
        "/spec/generate/length",
        "/spec/generate/alphabet",
        "/spec/generate/rotateEvery",
        "/spec/generate/revision",
        "/spec/delivery",
        "/spec/history",
        "/spec/version",
        "/spec/overlap",
        "/spec/target",
        "/spec/target/name",
        "/spec/target/key",
        "/spec/target/previousKey",
        "/spec/target/type",
        "/spec/target/labels",
        "/spec/target/labels/app",
        "/spec/target/annotations",
        "/spec/target/annotations/note",
        "/spec/target/adoption",
        "/spec/target/restart",
        "/spec/target/restart/0",
        "/spec/target/restart/0/kind",
        "/spec/target/restart/0/name",
        "/spec/deletionPolicy",
        "/spec/suspend",
        "/spec/expires",
        "/spec/expiryWarning",
        "/spec/unknown",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(7.5),
        json!("text"),
        json!([]),
        json!(["text", null]),
        json!([{ "name": "text" }]),
        json!({}),
        json!({ "name": "text", "key": null, "unknown": { "a": [1] } }),
    ];
    let mut cases = Vec::new();
    for pointer in FIELDS {
        for value in &values {
            let mut object = with(json!({ "target": { "labels": {}, "annotations": {} } }));
            if pointer.starts_with("/spec/target/restart/") {
                object["spec"]["target"]["restart"] = json!([{ "kind": "Deployment", "name": "shop" }]);
            }
            if pointer.starts_with("/spec/valueFrom") {
                object["spec"]["generate"] = Value::Null;
                object["spec"]["valueFrom"] = json!({ "secretKeyRef": { "name": "upstream", "key": "token" } });
            }
            set(&mut object, pointer, value.clone());
            cases.push(Case { what: format!("{pointer}: {value}"), object, wrong: None });
        }
    }
    // What is missing, and what may be.
    for (pointer, wrong) in [
        ("/spec", &["spec"] as &[_]),
        ("/spec/name", &["spec.name"]),
        ("/spec/generate", &["spec"]),
        ("/spec/target", &[]),
    ] {
        let mut object = with(json!({ "target": {} }));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        cases.push(Case::new(format!("without {pointer}"), object, wrong));
    }
    let mut object = with(json!({ "note": "unknown", "target": { "note": "unknown" } }));
    object["unknown"] = json!(1);
    cases.push(Case::new("unknown fields", object, &[]));
    let mut object = with(json!({}));
    object["status"] = json!({ "version": -1, "conditions": [{ "type": "" }] });
    cases.push(Case::new("a status sent along", object, &[]));
    cases
}

fn metadata() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, valid: bool| {
        let mut object = with(json!({}));
        object["metadata"]["name"] = json!(name);
        let wrong: &[_] = if valid { &[] } else { &["metadata.name"] };
        cases.push(Case::new(format!("metadata.name {name:?}"), object, wrong));
    };
    for name in ["a", "0", "a.b", "a-b", "1.2"] {
        case(name, true);
    }
    for name in ["A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a.-b", "a b", "é", "a\n", "a/b"] {
        case(name, false);
    }
    case(&"a".repeat(SECRET_NAME_MAX), true);
    case(&"a".repeat(SECRET_NAME_MAX + 1), false);

    let mut generated = with(json!({}));
    generated["metadata"] = json!({ "generateName": "db-" });
    cases.push(Case::new("a generated metadata.name", generated, &[]));
    let mut both = with(json!({ "name": "a b" }));
    both["metadata"]["name"] = json!("A");
    cases.push(Case::new("metadata.name and spec.name wrong", both, &["metadata.name", "spec.name"]));
    cases
}

/// Sets the field at a JSON pointer, whose parent exists.
pub(super) fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
}
