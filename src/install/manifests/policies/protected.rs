//! What only the operator writes: records, keyring, KEK, the public key and `status`.
//!
//! A forged record is refused by its MAC, but a forged `status.target` would turn any Secret into a target, and an
//! edited record is lost. RBAC decides about deletion: namespaces, owners and people must be able to remove what they
//! created.
//!
//! A record is known by its type and by its name. The name alone counts as well: a Secret of another type in its place
//! keeps the record from being written, and a copy of a record in the clothes of another type would be believed.
//!
//! A write that changes nothing is anyone's: a storage migration or a re-encryption of etcd rewrites every object.
//! Kubernetes' garbage collector edits owner references (`kubectl delete --cascade=orphan`) and finalizers. Whoever put
//! a finalizer on a Secret of such a name, before this policy was, can take it off once the Secret is being deleted.
//!
//! A user whom RBAC lets patch the operator's own keyring may ask the operator to change it, by one annotation
//! (`kubectl msec keys`). The operator decides what the request does.

use super::{Options, Policy, Resource, Validation, concerned, is_trusted, keys, literal, literals};

/// The garbage collector, with and without `--use-service-account-credentials` of kube-controller-manager.
const GARBAGE_COLLECTORS: [&str; 2] =
    ["system:serviceaccount:kube-system:generic-garbage-collector", "system:kube-controller-manager"];

pub(super) fn policies(options: &Options) -> Vec<Policy> {
    vec![secrets(options), public_key(options), status(options)]
}

/// Secrets of our own types, and whatever has a record's name.
fn secrets(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_PROTECTED_SECRETS,
        resource: Resource { group: "", name: "secrets", operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![
            (
                "ours",
                format!(
                    "object.?type.orValue('').startsWith({}) || object.metadata.name.startsWith({})",
                    literal(&format!("{}/", keys::GROUP)),
                    literal(keys::RECORD_PREFIX)
                ),
            ),
            ("not-by-operator", format!("!({})", is_trusted(options))),
        ],
        variables: vec![
            ("sameContent", same("object", &["data", "type", "immutable"])),
            ("sameLabels", same("object.metadata", &["labels"])),
            ("sameAnnotations", same("object.metadata", &["annotations"])),
            (
                "isOwnKeyring",
                format!(
                    "request.namespace == {} && object.metadata.name == {}\n&& object.?type.orValue('') == {}",
                    literal(&options.operator_namespace),
                    literal(keys::KEYRING_NAME),
                    literal(keys::TYPE_KEYRING)
                ),
            ),
            ("annotations", "dyn(object).?metadata.?annotations.orValue({})".to_owned()),
            ("oldAnnotations", "dyn(oldObject).?metadata.?annotations.orValue({})".to_owned()),
            ("sameOtherAnnotations", same_other_annotations(keys::ANNO_KEYRING_REQUEST)),
            ("sameLife", same("object.metadata", &["ownerReferences", "finalizers"])),
            ("isGarbageCollector", format!("request.userInfo.username in {}", literals(&GARBAGE_COLLECTORS))),
            ("isDying", "oldObject != null && has(oldObject.metadata.deletionTimestamp)".to_owned()),
        ],
        validations: vec![refuse_unless(
            options,
            "variables.sameContent && variables.sameLabels\n\
             && (variables.sameAnnotations\n\
             || variables.isOwnKeyring && oldObject != null && variables.sameOtherAnnotations)\n\
             && (variables.sameLife || variables.isGarbageCollector || variables.isDying)",
            "secrets",
            "",
        )],
    }
}

/// The ConfigMap that everyone seals with: a forged key would let its forger read what is sealed from then on.
fn public_key(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_PROTECTED_PUBLIC_KEY,
        resource: Resource { group: "", name: "configmaps", operations: &["CREATE", "UPDATE"] },
        namespaces: vec![options.operator_namespace.clone()],
        conditions: vec![
            ("ours", format!("object.metadata.name == {}", literal(keys::PUBLIC_KEY_CONFIGMAP))),
            ("not-by-operator", format!("!({})", is_trusted(options))),
        ],
        variables: vec![
            ("sameContent", same("object", &["data", "binaryData", "immutable"])),
            ("sameMetadata", same("object.metadata", &["labels", "annotations", "ownerReferences", "finalizers"])),
        ],
        validations: vec![refuse_unless(options, "variables.sameContent && variables.sameMetadata", "configmaps", "")],
    }
}

/// `status` of every ManagedSecret.
fn status(options: &Options) -> Policy {
    Policy {
        name: keys::POLICY_PROTECTED_STATUS,
        resource: Resource { group: keys::GROUP, name: "managedsecrets/status", operations: &["CREATE", "UPDATE"] },
        namespaces: concerned(options),
        conditions: vec![("not-by-operator", format!("!({})", is_trusted(options)))],
        variables: Vec::new(),
        validations: vec![refuse_unless(options, &same("object", &["status"]), "managedsecrets/status", keys::GROUP)],
    }
}

/// CEL: on an update, these fields of `path` (`object` or `object.metadata`) are as they were.
fn same(path: &str, fields: &[&str]) -> String {
    let old = path.replacen("object", "oldObject", 1);
    let fields: Vec<_> = fields.iter().map(|field| format!("{path}.?{field} == {old}.?{field}")).collect();
    format!("oldObject != null\n&& {}", fields.join("\n&& "))
}

/// CEL: on an update, all annotations but `key` are as they were.
fn same_other_annotations(key: &str) -> String {
    let key = literal(key);
    format!(
        "variables.annotations.all(it, it == {key}\n\
         || it in variables.oldAnnotations && variables.oldAnnotations[it] == variables.annotations[it])\n\
         && variables.oldAnnotations.all(it, it == {key} || it in variables.annotations)"
    )
}

fn refuse_unless(options: &Options, admits: &str, resource: &str, group: &str) -> Validation {
    let operator = options.operator_user();
    Validation {
        admits: admits.to_owned(),
        message: format!(
            "'user \"' + request.userInfo.username + '\" cannot write resource \"{resource}\" in API group \"{group}\" \
             named \"' + object.metadata.name + '\" in the namespace \"' + request.namespace + '\": it is written by \
             \"{operator}\" and by restorers (managed-secrets manifests --restorer)'"
        ),
        fallback: "only the operator and restorers write this object",
    }
}
