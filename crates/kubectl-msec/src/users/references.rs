//! Where an object of each kind can name a Secret. Pure: from an object as JSON to the ways in which it uses one.

use serde_json::Value;

/// The ways in which an object uses a Secret, such as `volume credentials`; none where it does not.
pub(super) type Ways = Vec<String>;

/// A pod.
pub(super) fn of_pod(object: &Value, secret: &str) -> Ways {
    of_pod_spec(&object["spec"], secret)
}

/// A workload with a pod template, whatever number of pods it wants: Deployment, StatefulSet, DaemonSet and others.
pub(super) fn of_template(object: &Value, secret: &str) -> Ways {
    of_pod_spec(&object["spec"]["template"]["spec"], secret)
}

/// A ReplicaSet that no Deployment controls: those of a Deployment are left to it.
pub(super) fn of_replica_set(object: &Value, secret: &str) -> Ways {
    if is_controlled_by(object, "Deployment") { Vec::new() } else { of_template(object, secret) }
}

/// A Job that has not ended and belongs to no CronJob.
pub(super) fn of_job(object: &Value, secret: &str) -> Ways {
    let has_ended = list(&object["status"]["conditions"]).any(|condition| {
        matches!(text(&condition["type"]), "Complete" | "Failed") && text(&condition["status"]) == "True"
    });
    if has_ended || is_controlled_by(object, "CronJob") { Vec::new() } else { of_template(object, secret) }
}

/// A CronJob, also while it is suspended or between two runs.
pub(super) fn of_cron_job(object: &Value, secret: &str) -> Ways {
    of_template(&object["spec"]["jobTemplate"], secret)
}

/// A service account: Secrets that its pods pull images with, or that it lists.
pub(super) fn of_service_account(object: &Value, secret: &str) -> Ways {
    let names = |field: &str| list(&object[field]).any(|reference| text(&reference["name"]) == secret);
    [("imagePullSecrets", "image pulls"), ("secrets", "its list of Secrets")]
        .into_iter()
        .filter(|(field, _)| names(field))
        .map(|(_, way)| way.to_owned())
        .collect()
}

/// An Ingress: certificates for TLS.
pub(super) fn of_ingress(object: &Value, secret: &str) -> Ways {
    let used = list(&object["spec"]["tls"]).any(|tls| text(&tls["secretName"]) == secret);
    if used { vec!["TLS".to_owned()] } else { Vec::new() }
}

/// A Gateway: certificates of its listeners. A reference without kind and group is one to a Secret, and one without
/// namespace stays in the Gateway's own (Gateway API, `SecretObjectReference`).
pub(super) fn of_gateway(object: &Value, secret: &str) -> Ways {
    let is_it = |reference: &Value| {
        matches!(text(&reference["kind"]), "" | "Secret")
            && text(&reference["group"]).is_empty()
            && (reference["namespace"].is_null() || reference["namespace"] == object["metadata"]["namespace"])
            && text(&reference["name"]) == secret
    };
    list(&object["spec"]["listeners"])
        .filter(|listener| list(&listener["tls"]["certificateRefs"]).any(is_it))
        .map(|listener| format!("listener {}", text(&listener["name"])))
        .collect()
}

/// A ManagedSecret that takes its value from the Secret.
pub(super) fn of_managed_secret(object: &Value, secret: &str) -> Ways {
    let used = text(&object["spec"]["valueFrom"]["secretKeyRef"]["name"]) == secret;
    if used { vec!["valueFrom".to_owned()] } else { Vec::new() }
}

fn is_controlled_by(object: &Value, kind: &str) -> bool {
    list(&object["metadata"]["ownerReferences"])
        .any(|owner| owner["controller"] == Value::Bool(true) && text(&owner["kind"]) == kind)
}

/// A pod's spec: volumes of every kind, variables of every kind of container, image pulls.
fn of_pod_spec(pod: &Value, secret: &str) -> Ways {
    let mut ways = Vec::new();
    for volume in list(&pod["volumes"]).filter(|volume| mentions(volume, secret)) {
        ways.push(format!("volume {}", text(&volume["name"])));
    }
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&pod[kind]) {
            variables(&mut ways, container, secret);
        }
    }
    if list(&pod["imagePullSecrets"]).any(|reference| text(&reference["name"]) == secret) {
        ways.push("image pulls".to_owned());
    }
    ways
}

fn variables(ways: &mut Ways, container: &Value, secret: &str) {
    let name = text(&container["name"]);
    for variable in list(&container["env"]) {
        if text(&variable["valueFrom"]["secretKeyRef"]["name"]) == secret {
            ways.push(format!("variable {} of container {name}", text(&variable["name"])));
        }
    }
    if list(&container["envFrom"]).any(|source| text(&source["secretRef"]["name"]) == secret) {
        ways.push(format!("variables of container {name}"));
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

/// The items of a list; none where there is no list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text; empty where there is none. No name of a Kubernetes object is empty.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_spec() -> Value {
        let env = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "value"}}},
            {"name": "db", "value": "db"}]);
        json!({
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
        })
    }

    const OF_POD: [&str; 9] = [
        "volume plain",
        "volume joined",
        "volume driver",
        "volume share",
        "variable TOKEN of container first",
        "variable TOKEN of container app",
        "variables of container side",
        "variables of container debug",
        "image pulls",
    ];

    #[test]
    fn every_way_of_a_pod_is_found_in_everything_that_makes_pods() {
        let pod = json!({"spec": pod_spec()});
        assert_eq!(of_pod(&pod, "db"), OF_POD);
        assert_eq!(of_pod(&pod, "unused"), [""; 0]);
        let deployment = json!({"spec": {"replicas": 0, "template": {"spec": pod_spec()}}});
        assert_eq!(of_template(&deployment, "db"), OF_POD);
        let cron_job = json!({"spec": {"suspend": true, "jobTemplate": deployment}});
        assert_eq!(of_cron_job(&cron_job, "db"), OF_POD);
        assert_eq!(of_job(&deployment, "db"), OF_POD);
    }

    #[test]
    fn what_has_ended_or_is_another_objects_does_not_count() {
        let job = |metadata: Value, conditions: Value| json!({"metadata": metadata, "spec": {"template": {"spec": pod_spec()}}, "status": {"conditions": conditions}});
        let complete = job(json!({}), json!([{"type": "Complete", "status": "True"}]));
        let running = job(json!({}), json!([{"type": "Complete", "status": "False"}]));
        let owned_by = |kind: &str| {
            job(json!({"ownerReferences": [{"controller": true, "kind": kind, "name": "nightly"}]}), json!([]))
        };
        assert_eq!(of_job(&complete, "db"), [""; 0]);
        assert_eq!(of_job(&running, "db"), OF_POD);
        assert_eq!(of_job(&owned_by("CronJob"), "db"), [""; 0]);
        assert_eq!(of_replica_set(&owned_by("Deployment"), "db"), [""; 0]);
        // What controls it otherwise is not looked at.
        assert_eq!(of_job(&owned_by("Workflow"), "db"), OF_POD);
        assert_eq!(of_replica_set(&owned_by("Rollout"), "db"), OF_POD);
    }

    #[test]
    fn accounts_certificates_and_sources_are_found() {
        let account = json!({"imagePullSecrets": [{"name": "db"}], "secrets": [{"name": "other"}, {"name": "db"}]});
        assert_eq!(of_service_account(&account, "db"), ["image pulls", "its list of Secrets"]);
        let ingress = json!({"spec": {"tls": [{"hosts": ["a"], "secretName": "db"}]}});
        assert_eq!((of_ingress(&ingress, "db").len(), of_ingress(&ingress, "other").len()), (1, 0));
        let listener = |reference: Value| {
            let listeners = json!([{"name": "l", "tls": {"certificateRefs": [reference]}}]);
            json!({"metadata": {"namespace": "shop"}, "spec": {"listeners": listeners}})
        };
        for used in [
            json!({"name": "db"}),
            json!({"name": "db", "kind": "Secret", "group": ""}),
            json!({"name": "db", "namespace": "shop"}),
        ] {
            assert_eq!(of_gateway(&listener(used), "db"), ["listener l"]);
        }
        for unused in [json!({"name": "db", "namespace": "other"}), json!({"name": "db", "kind": "ConfigMap"})] {
            assert_eq!(of_gateway(&listener(unused), "db"), [""; 0]);
        }
        let follower = json!({"spec": {"valueFrom": {"secretKeyRef": {"name": "db", "key": "value"}}}});
        assert_eq!(of_managed_secret(&follower, "db"), ["valueFrom"]);
    }
}
