//! How the Prometheus operator finds the replicas.

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{
    Options, labels,
    workload::{ADMIN_PORT, ADMIN_PORT_NAME, METRICS_PORT, METRICS_PORT_NAME},
};

/// Name of the Service, of its `ServiceMonitor`, and of the `NetworkPolicy` that lets Prometheus connect.
const NAME: &str = "managed-secrets-metrics";
/// Label of that Service: the Service of the webhooks has all others.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The token of Prometheus in its pod.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Returns number and name of the port that serves the metrics.
pub(super) fn port(options: &Options) -> (u16, &'static str) {
    if options.secure_metrics { (METRICS_PORT, METRICS_PORT_NAME) } else { (ADMIN_PORT, ADMIN_PORT_NAME) }
}

/// `metadata` of what Prometheus needs.
pub(super) fn metadata(options: &Options) -> Value {
    let mut metadata = super::metadata(NAME, Some(&options.operator_namespace));
    metadata["labels"][COMPONENT] = json!("metrics");
    metadata
}

/// The Service with the addresses of all replicas, and the `ServiceMonitor` that names it.
pub(super) fn objects(options: &Options) -> [Value; 2] {
    let (port, port_name) = port(options);
    let metadata = metadata(options);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            // Prometheus connects to each replica, never to one of them.
            "clusterIP": "None",
            "selector": labels(),
            "ports": [{"name": "metrics", "port": port, "targetPort": port_name, "protocol": "TCP"}],
        },
    });
    let mut endpoint = json!({"port": "metrics"});
    if options.secure_metrics {
        endpoint["scheme"] = json!("https");
        endpoint["bearerTokenFile"] = json!(TOKEN_FILE);
        endpoint["tlsConfig"] = json!({
            "ca": {"configMap": {"name": keys::CA_CONFIGMAP, "key": keys::CA_DATA_KEY}},
            // Prometheus connects to the address of a pod, which no certificate names.
            "serverName": format!("{}.{}.svc", keys::OPERATOR_NAME, options.operator_namespace),
        });
    }
    let monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": metadata["labels"]},
            "endpoints": [endpoint],
        },
    });
    [service, monitor]
}
