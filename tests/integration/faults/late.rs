//! Answers that arrive late: they describe what a watch has shown the end of since. Believed, they would put a ghost into the
//! cache, which no later event would remove, and everything that wants its name would wait for it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use http::Request;
use kube::client::Body;
use managed_secrets_api::names::record_name;
use managed_secrets_engine::client;
use serde_json::{Value, json};
use testkit::poll;
use tokio_util::sync::CancellationToken;

use super::refusal;
use crate::integration::{
    objects::Site,
    operator::{Fault, PATIENCE, Seen, Setup, Tap},
};

fn generated(name: &str, description: &str) -> Value {
    json!({"name": name, "generate": {}, "description": description})
}

/// A request of `db` whose answer puts something into the cache.
#[derive(Clone, Copy, Debug)]
enum Held {
    ReadOfTheRecord,
    WriteOfTheRecord,
    WriteOfTheStatus,
}

impl Held {
    fn is(self, method: &str, path: &str) -> bool {
        let record = path.contains(&record_name("NAME"));
        match self {
            Self::ReadOfTheRecord => method == "GET" && record,
            Self::WriteOfTheRecord => method == "PATCH" && record && !path.contains("dryRun="),
            Self::WriteOfTheStatus => method == "PATCH" && path.contains("/managedsecrets/db/status"),
        }
    }
}

fn is_write_of_db(method: &str, path: &str) -> bool {
    method == "PATCH" && (path.contains(&record_name("NAME")) || path.contains("/secrets/db?"))
}

/// A tap that holds the answer to one request until `late`, and from then on refuses writes of what `db` had, so that the
/// pass ends without another look, as in a namespace that is being deleted.
struct Line {
    tap: Arc<Tap>,
    armed: Arc<AtomicBool>,
    late: CancellationToken,
    refused: Arc<AtomicBool>,
}

impl Line {
    fn new(held: Held) -> Self {
        let (armed, late, refused) =
            (Arc::<AtomicBool>::default(), CancellationToken::new(), Arc::<AtomicBool>::default());
        let (is_armed, until, is_refused) = (Arc::clone(&armed), late.clone(), Arc::clone(&refused));
        let tap = Tap::new(move |_, request: &Request<Body>| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            if held.is(request.method().as_str(), &path) && is_armed.swap(false, Ordering::SeqCst) {
                return Fault::Late(until.clone());
            }
            if is_refused.load(Ordering::SeqCst) && is_write_of_db(request.method().as_str(), &path) {
                return refusal(403, "Forbidden", None);
            }
            Fault::Pass
        });
        Self { tap, armed, late, refused }
    }

    /// Waits for a request after the first `from`.
    async fn until(&self, what: &str, from: usize, fits: impl Fn(&Seen) -> bool) {
        poll(what, PATIENCE, || async { Ok(self.tap.seen()[from..].iter().any(&fits).then_some(())) }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_arrives_after_the_end_of_its_object_leaves_no_ghost() {
    let all = [Held::ReadOfTheRecord, Held::WriteOfTheRecord, Held::WriteOfTheStatus];
    join_all(all.map(|held| async move {
        let site = Site::new("late").await;
        let line = Line::new(held);
        let clients = client::Options { call: Duration::from_secs(120), ..client::Options::default() };
        let operator = Setup { clients, ..Setup::of(&site.namespace).calls(&line.tap) }.start().await;
        for (name, wanted) in [("db", "NAME"), ("marker", "MARKER")] {
            site.apply(name, generated(wanted, "")).await;
            site.in_step(name).await;
        }
        let before = line.tap.seen().len();
        line.armed.store(true, Ordering::SeqCst);
        site.apply("db", generated("NAME", "changed")).await;
        let answered = |seen: &Seen| held.is(&seen.method, &seen.path) && seen.code == 200;
        line.until("the answer that is held", before, answered).await;

        // Everything ends, and both watches have shown it once they show what comes later.
        site.delete("db").await;
        site.gone("db").await;
        site.gone(&record_name("NAME")).await;
        site.apply("later", generated("LATER", "")).await;
        site.served("later").await;
        let uid = site.secret("marker").await.unwrap().metadata.uid;
        site.secrets().delete("marker", &kube::api::DeleteParams::default()).await.unwrap();
        poll("the target to be repaired", PATIENCE, || async {
            Ok(site.secret("marker").await.filter(|secret| secret.metadata.uid != uid).map(drop))
        })
        .await
        .unwrap();

        let before = line.tap.seen().len();
        line.refused.store(true, Ordering::SeqCst);
        line.late.cancel();
        if matches!(held, Held::ReadOfTheRecord | Held::WriteOfTheRecord) {
            // With the target, or, as a description is not delivered, with the status.
            let goes_on = |seen: &Seen| {
                is_write_of_db(&seen.method, &seen.path) || Held::WriteOfTheStatus.is(&seen.method, &seen.path)
            };
            line.until("the pass to go on", before, goes_on).await;
        }
        line.refused.store(false, Ordering::SeqCst);
        // It takes the name at once: there is nothing to wait for, and nothing to look at.
        let before = line.tap.seen().len();
        site.apply("other", generated("NAME", "")).await;
        site.served("other").await;
        let looks = |seen: &Seen| seen.method == "GET" && seen.path.contains(&record_name("NAME"));
        assert!(!line.tap.seen()[before..].iter().any(looks), "{held:?}: the cache shows what has ended");
        site.apply("db", generated("AGAIN", "")).await;
        site.served("db").await;
        operator.stop().await;
    }))
    .await;
}
