//! What went wrong with a call, reduced to what may be shown and what follows from it.
//!
//! In: an error of the client. Out: a [`Failure`]. From a refused write of a Secret only reason, code and field paths
//! are taken: the server's message can contain part of the value (seen with a malformed dockerconfigjson).

use std::time::Duration;

use managed_secrets_api::Reason;
use managed_secrets_client::{CallError, Refusal, RefusalKind};

use super::plan::{Problem, Verdict};

/// Kubernetes' words for a request that gets the same answer however often it is sent (metav1.StatusReason).
const UNACCEPTABLE: [&str; 5] =
    ["BadRequest", "MethodNotAllowed", "NotAcceptable", "RequestEntityTooLarge", "UnsupportedMediaType"];

/// Why a call failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The object is not the one, or not the version, that the call expected.
    #[error("the object was changed by another writer")]
    Conflict,
    /// There is no such object.
    #[error("object not found")]
    Absent,
    /// The namespace is being deleted.
    #[error("the namespace is being deleted")]
    Terminating,
    /// A quota is used up.
    #[error("a resource quota is used up")]
    Quota,
    /// The operator lacks a permission.
    #[error("permission denied: the operator may not {0}")]
    Forbidden(String),
    /// An admission policy or webhook refused; its name, where the answer has one.
    #[error("refused by {0}")]
    Refused(String),
    /// The object breaks a rule of the API server; the fields.
    #[error("the API server reports invalid fields: {0}")]
    Invalid(String),
    /// The API server cannot read the request, or does not take one like it: the code, Kubernetes' word for it, and the
    /// fields where it names them.
    #[error("the API server does not accept the request: {0}")]
    BadRequest(String),
    /// The server did not answer, or not usefully; perhaps after that time.
    #[error("the API server is not available: {what}")]
    Unavailable {
        /// Kind of failure or status code.
        what: String,
        /// The server's Retry-After.
        retry_after: Option<Duration>,
    },
    /// The operating system gave no randomness, or a cipher refused.
    #[error("{0}")]
    Crypto(String),
    /// A KMS plugin has not answered for so long that nothing new is encrypted.
    #[error("{0}")]
    Kms(String),
}

impl Failure {
    /// Reads why a call failed. `doing` says what was tried, in the words of RBAC.
    #[must_use]
    pub fn of(error: CallError, doing: &str) -> Self {
        let unavailable = |what: &str| Self::Unavailable { what: what.to_owned(), retry_after: None };
        match error {
            CallError::Refused(refusal) => Self::of_refusal(refusal, doing),
            // Texts of lower layers name hosts and ports: enough for a log line, too much for a status.
            CallError::Unreachable(_) => unavailable("no answer"),
            CallError::Malformed => unavailable("the answer cannot be read"),
            CallError::Request(_) => Self::Invalid("the request".to_owned()),
        }
    }

    fn of_refusal(refusal: Refusal, doing: &str) -> Self {
        if refusal.is_not_found() {
            return Self::Absent;
        }
        if refusal.is_conflict() {
            return Self::Conflict;
        }
        match (refusal.kind, refusal.code) {
            (RefusalKind::NamespaceTerminating, _) => Self::Terminating,
            (RefusalKind::Quota, _) => Self::Quota,
            (RefusalKind::Admission(name), _) => Self::Refused(name),
            (RefusalKind::Rbac, _) | (RefusalKind::Other, 401 | 403) => Self::Forbidden(doing.to_owned()),
            (RefusalKind::Other, 422) => {
                let mut fields = refusal.fields;
                fields.sort();
                fields.dedup();
                Self::Invalid(fields.join(", "))
            }
            // The word, not the code: a proxy's 400 says nothing about the object.
            (RefusalKind::Other, code) if UNACCEPTABLE.contains(&refusal.reason.as_str()) => {
                let fields: Vec<String> = refusal.fields.iter().map(|field| format!(", field {field}")).collect();
                Self::BadRequest(format!("{code} {}{}", refusal.reason, fields.concat()))
            }
            (RefusalKind::Other, code) => {
                Self::Unavailable { what: format!("{code} {}", refusal.reason), retry_after: refusal.retry_after }
            }
        }
    }

    /// Names the Secret that the call was about, where the server did not answer: it may be the reason.
    #[must_use]
    pub fn about(self, secret: &str) -> Self {
        match self {
            Self::Unavailable { what, retry_after } => {
                Self::Unavailable { what: format!("{what} to a request for Secret {secret}"), retry_after }
            }
            failure => failure,
        }
    }

    /// What a pass that ends with this failure says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let reason = match self {
            Self::Conflict | Self::Absent | Self::Unavailable { .. } | Self::Crypto(_) => Reason::ApiUnavailable,
            Self::Kms(_) => Reason::KmsUnreachable,
            Self::Terminating => Reason::NamespaceTerminating,
            Self::Quota => Reason::QuotaExceeded,
            Self::Forbidden(_) => Reason::OperatorForbidden,
            Self::Refused(_) | Self::Invalid(_) | Self::BadRequest(_) => Reason::WriteRefused,
        };
        let problem = Problem::new(reason, self.to_string());
        match self {
            // The same request again gets the same answer.
            Self::BadRequest(_) => Verdict::Terminal(problem),
            _ => Verdict::Transient(problem),
        }
    }

    /// The server's Retry-After.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, kind: RefusalKind, fields: &[&str]) -> Failure {
        with_reason(code, "R", kind, fields)
    }

    fn with_reason(code: u16, reason: &str, kind: RefusalKind, fields: &[&str]) -> Failure {
        let refusal = Refusal {
            code,
            reason: reason.to_owned(),
            kind,
            fields: fields.iter().map(|&field| field.to_owned()).collect(),
            retry_after: Some(Duration::from_secs(7)),
        };
        Failure::of(CallError::Refused(refusal), "create secrets")
    }

    #[test]
    fn tells_refusals_apart() {
        assert_eq!(of(404, RefusalKind::Other, &[]), Failure::Absent);
        assert_eq!(of(409, RefusalKind::Other, &[]), Failure::Conflict);
        assert_eq!(of(422, RefusalKind::Other, &["metadata.uid"]), Failure::Conflict);
        assert_eq!(of(403, RefusalKind::NamespaceTerminating, &[]), Failure::Terminating);
        assert_eq!(of(403, RefusalKind::Quota, &[]), Failure::Quota);
        assert_eq!(of(403, RefusalKind::Rbac, &[]), Failure::Forbidden("create secrets".into()));
        assert_eq!(of(400, RefusalKind::Admission("gate".into()), &[]), Failure::Refused("gate".into()));
        assert_eq!(of(422, RefusalKind::Other, &["type", "data", "type"]), Failure::Invalid("data, type".into()));
        let bad = with_reason(400, "BadRequest", RefusalKind::Other, &["data"]);
        assert_eq!(bad, Failure::BadRequest("400 BadRequest, field data".into()));
        assert!(matches!(bad.verdict(), Verdict::Terminal(problem) if problem.reason == Reason::WriteRefused));
        assert!(matches!(with_reason(400, "Bad Request", RefusalKind::Other, &[]), Failure::Unavailable { .. }));
        assert_eq!(of(429, RefusalKind::Other, &[]).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(of(403, RefusalKind::Quota, &[]).retry_after(), None);
    }
}
