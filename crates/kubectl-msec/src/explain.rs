//! `kubectl msec explain`: the reason of a condition in words, and what to do about it.

use clap::Args;
use managed_secrets_api::Reason;
use managed_secrets_cli::{CliError, say};

use super::completion;

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The reason, as `kubectl msec get` shows it; all of them when absent
    #[arg(value_name = "REASON", add = completion::reasons())]
    pub reason: Option<String>,
}

/// Explains one reason, or lists all.
pub(super) fn explain(args: &ExplainArgs) -> Result<(), CliError> {
    let Some(wanted) = &args.reason else {
        return say::print_document(&Reason::ALL.iter().map(|reason| text(*reason)).collect::<Vec<_>>().join("\n"));
    };
    let found = Reason::ALL.iter().find(|reason| reason.as_str().eq_ignore_ascii_case(wanted));
    found.map_or_else(
        || Err(CliError::Usage("reason not found; run `kubectl msec explain` to see all reasons".to_owned())),
        |reason| say::print_document(&text(*reason)),
    )
}

/// The reason, and its description below it.
fn text(reason: Reason) -> String {
    format!("{reason}\n  {}\n", reason.description().replace('`', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_in_either_case() {
        for reason in ["NameInUse", "nameinuse"] {
            assert!(explain(&ExplainArgs { reason: Some(reason.to_owned()) }).is_ok());
        }
        assert!(explain(&ExplainArgs { reason: Some("NameInUs".to_owned()) }).is_err());
        assert!(text(Reason::NameInUse).starts_with("NameInUse\n  Another object"));
    }
}
