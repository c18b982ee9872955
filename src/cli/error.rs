//! What a command says when it fails, and its exit code: one place for both.

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

/// Exit codes, as documented in `--help`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was asked for.
    Done = 0,
    /// It failed, or the cluster refused.
    Failed = 1,
    /// It was called in a wrong way.
    Usage = 2,
    /// The cluster could not be reached.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Text of the exit codes for `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or refused by the cluster
  2  wrong usage: arguments, environment, or input that breaks a rule
  3  the cluster could not be reached";

/// Why a command failed: one line, without any part of a value.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Arguments, environment or input are wrong.
    #[error("{0}")]
    Usage(String),
    /// The command failed.
    #[error("{0}")]
    Failed(String),
    /// No cluster, or none that answers.
    #[error("{0}")]
    Unreachable(String),
    /// The command did its work, and has printed what it found: only the exit code is left to give.
    #[error("")]
    Found(Exit),
}

impl CliError {
    /// A failure in the words of `error` and its sources.
    pub fn failed(context: &str, error: &dyn Error) -> Self {
        Self::Failed(format!("{context}: {}", chain(error)))
    }

    /// No cluster, in the words of `error` and its sources.
    pub fn unreachable(context: &str, error: &dyn Error) -> Self {
        Self::Unreachable(format!("{context}: {}", chain(error)))
    }

    /// An error of a call to the cluster: an answer that refuses is a failure, no answer is an unreachable cluster.
    #[must_use]
    pub fn from_kube(context: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Failed(format!("{context}: {}", one_line(&status.message))),
            // Its text quotes the body that could not be decoded.
            kube::Error::SerdeError(_) => Self::Failed(format!("{context}: the answer could not be decoded")),
            other => Self::unreachable(context, other),
        }
    }

    /// The exit code that this error gives.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Failed(_) => Exit::Failed,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::Found(exit) => *exit,
        }
    }
}

/// An error and its sources, without those that the text before them already quotes.
fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let more = one_line(&error.to_string());
        if !text.contains(&more) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {more}");
        }
        source = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// clap's error as one line, without the usage below it.
pub(super) fn usage(error: &clap::Error) -> CliError {
    // A value given as an argument by mistake must not be repeated; an unknown option may be, it begins with a dash.
    let invalid = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument && !invalid.starts_with('-') {
        return CliError::Usage(
            "unexpected argument: a value is read from standard input, never from the command line".to_owned(),
        );
    }
    // Such as --value-stdin=VALUE: clap would quote it.
    if error.kind() == ErrorKind::TooManyValues {
        return CliError::Usage(format!(
            "{invalid} takes nothing behind it: a value is never read from the command line"
        ));
    }
    let text = error.to_string();
    let before_usage = text.split("\n\nUsage:").next().unwrap_or_default();
    let before_hint = before_usage.split("\n\nFor more information").next().unwrap_or_default();
    CliError::Usage(format!("{} (see --help)", one_line(before_hint.trim_start_matches("error: "))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn usage_of(arguments: &[&str]) -> String {
        let error = Cli::try_parse_from([&["managed-secrets"], arguments].concat()).expect_err("must be refused");
        usage(&error).to_string()
    }

    #[test]
    fn wrong_usage_is_one_line() {
        for arguments in [
            vec!["run", "--worker", "8"],
            vec!["run", "--workers", "many"],
            vec!["run", "--workers", "0"],
            vec!["run", "--log-format", "xml"],
            vec!["sale"],
            vec![],
            vec!["seal", "--scope"],
        ] {
            let text = usage_of(&arguments);
            assert!(!text.contains('\n') && !text.is_empty() && !text.contains("Usage"), "{text}");
        }
        assert!(usage_of(&["run", "--worker", "8"]).contains("'--worker'"));
        assert!(usage_of(&["run", "--log-format", "xml"]).contains("json"));
    }

    #[test]
    fn a_value_given_as_an_argument_is_not_repeated() {
        for arguments in [
            vec!["seal", "hunter2"],
            vec!["seal", "--name", "db", "--namespace", "prod", "hunter2"],
            vec!["seal", "--value=hunter2"],
            vec!["seal", "--value", "hunter2"],
            vec!["seal", "--", "hunter2"],
            vec!["run", "hunter2"],
        ] {
            assert!(!usage_of(&arguments).contains("hunter"), "{arguments:?}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_decoded_is_not_quoted() {
        let broken = serde_json::from_str::<u32>("\"hunter2\"").expect_err("not a number");
        assert!(broken.to_string().contains("hunter2"), "the premise: serde quotes what it read");
        let error = CliError::from_kube("cannot read", &kube::Error::SerdeError(broken));
        assert!(!error.to_string().contains("hunter"));
        assert_eq!(error.exit(), Exit::Failed);
    }
}
