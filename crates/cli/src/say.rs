//! The only way to standard output and standard error.
//!
//! Text from files and from the cluster (names of fields, objects and files, descriptions, messages) can hold escape
//! sequences that drive a terminal, line breaks that forge lines of a CI log (`::error::`), and bidirectional or invisible
//! characters. A line for people is therefore escaped as a whole just before it is written, including its own words. clippy
//! keeps the macros that go around this module out (`print_stdout` and `print_stderr` in src/lib.rs).
//!
//! A document is for programs and is written as it is: manifests and values. JSON and YAML that are made here have escapes
//! for every character that cannot be seen: they read the same, and drive no terminal.

use std::fmt::{Display, Write as _};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anstyle::Style;
use serde::Serialize;

use super::CliError;

/// Text for people, a line at a time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lines(String);

impl Lines {
    /// No lines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line.
    pub fn line(&mut self, line: impl Display) {
        self.styled("", Style::new(), line);
    }

    /// Adds a line that begins with a word in a style of our own.
    pub fn styled(&mut self, word: &str, style: Style, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{style}{word}{style:#}{}", visible(&line.to_string()));
    }

    /// The lines as they are written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes them to standard output.
    pub fn print(&self) -> Result<(), CliError> {
        print_document(&self.0)
    }
}

impl<L: Display> FromIterator<L> for Lines {
    fn from_iter<I: IntoIterator<Item = L>>(lines: I) -> Self {
        let mut text = Self::new();
        lines.into_iter().for_each(|line| text.line(line));
        text
    }
}

/// Writes one line for people to standard output.
pub fn print_line(line: impl Display) -> Result<(), CliError> {
    Lines::from_iter([line]).print()
}

/// Writes to standard output what a program reads, as it is. Unlike `print!`, a closed pipe (`| head`) is an error and no
/// panic.
pub fn print_document(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failed("cannot write to standard output", &error))
}

/// Writes JSON to standard output, indented.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(|error| CliError::failed("cannot print JSON", &error))?;
    print_document(&format!("{}\n", visible_json(&json)))
}

/// Valid JSON with escapes in its strings for every character that cannot be seen. It means the same.
#[must_use]
pub fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // White space between values is not in a string, where these characters have escapes already.
        if is_visible(c) || matches!(c, '\n' | '\r' | '\t') {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

/// Writes one line to standard error.
pub fn tell(line: impl Display) {
    tell_as_it_is(&visible(&line.to_string()));
}

/// Writes a line of JSON to standard error.
pub fn tell_json(line: &str) {
    tell_as_it_is(&visible_json(line));
}

/// A standard error that is closed or full loses the line; the command goes on.
fn tell_as_it_is(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes one line to standard error that must not be overlooked: bold on a terminal.
pub fn tell_boldly(line: impl Display) {
    let style = if io::stderr().is_terminal() { Style::new().bold() } else { Style::new() };
    tell_as_it_is(&format!("{style}{}{style:#}", visible(&line.to_string())));
}

/// Whether the user can be asked: standard input and standard error are terminals.
#[must_use]
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on the terminal. Anything but "y" or "yes" is a no.
pub fn ask(question: impl Display) -> Result<bool, CliError> {
    let failed = |error: io::Error| CliError::failed("cannot ask", &error);
    let mut err = io::stderr().lock();
    write!(err, "{} [y/N] ", visible(&question.to_string())).and_then(|()| err.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Text in one line in which every character can be seen: control characters, line breaks, and characters that are
/// invisible or change the direction of text are written as Rust does, such as `\u{1b}`. Letters of every script, combining
/// marks, symbols and spaces stay.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_visible(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Whether a character shows as what it is: no control character, and none that is invisible or turns text.
pub(super) fn is_visible(c: char) -> bool {
    /// Characters that print as nothing although they are letters, marks or symbols: those of Unicode's
    /// `Default_Ignorable_Code_Point` that are no format characters, and the blank Braille pattern.
    const BLANK: [std::ops::RangeInclusive<char>; 9] = [
        '\u{34f}'..='\u{34f}',
        '\u{115f}'..='\u{1160}',
        '\u{17b4}'..='\u{17b5}',
        '\u{180b}'..='\u{180f}',
        '\u{2800}'..='\u{2800}',
        '\u{3164}'..='\u{3164}',
        '\u{fe00}'..='\u{fe0f}',
        '\u{ffa0}'..='\u{ffa0}',
        '\u{e0000}'..='\u{e0fff}',
    ];
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    if BLANK.iter().any(|range| range.contains(&c)) {
        return false;
    }
    if c.is_whitespace() {
        // Spaces of every width, but not the separators of lines and paragraphs, nor the C1 control U+0085.
        return !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    }
    // The standard library knows which characters print. Behind another one, a combining mark does.
    let mut buffer = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
    str::from_utf8(&buffer[..length]).is_ok_and(|pair| pair.escape_debug().nth(1) == Some(c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_or_hides_is_written_out() {
        for (text, expected) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\n::error::forged", "a\\n::error::forged"),
            ("a\r\tb\u{7f}\u{0}", "a\\r\\tb\\u{7f}\\u{0}"),
            ("C1 \u{9b}2J \u{85}", "C1 \\u{9b}2J \\u{85}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            ("bidi \u{202e}abc\u{2066}", "bidi \\u{202e}abc\\u{2066}"),
            ("zero\u{200b}width\u{200d}\u{feff}\u{ad}", "zero\\u{200b}width\\u{200d}\\u{feff}\\u{ad}"),
            ("tags \u{e0041} filler \u{3164}", "tags \\u{e0041} filler \\u{3164}"),
            ("selectors \u{e0141}\u{fe0f} braille \u{2800}", "selectors \\u{e0141}\\u{fe0f} braille \\u{2800}"),
        ] {
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn letters_marks_symbols_and_spaces_stay() {
        for text in [
            "Wetter, 天気\u{3000}予報",
            "e\u{301}té ñ",
            "a\u{a0}b",
            "\"quoted\" 'and' \\ back",
            "🔑 ✓ €",
            "עברית العربية",
        ] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn json_shows_every_character_and_means_the_same() {
        let hostile: String =
            ('\0'..='\u{ff}').chain("\u{202e}\u{2066}\u{200b}\u{200d}\u{feff}\u{2028}\u{e0041}😀é天".chars()).collect();
        let value = serde_json::json!({&hostile: [&hostile, 1, null]});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let shown = visible_json(&json);
            assert!(shown.chars().all(|c| c == '\n' || is_visible(c)), "{shown:?}");
            assert!(shown.contains("\\udb40\\udc41😀é天") && shown.contains("\\u009b"), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
        assert_eq!(visible_json("{\r\n\t\"a\": 1}"), "{\r\n\t\"a\": 1}");
    }

    #[test]
    fn every_line_stays_one_line() {
        let mut lines = Lines::from_iter(["a\nb", "c"]);
        lines.styled("✓", Style::new().bold(), " d\u{1b}[0m");
        assert_eq!(lines.as_str(), "a\\nb\nc\n\u{1b}[1m✓\u{1b}[0m d\\u{1b}[0m\n");
    }
}
