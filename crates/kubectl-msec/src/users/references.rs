//! Where an object of each kind can name a Secret. Pure: from an object as JSON to the ways in which it uses one.

use serde_json::Value;

/// The ways in which an object uses a Secret, such as `volume credentials`; empty if it does not.
pub(super) type Ways = Vec<String>;

/// A pod.
pub(super) fn of_pod(object: &Value, secret: &str) -> Ways {
    of_pod_spec(&object["spec"], secret)
}

/// A workload with a pod template, also with 0 replicas: Deployment, StatefulSet, DaemonSet and others.
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

/// A Gateway or a `ListenerSet`: certificates of its listeners, by the listener's name, and other references by their field.
/// It may be in another namespace than the Secret.
pub(super) fn of_gateway(object: &Value, namespace: &str, secret: &str) -> Ways {
    let own = text(&object["metadata"]["namespace"]);
    let is_it = |field: &str, reference: &Value| refers(field, reference, own, namespace, secret);
    let mut ways: Ways = list(&object["spec"]["listeners"])
        .filter(|listener| !fields_that_refer(listener, "", &is_it).is_empty())
        .map(|listener| format!("listener {}", text(&listener["name"])))
        .collect();
    let parts = object["spec"].as_object().into_iter().flatten().filter(|(field, _)| *field != "listeners");
    ways.extend(parts.flat_map(|(field, part)| fields_that_refer(part, &format!("spec.{field}"), &is_it)));
    ways
}

/// A `BackendTLSPolicy`, which refers to objects of its own namespace.
pub(super) fn of_policy(object: &Value, secret: &str) -> Ways {
    fields_that_refer(&object["spec"], "spec", &|field, reference| refers(field, reference, "", "", secret))
}

/// Whether a reference of Gateway API is one to the Secret: `SecretObjectReference`, of which kind and group are optional, or
/// another reference with a kind. Without a namespace, it is one to the object's own namespace.
fn refers(field: &str, reference: &Value, own: &str, namespace: &str, secret: &str) -> bool {
    let is_secret = match text(&reference["kind"]) {
        "" => matches!(field, "certificateRefs" | "clientCertificateRef"),
        kind => kind == "Secret",
    };
    is_secret
        && text(&reference["group"]).is_empty()
        && reference["namespace"].as_str().unwrap_or(own) == namespace
        && text(&reference["name"]) == secret
}

/// Paths of the fields whose name ends in `Ref` or `Refs`, and that hold a matching reference. Gateway API names every
/// reference in this way, so fields of newer versions are found too.
fn fields_that_refer(value: &Value, path: &str, is_it: &dyn Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = format!("{path}.{field}");
                let is_reference = match value {
                    Value::Object(_) => field.ends_with("Ref") && is_it(field, value),
                    Value::Array(items) => field.ends_with("Refs") && items.iter().any(|item| is_it(field, item)),
                    _ => false,
                };
                if is_reference {
                    found.push(path);
                } else {
                    found.extend(fields_that_refer(value, &path, is_it));
                }
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(|item| fields_that_refer(item, path, is_it))),
        _ => {}
    }
    found
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

/// The items of a list; empty if there is no list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text; empty if it is missing. No name of a Kubernetes object is empty.
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
        // Other controllers are not looked at.
        assert_eq!(of_job(&owned_by("Workflow"), "db"), OF_POD);
        assert_eq!(of_replica_set(&owned_by("Rollout"), "db"), OF_POD);
    }

    #[test]
    fn accounts_certificates_and_sources_are_found() {
        let account = json!({"imagePullSecrets": [{"name": "db"}], "secrets": [{"name": "other"}, {"name": "db"}]});
        assert_eq!(of_service_account(&account, "db"), ["image pulls", "its list of Secrets"]);
        let ingress = json!({"spec": {"tls": [{"hosts": ["a"], "secretName": "db"}]}});
        assert_eq!((of_ingress(&ingress, "db").len(), of_ingress(&ingress, "other").len()), (1, 0));
        let follower = json!({"spec": {"valueFrom": {"secretKeyRef": {"name": "db", "key": "value"}}}});
        assert_eq!(of_managed_secret(&follower, "db"), ["valueFrom"]);
    }

    #[test]
    fn references_of_gateways_are_found_in_each_namespace_and_field() {
        let gateway = |spec: Value| json!({"metadata": {"namespace": "edge"}, "spec": spec});
        let listener =
            |reference: Value| gateway(json!({"listeners": [{"name": "l", "tls": {"certificateRefs": [reference]}}]}));
        for (reference, in_edge, in_shop) in [
            (json!({"name": "db"}), true, false),
            (json!({"name": "db", "kind": "Secret", "group": ""}), true, false),
            (json!({"name": "db", "namespace": "edge"}), true, false),
            (json!({"name": "db", "namespace": "shop"}), false, true),
            (json!({"name": "db", "kind": "ConfigMap"}), false, false),
            (json!({"name": "db", "kind": "Secret", "group": "example.com"}), false, false),
            (json!({"name": "other"}), false, false),
        ] {
            let ways = |used: bool| if used { vec!["listener l".to_owned()] } else { Vec::new() };
            let gateway = listener(reference);
            assert_eq!(of_gateway(&gateway, "edge", "db"), ways(in_edge), "{gateway}");
            assert_eq!(of_gateway(&gateway, "shop", "db"), ways(in_shop), "{gateway}");
        }
        let secret = json!({"name": "db", "namespace": "shop", "kind": "Secret", "group": ""});
        let client = json!({"name": "db", "namespace": "shop"});
        for (spec, way) in [
            (json!({"tls": {"backend": {"clientCertificateRef": client}}}), "spec.tls.backend.clientCertificateRef"),
            (json!({"backendTLS": {"clientCertificateRef": client}}), "spec.backendTLS.clientCertificateRef"),
            (
                json!({"tls": {"frontend": {"perPort": [{"port": 443, "tls": {"validation": {"caCertificateRefs": [secret]}}}]}}}),
                "spec.tls.frontend.perPort.tls.validation.caCertificateRefs",
            ),
            (
                json!({"listeners": [{"name": "l", "tls": {"frontendValidation": {"caCertificateRefs": [secret]}}}]}),
                "listener l",
            ),
            (json!({"ofANewerVersion": {"someRef": secret}}), "spec.ofANewerVersion.someRef"),
        ] {
            assert_eq!(of_gateway(&gateway(spec.clone()), "shop", "db"), [way], "{spec}");
            assert_eq!(of_gateway(&gateway(spec), "edge", "db"), [""; 0]);
        }
        // The kind of these is no Secret where it is not written.
        let parent = gateway(json!({"parentRef": {"name": "db", "namespace": "shop"}}));
        assert_eq!(of_gateway(&parent, "shop", "db"), [""; 0]);
        let policy = json!({"spec": {"targetRefs": [{"kind": "Service", "name": "db", "group": ""}],
            "validation": {"caCertificateRefs": [{"kind": "Secret", "group": "", "name": "db"}]}}});
        assert_eq!(of_policy(&policy, "db"), ["spec.validation.caCertificateRefs"]);
        assert_eq!(of_policy(&policy, "other"), [""; 0]);
    }
}
