//! The rules of `target.template`.

use serde_json::Value;

use super::{RESERVED_KEY, Rule, entries, text};
use crate::{
    keys::{TLS_CERTIFICATE, TYPE_TLS},
    limits::{SECRET_KEY_MAX, TEMPLATE_BYTES_MAX},
    template::{Template, pattern},
    validate::FieldReason,
};

/// Each text of a template.
pub(super) const TEXT: &str = "spec.target.template.*";

/// What is wrong with a text, and where.
pub(super) fn detail(text: &Value) -> Option<String> {
    Some(Template::parse(text.as_str()?).err()?.to_string())
}

/// All of them.
pub(super) fn rules() -> [Rule; 5] {
    const TEMPLATE: &str = "spec.target.template";
    [
        Rule {
            at: "spec.target",
            field: ".template",
            cel: format!(
                "!has(self.type) || self.type != '{TYPE_TLS}' || has(self.template) && '{TLS_CERTIFICATE}' in self.template"
            ),
            message: format!("must have the key `{TLS_CERTIFICATE}`, which `{TYPE_TLS}` requires"),
            reason: FieldReason::Required,
            holds: |target| {
                target.get("type").and_then(Value::as_str) != Some(TYPE_TLS)
                    || target.get("template").is_some_and(|template| template.get(TLS_CERTIFICATE).is_some())
            },
        },
        Rule {
            at: TEMPLATE,
            field: "",
            cel: format!(
                "self.all(key, key.matches(r'^[-._a-zA-Z0-9]{{1,{SECRET_KEY_MAX}}}$') && key != '.' && !key.startsWith('..'))"
            ),
            message: format!(
                "must have keys of 1 to {SECRET_KEY_MAX} letters, digits and `-._` that are neither `.` nor begin with `..`"
            ),
            reason: FieldReason::Invalid,
            holds: |template| {
                entries(template)
                    .all(|(key, _)| (1..=SECRET_KEY_MAX).contains(&key.len()) && text::is_secret_key(key))
            },
        },
        Rule {
            at: TEMPLATE,
            field: "",
            cel: format!("!('{RESERVED_KEY}' in self)"),
            message: format!(
                "must not have the key `{RESERVED_KEY}`: in a copy of the manifest it reads as a plaintext value; set \
                 `target.key` to another key, and use that"
            ),
            reason: FieldReason::Invalid,
            holds: |template| template.get(RESERVED_KEY).is_none(),
        },
        Rule {
            at: TEMPLATE,
            field: "",
            cel: format!("self.map(key, bytes(key).size() + bytes(self[key]).size()).sum() <= {TEMPLATE_BYTES_MAX}"),
            message: format!("must have at most {TEMPLATE_BYTES_MAX} bytes of keys and texts"),
            reason: FieldReason::Invalid,
            holds: |template| {
                let bytes = entries(template).map(|(key, text)| key.len() + text.as_str().map_or(0, str::len));
                bytes.sum::<usize>() <= TEMPLATE_BYTES_MAX
            },
        },
        Rule {
            at: TEXT,
            field: "",
            cel: format!("self.matches(r'{}')", pattern()),
            message: "must have an expression after each single `$(`, such as `$(value | urlencode)` or \
                      `$(\"user:\" value | base64)`; the filters are base64, urlencode, json and sha256, and `$$(` is a \
                      literal `$(`"
                .to_owned(),
            // "Invalid" would have the server print the text, in which a user may have put a credential.
            reason: FieldReason::Forbidden,
            holds: |text| text.as_str().is_some_and(|text| Template::parse(text).is_ok()),
        },
    ]
}
