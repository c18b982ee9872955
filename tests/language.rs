//! Documents and messages use the glossary's words: no word of its left column occurs in README, docs or the messages of
//! the programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use testkit::root;

/// Words that readers trip over, and the words that replace them.
const GLOSSARY: &[(&str, &str)] = &[
    ("anew", "again, or \"recreate\""),
    ("bell", "trigger"),
    ("credence", "authenticity"),
    ("foreign", "that the operator does not manage"),
    ("gone", "deleted, or not found"),
    ("house", "crate"),
    ("in clear", "plaintext"),
    ("in force", "effective, or current"),
    ("keeper", "rotator"),
    ("lane", "priority"),
    ("made", "created"),
    ("needs a person", "you must act"),
    ("nobody", "no user"),
    ("none of ours", "was not created by this operator"),
    ("room", "module, or memory"),
    ("a right", "a permission"),
    ("the right to", "the permission to"),
    ("rights", "permissions"),
    ("somebody", "another user"),
    ("spares", "retained CA bundle"),
    ("stranger", "that the operator does not manage"),
    ("to be served", "to be delivered"),
    ("is served", "is delivered"),
    ("stays served", "stays delivered"),
    ("whence", "source"),
    ("whither", "destination"),
    ("whoever", "a user who, or \"you\""),
];

/// Each use of a word of the left column in a text, as a sentence that says what to write instead.
fn findings(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let is_part_of_a_word = |c: char| c.is_alphanumeric() || "-_/.".contains(c);
    let uses = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            // A point ends a sentence or is part of a name, such as `keys.made`.
            let goes_on = after.strip_prefix('.').unwrap_or(after).starts_with(is_part_of_a_word);
            !before.ends_with(is_part_of_a_word) && !goes_on
        })
    };
    GLOSSARY
        .iter()
        .filter(|(word, _)| uses(word))
        .map(|(word, instead)| format!("\"{word}\": write {instead}"))
        .collect()
}

/// The prose of a document, line by line with its number: what programs print, but no other blocks of code, no inline
/// code and no targets of links.
fn prose(document: &str) -> Vec<(usize, String)> {
    let (mut lines, mut block) = (Vec::new(), None);
    for (at, line) in document.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            block = if block.is_none() { Some(language) } else { None };
        } else if block.is_none_or(|language| language == "text") {
            let words = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
            let mut parts = words.split("](");
            let mut text = parts.next().unwrap_or_default().to_owned();
            text.extend(parts.map(|part| part.split_once(')').map_or("", |(_, rest)| rest)));
            lines.push((at + 1, text));
        }
    }
    lines
}

/// The messages of a source file, each with its line: literals of several words, outside of tests and doc comments.
fn messages(source: &str) -> Vec<(usize, String)> {
    fn collect(tokens: TokenStream, messages: &mut Vec<(usize, String)>) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => {
                    tokens.next_if(|next| matches!(next, TokenTree::Punct(mark) if mark.as_char() == '!'));
                    let Some(TokenTree::Group(attribute)) = tokens.next_if(is_brackets) else { continue };
                    let text = attribute.stream().to_string();
                    if text.starts_with("cfg (test") || text.starts_with("test") || text.starts_with("cfg(test") {
                        // What the attribute is of: it ends in braces or at a semicolon.
                        tokens.by_ref().find(ends_an_item);
                    } else if !text.starts_with("doc") && !text.starts_with("allow") && !text.starts_with("expect") {
                        collect(attribute.stream(), messages);
                    }
                }
                TokenTree::Group(group) => collect(group.stream(), messages),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if text.contains('"') && text.contains(' ') {
                        messages.push((literal.span().start().line, text.replace("\\n", "\n")));
                    }
                }
                TokenTree::Punct(_) | TokenTree::Ident(_) => {}
            }
        }
    }
    fn is_brackets(token: &TokenTree) -> bool {
        matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
    }
    fn ends_an_item(token: &TokenTree) -> bool {
        match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(mark) => mark.as_char() == ';',
            _ => false,
        }
    }
    let mut found = Vec::new();
    collect(source.parse().unwrap(), &mut found);
    found
}

/// All files below a directory that a name passes.
fn files(below: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Fails with every finding at once: a reader wants the whole list.
fn check(files: &[PathBuf], texts: fn(&str) -> Vec<(usize, String)>) {
    let mut wrong = Vec::new();
    for path in files {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let texts = texts(&fs::read_to_string(path).unwrap());
        for (at, (line, text)) in texts.iter().enumerate() {
            // A phrase may begin on one line and end on the next.
            let next = texts.get(at + 1).filter(|(next, _)| *next == line + 1).map_or("", |(_, next)| next);
            let (own, of_next) = (findings(text), findings(next));
            let found = findings(&format!("{text} {next}"));
            let here = found.into_iter().filter(|what| own.contains(what) || !of_next.contains(what));
            wrong.extend(here.map(|what| format!("{name}:{line}: {what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn documents_use_the_words_of_the_glossary() {
    let mut documents = files(&root().join("docs"), &|path| path.extension().is_some_and(|is| is == "md"));
    documents.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)));
    assert!(documents.len() > 15, "{documents:?}");
    check(&documents, prose);
}

#[test]
fn messages_use_the_words_of_the_glossary() {
    let is_test = |path: &Path| {
        let below = path.strip_prefix(root()).unwrap();
        below.iter().any(|part| ["tests", "benches", "model", "testkit"].contains(&part.to_str().unwrap()))
            || ["tests.rs", "testing.rs", "model.rs"].contains(&path.file_name().unwrap().to_str().unwrap())
    };
    let is_source = |path: &Path| path.extension().is_some_and(|is| is == "rs") && !is_test(path);
    let sources: Vec<_> = ["src", "crates"].iter().flat_map(|below| files(&root().join(below), &is_source)).collect();
    assert!(sources.len() > 60, "{sources:?}");
    check(&sources, messages);
}

#[test]
fn the_search_finds_words_and_only_words() {
    assert_eq!(findings("It was\nmade."), ["\"made\": write created"]);
    assert_eq!(findings("The policy is\nin force"), ["\"in force\": write effective, or current"]);
    assert!(findings("handmade, user-rights, `x.gone`, enforced, foreigner, Tomade").is_empty());
    assert_eq!(
        prose("a\n```sh\nmade\n```\nb `made` [gone](made.md) c"),
        [(1, "a".to_owned()), (5, "b `` [gone c".to_owned())]
    );
    let source = "//! made by
/// made of
#[error(\"not a b\")]
fn a() { b!(
\"c d\", \"e\"); }
#[cfg(test)]
mod tests { fn f() { \"g h\" } }
const I: &str = \"j\\nk l\";";
    let lines: Vec<_> = messages(source).into_iter().map(|(line, text)| format!("{line} {text}")).collect();
    assert_eq!(lines, ["3 \"not a b\"", "5 \"c d\"", "8 \"j\nk l\""]);
}
