//! Reads a value from the Secret that it is delivered to.

use k8s_openapi::api::core::v1::Secret;
use managed_secrets_api::types::{Delivery, TargetRef};
use managed_secrets_api::value::{SecretValue, SecretValueStatus, ValueText};
use managed_secrets_api::{ManagedSecret, keys, template};
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use zeroize::Zeroizing;

use crate::session::Session;
use crate::state::State;

/// The value of a secret, from its Secret.
pub(super) struct Delivered {
    /// The bytes.
    pub(super) value: Zeroizing<Vec<u8>>,
    /// What the user should know about it.
    pub(super) note: Option<String>,
    /// Whether the Secret holds an older version than status says.
    is_behind: bool,
}

/// Reads the value of this object.
pub(super) async fn read(session: &Session, object: &ManagedSecret) -> Result<Delivered, CliError> {
    let target = target(object)?;
    let permission = Permission::to("get", "secrets").named(&target.name).within(&session.namespace);
    let found = session.find::<Secret>(&target.name).await;
    let found = found.map_err(|error| permission.explain("cannot read the value", &error))?;
    let version = found.as_ref().and_then(|secret| secret.metadata.resource_version.clone()).unwrap_or_default();
    let value = value_of(found, object, target)?;
    Ok(Delivered { value, note: note(object, target, &version), is_behind: target.resource_version.is_empty() })
}

impl Delivered {
    /// The value as the value API would answer.
    pub(super) fn answer(&self, namespace: &str, object: &ManagedSecret) -> Result<SecretValue, CliError> {
        let failed = |why: &str| CliError::Failed(format!("cannot print the value as JSON: {why}"));
        if self.is_behind {
            return Err(failed("the Secret holds an older version, and its number is not known"));
        }
        let text = std::str::from_utf8(&self.value).map_err(|_| failed("it is not UTF-8 text"))?;
        let status = object.status.clone().unwrap_or_default();
        let missing = || failed("the status of the ManagedSecret is incomplete; try again in a moment");
        let version = status.delivered();
        let earlier = status.history.iter().flatten().find(|kept| Some(kept.version) == version);
        let updated = earlier.map(|kept| kept.created.clone()).or(status.value_updated_time);
        Ok(SecretValue::new(
            namespace,
            SecretValueStatus {
                id: status.id.ok_or_else(missing)?,
                name: status.name.ok_or_else(missing)?,
                version: version.and_then(|version| version.try_into().ok()).ok_or_else(missing)?,
                updated_date: status.updated_date.ok_or_else(missing)?,
                value_updated_time: updated.ok_or_else(missing)?,
                value: ValueText::copy_of(text),
            },
        ))
    }
}

/// Where the value is delivered.
fn target(object: &ManagedSecret) -> Result<&TargetRef, CliError> {
    if let Some(target) = object.status.as_ref().and_then(|status| status.target.as_ref()) {
        return Ok(target);
    }
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Err(CliError::Failed(match object.spec.delivery() {
        Delivery::None => format!(
            "cannot read the value: msec/{name} is not delivered (spec.delivery: None), so no Secret holds its value"
        ),
        Delivery::Secret => format!("msec/{name} is not delivered yet: {}", State::of(object)),
    }))
}

/// The value in a Secret, if that is the one that status names.
fn value_of(
    secret: Option<Secret>,
    object: &ManagedSecret,
    target: &TargetRef,
) -> Result<Zeroizing<Vec<u8>>, CliError> {
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
    if target.key.is_empty() {
        return Err(CliError::Failed(format!(
            "the Secret {name} does not hold the value as it is: spec.target.template replaces it under its key; read the \
             value through the value API"
        )));
    }
    let annotations = secret.metadata.annotations.as_ref();
    let previous = annotations.and_then(|all| all.get(keys::ANNO_PREVIOUS)).and_then(|text| text.split_once(':'));
    if previous.is_some_and(|(_, key)| key == target.key) {
        return Err(CliError::Failed(format!(
            "spec.target.previousKey has changed, so the key {} of the Secret {name} holds the previous value by now; try \
             again in a moment, or read the value through the value API",
            target.key
        )));
    }
    if may_be_replaced(&secret, object, target) {
        return Err(CliError::Failed(format!(
            "spec.target.template of the Secret {name} has changed, so its key {} may hold a text of the template; try \
             again in a moment, or read the value through the value API",
            target.key
        )));
    }
    // Each value is wiped on its way out, not this one alone.
    let mut data: Vec<_> = secret.data.into_iter().flatten().map(|(key, it)| (key, Zeroizing::new(it.0))).collect();
    let at = data.iter().position(|(key, _)| *key == target.key);
    at.map(|at| data.swap_remove(at).1).ok_or_else(|| {
        CliError::Failed(format!("the Secret {name} has no key {}; it was removed after the delivery", target.key))
    })
}

/// Whether the key that status names may hold a text of a template by now: the Secret was written after status, and either
/// another template than this spec's made it, or this one replaces the value under that key.
fn may_be_replaced(secret: &Secret, object: &ManagedSecret, target: &TargetRef) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let Some(made_by) = annotations.and_then(|all| all.get(keys::ANNO_TEMPLATE)) else { return false };
    let of_spec = object.spec.template().map(|texts| hex::encode(template::digest(texts)));
    let as_in_spec = of_spec.as_ref() == Some(made_by) && object.spec.value_key() == Some(target.key.as_str());
    secret.metadata.resource_version.as_ref() != Some(&target.resource_version) && !as_in_spec
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

    fn object(target: &serde_json::Value) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "db"},
            "spec": {"name": "DB", "generate": {}, "target": target},
        }))
        .unwrap()
    }

    /// The operator writes the Secret first, and then status.
    #[test]
    fn a_text_of_a_template_is_not_taken_for_the_value() {
        let target =
            TargetRef { name: "db".into(), key: "config".into(), uid: "u1".into(), resource_version: "7".into() };
        let before = json!({"url": "x://$(value)"});
        let replaced = json!({"config": "c=$(value)"});
        let prints = |spec: &serde_json::Value, made_by: &serde_json::Value, version: &str| {
            let texts = serde_json::from_value(made_by.clone()).unwrap();
            let secret = serde_json::from_value(json!({
                "metadata": {"name": "db", "uid": "u1", "resourceVersion": version,
                    "annotations": {keys::ANNO_TEMPLATE: hex::encode(template::digest(&texts))}},
                "data": {"config": "YQ=="},
            }));
            let object = object(&json!({"key": "config", "template": spec}));
            match value_of(Some(secret.unwrap()), &object, &target) {
                Ok(value) => value.as_slice() == b"a",
                Err(error) => {
                    assert!(error.to_string().contains("may hold a text of the template"), "{error}");
                    false
                }
            }
        };
        assert!(prints(&before, &before, "7"));
        assert!(prints(&before, &before, "8"), "another program wrote it: a note says so");
        assert!(prints(&replaced, &before, "7"), "the operator has not followed the spec yet");
        assert!(!prints(&replaced, &replaced, "8"));
        assert!(!prints(&before, &replaced, "8"), "the spec was read before it was changed");
    }

    /// The operator writes the Secret first, and then status.
    #[test]
    fn a_previous_value_is_not_taken_for_the_newest() {
        let target = TargetRef { name: "db".into(), key: "a".into(), uid: "u1".into(), resource_version: "7".into() };
        let object = object(&json!({"key": "b", "previousKey": "a"}));
        for (annotation, expected) in [("3:a", false), ("3:b", true)] {
            let secret = serde_json::from_value(json!({
                "metadata": {"name": "db", "uid": "u1", "annotations": {keys::ANNO_PREVIOUS: annotation}},
                "data": {"a": "YQ==", "b": "Yg=="},
            }));
            let value = value_of(Some(secret.unwrap()), &object, &target);
            assert_eq!(value.is_ok(), expected, "{annotation}");
        }
    }

    #[test]
    fn only_the_secret_that_status_names_is_believed() {
        let target =
            TargetRef { name: "db".into(), key: "value".into(), uid: "u1".into(), resource_version: "7".into() };
        let secret = |uid: &str, key: &str| -> Secret {
            serde_json::from_value(json!({"metadata": {"name": "db", "uid": uid}, "data": {"a": "YQ==", key: "AGIK"}}))
                .unwrap()
        };
        let object = object(&json!({}));
        assert_eq!(value_of(Some(secret("u1", "value")), &object, &target).unwrap().as_slice(), b"\0b\n");
        for (found, expected) in [
            (None, "was deleted"),
            (Some(secret("u2", "value")), "not the delivered one"),
            (Some(secret("u1", "other")), "has no key value"),
        ] {
            let error = value_of(found, &object, &target).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("AGIK"), "{error}");
        }
    }
}
