//! What runs: namespace and its quota, service account, Deployment and its `PodDisruptionBudget`.

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{KmsSocket, Options, labels, metadata};
use crate::{admin, args::POD_NAME, webhook::server::LONGEST_DRAIN_SECONDS};

/// User and group of the operator's process: "nonroot" of the distroless images.
const NONROOT: u32 = 65532;
/// Memory of the operator, request and limit alike: what it holds (stripped caches) is bounded, and a pod whose limit
/// exceeds its request is among the first that a full node kills.
const MEMORY: &str = "256Mi";

/// The port of the webhooks in the container; the default of `run --webhook-listen`.
pub(super) const WEBHOOK_PORT: u16 = 8443;
/// The port for probes and metrics in the container.
pub(super) const ADMIN_PORT: u16 = 8080;
/// The name of that port.
pub(super) const ADMIN_PORT_NAME: &str = "admin";
/// The port for metrics with TLS and a token in the container.
pub(super) const METRICS_PORT: u16 = 8444;
/// The name of that port.
pub(super) const METRICS_PORT_NAME: &str = "metrics";
/// How often the kubelet asks whether the operator has started, and whether it is ready; in seconds.
const SOON: u16 = 2;
/// How often the kubelet asks whether the operator works; in seconds.
const NOW_AND_THEN: u16 = 10;
/// How long a start may wait for the API server, the CRD and permissions until the kubelet restarts the container; in
/// seconds. A restart seldom helps then, so this is long.
const MAX_START: u16 = 900;

/// The operator's namespace, under the strictest pod security standard that its pods comply with: only the one that forbids
/// nothing allows a folder of the node.
pub(super) fn namespace(options: &Options) -> Value {
    let mut metadata = metadata(&options.operator_namespace, None);
    let standard = if options.kms.is_empty() { "restricted" } else { "privileged" };
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = json!(standard);
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

/// Permits pods of the system's priority classes in the operator's namespace.
///
/// Outside kube-system, some clusters (GKE, and those that configure the admission plugin `ResourceQuota` as in the
/// documentation of Kubernetes) admit such pods only in a namespace with a quota for their class. The number is no limit
/// that an installation reaches. In kube-system it would limit pods of others, and no cluster needs it there.
pub(super) fn quota(options: &Options) -> Option<Value> {
    let class = options.priority_class.as_ref().filter(|class| class.starts_with("system-"))?;
    (options.operator_namespace != KUBE_SYSTEM).then(|| {
        json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata("managed-secrets-critical-pods", Some(&options.operator_namespace)),
            "spec": {
                "hard": {"pods": "100"},
                "scopeSelector": {"matchExpressions": [{
                    "scopeName": "PriorityClass",
                    "operator": "In",
                    "values": [class],
                }]},
            },
        })
    })
}

/// The namespace of the cluster's own components.
const KUBE_SYSTEM: &str = "kube-system";

/// The operator's identity. Its token is mounted by the Deployment alone, not by whatever else names the account.
pub(super) fn service_account(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
        "automountServiceAccountToken": false,
    })
}

/// Seconds that the operator has from the signal to its end: its own time to finish what it began, and a margin. The
/// webhooks' drain comes on top.
const GRACE_SECONDS: u16 = 30;

/// Seconds for which a replica must be ready before it counts as available: kube-proxy and the API server usually learn of
/// a new endpoint within one or two seconds. "Successfully rolled out" then means that plain values are sealed, and an old
/// replica stops only when they reach the new one.
const MIN_READY_SECONDS: u16 = 3;

/// How the replicas are spread over nodes and zones.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Spread {
    /// On different nodes if possible.
    #[default]
    Preferred,
    /// Evenly over the nodes that pods can be scheduled to, or not at all; and over zones if possible.
    Required,
}

/// The operators. While one is replaced, the new one is ready before the old one stops, so no plain value is refused.
pub(super) fn deployment(options: &Options) -> Value {
    let mut pod = json!({
        "serviceAccountName": keys::OPERATOR_NAME,
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS + if options.has_server() { LONGEST_DRAIN_SECONDS } else { 0 },
        "affinity": apart(),
        "securityContext": security(options),
        "containers": [container(options)],
    });
    if let Some(class) = &options.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    if !options.kms.is_empty() {
        pod["volumes"] = volumes(options);
    }
    if options.spread == Spread::Required {
        pod["topologySpreadConstraints"] = evenly();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
        "spec": {
            "replicas": options.replicas,
            "minReadySeconds": MIN_READY_SECONDS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels()},
            "template": {"metadata": {"labels": labels()}, "spec": pod},
        },
    })
}

/// The folders of the plugins' sockets. A folder that does not exist is an error of the kubelet, which an event of the pod
/// says, rather than an empty one that a plugin would have to share.
fn volumes(options: &Options) -> Value {
    let volume = |kms: &KmsSocket| json!({"name": format!("kms-{}", kms.name), "hostPath": {"path": kms.folder, "type": "Directory"}});
    options.kms.iter().map(volume).collect()
}

/// Where the container has them. A process may connect to a socket in a folder that is read-only.
fn mounts(options: &Options) -> Value {
    let mount =
        |kms: &KmsSocket| json!({"name": format!("kms-{}", kms.name), "mountPath": kms.folder, "readOnly": true});
    options.kms.iter().map(mount).collect()
}

/// On different nodes, if there are any: a node that fails takes one operator with it.
fn apart() -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels()}},
    }]}})
}

/// Evenly over nodes, strictly, and over zones, if possible.
///
/// Only replicas of the same revision count, so that a rolling update ends as even as it began and never waits for a node
/// of its own. Nodes that take no pods, such as drained ones, do not count either: else no other node could take their
/// replicas.
fn evenly() -> Value {
    let constraint = |topology: &str, unsatisfiable: &str| {
        json!({
            "topologyKey": topology,
            "maxSkew": 1,
            "whenUnsatisfiable": unsatisfiable,
            "nodeTaintsPolicy": "Honor",
            "labelSelector": {"matchLabels": labels()},
            "matchLabelKeys": ["pod-template-hash"],
        })
    };
    json!([
        constraint("kubernetes.io/hostname", "DoNotSchedule"),
        constraint("topology.kubernetes.io/zone", "ScheduleAnyway"),
    ])
}

/// Nodes that are drained together take one operator at a time. With a single replica it still allows the drain.
pub(super) fn disruption_budget(options: &Options) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(keys::OPERATOR_NAME, Some(&options.operator_namespace)),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels()},
        },
    })
}

fn security(options: &Options) -> Value {
    let mut security = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    // OpenShift's restricted-v2 gives each namespace a range of ids, and refuses a pod that names another.
    if !options.openshift {
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            security[id] = json!(NONROOT);
        }
    }
    security
}

fn container(options: &Options) -> Value {
    let mut container = json!({
        "name": keys::OPERATOR_NAME,
        "image": options.image,
        "args": arguments(options),
        "env": [
            {
                "name": "MANAGED_SECRETS_OPERATOR_NAMESPACE",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
            },
            {"name": POD_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": MEMORY}, "limits": {"memory": MEMORY}},
    });
    let mut ports = vec![json!({"name": ADMIN_PORT_NAME, "containerPort": ADMIN_PORT, "protocol": "TCP"})];
    if options.has_server() {
        ports.push(json!({"name": "webhooks", "containerPort": WEBHOOK_PORT, "protocol": "TCP"}));
    }
    if options.secure_metrics {
        ports.push(json!({"name": METRICS_PORT_NAME, "containerPort": METRICS_PORT, "protocol": "TCP"}));
    }
    container["ports"] = json!(ports);
    if !options.kms.is_empty() {
        container["volumeMounts"] = mounts(options);
    }
    for (name, path, period, failures) in [
        ("startupProbe", admin::STARTED, SOON, MAX_START / SOON),
        ("livenessProbe", admin::LIVE, NOW_AND_THEN, 3),
        ("readinessProbe", admin::READY, SOON, 2),
    ] {
        container[name] = json!({
            "httpGet": {"path": path, "port": ADMIN_PORT_NAME},
            "periodSeconds": period,
            // On a node that is short of CPU, an answer may take longer than the second that Kubernetes waits otherwise.
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        });
    }
    container
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = ["run", "--log-format=json", "--leader-elect"].map(str::to_owned).to_vec();
    arguments.push(format!("--admin-listen=[::]:{ADMIN_PORT}"));
    if options.restarts {
        arguments.push("--restarts".to_owned());
    }
    arguments.extend(options.namespaces.iter().map(|namespace| format!("--namespace={namespace}")));
    arguments.extend(options.kek_file.iter().map(|path| format!("--kek-file={path}")));
    arguments.extend(options.kms.iter().map(|kms| format!("--kms={}={}", kms.name, kms.socket)));
    arguments.extend(options.kek_provider.iter().map(|provider| format!("--kek-provider={provider}")));
    arguments.extend(options.recovery_recipients.iter().map(|recipient| format!("--recovery-recipient={recipient}")));
    for (flag, period) in [
        ("seed-period", &options.seed_period),
        ("sealing-key-period", &options.sealing_key_period),
        ("sealing-key-retain", &options.sealing_key_retain),
    ] {
        arguments.extend(period.iter().map(|period| format!("--{flag}={period}")));
    }
    if !options.webhooks {
        arguments.push("--webhook-listen=off".to_owned());
    }
    if options.value_api {
        arguments.push("--value-api".to_owned());
    }
    if options.secure_metrics {
        arguments.push(format!("--metrics-listen=[::]:{METRICS_PORT}"));
    }
    if options.allow_cluster_scope {
        arguments.push("--allow-cluster-scope".to_owned());
    }
    arguments
}
