//! The API server's verdict on a ManagedSecret, without an API server.
//!
//! Walks the CRD's own schema for type, presence, length, number and choice, and then runs the predicates of
//! [`super::rules`]. It does so in the server's order: rules run only where nothing is missing, too long or of a wrong
//! type, fields that the schema does not know are ignored because the server drops them, and null is absent.
//!
//! A [`Violation`] names field and rule, never what the field holds.

use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value, json};

use super::limits::{NAMESPACE_MAX, SECRET_NAME_MAX};
use super::rules::{EACH, RULES, Rule, detail, text::is_dns_subdomain};
use super::types::ManagedSecretSpec;

/// One broken rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The field, as `spec.target.name`.
    pub path: String,
    /// What must hold.
    pub message: String,
    /// What kind of rule it is.
    pub reason: FieldReason,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// What kind of rule a violation breaks, in the API server's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldReason {
    /// A field that is needed is absent.
    Required,
    /// The JSON type is wrong.
    TypeInvalid,
    /// Too many characters.
    TooLong,
    /// Too many entries.
    TooMany,
    /// Not among the choices.
    NotSupported,
    /// Anything else.
    Invalid,
    /// As `Invalid`, for a field whose content is never shown.
    Forbidden,
}

impl FieldReason {
    /// The reason as a cause in a Status carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Invalid => "FieldValueInvalid",
            Self::Forbidden => "FieldValueForbidden",
        }
    }

    /// Whether the server leaves the CEL rules alone after such a violation.
    const fn is_blocking(self) -> bool {
        !matches!(self, Self::Invalid | Self::Forbidden)
    }
}

static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(super::crd::schema);

/// What the API server would say of `object`, a ManagedSecret as JSON; empty if it would admit it.
///
/// Its name is checked as far as the rules need it; other metadata and status are not looked at.
#[must_use]
pub fn validate(object: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(object) = object.as_object() else {
        violations.push(violation("", "must be an object".to_owned(), FieldReason::TypeInvalid));
        return violations;
    };
    // Only what users write: the server drops a status that is sent along, and checks metadata apart from the schema.
    let mut wanted = Map::new();
    wanted.insert("metadata".to_owned(), metadata(object, &mut violations));
    let spec = object.get("spec").filter(|spec| !spec.is_null()).zip(member(&SCHEMA, "spec"));
    if let Some((spec, schema)) = spec {
        let mut spec = spec.clone();
        prune(&mut spec, schema);
        wanted.insert("spec".to_owned(), spec);
    }
    let wanted = Value::Object(wanted);
    check_shape(&wanted, &SCHEMA, "", &mut violations);
    if !violations.iter().any(|violation| violation.reason.is_blocking()) {
        violations.extend(RULES.iter().flat_map(|rule| check_rule(&wanted, rule)));
    }
    violations
}

/// What the API server would say of `spec` in the ManagedSecret called `metadata_name`.
#[must_use]
pub fn validate_spec(metadata_name: &str, spec: &ManagedSecretSpec) -> Vec<Violation> {
    validate(&json!({ "metadata": { "name": metadata_name }, "spec": spec }))
}

/// Paths of the fields of `object` and of its `spec` that the schema does not know: the server drops them, silently where
/// a client does not ask for more. Metadata is not looked at.
#[must_use]
pub fn unknown_fields(object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match (key.as_str(), member(&SCHEMA, key)) {
            ("spec", Some(schema)) => unknown_in(value, schema, key, &mut unknown),
            ("apiVersion" | "kind" | "metadata" | "status", _) => {}
            _ => unknown.push(key.clone()),
        }
    }
    unknown
}

fn unknown_in(value: &Value, schema: &JSONSchemaProps, path: &str, unknown: &mut Vec<String>) {
    if let (Value::Array(items), Some(schema)) = (value, item(schema)) {
        for (at, value) in items.iter().enumerate() {
            unknown_in(value, schema, &format!("{path}[{at}]"), unknown);
        }
    }
    let Value::Object(fields) = value else { return };
    if schema.properties.is_none() && additional(schema).is_none() {
        return;
    }
    for (key, value) in fields {
        match member(schema, key) {
            Some(schema) => unknown_in(value, schema, &join(path, key), unknown),
            None => unknown.push(join(path, key)),
        }
    }
}

/// Whether `text` can be the name of a namespace: a DNS label (RFC 1123), as the API server requires.
#[must_use]
pub fn is_namespace_name(text: &str) -> bool {
    text.len() <= NAMESPACE_MAX && !text.contains('.') && is_dns_subdomain(text)
}

/// Whether `text` can be the name of a `ManagedSecret`, as of most objects: a DNS subdomain.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    text.len() <= SECRET_NAME_MAX && is_dns_subdomain(text)
}

fn violation(path: &str, message: String, reason: FieldReason) -> Violation {
    Violation { path: path.to_owned(), message, reason }
}

/// The metadata that rules can see: the name, or what a generated one begins with.
fn metadata(object: &Map<String, Value>, violations: &mut Vec<Violation>) -> Value {
    let field = |key| object.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
    match (field("name"), field("generateName")) {
        (Some(name), _) => {
            if !is_object_name(name) {
                let message = format!(
                    "must be at most {SECRET_NAME_MAX} lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part"
                );
                violations.push(violation("metadata.name", message, FieldReason::Invalid));
            }
            json!({ "name": name })
        }
        (None, Some(prefix)) => json!({ "name": prefix }),
        (None, None) => {
            violations.push(violation("metadata.name", "must be given".to_owned(), FieldReason::Required));
            json!({})
        }
    }
}

/// Drops what the schema does not know, and nulls, as the server does before it validates.
fn prune(value: &mut Value, schema: &JSONSchemaProps) {
    if let (Value::Array(items), Some(schema)) = (&mut *value, item(schema)) {
        for value in items {
            prune(value, schema);
        }
    }
    let Value::Object(fields) = value else { return };
    if schema.properties.is_none() && additional(schema).is_none() {
        return;
    }
    fields.retain(|key, value| match member(schema, key) {
        Some(schema) if !value.is_null() => {
            prune(value, schema);
            true
        }
        _ => false,
    });
}

fn additional(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(schema) => Some(schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

/// The schema of the items of a list.
fn item(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn member<'a>(schema: &'a JSONSchemaProps, key: &str) -> Option<&'a JSONSchemaProps> {
    schema.properties.as_ref().and_then(|properties| properties.get(key)).or_else(|| additional(schema))
}

/// Checks `value` against the limits that OpenAPI can state.
fn check_shape(value: &Value, schema: &JSONSchemaProps, path: &str, violations: &mut Vec<Violation>) {
    if let Some(wanted) = wrong_type(value, schema) {
        violations.push(violation(path, format!("must be {wanted}"), FieldReason::TypeInvalid));
        return;
    }
    if let Some((message, reason)) = broken_limit(value, schema) {
        violations.push(violation(path, message, reason));
    }
    if let (Value::Array(items), Some(schema)) = (value, item(schema)) {
        for (at, value) in items.iter().enumerate() {
            check_shape(value, schema, &format!("{path}[{at}]"), violations);
        }
    }
    let Value::Object(fields) = value else { return };
    for key in schema.required.iter().flatten().filter(|key| !fields.contains_key(*key)) {
        violations.push(violation(&join(path, key), "must be given".to_owned(), FieldReason::Required));
    }
    for (key, value) in fields {
        if let Some(schema) = member(schema, key) {
            check_shape(value, schema, &join(path, key), violations);
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// 2^53: below it, every whole number is a float of its own. The server's JSON schema library draws the line here.
const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;

/// The type that `value` should have had.
fn wrong_type(value: &Value, schema: &JSONSchemaProps) -> Option<&'static str> {
    // A number without fraction is an integer, however it is written, as far as a float can tell one from the next.
    let is_exact = |number: f64| number.fract() == 0.0 && number.abs() < EXACT_FLOATS;
    let is_integer = value.is_i64() || value.as_f64().is_some_and(is_exact);
    let (fits, wanted) = match schema.type_.as_deref() {
        Some("object") => (value.is_object(), "an object"),
        Some("array") => (value.is_array(), "a list"),
        Some("string") => (value.is_string(), "a string"),
        Some("boolean") => (value.is_boolean(), "`true` or `false`"),
        Some("integer") => (is_integer, "a whole number"),
        Some("number") => (value.is_number(), "a number"),
        _ => (value.is_string() || is_integer, "a string"),
    };
    (!fits).then_some(wanted)
}

fn broken_limit(value: &Value, schema: &JSONSchemaProps) -> Option<(String, FieldReason)> {
    match value {
        Value::String(text) => {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if let Some(max) = schema.max_length.filter(|max| length > *max) {
                return Some((format!("must have at most {max} characters"), FieldReason::TooLong));
            }
            if let Some(min) = schema.min_length.filter(|min| length < *min) {
                return Some((format!("must have at least {min} characters"), FieldReason::Invalid));
            }
            let choices = schema.enum_.as_ref()?;
            if choices.iter().any(|choice| choice.0 == *value) {
                return None;
            }
            let choices: Vec<_> = choices.iter().filter_map(|choice| choice.0.as_str()).collect();
            Some((format!("must be one of `{}`", choices.join("`, `")), FieldReason::NotSupported))
        }
        Value::Number(number) => {
            let number = number.as_f64()?;
            if let Some(max) = schema.maximum.filter(|max| number > *max) {
                return Some((format!("must be at most {max}"), FieldReason::Invalid));
            }
            let min = schema.minimum.filter(|min| number < *min)?;
            Some((format!("must be at least {min}"), FieldReason::Invalid))
        }
        Value::Object(fields) => {
            let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
            let max = schema.max_properties.filter(|max| count > *max)?;
            Some((format!("must have at most {max} entries"), FieldReason::TooMany))
        }
        Value::Array(items) => {
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            let max = schema.max_items.filter(|max| count > *max)?;
            Some((format!("must have at most {max} items"), FieldReason::TooMany))
        }
        Value::Null | Value::Bool(_) => None,
    }
}

fn check_rule(object: &Value, rule: &Rule) -> Vec<Violation> {
    let (at, each) = match rule.at.strip_suffix(EACH) {
        Some(map) => (map.trim_end_matches('.'), true),
        None => (rule.at, false),
    };
    let Some(value) = at.split('.').filter(|key| !key.is_empty()).try_fold(object, |value, key| value.get(key)) else {
        return Vec::new();
    };
    let check = |value: &Value, path: &str| {
        let message = || detail(rule, value).unwrap_or_else(|| rule.message.clone());
        (!(rule.holds)(value)).then(|| violation(path, message(), rule.reason))
    };
    if each {
        // As the server writes the path of an entry.
        let entries = value.as_object().into_iter().flatten();
        return entries.filter_map(|(key, value)| check(value, &format!("{at}[{key}]"))).collect();
    }
    check(value, format!("{at}{}", rule.field).trim_start_matches('.')).into_iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn with(spec: &Value) -> Value {
        json!({ "metadata": { "name": "db" }, "spec": spec })
    }

    fn paths(object: &Value) -> Vec<String> {
        validate(object).into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn a_minimal_object_is_valid() {
        assert_eq!(validate(&with(&json!({ "name": "DB", "generate": {} }))), []);
        let spec = ManagedSecretSpec {
            name: "DB".to_owned(),
            generate: Some(crate::types::Generate::default()),
            ..ManagedSecretSpec::default()
        };
        assert_eq!(validate_spec("db", &spec), []);
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(
            paths(&with(&json!({ "name": "DB", "generate": {}, "value": null, "target": { "name": null } }))),
            [""; 0]
        );
        assert_eq!(paths(&with(&json!({ "name": "DB", "generate": null }))), ["spec"]);
        assert_eq!(paths(&with(&json!({ "name": null, "generate": {} }))), ["spec.name"]);
    }

    #[test]
    fn rules_see_the_name_of_the_object() {
        let source =
            |name: &str| json!({ "name": "DB", "valueFrom": { "secretKeyRef": { "name": name, "key": "k" } } });
        assert_eq!(paths(&with(&source("upstream"))), [""; 0]);
        assert_eq!(paths(&with(&source("db"))), ["spec.valueFrom.secretKeyRef.name"]);
    }

    #[test]
    fn rules_wait_until_the_shape_is_right() {
        assert_eq!(paths(&with(&json!({ "name": "a b", "value": "x", "suspend": "yes" }))), ["spec.suspend"]);
        assert_eq!(paths(&with(&json!({ "name": "a b", "value": "x" }))), ["spec.name", "spec.value"]);
    }

    #[test]
    fn things_that_are_no_objects_are_refused() {
        for object in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(paths(&object), [""]);
        }
        assert_eq!(paths(&json!({})), ["metadata.name", "spec"]);
        assert_eq!(paths(&with(&json!("x"))), ["spec"]);
    }

    #[test]
    fn fields_that_the_server_would_drop_are_found() {
        let mut object = with(&json!({
            "name": "DB", "valu": "x", "generate": { "length": 3, "charset": "x" },
            "target": { "labels": { "anything": "goes" }, "nmae": "x" },
        }));
        object["sepc"] = json!({});
        object["status"] = json!({ "anything": 1 });
        let mut unknown = unknown_fields(&object);
        unknown.sort();
        assert_eq!(unknown, ["sepc", "spec.generate.charset", "spec.target.nmae", "spec.valu"]);
    }

    #[test]
    fn no_violation_shows_what_the_field_holds() {
        const CANARY: &str = "c4n4ry!";
        for value in [json!(CANARY), json!({ CANARY: CANARY }), json!([CANARY]), json!(4_242_424), json!(true)] {
            for field in ["name", "description", "value", "valueFrom", "generate", "delivery", "target", "suspend"] {
                let mut object = with(&json!({ "name": "DB" }));
                object["spec"][field] = value.clone();
                let violations = validate(&object);
                let text = format!("{violations:?} {}", violations.iter().map(ToString::to_string).collect::<String>());
                assert!(!text.contains(CANARY) && !text.contains("4242424"), "{field}: {text}");
            }
        }
    }
}
