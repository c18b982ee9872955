//! The conformance test: whether a plugin does what the contract says, and what keys of this project need.
//!
//! It sends random bytes only, of the size of a wrapped key. A [`Level::Failed`] check is a plugin that must not be used; a
//! [`Level::Warning`] is legal and worth knowing.

use std::{
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    client::{self, Encrypted, Plugin, Status},
    error::{KmsError, Violation},
    limits,
    socket::Socket,
};

/// Bytes of the plaintext of most checks: a wrapped key with its purpose, id and date.
const PLAINTEXT: usize = 108;
/// Bytes of a plaintext that no plugin needs to accept.
const OVERSIZE: usize = 64 * 1024;
/// How often each call is timed.
const ROUNDS: usize = 5;
/// How many calls run at once.
const AT_ONCE: usize = 8;
/// A call that takes longer is worth a warning: the API server gives up after 3 s.
const SLOW: Duration = Duration::from_secs(1);

/// What came of a check.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As the contract says.
    Ok,
    /// It was not checked, since another check failed.
    Skipped,
    /// Legal, and worth knowing.
    Warning,
    /// A violation.
    Failed,
}

impl Level {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What came of it.
    pub level: Level,
    /// What was found.
    pub message: String,
}

/// How long calls took, in milliseconds: the median of some.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Status.
    pub status: f64,
    /// Encrypt.
    pub encrypt: f64,
    /// Decrypt.
    pub decrypt: f64,
}

/// What the conformance test found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Address of the plugin.
    pub socket: String,
    /// Id of the key that encrypts now; absent if the plugin does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Every check, always the same ones.
    pub checks: Vec<Check>,
    /// How long calls took; absent if not every call works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
}

impl Report {
    /// How many checks ended in this way.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.checks.iter().filter(|check| check.level == level).count()
    }
}

/// The checks, in their order.
const SOCKET: &str = "socket";
const VERSION: &str = "version";
const HEALTHZ: &str = "healthz";
const KEY_ID: &str = "key id";
const ENCRYPT: &str = "encrypt";
const SAME_KEY: &str = "key id of encrypt";
const ROUND_TRIP: &str = "round trip";
const FRESH: &str = "fresh ciphertext";
const ALTERED: &str = "altered ciphertext";
const OTHER_KEY: &str = "other key id";
const ANNOTATIONS: &str = "annotations";
const TOO_LARGE: &str = "oversize";
const PARALLEL: &str = "parallel calls";
const LATENCY: &str = "latency";

/// Every check, in the order of a report.
pub const NAMES: [&str; 14] = [
    SOCKET,
    VERSION,
    HEALTHZ,
    KEY_ID,
    ENCRYPT,
    SAME_KEY,
    ROUND_TRIP,
    FRESH,
    ALTERED,
    OTHER_KEY,
    ANNOTATIONS,
    TOO_LARGE,
    PARALLEL,
    LATENCY,
];

/// Tests the plugin at this socket. Each call may take `timeout`.
pub async fn check(socket: &Socket, timeout: Duration) -> Report {
    let mut run = Run { plugin: Plugin::new(socket, timeout), checks: Vec::new(), key_id: None, latency: None };
    run.socket();
    if let Some(status) = run.status().await
        && let Some((plaintext, encrypted)) = run.encrypt(&status).await
    {
        run.decrypt(&plaintext, &encrypted).await;
        run.limits(&plaintext, &encrypted).await;
        run.latency(&plaintext, &encrypted).await;
    }
    run.report()
}

/// A ciphertext that must be refused was not, and not decrypted either.
#[derive(Debug, thiserror::Error)]
#[error("must be refused with an error: {0}")]
struct Unrefused(KmsError);

/// A test in progress.
struct Run {
    plugin: Plugin,
    checks: Vec<Check>,
    key_id: Option<String>,
    latency: Option<Latency>,
}

impl Run {
    fn add(&mut self, name: &'static str, level: Level, message: impl Into<String>) {
        self.checks.push(Check { name, level, message: message.into() });
    }

    fn ok(&mut self, name: &'static str, message: impl Into<String>) {
        self.add(name, Level::Ok, message);
    }

    fn failed(&mut self, name: &'static str, message: &dyn std::fmt::Display) {
        self.add(name, Level::Failed, message.to_string());
    }

    /// Whether it is a socket that not everyone may connect to.
    fn socket(&mut self) {
        let path = self.plugin.socket().path();
        match std::fs::metadata(path) {
            Err(error) => self.failed(SOCKET, &format!("cannot be read: {error}")),
            Ok(file) if !file.file_type().is_socket() => self.failed(SOCKET, &"is not a socket"),
            Ok(file) if file.permissions().mode() & 0o002 != 0 && is_open_to_all(path) => {
                let message =
                    "every user may connect to the socket, and decrypt: limit its mode, or that of its folder";
                self.add(SOCKET, Level::Warning, message);
            }
            Ok(_) => self.ok(SOCKET, "limited to its owner and group"),
        }
    }

    async fn status(&mut self) -> Option<Status> {
        let first = match self.plugin.raw_status().await {
            Ok(first) => first,
            Err(error) => {
                self.failed(VERSION, &error);
                return None;
            }
        };
        if limits::VERSIONS.contains(&first.version.as_str()) {
            self.ok(VERSION, first.version);
        } else {
            self.failed(VERSION, &Violation::Version);
        }
        match self.plugin.status().await {
            Err(KmsError::Unhealthy { healthz }) => {
                self.failed(HEALTHZ, &format!("must be \"ok\", and is {healthz:?}"));
            }
            _ if first.healthz != limits::HEALTHY => self.failed(HEALTHZ, &"must be \"ok\" whenever it is asked"),
            _ => self.ok(HEALTHZ, limits::HEALTHY),
        }
        if let Err(violation) = client::check_key_id(&first.key_id) {
            self.failed(KEY_ID, &violation);
            return None;
        }
        for _ in 0..ROUNDS {
            match self.plugin.raw_status().await {
                Ok(next) if next.key_id == first.key_id => {}
                Ok(_) => {
                    self.failed(
                        KEY_ID,
                        &"must change only when the key was replaced, and differed between two answers",
                    );
                    return None;
                }
                Err(error) => {
                    self.failed(KEY_ID, &error);
                    return None;
                }
            }
        }
        self.ok(KEY_ID, format!("{} bytes, the same in each answer", first.key_id.len()));
        self.key_id = Some(first.key_id.clone());
        Some(Status { key_id: first.key_id })
    }

    async fn encrypt(&mut self, status: &Status) -> Option<(Zeroizing<Vec<u8>>, Encrypted)> {
        let encrypted = match random(PLAINTEXT) {
            Err(error) => Err(error),
            Ok(plaintext) => self.plugin.raw_encrypt(&plaintext).await.map(|encrypted| (plaintext, encrypted)),
        };
        let (plaintext, encrypted) = match encrypted {
            Ok(encrypted) => encrypted,
            Err(error) => {
                self.failed(ENCRYPT, &error);
                return None;
            }
        };
        match client::check_encrypted(&encrypted, &plaintext) {
            Ok(()) => self.ok(ENCRYPT, format!("{} bytes become {}", plaintext.len(), encrypted.ciphertext.len())),
            Err(violation) => self.failed(ENCRYPT, &violation),
        }
        if encrypted.key_id == status.key_id {
            self.ok(SAME_KEY, "the key of the status");
        } else {
            self.failed(SAME_KEY, &Violation::OtherKey);
        }
        Some((plaintext, encrypted))
    }

    async fn decrypt(&mut self, plaintext: &[u8], encrypted: &Encrypted) {
        match self.plugin.decrypt(encrypted).await {
            Ok(decrypted) if *decrypted == plaintext => self.ok(ROUND_TRIP, "decrypts to what was encrypted"),
            Ok(_) => self.failed(ROUND_TRIP, &"must decrypt to what was encrypted"),
            Err(error) => self.failed(ROUND_TRIP, &error),
        }
        match self.plugin.raw_encrypt(plaintext).await {
            Ok(second) if second.ciphertext == encrypted.ciphertext => {
                self.add(FRESH, Level::Warning, "the same plaintext becomes the same ciphertext");
            }
            Ok(_) => self.ok(FRESH, "differs each time"),
            Err(error) => self.failed(FRESH, &error),
        }
        // At the beginning, where key names stand, at the end, where tags stand, and in the middle.
        let length = encrypted.ciphertext.len();
        let mut outcome = Ok(None);
        for at in [0, length / 2, length.saturating_sub(1)] {
            let mut altered = encrypted.clone();
            if let Some(byte) = altered.ciphertext.get_mut(at) {
                *byte ^= 1;
            }
            outcome = self.decrypts(&altered).await;
            if !matches!(outcome, Ok(None)) {
                break;
            }
        }
        match outcome {
            Ok(None) => self.ok(ALTERED, "refused"),
            Ok(Some(_)) => self.failed(ALTERED, &"must be refused: the plugin decrypts a ciphertext that was altered"),
            Err(error) => self.failed(ALTERED, &Unrefused(error)),
        }
        let other = Encrypted { key_id: format!("{}-other", encrypted.key_id), ..encrypted.clone() };
        match self.decrypts(&other).await {
            Ok(None) => self.ok(OTHER_KEY, "refused"),
            Ok(Some(decrypted)) if *decrypted == plaintext => {
                self.add(OTHER_KEY, Level::Warning, "accepted: the plugin finds the key in the ciphertext alone");
            }
            Ok(Some(_)) => self.failed(OTHER_KEY, &"must not decrypt to something else"),
            Err(error) => self.failed(OTHER_KEY, &Unrefused(error)),
        }
        self.annotations(encrypted).await;
    }

    async fn annotations(&mut self, encrypted: &Encrypted) {
        let count = encrypted.annotations.len();
        if count == 0 {
            return self.ok(ANNOTATIONS, "none");
        }
        let without = Encrypted { annotations: std::collections::BTreeMap::default(), ..encrypted.clone() };
        let needed = match self.decrypts(&without).await {
            Ok(None) => "needed to decrypt",
            Ok(Some(_)) => "not needed to decrypt",
            Err(error) => return self.failed(ANNOTATIONS, &Unrefused(error)),
        };
        match client::check_annotations(&encrypted.annotations) {
            Ok(()) => self.ok(ANNOTATIONS, format!("{count}, {needed}")),
            Err(violation) => self.failed(ANNOTATIONS, &violation),
        }
    }

    /// What the plugin makes of a ciphertext that it should refuse; `None` if it refuses it, and still answers. To crash or to
    /// hang is no refusal: every reader of the stored ciphertext could cause it again.
    async fn decrypts(&self, encrypted: &Encrypted) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        let decrypted = match self.plugin.decrypt(encrypted).await {
            Ok(decrypted) => Some(decrypted),
            Err(KmsError::Refused { .. }) => None,
            Err(error) => return Err(error),
        };
        self.plugin.raw_status().await?;
        Ok(decrypted)
    }

    /// Whether the plugin still answers after requests that it need not serve, and serves several at once.
    async fn limits(&mut self, plaintext: &[u8], encrypted: &Encrypted) {
        let large = match random(OVERSIZE) {
            Ok(large) => self.plugin.raw_encrypt(&large).await,
            Err(error) => Err(error),
        };
        let garbage = Encrypted { ciphertext: vec![0; OVERSIZE], ..encrypted.clone() };
        let decrypted = self.decrypts(&garbage).await;
        match (large, decrypted) {
            (_, Err(error)) => self.failed(TOO_LARGE, &Unrefused(error)),
            (Err(error), _) if !matches!(error, KmsError::Refused { .. }) => {
                self.failed(TOO_LARGE, &Unrefused(error));
            }
            (_, Ok(Some(_))) => self.failed(TOO_LARGE, &"must refuse to decrypt zeros"),
            (Ok(large), _) if large.ciphertext.len() <= limits::MAX_CIPHERTEXT => {
                self.failed(TOO_LARGE, &"must not be cut short");
            }
            (large, _) => {
                let how = if large.is_ok() { "encrypted" } else { "refused" };
                self.ok(TOO_LARGE, format!("{OVERSIZE} bytes are {how}, and the plugin still answers"));
            }
        }
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let (plugin, encrypted) = (self.plugin.clone(), encrypted.clone());
            calls.spawn(async move { plugin.decrypt(&encrypted).await });
        }
        let mut wrong = None;
        for answer in calls.join_all().await {
            match answer {
                Ok(decrypted) if *decrypted == plaintext => {}
                Ok(_) => wrong = Some("must decrypt to what was encrypted".to_owned()),
                Err(error) => wrong = Some(error.to_string()),
            }
        }
        match wrong {
            None => self.ok(PARALLEL, format!("{AT_ONCE} at once")),
            Some(wrong) => self.failed(PARALLEL, &wrong),
        }
    }

    async fn latency(&mut self, plaintext: &[u8], encrypted: &Encrypted) {
        let (mut status, mut encrypt, mut decrypt) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let mut good = self.plugin.raw_status().await.is_ok();
            status.push(began.elapsed());
            let began = Instant::now();
            good &= self.plugin.raw_encrypt(plaintext).await.is_ok();
            encrypt.push(began.elapsed());
            let began = Instant::now();
            good &= self.plugin.decrypt(encrypted).await.is_ok();
            decrypt.push(began.elapsed());
            if !good {
                return self.failed(LATENCY, &"not every call was answered");
            }
        }
        let [status, encrypt, decrypt] = [status, encrypt, decrypt].map(median);
        let slow = [status, encrypt, decrypt].into_iter().any(|median| median > SLOW);
        let level = if slow { Level::Warning } else { Level::Ok };
        let [status, encrypt, decrypt] = [status, encrypt, decrypt].map(|median| median.as_secs_f64() * 1000.0);
        self.add(LATENCY, level, format!("Status {status:.1} ms, Encrypt {encrypt:.1} ms, Decrypt {decrypt:.1} ms"));
        self.latency = Some(Latency { status, encrypt, decrypt });
    }

    fn report(mut self) -> Report {
        for name in NAMES {
            if !self.checks.iter().any(|check| check.name == name) {
                self.add(name, Level::Skipped, "not checked, because an earlier check failed");
            }
        }
        self.checks.sort_by_key(|check| NAMES.iter().position(|name| *name == check.name));
        let socket = self.plugin.socket().to_string();
        Report { socket, key_id: self.key_id, checks: self.checks, latency_ms: self.latency }
    }
}

/// Whether every user may reach what is in these folders. Connecting to a socket needs permission to search each folder above.
fn is_open_to_all(path: &Path) -> bool {
    let mode = |folder: &Path| std::fs::metadata(folder).map(|folder| folder.permissions().mode());
    path.ancestors().skip(1).all(|folder| mode(folder).is_ok_and(|mode| mode & 0o001 != 0))
}

fn random(length: usize) -> Result<Zeroizing<Vec<u8>>, KmsError> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    getrandom::fill(&mut bytes).map_err(|_| KmsError::Random)?;
    Ok(bytes)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_plugin_fails_and_skips_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let socket: Socket = format!("unix://{}/none.sock", folder.path().display()).parse().unwrap();
        let report = check(&socket, Duration::from_secs(5)).await;
        let names: Vec<_> = report.checks.iter().map(|check| check.name).collect();
        assert_eq!(names, NAMES);
        assert_eq!((report.count(Level::Failed), report.count(Level::Skipped)), (2, NAMES.len() - 2));
        std::fs::write(folder.path().join("none.sock"), "").unwrap();
        let report = check(&socket, Duration::from_secs(5)).await;
        assert_eq!(report.checks[0].message, "is not a socket");
    }

    #[test]
    fn a_closed_folder_protects_what_is_in_it() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let socket = folder.path().join("kms.sock");
        let limit = |mode| {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        limit(0o755);
        assert!(is_open_to_all(&socket));
        limit(0o750);
        assert!(!is_open_to_all(&socket));
    }
}
