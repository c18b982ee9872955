//! `managed-secrets kms check`: the conformance test of a KMS plugin. It needs no cluster.

use std::time::Duration;

use managed_secrets_cli::{
    CliError, connect,
    say::{self, Lines},
};
use managed_secrets_kms::check::{self, Level, Report};

use crate::args::{KmsCheckArgs, KmsCommand, ReportFormat};

/// Runs a command of `kms`.
pub(super) fn kms(command: &KmsCommand) -> Result<(), CliError> {
    match command {
        KmsCommand::Check(args) => run(args),
    }
}

fn run(args: &KmsCheckArgs) -> Result<(), CliError> {
    let timeout = Duration::from_secs(args.timeout.into());
    connect::block_on(async {
        let report = check::check(&args.socket, timeout).await;
        match args.output {
            ReportFormat::Text => text(&report).print()?,
            ReportFormat::Json => say::print_json(&report)?,
        }
        let failed = report.count(Level::Failed);
        match failed {
            0 => Ok(()),
            1 => Err(CliError::Failed("1 check failed".to_owned())),
            _ => Err(CliError::Failed(format!("{failed} checks failed"))),
        }
    })
}

fn text(report: &Report) -> Lines {
    let mut lines = Lines::new();
    for check in &report.checks {
        lines.line(format_args!("{:<8} {}: {}", check.level.as_str(), check.name, check.message));
    }
    lines
}
