//! Replaces some scalars of a stream; no other byte changes.
//!
//! A quoted scalar keeps its quotes. A block scalar becomes a plain one: its header is replaced, its lines are
//! removed, and a comment after the header stays. The result is parsed and compared, node by node: a text with any other
//! change is not returned.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::ScalarStyle;

use super::tree::{Node, NodeId, Shape, Tree};

/// The outcome would not have been what was meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unproven;

/// The text with these scalars replaced. What is put there must be plain in every style: letters, digits, `-._`.
pub(crate) fn replaced(text: &str, tree: &Tree<'_>, with: &HashMap<NodeId, String>) -> Result<String, Unproven> {
    let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
    for (id, new) in with {
        edits.extend(edits_of(text, tree.node(*id), new).ok_or(Unproven)?);
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len() + with.values().map(String::len).sum::<usize>());
    let mut at = 0;
    for (range, new) in edits {
        out.push_str(text.get(at..range.start).ok_or(Unproven)?);
        out.push_str(new);
        at = range.end;
    }
    out.push_str(text.get(at..).ok_or(Unproven)?);
    let after = Tree::parse(&out).map_err(|_| Unproven)?;
    if differs_in_these_only(tree, &after, with) { Ok(out) } else { Err(Unproven) }
}

fn edits_of<'n>(text: &str, node: &Node<'_>, new: &'n str) -> Option<Vec<(Range<usize>, &'n str)>> {
    let Shape::Scalar(_, style) = &node.shape else { return None };
    Some(match style {
        ScalarStyle::Plain => vec![(node.bytes.clone(), new)],
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            vec![(node.bytes.start + 1..node.bytes.end.checked_sub(1)?, new)]
        }
        ScalarStyle::Literal | ScalarStyle::Folded => {
            let header = header(text, node)?;
            let lines = lines(text, &header, node)?;
            vec![(header, new), (lines, "")]
        }
    })
}

/// The header of a block scalar: `|` or `>`, and what tells of indentation and line breaks at the end.
pub(super) fn header(text: &str, node: &Node<'_>) -> Option<Range<usize>> {
    let mut at = node.before;
    loop {
        let rest = text.get(at..)?;
        match rest.bytes().next()? {
            b'|' | b'>' => {
                let more = rest[1..].bytes().take_while(|byte| byte.is_ascii_digit() || b"+-".contains(byte)).count();
                return Some(at..at + 1 + more);
            }
            b'#' => at += rest.find(['\n', '\r'])?,
            b' ' | b'\t' | b'\n' | b'\r' | b':' => at += 1,
            _ => return None,
        }
    }
}

/// The lines below the header that belong to the scalar. Empty ones at the end do so only where they are kept (`+`).
fn lines(text: &str, header: &Range<usize>, node: &Node<'_>) -> Option<Range<usize>> {
    let end_of_line = |from: usize| {
        let rest = text.get(from..)?;
        let end = rest.find(['\n', '\r']).map(|at| at + if rest[at..].starts_with("\r\n") { 2 } else { 1 });
        Some(from + end.unwrap_or(rest.len()))
    };
    let start = end_of_line(header.end)?;
    let span = text.get(start..node.bytes.end.max(start))?;
    let end = if text[header.clone()].contains('+') {
        // Up to the last line break: what stands behind it is the next line's indentation.
        if node.bytes.end >= text.len() { text.len() } else { start + span.rfind(['\n', '\r']).map_or(0, |at| at + 1) }
    } else {
        let content = span.trim_end_matches([' ', '\t', '\n', '\r']).len();
        if content == 0 { start } else { end_of_line(start + content)? }
    };
    Some(start..end)
}

fn differs_in_these_only(before: &Tree<'_>, after: &Tree<'_>, with: &HashMap<NodeId, String>) -> bool {
    let same = |(id, one): (NodeId, &Node<'_>), (other_id, other): (NodeId, &Node<'_>)| {
        let shape = match (with.get(&id), &other.shape) {
            (Some(new), Shape::Scalar(text, _)) => text == new,
            (Some(_), _) => false,
            (None, shape) => one.shape == *shape,
        };
        id == other_id && shape && one.anchored == other.anchored && one.tag == other.tag
    };
    before.documents() == after.documents()
        && before.nodes().count() == after.nodes().count()
        && before.nodes().zip(after.nodes()).all(|(one, other)| same(one, other))
}
