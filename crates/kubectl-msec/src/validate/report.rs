//! Findings as text, as JSON, and as SARIF 2.1.0
//! (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>).

use managed_secrets_cli::say::Lines;
use serde_json::{Value, json};

use super::Finding;
use crate::manifest::Rule;

/// A line each, in the form that editors and compilers share.
pub(super) fn text(findings: &[Finding]) -> Lines {
    let line = |Finding { file, problem }: &Finding| {
        format!("{file}:{}:{}: error: {problem}", problem.place.line, problem.place.column)
    };
    findings.iter().map(line).collect()
}

/// A list of objects.
pub(super) fn json(findings: &[Finding]) -> Value {
    let object = |Finding { file, problem }: &Finding| {
        json!({
            "file": file, "line": problem.place.line, "column": problem.place.column,
            "rule": problem.rule.id(), "field": problem.field, "message": problem.message,
        })
    };
    findings.iter().map(object).collect()
}

/// A log of one run, with every rule.
pub(super) fn sarif(findings: &[Finding]) -> Value {
    let rules: Vec<_> = Rule::ALL
        .iter()
        .map(|rule| json!({"id": rule.id(), "shortDescription": {"text": rule.description()}}))
        .collect();
    let results: Vec<_> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "kubectl-msec", "version": env!("CARGO_PKG_VERSION"), "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(Finding { file, problem }: &Finding) -> Value {
    json!({
        "ruleId": problem.rule.id(),
        "ruleIndex": Rule::ALL.iter().position(|rule| *rule == problem.rule),
        "level": "error",
        "message": {"text": problem.to_string()},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri(file)},
            "region": {"startLine": problem.place.line.max(1), "startColumn": problem.place.column.max(1)},
        }}],
    })
}

/// A path as a relative or `file:` URI reference (RFC 3986): what it may not hold is escaped.
fn uri(file: &str) -> String {
    let escaped = file.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    let path: String = escaped.collect();
    if path.starts_with('/') { format!("file://{path}") } else { path.strip_prefix("./").unwrap_or(&path).to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("./a b/ü.yaml"), "a%20b/%C3%BC.yaml");
        assert_eq!(uri("/a/b.yaml"), "file:///a/b.yaml");
        assert_eq!(uri("a:b"), "a%3Ab");
    }
}
