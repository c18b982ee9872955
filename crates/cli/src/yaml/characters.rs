//! Characters that kubectl and YAML 1.2 read differently, and lines that end a document for kubectl.
//!
//! To kubectl's library (YAML 1.1) U+0085, U+2028 and U+2029 are line breaks: a comment ends there, and a value is
//! folded. It passes over a byte-order mark at the beginning of any line, and refuses control characters. Before that,
//! k8s.io/apimachinery (`util/yaml`) has cut the stream at lines that begin with `---`, and reads one document of each
//! part.

use serde::de::IgnoredAny;

/// Whether kubectl takes this character for something else than text, or refuses it.
#[must_use]
pub fn is_odd(character: char) -> bool {
    let is_break = matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}');
    let is_control = character.is_control() && !matches!(character, '\t' | '\n' | '\r');
    is_break || is_control || matches!(character, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Where a text cannot be read as kubectl reads it: the byte, and what to do. In JSON, which kubectl reads by JSON's
/// rules, every character is what it is.
#[must_use]
pub fn first_odd(text: &str) -> Option<(usize, String)> {
    let is_at_line_start = |at: usize| text[..at].ends_with(['\n', '\r']);
    let mut odd = text.char_indices().filter(|(at, character)| match character {
        // Within a line it is a character, and before the text a mark, to both.
        '\u{feff}' => is_at_line_start(*at),
        character => is_odd(*character),
    });
    let (at, character) = odd.next()?;
    if is_json(text) {
        return None;
    }
    let code = u32::from(character);
    let why = match character {
        '\u{85}' | '\u{2028}' | '\u{2029}' => "which kubectl reads as a line break",
        '\u{feff}' => "a byte-order mark, which kubectl skips at the beginning of a line",
        _ => "which YAML does not allow",
    };
    Some((at, format!("must not contain U+{code:04X}, {why}; write it as \\u{code:04X} in double quotes")))
}

/// Where kubectl, which takes the ends of lines off and writes its own, reads other line breaks: the byte, and what to
/// do.
#[must_use]
pub fn odd_line_end(text: &str) -> Option<(usize, &'static str)> {
    if let Some(at) = text.find("\r\r\n") {
        return Some((at, "must end its lines in LF or CR LF: kubectl reads CR CR LF as one line break"));
    }
    // `|+` and `>+` keep the line break that kubectl adds.
    let last = text.rsplit('\n').next().unwrap_or_default();
    let is_blank = !last.is_empty() && last.chars().all(|c| c == ' ' || c == '\t');
    (is_blank && text.contains('+'))
        .then_some((text.len(), "must end in a line break: kubectl adds one, and `|+` keeps it"))
}

/// Where a line begins a document in a way that kubectl does not read: the byte.
#[must_use]
pub fn odd_separator(text: &str) -> Option<usize> {
    lines(text).find(|(_, line)| line.strip_prefix("---").is_some_and(|rest| !is_comment(rest))).map(|(at, _)| at)
}

/// Where a directive, or a `...` that ends no document, stands: the byte, and what must hold. kubectl reads the parts
/// between lines of `---` one by one, so that a directive is never before its document.
#[must_use]
pub fn odd_marker(text: &str) -> Option<(usize, &'static str)> {
    let mut has_begun = false;
    for (at, line) in lines(text) {
        let line = line.trim_start_matches('\u{feff}').trim_end();
        if line.starts_with("---") {
            has_begun = false;
        } else if line.starts_with('%') && !has_begun {
            return Some((at, "must not be a directive: kubectl cannot read it"));
        } else if line == "..." || line.starts_with("... ") || line.starts_with("...\t") {
            if !has_begun {
                return Some((at, "must not be `...` where no document ends: kubectl cannot read it"));
            }
            if is_json(&text[..at]) {
                return Some((at, "must not be `...` after JSON: kubectl cannot read it"));
            }
        } else if !is_comment(line) {
            has_begun = true;
        }
    }
    None
}

/// The part of the stream that each line belongs to, by kubectl's count: lines of `---` begin a new one.
#[must_use]
pub fn parts(text: &str) -> Vec<usize> {
    let mut part = 0;
    // One entry for each line break that YAML counts, so that lines are found by their number.
    lines(text)
        .flat_map(|(_, line)| {
            part += usize::from(line.starts_with("---"));
            std::iter::repeat_n(part, 1 + line.trim_end_matches('\r').matches('\r').count())
        })
        .collect()
}

/// Lines as kubectl cuts a stream: at line feeds alone.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line.trim_end_matches('\n')))
    })
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim();
    rest.is_empty() || rest.starts_with('#')
}

/// Whether kubectl reads a text by JSON's rules: it is a stream of JSON values.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>().all(|value| value.is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn odd_characters_are_found_with_the_way_out() {
        for (text, expected) in [
            ("a: b\u{2028}", Some((4, "U+2028, which kubectl reads as a line break; write it as \\u2028"))),
            ("a: b\u{85}", Some((4, "U+0085"))),
            ("a:\n\u{feff}b", Some((3, "a byte-order mark"))),
            ("a: \u{feff}b", None),
            ("a: \0", Some((3, "U+0000, which YAML does not allow"))),
            ("\u{feff}a: b\t\r\n", None),
            ("{\"a\": \"\u{2028}\u{7f}\"}", None),
            ("{\"a\": \"\u{2028}\"} # no JSON", Some((7, "U+2028"))),
            ("a: \u{a0}\u{3000}é😀", None),
        ] {
            let found = first_odd(text);
            assert_eq!(found.as_ref().map(|(at, _)| *at), expected.map(|(at, _)| at), "{text:?}");
            let message = found.map(|(_, message)| message).unwrap_or_default();
            assert!(expected.is_none_or(|(_, says)| message.contains(says)), "{message}");
        }
    }

    #[test]
    fn line_ends_that_kubectl_changes_are_found() {
        assert_eq!(odd_line_end("a: |+\n  b\n  ").map(|(at, _)| at), Some(12));
        assert_eq!(odd_line_end("a: b\r\r\n").map(|(at, _)| at), Some(4));
        for text in ["a: |+\n  b\n", "a: |\n  b\n  ", "a: |+\n  b", "a: b\r\nc: d\re: f\n", ""] {
            assert_eq!(odd_line_end(text), None, "{text:?}");
        }
    }

    #[test]
    fn directives_and_ends_of_nothing_are_found() {
        for (text, expected) in [
            ("%YAML 1.1\n---\na: b\n", Some(0)),
            ("# c\n%FOO bar\n---\n", Some(4)),
            ("a: b\n---\n%TAG ! x\n---\n", Some(9)),
            ("...\na: b\n", Some(0)),
            ("a: b\n---\n# c\n... # d\n", Some(13)),
            ("{\"a\": 1}\n...\n", Some(9)),
            ("a: b\n...\n---\nc: d\n...\n", None),
            ("a: |\n  %x\n  ...\n", None),
            ("{a: 1}\n...\n", None),
        ] {
            assert_eq!(odd_marker(text).map(|(at, _)| at), expected, "{text:?}");
        }
    }

    #[test]
    fn documents_begin_where_kubectl_sees_them() {
        assert_eq!(odd_separator("a: b\n--- # x\nc: d\n---\t\r\n---#y\n"), None);
        assert_eq!(odd_separator("a: b\n--- {c: d}\n"), Some(5));
        assert_eq!(odd_separator("----\n"), Some(0));
        assert_eq!(parts("a\n---\nb\rc\n---\r\nd"), [0, 1, 1, 1, 2, 2]);
    }
}
