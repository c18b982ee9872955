//! Any bytes as the text of a template: the parser, the API's rule and its regular expression agree; what is accepted is
//! rendered within the limit.

use managed_secrets_api::{
    ManagedSecretSpec,
    limits::{RENDERED_BYTES_MAX, TEMPLATE_TEXT_MAX},
    template::{self, Template},
    types::Generate,
    validate::validate_spec,
};
use managed_secrets_crypto::Plaintext;
use regex::bytes::{Regex, RegexBuilder};

/// The target.
pub(crate) struct Target {
    pattern: Regex,
    value: Plaintext,
}

impl Target {
    /// With a value that every filter changes.
    pub(crate) fn new() -> Self {
        let pattern = RegexBuilder::new(&template::pattern()).unicode(false).build().expect("an expression");
        Self { pattern, value: Plaintext::new(b"\"p@ss\\w\xc3\xb6rd\n".to_vec().into()).expect("a value") }
    }

    /// One input.
    pub(crate) fn run(&self, data: &[u8]) {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let parsed = Template::parse(text);
        assert_eq!(parsed.is_ok(), self.pattern.is_match(text.as_bytes()), "parser and expression differ");
        let texts = [("k".to_owned(), text.to_owned())].into();
        if text.chars().count() <= TEMPLATE_TEXT_MAX {
            assert_eq!(parsed.is_ok(), the_api_accepts(&texts), "parser and API differ");
        }
        match template::data("value", &self.value, &texts) {
            Ok(data) => {
                assert!(parsed.is_ok() && data.len() == 2);
                assert!(data.values().map(|bytes| bytes.len()).sum::<usize>() <= RENDERED_BYTES_MAX);
                assert!(std::str::from_utf8(&data["k"]).is_ok(), "not text");
            }
            Err(error) => assert!(error.to_string().len() < 300, "{error}"),
        }
        if let Err(error) = parsed {
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}

fn the_api_accepts(texts: &std::collections::BTreeMap<String, String>) -> bool {
    let target = managed_secrets_api::types::Target { template: Some(texts.clone()), ..Default::default() };
    let (generate, target) = (Some(Generate::default()), Some(target));
    let spec = ManagedSecretSpec { name: "DB".to_owned(), generate, target, ..ManagedSecretSpec::default() };
    validate_spec("db", &spec).is_empty()
}
