//! The value API as its clients see it: whether the cluster has it, which permission it needs, and what it answers.

use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use managed_secrets_api::keys::OPERATOR_NAME;
use managed_secrets_api::value::{self, Handle, SecretValue};
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::{CallError, RefusalKind, call};
use serde::de::IgnoredAny;

use super::operator::{has_argument, has_variable};

/// The argument of the operator that switches the API on.
const FLAG: &str = "--value-api";
/// The variable that does the same, unless it is `false`.
const VARIABLE: &str = "MANAGED_SECRETS_VALUE_API";

/// How the API can be called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ValueApi {
    /// Through the API server, and directly.
    Registered,
    /// Through the operator's Service only.
    Direct,
    /// Perhaps through the operator's Service: the flags of the operator cannot be read.
    Unknown,
    /// The operator does not serve it.
    Off,
}

impl ValueApi {
    /// Asks the cluster. Without an APIService, callers may still reach the operator's Service.
    pub(super) async fn find(client: &Client, operator_namespace: &str) -> Result<Self, CallError> {
        if is_registered(client).await? {
            return Ok(Self::Registered);
        }
        let deployments = Api::<Deployment>::namespaced(client.clone(), operator_namespace);
        Ok(match deployments.get_opt(OPERATOR_NAME).await {
            Ok(Some(deployment)) if is_served(&deployment) => Self::Direct,
            Ok(Some(_)) => Self::Off,
            // The operator may run elsewhere, or the user may not know.
            Ok(None) | Err(_) => Self::Unknown,
        })
    }
}

/// Whether the operator's Deployment switches the API on.
pub(super) fn is_served(deployment: &Deployment) -> bool {
    has_argument(deployment, |argument| argument == FLAG)
        || has_variable(deployment, VARIABLE, |value| value != Some("false"))
}

/// Whether an APIService sends the API's group to a server. Every user may ask this, in most clusters; where the answer is
/// refused, the API is taken to be there.
pub(super) async fn is_registered(client: &Client) -> Result<bool, CallError> {
    let request = Request::get(format!("/apis/{}", value::GROUP)).body(Vec::new()).map_err(CallError::request)?;
    match call::<IgnoredAny>(client, request).await {
        Err(CallError::Refused(refusal)) if refusal.is_not_found() => Ok(false),
        Err(CallError::Unreachable(why)) => Err(CallError::Unreachable(why)),
        _ => Ok(true),
    }
}

/// The permission to read a value by a name or an id.
pub(super) fn permission<'a>(namespace: &'a str, handle: &'a str) -> Permission<'a> {
    Permission::to(value::VERB, value::RESOURCE).named(handle).within(namespace)
}

/// What the API answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// The value.
    Value(Box<SecretValue>),
    /// The user may not read it.
    Denied,
    /// There is no such secret, or no such version of its value.
    NotFound,
    /// No answer to this request, and why.
    Unavailable(String),
}

/// Reads a value, or one version of it.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    handle: Handle<'_>,
    version: Option<u64>,
) -> Result<Answer, CallError> {
    let Some(path) = value::path(namespace, handle) else { return Ok(Answer::NotFound) };
    let query = version.map_or_else(String::new, |version| format!("?{}={version}", value::VERSION_PARAMETER));
    let request = Request::get(path + &query).body(Vec::new()).map_err(CallError::request)?;
    let refusal = match call::<SecretValue>(client, request).await {
        Ok(found) if is_asked_for(&found, namespace, handle, version) => return Ok(Answer::Value(Box::new(found))),
        Ok(_) => return Ok(Answer::Unavailable("it answered for another secret".to_owned())),
        Err(CallError::Refused(refusal)) => refusal,
        Err(CallError::Malformed) => return Ok(Answer::Unavailable("its answer is not a value".to_owned())),
        Err(error) => return Err(error),
    };
    Ok(match refusal.code {
        403 if matches!(refusal.kind, RefusalKind::Rbac | RefusalKind::Other) => Answer::Denied,
        404 => Answer::NotFound,
        401 => Answer::Unavailable(
            "it does not trust the API server (HTTP 401); `kubectl msec doctor` shows which flags the API server lacks"
                .to_owned(),
        ),
        429 => Answer::Unavailable(match refusal.retry_after {
            Some(wait) => format!("too many requests; try again in {} s", wait.as_secs()),
            None => "too many requests; try again later".to_owned(),
        }),
        code => Answer::Unavailable(format!(
            "it does not answer (HTTP {code}, {}); `kubectl msec doctor` shows why",
            refusal.reason
        )),
    })
}

/// Whether an answer is about the secret that was asked for.
fn is_asked_for(found: &SecretValue, namespace: &str, handle: Handle<'_>, version: Option<u64>) -> bool {
    let named = match handle {
        Handle::Id(id) => found.status.id == id,
        Handle::Name(name) => found.status.name == name,
    };
    named && found.metadata.namespace == namespace && version.is_none_or(|version| version == found.status.version)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::value::{SecretValueStatus, ValueText};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_flag_or_a_variable_switches_the_api_on() {
        let of = |container: Value| -> bool {
            let pod = json!({"spec": {"containers": [container]}});
            is_served(&serde_json::from_value(json!({"spec": {"selector": {}, "template": pod}})).unwrap())
        };
        let variable = |value: Value| json!({"name": "operator", "env": [value]});
        assert!(of(json!({"name": "operator", "args": ["run", "--value-api"]})));
        assert!(of(variable(json!({"name": "MANAGED_SECRETS_VALUE_API", "value": "true"}))));
        assert!(of(variable(json!({"name": "MANAGED_SECRETS_VALUE_API", "valueFrom": {}}))));
        assert!(!of(variable(json!({"name": "MANAGED_SECRETS_VALUE_API", "value": "false"}))));
        assert!(!of(variable(json!({"name": "OTHER", "value": "true"}))));
        assert!(!of(json!({"name": "operator", "args": ["run"]})));
    }

    #[test]
    fn the_permission_is_said_as_kubectl_asks_for_it() {
        assert_eq!(
            permission("shop", "DB").to_string(),
            "kubectl auth can-i get secretvalues.values.managedsecrets.dev/DB -n shop"
        );
    }

    #[test]
    fn an_answer_about_another_secret_is_not_accepted() {
        let id = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";
        let date = "2026-11-23T08:00:00Z".to_owned();
        let status = SecretValueStatus {
            id: id.to_owned(),
            name: "DB".to_owned(),
            version: 3,
            updated_date: date.clone(),
            value_updated_time: date,
            value: ValueText::copy_of("hunter2"),
        };
        let found = SecretValue::new("shop", status);
        for (namespace, handle, version, expected) in [
            ("shop", Handle::Name("DB"), None, true),
            ("shop", Handle::Id(id), Some(3), true),
            ("shop", Handle::Name("OTHER"), None, false),
            ("prod", Handle::Name("DB"), None, false),
            ("shop", Handle::Id("other"), None, false),
            ("shop", Handle::Name("DB"), Some(2), false),
        ] {
            assert_eq!(
                is_asked_for(&found, namespace, handle, version),
                expected,
                "{namespace} {handle:?} {version:?}"
            );
        }
    }
}
