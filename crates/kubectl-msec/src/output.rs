//! How objects are shown: `-o`.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, say, yaml};
use serde_json::Value;

/// How objects are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// How it is shown: table, wide, json, yaml or name
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// A way of showing objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// The columns of `kubectl get`, aligned.
    Table,
    /// More columns.
    Wide,
    /// The objects themselves.
    Object(Format),
}

/// A way of showing objects themselves, as opposed to columns about them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// `managedsecret.managedsecrets.dev/OBJECT`, one a line.
    Name,
}

/// How a report is shown: `doctor` and `can-read`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each entry
    #[default]
    Text,
    /// JSON, for programs
    Json,
}

/// The answer to a template. kubectl has its own: a second implementation would be a dialect of them.
const NO_TEMPLATES: &str = "templates are not supported; use those of kubectl: \
    `kubectl get \"$(kubectl msec get NAME -o name)\" -o jsonpath=TEMPLATE`";

impl OutputArgs {
    /// The format of a command that shows one object and no columns, as `kubectl create` does; `None` by default.
    pub(super) fn format(&self) -> Result<Option<&Format>, CliError> {
        match &self.output {
            None => Ok(None),
            Some(Output::Object(format)) => Ok(Some(format)),
            Some(Output::Table | Output::Wide) => {
                Err(CliError::Usage("--output: must be json, yaml or name here".to_owned()))
            }
        }
    }
}

impl FromStr for Output {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "table" => Self::Table,
            "wide" => Self::Wide,
            "json" => Self::Object(Format::Json),
            "yaml" => Self::Object(Format::Yaml),
            "name" => Self::Object(Format::Name),
            _ if text.starts_with("jsonpath") || text.starts_with("go-template") => return Err(NO_TEMPLATES),
            _ => return Err("must be table, wide, json, yaml or name"),
        })
    }
}

impl Format {
    /// Prints an object, or a list with its `items`.
    pub(super) fn print(self, object: &Value) -> Result<(), CliError> {
        match self {
            Self::Json => say::print_json(object),
            Self::Yaml => say::print_document(&yaml::document(object)?),
            Self::Name => items(object).into_iter().map(name).collect::<Lines>().print(),
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

/// A value as text: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Drops what only servers care about, as kubectl does by default.
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
        for text in ["table", "wide", "json", "yaml", "name"] {
            assert!(text.parse::<Output>().is_ok(), "{text}");
        }
        assert!("xml".parse::<Output>().unwrap_err().contains("yaml or name"));
        for template in ["jsonpath", "jsonpath={.status.id}", "go-template={{.kind}}"] {
            assert!(template.parse::<Output>().unwrap_err().contains("kubectl get"), "{template}");
        }
    }

    #[test]
    fn names_are_kubectls() {
        assert_eq!(name(&json!({"metadata": {"name": "db"}})), "managedsecret.managedsecrets.dev/db");
        assert_eq!(items(&json!({"items": [1, 2]})).len(), 2);
        assert_eq!(items(&json!({"kind": "x"})).len(), 1);
    }
}
