//! YAML as `kubectl` reads it.

use serde::Serialize;

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
}
