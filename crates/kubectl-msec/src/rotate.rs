//! `kubectl msec rotate`: a new value for generated secrets, now.
//!
//! ```text
//! lookup of all ─▶ generated, not managed by a GitOps tool? ─▶ spec.generate.revision: the time ─▶ wait ─▶ versions
//! ```
//!
//! The command checks all secrets before the first write. A write can still fail, for example for a missing permission; the
//! secrets before it are rotated then.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec, ManagedSecretStatus};
use managed_secrets_cli::CliError;
use managed_secrets_cli::say::Lines;

use super::change::{self, DryRun, DryRunArgs};
use super::session::{ClusterArgs, Session};
use super::wait::{self, WaitArgs};
use super::{completion, gitops, lookup, update};

const EXAMPLES: &str = "\
It sets spec.generate.revision to the time, and the operator generates one new value. If a GitOps tool manages the \
object, change the revision in its repository instead. While spec.version delivers an earlier value, the new one is \
recorded and not delivered.

Examples:
  # A new value, now
  kubectl msec rotate SESSION_KEY

  # Several; it checks all of them before it changes the first
  kubectl msec rotate SESSION_KEY DB_PASSWORD

  # A new value whenever the present one is 30 days old
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

/// Rotates secrets, waits until the operator has processed them, and says their versions.
pub(super) async fn rotate(cluster: &ClusterArgs, args: &RotateArgs) -> Result<(), CliError> {
    let dry_run = args.dry_run.dry_run;
    let session = Session::open(cluster)?;
    let mut objects: Vec<ManagedSecret> = Vec::new();
    for secret in &args.secrets {
        let object = lookup::one(&session, secret).await?;
        lookup::note_if_only_wanted(secret, &object);
        if !objects.iter().any(|other| other.metadata.uid == object.metadata.uid) {
            objects.push(object);
        }
    }
    let revision = revision(Timestamp::now(), &objects);
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
        moved(&before, &after)?.print()?;
    }
    Ok(())
}

/// The time as a revision; a later second where one of the objects has it already.
fn revision(now: Timestamp, objects: &[ManagedSecret]) -> String {
    let is_taken = |revision: &str| {
        let present = objects.iter().filter_map(|object| object.spec.generate.as_ref()?.revision.as_deref());
        present.into_iter().any(|present| present == revision)
    };
    let mut second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    while is_taken(&second.to_string()) {
        second += SignedDuration::from_secs(1);
    }
    second.to_string()
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
fn moved(before: &ManagedSecret, after: &ManagedSecret) -> Result<Lines, CliError> {
    let version = |object: &ManagedSecret| object.status.as_ref().and_then(|status| status.version);
    let (old, new) = (version(before), version(after));
    if new <= old {
        return Err(CliError::Failed(format!(
            "secret \"{}\" still has version {}: the operator generated no new value; check that operator and CRD are \
             of the version of this plugin, and run `kubectl msec rotate` again",
            after.spec.name,
            word(new),
        )));
    }
    let name = &after.spec.name;
    let mut lines = vec![format!("{name}: version {} -> {}", word(old), word(new))];
    let delivered = after.status.as_ref().and_then(ManagedSecretStatus::delivered);
    if delivered != new {
        let way_out =
            format!("run `kubectl msec rollback {name} --undo`, or remove spec.version, to deliver the newest");
        lines.push(format!("{name}: version {} stays delivered, as spec.version says: {way_out}", word(delivered)));
    }
    Ok(Lines::from_iter(lines))
}

fn word(version: Option<i64>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::validate_spec;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_a_time_that_the_rules_accept_and_nothing_else_changes() {
        let now = "2026-11-28T15:04:05.75Z".parse().unwrap();
        let revision = revision(now, &[]);
        assert_eq!(revision, "2026-11-28T15:04:05Z");
        let spec = json!({"name": "DB", "generate": {"length": 8, "rotateEvery": "720h", "revision": "a"}});
        let spec: ManagedSecretSpec = serde_json::from_value(spec).unwrap();
        let wanted = wanted(&spec, &revision);
        assert_eq!(validate_spec("db", &wanted), []);
        let generate = json!({"length": 8, "rotateEvery": "720h", "revision": "2026-11-28T15:04:05Z"});
        assert_eq!(serde_json::to_value(&wanted).unwrap(), json!({"name": "DB", "generate": generate}));
        let again = super::revision(now, &[ManagedSecret::new("db", wanted)]);
        assert_eq!(again, "2026-11-28T15:04:06Z", "a revision of its own");
    }

    #[test]
    fn a_version_that_stays_is_no_rotation() {
        let object = |version: i64| {
            let spec = serde_json::from_value(json!({"name": "DB", "generate": {}})).unwrap();
            let mut object = ManagedSecret::new("db", spec);
            object.status = Some(serde_json::from_value(json!({"version": version})).unwrap());
            object
        };
        assert!(moved(&object(1), &object(2)).is_ok());
        let error = moved(&object(2), &object(2)).map(drop).unwrap_err().to_string();
        assert!(error.contains("still has version 2"), "{error}");
    }

    #[test]
    fn a_new_value_that_is_not_delivered_is_not_called_delivered() {
        let object = |status: serde_json::Value| {
            let spec = serde_json::from_value(json!({"name": "DB", "generate": {}, "version": 2})).unwrap();
            let mut object = ManagedSecret::new("db", spec);
            object.status = Some(serde_json::from_value(status).unwrap());
            object
        };
        let before = object(json!({"version": 4, "delivered": 2}));
        let lines = moved(&before, &object(json!({"version": 5, "delivered": 2}))).unwrap();
        let text = format!("{lines:?}");
        assert!(text.contains("version 4 -> 5") && text.contains("version 2 stays delivered"), "{text}");
        let text = format!("{:?}", moved(&before, &object(json!({"version": 5}))).unwrap());
        assert!(!text.contains("stays delivered"), "{text}");
    }

    #[test]
    fn a_value_that_is_not_generated_is_not_rotated() {
        let spec = json!({"name": "DB", "valueFrom": {"secretKeyRef": {"name": "up", "key": "k"}}});
        let object = ManagedSecret::new("db", serde_json::from_value(spec).unwrap());
        let error = check(&object, "r", true).unwrap_err().to_string();
        assert!(error.contains("not generated"), "{error}");
    }
}
