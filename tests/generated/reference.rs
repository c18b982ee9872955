//! `docs/api.md` and `docs/reasons.md`, written from what the API server and the operator use themselves.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use managed_secrets_api::{Reason, crd};

/// `docs/api.md`: every field, its type and its rules.
pub(super) fn fields() -> String {
    let crd = crd::crd();
    let mut page = introduction(&crd);
    for version in &crd.spec.versions {
        let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) else {
            continue;
        };
        let part = |name: &str| schema.properties.as_ref().and_then(|properties| properties.get(name));
        if let Some(spec) = part("spec") {
            page.push_str("\n## `spec`: what you write\n");
            for rule in rules(spec) {
                let _ = writeln!(page, "\nIt {rule}.");
            }
            page.push_str("\n| field | type | what it is | rules |\n|---|---|---|---|\n");
            for (path, field, required) in fields_of(spec, "spec") {
                let mut rules = rules(field);
                if required {
                    rules.insert(0, "must be given".to_owned());
                }
                let rules = rules.join("; ").replace('|', "\\|");
                let _ = writeln!(page, "| `{path}` | {} | {} | {rules} |", type_name(field), text(field));
            }
            page.push_str("\nRules across fields:\n\n");
            across(schema, "", &mut page);
        }
        if let Some(status) = part("status") {
            page.push_str("\n## `status`: what the operator answers\n\n| field | type | what it is |\n|---|---|---|\n");
            for (path, field, _) in fields_of(status, "status") {
                let _ = writeln!(page, "| `{path}` | {} | {} |", type_name(field), text(field));
            }
        }
        page.push_str("\n## Columns\n\nWhat `kubectl get managedsecrets` shows; those marked wide with `-o wide`.\n\n");
        page.push_str("| column | from | what it is |\n|---|---|---|\n");
        for column in version.additional_printer_columns.iter().flatten() {
            let wide = if column.priority.is_some_and(|priority| priority > 0) { " (wide)" } else { "" };
            let text = column.description.as_deref().unwrap_or_default();
            let _ = writeln!(page, "| {}{wide} | `{}` | {text} |", column.name.to_uppercase(), column.json_path);
        }
        page.push_str("\n## Field selectors\n\n");
        for field in version.selectable_fields.iter().flatten() {
            let _ = writeln!(page, "* `{}`", field.json_path.trim_start_matches('.'));
        }
        page.push_str(
            "\n`kubectl get msec --field-selector spec.name=WEATHER_API_KEY` finds a secret by its name. In a selector, `\\`, `=` \
             and `,` are escaped with a backslash.\n",
        );
    }
    page
}

/// `docs/reasons.md`: every reason, what it means and what to do.
pub(super) fn reasons() -> String {
    let mut page = String::from(
        "# Reasons\n\nWhat the conditions of a ManagedSecret, and the events about it, give as reason. An event \
         reports what the operator repairs or takes over, and what changes: a failure, its end, suspension, a new value. Only \
         the status reports the first delivery.\n\n\
         | reason | what it means, and what to do |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} |", reason.description());
    }
    page
}

fn introduction(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let version = crd.spec.versions.first().map(|version| version.name.as_str()).unwrap_or_default();
    format!(
        "# {}\n\n`apiVersion: {}/{version}`, `kind: {}`, short name `{}`. A namespaced resource.\n\n\
         The API server checks every rule below when an object is written, also with the operator down and in \
         `kubectl apply --dry-run=server`. No field of `spec` is defaulted in the stored object: what you applied is what \
         you read. A field that is null counts as absent. The reasons of conditions are explained in \
         [reasons.md](reasons.md).\n",
        names.kind,
        crd.spec.group,
        names.kind,
        names.short_names.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("`, `"),
    )
}

/// Every field inside `schema` with its path and whether it is required, outer ones first.
fn fields_of<'a>(schema: &'a JSONSchemaProps, path: &str) -> Vec<(String, &'a JSONSchemaProps, bool)> {
    let mut fields = Vec::new();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let inner = fields_of(field, &path);
        let items = match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => fields_of(item, &format!("{path}[]")),
            _ => Vec::new(),
        };
        fields.push((path, field, schema.required.iter().flatten().any(|required| required == name)));
        fields.extend(inner);
        fields.extend(items);
    }
    fields
}

/// The rules that sit on one field and speak of another.
fn across(schema: &JSONSchemaProps, path: &str, page: &mut String) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        if let (Some(field), Some(message)) = (&rule.field_path, &rule.message) {
            let _ = writeln!(page, "* `{}` {message}.", format!("{path}{field}").trim_start_matches('.'));
        }
    }
    for (name, field) in schema.properties.iter().flatten() {
        across(field, &format!("{path}.{name}"), page);
    }
}

fn text(field: &JSONSchemaProps) -> String {
    field.description.as_deref().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

fn type_name(field: &JSONSchemaProps) -> &str {
    match (field.type_.as_deref(), &field.additional_properties) {
        (Some("object"), Some(_)) => "map of strings",
        (Some("object"), None) => "object",
        (Some("array"), _) => "list",
        (Some("integer"), _) => "integer",
        (Some("boolean"), _) => "boolean",
        _ if field.format.as_deref() == Some("date-time") => "RFC 3339 time",
        _ => "string",
    }
}

/// What must hold for a field, as phrases that begin with "must".
fn rules(field: &JSONSchemaProps) -> Vec<String> {
    let mut rules = Vec::new();
    match (field.min_length, field.max_length) {
        (Some(min), Some(max)) => rules.push(format!("must have {min} to {max} characters")),
        (None, Some(max)) => rules.push(format!("must have at most {max} characters")),
        _ => {}
    }
    match (field.minimum, field.maximum) {
        (Some(min), Some(max)) => rules.push(format!("must be {min} to {max}")),
        (Some(min), None) => rules.push(format!("must be at least {min}")),
        _ => {}
    }
    if let Some(choices) = &field.enum_ {
        let choices: Vec<_> = choices.iter().filter_map(|choice| choice.0.as_str()).collect();
        rules.push(format!("must be one of `{}`", choices.join("`, `")));
    }
    if let Some(max) = field.max_properties.or(field.max_items) {
        rules.push(format!("must have at most {max} entries"));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &field.additional_properties
        && let Some(max) = value.max_length
    {
        rules.push(format!("must have values of at most {max} characters"));
    }
    let each = match &field.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(value)) => value.x_kubernetes_validations.as_deref().unwrap_or_default(),
        _ => &[],
    };
    let written = field.x_kubernetes_validations.iter().flatten().filter(|rule| rule.field_path.is_none());
    rules.extend(written.chain(each).filter_map(|rule| rule.message.clone()));
    rules
}
