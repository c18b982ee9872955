//! What a lost keyring does: reads fail, and namespaces are deleted.
//!
//! There is no kubelet and no kube-proxy, so this test does their work: it probes the operator and writes what it finds into
//! the status of a pod, and the API server calls the endpoints of the pod itself. Manifests, endpoints and APIService are as
//! in a cluster.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Pod, Secret},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets::{
    admin::{READY, STARTED},
    install::manifests,
};
use managed_secrets_api::{keys, value};
use serde_json::{Value, json};
use testkit::{
    ControlPlane, Operator,
    control_plane::{poll, quiet_address},
};

use super::{Estate, FrontProxy, OPERATOR_NAMESPACE, apply, hidden, install, is_available, options, path, restorer};
use crate::integration::{health::Probes, installation, operator::PATIENCE, program::PROGRAM};

/// The name of the pod and of its node.
const POD: &str = "replica";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_keyring_stops_reads_and_no_deletion_of_a_namespace() {
    let (host, admin) = (own_address(), quiet_address().unwrap());
    let address = SocketAddr::new(host, quiet_address().unwrap().port());
    let (control_plane, authority) = install(FrontProxy::On, &["--enable-aggregator-routing=true"]).await;
    let operator = Some(run(&control_plane, address, admin).await);
    let mut estate = Estate { control_plane, operator, address, authority };
    let client = estate.client().await;
    create_pod(&estate.control_plane, &client, address).await;
    let probes = Probes::at(admin);
    probes.says(READY, 200, "ok").await;
    set_ready(&client, true).await;
    estate.available().await;
    let site = estate.site("kept").await;
    hidden(&site, "db", "DB", "hunter2").await;
    let other = estate.site("deleted").await;
    hidden(&other, "db", "DB", "hunter3").await;
    let path = path(&site.namespace, "DB");
    assert_eq!(estate.aggregated("", &path, &[]).await.value(), "hunter2");

    // An operator that has the keyring in memory continues to give values.
    let secrets = Api::<Secret>::namespaced(restorer(&estate.control_plane).await, OPERATOR_NAMESPACE);
    let mut keyring = secrets.get(keys::KEYRING_NAME).await.unwrap();
    secrets.delete(keys::KEYRING_NAME, &DeleteParams::default()).await.unwrap();
    probes.says(READY, 503, "keyring").await;
    set_ready(&client, false).await;
    assert_eq!(estate.aggregated("", &path, &[]).await.value(), "hunter2");

    // One that starts without it does not. A restart would not help, so none is asked for.
    estate.operator.take().unwrap().kill().await.unwrap();
    estate.operator = Some(run(&estate.control_plane, address, admin).await);
    probes.says(READY, 503, "waiting for the keyring: ").await;
    probes.says(STARTED, 200, "ok").await;
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete(&other.namespace, &DeleteParams::default()).await.unwrap();
    poll("the namespace to be deleted", installation::PATIENCE, || async {
        Ok(namespaces.get_opt(&other.namespace).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
    let answer = estate.aggregated("", &path, &[]).await;
    assert_eq!((answer.code, answer.json()["reason"].as_str()), (503, Some("ServiceUnavailable")), "{answer:?}");
    assert!(answer.message().contains("keyring"), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
    assert!(is_available(&client).await);
    // The webhooks are not called meanwhile.
    assert_eq!(endpoints(&client, keys::OPERATOR_NAME).await, [false]);
    assert_eq!(endpoints(&client, &value::service_name(keys::OPERATOR_NAME)).await, [true]);

    keyring.metadata = ObjectMeta { name: keyring.metadata.name, ..ObjectMeta::default() };
    secrets.create(&PostParams::default(), &keyring).await.unwrap();
    probes.says(READY, 200, "ok").await;
    set_ready(&client, true).await;
    poll("the value", PATIENCE, || async {
        Ok((estate.aggregated("", &path, &[]).await.value() == "hunter2").then_some(()))
    })
    .await
    .unwrap();
}

/// An address of this machine that is not its loopback: Kubernetes accepts no such endpoint. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    let address = socket.local_addr().unwrap().ip();
    assert!(!address.is_loopback(), "this test needs an address other than the loopback's");
    address
}

async fn run(control_plane: &ControlPlane, address: SocketAddr, admin: SocketAddr) -> Operator {
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let (listen, admin) = (address.to_string(), admin.to_string());
    let flags = ["--value-api", "--log-format", "json", "--webhook-listen", &listen, "--admin-listen", &admin];
    Operator::start(control_plane, PROGRAM, &kubeconfig, &flags).await.unwrap()
}

/// The pod of the operator's Deployment, with the operator's own port, on a node that no kubelet serves.
async fn create_pod(control_plane: &ControlPlane, client: &Client, address: SocketAddr) {
    let manifests = manifests::manifests(&options());
    let deployment = manifests.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let template = &deployment["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(POD);
    for port in spec["containers"][0]["ports"].as_array_mut().unwrap() {
        if port["name"] == "webhooks" {
            port["containerPort"] = json!(address.port());
        }
    }
    let labels = &template["metadata"]["labels"];
    let metadata = json!({"name": POD, "namespace": OPERATOR_NAMESPACE, "labels": labels});
    apply(control_plane, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": POD}})).await;
    apply(control_plane, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await;
    let ip = address.ip().to_string();
    set_status(client, &json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]})).await;
}

/// Writes the pod's readiness, and waits until the Services know it.
async fn set_ready(client: &Client, ready: bool) {
    let status = if ready { "True" } else { "False" };
    set_status(client, &json!({"conditions": [{"type": "Ready", "status": status}]})).await;
    poll("the Services to know it", PATIENCE, || async {
        Ok((endpoints(client, keys::OPERATOR_NAME).await == [ready]).then_some(()))
    })
    .await
    .unwrap();
}

async fn set_status(client: &Client, status: &Value) {
    let pods = Api::<Pod>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Strategic(json!({"status": status}));
    pods.patch_status(POD, &PatchParams::default(), &patch).await.unwrap();
}

/// Whether each endpoint of a Service is sent requests.
async fn endpoints(client: &Client, service: &str) -> Vec<bool> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&of_service).await.unwrap().items;
    let endpoints = slices.into_iter().filter_map(|slice| slice.endpoints).flatten();
    endpoints.map(|endpoint| endpoint.conditions.and_then(|conditions| conditions.ready) == Some(true)).collect()
}
