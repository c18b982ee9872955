//! `kubectl msec backup`: what another cluster needs to deliver the same secrets, as manifests.
//!
//! ```text
//!  ManagedSecrets ─▶ records ─▶ keyring ─▶ KEK (asked for) ──▶ Archive ──▶ notes (pure)
//!                                                                 └──────▶ header + YAML ──▶ file, folder or pipe
//! ```
//!
//! The command reads them in this order, so that each later part covers the earlier ones: a record is at least as new as
//! its object, and the keyring has every seed that a record names. It leaves out delivered Secrets: they contain plaintext
//! values, and the operator delivers them again from the records. So a backup without the key-encryption key contains
//! no readable value.

pub(super) mod files;
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
  # All that another cluster needs, except the key-encryption key, as one file
  kubectl msec backup -A --keys --out backup.yaml

  # With that key: three files, so that you can keep the keys apart
  kubectl msec backup -A --with-kek --out backup/

  # One namespace, encrypted before it is stored
  kubectl msec backup -n shop | age -r age1… > shop.yaml.age

A backup does not contain delivered Secrets: they hold plaintext values, and the operator delivers them again from the \
records.";

/// Arguments of `backup`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct BackupArgs {
    /// Back up every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Add the keyring: the keys that encrypt the records; the key-encryption key encrypts these keys
    #[arg(long)]
    pub keys: bool,

    /// Add the keyring and the key-encryption key: this key and the records together reveal every value
    #[arg(long)]
    pub with_kek: bool,

    /// Write to this file, or into this folder with separate files for records, keyring and key-encryption key; when
    /// absent, write to standard output
    #[arg(short, long, value_name = "FILE|DIR")]
    pub out: Option<PathBuf>,

    /// Namespace that the keys are read from
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,
}

/// Writes a backup, and prints on standard error what it lacks.
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
        // Not in the files: a fingerprint proves nothing if it is stored with the keyring.
        say::tell(format_args!(
            "note: SHA-256 fingerprint of the keyring {}: {} (keep it apart from the backup, and compare it when you restore)",
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

/// The command prints this whenever it writes a key-encryption key.
pub(super) const KEK_WARNING: &str = "warning: THIS BACKUP CONTAINS THE KEY-ENCRYPTION KEY. This key and the records together reveal \
                           every value. Encrypt the key, and keep it apart from the records";

/// The first lines of each file: what the backup contains, and what it lacks.
fn header(archive: &Archive, args: &BackupArgs, namespace: &str, notes: &[String]) -> Vec<String> {
    let source = if args.all_namespaces { "every namespace".to_owned() } else { format!("namespace {namespace}") };
    let mut lines = vec![
        format!("Backup of {source}, created by kubectl msec {} at {}", env!("CARGO_PKG_VERSION"), now()),
        format!("contains: {}", archive.counts()),
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
