//! `kubectl msec delete`: deletes the object, and says what is deleted and what stays.
//!
//! ```text
//! lookup ─▶ what uses the Secret, which policy is effective ─▶ doubts? ask, or --yes ─▶ delete what was looked at
//! ```
//!
//! The effective policy (`status.deletionPolicy`) decides what stays, not the policy in the spec, which may not be
//! effective yet.

use clap::Args;
use kube::api::{DeleteParams, Preconditions};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::types::{Adoption, DeletionPolicy};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, say};

use super::change::{self, DryRun, DryRunArgs};
use super::completion;
use super::lookup::{self, Called};
use super::session::{ClusterArgs, Session};
use super::users;
use super::wait::{self, WaitArgs};

/// How often a deletion is tried if the operator writes to the object first.
const ATTEMPTS: usize = 5;

const EXAMPLES: &str = "\
It asks for confirmation if an object uses the Secret (pods; workloads that create pods, also at zero replicas; service \
accounts, Ingresses, other ManagedSecrets; Gateways and ListenerSets of any namespace), if it cannot find out, if \
spec.deletionPolicy is Retain but not effective yet, and if NAME is a name that the object only waits for. Without a \
terminal, it refuses in these cases unless you use --yes.

Examples:
  # Show what uses it and what would be deleted
  kubectl msec delete WEATHER_API_KEY --dry-run=client

  # In a script
  kubectl msec delete WEATHER_API_KEY --yes";

/// Arguments of `delete`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DeleteArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,

    /// Whether to do it.
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Deletes a secret.
pub(super) async fn delete(cluster: &ClusterArgs, args: &DeleteArgs) -> Result<(), CliError> {
    let dry_run = args.dry_run.dry_run;
    let session = Session::open(cluster)?;
    let object = lookup::one(&session, &args.secret).await?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut doubts: Vec<_> = lookup::only_wanted(&args.secret, &object)
        .map(|other| format!("{other}; this object would be deleted (write msec/{name} to name it exactly)"))
        .into_iter()
        .collect();
    doubts.extend(self::doubts(&session, &object).await);
    for doubt in &doubts {
        say::tell(format_args!("warning: {doubt}"));
    }
    let fate = fate(&object);
    if !doubts.is_empty() && !args.yes && dry_run == DryRun::None {
        confirm(&name, &fate)?;
    }
    if dry_run != DryRun::Client {
        send(&session, &object, dry_run == DryRun::Server).await?;
    }
    if dry_run == DryRun::None && args.wait.wait {
        wait::until_gone(&session, &name, object.metadata.uid.as_deref(), args.wait.timeout).await?;
    }
    change::said(&name, "deleted", dry_run).print()?;
    fate.into_iter().collect::<Lines>().print()
}

/// Why the command should ask for confirmation; empty if there is no reason.
async fn doubts(session: &Session, object: &ManagedSecret) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let mut doubts = Vec::new();
    if let Some(target) = &status.target {
        let users = users::of_secret(session, &target.name).await;
        doubts.extend(users.known.iter().map(|user| format!("Secret {} is used by {user}", target.name)));
        let unknown = users.unknown(&session.namespace);
        doubts
            .extend(unknown.iter().map(|why| format!("it is unknown whether Secret {} is used by {why}", target.name)));
    }
    if object.spec.deletion_policy() == DeletionPolicy::Retain && status.deletion_policy != Some(DeletionPolicy::Retain)
    {
        doubts.push("spec.deletionPolicy is Retain but not effective yet: record and Secret may be deleted".to_owned());
    }
    doubts
}

/// What is deleted and what stays, a line each.
fn fate(object: &ManagedSecret) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let Some(record) = status.record else {
        return vec![
            "its record is unknown: if one exists, the policy that it was created with decides whether it is deleted"
                .to_owned(),
        ];
    };
    let name = status.name.unwrap_or_else(|| object.spec.name.clone());
    let target = status.target.map(|target| target.name);
    let and_target = target.as_ref().map(|target| format!(" and the Secret {target}")).unwrap_or_default();
    if status.deletion_policy == Some(DeletionPolicy::Retain) {
        return vec![
            format!("the effective policy is Retain: Kubernetes keeps the record {}{and_target}", record.name),
            format!("the name {name} stays taken until the record is deleted: kubectl delete secret {}", record.name),
        ];
    }
    let mut lines =
        vec![format!("the effective policy is Delete: Kubernetes also deletes the record {}{and_target}", record.name)];
    // Adopted ones are not told apart in status: the record knows, which needs the permission to read Secrets.
    if let Some(target) = target.filter(|_| object.spec.adoption() == Adoption::IfUnowned) {
        lines.push(format!("if the Secret {target} was adopted (target.adoption: IfUnowned), it stays"));
    }
    lines
}

/// Asks on a terminal; refuses without one.
fn confirm(name: &str, fate: &[String]) -> Result<(), CliError> {
    let refused = |text: &str| Err(CliError::Failed(format!("msec/{name} is not deleted: {text}")));
    if !say::can_ask() {
        return refused("no terminal to ask for confirmation; read the warnings and use --yes");
    }
    fate.iter().for_each(say::tell);
    if say::ask(format_args!("Delete msec/{name}?"))? { Ok(()) } else { refused("the answer was no") }
}

/// Deletes the object as the command read it, and no later state of it.
///
/// The uid alone is not enough: the user confirmed the effective policy and the Secret that is deleted, and both can
/// change. The resourceVersion alone would fail at each status write. So both are preconditions, and after a conflict
/// the command tries again if nothing changed that the user was told.
async fn send(session: &Session, object: &ManagedSecret, dry_run: bool) -> Result<(), CliError> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let permission = Permission::to_objects("delete").named(name).within(&session.namespace);
    let mut now = object.clone();
    for _ in 0..ATTEMPTS {
        let preconditions =
            Preconditions { uid: now.metadata.uid.clone(), resource_version: now.metadata.resource_version.clone() };
        let params = DeleteParams { dry_run, ..DeleteParams::background() }.preconditions(preconditions);
        match session.objects().delete(name, &params).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(permission.explain("cannot delete the secret", &error)),
        }
        let found = lookup::all(session, &Called::Object(name.to_owned())).await?;
        now = found.into_iter().find(|found| told(found) == told(object)).ok_or_else(|| {
            CliError::Failed(format!(
                "msec/{name} has changed since the command read it; nothing was deleted; run the command again"
            ))
        })?;
    }
    Err(CliError::Failed(format!("msec/{name} keeps changing; nothing was deleted; try again")))
}

/// What the user was told about an object, in a form that shows whether it changed.
fn told(object: &ManagedSecret) -> impl PartialEq + use<> {
    let status = object.status.clone().unwrap_or_default();
    let (record, target) = (status.record.map(|record| record.uid), status.target.map(|target| target.uid));
    let metadata = &object.metadata;
    (metadata.uid.clone(), metadata.generation, status.deletion_policy, status.name, record, target)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(status: &Value) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "db", "uid": "u", "generation": 1, "resourceVersion": "1"},
            "spec": {"name": "DB", "deletionPolicy": "Retain"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_effective_policy_decides_what_is_said() {
        let place = |uid: &str| json!({"name": "msec-x", "key": "value", "uid": uid, "resourceVersion": "1"});
        let status = |policy: &str| json!({"name": "OLD", "deletionPolicy": policy, "record": place("r")});
        let retained = fate(&object(&status("Retain")));
        assert!(
            retained[0].contains("keeps the record msec-x") && retained[1].contains("OLD stays taken"),
            "{retained:?}"
        );
        assert!(fate(&object(&status("Delete")))[0].contains("deletes the record msec-x"));
        assert!(fate(&object(&json!({})))[0].contains("its record is unknown"));
    }

    #[test]
    fn what_was_told_moves_with_facts_and_not_with_conditions() {
        let status = json!({"name": "DB", "deletionPolicy": "Delete"});
        let mut other = object(&status);
        other.metadata.resource_version = Some("2".to_owned());
        assert!(told(&object(&status)) == told(&other));
        other.metadata.generation = Some(2);
        assert!(told(&object(&status)) != told(&other));
        assert!(told(&object(&status)) != told(&object(&json!({"name": "DB", "deletionPolicy": "Retain"}))));
    }
}
