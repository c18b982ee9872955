//! The apply matrix: every way in which people write manifests, with the value in clear, changed, gone and sealed. What
//! comes of each is a row of `docs/apply-matrix.md`, which `UPDATE=1` rewrites; any other run compares.
//!
//! The real program serves the webhooks, at its most talkative log level, on a control plane of its own: how often it was
//! called is read from the API server, which calls nobody else. Values are canaries that are delivered nowhere. In the end
//! everything that was stored, logged, audited or shown is searched for them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod installed;
mod ways;

use std::{fmt::Write as _, fs};

use kube::ResourceExt as _;
use managed_secrets_api::ManagedSecret;
use serde_json::{Value, json};
use testkit::root;

use self::{
    installed::{Calls, Installed},
    ways::{Act, CHANGES, Change, WAYS, Way},
};
use crate::integration::{
    canary::search::{Canary, Finder, files, history},
    installation::RESTORER,
    objects::version,
};

const PAGE: &str = "docs/apply-matrix.md";

/// What is stored then.
const SAME: &str = "the same sealed text";
const RESEALED: &str = "the same value, sealed again";
const NEW: &str = "the new value, sealed";
const NONE: &str = "none";

const HEAD: &str = "# What each way of writing stores

A test (`tests/integration/admission/matrix.rs`) writes this page from the behaviour of a real API server and kubectl.

## Manifests with a plain value

Each row begins with a new object whose value the operator sealed at admission and does not deliver. The caller may read \
the value; a caller who may not read it gets new sealed text with each write ([security.md](security.md)). \"Sealing\" and \
\"warning\" are the numbers of calls of the two webhooks. The last column is the output of `kubectl diff` with the same flags, \
just before the write; it is empty (—) for ways without a manifest.

* _unchanged_: the manifest that created the object, with the same plain value.
* _again_: the same manifest once more, after a write of the same kind.
* _changed_: the same manifest with another plain value.
* _another source_: the same manifest with `generate` instead of `value`.
* _another source, then_: the same, after a write of the same kind with the value unchanged.
* _sealed_: the same manifest with the sealed text that the cluster stores.

If _unchanged_ moves only the `resourceVersion`, the write changed metadata: the API server recorded a new field manager, or \
kubectl its last applied configuration. _Again_ never moves anything.

| way | manifest | stored value | `resourceVersion` | `generation` | sealing | warning | `kubectl diff` |
|---|---|---|---|---|---|---|---|
";

const OTHER: &str = "
The API server refuses an object that would have both sources: server-side apply removes only what the same field manager \
applied before, and client-side apply only what is in the last applied configuration. Apply the unchanged manifest first; \
then you can remove the value.

## All other requests

The webhooks' `matchConditions` filter out requests without a plain value and requests without a new object, name, target or \
value. The operator's own writes (status, records) continued during the test and are in no row: they cause no calls.

| request | sealing | warning |
|---|---|---|
";

/// What of an object's metadata a write has moved.
#[derive(Clone, Copy)]
struct Moved {
    version: bool,
    generation: bool,
}

/// Most objects that one row is tried on. Under load the API server repeats a write, and with it its calls, where its cache
/// has not yet seen the write before (`GuaranteedUpdate` in k8s.io/apiserver, `store.go`). So a row that the page does
/// not have yet is tried again, and the one with the fewest calls is taken: these are the calls that the way needs.
const MAX_TRIES: usize = 5;

/// A line of the first table.
struct Row {
    line: String,
    calls: Calls,
    /// Rules that did not hold.
    wrong: Vec<String>,
}

/// What the test has done so far.
struct Matrix {
    installed: Installed,
    canaries: Vec<Canary>,
    calls: Calls,
    /// The page as it is.
    known: String,
    /// Rules that did not hold.
    wrong: Vec<String>,
}

impl Matrix {
    fn canary(&mut self, path: &str) -> String {
        self.canaries.push(Canary::new(path, &[]));
        self.canaries.last().unwrap().value.clone()
    }

    /// Calls since the last time. Whatever calls in between, is in the next row, and makes it another.
    async fn calls(&mut self) -> Calls {
        let now = self.installed.calls().await;
        let since = now - self.calls;
        self.calls = now;
        since
    }

    /// The rows of one way.
    async fn rows(&mut self, way: &Way, number: usize) -> String {
        let values = [self.canary(way.title), self.canary(&format!("{}, changed", way.title))];
        let mut rows: [Option<Row>; CHANGES.len()] = Default::default();
        for attempt in 0..MAX_TRIES {
            let is_open = |row: &Option<Row>| {
                row.as_ref().is_none_or(|row| !row.wrong.is_empty() || !self.known.contains(&row.line))
            };
            let open: Vec<_> = (0..CHANGES.len()).filter(|at| is_open(&rows[*at])).collect();
            if open.is_empty() {
                break;
            }
            let changes: Vec<_> = open.iter().map(|at| CHANGES[*at]).collect();
            let objects = self.objects(way, &changes, &format!("object-{number}-{attempt}"), &values[0]).await;
            for (at, object) in open.into_iter().zip(objects) {
                let row = self.row(way, CHANGES[at], object, [&values[0], &values[1]]).await;
                let fewest = rows[at].as_ref().is_none_or(|before| row.calls.total() < before.calls.total());
                if fewest {
                    rows[at] = Some(row);
                }
            }
        }
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        self.wrong.extend(rows.iter().flat_map(|row| row.wrong.clone()));
        rows.into_iter().map(|row| row.line).collect()
    }

    /// Creates one object for each change, as the way does it.
    async fn objects(&mut self, way: &Way, changes: &[Change], prefix: &str, value: &str) -> Vec<ManagedSecret> {
        let name = |change: &Change| format!("{prefix}-{}", change.title().replace(", ", "-").replace(' ', "-"));
        let names: Vec<_> = changes.iter().map(name).collect();
        let made: Vec<_> = names.iter().map(|name| manifest(name, &json!({ "value": value }))).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": made}).to_string();
        self.calls().await;
        self.installed.ok(way.made, &list).await;
        let mut objects = Vec::new();
        for name in &names {
            objects.push(self.installed.site.in_step(name).await);
        }
        // Exactly one for each object: nothing else called.
        let all = names.len() as u64;
        assert_eq!(self.calls().await, Calls { sealing: all, warning: all }, "{}: to make the objects", way.title);
        objects
    }

    /// One way, one change, one object.
    async fn row(&mut self, way: &Way, change: Change, mut before: ManagedSecret, [old, new]: [&str; 2]) -> Row {
        let name = &before.name_any();
        let sealed = before.spec.value.clone().unwrap().0;
        assert_eq!(self.installed.open(&sealed, name), old, "{name}");
        if change.is_second() {
            let unchanged = Change::Unchanged.source(old, new, &sealed);
            way.act.run(&mut self.installed, name, &unchanged, &sealed).await;
            before = self.installed.site.get(name).await;
        }
        let source = change.source(old, new, &sealed);
        let diff = match way.diff() {
            Some(arguments) => self.installed.diff(&arguments, &manifest(name, &source).to_string()).await,
            None => "—",
        };
        self.calls().await;

        let outcome = way.act.run(&mut self.installed, name, &source, &sealed).await;
        let calls = self.calls().await;
        let after = self.installed.site.get(name).await;
        let text = after.spec.value.clone().map(|value| value.0);
        let stored = match &text {
            None => NONE,
            Some(text) if *text == sealed => SAME,
            Some(text) => match self.installed.open(text, name) {
                value if value == old => RESEALED,
                value if value == new => NEW,
                _ => panic!("{name}: sealed text of what nobody wrote"),
            },
        };
        let annotations = serde_json::to_string(&after.metadata.annotations).unwrap();
        if let Some(text) = text.filter(|_| annotations.contains("mss1.")) {
            assert!(annotations.contains(&text), "{name}: the copy is another sealed text");
        }
        let version = version(&after) != version(&before);
        let generation = after.metadata.generation != before.metadata.generation;
        let wrong = judge(way, change, stored, Moved { version, generation }, calls);
        let moves = |moves: bool| if moves { "moves" } else { "stays" };
        let line = format!(
            "| {} | {} | {stored}{} | {} | {} | {} | {} | {} |\n",
            way.title,
            change.title(),
            outcome.remark(),
            moves(version),
            moves(generation),
            calls.sealing,
            calls.warning,
            if matches!(way.act, Act::Diff(_)) { outcome.printed() } else { diff },
        );
        Row { line, calls, wrong }
    }

    /// One row of the second table.
    async fn other(&mut self, rows: &mut String, request: &str, arguments: &[&str], input: &str) -> Calls {
        self.calls().await;
        self.installed.ok(arguments, input).await;
        let calls = self.calls().await;
        writeln!(rows, "| {request} | {} | {} |", calls.sealing, calls.warning).unwrap();
        calls
    }

    async fn others(&mut self) -> String {
        let mut rows = String::new();
        let new = Calls { sealing: 1, warning: 1 };
        for (name, arguments) in [("one", &["create"][..]), ("two", &["apply"]), ("three", &["apply", "--server-side"])]
        {
            let value = self.canary(&format!("{} of what is new", arguments.join(" ")));
            let input = manifest(name, &json!({ "value": value })).to_string();
            let request = format!("`kubectl {}` of a new object with a plain value", arguments.join(" "));
            let arguments = [arguments, &["-f", "-"]].concat();
            assert_eq!(self.other(&mut rows, &request, &arguments, &input).await, new, "{request}");
        }
        self.installed.site.in_step("one").await;
        let sealed = self.installed.site.seal_with(&self.installed.public_key().await, "sealed", "of no interest");
        for (name, source) in [
            ("sealed", json!({ "value": sealed })),
            ("generated", json!({"generate": {}})),
            ("referenced", json!({"valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}})),
        ] {
            let request = format!("`kubectl apply` of a new object, {name}");
            let input = manifest(name, &source).to_string();
            let calls = self.other(&mut rows, &request, &["apply", "-f", "-"], &input).await;
            assert_eq!(calls, Calls { sealing: 0, warning: 1 }, "{request}");
        }
        let rename = ["patch", "msec", "one", "--type=merge", "-p", r#"{"spec":{"name":"RENAMED"}}"#];
        let calls = self.other(&mut rows, "a new `spec.name`", &rename, "").await;
        assert_eq!(calls, Calls { sealing: 0, warning: 1 });
        // A write of the operator's in between would have the API server ask twice.
        self.installed.site.in_step("one").await;
        let other = self.installed.site.seal_with(&self.installed.public_key().await, "one", "of no interest either");
        let other = json!({"spec": {"value": other}}).to_string();
        let other = ["patch", "msec", "one", "--type=merge", "-p", &other];
        let calls = self.other(&mut rows, "other sealed text", &other, "").await;
        assert_eq!(calls, Calls { sealing: 0, warning: 1 });
        self.installed.site.in_step("one").await;
        let restorer = format!("--as={RESTORER}");
        let patch = |patch: &'static str| ["patch", "msec", "one", "--type=merge", "-p", patch];
        for (request, arguments) in [
            ("a label", &["label", "msec", "one", "team=blue"][..]),
            ("an annotation", &["annotate", "msec", "one", "example.com/team=blue"]),
            ("a new description", &patch(r#"{"spec":{"description":"new"}}"#)),
            ("`spec.suspend`", &patch(r#"{"spec":{"suspend":true}}"#)),
            ("a finalizer that comes", &patch(r#"{"metadata":{"finalizers":["example.com/hold"]}}"#)),
            (
                "a write of the status",
                &[
                    &patch(r#"{"status":{"version":7}}"#)[..],
                    &["--subresource=status", &restorer, "--as-group=system:masters"],
                ]
                .concat(),
            ),
            ("a delete", &["delete", "msec", "one", "--wait=false"]),
            ("a finalizer that goes", &patch(r#"{"metadata":{"finalizers":null}}"#)),
        ] {
            let calls = self.other(&mut rows, request, arguments, "").await;
            assert_eq!(calls, Calls::default(), "{request}");
        }
        rows
    }

    /// Nothing of all this has left a value anywhere.
    async fn nothing_leaked(self) {
        let Self { mut installed, canaries, .. } = self;
        for arguments in [
            ["get", "msec", "-o=yaml"],
            ["get", "events", "-o=yaml"],
            ["get", "--raw", "/metrics"],
            ["describe", "msec", ""],
        ] {
            let arguments: Vec<_> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
            installed.ok(&arguments, "").await;
        }
        // What the search must find: it stands where no rule of ours keeps it from the audit log.
        let control = Canary::new("control", &[]);
        installed.ok(&["create", "configmap", "control", &format!("--from-literal=key={}", control.value)], "").await;
        let control_is = canaries.len();
        let canaries = [canaries, vec![control]].concat();
        let finder = Finder::new(&canaries);
        let mut leaks = Vec::new();
        for (what, text) in &installed.shown {
            leaks.extend(finder.find(text).into_iter().map(|it| format!("{}: shown by {what}", canaries[it].path)));
        }
        for (key, revision, value) in history(&installed.control_plane).await {
            let found = finder.find(&value).into_iter().filter(|it| *it != control_is);
            leaks.extend(found.map(|it| format!("{}: in etcd, {key} at revision {revision}", canaries[it].path)));
        }
        let log = installed.operator.log_path();
        assert_eq!(installed.operator.stop().await.unwrap(), 0);
        let log = fs::read_to_string(log).unwrap();
        assert!(["DEBUG", "reconcile", "record written"].iter().all(|word| log.contains(word)), "a silent log");

        let folder = installed.control_plane.supervisor().folder();
        let etcd = installed.control_plane.etcd_dir().unwrap();
        let audit = installed.control_plane.audit_log().unwrap();
        let (mut in_etcd, mut in_wal, mut in_audit) = (false, false, false);
        for file in files(folder) {
            let Ok(content) = fs::read(&file) else { continue };
            for it in finder.find(&content) {
                if it == control_is {
                    in_etcd |= file.starts_with(&etcd);
                    in_wal |= file.extension().is_some_and(|extension| extension == "wal");
                    in_audit |= file == audit;
                } else {
                    let file = file.strip_prefix(folder).unwrap().display();
                    leaks.push(format!("{}: in the file {file}", canaries[it].path));
                }
            }
        }
        assert!(leaks.is_empty(), "{}", leaks.join("\n"));
        assert!(in_etcd && in_wal && in_audit, "the search does not find what is there");
        installed.control_plane.stop().await.unwrap();
    }
}

/// What must hold of a row, also when the table is rewritten.
fn judge(way: &Way, change: Change, stored: &str, moved: Moved, calls: Calls) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rule = |holds: bool, rule: &str| {
        if !holds {
            wrong.push(format!("{}, {}: {rule}", way.title, change.title()));
        }
    };
    let warning = u64::from(change == Change::Changed);
    rule(calls.warning == warning, "the warning webhook is called for what is not new, or not once for a new value");
    let same = stored.starts_with(SAME);
    match change {
        Change::Unchanged | Change::Again | Change::Sealed => {
            rule(same, "another sealed text for the same value");
            rule(change != Change::Again || !moved.version, "a new version of the same");
            rule(!moved.generation, "a new generation of the same");
        }
        Change::Changed => {
            rule(stored == if way.writes() { NEW } else { SAME }, "not what was written");
        }
        Change::AnotherSourceThen => rule(stored == if way.writes() { NONE } else { SAME }, "the value is kept"),
        Change::AnotherSource => rule(stored == NONE || same, "sealed text of nobody's"),
    }
    if matches!(change, Change::AnotherSource | Change::AnotherSourceThen | Change::Sealed) {
        rule(calls.sealing == 0, "the sealing webhook is called without need");
    }
    wrong
}

fn manifest(name: &str, source: &Value) -> Value {
    let mut spec = source.clone();
    spec["name"] = json!(name.to_uppercase().replace('-', "_"));
    spec["delivery"] = json!("None");
    json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": name}, "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_writing_stores_sealed_text_and_moves_nothing_without_need() {
    let installed = Installed::new().await;
    let calls = installed.calls().await;
    let path = root().join(PAGE);
    let known = fs::read_to_string(&path).unwrap();
    let mut matrix = Matrix { installed, canaries: Vec::new(), calls, known: known.clone(), wrong: Vec::new() };
    let mut page = HEAD.to_owned();
    for (number, way) in WAYS.iter().enumerate() {
        page += &matrix.rows(way, number).await;
    }
    page += OTHER;
    page += &matrix.others().await;
    let wrong = std::mem::take(&mut matrix.wrong);
    matrix.nothing_leaked().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(path, page).unwrap();
    } else {
        let other = |of: &str, than: &str| -> Vec<String> {
            of.lines().filter(|line| !than.lines().any(|it| it == *line)).map(str::to_owned).collect()
        };
        let (gone, come) = (other(&known, &page), other(&page, &known));
        assert!(
            known == page,
            "{PAGE} says\n{}\nand it is now\n{}\nUPDATE=1 rewrites it",
            gone.join("\n"),
            come.join("\n")
        );
    }
}
