//! What `run` and `manifests` say of keys: how old they get, who can recover them, and where the key-encryption key is.

#![allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use managed_secrets_api::duration;
use managed_secrets_crypto::recovery::Recipient;

use crate::keyring::{sealing, seeds};

/// Who can recover the keys: the same for `run` and for the manifests that start it.
#[derive(Args, Clone, Debug)]
pub struct RecoveryArgs {
    /// Seal every key of the keyring to this recovery key, as `kubectl msec recovery-key generate` prints it; may be given
    /// several times (in the environment: separated by commas)
    #[arg(
        long = "recovery-recipient",
        value_name = "RECIPIENT",
        env = "MANAGED_SECRETS_RECOVERY_RECIPIENT",
        value_delimiter = ','
    )]
    pub recipients: Vec<Recipient>,
}

/// How old keys get: the same for `run` and for the manifests that start it.
#[derive(Args, Clone, Debug)]
pub struct KeyArgs {
    /// Age at which a new seed replaces the active one, and records are re-wrapped; at least 1h, or 0 to do this on request
    /// only; when absent 2160h
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEED_PERIOD")]
    pub seed_period: Option<KeyPeriod>,

    /// Age at which a new sealing key replaces the active one; the earlier one still opens. At least 1h, or 0 to do this on
    /// request only; when absent 720h
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEALING_KEY_PERIOD")]
    pub sealing_key_period: Option<KeyPeriod>,

    /// Retire a sealing key that only opens, once no sealed value in the cluster has used it for this long, such as 4320h; at
    /// least 1h. When absent, keys are retired on request only, because Git may hold older sealed text
    #[arg(long, value_name = "DURATION", env = "MANAGED_SECRETS_SEALING_KEY_RETAIN", value_parser = retention)]
    pub sealing_key_retain: Option<KeyPeriod>,
}

impl KeyArgs {
    /// When seeds are replaced.
    pub(crate) fn seeds(&self) -> seeds::Timing {
        let default = seeds::Timing::default();
        seeds::Timing { period: self.seed_period.map_or(default.period, |period| period.0), ..default }
    }

    /// When sealing keys are replaced and retired.
    pub(crate) fn sealing(&self) -> sealing::Timing {
        let default = sealing::Timing::default();
        sealing::Timing {
            period: self.sealing_key_period.map_or(default.period, |period| period.0),
            retain: self.sealing_key_retain.and_then(|period| period.0),
            ..default
        }
    }
}

/// The age at which a key is replaced; `None` if that is done on request only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyPeriod(pub Option<Duration>);

/// The least age at which a key is replaced.
const LEAST_KEY_PERIOD: Duration = duration::hours(1);

impl FromStr for KeyPeriod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let period = if text == "0" { Some(Duration::ZERO) } else { duration::parse(text) };
        match period {
            Some(Duration::ZERO) => Ok(Self(None)),
            Some(period) if period >= LEAST_KEY_PERIOD => Ok(Self(Some(period))),
            _ => Err("must be hours, minutes and seconds, such as 2160h or 36h30m, of at least 1h, or 0".to_owned()),
        }
    }
}

/// How long a key is kept: a period that is not 0, which could mean "at once" as well as "never".
fn retention(text: &str) -> Result<KeyPeriod, String> {
    let wrong = "must be hours, minutes and seconds, such as 4320h, of at least 1h";
    text.parse().ok().filter(|period| *period != KeyPeriod(None)).ok_or_else(|| wrong.to_owned())
}

impl std::fmt::Display for KeyPeriod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(period) if period.as_secs().is_multiple_of(3600) => write!(f, "{}h", period.as_secs() / 3600),
            Some(period) => write!(f, "{}s", period.as_secs()),
        }
    }
}

/// How long a KMS plugin may be silent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KmsGrace(pub Duration);

impl FromStr for KmsGrace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let grace = if text == "0" { Some(Duration::ZERO) } else { duration::parse(text) };
        grace.map(Self).ok_or("must be hours, minutes and seconds, such as 24h or 1h30m, or 0")
    }
}

impl std::fmt::Display for KmsGrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        KeyPeriod(Some(self.0).filter(|grace| !grace.is_zero())).fmt(f)
    }
}

/// Where the KEK is that encrypts new keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum KekProvider {
    /// A Secret of the operator's namespace
    Local,
    /// The file of --kek-file
    File,
    /// The first --kms
    Kms,
}
