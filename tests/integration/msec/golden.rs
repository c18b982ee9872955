//! Whole texts for people, beside the files that hold them: a change of wording or layout shows as a diff.
//!
//! `UPDATE=1` writes the files. What differs from run to run is replaced by a word in capitals.

use std::{env, fs, path::Path};

use regex::Regex;

/// What differs in any text: dates, ages, ids, keys, and versions of Kubernetes.
const VARIABLE: [(&str, &str); 8] = [
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "DATE"),
    (r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "DATE"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"[0-9]+[smhd] ago", "AGE ago"),
    (r" for [0-9]+[smhd]", " for AGE"),
    (r"[0-9a-f]{64}", "FINGERPRINT"),
    (r"[0-9a-f]{16}", "KEY"),
    (r"Kubernetes 1\.[0-9]+", "Kubernetes VERSION"),
];

/// Compares a text with the file `golden/NAME.txt`. `facts` are texts of this run, each with its word, longer ones first.
#[track_caller]
pub(super) fn matches(name: &str, text: &str, facts: &[(String, &str)]) {
    let mut text = text.to_owned();
    for (fact, word) in facts {
        text = text.replace(fact, word);
    }
    for (pattern, word) in VARIABLE {
        text = Regex::new(pattern).unwrap().replace_all(&text, word).into_owned();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/msec/golden").join(format!("{name}.txt"));
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; UPDATE=1 writes it", path.display());
}
