//! Whether the operator is there to deliver what was restored. Asked where no status shows it.

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
    /// Its Deployment has an available replica.
    Available,
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
        Ok(None) => return Operator::Unknown(format!("the Deployment {own}/{OPERATOR_NAME} is missing")),
        Err(error) => {
            let permission = Permission::to("get", "deployments.apps").named(OPERATOR_NAME).within(own);
            return Operator::Unknown(permission.explain("cannot read its Deployment", &error).to_string());
        }
    };
    let replicas = Replicas::of(&deployment);
    let Some(problem) = replicas.problem() else { return Operator::Available };
    let published = Api::<ConfigMap>::namespaced(session.client.clone(), own);
    let never_started = matches!(published.get_metadata_opt(PUBLIC_KEY_CONFIGMAP).await, Ok(None));
    let why = format!("{problem}{}", if never_started { ", and it has not published its key yet" } else { "" });
    let check = if replicas.wanted == 0 { scale_up_of(own) } else { logs_of(own) };
    Operator::Unavailable { why, check }
}

impl Operator {
    /// What to say where `unready`, such as "2 secrets are", wait to be delivered.
    pub(super) fn of_waiting(&self, unready: &str) -> String {
        const AGAIN: &str = "The same command, again, waits and writes nothing";
        match self {
            Self::Unavailable { why, check } => format!(
                "{unready} restored, but not delivered yet: the operator is not available: {why}; check `{check}`. \
                 {AGAIN}"
            ),
            Self::Unknown(why) => format!(
                "{unready} restored, but not delivered yet. Whether the operator runs is unknown: {why}. {AGAIN}"
            ),
            Self::Proven | Self::Available => {
                format!("{unready} restored, but not delivered yet; `kubectl msec doctor` looks for the cause. {AGAIN}")
            }
        }
    }

    /// What to say where nothing waits, and every status is older than this restore.
    pub(super) fn of_old_status(&self) -> Option<String> {
        match self {
            Self::Unavailable { why, check } => Some(format!(
                "the operator is not available: {why}. What it delivered before stays, and nothing new is delivered; \
                 check `{check}`"
            )),
            Self::Proven | Self::Available | Self::Unknown(_) => None,
        }
    }
}
