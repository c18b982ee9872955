//! Limits the operator's permissions on Secrets to what it does with them.
//!
//! RBAC cannot say "Secrets of these types" or "with this label". Should the operator ever be made to write what it
//! should not (a bug, a stolen token), this policy keeps it from minting tokens of other service accounts (Kubernetes
//! fills a Secret of type `kubernetes.io/service-account-token` for any account it names), from writing other
//! controllers' Secrets, and from more than its keys in its own namespace.

use managed_secrets_api::rules::target_type_cel;

use super::{Options, Policy, Resource, Validation, keys, label, literal};

pub(super) fn policy(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_OPERATOR_WRITES,
        resource: Resource { group: "", name: "secrets", operations: &["CREATE", "UPDATE", "DELETE"] },
        namespaces: Vec::new(),
        conditions: vec![(
            "by-operator",
            format!("request.userInfo.username == {}", literal(&options.operator_user())),
        )],
        variables: variables(options),
        validations: vec![Validation {
            admits: "variables.inOwnNamespace ? variables.isKey : variables.isRecord || variables.isTarget".to_owned(),
            message: format!(
                "'the operator may write only records, targets and its own keys: \"' + variables.name + '\" of type \
                 \"' + variables.type + '\" with {}=\"' + variables.role + '\" is none of them'",
                keys::LABEL_ROLE
            ),
            fallback: "the operator may write only records, targets and its own keys",
        }],
    }
}

fn variables(options: &Options) -> Vec<(&'static str, String)> {
    vec![
        ("isDelete", "object == null".to_owned()),
        ("secret", "object == null ? dyn(oldObject) : dyn(object)".to_owned()),
        ("name", "variables.secret.metadata.name".to_owned()),
        ("type", "variables.secret.?type.orValue('Opaque')".to_owned()),
        ("role", label("variables.secret", keys::LABEL_ROLE)),
        ("inOwnNamespace", format!("request.namespace == {}", literal(&options.operator_namespace))),
        (
            "isKey",
            format!(
                "!variables.isDelete\n\
                 && (variables.name == {} && variables.type == {}\n\
                 || variables.name == {} && variables.type == {}\n\
                 || variables.name.startsWith({}) && variables.type == {})",
                literal(keys::KEYRING_NAME),
                literal(keys::TYPE_KEYRING),
                literal(keys::WEBHOOK_SECRET),
                literal(keys::TYPE_WEBHOOK),
                literal(keys::KEK_PREFIX),
                literal(keys::TYPE_KEK)
            ),
        ),
        ("hasRecordName", format!("variables.name.startsWith({})", literal(keys::RECORD_PREFIX))),
        (
            "isRecord",
            format!(
                "variables.hasRecordName && variables.type == {}\n&& (variables.isDelete || variables.role == {})",
                literal(keys::TYPE_RECORD),
                literal(keys::ROLE_RECORD)
            ),
        ),
        ("wasTarget", was_target()),
        ("hasTargetType", target_type_cel("variables.type")),
        (
            "isTarget",
            format!(
                "!variables.hasRecordName && variables.hasTargetType\n\
                 && (variables.role == {} || variables.wasTarget)",
                literal(keys::ROLE_TARGET)
            ),
        ),
    ]
}

/// CEL: the Secret was a target until now. An adopted Secret loses the operator's label when the target moves away from
/// it. A Secret whose label was removed is still known by the annotation. The operator must not delete a Secret that
/// has lost both: the garbage collector or a person does.
fn was_target() -> String {
    format!(
        "oldObject != null\n&& ({} == {}\n|| has(oldObject.metadata.annotations) && {} in \
         oldObject.metadata.annotations)",
        label("dyn(oldObject)", keys::LABEL_ROLE),
        literal(keys::ROLE_TARGET),
        literal(keys::ANNO_OWNER)
    )
}
