//! Tools keep the manifest they applied in an annotation: kubectl does, kapp does. Such a copy holds the value as it
//! was written, so it must be sealed there too.
//!
//! The sealing webhook does so in kubectl's annotation. This policy refuses what is left, in any annotation, and also
//! when the webhook is down. What an annotation holds already is not its business: finalizers and status must always
//! get through.
//!
//! It finds what a regular expression can find, and refuses packed copies by their key; `docs/security.md` says what is
//! left.

use managed_secrets_api::rules;

use super::{Options, Policy, Resource, Validation, concerned, keys};

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
        variables: variables(),
        validations: vec![
            Validation {
                admits: "variables.plain.size() == 0".to_owned(),
                message:
                    "'annotation \"' + variables.plain[0] + '\" must not hold a manifest with a plain value: seal the \
                     value first (managed-secrets seal); if `kubectl apply` fails with this message, the API server \
                     could not reach the operator'"
                        .to_owned(),
                fallback: "annotations must not hold a manifest with a plain value",
            },
            Validation {
                admits: "variables.packed.size() == 0".to_owned(),
                message: "'annotation \"' + variables.packed[0] + '\" must not hold a packed copy of the manifest, \
                          because it could hide a plain value: apply the object with a tool that keeps no packed copy, \
                          such as kubectl, Helm, Argo CD or Flux'"
                    .to_owned(),
                fallback: "annotations must not hold a packed copy of the manifest",
            },
        ],
    }
}

/// What is found in the annotations that are new or changed, by the way in which it is written.
fn variables() -> Vec<(&'static str, String)> {
    let (annotations, text) = ("object.metadata.annotations", "object.metadata.annotations[key]");
    let in_changed = |holds: String| format!("variables.changed.filter(key, {holds})");
    let copies = rules::plaintext_copies_cel(text).map(|(name, holds)| (name, in_changed(holds)));
    let plain = copies.each_ref().map(|(name, _)| format!("variables.{name}")).join(" + ");
    let changed = format!(
        "{annotations}.filter(key,\n\
         oldObject == null || oldObject.metadata.?annotations[?key].orValue('') != {text})"
    );
    let packed = in_changed(rules::packed_copy_cel("key", text));
    [("changed", changed)].into_iter().chain(copies).chain([("plain", plain), ("packed", packed)]).collect()
}
