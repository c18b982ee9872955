//! `kubectl msec rotate`: a new value for generated secrets, now.
//!
//! ```text
//! lookup of all ─▶ generated, not managed by a GitOps tool? ─▶ spec.generate.revision: the time ─▶ wait ─▶ versions
//! ```
//!
//! The command refuses before the first write, so that it does not rotate some of what it was told and not the rest.

use clap::Args;
use jiff::{Timestamp, Unit};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec};
use managed_secrets_cli::CliError;
use managed_secrets_cli::say::Lines;

use super::change::{self, DryRun, DryRunArgs};
use super::session::{ClusterArgs, Session};
use super::wait::{self, WaitArgs};
use super::{completion, gitops, lookup, update};

const EXAMPLES: &str = "\
It sets spec.generate.revision to the time, and the operator generates one new value. If a GitOps tool manages the \
object, change the revision in its repository instead.

Examples:
  # A new value, now
  kubectl msec rotate SESSION_KEY

  # Several; none is changed if one of them cannot be rotated
  kubectl msec rotate SESSION_KEY DB_PASSWORD

  # A new value every 30 days from now on
  kubectl msec update SESSION_KEY --generate --rotate-every 720h";

/// Arguments of `rotate`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES, override_usage = "kubectl msec rotate [OPTIONS] <NAME|ID>...")]
pub struct RotateArgs {
    /// The secrets, each by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", required = true, add = completion::secrets())]
    pub secrets: Vec<String>,

    /// Rotate in the cluster although a GitOps tool manages the object
    #[arg(long)]
    pub force: bool,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,

    /// Whether to do it.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Rotates secrets, waits until the new values are delivered, and says their versions.
pub(super) async fn rotate(cluster: &ClusterArgs, args: &RotateArgs) -> Result<(), CliError> {
    let dry_run = args.dry_run.dry_run;
    let session = Session::open(cluster)?;
    let revision = revision(Timestamp::now());
    let mut objects: Vec<ManagedSecret> = Vec::new();
    for secret in &args.secrets {
        let object = lookup::one(&session, secret).await?;
        lookup::note_if_only_wanted(secret, &object);
        if !objects.iter().any(|other| other.metadata.uid == object.metadata.uid) {
            objects.push(object);
        }
    }
    for object in &objects {
        check(object, &revision, args.force)?;
    }
    let mut rotated = Vec::new();
    for before in objects {
        let name = before.metadata.name.clone().unwrap_or_default();
        let after = match dry_run {
            DryRun::Client => None,
            DryRun::None | DryRun::Server => {
                let wanted = |spec: &ManagedSecretSpec| wanted(spec, &revision);
                Some(update::send(&session, &before, dry_run == DryRun::Server, wanted).await?)
            }
        };
        change::said(&name, "rotated", dry_run).print()?;
        rotated.extend(after.map(|after| (before, after)));
    }
    if dry_run != DryRun::None || !args.wait.wait {
        return Ok(());
    }
    for (before, object) in rotated {
        let after = wait::until_served(&session, object, args.wait.timeout, "rotated").await?;
        moved(&before, &after).print()?;
    }
    Ok(())
}

/// A revision that no earlier second had, and that says when it was made.
fn revision(now: Timestamp) -> String {
    now.round(Unit::Second).unwrap_or(now).to_string()
}

fn check(object: &ManagedSecret, revision: &str, force: bool) -> Result<(), CliError> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    if object.spec.generate.is_none() {
        return Err(CliError::Failed(format!(
            "msec/{name} is not rotated: its value is not generated; change it at its source, or with `kubectl msec update`"
        )));
    }
    gitops::refuse_if_managed(object, &format!("set spec.generate.revision to \"{revision}\""), force)
}

fn wanted(spec: &ManagedSecretSpec, revision: &str) -> ManagedSecretSpec {
    let mut wanted = spec.clone();
    if let Some(generate) = &mut wanted.generate {
        generate.revision = Some(revision.to_owned());
    }
    wanted
}

/// The versions before and after.
fn moved(before: &ManagedSecret, after: &ManagedSecret) -> Lines {
    let version = |object: &ManagedSecret| {
        let version = object.status.as_ref().and_then(|status| status.version);
        version.map_or_else(|| "none".to_owned(), |version| version.to_string())
    };
    Lines::from_iter([format!("{}: version {} -> {}", after.spec.name, version(before), version(after))])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::validate_spec;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_a_time_that_the_rules_accept_and_nothing_else_changes() {
        let revision = revision("2026-11-28T15:04:05.25Z".parse().unwrap());
        assert_eq!(revision, "2026-11-28T15:04:05Z");
        let spec = json!({"name": "DB", "generate": {"length": 8, "rotateEvery": "720h", "revision": "a"}});
        let spec: ManagedSecretSpec = serde_json::from_value(spec).unwrap();
        let wanted = wanted(&spec, &revision);
        assert_eq!(validate_spec("db", &wanted), []);
        let generate = json!({"length": 8, "rotateEvery": "720h", "revision": "2026-11-28T15:04:05Z"});
        assert_eq!(serde_json::to_value(&wanted).unwrap(), json!({"name": "DB", "generate": generate}));
    }

    #[test]
    fn a_value_that_is_not_generated_is_not_rotated() {
        let spec = json!({"name": "DB", "valueFrom": {"secretKeyRef": {"name": "up", "key": "k"}}});
        let object = ManagedSecret::new("db", serde_json::from_value(spec).unwrap());
        let error = check(&object, "r", true).unwrap_err().to_string();
        assert!(error.contains("not generated"), "{error}");
    }
}
