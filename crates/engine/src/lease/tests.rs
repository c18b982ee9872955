//! Electors against an API server in memory, in paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{convert::Infallible, future::pending, sync::Mutex};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::{Config, client::Body};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::{bytes::Bytes, sync::CancellationToken};
use tower::BoxError;

use super::*;
use crate::{
    client::{Answer, Clients, Tap, Wire},
    testing::{status, within},
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Carries it out and answers.
    Good,
    /// Does nothing, and never answers.
    Hangs,
    /// Refuses it with 500.
    Refuses,
    /// Carries it out, and never answers.
    LosesAnswers,
    /// Carries out reads at once, and writes after this time.
    Writes(Duration),
}

/// An API server that has one Lease, or none.
#[derive(Debug)]
struct Server {
    lease: Mutex<Option<Value>>,
    version: Mutex<u64>,
    manner: Mutex<Manner>,
    requests: Mutex<Vec<Method>>,
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lease: Mutex::default(),
            version: Mutex::default(),
            manner: Mutex::new(Manner::Good),
            requests: Mutex::default(),
        })
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Changes the Lease as another program does.
    fn edit(&self, edit: impl FnOnce(&mut Option<Value>)) {
        let mut lease = self.lease.lock().unwrap();
        edit(&mut lease);
        if let Some(lease) = lease.as_mut() {
            lease["metadata"]["resourceVersion"] = self.next_version();
        }
    }

    fn next_version(&self) -> Value {
        let mut version = self.version.lock().unwrap();
        *version += 1;
        json!(version.to_string())
    }

    fn spec(&self, field: &str) -> Value {
        self.lease.lock().unwrap().as_ref().unwrap()["spec"][field].clone()
    }

    /// Counts reads and writes since the last call.
    fn counts(&self) -> (usize, usize) {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        let reads = requests.iter().filter(|method| **method == Method::GET).count();
        (reads, requests.len() - reads)
    }

    fn serve(&self, method: &Method, body: &Value) -> (u16, Value) {
        let mut lease = self.lease.lock().unwrap();
        match (method.as_str(), lease.as_mut()) {
            ("GET", Some(lease)) => (200, lease.clone()),
            ("GET" | "PUT", None) => {
                let mut missing = status(404, "not found");
                missing["reason"] = json!("NotFound");
                (404, missing)
            }
            ("POST", Some(_)) => (409, status(409, "already exists")),
            ("PUT", Some(lease)) if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                (409, status(409, "changed"))
            }
            ("POST" | "PUT", _) => {
                let mut stored = body.clone();
                stored["metadata"]["resourceVersion"] = self.next_version();
                *lease = Some(stored.clone());
                (200, stored)
            }
            other => panic!("{other:?}"),
        }
    }
}

struct Line(Arc<Server>);

impl Tap for Line {
    fn exchange(&self, request: Request<Body>, _: Wire) -> BoxFuture<'static, Result<Answer, BoxError>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            server.requests.lock().unwrap().push(request.method().clone());
            let manner = *server.manner.lock().unwrap();
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (code, answer) = match manner {
                Manner::Hangs => pending().await,
                Manner::Refuses => (500, status(500, "no")),
                Manner::Writes(after) => {
                    if parts.method != Method::GET {
                        sleep(after).await;
                    }
                    server.serve(&parts.method, &body)
                }
                Manner::Good | Manner::LosesAnswers => server.serve(&parts.method, &body),
            };
            if manner == Manner::LosesAnswers {
                pending::<()>().await;
            }
            let body = Full::new(Bytes::from(answer.to_string())).map_err(|never: Infallible| match never {});
            Ok(Response::builder().status(code).body(body.boxed_unsync())?)
        })
    }
}

struct Replica {
    leadership: Leadership,
    freed: Arc<Notify>,
    release: CancellationToken,
    task: JoinHandle<Result<(), Lost>>,
}

impl Replica {
    fn start(server: &Arc<Server>, identity: &str) -> Self {
        let tap: Arc<dyn Tap> = Arc::new(Line(Arc::clone(server)));
        let options = crate::client::Options { lease_tap: Some(tap), ..crate::client::Options::default() };
        let client = Clients::new(&Config::new("http://127.0.0.1:1".parse().unwrap()), &options).unwrap().lease;
        let (term, leadership) = Leadership::elected();
        let options = Options {
            namespace: "n".to_owned(),
            name: "it".to_owned(),
            identity: identity.to_owned(),
            durations: Durations::default(),
        };
        let elector = Elector::new(client, options, term);
        let (freed, release) = (Arc::clone(&elector.freed), CancellationToken::new());
        let task = tokio::spawn(elector.run(release.clone().cancelled_owned()));
        Self { leadership, freed, release, task }
    }

    /// Starts one, and waits until it is the leader.
    async fn leader(server: &Arc<Server>, identity: &str) -> Self {
        let replica = Self::start(server, identity);
        within(replica.leadership.acquired()).await;
        replica
    }

    /// How long it takes until it leads.
    async fn takes(&self) -> Duration {
        let began = Instant::now();
        within(self.leadership.acquired()).await;
        began.elapsed()
    }

    /// Why it lost the leadership, and how long that took.
    async fn loses(self) -> (Lost, Duration) {
        let began = Instant::now();
        let lost = within(self.task).await.unwrap().expect_err("the leadership is lost");
        assert!(!self.leadership.is_leader());
        (lost, began.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_lease_and_a_free_one_are_taken_at_once() {
    let server = Server::new();
    let first = Replica::start(&server, "first");
    assert_eq!(first.takes().await, Duration::ZERO);
    assert_eq!((server.spec("holderIdentity"), server.spec("leaseDurationSeconds")), (json!("first"), json!(15)));
    first.release.cancel();
    within(first.task).await.unwrap().unwrap();
    assert_eq!(server.spec("holderIdentity"), Value::Null);
    let second = Replica::start(&server, "second");
    assert_eq!(second.takes().await, Duration::ZERO);
    assert_eq!((server.spec("holderIdentity"), server.spec("leaseTransitions")), (json!("second"), json!(1)));
}

#[tokio::test(start_paused = true)]
async fn of_several_one_leads_and_the_others_cost_little() {
    let server = Server::new();
    let replicas = ["a", "b", "c"].map(|name| Replica::start(&server, name));
    sleep(seconds(10)).await;
    let leaders = || replicas.iter().filter(|replica| replica.leadership.is_leader()).count();
    assert_eq!(leaders(), 1);
    server.counts();
    sleep(seconds(60)).await;
    assert_eq!(leaders(), 1);
    let (reads, writes) = server.counts();
    assert!((27..=34).contains(&writes), "{writes} writes of the leader");
    assert!((54..=68).contains(&reads), "{reads} reads of the two others");
    assert_eq!(server.spec("leaseTransitions"), json!(0));
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once_with_the_watch_and_soon_without() {
    for watched in [true, false] {
        let server = Server::new();
        let first = Replica::leader(&server, "first").await;
        let second = Replica::start(&server, "second");
        sleep(seconds(7)).await;
        first.release.cancel();
        within(first.task).await.unwrap().unwrap();
        assert!(!first.leadership.is_leader());
        if watched {
            second.freed.notify_one();
        }
        let took = second.takes().await;
        assert!(took < if watched { Duration::from_millis(10) } else { Duration::from_millis(2401) }, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_dead_leader_is_taken_when_it_expires_and_not_before() {
    let server = Server::new();
    let first = Replica::leader(&server, "first").await;
    let second = Replica::start(&server, "second");
    sleep(seconds(7)).await;
    first.task.abort();
    let took = second.takes().await;
    // The last renewal was up to 2.4 s ago, and the second may have seen it up to 2.4 s later.
    assert!(took > Duration::from_millis(12_500) && took < Duration::from_millis(17_500), "{took:?}");
    assert_eq!(server.spec("leaseTransitions"), json!(1));
}

#[tokio::test(start_paused = true)]
async fn what_the_clock_of_the_leader_shows_makes_no_difference() {
    for renewed in ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"] {
        let server = Server::new();
        let spec = json!({"holderIdentity": "other", "leaseDurationSeconds": 20, "renewTime": renewed});
        let metadata = json!({"name": "it", "labels": {"team": "a"}, "resourceVersion": "0"});
        server.edit(|lease| *lease = Some(json!({"metadata": metadata, "spec": spec})));
        let replica = Replica::start(&server, "it");
        let took = replica.takes().await;
        assert!(took >= seconds(20) && took < seconds(21), "as long as the holder says: {took:?}");
        assert_eq!(server.lease.lock().unwrap().as_ref().unwrap()["metadata"]["labels"]["team"], "a");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_takes_over() {
    for manner in [Manner::Hangs, Manner::Refuses] {
        let server = Server::new();
        let first = Replica::leader(&server, "first").await;
        let second = Replica::start(&server, "second");
        sleep(seconds(7)).await;
        server.set(manner);
        let leadership = first.leadership.clone();
        let (lost, took) = first.loses().await;
        assert!(took <= seconds(10) && took > Duration::from_millis(7500), "{manner:?}: {took:?}");
        let Lost::NotRenewed { why, .. } = lost else { panic!("{lost:?}") };
        assert!(why.contains(if manner == Manner::Hangs { "no answer" } else { "no" }), "{why}");
        server.set(Manner::Good);
        let took = second.takes().await;
        assert!(took >= Duration::from_millis(2500), "{took:?}");
        assert!(!leadership.is_leader());
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_and_lost_answers_change_nothing() {
    for manner in [Manner::Hangs, Manner::Refuses, Manner::LosesAnswers] {
        let server = Server::new();
        let first = Replica::leader(&server, "first").await;
        let _second = Replica::start(&server, "second");
        sleep(seconds(7)).await;
        for _ in 0..5 {
            server.set(manner);
            sleep(Duration::from_millis(4500)).await;
            assert!(first.leadership.is_leader(), "{manner:?}");
            server.set(Manner::Good);
            sleep(seconds(8)).await;
            assert!(first.leadership.is_leader(), "{manner:?}");
        }
        assert_eq!(server.spec("leaseTransitions"), json!(0));
    }
}

/// With an etcd that needs a second for each fsync, a write of the Lease takes some seconds.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_every_write_is_slow_stays_the_leader() {
    let server = Server::new();
    let first = Replica::leader(&server, "first").await;
    let second = Replica::start(&server, "second");
    sleep(seconds(7)).await;
    server.set(Manner::Writes(Duration::from_millis(4800)));
    server.counts();
    for _ in 0..300 {
        sleep(seconds(1)).await;
        assert!(first.leadership.is_leader() && !second.leadership.is_leader());
    }
    let (_, writes) = server.counts();
    assert!((61..=63).contains(&writes), "{writes} writes: one after the other, and none at once");
    assert_eq!(server.spec("leaseTransitions"), json!(0));
    // Neither does it take much longer to become the leader.
    first.release.cancel();
    within(first.task).await.unwrap().unwrap();
    let took = second.takes().await;
    assert!(took < seconds(8), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_first_write_costs_one_try() {
    let server = Server::new();
    server.set(Manner::LosesAnswers);
    server.edit(|lease| *lease = Some(json!({"metadata": {"name": "it"}, "spec": {}})));
    let replica = Replica::start(&server, "it");
    sleep(seconds(1)).await;
    server.set(Manner::Good);
    let took = replica.takes().await;
    assert!(took <= seconds(8), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_others_change_stops_at_the_next_renewal() {
    type Edit = fn(&mut Option<Value>);
    let taken = Lost::Taken { holder: "other".to_owned() };
    let cases: [(Edit, Lost); 3] = [
        (|lease| lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!("other"), taken),
        (|lease| lease.as_mut().unwrap()["spec"]["holderIdentity"] = Value::Null, Lost::Removed),
        (|lease| *lease = None, Lost::Removed),
    ];
    for (edit, expected) in cases {
        let server = Server::new();
        let first = Replica::leader(&server, "first").await;
        sleep(seconds(5)).await;
        server.edit(edit);
        let (lost, took) = first.loses().await;
        assert_eq!(lost, expected);
        assert!(took <= Duration::from_millis(2400), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_changes_of_the_lease_cost_nothing() {
    let server = Server::new();
    let first = Replica::leader(&server, "first").await;
    for _ in 0..10 {
        server.edit(|lease| lease.as_mut().unwrap()["metadata"]["labels"] = json!({"team": "a"}));
        sleep(seconds(3)).await;
        assert!(first.leadership.is_leader());
    }
    assert_eq!(server.lease.lock().unwrap().as_ref().unwrap()["metadata"]["labels"]["team"], "a");
}

#[tokio::test(start_paused = true)]
async fn a_standby_ends_without_a_trace() {
    let server = Server::new();
    let _first = Replica::leader(&server, "first").await;
    let second = Replica::start(&server, "second");
    sleep(seconds(5)).await;
    second.release.cancel();
    within(second.task).await.unwrap().unwrap();
    assert_eq!(server.spec("holderIdentity"), json!("first"));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_cuts_off_a_renewal_still_releases() {
    let server = Server::new();
    let first = Replica::leader(&server, "first").await;
    server.set(Manner::LosesAnswers);
    sleep(seconds(3)).await;
    server.set(Manner::Good);
    first.release.cancel();
    within(first.task).await.unwrap().unwrap();
    assert_eq!(server.spec("holderIdentity"), Value::Null);
}

#[test]
fn durations_must_fit_each_other() {
    let durations = |lease, deadline, retry| Durations::new(seconds(lease), seconds(deadline), seconds(retry));
    assert_eq!(durations(15, 10, 2), Ok(Durations::default()));
    assert_eq!(durations(10, 10, 2), Err(DurationsError::Lease));
    assert_eq!(durations(15, 2, 2), Err(DurationsError::RenewDeadline));
    assert_eq!(durations(15, 12, 10), Err(DurationsError::RenewDeadline));
    assert_eq!(durations(15, 10, 0), Err(DurationsError::Retry));
    let fraction = Duration::from_millis(10_900);
    assert_eq!(Durations::new(fraction, Duration::from_millis(10_500), seconds(1)), Err(DurationsError::Lease));
}
