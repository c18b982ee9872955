use std::sync::LazyLock;

use proptest::{collection::vec, prelude::*, sample::select};
use regex::bytes::{Regex, RegexBuilder};
use serde_json::Value;
use zeroize::Zeroizing;

use super::*;
use crate::limits::RENDERED_BYTES_MAX;
use managed_secrets_crypto::Plaintext;

/// As bytes: it is the same language, and no part of the crate that knows Unicode is needed.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| RegexBuilder::new(&pattern()).unicode(false).build().unwrap());

fn value(text: &str) -> Plaintext {
    Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn texts(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
    texts.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

fn rendered(text: &str, of: &str) -> String {
    let data = data("value", &value(of), &texts(&[("k", text)])).unwrap();
    assert_eq!(data["value"].as_slice(), of.as_bytes());
    String::from_utf8(data["k"].to_vec()).unwrap()
}

#[test]
fn a_text_is_rendered_as_the_language_says() {
    for (text, expected) in [
        ("", ""),
        ("shop", "shop"),
        ("$(value)", "p@ss/wörd"),
        ("a$(value)b$(value)c", "ap@ss/wördbp@ss/wördc"),
        ("postgres://shop:$(value | urlencode)@db:5432/shop", "postgres://shop:p%40ss%2Fw%C3%B6rd@db:5432/shop"),
        ("$( \"shop:\"   value|base64 )", "c2hvcDpwQHNzL3fDtnJk"),
        ("$(\"a\\n\\u00e9\\\"\" | json)", r#""a\né\"""#),
        ("$(value | base64 | urlencode | json)", r#""cEBzcy93w7ZyZA%3D%3D""#),
        ("$$(value)", "$(value)"),
        ("$$$(value)", "$$(value)"),
        ("$", "$"),
        ("$$", "$$"),
        ("$ (value)", "$ (value)"),
        ("costs 5$, or $x $$y", "costs 5$, or $x $$y"),
        ("{{ .Values.x }} ${HOME}", "{{ .Values.x }} ${HOME}"),
        ("$(\"\")", ""),
        ("$(\"😀\")", "😀"),
        (")$(value))(", ")p@ss/wörd)("),
    ] {
        assert_eq!(rendered(text, "p@ss/wörd"), expected, "{text}");
        assert!(PATTERN.is_match(text.as_bytes()), "{text}");
    }
    for text in ["", "$(value)", "$$(value) $( $", "a$$$(b", "-----BEGIN CERTIFICATE-----\n"] {
        assert_eq!(rendered(&literal(text), "p@ss/wörd"), text);
    }
    // The digest of `abc` is that of FIPS 180-4.
    assert_eq!(
        rendered("$(value | sha256)", "abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_without_its_text() {
    for (text, expected) in [
        ("$(", "unknown operand at character 3"),
        ("$()", "unknown operand at character 3"),
        ("é$(valeu)", "unknown operand at character 4"),
        ("$(Value)", "unknown operand at character 3"),
        ("$(value | base64url)", "unknown filter at character 11; the filters are base64, urlencode, json, sha256"),
        ("$(value | )", "unknown filter at character 11"),
        ("$(value || json)", "unknown filter at character 10"),
        ("$(\"a\"\"b\")", "is expected at character 6, with a space before an operand"),
        ("$(value\tvalue)", "is expected at character 8"),
        ("$(value | json value)", "is expected at character 16"),
        ("$(value", "the expression at character 1 has no `)`"),
        ("$(\"a)", "unterminated string or invalid escape at character 3"),
        ("$(\"\\q\")", "unterminated string or invalid escape at character 3"),
        ("$(\"\\ud83d\\ude00\")", "unterminated string or invalid escape at character 3"),
        ("$(\"a\nb\")", "unterminated string or invalid escape at character 3"),
        ("$(hunter2)", "unknown operand at character 3"),
    ] {
        let error = Template::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
        assert!(!PATTERN.is_match(text.as_bytes()), "{text}");
    }
}

#[test]
fn a_template_replaces_the_value_only_under_its_own_key() {
    let both = data("token", &value("x"), &texts(&[("token", "t=$(value)"), ("user", "shop")])).unwrap();
    let shown: Vec<_> = both.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect();
    assert_eq!(shown, [("token", b"t=x".as_slice()), ("user", b"shop")]);
    let none = data("token", &value("x"), &BTreeMap::new()).unwrap();
    assert_eq!(none.keys().collect::<Vec<_>>(), ["token"]);
}

#[test]
fn what_a_template_makes_is_bounded_also_on_the_way() {
    let large = "v".repeat(3500);
    let times = |count: usize| "$(value)".repeat(count);
    let most = RENDERED_BYTES_MAX / 3500;
    assert!(data("value", &value(&large), &texts(&[("k", &times(most - 1))])).is_ok());
    let filters = |count: usize| format!("$(\"\\\"\"{}|sha256)", "|json".repeat(count));
    assert!(data("value", &value("x"), &texts(&[("k", &filters(10))])).is_ok());
    for (first, second) in [
        (times(most), String::new()),
        (times(most / 2), times(most / 2 + 1)),
        // Each doubles what it gets; the end would be short.
        (filters(2000), String::new()),
        (format!("$({})", "value ".repeat(2000)), String::new()),
    ] {
        let error = data("value", &value(&large), &texts(&[("a", &first), ("b", &second)])).unwrap_err();
        assert_eq!(error, RenderError::TooLarge);
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }
}

#[test]
fn a_key_that_looks_like_a_credential_uses_the_value() {
    let all = [
        ("db-password", "hunter2"),
        ("admin-password", "$(\"hunter2\")"),
        ("basic-token", "Basic $(\"shop:hunter2\" | base64)"),
        ("user-token", "$(\"shop:\" value | base64)"),
        ("API_TOKEN", "$$(value)"),
        ("client_secret", "$(value)"),
        ("tls.key", "-----BEGIN"),
        ("tls.crt", "-----BEGIN"),
        ("username", "shop"),
        ("token", ""),
    ];
    assert_eq!(
        plain_credentials(all).collect::<Vec<_>>(),
        ["db-password", "admin-password", "basic-token", "API_TOKEN", "tls.key"]
    );
}

#[test]
fn a_digest_differs_with_every_key_text_and_boundary() {
    let all = [
        texts(&[]),
        texts(&[("a", "b")]),
        texts(&[("a", "c")]),
        texts(&[("ab", "")]),
        texts(&[("a", ""), ("b", "")]),
        texts(&[("a", "b"), ("c", "d")]),
    ];
    let digests: std::collections::BTreeSet<_> = all.iter().map(digest).collect();
    assert_eq!(digests.len(), all.len());
}

/// Pieces of which most texts are nearly templates.
fn pieces() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "$",
        "$$",
        "$(",
        "$$(",
        "(",
        ")",
        "value",
        "value",
        " ",
        "  ",
        "|",
        " | ",
        "base64",
        "urlencode",
        "json",
        "sha256",
        "\"",
        "\"",
        "\"a\"",
        "\\",
        "\\\"",
        "\\u00e9",
        "\\uD7ff",
        "\\ud800",
        "\\uDBFF\\uDFFF",
        "\\u12",
        "\\n",
        "\\q",
        "/",
        "\n",
        "\t",
        "\u{0}",
        "\u{7f}",
        "\u{85}",
        "é",
        "😀",
        "x",
        "VALUE",
        "valuex",
        "$(value)",
        "$(\"x\" value|json)",
    ]);
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Templates, and what a person writes wrongly.
fn nearly() -> impl Strategy<Value = String> {
    let operand =
        select(vec!["value", "\"\"", "\"a b)\"", "\"\\\\\"", "\"\\u0041\"", "\"\u{2028}$(\"", "\"\\uDFFF\"", "v"]);
    let filter = select(vec!["base64", "urlencode", "json", "sha256", "b64", ""]);
    let space = select(vec!["", " ", "  ", "\t"]);
    let operands = vec((operand, space.clone()), 1..4);
    let filters = vec((space.clone(), space.clone(), filter), 0..3);
    let text = select(vec!["", "a", "$", "$$", "\n", "é$x"]);
    (text.clone(), space.clone(), operands, filters, space, select(vec![")", ")", ")", ""]), text).prop_map(
        |(before, first, operands, filters, last, end, after)| {
            let operands: String = operands.iter().flat_map(|(operand, space)| [*operand, *space]).collect();
            let filters: String =
                filters.iter().flat_map(|(before, after, filter)| [*before, "|", *after, *filter]).collect();
            format!("{before}$({first}{operands}{filters}{last}{end}{after}")
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_parser_and_the_pattern_of_the_crd_accept_the_same_texts(
        text in prop_oneof![pieces(), nearly(), any::<String>()]
    ) {
        prop_assert_eq!(Template::parse(&text).is_ok(), PATTERN.is_match(text.as_bytes()));
    }

    #[test]
    fn each_filter_can_be_undone_by_another_decoder(text in "\\PC{1,40}|(?s:.{1,40})") {
        let json: Value = serde_json::from_str(&rendered("$(value | json)", &text)).unwrap();
        prop_assert_eq!(json.as_str(), Some(text.as_str()));
        let base64 = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, rendered("$(value | base64)", &text));
        prop_assert_eq!(base64.unwrap(), text.as_bytes());
        let encoded = rendered("$(value | urlencode)", &text);
        let mut decoded = Vec::new();
        let mut rest = encoded.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first == b'%' {
                decoded.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            } else {
                prop_assert!(first.is_ascii_alphanumeric() || b"-._~".contains(first));
                decoded.push(*first);
            }
        }
        prop_assert_eq!(decoded, text.as_bytes());
    }

    #[test]
    fn a_text_without_a_parenthesis_is_itself(text in "[^(]{0,60}") {
        prop_assert_eq!(rendered(&text, "x"), text);
    }
}
