//! A control plane of which parts stop and come back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use kube::api::DeleteParams;
use managed_secrets_engine::{backoff::Backoff, client, watch::Timing};
use serde_json::json;
use testkit::{Component, access, poll};

use crate::integration::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::Site,
    operator::{PATIENCE, Setup, Tap},
};

fn generated(name: &str) -> serde_json::Value {
    json!({"name": name, "generate": {"length": 20}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_and_etcd_stop_and_come_back() {
    let control_plane = installation::install(&installation::options(), &[]).await.unwrap();
    let site = Site::on(&control_plane, "outage").await;
    let account = managed_secrets_api::keys::OPERATOR_NAME;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, account).await.unwrap();
    let timing = Timing {
        watch: Duration::from_secs(5),
        answer: Duration::from_secs(2),
        backoff: Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) },
        ..Timing::default()
    };
    let clients = client::Options { call: Duration::from_secs(3), ..client::Options::default() };
    let (calls, watches) = (Tap::recording(), Tap::recording());
    let setup = Setup::of(&site.namespace).calls(&calls).watches(&watches);
    let operator = Setup { timing, clients, ..setup }.start_with(access::config_of(&kubeconfig).await.unwrap());
    site.apply("before", generated("BEFORE")).await;
    let id = site.served("before").await.status.unwrap().id;
    let value = site.value("before", "value").await.unwrap();

    for (round, outage) in ["frozen", "stopped", "without-etcd"].into_iter().enumerate() {
        let asked = |tap: &Tap| tap.seen().len();
        let quiet = asked(&watches);
        match outage {
            "frozen" => control_plane.pause(Component::Apiserver).await.unwrap(),
            "stopped" => control_plane.stop_component(Component::Apiserver).await.unwrap(),
            _ => control_plane.stop_component(Component::Etcd).await.unwrap(),
        }
        poll("the operator to notice", PATIENCE, || async { Ok((asked(&watches) > quiet + 6).then_some(())) })
            .await
            .unwrap();
        match outage {
            "frozen" => control_plane.resume(Component::Apiserver).await.unwrap(),
            "stopped" => control_plane.start_component(Component::Apiserver).await.unwrap(),
            _ => control_plane.start_component(Component::Etcd).await.unwrap(),
        }
        poll("the API server to answer", PATIENCE, || async { Ok(site.objects().get_opt("before").await.ok()) })
            .await
            .unwrap();
        poll("the target to be deleted", PATIENCE, || async {
            Ok(site.secrets().delete("before", &DeleteParams::default()).await.ok())
        })
        .await
        .unwrap();
        site.delivers("before", "value", &value).await;
        site.apply(outage, generated(&format!("ROUND_{round}"))).await;
        site.served(outage).await;
        assert_eq!(site.served("before").await.status.unwrap().id, id);
    }
    operator.stop().await;
    control_plane.stop().await.unwrap();
}
