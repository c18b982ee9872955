//! `kubectl msec recovery-key`: the key pair that opens every value of a backup. No command sends the private half
//! anywhere.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use managed_secrets_cli::{CliError, say};
use managed_secrets_crypto::recovery::{Recipient, RecoveryKey};
use zeroize::Zeroizing;

use crate::private_file;

const EXAMPLES: &str = "\
Examples:
  # On a machine that you trust, and that need not reach the cluster
  kubectl msec recovery-key generate --out recovery.key > recipient.txt

  # Install the operator with the recipient
  managed-secrets manifests --recovery-recipient \"$(cat recipient.txt)\" | kubectl apply -f -

Move the file to a safe, and keep it away from the backups: the recovery key and a backup together reveal every value. \
The recipient is public.";

/// Arguments of `recovery-key`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct RecoveryKeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RecoveryKeyCommand,
}

/// The commands of `recovery-key`.
#[derive(Clone, Debug, Subcommand)]
pub enum RecoveryKeyCommand {
    /// Create a recovery key, write it to a new file, and print its recipient
    Generate(GenerateArgs),
    /// Print the recipient of a recovery key
    Recipient(RecipientArgs),
}

/// Arguments of `recovery-key generate`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Write the key to this file, which only you can read; an existing file is not overwritten
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `recovery-key recipient`.
#[derive(Args, Clone, Debug)]
pub struct RecipientArgs {
    /// File of the recovery key, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// Creates a recovery key, or shows the public half of one.
pub(super) fn recovery_key(args: &RecoveryKeyArgs) -> Result<(), CliError> {
    match &args.command {
        RecoveryKeyCommand::Generate(args) => generate(args),
        RecoveryKeyCommand::Recipient(args) => show(&read(&args.key)?.recipient()),
    }
}

fn generate(args: &GenerateArgs) -> Result<(), CliError> {
    let key = RecoveryKey::generate().map_err(|error| CliError::failed("cannot create a key", &error))?;
    let recipient = key.recipient();
    private_file::create(&args.out, &file(&key, Timestamp::now()))?;
    say::tell(format_args!("note: written: {}; move it to a safe, and keep a second copy", args.out.display()));
    show(&recipient)
}

/// What a key's file holds.
fn file(key: &RecoveryKey, now: Timestamp) -> Zeroizing<String> {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let recipient = key.recipient();
    Zeroizing::new(format!(
        "# Recovery key of managed-secrets, created at {now}. Together with a backup, it reveals every value.\n\
         # Use: kubectl msec recover --key THIS_FILE BACKUP --out VALUES\n\
         # id: {}\n\
         # SHA-256 of the public key: {}\n\
         # recipient: {recipient}\n\
         {}\n",
        recipient.id(),
        recipient.fingerprint(),
        *key.to_text(),
    ))
}

fn show(recipient: &Recipient) -> Result<(), CliError> {
    let (id, fingerprint) = (recipient.id(), recipient.fingerprint());
    say::tell(format_args!("note: recovery key {id}; SHA-256 fingerprint of its public key: {fingerprint}"));
    say::print_line(recipient)
}

/// Reads a key's file. An error shows nothing of it.
pub(super) fn read(path: &Path) -> Result<RecoveryKey, CliError> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin().lock())
    } else {
        std::fs::read_to_string(path)
    };
    let text = Zeroizing::new(text.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?);
    RecoveryKey::parse(&text).map_err(|error| CliError::Usage(format!("{} {error}", path.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_key_reads_back_and_says_what_it_is() {
        let key = RecoveryKey::generate().unwrap();
        let text = file(&key, "2026-11-28T08:00:00.5Z".parse().unwrap());
        assert_eq!(RecoveryKey::parse(&text).unwrap().recipient(), key.recipient());
        let recipient = key.recipient().to_string();
        for part in ["created at 2026-11-28T08:00:00Z", &key.recipient().fingerprint(), &recipient] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(text.matches(key.to_text().as_str()).count(), 1);
    }
}
