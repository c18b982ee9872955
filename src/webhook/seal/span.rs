//! Finds the values at a path in a JSON text, so that a caller can replace one of them and keep every other byte.

use std::ops::Range;

use serde::de::IgnoredAny;

/// Returns the byte ranges of every value at `path` (keys of objects), including repeated keys; `None` if the text is not
/// JSON.
#[must_use]
pub(super) fn find(text: &str, path: &[&str]) -> Option<Vec<Range<usize>>> {
    // This also limits the depth of the scanner: serde_json stops at 128 levels.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut scanner = Scanner { text, at: 0, found: Vec::new() };
    scanner.value(Some(path))?;
    Some(scanner.found)
}

/// Walks through a text that is valid JSON.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    found: Vec<Range<usize>>,
}

impl Scanner<'_> {
    /// Scans one value. `path` is the rest of the path; `None` outside of it.
    fn value(&mut self, path: Option<&[&str]>) -> Option<()> {
        let start = self.skip_space()?;
        match self.byte()? {
            b'{' => self.object(path)?,
            b'[' => self.list()?,
            b'"' => self.string().map(drop)?,
            _ => {
                let rest = self.text.get(self.at..)?;
                self.at += rest.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(rest.len());
            }
        }
        if path.is_some_and(<[_]>::is_empty) {
            self.found.push(start..self.at);
        }
        Some(())
    }

    fn object(&mut self, path: Option<&[&str]>) -> Option<()> {
        self.at += 1;
        while self.another(b'}')? {
            let key = self.string()?;
            let key: String = serde_json::from_str(self.text.get(key)?).ok()?;
            self.skip_space()?;
            self.at += 1; // the colon
            let inner = path.and_then(<[_]>::split_first).filter(|(first, _)| **first == key).map(|(_, rest)| rest);
            self.value(inner)?;
        }
        Some(())
    }

    fn list(&mut self) -> Option<()> {
        self.at += 1;
        while self.another(b']')? {
            self.value(None)?;
        }
        Some(())
    }

    /// Whether another item follows before `end`; steps over the comma, or the end.
    fn another(&mut self, end: u8) -> Option<bool> {
        self.skip_space()?;
        let byte = self.byte()?;
        if byte == end || byte == b',' {
            self.at += 1;
            self.skip_space();
        }
        Some(byte != end)
    }

    /// A string, quotes included.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.byte()? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(start..self.at)
    }

    fn skip_space(&mut self) -> Option<usize> {
        while self.byte()?.is_ascii_whitespace() {
            self.at += 1;
        }
        Some(self.at)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn texts(text: &str) -> Option<Vec<String>> {
        let found = find(text, &["spec", "value"])?;
        Some(found.into_iter().map(|range| text[range].to_owned()).collect())
    }

    #[test]
    fn values_are_found_where_they_are_and_nowhere_else() {
        for (text, expected) in [
            (r#"{"spec":{"value":"a"}}"#, vec![r#""a""#]),
            (" { \"spec\" : { \"value\" : \"a\\\"}\" , \"x\":1 } } \n", vec![r#""a\"}""#]),
            (r#"{"value":"a","other":{"spec":{"value":"b"}},"spec":{"other":{"value":"c"}}}"#, vec![]),
            (
                r#"{"spec":{"value":"a","value":12},"spec":{"value":[1,{"value":2}]}}"#,
                vec![r#""a""#, "12", r#"[1,{"value":2}]"#],
            ),
            (r#"{"spec":{"\u0076alue":null}}"#, vec!["null"]),
            (r#"{"spec":[],"a":[[],{},[1,"]"]]}"#, vec![]),
            (r#""spec""#, vec![]),
            ("12", vec![]),
        ] {
            assert_eq!(texts(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_has_no_values() {
        for text in ["", "{", r#"{"spec":{"value":"a"}"#, r#"{"spec":{"value":"a"}}}"#, "'a'", &"[".repeat(500)] {
            assert_eq!(texts(text), None, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|number| json!(f64::from(number) / 4.0)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let key = prop_oneof![Just("spec".to_owned()), Just("value".to_owned()), any::<String>()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let expected: Vec<Value> = value.pointer("/spec/value").cloned().into_iter().collect();
            let found: Vec<Value> = texts(&text).unwrap().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = texts(&text);
        }
    }
}
