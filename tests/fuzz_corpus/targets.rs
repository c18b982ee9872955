//! What is fuzzed, and what must hold for every input. `tests/fuzz_corpus.rs` replays and mutates a corpus with it in
//! every test run; the programs in `fuzz/` give it to libFuzzer. A broken rule is a panic.

#[path = "admission_review.rs"]
pub(crate) mod admission_review;
#[path = "mss1.rs"]
pub(crate) mod mss1;
#[path = "template.rs"]
pub(crate) mod template;

use managed_secrets_crypto::{Kek, Keyring, keyring::Document};

/// The frozen keyring: inputs that were found once hold text sealed for it.
fn keyring() -> Keyring {
    let kek = Kek::new(&[0x55; 32]).expect("a key");
    let document: Document =
        serde_json::from_str(include_str!("../../crates/crypto/tests/vectors/msk1.json")).expect("a keyring");
    Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).expect("an open keyring")
}
