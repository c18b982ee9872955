//! The workloads that a new value restarts, and for which version they were restarted last.

use std::fmt;

use futures::future::join_all;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::restarts::{GROUP, Mark, key};
use managed_secrets_api::types::Workload;
use managed_secrets_cli::permission::Permission;
use serde_json::Value;

use super::session::Session;

/// A workload of `spec.target.restart`.
#[derive(Debug)]
pub(super) struct Restarted {
    workload: Workload,
    state: State,
}

#[derive(Debug, Eq, PartialEq)]
enum State {
    /// Its pods were restarted for this version.
    Version(i64),
    /// Not yet: the operator began with this version.
    Since(i64),
    /// It has no mark.
    Unmarked,
    Missing,
    /// It may not be read, or could not be; why.
    Unknown(String),
}

impl fmt::Display for Restarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workload = &self.workload;
        match &self.state {
            State::Version(version) => write!(f, "{workload}: restarted for version {version}"),
            State::Since(version) => write!(f, "{workload}: not restarted since version {version}"),
            State::Unmarked => write!(f, "{workload}: not restarted yet"),
            State::Missing => write!(f, "{workload}: not found"),
            State::Unknown(why) => write!(f, "{workload}: unknown: {why}"),
        }
    }
}

/// The workloads that an object names, read one by one.
pub(super) async fn of(session: &Session, object: &ManagedSecret) -> Vec<Restarted> {
    let named = object.spec.target.as_ref().and_then(|target| target.restart.as_deref()).unwrap_or_default();
    let id = object.status.as_ref().and_then(|status| status.id.as_deref()).unwrap_or_default();
    let key = key(object.metadata.name.as_deref().unwrap_or_default());
    join_all(named.iter().map(|workload| async {
        Restarted { workload: workload.clone(), state: state(session, workload, &key, id).await }
    }))
    .await
}

async fn state(session: &Session, workload: &Workload, key: &str, id: &str) -> State {
    let Workload { kind, name } = workload;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind.as_str()), kind.plural());
    let api = Api::<DynamicObject>::namespaced_with(session.client.clone(), &session.namespace, &resource);
    match api.get_opt(name).await {
        Ok(None) => State::Missing,
        Ok(Some(live)) => marked(&live.data, live.metadata.annotations.as_ref().and_then(|all| all.get(key)), key, id),
        Err(error) => {
            let resource = format!("{}.{GROUP}", kind.plural());
            let permission = Permission::to("get", &resource).named(name).within(&session.namespace);
            State::Unknown(permission.explain("cannot read it", &error).to_string())
        }
    }
}

fn marked(live: &Value, on_metadata: Option<&String>, key: &str, id: &str) -> State {
    let version = |text: &str| Mark::read(text).filter(|mark| mark.id == id).map(|mark| mark.version);
    let on_template = live.pointer("/spec/template/metadata/annotations").and_then(|all| all.get(key)?.as_str());
    // The mark on the metadata says what the pods have: that on the template goes back with it.
    match (on_template.and_then(version), on_metadata.and_then(|text| version(text))) {
        (Some(restarted), known) => State::Version(known.unwrap_or(restarted)),
        (None, Some(known)) => State::Since(known),
        (None, None) => State::Unmarked,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mark_of_this_secret_counts_and_no_other() {
        let template = |text: &str| json!({"spec": {"template": {"metadata": {"annotations": {"k": text}}}}});
        let (mine, other) = ("id/3".to_owned(), "other/3".to_owned());
        assert_eq!(marked(&template("id/7"), None, "k", "id"), State::Version(7));
        assert_eq!(marked(&template("id/1"), Some(&mine), "k", "id"), State::Version(3), "a rollout was undone");
        assert_eq!(marked(&json!({}), Some(&mine), "k", "id"), State::Since(3));
        for text in [None, Some(&other)] {
            assert_eq!(marked(&template("other/7"), text, "k", "id"), State::Unmarked);
        }
    }
}
