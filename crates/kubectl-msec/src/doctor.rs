//! `kubectl msec doctor`: checks an installation, and says what to do about each problem.
//!
//! ```text
//!  cluster ──reads──▶ Facts ──▶ checks (pure, one table) ──▶ findings ──▶ text or JSON, and the exit code
//! ```
//!
//! It only reads, and never a value: of records and keys it reads metadata, and of the keyring encrypted seeds. What the
//! user may not read is unknown, with the missing permission, and is not a failure.

mod checks;
mod facts;
mod finding;

use std::io::IsTerminal as _;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::Args;
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;
use managed_secrets_cli::names;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, say};
use serde_json::json;

use self::finding::{Finding, Level};
use super::output::ReportFormat;
use super::session::{ClusterArgs, Session};

const EXAMPLES: &str = "\
Examples:
  kubectl msec doctor
  kubectl msec doctor --operator-namespace team-a-secrets
  kubectl msec doctor -o json | jq '.findings[] | select(.level == \"problem\")'

The exit code is 0 without problems, and 1 with problems. What you may not read is \"unknown\", which is not a problem.";

/// Arguments of `doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Namespace of the operator
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: ReportFormat,
}

/// Checks an installation.
pub(super) async fn doctor(cluster: &ClusterArgs, args: &DoctorArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let facts = Box::pin(facts::read(&session, &args.operator_namespace)).await?;
    let findings: Vec<_> = checks::CHECKS.iter().flat_map(|check| check.findings(&facts)).collect();
    match args.output {
        ReportFormat::Text => text(&findings, Look::of_standard_output()).print()?,
        ReportFormat::Json => {
            let all = json!({"operatorNamespace": args.operator_namespace, "findings": findings});
            say::print_json(&all)?;
        }
    }
    match findings.iter().filter(|finding| finding.level == Level::Problem).count() {
        0 => Ok(()),
        1 => Err(CliError::Failed("1 problem".to_owned())),
        problems => Err(CliError::Failed(format!("{problems} problems"))),
    }
}

/// Whether text has signs and colours, which are for terminals.
#[derive(Clone, Copy, Debug)]
struct Look {
    signs: bool,
    colours: bool,
}

impl Look {
    fn of_standard_output() -> Self {
        let out = std::io::stdout();
        Self { signs: out.is_terminal(), colours: AutoStream::choice(&out) != ColorChoice::Never }
    }
}

/// A line for each finding, and below it what to do.
fn text(findings: &[Finding], look: Look) -> Lines {
    let mut text = Lines::new();
    for finding in findings {
        let (sign, colour) = match finding.level {
            Level::Ok => ("✓", AnsiColor::Green),
            Level::Note => ("·", AnsiColor::Cyan),
            Level::Warning => ("!", AnsiColor::Yellow),
            Level::Problem => ("✗", AnsiColor::Red),
            Level::Unknown => ("?", AnsiColor::Magenta),
        };
        let style = if look.colours { colour.on_default() } else { Style::new() };
        let word = finding.level.as_str();
        let mark = if look.signs { sign.to_owned() } else { format!("{word:<8}") };
        text.styled(&mark, style, format_args!(" {}: {}", finding.check, finding.what));
        if let Some(todo) = &finding.todo {
            let arrow = if look.signs { "  → " } else { "         do: " };
            text.line(format_args!("{arrow}{todo}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_for_terminals_and_words_for_pipes() {
        let findings = [Finding::ok("a", "fine"), Finding::new(Level::Problem, "b", "broken", "mend it")];
        let pipe = text(&findings, Look { signs: false, colours: false });
        assert_eq!(pipe.as_str(), "ok       a: fine\nproblem  b: broken\n         do: mend it\n");
        let terminal = text(&findings, Look { signs: true, colours: false });
        assert_eq!(terminal.as_str(), "✓ a: fine\n✗ b: broken\n  → mend it\n");
        let coloured = text(&findings, Look { signs: true, colours: true });
        assert_eq!(anstream::adapter::strip_str(coloured.as_str()).to_string(), terminal.as_str());
    }
}
