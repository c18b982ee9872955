//! A Secret that is not ours is never changed and never deleted: every disguise, in every scenario, and in every moment
//! between a read of the operator's and its write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, PostParams},
    client::Body,
};
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    installation::{RESTORER, control_plane},
    objects::{Site, ready},
    operator::{Fault, Setup, Tap},
    witness::Witness,
};

/// What a Secret that the operator does not manage pretends to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Disguise {
    /// Nothing.
    Plain,
    /// It carries our labels, with the right id.
    Labels,
    /// And the annotation that names the owner.
    Owner,
    /// And the owner reference: a copy of the target, made by another user.
    Copy,
    /// The labels of a record.
    Record,
    /// Labels with another id, and another owner.
    OtherId,
    /// The controller of it is another ManagedSecret.
    Controlled,
}

impl Disguise {
    const ALL: [Self; 7] =
        [Self::Plain, Self::Labels, Self::Owner, Self::Copy, Self::Record, Self::OtherId, Self::Controlled];

    /// A Secret of this disguise, called `name`, which would pass for a target of `object`.
    fn make(self, name: &str, object: &ManagedSecret, other: &ManagedSecret) -> Secret {
        let id =
            |object: &ManagedSecret| object.status.as_ref().and_then(|status| status.id.clone()).unwrap_or_default();
        let labels = |role: &str, id: String| json!({keys::LABEL_ROLE: role, keys::LABEL_ID: id});
        let owner = |object: &ManagedSecret, controller: bool| {
            json!([{
                "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
                "name": object.name_any(), "uid": object.uid().unwrap(), "controller": controller,
            }])
        };
        let named = |object: &ManagedSecret| json!({keys::ANNO_OWNER: object.name_any()});
        let target = labels(keys::ROLE_TARGET, id(object));
        let (labels, annotations, owners) = match self {
            Self::Plain => (Value::Null, Value::Null, Value::Null),
            Self::Labels => (target, Value::Null, Value::Null),
            Self::Owner => (target, named(object), Value::Null),
            Self::Copy => (target, named(object), owner(object, false)),
            Self::Record => (labels(keys::ROLE_RECORD, id(object)), named(object), Value::Null),
            Self::OtherId => (labels(keys::ROLE_TARGET, "6f1c3f0e".to_owned()), named(other), Value::Null),
            Self::Controlled => (target, named(object), owner(other, true)),
        };
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": owners},
            "stringData": {"value": "unmanaged", "more": "unmanaged"},
        }))
        .unwrap()
    }

    /// Kubernetes collects it with its owner: then it is not we who delete it.
    fn is_owned(self) -> bool {
        matches!(self, Self::Copy | Self::Controlled)
    }
}

/// What happens around it. Each has an object of its own, and the unmanaged Secret appears while the operator is down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scenario {
    /// `delivery: None` until now, and the unmanaged Secret stands where the target is wanted.
    Arrive,
    /// The target moves to where the unmanaged Secret stands.
    MoveTo,
    /// A user has deleted the target and created another Secret there.
    Replaced,
    /// And the target moves away from there.
    ReplacedThenMoved,
    /// And the target gets another type.
    ReplacedThenRetyped,
    /// And nothing is delivered any more.
    ReplacedThenNone,
    /// The unmanaged Secret stands elsewhere while the value changes and the target moves.
    Aside,
    /// The unmanaged Secret stands elsewhere while the ManagedSecret is deleted.
    Deleted,
    /// The unmanaged Secret has the name of the record of the wanted name.
    RecordPlace,
}

impl Scenario {
    const ALL: [Self; 9] = [
        Self::Arrive,
        Self::MoveTo,
        Self::Replaced,
        Self::ReplacedThenMoved,
        Self::ReplacedThenRetyped,
        Self::ReplacedThenNone,
        Self::Aside,
        Self::Deleted,
        Self::RecordPlace,
    ];

    fn replaces(self) -> bool {
        matches!(self, Self::Replaced | Self::ReplacedThenMoved | Self::ReplacedThenRetyped | Self::ReplacedThenNone)
    }

    /// `status` of Ready in the end.
    fn outcome(self) -> Option<&'static str> {
        match self {
            Self::ReplacedThenMoved | Self::ReplacedThenNone | Self::Aside => Some("True"),
            Self::Deleted => None,
            _ => Some("False"),
        }
    }

    /// Whether these two go together.
    fn meets(self, disguise: Disguise) -> bool {
        match self {
            // With nothing in status, owner and id make a Secret ours: so a restored one is found again.
            Self::Arrive => disguise != Disguise::Owner,
            Self::Deleted => !disguise.is_owned(),
            _ => true,
        }
    }
}

struct Case {
    name: String,
    disguise: Disguise,
    scenario: Scenario,
}

impl Case {
    /// Where the unmanaged Secret stands.
    fn place(&self) -> String {
        match self.scenario {
            Scenario::Arrive => self.name.clone(),
            Scenario::RecordPlace => record_name(&self.wanted_name()),
            scenario if scenario.replaces() => self.name.clone(),
            _ => format!("{}-unmanaged", self.name),
        }
    }

    fn secret_name(&self) -> String {
        self.name.to_uppercase().replace('-', "_")
    }

    fn wanted_name(&self) -> String {
        if self.scenario == Scenario::RecordPlace { format!("{}_2", self.secret_name()) } else { self.secret_name() }
    }

    fn before(&self) -> Value {
        let mut spec = json!({"name": self.secret_name(), "generate": {}});
        if self.scenario == Scenario::Arrive {
            spec["delivery"] = json!("None");
        }
        spec
    }

    fn after(&self) -> Value {
        // Adoption is allowed, wherever a disguise must prevent it.
        let mut target = json!({"adoption": if self.disguise == Disguise::Plain { "Never" } else { "IfUnowned" }});
        let mut spec = json!({"name": self.wanted_name(), "generate": {}});
        match self.scenario {
            Scenario::MoveTo => target["name"] = json!(self.place()),
            Scenario::ReplacedThenMoved | Scenario::Aside => target["name"] = json!(format!("{}-moved", self.name)),
            Scenario::ReplacedThenRetyped => target["type"] = json!("example.com/other"),
            Scenario::ReplacedThenNone => spec["delivery"] = json!("None"),
            _ => {}
        }
        spec["target"] = target;
        spec
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_disguise_makes_an_unmanaged_secret_ours_in_any_scenario() {
    let site = Site::new("unmanaged").await;
    let mut operator = Setup::of(&site.namespace).start().await;
    let cases: Vec<Case> = Scenario::ALL
        .into_iter()
        .flat_map(|scenario| Disguise::ALL.map(|disguise| (scenario, disguise)))
        .filter(|(scenario, disguise)| scenario.meets(*disguise))
        .map(|(scenario, disguise)| {
            let name = format!("{scenario:?}-{disguise:?}").to_lowercase();
            Case { name, disguise, scenario }
        })
        .collect();
    site.apply("other", json!({"name": "other", "generate": {}})).await;
    for case in &cases {
        site.apply(&case.name, case.before()).await;
    }
    let other = site.served("other").await;
    let mut served = BTreeMap::new();
    for case in &cases {
        served.insert(case.name.clone(), site.served(&case.name).await);
    }
    operator.stop().await;
    let mut unmanaged_secrets = Vec::new();
    for case in &cases {
        if case.scenario.replaces() {
            site.secrets().delete(&case.name, &DeleteParams::default()).await.unwrap();
        }
        let unmanaged = case.disguise.make(&case.place(), &served[&case.name], &other);
        // A policy keeps a record's place free; what stands there was there before it, or a restorer made it.
        let maker = if case.scenario == Scenario::RecordPlace { site.as_restorer().await } else { site.clone() };
        unmanaged_secrets.push(maker.secrets().create(&PostParams::default(), &unmanaged).await.unwrap());
    }
    operator = Setup::of(&site.namespace).start().await;
    for case in &cases {
        if case.scenario == Scenario::Deleted {
            site.objects().delete(&case.name, &DeleteParams::default()).await.unwrap();
        } else {
            site.apply(&case.name, case.after()).await;
        }
    }
    for round in 0..2 {
        for (case, unmanaged) in cases.iter().zip(&unmanaged_secrets) {
            if let Some(outcome) = case.scenario.outcome() {
                site.until(&case.name, &format!("{outcome} in round {round}"), |object| ready(object).0 == outcome)
                    .await;
            } else {
                site.gone(&case.name).await;
                site.gone(&record_name(&case.secret_name())).await;
            }
            assert_eq!(site.secret(&case.place()).await.as_ref(), Some(unmanaged), "{} in round {round}", case.name);
        }
        // Once more, with an operator that has seen nothing yet.
        operator.stop().await;
        operator = Setup::of(&site.namespace).start().await;
        for case in cases.iter().filter(|case| case.scenario != Scenario::Deleted) {
            let mut spec = case.after();
            spec["description"] = json!(format!("round {round}"));
            site.apply(&case.name, spec).await;
        }
    }
    // What was served where nothing could be written is served still.
    for case in cases.iter().filter(|case| matches!(case.scenario, Scenario::MoveTo | Scenario::RecordPlace)) {
        assert!(site.secret(&case.name).await.is_some(), "{}", case.name);
    }
    operator.stop().await;
}

/// The target of another ManagedSecret is as foreign as any.
#[tokio::test(flavor = "multi_thread")]
async fn the_target_of_another_managed_secret_is_left_alone_and_its_holder_named() {
    let site = Site::new("held").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("holder", json!({"name": "HOLDER", "generate": {}, "target": {"name": "shared"}})).await;
    site.served("holder").await;
    let held = site.secret("shared").await.unwrap();
    site.apply("late", json!({"name": "LATE", "generate": {}, "target": {"name": "shared", "adoption": "IfUnowned"}}))
        .await;
    site.apply("mover", json!({"name": "MOVER", "generate": {}})).await;
    site.served("mover").await;
    site.apply(
        "mover",
        json!({"name": "MOVER", "generate": {}, "target": {"name": "shared", "type": "example.com/t"}}),
    )
    .await;
    for name in ["late", "mover"] {
        let object = site.reports(name, "False", "TargetInUse").await;
        assert!(
            super::objects::message(&object).contains("ManagedSecret holder"),
            "{}",
            super::objects::message(&object)
        );
    }
    assert_eq!(site.secret("shared").await, Some(held.clone()));
    site.delete("late").await;
    site.gone(&record_name("LATE")).await;
    assert_eq!(site.secret("shared").await, Some(held));
    // It is free as soon as its holder lets go.
    site.apply("holder", json!({"name": "HOLDER", "generate": {}})).await;
    site.served("holder").await;
    site.nudge("mover").await;
    site.served("mover").await;
    assert_eq!(site.secret("shared").await.unwrap().type_.as_deref(), Some("example.com/t"));
    operator.stop().await;
}

/// Does something before a request goes on, from outside of the runtime that waits for it; as the restorer, whom no
/// policy keeps from a record's place.
fn at_once<F: Future<Output = ()>>(namespace: &str, act: impl FnOnce(Api<Secret>) -> F + Send + 'static) {
    let namespace = namespace.to_owned();
    let kubeconfig = CONFIG.get().unwrap().clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::try_from(kubeconfig).unwrap();
            act(Api::namespaced(client, &namespace)).await;
        });
    })
    .join()
    .unwrap();
}

static CONFIG: std::sync::OnceLock<kube::Config> = std::sync::OnceLock::new();

async fn prepare() {
    let config = control_plane().await.access().config_as(RESTORER, &["system:masters"]).await.unwrap();
    CONFIG.get_or_init(|| config);
}

/// A tap that lets another user act just before the operator's first write (`method`) of the Secret `name` that counts.
fn just_before(
    namespace: &str,
    method: &'static str,
    name: &str,
    armed: &std::sync::Arc<AtomicBool>,
    act: impl Fn(Api<Secret>) -> futures::future::BoxFuture<'static, ()> + Send + Sync + Clone + 'static,
) -> std::sync::Arc<Tap> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let (namespace, armed) = (namespace.to_owned(), std::sync::Arc::clone(armed));
    Tap::new(move |_, request: &Request<Body>| {
        let dry_run = request.uri().query().is_some_and(|query| query.contains("dryRun="));
        let meant = request.method() == method && request.uri().path() == path && !dry_run;
        if meant && armed.swap(false, Ordering::SeqCst) {
            at_once(&namespace, act.clone());
        }
        Fault::Pass
    })
}

fn unmanaged(name: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"value": "unmanaged"}})).unwrap()
}

/// Deletes what is there and creates another user's Secret in its place.
async fn replace(secrets: Api<Secret>, name: &'static str) {
    secrets.delete(name, &DeleteParams::default()).await.ok();
    secrets.create(&PostParams::default(), &unmanaged(name)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_appears_between_our_read_and_our_write_is_left_alone() {
    prepare().await;
    let from = json!({"secretKeyRef": {"name": "source", "key": "key"}});
    let db = |target: Value| json!({"name": "NAME", "valueFrom": from, "target": target});
    // What the operator is about to do, to which Secret; the spec before and after; the outcome.
    let cases = [
        ("create", "PATCH", "db", None, db(json!({"key": "value"})), "False"),
        ("move-to", "PATCH", "new", Some(db(json!({"key": "value"}))), db(json!({"name": "new"})), "False"),
        ("move-from", "DELETE", "db", Some(db(json!({"key": "value"}))), db(json!({"name": "new"})), "True"),
        ("retype", "DELETE", "db", Some(db(json!({"key": "value"}))), db(json!({"type": "example.com/t"})), "False"),
        ("relabel", "PATCH", "db", Some(db(json!({"key": "value"}))), db(json!({"labels": {"a": "b"}})), "False"),
        (
            "none",
            "DELETE",
            "db",
            Some(db(json!({"key": "value"}))),
            json!({"name": "NAME", "valueFrom": from, "delivery": "None"}),
            "True",
        ),
    ];
    let checks = cases.map(|(case, method, name, before, after, outcome)| async move {
        let site = Site::new(&format!("between-{case}")).await;
        let armed = std::sync::Arc::new(AtomicBool::new(false));
        let tap = just_before(&site.namespace, method, name, &armed, move |secrets| Box::pin(replace(secrets, name)));
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        site.source("source", "v").await;
        if let Some(before) = before {
            site.apply("db", before).await;
            site.served("db").await;
        }
        let witness = Witness::of(&site).await;
        armed.store(true, Ordering::SeqCst);
        site.apply("db", after).await;
        let done = site.until("db", case, |object| ready(object).0 == outcome).await;
        assert!(!armed.load(Ordering::SeqCst), "{case}: the moment never came");
        let there = site.secret(name).await.unwrap();
        assert_eq!(site.value(name, "value").await.as_deref(), Some("unmanaged"), "{case}: {done:?}");
        // From its creation on it has had one state.
        let states = witness.states().await;
        let its: Vec<_> = states.iter().filter(|state| Some(&state.uid) == there.uid().as_ref()).collect();
        assert_eq!(its.len(), 1, "{case}: {its:?}");
        operator.stop().await;
    });
    futures::future::join_all(checks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_whose_conditions_change_in_the_last_moment_is_off() {
    prepare().await;
    let site = Site::new("last-moment").await;
    site.source("source", "v").await;
    let armed = std::sync::Arc::new(AtomicBool::new(true));
    let tap = just_before(&site.namespace, "PATCH", "db", &armed, |secrets| {
        Box::pin(async move {
            let change = json!({"stringData": {"value": "theirs now"}});
            let change = kube::api::Patch::Merge(change);
            secrets.patch("db", &kube::api::PatchParams::default(), &change).await.unwrap();
        })
    });
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.foreign_secret("db", &[("other", "kept")]).await;
    let from = json!({"secretKeyRef": {"name": "source", "key": "key"}});
    site.apply("db", json!({"name": "NAME", "valueFrom": from, "target": {"adoption": "IfUnowned"}})).await;
    site.reports("db", "False", "TargetNotOwned").await;
    assert!(!armed.load(Ordering::SeqCst));
    assert_eq!(site.value("db", "value").await.as_deref(), Some("theirs now"));
    assert_eq!(site.secret("db").await.unwrap().labels().len(), 0);
    operator.stop().await;
}

/// A name that is squatted in the moment in which the record is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_never_overwrites_what_took_its_place_in_the_last_moment() {
    prepare().await;
    let site = Site::new("squatted").await;
    let record = record_name("NAME");
    let armed = std::sync::Arc::new(AtomicBool::new(true));
    let squatted = record.clone();
    let tap = just_before(&site.namespace, "PATCH", &record, &armed, move |secrets| {
        let squatted = unmanaged(&squatted);
        Box::pin(async move {
            secrets.create(&PostParams::default(), &squatted).await.unwrap();
        })
    });
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    let object = site.reports("db", "False", "NameInUse").await;
    assert!(super::objects::message(&object).contains(&record));
    assert_eq!(site.value(&record, "value").await.as_deref(), Some("unmanaged"));
    assert!(site.secret("db").await.is_none());
    // Gone, it is looked for again.
    site.secrets().delete(&record, &DeleteParams::default()).await.unwrap();
    site.nudge("db").await;
    site.served("db").await;
    poll("the record", super::operator::PATIENCE, || async { Ok(site.record("NAME").await.map(|_| ())) })
        .await
        .unwrap();
    operator.stop().await;
}
