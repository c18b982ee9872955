//! `kubectl msec recover`: the values of a backup, with the recovery key alone, on a machine without a cluster.
//!
//! ```text
//!  files ─▶ Archive ─▶ keyrings ──recovery key──▶ Recovered ─▶ values (pure) ─▶ --out: a document for each value
//!                                                     └──────▶ the keyrings under a new KEK ─▶ --new-backup
//! ```
//!
//! The command calls no server. It opens each version of each record on its own: it names what does not open before it
//! writes the rest, and exits with 1. The files may be backups of different times: every keyring and every record counts.

mod record;
mod rekey;
mod states;
mod values;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use managed_secrets_cli::{CliError, say, yaml};
use managed_secrets_crypto::recovery::{Recovered, RecoveryKey};
use zeroize::Zeroizing;

use crate::archive::{Archive, Intake, Others, StoredKeyring, read_files};
use crate::backup::KEK_WARNING;
use crate::backup::files::Destination;
use crate::{private_file, recovery_key};

const EXAMPLES: &str = "\
Examples:
  # Every value of a backup that `kubectl msec backup -A --keys` wrote
  kubectl msec recover --key recovery.key backup.yaml --out values.yaml

  # Of what kubectl wrote: kubectl get secrets -A -o yaml > secrets.yaml
  kubectl msec recover --key recovery.key secrets.yaml --out values.yaml

  # The key-encryption key is lost: a backup with a new one, for a new cluster
  kubectl msec recover --key recovery.key backup.yaml --new-backup rescued/
  kubectl msec restore rescued/ --create-namespaces --wait=false

The operator must have run with --recovery-recipient when the keyring of the backup was written.";

/// Arguments of `recover`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct RecoverArgs {
    /// Files with records and keyring: what `backup` wrote, or lists of Secrets from kubectl; folders of such files, or -
    /// for standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// File of the recovery key, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,

    /// Write the plaintext values to this new file, which only you can read, or - for standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "new_backup")]
    pub out: Option<PathBuf>,

    /// With --out -, show the values on a terminal
    #[arg(long, requires = "out")]
    pub show: bool,

    /// Write a backup of the same objects and records whose keyring has a new key-encryption key: to this file, or into this
    /// folder
    #[arg(long, value_name = "FILE|DIR")]
    pub new_backup: Option<PathBuf>,

    /// Take the new key-encryption key from this file, for an operator with --kek-file; when absent, the command creates one
    /// and adds its Secret to the new backup
    #[arg(long, value_name = "FILE", requires = "new_backup")]
    pub new_kek_file: Option<PathBuf>,
}

/// Recovers values, and perhaps the backup.
pub(super) fn recover(args: &RecoverArgs) -> Result<(), CliError> {
    let is_standard = |path: &PathBuf| path == Path::new("-");
    let prints = args.out.as_ref().is_some_and(is_standard);
    if prints && !args.show && std::io::stdout().is_terminal() {
        let text = "the values are not shown on a terminal: name a file with --out, use a pipe, or add --show";
        return Err(CliError::Usage(text.to_owned()));
    }
    if args.new_backup.as_ref().is_some_and(is_standard) {
        return Err(CliError::Usage("--new-backup must be a file or a folder".to_owned()));
    }
    if is_standard(&args.key) && args.files.iter().any(is_standard) {
        return Err(CliError::Usage("only one of --key and the files can be standard input".to_owned()));
    }
    let key = recovery_key::read(&args.key)?;
    let intake = read_files(&args.files, Others::LeaveOut)?;
    tell_left_out(&intake);
    let keyrings = intake.archive.stored_keyrings();
    let recovered = Recovered::open(&key, keyrings.iter().map(|keyring| &keyring.document));
    check(&key, &keyrings, &recovered)?;
    let found = values::open(&intake.archive, &recovered);
    let rekeyed = args.new_backup.as_ref().map(|path| {
        let now = Timestamp::now();
        rekey::rekey(&intake.archive, &recovered, args.new_kek_file.as_deref(), now).map(|rekeyed| (path, rekeyed))
    });
    let mut missing = Missing { lost: found.lost.len(), unverified: found.doubts.len(), left_out: intake.broken.len() };
    for problem in found.lost.iter().chain(&found.doubts) {
        say::tell(format_args!("warning: {problem}"));
    }
    if let Some((path, (archive, left_out))) = rekeyed.transpose()? {
        for problem in &left_out {
            say::tell(format_args!("warning: {problem}"));
        }
        missing.left_out += left_out.len();
        write_backup(&archive, path)?;
    }
    if let Some(out) = &args.out {
        let text = Zeroizing::new(yaml::stream(&found.values.iter().map(values::Value::document).collect::<Vec<_>>())?);
        if prints {
            say::print_document(&text)?;
        } else {
            private_file::create(out, &text)?;
        }
        say::tell(format_args!("note: {} values recovered", found.values.len()));
    }
    missing.error().map_or(Ok(()), Err)
}

/// How much of the files is not in what was written, or is there without proof.
struct Missing {
    /// Values that did not open.
    lost: usize,
    /// Values that are not proven.
    unverified: usize,
    /// Objects and keys.
    left_out: usize,
}

impl Missing {
    fn error(&self) -> Option<CliError> {
        let parts = [
            (self.lost, "value was not recovered", "values were not recovered"),
            (self.unverified, "value is unverified", "values are unverified"),
            (self.left_out, "object or key was left out", "objects or keys were left out"),
        ];
        let parts = parts.iter().filter(|(count, ..)| *count > 0);
        let parts: Vec<_> =
            parts.map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many })).collect();
        (!parts.is_empty()).then(|| CliError::Failed(format!("{}; see above", parts.join(", "))))
    }
}

fn tell_left_out(intake: &Intake) {
    if intake.targets > 0 {
        say::tell(format_args!(
            "note: {} delivered Secrets were not read: the values come from the records",
            intake.targets
        ));
    }
    if intake.left_out > 0 {
        say::tell(format_args!("note: {} other objects were not read", intake.left_out));
    }
    for problem in &intake.broken {
        say::tell(format_args!("warning: {problem}; it was not read"));
    }
}

/// Says which keyrings were read and which keys did not open. An error if none did.
fn check(key: &RecoveryKey, keyrings: &[StoredKeyring], recovered: &Recovered) -> Result<(), CliError> {
    if keyrings.is_empty() {
        return Err(CliError::Failed(
            "keyring not found in these files; add the Secret managed-secrets-keyring of the operator's namespace, which \
             `kubectl msec backup --keys` writes"
                .to_owned(),
        ));
    }
    for keyring in keyrings {
        say::tell(format_args!(
            "note: SHA-256 fingerprint of the keyring {}: {} (a person who can change the keyring can choose the values: \
             compare it with the one that `backup` printed)",
            keyring.name, keyring.fingerprint
        ));
    }
    if recovered.is_empty() {
        let id = key.recipient().id();
        return Err(CliError::Failed(match recipients(keyrings).as_slice() {
            [] => {
                "the keyring has no copies for a recovery key: the operator ran without --recovery-recipient".to_owned()
            }
            others => {
                format!("the recovery key {id} opens no key of the keyring, which has copies for {}", others.join(", "))
            }
        }));
    }
    for lost in recovered.lost() {
        say::tell(format_args!("warning: {lost}"));
    }
    Ok(())
}

/// Ids of the recovery keys that keyrings have copies for.
fn recipients(keyrings: &[StoredKeyring]) -> Vec<String> {
    let entries = keyrings.iter().flat_map(|keyring| &keyring.document.entries);
    let mut ids: Vec<_> = entries.flat_map(|entry| &entry.recovery).map(|copy| copy.recipient.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn write_backup(archive: &Archive, path: &Path) -> Result<(), CliError> {
    let mut header = vec![
        format!("Backup with a new key-encryption key, created by kubectl msec {} recover", env!("CARGO_PKG_VERSION")),
        format!("contains: {}", archive.counts()),
    ];
    if !archive.keks.is_empty() {
        header.push(KEK_WARNING.to_owned());
        say::tell_boldly(KEK_WARNING);
    }
    header.push("Restore with: kubectl msec restore FILE".to_owned());
    Destination::of(Some(path)).write(archive, &header)?;
    for keyring in archive.stored_keyrings() {
        say::tell(format_args!(
            "note: SHA-256 fingerprint of the new keyring {}: {}",
            keyring.name, keyring.fingerprint
        ));
    }
    say::tell(format_args!("note: written: {}", archive.counts()));
    Ok(())
}
