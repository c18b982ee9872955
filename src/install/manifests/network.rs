//! Who may connect to the operator's pods.

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{Options, labels, metadata, monitoring, workload::WEBHOOK_PORT};

/// The policy on the operator's pods. It limits ingress only.
///
/// * **Webhooks and value API**: every address may connect. The API server has the address of a machine, which no selector matches and
///   which an installation cannot know.
/// * **Probes and metrics**: no other pod may connect, or Prometheus alone. Kubelets need no rule: "traffic to and from
///   the node where a Pod is running is always allowed" (documentation of Kubernetes, Network Policies).
/// * **Egress** stays open, for the same reason: the operator connects to the API server and to nothing else, and a
///   policy cannot name that.
pub(super) fn policy(options: &Options) -> Option<Value> {
    let to = |port: u16| json!([{"port": port, "protocol": "TCP"}]);
    let mut ingress = Vec::new();
    if options.has_server() {
        ingress.push(json!({"ports": to(WEBHOOK_PORT)}));
    }
    if options.monitoring {
        ingress.push(json!({"from": [prometheus()], "ports": to(monitoring::port(options).0)}));
    }
    options.network_policy.then(|| {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
            "spec": {
                "podSelector": {"matchLabels": labels()},
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            },
        })
    })
}

/// Pods of the Prometheus operator, in any namespace: it sets this label on each Prometheus.
fn prometheus() -> Value {
    json!({
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    })
}
