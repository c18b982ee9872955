//! What it costs: the requests of each row of the design's table, as the API server's audit log counts them.
//!
//! Counted is what the operator's service account asks for in the test's namespace, but for lists, watches and events.
//! The marks between which is counted follow each other without a gap, so a request too many shows up somewhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fmt::Write as _,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use http::Method;
use jiff::SignedDuration;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use managed_secrets::controller::conditions::{EXPIRING, PATIENCE as STALLS_AFTER, RECONCILING};
use managed_secrets_api::{ManagedSecret, keys, names::record_name, types::WorkloadKind};
use serde_json::{Value, json};
use testkit::{
    Operator,
    audit::{Mark, Request},
    poll,
};
use tokio_util::sync::CancellationToken;

use super::{
    installation::{self, OPERATOR_NAMESPACE},
    objects::{Site, conditions, id, in_time, ready, revision, status},
    operator::{Fault, PATIENCE, Setup, Tap},
    restarts,
};

/// A suspended object: the pass that observes its new generation comes after the passes of all events before it.
const MARKER: &str = "marker";

/// Counts requests in one namespace, row by row.
struct Meter {
    site: Site,
    mark: Mark,
    edits: usize,
    table: String,
    wrong: String,
}

impl Meter {
    /// Begins to count. The operator must run with one worker, so that passes follow each other as events do.
    async fn new(site: &Site) -> Self {
        let mark = installation::control_plane().await.audit_mark().await.unwrap();
        let mut meter = Self { site: site.clone(), mark, edits: 0, table: String::new(), wrong: String::new() };
        meter.settle().await;
        meter.take().await;
        meter
    }

    /// Waits until every object has been looked at once more.
    async fn settle(&mut self) {
        self.edits += 1;
        let note = json!({"metadata": {"annotations": {"example.com/looked-at": self.edits.to_string()}}});
        let objects = self.site.objects();
        for object in objects.list(&ListParams::default()).await.unwrap() {
            let name = object.metadata.name.unwrap();
            objects.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&note)).await.unwrap();
        }
        let spec = json!({"name": "MARKER", "description": self.edits.to_string(), "generate": {}, "suspend": true});
        self.site.apply(MARKER, spec).await;
        self.site.until(MARKER, "observed", |object| ready(object).1 == "Suspended").await;
    }

    /// The requests since the last call.
    async fn take(&mut self) -> Vec<Request> {
        let requests = counted(&self.site.namespace, self.mark).await;
        self.mark = requests.1;
        requests.0.into_iter().filter(|request| request.object().name != MARKER).collect()
    }

    /// Ends a row: what was done since the last one must have cost this much. A dry run comes before each write over a
    /// Secret that exists, and before no other.
    async fn row(
        &mut self,
        what: &str,
        writes: RangeInclusive<usize>,
        dry_runs: RangeInclusive<usize>,
        reads: RangeInclusive<usize>,
    ) {
        self.settle().await;
        let requests = self.take().await;
        let written = requests.iter().filter(|request| request.is_write()).count();
        let dry = requests.iter().filter(|request| request.is_dry_run()).count();
        let read = requests.len() - written - dry;
        let refused = requests.iter().filter(|request| request.is_write() && request.code() >= 300).count();
        let refused = if refused > 0 { format!(" ({refused} refused)") } else { String::new() };
        writeln!(self.table, "{what:<52} {written} writes{refused}, {dry} dry runs, {read} reads").unwrap();
        if !writes.contains(&written) || !dry_runs.contains(&dry) || !reads.contains(&read) {
            let requests: Vec<_> = requests.iter().map(Request::summary).collect();
            let must = format!("{writes:?} writes, {dry_runs:?} dry runs and {reads:?} reads");
            writeln!(self.wrong, "{what}: must be {must}: {requests:#?}").unwrap();
        }
    }

    /// Prints the table, and fails if a row was wrong.
    fn end(self) {
        println!("{}", self.table);
        assert!(self.wrong.is_empty(), "{}", self.wrong);
    }
}

/// What the operator asked for in a namespace since a mark, without lists, watches and events; and the next mark.
async fn counted(namespace: &str, since: Mark) -> (Vec<Request>, Mark) {
    let (mut requests, next) = all_counted(namespace, since).await;
    requests.retain(|request| !is_event(request));
    (requests, next)
}

/// The same with events.
async fn all_counted(namespace: &str, since: Mark) -> (Vec<Request>, Mark) {
    let control_plane = installation::control_plane().await;
    let (requests, next) = control_plane.requests_and_mark(since).await.unwrap();
    let user = installation::options().operator_user();
    let requests = requests.into_iter().filter(|request| {
        request.username() == user
            && request.object().namespace == namespace
            && !matches!(request.verb.as_str(), "list" | "watch")
    });
    (requests.collect(), next)
}

fn is_event(request: &Request) -> bool {
    request.object().resource == "events"
}

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "a row for each event")]
async fn what_users_do_costs_what_the_design_says() {
    let site = Site::new("costs").await;
    let setup = Setup { workers: 1, ..Setup::of(&site.namespace) };
    let operator = setup.start().await;
    site.foreign_secret("upstream", &[("token", "one")]).await;
    let (first, second) = (site.seal("sealed", "one").await, site.seal("sealed", "two").await);
    let again = site.seal("sealed", "two").await;
    let mut meter = Meter::new(&site).await;

    let from = json!({"secretKeyRef": {"name": "upstream", "key": "token"}});
    site.apply("sealed", json!({"name": "SEALED", "value": first})).await;
    site.in_step("sealed").await;
    meter.row("new: sealed", 3..=3, 0..=0, 1..=1).await;
    site.apply("from", json!({"name": "FROM", "valueFrom": from})).await;
    site.in_step("from").await;
    meter.row("new: valueFrom", 3..=3, 0..=0, 1..=1).await;
    site.apply("made", generated("MADE")).await;
    site.in_step("made").await;
    meter.row("new: generate", 3..=3, 0..=0, 0..=0).await;
    site.apply("hidden", json!({"name": "HIDDEN", "generate": {}, "delivery": "None"})).await;
    site.in_step("hidden").await;
    meter.row("new: generate, delivery None", 2..=2, 0..=0, 0..=0).await;

    site.apply("sealed", json!({"name": "SEALED", "value": second})).await;
    site.in_step("sealed").await;
    meter.row("new value: sealed", 3..=3, 2..=2, 2..=2).await;
    site.intrude("upstream", json!({"stringData": {"token": "two"}})).await;
    site.until("from", "its second version", |object| object.status.as_ref().unwrap().version == Some(2)).await;
    meter.row("new value: valueFrom", 3..=3, 2..=2, 2..=2).await;
    site.apply("sealed", json!({"name": "SEALED", "value": again})).await;
    site.in_step("sealed").await;
    meter.row("the same value sealed again", 2..=2, 1..=1, 2..=2).await;
    site.apply("sealed", generated("SEALED")).await;
    site.in_step("sealed").await;
    meter.row("new value: generate", 3..=3, 2..=2, 1..=1).await;
    let edited = site.intrude("upstream", json!({"metadata": {"labels": {"team": "x"}}})).await;
    poll("the record to follow", PATIENCE, || async {
        let source =
            site.record("FROM").await.and_then(|record| record.metadata.annotations?.remove(keys::ANNO_SOURCE));
        Ok(source.filter(|source| source.contains(edited.metadata.resource_version.as_ref().unwrap())))
    })
    .await
    .unwrap();
    site.in_step("from").await;
    meter.row("the source's metadata edited", 2..=2, 1..=1, 2..=2).await;

    site.apply("made", json!({"name": "MADE", "generate": {}, "description": "other"})).await;
    site.in_step("made").await;
    meter.row("description", 2..=2, 1..=1, 1..=1).await;
    site.apply("made", generated("RENAMED")).await;
    site.in_step("made").await;
    site.gone(&record_name("MADE")).await;
    meter.row("a rename (and the description removed)", 3..=3, 0..=0, 1..=1).await;
    site.apply("made", generated("RENAMED")).await;
    meter.row("applied again, unchanged", 0..=0, 0..=0, 0..=0).await;

    what_expires(&site, &mut meter).await;
    let mut made = json!({"name": "RENAMED", "generate": {}, "target": {"labels": {"team": "x"}}});
    let edits = [
        ("target's labels edited", 3, 2, "/target/labels/team", json!("y")),
        ("target's key edited", 3, 2, "/target/key", json!("key")),
        ("target's template edited", 3, 2, "/target/template", json!({"url": "x://$(value)", "user": "shop"})),
        ("deletionPolicy: Retain", 3, 2, "/deletionPolicy", json!("Retain")),
        ("deletionPolicy: Delete", 3, 2, "/deletionPolicy", json!("Delete")),
        ("target moved", 4, 1, "/target/name", json!("elsewhere")),
        ("target's type edited (deleted and recreated)", 4, 2, "/target/type", json!("example.com/token")),
        ("delivery: None", 3, 1, "/delivery", json!("None")),
        ("delivery: Secret", 3, 1, "/delivery", json!("Secret")),
        ("suspend", 1, 0, "/suspend", json!(true)),
    ];
    site.apply("made", made.clone()).await;
    site.in_step("made").await;
    meter.row("target's labels added", 3..=3, 2..=2, 1..=1).await;
    for (what, writes, dry_runs, path, to) in edits {
        let (parent, key) = path.rsplit_once('/').unwrap();
        made.pointer_mut(parent).unwrap()[key] = to;
        site.apply("made", made.clone()).await;
        if path == "/suspend" {
            site.reports("made", "True", "Suspended").await;
            meter.row(what, writes..=writes, 0..=0, 0..=0).await;
            continue;
        }
        site.in_step("made").await;
        meter.row(what, writes..=writes, dry_runs..=dry_runs, 1..=1).await;
    }
    meter.row("nothing happened", 0..=0, 0..=0, 0..=0).await;
    site.delete("made").await;
    site.gone("elsewhere").await;
    meter.row("deleted", 0..=0, 0..=0, 0..=0).await;

    // No cache keeps them: one more read before they are written, unless the sealed text is read anyway.
    let large = |mark: char| json!({"annotations": {"large": String::from(mark).repeat(16_000)}});
    let mut made = json!({"name": "LARGE", "generate": {}, "target": large('x')});
    site.apply("large", made.clone()).await;
    site.in_step("large").await;
    meter.row("new: generate, large annotation", 3..=3, 0..=0, 1..=1).await;
    made["target"] = large('y');
    site.apply("large", made.clone()).await;
    site.in_step("large").await;
    meter.row("large annotation edited", 3..=3, 2..=2, 2..=2).await;
    made["description"] = json!("another");
    site.apply("large", made).await;
    site.in_step("large").await;
    meter.row("description, large annotation", 2..=2, 1..=1, 1..=1).await;
    let sealed = site.seal("large-sealed", "one").await;
    site.apply("large-sealed", json!({"name": "LARGE_SEALED", "value": sealed, "target": large('x')})).await;
    site.in_step("large-sealed").await;
    meter.row("new: sealed, large annotation", 3..=3, 0..=0, 1..=1).await;
    meter.row("nothing happened", 0..=0, 0..=0, 0..=0).await;
    meter.end();
    operator.stop().await;
}

/// The object `made` gets a date on which its value expires, and loses it again.
async fn what_expires(site: &Site, meter: &mut Meter) {
    let expiring = json!({"name": "RENAMED", "generate": {}, "expires": in_time(SignedDuration::from_hours(9000))});
    site.apply("made", expiring.clone()).await;
    site.in_step("made").await;
    meter.row("a date on which the value expires", 2..=2, 1..=1, 1..=1).await;
    let expiring =
        json!({"expiryWarning": "87600h", "name": "RENAMED", "generate": {}, "expires": expiring["expires"]});
    site.apply("made", expiring).await;
    site.in_step("made").await;
    meter.row("the same, once the warning begins", 2..=2, 1..=1, 1..=1).await;
    site.write_status("made", json!({"conditions": [site.condition("made", "Ready").await]})).await;
    site.until("made", "warned of", |object| conditions(object).contains(&EXPIRING.to_owned())).await;
    meter.row("the warning begins", 1..=1, 0..=0, 0..=0).await;
    site.apply("made", generated("RENAMED")).await;
    site.in_step("made").await;
    meter.row("the date removed", 2..=2, 1..=1, 1..=1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_costs_what_the_design_says() {
    let site = Site::new("rotation-costs").await;
    let operator = Setup { workers: 1, ..Setup::of(&site.namespace) }.start().await;
    let mut meter = Meter::new(&site).await;
    for (what, generate, writes, dry_runs, reads) in [
        ("new: generate, with a schedule", json!({"rotateEvery": "720h"}), 3, 0, 0),
        ("a rotation", json!({"rotateEvery": "720h", "revision": "a"}), 3, 2, 1),
        ("the revision removed", json!({"rotateEvery": "720h"}), 2, 1, 1),
    ] {
        site.apply("rotated", json!({"name": "ROTATED", "generate": generate})).await;
        site.in_step("rotated").await;
        meter.row(what, writes..=writes, dry_runs..=dry_runs, reads..=reads).await;
    }
    for (what, version) in [("the version before", Some(1)), ("the newest again", None)] {
        let mut spec = json!({"name": "ROTATED", "generate": {"rotateEvery": "720h"}});
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        site.apply("rotated", spec).await;
        site.in_step("rotated").await;
        meter.row(what, 3..=3, 2..=2, 1..=1).await;
    }
    let overlapping = |revision: &str| {
        json!({
            "name": "ROTATED", "generate": {"revision": revision}, "target": {"previousKey": "old"}, "overlap": "3s",
        })
    };
    site.apply("rotated", overlapping("b")).await;
    ends_overlap(&site, "rotated", 3).await;
    meter.row("a rotation, and the end of its overlap", 5..=5, 3..=3, 2..=2).await;
    meter.row("nothing happened", 0..=0, 0..=0, 0..=0).await;
    meter.end();
    operator.stop().await;
}

/// Waits until a target has had the previous value of this version, and has it no more: the status names the version once the
/// target has both.
async fn ends_overlap(site: &Site, name: &str, version: i64) {
    site.until(name, "the new version", |object| status(object).version == Some(version)).await;
    poll("the end of the overlap", PATIENCE, || async { Ok(site.value(name, "old").await.is_none().then_some(())) })
        .await
        .unwrap();
    site.in_step(name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_workloads_cost_what_the_design_says() {
    let site = Site::new("restart-costs").await;
    restarts::permit(&site).await;
    restarts::create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = restarts::shop(WorkloadKind::Deployment);
    let setup = || Setup { workers: 1, restarts: true, ..Setup::of(&site.namespace) };
    let operator = setup().start().await;
    let mut meter = Meter::new(&site).await;
    let spec = |revision: &str, version: Option<i64>| {
        let mut spec = json!({"name": "DB", "generate": {"revision": revision}, "target": {"restart": [workload]}});
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        spec
    };
    site.apply("db", spec("a", None)).await;
    let mark = id(&site.in_step("db").await);
    restarts::marked(&site, &workload, "db", [None, Some(format!("{mark}/1"))]).await;
    meter.row("new: generate, with a workload", 4..=4, 0..=0, 1..=1).await;
    site.apply("db", spec("b", None)).await;
    let marked = Some(format!("{mark}/2"));
    restarts::marked(&site, &workload, "db", [marked.clone(), marked]).await;
    site.in_step("db").await;
    meter.row("a rotation that restarts a workload", 4..=4, 2..=2, 4..=4).await;
    site.apply("db", spec("b", Some(1))).await;
    let marked = Some(format!("{mark}/1"));
    restarts::marked(&site, &workload, "db", [marked.clone(), marked]).await;
    site.in_step("db").await;
    meter.row("the version before, which restarts a workload", 4..=4, 2..=2, 4..=4).await;
    operator.stop().await;
    let tap = Tap::recording();
    let operator = setup().calls(&tap).start().await;
    restarts::until_read(&tap, 1).await;
    meter.row("a restart of the operator", 0..=0, 0..=0, 1..=1).await;
    meter.row("nothing happened", 0..=0, 0..=0, 0..=0).await;
    meter.end();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_delivery_costs_no_event() {
    let site = Site::new("silent").await;
    let operator = Setup::of(&site.namespace).start().await;
    let mark = installation::control_plane().await.audit_mark().await.unwrap();
    site.foreign_secret("upstream", &[("token", "one")]).await;
    let sealed = site.seal("sealed", "one").await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "token"}});
    for (name, spec) in [
        ("sealed", json!({"name": "SEALED", "value": sealed})),
        ("from", json!({"name": "FROM", "valueFrom": from})),
        ("made", generated("MADE")),
        ("hidden", json!({"name": "HIDDEN", "generate": {}, "delivery": "None"})),
    ] {
        site.apply(name, spec).await;
        site.in_step(name).await;
    }
    // It is to be reported, and events that wait are published before the end.
    site.intrude("upstream", json!({"stringData": {"token": "two"}})).await;
    site.until("from", "its second version", |object| object.status.as_ref().unwrap().version == Some(2)).await;
    operator.stop().await;
    let (requests, _) = all_counted(&site.namespace, mark).await;
    let events: Vec<_> = requests.iter().filter(|request| is_event(request)).map(Request::summary).collect();
    assert_eq!(events.len(), 1, "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_waits_once_for_what_it_reads_and_once_for_what_it_asks() {
    let site = Site::new("together").await;
    let record = record_name("SEALED");
    // The first of two is answered once the second was sent.
    let (read, asked) = (CancellationToken::new(), CancellationToken::new());
    let tap = Tap::new(move |_, request| {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let (reads, dry) = (request.method() == Method::GET, query.contains("dryRun="));
        match path.rsplit('/').next() {
            Some("sealed") if reads && path.contains("/managedsecrets/") => return Fault::Late(read.clone()),
            Some(name) if reads && name == record => read.cancel(),
            Some(name) if dry && name == record => return Fault::Late(asked.clone()),
            Some("sealed") if dry => asked.cancel(),
            _ => {}
        }
        Fault::Pass
    });
    let (first, second) = (site.seal("sealed", "one").await, site.seal("sealed", "two").await);
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("sealed", json!({"name": "SEALED", "value": first})).await;
    site.in_step("sealed").await;
    operator.stop().await;
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("sealed", json!({"name": "SEALED", "value": second})).await;
    site.in_step("sealed").await;
    assert_eq!(site.value("sealed", "value").await.as_deref(), Some("two"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_costs_what_the_design_says() {
    let site = Site::new("waiting").await;
    let setup = Setup { workers: 1, ..Setup::of(&site.namespace) };
    let operator = setup.start().await;
    site.apply("holder", generated("NAME")).await;
    site.in_step("holder").await;
    let mut meter = Meter::new(&site).await;

    site.apply("loser", generated("NAME")).await;
    site.reports("loser", "False", "NameInUse").await;
    meter.row("waiting: name in use", 1..=1, 0..=0, 0..=1).await;
    stall(&site, "loser").await;
    meter.row("the same, once it is Stalled", 1..=1, 0..=0, 0..=1).await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "token"}});
    site.apply("from", json!({"name": "FROM", "valueFrom": from})).await;
    site.reports("from", "False", "SourceNotFound").await;
    meter.row("waiting: source missing", 1..=1, 0..=0, 0..=1).await;
    stall(&site, "from").await;
    meter.row("the same, once it is Stalled", 1..=1, 0..=0, 0..=1).await;
    site.foreign_secret("upstream", &[("other", "x")]).await;
    site.reports("from", "False", "SourceKeyNotFound").await;
    meter.row("waiting: the source came, its key is missing", 1..=1, 0..=0, 1..=1).await;
    site.intrude("upstream", json!({"stringData": {"token": "one"}})).await;
    site.in_step("from").await;
    meter.row("the key came", 3..=3, 0..=0, 1..=1).await;
    site.intrude("upstream", json!({"stringData": {"token": ""}})).await;
    site.reports("from", "False", "InvalidValue").await;
    meter.row("served, and the source's value breaks a rule", 1..=1, 0..=0, 2..=2).await;
    let elsewhere = Site { namespace: "elsewhere".to_owned(), ..site.clone() };
    let sealed = elsewhere.seal("sealed", "one").await;
    site.apply("sealed", json!({"name": "SEALED", "value": sealed})).await;
    site.reports("sealed", "False", "SealedForAnotherPlace").await;
    meter.row("new: sealed for another place", 1..=1, 0..=0, 1..=1).await;
    site.secrets().delete("upstream", &DeleteParams::default()).await.unwrap();
    site.reports("from", "False", "SourceNotFound").await;
    meter.row("served, and the source vanished", 1..=1, 0..=0, 0..=2).await;
    // What can be done is done: the value is kept, and the record follows the generation.
    site.apply("late", json!({"name": "LATE", "generate": {}, "target": {"name": "holder"}})).await;
    site.reports("late", "False", "TargetInUse").await;
    meter.row("new: its target is held by another", 2..=2, 0..=0, 0..=1).await;
    site.apply("late", json!({"name": "NAME", "generate": {}, "target": {"name": "holder"}})).await;
    site.reports("late", "False", "TargetInUse").await;
    meter.row("a rename to a taken name", 2..=2, 1..=1, 1..=1).await;
    site.delete("late").await;
    site.delete("holder").await;
    site.in_step("loser").await;
    meter.row("the name is free: served", 3..=3, 0..=0, 0..=1).await;
    meter.end();
    operator.stop().await;
}

/// Lets the time pass after which a waiting object counts as stalled: by an edit of the time since when it waits.
async fn stall(site: &Site, name: &str) {
    let restorer = site.as_restorer().await;
    let mut object = site.get(name).await;
    let conditions = object.status.as_mut().unwrap().conditions.as_mut().unwrap();
    let since = &mut conditions.iter_mut().find(|it| it.type_ == RECONCILING).unwrap().last_transition_time;
    since.0 -= STALLS_AFTER * 2;
    restorer.objects().replace_status(name, &PostParams::default(), &object).await.unwrap();
    site.until(name, "stalled", |object| {
        let conditions = object.status.as_ref().unwrap().conditions.as_ref().unwrap();
        conditions.iter().any(|condition| condition.type_ == "Stalled" && condition.status == "True")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_a_target_costs_what_the_design_says() {
    let site = Site::new("drift").await;
    let setup = Setup { workers: 1, ..Setup::of(&site.namespace) };
    let operator = setup.start().await;
    // Repairs of one target back off, so each of these is another one.
    for name in ["edited", "deleted", "unlabelled", "labelled"] {
        site.apply(name, generated(&name.to_uppercase())).await;
        site.in_step(name).await;
    }
    let large = json!({"annotations": {"large": "x".repeat(16_000)}});
    site.apply("large", json!({"name": "LARGE", "generate": {}, "target": large})).await;
    site.in_step("large").await;
    let mut meter = Meter::new(&site).await;
    let edit = async |name: &str, patch: Value| {
        let edited = revision(&site.intrude(name, patch).await);
        site.until(name, "the edit to be noticed", |object| {
            object
                .status
                .as_ref()
                .unwrap()
                .target
                .as_ref()
                .is_some_and(|target| target.resource_version.parse::<u64>().unwrap() >= edited)
        })
        .await;
        site.in_step(name).await;
    };

    edit("edited", json!({"stringData": {"value": "wrong"}})).await;
    meter.row("target edited", 2..=2, 1..=1, 1..=1).await;
    edit("large", json!({"stringData": {"value": "wrong"}})).await;
    meter.row("target with a large annotation edited", 2..=2, 1..=1, 2..=2).await;
    let before = site.get("deleted").await.status.unwrap().target.unwrap();
    site.secrets().delete("deleted", &DeleteParams::default()).await.unwrap();
    site.until("deleted", "recreated", |object| {
        object.status.as_ref().unwrap().target.as_ref().is_some_and(|target| target.uid != before.uid)
    })
    .await;
    meter.row("target deleted", 2..=2, 0..=0, 1..=1).await;
    edit("unlabelled", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})).await;
    meter.row("our label removed from the target", 3..=3, 1..=1, 2..=2).await;
    edit("labelled", json!({"metadata": {"labels": {"team": "x"}}})).await;
    meter.row("foreign label added to the target", 0..=2, 0..=1, 1..=1).await;
    edit("labelled", json!({"metadata": {"labels": {"team": null}}})).await;
    meter.row("foreign label removed from the target", 0..=2, 0..=1, 1..=1).await;
    meter.end();
    operator.stop().await;
}

/// Objects of the test of a restart.
const MANY: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_500_objects_in_step_asks_for_nothing_but_lists_and_watches() {
    let site = Site::new("restart").await;
    let control_plane = installation::control_plane().await;
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    let arguments = ["--namespace", &site.namespace, "--log-level", "debug", "--log-format", "json"];
    let program = env!("CARGO_BIN_EXE_managed-secrets");
    let start = || Operator::start(control_plane, program, &kubeconfig, &arguments);
    // Passes that the log of an operator tells of, but for those of the marker.
    let passes = |operator: &Operator| {
        let log = operator.log().unwrap();
        log.lines().filter(|line| line.contains("pass ended") && !line.contains(MARKER)).count()
    };

    let operator = start().await.unwrap();
    let mark = control_plane.audit_mark().await.unwrap();
    let began = Instant::now();
    futures::stream::iter(0..MANY)
        .for_each_concurrent(16, |number| {
            let site = site.clone();
            async move { drop(site.apply(&format!("o{number}"), generated(&format!("NAME_{number}"))).await) }
        })
        .await;
    let served = |object: &ManagedSecret| ready(object) == ("True".to_owned(), "Served".to_owned());
    poll("all to be served", Duration::from_secs(180), || async {
        let objects = site.objects().list(&ListParams::default()).await?;
        Ok((objects.items.iter().filter(|object| served(object)).count() == MANY).then_some(()))
    })
    .await
    .unwrap();
    println!("{MANY} objects made and served in {:.1?}", began.elapsed());
    // What is in flight is finished, so all are in step.
    assert_eq!(operator.stop().await.unwrap(), 0);
    let (made, mark) = counted(&site.namespace, mark).await;
    println!("requests for that: {}, {} of them writes", made.len(), made.iter().filter(|it| it.is_write()).count());
    assert!(made.len() <= 3 * MANY, "{} requests", made.len());

    let began = Instant::now();
    let operator = start().await.unwrap();
    poll("a pass for each object", PATIENCE, || async { Ok((passes(&operator) >= MANY).then_some(())) }).await.unwrap();
    println!("restart: a pass for each object after {:.1?}", began.elapsed());
    // Whatever these passes put off would come before the pass of an object that comes now.
    site.apply(MARKER, json!({"name": "MARKER", "generate": {}, "suspend": true})).await;
    site.until(MARKER, "observed", |object| ready(object).1 == "Suspended").await;
    assert_eq!(operator.stop().await.unwrap(), 0);
    let (requests, _) = counted(&site.namespace, mark).await;
    let requests: Vec<_> = requests.iter().filter(|it| it.object().name != MARKER).map(Request::summary).collect();
    println!("requests of the restart beside lists and watches: {}", requests.len());
    assert!(requests.is_empty(), "{requests:#?}");
}
