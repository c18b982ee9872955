//! A replica that has not listed a namespace could take a former record for the current one, so it gives no value there.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use managed_secrets::{port::Port, values};
use managed_secrets_api::keys;
use testkit::{access::config_of, control_plane::poll};
use tokio::net::TcpStream;

use super::{Estate, OPERATOR_NAMESPACE, Registered, client, client::Identity, hidden, path, port_options};
use crate::integration::operator::{Fault, PATIENCE, Setup, Tap};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_gives_no_value_of_a_namespace_that_it_has_not_listed() {
    let estate = Estate::shared().await;
    let site = estate.site("unlisted").await;
    let id = hidden(&site, "db", "DB", "hunter2").await;
    let token = estate.reader(&site, "web", &["DB", "AWAY", &id]).await;
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let lists = Tap::new(move |_, request| {
        let is_list = request.uri().path().ends_with("/secrets") && is_away.load(Ordering::SeqCst);
        if is_list { Fault::Cut } else { Fault::Pass }
    });
    let port = Port::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = port.address().unwrap();
    let webhooks = port_options(port, Registered::No);
    let values = values::Options { limits: values::Limits::default(), stats: Arc::default() };
    let setup = Setup { webhooks: Some(webhooks), values: Some(values), ..Setup::of(&site.namespace).watches(&lists) };
    let kubeconfig =
        estate.control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let operator = setup.start_with(config_of(&kubeconfig).await.unwrap());
    poll("the port", PATIENCE, || async { Ok(TcpStream::connect(address).await.is_ok().then_some(())) }).await.unwrap();
    let ask = async |name: &str| {
        client::ask(address, &Identity::Token(&token), "GET", &path(&site.namespace, name), &[]).await
    };
    // It has opened its keyring, and lists are missing.
    poll("the refusal", PATIENCE, || async {
        let answer = ask("DB").await;
        Ok((answer.code == 503 && answer.message().contains("has not listed the namespace")).then_some(()))
    })
    .await
    .unwrap();
    for name in ["AWAY", &id] {
        let answer = ask(name).await;
        assert_eq!(answer.code, 503, "{name}: {answer:?}");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{answer:?}");
    }
    away.store(false, Ordering::SeqCst);
    poll("the value", PATIENCE, || async { Ok((ask("DB").await.value() == "hunter2").then_some(())) }).await.unwrap();
    assert_eq!(ask("AWAY").await.code, 404);
    operator.stop().await;
}
