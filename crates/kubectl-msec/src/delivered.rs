//! The value that a ManagedSecret delivers, if the user may read it and it is certain which value it is.
//!
//! A value that is resealed or compared must be that of the object's current spec. So the command reads it only if the
//! operator has applied the current spec, and only from the Secret, uid and version that status names: a later write by
//! another program is not the value.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use managed_secrets_api::types::Delivery;
use managed_secrets_api::{ManagedSecret, Reason};
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use managed_secrets_crypto::Plaintext;
use zeroize::Zeroizing;

use super::session;

/// The value, or why it is unknown, in words that follow the object's name.
pub(super) async fn value(client: &Client, object: &ManagedSecret) -> Result<Result<Plaintext, String>, CliError> {
    let namespace = object.namespace().unwrap_or_default();
    if object.spec.delivery() == Delivery::None {
        return Ok(Err("it is delivered to no Secret (delivery: None), so only the operator can read it".to_owned()));
    }
    if let Err(reason) = in_step(object) {
        return Ok(Err(format!("it is not up to date: {reason}")));
    }
    let Some(target) = object.status.as_ref().and_then(|status| status.target.as_ref()) else {
        return Ok(Err("its status names no Secret".to_owned()));
    };
    if target.key.is_empty() {
        return Ok(Err(format!(
            "the Secret {} does not hold it as it is: spec.target.template replaces it under its key",
            target.name
        )));
    }
    let permission = Permission::to("get", "secrets").named(&target.name).within(&namespace);
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let found = match session::find(secrets, &target.name).await {
        Ok(found) => found,
        Err(error) => match permission.explain("its Secret cannot be read", &error) {
            CliError::Failed(text) => return Ok(Err(text)),
            other => return Err(other),
        },
    };
    let changed = || format!("its Secret {} differs from what the operator wrote; try again in a moment", target.name);
    let ours = found.filter(|secret| {
        secret.metadata.uid.as_deref() == Some(&target.uid)
            && secret.metadata.resource_version.as_deref() == Some(&target.resource_version)
    });
    let bytes = ours.and_then(|secret| secret.data).and_then(|mut data| data.remove(&target.key));
    let value = bytes.and_then(|bytes| Plaintext::new(Zeroizing::new(bytes.0)).ok());
    Ok(value.ok_or_else(changed))
}

/// Why the delivered value is not the newest, which is that of the spec.
fn earlier(object: &ManagedSecret) -> Option<String> {
    let status = object.status.as_ref()?;
    let (delivered, newest) = (status.delivered?, status.version?);
    Some(format!(
        "its Secret has version {delivered}, as spec.version says, and the value of the spec is version {newest}"
    ))
}

/// Whether the delivered value is what the spec says; if not, the reason that the operator gives.
fn in_step(object: &ManagedSecret) -> Result<(), String> {
    let generation = object.metadata.generation;
    if object.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted".to_owned());
    }
    let status = object.status.as_ref();
    let ready = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = ready.into_iter().find(|condition| condition.type_ == "Ready");
    match ready {
        // A suspended object is ready, too, with the value of an older spec.
        Some(ready) if ready.status == "True" && ready.reason == Reason::Served.as_str() => {
            let now = status.and_then(|status| status.observed_generation);
            if now == generation && ready.observed_generation == generation {
                earlier(object).map_or(Ok(()), Err)
            } else {
                Err("the operator has not seen its current spec yet".to_owned())
            }
        }
        Some(ready) => Err(format!("{} (`kubectl msec explain {}`)", ready.reason, ready.reason)),
        None => Err(Reason::Pending.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    /// Sealed again, or compared, it would take the place of the newest.
    #[test]
    fn an_earlier_version_is_not_the_value_of_the_spec() {
        let object = |delivered: Option<i64>| -> ManagedSecret {
            let ready = json!({
                "type": "Ready", "status": "True", "reason": "Served", "message": "", "observedGeneration": 2,
                "lastTransitionTime": "2026-11-23T08:00:00Z",
            });
            serde_json::from_value(json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB"},
                "metadata": {"name": "db", "generation": 2},
                "status": {"version": 4, "delivered": delivered, "observedGeneration": 2, "conditions": [ready]},
            }))
            .unwrap()
        };
        assert_eq!(in_step(&object(None)), Ok(()));
        let reason = in_step(&object(Some(2))).unwrap_err();
        assert!(reason.contains("has version 2, as spec.version says") && reason.contains("version 4"), "{reason}");
    }
}
