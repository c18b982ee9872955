//! What the API server was asked, by whom: its audit log.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::Duration;

use serde::Deserialize;

use super::control_plane::{ControlPlane, poll};
use super::error::{Context, Error, Result};

/// One answered request (for a watch: one that began), in the order of the answers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Identifies the request; a watch has two entries in the log.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: User,
    /// The impersonated user, if there is one.
    pub impersonated_user: Option<User>,
    /// The program that asked.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; absent for paths that are no resources.
    pub object_ref: Option<ObjectRef>,
    /// The answer.
    pub response_status: Option<ResponseStatus>,
    /// The body, for the groups of [`audit_bodies_of`](super::Options::audit_bodies_of).
    #[serde(default)]
    pub request_object: serde_json::Value,
    /// When the request came in, RFC 3339 with microseconds: compares as text.
    #[serde(rename = "requestReceivedTimestamp")]
    pub received: String,
    /// When it was answered (for a watch: when it began), in the same form.
    #[serde(rename = "stageTimestamp")]
    pub answered: String,
}

/// A user of the API server.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Its name.
    #[serde(default)]
    pub username: String,
}

/// The object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectRef {
    /// Plural of its type.
    pub resource: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its API group; empty for the core group.
    pub api_group: String,
    /// `status`, `token` and the like.
    pub subresource: String,
}

/// The answer of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// HTTP status code.
    pub code: u16,
}

impl Request {
    /// Who asked, in effect.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.impersonated_user.as_ref().unwrap_or(&self.user).username
    }

    /// HTTP status code of the answer; 0 when there was none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// The object's type, namespace, name and subresource; empty for paths that are no resources.
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        self.object_ref.clone().unwrap_or_default()
    }

    /// Whether the request changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch") && !self.is_dry_run()
    }

    /// Whether the request only asks what a write would do.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.uri.contains("dryRun=")
    }

    /// In short, for the message of a failed test.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{} {} {} ({})", self.username(), self.verb, self.uri, self.code())
    }
}

/// A place in the audit log: what is asked for later, starts there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark(u64);

impl ControlPlane {
    /// A place in the audit log after everything that was answered until now.
    pub async fn audit_mark(&self) -> Result<Mark> {
        let begin = Mark(fs::metadata(self.audit_log()?).map_or(0, |log| log.len()));
        self.settled_audit_log(begin).await.map(|(_, end)| end)
    }

    /// The end of the audit log, while the API server does not answer.
    pub fn audit_end(&self) -> Result<Mark> {
        let path = self.audit_log()?;
        Ok(Mark(fs::metadata(&path).context("read", &path)?.len()))
    }

    /// The requests answered since `mark` (all of them: `Mark::default()`), each once.
    pub async fn requests_since(&self, mark: Mark) -> Result<Vec<Request>> {
        self.requests_and_mark(mark).await.map(|(requests, _)| requests)
    }

    /// The requests answered since `mark`, each once, and the mark after them: nothing is between this and the next.
    pub async fn requests_and_mark(&self, mark: Mark) -> Result<(Vec<Request>, Mark)> {
        let (log, end) = self.settled_audit_log(mark).await?;
        let mut requests = Vec::new();
        for line in log.lines() {
            let request: Request = serde_json::from_str(line)
                .map_err(|error| Error::Format { what: "the audit log".to_owned(), why: error.to_string() })?;
            // A watch counts when it begins: its end can be minutes away.
            let counted =
                if request.verb == "watch" && request.code() < 300 { "ResponseStarted" } else { "ResponseComplete" };
            if request.stage == counted || request.stage == "Panic" {
                requests.push(request);
            }
        }
        Ok((requests, end))
    }

    /// The audit log from `mark` on, once it holds all that was answered before now; and where it ends. An entry can follow
    /// its answer by a moment, so this asks something of its own and waits for that to appear.
    async fn settled_audit_log(&self, mark: Mark) -> Result<(String, Mark)> {
        let path = self.audit_log()?;
        let marker = format!("/version?marker={}", uuid::Uuid::new_v4().simple());
        let request = http::Request::get(&marker)
            .body(Vec::new())
            .map_err(|error| Error::Format { what: "a request".to_owned(), why: error.to_string() })?;
        self.access().admin_client().await?.request_text(request).await?;
        poll("the audit log", Duration::from_secs(10), || async {
            let mut file = fs::File::open(&path).context("open", &path)?;
            file.seek(SeekFrom::Start(mark.0)).context("read", &path)?;
            let mut log = Vec::new();
            file.read_to_end(&mut log).context("read", &path)?;
            // A mark of this moment may be amid a character, and the end half written; what is between is not.
            let amid = log.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
            let mut log = String::from_utf8_lossy(&log[amid..]).into_owned();
            let Some(found) = log.find(&marker) else { return Ok(None) };
            // Whole lines only, and not the marker's own.
            log.truncate(log[..found].rfind('\n').map_or(0, |newline| newline + 1));
            let end = Mark(mark.0 + (amid + log.len()) as u64);
            Ok(Some((log, end)))
        })
        .await
    }
}
