//! Restarts of workloads: once for each version, never for anything else, and lost by no crash. There is no node: what
//! counts is the pod template, from which Kubernetes makes pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use http::Method;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use managed_secrets_api::{
    keys, restarts,
    types::{Workload, WorkloadKind},
};
use serde_json::{Value, json};
use testkit::poll;
use tokio_util::sync::CancellationToken;

use super::{
    installation::{self, OPERATOR_NAMESPACE, Right, may, object},
    objects::{Site, conditions, id, status},
    operator::{Fault, PATIENCE, Running, Seen, Setup, Tap},
};

/// Lets the operator restart workloads in this namespace, as `manifests --restarts` does.
pub(super) async fn permit(site: &Site) {
    let rules = json!([{"apiGroups": ["apps"], "resources": WorkloadKind::ALL.map(WorkloadKind::plural), "verbs": ["get", "patch"]}]);
    let role: Role = object(json!({"metadata": {"name": "restarts"}, "rules": rules}));
    Api::namespaced(site.client.clone(), &site.namespace).create(&PostParams::default(), &role).await.unwrap();
    let binding: RoleBinding = object(json!({
        "metadata": {"name": "restarts"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "restarts"},
        "subjects": [{"kind": "ServiceAccount", "name": keys::OPERATOR_NAME, "namespace": OPERATOR_NAMESPACE}],
    }));
    Api::namespaced(site.client.clone(), &site.namespace).create(&PostParams::default(), &binding).await.unwrap();
    let operator = installation::operator().await;
    let right = Right { verb: "patch", group: "apps", resource: "deployments", name: None };
    poll("the permission", PATIENCE, || async { Ok(may(&operator, &site.namespace, &right).await.then_some(())) })
        .await
        .unwrap();
}

fn workload(kind: WorkloadKind, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind.as_str(), "metadata": {"name": name, "annotations": {"theirs": "x"}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"theirs": "x"}},
                "spec": {"containers": [{"name": "main", "image": "example.com/none"}]},
            },
        },
    });
    if kind == WorkloadKind::StatefulSet {
        object["spec"]["serviceName"] = json!(name);
    }
    object
}

pub(super) async fn create(site: &Site, kind: WorkloadKind, name: &str) {
    let (client, namespace, params) = (site.client.clone(), &site.namespace, PostParams::default());
    let manifest = workload(kind, name);
    match kind {
        WorkloadKind::Deployment => {
            drop(Api::<Deployment>::namespaced(client, namespace).create(&params, &object(manifest)).await.unwrap());
        }
        WorkloadKind::StatefulSet => {
            drop(Api::<StatefulSet>::namespaced(client, namespace).create(&params, &object(manifest)).await.unwrap());
        }
        WorkloadKind::DaemonSet => {
            drop(Api::<DaemonSet>::namespaced(client, namespace).create(&params, &object(manifest)).await.unwrap());
        }
    }
}

/// A workload as JSON.
async fn live(site: &Site, workload: &Workload) -> Value {
    let (client, namespace, name) = (site.client.clone(), &site.namespace, &workload.name);
    match workload.kind {
        WorkloadKind::Deployment => json!(Api::<Deployment>::namespaced(client, namespace).get(name).await.unwrap()),
        WorkloadKind::StatefulSet => json!(Api::<StatefulSet>::namespaced(client, namespace).get(name).await.unwrap()),
        WorkloadKind::DaemonSet => json!(Api::<DaemonSet>::namespaced(client, namespace).get(name).await.unwrap()),
    }
}

/// The mark of an object on the pod template of a workload, and on its metadata.
fn marks(live: &Value, object: &str) -> [Option<String>; 2] {
    let key = restarts::key(object);
    ["/spec/template/metadata/annotations", "/metadata/annotations"]
        .map(|pointer| Some(live.pointer(pointer)?.get(&key)?.as_str()?.to_owned()))
}

/// Whether the pod template is as the test wrote it.
fn is_not_restarted(live: &Value) -> bool {
    live["spec"]["template"]["metadata"]["annotations"] == json!({"theirs": "x"})
}

/// Waits until a workload has these marks of an object.
pub(super) async fn marked(site: &Site, workload: &Workload, object: &str, expected: [Option<String>; 2]) -> Value {
    let what = format!("{workload} to have the marks {expected:?}");
    let found = poll(&what, PATIENCE, || async {
        let live = live(site, workload).await;
        Ok((marks(&live, object) == expected).then_some(live))
    });
    found.await.unwrap()
}

pub(super) fn shop(kind: WorkloadKind) -> Workload {
    Workload { kind, name: "shop".to_owned() }
}

fn spec(name: &str, value: &str, workloads: &[Workload]) -> Value {
    json!({"name": name, "value": value, "target": {"restart": workloads}})
}

async fn start(site: &Site) -> Running {
    Setup { restarts: true, ..Setup::of(&site.namespace) }.start().await
}

async fn version(site: &Site, name: &str, version: i64) {
    site.until(name, &format!("version {version}"), |object| status(object).version == Some(version)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_restarts_each_workload_once() {
    let site = Site::new("restarts").await;
    permit(&site).await;
    let workloads = WorkloadKind::ALL.map(shop);
    for workload in &workloads {
        create(&site, workload.kind, &workload.name).await;
    }
    let [first, second] = [site.seal("db", "one").await, site.seal("db", "two").await];
    let operator = start(&site).await;
    site.apply("db", json!({"name": "DB", "value": first})).await;
    let object = site.in_step("db").await;
    let mark = |version: i64| Some(format!("{}/{version}", id(&object)));

    // Naming a workload restarts nothing: the mark is on its own metadata, and its template stays.
    site.apply("db", spec("DB", &first, &workloads)).await;
    for workload in &workloads {
        let live = marked(&site, workload, "db", [None, mark(1)]).await;
        assert!(is_not_restarted(&live), "{workload}");
    }
    site.apply("db", spec("DB", &second, &workloads)).await;
    for workload in &workloads {
        let live = marked(&site, workload, "db", [mark(2), mark(2)]).await;
        assert_eq!(live["metadata"]["annotations"]["theirs"], "x");
        assert_eq!(live["spec"]["template"]["metadata"]["annotations"]["theirs"], "x");
        let managers = live["metadata"]["managedFields"].as_array().unwrap();
        let ours: Vec<_> = managers.iter().filter(|entry| entry["manager"] == "managed-secrets-restarts").collect();
        assert_eq!(ours.len(), 1);
        let key = restarts::key("db");
        assert_eq!(
            ours[0]["fieldsV1"],
            json!({
                "f:metadata": {"f:annotations": {format!("f:{key}"): {}}},
                "f:spec": {"f:template": {"f:metadata": {"f:annotations": {format!("f:{key}"): {}}}}},
            }),
            "these two fields, and no other"
        );
    }
    let events = poll("an event for each", PATIENCE, || async {
        let events = site.events("db", "WorkloadRestarted").await;
        Ok((events.len() == 3).then_some(events))
    });
    assert!(events.await.unwrap().iter().any(|note| note == "restarted Deployment shop for version 2"));
    assert_eq!(conditions(&site.get("db").await), ["Ready"]);

    // Not because of a description, an edited target, or a restart of the operator.
    let mut described = spec("DB", &second, &workloads);
    described["description"] = json!("other");
    site.apply("db", described).await;
    site.in_step("db").await;
    site.intrude("db", json!({"stringData": {"value": "edited"}})).await;
    site.delivers("db", "value", "two").await;
    // Nor because a rollout was undone, which puts back the older mark.
    let undone = json!({"spec": {"template": {"metadata": {"annotations": {restarts::key("db"): mark(1)}}}}});
    let deployments = Api::<Deployment>::namespaced(site.client.clone(), &site.namespace);
    deployments.patch("shop", &PatchParams::default(), &Patch::Merge(undone)).await.unwrap();
    operator.stop().await;
    let operator = start(&site).await;
    // One that comes later and shares a workload is marked; so the others were looked at.
    site.apply(
        "marker",
        json!({"name": "MARKER", "generate": {}, "target": {"restart": [shop(WorkloadKind::Deployment)]}}),
    )
    .await;
    let marker = site.in_step("marker").await;
    let live = marked(&site, &workloads[0], "marker", [None, Some(format!("{}/1", id(&marker)))]).await;
    assert_eq!(marks(&live, "db"), [mark(1), mark(2)]);
    assert_eq!(marks(&live, "marker")[0], None);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_version_restarts_a_workload_once_and_so_does_the_newest_after_it() {
    let site = Site::new("restarts-back").await;
    permit(&site).await;
    create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = shop(WorkloadKind::Deployment);
    let [first, second, third] =
        [site.seal("db", "one").await, site.seal("db", "two").await, site.seal("db", "three").await];
    let operator = start(&site).await;
    let version = |value: &str, version: Option<i64>| {
        let mut spec = spec("DB", value, std::slice::from_ref(&workload));
        spec["history"] = json!(3);
        if let Some(version) = version {
            spec["version"] = json!(version);
        }
        spec
    };
    site.apply("db", version(&first, None)).await;
    let object = site.in_step("db").await;
    let mark = |version: i64| Some(format!("{}/{version}", id(&object)));
    marked(&site, &workload, "db", [None, mark(1)]).await;
    site.apply("db", version(&second, None)).await;
    marked(&site, &workload, "db", [mark(2), mark(2)]).await;
    site.apply("db", version(&second, Some(1))).await;
    marked(&site, &workload, "db", [mark(1), mark(1)]).await;

    // A newer value is not delivered, so it restarts nothing; neither does a restart of the operator.
    site.apply("db", version(&third, Some(1))).await;
    site.in_step("db").await;
    operator.stop().await;
    let operator = start(&site).await;
    site.apply("marker", json!({"name": "MARKER", "generate": {}, "target": {"restart": [workload]}})).await;
    let marker = site.in_step("marker").await;
    let live = marked(&site, &workload, "marker", [None, Some(format!("{}/1", id(&marker)))]).await;
    assert_eq!(marks(&live, "db"), [mark(1), mark(1)]);
    // An annotation counts as a generation, too.
    let writes = "created, named, the second version, the first one again, the marker";
    assert_eq!(live["metadata"]["generation"], 5, "{writes}");

    site.apply("db", version(&third, None)).await;
    let live = marked(&site, &workload, "db", [mark(3), mark(3)]).await;
    assert_eq!(live["metadata"]["generation"], 6);

    // The rollout is undone, so the template has the mark of the first version, and then the secret goes back to it.
    let undone = json!({"spec": {"template": {"metadata": {"annotations": {restarts::key("db"): mark(1)}}}}});
    let deployments = Api::<Deployment>::namespaced(site.client.clone(), &site.namespace);
    deployments.patch("shop", &PatchParams::default(), &Patch::Merge(undone)).await.unwrap();
    site.apply("db", version(&third, Some(1))).await;
    let again = mark(1).map(|mark| mark + "/again");
    let live = marked(&site, &workload, "db", [again, mark(1)]).await;
    assert_eq!(live["metadata"]["generation"], 8, "the pods are restarted");
    operator.stop().await;
}

/// Holds back the answers to reads of Deployments once `armed`, until `released`.
fn holds_reads(armed: &CancellationToken, released: &CancellationToken) -> Arc<Tap> {
    let (armed, released) = (armed.clone(), released.clone());
    Tap::new(move |_, request| {
        let reads = request.method() == Method::GET && request.uri().path().contains("/deployments/");
        if reads && armed.is_cancelled() { Fault::Late(released.clone()) } else { Fault::Pass }
    })
}

/// Waits until so many reads of Deployments were answered.
pub(super) async fn until_read(tap: &Tap, times: usize) {
    let answered = |seen: &Seen| seen.method == "GET" && seen.path.contains("/deployments/") && seen.code == 200;
    poll("a read of the workload", PATIENCE, || async {
        Ok((tap.seen().iter().filter(|seen| answered(seen)).count() >= times).then_some(()))
    })
    .await
    .unwrap();
}

/// The answers to all writes of Deployments.
fn written(tap: &Tap) -> Vec<u16> {
    let mut seen = tap.seen();
    seen.retain(|seen| seen.is_write() && seen.path.contains("/deployments/"));
    seen.iter().map(|seen| seen.code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_come_before_a_workload_is_read_are_one_restart_and_cost_one_write() {
    let site = Site::new("restarts-together").await;
    permit(&site).await;
    create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = shop(WorkloadKind::Deployment);
    let (armed, released) = (CancellationToken::new(), CancellationToken::new());
    let tap = holds_reads(&armed, &released);
    let names = ["one", "two", "three"];
    let mut values = Vec::new();
    for name in names {
        values.push([site.seal(name, "first").await, site.seal(name, "second").await]);
    }
    let operator = Setup { restarts: true, ..Setup::of(&site.namespace) }.calls(&tap).start().await;
    let mut ids = Vec::new();
    for (name, [first, _]) in names.iter().zip(&values) {
        site.apply(name, spec(&name.to_uppercase(), first, std::slice::from_ref(&workload))).await;
        ids.push(id(&site.in_step(name).await));
        marked(&site, &workload, name, [None, Some(format!("{}/1", ids.last().unwrap()))]).await;
    }
    let before = written(&tap).len();
    armed.cancel();
    for (name, [_, second]) in names.iter().zip(&values) {
        let mut spec = spec(&name.to_uppercase(), second, std::slice::from_ref(&workload));
        site.apply(name, spec.clone()).await;
        version(&site, name, 2).await;
        // Once a later pass is over, what the pass of the value delivered is known.
        spec["description"] = json!("other");
        site.apply(name, spec).await;
        site.in_step(name).await;
    }
    released.cancel();
    for (name, id) in names.iter().zip(&ids) {
        let mark = Some(format!("{id}/2"));
        marked(&site, &workload, name, [mark.clone(), mark]).await;
    }
    assert_eq!(written(&tap)[before..], [200]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_changes_after_it_was_read_is_read_again() {
    let site = Site::new("restarts-conflict").await;
    permit(&site).await;
    create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = shop(WorkloadKind::Deployment);
    let (armed, released) = (CancellationToken::new(), CancellationToken::new());
    let tap = holds_reads(&armed, &released);
    armed.cancel();
    let operator = Setup { restarts: true, ..Setup::of(&site.namespace) }.calls(&tap).start().await;
    let value = site.seal("db", "one").await;
    site.apply("db", spec("DB", &value, std::slice::from_ref(&workload))).await;
    until_read(&tap, 1).await;
    let edit = Patch::Merge(json!({"metadata": {"annotations": {"theirs": "y"}}}));
    let deployments = Api::<Deployment>::namespaced(site.client.clone(), &site.namespace);
    deployments.patch("shop", &PatchParams::default(), &edit).await.unwrap();
    released.cancel();
    let object = site.in_step("db").await;
    marked(&site, &workload, "db", [None, Some(format!("{}/1", id(&object)))]).await;
    assert_eq!(written(&tap), [409, 200]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_delivery_and_restart_loses_nothing() {
    let site = Site::new("restarts-crash").await;
    permit(&site).await;
    create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = shop(WorkloadKind::Deployment);
    let [first, second] = [site.seal("db", "one").await, site.seal("db", "two").await];
    let operator = start(&site).await;
    site.apply("db", spec("DB", &first, std::slice::from_ref(&workload))).await;
    let object = site.in_step("db").await;
    marked(&site, &workload, "db", [None, Some(format!("{}/1", id(&object)))]).await;
    operator.stop().await;
    // Without restarts it delivers, and restarts nothing: as one that ended in between.
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", spec("DB", &second, std::slice::from_ref(&workload))).await;
    version(&site, "db", 2).await;
    operator.kill().await;
    assert!(is_not_restarted(&live(&site, &workload).await));
    let operator = start(&site).await;
    let mark = Some(format!("{}/2", id(&object)));
    marked(&site, &workload, "db", [mark.clone(), mark]).await;
    operator.stop().await;
}

/// The first use of the field: the workload has no mark yet, and gets that of the version before as soon as the new one is
/// delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_restart_where_a_workload_is_named_together_with_a_new_value() {
    let site = Site::new("restarts-first").await;
    permit(&site).await;
    create(&site, WorkloadKind::Deployment, "shop").await;
    let workload = shop(WorkloadKind::Deployment);
    let [first, second] = [site.seal("db", "one").await, site.seal("db", "two").await];
    let operator = start(&site).await;
    site.apply("db", json!({"name": "DB", "value": first})).await;
    let object = site.in_step("db").await;
    let mark = |version: i64| Some(format!("{}/{version}", id(&object)));
    site.apply("db", spec("DB", &second, std::slice::from_ref(&workload))).await;
    let live = marked(&site, &workload, "db", [None, mark(1)]).await;
    operator.kill().await;
    assert!(is_not_restarted(&live), "it waits for other values");
    let operator = start(&site).await;
    marked(&site, &workload, "db", [mark(2), mark(2)]).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_is_missing_or_refused_is_said_and_the_value_is_delivered() {
    let site = Site::new("restarts-missing").await;
    let workload = shop(WorkloadKind::Deployment);
    let long = "l".repeat(100);
    let blocked = async |reason: Option<&str>, part: &str| {
        site.until(&long, &format!("{reason:?} {part}"), |object| {
            let said = status(object).conditions.unwrap_or_default();
            let said = said.into_iter().find(|condition| condition.type_ == keys::CONDITION_RESTART_BLOCKED);
            said.as_ref().map(|said| said.reason.as_str()) == reason
                && said.is_none_or(|said| said.status == "True" && said.message.contains(part))
        })
        .await
    };
    let [first, second] = [site.seal(&long, "one").await, site.seal(&long, "two").await];
    let apply = async |value: &str| site.apply(&long, spec("LONG", value, std::slice::from_ref(&workload))).await;

    // The installation does not restart workloads.
    let operator = Setup::of(&site.namespace).start().await;
    apply(&first).await;
    let object = blocked(Some("RestartsOff"), "--restarts").await;
    site.delivers(&long, "value", "one").await;
    operator.stop().await;
    // It may not.
    let operator = start(&site).await;
    blocked(Some("RestartRefused"), "may not get deployments.apps").await;
    operator.stop().await;
    // It does not exist.
    permit(&site).await;
    let tap = Tap::recording();
    let operator = Setup { restarts: true, ..Setup::of(&site.namespace) }.calls(&tap).start().await;
    blocked(Some("WorkloadNotFound"), "Deployment shop not found").await;
    let missed = || tap.seen().iter().filter(|seen| seen.path.contains("/deployments/") && seen.code == 404).count();
    apply(&second).await;
    version(&site, &long, 2).await;
    site.delivers(&long, "value", "two").await;
    // Once a look is over that follows a later pass, it is known that the workload does not exist at this delivery.
    let mut described = spec("LONG", &second, std::slice::from_ref(&workload));
    described["description"] = json!("other");
    site.apply(&long, described).await;
    site.in_step(&long).await;
    let before = missed();
    poll("a look after the delivery", PATIENCE, || async { Ok((missed() > before).then_some(())) }).await.unwrap();
    // It is created, and looked at with the next pass. The name of the object is too long for an annotation.
    create(&site, WorkloadKind::Deployment, "shop").await;
    site.nudge(&long).await;
    let mark = Some(format!("{}/2", id(&object)));
    let live = marked(&site, &workload, &long, [None, mark]).await;
    assert!(is_not_restarted(&live), "its pods have the new value");
    let free = blocked(None, "").await;
    assert_eq!(conditions(&free), ["Ready"]);
    // Deleted again.
    Api::<Deployment>::namespaced(site.client.clone(), &site.namespace)
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    site.apply(&long, spec("LONG", &first, std::slice::from_ref(&workload))).await;
    blocked(Some("WorkloadNotFound"), "not found").await;
    operator.stop().await;
}

/// What a user of the test below has.
const RIGHTS: [Right; 3] = [
    Right { verb: "patch", group: "apps", resource: "deployments", name: Some("shop") },
    Right { verb: "patch", group: "apps", resource: "statefulsets", name: Some("db") },
    Right { verb: "get", group: "", resource: "secrets", name: None },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_names_a_workload_must_be_allowed_to_patch_it() {
    let site = Site::new("restart-rights").await;
    let editor = installation::editor(&site.namespace, &RIGHTS).await;
    let objects = Api::<managed_secrets_api::ManagedSecret>::namespaced(editor, &site.namespace);
    let named = |names: &[(&str, &str)]| -> Value {
        names.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect()
    };
    let manifest = |restart: Value| {
        object(
            json!({"metadata": {"name": "db"}, "spec": {"name": "DB", "generate": {}, "target": {"restart": restart}}}),
        )
    };
    let (shop, db) = (("Deployment", "shop"), ("StatefulSet", "db"));
    let refusals = [
        (vec![("Deployment", "other")], "cannot patch resource \"deployments\" in API group \"apps\" named \"other\""),
        (
            vec![shop, ("DaemonSet", "shop")],
            "cannot patch resource \"daemonsets\" in API group \"apps\" named \"shop\"",
        ),
        (
            vec![shop, db, shop, db, shop, db, shop, ("StatefulSet", "shop")],
            "\"statefulsets\" in API group \"apps\" named \"shop\"",
        ),
    ];
    for (names, text) in refusals {
        let refused = objects.create(&installation::dry_run(), &manifest(named(&names))).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(text), "{names:?}: {error}");
    }
    let all = named(&[shop, db, shop, db, shop, db, shop, db]);
    objects.create(&installation::dry_run(), &manifest(all)).await.unwrap();
    // What an administrator has named stays, and may be left out.
    let by_admin = named(&[("Deployment", "other"), shop]);
    site.objects().create(&PostParams::default(), &manifest(by_admin.clone())).await.unwrap();
    let patch =
        async |spec: Value| objects.patch("db", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await;
    patch(json!({"description": "x"})).await.unwrap();
    patch(json!({"target": {"restart": named(&[db, ("Deployment", "other")])}})).await.unwrap();
    let refused = patch(json!({"target": {"restart": named(&[("Deployment", "another")])}})).await.unwrap_err();
    assert!(refused.to_string().contains("named \"another\""), "{refused}");
    let left = patch(json!({"target": {"restart": null}})).await.unwrap();
    assert!(left.spec.target.as_ref().is_none_or(|target| target.restart.is_none()) && left.name_any() == "db");
}
