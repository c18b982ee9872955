//! What a command says when it fails, and its exit code: one place for both.

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};

use super::connect::CredentialsError;

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
pub const EXIT_CODES: &str = "\
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
    pub fn failed(context: &str, error: &(dyn Error + 'static)) -> Self {
        Self::Failed(format!("{context}: {}", chain(error)))
    }

    /// No cluster, in the words of `error` and its sources.
    pub fn unreachable(context: &str, error: &(dyn Error + 'static)) -> Self {
        Self::Unreachable(format!("{context}: {}", chain(error)))
    }

    /// An error of a call to the cluster: an answer that refuses is a failure, no answer is an unreachable cluster.
    #[must_use]
    pub fn from_kube(context: &str, error: &kube::Error) -> Self {
        match error {
            // No answer of an API server: kube then takes the whole body, whatever it holds, for the message.
            kube::Error::Api(status) if status.reason == NO_STATUS => {
                Self::Failed(format!("{context}: the answer was HTTP {} without a Kubernetes status", status.code))
            }
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

/// The message about a cluster without the CustomResourceDefinition.
pub const NOT_INSTALLED: &str = "the ManagedSecret resource is not installed in this cluster; install it with \
     `managed-secrets crd | kubectl apply -f -`";

/// Whether an API server answered that it does not have the resource at all, as opposed to one object of it: 404
/// without an object's name, as a Status or, from the API server's handler of custom resources, as its plain text.
#[must_use]
pub fn lacks_resource(status: &kube::core::Status) -> bool {
    let of_no_object = status.details.as_ref().is_none_or(|details| details.name.is_empty());
    let plain = status.reason == NO_STATUS;
    status.code == 404 && if plain { status.message.trim() == "404 page not found" } else { of_no_object }
}

/// The reason that kube gives an answer whose body is no Kubernetes status.
const NO_STATUS: &str = "Failed to parse error data";

/// An error and its sources, without those that the text before them already quotes. What quotes what it read, or what
/// a credential plugin printed, is not quoted: a kubeconfig and a plugin's answer hold credentials, and an
/// unexpected file may hold anything.
fn chain(error: &(dyn Error + 'static)) -> String {
    if let Some(text) = sources(error).find_map(quoting) {
        return text;
    }
    let mut text = one_line(&error.to_string());
    for more in sources(error).skip(1).map(|error| one_line(&error.to_string())) {
        if !text.contains(&more) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {more}");
        }
    }
    text
}

/// An error, what caused it, and so on.
fn sources<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

/// What to say of an error whose own text may repeat what it was about.
fn quoting(error: &(dyn Error + 'static)) -> Option<String> {
    use kube::client::AuthError;

    if let Some(error) = error.downcast_ref::<serde_json::Error>() {
        return Some(format!(
            "the JSON is invalid or has an unexpected shape (line {}, column {})",
            error.line(),
            error.column()
        ));
    }
    if error.is::<serde_saphyr::Error>() {
        return Some("the YAML is invalid or has an unexpected shape".to_owned());
    }
    if let Some(error) = error.downcast_ref::<CredentialsError>() {
        return Some(error.to_string());
    }
    error.downcast_ref::<AuthError>().map(|_| "the credentials of the service account cannot be used".to_owned())
}

/// Text in one line, and without characters that a terminal would obey.
#[must_use]
pub fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// clap's error as one line, without the usage below it.
///
/// A value that was given as an argument by mistake must not be repeated, wherever it stands: so no text of clap's that
/// quotes an argument is taken, but for the names of our own options.
#[must_use]
pub fn usage(error: &clap::Error) -> CliError {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let (argument, hint) = (context(ContextKind::InvalidArg), " (see --help)");
    let text = match error.kind() {
        ErrorKind::UnknownArgument if !argument.starts_with('-') || argument.starts_with("--value") => {
            return CliError::Usage(
                "unexpected argument: a value is read from standard input, never from the command line".to_owned(),
            );
        }
        ErrorKind::UnknownArgument => match context(ContextKind::SuggestedArg) {
            known if known.is_empty() => {
                "unknown option; put -- before a name or file that begins with -, as in \"value -- -NAME\"".to_owned()
            }
            known => {
                format!("unknown option; a similar one is {known}; put -- before a name that begins with -")
            }
        },
        ErrorKind::InvalidSubcommand => match context(ContextKind::SuggestedSubcommand) {
            known if known.is_empty() => "unknown command".to_owned(),
            known => format!("unknown command; a similar one is {known}"),
        },
        ErrorKind::InvalidValue => match context(ContextKind::ValidValue) {
            values if values.is_empty() => format!("{argument} needs a value"),
            values => format!("{argument} must be one of {values}"),
        },
        ErrorKind::ValueValidation => {
            let why = error.source().map(|error| one_line(&error.to_string())).unwrap_or_default();
            format!("{argument} has an invalid value: {why}")
        }
        // Such as --value-stdin=VALUE.
        ErrorKind::TooManyValues => {
            return CliError::Usage(format!(
                "{argument} takes no argument: a value is never read from the command line"
            ));
        }
        _ => {
            let text = error.to_string();
            let before_usage = text.split("\n\nUsage:").next().unwrap_or_default();
            let before_hint = before_usage.split("\n\nFor more information").next().unwrap_or_default();
            one_line(before_hint.trim_start_matches("error: "))
        }
    };
    CliError::Usage(format!("{text}{hint}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_printed_is_not_quoted() {
        let status = kube::core::Status::failure("<html>hunter2</html>", NO_STATUS).with_code(502);
        let told = CliError::from_kube("cannot read", &kube::Error::Api(Box::new(status)));
        assert_eq!(told.to_string(), "cannot read: the answer was HTTP 502 without a Kubernetes status");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let status = kube::core::Status::failure("a\n\u{1b}[31mb\u{7}", "Invalid").with_code(422);
        let told = CliError::from_kube("refused", &kube::Error::Api(Box::new(status)));
        assert_eq!(told.to_string(), "refused: a [31mb");
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
