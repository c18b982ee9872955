//! A rename is a read: users who may read the new name by the value API can then read the value.

use super::*;

/// To read the value by its id.
pub(super) const BY_ID: Right = Right { name: Some(ID), ..ALL_VALUES };
const ID: &str = "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11";

pub(super) const fn by_name(name: &'static str) -> Right {
    Right { name: Some(name), ..ALL_VALUES }
}

pub(super) fn cannot_read(name: &str) -> String {
    format!("cannot get resource \"secretvalues\" in API group \"values.managedsecrets.dev\" named \"{name}\"")
}

fn rename() -> Patch<Value> {
    merge(&json!({"name": "MINE"}))
}

/// Tries a rename to `MINE` with each of these rights; `refused` is the name in the refusals.
async fn check(scene: &Scene, enough: &[&[Right]], not_enough: &[&[Right]], refused: &str) {
    for rights in enough {
        let answer = scene.objects(rights).await.patch("db", &params(), &rename()).await;
        expect(&format!("{rights:?}"), answer, None);
    }
    for rights in not_enough {
        let answer = scene.objects(rights).await.patch("db", &params(), &rename()).await;
        expect(&format!("{rights:?}"), answer, Some(&cannot_read(refused)));
    }
}

pub(super) fn status(name: &str, target: Option<&str>) -> Value {
    let target = target.map(|name| json!({"name": name, "key": "value", "uid": "u", "resourceVersion": "1"}));
    let mut status = json!({"id": ID, "name": name});
    if let Some(target) = target {
        status["target"] = target;
    }
    status
}

#[tokio::test]
async fn a_rename_needs_the_permission_to_read_the_value() {
    let scene = Scene::new(json!({})).await;
    report(&scene, &status("DB_PASSWORD", Some("db"))).await;
    let enough = [&[VALUE][..], &[BY_ID], &[ALL_VALUES], &[FORMER], &[Right::get_secret("db")]];
    let other_secret = [Right::get_secret("other"), Right::patch_secret("db"), Right::CREATE_SECRETS];
    let not_enough = [&[][..], &[by_name("MINE")], &[by_name("db"), by_name("db_password")], &other_secret];
    check(&scene, &enough, &not_enough, "DB_PASSWORD").await;
    let nothing = scene.objects(&[]).await;
    let rest = merge(&json!({"description": "x", "suspend": true, "deletionPolicy": "Retain"}));
    expect("no rename", nothing.patch("db", &params(), &rest).await, None);
}

#[tokio::test]
async fn a_value_that_is_not_delivered_is_in_no_secret() {
    let scene = Scene::new(json!({"delivery": "None"})).await;
    report(&scene, &status("DB_PASSWORD", None)).await;
    let enough = [&[VALUE][..], &[BY_ID], &[ALL_VALUES], &[FORMER]];
    check(&scene, &enough, &[&[Right::get_secret("db"), by_name("MINE")]], "DB_PASSWORD").await;
}

#[tokio::test]
async fn a_value_that_a_template_replaces_is_in_no_secret() {
    let target = json!({"key": "config", "template": {"config": "$(value | sha256)"}});
    let scene = Scene::new(json!({"target": target})).await;
    report(&scene, &status("DB_PASSWORD", Some("db"))).await;
    let enough = [&[VALUE][..], &[BY_ID], &[ALL_VALUES], &[FORMER]];
    check(&scene, &enough, &[&[Right::get_secret("db"), by_name("MINE")]], "DB_PASSWORD").await;
}

/// Nothing is known of it but what it asks for.
#[tokio::test]
async fn an_object_that_the_operator_has_not_seen_has_a_name_and_a_target() {
    let scene = Scene::new(json!({"target": {"name": "login"}})).await;
    let not_enough = [&[BY_ID][..], &[Right::get_secret("db")], &[by_name("MINE")]];
    check(&scene, &[&[VALUE], &[Right::get_secret("login")]], &not_enough, "DB_PASSWORD").await;
}

/// While a rename waits, or is not yet done, the value has two names.
#[tokio::test]
async fn a_value_with_two_names_needs_both() {
    let scene = Scene::new(json!({})).await;
    report(&scene, &status("FORMER_NAME", Some("db"))).await;
    let enough = [&[VALUE, by_name("FORMER_NAME")][..], &[BY_ID], &[Right::get_secret("db")]];
    check(&scene, &enough, &[&[VALUE], &[by_name("FORMER_NAME")]], "FORMER_NAME").await;
}

/// The same while a move waits.
#[tokio::test]
async fn a_value_with_two_targets_needs_both() {
    let scene = Scene::new(json!({"target": {"name": "wanted"}})).await;
    report(&scene, &status("DB_PASSWORD", Some("current"))).await;
    let (wanted, current) = (Right::get_secret("wanted"), Right::get_secret("current"));
    check(&scene, &[&[wanted, current], &[VALUE]], &[&[wanted], &[current]], "DB_PASSWORD").await;
}

/// RBAC compares names as they are: every character of a name works.
#[tokio::test]
async fn any_name_can_be_given_in_a_role() {
    const ODD: &str = "A_+=-@#$a0";
    let scene = Scene::new(json!({})).await;
    let admin = scene.of(admin().await);
    admin.patch("db", &PatchParams::default(), &merge(&json!({"name": ODD}))).await.unwrap();
    check(&scene, &[&[by_name(ODD)]], &[&[VALUE]], ODD).await;
}

#[tokio::test]
async fn every_way_of_renaming_is_checked() {
    let scene = Scene::new(json!({})).await;
    let objects = scene.objects(&[by_name("MINE")]).await;
    let mut present = objects.get("db").await.unwrap();
    let mut applied = serde_json::to_value(managed_secret(&json!({}))).unwrap();
    applied["spec"]["name"] = json!("MINE");
    let force = PatchParams { dry_run: true, ..PatchParams::apply("jane").force() };
    let refusal = cannot_read("DB_PASSWORD");
    expect("apply", objects.patch("db", &force, &Patch::Apply(applied)).await, Some(&refusal));
    "MINE".clone_into(&mut present.spec.name);
    expect("replace", objects.replace("db", &dry_run(), &present).await, Some(&refusal));
    // What else the change does is no way round.
    let more = json!({"name": "MINE", "generate": {"length": 12}, "delivery": "None", "description": "x"});
    expect("with more", objects.patch("db", &params(), &merge(&more)).await, Some(&cannot_get("db")));
    let more = json!({"name": "MINE", "generate": {"length": 12}, "suspend": true});
    expect("with another source", objects.patch("db", &params(), &merge(&more)).await, Some(&refusal));
}
