//! How a plain value looks in an annotation that holds a copy of a manifest. Tools keep such copies: kubectl does, kapp
//! does.
//!
//! CEL reads no JSON, so these are regular expressions over the text. A substring alone would refuse sealed values or
//! miss others: each expression finds how a value begins, and what begins as sealed text does is sealed. The policy of the
//! API server and the plugin look for the same [`WAYS`]: CEL reads the expressions as RE2, Rust as bytes without Unicode,
//! which is the same for these.
//!
//! The API server bounds what an expression may cost: about 1,000,000, where `matches` costs a 40th of the length of the
//! text times that of the expression (cel-go). 256 KiB, the most that Kubernetes takes of annotations, fit with
//! expressions of up to 150 characters, so each way here stays below that or asks first for a word that its find must
//! hold.

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use crate::{
    keys::{GROUP, KIND, PACKED_COPIES, VERSION},
    limits::SEALED_PREFIX,
};

/// A quotation mark in JSON that is itself the string of a JSON document, at any depth.
const NESTED_QUOTE: &str = r#"\\+("|u0022)"#;
/// A slash in JSON: some encoders (PHP's, for one) write it as an escape.
const SLASH: &str = r"\\?/";
/// The same, nested.
const NESTED_SLASH: &str = r"\\*/";
/// White space there.
const NESTED_SPACE: &str = r"(\s|\\+[nrt])*";

/// Every way in which a copy with a plain value is written. They are several because the API server bounds what one
/// may cost.
pub(super) static WAYS: LazyLock<[Way; 6]> =
    LazyLock::new(|| [json(), json_patch(), nested_json(), nested_json_patch(), yaml(), escaped_json()]);

/// A way to write a copy: what a text that is written so, with a plain value, holds.
pub(super) struct Way {
    /// Its name, for CEL.
    pub(super) name: &'static str,
    /// It contains this; looked for first, because that is cheap.
    word: &'static str,
    /// It matches each of these.
    marks: Vec<Pattern>,
    /// It has a plain value.
    value: Option<Value>,
}

/// How a plain value begins.
struct Value {
    /// What is found: a sealed value, too.
    found: Pattern,
    /// What is found of a value that is sealed, or of none, ends so.
    harmless: &'static [&'static str],
}

/// A regular expression, for both readers.
struct Pattern {
    text: String,
    /// A test shows that every one compiles.
    regex: Option<Regex>,
}

impl Pattern {
    fn new(text: String) -> Self {
        Self { regex: RegexBuilder::new(&text).unicode(false).build().ok(), text }
    }

    fn found_in<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t [u8]> {
        let matches = self.regex.iter().flat_map(move |regex| regex.find_iter(text.as_bytes()));
        matches.map(|found| found.as_bytes())
    }
}

impl Way {
    /// CEL: the string that `text` evaluates to holds such a copy.
    pub(super) fn cel(&self, text: &str) -> String {
        let word = format!("{text}.contains(r'{}')", self.word);
        let marks = self.marks.iter().map(|mark| format!("{text}.matches(r'{}')", mark.text));
        let value = self.value.as_ref().map(|value| value.cel(text));
        std::iter::once(word).chain(marks).chain(value).collect::<Vec<_>>().join("\n&& ")
    }

    /// Whether a text holds such a copy.
    pub(super) fn is_in(&self, text: &str) -> bool {
        text.contains(self.word)
            && self.marks.iter().all(|mark| mark.found_in(text).next().is_some())
            && self.value.as_ref().is_none_or(|value| value.is_in(text))
    }
}

impl Value {
    fn cel(&self, text: &str) -> String {
        let not_harmless = self.harmless.iter().map(|end| format!("!found.endsWith('{end}')"));
        format!(
            "{text}.findAll(r'{}').exists(found, {})",
            self.found.text,
            not_harmless.collect::<Vec<_>>().join(" && ")
        )
    }

    fn is_in(&self, text: &str) -> bool {
        self.found.found_in(text).any(|found| !self.harmless.iter().any(|end| found.ends_with(end.as_bytes())))
    }
}

/// CEL: the string that `text` evaluates to holds a member `value`, in JSON, that is not sealed: text, a number, a boolean,
/// a list or an object.
pub(super) fn plain_in_json(text: &str) -> String {
    value_in_json(r#""value"\s*:\s*"#, "\"", r"[-0-9tf\[{]").cel(text)
}

/// A member with this beginning, whose value is a text that is not sealed, between these quotation marks, or begins with
/// one of these other characters.
fn value_in_json(member: &str, quote: &str, others: &str) -> Value {
    let begin = SEALED_PREFIX.len();
    let found = Pattern::new(format!(r#"{member}({quote}[^"\\]{{0,{begin}}}|{others})"#));
    Value { found, harmless: &[SEALED_PREFIX] }
}

/// A ManagedSecret, or its `spec`, or a JSON patch of its value.
fn json() -> Way {
    let group = literal(GROUP);
    let marks = format!(
        r#""(kind|apiVersion)"\s*:\s*"({KIND}"|{group}{SLASH})|"spec"\s*:\s*\{{|"path"\s*:\s*"{SLASH}spec{SLASH}value""#
    );
    Way {
        name: "json",
        word: "value",
        marks: vec![Pattern::new(marks)],
        value: Some(value_in_json(r#""value"\s*:\s*"#, "\"", r"[-0-9tf\[{]")),
    }
}

/// A JSON patch of the whole spec, or a member `spec.value`. The `value` of such a patch is an object.
fn json_patch() -> Way {
    Way {
        name: "jsonPatch",
        word: "value",
        marks: vec![Pattern::new(format!(r#""path"\s*:\s*"{SLASH}spec"|"spec\.value""#))],
        value: Some(value_in_json(r#""(spec\.)?value"\s*:\s*"#, "\"", r"[-0-9tf\[]")),
    }
}

/// The same as `json` in a string of the JSON that the text is.
fn nested_json() -> Way {
    let (quote, space, group) = (NESTED_QUOTE, NESTED_SPACE, literal(GROUP));
    let marks = format!(r"{quote}({KIND}|{group}{NESTED_SLASH}{VERSION}){quote}|{quote}spec{quote}{space}:{space}\{{");
    Way {
        name: "nestedJson",
        word: "value",
        marks: vec![Pattern::new(marks)],
        value: Some(value_in_nested_json(r"[-0-9tf\[{]")),
    }
}

/// A JSON patch there, of the value or of the whole spec.
fn nested_json_patch() -> Way {
    let quote = NESTED_QUOTE;
    Way {
        name: "nestedJsonPatch",
        word: "/spec",
        marks: vec![Pattern::new(format!("{quote}{NESTED_SLASH}spec({NESTED_SLASH}value)?{quote}"))],
        value: Some(value_in_nested_json(r"[-0-9tf\[]")),
    }
}

fn value_in_nested_json(others: &str) -> Value {
    let (quote, space) = (NESTED_QUOTE, NESTED_SPACE);
    value_in_json(&format!("{quote}value{quote}{space}:{space}"), quote, others)
}

/// A ManagedSecret in YAML, one field a line.
fn yaml() -> Way {
    // A single quote would end the literal in CEL.
    let (mark, begin) = (r#"["\x27]?"#, SEALED_PREFIX.len());
    let key = |key: &str| format!(r"(?m)^[ \t-]*{mark}{key}{mark}[ \t]*:[ \t]+{mark}");
    let marks = format!("{}({KIND}|{}/)", key("(kind|apiVersion)"), literal(GROUP));
    let found = Pattern::new(format!(r#"{}[^\s"\x27#]{{1,{begin}}}"#, key("value")));
    Way {
        name: "yaml",
        word: "value",
        marks: vec![Pattern::new(marks)],
        value: Some(Value { found, harmless: &[SEALED_PREFIX, " null"] }),
    }
}

/// JSON that writes letters as escapes. No encoder does that, and it hides `value` from the others.
fn escaped_json() -> Way {
    let letter = r"(4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])";
    // A backslash that is escaped itself begins no escape.
    let escape = format!(r"(^|[^\\])(\\\\)*\\u00{letter}");
    Way {
        name: "escapedJson",
        word: r"\u00",
        marks: vec![Pattern::new(r"^\s*[\[{]".to_owned()), Pattern::new(escape)],
        value: None,
    }
}

/// CEL: the annotation `key` (an expression) with this text is a copy that cannot be looked into.
pub(super) fn packed_cel(key: &str, text: &str) -> String {
    let keys = PACKED_COPIES.map(|key| format!("'{key}'")).join(", ");
    format!("{key} in [{keys}] && {text} != '' && !{text}.startsWith('{{')")
}

/// Whether the annotation `key` with this text is such a copy.
pub(super) fn is_packed(key: &str, text: &str) -> bool {
    PACKED_COPIES.contains(&key) && !text.is_empty() && !text.starts_with('{')
}

/// As a part of a regular expression.
fn literal(text: &str) -> String {
    text.replace('.', r"\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns() -> impl Iterator<Item = &'static Pattern> {
        WAYS.iter().flat_map(|way| way.marks.iter().chain(way.value.as_ref().map(|value| &value.found)))
    }

    #[test]
    fn every_expression_compiles_and_fits_a_literal_of_cel() {
        for pattern in patterns() {
            assert!(pattern.regex.is_some(), "{}", pattern.text);
            assert!(!pattern.text.contains('\''), "{}", pattern.text);
        }
    }
}
