//! What runs: namespace, service account and Deployment.

use serde_json::{Value, json};

use super::{Options, labels, metadata};
use crate::api::keys;

/// User and group of the operator's process: "nonroot" of the distroless images.
const NONROOT: u32 = 65532;
/// Memory of the operator, request and limit alike: what it holds (stripped caches) is bounded, and a pod whose limit
/// exceeds its request is among the first that a full node kills.
const MEMORY: &str = "256Mi";

/// Where the container serves the webhooks; the default of `run --webhook-listen`.
const WEBHOOK_PORT: u16 = 8443;

/// The operator's namespace, under the strictest pod security standard.
pub(super) fn namespace(options: &Options) -> Value {
    let mut metadata = metadata(&options.operator_namespace, None);
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = json!("restricted");
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

/// The operator's identity. Its token is mounted by the Deployment alone, not by whatever else names the account.
pub(super) fn service_account(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
        "automountServiceAccountToken": false,
    })
}

/// One operator. `Recreate`, so that an upgrade stops the old one before it starts the new one.
pub(super) fn deployment(options: &Options) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels()},
            "template": {
                "metadata": {"labels": labels()},
                "spec": {
                    "serviceAccountName": keys::OPERATOR_NAME,
                    "automountServiceAccountToken": true,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": NONROOT,
                        "runAsGroup": NONROOT,
                        "fsGroup": NONROOT,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container(options)],
                },
            },
        },
    })
}

fn container(options: &Options) -> Value {
    json!({
        "name": keys::OPERATOR_NAME,
        "image": options.image,
        "args": arguments(options),
        "env": [{
            "name": "MANAGED_SECRETS_OPERATOR_NAMESPACE",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        }],
        "ports": [{"name": "webhooks", "containerPort": WEBHOOK_PORT, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": MEMORY}, "limits": {"memory": MEMORY}},
    })
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["run".to_owned(), "--log-format=json".to_owned()];
    arguments.extend(options.namespaces.iter().map(|namespace| format!("--namespace={namespace}")));
    arguments.extend(options.kek_file.iter().map(|path| format!("--kek-file={path}")));
    if !options.webhooks {
        arguments.push("--webhook-listen=off".to_owned());
    }
    if options.allow_cluster_scope {
        arguments.push("--allow-cluster-scope".to_owned());
    }
    arguments
}
