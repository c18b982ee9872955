//! Tools keep the manifest they applied in an annotation: kubectl does, kapp does. Such a copy holds the value as it was
//! written, so it must be sealed there too.
//!
//! The sealing webhook does so in kubectl's annotation. This policy refuses what is left, in any annotation, and also
//! when the webhook is down. An object whose annotations stay as they are is not its business: finalizers and status
//! must always get through.

use super::{Options, Policy, Resource, Validation, concerned, keys};
use crate::api::rules;

pub(super) fn policy(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_PLAINTEXT_ANNOTATIONS,
        resource: Resource { group: keys::GROUP, name: keys::PLURAL, operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![(
            "annotates",
            "has(object.metadata.annotations)\n\
             && (oldObject == null || object.metadata.annotations != oldObject.metadata.?annotations.orValue({}))"
                .to_owned(),
        )],
        variables: vec![(
            "plain",
            format!(
                "object.metadata.annotations.filter(key,\n\
                 object.metadata.annotations[key].matches('\"kind\": ?\"{}\"')\n\
                 && {})",
                keys::KIND,
                rules::plaintext_in_json_cel("object.metadata.annotations[key]")
            ),
        )],
        validations: vec![Validation {
            admits: "variables.plain.size() == 0".to_owned(),
            message: "'annotation \"' + variables.plain[0] + '\" must not hold a manifest with a plain value: seal the value \
                      first (managed-secrets seal); where `kubectl apply` is refused so, the operator could not be reached'"
                .to_owned(),
            fallback: "annotations must not hold a manifest with a plain value",
        }],
    }
}
