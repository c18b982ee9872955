//! `kubectl msec rollback`: delivers an earlier version of the value, or the newest again.
//!
//! The command sets `spec.version`, or removes it. It reads and writes no value.

use clap::Args;
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec, ManagedSecretStatus};
use managed_secrets_cli::CliError;
use managed_secrets_cli::say::Lines;

use super::change::{self, DryRun, DryRunArgs};
use super::completion;
use super::gitops;
use super::lookup;
use super::session::{ClusterArgs, Session};
use super::update;
use super::versions::Readers;
use super::wait::{self, WaitArgs};

const EXAMPLES: &str = "\
The command sets spec.version. The operator then delivers that version; it records newer values and does not deliver them \
until you undo the rollback. Programs that read the Secret only when they start must be restarted.

Examples:
  # Deliver the version before the one that is delivered
  kubectl msec rollback WEATHER_API_KEY

  # See which versions there are, and choose one
  kubectl msec versions WEATHER_API_KEY
  kubectl msec rollback WEATHER_API_KEY --to 2

  # Deliver the newest again
  kubectl msec rollback WEATHER_API_KEY --undo";

/// Arguments of `rollback`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct RollbackArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// Deliver this version; the one before the delivered one when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "undo")]
    pub to: Option<i64>,

    /// Deliver the newest again
    #[arg(long)]
    pub undo: bool,

    /// Change the object even if a GitOps tool manages it, which reverts the change later
    #[arg(long)]
    pub force: bool,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,

    /// Whether to do it.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Names the version to deliver, and waits until it is delivered.
pub(super) async fn rollback(cluster: &ClusterArgs, args: &RollbackArgs) -> Result<(), CliError> {
    let dry_run = args.dry_run.dry_run;
    let session = Session::open(cluster)?;
    let before = lookup::one(&session, &args.secret).await?;
    lookup::note_if_only_wanted(&args.secret, &before);
    let name = before.metadata.name.clone().unwrap_or_default();
    let version = if args.undo { None } else { Some(chosen(&before, args.to)?) };
    let change = version.map_or("remove spec.version".to_owned(), |version| format!("set spec.version: {version}"));
    gitops::refuse_if_managed(&before, &change, args.force)?;
    let wanted = |spec: &ManagedSecretSpec| ManagedSecretSpec { version, ..spec.clone() };
    let done = if before.spec.version == version { "unchanged" } else { "updated" };
    if dry_run == DryRun::Client {
        return change::said(&name, done, dry_run).print();
    }
    let changed = update::send(&session, &before, dry_run == DryRun::Server, wanted).await?;
    change::said(&name, done, dry_run).print()?;
    if dry_run == DryRun::Server || !args.wait.wait {
        return Ok(());
    }
    let after = wait::until_served(&session, changed, args.wait.timeout, done).await?;
    outcome(&after).print()
}

/// The version to deliver, if the record keeps it.
fn chosen(object: &ManagedSecret, to: Option<i64>) -> Result<i64, CliError> {
    let (name, status) = (object.metadata.name.as_deref().unwrap_or_default(), object.status.as_ref());
    let failed = |text: String| Err(CliError::Failed(text));
    let Some(newest) = status.and_then(|status| status.version) else {
        return failed(format!("msec/{name} has no value yet"));
    };
    let delivered = status.and_then(ManagedSecretStatus::delivered).unwrap_or(newest);
    let history = status.and_then(|status| status.history.as_deref()).unwrap_or_default();
    let kept: Vec<i64> = std::iter::once(newest).chain(history.iter().map(|kept| kept.version)).collect();
    let wanted = to.or_else(|| kept.iter().copied().find(|version| *version < delivered));
    match wanted {
        Some(version) if kept.contains(&version) => Ok(version),
        Some(version) => {
            let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
            failed(format!("version {version} of msec/{name} is not kept; its record has {}", kept.join(", ")))
        }
        None => failed(format!(
            "msec/{name} keeps no version before {delivered}; spec.history says how many earlier values are kept"
        )),
    }
}

/// What is delivered now, and how to undo it.
fn outcome(object: &ManagedSecret) -> Lines {
    let status = object.status.clone().unwrap_or_default();
    let text = |version: Option<i64>| version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let mut lines = Lines::new();
    lines.line(format_args!("{}, the newest is {}", Readers::of(object), text(status.version)));
    if object.spec.version.is_some() {
        lines.line(format_args!(
            "newer values are recorded and not delivered until you undo this: kubectl msec rollback msec/{} --undo",
            object.metadata.name.as_deref().unwrap_or_default()
        ));
    }
    lines
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(delivered: Option<i64>, kept: &[i64]) -> ManagedSecret {
        let history: Vec<_> = kept
            .iter()
            .map(|version| json!({"version": version, "created": "2026-11-23T08:00:00Z", "source": "value"}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db"}, "status": {"version": 5, "delivered": delivered, "history": history},
        }))
        .unwrap()
    }

    #[test]
    fn the_version_before_the_delivered_one_is_chosen() {
        assert_eq!(chosen(&object(None, &[4, 2]), None).unwrap(), 4);
        assert_eq!(chosen(&object(Some(4), &[4, 2]), None).unwrap(), 2);
        assert_eq!(chosen(&object(Some(4), &[4, 2]), Some(5)).unwrap(), 5);
        for (delivered, to, says) in [
            (Some(2), None, "keeps no version before 2"),
            (None, Some(3), "version 3 of msec/db is not kept; its record has 5, 4, 2"),
        ] {
            let said = chosen(&object(delivered, &[4, 2]), to).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
        assert!(chosen(&ManagedSecret::new("db", ManagedSecretSpec::default()), None).is_err());
    }
}
