//! The values of the chart: one table, from which `values.yaml`, its schema and the table of the chart's page are written.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use managed_secrets_cli::{CliError, yaml};
use serde_json::{Map, Value, json};

use managed_secrets::{
    install::manifests::{DEFAULT_PRIORITY_CLASS, GENERATED, PolicySwitch},
    webhook::server::{DRAIN_SECONDS, MAX_DRAIN_SECONDS},
};

use super::{default_repository, value_of};

/// What the chart takes over from the default installation.
pub(super) struct Defaults {
    /// Requests and limits of the operator's container.
    pub(super) resources: Value,
    /// How many operators run.
    pub(super) replicas: Value,
    /// The flags of `managed-secrets run` that values of their own set.
    pub(super) flags: Vec<String>,
}

/// One value.
struct Entry {
    /// Its keys, joined by dots.
    path: String,
    default: Value,
    /// JSON schema, without default and description.
    schema: Value,
    /// One or more sentences.
    help: String,
}

fn entry(path: &str, default: Value, schema: Value, help: &str) -> Entry {
    Entry { path: path.to_owned(), default, schema, help: help.to_owned() }
}

/// The label by which the Deployment and the Services select the pods.
const SELECTED: &str = "app.kubernetes.io/name";

/// The labels of the `ServiceMonitor` and the `PrometheusRule`, with those of `templates/_helpers.tpl`.
const OF_MONITORING: [&str; 6] = [
    SELECTED,
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// A name of a namespace (RFC 1123).
const NAMESPACE: &str = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";

/// Every value, in the order of `values.yaml`. Values of one group are neighbours.
fn table(defaults: &Defaults) -> Vec<Entry> {
    [replicas(defaults), operator(), keys(), policies(), pods(defaults), cluster()].into_iter().flatten().collect()
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn texts() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

/// Labels that stand beside these in an object: YAML does not permit a key twice. With `propertyNames`, Helm names another
/// value in its message.
fn labels_besides(own: &[&str]) -> Value {
    let mut labels = texts();
    labels["properties"] = own.iter().map(|key| ((*key).to_owned(), json!(false))).collect::<Map<_, _>>().into();
    labels
}

fn objects() -> Value {
    json!({"type": "array", "items": {"type": "object"}})
}

/// What runs, and how often.
fn replicas(defaults: &Defaults) -> Vec<Entry> {
    vec![
        entry(
            "image.repository",
            json!(default_repository()),
            json!({"type": "string", "minLength": 1}),
            "Where you pushed the operator's image, without a tag. No image is published yet.",
        ),
        entry("image.tag", json!(""), text(), "Tag of the image. If it is empty, the chart's appVersion."),
        entry(
            "image.digest",
            json!(""),
            json!({"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}),
            "Digest of the image, such as sha256:…. It takes precedence over the tag.",
        ),
        entry(
            "image.pullPolicy",
            json!(""),
            json!({"type": "string", "enum": ["", "Always", "IfNotPresent", "Never"]}),
            "When nodes pull the image. If it is empty, Kubernetes decides.",
        ),
        entry(
            "imagePullSecrets",
            json!([]),
            json!({"type": "array", "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "additionalProperties": false,
            }}),
            "Secrets with credentials for the registry, such as [{name: registry}].",
        ),
        entry(
            "replicas",
            defaults.replicas.clone(),
            json!({"type": "integer", "minimum": 0}),
            "How many operators run. All of them serve the webhooks, and one of them reconciles.",
        ),
        entry(
            "highAvailability",
            json!(false),
            flag(),
            "Whether the pods spread evenly over nodes, strictly, and over zones, if possible. Use it with 3 replicas.",
        ),
    ]
}

/// What the operator does.
fn operator() -> Vec<Entry> {
    vec![
        entry(
            "namespaces",
            json!([]),
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string", "pattern": NAMESPACE}}),
            "Namespaces that the operator watches, with Roles in these namespaces only. They must exist. If the list is \
             empty, the operator watches the whole cluster.",
        ),
        entry(
            "webhooks.enabled",
            json!(true),
            flag(),
            "Whether the operator seals plain values when they are applied. Without the webhooks, users must seal values \
             first.",
        ),
        entry(
            "webhooks.drainSeconds",
            json!(DRAIN_SECONDS),
            json!({"type": "integer", "minimum": 0, "maximum": MAX_DRAIN_SECONDS}),
            "Seconds for which the webhooks and the value API continue to answer after a signal to stop, or after a request \
             that arrives later. The pods' grace period follows.",
        ),
        entry(
            "valueApi.enabled",
            json!(false),
            flag(),
            "Whether the operator serves the value API, by which values are read by name or id, and registers it with the API \
             server. With namespaces, it is not registered. docs/value-api.md says what it costs.",
        ),
        entry(
            "restarts.enabled",
            json!(false),
            flag(),
            "Whether the operator restarts the workloads that spec.target.restart names, and may get and patch Deployments, \
             StatefulSets and DaemonSets for that.",
        ),
        entry(
            "restorers",
            json!([]),
            // The names are in CEL texts.
            json!({"type": "array", "items": {"type": "string", "pattern": r"^[^'\\\x00-\x1f\x7f]+$"}}),
            "Users who may write records, keys and status, to restore a backup, such as \
             system:serviceaccount:velero:velero.",
        ),
        entry(
            "allowClusterScope",
            json!(false),
            flag(),
            "Whether the operator accepts sealed values of cluster scope: everyone who may create a ManagedSecret in some \
             namespace can have them opened.",
        ),
        entry(
            "openshift",
            json!(false),
            flag(),
            "Whether OpenShift chooses the ids of user and group, which it does for each namespace.",
        ),
        entry(
            "logFormat",
            json!("json"),
            json!({"type": "string", "enum": ["json", "human"]}),
            "Format of log lines: json or human.",
        ),
        entry(
            "logLevel",
            json!("info"),
            json!({"type": "string", "pattern": r"^[A-Za-z0-9_:=,]+$"}),
            "What is logged: error, warn, info, debug, trace, or a list such as info,managed_secrets::engine=debug.",
        ),
    ]
}

/// The keys of records and of sealed values, and what encrypts them.
fn keys() -> Vec<Entry> {
    vec![
        entry(
            "kekFile",
            json!(""),
            json!({"type": "string", "pattern": "^(/[A-Za-z0-9._/-]+)?$"}),
            "File with the key-encryption key, in a volume of extraVolumes. If it is empty, the key is in a Secret of the \
             release's namespace.",
        ),
        entry(
            "kms",
            json!([]),
            json!({"type": "array", "items": {
                "type": "object",
                "required": ["name", "socket"],
                "additionalProperties": false,
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
                    "socket": {"type": "string", "pattern": "^unix:///[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$"},
                },
            }}),
            "KMS v2 plugins that hold the key-encryption key, each with a name and the socket that it listens on, such as \
             unix:///run/kms/plugin.sock. The first one encrypts new keys. The folder of each socket is mounted from the node. \
             docs/keys.md explains them.",
        ),
        entry(
            "kekProvider",
            json!(""),
            json!({"type": "string", "enum": ["", "local", "file", "kms"]}),
            "Where the key-encryption key is that encrypts new keys: local, file or kms. If it is empty, the first KMS plugin, \
             else kekFile, else local.",
        ),
        entry(
            "recoveryRecipients",
            json!([]),
            json!({"type": "array", "items": {"type": "string", "pattern": "^msec-recipient-1\\.[A-Za-z0-9_-]+$"}}),
            "Recovery keys that every key of the keyring is sealed to, as kubectl msec recovery-key generate prints them. \
             docs/keys.md explains them.",
        ),
        entry(
            "keys.seedPeriod",
            json!(""),
            period(),
            "Age at which a new seed replaces the active one, such as 720h, or 0 to replace it on request only. If it is empty, \
             90 days.",
        ),
        entry(
            "keys.sealingKeyPeriod",
            json!(""),
            period(),
            "Age at which a new sealing key replaces the active one, such as 720h, or 0 to replace it on request only. If it is \
             empty, 30 days.",
        ),
        entry(
            "keys.sealingKeyRetain",
            json!(""),
            json!({"type": "string", "pattern": "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"}),
            "How long no sealed value in the cluster uses a sealing key until it is retired, such as 4320h. If it is empty, keys \
             are retired on request only.",
        ),
    ]
}

/// An age at which a key is replaced.
fn period() -> Value {
    json!({"type": "string", "pattern": "^(0|([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?)$"})
}

/// The admission policies.
fn policies() -> Vec<Entry> {
    let policy = |switch: PolicySwitch| {
        let help = switch.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        Entry {
            path: format!("policies.{}", value_of(switch)),
            default: json!(true),
            schema: flag(),
            help: format!("Admission policy: {}.", help.unwrap_or_default().trim_end_matches('.')),
        }
    };
    PolicySwitch::ALL.map(policy).into()
}

/// The operator's pods.
fn pods(defaults: &Defaults) -> Vec<Entry> {
    let object = || json!({"type": "object"});
    vec![
        entry(
            "extraArgs",
            json!([]),
            // The operator does not start with a flag that is given twice.
            json!({"type": "array", "items": {
                "type": "string",
                "not": {"pattern": format!("^--({})(=|$)", defaults.flags.join("|"))},
            }}),
            "More arguments of managed-secrets run. Flags that other values set are refused.",
        ),
        entry("extraEnv", json!([]), objects(), "More environment variables of the container."),
        entry("extraVolumes", json!([]), objects(), "Volumes of the pods."),
        entry("extraVolumeMounts", json!([]), objects(), "Where the container mounts them."),
        entry(
            "resources",
            defaults.resources.clone(),
            object(),
            "Requests and limits. docs/sizing.md says how much memory the operator needs for your objects.",
        ),
        entry("nodeSelector", json!({}), texts(), "Labels of the nodes that the pods may run on."),
        entry("tolerations", json!([]), objects(), "Taints of nodes that the pods tolerate."),
        entry("affinity", json!({}), object(), "Affinity of the pods. If it is empty, they prefer different nodes."),
        entry(
            "topologySpreadConstraints",
            json!([]),
            objects(),
            "How the pods spread over nodes and zones. It takes precedence over highAvailability.",
        ),
        entry(
            "priorityClassName",
            json!(DEFAULT_PRIORITY_CLASS),
            text(),
            "Priority class of the pods. Without an operator, the API server refuses plain values. If it is empty, the pods \
             have the cluster's default priority.",
        ),
        entry("podAnnotations", json!({}), texts(), "Annotations of the pods."),
        entry("podLabels", json!({}), labels_besides(&[SELECTED]), "More labels of the pods."),
    ]
}

/// The other objects of the installation.
fn cluster() -> Vec<Entry> {
    vec![
        entry(
            "networkPolicy.enabled",
            json!(true),
            flag(),
            "Whether a NetworkPolicy limits who may connect to the pods.",
        ),
        entry(
            "monitoring.serviceMonitor",
            json!(false),
            flag(),
            "Whether to install a ServiceMonitor, by which the Prometheus operator scrapes the pods. The cluster must have the \
             CustomResourceDefinitions of the Prometheus operator.",
        ),
        entry(
            "monitoring.secureMetrics",
            json!(false),
            flag(),
            "Whether the metrics require TLS and a token, on a port of their own. It needs webhooks.enabled, because it uses \
             their certificate.",
        ),
        entry(
            "monitoring.rules",
            json!(false),
            flag(),
            "Whether to install the alert rules of docs/runbook.md as a PrometheusRule.",
        ),
        entry(
            "monitoring.labels",
            json!({}),
            labels_besides(&OF_MONITORING),
            "More labels of the ServiceMonitor and the PrometheusRule. The Prometheus of kube-prometheus-stack selects only \
             objects with the label release, which is the name of its own Helm release.",
        ),
        entry(
            "serviceAccount.annotations",
            json!({}),
            texts(),
            "Annotations of the operator's service account, for example for the identity of a cloud provider.",
        ),
        entry(
            "crds.install",
            json!(true),
            flag(),
            "Whether the chart installs and upgrades the CustomResourceDefinition. helm uninstall always keeps it. If it is \
             deleted, Kubernetes deletes every ManagedSecret and every delivered Secret.",
        ),
        entry(
            "userRoles.install",
            json!(true),
            flag(),
            "Whether the chart installs the ClusterRoles managedsecret-viewer and managedsecret-editor, which extend the \
             roles view and edit, and managedsecret-value-reader with valueApi.enabled. All releases of a cluster share them.",
        ),
    ]
}

/// `values.yaml`, each value below its description.
pub(super) fn yaml(defaults: &Defaults) -> Result<String, CliError> {
    let mut page = GENERATED.to_owned();
    let mut group = None;
    for Entry { path, default, help, .. } in table(defaults) {
        let (of, key) = match path.split_once('.') {
            Some((of, key)) => (Some(of.to_owned()), key.to_owned()),
            None => (None, path),
        };
        if group != of || of.is_none() {
            page.push('\n');
        }
        if let Some(of) = of.as_ref().filter(|_| group != of) {
            let _ = writeln!(page, "{of}:");
        }
        let indent = if of.is_some() { "  " } else { "" };
        for line in wrapped(&help, 116) {
            let _ = writeln!(page, "{indent}# {line}");
        }
        for line in yaml::document(&json!({ key: default }))?.lines() {
            let _ = writeln!(page, "{indent}{line}");
        }
        group = of;
    }
    Ok(page)
}

/// `values.schema.json`. A value that the chart does not know is refused.
pub(super) fn schema(defaults: &Defaults) -> Result<String, CliError> {
    let mut properties = Map::new();
    for Entry { path, default, mut schema, help } in table(defaults) {
        schema["description"] = json!(help);
        schema["default"] = default;
        match path.split_once('.') {
            None => {
                properties.insert(path, schema);
            }
            Some((group, key)) => {
                let closed = || json!({"type": "object", "properties": {}, "additionalProperties": false});
                let group = properties.entry(group).or_insert_with(closed);
                group["properties"][key] = schema;
            }
        }
    }
    // Helm and charts that depend on this one set these.
    properties
        .insert("global".to_owned(), json!({"type": "object", "description": "Values that charts share; not used."}));
    let condition = "A condition for charts that depend on this one; not used.";
    properties.insert("enabled".to_owned(), json!({"type": "boolean", "description": condition}));
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": GENERATED.trim_start_matches("# ").trim_end(),
        "title": "Values of the chart managed-secrets",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        // As `managed-secrets manifests` has it.
        "if": {"properties": {"monitoring": {"properties": {"secureMetrics": {"const": true}}}}},
        "then": {"properties": {"webhooks": {"properties": {"enabled": {"const": true}}}}},
    });
    let text = serde_json::to_string_pretty(&schema);
    Ok(text.map_err(|error| CliError::failed("cannot print the schema", &error))? + "\n")
}

/// The chart's page.
pub(super) fn readme(defaults: &Defaults) -> String {
    let mut rows = String::from("| value | default | what it is |\n|---|---|---|\n");
    for Entry { path, default, help, .. } in table(defaults) {
        let _ = writeln!(rows, "| `{path}` | `{default}` | {} |", help.replace('|', "\\|"));
    }
    include_str!("readme.md").replace("<!-- values -->\n", &rows)
}

/// Words in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
