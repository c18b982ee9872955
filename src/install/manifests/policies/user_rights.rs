//! The operator reads and writes every Secret; a user who writes ManagedSecrets must not gain that permission.
//!
//! Without this policy, a user who may write ManagedSecrets but not read Secrets could name another Secret as source,
//! or have a value delivered where they can read it. So each create, and each change of one of these fields, asks the
//! API server's authorizer whether the user has the permission:
//!
//! | field | permission |
//! |---|---|
//! | `valueFrom` | `get` on the source Secret |
//! | `name` | to read the value now: `get` on `secretvalues` by its old name or its id, or on the Secret that holds it |
//! | `target.name`, `target.key`, `delivery` | `get` on the Secret that holds the value now, or, where none does (`delivery: None`), on `secretvalues` by its name or its id |
//! | `target.name`, `target.key`, `delivery`, `target.template`, where a text of the template replaces the value | also to read the value now; `get` on the Secret does not count, for it does not hold the value as it is |
//! | `value` that is sealed as kept, with a delivery | `get` on all `secretvalues` of the namespace |
//! | `version`, or `target.previousKey` and `overlap`, with a delivery | `get` on `secretvalues` by the secret's name or its id |
//! | `target.type`, `labels`, `annotations`, `template` of a target that exists | `get` and `patch` on that Secret |
//! | `target.type`, `labels`, `annotations`, `template` where there is no target yet | `create` on Secrets; with a delivery, also `get` and `patch` on the Secret that it goes to; with `spec.value`, also `get` on the Secret `metadata.name` |
//! | `target.name`, `delivery`, where `target.type`, `labels`, `annotations` or `template` are given | `patch` on the Secret that the value is now delivered to |
//! | `target.adoption` | `create` on Secrets |
//! | `adoption: IfUnowned` with another target or another source | `get` and `patch` on the Secret to adopt |
//!
//! Fields count by what they mean, so that spelling out a default is no change. On create, the object is compared with
//! one that leaves these fields out: its value would be delivered to `metadata.name`. Otherwise one who may not read
//! the Secret `db` could delete the ManagedSecret `db` and create it again with the same sealed value, which opens for
//! that name, and another target.
//!
//! A label or an annotation can copy the value, because replicators act on them, and a template copies it itself. So a change of the target's shape needs what a
//! move needs, and `patch`, because it changes a Secret that exists. A Secret that an earlier object left behind
//! (`deletionPolicy: Retain`) is taken over, so the same holds for a new target, which may be one. A target without a
//! shape of its own needs no `patch`: users without permissions on Secrets can create ManagedSecrets.
//!
//! `status.target`, too, is where the value is now: it differs from the spec while a move waits. So is `status.name`, while
//! a rename waits or is not yet done.
//!
//! The [value API](managed_secrets_api::value) answers users who have the permission for a name. A rename therefore gives
//! the value to those who may read the new name, and a user who asks for it must be allowed to read the value. This is also
//! the way to a value that an earlier object left behind: a new object takes it over under its old name only, and giving it
//! another name is a rename; a rename to a name that is taken is checked when it is asked for, not when that name becomes
//! free.
//!
//! Kept text is opened for every object that has its Kubernetes name, whatever `spec.name` that object has. So no
//! permission for one name is enough to have new text of this kind delivered.
//!
//! An earlier value may never have been delivered, or only to another Secret. So permission to read what is delivered now
//! is not enough to have it delivered.
//!
//! `get` on `managedsecrets/value` of the object, which stood for these permissions before the value API, is accepted for
//! one release.
//!
//! Adoption compares the value with what the Secret holds, and tells whether they are the same. Without `get`, it would
//! answer guesses at a Secret that the user may not read, and a correct guess would let the user take over that Secret.
//! So a guess needs the permission, whether it is made by the target or by the source; not any more when the value is
//! there. Adoption also writes into a Secret that the operator did not create: without `patch`, the user could write
//! there too.

use managed_secrets_api::{rules::kept_text_cel, value};

use super::{Options, Policy, Resource, Validation, concerned, keys, literal};

/// CEL: the text of `spec.value`, or the empty string.
const VALUE: &str = "dyn(object.spec.?value.orValue(''))";

pub(super) fn policy(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_USER_RIGHTS,
        resource: Resource { group: keys::GROUP, name: "managedsecrets", operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![(
            "names-a-secret",
            format!(
                "oldObject == null\n  ? has(object.spec.valueFrom) || has(object.spec.target) || has(object.spec.version) || {}\n  \
                 : object.spec != oldObject.spec",
                kept_text_cel(VALUE)
            ),
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
         || variables.retemplates"
    );
    let shown = format!(
        "variables.oldDelivery != 'None'\n\
         && !(variables.oldTarget.?key.orValue({key}) in variables.oldTarget.?template.orValue({{}}))"
    );
    let comes_with_a_shape = format!(
        "variables.delivery != 'None'\n\
         && (oldObject == null || variables.targetName != variables.oldTargetName || variables.oldDelivery == 'None')\n\
         && (variables.target.?type.orValue({secret_type}) != {secret_type}\n\
         || variables.target.?labels.orValue({{}}) != {{}} || variables.target.?annotations.orValue({{}}) != {{}}\n\
         || variables.target.?template.orValue({{}}) != {{}})"
    );
    let adopts = "variables.delivery == 'Secret' && variables.adoption == 'IfUnowned'\n\
                  && (oldObject == null || variables.moves || variables.oldAdoption != 'IfUnowned'\n\
                  || variables.changesSource && variables.targetInForce != variables.targetName)";
    let delivers_kept = format!(
        "variables.delivery != 'None' && {}\n\
         && (oldObject == null || object.spec.?value != variables.old.?value)",
        kept_text_cel(VALUE)
    );
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
        ("retemplates", "variables.target.?template.orValue({}) != variables.oldTarget.?template.orValue({})"),
        ("adoption", "variables.target.?adoption.orValue('Never')"),
        ("oldAdoption", "variables.oldTarget.?adoption.orValue('Never')"),
        // The value is, or was, in the Secret that the old spec names: a sealed value may come from a deleted object.
        ("hadTarget", "variables.oldDelivery != 'None' && (oldObject != null || has(object.spec.value))"),
        ("targetInForce", "oldObject == null ? '' : dyn(oldObject).?status.?target.?name.orValue('')"),
        ("id", "oldObject == null ? '' : dyn(oldObject).?status.?id.orValue('')"),
        ("nameInForce", "oldObject == null ? '' : dyn(oldObject).?status.?name.orValue(oldObject.spec.name)"),
        (
            "deliversEarlier",
            "variables.delivery != 'None' && (has(object.spec.version) && object.spec.?version != variables.old.?version\n\
             || has(variables.target.previousKey) && (variables.target.?previousKey != variables.oldTarget.?previousKey\n\
             || object.spec.?overlap != variables.old.?overlap))",
        ),
        ("renames", "oldObject != null && object.spec.name != oldObject.spec.name"),
    ];
    let simple = simple.map(|(name, expression)| (name, expression.to_owned()));
    let reshapes = "oldObject != null && variables.shapes".to_owned();
    let built = [
        ("moves", moves),
        // The old target holds the value as it is: a text of the template can replace it, by its hash for example.
        ("shown", shown),
        ("shapes", shapes),
        ("reshapes", reshapes),
        ("startsShaped", comes_with_a_shape),
        ("adopts", adopts.to_owned()),
        ("deliversKept", delivers_kept),
    ];
    simple.into_iter().chain(built).chain(may_read_value()).collect()
}

fn validations() -> Vec<Validation> {
    const MOVE: &str = "to change where or how a value is delivered (target.name, target.key, target.type, \
                        target.labels, target.annotations, target.template, delivery)";
    const RESHAPE: &str = "to set target.type, target.labels, target.annotations or target.template of a Secret that may \
                           exist";
    const ADOPT: &str = "to adopt it (target.adoption)";
    let get = |applies: &str, name: &str, purpose: &str, fallback: &'static str| Validation {
        admits: format!("!({applies}) || {}", may("get", name)),
        message: cannot("get", "secrets", "", Some(name), purpose),
        fallback,
    };
    let patch = |applies: &str, name: &str, purpose: &str, fallback: &'static str| Validation {
        admits: format!("!({applies}) || {}", may("patch", name)),
        message: cannot("patch", "secrets", "", Some(name), purpose),
        fallback,
    };
    let moved = "changing where or how a value is delivered needs the permission to get the present target";
    let reshaped = "setting the type, labels, annotations or template of a target needs the permission to patch it";
    let validations = vec![
        get(
            "variables.readsOtherSource",
            "variables.source",
            "to take a value from it (spec.valueFrom)",
            "spec.valueFrom needs the permission to get the source Secret",
        ),
        get(
            "variables.moves && variables.oldDelivery != 'None' || variables.shapes && variables.hadTarget",
            "variables.oldTargetName",
            MOVE,
            moved,
        ),
        get(
            "(variables.moves || variables.shapes) && variables.targetInForce != ''",
            "variables.targetInForce",
            MOVE,
            moved,
        ),
        // What an earlier object left behind may be there and be taken over.
        get(
            "oldObject == null && variables.shapes && variables.delivery != 'None'",
            "variables.targetName",
            MOVE,
            "choosing how a target looks needs the permission to get it",
        ),
        patch("variables.startsShaped", "variables.targetName", RESHAPE, reshaped),
        patch("variables.reshapes && variables.hadTarget", "variables.oldTargetName", RESHAPE, reshaped),
        patch("variables.reshapes && variables.targetInForce != ''", "variables.targetInForce", RESHAPE, reshaped),
        Validation {
            admits:
                "(!variables.shapes || variables.reshapes && (variables.hadTarget || variables.targetInForce != ''))\n\
                     && variables.adoption == variables.oldAdoption\n\
                     || authorizer.group('').resource('secrets').namespace(request.namespace).check('create').allowed()"
                    .to_owned(),
            message: cannot(
                "create",
                "secrets",
                "",
                None,
                "to choose how the target looks (target.type, labels, annotations, template, adoption)",
            ),
            fallback: "target.type, labels, annotations, template and adoption need the permission to create Secrets",
        },
        get(
            "variables.adopts",
            "variables.targetName",
            &format!("{ADOPT}, because adoption shows whether it holds the same value"),
            "target.adoption needs the permission to get the Secret to adopt",
        ),
        patch(
            "variables.adopts",
            "variables.targetName",
            &format!("{ADOPT}, because adoption writes into it"),
            "target.adoption needs the permission to patch the Secret to adopt",
        ),
    ];
    validations.into_iter().chain(value_validations()).collect()
}

/// What needs permission to read a value, wherever it is.
fn value_validations() -> [Validation; 4] {
    [
        Validation {
            admits: "!variables.renames || variables.mayReadValue".to_owned(),
            message: cannot(
                "get",
                value::PLURAL,
                value::GROUP,
                Some("variables.nameInForce"),
                "to change spec.name: users who may read the new name can then read the value. The permission to get it \
                 by its id, or to get the Secret that holds it, is enough as well",
            ),
            fallback: "changing spec.name needs the permission to read the value (secretvalues.values.managedsecrets.dev)",
        },
        Validation {
            // A new object has no value yet that its target could show. With `delivery: None`, a template shows nothing.
            admits: "!(oldObject != null && !variables.shown\n\
                     && (variables.moves || variables.retemplates && variables.oldDelivery != 'None'))\n\
                     || variables.mayReadValue"
                .to_owned(),
            message: cannot(
                "get",
                value::PLURAL,
                value::GROUP,
                Some("variables.nameInForce"),
                "to deliver a value that no Secret holds as it is (delivery, target), because it is not delivered or a \
                 template replaces it",
            ),
            fallback: "delivering a value that no Secret holds as it is needs the permission to read it \
                       (secretvalues.values.managedsecrets.dev)",
        },
        Validation {
            // A new object keeps nothing, unless it takes over what an earlier one left behind.
            admits: "!variables.deliversEarlier || variables.mayReadEarlier || variables.mayReadAsBefore".to_owned(),
            message: cannot(
                "get",
                value::PLURAL,
                value::GROUP,
                Some("(oldObject == null ? object.spec.name : variables.nameInForce)"),
                "to deliver an earlier value (version, target.previousKey, overlap)",
            ),
            fallback: "delivering an earlier value needs the permission to read it (secretvalues.values.managedsecrets.dev)",
        },
        Validation {
            admits: format!(
                "!variables.deliversKept || {}.check('get').allowed() || {}",
                values(),
                may_read_by_former_permission()
            ),
            message: cannot(
                "get",
                value::PLURAL,
                value::GROUP,
                None,
                "for all names, to deliver a value that is sealed with --no-delivery (delivery, value)",
            ),
            fallback: "delivering a value that is sealed with --no-delivery needs the permission to read all values \
                       (secretvalues.values.managedsecrets.dev)",
        },
    ]
}

/// The ways to the value that the stored object has, each as a variable, and whether one of them is open: by its id; by its
/// name, and by its current name if that differs; from the Secret that it is delivered to, and from its current Secret if
/// that differs, unless a template replaces it there.
///
/// The API server limits the cost of each expression, and of each variable, to that of two questions to the authorizer.
fn may_read_value() -> [(&'static str, String); 7] {
    let by = |name: &str| format!("{}.name({name}).check('get').allowed()", values());
    [
        ("mayReadById", format!("variables.id != '' && {}", by("variables.id"))),
        (
            "mayReadByName",
            format!(
                "{}\n&& (variables.nameInForce == variables.old.name || {})",
                by("variables.old.name"),
                by("variables.nameInForce")
            ),
        ),
        (
            "mayReadFromSecret",
            format!(
                "variables.shown && {}\n\
                 && (variables.targetInForce == '' || variables.targetInForce == variables.oldTargetName || {})",
                may("get", "variables.oldTargetName"),
                may("get", "variables.targetInForce")
            ),
        ),
        ("mayReadAsBefore", may_read_by_former_permission()),
        ("mayReadNew", by("object.spec.name")),
        (
            "mayReadEarlier",
            "oldObject == null ? variables.mayReadNew : variables.mayReadById || variables.mayReadByName".to_owned(),
        ),
        (
            "mayReadValue",
            "oldObject != null && (variables.mayReadById || variables.mayReadByName || variables.mayReadFromSecret\n\
             || variables.mayReadAsBefore)"
                .to_owned(),
        ),
    ]
}

/// CEL: what the authorizer knows of the values of the namespace.
fn values() -> String {
    let (group, resource) = (literal(value::GROUP), literal(value::PLURAL));
    format!("authorizer.group({group}).resource({resource}).namespace(request.namespace)")
}

/// CEL: the user has the permission that stood for reading a value before there was a value API.
fn may_read_by_former_permission() -> String {
    format!(
        "authorizer.group({}).resource({}).subresource({}).namespace(request.namespace).name(object.metadata.name)\
         .check('get').allowed()",
        literal(keys::GROUP),
        literal(keys::PLURAL),
        literal(value::FORMER_SUBRESOURCE)
    )
}

/// CEL: the user may do this to the Secret that the expression `name` names.
fn may(verb: &str, name: &str) -> String {
    format!(
        "authorizer.group('').resource('secrets').namespace(request.namespace).name({name}).check('{verb}').allowed()"
    )
}

/// CEL: the sentence that RBAC uses for a refusal, and what the permission is needed for.
fn cannot(verb: &str, resource: &str, group: &str, name: Option<&str>, purpose: &str) -> String {
    let name = name.map_or(String::new(), |name| format!(" named \"' + {name} + '\""));
    format!(
        "'user \"' + request.userInfo.username + '\" cannot {verb} resource \"{resource}\" in API group \
         \"{group}\"{name} in the namespace \"' + request.namespace + '\", which is needed {purpose}'"
    )
}
