//! YAML as `kubectl` reads it.
//!
//! kubectl's library (go.yaml.in/yaml/v2) follows YAML 1.1: `yes` is a boolean, U+2028 is a line break. The crates here
//! follow YAML 1.2. So text is written in a way that both read alike, and what both read differently is known: plain
//! scalars in [`scalar`], characters in [`characters`]. A test compares both ways with the real kubectl. What is written
//! has escapes for every character that cannot be seen, so that it drives no terminal.

pub mod characters;
pub mod scalar;

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_saphyr::DoubleQuoted;

use super::{CliError, say};

/// One object as a YAML document.
pub fn document<T: Serialize>(object: &T) -> Result<String, CliError> {
    stream(std::slice::from_ref(object))
}

/// Objects as a stream of documents.
pub fn stream<T: Serialize>(objects: &[T]) -> Result<String, CliError> {
    let mut out = String::new();
    for (number, object) in objects.iter().enumerate() {
        let object = serde_json::to_value(object).map_err(|error| CliError::failed("cannot print YAML", &error))?;
        if number > 0 {
            out.push_str("---\n");
        }
        out.push_str(&one_document(&object)?);
    }
    Ok(out)
}

fn one_document(object: &Value) -> Result<String, CliError> {
    let failed = |error: &dyn std::error::Error| CliError::Failed(format!("cannot print YAML: {error}"));
    if !has_plain_keys(object) {
        // The crate does not quote such keys. JSON is YAML, and quotes every key.
        let json = serde_json::to_string_pretty(object).map_err(|error| failed(&error))?;
        // JSON has no escape for characters beyond U+FFFF that kubectl reads in YAML, too. With a line of `---` before it,
        // kubectl does not take the document for JSON.
        let is_yaml = json.chars().any(|character| character > '\u{ffff}' && !is_shown(character));
        return Ok(format!("{}{}\n", if is_yaml { "---\n" } else { "" }, escaped(&json)));
    }
    // Folded scalars would break long CEL expressions anywhere: a reader of a diff wants whole lines.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX, compact_list_indent: true };
    let text = serde_saphyr::to_string_with_options(&Quoted(object), options).map_err(|error| failed(&error))?;
    Ok(escaped(&text))
}

/// Whether kubectl reads every key as the text that it is, without quotes.
fn has_plain_keys(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(has_plain_keys),
        Value::Object(map) => map.iter().all(|(key, value)| is_plain_key(key) && has_plain_keys(value)),
        _ => true,
    }
}

fn is_plain_key(key: &str) -> bool {
    scalar::meaning(key).is_none() && key != "<<" && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// YAML or JSON with escapes for the characters that cannot be seen and that the crates write as they are. They are in
/// double quotes only ([`needs_quotes`]).
fn escaped(yaml: &str) -> String {
    yaml.chars().fold(String::with_capacity(yaml.len()), |mut out, character| {
        if is_shown(character) {
            out.push(character);
            return out;
        }
        let code = u32::from(character);
        // Writing to a String cannot fail.
        let _ = if code > 0xffff { write!(out, "\\U{code:08X}") } else { write!(out, "\\u{code:04X}") };
        out
    })
}

/// Whether a character may stand in the text as it is.
fn is_shown(character: char) -> bool {
    matches!(character, '\n' | '\t') || say::is_visible(character)
}

/// A value that is written with quotes wherever kubectl could read its text otherwise.
struct Quoted<'v>(&'v Value);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if needs_quotes(text) => DoubleQuoted(text).serialize(serializer),
            Value::Array(items) => serializer.collect_seq(items.iter().map(Quoted)),
            Value::Object(map) => serializer.collect_map(map.iter().map(|(key, value)| (key, Quoted(value)))),
            other => other.serialize(serializer),
        }
    }
}

/// Whether a text needs quotes beyond those that the crate gives it.
fn needs_quotes(text: &str) -> bool {
    let is_blank = |line: &str| !line.is_empty() && line.chars().all(|c| c == ' ' || c == '\t');
    // A block scalar whose first line begins with a blank needs an indentation indicator, and kubectl refuses a tab
    // there.
    let is_odd_block = text.contains('\n') && (text.starts_with(['\n', ' ', '\t']) || text.split('\n').any(is_blank));
    let is_odd = |character| characters::is_odd(character) || !is_shown(character);
    is_odd_block || text.chars().any(is_odd) || scalar::meaning(text).is_some()
}

/// Reads a stream of documents, JSON among them; empty documents are none. An error says where, and never what: the
/// text may hold a key or a value.
pub fn read_stream(text: &str) -> Result<Vec<Value>, String> {
    // The file is the user's own, and may hold thousands of documents.
    let options = serde_saphyr::options! { budget: None };
    let read = serde_saphyr::from_multiple_with_options::<Value>(text, options);
    let documents = read.map_err(|error| match error.location() {
        Some(place) => format!("invalid YAML at line {}, column {}", place.line(), place.column()),
        None => "invalid YAML".to_owned(),
    })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_printed_reads_back_as_what_was_meant() {
        let long = "x ".repeat(200);
        let objects = [
            json!({"a": ["true", true, "1", "", null], "b": "one\n  two\n", "c": long}),
            json!({"d": {"e": "'\"#:"}}),
            json!({"on": "\u{85}\u{2028}\u{feff}\u{7f}", "y": {"0x1F": "\ta\n"}, "labels": {"a.b/c": "no"}}),
            json!({"f": "\tfirst\nsecond", "g": "\n\n a", "h": "a\n \t \nb\n"}),
        ];
        let text = stream(&objects).unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, objects);
        assert!(!text.chars().any(characters::is_odd) && text.contains("\"on\": \"\\u0085"), "{text}");
        assert!(text.contains("b: |\n  one\n    two\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_seen_is_written_as_an_escape() {
        let hostile = "a\u{9b}2J\u{202e}b\u{2066}\u{200b}\u{200d}\u{feff}\u{e0041}\u{7f}\u{1b}c\r\nd\te";
        for key in ["plain", "on"] {
            let object = json!({key: hostile, "list": [hostile, "😀é天 a"]});
            let text = document(&object).unwrap();
            assert!(text.chars().all(is_shown) && text.contains("😀é天 a"), "{text:?}");
            let read: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(read, object);
        }
    }

    #[test]
    fn long_streams_are_read_and_errors_quote_nothing() {
        let long = "---\na: 1\n".repeat(5000);
        assert_eq!(read_stream(&long).unwrap().len(), 5000);
        assert_eq!(read_stream("# nothing\n---\n---\n{\"a\": [1]}\n").unwrap(), [json!({"a": [1]})]);
        let error = read_stream("data:\n  kek: [hunter2\n").unwrap_err();
        assert!(error.starts_with("invalid YAML at line") && !error.contains("hunter"), "{error}");
    }
}
