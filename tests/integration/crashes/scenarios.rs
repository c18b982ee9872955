//! What users and others do, each with the state before it, how it must end, and what may be seen on the way.
//!
//! The object is `db`, named `NAME` and delivered as `value` of the Secret `db`, unless a scenario says otherwise; its
//! source is a sealed value, the key `key` of the Secret `upstream`, or generated.

use std::future::Future;

use futures::future::BoxFuture;
use kube::api::{DeleteParams, PostParams};
use managed_secrets_api::{ManagedSecretStatus, keys, names::record_name, restarts, types::WorkloadKind};
use serde_json::{Value, json};

use super::{
    super::{
        objects::{Site, id},
        restarts::{create, marked, permit, shop},
    },
    history::Allowed,
    snapshot::Snapshot,
};

/// Something done in a namespace.
pub(super) type Do = Box<dyn Fn(Site) -> BoxFuture<'static, ()> + Send + Sync>;

/// One scenario.
pub(super) struct Scenario {
    /// Its name.
    pub(super) name: &'static str,
    /// Makes the state before; an operator runs meanwhile.
    pub(super) prepare: Do,
    /// What is done then.
    pub(super) act: Do,
    /// How it must end: status and reason of `Ready` by object.
    pub(super) ends: Vec<(&'static str, &'static str, &'static str)>,
    /// What else is so in the end, where some of it takes longer than the operator asks for anything.
    pub(super) ended: fn(&Snapshot) -> bool,
    /// What may be seen on the way.
    pub(super) allowed: Allowed,
}

/// All scenarios.
pub(super) fn all() -> Vec<Scenario> {
    [created(), valued(), vec![whole_life()], renamed(), delivered(), adopted(), owned(), lost()]
        .into_iter()
        .flatten()
        .collect()
}

/// A scenario with one object, which is served in the end.
fn scenario(name: &'static str, prepare: Do, act: Do, allowed: Allowed) -> Scenario {
    Scenario { name, prepare, act, ends: vec![("db", "True", "Served")], ended: |_| true, allowed }
}

fn step<F>(run: impl Fn(Site) -> F + Send + Sync + 'static) -> Do
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |site| Box::pin(run(site)))
}

/// One after the other.
fn steps(steps: Vec<Do>) -> Do {
    Box::new(move |site| {
        let steps: Vec<_> = steps.iter().map(|step| step(site.clone())).collect();
        Box::pin(async {
            for step in steps {
                step.await;
            }
        })
    })
}

fn nothing() -> Do {
    steps(vec![])
}

fn apply(object: &'static str, spec: Value) -> Do {
    step(move |site| {
        let spec = spec.clone();
        async move { drop(site.apply(object, spec).await) }
    })
}

fn until_served(object: &'static str) -> Do {
    step(move |site| async move { drop(site.served(object).await) })
}

/// The status of `db` is as wanted.
fn until(what: &'static str, holds: impl Fn(&ManagedSecretStatus) -> bool + Copy + Send + Sync + 'static) -> Do {
    step(move |site| async move {
        site.until("db", what, |object| object.status.as_ref().is_some_and(holds)).await;
    })
}

/// `db` follows a source, and has had two values.
fn two_versions() -> Do {
    let two = until("a second version", |status| status.version == Some(2));
    steps(vec![source("one"), served(from("NAME")), source("two"), two])
}

/// The previous value has a key.
fn previous() -> Value {
    json!({"target": {"previousKey": "old"}})
}

/// `db` is applied and served.
fn served(spec: Value) -> Do {
    steps(vec![apply("db", spec), until_served("db")])
}

/// `db` is applied with a sealed value.
fn sealed(value: &'static str) -> Do {
    sealed_with(value, json!({}))
}

fn sealed_with(value: &'static str, more: Value) -> Do {
    step(move |site| {
        let more = more.clone();
        async move {
            let value = site.seal("db", value).await;
            site.apply("db", with(json!({"name": "NAME", "value": value}), more)).await;
        }
    })
}

fn source(value: &'static str) -> Do {
    step(move |site| async move { drop(site.source("upstream", value).await) })
}

/// A user's Secret `db`.
fn theirs() -> Do {
    step(|site| async move { drop(site.foreign_secret("db", &[("theirs", "x")]).await) })
}

/// A user deletes a Secret.
fn lose(secret: String) -> Do {
    step(move |site| {
        let secret = secret.clone();
        async move { drop(site.secrets().delete(&secret, &DeleteParams::default()).await.unwrap()) }
    })
}

fn delete() -> Do {
    step(|site| async move { site.delete("db").await })
}

fn from(name: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}})
}

fn generate(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

/// A generated value of which something more is wanted.
fn generate_with(more: Value) -> Value {
    with(generate("NAME"), more)
}

fn with(mut spec: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut spec, more) else { panic!("both are objects") };
    fields.extend(more);
    spec
}

fn one() -> Allowed {
    Allowed::default().serves("db", "value", &["one"])
}

fn two() -> Allowed {
    Allowed::default().serves("db", "value", &["one", "two"])
}

fn any() -> Allowed {
    Allowed::default().generates("db", "value")
}

/// With a source that holds these values.
fn upstream(values: &[&'static str], allowed: Allowed) -> Allowed {
    allowed.serves("upstream", "key", values)
}

/// Created from each source.
fn created() -> Vec<Scenario> {
    vec![
        scenario("create, sealed", nothing(), sealed("one"), one()),
        scenario("create, valueFrom", source("one"), apply("db", from("NAME")), upstream(&["one"], one())),
        scenario("create, generate", nothing(), apply("db", generate("NAME")), any()),
    ]
}

/// A new value; everything at once.
fn valued() -> Vec<Scenario> {
    let following = || steps(vec![source("one"), served(from("NAME"))]);
    let moved = json!({"name": "moved", "key": "password", "labels": {"team": "x"}});
    let everything = json!({"description": "other", "deletionPolicy": "Retain", "target": moved});
    vec![
        scenario("new value, sealed", steps(vec![sealed("one"), until_served("db")]), sealed("two"), two()),
        scenario("new value, valueFrom", following(), source("two"), upstream(&["one", "two"], two())),
        scenario(
            "rotation",
            served(generate("NAME")),
            apply("db", generate_with(json!({"generate": {"revision": "a"}}))),
            Allowed::default().rotates("db", "value"),
        ),
        scenario(
            "a new value beside the previous one",
            steps(vec![source("one"), served(with(from("NAME"), previous()))]),
            source("two"),
            upstream(&["one", "two"], two().serves_beside("db", "old", &["one"])),
        ),
        scenario(
            "the end of an overlap",
            steps(vec![two_versions(), apply("db", with(from("NAME"), previous())), until_served("db")]),
            apply("db", with(with(from("NAME"), previous()), json!({"overlap": "0s"}))),
            upstream(&["one", "two"], two().serves_beside("db", "old", &["one"])),
        ),
        scenario(
            "an earlier version",
            two_versions(),
            apply("db", with(from("NAME"), json!({"version": 1}))),
            upstream(&["one", "two"], Allowed::default().serves("db", "value", &["one", "two", "one"])),
        ),
        scenario(
            "the newest again instead of an earlier version",
            steps(vec![
                two_versions(),
                apply("db", with(from("NAME"), json!({"version": 1}))),
                until("version 1", |status| status.delivered == Some(1)),
                source("three"),
                until("a third version", |status| status.version == Some(3)),
            ]),
            apply("db", from("NAME")),
            upstream(
                &["one", "two", "three"],
                Allowed::default().serves("db", "value", &["one", "two", "one", "three"]),
            ),
        ),
        scenario(
            "from valueFrom to generate",
            following(),
            apply("db", generate("NAME")),
            upstream(&["one"], Allowed::default().serves_then_generates("db", "value", "one")),
        ),
        scenario(
            "everything at once",
            following(),
            steps(vec![source("two"), apply("db", with(from("OTHER"), everything))]),
            upstream(&["one", "two"], two()).may_lose("db").serves("moved", "password", &["one", "two"]),
        ),
    ]
}

/// A rotation of a secret that has all that a value's life can have: the previous value stays beside the new one until the
/// overlap ends, what is kept moves on, and the workload is restarted once.
fn whole_life() -> Scenario {
    let spec = |revision: &str, overlap: &str| {
        let target = json!({"previousKey": "old", "restart": [shop(WorkloadKind::Deployment)]});
        let generate = json!({"revision": revision, "rotateEvery": "720h"});
        generate_with(json!({"generate": generate, "history": 2, "overlap": overlap, "target": target}))
    };
    let workload = step(|site| async move {
        permit(&site).await;
        create(&site, WorkloadKind::Deployment, "shop").await;
    });
    let first_mark = step(|site| async move {
        let mark = format!("{}/2", id(&site.in_step("db").await));
        marked(&site, &shop(WorkloadKind::Deployment), "db", [None, Some(mark)]).await;
    });
    let second = steps(vec![
        served(generate("NAME")),
        apply("db", generate_with(json!({"generate": {"revision": "a"}}))),
        until("a second version", |status| status.version == Some(2)),
    ]);
    let ended = |end: &Snapshot| {
        let key = restarts::key("db");
        let mark = end.get("Deployment shop", "/template/annotations").and_then(|marks| marks[&key].as_str());
        let data = end.get("Secret db", "/data").and_then(Value::as_object);
        mark.is_some_and(|mark| mark.ends_with("/3")) && data.is_some_and(|data| !data.contains_key("old"))
    };
    Scenario {
        ended,
        ..scenario(
            "a rotation with history, overlap and restart",
            steps(vec![workload, second, apply("db", spec("a", "0s")), first_mark]),
            // Long enough for an operator that starts to find it begun.
            apply("db", spec("b", "20s")),
            Allowed::default().rotates_times("db", "value", 2).has_the_former("db", "old", "value"),
        )
    }
}

/// Renames, also those that wait.
fn renamed() -> Vec<Scenario> {
    let three = |names: [&str; 3]| {
        let objects = ["a", "b", "c"].into_iter().zip(names);
        steps(objects.map(|(object, name)| apply(object, generate(name))).collect())
    };
    let all_served = steps(["a", "b", "c"].map(until_served).into());
    vec![
        scenario("rename", served(generate("NAME")), apply("db", generate("OTHER")), any()),
        scenario(
            "rename while the record is lost",
            served(generate("NAME")),
            steps(vec![lose(record_name("NAME")), apply("db", generate("OTHER"))]),
            any(),
        ),
        Scenario {
            name: "rename to a taken name",
            prepare: steps(vec![apply("holder", generate("TAKEN")), until_served("holder"), served(generate("NAME"))]),
            act: apply("db", generate("TAKEN")),
            ends: vec![("db", "False", "NameInUse"), ("holder", "True", "Served")],
            ended: |_| true,
            allowed: any().generates("holder", "value"),
        },
        Scenario {
            name: "chain of three renames",
            prepare: steps(vec![three(["A", "B", "C"]), all_served]),
            act: three(["B", "C", "D"]),
            ends: ["a", "b", "c"].map(|object| (object, "True", "Served")).into(),
            ended: |_| true,
            allowed: Allowed::default().generates("a", "value").generates("b", "value").generates("c", "value"),
        },
    ]
}

/// The target: moved, another type, none, back again.
fn delivered() -> Vec<Scenario> {
    let edited = |name, more: Value, allowed| {
        scenario(name, served(generate("NAME")), apply("db", generate_with(more)), allowed)
    };
    let retained = json!({"deletionPolicy": "Retain"});
    let moved = json!({"target": {"name": "moved"}});
    let other = json!({"target": {"name": "moved", "type": "example.com/token"}});
    let none = json!({"delivery": "None"});
    let any_moved = || any().may_lose("db").generates("moved", "value");
    vec![
        edited("target moved", moved.clone(), any_moved()),
        edited("target's key", json!({"target": {"key": "password"}}), any().generates("db", "password")),
        edited("type changed", json!({"target": {"type": "example.com/token"}}), any().may_lose("db")),
        edited("delivery: None", none.clone(), any().may_lose("db")),
        scenario("delivery: Secret again", served(generate_with(none)), apply("db", generate("NAME")), any()),
        scenario(
            "target moved under Retain",
            served(generate_with(retained.clone())),
            apply("db", generate_with(with(retained.clone(), moved))),
            any_moved(),
        ),
        scenario(
            "target moved, another type, Retain",
            served(generate("NAME")),
            apply("db", generate_with(with(retained, other))),
            any_moved(),
        ),
    ]
}

/// A Secret of a user: adopted, and released.
fn adopted() -> Vec<Scenario> {
    let adopting = json!({"target": {"adoption": "IfUnowned"}});
    let kept = |allowed: Allowed| allowed.keeps("db", "theirs", "x");
    let ours = || steps(vec![theirs(), served(generate_with(json!({"target": {"adoption": "IfUnowned"}})))]);
    vec![
        scenario(
            "adoption",
            steps(vec![theirs(), source("one")]),
            apply("db", with(from("NAME"), adopting)),
            upstream(&["one"], kept(one())),
        ),
        scenario(
            "an adopted target moved away",
            ours(),
            apply("db", generate_with(json!({"target": {"adoption": "IfUnowned", "name": "moved"}}))),
            kept(any()).generates("moved", "value"),
        ),
        scenario(
            "an adopted target given up",
            ours(),
            apply("db", generate_with(json!({"delivery": "None"}))),
            kept(any()),
        ),
    ]
}

/// Deletion, take-over, restore.
fn owned() -> Vec<Scenario> {
    let retained = || generate_with(json!({"deletionPolicy": "Retain"}));
    let again = step(|site| async move {
        let spec = site.get("db").await.spec;
        site.delete("db").await;
        site.apply("db", json!(spec)).await;
    });
    let without_owners = step(|site| async move {
        for secret in [record_name("NAME"), "db".to_owned()] {
            site.as_restorer().await.intrude(&secret, json!({"metadata": {"ownerReferences": null}})).await;
        }
    });
    let without_status = step(|site| async move {
        let mut object = site.get("db").await;
        object.status = Some(ManagedSecretStatus::default());
        let objects = site.as_restorer().await.objects();
        objects.replace_status("db", &PostParams::default(), &object).await.unwrap();
    });
    vec![
        Scenario { ends: vec![], ..scenario("delete", served(generate("NAME")), delete(), any().may_lose("db")) },
        scenario(
            "delete and apply again",
            steps(vec![source("one"), served(from("NAME"))]),
            again,
            upstream(&["one"], one()).may_lose("db"),
        ),
        scenario("Retain", served(generate("NAME")), apply("db", retained()), any()),
        scenario(
            "take-over of what was retained",
            steps(vec![served(retained()), delete()]),
            apply("db", generate("NAME")),
            any(),
        ),
        scenario(
            "take-over with another value",
            steps(vec![sealed_with("one", json!({"deletionPolicy": "Retain"})), until_served("db"), delete()]),
            sealed("two"),
            two(),
        ),
        scenario("owner references lost", served(generate("NAME")), without_owners, any()),
        scenario("status lost", served(generate("NAME")), without_status, any()),
    ]
}

/// Record or target lost.
fn lost() -> Vec<Scenario> {
    let record = || lose(record_name("NAME"));
    let unlabelled = step(|site| async move {
        drop(site.intrude("db", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})).await);
    });
    let following = steps(vec![source("one"), served(from("NAME"))]);
    vec![
        scenario("record lost, generate", served(generate("NAME")), record(), any()),
        scenario("record lost, valueFrom", following, record(), upstream(&["one"], one())),
        scenario("record lost, sealed", steps(vec![sealed("one"), until_served("db")]), record(), one()),
        scenario("target lost", served(generate("NAME")), lose("db".to_owned()), any().may_lose("db")),
        scenario("target unlabelled", served(generate("NAME")), unlabelled, any()),
    ]
}
