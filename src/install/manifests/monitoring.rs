//! How the Prometheus operator finds the replicas.

use serde_json::{Value, json};

use super::{
    Options, labels, metadata,
    workload::{ADMIN_PORT, ADMIN_PORT_NAME},
};

/// Name of the Service and of its `ServiceMonitor`.
const NAME: &str = "managed-secrets-metrics";
/// Label of that Service: the Service of the webhooks has all others.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The Service with the addresses of all replicas, and the `ServiceMonitor` that names it.
pub(super) fn objects(options: &Options) -> [Value; 2] {
    let mut metadata = metadata(NAME, Some(&options.operator_namespace));
    metadata["labels"][COMPONENT] = json!("metrics");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            // Prometheus connects to each replica, never to one of them.
            "clusterIP": "None",
            "selector": labels(),
            "ports": [{"name": "metrics", "port": ADMIN_PORT, "targetPort": ADMIN_PORT_NAME, "protocol": "TCP"}],
        },
    });
    let monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": metadata["labels"]},
            "endpoints": [{"port": "metrics"}],
        },
    });
    [service, monitor]
}
