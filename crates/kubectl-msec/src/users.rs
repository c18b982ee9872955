//! What uses a Secret: pods and everything that makes pods, service accounts, Ingresses, Gateways, and ManagedSecrets that
//! take their value from it.
//!
//! All kinds are listed at once, a page at a time, so memory does not grow with the namespace. A kind that may not be
//! listed, or could not be, is unknown: the command says "not used" only of what it looked at. A kind that the cluster does not
//! have uses nothing; one that it serves in another version is looked at in that version, or unknown where its form is.

mod references;

use std::fmt;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use managed_secrets_api::keys::{GROUP, KIND, PLURAL, VERSION};
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use serde_json::Value;

use self::references::Ways;
use super::session::Session;

/// Objects to a page of a list.
const PAGE: u32 = 500;

/// Pods that have ended use nothing any more.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// A kind of object that can use a Secret of its namespace.
struct Kind {
    group: &'static str,
    version: &'static str,
    /// Other versions in which an object of this kind names a Secret in the same fields.
    older: &'static [&'static str],
    /// As manifests write it, such as `CronJob`.
    name: &'static str,
    plural: &'static str,
    /// A field selector for those that count.
    fields: &'static str,
    /// In which ways an object of this kind uses a Secret; empty where it does not.
    ways: fn(&Value, &str) -> Ways,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    ways: fn(&Value, &str) -> Ways,
) -> Kind {
    Kind { group, version, older: &[], name, plural, fields: "", ways }
}

/// Every kind that is looked at. ReplicaSets of a Deployment and Jobs of a CronJob are left to these.
const KINDS: &[Kind] = &[
    Kind { fields: NOT_ENDED, ..kind("", "v1", "Pod", "pods", references::of_pod) },
    kind("apps", "v1", "Deployment", "deployments", references::of_template),
    kind("apps", "v1", "StatefulSet", "statefulsets", references::of_template),
    kind("apps", "v1", "DaemonSet", "daemonsets", references::of_template),
    kind("apps", "v1", "ReplicaSet", "replicasets", references::of_replica_set),
    kind("", "v1", "ReplicationController", "replicationcontrollers", references::of_template),
    kind("batch", "v1", "CronJob", "cronjobs", references::of_cron_job),
    kind("batch", "v1", "Job", "jobs", references::of_job),
    kind("", "v1", "ServiceAccount", "serviceaccounts", references::of_service_account),
    kind("networking.k8s.io", "v1", "Ingress", "ingresses", references::of_ingress),
    Kind {
        older: &["v1beta1", "v1alpha2"],
        ..kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways", references::of_gateway)
    },
    kind(GROUP, VERSION, KIND, PLURAL, references::of_managed_secret),
];

impl Kind {
    /// As kubectl writes it: `pods`, `cronjobs.batch`.
    fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    async fn users(&self, session: &Session, secret: &str) -> Result<Vec<User>, Unknown> {
        if let Some(users) = self.users_in(session, self.version, secret).await? {
            return Ok(users);
        }
        // A version in which the objects are read shows all of them, whichever version they were written in.
        let served = self.served(session).await?;
        for version in self.older.iter().filter(|version| served.iter().any(|it| it == *version)) {
            if let Some(users) = self.users_in(session, version, secret).await? {
                return Ok(users);
            }
        }
        for version in served.iter().filter(|version| !self.older.contains(&version.as_str())) {
            if self.users_in(session, version, secret).await?.is_some() {
                let why = format!("the cluster serves them as {}/{version}, which is not known here", self.group);
                return Err(Unknown { resource: self.resource(), why: Why::Failed(why) });
            }
        }
        Ok(Vec::new())
    }

    /// The versions of the group that the cluster serves besides the usual one.
    async fn served(&self, session: &Session) -> Result<Vec<String>, Unknown> {
        let unknown = |error: &kube::Error| Unknown::of(self.resource(), error);
        let request = http::Request::get(format!("/apis/{}", self.group)).body(Vec::new());
        let request = request.map_err(|error| unknown(&kube::Error::HttpError(error)))?;
        match session.client.request::<APIGroup>(request).await {
            Ok(group) => Ok(group.versions.into_iter().map(|it| it.version).filter(|it| it != self.version).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(unknown(&error)),
        }
    }

    /// What uses the Secret, as this version shows it; `None` where the cluster does not serve the kind in it.
    async fn users_in(&self, session: &Session, version: &str, secret: &str) -> Result<Option<Vec<User>>, Unknown> {
        let gvk = GroupVersionKind::gvk(self.group, version, self.name);
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.plural);
        let api = Api::<DynamicObject>::namespaced_with(session.client.clone(), &session.namespace, &resource);
        let mut params = ListParams::default().fields(self.fields).limit(PAGE);
        let mut users = Vec::new();
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(error) => return Err(Unknown::of(self.resource(), &error)),
            };
            users.extend(page.items.iter().filter_map(|object| {
                let name = object.metadata.name.clone()?;
                let ways = (self.ways)(&whole(object), secret);
                (!ways.is_empty()).then(|| User { kind: self.name.to_lowercase(), name, ways })
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Some(users)),
            }
        }
    }
}

/// An object with the metadata that a reference can depend on.
fn whole(object: &DynamicObject) -> Value {
    let mut json = object.data.clone();
    if let Value::Object(fields) = &mut json {
        let owners = serde_json::to_value(&object.metadata.owner_references).unwrap_or_default();
        fields.insert(
            "metadata".to_owned(),
            serde_json::json!({"namespace": object.metadata.namespace, "ownerReferences": owners}),
        );
    }
    json
}

/// An object that uses the Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct User {
    /// Its kind in lower case, as kubectl names an object: `pod`, `cronjob`.
    pub(super) kind: String,
    /// Its name.
    pub(super) name: String,
    /// In which ways, such as `volume credentials`.
    pub(super) ways: Vec<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.kind, self.name, self.ways.join(", "))
    }
}

/// A kind of object that could not be looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unknown {
    /// The kind, as kubectl writes it.
    resource: String,
    why: Why,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Why {
    /// RBAC does not allow the list.
    NotAllowed,
    /// Anything else.
    Failed(String),
}

impl Unknown {
    fn of(resource: String, error: &kube::Error) -> Self {
        let why = match error {
            kube::Error::Api(status) if status.code == 403 => Why::NotAllowed,
            _ => Why::Failed(CliError::from_kube("cannot list them", error).to_string()),
        };
        Self { resource, why }
    }
}

/// What is known about the use of a Secret.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Users {
    /// What uses it, in the order of kinds, then by name.
    pub(super) known: Vec<User>,
    unknown: Vec<Unknown>,
}

impl Users {
    /// What could not be looked at, a line for each reason; empty where everything was.
    pub(super) fn unknown(&self, namespace: &str) -> Vec<String> {
        let not_allowed: Vec<_> =
            self.unknown.iter().filter(|it| it.why == Why::NotAllowed).map(|it| it.resource.as_str()).collect();
        let mut lines = Vec::new();
        if let Some(first) = not_allowed.first() {
            let check = Permission::to("list", first).within(namespace);
            let others = if not_allowed.len() > 1 { ", and likewise for the others" } else { "" };
            lines.push(format!("{}: permission denied: check `{check}`{others}", not_allowed.join(", ")));
        }
        lines.extend(self.unknown.iter().filter_map(|it| match &it.why {
            Why::NotAllowed => None,
            Why::Failed(why) => Some(format!("{}: {why}", it.resource)),
        }));
        lines
    }
}

/// What uses a Secret in the namespace, and what could not be looked at.
pub(super) async fn of_secret(session: &Session, secret: &str) -> Users {
    let mut users = Users::default();
    for found in join_all(KINDS.iter().map(|kind| kind.users(session, secret))).await {
        match found {
            Ok(mut known) => {
                known.sort_by(|one, other| one.name.cmp(&other.name));
                users.known.extend(known);
            }
            Err(unknown) => users.unknown.push(unknown),
        }
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_listed_is_one_line_and_every_other_failure_its_own() {
        let unknown = |resource: &str, code| {
            let status = kube::core::Status { code, ..Default::default() };
            Unknown::of(resource.to_owned(), &kube::Error::Api(Box::new(status)))
        };
        let users = Users {
            known: Vec::new(),
            unknown: vec![unknown("pods", 403), unknown("jobs.batch", 500), unknown("cronjobs.batch", 403)],
        };
        let lines = users.unknown("shop");
        assert_eq!(
            lines[0],
            "pods, cronjobs.batch: permission denied: check `kubectl auth can-i list pods -n shop`, and likewise for the \
             others"
        );
        assert!(lines.len() == 2 && lines[1].starts_with("jobs.batch: cannot list them"), "{lines:?}");
    }
}
