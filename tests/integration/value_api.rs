//! The value API on a real API server: the operator's program, which the API server reaches through an APIService, and
//! which callers reach themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client;
mod decoys;
mod doors;
mod flood;
mod hostile;
mod keyring;
mod leaks;
mod lists;
mod outage;
mod permissions;
mod rotation;
mod undelivered;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client, api::PostParams};
use managed_secrets::{
    install::manifests::Options,
    port::Port,
    webhook::{
        self,
        certificates::{self, Reached, Source, api_service, authority::Lifetimes},
        server::Limits,
    },
};
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
        let (control_plane, authority) = install(front_proxy, &[]).await;
        lead_outside(&control_plane, address.port()).await;
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

    /// The operator's user name.
    pub(crate) fn operator_user() -> String {
        options().operator_user()
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
    // The webhooks are reached by a URL, the value API by a Service.
    let flags = ["--value-api", "--log-format", "json", "--webhook-listen", &listen, "--webhook-url", &url];
    Operator::start(control_plane, PROGRAM, &kubeconfig, &flags).await.unwrap()
}

/// A client that may write keys.
pub(crate) async fn restorer(control_plane: &ControlPlane) -> Client {
    control_plane.access().client_as(RESTORER, &["system:masters"]).await.unwrap()
}

/// Whether the API server can use the value API.
pub(crate) async fn is_available(client: &Client) -> bool {
    let service = Api::<APIService>::all(client.clone()).get(value::API_SERVICE).await.unwrap();
    let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// A control plane with the installation's manifests and these flags of its API server, and the authority of its front proxy.
pub(crate) async fn install(front_proxy: FrontProxy, flags: &[&str]) -> (ControlPlane, Arc<Authority>) {
    let authority = Arc::new(Authority::new("front-proxy-ca").unwrap());
    let testkit = testkit::Options {
        front_proxy: (front_proxy == FrontProxy::On).then(|| Arc::clone(&authority)),
        // Bodies of values, of permissions that are checked, and of what is created.
        audit_bodies_of: [value::GROUP, "authorization.k8s.io", keys::GROUP].map(str::to_owned).into(),
        apiserver_flags: flags.iter().map(ToString::to_string).collect(),
        ..testkit::Options::default()
    };
    (installation::install_on(testkit, &options(), &[]).await.unwrap(), authority)
}

/// The installation.
pub(crate) fn options() -> Options {
    Options { restorers: vec![RESTORER.to_owned()], value_api: true, ..Options::default() }
}

/// Makes the Service of the value API lead to a process of this machine. There is no kube-proxy, and the API server itself
/// follows an external name.
async fn lead_outside(control_plane: &ControlPlane, port: u16) {
    let kubectl = control_plane.access();
    let service = value::service_name(keys::OPERATOR_NAME);
    // The type of a Service that has an address cannot be changed.
    kubectl.kubectl_ok(&["-n", OPERATOR_NAMESPACE, "delete", "service", &service]).await.unwrap();
    let metadata = json!({"name": service, "namespace": OPERATOR_NAMESPACE});
    let spec = json!({"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]});
    apply(control_plane, &json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})).await;
    let patch = json!({"spec": {"service": {"port": port}}}).to_string();
    kubectl.kubectl_ok(&["patch", "apiservice", value::API_SERVICE, "--type=merge", "-p", &patch]).await.unwrap();
}

/// Whether the API server sends requests to an operator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Registered {
    Yes,
    No,
}

/// The port of an operator in this process, for webhooks and value API.
pub(crate) fn port_options(port: Port, registered: Registered) -> webhook::Options {
    let address = port.address().unwrap();
    let is_registered = registered == Registered::Yes;
    let host = format!("{}.{OPERATOR_NAMESPACE}.svc", value::service_name(keys::OPERATOR_NAME));
    webhook::Options {
        port,
        certificates: certificates::Options {
            operator_namespace: OPERATOR_NAMESPACE.to_owned(),
            source: Source::Own,
            reached: Reached::Url { url: format!("https://{address}"), host: address.ip().to_string() },
            webhooks: is_registered,
            also_named: vec![host],
            api_service: is_registered.then(|| api_service::Options { owner: value::CLUSTER_ROLE.to_owned() }),
            seal_configuration: keys::SEAL_CONFIGURATION.to_owned(),
            warn_configuration: keys::WARN_CONFIGURATION.to_owned(),
            lifetimes: Lifetimes::default(),
        },
        limits: Limits { drain: Duration::ZERO, ..Limits::default() },
        allow_cluster_scope: false,
        stats: Arc::default(),
    }
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
