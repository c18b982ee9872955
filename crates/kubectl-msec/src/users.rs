//! What uses a Secret: pods and everything that creates pods, service accounts, Ingresses, the kinds of Gateway API, and
//! ManagedSecrets that take their value from it.
//!
//! All kinds are listed at once, a page at a time, so memory does not grow with the namespace. Gateways and `ListenerSet`s can
//! use a Secret of another namespace, so they are listed in all namespaces. A `ReferenceGrant` must allow such a reference,
//! but grants come and go: a reference counts with or without one.
//!
//! A kind that may not be listed, or could not be, is unknown: "not used" is said only of what was looked at. A kind that
//! the cluster does not have uses nothing. One that it serves in another version is read in that version; if that version
//! is not known here, the kind is unknown.

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

/// A kind of object that can use a Secret.
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
    reach: Reach,
}

/// Which Secrets an object can use, and in which ways it uses one; empty if it does not use it.
#[derive(Clone, Copy)]
enum Reach {
    /// A Secret of this name in the object's namespace.
    Own(fn(&Value, &str) -> Ways),
    /// A Secret in any namespace, by namespace and name.
    Any(fn(&Value, &str, &str) -> Ways),
}

/// In which namespaces objects are listed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Among {
    /// The Secret's.
    One,
    /// All.
    All,
    /// All but the Secret's.
    Others,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    name: &'static str,
    plural: &'static str,
    ways: fn(&Value, &str) -> Ways,
) -> Kind {
    Kind { group, version, older: &[], name, plural, fields: "", reach: Reach::Own(ways) }
}

/// A kind of Gateway API, of which a cluster need not have any.
const fn gateway_kind(version: &'static str, name: &'static str, plural: &'static str, reach: Reach) -> Kind {
    Kind { group: GATEWAY_API, version, older: &[], name, plural, fields: "", reach }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

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
    kind(GROUP, VERSION, KIND, PLURAL, references::of_managed_secret),
    Kind {
        older: &["v1alpha3", "v1alpha2"],
        ..gateway_kind("v1", "BackendTLSPolicy", "backendtlspolicies", Reach::Own(references::of_policy))
    },
    Kind {
        older: &["v1beta1", "v1alpha2"],
        ..gateway_kind("v1", "Gateway", "gateways", Reach::Any(references::of_gateway))
    },
    gateway_kind("v1", "ListenerSet", "listenersets", Reach::Any(references::of_gateway)),
    // ListenerSets before Gateway API 1.5.
    Kind {
        group: "gateway.networking.x-k8s.io",
        ..gateway_kind("v1alpha1", "XListenerSet", "xlistenersets", Reach::Any(references::of_gateway))
    },
];

impl Kind {
    /// As kubectl writes it: `pods`, `cronjobs.batch`.
    fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    async fn users(&self, session: &Session, secret: &str) -> Users {
        let among = match self.reach {
            Reach::Own(_) => Among::One,
            Reach::Any(_) => Among::All,
        };
        let unknown = |among, why| vec![Unknown { resource: self.resource(), among, why }];
        match self.users_among(session, among, secret).await {
            Ok(known) => Users { known, unknown: Vec::new() },
            // RBAC refuses before the API server says that it has no such kind.
            Err(Why::NotAllowed) if self.is_absent(session).await => Users::default(),
            Err(Why::NotAllowed) if among == Among::All => match self.users_among(session, Among::One, secret).await {
                Ok(known) => Users { known, unknown: unknown(Among::Others, Why::NotAllowed) },
                Err(_) => Users { known: Vec::new(), unknown: unknown(Among::All, Why::NotAllowed) },
            },
            Err(why) => Users { known: Vec::new(), unknown: unknown(among, why) },
        }
    }

    async fn users_among(&self, session: &Session, among: Among, secret: &str) -> Result<Vec<User>, Why> {
        if let Some(users) = self.users_in(session, self.version, among, secret).await? {
            return Ok(users);
        }
        // A version in which the objects are read shows all of them, whichever version they were written in.
        let mut served = self.served(session).await.map_err(|error| Why::of(&error))?;
        served.retain(|version| version != self.version);
        for version in self.older.iter().filter(|version| served.iter().any(|it| it == *version)) {
            if let Some(users) = self.users_in(session, version, among, secret).await? {
                return Ok(users);
            }
        }
        for version in served.iter().filter(|version| !self.older.contains(&version.as_str())) {
            if self.users_in(session, version, among, secret).await?.is_some() {
                let why = format!("the cluster serves them as {}/{version}, which is not known here", self.group);
                return Err(Why::Failed(why));
            }
        }
        Ok(Vec::new())
    }

    /// The versions of the group that the cluster serves; none if it does not have the group.
    async fn served(&self, session: &Session) -> kube::Result<Vec<String>> {
        let request = http::Request::get(format!("/apis/{}", self.group)).body(Vec::new());
        match session.client.request::<APIGroup>(request.map_err(kube::Error::HttpError)?).await {
            Ok(group) => Ok(group.versions.into_iter().map(|it| it.version).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether the cluster does not have this kind, as its list of kinds shows, which every user may read.
    async fn is_absent(&self, session: &Session) -> bool {
        // Every cluster has the kinds of Kubernetes itself.
        if !self.group.starts_with("gateway.") {
            return false;
        }
        let Ok(versions) = self.served(session).await else { return false };
        for version in versions {
            match session.client.list_api_group_resources(&format!("{}/{version}", self.group)).await {
                Ok(list) if list.resources.iter().all(|resource| resource.name != self.plural) => {}
                _ => return false,
            }
        }
        true
    }

    /// What uses the Secret, as this version shows it; `None` if the cluster does not serve the kind in it.
    async fn users_in(
        &self,
        session: &Session,
        version: &str,
        among: Among,
        secret: &str,
    ) -> Result<Option<Vec<User>>, Why> {
        let gvk = GroupVersionKind::gvk(self.group, version, self.name);
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.plural);
        let client = session.client.clone();
        let api = match among {
            Among::One => Api::<DynamicObject>::namespaced_with(client, &session.namespace, &resource),
            Among::All | Among::Others => Api::all_with(client, &resource),
        };
        let mut params = ListParams::default().fields(self.fields).limit(PAGE);
        let mut users = Vec::new();
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(error) => return Err(Why::of(&error)),
            };
            users.extend(page.items.iter().filter_map(|object| self.user(object, &session.namespace, secret)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(Some(users)),
            }
        }
    }

    fn user(&self, object: &DynamicObject, namespace: &str, secret: &str) -> Option<User> {
        let name = object.metadata.name.clone()?;
        let ways = match self.reach {
            Reach::Own(ways) => ways(&whole(object), secret),
            Reach::Any(ways) => ways(&whole(object), namespace, secret),
        };
        let elsewhere = object.metadata.namespace.clone().filter(|own| own != namespace);
        (!ways.is_empty()).then(|| User { kind: self.name.to_lowercase(), elsewhere, name, ways })
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
    /// Its namespace, if it is not the Secret's.
    pub(super) elsewhere: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// In which ways, such as `volume credentials`.
    pub(super) ways: Vec<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)?;
        self.elsewhere.as_ref().map_or(Ok(()), |namespace| write!(f, " in the namespace {namespace}"))?;
        write!(f, " ({})", self.ways.join(", "))
    }
}

/// A kind of object that could not be looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unknown {
    /// The kind, as kubectl writes it.
    resource: String,
    among: Among,
    why: Why,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Why {
    /// RBAC does not allow the list.
    NotAllowed,
    /// Anything else.
    Failed(String),
}

impl Why {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 => Self::NotAllowed,
            _ => Self::Failed(CliError::from_kube("cannot list them", error).to_string()),
        }
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
    /// What could not be looked at, a line for each reason; empty if everything was.
    pub(super) fn unknown(&self, namespace: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for among in [Among::One, Among::All, Among::Others] {
            let refused = self.unknown.iter().filter(|it| it.among == among && it.why == Why::NotAllowed);
            let refused: Vec<_> = refused.map(|it| it.resource.as_str()).collect();
            let Some(first) = refused.first() else { continue };
            let (place, permission) = match among {
                Among::One => ("", Permission::to("list", first).within(namespace)),
                Among::All => (" in all namespaces", Permission::to("list", first)),
                Among::Others => (" in other namespaces", Permission::to("list", first)),
            };
            let others = if refused.len() > 1 { ", and likewise for the others" } else { "" };
            lines.push(format!("{}{place}: permission denied: check `{permission}`{others}", refused.join(", ")));
        }
        lines.extend(self.unknown.iter().filter_map(|it| match &it.why {
            Why::NotAllowed => None,
            Why::Failed(why) => Some(format!("{}: {why}", it.resource)),
        }));
        lines
    }
}

/// What uses a Secret of the session's namespace, and what could not be looked at.
pub(super) async fn of_secret(session: &Session, secret: &str) -> Users {
    let mut users = Users::default();
    for mut found in join_all(KINDS.iter().map(|kind| kind.users(session, secret))).await {
        found.known.sort_by(|one, other| (&one.elsewhere, &one.name).cmp(&(&other.elsewhere, &other.name)));
        users.known.extend(found.known);
        users.unknown.extend(found.unknown);
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_listed_is_a_line_for_each_permission_and_every_other_failure_its_own() {
        let unknown = |resource: &str, among, code| {
            let status = kube::core::Status { code, ..Default::default() };
            Unknown { resource: resource.to_owned(), among, why: Why::of(&kube::Error::Api(Box::new(status))) }
        };
        let users = Users {
            known: Vec::new(),
            unknown: vec![
                unknown("gateways.x", Among::Others, 403),
                unknown("pods", Among::One, 403),
                unknown("jobs.batch", Among::One, 500),
                unknown("sets.x", Among::All, 403),
                unknown("cronjobs.batch", Among::One, 403),
            ],
        };
        let lines = users.unknown("shop");
        assert_eq!(
            lines[..3],
            [
                "pods, cronjobs.batch: permission denied: check `kubectl auth can-i list pods -n shop`, and likewise for \
                 the others",
                "sets.x in all namespaces: permission denied: check `kubectl auth can-i list sets.x -A`",
                "gateways.x in other namespaces: permission denied: check `kubectl auth can-i list gateways.x -A`",
            ]
        );
        assert!(lines.len() == 4 && lines[3].starts_with("jobs.batch: cannot list them"), "{lines:?}");
    }
}
