//! Descriptions that the API server folded: what version 0.1 wrote before it escaped its requests.
//!
//! The API server reads the body of an apply as YAML 1.1. Where a request held U+0085, U+2028 or U+2029 as they are,
//! the stored annotation holds their folded form, and the record's MAC, made over the text as it was meant, no longer
//! fits. Such a record can be told from a tampered one without trusting anything of it: a text that folds to what the
//! annotation says must make the MAC valid.

use managed_secrets_api::limits::DESCRIPTION_MAX;

/// What a YAML 1.1 reader makes of a text that stands in JSON with nothing escaped but what JSON demands (go-yaml v2,
/// `yaml_parser_scan_flow_scalar`).
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.peek().copied() {
        if !is_blank_or_break(next) {
            folded.push(next);
            rest.next();
            continue;
        }
        let mut blanks = String::new();
        let mut breaks = Vec::new();
        while let Some(space) = rest.next_if(|next| is_blank_or_break(*next)) {
            match space {
                // JSON escapes tabs, and what is escaped is no blank.
                ' ' if breaks.is_empty() => blanks.push(' '),
                ' ' => {}
                '\u{85}' => breaks.push('\n'),
                line_break => breaks.push(line_break),
            }
        }
        match breaks.as_slice() {
            [] => folded.push_str(&blanks),
            ['\n'] => folded.push(' '),
            ['\n', more @ ..] => folded.extend(more),
            all => folded.extend(all),
        }
    }
    folded
}

/// Texts that fold to `folded` and hold one line break, beside blanks. There are a few for each character; none for a
/// text that is no description.
pub fn unfoldings(folded: &str) -> impl Iterator<Item = String> + '_ {
    let short = folded.chars().take(DESCRIPTION_MAX + 1).count() <= DESCRIPTION_MAX;
    folded.char_indices().filter(move |_| short).flat_map(move |(at, character)| {
        let line_break = match character {
            ' ' => Some('\u{85}'),
            '\u{2028}' | '\u{2029}' => Some(character),
            _ => None,
        };
        let blanks = [("", ""), ("", " "), (" ", ""), (" ", " ")];
        let rest = at + character.len_utf8();
        line_break.into_iter().flat_map(move |line_break| {
            blanks.map(|(before, after)| format!("{}{before}{line_break}{after}{}", &folded[..at], &folded[rest..]))
        })
    })
}

fn is_blank_or_break(character: char) -> bool {
    matches!(character, ' ' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_as_yaml_does() {
        for (text, folded) in [
            ("plain  text\n\twith a tab", "plain  text\n\twith a tab"),
            ("a\u{85}b", "a b"),
            ("a  \u{85}  b", "a b"),
            ("a\u{85}\u{85}b", "a\nb"),
            ("a\u{85} \u{2028}b", "a\u{2028}b"),
            ("a \u{2028} b", "a\u{2028}b"),
            ("a\u{2029}\u{85}b", "a\u{2029}\nb"),
            ("\u{85}a\u{85}", " a "),
            (" a ", " a "),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
        }
    }

    #[test]
    fn unfolds_one_line_break() {
        for text in ["vor\u{85}nach", "a b \u{85}c", "\u{85} a", "a \u{2028} b", "x\u{2029}y z"] {
            assert!(unfoldings(&fold(text)).any(|unfolded| unfolded == text), "{text:?}");
        }
        for folded in ["a b", "a\u{2028}b c", "plain"] {
            assert!(unfoldings(folded).all(|unfolded| fold(&unfolded) == folded), "{folded:?}");
        }
        assert_eq!(unfoldings(&" ".repeat(DESCRIPTION_MAX + 1)).count(), 0);
    }
}
