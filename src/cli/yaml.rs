//! YAML as `kubectl` reads it.

use serde::Serialize;
use serde_json::Value;

use super::CliError;

/// One object as a YAML document.
pub(super) fn document<T: Serialize>(object: &T) -> Result<String, CliError> {
    stream(std::slice::from_ref(object))
}

/// Objects as a stream of documents.
pub(super) fn stream<T: Serialize>(objects: &[T]) -> Result<String, CliError> {
    // Folded scalars would break long CEL expressions at arbitrary places: whoever reads a diff wants whole lines.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX, compact_list_indent: true };
    serde_saphyr::to_string_multiple_with_options(objects, options)
        .map_err(|error| CliError::failed("cannot print YAML", &error))
}

/// Reads a stream of documents, JSON among them; empty documents are none. An error says where, and never what: the text
/// may hold a key or a value.
pub(super) fn read_stream(text: &str) -> Result<Vec<Value>, String> {
    // The file is the user's own, and may hold thousands of documents.
    let options = serde_saphyr::options! { budget: None };
    let read = serde_saphyr::from_multiple_with_options::<Value>(text, options);
    let documents = read.map_err(|error| match error.location() {
        Some(place) => format!("no YAML at line {}, column {}", place.line(), place.column()),
        None => "no YAML".to_owned(),
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
        let objects =
            [json!({"a": ["true", true, "1", "", null], "b": "one\n  two\n", "c": long}), json!({"d": {"e": "'\"#:"}})];
        let text = stream(&objects).unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, objects);
    }

    #[test]
    fn long_streams_are_read_and_errors_quote_nothing() {
        let long = "---\na: 1\n".repeat(5000);
        assert_eq!(read_stream(&long).unwrap().len(), 5000);
        assert_eq!(read_stream("# nothing\n---\n---\n{\"a\": [1]}\n").unwrap(), [json!({"a": [1]})]);
        let error = read_stream("data:\n  kek: [hunter2\n").unwrap_err();
        assert!(error.starts_with("no YAML at line") && !error.contains("hunter"), "{error}");
    }
}
