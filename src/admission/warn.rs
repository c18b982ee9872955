//! Warnings about an object that will not be served as it is. Pure.
//!
//! In: the object, and what the operator's cache knows of its neighbours. Out: sentences that kubectl and GitOps tools
//! print. Nothing is refused: objects of one commit may come in any order, and a taken name may be free a moment later.

use serde_json::Value;

use super::Operator;
use crate::crypto::mss1::{Scope, Sealed};

/// What is to be said of `object` in `namespace`. `source_is_missing` is whether the Secret of `spec.valueFrom` is known
/// not to exist, and the caller may know it.
#[must_use]
pub fn warnings(
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
        warnings.push(format!("spec.name: the name {wanted} is in use by the {holder}"));
    }
    let target = text("/spec/target/name").unwrap_or(name);
    if text("/spec/delivery") != Some("None")
        && let Some(holder) = operator.holder_of_target(namespace, target, name)
    {
        warnings.push(format!("spec.target: the Secret {target:?} belongs to the {holder}"));
    }
    if source_is_missing && let Some(source) = source(object) {
        warnings.push(format!("spec.valueFrom: there is no Secret {source:?}"));
    }
    if let Some(Ok(sealed)) = text("/spec/value").map(Sealed::parse) {
        if let Err(wrong) = sealed.fits(namespace, name) {
            warnings.push(format!("spec.value: {wrong}"));
        } else if *sealed.scope() == Scope::Cluster && !allow_cluster_scope {
            warnings.push("spec.value: sealed with cluster scope, which this operator does not allow".to_owned());
        }
    }
    warnings
}

/// The Secret that `spec.valueFrom` names.
#[must_use]
pub fn source(object: &Value) -> Option<&str> {
    object.pointer("/spec/valueFrom/secretKeyRef/name")?.as_str()
}
