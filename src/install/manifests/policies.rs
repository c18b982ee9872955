//! What the API server refuses by itself: ValidatingAdmissionPolicies, each with its binding.
//!
//! RBAC says who may write a kind of object; these policies look into the objects. They fail closed, and hold with the
//! operator down. Their match conditions run first and are cheap: almost every request leaves there.

mod annotations;
mod metadata_size;
mod operator_writes;
mod protected;
mod restart_rights;
mod user_rights;

use managed_secrets_api::keys;
use serde_json::{Value, json};

use super::{Options, in_namespaces, metadata};

/// A group of policies that an installation may leave out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum PolicySwitch {
    /// A user who changes where a value is delivered must have permission to read it where it is, and one who has a
    /// workload restarted must have permission to patch it.
    UserRights,
    /// Only the operator and restorers write records, keys, the public key and status.
    Protected,
    /// The operator writes no Secrets but records, targets and its own keys.
    OperatorWrites,
    /// No annotation holds a manifest with a plain value.
    PlaintextAnnotations,
    /// The metadata of a ManagedSecret is bounded.
    MetadataSize,
}

impl PolicySwitch {
    /// Every switch.
    pub const ALL: [Self; 5] =
        [Self::UserRights, Self::Protected, Self::OperatorWrites, Self::PlaintextAnnotations, Self::MetadataSize];
}

/// Every policy that is not left out, each followed by its binding.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    PolicySwitch::ALL
        .into_iter()
        .filter(|switch| !options.without_policies.contains(switch))
        .flat_map(|switch| match switch {
            PolicySwitch::UserRights => vec![user_rights::policy(options), restart_rights::policy(options)],
            PolicySwitch::Protected => protected::policies(options),
            PolicySwitch::OperatorWrites => vec![operator_writes::policy(options)],
            PolicySwitch::PlaintextAnnotations => vec![annotations::policy(options)],
            PolicySwitch::MetadataSize => vec![metadata_size::policy(options)],
        })
        .flat_map(|policy| policy.into_objects(options))
        .collect()
}

/// The reason of every refusal. After any other, client-side `kubectl apply` prints the whole patch that it sent: a
/// plain value, or the data of a Secret, with it.
const REASON: &str = "Invalid";

/// One policy, in the parts that differ between them.
struct Policy {
    name: &'static str,
    /// What it looks at: API group, resource, operations.
    resource: Resource,
    /// Namespaces that it is limited to; empty means all.
    namespaces: Vec<String>,
    /// Name and CEL expression; the policy applies where all are true.
    conditions: Vec<(&'static str, String)>,
    /// Name and CEL expression, evaluated only where used.
    variables: Vec<(&'static str, String)>,
    validations: Vec<Validation>,
}

struct Resource {
    group: &'static str,
    name: &'static str,
    operations: &'static [&'static str],
}

struct Validation {
    /// CEL: true admits.
    admits: String,
    /// CEL: the text of the refusal.
    message: String,
    /// The text where `message` fails.
    fallback: &'static str,
}

impl Policy {
    fn into_objects(self, options: &Options) -> [Value; 2] {
        let name = options.cluster_object_name(self.name);
        let named = |(name, expression): (&str, String)| json!({"name": name, "expression": expression});
        let validation = |validation: Validation| {
            json!({
                "expression": validation.admits,
                "messageExpression": validation.message,
                "message": validation.fallback,
                "reason": REASON,
            })
        };
        let mut constraints = json!({"resourceRules": [{
            "apiGroups": [self.resource.group],
            "apiVersions": ["*"],
            "operations": self.resource.operations,
            "resources": [self.resource.name],
        }]});
        if let Some(selector) = in_namespaces(&self.namespaces) {
            constraints["namespaceSelector"] = selector;
        }
        let mut spec = json!({
            "failurePolicy": "Fail",
            "matchConstraints": constraints,
            "matchConditions": self.conditions.into_iter().map(named).collect::<Vec<_>>(),
            "validations": self.validations.into_iter().map(validation).collect::<Vec<_>>(),
        });
        if !self.variables.is_empty() {
            spec["variables"] = self.variables.into_iter().map(named).collect();
        }
        let api_version = "admissionregistration.k8s.io/v1";
        [
            json!({
                "apiVersion": api_version,
                "kind": "ValidatingAdmissionPolicy",
                "metadata": metadata(&name, None),
                "spec": spec,
            }),
            json!({
                "apiVersion": api_version,
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": metadata(&name, None),
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }),
        ]
    }
}

/// The namespaces that the operator watches, and its own; empty means all.
fn concerned(options: &Options) -> Vec<String> {
    let own = (!options.namespaces.is_empty()).then_some(&options.operator_namespace);
    options.namespaces.iter().chain(own).cloned().collect()
}

/// A CEL string literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A CEL list of string literals.
fn literals<S: AsRef<str>>(texts: &[S]) -> String {
    format!("[{}]", texts.iter().map(|text| literal(text.as_ref())).collect::<Vec<_>>().join(", "))
}

/// CEL: the request comes from the operator or from a restorer.
fn is_trusted(options: &Options) -> String {
    let mut users = vec![options.operator_user()];
    users.extend(options.restorers.iter().cloned());
    format!("request.userInfo.username in {}", literals(&users))
}

/// CEL: the label `key` of `object` (an expression), or the empty string.
fn label(object: &str, key: &str) -> String {
    format!("{object}.?metadata.?labels[?{}].orValue('')", literal(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_broken_out_of() {
        assert_eq!(literals(&["a'b", "c\\"]), r"['a\'b', 'c\\']");
    }

    #[test]
    fn restorers_are_trusted_beside_the_operator() {
        let options =
            Options { restorers: vec!["system:serviceaccount:velero:velero".to_owned()], ..Options::default() };
        let expression = is_trusted(&options);
        assert!(expression.contains("velero:velero") && expression.contains(keys::OPERATOR_NAME));
    }
}
