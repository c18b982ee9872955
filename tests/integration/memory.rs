//! What one tenant can put into the operator's memory: less than the Deployment gives it, at its start and while it runs,
//! with all admission policies on sizes left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use futures::{StreamExt as _, stream};
use k8s_openapi::api::{core::v1::Secret, rbac::v1::RoleBinding};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use managed_secrets::install::manifests::{self, Options, PolicySwitch};
use managed_secrets_api::{
    ManagedSecret,
    keys::{ANNO_DESCRIPTION, ANNO_OWNER, FIELD_MANAGER, GROUP, KIND, LABEL_ROLE, OPERATOR_NAME, ROLE_TARGET, VERSION},
    limits::ANNOTATIONS_BYTES_MAX,
};
use serde_json::{Map, Value, json};
use testkit::{ControlPlane, Operator, poll};

use crate::integration::{
    installation::{self, OPERATOR_NAMESPACE, PATIENCE, object},
    objects::{Site, largest_metadata},
    program::PROGRAM,
};

const TENANT: &str = "tenant";
/// The ClusterRole that may edit ManagedSecrets.
const EDITOR: &str = "managedsecret-editor";
/// Bytes of annotations of one object: nearly what Kubernetes allows.
const ANNOTATIONS: usize = 250_000;
/// Requests of a tenant at the same time.
const AT_ONCE: usize = 4;
/// Large ManagedSecrets: 78 MiB of text. More of them would keep the API server busy for minutes.
const HEAVY_OBJECTS: usize = 150;
/// Large Secrets with the label of a role: with those below, 73 MiB of text.
const HEAVY_SECRETS: usize = 200;
/// Those with the label of targets, and the operator as their field manager.
const HEAVY_TARGETS: usize = 60;
/// The most memory that large objects may take, in KiB: less than the text of all of one kind.
const GROWTH: u64 = 60 << 10;

/// Labels of about this many bytes, with what server-side apply notes of them.
fn labels(bytes: usize) -> Map<String, Value> {
    (0..bytes / 90).map(|n| (format!("l{n}"), json!("x".repeat(63)))).collect()
}

/// 544 kB of metadata: annotations, labels, and the field manager's notes of both.
fn heavy_object(n: usize) -> ManagedSecret {
    let object = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
        "metadata": {
            "name": format!("heavy-{n}"), "namespace": TENANT,
            "annotations": {"filler": "x".repeat(ANNOTATIONS)}, "labels": labels(310_000),
        },
        "spec": {"name": format!("HEAVY_{n}"), "generate": {}},
    });
    serde_json::from_value(object).unwrap()
}

/// A Secret that claims a role, as large as it can be.
fn heavy_secret(name: &str, role: &str) -> Value {
    // Many small ones, of which each costs more than its text.
    let mut annotations: Map<String, Value> = (0..ANNOTATIONS / 40).map(|n| (format!("a{n}"), json!("x"))).collect();
    annotations.insert(ANNO_OWNER.to_owned(), json!("nothing"));
    annotations.insert(ANNO_DESCRIPTION.to_owned(), json!("x".repeat(ANNOTATIONS / 2)));
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": TENANT, "labels": {LABEL_ROLE: role}, "annotations": annotations},
    })
}

async fn all_at_once<F: Future>(calls: impl Iterator<Item = F>) {
    stream::iter(calls).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
}

/// A client of a user who has these roles in these namespaces, and nothing else.
async fn editor(control_plane: &ControlPlane, namespaces: &[&str], roles: &[&str]) -> Client {
    let admin = control_plane.access().admin_client().await.unwrap();
    for (namespace, role) in namespaces.iter().flat_map(|namespace| roles.iter().map(move |role| (namespace, role))) {
        let bindings = Api::<RoleBinding>::namespaced(admin.clone(), namespace);
        let binding = json!({
            "metadata": {"name": format!("editor-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "editor"}],
        });
        bindings.create(&PostParams::default(), &object(binding)).await.unwrap();
    }
    control_plane.access().client_as("editor", &[]).await.unwrap()
}

/// The most memory that a program has ever held, in KiB.
fn peak(operator: &Operator) -> u64 {
    operator.peak_memory().unwrap()
}

/// What the Deployment gives it, in KiB.
pub(super) fn limit() -> u64 {
    let objects = manifests::manifests(&Options::default());
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let limit = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
    limit.as_str().unwrap().strip_suffix("Mi").unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_fills_the_memory_of_the_operator() {
    let options = Options { without_policies: vec![PolicySwitch::MetadataSize], ..installation::options() };
    let control_plane = installation::install(&options, &[TENANT, "other"]).await.unwrap();
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let admin = control_plane.access().admin_client().await.unwrap();
    let site = |namespace: &str| Site { namespace: namespace.to_owned(), client: admin.clone() };
    let (tenant, other) = (site(TENANT), site("other"));
    let start = || Operator::start(&control_plane, PROGRAM, &kubeconfig, &[]);
    let mut seen = Vec::new();
    let operator = start().await.unwrap();
    // A watch on all Secrets of the namespace.
    tenant.foreign_secret("upstream", &[("key", "value")]).await;
    let from = json!({"secretKeyRef": {"name": "upstream", "key": "key"}});
    tenant.apply("followed", json!({"name": "FOLLOWED", "valueFrom": from})).await;
    tenant.served("followed").await;
    seen.push(("before", peak(&operator)));

    let objects = Api::<ManagedSecret>::namespaced(editor(&control_plane, &[TENANT], &[EDITOR]).await, TENANT);
    poll("the editor's rights", PATIENCE, || async {
        Ok(objects.create(&PostParams::default(), &heavy_object(0)).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
    all_at_once((1..HEAVY_OBJECTS).map(|n| {
        let objects = objects.clone();
        async move { objects.create(&PostParams::default(), &heavy_object(n)).await.unwrap() }
    }))
    .await;
    let stored = objects.get("heavy-7").await.unwrap();
    let metadata = serde_json::to_string(&stored.metadata).unwrap().len();
    assert!(metadata >= 544_000, "{metadata} bytes");
    tenant.served(&format!("heavy-{}", HEAVY_OBJECTS - 1)).await;
    seen.push(("with the large ManagedSecrets", peak(&operator)));

    let secrets = Api::<Secret>::namespaced(admin.clone(), TENANT);
    let apply = async |name: String, role: &'static str, manager: &'static str| {
        let secret = heavy_secret(&name, role);
        secrets.patch(&name, &PatchParams::apply(manager), &Patch::Apply(&secret)).await.unwrap()
    };
    all_at_once((0..HEAVY_SECRETS).map(|n| apply(format!("x-{n}"), "x", "another"))).await;
    // Under the operator's own name, whatever the reason.
    all_at_once((0..HEAVY_TARGETS).map(|n| apply(format!("target-{n}"), ROLE_TARGET, FIELD_MANAGER))).await;
    tenant.intrude("upstream", json!({"data": {"key": "bmV3"}})).await;
    tenant.delivers("followed", "value", "new").await;
    seen.push(("with the large Secrets", peak(&operator)));
    assert_eq!(operator.stop().await.unwrap(), 0);

    // The next start lists all of it.
    let operator = start().await.unwrap();
    other.apply("small", json!({"name": "SMALL", "generate": {}})).await;
    other.served("small").await;
    tenant.intrude("upstream", json!({"data": {"key": "bmV3ZXI="}})).await;
    tenant.delivers("followed", "value", "newer").await;
    seen.push(("at the next start", peak(&operator)));
    println!("{seen:#?} of {}", limit());
    let before = seen[0].1;
    assert!(seen.iter().all(|(_, peak)| *peak < before + GROWTH), "{seen:#?}");
    assert_eq!(operator.stop().await.unwrap(), 0);
    an_object_that_is_too_large_can_be_made_smaller(&control_plane, &objects).await;
    control_plane.stop().await.unwrap();
}

/// As many objects as fill the limit with the labels and annotations that they ask for on their targets, made by an editor
/// of the namespace with all policies installed. Most are suspended, so that etcd holds each of them a few times only.
#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_fills_the_memory_with_what_specs_ask_for_on_targets() {
    let control_plane = installation::install(&installation::options(), &[TENANT, "other"]).await.unwrap();
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let admin = control_plane.access().admin_client().await.unwrap();
    let site = |namespace: &str| Site { namespace: namespace.to_owned(), client: admin.clone() };
    let (tenant, other) = (site(TENANT), site("other"));
    let start = || Operator::start(&control_plane, PROGRAM, &kubeconfig, &[]);
    let metadata = largest_metadata('a');
    let bytes = bytes_of(&metadata["labels"]) + bytes_of(&metadata["annotations"]);
    assert!(bytes >= ANNOTATIONS_BYTES_MAX + 24_000, "{bytes} bytes");
    let count = usize::try_from(limit()).unwrap() * 1024 / bytes + 1;
    let object = |n: usize| -> ManagedSecret {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            "metadata": {"name": format!("large-{n}"), "namespace": TENANT},
            "spec": {"name": format!("LARGE_{n}"), "generate": {}, "target": metadata, "suspend": !n.is_multiple_of(20)},
        });
        serde_json::from_value(object).unwrap()
    };
    let operator = start().await.unwrap();
    let mut seen = vec![("before", peak(&operator))];
    let objects = Api::<ManagedSecret>::namespaced(editor(&control_plane, &[TENANT], &[EDITOR, "edit"]).await, TENANT);
    poll("the editor's rights", PATIENCE, || async {
        Ok(objects.create(&PostParams::default(), &object(0)).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
    all_at_once((1..count).map(|n| {
        let (objects, object) = (objects.clone(), object(n));
        async move { objects.create(&PostParams::default(), &object).await.unwrap() }
    }))
    .await;
    for n in (0..count).step_by(20) {
        tenant.served(&format!("large-{n}")).await;
    }
    seen.push(("with all objects", peak(&operator)));
    assert_eq!(operator.stop().await.unwrap(), 0);

    let operator = start().await.unwrap();
    other.apply("small", json!({"name": "SMALL", "generate": {}})).await;
    other.served("small").await;
    // A user edits the target of one of them: the operator restores it with the text that no cache keeps.
    let key = metadata["annotations"].as_object().unwrap().keys().next().unwrap();
    tenant.intrude("large-0", json!({"metadata": {"annotations": {key: null}}})).await;
    poll("the annotation to come back", PATIENCE, || async {
        Ok(tenant.secret("large-0").await.filter(|secret| secret.annotations().contains_key(key)).map(drop))
    })
    .await
    .unwrap();
    seen.push(("at the next start", peak(&operator)));
    println!("{count} objects: {seen:#?} of {}", limit());
    assert!(seen.iter().all(|(_, peak)| *peak < limit() / 4 * 3), "{seen:#?} of {}", limit());
    assert_eq!(operator.stop().await.unwrap(), 0);
    control_plane.stop().await.unwrap();
}

/// As many distinct keys of three letters as one Secret can have.
fn dense_keys() -> impl Iterator<Item = String> {
    let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect::<Vec<char>>();
    let count = letters.len();
    (0..150_000_usize).map(move |n| [n / count / count, n / count, n].map(|n| letters[n % count]).iter().collect())
}

/// A Secret with the label of targets and a dense map at this place. Its `managedFields` are given up, which makes room for
/// more.
async fn dense_secret(site: &Site, name: &str, place: &str) {
    let labels = json!({LABEL_ROLE: ROLE_TARGET});
    let small = json!({"metadata": {"name": name, "labels": labels}, "type": "Opaque"});
    site.secrets().create(&PostParams::default(), &object(small)).await.unwrap();
    let mut large = json!({
        "metadata": {"name": name, "labels": labels, "managedFields": [{}]}, "type": "Opaque", "data": {},
    });
    let map = large.pointer_mut(place).unwrap().as_object_mut().unwrap();
    map.extend(dense_keys().map(|key| (key, json!(""))));
    site.secrets().replace(name, &PostParams::default(), &object(large)).await.unwrap();
}

/// Secrets as dense as they can be, which ManagedSecrets of two namespaces ask to adopt: every pass reads one live. The label
/// of targets shows them to a watch as well, and spares the API server a write for each pass, which takes it many seconds.
#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_fills_the_memory_with_secrets_to_adopt() {
    const EACH: usize = 8;
    let namespaces = [TENANT, "other"];
    let control_plane = installation::install(&installation::options(), &namespaces).await.unwrap();
    let kubeconfig = control_plane.access().kubeconfig_for(OPERATOR_NAMESPACE, OPERATOR_NAME).await.unwrap();
    let client = editor(&control_plane, &namespaces, &[EDITOR, "edit"]).await;
    let sites = namespaces.map(|namespace| Site { namespace: namespace.to_owned(), client: client.clone() });
    let operator = Operator::start(&control_plane, PROGRAM, &kubeconfig, &[]).await.unwrap();
    for site in &sites {
        poll("the editor's rights", PATIENCE, || async {
            let (secrets, objects) = (site.secrets(), site.objects());
            let both = (secrets.list(&ListParams::default()).await, objects.list(&ListParams::default()).await);
            Ok((both.0.is_ok() && both.1.is_ok()).then_some(()))
        })
        .await
        .unwrap();
        site.apply("small", json!({"name": "SMALL", "generate": {}})).await;
        site.served("small").await;
    }
    let mut seen = vec![("before", peak(&operator))];
    let all = || sites.iter().flat_map(|site| (0..EACH).map(move |n| (site, n, format!("dense-{n}"))));
    all_at_once(all().map(|(site, n, name)| async move {
        dense_secret(site, &name, if n.is_multiple_of(2) { "/metadata/labels" } else { "/data" }).await;
    }))
    .await;
    seen.push(("with all Secrets", peak(&operator)));
    for round in 0..3 {
        all_at_once(all().map(|(site, n, name)| async move {
            let spec = json!({
                "name": format!("DENSE_{n}"), "description": format!("round {round}"), "generate": {},
                "target": {"name": name, "adoption": "IfUnowned"},
            });
            site.apply(&name, spec).await;
        }))
        .await;
        for (site, _, name) in all() {
            site.reports(&name, "False", "TargetNotOwned").await;
        }
        seen.push(("after a round of passes", peak(&operator)));
    }
    println!("{seen:#?} of {}", limit());
    let (before, after) = (seen[0].1, seen[seen.len() - 1].1);
    assert!(after - before < limit() / 4, "{seen:#?} of {}", limit());
    assert_eq!(operator.stop().await.unwrap(), 0);
    control_plane.stop().await.unwrap();
}

/// Bytes of the keys and values of a map.
fn bytes_of(map: &Value) -> usize {
    map.as_object().unwrap().iter().map(|(key, text)| key.len() + text.as_str().unwrap().len()).sum()
}

/// Installs the policy that was left out: what is too large already can shrink, and cannot grow.
async fn an_object_that_is_too_large_can_be_made_smaller(control_plane: &ControlPlane, objects: &Api<ManagedSecret>) {
    let manifests = manifests::print(&installation::options()).unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    let applied = control_plane.access().kubectl_with_input(&apply, &manifests).await.unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let change = async |name: &str, metadata: Value| {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        objects.patch_metadata(name, &params, &Patch::Merge(json!({"metadata": metadata}))).await
    };
    let more = json!({"labels": {"one-more": "x"}});
    poll("the policy", PATIENCE, || async { Ok(change("heavy-7", more.clone()).await.is_err().then_some(())) })
        .await
        .unwrap();
    installation::expect("grows", change("heavy-7", more).await, Some("metadata.labels must have at most 64 entries"));
    let refused = "metadata.annotations must have at most 196608 bytes of keys and values";
    installation::expect("grows", change("heavy-7", json!({"annotations": {"a": "b"}})).await, Some(refused));
    for smaller in [json!({"labels": {"l7": null}}), json!({"annotations": {"filler": "x"}}), json!({"labels": null})] {
        installation::expect("shrinks", change("heavy-7", smaller).await, None);
    }
    installation::expect("stays", change("heavy-7", json!({"labels": {"l7": "y"}})).await, None);
    objects.delete("heavy-8", &DeleteParams::default()).await.unwrap();
}
