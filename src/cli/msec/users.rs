//! Which pods use a Secret, and how: volumes, variables, image pulls; of every kind of container.
//!
//! Pods that have ended use nothing any more. That nobody uses a Secret is known only if pods may be listed: otherwise
//! the answer is an error that names the right, never "none".

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec};
use kube::api::ListParams;
use serde_json::Value;

use super::session::Session;
use crate::cli::CliError;
use crate::cli::rights::Right;

/// A pod that uses the Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct User {
    /// Its name.
    pub(super) pod: String,
    /// In which ways, such as `volume credentials`.
    pub(super) ways: Vec<String>,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod/{} ({})", self.pod, self.ways.join(", "))
    }
}

/// Pods to a page of the list.
const PAGE: u32 = 500;

/// The pods of the namespace that use a Secret, by name.
pub(super) async fn of_secret(session: &Session, secret: &str) -> Result<Vec<User>, CliError> {
    let right = Right::to("list", "pods").within(&session.namespace);
    let mut params = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed").limit(PAGE);
    let mut users = Vec::new();
    loop {
        let page = session.api::<Pod>().list(&params).await;
        let page = page.map_err(|error| right.explain("cannot tell which pods use it", &error))?;
        users.extend(page.items.iter().filter_map(|pod| {
            let ways = ways(pod.spec.as_ref()?, secret);
            let pod = pod.metadata.name.clone()?;
            (!ways.is_empty()).then_some(User { pod, ways })
        }));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    users.sort_by(|one, other| one.pod.cmp(&other.pod));
    Ok(users)
}

/// In which ways a pod uses a Secret.
fn ways(pod: &PodSpec, secret: &str) -> Vec<String> {
    let mut ways = Vec::new();
    for volume in pod.volumes.iter().flatten() {
        let json = serde_json::to_value(volume).unwrap_or_default();
        if mentions(&json, secret) {
            ways.push(format!("volume {}", volume.name));
        }
    }
    let containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    for container in containers {
        variables(&mut ways, secret, &container.name, container.env.as_deref(), container.env_from.as_deref());
    }
    for container in pod.ephemeral_containers.iter().flatten() {
        variables(&mut ways, secret, &container.name, container.env.as_deref(), container.env_from.as_deref());
    }
    if pod.image_pull_secrets.iter().flatten().any(|reference| reference.name == secret) {
        ways.push("image pulls".to_owned());
    }
    ways
}

fn variables(
    ways: &mut Vec<String>,
    secret: &str,
    container: &str,
    env: Option<&[EnvVar]>,
    env_from: Option<&[EnvFromSource]>,
) {
    for variable in env.unwrap_or_default() {
        let source = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
        if source.is_some_and(|source| source.name == secret) {
            ways.push(format!("variable {} of container {container}", variable.name));
        }
    }
    let of_secret = |source: &EnvFromSource| source.secret_ref.as_ref().is_some_and(|it| it.name == secret);
    if env_from.unwrap_or_default().iter().any(of_secret) {
        ways.push(format!("variables of container {container}"));
    }
}

/// Whether a volume names the Secret, in whichever of its kinds: some two dozen of them may, all in one of these ways.
fn mentions(volume: &Value, secret: &str) -> bool {
    match volume {
        Value::Object(fields) => fields.iter().any(|(key, value)| match (key.as_str(), value) {
            ("secretName", Value::String(name)) => name == secret,
            ("secret" | "secretRef" | "nodePublishSecretRef", Value::Object(reference))
                if reference.get("name").and_then(Value::as_str) == Some(secret) =>
            {
                true
            }
            _ => mentions(value, secret),
        }),
        Value::Array(items) => items.iter().any(|item| mentions(item, secret)),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_of_using_a_secret_is_found() {
        let env = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "value"}}},
            {"name": "db", "value": "db"}]);
        let pod: PodSpec = serde_json::from_value(json!({
            "volumes": [
                {"name": "plain", "secret": {"secretName": "db"}},
                {"name": "joined", "projected": {"sources": [{"configMap": {"name": "db"}}, {"secret": {"name": "db"}}]}},
                {"name": "driver", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "db"}}},
                {"name": "share", "azureFile": {"secretName": "db", "shareName": "s"}},
                {"name": "other", "secret": {"secretName": "other"}},
                {"name": "db", "configMap": {"name": "db"}},
            ],
            "containers": [{"name": "app", "env": env}, {"name": "side", "envFrom": [{"secretRef": {"name": "db"}}]}],
            "initContainers": [{"name": "first", "env": env}],
            "ephemeralContainers": [{"name": "debug", "envFrom": [{"secretRef": {"name": "db"}}]}],
            "imagePullSecrets": [{"name": "db"}],
        }))
        .unwrap();
        assert_eq!(
            ways(&pod, "db"),
            [
                "volume plain",
                "volume joined",
                "volume driver",
                "volume share",
                "variable TOKEN of container first",
                "variable TOKEN of container app",
                "variables of container side",
                "variables of container debug",
                "image pulls",
            ]
        );
        assert_eq!(ways(&pod, "nothing"), [""; 0]);
    }
}
