//! Scalars that YAML 1.2 reads and kubectl's library (go.yaml.in/yaml/v2, `scannerc.go`) refuses.
//!
//! A file with such a scalar cannot be applied. It is refused here, with the location, before its values are sealed.
//! JSON is exempt: kubectl reads it by JSON's rules.

use granit_parser::ScalarStyle;

use super::edit;
use super::tree::{Node, Shape};

const ESCAPE: &str = "must not have the escape `\\/` or a pair of surrogates (`\\uD83D\\uDE00`): kubectl reads them in JSON \
                      only";
const FLOW: &str = "must be in quotes: between braces or brackets, kubectl reads no unquoted text that begins with `:` or \
                    contains `?`";
const LINES: &str = "must be on one line with its colon: kubectl reads no other key between braces";
const TAB: &str =
    "must not have a tab in the indentation of its lines or of the blank lines below: kubectl cannot read it";

/// Why kubectl cannot read this scalar.
pub(super) fn scalar(text: &str, node: &Node<'_>) -> Option<&'static str> {
    let Shape::Scalar(_, style) = &node.shape else { return None };
    let raw = text.get(node.bytes.clone())?;
    match style {
        ScalarStyle::DoubleQuoted if has_odd_escape(raw) => Some(ESCAPE),
        ScalarStyle::Plain if node.in_flow && (raw.starts_with(':') || raw.contains('?')) => Some(FLOW),
        ScalarStyle::Literal | ScalarStyle::Folded if has_tab_in_block(text, node) => Some(TAB),
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted
            if !node.in_flow && (has_tab_before(text, node) || has_tab_below(&text[node.bytes.end..])) =>
        {
            Some(TAB)
        }
        _ => None,
    }
}

/// Why kubectl cannot read this scalar as a key.
pub(super) fn key(text: &str, node: &Node<'_>) -> Option<&'static str> {
    let raw = text.get(node.bytes.clone())?;
    let behind = text.get(node.bytes.end..)?;
    let blank = &behind[..behind.len() - behind.trim_start().len()];
    let breaks = [raw, blank].iter().any(|part| part.contains(['\n', '\r']));
    // In a block, YAML 1.2 has the same rule, and `?` begins a key of several lines for both.
    (node.in_flow && breaks).then_some(LINES).or_else(|| scalar(text, node))
}

fn has_odd_escape(quoted: &str) -> bool {
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        let escape = &rest.as_bytes()[at + 1..];
        let is_surrogate = matches!(escape, [b'u', b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
        if is_surrogate || escape.first() == Some(&b'/') {
            return true;
        }
        // What is escaped may be a character of several bytes; `\\` must not begin the next escape.
        rest = &rest[at + 1..];
        rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
    }
    false
}

/// Whether a tab is between the beginning of the line and the scalar.
fn has_tab_before(text: &str, node: &Node<'_>) -> bool {
    let before = text.get(..node.bytes.start).unwrap_or_default();
    let line = &before[before.rfind(['\n', '\r']).map_or(0, |at| at + 1)..];
    line.contains('\t') && line.trim().is_empty()
}

/// Whether a tab is in the indentation of the blank lines and comments behind a scalar.
fn has_tab_below(behind: &str) -> bool {
    let mut lines = behind.split(['\n', '\r']);
    let is_passed_over = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    lines.next().is_some_and(is_passed_over)
        && lines.take_while(|line| is_passed_over(line)).any(|line| line.trim_start_matches(' ').starts_with('\t'))
}

/// Whether a line of a block scalar has a tab where its indentation is expected.
fn has_tab_in_block(text: &str, node: &Node<'_>) -> bool {
    let Some(header) = edit::header(text, node) else { return false };
    // With an indentation indicator, what stands behind the indentation is text.
    if text[header.clone()].bytes().any(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let (mut next, mut indentation) = (header.end, None);
    for (number, line) in text[header.end..].split_inclusive(['\n', '\r']).enumerate() {
        let start = next;
        next += line.len();
        if number == 0 {
            continue;
        }
        let line = line.trim_end_matches(['\n', '\r']);
        let blanks = line.len() - line.trim_start_matches(' ').len();
        let is_short = indentation.is_none_or(|indentation| blanks < indentation);
        if is_short && line[blanks..].starts_with('\t') {
            return true;
        }
        if !line.trim().is_empty() {
            if start >= node.bytes.end || indentation.is_some() && is_short {
                return false;
            }
            indentation.get_or_insert(blanks);
        }
    }
    false
}
