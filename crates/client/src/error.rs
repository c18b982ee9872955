//! Why a call failed, without a word of what was sent.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use kube::core::Status;

/// Why a call about a Secret failed. Holds nothing of a body.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The API server answered no.
    #[error("{0}")]
    Refused(Refusal),
    /// No answer came.
    #[error("the API server could not be reached: {0}")]
    Unreachable(String),
    /// An answer came that is not what was asked for.
    #[error("the API server's answer does not have the expected shape")]
    Malformed,
    /// The request cannot be built, for instance because a path cannot hold the name.
    #[error("cannot build the request: {0}")]
    Request(String),
}

/// What the API server said no with. The server's own message is not kept: it can quote what was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Kubernetes' word for it, such as `Conflict`.
    pub reason: String,
    /// Who refused, and why.
    pub kind: RefusalKind,
    /// Paths of the fields at fault.
    pub fields: Vec<String>,
    /// How long to wait at least.
    pub retry_after: Option<Duration>,
}

/// Who refused, and why, as far as the answer tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RefusalKind {
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// A quota is used up.
    Quota,
    /// Our account lacks a permission.
    Rbac,
    /// An admission webhook or policy, with its name.
    Admission(String),
    /// Anything else; code and reason tell.
    Other,
}

impl CallError {
    pub(super) fn transport(error: impl Into<kube::Error>) -> Self {
        // The text of a transport error names hosts and system errors. Debug could hold bytes; Display does not.
        Self::Unreachable(error.into().to_string())
    }

    /// A request that could not be formed, by its error.
    pub fn request(error: impl fmt::Display) -> Self {
        Self::Request(error.to_string())
    }
}

impl Refusal {
    /// Judges an answer that is not a success.
    pub(super) fn read(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let (causes, seconds) =
            status.details.map(|details| (details.causes, u64::from(details.retry_after_seconds))).unwrap_or_default();
        let waits = [
            headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()),
            (seconds > 0).then_some(seconds),
        ];
        let reason_of_code = || code.canonical_reason().unwrap_or("unknown").to_owned();
        Self {
            code: code.as_u16(),
            kind: if causes.iter().any(|cause| cause.reason == "NamespaceTerminating") {
                RefusalKind::NamespaceTerminating
            } else {
                RefusalKind::of(code, &status.message)
            },
            reason: if is_word(&status.reason) { status.reason } else { reason_of_code() },
            fields: causes.into_iter().map(|cause| cause.field).filter(|field| !field.is_empty()).collect(),
            retry_after: waits.into_iter().flatten().max().map(Duration::from_secs),
        }
    }

    /// There is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Permission is denied.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }

    /// A precondition does not hold: a resourceVersion (409), or a uid (answered as 422 on `metadata.uid`).
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code == 409 || (self.code == 422 && self.fields.iter().any(|field| field == "metadata.uid"))
    }
}

impl RefusalKind {
    /// The server has no field for this: its messages, unchanged since 1.20, are all there is.
    fn of(code: StatusCode, message: &str) -> Self {
        if let Some(name) = name_after(message, "admission webhook \"", '"')
            .or_else(|| name_after(message, "ValidatingAdmissionPolicy '", '\''))
        {
            Self::Admission(name)
        } else if code != StatusCode::FORBIDDEN {
            Self::Other
        } else if message.contains("exceeded quota:") {
            Self::Quota
        } else if message.contains(" cannot ") && message.contains("in API group") {
            Self::Rbac
        } else {
            Self::Other
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API server refused: {} ({})", self.reason, self.code)?;
        match &self.kind {
            RefusalKind::NamespaceTerminating => f.write_str(": the namespace is being deleted")?,
            RefusalKind::Quota => f.write_str(": a quota is exceeded")?,
            RefusalKind::Rbac => f.write_str(": the operator lacks the permission")?,
            RefusalKind::Admission(name) => write!(f, ": refused by {name}")?,
            RefusalKind::Other => {}
        }
        if !self.fields.is_empty() {
            write!(f, ", fields: {}", self.fields.join(", "))?;
        }
        Ok(())
    }
}

/// The object name between `before` and `end`. What is no name might be a quotation, and is not repeated.
fn name_after(message: &str, before: &str, end: char) -> Option<String> {
    let (_, rest) = message.split_once(before)?;
    let (name, _) = rest.split_once(end)?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(is_name)).then(|| name.to_owned())
}

/// Reasons are words of ASCII letters; a proxy's page is not.
fn is_word(reason: &str) -> bool {
    !reason.is_empty() && reason.len() <= 64 && reason.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(code: u16, body: &serde_json::Value) -> Refusal {
        Refusal::read(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body.to_string().as_bytes())
    }

    #[test]
    fn the_servers_message_is_judged_and_forgotten() {
        let cases = [
            (
                403,
                "secrets \"db\" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=9, limited: \
                 secrets=9",
                RefusalKind::Quota,
            ),
            (
                403,
                "secrets \"db\" is forbidden: User \"u\" cannot patch resource \"secrets\" in API group \"\" in the \
                 namespace \"a\"",
                RefusalKind::Rbac,
            ),
            (
                403,
                "admission webhook \"vault.example.com\" denied the request: hunter2 is weak",
                RefusalKind::Admission("vault.example.com".to_owned()),
            ),
            (
                422,
                "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'no-secrets' with binding 'b' denied request: \
                 hunter2",
                RefusalKind::Admission("no-secrets".to_owned()),
            ),
            (422, "Secret \"db\" is invalid: data[.dockerconfigjson]: Invalid value: \"hunter2\"", RefusalKind::Other),
            (400, "admission webhook \"hunter2 <b>\" denied the request", RefusalKind::Other),
        ];
        for (code, message, kind) in cases {
            let refusal = read(code, &serde_json::json!({"message": message, "reason": "Forbidden", "code": code}));
            assert_eq!(refusal.kind, kind, "{message}");
            let shown = format!("{refusal} {refusal:?} {:?}", CallError::Refused(refusal.clone()));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn causes_and_fields_are_kept() {
        let refusal = read(
            403,
            &serde_json::json!({"reason": "Forbidden", "details": {"causes": [
                {"reason": "NamespaceTerminating", "message": "namespace a is being \
                 terminated", "field": "metadata.namespace"}]}}),
        );
        assert_eq!(refusal.kind, RefusalKind::NamespaceTerminating);
        assert_eq!(
            refusal.to_string(),
            "the API server refused: Forbidden (403): the namespace is being deleted, fields: metadata.namespace"
        );
        let uid = read(
            422,
            &serde_json::json!({"reason": "Invalid", "details": {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}}),
        );
        assert!(uid.is_conflict() && !uid.is_not_found());
        assert!(read(409, &serde_json::json!({"reason": "Conflict"})).is_conflict());
        assert!(!read(422, &serde_json::json!({"reason": "Invalid"})).is_conflict());
        assert!(read(404, &serde_json::json!({})).is_not_found());
    }

    #[test]
    fn a_page_that_is_no_status_is_not_repeated() {
        let refusal = Refusal::read(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>hunter2</html>");
        assert_eq!(refusal.to_string(), "the API server refused: Bad Gateway (502)");
        let odd = read(500, &serde_json::json!({"reason": "hunter2 is <b>weak</b>"}));
        assert_eq!(odd.reason, "Internal Server Error");
    }

    #[test]
    fn the_longer_wait_counts() {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::RETRY_AFTER, "3".parse().unwrap());
        let body = serde_json::json!({"reason": "TooManyRequests", "details": {"retryAfterSeconds": 7}}).to_string();
        let refusal = Refusal::read(StatusCode::TOO_MANY_REQUESTS, &headers, body.as_bytes());
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        let refusal = Refusal::read(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
    }
}
