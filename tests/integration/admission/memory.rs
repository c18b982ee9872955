//! What the worst requests cost the real program in memory: less than the Deployment gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fs, net::SocketAddr, sync::Arc};

use futures::future::join_all;
use managed_secrets::{install::manifests, webhook::server::Limits};
use managed_secrets_api::keys::{GROUP, KIND, LAST_APPLIED, PLURAL, VERSION};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use testkit::{Operator, control_plane::quiet_address, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Premises;
use crate::integration::{operator::PATIENCE, program::PROGRAM};

/// A connection that the API server could have made.
async fn connect(address: SocketAddr, bundle: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle).map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await.unwrap()
}

/// Sends a review, and reads the status of the answer.
async fn status(stream: &mut TlsStream<TcpStream>, path: &str, body: &str) -> u16 {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut answer = Vec::new();
    // It may be answered, and the connection closed, before all of it is sent.
    if stream.write_all(head.as_bytes()).await.is_ok() {
        let _ = stream.write_all(body.as_bytes()).await;
    }
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            // The head is all that is looked at; an answer can be as long as its question.
            Ok(read) if answer.len() < 64 => answer.extend_from_slice(&buffer[..read]),
            Ok(_) => {}
        }
    }
    let line = String::from_utf8_lossy(&answer);
    line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// The largest of their kind that is still decoded, or is not by a little: what each is, what is answered, and the body.
fn bodies(namespace: &str) -> Vec<(&'static str, u16, String)> {
    let most = Limits::default().body;
    let review = |object: &Value, stored: &Value| {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "operation": "UPDATE", "namespace": namespace,
                "resource": {"group": GROUP, "version": VERSION, "resource": PLURAL},
                "userInfo": {"username": "ann"}, "object": object, "oldObject": stored,
            },
        })
        .to_string()
    };
    let object = |value: Value, annotations: Value| {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            "metadata": {"name": "db", "annotations": annotations}, "spec": {"name": "DB", "value": value},
        })
    };
    // In lists of lists: of all JSON, what takes the most memory for its length.
    let nested = |bytes: usize| {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let lists = vec![deep.as_str(); bytes / 201].join(",");
        format!("[{lists}]")
    };
    let in_place = |text: &str| review(&object(json!("HERE"), json!({})), &Value::Null).replace("\"HERE\"", text);
    // Beside text that is copied, escaped and encoded on its way to the answer.
    let filled = |copied: bool| {
        let filler = "x".repeat(most - 8000);
        let annotations = if copied {
            json!({LAST_APPLIED: json!({"a": filler, "spec": {"value": "plain"}}).to_string()})
        } else {
            json!({"a": filler})
        };
        review(&object(json!("plain"), annotations), &Value::Null)
    };
    let twice = {
        let annotations = json!({"a": "x".repeat(most / 2 - 8000)});
        let object = object(json!("plain"), annotations);
        review(&object, &object)
    };
    let many = {
        let values = vec!["\"value\":\"y\""; (most - 8000) / 16].join(",");
        let copy = format!("{{\"spec\":{{{values}}}}}");
        review(&object(json!("plain"), json!({LAST_APPLIED: copy})), &Value::Null)
    };
    let hidden = {
        let copy = format!("{{\"spec\":{{\"value\":{}}}}}", nested(most - 8000));
        review(&object(json!("plain"), json!({LAST_APPLIED: copy})), &Value::Null)
    };
    vec![
        ("lists without end", 400, in_place(&nested(most - 2000))),
        ("as many lists as may be", 200, in_place(&nested(39_000))),
        ("a long annotation", 200, filled(false)),
        ("a long copy", 200, filled(true)),
        ("two long objects", 200, twice),
        ("a copy with the value many times", 200, many),
        ("a copy with lists without end", 200, hidden),
        ("more than may be", 413, "x".repeat(most + 1)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_bodies_on_every_connection_fit_into_the_pod() {
    let premises = Premises::new("memory").await;
    let control_plane = super::control_plane().await;
    let own = &premises.operator_namespace;
    let kubeconfig =
        control_plane.access().kubeconfig_for(own, managed_secrets_api::keys::OPERATOR_NAME).await.unwrap();
    let address = quiet_address().unwrap();
    let (listen, url) = (address.to_string(), format!("https://{address}"));
    let namespace = &premises.site.namespace;
    let arguments = [
        ["--namespace", namespace.as_str()],
        ["--operator-namespace", own],
        ["--webhook-listen", &listen],
        ["--webhook-url", &url],
    ];
    let operator = Operator::start(control_plane, PROGRAM, &kubeconfig, &arguments.concat()).await.unwrap();
    premises.called().await;

    let client = premises.sealing(&premises.site.client).await.webhooks.unwrap().remove(0).client_config;
    let (url, bundle) = (client.url.unwrap(), client.ca_bundle.unwrap().0);
    let (path, bundle) = (&url[url.find(&listen).unwrap() + listen.len()..], &bundle);
    let pid = fs::read_to_string(operator.log_path().with_extension("pid")).unwrap();
    // The most that it has ever held, in KiB.
    let peak = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    let mut seen = vec![format!("{} KiB before", peak())];
    // A few places stay for the API server.
    let at_once = Limits::default().connections - 16;
    for (what, expected, body) in bodies(namespace) {
        assert!(body.len() <= Limits::default().body + 1, "{what}");
        let mut streams = join_all((0..at_once).map(|_| connect(address, bundle))).await;
        let answers = join_all(streams.iter_mut().map(|stream| status(stream, path, &body)));
        let answers = timeout(PATIENCE * 4, answers).await.expect("all are answered");
        // Under load some are sent away: how many says nothing about memory, but some must have been worked on.
        assert!(answers.contains(&expected), "{what}: {answers:?}");
        seen.push(format!("{} KiB after {what}", peak()));
    }

    let objects = manifests::manifests(&manifests::Options::default());
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let limit =
        deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"].as_str().unwrap();
    let limit: u64 = limit.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() * 1024;
    println!("{seen:#?} of {limit}");
    // A quarter is for what it knows of objects; here there are none.
    assert!(peak() < limit / 4 * 3, "{seen:#?} of {limit}");
    // And it goes on.
    poll("the webhook to be called", PATIENCE, || async {
        Ok(operator.log()?.contains("invalid review").then_some(()))
    })
    .await
    .unwrap();
    premises.called().await;
    assert_eq!(operator.stop().await.unwrap(), 0);
}
