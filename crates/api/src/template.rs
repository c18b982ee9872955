//! The language of `spec.target.template`: texts with expressions that are replaced by the value.
//!
//! In: the text of one key. Out: a [`Template`], and from it and a value the bytes to deliver ([`render`]). Pure. No logic,
//! no loops, and no function that reads anything.
//!
//! ```text
//! text       = { any text without "$(" | "$$" { "$" } "(" | expression }
//! expression = "$(" operand { " " operand } { "|" filter } ")"
//! operand    = "value" | a JSON string
//! filter     = "base64" | "urlencode" | "json" | "sha256"
//! ```
//!
//! The operands of an expression are joined without a separator, then each filter changes the result. Of two or more `$`
//! before a `(`, one is dropped and the rest is literal, as in Kubernetes' own `$(VAR)`. Any other `$` is literal. Inside an
//! expression there may be spaces between any two of its parts, and no other white space. A string has JSON's escapes, but
//! none for half of a surrogate pair; a character beyond the Basic Multilingual Plane can be written as it is.
//!
//! [`pattern`] is the same language as a regular expression, by which the API server refuses all other texts.

mod render;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;

use std::{collections::BTreeMap, fmt};

use sha2::{Digest as _, Sha256};

pub use self::render::{RenderError, Rendered, data};

/// The operand that stands for the value.
const VALUE: &str = "value";
/// Parts of a key's name by which it looks like that of a credential.
const CREDENTIALS: [&str; 4] = ["password", "token", "secret", "key"];

/// A text with expressions.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Part>);

/// A part of a text.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Expression(Expression),
}

/// What is between `$(` and `)`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Expression {
    operands: Vec<Operand>,
    filters: Vec<Filter>,
}

/// What an expression begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Operand {
    Value,
    Text(String),
}

/// What changes the result so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Filter {
    /// Base64 with padding (RFC 4648 section 4).
    Base64,
    /// Percent-encoding of all but the unreserved characters (RFC 3986 section 2.3).
    UrlEncode,
    /// A JSON string with its quotation marks.
    Json,
    /// SHA-256 in lower-case hex.
    Sha256,
}

impl Filter {
    const ALL: [Self; 4] = [Self::Base64, Self::UrlEncode, Self::Json, Self::Sha256];

    const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::UrlEncode => "urlencode",
            Self::Json => "json",
            Self::Sha256 => "sha256",
        }
    }
}

/// Why a text is not a template. It shows no part of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SyntaxError {
    /// The character at which it goes wrong, from 1.
    character: usize,
    problem: Problem,
}

/// What is wrong there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Problem {
    Operand,
    Filter,
    String,
    Separator,
    End,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let character = self.character;
        match self.problem {
            Problem::Operand => write!(
                f,
                "unknown operand at character {character}; an expression begins with `{VALUE}` or a string in double \
                 quotes, and `$$(` is a literal `$(`"
            ),
            Problem::Filter => {
                write!(f, "unknown filter at character {character}; the filters are {}", filter_names(", "))
            }
            Problem::String => write!(f, "unterminated string or invalid escape at character {character}"),
            Problem::Separator => {
                write!(f, "an operand, `|` or `)` is expected at character {character}, with a space before an operand")
            }
            Problem::End => write!(f, "the expression at character {character} has no `)`"),
        }
    }
}

impl std::error::Error for SyntaxError {}

fn filter_names(separator: &str) -> String {
    Filter::ALL.map(Filter::name).join(separator)
}

/// The language as a regular expression, in the syntax that RE2 and the crate `regex` share, without single quotes. The
/// operands stand in it twice, and the API server bounds the cost of an expression by its length: so it is short.
#[must_use]
pub fn pattern() -> String {
    let escape = r#"\\(?:["\\/bfnrt]|u(?i:[0-9a-cef][0-9a-f]{3}|d[0-7][0-9a-f]{2}))"#;
    let operand = format!(r#"(?:{VALUE}|"(?:[^"\\\x00-\x1f]|{escape})*")"#);
    let filters = filter_names("|");
    format!(r"^(?:[^$]|\$+[^$(]|\$\$+\(|\$\( *{operand}(?: +{operand})*(?: *\| *(?:{filters}))* *\))*\$*$")
}

/// A text of the language that is rendered as `text`, whatever that contains.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace("$(", "$$(")
}

impl Template {
    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut reader = Reader { text, at: 0 };
        let (mut parts, mut literal) = (Vec::new(), String::new());
        while let Some(character) = reader.next() {
            if character != '$' {
                literal.push(character);
                continue;
            }
            let mut dollars = 1;
            while reader.take('$') {
                dollars += 1;
            }
            let kept = if reader.peek() == Some('(') { dollars - 1 } else { dollars };
            literal.extend(std::iter::repeat_n('$', kept));
            if kept == 0 {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Expression(reader.expression()?));
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self(parts))
    }

    /// Whether an expression of the text has the operand `value`. Without one, the rendered text is known to every user
    /// who may read the template.
    #[must_use]
    pub fn uses_value(&self) -> bool {
        let uses =
            |part: &Part| matches!(part, Part::Expression(expression) if expression.operands.contains(&Operand::Value));
        self.0.iter().any(uses)
    }
}

/// A place in a text.
struct Reader<'t> {
    text: &'t str,
    /// In bytes.
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn spaces(&mut self) -> bool {
        let before = self.at;
        while self.take(' ') {}
        self.at > before
    }

    /// Letters and digits.
    fn word(&mut self) -> &str {
        let rest = &self.text[self.at..];
        let length = rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn error(&self, at: usize, problem: Problem) -> SyntaxError {
        SyntaxError { character: self.text[..at].chars().count() + 1, problem }
    }

    /// An expression, from the `(` behind its `$`.
    fn expression(&mut self) -> Result<Expression, SyntaxError> {
        let begin = self.at - 1;
        self.take('(');
        self.spaces();
        let mut expression = Expression { operands: vec![self.operand()?], filters: Vec::new() };
        loop {
            let spaced = self.spaces();
            match self.peek() {
                Some(')') => {
                    self.take(')');
                    return Ok(expression);
                }
                Some('|') => {
                    self.take('|');
                    self.spaces();
                    expression.filters.push(self.filter()?);
                }
                Some(_) if spaced && expression.filters.is_empty() => expression.operands.push(self.operand()?),
                Some(_) => return Err(self.error(self.at, Problem::Separator)),
                None => return Err(self.error(begin, Problem::End)),
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, SyntaxError> {
        let begin = self.at;
        if self.peek() == Some('"') {
            return self.string().map(Operand::Text).ok_or_else(|| self.error(begin, Problem::String));
        }
        if self.word() == VALUE { Ok(Operand::Value) } else { Err(self.error(begin, Problem::Operand)) }
    }

    fn filter(&mut self) -> Result<Filter, SyntaxError> {
        let begin = self.at;
        let word = self.word();
        let filter = Filter::ALL.into_iter().find(|filter| filter.name() == word);
        filter.ok_or_else(|| self.error(begin, Problem::Filter))
    }

    /// A string in double quotes.
    fn string(&mut self) -> Option<String> {
        let begin = self.at;
        self.take('"');
        loop {
            match self.next()? {
                '"' => break,
                '\\' => drop(self.next()?),
                _ => {}
            }
        }
        let text = &self.text[begin..self.at];
        // JSON knows pairs of surrogates, and the regular expression does not.
        serde_json::from_str(text).ok().filter(|_| !has_surrogate(text))
    }
}

/// Whether a JSON string has an escape for a surrogate.
fn has_surrogate(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character == '\\'
            && characters.next() == Some('u')
            && matches!(characters.next(), Some('d' | 'D'))
            && matches!(characters.next(), Some('8'..='9' | 'a'..='f' | 'A'..='F'))
        {
            return true;
        }
    }
    false
}

/// Keys of a template that look like those of credentials and have a text that does not use the value: it stands in the
/// ManagedSecret as plaintext, also as a string of an expression.
pub fn plain_credentials<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> impl Iterator<Item = &'t str> {
    let plain = |text: &str| !text.is_empty() && Template::parse(text).is_ok_and(|template| !template.uses_value());
    let named = |key: &str| CREDENTIALS.iter().any(|part| key.to_ascii_lowercase().contains(part));
    texts.into_iter().filter(move |(key, text)| named(key) && plain(text)).map(|(key, _)| key)
}

/// What is said of each of [`plain_credentials`], after the name of its field.
pub const PLAIN_CREDENTIAL: &str = "does not use `value`, so this text is stored as plaintext and every user who may read \
                                    the ManagedSecret can read it; if it is a credential, make it the value and write `$(value)`";

/// SHA-256 of a template's keys and texts. Each is preceded by its length, so that no two differ in their boundaries
/// alone.
#[must_use]
pub fn digest(texts: &BTreeMap<String, String>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in texts.iter().flat_map(|(key, text)| [key, text]) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}
