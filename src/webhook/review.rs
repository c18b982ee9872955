//! Decodes AdmissionReview v1 requests and encodes the answers.
//!
//! In: a body of bounded size. Out: a [`Request`]; and back, an answer as bytes. An error names the rule that the body
//! breaks, because a decoder's own message can quote the body.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::{Violation, keys};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Limit of lists, objects and members in a body. A review of two full objects with their `managedFields` has some hundred.
/// Each one costs two bytes of the body and up to 0.7 kB of memory.
const MAX_PARTS: usize = 20_000;

/// Why a body is not a valid request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// It cannot be decoded.
    #[error("the body must be an AdmissionReview in JSON")]
    Json,
    /// It would need much more memory than its length.
    #[error("the review must have at most {MAX_PARTS} lists, objects and members")]
    TooMany,
    /// It is another kind, or another version.
    #[error("the body must be of apiVersion {API_VERSION} and kind {KIND}")]
    Version,
    /// It is about another resource.
    #[error("the request must be about managedsecrets.{group}/{version}", group = keys::GROUP, version = keys::VERSION)]
    Resource,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(default)]
    request: Option<Value>,
}

/// A request of the API server. It has no `Debug`, so its objects cannot be printed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    /// Id of the request; the answer repeats it.
    pub uid: String,
    /// The resource that the request is about.
    pub resource: Resource,
    /// A subresource, such as `status`.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// The object's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The user who sent the request.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it would be stored.
    #[serde(default)]
    pub object: Value,
    /// The stored object; null on create.
    #[serde(default)]
    pub old_object: Value,
}

/// Group, version and plural of a resource.
#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    #[serde(rename = "resource")]
    pub plural: String,
}

/// The user who sent the request, as the API server authenticated them.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct UserInfo {
    /// Name.
    #[serde(rename(serialize = "user"))]
    pub username: String,
    /// Uid, if there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Other attributes from the authenticator.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Request {
    /// Decodes a body.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Malformed> {
        if parts(body) > MAX_PARTS {
            return Err(Malformed::TooMany);
        }
        let head: Head = serde_json::from_slice(body).map_err(|_| Malformed::Json)?;
        if head.api_version != API_VERSION || head.kind != KIND {
            return Err(Malformed::Version);
        }
        let request: Self = serde_json::from_value(head.request.unwrap_or_default()).map_err(|_| Malformed::Json)?;
        let Resource { group, version, plural } = &request.resource;
        let is_ours = group == keys::GROUP && version == keys::VERSION && plural == keys::PLURAL;
        if !is_ours || request.sub_resource.as_deref().is_some_and(|part| !part.is_empty()) {
            return Err(Malformed::Resource);
        }
        Ok(request)
    }

    /// The stored object, if there is one.
    #[must_use]
    pub(super) fn stored(&self) -> Option<&Value> {
        Some(&self.old_object).filter(|object| !object.is_null())
    }
}

/// Counts the lists, objects and commas of a body. It runs before anything is decoded: a value can have any shape here,
/// because the API server validates it after the webhook.
fn parts(body: &[u8]) -> usize {
    let (mut parts, mut in_text, mut is_escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' | b',' if !in_text => parts += 1,
            _ => {}
        }
    }
    parts
}

/// The answer to a request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The rule that refuses the request; `None` admits it.
    pub refusal: Option<Violation>,
    /// JSON pointers and the new values. There is never a `test` operation, because the audit log shows patches.
    pub replace: Vec<(&'static str, Value)>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

impl Answer {
    /// Encodes the answer to this request as a response body.
    #[must_use]
    pub(super) fn encode(&self, request: &Request) -> Vec<u8> {
        let mut response = json!({"uid": request.uid, "allowed": self.refusal.is_none()});
        if let Some(violation) = &self.refusal {
            response["status"] = status(violation, request);
        }
        if !self.replace.is_empty() {
            let replace = |(path, value): &(&str, Value)| json!({"op": "replace", "path": path, "value": value});
            let operations: Vec<_> = self.replace.iter().map(replace).collect();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(Value::from(operations).to_string()));
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": response}).to_string().into_bytes()
    }
}

/// Returns a refusal in the form that the API server uses: reason `Invalid`, with the object and the fields as `details`.
///
/// kubectl depends on both. After any other reason, or without `details`, client-side `kubectl apply` prints the whole
/// patch that it sent, including the value (kubectl 1.36, `AddSourceToErr` in pkg/cmd/apply and `checkErr` in
/// pkg/cmd/util).
fn status(violation: &Violation, request: &Request) -> Value {
    let name = request.object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    json!({
        "status": "Failure",
        "reason": "Invalid",
        "code": 422,
        "message": violation.to_string(),
        "details": {
            "group": keys::GROUP,
            "kind": keys::KIND,
            "name": name,
            "causes": [{
                "reason": violation.reason.as_str(),
                "field": violation.path,
                "message": violation.message,
            }],
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use managed_secrets_api::FieldReason;

    use super::*;

    fn review() -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "request": {
                "uid": "1", "operation": "CREATE", "namespace": "shop", "dryRun": false,
                "kind": {"group": keys::GROUP, "version": keys::VERSION, "kind": keys::KIND},
                "resource": {"group": keys::GROUP, "version": keys::VERSION, "resource": keys::PLURAL},
                "userInfo": {"username": "ann", "groups": ["a"], "extra": {"k": ["v"]}},
                "object": {"metadata": {"name": "db"}}, "oldObject": null,
            },
        })
    }

    fn decode(review: &Value) -> Result<Request, Malformed> {
        Request::decode(review.to_string().as_bytes())
    }

    #[test]
    fn a_review_is_read() {
        let request = decode(&review()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(request.namespace, "shop");
        assert_eq!(request.user_info.username, "ann");
        assert!(request.stored().is_none());
        assert_eq!(request.object["metadata"]["name"], "db");
    }

    #[test]
    fn what_is_not_for_us_is_named_and_not_quoted() {
        const CANARY: &str = "hunter2";
        let with = |pointer: &str, value: Value| {
            let mut review = review();
            *review.pointer_mut(pointer).unwrap() = value;
            decode(&review).err().unwrap_or_else(|| panic!("{pointer} must be refused"))
        };
        for (pointer, expected) in [
            ("/apiVersion", Malformed::Version),
            ("/kind", Malformed::Version),
            ("/request/resource/group", Malformed::Resource),
            ("/request/resource/version", Malformed::Resource),
            ("/request/resource/resource", Malformed::Resource),
            ("/request", Malformed::Json),
            ("/request/userInfo", Malformed::Json),
        ] {
            let error = with(pointer, json!(CANARY));
            assert_eq!(error, expected, "{pointer}");
            assert!(!error.to_string().contains(CANARY));
        }
        for body in ["", "{", "null", "[]", "\"hunter2\"", &"[".repeat(10_000)] {
            assert_eq!(Request::decode(body.as_bytes()).err(), Some(Malformed::Json));
        }
        let mut status = review();
        status["request"]["subResource"] = json!("status");
        assert_eq!(decode(&status).err(), Some(Malformed::Resource));
    }

    #[test]
    fn a_body_of_many_parts_is_not_decoded() {
        let with = |value: Value| {
            let mut review = review();
            review["request"]["object"]["spec"] = json!({"value": value});
            decode(&review).err()
        };
        let nested =
            |count: usize| (0..count / 100).map(|_| (0..99).fold(json!([]), |list, _| json!([list]))).collect();
        assert_eq!(with(Value::Array(nested(MAX_PARTS))), Some(Malformed::TooMany));
        assert_eq!(with(Value::Array(nested(MAX_PARTS - 1000))), None);
        assert_eq!(with(json!(vec![1; MAX_PARTS])), Some(Malformed::TooMany));
        assert_eq!(with(Value::Array(vec![json!({"": 0}); MAX_PARTS / 2])), Some(Malformed::TooMany));
        // Of text, nothing counts.
        assert_eq!(with(json!("[{,\\\"".repeat(MAX_PARTS))), None);
    }

    #[test]
    fn answers_admit_patch_warn_or_refuse() {
        let request = decode(&review()).unwrap();
        let decoded = |answer: &Answer| -> Value { serde_json::from_slice(&answer.encode(&request)).unwrap() };
        let plain = decoded(&Answer::default());
        assert_eq!(plain["response"], json!({"uid": "1", "allowed": true}));
        let violation =
            Violation { path: "spec.value".to_owned(), message: "no".to_owned(), reason: FieldReason::TooLong };
        let refused = decoded(&Answer { refusal: Some(violation), ..Answer::default() });
        assert_eq!(refused["response"]["allowed"], false);
        assert_eq!(
            refused["response"]["status"],
            json!({
                "status": "Failure", "reason": "Invalid", "code": 422, "message": "spec.value: no",
                "details": {
                    "group": "managedsecrets.dev", "kind": "ManagedSecret", "name": "db",
                    "causes": [{"reason": "FieldValueTooLong", "field": "spec.value", "message": "no"}],
                },
            })
        );
        let patched = decoded(&Answer { replace: vec![("/spec/value", json!("x"))], ..Answer::default() });
        let patch = BASE64_STANDARD.decode(patched["response"]["patch"].as_str().unwrap()).unwrap();
        let patch: Value = serde_json::from_slice(&patch).unwrap();
        assert_eq!(patch, json!([{"op": "replace", "path": "/spec/value", "value": "x"}]));
    }
}
