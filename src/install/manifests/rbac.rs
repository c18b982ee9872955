//! Who may do what: the operator's permissions, and roles for people.
//!
//! The operator writes by server-side apply, which the API server authorizes as `patch` and, where it creates the
//! object, as `create` too. That `create` carries the object's name, unlike a POST, so it can be limited by
//! `resourceNames`.

use managed_secrets_api::{keys, restarts, types::WorkloadKind};
use serde_json::{Value, json};

use super::{Options, metadata, values};
use crate::admin::METRICS;

/// API group of roles and bindings.
pub(super) const API_GROUP: &str = "rbac.authorization.k8s.io";
/// Role of the operator in its own namespace: its keys, its public key, and the Lease of its replicas.
const KEYS_ROLE: &str = "managed-secrets-keys";
/// Role of the operator on its webhook configurations.
const WEBHOOKS_ROLE: &str = "managed-secrets-webhooks";
/// Role of the operator to ask who its callers are and what they may do.
const REVIEWS_ROLE: &str = "managed-secrets-reviews";
/// Role of those who scrape the metrics, if these require a token.
pub const METRICS_READER_ROLE: &str = "managed-secrets-metrics-reader";
/// Role of everyone who may seal a value: reading the public key.
const PUBLIC_KEY_ROLE: &str = "managed-secrets-sealing-key-reader";

/// Roles and bindings of the operator, then the roles for people.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    let mut objects = operator(options);
    objects.extend(own_namespace(options));
    if options.webhooks {
        objects.extend(webhooks(options));
    }
    if options.secure_metrics {
        objects.extend(reviews(options));
        objects.push(metrics_reader(options));
    }
    if options.value_api {
        objects.extend(values::permissions(options));
    }
    objects.extend(public_key(options));
    objects.extend(people());
    objects
}

/// What the operator needs where ManagedSecrets live: everywhere, or in the namespaces it is limited to.
fn operator(options: &Options) -> Vec<Value> {
    let mut rules = json!([
        {"apiGroups": [keys::GROUP], "resources": ["managedsecrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [keys::GROUP], "resources": ["managedsecrets/status"], "verbs": ["get", "patch"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["localsubjectaccessreviews"], "verbs": ["create"]},
    ]);
    if options.restarts {
        let plurals = WorkloadKind::ALL.map(WorkloadKind::plural);
        let restart = json!({"apiGroups": [restarts::GROUP], "resources": plurals, "verbs": ["get", "patch"]});
        rules.as_array_mut().into_iter().for_each(|rules| rules.push(restart.clone()));
    }
    let name = keys::OPERATOR_NAME;
    if options.namespaces.is_empty() {
        return vec![
            role("ClusterRole", name, None, &rules),
            binding("ClusterRole", name, None, &service_account(options)),
        ];
    }
    let in_namespace = |namespace: &String| {
        [role("Role", name, Some(namespace), &rules), binding("Role", name, Some(namespace), &service_account(options))]
    };
    options.namespaces.iter().flat_map(in_namespace).collect()
}

/// What the operator needs in its own namespace. The name of a KEK is derived from its key, so `create` on Secrets
/// cannot be limited by name here: the admission policy on the operator's own writes does that.
fn own_namespace(options: &Options) -> [Value; 2] {
    let mut config_maps = vec![keys::PUBLIC_KEY_CONFIGMAP];
    if options.secure_metrics {
        config_maps.push(keys::CA_CONFIGMAP);
    }
    let rules = json!([
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "patch"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": config_maps,
            "verbs": ["get", "list", "watch", "create", "patch"],
        },
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [keys::OPERATOR_NAME],
            "verbs": ["get", "list", "watch", "update"],
        },
        // A POST carries no name, so it cannot be limited to one.
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]);
    let namespace = Some(options.operator_namespace.as_str());
    [role("Role", KEYS_ROLE, namespace, &rules), binding("Role", KEYS_ROLE, namespace, &service_account(options))]
}

/// What the operator needs to tell the API server where its webhooks are: these two objects of the cluster, and no
/// other.
fn webhooks(options: &Options) -> [Value; 2] {
    let rule = |resource: &str, name: &str| {
        json!({
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": [resource],
            "resourceNames": [options.cluster_object_name(name)],
            "verbs": ["get", "list", "watch", "patch"],
        })
    };
    let rules = json!([
        rule("mutatingwebhookconfigurations", keys::SEAL_CONFIGURATION),
        rule("validatingwebhookconfigurations", keys::WARN_CONFIGURATION),
    ]);
    let name = options.cluster_object_name(WEBHOOKS_ROLE);
    [role("ClusterRole", &name, None, &rules), binding("ClusterRole", &name, None, &service_account(options))]
}

/// What the operator needs to check the token of a caller, and the caller's permission. The API server answers, and shows
/// nothing else. These reviews belong to no namespace.
fn reviews(options: &Options) -> [Value; 2] {
    let rules = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]);
    let name = options.cluster_object_name(REVIEWS_ROLE);
    [role("ClusterRole", &name, None, &rules), binding("ClusterRole", &name, None, &service_account(options))]
}

/// The role to bind to Prometheus' service account.
fn metrics_reader(options: &Options) -> Value {
    let rules = json!([{"nonResourceURLs": [METRICS], "verbs": ["get"]}]);
    role("ClusterRole", &options.cluster_object_name(METRICS_READER_ROLE), None, &rules)
}

/// Every authenticated user may read the public key, and so seal a value for this cluster.
fn public_key(options: &Options) -> [Value; 2] {
    let rules = json!([{
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [keys::PUBLIC_KEY_CONFIGMAP],
        "verbs": ["get"],
    }]);
    let everyone = json!({"kind": "Group", "apiGroup": API_GROUP, "name": "system:authenticated"});
    let namespace = Some(options.operator_namespace.as_str());
    [role("Role", PUBLIC_KEY_ROLE, namespace, &rules), binding("Role", PUBLIC_KEY_ROLE, namespace, &everyone)]
}

/// Roles for people, aggregated to the built-in ones.
///
/// `view` sees no Secrets, and sees none here: a stored ManagedSecret holds only sealed values. `edit` reads and writes
/// Secrets already, so it may edit what delivers them.
fn people() -> [Value; 2] {
    let rule = |verbs: &[&str]| json!([{"apiGroups": [keys::GROUP], "resources": ["managedsecrets"], "verbs": verbs}]);
    let viewer = rule(&["get", "list", "watch"]);
    let editor = rule(&["get", "list", "watch", "create", "update", "patch", "delete"]);
    [
        aggregated(role("ClusterRole", "managedsecret-viewer", None, &viewer), "view"),
        aggregated(role("ClusterRole", "managedsecret-editor", None, &editor), "edit"),
    ]
}

/// `edit` includes `view`, and `admin` includes `edit`, so naming the least of them is enough.
fn aggregated(mut role: Value, into: &str) -> Value {
    role["metadata"]["labels"][format!("{API_GROUP}/aggregate-to-{into}")] = json!("true");
    role
}

/// A role or cluster role.
pub(super) fn role(kind: &str, name: &str, namespace: Option<&str>, rules: &Value) -> Value {
    json!({
        "apiVersion": format!("{API_GROUP}/v1"),
        "kind": kind,
        "metadata": metadata(name, namespace),
        "rules": rules,
    })
}

/// A binding that bears the name of the role it binds.
pub(super) fn binding(role_kind: &str, name: &str, namespace: Option<&str>, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{API_GROUP}/v1"),
        "kind": format!("{role_kind}Binding"),
        "metadata": metadata(name, namespace),
        "roleRef": {"apiGroup": API_GROUP, "kind": role_kind, "name": name},
        "subjects": [subject],
    })
}

/// The operator as the subject of a binding.
pub(super) fn service_account(options: &Options) -> Value {
    json!({"kind": "ServiceAccount", "name": keys::OPERATOR_NAME, "namespace": options.operator_namespace})
}
