//! `/metrics` with TLS and a token, as Prometheus scrapes it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{io, net::SocketAddr, sync::Arc};

use k8s_openapi::api::{core::v1::ConfigMap, rbac::v1::ClusterRoleBinding};
use kube::{Api, api::PostParams};
use managed_secrets::{
    admin::{METRICS, READY, metrics},
    install::manifests,
};
use managed_secrets_api::{keys, names::cluster_object_name};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;
use testkit::{Operator, control_plane::quiet_address, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    admission::{self, Premises, Scratch},
    callers::{service_account, token_of},
    health::Probes,
    installation::object,
    operator::PATIENCE,
    program::PROGRAM,
};

/// Sends a request with TLS, and reads status and body.
async fn ask(address: SocketAddr, trusted: &[u8], request: &str) -> io::Result<(u16, String)> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted).map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
}

fn get(path: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{token}\r\n")
}

/// The program as the Deployment runs it: probes without a token, metrics with one.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_require_tls_and_a_token() {
    let premises = Premises::new("secure").await;
    let (plane, namespace) = (admission::control_plane().await, premises.site.namespace.clone());
    let options = manifests::Options {
        operator_namespace: premises.operator_namespace.clone(),
        namespaces: vec![namespace.clone()],
        secure_metrics: true,
        ..manifests::Options::default()
    };
    let file = Scratch::new("manifests.yaml", &manifests::print(&options).unwrap());
    plane.apply(std::slice::from_ref(&file.path)).await.unwrap();
    let kubeconfig =
        premises.access().await.kubeconfig_for(&premises.operator_namespace, keys::OPERATOR_NAME).await.unwrap();
    let [webhooks, admin, secure] = [(); 3].map(|()| quiet_address().unwrap());
    let arguments = [
        format!("--namespace={namespace}"),
        format!("--operator-namespace={}", premises.operator_namespace),
        format!("--webhook-listen={webhooks}"),
        format!("--webhook-url=https://{webhooks}"),
        format!("--admin-listen={admin}"),
        format!("--metrics-listen={secure}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let operator = Operator::start(plane, PROGRAM, &kubeconfig, &arguments).await.unwrap();
    let probes = Probes::at(admin);
    probes.says(READY, 200, "ok").await;
    assert_eq!(probes.ask(METRICS).await.unwrap().0, 404, "not without TLS");
    premises.called().await;

    let client = premises.site.client.clone();
    let sealing = premises.sealing(&client).await;
    let bundle = sealing.webhooks.unwrap()[0].client_config.ca_bundle.clone().unwrap().0;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &premises.operator_namespace);
    let published = poll("the authorities", PATIENCE, || async {
        Ok(maps.get_opt(keys::CA_CONFIGMAP).await?.and_then(|map| map.data?.remove(keys::CA_DATA_KEY)))
    });
    assert_eq!(published.await.unwrap().as_bytes(), bundle);
    for name in ["prometheus", "other"] {
        service_account(&client, &namespace, name).await;
    }
    let role = cluster_object_name(manifests::METRICS_READER_ROLE, &premises.operator_namespace, false);
    let binding: ClusterRoleBinding = object(json!({
        "metadata": {"name": format!("scrape-{namespace}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": namespace}],
    }));
    Api::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let prometheus = token_of(&client, &namespace, "prometheus", &[]).await;
    let text = poll("a scrape", PATIENCE, || async {
        let (code, text) = ask(secure, &bundle, &get(METRICS, Some(&prometheus))).await.unwrap();
        Ok((code == 200).then_some(text))
    })
    .await
    .unwrap();
    assert!(text.ends_with("# EOF\n") && text.contains("managed_secrets_leader 1"), "{text}");
    assert!(metrics::CONTENT_TYPE.starts_with("application/openmetrics-text"));

    let other = token_of(&client, &namespace, "other", &[]).await;
    let bound = token_of(&client, &namespace, "prometheus", &["elsewhere.example.com"]).await;
    for (request, code) in [
        (get(METRICS, None), 401),
        (get(METRICS, Some("no-token")), 401),
        (get(METRICS, Some(&bound)), 401),
        (get(METRICS, Some(&other)), 403),
        (get(METRICS, Some(&prometheus)).replace("Bearer", "Basic"), 401),
        (get(READY, None), 401),
        (get(METRICS, Some(&prometheus)).replace("GET", "POST"), 405),
    ] {
        let (answered, text) = ask(secure, &bundle, &request).await.unwrap();
        assert_eq!(answered, code, "{text}");
        assert!(!text.contains("managed_secrets_") && !text.contains(&prometheus), "{text}");
    }
    // Without TLS, and without trust.
    let mut plain = TcpStream::connect(secure).await.unwrap();
    plain.write_all(get(METRICS, Some(&prometheus)).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    ask(secure, b"", &get(METRICS, Some(&prometheus))).await.unwrap_err();
    // The log names no token.
    let log = operator.log().unwrap();
    assert!(![&prometheus, &other, &bound].into_iter().any(|token| log.contains(token.as_str())));
    operator.stop().await.unwrap();
}
