//! How objects are shown: `-o`.

use std::str::FromStr;

use clap::Args;
use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, say, yaml};
use serde_json::Value;

use super::jsonpath::Template;

/// How objects are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// How it is shown: table, wide, json, yaml, name or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// A way of showing objects.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// The columns of `kubectl get`, aligned.
    Table,
    /// More columns.
    Wide,
    /// The objects themselves.
    Object(Format),
}

/// A way of showing objects themselves, as opposed to columns about them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Format {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// `managedsecret.managedsecrets.dev/OBJECT`, one a line.
    Name,
    /// By a template of kubectl's.
    JsonPath(JsonPath),
}

/// A JSONPath template, read and sound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JsonPath(pub(super) Template);

impl OutputArgs {
    /// The format of a command that shows one object and no columns, as `kubectl create` does; none where none is asked
    /// for.
    pub(super) fn format(&self) -> Result<Option<&Format>, CliError> {
        match &self.output {
            None => Ok(None),
            Some(Output::Object(format)) => Ok(Some(format)),
            Some(Output::Table | Output::Wide) => {
                Err(CliError::Usage("--output: must be json, yaml, name or jsonpath=TEMPLATE here".to_owned()))
            }
        }
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "table" => Self::Table,
            "wide" => Self::Wide,
            "json" => Self::Object(Format::Json),
            "yaml" => Self::Object(Format::Yaml),
            "name" => Self::Object(Format::Name),
            _ => {
                let template = text
                    .strip_prefix("jsonpath=")
                    .ok_or_else(|| "must be table, wide, json, yaml, name or jsonpath=TEMPLATE".to_owned())?;
                Self::Object(Format::JsonPath(JsonPath(Template::parse(template).map_err(|error| error.to_string())?)))
            }
        })
    }
}

impl Format {
    /// Prints an object, or a list with its `items`.
    pub(super) fn print(&self, object: &Value) -> Result<(), CliError> {
        match self {
            Self::Json => {
                let text = serde_json::to_string_pretty(object)
                    .map_err(|error| CliError::failed("cannot print JSON", &error))?;
                say::print_document(&format!("{text}\n"))
            }
            Self::Yaml => say::print_document(&yaml::document(object)?),
            Self::Name => items(object).into_iter().map(name).collect::<Lines>().print(),
            Self::JsonPath(JsonPath(template)) => say::print_document(&template.fill(object)),
        }
    }
}

fn items(object: &Value) -> Vec<&Value> {
    object.get("items").and_then(Value::as_array).map_or_else(|| vec![object], |items| items.iter().collect())
}

/// `kind.group/name`, as kubectl writes it.
fn name(object: &Value) -> String {
    reference(object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default())
}

/// A ManagedSecret as kubectl names it in its answers: `managedsecret.managedsecrets.dev/OBJECT`.
pub(super) fn reference(object: &str) -> String {
    format!("{}.{GROUP}/{object}", KIND.to_lowercase())
}

/// Drops what only servers care about, as kubectl does where nothing else is said.
pub(super) fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_is_read_and_a_wrong_one_says_which_there_are() {
        for text in ["table", "wide", "json", "yaml", "name", "jsonpath={.status.id}"] {
            assert!(text.parse::<Output>().is_ok(), "{text}");
        }
        assert!("xml".parse::<Output>().unwrap_err().contains("jsonpath=TEMPLATE"));
        assert!("jsonpath={.a".parse::<Output>().unwrap_err().contains("brace"));
    }

    #[test]
    fn names_are_kubectls() {
        assert_eq!(name(&json!({"metadata": {"name": "db"}})), "managedsecret.managedsecrets.dev/db");
        assert_eq!(items(&json!({"items": [1, 2]})).len(), 2);
        assert_eq!(items(&json!({"kind": "x"})).len(), 1);
    }
}
