//! Warnings about an object whose value the operator cannot deliver. Pure.
//!
//! In: the object, and what the operator's cache knows of the other objects in the namespace. Out: sentences that kubectl
//! and GitOps tools print. The webhook refuses nothing here: objects of one commit may come in any order, and a name that
//! is in use may become free a moment later.

use managed_secrets_api::{template, types::Delivery};
use managed_secrets_crypto::mss1::{Handling, Scope, Sealed};
use serde_json::Value;

use super::Operator;

/// Returns the warnings about `object` in `namespace`. `source_is_missing` says that the Secret of `spec.valueFrom` does
/// not exist, and that the caller may know it.
#[must_use]
pub(super) fn warnings(
    namespace: &str,
    object: &Value,
    operator: &dyn Operator,
    allow_cluster_scope: bool,
    source_is_missing: bool,
) -> Vec<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let Some(name) = text("/metadata/name") else { return Vec::new() };
    let mut warnings = Vec::new();
    if let Some((wanted, holder)) =
        text("/spec/name").and_then(|wanted| Some((wanted, operator.holder_of_name(namespace, wanted, name)?)))
    {
        warnings.push(format!("spec.name: the name {wanted} is in use by the {holder}; choose another name"));
    }
    let target = text("/spec/target/name").unwrap_or(name);
    if text("/spec/delivery") != Some("None")
        && let Some(holder) = operator.holder_of_target(namespace, target, name)
    {
        warnings
            .push(format!("spec.target: the Secret {target:?} belongs to the {holder}; choose another target.name"));
    }
    if source_is_missing && let Some(source) = source(object) {
        warnings.push(format!("spec.valueFrom: Secret {source:?} not found; create it"));
    }
    let template = object.pointer("/spec/target/template").and_then(Value::as_object).into_iter().flatten();
    let texts = template.filter_map(|(key, text)| Some((key.as_str(), text.as_str()?)));
    let plain = template::plain_credentials(texts);
    warnings.extend(plain.map(|key| format!("spec.target.template[{key}]: {}", template::PLAIN_CREDENTIAL)));
    let workloads = object.pointer("/spec/target/restart").and_then(Value::as_array);
    if workloads.is_some_and(|workloads| !workloads.is_empty()) && !operator.restarts() {
        let text = "spec.target.restart: has no effect, because the operator was installed without --restarts";
        warnings.push(text.to_owned());
    }
    if let Some(Ok(sealed)) = text("/spec/value").map(Sealed::parse) {
        if let Err(wrong) = sealed.fits(namespace, name) {
            warnings.push(format!("spec.value: {wrong}"));
        } else if *sealed.scope() == Scope::Cluster && !allow_cluster_scope {
            warnings.push(
                "spec.value: sealed with cluster scope, which this operator does not allow; seal it for this object"
                    .to_owned(),
            );
        }
        if super::seal::delivery(object) == Delivery::None && sealed.handling() == Handling::Deliverable {
            let text = "spec.value: sealed for delivery, so a user who may delete and create this object can have it \
                        delivered; seal it with --no-delivery";
            warnings.push(text.to_owned());
        }
    }
    warnings
}

/// The Secret that `spec.valueFrom` names.
#[must_use]
pub(super) fn source(object: &Value) -> Option<&str> {
    object.pointer("/spec/valueFrom/secretKeyRef/name")?.as_str()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::webhook::testing::{Alone, NAMESPACE, document, keyring, object, sealed, sealed_as, strict};

    fn said(spec: Value, held: &[&'static str], missing: bool) -> Vec<String> {
        let operator = Alone { held: held.to_vec(), ..Alone::new(keyring(&[document(1)])) };
        warnings(NAMESPACE, &object("db", spec), &operator, false, missing)
    }

    #[test]
    fn each_problem_has_a_warning() {
        let keyring = keyring(&[document(1)]);
        let from = json!({"name": "DB", "valueFrom": {"secretKeyRef": {"name": "up", "key": "k"}}});
        let misplaced = json!({"name": "DB", "value": sealed(&keyring, &strict("other"), "x")});
        let anywhere = json!({"name": "DB", "value": sealed(&keyring, &Scope::Cluster, "x")});
        for (spec, held, missing, expected) in [
            (
                json!({"name": "DB"}),
                "DB",
                false,
                "spec.name: the name DB is in use by the ManagedSecret \"other\"; choose another name",
            ),
            (
                json!({"name": "DB"}),
                "db",
                false,
                "spec.target: the Secret \"db\" belongs to the ManagedSecret \"other\"; choose another target.name",
            ),
            (
                json!({"name": "DB", "target": {"name": "t"}}),
                "t",
                false,
                "spec.target: the Secret \"t\" belongs to the ManagedSecret \"other\"; choose another target.name",
            ),
            (
                json!({"name": "DB", "target": {"restart": [{"kind": "Deployment", "name": "shop"}]}}),
                "",
                false,
                "spec.target.restart: has no effect, because the operator was installed without --restarts",
            ),
            (from, "", true, "spec.valueFrom: Secret \"up\" not found; create it"),
            (misplaced, "", false, "spec.value: sealed for shop/other, used in shop/db"),
            (
                anywhere,
                "",
                false,
                "spec.value: sealed with cluster scope, which this operator does not allow; seal it for this object",
            ),
            (
                json!({"name": "DB", "delivery": "None", "value": sealed(&keyring, &strict("db"), "x")}),
                "",
                false,
                "spec.value: sealed for delivery, so a user who may delete and create this object can have it delivered; \
                 seal it with --no-delivery",
            ),
            (
                json!({"name": "DB", "target": {"template": {"DB_PASSWORD": "hunter2", "user": "shop", "key": "$(value)"}}}),
                "",
                false,
                "spec.target.template[DB_PASSWORD]: does not use `value`, so this text is stored as plaintext and every \
                 user who may read the ManagedSecret can read it; if it is a credential, make it the value and write `$(value)`",
            ),
        ] {
            assert_eq!(said(spec, &[held], missing), [expected]);
        }
    }

    #[test]
    fn an_object_whose_value_can_be_delivered_has_no_warning() {
        let keyring = keyring(&[document(1)]);
        let fine = json!({"name": "DB", "value": sealed(&keyring, &strict("db"), "x")});
        assert_eq!(said(fine, &["OTHER", "other"], false), [""; 0]);
        let kept = sealed_as(Handling::Kept, &keyring, &strict("db"), "x");
        for delivery in ["None", "Secret"] {
            assert_eq!(said(json!({"name": "DB", "value": kept, "delivery": delivery}), &[], false), [""; 0]);
        }
        assert_eq!(said(json!({"name": "DB", "delivery": "None"}), &["db"], false), [""; 0]);
        assert_eq!(said(json!({"name": "DB", "value": "plain"}), &[], false), [""; 0]);
        let restarts = json!({"name": "DB", "target": {"restart": [{"kind": "Deployment", "name": "shop"}]}});
        assert_eq!(said(restarts, &["restarts"], false), [""; 0]);
        assert_eq!(said(json!(null), &["db", "DB"], true).len(), 1);
    }
}
