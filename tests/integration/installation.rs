//! The operator's manifests on a control plane of their own: their rights and policies hold for the whole cluster, and
//! these tests name a restorer that no other test should meet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, Client, Config};
use managed_secrets::install::manifests::{self, Options};
use managed_secrets::keyring::KeyringStore;
use managed_secrets_api::{crd, keys};
use managed_secrets_crypto::Keyring;
use managed_secrets_crypto::provider::Provider;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{self, ControlPlane, Result, poll};
use tokio::sync::OnceCell;

pub(crate) use super::operator::PATIENCE;

/// An identity that these manifests list as restorer.
pub(crate) const RESTORER: &str = "restorer@example.com";
/// What is installed.
pub(crate) fn options() -> Options {
    Options { restorers: vec![RESTORER.to_owned()], webhooks: false, ..Options::default() }
}

/// The operator's namespace in this installation.
pub(crate) const OPERATOR_NAMESPACE: &str = keys::DEFAULT_OPERATOR_NAMESPACE;

static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// A control plane with the CRD and every manifest applied, and effective policies.
pub(crate) async fn control_plane() -> &'static ControlPlane {
    CONTROL_PLANE.get_or_init(|| async { install(&options(), &[]).await.unwrap() }).await
}

/// The keyring that the first operator created.
pub(crate) async fn keyring() -> &'static Keyring {
    static KEYRING: OnceCell<Keyring> = OnceCell::const_new();
    let load = || async {
        let store = KeyringStore::new(admin().await, OPERATOR_NAMESPACE, Provider::Local);
        store.load().await.unwrap()
    };
    KEYRING.get_or_init(load).await
}

/// A client as the operator: with its service account's token, so with its rights and under its policies.
pub(crate) async fn operator() -> Client {
    control_plane().await.access().client_of(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap()
}

/// A client as the restorer, with an administrator's rights: what the policies go by is the name.
pub(crate) async fn restorer() -> Client {
    control_plane().await.access().client_as(RESTORER, &["system:masters"]).await.unwrap()
}

/// A kubeconfig that speaks as the operator, for its program.
pub(crate) async fn operator_kubeconfig() -> &'static PathBuf {
    static KUBECONFIG: OnceCell<PathBuf> = OnceCell::const_new();
    let write = async || control_plane().await.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await;
    KUBECONFIG.get_or_init(async || write().await.unwrap()).await
}

/// A configuration as the operator, for the operator itself.
pub(crate) async fn operator_config() -> Config {
    testkit::access::config_of(operator_kubeconfig().await).await.unwrap()
}

/// A client as administrator.
pub(crate) async fn admin() -> Client {
    control_plane().await.access().admin_client().await.unwrap()
}

/// An installation on a control plane of its own, for what would disturb others: with these namespaces, made before.
pub(crate) async fn install(options: &Options, namespaces: &[&str]) -> Result<ControlPlane> {
    install_on(testkit::Options::default(), options, namespaces).await
}

/// The same on a control plane like this.
pub(crate) async fn install_on(
    control_plane: testkit::Options,
    options: &Options,
    namespaces: &[&str],
) -> Result<ControlPlane> {
    let namespace = |name: &&str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut files: Vec<(String, String)> =
        namespaces.iter().map(|name| (format!("{name}.json"), namespace(name).to_string())).collect();
    files.push(("crd.yaml".to_owned(), serde_json::to_string(&crd::crd()).unwrap()));
    files.push(("manifests.yaml".to_owned(), manifests::print(options).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let manifests: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, content)) in manifests.iter().zip(&files) {
        std::fs::write(path, content).unwrap();
    }
    let control_plane = ControlPlane::start_own(&testkit::Options { manifests, ..control_plane }).await?;
    // The API server takes up policies together, in the background. A refusal by the last one shows that all are there.
    let operator = control_plane.access().client_as(&options.operator_user(), &[]).await?;
    // Where the operator has rights but may not do this: its own namespace, in every kind of installation.
    let namespace = &options.operator_namespace;
    poll("the policies to be effective", PATIENCE, || async {
        let probe: Secret = object(json!({"metadata": {"name": "probe"}}));
        let secrets = Api::<Secret>::namespaced(operator.clone(), namespace);
        let answer = secrets.create(&dry_run(), &probe).await;
        Ok(answer.is_err_and(|error| error.to_string().contains("may write only records")).then_some(()))
    })
    .await?;
    Ok(control_plane)
}

/// Parameters of a write that goes through admission and is not stored.
pub(crate) fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// A typed object.
pub(crate) fn object<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// One right in a namespace, as RBAC counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    /// The verb.
    pub(crate) verb: &'static str,
    /// The API group.
    pub(crate) group: &'static str,
    /// The resource, with its subresource.
    pub(crate) resource: &'static str,
    /// The object's name; absent means all.
    pub(crate) name: Option<&'static str>,
}

impl Right {
    /// To read the Secret of this name.
    pub(crate) const fn get_secret(name: &'static str) -> Self {
        Self { verb: "get", group: "", resource: "secrets", name: Some(name) }
    }

    /// To change the Secret of this name.
    pub(crate) const fn patch_secret(name: &'static str) -> Self {
        Self { verb: "patch", group: "", resource: "secrets", name: Some(name) }
    }

    /// To create Secrets.
    pub(crate) const CREATE_SECRETS: Self = Self { verb: "create", group: "", resource: "secrets", name: None };
}

/// A client of a new user who may edit ManagedSecrets in a namespace, and has these rights besides.
pub(crate) async fn editor(namespace: &str, rights: &[Right]) -> Client {
    let admin = admin().await;
    let user = format!("editor-{}", uuid::Uuid::new_v4().simple());
    let subject = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user});
    let rule = |right: &Right| {
        let names: Vec<_> = right.name.into_iter().collect();
        json!({"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb], "resourceNames": names})
    };
    let edit = Right { verb: "update", group: keys::GROUP, resource: "managedsecrets", name: None };
    let rules: Vec<_> = rights.iter().map(rule).collect();
    let own: Role = object(json!({"metadata": {"name": user}, "rules": rules}));
    Api::<Role>::namespaced(admin.clone(), namespace).create(&PostParams::default(), &own).await.unwrap();
    let bindings = Api::<RoleBinding>::namespaced(admin, namespace);
    for (kind, role) in [("Role", user.as_str()), ("ClusterRole", "managedsecret-editor")] {
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role});
        let name = format!("{user}-{}", kind.to_lowercase());
        let binding = json!({"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]});
        bindings.create(&PostParams::default(), &object(binding)).await.unwrap();
    }
    let client = control_plane().await.access().client_as(&user, &[]).await.unwrap();
    for right in rights.iter().chain([&edit]) {
        poll("the rights to be effective", PATIENCE, || async {
            Ok(may(&client, namespace, right).await.then_some(()))
        })
        .await
        .unwrap();
    }
    client
}

/// Whether the client's user has a right.
pub(crate) async fn may(client: &Client, namespace: &str, right: &Right) -> bool {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some(right.verb.to_owned()),
                namespace: Some(namespace.to_owned()),
                name: right.name.map(ToOwned::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.unwrap().status.is_some_and(|status| status.allowed)
}

/// Checks an answer: `None` means that it must succeed, else it must be refused with this text in its message.
#[track_caller]
pub(crate) fn expect<T>(case: &str, answer: kube::Result<T>, refusal: Option<&str>) {
    match (answer, refusal) {
        (Ok(_), None) => {}
        (Err(kube::Error::Api(status)), Some(text)) => {
            // RBAC's own refusals come before any policy.
            let is_policy = status.message.contains("ValidatingAdmissionPolicy");
            let reason = if is_policy { "Invalid" } else { "Forbidden" };
            assert_eq!(status.reason, reason, "{case}: {}", status.message);
            assert!(status.message.contains(text), "{case}: {}", status.message);
        }
        (Ok(_), Some(_)) => panic!("{case}: must be refused"),
        (Err(error), _) => panic!("{case}: {error}"),
    }
}
