//! A control plane whose API server reaches the operator by its Service, and the parts of a node that a chart needs: one
//! operator runs with what the Deployment says, and the pod of `helm test` runs.

use std::{net::SocketAddr, path::Path, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Pod, Service},
        discovery::v1::EndpointSlice,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use managed_secrets_api::{keys, value};
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use testkit::{ControlPlane, Operator, control_plane::quiet_address, front_proxy::Authority, poll};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{Helm, NAMESPACE};
use crate::integration::{
    installation::object,
    operator::PATIENCE,
    program::{self, PROGRAM, Ran},
};

/// Name of what runs for `helm test`.
const CHECK: &str = "managed-secrets-check";

/// The address of the only operator; `None` while none runs.
type Backend = Arc<Mutex<Option<SocketAddr>>>;

/// A control plane without any object of ours.
pub(super) struct Cluster {
    pub(super) plane: ControlPlane,
    pub(super) client: Client,
    backend: Backend,
    proxy: JoinHandle<()>,
    _folder: TempDir,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, file) = (folder.path().join("egress"), folder.path().join("egress.yaml"));
        let backend = Backend::default();
        let proxy = tokio::spawn(egress(UnixListener::bind(&socket).unwrap(), Arc::clone(&backend)));
        let selection = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
            "egressSelections": [{"name": "cluster", "connection": {
                "proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": socket}},
            }}],
        });
        std::fs::write(&file, selection.to_string()).unwrap();
        let flags = vec![format!("--egress-selector-config-file={}", file.display())];
        let authority = Some(Arc::new(Authority::new("front-proxy-ca").unwrap()));
        let options =
            testkit::Options { apiserver_flags: flags, front_proxy: authority, ..testkit::Options::default() };
        let plane = ControlPlane::start_own(&options).await.unwrap();
        let client = plane.access().admin_client().await.unwrap();
        Self { plane, client, backend, proxy, _folder: folder }
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        self.plane.access().kubeconfig_path()
    }

    /// Starts what the Deployment says: its arguments, as its service account. Only the ports differ.
    pub(super) async fn start_operator(&self) -> Operator {
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), NAMESPACE);
        let pod = deployments.get(keys::OPERATOR_NAME).await.unwrap().spec.template.spec.unwrap();
        let arguments = pod.containers[0].args.clone().unwrap();
        assert_eq!(arguments[0], "run");
        let is_own_port = |it: &&str| it.starts_with("--admin-listen=") || it.starts_with("--metrics-listen=");
        let arguments: Vec<_> = arguments[1..].iter().map(String::as_str).filter(|it| !is_own_port(it)).collect();
        let account = pod.service_account_name.unwrap();
        let kubeconfig = self.plane.access().kubeconfig_for(NAMESPACE, &account).await.unwrap();
        let address = quiet_address().unwrap();
        let listen = address.to_string();
        let env = [
            ("MANAGED_SECRETS_OPERATOR_NAMESPACE", NAMESPACE),
            ("POD_NAME", "replica"),
            ("MANAGED_SECRETS_WEBHOOK_LISTEN", &listen),
        ];
        let operator = Operator::start_with(&self.plane, PROGRAM, &kubeconfig, &arguments, &env).await.unwrap();
        *self.backend.lock() = Some(address);
        operator
    }

    pub(super) async fn stop_operator(&self, operator: Operator) {
        let log = operator.log().unwrap();
        assert_eq!(operator.stop().await.unwrap(), 0, "{log}");
        *self.backend.lock() = None;
    }

    /// Gives the Service of the APIService an address, as a pod that is ready does. The API server asks for no other.
    pub(super) async fn publish_value_api(&self) {
        let service = self.value_api().await.unwrap().spec.unwrap().service.unwrap();
        let name = service.name.unwrap();
        let services = Api::<Service>::namespaced(self.client.clone(), NAMESPACE);
        let port = services.get(&name).await.unwrap().spec.unwrap().ports.unwrap().remove(0);
        let slice: EndpointSlice = object(json!({
            "metadata": {
                "name": "replica",
                "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "test"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
            "ports": [{"name": port.name, "port": 8443, "protocol": "TCP"}],
        }));
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE);
        slices.patch("replica", &PatchParams::apply("test"), &Patch::Apply(&slice)).await.unwrap();
        self.value_api_is("True").await;
    }

    /// The APIService, if there is one.
    pub(super) async fn value_api(&self) -> Option<APIService> {
        Api::<APIService>::all(self.client.clone()).get_opt(value::API_SERVICE).await.unwrap()
    }

    /// Waits until the API server says whether the value API is available.
    pub(super) async fn value_api_is(&self, status: &str) {
        let available = poll("the availability of the value API", PATIENCE, || async {
            let conditions = self.value_api().await.and_then(|service| service.status?.conditions).unwrap_or_default();
            let is_it = |condition: &APIServiceCondition| condition.type_ == "Available" && condition.status == status;
            Ok(conditions.iter().any(is_it).then_some(()))
        });
        available.await.unwrap();
    }

    /// `helm test`, whose pod runs here.
    pub(super) async fn helm_test(&self, helm: &Helm, release: &str) -> Ran {
        let command = ["test", release];
        let (ran, checked) = tokio::join!(helm.run(Some(self.kubeconfig()), &command, None), self.run_check_pod());
        assert_eq!(ran.code, checked.code, "helm test: {ran:?}; the pod: {checked:?}");
        checked
    }

    /// Runs the pod of `helm test` when it is there, and reports how it ended, as a kubelet does.
    async fn run_check_pod(&self) -> Ran {
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        // A test that failed leaves its pod behind, until the next one.
        let is_new = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
        let pod = poll("the pod of helm test", PATIENCE, || async { Ok(pods.get_opt(CHECK).await?.filter(is_new)) });
        let pod = pod.await.unwrap();
        let spec = pod.spec.unwrap();
        let kubeconfig =
            self.plane.access().kubeconfig_for(NAMESPACE, &spec.service_account_name.unwrap()).await.unwrap();
        let arguments = spec.containers[0].args.clone().unwrap();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let ran = program::run(&arguments, Some(&kubeconfig), &[("MANAGED_SECRETS_TIMEOUT", "30")], b"").await;
        let phase = if ran.code == 0 { "Succeeded" } else { "Failed" };
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        pods.patch_status(CHECK, &PatchParams::default(), &status).await.unwrap();
        ran
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

/// What an API server uses to reach the cluster's network where it is not part of it. All of that network is the operator.
async fn egress(listener: UnixListener, backend: Backend) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let address = *backend.lock();
        tokio::spawn(connect(stream, address));
    }
}

/// Answers one CONNECT request. Without an operator, the connection is refused.
async fn connect(stream: UnixStream, backend: Option<SocketAddr>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    }
    let connected = match backend {
        Some(address) => TcpStream::connect(address).await.ok(),
        None => None,
    };
    let Some(mut operator) = connected else {
        return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.ok();
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut stream, &mut operator).await.ok().map(drop)
}
