//! Someone who may edit ManagedSecrets, and read one Secret called `mine`, tries to have the operator read and write other
//! Secrets for him: in vain.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client};
use managed_secrets_api::{ManagedSecret, keys, names::record_name, types::DeletionPolicy, value};
use serde_json::{Value, json};
use testkit::poll;

use super::installation::{PATIENCE, Right, control_plane, editor, expect, may, object};
use super::objects::Site;
use super::operator::{Running, Setup};

const VALUE: &str = "s3cret-of-another-user";

/// To read the value of the secret of this name by the value API.
const fn read_value(name: &'static str) -> Right {
    Right { verb: "get", group: value::GROUP, resource: value::PLURAL, name: Some(name) }
}

/// A namespace with another user's secret and plain Secret, a running operator, and the intruder.
struct Scene {
    site: Site,
    sealed: String,
    intruder: Client,
    operator: Running,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new("borrowed").await;
        let operator = Setup::of(&site.namespace).start().await;
        let sealed = site.seal("db", VALUE).await;
        site.apply("db", json!({"name": "DB_PASSWORD", "value": sealed})).await;
        site.delivers("db", "value", VALUE).await;
        site.served("db").await;
        site.foreign_secret("upstream", &[("token", VALUE)]).await;
        let intruder = editor(&site.namespace, &[Right::get_secret("mine")]).await;
        Self { site, sealed, intruder, operator }
    }

    fn objects(&self) -> Api<ManagedSecret> {
        Api::namespaced(self.intruder.clone(), &self.site.namespace)
    }

    async fn create(&self, name: &str, spec: Value) -> kube::Result<ManagedSecret> {
        let new = object(json!({"metadata": {"name": name}, "spec": spec}));
        self.objects().create(&PostParams::default(), &new).await
    }

    async fn patch(&self, name: &str, spec: Value) -> kube::Result<ManagedSecret> {
        self.objects().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await
    }

    /// The one Secret that the intruder can read never came to be, and no Secret has changed.
    async fn end(self) {
        assert_eq!(self.site.value("mine", "value").await, None);
        assert_eq!(self.site.value("upstream", "token").await.as_deref(), Some(VALUE));
        assert_eq!(self.site.value("upstream", "value").await, None);
        self.operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_no_way_to_read() {
    let scene = Scene::new().await;
    for source in ["upstream", "db"] {
        let spec = json!({"name": "MINE", "valueFrom": {"secretKeyRef": {"name": source, "key": "token"}}});
        let refusal = format!("cannot get resource \"secrets\" in API group \"\" named \"{source}\"");
        expect(source, scene.create("mine", spec).await, Some(&refusal));
    }
    scene.create("mine", json!({"name": "MINE", "generate": {}, "delivery": "None"})).await.unwrap();
    let source = json!({"generate": null, "valueFrom": {"secretKeyRef": {"name": "upstream", "key": "token"}}});
    expect("changed later", scene.patch("mine", source).await, Some("cannot get resource \"secrets\""));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_no_way_to_read() {
    let scene = Scene::new().await;
    let refusal = "cannot get resource \"secrets\" in API group \"\" named \"db\"";
    for change in [json!({"target": {"name": "mine"}}), json!({"delivery": "None"}), json!({"target": {"key": "k"}})] {
        expect(&change.to_string(), scene.patch("db", change.clone()).await, Some(refusal));
    }
    scene.site.delivers("db", "value", VALUE).await;
    scene.end().await;
}

/// Sealed text opens for its object, also when another user creates that again.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_and_creating_again_is_no_way_to_read() {
    let scene = Scene::new().await;
    scene.objects().delete("db", &DeleteParams::default()).await.unwrap();
    scene.site.gone("db").await;
    let elsewhere = json!({"name": "DB_PASSWORD", "value": scene.sealed, "target": {"name": "mine"}});
    let refusal = "cannot get resource \"secrets\" in API group \"\" named \"db\"";
    expect("with another target", scene.create("db", elsewhere).await, Some(refusal));

    let undelivered = json!({"name": "DB_PASSWORD", "value": scene.sealed, "delivery": "None"});
    scene.create("db", undelivered).await.unwrap();
    scene.site.served("db").await;
    let moved = json!({"delivery": "Secret", "target": {"name": "mine"}});
    expect("delivered later", scene.patch("db", moved).await, Some("cannot get resource \"secretvalues\""));

    scene.create("mine", json!({"name": "MINE", "value": scene.sealed})).await.unwrap();
    scene.site.reports("mine", "False", "SealedForAnotherPlace").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_no_way_to_write() {
    let scene = Scene::new().await;
    scene.create("upstream", json!({"name": "MINE", "generate": {}})).await.unwrap();
    scene.site.reports("upstream", "False", "TargetNotOwned").await;
    let adopting = json!({"target": {"adoption": "IfUnowned"}});
    expect("adoption", scene.patch("upstream", adopting).await, Some("cannot create resource \"secrets\""));

    let theirs = scene.site.secrets().get("upstream").await.unwrap();
    let forged = json!({"apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND, "status": {
        "target": {"name": "upstream", "key": "value", "uid": theirs.metadata.uid, "resourceVersion": "1"}}});
    let params = PatchParams::apply("intruder").force();
    let answer = scene.objects().patch_status("upstream", &params, &Patch::Apply(&forged)).await;
    expect("a forged status", answer, Some("managedsecrets/status"));
    scene.end().await;
}

/// Creating and reading Secrets is not changing them: not by adoption, whatever would be written.
#[tokio::test(flavor = "multi_thread")]
async fn adoption_is_no_way_to_write() {
    let scene = Scene::new().await;
    let value = read_value("MINE");
    let rights = [Right::CREATE_SECRETS, Right::get_secret("mine"), Right::get_secret("upstream"), value];
    let scene = Scene { intruder: editor(&scene.site.namespace, &rights).await, ..scene };
    let theirs = scene.site.secret("upstream").await;
    let refusal = "cannot patch resource \"secrets\" in API group \"\" named \"upstream\"";
    for target in [
        json!({"name": "upstream", "adoption": "IfUnowned"}),
        json!({"name": "upstream", "adoption": "IfUnowned", "key": "new", "labels": {"team": "intruder"}}),
    ] {
        let spec = json!({"name": "MINE", "generate": {}, "target": target});
        expect(&target.to_string(), scene.create("mine", spec).await, Some(refusal));
    }
    scene.create("mine", json!({"name": "MINE", "generate": {}, "delivery": "None"})).await.unwrap();
    let adopting = json!({"target": {"name": "upstream", "adoption": "IfUnowned"}});
    scene.patch("mine", adopting).await.unwrap();
    expect("delivered later", scene.patch("mine", json!({"delivery": "Secret"})).await, Some(refusal));
    scene.site.served("mine").await;
    assert_eq!(scene.site.secret("upstream").await, theirs);
    scene.end().await;
}

/// Replicators copy Secrets where an annotation says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_looks_of_a_target_are_no_way_to_have_it_copied() {
    let scene = Scene::new().await;
    let rights = [Right::CREATE_SECRETS, Right::get_secret("mine")];
    let scene = Scene { intruder: editor(&scene.site.namespace, &rights).await, ..scene };
    let refusal = "cannot get resource \"secrets\" in API group \"\" named \"db\"";
    let copying = json!({"annotations": {"replicator.v1.mittwald.de/replicate-to": "intruders"}});
    for target in [copying.clone(), json!({"labels": {"copy": "me"}}), json!({"type": "example.com/copied"})] {
        expect(&target.to_string(), scene.patch("db", json!({"target": target})).await, Some(refusal));
    }
    scene.objects().delete("db", &DeleteParams::default()).await.unwrap();
    scene.site.gone("db").await;
    let again = json!({"name": "DB_PASSWORD", "value": scene.sealed, "target": copying});
    expect("deleted and created again", scene.create("db", again).await, Some(refusal));

    // What an earlier object left behind is taken over, whatever the source.
    let generated = json!({"name": "LEFT", "generate": {}});
    scene.site.apply("left", generated.clone()).await;
    scene.site.served("left").await;
    scene.site.delete_by("left", PropagationPolicy::Orphan).await;
    let taken = json!({"name": "LEFT", "generate": {}, "target": {"annotations": {"copy": "me"}}});
    let refusal = "cannot get resource \"secrets\" in API group \"\" named \"left\"";
    expect("taken over", scene.create("left", taken).await, Some(refusal));
    scene.end().await;
}

/// The intruder may read what is called `MINE` by the value API, so another user's value must not get this name: not from an
/// object, not from one that takes over what an earlier one left behind, and not later, when the name becomes free.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_no_way_to_read() {
    let scene = Scene::new().await;
    let scene = Scene { intruder: editor(&scene.site.namespace, &[read_value("MINE")]).await, ..scene };
    let refusal =
        "cannot get resource \"secretvalues\" in API group \"values.managedsecrets.dev\" named \"DB_PASSWORD\"";
    let rename = async |case| expect(case, scene.patch("db", json!({"name": "MINE"})).await, Some(refusal));
    rename("to a free name").await;
    scene.create("own", json!({"name": "MINE", "generate": {}})).await.unwrap();
    scene.site.served("own").await;
    rename("to a name that will become free").await;
    scene.objects().delete("own", &DeleteParams::default()).await.unwrap();
    scene.site.gone("own").await;
    rename("to a name that has become free").await;

    let spec = json!({"name": "DB_PASSWORD", "value": scene.sealed, "deletionPolicy": "Retain"});
    scene.site.apply("db", spec).await;
    let before = scene.site.served("db").await.status.unwrap();
    let is_kept = |object: &ManagedSecret| {
        object.status.as_ref().is_some_and(|status| status.deletion_policy == Some(DeletionPolicy::Retain))
    };
    scene.site.until("db", "retained", is_kept).await;
    scene.objects().delete("db", &DeleteParams::default()).await.unwrap();
    scene.create("db", json!({"name": "DB_PASSWORD", "generate": {}, "deletionPolicy": "Retain"})).await.unwrap();
    rename("before the take-over").await;
    let after = scene.site.served("db").await.status.unwrap();
    assert_eq!((&after.id, after.name.as_deref()), (&before.id, Some("DB_PASSWORD")));
    rename("after the take-over").await;
    scene.end().await;
}

/// With the built-in role `edit`, all of a namespace's Secrets are open; what is delivered nowhere stays closed.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_and_creating_again_delivers_nothing_that_is_kept() {
    let site = Site::new("kept").await;
    let operator = Setup::of(&site.namespace).start().await;
    let text = site.seal_kept("db", VALUE).await;
    let undelivered = json!({"name": "DB_PASSWORD", "value": text, "delivery": "None"});
    site.apply("db", undelivered.clone()).await;
    site.served("db").await;

    let client = with_role(&site, "edit").await;
    let objects = Api::<ManagedSecret>::namespaced(client, &site.namespace);
    let new = |spec: &Value| object::<ManagedSecret>(json!({"metadata": {"name": "db"}, "spec": spec}));
    let stored = objects.get("db").await.unwrap().spec.value.unwrap().0;
    objects.delete("db", &DeleteParams::default()).await.unwrap();
    site.gone(&record_name("DB_PASSWORD")).await;
    let refusal = "cannot get resource \"secretvalues\"";
    for spec in [
        json!({"name": "DB_PASSWORD", "value": stored}),
        json!({"name": "OTHER", "value": stored, "target": {"name": "db", "key": "k"}}),
    ] {
        expect("delivered", objects.create(&PostParams::default(), &new(&spec)).await, Some(refusal));
    }
    // As it was, it may be created again; and it opens.
    objects.create(&PostParams::default(), &new(&undelivered)).await.unwrap();
    site.served("db").await;
    let moved = Patch::Merge(json!({"spec": {"delivery": "Secret"}}));
    expect("delivered later", objects.patch("db", &PatchParams::default(), &moved).await, Some(refusal));
    assert_eq!(site.value("db", "value").await, None);

    // Who may read it has it delivered.
    site.objects().patch("db", &PatchParams::default(), &moved).await.unwrap();
    site.delivers("db", "value", VALUE).await;
    operator.stop().await;
}

/// A new user with a ClusterRole of Kubernetes' own in the namespace.
async fn with_role(site: &Site, role: &str) -> Client {
    let user = format!("{role}-{}", uuid::Uuid::new_v4().simple());
    let group = "rbac.authorization.k8s.io";
    let binding: RoleBinding = object(json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }));
    let bindings = Api::<RoleBinding>::namespaced(site.client.clone(), &site.namespace);
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let client = control_plane().await.access().client_as(&user, &[]).await.unwrap();
    // What is aggregated to it comes a moment later.
    let edits = Right { verb: "create", group: keys::GROUP, resource: "managedsecrets", name: None };
    poll("the role to be effective", PATIENCE, || async {
        Ok(may(&client, &site.namespace, &edits).await.then_some(()))
    })
    .await
    .unwrap();
    client
}
