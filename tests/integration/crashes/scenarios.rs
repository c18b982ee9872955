//! What users and others do, each with the state before it and what may be seen on the way.

use futures::future::BoxFuture;
use kube::api::DeleteParams;
use managed_secrets::api::{keys, names::record_name};
use serde_json::{Value, json};

use super::{super::objects::Site, history::Allowed};

/// Something done in a namespace.
type Do = fn(Site) -> BoxFuture<'static, ()>;

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
    /// What may be seen on the way.
    pub(super) allowed: Allowed,
}

const SERVED: (&str, &str, &str) = ("db", "True", "Served");

fn nothing(_: Site) -> BoxFuture<'static, ()> {
    Box::pin(async {})
}

/// `db` is served as the spec says.
async fn served(site: &Site, spec: Value) {
    site.apply("db", spec).await;
    site.served("db").await;
}

fn from(name: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "key"}}})
}

fn generate(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

/// With more fields.
fn with(mut spec: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut spec, more) else { unreachable!("both are objects") };
    fields.extend(more);
    spec
}

/// `db` is generated and served.
fn made(site: Site) -> BoxFuture<'static, ()> {
    Box::pin(async move { served(&site, generate("NAME")).await })
}

/// `db` follows a source and is served.
fn following(site: Site) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        site.source("upstream", "one").await;
        served(&site, from("NAME")).await;
    })
}

async fn remove(site: &Site, secret: &str) {
    site.secrets().delete(secret, &DeleteParams::default()).await.unwrap();
}

/// A scenario with one object that is served in the end.
fn scenario(name: &'static str, prepare: Do, act: Do, allowed: Allowed) -> Scenario {
    Scenario { name, prepare, act, ends: vec![SERVED], allowed }
}

/// All scenarios.
pub(super) fn all() -> Vec<Scenario> {
    let one = || Allowed::default().serves("db", "value", &["one"]);
    let two = || Allowed::default().serves("db", "value", &["one", "two"]);
    let any = || Allowed::default().generates("db", "value");
    let upstream = |allowed: Allowed| allowed.serves("upstream", "key", &["one", "two"]);
    let theirs = |allowed: Allowed| allowed.keeps("db", "theirs", "x");
    let mut all = created(one, any, upstream);
    all.extend([
        scenario(
            "new value, sealed",
            |site| {
                Box::pin(async move {
                    let value = site.seal("db", "one").await;
                    served(&site, json!({"name": "NAME", "value": value})).await;
                })
            },
            |site| {
                Box::pin(async move {
                    let value = site.seal("db", "two").await;
                    site.apply("db", json!({"name": "NAME", "value": value})).await;
                })
            },
            two(),
        ),
        scenario(
            "new value, valueFrom",
            following,
            |site| Box::pin(async move { drop(site.source("upstream", "two").await) }),
            upstream(two()),
        ),
        scenario(
            "from valueFrom to generate",
            following,
            |site| Box::pin(async move { drop(site.apply("db", generate("NAME")).await) }),
            upstream(Allowed::default().serves_then_generates("db", "value", "one")),
        ),
        scenario(
            "rename",
            made,
            |site| Box::pin(async move { drop(site.apply("db", generate("OTHER")).await) }),
            any(),
        ),
        Scenario {
            name: "rename to a taken name",
            prepare: |site| {
                Box::pin(async move {
                    site.apply("holder", generate("TAKEN")).await;
                    site.served("holder").await;
                    made(site).await;
                })
            },
            act: |site| Box::pin(async move { drop(site.apply("db", generate("TAKEN")).await) }),
            ends: vec![("db", "False", "NameInUse"), ("holder", "True", "Served")],
            allowed: any().generates("holder", "value"),
        },
        Scenario {
            name: "chain of three renames",
            prepare: |site| {
                Box::pin(async move {
                    for (object, name) in [("a", "A"), ("b", "B"), ("c", "C")] {
                        site.apply(object, generate(name)).await;
                    }
                    for object in ["a", "b", "c"] {
                        site.served(object).await;
                    }
                })
            },
            act: |site| {
                Box::pin(async move {
                    for (object, name) in [("a", "B"), ("b", "C"), ("c", "D")] {
                        site.apply(object, generate(name)).await;
                    }
                })
            },
            ends: vec![("a", "True", "Served"), ("b", "True", "Served"), ("c", "True", "Served")],
            allowed: Allowed::default().generates("a", "value").generates("b", "value").generates("c", "value"),
        },
        scenario(
            "everything at once",
            following,
            |site| {
                Box::pin(async move {
                    site.source("upstream", "two").await;
                    let target = json!({"name": "moved", "key": "password", "labels": {"team": "x"}});
                    let more = json!({"description": "other", "deletionPolicy": "Retain", "target": target});
                    site.apply("db", with(from("OTHER"), more)).await;
                })
            },
            upstream(two()).may_lose("db").serves("moved", "password", &["one", "two"]),
        ),
    ]);
    all.extend(delivered(any));
    all.extend(lost(one, any, upstream));
    all.extend([
        Scenario {
            name: "delete",
            prepare: made,
            act: |site| Box::pin(async move { site.delete("db").await }),
            ends: vec![],
            allowed: any().may_lose("db"),
        },
        scenario(
            "delete and apply again",
            |site| {
                Box::pin(async move {
                    let value = site.seal("db", "one").await;
                    served(&site, json!({"name": "NAME", "value": value})).await;
                })
            },
            |site| {
                Box::pin(async move {
                    let spec = site.get("db").await.spec;
                    site.delete("db").await;
                    site.apply("db", json!(spec)).await;
                })
            },
            one().may_lose("db"),
        ),
        scenario(
            "Retain",
            made,
            |site| {
                Box::pin(async move {
                    drop(site.apply("db", with(generate("NAME"), json!({"deletionPolicy": "Retain"}))).await);
                })
            },
            any(),
        ),
        scenario(
            "take-over of what was retained",
            |site| {
                Box::pin(async move {
                    served(&site, with(generate("NAME"), json!({"deletionPolicy": "Retain"}))).await;
                    site.delete("db").await;
                })
            },
            |site| Box::pin(async move { drop(site.apply("db", generate("NAME")).await) }),
            any(),
        ),
        scenario(
            "adoption",
            |site| {
                Box::pin(async move {
                    site.source("upstream", "one").await;
                    site.foreign_secret("db", &[("theirs", "x")]).await;
                })
            },
            |site| {
                Box::pin(async move {
                    drop(site.apply("db", with(from("NAME"), json!({"target": {"adoption": "IfUnowned"}}))).await);
                })
            },
            upstream(theirs(one())),
        ),
        scenario(
            "an adopted target moved away",
            |site| {
                Box::pin(async move {
                    site.foreign_secret("db", &[("theirs", "x")]).await;
                    served(&site, with(generate("NAME"), json!({"target": {"adoption": "IfUnowned"}}))).await;
                })
            },
            |site| {
                Box::pin(async move {
                    let target = json!({"adoption": "IfUnowned", "name": "moved"});
                    site.apply("db", with(generate("NAME"), json!({"target": target}))).await;
                })
            },
            theirs(any()).generates("moved", "value"),
        ),
    ]);
    all
}

/// Created from each source.
fn created(
    one: impl Fn() -> Allowed,
    any: impl Fn() -> Allowed,
    upstream: impl Fn(Allowed) -> Allowed,
) -> Vec<Scenario> {
    vec![
        scenario(
            "create, sealed",
            nothing,
            |site| {
                Box::pin(async move {
                    let value = site.seal("db", "one").await;
                    site.apply("db", json!({"name": "NAME", "value": value})).await;
                })
            },
            one(),
        ),
        scenario(
            "create, valueFrom",
            |site| Box::pin(async move { drop(site.source("upstream", "one").await) }),
            |site| Box::pin(async move { drop(site.apply("db", from("NAME")).await) }),
            upstream(one()),
        ),
        scenario(
            "create, generate",
            nothing,
            |site| Box::pin(async move { drop(site.apply("db", generate("NAME")).await) }),
            any(),
        ),
    ]
}

/// The target: moved, another type, none, back again.
fn delivered(any: impl Fn() -> Allowed) -> Vec<Scenario> {
    vec![
        scenario(
            "target moved",
            made,
            |site| {
                Box::pin(async move {
                    drop(site.apply("db", with(generate("NAME"), json!({"target": {"name": "moved"}}))).await);
                })
            },
            any().may_lose("db").generates("moved", "value"),
        ),
        scenario(
            "target moved under Retain",
            |site| {
                Box::pin(async move {
                    served(&site, with(generate("NAME"), json!({"deletionPolicy": "Retain"}))).await;
                })
            },
            |site| {
                Box::pin(async move {
                    let more = json!({"deletionPolicy": "Retain", "target": {"name": "moved"}});
                    site.apply("db", with(generate("NAME"), more)).await;
                })
            },
            any().may_lose("db").generates("moved", "value"),
        ),
        scenario(
            "target's key",
            made,
            |site| {
                Box::pin(async move {
                    drop(site.apply("db", with(generate("NAME"), json!({"target": {"key": "password"}}))).await);
                })
            },
            any().generates("db", "password"),
        ),
        scenario(
            "type changed",
            made,
            |site| {
                Box::pin(async move {
                    let target = json!({"type": "example.com/token"});
                    site.apply("db", with(generate("NAME"), json!({"target": target}))).await;
                })
            },
            any().may_lose("db"),
        ),
        scenario(
            "delivery: None",
            made,
            |site| {
                Box::pin(async move {
                    drop(site.apply("db", with(generate("NAME"), json!({"delivery": "None"}))).await);
                })
            },
            any().may_lose("db"),
        ),
        scenario(
            "delivery: Secret again",
            |site| Box::pin(async move { served(&site, with(generate("NAME"), json!({"delivery": "None"}))).await }),
            |site| Box::pin(async move { drop(site.apply("db", generate("NAME")).await) }),
            any(),
        ),
    ]
}

/// Record or target lost.
fn lost(one: impl Fn() -> Allowed, any: impl Fn() -> Allowed, upstream: impl Fn(Allowed) -> Allowed) -> Vec<Scenario> {
    fn lose_record(site: Site) -> BoxFuture<'static, ()> {
        Box::pin(async move { remove(&site, &record_name("NAME")).await })
    }
    vec![
        scenario("record lost, generate", made, lose_record, any()),
        scenario("record lost, valueFrom", following, lose_record, upstream(one())),
        scenario(
            "record lost, sealed",
            |site| {
                Box::pin(async move {
                    let value = site.seal("db", "one").await;
                    served(&site, json!({"name": "NAME", "value": value})).await;
                })
            },
            lose_record,
            one(),
        ),
        scenario("target lost", made, |site| Box::pin(async move { remove(&site, "db").await }), any().may_lose("db")),
        scenario(
            "target unlabelled",
            made,
            |site| {
                Box::pin(async move {
                    drop(site.intrude("db", json!({"metadata": {"labels": {keys::LABEL_ROLE: null}}})).await);
                })
            },
            any(),
        ),
    ]
}
