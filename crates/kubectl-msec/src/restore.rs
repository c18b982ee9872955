//! `kubectl msec restore`: a backup into this cluster or another, with ids, dates, versions and values kept.
//!
//! ```text
//!  files ─▶ Archive ─┐
//!                    ├─▶ plan (pure) ─▶ asked ─▶ keys ─▶ records ─▶ ManagedSecrets ─▶ wait ─▶ compared with the backup
//!  cluster ─▶ Standing ┘                          create-only writes, in this order
//! ```
//!
//! Guarantees: nothing that exists is overwritten or deleted. What is there as the backup has it is left, what is there
//! otherwise is a conflict that is told, and everything else goes on. So a restore that was interrupted is run again,
//! and a second run writes nothing.
//!
//! What `wait` believes: a status speaks of this restore only if it names the record and the target that stand. One
//! that is older than this restore says nothing about the operator, whose Deployment is looked at then.
//!
//! A record carries no owner, so the operator takes it over for the ManagedSecret of its name: that is why records come
//! first. A ManagedSecret whose record could not be restored is not created: it would become a new secret.

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
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;
use managed_secrets_cli::names;
use managed_secrets_cli::{CliError, say};

use self::operator::Operator;
use self::plan::{Step, Verdict};
use self::trust::{Fingerprint, NewKeyring};
use super::archive::{Archive, Intake, manifests_in};
use super::change::{DryRun, DryRunArgs};
use super::session::{ClusterArgs, Session};
use super::wait;

const EXAMPLES: &str = "\
Examples:
  # Show what restore would do; the second also asks the cluster's admission
  kubectl msec restore backup.yaml --dry-run=client
  kubectl msec restore backup.yaml --dry-run=server

  # Into a new cluster, before the operator is installed: do not wait for it
  kubectl msec restore backup/ --create-namespaces --wait=false

  # Where the operator has keys of its own: confirm the backup's keys by the fingerprint that `backup` printed
  kubectl msec restore backup/ --yes --accept-keyring 3f1b…

  # Again when the operator runs: write nothing, and compare ids, dates and versions with the backup
  kubectl msec restore backup/ --yes

Nothing that exists is overwritten or deleted. Where the admission policies are installed, only restorers may do this:
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

    /// Restore the keyring with this SHA-256 fingerprint, and no other; may be given several times. A keyring that
    /// joins the operator's own is restored only so, or when you confirm it on a terminal
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

    /// Namespace that keys are restored into; when absent the one that the backup has them in
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
    let archive = in_namespace_of_keys(archive, args.operator_namespace.as_deref());
    let own = namespace_of_keys(&archive, args.operator_namespace.as_deref());
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

/// Keyrings in doubt are confirmed by their fingerprints, or one by one on the terminal.
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

/// Says what came of it, waits, and compares.
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
        }
    }
    wrong.map_or(Ok(()), |wrong| Err(CliError::Failed(format!("{wrong}; see above"))))
}

/// What the files hold.
fn read(files: &[PathBuf]) -> Result<Archive, CliError> {
    let mut intake = Intake::default();
    for file in files {
        let paths = if file.is_dir() { manifests_in(file)? } else { vec![file.clone()] };
        for path in paths {
            let shown = path.display();
            let text = if path == Path::new("-") {
                std::io::read_to_string(std::io::stdin().lock())
            } else {
                std::fs::read_to_string(&path)
            };
            // Held by this process alone, which wipes what it frees.
            let text = zeroize::Zeroizing::new(text.map_err(|error| CliError::Usage(format!("{shown}: {error}")))?);
            intake.add(&text).map_err(|rule| CliError::Usage(format!("{shown}: {rule}")))?;
        }
    }
    if intake.targets > 0 {
        say::tell(format_args!(
            "note: {} delivered Secrets are left out: they are delivered again from the records",
            intake.targets
        ));
    }
    Ok(intake.archive)
}

/// Keys go where the operator is, which another cluster may have elsewhere: nothing in them is bound to a namespace.
fn in_namespace_of_keys(mut archive: Archive, named: Option<&str>) -> Archive {
    if let Some(namespace) = named {
        for key in archive.keyrings.iter_mut().chain(&mut archive.keks) {
            key.metadata.namespace = Some(namespace.to_owned());
        }
    }
    archive
}

fn namespace_of_keys(archive: &Archive, named: Option<&str>) -> String {
    let in_backup = archive.keyrings.iter().chain(&archive.keks).find_map(|key| key.metadata.namespace.as_deref());
    named.or(in_backup).unwrap_or(DEFAULT_OPERATOR_NAMESPACE).to_owned()
}
