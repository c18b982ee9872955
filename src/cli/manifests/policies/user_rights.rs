//! The operator reads and writes every Secret; whoever writes ManagedSecrets must not borrow that.
//!
//! Without this policy, someone who may write ManagedSecrets but read no Secrets could name another Secret as source, or
//! have a value delivered to a place that he can read. So each create, and each change of one of these fields, asks the
//! API server's authorizer whether the user himself could do it:
//!
//! | field | right |
//! |---|---|
//! | `valueFrom` | `get` on the source Secret |
//! | `target.name`, `target.key`, `delivery` | `get` on the Secret that holds the value now, or, where none does (`delivery: None`), on `managedsecrets/value` |
//! | `target.type`, `labels`, `annotations`, `adoption` | `create` on Secrets |
//! | `adoption: IfUnowned` with another target or another source | `get` on the Secret that is to be adopted |
//!
//! Fields count by what they mean, so that spelling out a default is no change. On create, the object is compared with
//! one that leaves these fields out: its value would be delivered to `metadata.name`. Otherwise one who may not read the
//! Secret `db` could delete the ManagedSecret `db` and create it again with the same sealed text, which opens for that
//! name, and another target.
//!
//! `status.target`, too, is where the value is now: it differs from the spec while a move waits.
//!
//! Adoption compares the value with what the Secret holds, and tells whether they are the same. Without the last row it
//! would answer guesses at a Secret that the user may not read, and a right guess would make that Secret follow him. So a
//! guess needs the right, whether it is made by the target or by the source; not any more when the value is there.

use super::{Options, Policy, Resource, Validation, concerned, keys, literal};

pub(super) fn policy(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_USER_RIGHTS,
        resource: Resource { group: keys::GROUP, name: "managedsecrets", operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![(
            "names-a-secret",
            "oldObject == null\n  ? has(object.spec.valueFrom) || has(object.spec.target)\n  : object.spec != oldObject.spec"
                .to_owned(),
        )],
        variables: variables(),
        validations: validations(),
    }
}

fn variables() -> Vec<(&'static str, String)> {
    let (key, secret_type) = (literal(keys::DEFAULT_TARGET_KEY), literal(keys::DEFAULT_TARGET_TYPE));
    let moves = format!(
        "variables.delivery != variables.oldDelivery\n\
         || variables.targetName != variables.oldTargetName\n\
         || variables.target.?key.orValue({key}) != variables.oldTarget.?key.orValue({key})"
    );
    let shapes = format!(
        "variables.target.?type.orValue({secret_type}) != variables.oldTarget.?type.orValue({secret_type})\n\
         || variables.target.?labels.orValue({{}}) != variables.oldTarget.?labels.orValue({{}})\n\
         || variables.target.?annotations.orValue({{}}) != variables.oldTarget.?annotations.orValue({{}})\n\
         || variables.target.?adoption.orValue('Never') != variables.oldTarget.?adoption.orValue('Never')"
    );
    let adopts = "variables.delivery == 'Secret' && variables.target.?adoption.orValue('Never') == 'IfUnowned'\n\
                  && (oldObject == null || variables.moves\n\
                  || variables.oldTarget.?adoption.orValue('Never') != 'IfUnowned'\n\
                  || variables.changesSource && variables.targetInForce != variables.targetName)";
    let simple = [
        ("old", "oldObject == null ? dyn({}) : dyn(oldObject.spec)"),
        ("target", "dyn(object.spec.?target.orValue({}))"),
        ("oldTarget", "dyn(variables.old.?target.orValue({}))"),
        ("readsOtherSource", "has(object.spec.valueFrom) && object.spec.?valueFrom != variables.old.?valueFrom"),
        (
            "changesSource",
            "object.spec.?value != variables.old.?value || object.spec.?valueFrom != variables.old.?valueFrom\n\
             || object.spec.?generate != variables.old.?generate",
        ),
        ("source", "object.spec.?valueFrom.?secretKeyRef.?name.orValue('')"),
        ("delivery", "object.spec.?delivery.orValue('Secret')"),
        ("oldDelivery", "oldObject == null ? variables.delivery : variables.old.?delivery.orValue('Secret')"),
        ("targetName", "variables.target.?name.orValue(object.metadata.name)"),
        ("oldTargetName", "variables.oldTarget.?name.orValue(object.metadata.name)"),
        ("targetInForce", "oldObject == null ? '' : dyn(oldObject).?status.?target.?name.orValue('')"),
    ];
    let simple = simple.map(|(name, expression)| (name, expression.to_owned()));
    simple.into_iter().chain([("moves", moves), ("shapes", shapes), ("adopts", adopts.to_owned())]).collect()
}

fn validations() -> Vec<Validation> {
    const MOVE: &str = "to change where a value is delivered (target.name, target.key, delivery)";
    vec![
        Validation {
            admits: format!("!variables.readsOtherSource || {}", may_get_secret("variables.source")),
            message: cannot_get_secret("variables.source", "to take a value from it (spec.valueFrom)"),
            fallback: "spec.valueFrom needs the right to get the source Secret",
        },
        Validation {
            admits: format!(
                "!variables.moves || variables.oldDelivery == 'None' || {}",
                may_get_secret("variables.oldTargetName")
            ),
            message: cannot_get_secret("variables.oldTargetName", MOVE),
            fallback: "changing where a value is delivered needs the right to get the present target",
        },
        Validation {
            admits: format!(
                "!variables.moves || variables.targetInForce == '' || {}",
                may_get_secret("variables.targetInForce")
            ),
            message: cannot_get_secret("variables.targetInForce", MOVE),
            fallback: "changing where a value is delivered needs the right to get the present target",
        },
        Validation {
            admits: format!(
                "!variables.moves || variables.oldDelivery != 'None'\n\
                 || authorizer.group({}).resource('managedsecrets').subresource('value')\
                 .namespace(request.namespace).name(object.metadata.name).check('get').allowed()",
                literal(keys::GROUP)
            ),
            message: cannot("get", "managedsecrets/value", keys::GROUP, Some("object.metadata.name"), MOVE),
            fallback: "delivering a value that is not delivered needs the right to get managedsecrets/value",
        },
        Validation {
            admits: "!variables.shapes\n\
                     || authorizer.group('').resource('secrets').namespace(request.namespace).check('create').allowed()"
                .to_owned(),
            message: cannot(
                "create",
                "secrets",
                "",
                None,
                "to choose how the target looks (target.type, labels, annotations, adoption)",
            ),
            fallback: "target.type, labels, annotations and adoption need the right to create Secrets",
        },
        Validation {
            admits: format!("!variables.adopts || {}", may_get_secret("variables.targetName")),
            message: cannot_get_secret(
                "variables.targetName",
                "to have it adopted (target.adoption), since that tells whether it holds the same value",
            ),
            fallback: "target.adoption needs the right to get the Secret that is to be adopted",
        },
    ]
}

/// CEL: the user may get the Secret that the expression `name` names.
fn may_get_secret(name: &str) -> String {
    format!("authorizer.group('').resource('secrets').namespace(request.namespace).name({name}).check('get').allowed()")
}

/// CEL: the text for a user who may not.
fn cannot_get_secret(name: &str, purpose: &str) -> String {
    cannot("get", "secrets", "", Some(name), purpose)
}

/// CEL: the sentence with which RBAC itself refuses, and what the right is needed for.
fn cannot(verb: &str, resource: &str, group: &str, name: Option<&str>, purpose: &str) -> String {
    let name = name.map_or(String::new(), |name| format!(" named \"' + {name} + '\""));
    format!(
        "'user \"' + request.userInfo.username + '\" cannot {verb} resource \"{resource}\" in API group \"{group}\"{name} \
         in the namespace \"' + request.namespace + '\", which is needed {purpose}'"
    )
}
