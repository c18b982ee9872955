//! Everything that the checks look at, read at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Resource};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{
    GROUP, KEK_PREFIX, KEYRING_NAME, LABEL_ROLE, OPERATOR_NAME, PLURAL, PUBLIC_KEY_CONFIGMAP, ROLE_TARGET, TYPE_KEK,
    TYPE_KEYRING, TYPE_RECORD, WEBHOOK_DATA_KEY, WEBHOOK_SECRET,
};
use managed_secrets_api::value::API_SERVICE;
use managed_secrets_cli::CliError;
use managed_secrets_cli::names;
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::{CallError, RefusalKind, SecretApi};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::finding::Read;
use crate::archive::StoredKeyring;
use crate::session::Session;

/// Name of the ConfigMap in which the API server publishes how its front proxy authenticates, and its namespace.
const FRONT_PROXY: (&str, &str) = ("extension-apiserver-authentication", "kube-system");

/// Objects of one page.
const PAGE: u32 = 500;

/// What an installation looks like, as far as the caller may see it.
#[derive(Debug)]
pub(super) struct Facts {
    /// The time of the reads.
    pub(super) now: Timestamp,
    /// The operator's namespace.
    pub(super) own: String,
    /// The caller's.
    pub(super) namespace: String,
    /// Major and minor version of the server.
    pub(super) server: Read<(String, String)>,
    pub(super) crd: Read<Option<CustomResourceDefinition>>,
    pub(super) deployment: Read<Option<Deployment>>,
    /// The namespaces that the Deployment's `--namespace` name; none where all are served.
    pub(super) served: Read<Vec<Served>>,
    pub(super) account: Read<Option<ServiceAccount>>,
    /// Of the operator's Service.
    pub(super) endpoints: Read<Vec<EndpointSlice>>,
    pub(super) mutating: Read<Vec<MutatingWebhookConfiguration>>,
    pub(super) validating: Read<Vec<ValidatingWebhookConfiguration>>,
    /// That of the value API.
    pub(super) api_service: Read<Option<APIService>>,
    /// Where the API server publishes how its front proxy authenticates.
    pub(super) front_proxy: Read<Option<ConfigMap>>,
    pub(super) policies: Read<Vec<ValidatingAdmissionPolicy>>,
    pub(super) bindings: Read<Vec<ValidatingAdmissionPolicyBinding>>,
    /// When each certificate authority was made; none where there is no Secret of them.
    pub(super) authorities: Read<Option<Vec<Timestamp>>>,
    /// Each Secret of the keyrings' type: its name, and what it holds if that is a keyring.
    pub(super) keyrings: Read<Vec<(String, Option<StoredKeyring>)>>,
    /// Ids of the local key-encryption keys: from their names, they themselves are never read.
    pub(super) keks: Read<BTreeSet<String>>,
    pub(super) public_key: Read<Option<ConfigMap>>,
    pub(super) objects: Read<Vec<ManagedSecret>>,
    pub(super) records: Read<Vec<ObjectMeta>>,
    /// Secrets that look delivered, by their label.
    pub(super) targets: Read<Vec<ObjectMeta>>,
    /// What commands need, and whether the caller may.
    pub(super) permissions: Read<Vec<(Need, bool)>>,
}

/// A namespace that the operator is limited to.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) namespace: String,
    pub(super) exists: bool,
    /// Whether it has the `RoleBinding` that gives the operator its permissions.
    pub(super) bound: bool,
}

/// A permission that a command needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Need {
    /// What for.
    pub(super) command: &'static str,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    name: Option<&'static str>,
    place: Where,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Where {
    /// The caller's namespace.
    Here,
    /// The operator's.
    Own,
    Everywhere,
}

/// What each command needs.
pub(super) const NEEDS: [Need; 15] = [
    need(
        "get, list, export, create, update, rotate, delete, value, can-read, describe",
        "list",
        GROUP,
        PLURAL,
        Where::Here,
    ),
    need("create, update, rotate, delete, diff, reseal", "get", GROUP, PLURAL, Where::Here),
    need("create", "create", GROUP, PLURAL, Where::Here),
    need("update, rotate", "patch", GROUP, PLURAL, Where::Here),
    need("delete", "delete", GROUP, PLURAL, Where::Here),
    need("value, diff, reseal", "get", "", "secrets", Where::Here),
    need("describe, delete", "list", "", "pods", Where::Here),
    need("describe", "list", "", "events", Where::Here),
    Need { name: Some(PUBLIC_KEY_CONFIGMAP), ..need("create, update, seal", "get", "", "configmaps", Where::Own) },
    need("backup -A, keys list", "list", GROUP, PLURAL, Where::Everywhere),
    need("backup -A, keys list", "list", "", "secrets", Where::Everywhere),
    Need { name: Some(KEYRING_NAME), ..need("keys rotate", "patch", "", "secrets", Where::Own) },
    need("restore", "patch", "", "secrets", Where::Everywhere),
    need("restore", "create", "", "secrets", Where::Everywhere),
    need("restore", "create", GROUP, PLURAL, Where::Everywhere),
];

const fn need(
    command: &'static str,
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    place: Where,
) -> Need {
    Need { command, verb, group, resource, name: None, place }
}

impl Need {
    /// In the words of `kubectl auth can-i`.
    pub(super) fn can_i(&self, here: &str, own: &str) -> String {
        let resource =
            if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) };
        let permission = Permission::to(self.verb, &resource);
        let permission = self.name.map_or(permission, |name| permission.named(name));
        match self.place {
            Where::Here => permission.within(here),
            Where::Own => permission.within(own),
            Where::Everywhere => permission,
        }
        .to_string()
    }
}

/// Reads everything; an error only where there is no cluster.
pub(super) async fn read(session: &Session, own: &str) -> Result<Facts, CliError> {
    let client = &session.client;
    // The first call also tells whether there is anybody to ask.
    let server = match client.apiserver_version().await {
        Ok(version) => Read::Known((version.major, version.minor)),
        Err(error @ kube::Error::Api(_)) => Read::Unknown(CliError::from_kube("refused", &error).to_string()),
        Err(error) => return Err(CliError::from_kube("cannot call the cluster", &error)),
    };
    let crd_name = format!("{PLURAL}.{GROUP}");
    let service = format!("kubernetes.io/service-name={OPERATOR_NAME}");
    let (api_service, front_proxy) = futures::join!(
        cluster_object(client, API_SERVICE, "apiservices.apiregistration.k8s.io"),
        object(client, FRONT_PROXY.1, FRONT_PROXY.0, "configmaps"),
    );
    let (crd, mutating, validating, policies, bindings) = futures::join!(
        cluster_object(client, &crd_name, "customresourcedefinitions.apiextensions.k8s.io"),
        cluster_list(client, "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
        cluster_list(client, "validatingwebhookconfigurations.admissionregistration.k8s.io"),
        cluster_list(client, "validatingadmissionpolicies.admissionregistration.k8s.io"),
        cluster_list(client, "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    );
    let (deployment, account, public_key, endpoints) = futures::join!(
        object(client, own, OPERATOR_NAME, "deployments.apps"),
        object(client, own, OPERATOR_NAME, "serviceaccounts"),
        object(client, own, PUBLIC_KEY_CONFIGMAP, "configmaps"),
        list(
            Api::namespaced(client.clone(), own),
            Permission::to("list", "endpointslices.discovery.k8s.io").within(own),
            ListParams::default().labels(&service),
        ),
    );
    let namespaces = match &deployment {
        Read::Known(Some(deployment)) => namespaces(client, deployment).await,
        Read::Known(None) => Read::Known(Vec::new()),
        Read::Unknown(why) => Read::Unknown(why.clone()),
    };
    let (authorities, keyrings, keks) =
        futures::join!(authorities(client, own), keyrings(client, own), keks(client, own));
    let (objects, records, targets, permissions) = futures::join!(
        list(Api::all(client.clone()), Permission::to_objects("list"), ListParams::default()),
        records(client),
        targets(client),
        permissions(client, &session.namespace, own),
    );
    Ok(Facts {
        now: Timestamp::now(),
        own: own.to_owned(),
        namespace: session.namespace.clone(),
        server,
        crd,
        deployment,
        served: namespaces,
        account,
        endpoints,
        mutating,
        validating,
        api_service,
        front_proxy,
        policies,
        bindings,
        authorities,
        keyrings,
        keks,
        public_key,
        objects,
        records,
        targets,
        permissions,
    })
}

/// Why something is not known: the right that it needs, or what went wrong.
fn unknown<T>(permission: Permission<'_>, error: &kube::Error) -> Read<T> {
    match error {
        kube::Error::Api(status) if status.code == 403 => Read::Unknown(format!("needs `{permission}`")),
        // A list of what exists is never "not found": its kind is not there.
        kube::Error::Api(status) if status.code == 404 => Read::Unknown("the resource is not installed".to_owned()),
        error => Read::Unknown(CliError::from_kube("failed", error).to_string()),
    }
}

async fn cluster_object<K>(client: &Client, name: &str, resource: &str) -> Read<Option<K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let found = Api::<K>::all(client.clone()).get_opt(name).await;
    found.map_or_else(|error| unknown(Permission::to("get", resource).named(name), &error), Read::Known)
}

async fn object<K>(client: &Client, namespace: &str, name: &str, resource: &str) -> Read<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await;
    found.map_or_else(
        |error| unknown(Permission::to("get", resource).named(name).within(namespace), &error),
        Read::Known,
    )
}

async fn cluster_list<K>(client: &Client, resource: &str) -> Read<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    list(Api::all(client.clone()), Permission::to("list", resource), ListParams::default()).await
}

/// The namespaces that the operator's flags name, each with what it needs there.
async fn namespaces(client: &Client, deployment: &Deployment) -> Read<Vec<Served>> {
    let pod = deployment.spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let arguments: Vec<&String> = pod.flat_map(|container| container.args.iter().flatten()).collect();
    let apart = arguments.windows(2).filter(|pair| pair[0] == "--namespace").map(|pair| pair[1].as_str());
    let named: BTreeSet<&str> =
        arguments.iter().filter_map(|argument| argument.strip_prefix("--namespace=")).chain(apart).collect();
    let mut found = Vec::new();
    for name in named {
        // It stands in a flag of the Deployment as it was written there.
        if names::namespace(name).is_err() {
            found.push(Served { namespace: name.to_owned(), exists: false, bound: false });
            continue;
        }
        let (exists, bound) = futures::join!(
            cluster_object::<Namespace>(client, name, "namespaces"),
            object::<RoleBinding>(client, name, OPERATOR_NAME, "rolebindings.rbac.authorization.k8s.io"),
        );
        match (exists, bound) {
            (Read::Known(exists), Read::Known(bound)) => {
                let (exists, bound) = (exists.is_some(), bound.is_some());
                found.push(Served { namespace: name.to_owned(), exists, bound });
            }
            (Read::Unknown(why), _) | (_, Read::Unknown(why)) => return Read::Unknown(why),
        }
    }
    Read::Known(found)
}

/// A list, in pages.
async fn list<K>(api: Api<K>, permission: Permission<'_>, params: ListParams) -> Read<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let (mut found, mut params) = (Vec::new(), params.limit(PAGE));
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(error) => return unknown(permission, &error),
        };
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => return Read::Known(found),
        }
    }
}

/// The same for calls about Secrets.
fn read_secrets<T>(answer: Result<T, CallError>, permission: Permission<'_>) -> Read<T> {
    match answer {
        Ok(value) => Read::Known(value),
        Err(CallError::Refused(refusal)) if refusal.kind == RefusalKind::Rbac => {
            Read::Unknown(format!("needs `{permission}`"))
        }
        Err(error) => Read::Unknown(permission.explain_call("failed", &error).to_string()),
    }
}

/// Of the webhooks' Secret, the dates alone.
#[derive(Deserialize)]
struct Authorities {
    authorities: Vec<Authority>,
}

#[derive(Deserialize)]
struct Authority {
    created: Timestamp,
}

async fn authorities(client: &Client, own: &str) -> Read<Option<Vec<Timestamp>>> {
    let permission = Permission::to("get", "secrets").named(WEBHOOK_SECRET).within(own);
    let secret = SecretApi::namespaced(client.clone(), own).get(WEBHOOK_SECRET).await;
    match read_secrets(secret, permission) {
        Read::Unknown(why) => Read::Unknown(why),
        Read::Known(None) => Read::Known(None),
        Read::Known(Some(secret)) => {
            let content =
                secret.data.get(WEBHOOK_DATA_KEY).map(|bytes| serde_json::from_slice::<Authorities>(bytes.as_slice()));
            match content {
                Some(Ok(found)) => Read::Known(Some(found.authorities.into_iter().map(|it| it.created).collect())),
                _ => Read::Unknown(format!(
                    "Secret {own}/{WEBHOOK_SECRET} holds something that the operator does not write"
                )),
            }
        }
    }
}

async fn keyrings(client: &Client, own: &str) -> Read<Vec<(String, Option<StoredKeyring>)>> {
    let found = SecretApi::namespaced(client.clone(), own).list(&format!("type={TYPE_KEYRING}")).await;
    let keyrings = found.map(|found| {
        let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
        found.iter().map(|secret| (name(&secret.metadata), StoredKeyring::of(secret))).collect()
    });
    read_secrets(keyrings, Permission::to("list", "secrets").within(own))
}

async fn keks(client: &Client, own: &str) -> Read<BTreeSet<String>> {
    let found = SecretApi::namespaced(client.clone(), own).list_metadata(&format!("type={TYPE_KEK}")).await;
    let ids = found.map(|found| {
        let names = found.into_iter().filter_map(|metadata| metadata.name);
        names.filter_map(|name| name.strip_prefix(KEK_PREFIX).map(str::to_owned)).collect()
    });
    read_secrets(ids, Permission::to("list", "secrets").within(own))
}

async fn records(client: &Client) -> Read<Vec<ObjectMeta>> {
    let found = SecretApi::all(client.clone()).list_metadata(&format!("type={TYPE_RECORD}")).await;
    read_secrets(found, Permission::to("list", "secrets"))
}

async fn targets(client: &Client) -> Read<Vec<ObjectMeta>> {
    let found = SecretApi::all(client.clone()).list_labelled(&format!("{LABEL_ROLE}={ROLE_TARGET}")).await;
    read_secrets(found, Permission::to("list", "secrets"))
}

/// Asks about every need at once; anybody may ask about himself.
async fn permissions(client: &Client, here: &str, own: &str) -> Read<Vec<(Need, bool)>> {
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let ask = async |need: Need| {
        let namespace = match need.place {
            Where::Here => Some(here.to_owned()),
            Where::Own => Some(own.to_owned()),
            Where::Everywhere => None,
        };
        let attributes = ResourceAttributes {
            verb: Some(need.verb.to_owned()),
            group: Some(need.group.to_owned()),
            resource: Some(need.resource.to_owned()),
            name: need.name.map(str::to_owned),
            namespace,
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        reviews.create(&PostParams::default(), &review).await.map(|it| (need, it.status.is_some_and(|it| it.allowed)))
    };
    let answers: Result<Vec<_>, _> = join_all(NEEDS.map(ask)).await.into_iter().collect();
    answers.map_or_else(
        |error| unknown(Permission::to("create", "selfsubjectaccessreviews.authorization.k8s.io"), &error),
        Read::Known,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../../docs/kubectl-msec.md");

    /// What stands in backticks.
    fn quoted(text: &str) -> Vec<&str> {
        text.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn every_permission_on_objects_that_the_documentation_names_is_asked_for() {
        let (_, table) = PAGE.split_once("| command | needs |").unwrap_or_default();
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| ")?.split_once(" | "));
        let mut seen = 0;
        for (commands, needs) in rows {
            let Some((verbs, _)) = needs.split_once(" ManagedSecrets") else { continue };
            for command in quoted(commands) {
                // Where a command needs another verb than its row, brackets say so: (`reseal`: `get`).
                let own = verbs.split_once(&format!("(`{command}`: ")).map(|(_, own)| own);
                let shared = verbs.split('(').next().unwrap_or_default();
                for verb in quoted(own.unwrap_or(shared)) {
                    let asks = |need: &Need| {
                        need.verb == verb && need.resource == PLURAL && need.command.split(", ").any(|it| it == command)
                    };
                    assert!(NEEDS.iter().any(asks), "{command} needs {verb}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 12, "{seen}");
    }

    #[test]
    fn the_events_are_those_that_describe_lists() {
        let asked = NEEDS.iter().filter(|need| need.resource == "events").map(|need| need.can_i("shop", "own"));
        assert_eq!(asked.collect::<Vec<_>>(), ["kubectl auth can-i list events -n shop"]);
    }
}
