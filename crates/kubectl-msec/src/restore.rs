//! `kubectl msec restore`: a backup into this cluster or another, with ids, dates, versions and values kept.
//!
//! ```text
//!  files ─▶ Archive ─┐
//!                    ├─▶ plan (pure) ─▶ asked ─▶ keys ─▶ records ─▶ ManagedSecrets ─▶ wait ─▶ compared with the backup
//!  cluster ─▶ Standing ┘                          create-only writes, in this order
//! ```
//!
//! Guarantees: the command overwrites and deletes nothing. An object that exists as in the backup stays. An object that
//! exists and differs is a conflict: the command reports it and continues with the others. After an interruption, the same
//! command continues, and a second run writes nothing.
//!
//! What `wait` relies on: a status counts only if it names the record and the target that exist. If every status is older
//! than this restore, none shows that the operator runs, and the command looks at its Deployment.
//!
//! A restored record has no owner reference, and the operator takes it over for the ManagedSecret that it names. Therefore
//! records come first. The command does not create a ManagedSecret whose record it could not restore: it would become a new
//! secret.

mod operator;
mod plan;
mod standing;
mod trust;
mod verify;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use managed_secrets_cli::names;
use managed_secrets_cli::{CliError, say};

use self::operator::Operator;
use self::plan::{Step, Verdict};
use self::trust::{Fingerprint, NewKeyring};
use super::archive::{Archive, Others, read_files};
use super::change::{DryRun, DryRunArgs};
use super::session::{ClusterArgs, Session};
use super::wait;

const EXAMPLES: &str = "\
Examples:
  # Show what restore would do; with server, the API server also checks each object
  kubectl msec restore backup.yaml --dry-run=client
  kubectl msec restore backup.yaml --dry-run=server

  # Into a new cluster, before the operator is installed: do not wait for it
  kubectl msec restore backup/ --create-namespaces --wait=false

  # If the operator already has its own keys: confirm the backup's keys by the fingerprint that `backup` printed
  kubectl msec restore backup/ --yes --accept-keyring 3f1b…

  # Later, when the operator runs: write nothing, and compare ids, dates and versions with the backup
  kubectl msec restore backup/ --yes

It overwrites and deletes nothing. If the admission policies are installed, only restorers may do this:
managed-secrets manifests --restorer USER.";

/// Arguments of `restore`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct RestoreArgs {
    /// Files that `backup` wrote, folders of such files, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Whether to do it.
    #[command(flatten)]
    pub dry_run: DryRunArgs,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Restore the keyring with this SHA-256 fingerprint, and no other keyring; may be given several times. A keyring that
    /// is added to the operator's own needs this flag, or your confirmation on a terminal
    #[arg(long = "accept-keyring", value_name = "SHA256", value_delimiter = ',')]
    pub accepted_keyrings: Vec<Fingerprint>,

    /// Create the namespaces that are missing
    #[arg(long)]
    pub create_namespaces: bool,

    /// Wait until everything restored is delivered, and compare it with the backup
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set)]
    pub wait: bool,

    /// How long to wait, such as 90s or 10m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = wait::timeout)]
    pub timeout: Duration,

    /// Namespace to restore the keys into; when absent, their namespace in the backup
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        value_parser = names::namespace)]
    pub operator_namespace: Option<String>,
}

/// Restores a backup.
pub(super) async fn restore(cluster: &ClusterArgs, args: &RestoreArgs) -> Result<(), CliError> {
    let archive = read(&args.files)?;
    if archive.len() == 0 {
        return Err(CliError::Usage("no object to restore found in these files".to_owned()));
    }
    let dry_run = args.dry_run.dry_run;
    let asks = dry_run == DryRun::None && !args.yes;
    if asks && (!say::can_ask() || args.files.iter().any(|file| file == Path::new("-"))) {
        return Err(CliError::Usage("confirm the restore on a terminal, or with --yes".to_owned()));
    }
    let destination = cluster.connection()?.server_with_path();
    let session = Session::open(cluster)?;
    let (archive, own) = archive.of_operator(args.operator_namespace.as_deref()).map_err(CliError::Usage)?;
    let standing = standing::of(&session, &archive, &own).await?;
    if !standing.missing_namespaces.is_empty() && !args.create_namespaces {
        return Err(CliError::Failed(format!(
            "namespaces not found: {}; create them, or use --create-namespaces",
            standing.missing_namespaces.join(", ")
        )));
    }
    let plan = plan::plan(archive, &standing, &own, Timestamp::now()).map_err(CliError::Failed)?;
    for note in plan.new_keyrings.iter().map(NewKeyring::note).chain(plan.notes.iter().cloned()) {
        say::tell(format_args!("note: {note}"));
    }
    for warning in &plan.warnings {
        say::tell_boldly(format_args!("warning: {warning}"));
    }
    if dry_run == DryRun::None {
        confirm_keyrings(&plan.new_keyrings, &args.accepted_keyrings, asks)?;
    }
    if asks && plan.creates() > 0 && !say::ask(format_args!("Create {} in {destination}?", plan.summary()))? {
        return Err(CliError::Failed("nothing was written".to_owned()));
    }
    let steps = write::all(&session, plan.steps, &standing.missing_namespaces, dry_run, &own).await?;
    finish(&session, args, &steps, &own).await
}

/// Asks the user to confirm keyrings: by their fingerprints, or one by one on the terminal.
fn confirm_keyrings(new: &[NewKeyring], accepted: &[Fingerprint], asks: bool) -> Result<(), CliError> {
    let unconfirmed = trust::unconfirmed(new, accepted);
    if unconfirmed.is_empty() {
        return Ok(());
    }
    if !asks || !accepted.is_empty() {
        return Err(trust::refusal(&unconfirmed));
    }
    for keyring in unconfirmed {
        if !say::ask(trust::question(keyring))? {
            return Err(CliError::Failed("nothing was written".to_owned()));
        }
    }
    Ok(())
}

/// Prints the result, waits, and compares.
async fn finish(session: &Session, args: &RestoreArgs, steps: &[Step], own: &str) -> Result<(), CliError> {
    let count = |verdict: fn(&Verdict) -> bool| steps.iter().filter(|step| verdict(&step.verdict)).count();
    let created = count(|verdict| *verdict == Verdict::Create);
    let there = count(|verdict| matches!(verdict, Verdict::There(_)));
    let conflicts = count(|verdict| matches!(verdict, Verdict::Conflict(_)));
    let is_done = args.dry_run.dry_run == DryRun::None;
    let would = if is_done { "created" } else { "to create" };
    say::tell(format_args!("note: {created} {would}, {there} already there, {conflicts} not restored"));
    let mut wrong = (conflicts > 0).then(|| format!("{conflicts} of {} objects were not restored", steps.len()));
    if is_done && args.wait {
        let found = verify::wait(session, &verify::expected(steps), args.timeout).await?;
        for line in &found.lines {
            say::print_line(line)?;
        }
        let operator =
            if found.asks_for_the_operator() { operator::look(session, own).await } else { Operator::Proven };
        if let Some(error) = found.error(&operator) {
            wrong = Some(wrong.map_or_else(|| error.clone(), |wrong| format!("{wrong}; {error}")));
        } else if let Some(note) = operator.note() {
            say::tell(format_args!("note: {note}"));
        }
    }
    wrong.map_or(Ok(()), |wrong| Err(CliError::Failed(format!("{wrong}; see above"))))
}

/// Reads the files.
fn read(files: &[PathBuf]) -> Result<Archive, CliError> {
    let intake = read_files(files, Others::Refuse)?;
    if intake.targets > 0 {
        say::tell(format_args!(
            "note: restore skips {} delivered Secrets: the operator delivers them again from the records",
            intake.targets
        ));
    }
    Ok(intake.archive)
}
