//! The CustomResourceDefinition: what the types derive, and what no attribute can say.
//!
//! Adds the CEL rules, the one default (that of status), and takes out `nullable`, which schemars writes for every
//! optional field and which the contract does not have.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool, ValidationRule,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::rules::{EACH, RULES, Rule};
use super::types::ManagedSecret;
use super::{FieldReason, Reason};

/// What `kubectl get` shows behind the object's name: heading, type, JSON path, description. "List secret info", and
/// never a value.
const COLUMNS: [[&str; 4]; 7] = [
    ["Secret", "string", ".spec.name", "The secret's name."],
    ["ID", "string", ".status.id", "The secret's id."],
    [
        "Ready",
        "string",
        r#".status.conditions[?(@.type=="Ready")].status"#,
        "Whether record and delivered Secret are up to date.",
    ],
    ["Reason", "string", r#".status.conditions[?(@.type=="Ready")].reason"#, "Why the secret is ready or not."],
    ["Version", "integer", ".status.version", "Counts the values that the secret has had."],
    ["Updated", "date", ".status.updatedDate", "When name, description or value last changed."],
    ["Age", "date", ".metadata.creationTimestamp", "When the object was created."],
];

/// What `kubectl get -o wide` shows besides.
const WIDE_COLUMNS: [[&str; 4]; 5] = [
    ["Description", "string", ".spec.description", "What the secret is for."],
    ["Target", "string", ".status.target.name", "The delivered Secret."],
    ["Created", "date", ".status.createdDate", "When the secret was created."],
    // As text: kubectl shows a date that is to come as invalid.
    ["Rotation", "string", ".status.nextRotation", "When the next value is generated, if there is a schedule."],
    [EXPIRES_COLUMN, "string", ".spec.expires", "When the value expires."],
];

/// Heading of the wide column that shows `spec.expires`.
pub const EXPIRES_COLUMN: &str = "Expires";

/// The CustomResourceDefinition of ManagedSecret.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = ManagedSecret::crd();
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(columns());
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            refine(schema);
        }
    }
    crd
}

/// The CustomResourceDefinition as a YAML document.
///
/// Fails only if the serializer does.
pub fn to_yaml() -> Result<String, serde_saphyr::ser::Error> {
    // Whole lines: a CEL expression folded at its spaces is hard to read, and to compare.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX, compact_list_indent: true };
    serde_saphyr::to_string_with_options(&crd(), options)
}

/// The schema of a ManagedSecret.
pub(super) fn schema() -> JSONSchemaProps {
    let version = crd().spec.versions.into_iter().next();
    version.and_then(|version| version.schema?.open_api_v3_schema).unwrap_or_default()
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |[name, type_, json_path, description]: [&str; 4], priority| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path: json_path.to_owned(),
        description: Some(description.to_owned()),
        priority,
        format: None,
    };
    let wide = WIDE_COLUMNS.map(|wide| column(wide, Some(1)));
    COLUMNS.map(|shown| column(shown, None)).into_iter().chain(wide).collect()
}

fn refine(root: &mut JSONSchemaProps) {
    root.title = None;
    remove_nulls(root);
    for rule in RULES.iter() {
        if let Some(field) = find(root, rule.at) {
            field.x_kubernetes_validations.get_or_insert_default().push(cel(rule));
        }
    }
    if let Some(status) = find(root, "status") {
        status.default = Some(JSON(json!({ "conditions": [initial_condition()] })));
    }
}

/// What an object says that no operator has seen: Helm, Flux and others take one without status for finished. The time
/// is required and cannot be the present one in a schema.
fn initial_condition() -> serde_json::Value {
    json!({
        "type": "Ready",
        "status": "Unknown",
        "reason": Reason::Pending.as_str(),
        "message": "waiting for the operator",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    })
}

fn cel(rule: &Rule) -> ValidationRule {
    ValidationRule {
        rule: rule.cel.clone(),
        message: Some(rule.message.clone()),
        // The server's own default, unsaid.
        reason: (rule.reason != FieldReason::Invalid).then(|| rule.reason.as_str().to_owned()),
        field_path: (!rule.field.is_empty()).then(|| rule.field.to_owned()),
        ..ValidationRule::default()
    }
}

/// The schema of the field at a dotted path, or of each entry of a map.
fn find<'a>(root: &'a mut JSONSchemaProps, path: &str) -> Option<&'a mut JSONSchemaProps> {
    path.split('.').filter(|key| !key.is_empty()).try_fold(root, |schema, key| {
        match &mut schema.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(each)) if key == EACH => Some(&mut **each),
            _ => schema.properties.as_mut()?.get_mut(key),
        }
    })
}

fn remove_nulls(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(choices) = &mut schema.enum_ {
        choices.retain(|choice| !choice.0.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        remove_nulls(property);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(schema)) = &mut schema.additional_properties {
        remove_nulls(schema);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(schema)) = &mut schema.items {
        remove_nulls(schema);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::keys::{GROUP, KIND, VERSION};

    #[test]
    fn names_are_those_of_the_keys() {
        let crd = crd();
        assert_eq!((crd.spec.group.as_str(), crd.spec.names.kind.as_str()), (GROUP, KIND));
        assert_eq!(crd.spec.versions[0].name, VERSION);
    }

    #[test]
    fn every_rule_is_in_the_schema() {
        let mut schema = schema();
        for rule in RULES.iter() {
            let field = find(&mut schema, rule.at).unwrap_or_else(|| panic!("no field {}", rule.at));
            let rules = field.x_kubernetes_validations.as_ref().unwrap();
            assert!(rules.iter().any(|found| found.rule == rule.cel), "{}: {}", rule.at, rule.cel);
        }
    }

    /// What a user sends must be bounded, or the estimated cost of the rules is not; and null must not be a value.
    #[test]
    fn every_field_is_bounded_and_none_is_nullable() {
        fn check(schema: &Value, path: &str) {
            let has = |key: &str| schema.get(key).is_some();
            assert!(!has("nullable"), "{path} is nullable");
            match schema["type"].as_str() {
                Some("string") => assert!(has("maxLength") || has("enum") || has("format"), "{path}"),
                Some("integer") => assert!(has("maximum") || path.starts_with(".status"), "{path}"),
                Some("array") => assert!(has("maxItems"), "{path}"),
                Some("object") => assert!(has("maxProperties") || has("properties"), "{path}"),
                Some("boolean") => {}
                _ => assert!(has("maxLength") || has("x-kubernetes-preserve-unknown-fields"), "{path}"),
            }
            for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(schema["description"].is_string(), "{path}.{key} has no description");
                check(schema, &format!("{path}.{key}"));
            }
            for key in ["additionalProperties", "items"] {
                if let Some(schema) = schema.get(key) {
                    check(schema, &format!("{path}.{key}"));
                }
            }
        }
        check(&serde_json::to_value(schema()).unwrap(), "");
    }

    #[test]
    fn yaml_reads_back_as_what_was_written() {
        let read: Value = serde_saphyr::from_str(&to_yaml().unwrap()).unwrap();
        assert_eq!(read, serde_json::to_value(crd()).unwrap());
    }
}
