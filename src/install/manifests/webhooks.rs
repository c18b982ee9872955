//! How the API server reaches the operator: the Service, and both webhook configurations.
//!
//! The operator fills in `clientConfig.caBundle` and the path, which is secret; until then, and while it is down, the
//! API server skips the webhooks (`failurePolicy: Ignore`), and the CRD's own rule refuses what was not sealed.
//! Conditions keep everything else away: what stands already, metadata, status and deletes never come here.

use managed_secrets_api::{keys, rules};
use serde_json::{Value, json};

use super::{Options, in_namespaces, labels, metadata};

/// Seconds that a plaintext apply waits for the operator. Kubernetes' own default: if no answer comes in time, the value is
/// refused, so a busy cluster is better served by a late answer.
const SEAL_TIMEOUT: u32 = 10;
/// Seconds that a create waits for warnings.
const WARN_TIMEOUT: u32 = 3;

/// The Service in front of the operator's pods: for the webhooks, and for callers of the value API that do not go through
/// the API server.
pub(super) fn service(options: &Options) -> Value {
    service_of_pods(options, keys::OPERATOR_NAME)
}

/// A Service of this name for the port of the operator's pods.
pub(super) fn service_of_pods(options: &Options, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, Some(&options.operator_namespace)),
        "spec": {
            "selector": labels(),
            "ports": [{"name": "webhooks", "port": 443, "targetPort": "webhooks", "protocol": "TCP"}],
        },
    })
}

/// Both configurations.
pub(super) fn configurations(options: &Options) -> [Value; 2] {
    [
        configuration(
            options,
            "MutatingWebhookConfiguration",
            keys::SEAL_CONFIGURATION,
            &json!({
                "name": keys::SEAL_WEBHOOK,
                "timeoutSeconds": SEAL_TIMEOUT,
                "reinvocationPolicy": "Never",
                "matchConditions": [{"name": "holds-plaintext", "expression": holds_plaintext()}],
            }),
        ),
        configuration(
            options,
            "ValidatingWebhookConfiguration",
            keys::WARN_CONFIGURATION,
            &json!({
                "name": keys::WARN_WEBHOOK,
                "timeoutSeconds": WARN_TIMEOUT,
                "matchConditions": [{"name": "is-new-or-moves", "expression": is_new_or_moves()}],
            }),
        ),
    ]
}

fn configuration(options: &Options, kind: &str, name: &str, differing: &Value) -> Value {
    let mut webhook = json!({
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {
            "name": keys::OPERATOR_NAME,
            "namespace": options.operator_namespace,
            "port": 443,
        }},
        "failurePolicy": "Ignore",
        "sideEffects": "None",
        "matchPolicy": "Equivalent",
        "rules": [{
            "apiGroups": [keys::GROUP],
            "apiVersions": [keys::VERSION],
            "operations": ["CREATE", "UPDATE"],
            "resources": [keys::PLURAL],
            "scope": "Namespaced",
        }],
    });
    if let Some(selector) = in_namespaces(&options.namespaces) {
        webhook["namespaceSelector"] = selector;
    }
    for (key, value) in differing.as_object().into_iter().flatten() {
        webhook[key] = value.clone();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": metadata(&options.cluster_object_name(name), None),
        "webhooks": [webhook],
    })
}

/// CEL: the value, or kubectl's copy of it, is not sealed. When an object moves from client-side to server-side apply,
/// kubectl writes the copy alone.
fn holds_plaintext() -> String {
    let (value, annotations, copy) = ("object.spec.value", "object.metadata.annotations", keys::LAST_APPLIED);
    format!(
        "has(object.spec) && has({value}) && !({})\n\
         || has({annotations}) && '{copy}' in {annotations}\n\
         && {}",
        rules::sealed_text_cel(value),
        rules::plaintext_in_json_cel(&format!("{annotations}['{copy}']")),
    )
}

/// CEL: its name or its target is new, so another object may have it; or its value is new, and may be sealed for
/// another object.
fn is_new_or_moves() -> &'static str {
    "oldObject == null\n\
     || object.spec.name != oldObject.spec.name\n\
     || object.spec.?delivery != oldObject.spec.?delivery\n\
     || object.spec.?target != oldObject.spec.?target\n\
     || has(object.spec.value) && object.spec.?value != oldObject.spec.?value"
}
