//! Whoever has a value delivered somewhere must be allowed to read it where it is.
#![allow(clippy::unwrap_used, reason = "tests")]

mod earlier;
mod renames;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use managed_secrets_api::limits::{SEALED_ENC_BYTES, SEALED_KEPT_BIT, SEALED_PREFIX, SEALED_SUITE};
use managed_secrets_api::types::SealedValue;
use managed_secrets_api::{ManagedSecret, keys, value};
use serde_json::{Value, json};
use testkit::shared::TestNamespace;

use crate::integration::installation::{Right, admin, control_plane, dry_run, editor, expect, object, operator};

/// To read the value by its name.
const VALUE: Right = Right { name: Some("DB_PASSWORD"), ..ALL_VALUES };
/// To read all values of the namespace.
const ALL_VALUES: Right = Right { verb: "get", group: value::GROUP, resource: value::PLURAL, name: None };
/// What stood for it before there was a value API.
const FORMER: Right = Right { verb: "get", group: keys::GROUP, resource: "managedsecrets/value", name: Some("db") };

/// What the built-in role `edit` has on Secrets, as far as it matters here.
const EDIT: [Right; 5] = [secrets("get"), secrets("create"), secrets("update"), secrets("patch"), secrets("delete")];

const fn secrets(verb: &'static str) -> Right {
    Right { verb, group: "", resource: "secrets", name: None }
}

/// Rights, and which of the two sets a case is tried with.
fn cannot_get(name: &str) -> String {
    format!("cannot get resource \"secrets\" in API group \"\" named \"{name}\"")
}

fn cannot_patch(name: &str) -> String {
    format!("cannot patch resource \"secrets\" in API group \"\" named \"{name}\"")
}

const CANNOT_CREATE: &str = "cannot create resource \"secrets\" in API group \"\" in the namespace";

fn managed_secret(spec: &Value) -> ManagedSecret {
    let mut spec = spec.clone();
    spec["name"] = json!("DB_PASSWORD");
    if spec.get("valueFrom").is_none() {
        spec["generate"] = json!({});
    }
    object(json!({"metadata": {"name": "db"}, "spec": spec}))
}

fn value_from(secret: &str) -> Value {
    json!({"secretKeyRef": {"name": secret, "key": "token"}})
}

#[tokio::test]
async fn what_needs_no_right_on_create() {
    let namespace = TestNamespace::create(control_plane().await, "create").await.unwrap();
    let objects = Api::<ManagedSecret>::namespaced(editor(&namespace.name, &[]).await, &namespace.name);
    for spec in [
        json!({}),
        json!({"target": {}}),
        json!({"delivery": "None"}),
        json!({"delivery": "Secret", "target": {"name": "db", "key": "value", "type": "Opaque", "labels": {},
            "annotations": {}, "template": {}, "adoption": "Never"}}),
    ] {
        expect(&spec.to_string(), objects.create(&dry_run(), &managed_secret(&spec)).await, None);
    }
}

#[tokio::test]
async fn what_needs_a_right_on_create() {
    let namespace = TestNamespace::create(control_plane().await, "create").await.unwrap();
    let client = |rights: Vec<Right>| async {
        let client = editor(&namespace.name, &{ rights }).await;
        Api::<ManagedSecret>::namespaced(client, &namespace.name)
    };
    let nothing = client(vec![]).await;
    let other = client(vec![Right::get_secret("other"), Right::get_secret("mine"), VALUE]).await;
    let get_source = client(vec![Right::get_secret("upstream")]).await;
    let get_target = client(vec![Right::get_secret("db")]).await;
    let create = client(vec![Right::CREATE_SECRETS]).await;
    // What an earlier object left there is taken over, with its value.
    let shape = client(vec![Right::CREATE_SECRETS, Right::get_secret("db"), Right::patch_secret("db")]).await;
    for (spec, enough, refusal) in [
        (json!({"valueFrom": value_from("upstream")}), &get_source, cannot_get("upstream")),
        (json!({"target": {"name": "mine"}}), &get_target, cannot_get("db")),
        (json!({"target": {"key": "password"}}), &get_target, cannot_get("db")),
        (json!({"target": {"type": "example.com/token"}}), &shape, cannot_get("db")),
        (json!({"target": {"labels": {"a": "b"}}}), &shape, cannot_get("db")),
        (json!({"target": {"annotations": {"a": "b"}}}), &shape, cannot_get("db")),
        (json!({"target": {"template": {"a": "b"}}}), &shape, cannot_get("db")),
        (json!({"target": {"adoption": "IfUnowned"}, "delivery": "None"}), &create, CANNOT_CREATE.to_owned()),
    ] {
        let new = managed_secret(&spec);
        expect(&spec.to_string(), nothing.create(&dry_run(), &new).await, Some(&refusal));
        expect(&spec.to_string(), other.create(&dry_run(), &new).await, Some(&refusal));
        expect(&spec.to_string(), enough.create(&dry_run(), &new).await, None);
    }
}

/// Without a name there is nothing to have a right on: the generated one is asked for.
#[tokio::test]
async fn a_generated_name_is_no_way_round() {
    let namespace = TestNamespace::create(control_plane().await, "create").await.unwrap();
    let objects = Api::<ManagedSecret>::namespaced(editor(&namespace.name, &[]).await, &namespace.name);
    let mut new = managed_secret(&json!({"target": {"name": "mine"}}));
    new.metadata.name = None;
    new.metadata.generate_name = Some("db-".to_owned());
    expect("generateName", objects.create(&dry_run(), &new).await, Some("cannot get resource \"secrets\""));
}

/// An object made by an administrator, and clients of users with different rights.
struct Scene {
    namespace: TestNamespace,
}

impl Scene {
    async fn new(spec: Value) -> Self {
        let namespace = TestNamespace::create(control_plane().await, "update").await.unwrap();
        let objects = Api::<ManagedSecret>::namespaced(admin().await, &namespace.name);
        objects.create(&PostParams::default(), &managed_secret(&spec)).await.unwrap();
        Self { namespace }
    }

    async fn objects(&self, rights: &[Right]) -> Api<ManagedSecret> {
        self.of(editor(&self.namespace.name, rights).await)
    }

    fn of(&self, client: Client) -> Api<ManagedSecret> {
        Api::namespaced(client, &self.namespace.name)
    }
}

/// Has status say that the value is delivered to this Secret.
async fn deliver_to(scene: &Scene, name: &str) {
    report(scene, &json!({"target": {"name": name, "key": "value", "uid": "u", "resourceVersion": "1"}})).await;
}

/// Has the operator write this status.
async fn report(scene: &Scene, status: &Value) {
    let status = json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "status": status});
    let by_operator = scene.of(operator().await);
    by_operator.patch_status("db", &PatchParams::apply("managed-secrets"), &Patch::Apply(&status)).await.unwrap();
}

fn merge(spec: &Value) -> Patch<Value> {
    Patch::Merge(json!({"spec": spec}))
}

fn params() -> PatchParams {
    PatchParams { dry_run: true, ..PatchParams::default() }
}

/// Tries each change without any right and with enough; `None` means that none is needed.
async fn check_changes(scene: &Scene, right: Right, changes: Vec<(Value, Option<String>)>) {
    let nothing = scene.objects(&[]).await;
    let enough = scene.objects(&[right]).await;
    for (change, refusal) in changes {
        let case = change.to_string();
        expect(&case, nothing.patch("db", &params(), &merge(&change)).await, refusal.as_deref());
        expect(&case, enough.patch("db", &params(), &merge(&change)).await, None);
    }
}

#[tokio::test]
async fn a_source_needs_get_on_it() {
    let scene = Scene::new(json!({"valueFrom": value_from("upstream")})).await;
    check_changes(
        &scene,
        Right::get_secret("other"),
        vec![
            (json!({"description": "x"}), None),
            (json!({"valueFrom": null, "generate": {}}), None),
            (json!({"valueFrom": value_from("other")}), Some(cannot_get("other"))),
        ],
    )
    .await;
    check_changes(
        &scene,
        Right::get_secret("upstream"),
        vec![(json!({"valueFrom": {"secretKeyRef": {"key": "password"}}}), Some(cannot_get("upstream")))],
    )
    .await;
}

#[tokio::test]
async fn a_move_needs_get_on_the_present_target() {
    let named = json!({"target": {"name": "vault", "key": "password"}});
    let refusal = || Some(cannot_get("vault"));
    let changes = vec![
        (json!({"suspend": true, "deletionPolicy": "Retain"}), None),
        (json!({"target": {"name": "mine"}}), refusal()),
        (json!({"target": {"name": null}}), refusal()),
        (json!({"target": {"key": "other"}}), refusal()),
        (json!({"target": null}), refusal()),
        (json!({"delivery": "None"}), refusal()),
        (json!({"delivery": "Secret"}), None),
    ];
    check_changes(&Scene::new(named).await, Right::get_secret("vault"), changes).await;
    let unnamed = vec![(json!({"target": {"name": "mine"}}), Some(cannot_get("db")))];
    check_changes(&Scene::new(json!({})).await, Right::get_secret("db"), unnamed).await;
}

/// A right on the new target, or on `secretvalues`, is none on the present one.
#[tokio::test]
async fn other_rights_do_not_move_a_value() {
    let scene = Scene::new(json!({})).await;
    let objects = scene.objects(&[Right::get_secret("mine"), Right::CREATE_SECRETS, ALL_VALUES, FORMER]).await;
    let change = json!({"target": {"name": "mine"}});
    expect("move", objects.patch("db", &params(), &merge(&change)).await, Some(&cannot_get("db")));
}

/// While a move waits, the value is still where status says.
#[tokio::test]
async fn a_move_needs_get_on_the_target_in_force() {
    let scene = Scene::new(json!({"target": {"name": "wanted"}})).await;
    deliver_to(&scene, "in-force").await;
    let change = merge(&json!({"target": {"name": "mine"}}));
    for (rights, refusal) in [
        (vec![Right::get_secret("wanted")], Some(cannot_get("in-force"))),
        (vec![Right::get_secret("in-force")], Some(cannot_get("wanted"))),
        (vec![Right::get_secret("wanted"), Right::get_secret("in-force")], None),
    ] {
        let objects = scene.objects(&rights).await;
        expect(&format!("{rights:?}"), objects.patch("db", &params(), &change).await, refusal.as_deref());
    }
}

#[tokio::test]
async fn an_undelivered_value_needs_the_permission_to_read_it() {
    let refusal = || Some(CANNOT_GET_VALUE.to_owned());
    let changes = vec![
        (json!({"description": "x"}), None),
        (json!({"delivery": "Secret"}), refusal()),
        (json!({"delivery": null}), refusal()),
        (json!({"target": {"name": "mine"}}), refusal()),
    ];
    let scene = Scene::new(json!({"delivery": "None"})).await;
    for right in [VALUE, ALL_VALUES, FORMER] {
        check_changes(&scene, right, changes.clone()).await;
    }
    let others =
        [Right::get_secret("db"), Right { name: Some("db"), ..VALUE }, Right { name: Some("DB_PASSWORD"), ..FORMER }];
    let objects = scene.objects(&others).await;
    let change = json!({"delivery": "Secret"});
    expect("other rights", objects.patch("db", &params(), &merge(&change)).await, refusal().as_deref());
}

/// A Secret that holds a hash shows no value, and neither does the permission to get it: what could show the value needs the
/// permission to read it.
#[tokio::test]
async fn a_value_that_a_template_replaces_needs_the_permission_to_read_it() {
    let target = json!({"key": "config", "template": {"config": "$(value | sha256)", "user": "shop"}});
    let scene = Scene::new(json!({"target": target})).await;
    let of_secrets = [
        Right::CREATE_SECRETS,
        Right::get_secret("db"),
        Right::patch_secret("db"),
        Right::get_secret("mine"),
        Right::patch_secret("mine"),
    ];
    for change in [
        json!({"target": {"template": {"config": "$(value)"}}}),
        json!({"target": {"template": {"plain": "$(value)"}}}),
        json!({"target": {"template": {"config": null}}}),
        json!({"target": {"template": null}}),
        json!({"target": {"key": "password"}}),
        json!({"target": {"name": "mine"}}),
        json!({"target": null}),
        json!({"delivery": "None"}),
    ] {
        let patch = async |rights: &[Right]| scene.objects(rights).await.patch("db", &params(), &merge(&change)).await;
        let case = change.to_string();
        expect(&case, patch(&of_secrets).await, Some(CANNOT_GET_VALUE));
        expect(&case, patch(&[&of_secrets[..], &[VALUE]].concat()).await, None);
        expect(&case, patch(&[VALUE]).await, Some(&cannot_get("db")));
    }
    let objects = scene.objects(&of_secrets).await;
    for change in [json!({"target": {"labels": {"a": "b"}}}), json!({"description": "x", "suspend": true})] {
        expect(&change.to_string(), objects.patch("db", &params(), &merge(&change)).await, None);
    }
}

/// Each change of how a target looks: a label or an annotation can have a replicator copy the value.
fn reshapings() -> (Value, Vec<Value>) {
    let target = json!({
        "type": "example.com/a", "labels": {"a": "b"}, "annotations": {"a": "b"}, "template": {"a": "b"},
    });
    let changes = vec![
        json!({"target": {"type": "example.com/b"}}),
        json!({"target": {"labels": null}}),
        json!({"target": {"labels": {"a": "c"}}}),
        json!({"target": {"labels": {"z": "b"}}}),
        json!({"target": {"annotations": {"a": "c"}}}),
        json!({"target": {"annotations": {"replicate-to": "elsewhere"}}}),
        json!({"target": {"annotations": null}}),
        json!({"target": {"template": {"a": "$(value)"}}}),
        json!({"target": {"template": {"c": "$(value)"}}}),
        json!({"target": {"template": null}}),
        json!({"target": null}),
    ];
    (json!({"target": target}), changes)
}

#[tokio::test]
async fn reshaping_a_target_that_exists_needs_get_and_patch_on_it() {
    let (before, changes) = reshapings();
    let scene = Scene::new(before).await;
    for (rights, refusal) in [
        (vec![Right::CREATE_SECRETS], Some(cannot_get("db"))),
        (vec![Right::CREATE_SECRETS, Right::get_secret("db")], Some(cannot_patch("db"))),
        (vec![Right::CREATE_SECRETS, Right::patch_secret("db")], Some(cannot_get("db"))),
        (vec![Right::CREATE_SECRETS, Right::get_secret("other"), Right::patch_secret("other")], Some(cannot_get("db"))),
        (vec![Right::get_secret("db"), Right::patch_secret("db")], None),
    ] {
        let objects = scene.objects(&rights).await;
        for change in &changes {
            let case = format!("{change} with {rights:?}");
            expect(&case, objects.patch("db", &params(), &merge(change)).await, refusal.as_deref());
        }
        let same = json!({"target": {"labels": {"a": "b"}}, "description": "x"});
        expect("the same", objects.patch("db", &params(), &merge(&same)).await, None);
    }
}

/// While a move waits, the value is still where status says: what is asked of the target is asked of that one as well.
#[tokio::test]
async fn reshaping_needs_get_and_patch_on_the_target_in_force() {
    let scene = Scene::new(json!({"target": {"name": "wanted"}})).await;
    deliver_to(&scene, "current").await;
    let wanted = [Right::get_secret("wanted"), Right::patch_secret("wanted")];
    let change = json!({"target": {"labels": {"a": "b"}}});
    for (right, refusal) in [
        (vec![], Some(cannot_get("current"))),
        (vec![Right::get_secret("current")], Some(cannot_patch("current"))),
        (vec![Right::get_secret("current"), Right::patch_secret("current")], None),
    ] {
        let objects = scene.objects(&[&wanted[..], &right].concat()).await;
        expect(&format!("{right:?}"), objects.patch("db", &params(), &merge(&change)).await, refusal.as_deref());
    }
}

/// With `delivery: None` there is no target to look like anything.
#[tokio::test]
async fn reshaping_without_a_target_needs_create() {
    let (mut before, changes) = reshapings();
    before["delivery"] = json!("None");
    let changes = changes.into_iter().map(|change| (change, Some(CANNOT_CREATE.to_owned()))).collect();
    check_changes(&Scene::new(before).await, Right::CREATE_SECRETS, changes).await;
}

/// Sealed text opens for its object as often as that is created, and a target that was retained is taken over: deleting the
/// object first is no way round.
#[tokio::test]
async fn the_looks_of_a_target_need_get_and_patch_on_create() {
    let namespace = TestNamespace::create(control_plane().await, "create").await.unwrap();
    let text = well_formed(1);
    let (get, patch) = (Right::get_secret("db"), Right::patch_secret("db"));
    for (rights, refusal) in [
        (vec![get, patch], Some(CANNOT_CREATE.to_owned())),
        (vec![Right::CREATE_SECRETS, patch], Some(cannot_get("db"))),
        (vec![Right::CREATE_SECRETS, get], Some(cannot_patch("db"))),
        (vec![Right::CREATE_SECRETS, get, Right::patch_secret("other")], Some(cannot_patch("db"))),
        (vec![Right::CREATE_SECRETS, get, patch], None),
        (EDIT.to_vec(), None),
    ] {
        let objects = Api::<ManagedSecret>::namespaced(editor(&namespace.name, &rights).await, &namespace.name);
        for target in [
            json!({"labels": {"a": "b"}}),
            json!({"annotations": {"a": "b"}}),
            json!({"template": {"a": "$(value)"}}),
            json!({"type": "example.com/token"}),
        ] {
            let case = format!("{target} with {rights:?}");
            let spec = json!({"target": target});
            expect(&case, objects.create(&dry_run(), &holding(&text, &spec)).await, refusal.as_deref());
            expect(&case, objects.create(&dry_run(), &managed_secret(&spec)).await, refusal.as_deref());
        }
        // Without a shape, or without a delivery, no Secret that exists is changed.
        let refusal = refusal.filter(|refusal| refusal == CANNOT_CREATE);
        let undelivered = json!({"target": {"labels": {"a": "b"}}, "delivery": "None"});
        expect("undelivered", objects.create(&dry_run(), &managed_secret(&undelivered)).await, refusal.as_deref());
        expect("plain", objects.create(&dry_run(), &managed_secret(&json!({}))).await, None);
    }
}

/// A target with a shape that moves to a Secret, or is delivered there for the first time, gives it that shape.
#[tokio::test]
async fn moving_a_target_with_a_shape_needs_patch_on_the_new_one() {
    let shape = json!({"labels": {"a": "b"}});
    let moved = json!({"target": {"name": "kept"}});
    for (before, change) in [
        (json!({"target": shape}), moved.clone()),
        (json!({"target": {"name": "kept", "labels": {"a": "b"}}, "delivery": "None"}), json!({"delivery": "Secret"})),
    ] {
        let scene = Scene::new(before).await;
        let others = [Right::get_secret("db"), Right::patch_secret("db"), VALUE];
        for (right, refusal) in [
            (Right::patch_secret("other"), Some(cannot_patch("kept"))),
            (Right::get_secret("kept"), Some(cannot_patch("kept"))),
            (Right::patch_secret("kept"), None),
        ] {
            let objects = scene.objects(&[&others[..], &[right]].concat()).await;
            expect(&change.to_string(), objects.patch("db", &params(), &merge(&change)).await, refusal.as_deref());
        }
    }
    // A target without one needs what a move needs.
    check_changes(&Scene::new(json!({})).await, Right::get_secret("db"), vec![(moved, Some(cannot_get("db")))]).await;
}

/// The object `db` with this sealed text.
fn holding(text: &str, spec: &Value) -> ManagedSecret {
    let mut new = managed_secret(spec);
    (new.spec.generate, new.spec.value) = (None, Some(SealedValue(text.to_owned())));
    new
}

const CANNOT_GET_VALUE: &str =
    "cannot get resource \"secretvalues\" in API group \"values.managedsecrets.dev\" named \"DB_PASSWORD\"";
const CANNOT_GET_VALUES: &str =
    "cannot get resource \"secretvalues\" in API group \"values.managedsecrets.dev\" in the namespace";

/// Otherwise `delivery: None` would be undone by deleting the object and creating it with its sealed text again.
#[tokio::test]
async fn delivering_text_that_is_kept_needs_the_permission_to_read_all_values() {
    let namespace = TestNamespace::create(control_plane().await, "kept").await.unwrap();
    let objects = async |rights: &[Right]| {
        Api::<ManagedSecret>::namespaced(editor(&namespace.name, rights).await, &namespace.name)
    };
    // The text opens for the object `db`, and the user chooses which secret that is: a name of their own is not enough.
    let editing = objects(&[&EDIT[..], &[VALUE]].concat()).await;
    let reading = objects(&[&EDIT[..], &[ALL_VALUES]].concat()).await;
    let former = objects(&[&EDIT[..], &[FORMER]].concat()).await;
    for scope in [1, 2, 3] {
        let (deliverable, kept) = (well_formed(scope), well_formed(scope | SEALED_KEPT_BIT));
        for spec in [json!({}), json!({"delivery": "Secret"}), json!({"target": {"name": "mine", "key": "k"}})] {
            let case = format!("{spec} of scope {scope}");
            expect(&case, editing.create(&dry_run(), &holding(&deliverable, &spec)).await, None);
            expect(&case, editing.create(&dry_run(), &holding(&kept, &spec)).await, Some(CANNOT_GET_VALUES));
            expect(&case, reading.create(&dry_run(), &holding(&kept, &spec)).await, None);
            expect(&case, former.create(&dry_run(), &holding(&kept, &spec)).await, None);
        }
        let undelivered = json!({"delivery": "None"});
        expect("undelivered", editing.create(&dry_run(), &holding(&kept, &undelivered)).await, None);
    }
}

#[tokio::test]
async fn changing_a_delivered_value_to_text_that_is_kept_needs_the_permission_to_read_all_values() {
    let kept = well_formed(1 | SEALED_KEPT_BIT);
    let refusal = || Some(CANNOT_GET_VALUES.to_owned());
    let to_kept = json!({"generate": null, "value": kept});
    let scene = Scene::new(json!({"delivery": "None"})).await;
    let changes = vec![
        (to_kept.clone(), None),
        (json!({"generate": null, "value": well_formed(1)}), None),
        (json!({"generate": null, "value": kept, "delivery": "Secret"}), Some(CANNOT_GET_VALUE.to_owned())),
    ];
    check_changes(&scene, ALL_VALUES, changes).await;
    check_changes(&Scene::new(json!({})).await, ALL_VALUES, vec![(to_kept, refusal())]).await;
    // An administrator delivers it: then it is a delivered value as any other.
    let scene = Scene::new(json!({})).await;
    let admin = scene.of(admin().await);
    admin.patch("db", &PatchParams::default(), &merge(&json!({"generate": null, "value": kept}))).await.unwrap();
    let by_name = scene.objects(&[VALUE]).await;
    let other = json!({"value": well_formed(2 | SEALED_KEPT_BIT)});
    expect("by name", by_name.patch("db", &params(), &merge(&other)).await, refusal().as_deref());
    let changes =
        vec![(json!({"description": "x"}), None), (json!({"value": well_formed(1)}), None), (other, refusal())];
    check_changes(&scene, ALL_VALUES, changes).await;
}

/// Text that stays as it is is the value that the secret has: to deliver it needs the permission to read that one.
#[tokio::test]
async fn delivering_the_kept_text_that_an_object_has_needs_the_permission_to_read_it() {
    let scene = Scene::new(json!({"delivery": "None"})).await;
    let kept = json!({"generate": null, "value": well_formed(1 | SEALED_KEPT_BIT)});
    scene.of(admin().await).patch("db", &PatchParams::default(), &merge(&kept)).await.unwrap();
    let changes = vec![(json!({"delivery": "Secret"}), Some(CANNOT_GET_VALUE.to_owned()))];
    check_changes(&scene, VALUE, changes).await;
}

/// Sealed text as the API server judges it, for the object `db`: nobody has its key. `scope` is the byte of its header.
fn well_formed(scope: u8) -> String {
    let mut bytes = SEALED_SUITE.to_vec();
    bytes.extend([0; 8]);
    bytes.push(scope);
    for part in ["shop", "db"] {
        bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes.resize(bytes.len() + SEALED_ENC_BYTES + 64 + 16, 0xab);
    format!("{SEALED_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

#[tokio::test]
async fn permitting_and_forbidding_adoption_needs_create() {
    let change = json!({"target": {"adoption": null}});
    let scene = Scene::new(json!({"target": {"adoption": "IfUnowned"}})).await;
    check_changes(&scene, Right::CREATE_SECRETS, vec![(change, Some(CANNOT_CREATE.to_owned()))]).await;
}

/// Adoption tells whether a Secret holds the same value: a guess, if the user may not read it. And it writes into it.
#[tokio::test]
async fn adopting_needs_get_and_patch_on_the_secret_and_create() {
    let namespace = TestNamespace::create(control_plane().await, "adopt").await.unwrap();
    let reads = |name| vec![Right::CREATE_SECRETS, Right::get_secret("db"), Right::get_secret(name)];
    let writes = |name| [reads("victim"), vec![Right::patch_secret(name)]].concat();
    for (target, rights, refusal) in [
        (json!({}), vec![Right::get_secret("db"), Right::patch_secret("db")], Some(CANNOT_CREATE.to_owned())),
        (json!({}), vec![Right::CREATE_SECRETS, Right::patch_secret("db")], Some(cannot_get("db"))),
        (json!({}), reads("other"), Some(cannot_patch("db"))),
        (json!({}), [reads("db"), vec![Right::patch_secret("db")]].concat(), None),
        (
            json!({"name": "victim"}),
            [reads("other"), vec![Right::patch_secret("victim")]].concat(),
            Some(cannot_get("victim")),
        ),
        (json!({"name": "victim"}), writes("db"), Some(cannot_patch("victim"))),
        (json!({"name": "victim"}), writes("victim"), None),
        // Nothing is adopted where nothing is delivered.
        (json!({"undelivered": true}), vec![Right::CREATE_SECRETS], None),
    ] {
        let mut target = target;
        let mut spec = json!({});
        if target.as_object_mut().unwrap().remove("undelivered").is_some() {
            spec["delivery"] = json!("None");
        }
        target["adoption"] = json!("IfUnowned");
        let case = format!("{target} with {rights:?}");
        spec["target"] = target;
        let objects = Api::<ManagedSecret>::namespaced(editor(&namespace.name, &rights).await, &namespace.name);
        expect(&case, objects.create(&dry_run(), &managed_secret(&spec)).await, refusal.as_deref());
    }
}

/// A guess is made by moving to the Secret, by permitting its adoption, or by another value.
#[tokio::test]
async fn a_change_that_may_adopt_needs_get_and_patch_on_the_secret() {
    let adopting = |target: Value| {
        let mut target = target;
        target["adoption"] = json!("IfUnowned");
        json!({"target": target})
    };
    let refusal = |name: &str| Some(cannot_get(name));
    let victim = || refusal("victim");
    // What else such changes need is had.
    let others = [Right::CREATE_SECRETS, Right::get_secret("upstream"), Right::get_secret("mine"), VALUE];
    for (before, changes) in [
        (
            json!({"target": {"name": "victim"}}),
            vec![(adopting(json!({})), victim()), (json!({"description": "x"}), None)],
        ),
        (
            adopting(json!({"name": "mine"})),
            vec![
                (json!({"target": {"name": "victim"}}), victim()),
                (json!({"target": {"name": "victim"}, "delivery": "None"}), None),
            ],
        ),
        (
            json!({"target": {"name": "victim", "adoption": "IfUnowned"}, "delivery": "None"}),
            vec![
                (json!({"delivery": "Secret"}), victim()),
                (json!({"generate": null, "valueFrom": value_from("upstream")}), None),
            ],
        ),
        (
            adopting(json!({"name": "victim"})),
            vec![
                (json!({"target": {"key": "other"}}), victim()),
                (json!({"generate": null, "valueFrom": value_from("upstream")}), victim()),
                (json!({"generate": {"length": 12}}), victim()),
                (json!({"target": {"adoption": "Never"}, "generate": {"length": 12}}), None),
                (json!({"name": "RENAMED", "suspend": true}), None),
            ],
        ),
    ] {
        let scene = Scene::new(before).await;
        let guessing = scene.objects(&others).await;
        let reading = scene.objects(&[&others[..], &[Right::get_secret("victim")]].concat()).await;
        let both = [Right::get_secret("victim"), Right::patch_secret("victim")];
        let writing = scene.objects(&[&others[..], &both].concat()).await;
        for (change, refusal) in changes {
            let case = change.to_string();
            let cannot_write = refusal.as_ref().map(|_| cannot_patch("victim"));
            expect(&case, guessing.patch("db", &params(), &merge(&change)).await, refusal.as_deref());
            expect(&case, reading.patch("db", &params(), &merge(&change)).await, cannot_write.as_deref());
            expect(&case, writing.patch("db", &params(), &merge(&change)).await, None);
        }
    }
}

/// The value is in the Secret: another one answers no guess.
#[tokio::test]
async fn a_new_value_for_what_is_adopted_needs_no_right() {
    let scene = Scene::new(json!({"target": {"name": "legacy", "adoption": "IfUnowned"}})).await;
    let objects = scene.objects(&[]).await;
    let change = json!({"generate": {"length": 12}});
    let try_change = async || objects.patch("db", &params(), &merge(&change)).await;
    expect("before", try_change().await, Some(&cannot_get("legacy")));
    deliver_to(&scene, "legacy").await;
    expect("when it is delivered", try_change().await, None);
}

/// Server-side apply and replace are updates like any other.
#[tokio::test]
async fn every_way_of_writing_is_checked() {
    let scene = Scene::new(json!({})).await;
    let objects = scene.objects(&[]).await;
    let apply = |name: &str, target: &str| {
        let mut object = serde_json::to_value(managed_secret(&json!({"target": {"name": target}}))).unwrap();
        object["metadata"]["name"] = json!(name);
        object
    };
    let force = PatchParams { dry_run: true, ..PatchParams::apply("jane").force() };
    let moved = objects.patch("db", &force, &Patch::Apply(apply("db", "mine"))).await;
    expect("apply", moved, Some(&cannot_get("db")));
    let created = objects.patch("new", &force, &Patch::Apply(apply("new", "mine"))).await;
    expect("apply that creates", created, Some(&cannot_get("new")));
    let mut present = objects.get("db").await.unwrap();
    expect("replace by the same", objects.replace("db", &dry_run(), &present).await, None);
    present.spec.target = managed_secret(&json!({"target": {"name": "mine"}})).spec.target;
    expect("replace", objects.replace("db", &dry_run(), &present).await, Some(&cannot_get("db")));
}
