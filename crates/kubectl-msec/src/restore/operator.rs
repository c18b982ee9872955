//! Whether the operator is available to deliver what was restored. The command looks if no status shows it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use managed_secrets_api::keys::{OPERATOR_NAME, PUBLIC_KEY_CONFIGMAP};
use managed_secrets_cli::permission::Permission;

use crate::operator::{Replicas, logs_of, scale_up_of};
use crate::session::Session;

/// What is known of the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Operator {
    /// It delivered something after this restore had written it.
    Proven,
    /// Its Deployment reports an available replica, and since when, if it says so. A replica that crashes again and again is
    /// available in between.
    Available(Option<Timestamp>),
    /// It is not available: why, and what to check.
    Unavailable {
        /// Why.
        why: String,
        /// The command that tells more, or starts it.
        check: String,
    },
    /// Nothing says whether it runs, and why.
    Unknown(String),
}

/// Looks at its Deployment, and at the key that it publishes once it has opened its keyring.
pub(super) async fn look(session: &Session, own: &str) -> Operator {
    let deployments = Api::<Deployment>::namespaced(session.client.clone(), own);
    let deployment = match deployments.get_opt(OPERATOR_NAME).await {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return Operator::Unknown(format!("Deployment {own}/{OPERATOR_NAME} not found")),
        Err(error) => {
            let permission = Permission::to("get", "deployments.apps").named(OPERATOR_NAME).within(own);
            return Operator::Unknown(permission.explain("cannot read its Deployment", &error).to_string());
        }
    };
    let status = deployment.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    if observed.is_some_and(|observed| Some(observed) < deployment.metadata.generation) {
        return Operator::Unknown(format!("the status of its Deployment {own}/{OPERATOR_NAME} is older than its spec"));
    }
    let replicas = Replicas::of(&deployment);
    let Some(problem) = replicas.problem() else {
        let mut conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default().iter();
        let available =
            conditions.find(|it| it.type_.as_deref() == Some("Available") && it.status.as_deref() == Some("True"));
        let since = available.and_then(|condition| condition.last_transition_time.as_ref());
        return Operator::Available(since.map(|time| time.0));
    };
    let published = Api::<ConfigMap>::namespaced(session.client.clone(), own);
    let never_started = matches!(published.get_metadata_opt(PUBLIC_KEY_CONFIGMAP).await, Ok(None));
    let why = format!("{problem}{}", if never_started { ", and it has not published its key yet" } else { "" });
    let check = if replicas.wanted == 0 { scale_up_of(own) } else { logs_of(own) };
    Operator::Unavailable { why, check }
}

impl Operator {
    /// What to say where `unready`, such as "2 secrets are", wait to be delivered.
    pub(super) fn of_waiting(&self, unready: &str) -> String {
        const AGAIN: &str = "If you run the same command again, it waits and writes nothing";
        match self {
            Self::Unavailable { why, check } => format!(
                "{unready} restored, but not delivered yet: the operator is not available: {why}; check `{check}`. \
                 {AGAIN}"
            ),
            Self::Unknown(why) => format!(
                "{unready} restored, but not delivered yet. It is unknown whether the operator runs: {why}. {AGAIN}"
            ),
            Self::Proven | Self::Available(_) => {
                format!("{unready} restored, but not delivered yet; `kubectl msec doctor` looks for the cause. {AGAIN}")
            }
        }
    }

    /// The error if nothing waits, but every status is older than this restore.
    pub(super) fn of_old_status(&self) -> Option<String> {
        match self {
            Self::Unavailable { why, check } => Some(format!(
                "the operator is not available: {why}. What it delivered before stays, and nothing new is delivered; \
                 check `{check}`"
            )),
            Self::Proven | Self::Available(_) | Self::Unknown(_) => None,
        }
    }

    /// The note if nothing is wrong, but no status shows that the operator runs.
    pub(super) fn note(&self) -> Option<String> {
        const OLD: &str = "every status is older than this restore, so none shows that the operator runs";
        match self {
            Self::Proven | Self::Unavailable { .. } => None,
            Self::Available(since) => {
                let since = since.map_or_else(String::new, |since| format!(", since {since}"));
                Some(format!("{OLD}; its Deployment reports an available replica{since}"))
            }
            Self::Unknown(why) => Some(format!("{OLD}, and it is unknown whether it runs: {why}")),
        }
    }
}
