//! Whether the operator is available, as its Deployment reports it.

use k8s_openapi::api::apps::v1::Deployment;
use managed_secrets_api::keys::OPERATOR_NAME;

/// Replicas of the operator's Deployment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Replicas {
    /// How many the spec asks for.
    pub(super) wanted: i32,
    /// How many pass their readiness probe, and have passed it for `minReadySeconds`.
    pub(super) available: i32,
}

impl Replicas {
    /// Those of a Deployment.
    pub(super) fn of(deployment: &Deployment) -> Self {
        // The API server sets 1 where a manifest sets nothing.
        let wanted = deployment.spec.replicas.unwrap_or(1);
        let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default();
        Self { wanted, available }
    }

    /// Why no operator is available, if none is.
    pub(super) fn problem(self) -> Option<String> {
        match self {
            Self { wanted: 0, .. } => Some("its Deployment has 0 replicas".to_owned()),
            Self { available: 0, wanted } => Some(format!("none of {wanted} replicas is available")),
            _ => None,
        }
    }
}

/// The arguments of the operator's Deployment.
pub(super) fn arguments(deployment: &Deployment) -> impl Iterator<Item = &str> {
    let pod = deployment.spec.template.spec.as_ref();
    let containers = pod.into_iter().flat_map(|pod| &pod.containers);
    containers.flat_map(|it| it.args.iter().flatten()).map(String::as_str)
}

/// What the operator's Deployment sets an environment variable to; `None` where the value comes from elsewhere.
pub(super) fn variables<'d>(deployment: &'d Deployment, name: &'static str) -> impl Iterator<Item = Option<&'d str>> {
    let pod = deployment.spec.template.spec.as_ref();
    let variables = pod.into_iter().flat_map(|pod| &pod.containers).flat_map(|it| it.env.iter().flatten());
    variables.filter(move |it| it.name == name).map(|it| it.value.as_deref())
}

/// Whether an argument of the operator's Deployment fits.
pub(super) fn has_argument(deployment: &Deployment, is_it: impl Fn(&str) -> bool) -> bool {
    arguments(deployment).any(is_it)
}

/// Whether the operator's Deployment sets an environment variable to a value that fits; `None` where it comes from elsewhere.
pub(super) fn has_variable(deployment: &Deployment, name: &'static str, is_it: impl Fn(Option<&str>) -> bool) -> bool {
    variables(deployment, name).any(is_it)
}

/// The command that shows why an operator in this namespace does not start.
pub(super) fn logs_of(namespace: &str) -> String {
    format!("kubectl -n {namespace} logs deployment/{OPERATOR_NAME}")
}

/// The command that starts an operator whose Deployment has 0 replicas.
pub(super) fn scale_up_of(namespace: &str) -> String {
    format!("kubectl -n {namespace} scale deployment/{OPERATOR_NAME} --replicas=1")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_operator_is_available_if_one_replica_is() {
        let of = |replicas: Value, available: Value| {
            let deployment = json!({
                "spec": {"replicas": replicas, "selector": {}, "template": {}},
                "status": {"availableReplicas": available},
            });
            Replicas::of(&serde_json::from_value(deployment).unwrap()).problem()
        };
        assert_eq!(of(json!(0), json!(1)).unwrap(), "its Deployment has 0 replicas");
        assert_eq!(of(Value::Null, Value::Null).unwrap(), "none of 1 replicas is available");
        assert_eq!(of(json!(2), json!(0)).unwrap(), "none of 2 replicas is available");
        assert_eq!(of(json!(2), json!(1)), None);
    }
}
