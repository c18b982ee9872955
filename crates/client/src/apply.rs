//! Server-side apply: the one place that builds its requests. A merge patch is built here, too.
//!
//! The API server decodes the body of an apply as YAML 1.1, also when it is JSON. In a quoted scalar, YAML folds line
//! breaks, among them U+0085, U+2028 and U+2029, and its reader refuses U+007F to U+009F, U+FFFE and U+FFFF (go-yaml v2,
//! `scannerc.go` and `readerc.go`). So the body escapes every character of the Basic Multilingual Plane that is not
//! printable ASCII. Characters beyond that plane stay as they are: the reader takes them, and refuses JSON's escape for
//! them, a pair of surrogates.

use std::fmt::Write as _;

use kube::{
    api::{Patch, PatchParams},
    core::Request,
};
use managed_secrets_api::keys::{FIELD_MANAGER, FIELD_MANAGER_LEFT, FIELD_MANAGER_RESTARTS};
use serde::Serialize;

use super::CallError;

/// Whether the API server carries a write out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Run {
    /// It does.
    Real,
    /// It only answers what the write would do.
    Dry,
}

/// A forced apply of a whole object by our field manager. `body` has `apiVersion`, `kind` and `metadata.name`.
pub(super) fn apply(
    request: &Request,
    name: &str,
    run: Run,
    body: &impl Serialize,
) -> Result<http::Request<Vec<u8>>, CallError> {
    let params = PatchParams { dry_run: run == Run::Dry, ..params() };
    let built = request.patch(name, &params, &patch(body));
    escaped(built.map_err(CallError::request)?)
}

/// A merge patch (RFC 7386) of an object by our field manager. It changes what `body` names, and removes what is null there,
/// whichever field manager has it.
pub(super) fn merge(
    request: &Request,
    name: &str,
    run: Run,
    body: &impl Serialize,
) -> Result<http::Request<Vec<u8>>, CallError> {
    let params = PatchParams {
        dry_run: run == Run::Dry,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    request.patch(name, &params, &Patch::Merge(body)).map_err(CallError::request)
}

/// A forced apply of what is left in an adopted Secret, by a field manager of its own: it stays when ours gives it up.
pub(super) fn apply_left(
    request: &Request,
    name: &str,
    body: &impl Serialize,
) -> Result<http::Request<Vec<u8>>, CallError> {
    let built = request.patch(name, &PatchParams::apply(FIELD_MANAGER_LEFT).force(), &patch(body));
    escaped(built.map_err(CallError::request)?)
}

/// A forced apply of the marks on a workload, by a field manager of their own: the rest of the workload stays as it is.
pub(super) fn apply_marks(
    request: &Request,
    name: &str,
    body: &impl Serialize,
) -> Result<http::Request<Vec<u8>>, CallError> {
    let built = request.patch(name, &PatchParams::apply(FIELD_MANAGER_RESTARTS).force(), &patch(body));
    escaped(built.map_err(CallError::request)?)
}

/// A forced apply of an object's status by our field manager.
pub(super) fn apply_status(
    request: &Request,
    name: &str,
    body: &impl Serialize,
) -> Result<http::Request<Vec<u8>>, CallError> {
    let built = request.patch_subresource("status", name, &params(), &patch(body));
    escaped(built.map_err(CallError::request)?)
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

#[expect(clippy::disallowed_methods, reason = "the one place: what it builds is escaped before it is sent")]
fn patch<T: Serialize>(body: &T) -> Patch<&T> {
    Patch::Apply(body)
}

fn escaped(request: http::Request<Vec<u8>>) -> Result<http::Request<Vec<u8>>, CallError> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body).map_err(CallError::request)?;
    Ok(http::Request::from_parts(head, escape(body).into_bytes()))
}

/// The same JSON document, as YAML 1.1 reads it too.
fn escape(json: String) -> String {
    let stays = |character: char| matches!(character, ' '..='~' | '\u{10000}'..);
    if json.chars().all(stays) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() * 2);
    // JSON holds such characters inside strings only: serde_json writes no line breaks between tokens.
    for character in json.chars() {
        if stays(character) {
            escaped.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        }
    }
    escaped
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn body(value: &Value) -> String {
        let request = apply(&Request::new("/api/v1/things"), "one", Run::Real, value).unwrap();
        String::from_utf8(request.into_body()).unwrap()
    }

    #[test]
    fn what_yaml_would_fold_or_refuse_is_escaped() {
        let text = "a\u{85}b \u{2028} \u{2029}c\u{7f}\u{92}\u{fffe}\u{ffff}ü\u{feff}";
        assert_eq!(
            body(&json!({ "k": text })),
            r#"{"k":"a\u0085b \u2028 \u2029c\u007f\u0092\ufffe\uffff\u00fc\ufeff"}"#
        );
    }

    #[test]
    fn no_pair_of_surrogates_is_written() {
        assert_eq!(body(&json!("\u{1f600}\u{10ffff}")), "\"\u{1f600}\u{10ffff}\"");
    }

    proptest! {
        #[test]
        fn it_stays_the_same_document(texts in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4)) {
            let document = json!(texts);
            prop_assert_eq!(serde_json::from_str::<Value>(&body(&document)).unwrap(), document);
        }
    }
}
