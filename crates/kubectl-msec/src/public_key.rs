//! `kubectl msec public-key`: which key values are sealed with at present.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, KeyArgs, say, sealing_key};

use super::session::{ClusterArgs, Session};

/// Arguments of `public-key`.
#[derive(Args, Clone, Debug)]
pub struct PublicKeyArgs {
    /// Write the key's document to this file, for sealing offline with --public-key
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Print the document itself
    #[arg(long, conflicts_with = "out")]
    pub document: bool,

    /// Which key.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Says which key is current, prints its document or writes it to a file.
pub(super) async fn public_key(cluster: &ClusterArgs, args: &PublicKeyArgs) -> Result<(), CliError> {
    let pin = args.key.pin()?;
    let document = match &args.key.public_key {
        Some(file) => sealing_key::read_file(file)?,
        None => sealing_key::read_cluster(Session::open(cluster)?.client, &args.key.operator_namespace).await?,
    };
    let published = sealing_key::check(&document, pin.as_deref())?;
    if args.document {
        return say::print_document(&format!("{}\n", say::visible_json(document.trim_end())));
    }
    if let Some(file) = &args.out {
        std::fs::write(file, format!("{}\n", document.trim_end()))
            .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", file.display())))?;
    }
    let until = match published.replaced_by() {
        None => "never: it is replaced on request only".to_owned(),
        Some(date) if date < Timestamp::now() => format!("{date} (past)"),
        Some(date) => date.to_string(),
    };
    let key = &published.key;
    let mut text = Lines::new();
    text.line(format_args!("key id:      {}", key.key_id()));
    text.line(format_args!("SHA-256:     {}", key.fingerprint()));
    text.line(format_args!("not before:  {}", published.not_before));
    text.line(format_args!("not after:   {until}"));
    text.print()
}
