//! `kubectl msec backup`: what another cluster needs to serve the same secrets, as manifests.
//!
//! ```text
//!  ManagedSecrets ─▶ records ─▶ keyring ─▶ KEK (asked for) ──▶ Archive ──▶ notes (pure)
//!                                                                 └──────▶ header + YAML ──▶ file, folder or pipe
//! ```
//!
//! Read in this order, so that each later part covers the ones before: a record is at least as new as its object, and
//! the keyring has every seed that a record names. Delivered Secrets are left out: they hold plaintext values, and the
//! operator delivers them again from the records. So a backup without the key-encryption key holds no value that can be
//! read.

mod files;
mod notes;
pub(super) mod read;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use managed_secrets_api::keys::DEFAULT_OPERATOR_NAMESPACE;
use managed_secrets_cli::names;
use managed_secrets_cli::{CliError, say};

use self::files::Destination;
use super::archive::Archive;
use super::session::{ClusterArgs, Session};

const EXAMPLES: &str = "\
Examples:
  # All that another cluster needs but the key-encryption key, as one file
  kubectl msec backup -A --keys --out backup.yaml

  # With it: three files, so that the keys can be kept apart
  kubectl msec backup -A --with-kek --out backup/

  # One namespace, encrypted on its way
  kubectl msec backup -n shop | age -r age1… > shop.yaml.age

Delivered Secrets are not in a backup. They hold plaintext values, and the operator delivers them again from the records.";

/// Arguments of `backup`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BackupArgs {
    /// Of every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Add the keyring: the keys that records are encrypted with, themselves encrypted by the key-encryption key
    #[arg(long)]
    pub keys: bool,

    /// Add the keyring and the key-encryption key: a person who has that key and the records has every value
    #[arg(long)]
    pub with_kek: bool,

    /// Write to this file, or into this folder (records, keyring and key-encryption key each in a file of its own);
    /// standard output when absent
    #[arg(short, long, value_name = "FILE|DIR")]
    pub out: Option<PathBuf>,

    /// Namespace that the keys are read from
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,
}

/// Writes a backup, and says on standard error what it lacks.
pub(super) async fn backup(cluster: &ClusterArgs, args: &BackupArgs) -> Result<(), CliError> {
    let destination = Destination::of(args.out.as_deref());
    if args.with_kek && destination == Destination::Standard && std::io::stdout().is_terminal() {
        let text = "the key-encryption key is never written to a terminal: name a file with --out, or use a pipe";
        return Err(CliError::Usage(text.to_owned()));
    }
    let session = Session::open(cluster)?;
    let archive = read::archive(&session, args).await?;
    let targets = read::targets(&session, args).await?;
    let notes = notes::notes(&archive, args.keys || args.with_kek, &targets);
    destination.write(&archive, &header(&archive, args, &session.namespace, &notes))?;
    for note in &notes {
        say::tell(format_args!("note: {note}"));
    }
    for keyring in archive.stored_keyrings() {
        // Not in the files: a fingerprint beside what it is of proves nothing.
        say::tell(format_args!(
            "note: SHA-256 fingerprint of the keyring {}: {} (keep it apart from the backup: restore shows it)",
            keyring.name, keyring.fingerprint
        ));
    }
    if !archive.keks.is_empty() {
        say::tell_boldly(KEK_WARNING);
    }
    if destination != Destination::Standard {
        say::tell(format_args!("note: written: {}", archive.counts()));
    }
    Ok(())
}

/// Said whenever a key-encryption key is written.
const KEK_WARNING: &str = "warning: THIS BACKUP HOLDS THE KEY-ENCRYPTION KEY. A person who has it and the records has \
                           every value. Keep it apart from them, encrypted";

/// What each file begins with: what the backup holds, and what it lacks.
fn header(archive: &Archive, args: &BackupArgs, namespace: &str, notes: &[String]) -> Vec<String> {
    let whence = if args.all_namespaces { "every namespace".to_owned() } else { format!("namespace {namespace}") };
    let mut lines = vec![
        format!("Backup of {whence}, made by kubectl msec {} at {}", env!("CARGO_PKG_VERSION"), now()),
        format!("holds: {}", archive.counts()),
    ];
    for keyring in archive.stored_keyrings() {
        let ids = keyring.document.entries.iter().map(|it| format!("{} ({})", it.id, notes::purpose(it.purpose)));
        lines.push(format!("keys of {}: {}", keyring.name, ids.collect::<Vec<_>>().join(", ")));
        let wraps = keyring.wrapped_by().into_iter().map(|(provider, id)| format!("{id} ({provider})"));
        lines.push(format!("encrypted by the key-encryption key {}", wraps.collect::<Vec<_>>().join(", ")));
    }
    if !archive.keks.is_empty() {
        lines.push(KEK_WARNING.to_owned());
    }
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines.push("Restore with: kubectl msec restore FILE".to_owned());
    lines
}

/// The time, in whole seconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
