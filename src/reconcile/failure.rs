//! What went wrong with a call, reduced to what may be shown and what follows from it.
//!
//! In: an error of the client. Out: a [`Failure`]. From a refused write of a Secret only reason, code and field paths
//! are taken: the server's message can contain part of the value (seen with a malformed dockerconfigjson).

use std::time::Duration;

use kube::core::Status;

use super::{conditions::Verdict, world::Problem};
use crate::api::Reason;

/// Why a call failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The object is not the one, or not the version, that the call expected.
    #[error("the object has changed")]
    Conflict,
    /// There is no such object.
    #[error("the object does not exist")]
    Absent,
    /// The namespace is being deleted.
    #[error("the namespace is being deleted")]
    Terminating,
    /// A quota is used up.
    #[error("a resource quota is used up")]
    Quota,
    /// The operator lacks a right.
    #[error("the operator may not {0}")]
    Forbidden(String),
    /// Somebody's admission control refused; by its name where the answer has one.
    #[error("refused by {0}")]
    Refused(String),
    /// The object breaks a rule of the API server; the fields.
    #[error("the API server calls it invalid: {0}")]
    Invalid(String),
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
}

impl Failure {
    /// Reads an error of the client. `doing` says what was tried, in the words of RBAC.
    #[must_use]
    pub fn of(error: &kube::Error, doing: &str) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status, doing),
            // Neither bodies nor messages of lower layers: an error of decoding quotes what it read.
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::Unavailable { what: "the answer cannot be read".to_owned(), retry_after: None }
            }
            _ => Self::Unavailable { what: "no answer".to_owned(), retry_after: None },
        }
    }

    fn of_status(status: &Status, doing: &str) -> Self {
        let details = status.details.as_ref();
        let causes = || details.into_iter().flat_map(|details| &details.causes);
        let after = details.map_or(0, |details| details.retry_after_seconds);
        let retry_after = (after > 0).then(|| Duration::from_secs(after.into()));
        match status.code {
            404 => Self::Absent,
            409 => Self::Conflict,
            // A wrong uid is not a conflict but an invalid field to the API server.
            422 if causes().any(|cause| cause.field == "metadata.uid") => Self::Conflict,
            403 if causes().any(|cause| cause.reason == "NamespaceTerminating") => Self::Terminating,
            403 if status.message.contains("exceeded quota") => Self::Quota,
            400..=499 if admission(&status.message).is_some() => {
                Self::Refused(admission(&status.message).unwrap_or_default())
            }
            403 => Self::Forbidden(doing.to_owned()),
            422 => {
                let mut fields: Vec<String> =
                    causes().map(|cause| format!("{} ({})", cause.field, cause.reason)).collect();
                fields.sort();
                fields.dedup();
                Self::Invalid(fields.join(", "))
            }
            code => Self::Unavailable { what: format!("{code} {}", status.reason), retry_after },
        }
    }

    /// What a pass that ends with this failure says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let reason = match self {
            Self::Conflict | Self::Absent | Self::Unavailable { .. } | Self::Crypto(_) => Reason::ApiUnavailable,
            Self::Terminating => Reason::NamespaceTerminating,
            Self::Quota => Reason::QuotaExceeded,
            Self::Forbidden(_) => Reason::OperatorForbidden,
            Self::Refused(_) | Self::Invalid(_) => Reason::WriteRefused,
        };
        Verdict::Passing(Problem::new(reason, self.to_string()))
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

/// The name of the webhook or policy that refused, as the API server quotes it in its own part of the message.
fn admission(message: &str) -> Option<String> {
    let named = |marker: &str, quote: char, what: &str| {
        let rest = message.split_once(marker)?.1;
        Some(format!("{what} {}", rest.split_once(quote)?.0))
    };
    named("admission webhook \"", '"', "admission webhook")
        .or_else(|| named("ValidatingAdmissionPolicy '", '\'', "ValidatingAdmissionPolicy"))
        .or_else(|| message.contains("denied the request").then(|| "admission control".to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(code: u16, message: &str, causes: &serde_json::Value) -> Failure {
        let status: Status = serde_json::from_value(json!({
            "status": "Failure", "code": code, "message": message, "reason": "R", "details": {"causes": causes, "retryAfterSeconds": 7}
        }))
        .unwrap();
        Failure::of(&kube::Error::Api(Box::new(status)), "create secrets")
    }

    #[test]
    fn tells_refusals_apart_without_quoting_them() {
        let none = json!([]);
        assert_eq!(status(409, "x", &none), Failure::Conflict);
        assert_eq!(status(422, "x", &json!([{"field": "metadata.uid"}])), Failure::Conflict);
        assert_eq!(status(403, "x", &json!([{"reason": "NamespaceTerminating"}])), Failure::Terminating);
        assert_eq!(status(403, "secrets is forbidden: exceeded quota: q", &none), Failure::Quota);
        assert_eq!(status(403, "cannot create", &none), Failure::Forbidden("create secrets".into()));
        let webhook = status(403, "admission webhook \"gate.example\" denied the request: hunter2", &none);
        assert_eq!(webhook, Failure::Refused("admission webhook gate.example".into()));
        let policy =
            status(422, "forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: hunter2", &none);
        assert_eq!(policy, Failure::Refused("ValidatingAdmissionPolicy p".into()));
        let invalid = status(
            422,
            "data[.dockerconfigjson]: Invalid value: hunter2",
            &json!([{"field": "data[.dockerconfigjson]", "reason": "FieldValueInvalid", "message": "hunter2"}]),
        );
        assert_eq!(invalid, Failure::Invalid("data[.dockerconfigjson] (FieldValueInvalid)".into()));
        assert_eq!(status(429, "x", &none).retry_after(), Some(Duration::from_secs(7)));
        for failure in [webhook, policy, invalid] {
            assert!(!format!("{failure} {failure:?}").contains("hunter2"));
        }
    }
}
