//! The shapes of names: each as a regular expression for CEL (RE2) and as a function.

use crate::keys::GROUP;
use crate::limits::{METADATA_KEY_NAME_MAX, NAME_SYMBOLS, SECRET_NAME_MAX};

/// RFC 1123 subdomain, as Kubernetes names most objects; its length is limited elsewhere.
pub(super) const DNS_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
/// The part of a label or annotation key behind its prefix: at most 63 characters.
pub(super) const METADATA_KEY_NAME: &str = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";
/// A label's value, which may be empty; its length is limited elsewhere.
pub(super) const LABEL_VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// Whether `text` has the characters of `spec.name`.
pub(crate) fn is_secret_friendly_name(text: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || NAME_SYMBOLS.contains(character))
}

/// Whether `text` is a DNS subdomain, of any length.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.split('.').all(|part| has_firm_ends(part, inner) && part.bytes().all(|byte| inner(byte) || byte == b'-'))
}

/// Whether `text` is a key of a Secret's data, of any length.
pub(super) fn is_secret_key(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && text != "."
        && !text.starts_with("..")
}

/// Whether `text` is a label's value, of any length.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

/// Whether `text` is a key of labels and annotations.
pub(super) fn is_metadata_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(|prefix| prefix.len() <= SECRET_NAME_MAX && is_dns_subdomain(prefix))
        && name.len() <= METADATA_KEY_NAME_MAX
        && is_word(name)
}

/// Whether a Secret type belongs to Kubernetes, Helm or us.
pub(super) fn is_reserved_type(type_: &str) -> bool {
    let domain = type_.split('/').next().unwrap_or_default();
    matches!(domain, "kubernetes.io" | "helm.sh" | GROUP)
        || domain.ends_with(".kubernetes.io")
        || domain.ends_with(".k8s.io")
}

/// Letters, digits and `-._`, with a letter or digit at both ends.
fn is_word(text: &str) -> bool {
    has_firm_ends(text, |byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn has_firm_ends(text: &str, firm: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if firm(*first) && firm(*last))
}
