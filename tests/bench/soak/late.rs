//! What a person looks at when an object is late: its conditions, the metadata of its target, and what the operators have
//! logged of it. No value is in it.

use std::{fmt::Write as _, path::PathBuf};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, core::PartialObjectMeta};
use managed_secrets_api::ManagedSecret;
use serde_json::Value;
use testkit::Result;

/// Lines of the log that are shown of one object.
const LINES: usize = 20;

/// Where to look.
pub(super) struct Scene {
    objects: Api<ManagedSecret>,
    secrets: Api<Secret>,
    /// The folder with the logs of all replicas, as JSON, also of those that have ended.
    logs: PathBuf,
}

impl Scene {
    pub(super) fn new(client: &Client, namespace: &str, logs: PathBuf) -> Self {
        Self {
            objects: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            logs,
        }
    }

    /// What is to be seen of an object and of the target, which has its name.
    pub(super) async fn describe(&self, name: &str) -> String {
        let object = self.objects.get_opt(name).await.map(|found| found.map_or("none".to_owned(), |it| of_object(&it)));
        let target = self.secrets.get_metadata_opt(name).await;
        let target = target.map(|found| found.map_or("none".to_owned(), |it| of_target(&it)));
        let logged = logged(&self.logs, name);
        let or_error = |text: Result<String>| text.unwrap_or_else(|error| error.to_string());
        format!(
            "  object: {}\n  target: {}\n{}",
            or_error(object.map_err(Into::into)),
            or_error(target.map_err(Into::into)),
            or_error(logged)
        )
    }
}

fn of_object(object: &ManagedSecret) -> String {
    let status = object.status.clone().unwrap_or_default();
    let mut text = format!(
        "generation {}, observed {}, name {}, version {}, delivered {}, target {}",
        object.metadata.generation.unwrap_or_default(),
        status.observed_generation.unwrap_or_default(),
        status.name.as_deref().unwrap_or("none"),
        status.version.unwrap_or_default(),
        status.delivered().unwrap_or_default(),
        status.target.as_ref().map_or("none".to_owned(), |it| format!("{} at {}", it.uid, it.resource_version)),
    );
    for condition in status.conditions.iter().flatten() {
        let (type_, status, since) = (&condition.type_, &condition.status, condition.last_transition_time.0);
        let (reason, message) = (&condition.reason, &condition.message);
        let _ = write!(text, "\n    {type_} is {status} since {since}: {reason}: {message}");
    }
    text
}

fn of_target(target: &PartialObjectMeta<Secret>) -> String {
    let metadata = &target.metadata;
    let owners: Vec<String> =
        metadata.owner_references.iter().flatten().map(|owner| format!("{} {}", owner.kind, owner.uid)).collect();
    let writers: Vec<&str> =
        metadata.managed_fields.iter().flatten().filter_map(|fields| fields.manager.as_deref()).collect();
    format!(
        "{} at {}, deleted {}, labels {:?}, owners {owners:?}, written by {writers:?}",
        metadata.uid.as_deref().unwrap_or_default(),
        metadata.resource_version.as_deref().unwrap_or_default(),
        metadata.deletion_timestamp.as_ref().map_or("never".to_owned(), |at| at.0.to_string()),
        metadata.labels.clone().unwrap_or_default(),
    )
}

/// The last lines that any replica has logged of an object, in the order of time.
fn logged(folder: &PathBuf, name: &str) -> Result<String> {
    use testkit::error::Context as _;
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).context("read", folder)? {
        let path = entry.context("read", folder)?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file.starts_with("operator-") && file.ends_with(".log") {
            let text = std::fs::read(&path).context("read", &path)?;
            lines.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| line_of(line, name)));
        }
    }
    lines.sort_unstable();
    Ok(lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

/// A line of a log, if it is of a pass of this object; the time comes first.
fn line_of(line: &str, name: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok().filter(|line: &Value| line["span"]["name"] == name)?;
    let mut fields = line.as_object()?.clone();
    for known in ["level", "target", "span", "spans"] {
        fields.remove(known);
    }
    let (at, message) = (fields.remove("timestamp")?, fields.remove("message")?);
    Some(format!("    {} {}: {}", at.as_str()?, message.as_str()?, Value::Object(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_object_are_shown() {
        let line = |name: &str| {
            format!(
                r#"{{"message": "target written", "why": "Drift", "level": "INFO", "target": "managed_secrets", "timestamp": "2030-01-01T00:00:00Z", "span": {{"name": "{name}"}}, "spans": ["reconcile"]}}"#
            )
        };
        let shown = line_of(&line("user-1-1"), "user-1-1");
        assert_eq!(shown.as_deref(), Some(r#"    2030-01-01T00:00:00Z target written: {"why":"Drift"}"#));
        assert_eq!(line_of(&line("user-1-18"), "user-1-1"), None);
        assert_eq!(line_of("no JSON", "user-1-1"), None);
    }
}
