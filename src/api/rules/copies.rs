//! How a plain value looks in an annotation that holds a copy of a manifest. Tools keep such copies: kubectl does, kapp
//! does.
//!
//! CEL reads no JSON, so these are regular expressions (RE2) over the text. A substring alone would refuse sealed values or
//! miss others: each expression finds how a value begins, and what begins as sealed text does is sealed.
//!
//! The API server bounds what an expression may cost: about 1,000,000, where `matches` costs a 40th of the length of the
//! text times that of the expression (cel-go). 256 KiB, the most that Kubernetes takes of annotations, fit with
//! expressions of up to 150 characters, so each function here stays below that or asks first for a word that its find must
//! hold.

use crate::api::{
    keys::{GROUP, KIND, VERSION},
    limits::SEALED_PREFIX,
};

/// A quotation mark in JSON that is itself the string of a JSON document, at any depth.
const NESTED_QUOTE: &str = r#"\\+("|u0022)"#;
/// White space there.
const NESTED_SPACE: &str = r"(\s|\\+[nrt])*";

/// CEL: the string that `text` evaluates to holds a member `value`, in JSON, that is not sealed: text, a number, a boolean,
/// a list or an object.
pub(super) fn plain_in_json(text: &str) -> String {
    let begin = SEALED_PREFIX.len();
    plain(text, &format!(r#""value"\s*:\s*("[^"\\]{{0,{begin}}}|[-0-9tf\[{{])"#))
}

/// CEL: `text` holds a ManagedSecret, or its `spec`, or a JSON patch of its value, with a value that is not sealed.
pub(super) fn json(text: &str) -> String {
    let group = literal(GROUP);
    let marks = format!(r#""(kind|apiVersion)"\s*:\s*"({KIND}"|{group}/)|"spec"\s*:\s*\{{|"path"\s*:\s*"/spec/value""#);
    format!("{text}.contains('value') && {text}.matches(r'{marks}') && {}", plain_in_json(text))
}

/// CEL: the same in a string of the JSON that `text` is.
pub(super) fn nested_json(text: &str) -> String {
    let (quote, space, group, begin) = (NESTED_QUOTE, NESTED_SPACE, literal(GROUP), SEALED_PREFIX.len());
    let marks = format!(r"{quote}({KIND}|{group}/{VERSION}){quote}|{quote}spec{quote}{space}:{space}\{{");
    let value = format!(r#"{quote}value{quote}{space}:{space}({quote}[^"\\]{{0,{begin}}}|[-0-9tf\[{{])"#);
    format!("{text}.contains('value') && {text}.matches(r'{marks}') && {}", plain(text, &value))
}

/// CEL: `text` holds a ManagedSecret in YAML, with a value that is not sealed.
pub(super) fn yaml(text: &str) -> String {
    // A single quote would end the literal.
    let (mark, begin) = (r#"["\x27]?"#, SEALED_PREFIX.len());
    let key = |key: &str| format!(r"(?m)^[ \t-]*{mark}{key}{mark}[ \t]*:[ \t]+{mark}");
    let marks = format!("{}({KIND}|{}/)", key("(kind|apiVersion)"), literal(GROUP));
    let value = format!(r#"{}[^\s"\x27#]{{1,{begin}}}"#, key("value"));
    format!(
        "{text}.contains('value') && {text}.matches(r'{marks}')\n\
         && {text}.findAll(r'{value}').exists(found, !found.endsWith('{SEALED_PREFIX}') && !found.endsWith(' null'))"
    )
}

/// CEL: `text` is JSON that writes letters as escapes. No encoder does that, and it hides `value` from the others.
pub(super) fn escaped_json(text: &str) -> String {
    let letter = r"(4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])";
    // A backslash that is escaped itself begins no escape.
    format!(
        r"{text}.contains(r'\u00') && {text}.matches(r'^\s*[\[{{]') && {text}.matches(r'(^|[^\\])(\\\\)*\\u00{letter}')"
    )
}

fn plain(text: &str, pattern: &str) -> String {
    format!("{text}.findAll(r'{pattern}').exists(found, !found.endsWith('{SEALED_PREFIX}'))")
}

/// As a part of a regular expression.
fn literal(text: &str) -> String {
    text.replace('.', r"\.")
}
