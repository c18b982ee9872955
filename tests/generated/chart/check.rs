//! What `helm test` runs: `managed-secrets check`, in a pod with the permission to create ManagedSecrets, and no other.

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{Guard, Node, Part, label};

/// Name of the pod and of what it needs.
const NAME: &str = "managed-secrets-check";
/// The namespace in which the pod asks to create a ManagedSecret: one that the operator watches.
const NAMESPACE: &str = r#"{{ include "managed-secrets.checkNamespace" . }}"#;

/// The objects. The pod is as restricted as the operator's own, whose settings it takes over.
pub(super) fn objects(installation: &mut [Part]) -> Option<Vec<Part>> {
    let deployment = installation.iter_mut().find_map(|object| {
        let is_deployment = matches!(object.node.at(&["kind"]), Some(Node::Text(kind)) if kind == "Deployment");
        is_deployment.then_some(&mut object.node)
    })?;
    let pod = deployment.parts(&["spec", "template", "spec"])?;
    let settings = ["imagePullSecrets", "nodeSelector", "securityContext", "tolerations"];
    let of_pod = taken(pod, &settings);
    let container = deployment.parts(&["spec", "template", "spec", "containers", "0"])?;
    let of_container = taken(container, &["image", "imagePullPolicy", "securityContext"]);

    let mut check = Node::of(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata("{{ .Release.Namespace }}", 0),
        "spec": {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": true,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            "containers": [{
                "name": "check",
                "args": ["check", format!("--namespace={NAMESPACE}")],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
            }],
        },
    }));
    let without_webhooks = Guard::If("not .Values.webhooks.enabled".to_owned());
    let flag = Part::added(vec![without_webhooks], None, Node::Text("--without-webhooks".to_owned()));
    check.parts(&["spec", "containers", "0", "args"])?.push(flag);
    check.parts(&["spec", "containers", "0"])?.extend(of_container);
    check.parts(&["spec"])?.extend(of_pod);
    for path in [&["spec", "containers", "0"][..], &["spec"]] {
        check.parts(path)?.sort_by(|a, b| a.key.cmp(&b.key));
    }

    let group = "rbac.authorization.k8s.io";
    let nodes = [
        Node::of(&json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata("{{ .Release.Namespace }}", -1),
            "automountServiceAccountToken": false,
        })),
        Node::of(&json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "Role",
            "metadata": metadata(NAMESPACE, -1),
            "rules": [{"apiGroups": [keys::GROUP], "resources": [keys::PLURAL], "verbs": ["create"]}],
        })),
        Node::of(&json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "RoleBinding",
            "metadata": metadata(NAMESPACE, -1),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": "{{ .Release.Namespace }}"}],
        })),
        check,
    ];
    Some(
        nodes
            .into_iter()
            .map(|mut node| {
                label(&mut node);
                Part::added(Vec::new(), None, node)
            })
            .collect(),
    )
}

fn taken(parts: &[Part], keys: &[&str]) -> Vec<Part> {
    parts.iter().filter(|part| part.key.as_deref().is_some_and(|key| keys.contains(&key))).cloned().collect()
}

/// `metadata` of a hook. What it needs is created before it, and deleted with it.
fn metadata(namespace: &str, weight: i8) -> Value {
    json!({
        "name": NAME,
        "namespace": namespace,
        // Not the operator's: its Service and its PodDisruptionBudget select pods by that.
        "labels": {"app.kubernetes.io/name": NAME},
        "annotations": {
            "helm.sh/hook": "test",
            "helm.sh/hook-weight": weight.to_string(),
            "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        },
    })
}
