//! A leader that is frozen between its decision and its request, and wakes up when another replica leads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    sync::{Mutex, mpsc},
    thread,
};

use kube::api::{Patch, PatchParams};
use managed_secrets::run::RunError;
use managed_secrets_engine::lease::Lost;
use serde_json::json;
use testkit::poll;
use tokio::{runtime, sync::oneshot, time::timeout};

use super::{Premises, in_process, replica, terms};
use crate::integration::{
    admission,
    operator::{Fault, PATIENCE, Tap},
};

/// The process of the first replica has one thread, which stops immediately before it sends a request: as with SIGSTOP, but
/// always at the same place. The guard of [`Clients::lead`](managed_secrets_engine::client::Clients::lead) is what keeps the
/// request back: without it, this test fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_sends_nothing_when_it_wakes_up() {
    let premises = Premises::new("frozen").await;
    let site = &premises.site;
    let control_plane = admission::control_plane().await;
    let mark = control_plane.audit_mark().await.unwrap();
    let (arm, armed) = mpsc::channel::<mpsc::Receiver<()>>();
    let (frozen, freezes) = oneshot::channel();
    let freeze = Mutex::new((armed, Some(frozen)));
    let path = format!("/namespaces/{}/secrets/", site.namespace);
    let calls = Tap::new(move |_, request| {
        let uri = request.uri();
        let writes =
            request.method() == "PATCH" && uri.path().contains(&path) && !uri.query().unwrap().contains("dryRun");
        let (armed, frozen) = &mut *freeze.lock().unwrap();
        if writes && let Ok(asleep) = armed.try_recv() {
            frozen.take().unwrap().send(()).unwrap();
            // Until the other side is dropped.
            asleep.recv().unwrap_err();
        }
        Fault::Pass
    });
    let (first, config) = (replica(&premises, "first").0.calls(&calls), premises.config.clone());
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // It fails if the test has ended.
        let _ = end.send(runtime.block_on(async { first.start_with(config).ended().await }));
    });
    site.apply("one", json!({"name": "ONE", "generate": {}})).await;
    site.served("one").await;
    let (second, ..) = in_process(&premises, "second");

    let (awake, asleep) = mpsc::channel();
    arm.send(asleep).unwrap();
    let edit = Patch::Merge(json!({"spec": {"description": "edited"}}));
    let edited = site.objects().patch("one", &PatchParams::default(), &edit).await.unwrap().metadata.generation;
    timeout(PATIENCE, freezes).await.expect("a write").unwrap();
    // Another replica leads, and does the work.
    site.until("one", "the other replica's status", |object| {
        object.status.as_ref().is_some_and(|status| status.observed_generation == edited)
    })
    .await;
    drop(awake);
    let ended = timeout(PATIENCE, ended).await.expect("an end").unwrap();
    let Err(RunError::Lost(Lost::NotRenewed { .. })) = ended else { panic!("{ended:?}") };
    second.stop().await;

    let requests = control_plane.requests_since(mark).await.unwrap();
    let terms = terms::of(&requests, &premises.operator_namespace);
    assert_eq!(terms.len(), 2, "{terms:#?}");
    let writes = terms::writes(&requests, &site.namespace, &premises.operator_namespace);
    let late: Vec<_> = writes.iter().filter(|write| !terms::contain(&terms, write)).collect();
    assert!(late.is_empty() && !writes.is_empty(), "{late:#?}\nof {terms:#?}");
    poll("the value to be as it was", PATIENCE, || async { Ok(site.value("one", "value").await) }).await.unwrap();
}
