//! The answers of the value API, as Kubernetes' clients expect them. Pure.

use std::io::{self, Write};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use managed_secrets_api::{
    record::RecordMeta,
    value::{GROUP, KIND, PLURAL, SecretValue, SecretValueStatus, VERSION, ValueText},
};
use managed_secrets_crypto::Plaintext;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// What a request was answered with, for metrics and the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// A value.
    Value,
    /// The caller has this version already.
    NotModified,
    /// A description of the secret without its value.
    Described,
    /// The path, a header or a parameter is invalid.
    Invalid,
    /// The verb is not allowed.
    Verb,
    /// It is not known who the caller is.
    Unauthenticated,
    /// The caller lacks the permission.
    Forbidden,
    /// The secret or version does not exist.
    NotFound,
    /// The caller, or all of them, send too many requests.
    Limited,
    /// The operator cannot answer now.
    Unavailable,
    /// The record cannot be opened.
    Failed,
}

/// What metrics and the log can say of a request for a value.
pub(crate) const RESULTS: &[&str] = &[
    "value",
    "not_modified",
    "described",
    INVALID,
    "unauthenticated",
    "forbidden",
    "not_found",
    "limited",
    "unavailable",
    "failed",
];
const INVALID: &str = "invalid";

impl Outcome {
    /// Its name: one of [`RESULTS`].
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::NotModified => "not_modified",
            Self::Described => "described",
            // A request with another verb, or with another path than that of a value, is not counted.
            Self::Invalid | Self::Verb => INVALID,
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// A refusal: a Kubernetes Status. Its message repeats nothing but the secret's name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) outcome: Outcome,
    message: String,
    /// The secret that it is about.
    name: Option<String>,
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), name: None, retry_after: None }
    }

    /// A refusal that may be over after some seconds.
    pub(super) fn for_a_time(outcome: Outcome, message: impl Into<String>, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(outcome, message) }
    }

    /// Adds the name by which the request names the secret.
    pub(super) fn about(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    fn code(&self) -> StatusCode {
        match self.outcome {
            Outcome::Value | Outcome::Described => StatusCode::OK,
            Outcome::NotModified => StatusCode::NOT_MODIFIED,
            Outcome::Invalid => StatusCode::BAD_REQUEST,
            Outcome::Verb => StatusCode::METHOD_NOT_ALLOWED,
            Outcome::Unauthenticated => StatusCode::UNAUTHORIZED,
            Outcome::Forbidden => StatusCode::FORBIDDEN,
            Outcome::NotFound => StatusCode::NOT_FOUND,
            Outcome::Limited => StatusCode::TOO_MANY_REQUESTS,
            Outcome::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Outcome::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Kubernetes' word for it (`metav1.StatusReason`).
    fn reason(&self) -> &'static str {
        match self.outcome {
            Outcome::Value | Outcome::Described | Outcome::NotModified => "",
            Outcome::Invalid => "BadRequest",
            Outcome::Verb => "MethodNotAllowed",
            Outcome::Unauthenticated => "Unauthorized",
            Outcome::Forbidden => "Forbidden",
            Outcome::NotFound => "NotFound",
            Outcome::Limited => "TooManyRequests",
            Outcome::Unavailable => "ServiceUnavailable",
            Outcome::Failed => "InternalError",
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.code();
        let mut details = json!({"group": GROUP, "kind": PLURAL});
        if let Some(name) = &self.name {
            details["name"] = json!(name);
        }
        if let Some(seconds) = self.retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason(), "details": details, "code": code.as_u16(),
        });
        let mut response = document(&status);
        *response.status_mut() = code;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.outcome == Outcome::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.outcome == Outcome::Verb {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

/// A JSON document that no cache may keep.
fn document(json: &Value) -> Response {
    with_body(json.to_string().into_bytes(), "application/json")
}

/// The same of another media type.
pub(super) fn with_body(body: impl Into<Body>, media_type: &'static str) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    unstored(headers);
    response
}

fn unstored(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Authorization"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
}

/// In which form a client wants a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// The whole object.
    Object,
    /// A `Table` for people, without the value.
    Table,
    /// Its metadata.
    Metadata,
}

impl Form {
    /// Reads the `Accept` headers: the first form in them that the server has. `None` if there is none.
    pub(super) fn asked(headers: &HeaderMap) -> Option<Self> {
        let mut accepts = headers.get_all(header::ACCEPT).iter().peekable();
        if accepts.peek().is_none() {
            return Some(Self::Object);
        }
        accepts.filter_map(|accept| accept.to_str().ok()).flat_map(|accept| accept.split(',')).find_map(Self::of_clause)
    }

    fn of_clause(clause: &str) -> Option<Self> {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(media_type.as_str(), "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (mut as_, mut group, mut version) = (None, None, None);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "as" => as_ = Some(value),
                "g" => group = Some(value),
                "v" => version = Some(value),
                _ => {}
            }
        }
        match (as_, group, version) {
            (None, _, _) => Some(Self::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Some(Self::Table),
            (Some("PartialObjectMetadata"), Some("meta.k8s.io"), Some("v1")) => Some(Self::Metadata),
            (Some(_), _, _) => None,
        }
    }
}

/// The entity tag of a version of a value. It is not derived from the value.
pub(super) fn tag(meta: &RecordMeta) -> String {
    format!("\"{}.{}\"", meta.id, meta.version)
}

/// Whether the caller has this version already (RFC 9110, section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|tags| tags.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// The answer to a caller that has this version already.
pub(super) fn not_modified(tag: &str) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    unstored(response.headers_mut());
    set_tag(&mut response, tag);
    response
}

/// The value, with what describes it.
pub(super) fn value(namespace: &str, meta: &RecordMeta, value: &Plaintext) -> Response {
    // A `Plaintext` is UTF-8.
    let text = ValueText::copy_of(std::str::from_utf8(value.as_bytes()).unwrap_or_default());
    let status = SecretValueStatus {
        id: meta.id.clone(),
        name: meta.name.clone(),
        version: meta.version,
        updated_date: meta.updated.clone(),
        value_updated_time: meta.value_updated.clone(),
        value: text,
    };
    // Wiped once the answer is sent.
    let body = Bytes::from_owner(json_of(&SecretValue::new(namespace, status)));
    let mut response = with_body(body, "application/json");
    set_tag(&mut response, &tag(meta));
    response
}

/// The JSON of an object with a value. The buffer has its size before anything is written into it: one that grows leaves
/// copies in memory.
fn json_of(object: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut size = Size(0);
    // Text always has a form in JSON.
    let _ = serde_json::to_writer(&mut size, object);
    let mut json = Zeroizing::new(vec![0; size.0]);
    let _ = serde_json::to_writer(json.as_mut_slice(), object);
    json
}

/// Counts what is written.
struct Size(usize);

impl Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_tag(response: &mut Response, tag: &str) {
    // An id that is not one makes no header.
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}

/// A `Table` with one row, which does not contain the value.
pub(super) fn table(namespace: &str, meta: &RecordMeta) -> Response {
    let column = |name: &str, type_: &str, format: &str, description: &str| json!({"name": name, "type": type_, "format": format, "description": description, "priority": 0});
    document(&json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [
            column("Name", "string", "name", "The secret's name"),
            column("Id", "string", "", "The secret's id"),
            column("Version", "integer", "int64", "Counts the values of the secret"),
            column("Updated", "string", "date-time", "When the value last changed"),
        ],
        "rows": [{
            "cells": [meta.name, meta.id, meta.version, meta.value_updated],
            "object": partial(namespace, meta),
        }],
    }))
}

/// The metadata.
pub(super) fn metadata(namespace: &str, meta: &RecordMeta) -> Response {
    document(&partial(namespace, meta))
}

fn partial(namespace: &str, meta: &RecordMeta) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": meta.name, "namespace": namespace, "uid": meta.id},
    })
}

/// The group, version and kind that documents name.
pub(super) fn kind() -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": KIND})
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn the_form_is_the_first_that_the_server_has() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (accept, form) in [
            ("application/json", Some(Form::Object)),
            ("*/*", Some(Form::Object)),
            ("text/html, application/*;q=0.1", Some(Form::Object)),
            (table, Some(Form::Table)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Form::Table),
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", Some(Form::Object)),
            ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Some(Form::Metadata)),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/json;as=Other;g=meta.k8s.io;v=v1", None),
            ("", None),
        ] {
            assert_eq!(Form::asked(&headers(&header::ACCEPT, &[accept])), form, "{accept}");
        }
        assert_eq!(Form::asked(&HeaderMap::new()), Some(Form::Object));
        assert_eq!(Form::asked(&headers(&header::ACCEPT, &["text/html", table])), Some(Form::Table));
    }

    #[test]
    fn json_is_written_whole_into_a_buffer_of_its_size() {
        for object in [json!({"value": "hunter2"}), json!(["\u{1}\"\\\n", "ä😀", {"empty": ""}, 3])] {
            let json = json_of(&object);
            assert_eq!(*json, serde_json::to_vec(&object).unwrap());
            assert_eq!(json.capacity(), json.len());
        }
    }

    #[test]
    fn a_tag_is_compared_as_a_whole() {
        let known = |values: &[&str]| is_known(&headers(&header::IF_NONE_MATCH, values), "\"id.3\"");
        for values in [&["\"id.3\""][..], &["W/\"id.3\""], &["\"id.2\", \"id.3\""], &["\"x\"", "\"id.3\""], &["*"]] {
            assert!(known(values), "{values:?}");
        }
        for values in [&[][..], &["\"id.33\""], &["id.3"], &["\"id.2\""], &[""]] {
            assert!(!known(values), "{values:?}");
        }
    }

    #[test]
    fn every_outcome_has_its_own_name() {
        let outcomes = [
            Outcome::Value,
            Outcome::NotModified,
            Outcome::Described,
            Outcome::Invalid,
            Outcome::Unauthenticated,
            Outcome::Forbidden,
            Outcome::NotFound,
            Outcome::Limited,
            Outcome::Unavailable,
            Outcome::Failed,
        ];
        assert_eq!(outcomes.map(Outcome::name), RESULTS);
        let refusal = Refusal::for_a_time(Outcome::Limited, "wait", 3).about("DB").into_response();
        assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refusal.headers()[header::RETRY_AFTER], "3");
        assert_eq!(refusal.headers()[header::CACHE_CONTROL], "no-store");
    }
}
