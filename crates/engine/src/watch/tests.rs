//! Watches against a scripted server, with time paused: what production takes minutes for takes none here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    cell::Cell,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use futures::{FutureExt as _, channel::mpsc::UnboundedSender};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt as _, core::Status};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::{
    supervise::{Failure, Supervisor},
    testing::{Line, Reply, Seen, Server, config_map, event, failing, list, open, short, silent, status, within},
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Writes down what it is told, and panics at a deletion when it is brittle.
#[derive(Default)]
struct Notes {
    said: Mutex<Vec<String>>,
    brittle: bool,
}

impl Notes {
    fn note(&self, what: &str, object: &ConfigMap) {
        let text = format!("{what} {}@{}", object.name_any(), object.resource_version().unwrap());
        self.said.lock().unwrap().push(text);
    }
}

impl Sink<ConfigMap> for Notes {
    fn init(&self) {
        self.said.lock().unwrap().push("init".into());
    }
    fn init_apply(&self, object: ConfigMap) {
        self.note("listed", &object);
    }
    fn init_done(&self) {
        self.said.lock().unwrap().push("done".into());
    }
    fn apply(&self, object: ConfigMap) {
        self.note("applied", &object);
    }
    fn delete(&self, object: ConfigMap) {
        assert!(!self.brittle, "a panic on purpose");
        self.note("deleted", &object);
    }
}

/// One watch of a scripted server.
struct Scene {
    server: Arc<Server>,
    watcher: Watcher,
    handle: WatchHandle,
    notes: Arc<Notes>,
    supervision: JoinHandle<Result<(), Failure>>,
}

impl Scene {
    fn with(server: Arc<Server>, notes: Notes) -> Self {
        let (supervisor, shutdown) = (Supervisor::new(), CancellationToken::new());
        let watcher = Watcher {
            client: server.clients().watch,
            spawner: supervisor.spawner(),
            stats: Arc::default(),
            timing: Timing::default(),
            shutdown: shutdown.clone(),
            common: Arc::default(),
        };
        let notes = Arc::new(notes);
        let handle = start(&watcher, "config maps", &notes);
        Self { server, watcher, handle, notes, supervision: tokio::spawn(supervisor.run(shutdown, seconds(20))) }
    }

    /// The script, and after it: lists of nothing, and watches on which nothing happens.
    fn of(script: impl IntoIterator<Item = Reply>) -> Self {
        Self::with(Server::new(script, calm), Notes::default())
    }

    async fn ready(&self) {
        within(self.handle.ready()).await.unwrap();
    }

    fn said(&self) -> Vec<String> {
        self.notes.said.lock().unwrap().clone()
    }

    /// Waits until the sink was told this many things.
    async fn told(&self, count: usize) -> Vec<String> {
        let told = async {
            while self.said().len() < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(seconds(3600), told).await.unwrap_or_else(|_| panic!("in an hour only {:?}", self.said()));
        self.said()
    }
}

fn start(watcher: &Watcher, name: &str, notes: &Arc<Notes>) -> WatchHandle {
    watcher.watch(name, |client| Api::namespaced(client, "n"), watcher::Config::default(), Arc::clone(notes))
}

fn calm(seen: &Seen) -> Reply {
    if seen.is_watch() { silent() } else { list(&[]) }
}

fn say(lines: &UnboundedSender<Line>, kind: &str, name: &str, version: &str) {
    lines.unbounded_send(event(kind, &config_map(name, version))).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hangs_is_told_from_one_that_waits_and_one_that_fails() {
    const LIMIT: Duration = seconds(600);
    let state = |it: &Scene| it.watcher.common.states().pop().unwrap();
    let quiet = Scene::of([]);
    let refused = Scene::with(Server::new([list(&[])], |_| Reply::Refused), Notes::default());
    let forbidden = Scene::with(Server::new([list(&[])], |_| failing(403)), Notes::default());
    let hung = Scene::with(Server::new([list(&[])], |_| Reply::Hang), Notes::default());
    sleep(seconds(1800)).await;
    let state_of = [&quiet, &refused, &forbidden, &hung].map(state);
    let [quiet, refused, forbidden, hung] = &state_of;
    assert_eq!(quiet.name, "config maps");
    assert_eq!((quiet.trouble.as_deref(), refused.unanswered > LIMIT), (None, true));
    assert!(refused.inactive < LIMIT, "it fails, and tries again: {refused:?}");
    assert!(forbidden.unanswered < LIMIT && forbidden.trouble.as_ref().unwrap().contains("403"), "{forbidden:?}");
    assert!(hung.inactive > LIMIT && hung.trouble.is_some(), "{hung:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_then_what_happens() {
    let (lines, watch) = open();
    let it = Scene::of([list(&["a", "b"]), watch]);
    assert!(it.handle.ready().now_or_never().is_none());
    it.ready().await;
    assert_eq!(it.said(), ["init", "listed a@1", "listed b@1", "done"]);
    say(&lines, "ADDED", "c", "2");
    say(&lines, "MODIFIED", "a", "3");
    say(&lines, "DELETED", "b", "4");
    assert_eq!(it.told(7).await[4..], ["applied c@2", "applied a@3", "deleted b@4"]);
    let uris: Vec<_> = it.server.seen().into_iter().map(|seen| seen.uri).collect();
    assert!(uris[1].contains("timeoutSeconds=200") && uris[1].contains("allowWatchBookmarks=true"), "{uris:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_is_resumed_from_where_it_was() {
    let first = short([event("ADDED", &config_map("a", "7")), Err("connection reset".into())]);
    let second = short([event("ADDED", &config_map("b", "8"))]);
    let it = Scene::of([list(&[]), first, second]);
    assert_eq!(it.told(4).await, ["init", "done", "applied a@7", "applied b@8"]);
    sleep(seconds(10)).await;
    let versions: Vec<_> = it.server.seen().iter().skip(1).map(|seen| version_of(&seen.uri)).collect();
    assert_eq!(versions, ["1", "7", "8"]);
    assert_eq!((it.server.lists(), it.watcher.stats.relists.get()), (1, 0));
}

fn version_of(uri: &str) -> String {
    let version = uri.split(['?', '&']).find_map(|pair| pair.strip_prefix("resourceVersion="));
    version.unwrap_or_default().to_owned()
}

/// A server of `count` objects of about `bytes` each, which answers as many at once as it is asked for.
fn heavy(count: usize, bytes: usize) -> Arc<Server> {
    let filler = "x".repeat(bytes);
    Server::new([], move |seen| {
        if seen.is_watch() {
            return silent();
        }
        let of = |key: &str| seen.uri.split(['?', '&']).find_map(|pair| pair.strip_prefix(key)).map(str::to_owned);
        let limit: usize = of("limit=").unwrap().parse().unwrap();
        let from: usize = of("continue=").map_or(0, |token| token.parse().unwrap());
        let to = (from + limit).min(count);
        let items: Vec<Value> = (from..to)
            .map(|n| {
                let mut object = config_map(&format!("n{n}"), "1");
                object["metadata"]["annotations"] = json!({"filler": filler});
                object
            })
            .collect();
        let next = if to < count { to.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": "1", "continue": next});
        Reply::Whole(
            200,
            vec![],
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}),
        )
    })
}

#[tokio::test(start_paused = true)]
async fn pages_that_are_too_large_are_asked_for_again_with_fewer_objects() {
    let it = Scene::with(heavy(40, 500_000), Notes::default());
    it.ready().await;
    let listed: Vec<String> = (0..40).map(|n| format!("listed n{n}@1")).collect();
    assert_eq!(it.said()[1..41], listed, "each object once, in order");
    // 500 and 125 and 31 are too many, and 7 are not.
    assert_eq!(it.watcher.stats.pages_split.get(), 3);
    assert_eq!(it.server.lists(), 3 + 6);
    assert_eq!((it.watcher.stats.watch_errors.get(), it.watcher.stats.relists.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_too_large_for_any_page_is_read_by_itself() {
    let it = Scene::with(heavy(2, pages::MAX_BYTES + 1), Notes::default());
    it.ready().await;
    assert_eq!(it.said(), ["init", "listed n0@1", "listed n1@1", "done"]);
}

#[tokio::test(start_paused = true)]
async fn lists_that_stall_hold_up_others_until_they_are_given_up() {
    let server = Server::new([], |seen| match (seen.uri.contains("labelSelector"), seen.is_watch()) {
        (true, false) => Reply::Stalled,
        (_, true) => silent(),
        (false, false) => list(&["a"]),
    });
    let it = Scene::with(server, Notes::default());
    it.ready().await;
    for n in 0..pages::AT_ONCE {
        let config = watcher::Config::default().labels(&format!("x={n}"));
        let scope = |client| Api::<ConfigMap>::namespaced(client, "n");
        it.watcher.watch("stalled", scope, config, Arc::new(Notes::default()));
    }
    sleep(seconds(1)).await;
    let began = Instant::now();
    within(start(&it.watcher, "late", &Arc::default()).ready()).await.unwrap();
    assert!(began.elapsed() < seconds(34), "{:?}", began.elapsed());
}

/// kube alone would ask thousands of times a second.
#[tokio::test(start_paused = true)]
async fn streams_that_end_at_once_are_no_storm() {
    let server = Server::new([], |seen| if seen.is_watch() { short([]) } else { list(&[]) });
    let it = Scene::with(server, Notes::default());
    sleep(seconds(600)).await;
    let (watches, lists) = (it.server.watches(), it.server.lists());
    assert!((20..=35).contains(&watches), "{watches} watches in ten minutes");
    assert_eq!(it.watcher.stats.watch_cuts.get(), watches as u64);
    assert_eq!(lists, 1);
}

#[tokio::test(start_paused = true)]
async fn after_cuts_all_is_as_before() {
    let (lines, watch) = open();
    let cuts = (0..6).map(|_| short([]));
    let it = Scene::of([list(&[])].into_iter().chain(cuts).chain([watch]));
    sleep(seconds(120)).await;
    say(&lines, "ADDED", "a", "2");
    assert_eq!(it.told(3).await[2], "applied a@2");
    drop(lines);
    let began = Instant::now();
    sleep(seconds(10)).await;
    let last = it.server.seen().pop().unwrap();
    assert!(last.at >= began && last.at - began < seconds(1), "a stream that lasted is resumed at once");
}

#[tokio::test(start_paused = true)]
async fn gone_in_the_stream_lists_again() {
    let gone = || short([event("ERROR", &status(410, "too old"))]);
    let it = Scene::of([list(&["a"]), gone(), list(&["b"])]);
    assert_eq!(it.told(6).await, ["init", "listed a@1", "done", "init", "listed b@1", "done"]);
    assert_eq!((it.watcher.stats.relists.get(), it.watcher.stats.watch_errors.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn gone_again_and_again_is_no_storm() {
    let server =
        Server::new(
            [],
            |seen| {
                if seen.is_watch() { short([event("ERROR", &status(410, "too old"))]) } else { list(&[]) }
            },
        );
    let it = Scene::with(server, Notes::default());
    sleep(seconds(600)).await;
    let lists = it.server.lists();
    assert!((12..=35).contains(&lists), "{lists} lists in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn gone_at_the_start_lists_again() {
    let it = Scene::of([list(&[]), failing(410)]);
    assert_eq!(it.told(4).await, ["init", "done", "init", "done"]);
    sleep(seconds(1)).await;
    assert_eq!((it.server.lists(), it.server.watches()), (2, 2));
    assert_eq!((it.watcher.stats.relists.get(), it.watcher.stats.watch_rebuilds.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_start_refused_five_times_lists_again() {
    let it = Scene::of([list(&[])].into_iter().chain((0..5).map(|_| failing(500))));
    it.told(4).await;
    sleep(seconds(1)).await;
    assert_eq!((it.server.lists(), it.server.watches()), (2, 6));
    assert_eq!(it.watcher.stats.watch_rebuilds.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_no_list() {
    let outage = (0..12).map(|n| if n % 2 == 0 { Reply::Refused } else { failing(503) });
    let (lines, watch) = open();
    let it = Scene::of([list(&[])].into_iter().chain(outage).chain([watch]));
    say(&lines, "ADDED", "a", "2");
    assert_eq!(it.told(3).await[2], "applied a@2");
    assert_eq!((it.server.lists(), it.watcher.stats.watch_rebuilds.get()), (1, 0));
    let gaps = it.server.gaps();
    assert!(gaps[1] < seconds(1) && gaps[7..].iter().all(|gap| *gap >= seconds(24)), "the backoff grows: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= seconds(36)), "and has a cap: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_obeyed() {
    let busy = || Reply::Whole(429, vec![("retry-after", "45")], Value::String("too many".into()));
    let it = Scene::of([busy(), list(&[]), busy()]);
    it.ready().await;
    sleep(seconds(70)).await;
    let gaps = it.server.gaps();
    assert_eq!(it.server.seen().len(), 4);
    for gap in [gaps[0], gaps[2]] {
        assert!((45..=64).contains(&gap.as_secs()), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_tried_again() {
    let it = Scene::of([failing(500), Reply::Refused, failing(403), list(&["a"])]);
    it.ready().await;
    assert_eq!(it.said().iter().filter(|said| said.as_str() == "done").count(), 1);
    assert_eq!(it.said().last().unwrap(), "done");
    assert_eq!(it.watcher.stats.watch_errors.get(), 3);
    assert_eq!(it.watcher.stats.relists.get(), 0, "it never was ready before");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let it = Scene::of([Reply::Hang, list(&[]), Reply::Hang]);
    it.ready().await;
    sleep(seconds(40)).await;
    assert_eq!(it.server.seen().len(), 4);
    let gaps = it.server.gaps();
    for gap in [gaps[0], gaps[2]] {
        assert!((30..=33).contains(&gap.as_secs()), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_stalls_is_given_up() {
    let it = Scene::of([Reply::Stalled]);
    let began = Instant::now();
    it.ready().await;
    assert!((30..=33).contains(&began.elapsed().as_secs()));
}

/// It is never silent for long, and makes no progress all the same.
#[tokio::test(start_paused = true)]
async fn a_list_that_trickles_is_given_up() {
    let (lines, endless) = open();
    let it = Scene::of([endless]);
    let began = Instant::now();
    while lines.unbounded_send(Ok(Value::Null)).is_ok() && began.elapsed() < seconds(3600) {
        sleep(seconds(20)).await;
    }
    it.ready().await;
    assert!((120..=141).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!((it.watcher.stats.watch_errors.get(), it.watcher.stats.watch_rebuilds.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_after_the_watch_timeout() {
    let (lines, watch) = open();
    let it = Scene::of([list(&[]), silent(), watch]);
    it.ready().await;
    say(&lines, "ADDED", "a", "2");
    let began = Instant::now();
    it.told(3).await;
    assert_eq!(began.elapsed().as_secs(), 205);
}

#[tokio::test(start_paused = true)]
async fn one_watch_that_fails_holds_up_no_other() {
    let server = Server::new([], |seen| match (seen.uri.contains("labelSelector"), seen.is_watch()) {
        (true, _) => failing(500),
        (false, true) => silent(),
        (false, false) => list(&["a"]),
    });
    let it = Scene::with(server, Notes::default());
    let scope = |client| Api::<ConfigMap>::namespaced(client, "n");
    let failing =
        it.watcher.watch("failing", scope, watcher::Config::default().labels("x=y"), Arc::new(Notes::default()));
    it.ready().await;
    sleep(seconds(300)).await;
    let began = Instant::now();
    within(start(&it.watcher, "late", &Arc::default()).ready()).await.unwrap();
    assert!(began.elapsed() < seconds(1));
    assert!(failing.ready().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_sink_ends_the_process() {
    let (lines, watch) = open();
    let notes = Notes { brittle: true, ..Notes::default() };
    let it = Scene::with(Server::new([list(&["a"]), watch], calm), notes);
    it.ready().await;
    say(&lines, "DELETED", "a", "2");
    assert_eq!(within(it.supervision).await.unwrap(), Err(Failure::Panicked("watch config maps".into())));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_watch_says_nothing_more_and_ends_nothing() {
    let (lines, watch) = open();
    let it = Scene::of([list(&[]), watch]);
    it.ready().await;
    it.handle.stop();
    // The stream is dropped with the watch.
    let closed = async {
        while !lines.is_closed() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(seconds(10), closed).await.expect("the stream is closed");
    assert_eq!(it.said(), ["init", "done"]);
    assert_eq!(within(it.handle.ready()).await, Ok(()), "it was");
    assert!(!it.supervision.is_finished());

    let early = start(&it.watcher, "early", &Arc::default());
    early.stop();
    assert_eq!(within(early.ready()).await, Err(Stopped));
    it.watcher.shutdown.cancel();
    assert_eq!(within(it.supervision).await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn watches_come_and_go() {
    let it = Scene::of([]);
    let (set, started) = (WatchSet::default(), Cell::new(0));
    let ensure = |namespace: &'static str| {
        set.ensure(namespace, || {
            started.set(started.get() + 1);
            start(&it.watcher, namespace, &Arc::default())
        })
    };
    let [a, b, _] = ["a", "b", "a"].map(ensure);
    assert_eq!(started.get(), 2);
    within(a.ready()).await.unwrap();
    within(b.ready()).await.unwrap();
    set.retain(|namespace| *namespace == "b");
    assert!(a.stop.is_cancelled() && !b.stop.is_cancelled());
    let [a, _] = ["a", "b"].map(ensure);
    assert_eq!(started.get(), 3, "a stopped watch starts again, and no other");
    assert!(!a.stop.is_cancelled());
}

/// A server at a revision that tests choose, with one object; each watch on it is what `watch` gives.
fn at_revision(watch: impl Fn(usize) -> Reply + Send + Sync + 'static) -> (Arc<Server>, Arc<AtomicU64>) {
    let (revision, watches) = (Arc::new(AtomicU64::new(100)), AtomicUsize::new(0));
    let now = Arc::clone(&revision);
    let server = Server::new([], move |seen| {
        let version = now.load(SeqCst).to_string();
        match (seen.is_watch(), version.as_str()) {
            (true, _) => watch(watches.fetch_add(1, SeqCst)),
            (false, "0") => failing(503),
            (false, version) => {
                let metadata = json!({"resourceVersion": version});
                let items = [config_map("a", "7")];
                Reply::Whole(
                    200,
                    vec![],
                    json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}),
                )
            }
        }
    });
    (server, revision)
}

/// Whether the present revision was asked for.
fn is_question(seen: &Seen) -> bool {
    seen.uri.contains("limit=1&") || seen.uri.ends_with("limit=1")
}

#[tokio::test(start_paused = true)]
async fn watches_that_have_seen_more_than_there_is_list_again() {
    let (server, revision) = at_revision(|_| silent());
    let it = Scene::with(server, Notes::default());
    let elsewhere = Arc::new(Notes::default());
    let scope = |client| Api::<ConfigMap>::all(client);
    it.watcher.watch("all", scope, watcher::Config::default().labels("x=y"), Arc::clone(&elsewhere));
    it.watcher.notice_restores();
    it.ready().await;
    for now in [100, 250, 0, 100] {
        revision.store(now, SeqCst);
        sleep(seconds(120)).await;
        assert_eq!(it.watcher.stats.relists.get(), 0, "at {now}");
    }
    revision.store(60, SeqCst);
    let began = Instant::now();
    assert_eq!(it.told(6).await[3..], ["init", "listed a@7", "done"]);
    assert!(began.elapsed() < seconds(40), "{:?}", began.elapsed());
    sleep(seconds(1)).await;
    assert_eq!(elsewhere.said.lock().unwrap().len(), 6);
    let since = Instant::now();
    sleep(seconds(300)).await;
    assert_eq!(it.watcher.stats.relists.get(), 2, "once each");
    let starts: Vec<_> =
        it.server.seen().iter().filter(|seen| seen.is_watch()).map(|seen| version_of(&seen.uri)).collect();
    let first = starts.iter().position(|version| version == "60").unwrap();
    assert!(starts[first..].iter().all(|version| version == "60"), "it goes on from there: {starts:?}");
    let questions = it.server.seen().into_iter().filter(|seen| seen.at > since && is_question(seen));
    let questions: Vec<_> = questions.collect();
    assert!((6..=11).contains(&questions.len()), "{questions:?}");
    assert!(questions.iter().all(|seen| seen.uri.contains("/namespaces/n/")), "one for both, where it costs least");
}

#[tokio::test(start_paused = true)]
async fn the_present_revision_is_asked_for_when_a_stream_begins_after_a_break() {
    let (server, _) = at_revision(|nth| if nth < 2 { short([]) } else { silent() });
    let it = Scene::with(server, Notes::default());
    it.watcher.notice_restores();
    it.ready().await;
    sleep(seconds(10)).await;
    let asked: Vec<_> = it.server.seen().into_iter().filter(is_question).collect();
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    assert_eq!(it.watcher.stats.relists.get(), 0, "there was no restore");
}

/// kube swallows bookmarks: what they say is seen where the watch is resumed.
#[tokio::test(start_paused = true)]
async fn what_a_bookmark_has_told_counts_as_seen() {
    let bookmark =
        || event("BOOKMARK", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "200"}}));
    let (server, revision) = at_revision(move |nth| if nth == 0 { short([bookmark()]) } else { silent() });
    let it = Scene::with(server, Notes::default());
    it.ready().await;
    revision.store(150, SeqCst);
    it.watcher.notice_restores();
    assert_eq!(it.told(6).await[3..], ["init", "listed a@7", "done"]);
    let starts: Vec<_> =
        it.server.seen().iter().filter(|seen| seen.is_watch()).map(|seen| version_of(&seen.uri)).collect();
    assert_eq!(starts[..2], ["100", "200"]);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_forgotten_after_two_good_minutes() {
    let mut trouble = Trouble::new(Timing::default());
    let delays: Vec<_> = (0..8).map(|_| trouble.failed(None)).collect();
    assert!(delays[0] < seconds(1) && delays[7] >= seconds(24), "{delays:?}");
    sleep(delays[7] + seconds(119)).await;
    let delay = trouble.failed(None);
    assert!(delay >= seconds(24), "{delay:?}");
    sleep(delay + seconds(120)).await;
    assert!(trouble.failed(None) < seconds(1));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_asks_for_has_a_limit() {
    let mut trouble = Trouble::new(Timing::default());
    let delay = trouble.failed(Some(seconds(1_000_000)));
    assert!((120..=168).contains(&delay.as_secs()), "{delay:?}");
}

#[test]
fn no_error_shows_what_the_server_wrote() {
    const CANARY: &str = "hunter2";
    let status =
        || Box::new(Status { message: CANARY.into(), reason: "Invalid".into(), code: 422, ..Status::default() });
    let undecodable = || {
        let error = serde_json::from_value::<u8>(Value::String(CANARY.into())).unwrap_err();
        assert!(error.to_string().contains(CANARY), "otherwise this test shows nothing");
        kube::Error::SerdeError(error)
    };
    let errors = [
        Error::InitialListFailed(kube::Error::Api(status())),
        Error::WatchStartFailed(undecodable()),
        Error::WatchFailed(undecodable()),
        Error::WatchError(status()),
    ];
    for error in &errors {
        assert!(!Described(error).to_string().contains(CANARY), "{}", Described(error));
    }
    let refused = Error::InitialListFailed(kube::Error::Service("connection refused".into()));
    assert!(Described(&refused).to_string().ends_with("connection refused"), "{}", Described(&refused));
}
