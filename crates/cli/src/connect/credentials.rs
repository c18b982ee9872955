//! Credentials for the API server: fixed, from a file that changes, or from a credential plugin.
//!
//! They are fetched when the first request is sent, and shared by every client of a command: a plugin runs once. It runs
//! again when its answer expires or the API server refuses it; a file is read again each minute, and when the API server
//! refuses its token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};

use super::{
    kubeconfig::{AuthProvider, Cluster, User},
    plugin::{Interaction, Plugin, PluginError},
};

/// How long a token that was read from a file is used before the file is read again: client-go's period.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The token's file cannot be read.
    #[error("cannot read the token file {}: {error}", .file.display())]
    TokenFile {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file holds none.
    #[error("the token file {} is empty", .0.display())]
    EmptyTokenFile(PathBuf),
    /// A token that cannot be sent.
    #[error("the {0} has characters that an HTTP header cannot carry, such as a line break")]
    Header(&'static str),
    /// A way of authentication that is not supported.
    #[error("auth-provider {0:?} of the kubeconfig is not supported; use a credential plugin (exec)")]
    AuthProvider(String),
    /// The credential plugin gave none.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

/// A client certificate with its key, PEM. Not `Debug`: it is a credential.
#[derive(PartialEq)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What goes with a request.
#[derive(Clone, Default)]
pub(super) struct Fetched {
    /// The value of the header `authorization`.
    pub(super) header: Option<HeaderValue>,
    /// A client certificate that is not in the configuration.
    pub(super) identity: Option<Arc<Identity>>,
    until: Option<Until>,
}

/// When credentials end.
#[derive(Clone, Copy)]
enum Until {
    /// By the wall clock: what a plugin says.
    Date(Timestamp),
    /// By ours.
    Instant(Instant),
}

impl Fetched {
    fn of(header: Option<HeaderValue>) -> Self {
        Self { header, ..Self::default() }
    }

    /// Whether both are the same credentials, whenever they end.
    fn is_same(&self, other: &Self) -> bool {
        self.header == other.header && self.identity == other.identity
    }

    /// Ends them: they are used only if others cannot be fetched.
    fn end(&mut self) {
        self.until = Some(Until::Instant(Instant::now()));
    }

    fn is_current(&self) -> bool {
        match self.until {
            None => true,
            Some(Until::Date(date)) => Timestamp::now() <= date,
            Some(Until::Instant(instant)) => Instant::now() < instant,
        }
    }
}

enum Source {
    Fixed(Fetched),
    /// A file with a token, and the token to use if it cannot be read.
    TokenFile(PathBuf, Option<HeaderValue>),
    Plugin(Plugin),
}

/// The credentials of one connection.
#[derive(Clone)]
pub(super) struct Credentials(Arc<Shared>);

struct Shared {
    source: Source,
    /// Held while a plugin runs, so that it runs once.
    last: Mutex<Option<Fetched>>,
}

impl Credentials {
    fn from(source: Source) -> Self {
        Self(Arc::new(Shared { source, last: Mutex::new(None) }))
    }

    /// No credentials: plain HTTP carries none.
    pub(super) fn none() -> Self {
        Self::from(Source::Fixed(Fetched::default()))
    }

    /// The value of a header `authorization`.
    pub(super) fn fixed(header: HeaderValue) -> Self {
        Self::from(Source::Fixed(Fetched::of(Some(header))))
    }

    /// A bearer token.
    pub(super) fn token(token: &str) -> Result<Self, CredentialsError> {
        Ok(Self::fixed(bearer(token)?))
    }

    /// A bearer token in a file, which is read again from time to time.
    pub(super) fn token_file(file: PathBuf) -> Self {
        Self::from(Source::TokenFile(file, None))
    }

    /// Those of a kubeconfig's user, in client-go's order of precedence. A client certificate of the kubeconfig is part of
    /// the configuration, and not of these.
    pub(super) fn of(
        user: &User,
        cluster: &Cluster,
        authority: Option<&[u8]>,
        interaction: Interaction,
    ) -> Result<Self, CredentialsError> {
        let token = if user.token.is_empty() { None } else { Some(bearer(&user.token)?) };
        if !user.token_file.is_empty() {
            return Ok(Self::from(Source::TokenFile(PathBuf::from(&user.token_file), token)));
        }
        if let Some(token) = token {
            return Ok(Self::fixed(token));
        }
        if !user.username.is_empty() || !user.password.is_empty() {
            let pair = STANDARD.encode(format!("{}:{}", user.username, user.password));
            return Ok(Self::fixed(header("password", format!("Basic {pair}"))?));
        }
        // A certificate is enough: no plugin runs beside one.
        if !user.client_certificate.is_empty() || !user.client_certificate_data.is_empty() {
            return Ok(Self::none());
        }
        if let Some(exec) = &user.exec {
            return Ok(Self::from(Source::Plugin(Plugin::new(exec.clone(), cluster, authority, interaction))));
        }
        match &user.auth_provider {
            Some(provider) => Ok(Self::fixed(provided(provider)?)),
            None => Ok(Self::none()),
        }
    }

    /// The credentials for the next request.
    pub(super) async fn fetch(&self) -> Result<Fetched, CredentialsError> {
        if let Source::Fixed(fixed) = &self.0.source {
            return Ok(fixed.clone());
        }
        let mut last = self.0.last.lock().await;
        if let Some(fetched) = last.as_ref().filter(|fetched| fetched.is_current()) {
            return Ok(fetched.clone());
        }
        let fetched = match &self.0.source {
            Source::Fixed(fixed) => fixed.clone(),
            Source::TokenFile(file, token) => match read_token(file) {
                Ok(header) => Fetched {
                    header: Some(header),
                    identity: None,
                    until: Some(Until::Instant(Instant::now() + TOKEN_FILE_PERIOD)),
                },
                // A file may be made available at the start and removed later.
                Err(error) => match (&*last, token) {
                    (Some(fetched), _) => fetched.clone(),
                    // The next request looks for the file again.
                    (None, Some(token)) => return Ok(Fetched::of(Some(token.clone()))),
                    (None, None) => return Err(error),
                },
            },
            Source::Plugin(plugin) => {
                let answer = plugin.run().await?;
                let header = if answer.token.is_empty() { None } else { Some(bearer(&answer.token)?) };
                let identity = Identity { certificate: answer.client_certificate_data, key: answer.client_key_data };
                Fetched {
                    header,
                    identity: (!identity.certificate.is_empty()).then(|| Arc::new(identity)),
                    until: answer.expiration_timestamp.map(Until::Date),
                }
            }
        };
        *last = Some(fetched.clone());
        Ok(fetched)
    }

    /// The API server refused these: the next request gets others, unless it would already.
    pub(super) async fn refused(&self, these: &Fetched) {
        if let Some(last) = self.0.last.lock().await.as_mut().filter(|last| last.is_same(these)) {
            last.end();
        }
    }
}

fn header(what: &'static str, text: String) -> Result<HeaderValue, CredentialsError> {
    let mut value = HeaderValue::try_from(text).map_err(|_| CredentialsError::Header(what))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &str) -> Result<HeaderValue, CredentialsError> {
    header("token", format!("Bearer {token}"))
}

/// The token in a file, without the line break that editors and `echo` add.
fn read_token(file: &Path) -> Result<HeaderValue, CredentialsError> {
    let text =
        std::fs::read_to_string(file).map_err(|error| CredentialsError::TokenFile { file: file.to_owned(), error })?;
    match text.trim() {
        "" => Err(CredentialsError::EmptyTokenFile(file.to_owned())),
        token => bearer(token),
    }
}

/// The token of an `oidc` provider, which is used as it is and not refreshed.
fn provided(provider: &AuthProvider) -> Result<HeaderValue, CredentialsError> {
    match (provider.name.as_str(), provider.config.get("id-token")) {
        ("oidc", Some(token)) if !token.is_empty() => bearer(token),
        _ => Err(CredentialsError::AuthProvider(provider.name.clone())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    async fn sent(credentials: &Credentials) -> String {
        credentials.fetch().await.unwrap().header.unwrap().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_each_minute_and_after_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "one\n").unwrap();
        let credentials = Credentials::token_file(file.clone());
        assert_eq!(sent(&credentials).await, "Bearer one");
        fs::write(&file, "two").unwrap();
        assert_eq!(sent(&credentials).await, "Bearer one", "it is not read for each request");
        tokio::time::advance(TOKEN_FILE_PERIOD).await;
        let two = credentials.fetch().await.unwrap();
        assert_eq!(two.header.as_ref().unwrap(), "Bearer two");
        fs::write(&file, "three").unwrap();
        credentials.refused(&two).await;
        assert_eq!(sent(&credentials).await, "Bearer three");
        // The answer to an earlier request: what it refuses is not in use any more.
        fs::write(&file, "four").unwrap();
        credentials.refused(&two).await;
        assert_eq!(sent(&credentials).await, "Bearer three");
        // If the file cannot be read, the last token stays.
        fs::remove_file(&file).unwrap();
        tokio::time::advance(TOKEN_FILE_PERIOD).await;
        assert_eq!(sent(&credentials).await, "Bearer three");
        fs::write(&file, "five").unwrap();
        assert_eq!(sent(&credentials).await, "Bearer five");
    }

    #[tokio::test]
    async fn a_token_stands_in_for_its_file_until_the_file_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let user =
            User { token: "stand-in".to_owned(), token_file: file.to_str().unwrap().to_owned(), ..User::default() };
        let credentials = Credentials::of(&user, &Cluster::default(), None, Interaction::Forbidden).unwrap();
        assert_eq!(sent(&credentials).await, "Bearer stand-in");
        fs::write(&file, "own").unwrap();
        assert_eq!(sent(&credentials).await, "Bearer own");
    }
}
