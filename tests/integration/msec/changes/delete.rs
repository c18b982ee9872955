//! `delete`: who uses it, what stays, and that nothing else is deleted than what was looked at.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::poll;

use super::{may, objects, place};
use crate::integration::{
    msec::{terminal::Terminal, user_with},
    objects::{Site, message, status},
    operator::PATIENCE,
};

/// A pod with this spec, which nothing runs: it waits, as it would on a cluster without room.
pub(crate) async fn pod(site: &Site, name: &str, more: Value) {
    let mut spec = json!({
        "automountServiceAccountToken": false, "containers": [{"name": "app", "image": "example.com/app"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    let pods = Api::<Pod>::namespaced(site.client.clone(), &site.namespace);
    // A pod needs the namespace's service account, which a controller makes.
    poll("the pod to be accepted", PATIENCE, || async {
        match pods.create(&PostParams::default(), &pod).await {
            Ok(_) => Ok(Some(())),
            Err(kube::Error::Api(status)) if status.message.contains("serviceaccount") => Ok(None),
            Err(error) => panic!("{error}"),
        }
    })
    .await
    .unwrap();
}

/// A pod that mounts a Secret.
pub(crate) async fn mounts(site: &Site, name: &str, secret: &str) {
    pod(site, name, json!({"volumes": [{"name": "credentials", "secret": {"secretName": secret}}]})).await;
}

async fn ends(site: &Site, name: &str) {
    let pods = Api::<Pod>::namespaced(site.client.clone(), &site.namespace);
    let patch = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_use_is_deleted_only_by_somebody_who_knows() {
    let (site, operator, plugin) = place("in-use").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    let object = site.served("db").await;
    let record = status(&object).record.unwrap().name;
    mounts(&site, "web", "db").await;
    mounts(&site, "other", "another").await;
    mounts(&site, "done", "db").await;
    ends(&site, "done").await;
    let env = json!([{"name": "first", "image": "example.com/app", "envFrom": [{"secretRef": {"name": "db"}}]}]);
    pod(&site, "job", json!({"initContainers": env})).await;

    let refused = plugin.run(&["delete", "DB"]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    assert_eq!(
        refused.err,
        "warning: Secret db is used by pod/job (variables of container first)\n\
         warning: Secret db is used by pod/web (volume credentials)\n\
         error: msec/db is not deleted: no terminal to ask for confirmation; read the warnings and use --yes\n"
    );
    let goes =
        format!("the effective policy is Delete: Kubernetes also deletes the record {record} and the Secret db\n");
    for (mode, suffix) in [("client", " (dry run)"), ("server", " (server dry run)")] {
        let dry = plugin.run(&["delete", "DB", "--dry-run", mode]).await;
        assert_eq!(dry.ok(), format!("managedsecret.managedsecrets.dev/db deleted{suffix}\n{goes}"));
        assert!(dry.err.contains("pod/web"), "{dry:?}");
    }
    assert_eq!(site.get("db").await.metadata.resource_version, object.metadata.resource_version);

    let done = plugin.run(&["delete", "DB", "--yes"]).await;
    assert_eq!(done.ok(), format!("managedsecret.managedsecrets.dev/db deleted\n{goes}"));
    assert_eq!(objects(&site).await, [""; 0]);
    site.gone("db").await;
    site.gone(&record).await;
    let absent = plugin.run(&["delete", "DB", "--yes"]).await;
    assert!(absent.error(1).contains("secret \"DB\" not found"), "{absent:?}");
    operator.stop().await;
}

/// Creates an object of any kind, as group, version, kind and plural, in the namespace.
pub(super) async fn create(
    site: &Site,
    (group, version, kind, plural): (&str, &str, &str, &str),
    name: &str,
    fields: Value,
) {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let mut object = DynamicObject::new(name, &resource);
    object.data = fields;
    let api = Api::<DynamicObject>::namespaced_with(site.client.clone(), &site.namespace, &resource);
    api.create(&PostParams::default(), &object).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_uses_a_secret_is_named_before_it_is_deleted() {
    let (site, operator, plugin) = place("used").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    let env = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "value"}}}]);
    let container = |more: Value| {
        let mut container = json!({"name": "app", "image": "example.com/app"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"containers": [container]})
    };
    let labelled = |pod: Value| json!({"metadata": {"labels": {"app": "x"}}, "spec": pod});
    let workload = |more: Value| {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "x"}},
            "template": labelled(container(json!({"envFrom": [{"secretRef": {"name": "db"}}]}))),
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"spec": spec})
    };
    let zero = json!({"replicas": 0});
    create(&site, ("apps", "v1", "Deployment", "deployments"), "web", workload(zero.clone())).await;
    create(&site, ("apps", "v1", "StatefulSet", "statefulsets"), "store", workload(zero)).await;
    // A Deployment makes a ReplicaSet, which is not named beside it.
    let mut nightly = container(json!({"env": env}));
    nightly["restartPolicy"] = json!("Never");
    let template = json!({"spec": {"template": {"spec": nightly}}});
    create(
        &site,
        ("batch", "v1", "CronJob", "cronjobs"),
        "nightly",
        json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": template}}),
    )
    .await;
    let pulls = json!({"imagePullSecrets": [{"name": "db"}]});
    create(&site, ("", "v1", "ServiceAccount", "serviceaccounts"), "puller", pulls).await;
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    create(
        &site,
        ("networking.k8s.io", "v1", "Ingress", "ingresses"),
        "edge",
        json!({"spec": {"defaultBackend": backend, "tls": [{"secretName": "db"}]}}),
    )
    .await;
    let from = json!({"secretKeyRef": {"name": "db", "key": "value"}});
    site.apply("follower", json!({"name": "FOLLOWER", "valueFrom": from})).await;
    site.served("follower").await;

    let users = [
        "deployment/web (variables of container app)",
        "statefulset/store (variables of container app)",
        "cronjob/nightly (variable TOKEN of container app)",
        "serviceaccount/puller (image pulls)",
        "ingress/edge (TLS)",
        "managedsecret/follower (valueFrom)",
    ];
    let refused = plugin.run(&["delete", "DB"]).await;
    let warnings = users.map(|user| format!("warning: Secret db is used by {user}\n")).concat();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.starts_with(&format!("{warnings}error: msec/db is not deleted")), "{refused:?}");
    let described = plugin.run(&["describe", "DB"]).await.ok();
    assert!(described.contains(&format!("Used by:\n  {}\n", users.join("\n  "))), "{described}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_secrets_id_and_anothers_name_is_neither() {
    let (site, operator, plugin) = place("ambiguous").await;
    plugin.run(&["create", "A", "--generate"]).await.ok();
    let id = status(&site.get("a").await).id.unwrap();
    let trap = plugin.run(&["create", &id, "--generate", "--object-name", "trap"]).await;
    assert!(trap.err.starts_with("warning: ") && trap.err.contains("looks like an id"), "{trap:?}");
    trap.ok();
    for command in
        [&["value"][..], &["get"], &["describe"], &["export"], &["delete", "--yes"], &["update", "--name", "B"]]
    {
        let ran = plugin.run(&[command, &[id.as_str()]].concat()).await;
        let says = format!("{id} is ambiguous: it is the id of msec/a and the name of msec/trap; name the object as");
        assert!(ran.error(1).contains(&says), "{command:?}: {ran:?}");
    }
    assert_eq!(objects(&site).await, ["a", "trap"]);
    plugin.run(&["delete", "msec/trap", "--yes"]).await.ok();
    plugin.run(&["value", &id]).await.ok();
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_is_said_by_the_policy_in_force() {
    let (site, operator, plugin) = place("stays").await;
    site.apply("kept", json!({"name": "KEPT", "generate": {}, "deletionPolicy": "Retain"})).await;
    let record = status(&site.served("kept").await).record.unwrap().name;
    // Nobody uses it: nothing to ask.
    let out = plugin.run(&["delete", "KEPT"]).await.ok();
    assert_eq!(
        out,
        format!(
            "managedsecret.managedsecrets.dev/kept deleted\n\
             the effective policy is Retain: Kubernetes keeps the record {record} and the Secret kept\n\
             the name KEPT stays taken until the record is deleted: kubectl delete secret {record}\n"
        )
    );
    assert!(site.secret("kept").await.is_some() && site.secret(&record).await.is_some());
    plugin.run(&["create", "KEPT", "--generate", "--object-name", "new", "--wait=false"]).await.ok();
    let why = message(&site.reports("new", "False", "NameInUse").await);
    assert!(why.contains(&record), "{why}");

    // Wanted, but not effective: what should stay would be deleted.
    site.apply("wish", json!({"name": "WISH", "generate": {}})).await;
    site.served("wish").await;
    operator.stop().await;
    site.apply("wish", json!({"name": "WISH", "generate": {}, "deletionPolicy": "Retain"})).await;
    let refused = plugin.run(&["delete", "WISH"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.starts_with("warning: spec.deletionPolicy is Retain but not effective yet"), "{refused:?}");
    let out = plugin.run(&["delete", "WISH", "-y"]).await.ok();
    assert!(out.contains("the effective policy is Delete") && out.contains("and the Secret wish\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_list_pods_is_told_that_it_is_unknown() {
    let (site, operator, plugin) = place("unknown").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    let user = user_with(&site, &[may(&["get", "list", "delete"])]).await;
    let limited = plugin.impersonating(&user);
    let refused = limited.run(&["delete", "DB"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.starts_with(&format!(
            "warning: it is unknown whether Secret db is used by pods, deployments.apps, statefulsets.apps, \
             daemonsets.apps, replicasets.apps, replicationcontrollers, cronjobs.batch, jobs.batch, serviceaccounts, \
             ingresses.networking.k8s.io: permission denied: check `kubectl auth can-i list pods -n {}`, and likewise \
             for the others\n\
             error: msec/db is not deleted",
            site.namespace
        )),
        "{refused:?}"
    );
    limited.run(&["delete", "DB", "--yes"]).await.ok();

    site.apply("db", json!({"name": "DB", "generate": {}, "delivery": "None"})).await;
    site.served("db").await;
    let viewer = user_with(&site, &[may(&["get", "list"])]).await;
    // A secret that is not delivered has no users, whatever the user may read.
    let forbidden = plugin.impersonating(&viewer).run(&["delete", "DB"]).await;
    let right = format!("kubectl auth can-i delete managedsecrets.managedsecrets.dev/db -n {}", site.namespace);
    assert!(forbidden.error(1).contains(&right), "{forbidden:?}");
    assert_eq!(objects(&site).await, ["db"]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_and_what_changes_meanwhile_is_not_deleted() {
    let (site, operator, plugin) = place("asked").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    mounts(&site, "web", "db").await;
    let question = "Delete msec/db? [y/N] ";

    for answer in ["", "n", "DB"] {
        let mut terminal = Terminal::run(&plugin, &["delete", "DB"]);
        terminal.shows(question).await;
        assert!(terminal.text().contains("used by pod/web (volume credentials)"), "{}", terminal.text());
        terminal.types(answer);
        let (code, shown) = terminal.end().await;
        assert!(code == 1 && shown.contains("error: msec/db is not deleted: the answer was no"), "{shown}");
    }

    // The answer was about what is no longer so.
    let mut terminal = Terminal::run(&plugin, &["delete", "DB"]);
    terminal.shows(question).await;
    site.apply("db", json!({"name": "DB", "generate": {}, "deletionPolicy": "Retain"})).await;
    site.served("db").await;
    terminal.types("y");
    let (code, shown) = terminal.end().await;
    assert!(code == 1 && shown.contains("error: msec/db has changed since the command read it"), "{shown}");
    assert_eq!(objects(&site).await, ["db"]);

    // Another write is none of its business.
    let mut terminal = Terminal::run(&plugin, &["delete", "DB"]);
    terminal.shows(question).await;
    site.nudge("db").await;
    terminal.types("Yes");
    let (code, shown) = terminal.end().await;
    assert!(code == 0 && shown.contains("managedsecret.managedsecrets.dev/db deleted\r\n"), "{shown}");
    assert_eq!(objects(&site).await, [""; 0]);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_says_which_finalizer_holds_it() {
    let (site, operator, plugin) = place("held").await;
    site.apply("db", json!({"name": "DB", "generate": {}})).await;
    site.served("db").await;
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    site.objects().patch("db", &PatchParams::default(), &hold(json!(["example.com/hold"]))).await.unwrap();
    let kept = plugin.run(&["delete", "DB", "--timeout", "1s"]).await;
    assert!(kept.error(1).contains("still exists after 1s; its finalizers are [example.com/hold]"), "{kept:?}");
    plugin.run(&["delete", "DB", "--wait=false"]).await.ok();
    site.objects().patch("db", &PatchParams::default(), &hold(json!(null))).await.unwrap();
    operator.stop().await;
}
