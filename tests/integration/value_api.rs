//! The value API on a real API server: the operator's program, which the API server reaches through an APIService, and
//! which callers reach themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client;
mod decoys;
mod doors;
mod flood;
mod hostile;
mod leaks;
mod outage;
mod permissions;

use std::{net::SocketAddr, sync::Arc};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client, api::PostParams};
use managed_secrets::install::manifests::Options;
use managed_secrets_api::{
    keys::{self, DEFAULT_OPERATOR_NAMESPACE as OPERATOR_NAMESPACE},
    value::{self, TOKEN_AUDIENCE},
};
use serde_json::{Value, json};
use testkit::{
    ControlPlane, Operator,
    control_plane::{poll, quiet_address},
    front_proxy::Authority,
};
use tokio::sync::OnceCell;

use self::client::{Answer, Identity};
use super::{
    installation::{self, RESTORER},
    objects::Site,
    operator::PATIENCE,
    program::PROGRAM,
};

/// A control plane, the operator on it, and the value API that it serves.
pub(crate) struct Estate {
    pub(crate) control_plane: ControlPlane,
    pub(crate) operator: Option<Operator>,
    /// Where the operator listens.
    pub(crate) address: SocketAddr,
    /// The authority of the front proxy.
    pub(crate) authority: Arc<Authority>,
}

/// Whether the API server has a front proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FrontProxy {
    On,
    Off,
}

static SHARED: OnceCell<Estate> = OnceCell::const_new();

impl Estate {
    /// The one of all tests that disturb no other.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(async || Self::start(FrontProxy::On).await).await
    }

    /// One of its own, for a test that stops parts of it.
    pub(crate) async fn start(front_proxy: FrontProxy) -> Self {
        let address = quiet_address().unwrap();
        let options = Options { restorers: vec![RESTORER.to_owned()], ..Options::default() };
        let authority = Arc::new(Authority::new("front-proxy-ca").unwrap());
        let proxy = (front_proxy == FrontProxy::On).then(|| Arc::clone(&authority));
        let testkit = testkit::Options { front_proxy: proxy, ..testkit::Options::default() };
        let control_plane = installation::install_on(testkit, &options, &[]).await.unwrap();
        for object in manifests(address.port()) {
            apply(&control_plane, &object).await;
        }
        let operator = Some(run(&control_plane, address).await);
        let this = Self { control_plane, operator, address, authority };
        this.available().await;
        this
    }

    /// Waits until the API server says that the value API is available.
    pub(crate) async fn available(&self) {
        let client = self.client().await;
        poll("the value API to be available", PATIENCE, || async { Ok(is_available(&client).await.then_some(())) })
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }

    /// What the operator has logged.
    pub(crate) fn log(&self) -> String {
        self.operator.as_ref().unwrap().log().unwrap()
    }

    /// A client as administrator.
    pub(crate) async fn client(&self) -> Client {
        self.control_plane.access().admin_client().await.unwrap()
    }

    /// A namespace.
    pub(crate) async fn site(&self, purpose: &str) -> Site {
        Site::on(&self.control_plane, purpose).await
    }

    /// A service account of a namespace, which may read these values, and its token for the value API.
    pub(crate) async fn reader(&self, site: &Site, account: &str, names: &[&str]) -> String {
        let rules = json!([{
            "apiGroups": [value::GROUP], "resources": [value::PLURAL], "resourceNames": names, "verbs": [value::VERB],
        }]);
        let metadata = json!({"name": account, "namespace": site.namespace});
        let role = json!({"apiVersion": RBAC, "kind": "Role", "metadata": metadata, "rules": rules});
        let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": site.namespace});
        let binding = json!({
            "apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        });
        let service_account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        for object in [service_account, role, binding] {
            apply(&self.control_plane, &object).await;
        }
        self.token(site, account, &[TOKEN_AUDIENCE]).await
    }

    /// A token of a service account for an audience.
    pub(crate) async fn token(&self, site: &Site, account: &str, audiences: &[&str]) -> String {
        let accounts = Api::<ServiceAccount>::namespaced(site.client.clone(), &site.namespace);
        let audiences = Some(audiences.iter().map(ToString::to_string).collect());
        let spec = TokenRequestSpec { audiences, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token.unwrap()
    }

    /// Asks the operator itself.
    pub(crate) async fn direct(&self, identity: &Identity<'_>, path: &str, headers: &[(&str, &str)]) -> Answer {
        client::ask(self.address, identity, "GET", path, headers).await
    }

    /// Asks the API server as `user`, or as administrator if that is empty, with a path that is sent as it is.
    pub(crate) async fn aggregated(&self, user: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let kubeconfig = std::fs::read_to_string(self.control_plane.access().kubeconfig_path()).unwrap();
        let kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
        let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
        let mut all = Vec::new();
        if !user.is_empty() {
            all.extend([("Impersonate-User", user), ("Impersonate-Group", "system:authenticated")]);
        }
        all.extend(headers);
        client::ask(self.api_server().await, &Identity::Token(token), "GET", path, &all).await
    }

    /// Asks the API server with a token.
    pub(crate) async fn aggregated_with_token(&self, token: &str, path: &str) -> Answer {
        client::ask(self.api_server().await, &Identity::Token(token), "GET", path, &[]).await
    }

    async fn api_server(&self) -> SocketAddr {
        let config = self.control_plane.access().config().await.unwrap();
        let (host, port) = (config.cluster_url.host().unwrap(), config.cluster_url.port_u16().unwrap());
        format!("{host}:{port}").parse().unwrap()
    }
}

/// The Service by which the API server reaches the operator. The webhooks are reached by a URL.
const SERVICE: &str = "outside";
const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// The path of a value, encoded.
pub(crate) fn path(namespace: &str, name: &str) -> String {
    value::path(namespace, value::Handle::parse(name).unwrap()).unwrap()
}

/// Applies an object as administrator.
pub(crate) async fn apply(control_plane: &ControlPlane, object: &Value) {
    let text = object.to_string();
    let output = control_plane.access().kubectl_with_input(&["apply", "-f", "-"], &text).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts the operator, which is reached at `address`.
pub(crate) async fn run(control_plane: &ControlPlane, address: SocketAddr) -> Operator {
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let (listen, url) = (address.to_string(), format!("https://{address}"));
    let flags = ["--value-api", "--log-format", "json", "--webhook-listen", &listen, "--webhook-url", &url];
    let flags = [&flags[..], &["--webhook-service", SERVICE]].concat();
    Operator::start(control_plane, PROGRAM, &kubeconfig, &flags).await.unwrap()
}

/// Whether the API server can use the value API.
pub(crate) async fn is_available(client: &Client) -> bool {
    let service = Api::<APIService>::all(client.clone()).get(value::API_SERVICE).await.unwrap();
    let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// What the value API needs: the operator's permissions, an APIService, and a Service through which the API server reaches a
/// process of this machine.
fn manifests(port: u16) -> Vec<Value> {
    let name = value::CLUSTER_ROLE;
    let account = json!({"kind": "ServiceAccount", "name": keys::OPERATOR_NAME, "namespace": OPERATOR_NAMESPACE});
    let role_ref =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    vec![
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
            {"apiGroups": ["apiregistration.k8s.io"], "resources": ["apiservices"],
             "resourceNames": [value::API_SERVICE], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": [name],
             "verbs": ["get"]},
        ]}),
        json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "subjects": [account],
               "roleRef": role_ref("ClusterRole", name)}),
        json!({"apiVersion": RBAC, "kind": "RoleBinding", "metadata": {"name": name, "namespace": "kube-system"},
               "subjects": [account], "roleRef": role_ref("Role", "extension-apiserver-authentication-reader")}),
        json!({"apiVersion": "v1", "kind": "Service",
               "metadata": {"name": SERVICE, "namespace": OPERATOR_NAMESPACE},
               "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": value::API_SERVICE},
               "spec": {"group": value::GROUP, "version": value::VERSION, "groupPriorityMinimum": 1000,
                        "versionPriority": 15,
                        "service": {"name": SERVICE, "namespace": OPERATOR_NAMESPACE, "port": port}}}),
    ]
}

/// A secret with a value that is not delivered; its id.
pub(crate) async fn hidden(site: &Site, object: &str, name: &str, value: &str) -> String {
    let sealed = site.seal(object, value).await;
    site.apply(object, json!({"name": name, "value": sealed, "delivery": "None"})).await;
    let object = site.until(object, "its value in the record", |object| {
        let status = object.status.as_ref();
        status.is_some_and(|status| {
            status.observed_generation == object.metadata.generation && status.name.as_deref() == Some(name)
        }) && super::objects::ready(object).0 == "True"
    });
    object.await.status.unwrap().id.unwrap()
}
