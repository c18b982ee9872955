//! kubectl's JSONPath templates: text with expressions in braces, as in `{.status.id}{"\n"}`.
//!
//! What a path finds is the library's business (`jsonpath-rust`, RFC 9535). Kubernetes' own syntax is older and a little
//! wider: a path may begin without `$`, `range … end` repeats, and `\.` is a dot within a key
//! (<https://kubernetes.io/docs/reference/kubectl/jsonpath/>).

use jsonpath_rust::JsonPath;
use serde_json::Value;

/// A template, ready to be filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Path(String),
    Range(String, Vec<Part>),
}

/// What is wrong with a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum TemplateError {
    /// `{` without `}`.
    #[error("a brace is not closed")]
    Brace,
    /// `range` without `end`, or the other way round.
    #[error("range and end must come in pairs")]
    Range,
    /// A string that does not end, or with an escape that there is none.
    #[error("a string must be in double quotes, with JSON's escapes")]
    Text,
    /// A path that cannot be read.
    #[error("a path must be one such as .status.id or .items[*].spec.name")]
    Path,
}

impl Template {
    /// Reads a template; one without braces is a path: `.status.id`.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
        let mut rest = text.as_str();
        let parts = parts(&mut rest, false)?;
        Ok(Self(parts))
    }

    /// What it says of a value.
    pub(super) fn fill(&self, value: &Value) -> String {
        let mut out = String::new();
        fill(&self.0, value, &mut out);
        out
    }
}

fn parts(rest: &mut &str, nested: bool) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        *rest = &rest[open + 1..];
        let close = closing_brace(rest).ok_or(TemplateError::Brace)?;
        let (expression, behind) = (rest[..close].trim(), &rest[close + 1..]);
        *rest = behind;
        if expression == "end" {
            return if nested { Ok(parts) } else { Err(TemplateError::Range) };
        } else if let Some(path) = expression.strip_prefix("range ") {
            let path = standard(path.trim())?;
            parts.push(Part::Range(path, self::parts(rest, true)?));
        } else if expression.starts_with('"') {
            parts.push(Part::Text(serde_json::from_str(expression).map_err(|_| TemplateError::Text)?));
        } else {
            parts.push(Part::Path(standard(expression)?));
        }
    }
    if nested {
        return Err(TemplateError::Range);
    }
    if !rest.is_empty() {
        parts.push(Part::Text((*rest).to_owned()));
    }
    Ok(parts)
}

/// Where the expression ends: braces within quotes do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

/// The path as RFC 9535 has it, checked.
fn standard(path: &str) -> Result<String, TemplateError> {
    let rooted = match path.as_bytes().first() {
        Some(b'$') => path.to_owned(),
        Some(b'@') => format!("${}", &path[1..]),
        Some(b'.' | b'[') => format!("${path}"),
        _ => return Err(TemplateError::Path),
    };
    let rooted = quoted_keys(&rooted);
    jsonpath_rust::parser::parse_json_path(&rooted).map_err(|_| TemplateError::Path)?;
    Ok(rooted)
}

/// Puts keys that hold an escaped dot, or what RFC 9535 wants in quotes, into brackets: `.a\.b` becomes `['a.b']`.
fn quoted_keys(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let key_start = usize::from(c == '.' && !rest.starts_with(".."));
        if key_start == 0 {
            // What is in brackets, and the second dot of `..`, stays as it is.
            let end = match c {
                '[' => closing_bracket(rest),
                '.' => 2,
                _ => c.len_utf8(),
            };
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let mut key = String::new();
        let mut end = key_start;
        let mut escaped = false;
        for c in rest[key_start..].chars() {
            match c {
                '\\' if !escaped => escaped = true,
                '.' | '[' if !escaped => break,
                c => {
                    key.push(c);
                    escaped = false;
                }
            }
            end += c.len_utf8();
        }
        let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '*');
        if key.is_empty() {
            // A dot before a bracket, or at the end, selects nothing.
        } else if plain {
            out.push('.');
            out.push_str(&key);
        } else {
            out.push_str("['");
            out.push_str(&key.replace('\'', "\\'"));
            out.push_str("']");
        }
        rest = &rest[end..];
    }
    out
}

fn closing_bracket(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth <= 1 => return at + 1,
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn fill(parts: &[Part], value: &Value, out: &mut String) {
    // A path was read once already when the template was.
    let found = |path: &str| value.query(path).unwrap_or_default();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let found: Vec<_> = found(path).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, parts) => {
                for value in found(path) {
                    fill(parts, value, out);
                }
            }
        }
    }
}

/// A value as text: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_say_what_kubectls_say() {
        let list = json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"example.com/x": "1"}}, "status": {"version": 1, "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Stalled", "status": "False"}]}},
            {"metadata": {"name": "b"}, "status": {"version": 2, "conditions": [{"type": "Ready", "status": "False"}]}},
        ]});
        for (template, expected) in [
            ("{.kind}", "List"),
            ("{$.kind}", "List"),
            (".kind", "List"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[0].metadata.labels}", r#"{"example.com/x":"1"}"#),
            (r"{.items[0].metadata.labels.example\.com/x}", "1"),
            ("{.items[0].metadata.labels['example.com/x']}", "1"),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{@.status.version}{"\n"}{end}"#, "a\t1\nb\t2\n"),
            ("{.items[*].status.conditions[?(@.type==\"Ready\")].status}", "True False"),
            ("{..name}", "a b"),
            ("name: {.items[1].metadata.name}!", "name: b!"),
            ("{.nothing.here}", ""),
        ] {
            assert_eq!(Template::parse(template).unwrap().fill(&list), expected, "{template}");
        }
        assert_eq!(Template::parse("{@}").unwrap().fill(&json!("x")), "x");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, error) in [
            ("{.a", TemplateError::Brace),
            ("{.a}{end}", TemplateError::Range),
            ("{range .a}{.b}", TemplateError::Range),
            (r#"{"\x"}"#, TemplateError::Text),
            ("{a}", TemplateError::Path),
            ("", TemplateError::Path),
            ("{.a[}", TemplateError::Path),
        ] {
            assert_eq!(Template::parse(template), Err(error), "{template}");
        }
    }
}
