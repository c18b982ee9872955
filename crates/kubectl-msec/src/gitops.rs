//! Whether a GitOps tool manages an object: what a command changes in the cluster, such a tool may change back.

use managed_secrets_api::ManagedSecret;
use managed_secrets_cli::CliError;

/// Field managers of the tools that apply what is in a repository, and the tools' names.
const TOOLS: [(&str, &str); 4] =
    [("argocd-controller", "Argo CD"), ("kustomize-controller", "Flux"), ("helm-controller", "Flux"), ("helm", "Helm")];

/// Refuses to change what a GitOps tool manages, unless the user insists. `change` says what to do in the repository
/// instead, as an imperative sentence without its end.
pub(super) fn refuse_if_managed(object: &ManagedSecret, change: &str, force: bool) -> Result<(), CliError> {
    let Some((manager, tool)) = manager(object).filter(|_| !force) else { return Ok(()) };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    Err(CliError::Failed(format!(
        "{tool} manages msec/{name} (field manager {manager}) and may change it back: {change} in the repository, or use \
         --force to change the cluster only"
    )))
}

/// The tool that owns fields of the spec, if one does: its field manager and its name.
fn manager(object: &ManagedSecret) -> Option<(&'static str, &'static str)> {
    let entries = object.metadata.managed_fields.iter().flatten();
    let of_spec = entries.filter(|entry| {
        entry.subresource.is_none() && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some())
    });
    let managers: Vec<_> = of_spec.filter_map(|entry| entry.manager.as_deref()).collect();
    TOOLS.into_iter().find(|(manager, _)| managers.contains(manager))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(managers: &[(&str, Value)]) -> ManagedSecret {
        let entry = |(manager, fields): &(&str, Value)| json!({"manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields});
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db", "managedFields": managers.iter().map(entry).collect::<Vec<_>>()},
        }))
        .unwrap()
    }

    #[test]
    fn a_tool_that_owns_the_spec_is_named_and_can_be_overruled() {
        let spec = || json!({"f:spec": {"f:name": {}}});
        let argo = object(&[("kubectl-msec", spec()), ("argocd-controller", spec())]);
        let error = refuse_if_managed(&argo, "set spec.generate.revision", false).unwrap_err().to_string();
        for part in ["Argo CD", "argocd-controller", "msec/db", "set spec.generate.revision", "--force"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(refuse_if_managed(&argo, "", true).is_ok());
    }

    #[test]
    fn users_and_tools_that_own_only_metadata_manage_no_spec() {
        let labels = json!({"f:metadata": {"f:labels": {}}});
        for managers in [vec![], vec![("kubectl", json!({"f:spec": {}}))], vec![("argocd-controller", labels)]] {
            assert!(refuse_if_managed(&object(&managers), "", false).is_ok(), "{managers:?}");
        }
    }
}
