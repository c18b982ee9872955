//! The value API: the permissions that the operator needs to serve it, a role for readers, and its APIService.
//!
//! While the server of an APIService does not answer, no namespace of the cluster finishes deleting. So the APIService comes
//! last, when its server exists, and only with `--value-api`. The operator completes it: with the certificates to trust, and
//! with an owner, the ClusterRole below, whose uid no manifest can know. Kubernetes then deletes the APIService with the
//! rest, in whatever order that happens.

use managed_secrets_api::{keys, value};
use serde_json::{Value, json};

use super::rbac::{API_GROUP, binding, role, service_account};
use super::webhooks::service_of_pods;
use super::{Options, metadata};

/// Role that lets a user read every value of the namespaces in which it is bound.
const READER_ROLE: &str = "managedsecret-value-reader";
/// Namespace in which the API server publishes how its front proxy authenticates.
const FRONT_PROXY_NAMESPACE: &str = "kube-system";
/// Role of Kubernetes itself that lets the server of an APIService read this.
const FRONT_PROXY_ROLE: &str = "extension-apiserver-authentication-reader";

/// What the operator needs to serve the API, and a role for readers.
///
/// The role for readers is part of no built-in role: a user of `view` or `edit` reads no value by it.
pub(super) fn permissions(options: &Options) -> Vec<Value> {
    let mut rules = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]);
    let name = options.cluster_object_name(value::CLUSTER_ROLE);
    if is_registered(options) {
        let own = [
            json!({
                "apiGroups": ["apiregistration.k8s.io"],
                "resources": ["apiservices"],
                "resourceNames": [value::API_SERVICE],
                "verbs": ["get", "list", "watch", "patch"],
            }),
            // Its uid makes it the owner.
            json!({"apiGroups": [API_GROUP], "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["get"]}),
        ];
        rules.as_array_mut().into_iter().for_each(|rules| rules.extend(own.clone()));
    }
    let account = service_account(options);
    let mut front_proxy = binding("Role", &name, Some(FRONT_PROXY_NAMESPACE), &account);
    front_proxy["roleRef"]["name"] = json!(FRONT_PROXY_ROLE);
    let read = json!([{"apiGroups": [value::GROUP], "resources": [value::PLURAL], "verbs": [value::VERB]}]);
    vec![
        role("ClusterRole", &name, None, &rules),
        binding("ClusterRole", &name, None, &account),
        front_proxy,
        role("ClusterRole", READER_ROLE, None, &read),
    ]
}

/// What sends the API's requests to the operator: a Service, and the APIService that names it. Absent if the operator serves
/// some namespaces only: a cluster has one APIService of this name, and it is for all namespaces.
///
/// The Service also names pods that are not ready. A pod without a keyring is not ready, and it answers discovery: so a lost
/// keyring does not stop the deletion of namespaces.
pub(super) fn registration(options: &Options) -> Vec<Value> {
    if !is_registered(options) {
        return Vec::new();
    }
    let name = value::service_name(keys::OPERATOR_NAME);
    let mut service = service_of_pods(options, &name);
    service["spec"]["publishNotReadyAddresses"] = json!(true);
    vec![
        service,
        json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": metadata(value::API_SERVICE, None),
            "spec": {
                "group": value::GROUP,
                "version": value::VERSION,
                // The lowest of what Kubernetes recommends: no name of ours is to hide another's.
                "groupPriorityMinimum": 1000,
                "versionPriority": 15,
                "service": {"name": name, "namespace": options.operator_namespace, "port": 443},
            },
        }),
    ]
}

fn is_registered(options: &Options) -> bool {
    options.value_api && options.namespaces.is_empty()
}
