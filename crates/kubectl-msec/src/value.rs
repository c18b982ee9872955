//! `kubectl msec value`: the value, byte for byte, and nothing else.
//!
//! ```text
//! lookup (spec.name or status.id) ─▶ status.target ─▶ Secret ─▶ is it that one? ─▶ its key ─▶ standard output
//! ```
//!
//! Two requests. The command prints the current value, from the Secret that status names by its uid. A Secret that
//! replaced it is not accepted, whatever labels it has. If a newer value is wanted but not delivered, a note says so.

use std::io::Write as _;

use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::types::{Delivery, TargetRef};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use zeroize::Zeroizing;

use super::completion;
use super::lookup;
use super::session::{ClusterArgs, Session};
use super::state::State;

const EXAMPLES: &str = "\
You need permission to read the Secret that pods mount (kubectl auth can-i get secrets/NAME). The command cannot read \
the value of a secret that is not delivered (delivery: None).

Examples:
  # To a program, without a copy on disk
  kubectl msec value DB_PASSWORD | psql-login

  # By id
  kubectl msec value 2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";

/// Arguments of `value`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ValueArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,
}

/// Prints the value of a secret, and nothing else.
pub(super) async fn value(cluster: &ClusterArgs, args: &ValueArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let object = lookup::one(&session, &args.secret).await?;
    if let Some(other) = lookup::only_wanted(&args.secret, &object) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        return Err(CliError::Failed(format!("{other}; to read its value, name the object: msec/{name}")));
    }
    let target = target(&session, &object)?;
    let permission = Permission::to("get", "secrets").named(&target.name).within(&session.namespace);
    let found = session.find::<Secret>(&target.name).await;
    let found = found.map_err(|error| permission.explain("cannot read the value", &error))?;
    let version = found.as_ref().and_then(|secret| secret.metadata.resource_version.clone()).unwrap_or_default();
    let value = value_of(found, target)?;
    if let Some(note) = note(&object, target, &version) {
        say::tell(format_args!("note: {note}"));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(&value)
        .and_then(|()| out.flush())
        .map_err(|error| CliError::failed("cannot write to standard output", &error))
}

/// Where the value is delivered.
fn target<'a>(session: &Session, object: &'a ManagedSecret) -> Result<&'a TargetRef, CliError> {
    if let Some(target) = object.status.as_ref().and_then(|status| status.target.as_ref()) {
        return Ok(target);
    }
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Err(CliError::Failed(match object.spec.delivery() {
        Delivery::None => {
            let permission = Permission::to_objects("get").named(name).part("value").within(&session.namespace);
            format!(
                "msec/{name} is not delivered (spec.delivery: None), so no Secret holds its value; to read it, set \
                 spec.delivery: Secret, which needs the permission `{permission}`"
            )
        }
        Delivery::Secret => format!("msec/{name} is not delivered yet: {}", State::of(object)),
    }))
}

/// The value in a Secret, if that is the one that status names.
fn value_of(secret: Option<Secret>, target: &TargetRef) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let name = &target.name;
    let secret = secret.ok_or_else(|| {
        CliError::Failed(format!("the Secret {name} was deleted; the operator recreates it; try again in a moment"))
    })?;
    if secret.metadata.uid.as_deref() != Some(&target.uid) {
        return Err(CliError::Failed(format!(
            "the Secret {name} is not the delivered one (its uid differs), so its content is not this secret's \
             value"
        )));
    }
    // Each value is wiped on its way out, not this one alone.
    let mut data: Vec<_> = secret.data.into_iter().flatten().map(|(key, it)| (key, Zeroizing::new(it.0))).collect();
    let at = data.iter().position(|(key, _)| *key == target.key);
    at.map(|at| data.swap_remove(at).1).ok_or_else(|| {
        CliError::Failed(format!("the Secret {name} has no key {}; it was removed after the delivery", target.key))
    })
}

/// A note if this may not be the value that the spec asks for. `version` is the Secret's resourceVersion.
fn note(object: &ManagedSecret, target: &TargetRef, version: &str) -> Option<String> {
    // The operator's mark for a target that holds an older version, because the newest could not be delivered.
    let behind = target.resource_version.is_empty();
    match State::of(object) {
        State::Suspended => {
            Some("this is the current value; spec.suspend is true, so no newer value is delivered".to_owned())
        }
        State::Waiting(why) | State::Stalled(why) => {
            let (reason, message) = (why.reason, why.message);
            Some(format!(
                "this is the current value; the value that the spec asks for is not delivered yet: {reason}: {message}"
            ))
        }
        State::Served if behind => Some("a newer version of this value could not be delivered yet".to_owned()),
        // The operator corrects what others write, and status shows the operator's last write.
        State::Served if version != target.resource_version => Some(format!(
            "the Secret {} was written after the last write that status shows; if another program wrote it, this may \
             be another value",
            target.name
        )),
        State::Served => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_secret_that_status_names_is_believed() {
        let target =
            TargetRef { name: "db".into(), key: "value".into(), uid: "u1".into(), resource_version: "7".into() };
        let secret = |uid: &str, key: &str| -> Secret {
            serde_json::from_value(json!({"metadata": {"name": "db", "uid": uid}, "data": {"a": "YQ==", key: "AGIK"}}))
                .unwrap()
        };
        assert_eq!(value_of(Some(secret("u1", "value")), &target).unwrap().as_slice(), b"\0b\n");
        for (found, expected) in [
            (None, "was deleted"),
            (Some(secret("u2", "value")), "not the delivered one"),
            (Some(secret("u1", "other")), "has no key value"),
        ] {
            let error = value_of(found, &target).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("AGIK"), "{error}");
        }
    }
}
