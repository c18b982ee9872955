//! Who may connect to the operator's pods.
//!
//! Each policy limits ingress only. Egress stays open: the operator connects to the API server and to nothing else, and a
//! policy cannot name that.

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{Options, labels, metadata, monitoring, workload::WEBHOOK_PORT};

/// The policies on the operator's pods. Kubernetes allows what one of them allows.
///
/// * **Webhooks and value API**: every address may connect. The API server has the address of a machine, which no selector
///   matches and which an installation cannot know.
/// * **Probes and metrics**: no other pod may connect, or Prometheus alone. Kubelets need no rule: "traffic to and from
///   the node where a Pod is running is always allowed" (documentation of Kubernetes, Network Policies).
///
/// What Prometheus needs is an object of its own, like the rest of what `monitoring` adds.
pub(super) fn policies(options: &Options) -> Vec<Value> {
    if !options.network_policy {
        return Vec::new();
    }
    let to = |port: u16| json!([{"port": port, "protocol": "TCP"}]);
    let server = options.has_server().then(|| json!({"ports": to(WEBHOOK_PORT)}));
    let mut policies = vec![policy(&metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)), server)];
    if options.monitoring {
        let scrape = json!({"from": [prometheus()], "ports": to(monitoring::port(options).0)});
        policies.push(policy(&monitoring::metadata(options), Some(scrape)));
    }
    policies
}

/// A policy on all replicas that allows this and nothing else.
fn policy(metadata: &Value, rule: Option<Value>) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": labels()},
            "policyTypes": ["Ingress"],
            "ingress": Vec::from_iter(rule),
        },
    })
}

/// Pods of the Prometheus operator, in any namespace: it sets this label on each Prometheus.
fn prometheus() -> Value {
    json!({
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    })
}
