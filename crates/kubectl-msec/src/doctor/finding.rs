//! What a check finds, and the result of a read.

use serde::Serialize;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, but should be corrected.
    Warning,
    /// Does not work, or will stop working.
    Problem,
    /// Could not be read.
    Unknown,
}

impl Level {
    /// The word for it, as JSON has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Unknown => "unknown",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// How serious it is.
    pub(super) level: Level,
    /// Which check found it.
    pub(super) check: &'static str,
    /// What the check found.
    pub(super) what: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(super) todo: Option<String>,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, what: what.into(), todo: None }
    }

    /// A finding with something to do.
    pub(super) fn new(level: Level, check: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level, check, what: what.into(), todo: Some(todo.into()) }
    }
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Read<T> {
    /// It was read.
    Known(T),
    /// It was not read: the missing permission as `kubectl auth can-i` names it, or the error.
    Unknown(String),
}

impl<T> Read<T> {
    /// What was read, or else the finding that it is unknown.
    pub(super) fn known(&self, check: &'static str) -> Result<&T, Finding> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown(why) => {
                Err(Finding { level: Level::Unknown, check, what: format!("cannot be checked: {why}"), todo: None })
            }
        }
    }
}
