//! The templates that a spec of the model may have, and what they make of a value.

use std::collections::BTreeMap;

use managed_secrets_api::template;
use managed_secrets_crypto::Plaintext;
use zeroize::Zeroizing;

use crate::controller::view::shape::TEXT_KEPT_BYTES;

/// Keys and texts: with a key that nothing of the value is in, with one that replaces the value, and with a text that a
/// marker makes too long for a cache.
pub(super) const TEMPLATES: [&[(&str, &str)]; 3] = [
    &[("plain", "shop"), ("url", "x://u:$(value | urlencode)@h")],
    &[("token", "t=$(value)"), ("url", "y://$(\"u:\" value | base64)@h")],
    &[("LONG", "$$(value) $(value)"), ("plain", "other")],
];

/// A template as a spec has it.
pub(super) fn texts(pick: usize) -> BTreeMap<String, String> {
    let text = |(key, text): &(&str, &str)| {
        let more = if *key == "LONG" { "x".repeat(TEXT_KEPT_BYTES) } else { String::new() };
        ((*key).to_owned(), format!("{text}{more}"))
    };
    TEMPLATES[pick].iter().map(text).collect()
}

/// What a target of this key and template holds of a value, by its keys.
pub(super) fn data(key: &str, value: &[u8], texts: &BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let value = Plaintext::new(Zeroizing::new(value.to_vec())).unwrap();
    let data = template::data(key, &value, texts).unwrap();
    data.into_iter().map(|(key, bytes)| (key, bytes.to_vec())).collect()
}

/// Whether a key may hold these bytes for this value: as it is, or as one of the templates makes it.
pub(super) fn may_hold(key: &str, bytes: &[u8], value: &[u8]) -> bool {
    let rendered = |pick: usize| data("value", value, &texts(pick)).remove(key).is_some_and(|made| made == bytes);
    bytes == value || (0..TEMPLATES.len()).any(rendered)
}

/// Whether these bytes tell nothing of a value: one of the templates has them for this key.
pub(super) fn is_constant(key: &str, bytes: &[u8]) -> bool {
    TEMPLATES.iter().flat_map(|texts| texts.iter()).any(|(of, text)| *of == key && text.as_bytes() == bytes)
}
