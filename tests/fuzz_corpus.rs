//! What is fuzzed, on every test run: the corpus as it is, then mutations of it, always the same ones.
//!
//! This knows nothing of coverage; `make fuzz` runs the same targets with libFuzzer. What that finds is kept in
//! `tests/corpus/`, and so tried here for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "fuzz_corpus/targets.rs"]
mod targets;

use std::{fs, path::Path};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// What a mutation may put somewhere.
const TOKENS: [&[u8]; 30] = [
    b"null",
    b"true",
    b"\"\"",
    b"{}",
    b"[]",
    b"0",
    b"-1",
    b"1e999",
    b"1e-7",
    b"18446744073709551616",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\xf0\x9f\x98\x80",
    b"{\"",
    b"[[[[[[[[",
    b"}}",
    b",",
    b"mss1.",
    b"\"value\":",
    b"\"spec\":",
    b"\"reader\"",
    b"$(",
    b"$$(",
    b"$(value | json)",
    b" value ",
    b"| base64",
    b")",
];

fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn mutated(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..5) {
        let start = random.random_range(0..=data.len());
        let end = random.random_range(start..=data.len().min(start + 40));
        match random.random_range(0..6) {
            0 => data.truncate(start),
            1 => drop(data.drain(start..end)),
            2 => drop(data.splice(start..end, TOKENS[random.random_range(0..TOKENS.len())].iter().copied())),
            3 => {
                let again = data[start..end].repeat(random.random_range(1..4));
                drop(data.splice(start..start, again));
            }
            4 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                let piece = other[from..other.len().min(from + 40)].to_vec();
                drop(data.splice(start..end, piece));
            }
            _ => {
                if let Some(byte) = data.get_mut(start) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
    }
    data
}

/// Runs the corpus and its mutations; says which input broke a rule, for the next one to be a file of the corpus.
fn fuzz(folder: &str, mutations: usize, run: impl Fn(&[u8])) {
    struct Input(Vec<u8>);
    impl Drop for Input {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input: {}", self.0.escape_ascii());
            }
        }
    }
    let corpus = corpus(folder);
    assert!(corpus.len() > 5, "{folder}: a corpus");
    let mut random = StdRng::seed_from_u64(4);
    let mutations: Vec<_> = (0..mutations).map(|_| mutated(&mut random, &corpus)).collect();
    for data in corpus.into_iter().chain(mutations) {
        run(&Input(data).0);
    }
}

#[test]
fn admission_reviews() {
    let target = targets::admission_review::Target::new();
    fuzz("admission", 2_000, |data| target.run(data));
}

#[test]
fn templates() {
    let target = targets::template::Target::new();
    fuzz("template", 20_000, |data| target.run(data));
}

#[test]
fn sealed_texts() {
    let target = targets::mss1::Target::new();
    fuzz("mss1", 20_000, |data| target.run(data));
}
