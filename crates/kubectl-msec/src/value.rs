//! `kubectl msec value`: the value, byte for byte, and nothing else.
//!
//! ```text
//!  has the cluster the value API? ─▶ GET secretvalues/NAME ─▶ standard output
//!        │ no                                │ denied, or unavailable
//!        ▼                                   ▼
//!  lookup (spec.name or status.id) ─▶ status.target ─▶ Secret ─▶ is it that one? ─▶ its key ─▶ standard output
//! ```
//!
//! Two requests with the value API, three without. From a Secret, the command prints the value only if status names that
//! Secret by its uid. It does not accept a Secret that replaced it, whatever labels it has. If a newer value is wanted but
//! not delivered, a note says so.

mod delivered;

use std::fmt;
use std::io::Write as _;

use clap::{Args, ValueEnum};
use kube::Client;
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::types::Delivery;
use managed_secrets_api::value::{Handle, SecretValue};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};

use super::completion;
use super::lookup::{self, Called};
use super::session::{ClusterArgs, Session};
use super::value_api::{self, Answer};

const EXAMPLES: &str = "\
The command reads the value through the value API, if the cluster has it, and otherwise from the Secret that pods mount. \
You need the permission for one of them: to get secretvalues.values.managedsecrets.dev/NAME, or to get the Secret. Without \
the value API, the command cannot read the value of a secret that is not delivered (delivery: None).

Examples:
  # To a program, without a copy on disk
  kubectl msec value DB_PASSWORD | psql-login

  # By id
  kubectl msec value 2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11

  # With version and dates
  kubectl msec value DB_PASSWORD -o json";

/// Arguments of `value`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ValueArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// Print this version of the value; only with the value API
    #[arg(long = "version", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub version: Option<u64>,

    /// Output format; the value alone when absent
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,
}

/// How a value is printed, other than alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// The answer of the value API: id, name, version, dates and value
    Json,
}

/// Prints the value of a secret, and nothing else.
pub(super) async fn value(cluster: &ClusterArgs, args: &ValueArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let called = Called::parse(&args.secret)?;
    // If the server of the API does not answer, the Secret is the other way, at once.
    let client = cluster.connection()?.client_without_retries()?;
    let (reason, object) = match through_api(&session, &client, &called, args.version).await? {
        Asked::Answered(found) => return print_answer(&found, args.output),
        Asked::Unanswered(reason, object) => (reason, object),
    };
    if let Some(version) = args.version {
        return Err(CliError::Failed(format!("cannot read version {version} of the value: {}", reason.on_version())));
    }
    let delivered = async {
        let object = match object {
            Some(object) => *object,
            None => lookup::one(&session, &args.secret).await?,
        };
        if let Some(other) = lookup::only_wanted(&args.secret, &object) {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            return Err(CliError::Failed(format!("{other}; to read its value, name the object: msec/{name}")));
        }
        if matches!(reason, Reason::NotInstalled) && object.spec.delivery() == Delivery::None {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            return Err(CliError::Failed(format!(
                "cannot read the value: msec/{name} is not delivered (spec.delivery: None), and {reason}; install it with \
                 `managed-secrets manifests --value-api`, or set spec.delivery: Secret"
            )));
        }
        Ok((delivered::read(&session, &object).await?, object))
    };
    let (found, object) = delivered.await.map_err(|error| reason.joined_to(error))?;
    if let Some(note) = &found.note {
        say::tell(format_args!("note: {note}"));
    }
    match args.output {
        Some(Format::Json) => say::print_json(&found.answer(&session.namespace, &object)?),
        None => print(&found.value),
    }
}

fn print_answer(found: &SecretValue, output: Option<Format>) -> Result<(), CliError> {
    match output {
        Some(Format::Json) => say::print_json(found),
        None => print(found.status.value.as_str().as_bytes()),
    }
}

fn print(value: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(value)
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failed("cannot write to standard output", &error))
}

/// What came of asking the value API.
enum Asked {
    Answered(Box<SecretValue>),
    /// Why it did not give the value; and the object, if it was looked up.
    Unanswered(Reason, Option<Box<ManagedSecret>>),
}

/// Why the value API did not give a value.
enum Reason {
    /// The cluster does not have it.
    NotInstalled,
    /// A permission is missing: the command that checks it.
    Denied(String),
    NotFound,
    Unavailable(String),
}

async fn through_api(
    session: &Session,
    client: &Client,
    called: &Called,
    version: Option<u64>,
) -> Result<Asked, CliError> {
    let context = "cannot call the cluster";
    let is_registered = value_api::is_registered(client).await;
    if !is_registered.map_err(|error| CliError::unreachable(context, &error))? {
        return Ok(Asked::Unanswered(Reason::NotInstalled, None));
    }
    let (object, handles) = match called {
        Called::Name(name) => (None, vec![name.clone()]),
        // A secret may have a name that looks like an id, and the API takes every such text for an id.
        Called::Id(_) | Called::Object(_) => {
            let object = lookup::one_if_permitted(session, called).await?;
            let status = object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
            let handles = match (&object, called) {
                (None, Called::Id(id)) => vec![id.to_lowercase()],
                (Some(_), Called::Id(_)) => status.id.into_iter().collect(),
                _ => status.name.into_iter().chain(status.id).collect(),
            };
            (object.map(Box::new), handles)
        }
    };
    if object.is_none() && handles.is_empty() {
        let list = Permission::to_objects("list").within(&session.namespace);
        return Ok(Asked::Unanswered(Reason::Denied(list.to_string()), None));
    }
    let mut reason = Reason::NotFound;
    for text in &handles {
        let Some(handle) = Handle::parse(text) else { continue };
        let answer = value_api::read(client, &session.namespace, handle, version).await;
        reason = match answer.map_err(|error| CliError::unreachable(context, &error))? {
            // The name that the object had may be another secret's by now.
            Answer::Value(found) if object.as_deref().is_some_and(|object| !is_of(&found, object)) => {
                Reason::Unavailable("it answered for another secret".to_owned())
            }
            Answer::Value(found) => return Ok(Asked::Answered(found)),
            Answer::Denied => match reason {
                Reason::Denied(first) => Reason::Denied(first),
                _ => Reason::Denied(value_api::permission(&session.namespace, text).to_string()),
            },
            Answer::NotFound => Reason::NotFound,
            Answer::Unavailable(why) => Reason::Unavailable(why),
        };
    }
    Ok(Asked::Unanswered(reason, object))
}

/// Whether an answer is about the secret of this object, as far as the object says.
fn is_of(found: &SecretValue, object: &ManagedSecret) -> bool {
    let id = object.status.as_ref().and_then(|status| status.id.as_deref());
    id.is_none_or(|id| id == found.status.id)
}

impl Reason {
    /// The error of a request for one version.
    fn on_version(&self) -> String {
        match self {
            Self::NotInstalled => format!("{self}: install it with `managed-secrets manifests --value-api`"),
            Self::NotFound => "this secret or this version of it was not found".to_owned(),
            Self::Denied(_) | Self::Unavailable(_) => self.to_string(),
        }
    }

    /// The error of the delivered Secret, with what the value API said.
    fn joined_to(&self, error: CliError) -> CliError {
        match error {
            CliError::Failed(text) => CliError::Failed(match self {
                // Then the Secret is the only way.
                Self::NotInstalled => text,
                _ => format!("{text}; {self}"),
            }),
            other => other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("the value API is not installed in this cluster"),
            Self::Denied(check) => write!(f, "the value API: permission denied: check `{check}`"),
            Self::NotFound => f.write_str("the value API: not found"),
            Self::Unavailable(why) => write!(f, "the value API: {why}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::value::{SecretValueStatus, ValueText};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_about_the_object_that_was_named() {
        let status = SecretValueStatus {
            id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".to_owned(),
            name: "DB".to_owned(),
            version: 1,
            updated_date: String::new(),
            value_updated_time: String::new(),
            value: ValueText::copy_of("hunter2"),
        };
        let found = SecretValue::new("shop", status);
        let object = |status: serde_json::Value| -> ManagedSecret {
            serde_json::from_value(json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
                "spec": {"name": "DB", "generate": {}}, "status": status,
            }))
            .unwrap()
        };
        assert!(is_of(&found, &object(json!({"name": "DB", "id": found.status.id.clone()}))));
        assert!(is_of(&found, &object(json!(null))), "the object has no id yet");
        assert!(!is_of(&found, &object(json!({"name": "DB", "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}))));
    }
}
