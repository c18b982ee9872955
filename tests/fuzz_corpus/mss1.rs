//! Any bytes as sealed text: the parser and the API's rule agree, and opening never panics.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use managed_secrets_api::{ManagedSecretSpec, types::SealedValue, validate::validate_spec};
use managed_secrets_crypto::{
    Keyring,
    keyring::SealingKeyStatus,
    mss1::{FormatError, Sealed},
};

/// Texts that the key of [`super::keyring`] opens. Only who seals can make another.
const GENUINE: [&str; 2] = [
    include_str!("../../crates/crypto/tests/vectors/mss1.txt"),
    include_str!("../../crates/crypto/tests/vectors/mss1-kept.txt"),
];
/// What the API's rule, which reads no names and counts no fields, leaves for the parser to refuse.
const LEFT_TO_THE_PARSER: [&str; 5] = ["names in", "must name only", "namespace", "name", "must hold a value padded"];

/// The target.
pub(crate) struct Target {
    keyring: Keyring,
}

impl Target {
    /// With the frozen keyring.
    pub(crate) fn new() -> Self {
        Self { keyring: super::keyring() }
    }

    /// One input: once as text, once as the bytes that text encodes.
    pub(crate) fn run(&self, data: &[u8]) {
        if let Ok(text) = std::str::from_utf8(data) {
            self.text(text);
        }
        self.text(&format!("mss1.{}", BASE64_URL_SAFE_NO_PAD.encode(data)));
    }

    fn text(&self, text: &str) {
        let accepted = the_api_accepts(text);
        match Sealed::parse(text) {
            Ok(sealed) => {
                assert!(accepted, "the API refuses what the parser reads");
                self.open(&sealed, text);
            }
            Err(error) => assert!(!accepted || is_left_to_the_parser(error), "the API accepts, but: {error}"),
        }
    }

    fn open(&self, sealed: &Sealed, text: &str) {
        let own = (sealed.scope().namespace().unwrap_or("prod"), sealed.scope().name().unwrap_or("db"));
        for (namespace, name) in [own, ("prod", "db"), ("", "\u{0}")] {
            if let SealingKeyStatus::Usable(key) = self.keyring.sealing_key(sealed.key_id()) {
                match sealed.open(key, namespace, name) {
                    Ok(value) => {
                        assert!(GENUINE.iter().any(|genuine| text == genuine.trim_end()), "forged text opens");
                        assert!((namespace, name) == ("prod", "db") && value.same_as_bytes("grüße".as_bytes()));
                    }
                    Err(error) => assert!(error.to_string().len() < 1000),
                }
            }
        }
    }
}

fn the_api_accepts(text: &str) -> bool {
    let value = Some(SealedValue(text.to_owned()));
    validate_spec("db", &ManagedSecretSpec { name: "DB".to_owned(), value, ..ManagedSecretSpec::default() }).is_empty()
}

fn is_left_to_the_parser(error: FormatError) -> bool {
    let error = error.to_string();
    error.contains("ends before its last field") || LEFT_TO_THE_PARSER.iter().any(|what| error.contains(what))
}
