//! Earlier values: one may never have been where the value is now, so who may read that Secret may not have it delivered.

use super::{
    renames::{BY_ID, by_name, cannot_read, status},
    *,
};

/// Rights of which each is enough to read every version of the value.
const ENOUGH: [Right; 4] = [VALUE, BY_ID, ALL_VALUES, FORMER];

/// Tries a change with each right that is enough, and with others, alone and together.
async fn check(scene: &Scene, change: &Value) {
    for right in ENOUGH {
        let answer = scene.objects(&[right]).await.patch("db", &params(), &merge(change)).await;
        expect(&format!("{change} with {right:?}"), answer, None);
    }
    let secrets = [&EDIT[..], &[Right::get_secret("db"), Right::patch_secret("db")]].concat();
    for rights in [&[][..], &secrets[..], &[by_name("db"), by_name("OTHER")]] {
        let answer = scene.objects(rights).await.patch("db", &params(), &merge(change)).await;
        expect(&format!("{change} with {rights:?}"), answer, Some(&cannot_read("DB_PASSWORD")));
    }
}

/// Tries changes that have no earlier value delivered, without any right.
async fn need_nothing(scene: &Scene, changes: &[Value]) {
    let nothing = scene.objects(&[]).await;
    for change in changes {
        expect(&change.to_string(), nothing.patch("db", &params(), &merge(change)).await, None);
    }
}

/// An object with this spec, which the operator has delivered.
async fn delivered(spec: Value) -> Scene {
    let scene = Scene::new(spec).await;
    report(&scene, &status("DB_PASSWORD", Some("db"))).await;
    scene
}

#[tokio::test]
async fn naming_a_version_needs_the_permission_to_read_the_value_by_name_or_id() {
    check(&delivered(json!({})).await, &json!({"version": 1})).await;
    let scene = delivered(json!({"version": 1})).await;
    check(&scene, &json!({"version": 2})).await;
    // The newest value is delivered wherever no version is named, so its delivery needs no permission: docs/permissions.md
    // says what that shows.
    need_nothing(&scene, &[json!({"version": null}), json!({"version": 1, "description": "x"})]).await;
}

#[tokio::test]
async fn the_previous_value_needs_the_permission_to_read_the_value_by_name_or_id() {
    let none = delivered(json!({})).await;
    for change in
        [json!({"target": {"previousKey": "old"}}), json!({"target": {"previousKey": "old"}, "overlap": "1h"})]
    {
        check(&none, &change).await;
    }
    // Longer, shorter or without an end: a value that is gone from the Secret can come back.
    let scene = delivered(json!({"target": {"previousKey": "old"}, "overlap": "1h"})).await;
    for change in [
        json!({"target": {"previousKey": "older"}}),
        json!({"overlap": "2h"}),
        json!({"overlap": "1m"}),
        json!({"overlap": null}),
    ] {
        check(&scene, &change).await;
    }
    need_nothing(
        &scene,
        &[
            json!({"target": {"previousKey": null}}),
            json!({"target": {"previousKey": null}, "overlap": "2h"}),
            json!({"target": {"previousKey": "old"}, "overlap": "1h", "description": "x"}),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_delivers_no_earlier_value_needs_no_permission() {
    let changes = [
        json!({"history": 0}),
        json!({"history": 10}),
        json!({"overlap": "1h"}),
        json!({"generate": {"revision": "a", "rotateEvery": "1h"}}),
        json!({"expires": "2027-03-01T00:00:00Z", "expiryWarning": "1h"}),
    ];
    need_nothing(&delivered(json!({})).await, &changes).await;
    // Keeping more of them delivers none.
    let scene = delivered(json!({"target": {"previousKey": "old"}, "overlap": "1h"})).await;
    need_nothing(&scene, &[json!({"history": 10}), json!({"generate": {"revision": "a"}})]).await;
    need_nothing(&delivered(json!({"version": 1})).await, &[json!({"history": 0})]).await;
}

/// The value is in no Secret; to have it in one needs permission to read it, and then an earlier one needs no other.
#[tokio::test]
async fn an_earlier_value_is_no_way_round_the_permission_to_deliver() {
    let named = json!({"version": 1, "target": {"previousKey": "old"}, "overlap": "1h"});
    let undelivered = json!({"delivery": "None"});
    let scene = Scene::new(undelivered.clone()).await;
    report(&scene, &status("DB_PASSWORD", None)).await;
    // Nothing is delivered, whatever is named.
    need_nothing(&scene, std::slice::from_ref(&named)).await;
    let mut all = named;
    all["delivery"] = undelivered["delivery"].clone();
    let scene = Scene::new(all).await;
    report(&scene, &status("DB_PASSWORD", None)).await;
    check(&scene, &json!({"delivery": "Secret"})).await;
}

/// A retained record is taken over under its name, with all that it keeps.
#[tokio::test]
async fn a_new_object_needs_the_permission_to_read_the_value_of_its_name() {
    let namespace = TestNamespace::create(control_plane().await, "create").await.unwrap();
    let objects = async |rights: &[Right]| {
        Api::<ManagedSecret>::namespaced(editor(&namespace.name, rights).await, &namespace.name)
    };
    let by_secret = objects(&[&EDIT[..], &[by_name("OTHER"), BY_ID]].concat()).await;
    for spec in [
        json!({"version": 1}),
        json!({"target": {"previousKey": "old"}}),
        json!({"target": {"previousKey": "old"}, "overlap": "1h"}),
    ] {
        let new = managed_secret(&spec);
        expect(&spec.to_string(), by_secret.create(&dry_run(), &new).await, Some(&cannot_read("DB_PASSWORD")));
        for right in [VALUE, ALL_VALUES, FORMER] {
            expect(&spec.to_string(), objects(&[right]).await.create(&dry_run(), &new).await, None);
        }
        let mut undelivered = spec;
        undelivered["delivery"] = json!("None");
        expect("undelivered", by_secret.create(&dry_run(), &managed_secret(&undelivered)).await, None);
    }
    let nothing = objects(&[]).await;
    expect("kept", nothing.create(&dry_run(), &managed_secret(&json!({"history": 10}))).await, None);
}
