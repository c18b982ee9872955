//! A KMS plugin as the holder of a KEK: what it wraps, and whether it answers.
//!
//! No error of a plugin says that a key is lost: every one of them means "later".

use std::{
    collections::BTreeMap,
    str::FromStr,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_crypto::{
    keyring::{Entry, Wrapped},
    provider::Provider,
};
use managed_secrets_kms::{Encrypted, KmsError, Plugin, Socket, SocketError, Status, Violation, limits};
use parking_lot::Mutex;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::KeyringError;

/// Most characters of the name of a plugin.
const MAX_NAME: usize = 63;

/// How long an answer to a health check counts when keys are wrapped.
const FRESH: Duration = limits::POLL_HEALTHY;

/// A plugin as the command line names it: `name=unix:///run/kms/plugin.sock`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KmsAddress {
    /// What the keyring calls it. A keyring that it has wrapped needs a plugin of this name.
    pub name: String,
    /// Where it listens.
    pub socket: Socket,
}

/// Why a text does not name a plugin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KmsAddressError {
    /// It has no name, or one that is none.
    #[error(
        "must be NAME=unix:///PATH, and the name at most {MAX_NAME} of a-z, 0-9 and -, such as aws=unix:///run/kms/plugin.sock"
    )]
    Name,
    /// Its address is none.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl FromStr for KmsAddress {
    type Err = KmsAddressError;

    fn from_str(text: &str) -> Result<Self, KmsAddressError> {
        let (name, socket) = text.split_once('=').ok_or(KmsAddressError::Name)?;
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_inner);
        if !is_name || name.starts_with('-') || name.ends_with('-') {
            return Err(KmsAddressError::Name);
        }
        Ok(Self { name: name.to_owned(), socket: socket.parse()? })
    }
}

impl std::fmt::Display for KmsAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.socket)
    }
}

/// The times of plugins.
#[derive(Clone, Copy, Debug)]
pub struct KmsTiming {
    /// How long a call may take.
    pub call: Duration,
    /// Between two questions for the status of a plugin that answers.
    pub healthy: Duration,
    /// Between two questions for the status of one that does not.
    pub unhealthy: Duration,
    /// How long new values are encrypted while a plugin does not answer that the keyring needs after a restart.
    pub grace: Duration,
    /// How long a leader leads before it moves keys from one provider to another: replicas of the configuration before may
    /// still run.
    pub settle: Duration,
}

/// How long new values are encrypted while a plugin does not answer, unless the administrator says otherwise: a day.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3600);

impl Default for KmsTiming {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(limits::CALL_SECONDS.into()),
            healthy: limits::POLL_HEALTHY,
            unhealthy: limits::POLL_UNHEALTHY,
            grace: DEFAULT_GRACE,
            settle: Duration::from_secs(300),
        }
    }
}

/// A plugin.
#[derive(Debug)]
pub struct Kms {
    name: String,
    plugin: Plugin,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last status, and when it was answered.
    status: Option<(Status, Instant)>,
    /// When it last answered as it should, or when this process began to ask.
    good: Instant,
    /// Why the last question for the status failed.
    trouble: Option<KmsError>,
}

impl Kms {
    /// Needs a Tokio runtime.
    pub(super) fn new(address: &KmsAddress, timing: &KmsTiming) -> Self {
        let state = State { status: None, good: Instant::now(), trouble: None };
        let plugin = Plugin::new(&address.socket, timing.call);
        Self { name: address.name.clone(), plugin, state: Mutex::new(state) }
    }

    /// What the keyring calls it, without the prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the keyring calls it.
    #[must_use]
    pub fn provider(&self) -> String {
        format!("{}{}", Provider::KMS, self.name)
    }

    /// Id of the key that encrypts, as the last status said.
    #[must_use]
    pub fn key_id(&self) -> Option<String> {
        self.state.lock().status.as_ref().map(|(status, _)| status.key_id.clone())
    }

    /// For how long it has not answered as it should, and why; `None` if it did the last time.
    #[must_use]
    pub fn trouble(&self) -> Option<(Duration, KmsError)> {
        let state = self.state.lock();
        state.trouble.clone().map(|error| (state.good.elapsed(), error))
    }

    /// Asks for its status.
    pub async fn poll(&self) -> Result<Status, KmsError> {
        let answer = self.plugin.status().await;
        let mut state = self.state.lock();
        match &answer {
            Ok(status) => {
                if state.trouble.take().is_some() {
                    info!(kms = self.name, "the KMS plugin answers again");
                }
                state.good = Instant::now();
                state.status = Some((status.clone(), state.good));
            }
            Err(error) => {
                if state.trouble.as_ref() != Some(error) {
                    warn!(kms = self.name, %error, "the KMS plugin does not answer as it should; will retry");
                }
                state.trouble = Some(error.clone());
            }
        }
        answer
    }

    /// Wraps what is to be wrapped under the key that the status names.
    pub(super) async fn wrap(&self, plaintexts: &[Zeroizing<Vec<u8>>]) -> Result<Vec<Wrapped>, KeyringError> {
        let known = self.state.lock().status.clone().filter(|(_, at)| at.elapsed() < FRESH);
        let mut status = match known {
            Some((status, _)) => status,
            None => self.poll().await.map_err(|error| self.failed(error))?,
        };
        let mut wrapped = self.wrap_under(plaintexts, &status).await;
        if matches!(wrapped, Err(KmsError::Violation { what: Violation::OtherKey, .. })) {
            // Replaced since it was asked. The status is the authority on the key.
            status = self.poll().await.map_err(|error| self.failed(error))?;
            wrapped = self.wrap_under(plaintexts, &status).await;
        }
        wrapped.map_err(|error| self.failed(error))
    }

    async fn wrap_under(&self, plaintexts: &[Zeroizing<Vec<u8>>], status: &Status) -> Result<Vec<Wrapped>, KmsError> {
        let mut wrapped = Vec::with_capacity(plaintexts.len());
        for plaintext in plaintexts {
            let Encrypted { ciphertext, key_id, annotations } = self.plugin.encrypt(plaintext, status).await?;
            let annotations = annotations.into_iter().map(|(key, value)| (key, BASE64_STANDARD.encode(value)));
            wrapped.push(Wrapped {
                annotations: annotations.collect(),
                ..Wrapped::new(self.provider(), key_id, BASE64_STANDARD.encode(ciphertext))
            });
        }
        Ok(wrapped)
    }

    /// Unwraps an entry. A plugin authenticates no purpose, id and date, so it is checked here that they are the entry's.
    pub(super) async fn unwrap(&self, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        let wrapped = &entry.wrapped;
        let encrypted = encrypted(wrapped).ok_or_else(|| KeyringError::KmsEntry {
            name: self.name.clone(),
            id: entry.id.clone(),
            what: "the format",
        })?;
        let unwrapped = self.plugin.decrypt(&encrypted).await.map_err(|error| self.failed(error))?;
        match entry.verify(&unwrapped) {
            Ok(()) => Ok(unwrapped),
            Err(what) => Err(KeyringError::KmsEntry { name: self.name.clone(), id: entry.id.clone(), what }),
        }
    }

    fn failed(&self, source: KmsError) -> KeyringError {
        KeyringError::Kms { name: self.name.clone(), source }
    }
}

/// What goes back to the plugin; `None` if something is not in base64.
fn encrypted(wrapped: &Wrapped) -> Option<Encrypted> {
    let decoded = |(key, value): (&String, &String)| Some((key.clone(), BASE64_STANDARD.decode(value).ok()?));
    Some(Encrypted {
        ciphertext: BASE64_STANDARD.decode(&wrapped.ciphertext).ok()?,
        key_id: wrapped.key_id.clone(),
        annotations: wrapped.annotations.iter().map(decoded).collect::<Option<BTreeMap<_, _>>>()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_named_and_addressed() {
        let text = "aws-1=unix:///run/kms/plugin.sock";
        let address: KmsAddress = text.parse().unwrap();
        assert_eq!((address.name.as_str(), address.to_string().as_str()), ("aws-1", text));
        for text in ["unix:///run/kms", "=unix:///a", "A=unix:///a", "a_b=unix:///a", "-a=unix:///a", "a-=unix:///a"] {
            assert_eq!(text.parse::<KmsAddress>().unwrap_err(), KmsAddressError::Name, "{text}");
        }
        let long = format!("{}=unix:///a", "a".repeat(MAX_NAME + 1));
        assert_eq!(long.parse::<KmsAddress>().unwrap_err(), KmsAddressError::Name);
        assert_eq!("a=/run/a".parse::<KmsAddress>().unwrap_err(), KmsAddressError::Socket(SocketError::Format));
    }
}
