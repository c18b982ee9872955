//! Records, keys, the public key and status are written by the operator and by restorers alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client};
use managed_secrets::keyring::{KeyringStore, Unreadable};
use managed_secrets_api::{ManagedSecret, keys};
use managed_secrets_crypto::provider::Provider;
use serde_json::{Value, json};
use testkit::poll;
use testkit::shared::TestNamespace;

use crate::integration::{
    collector,
    installation::{OPERATOR_NAMESPACE, PATIENCE, admin, control_plane, dry_run, expect, object, operator, restorer},
};

const RECORD: &str = "msec-ayjtvytngnu4vqtp6gvulissfxwnndnb";

fn secret(name: &str, secret_type: &str) -> Secret {
    object(json!({
        "metadata": {"name": name, "labels": {keys::LABEL_ROLE: keys::ROLE_RECORD}, "annotations": {keys::ANNO_NAME: "N"}},
        "type": secret_type,
        "data": {"value": "YQ=="},
    }))
}

fn refusal(resource: &str) -> String {
    format!("cannot write resource \"{resource}\"")
}

#[tokio::test]
async fn secrets_of_our_types_are_created_by_operator_and_restorer_only() {
    let namespace = TestNamespace::create(control_plane().await, "protected").await.unwrap();
    let refused = refusal("secrets");
    for (place, name, secret_type) in [
        (namespace.name.as_str(), RECORD, keys::TYPE_RECORD),
        (namespace.name.as_str(), RECORD, "Opaque"),
        (namespace.name.as_str(), "msec-other", "example.com/a"),
        (OPERATOR_NAMESPACE, "restored-keyring", keys::TYPE_KEYRING),
        (OPERATOR_NAMESPACE, "managed-secrets-kek-0123456789abcdef", keys::TYPE_KEK),
    ] {
        let new = secret(name, secret_type);
        for (who, client, refusal) in
            [("administrator", admin().await, Some(refused.as_str())), ("restorer", restorer().await, None)]
        {
            let secrets = Api::<Secret>::namespaced(client, place);
            expect(&format!("{who} creates {secret_type}"), secrets.create(&dry_run(), &new).await, refusal);
            let apply = PatchParams { dry_run: true, ..PatchParams::apply("somebody") };
            let answer = secrets.patch(name, &apply, &Patch::Apply(&new)).await;
            expect(&format!("{who} applies {secret_type}"), answer, refusal);
        }
    }
    let by_operator = Api::<Secret>::namespaced(operator().await, &namespace.name);
    expect("operator", by_operator.create(&dry_run(), &secret(RECORD, keys::TYPE_RECORD)).await, None);
    let others = Api::<Secret>::namespaced(admin().await, &namespace.name);
    expect("another type", others.create(&dry_run(), &secret("mine", "example.com/a")).await, None);
    expect("nearly its name", others.create(&dry_run(), &secret("msecret", "Opaque")).await, None);
    let mut unnamed = secret("", "Opaque");
    unnamed.metadata.name = None;
    unnamed.metadata.generate_name = Some(keys::RECORD_PREFIX.to_owned());
    expect("a generated name", others.create(&dry_run(), &unnamed).await, Some(&refused));
}

/// One that was there before the policy: it cannot be edited any more, but it can go, whoever has a finalizer on it.
#[tokio::test]
async fn a_strangers_secret_of_a_records_name_is_frozen_and_can_go() {
    let namespace = TestNamespace::create(control_plane().await, "frozen").await.unwrap();
    let by = |client: Client| Api::<Secret>::namespaced(client, &namespace.name);
    let administrator = by(admin().await);
    let mut theirs: Secret = object(json!({"metadata": {"name": "msec-theirs"}, "stringData": {"a": "b"}}));
    theirs.metadata.finalizers = Some(vec!["example.com/stop".to_owned()]);
    let present = by(restorer().await).create(&PostParams::default(), &theirs).await.unwrap();
    let refused = refusal("secrets");
    let params = PatchParams::default();
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let edit = Patch::Merge(json!({"stringData": {"a": "c"}}));
    expect("nothing changed", administrator.replace("msec-theirs", &dry_run(), &present).await, None);
    expect("edited", administrator.patch("msec-theirs", &params, &edit).await, Some(&refused));
    expect("released", administrator.patch("msec-theirs", &params, &release).await, Some(&refused));
    administrator.delete("msec-theirs", &DeleteParams::default()).await.unwrap();
    expect("edited while it goes", administrator.patch("msec-theirs", &params, &edit).await, Some(&refused));
    expect("released while it goes", administrator.patch("msec-theirs", &params, &release).await, None);
    assert_eq!(administrator.get_opt("msec-theirs").await.unwrap(), None);
}

#[tokio::test]
async fn records_are_changed_by_operator_and_restorer_only() {
    let namespace = TestNamespace::create(control_plane().await, "protected").await.unwrap();
    let by = |client: Client| Api::<Secret>::namespaced(client, &namespace.name);
    let (administrator, operator, restorer) = (by(admin().await), by(operator().await), by(restorer().await));
    operator
        .patch(RECORD, &PatchParams::apply(keys::FIELD_MANAGER), &Patch::Apply(secret(RECORD, keys::TYPE_RECORD)))
        .await
        .unwrap();
    let present = administrator.get(RECORD).await.unwrap();
    expect("nothing changed", administrator.replace(RECORD, &dry_run(), &present).await, None);
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u"}]);
    for change in [
        json!({"data": {"value": "Yg=="}}),
        json!({"data": null}),
        json!({"stringData": {"more": "x"}}),
        json!({"immutable": true}),
        json!({"metadata": {"labels": {keys::LABEL_ROLE: "target"}}}),
        json!({"metadata": {"labels": null}}),
        json!({"metadata": {"annotations": {keys::ANNO_NAME: "M"}}}),
        json!({"metadata": {"ownerReferences": owner}}),
        json!({"metadata": {"finalizers": ["example.com/stop"]}}),
    ] {
        let (case, patch) = (change.to_string(), Patch::Merge(&change));
        expect(&case, administrator.patch(RECORD, &params, &patch).await, Some(&refusal("secrets")));
        expect(&case, restorer.patch(RECORD, &params, &patch).await, None);
    }
    let more = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_NAME: "M"}}}));
    expect("operator", operator.patch(RECORD, &params, &more).await, None);
    expect("anyone with the right may delete", administrator.delete(RECORD, &DeleteParams::default()).await, None);
}

/// By an annotation on the operator's own keyring, users ask the operator for a change. It is the only one that they write,
/// and there only.
#[tokio::test]
async fn users_may_ask_the_operator_to_change_its_own_keyring() {
    let namespace = TestNamespace::create(control_plane().await, "asked").await.unwrap();
    let (restorer, params) = (restorer().await, PatchParams::default());
    // Operators of other tests may use it, so it must be one.
    let store = KeyringStore::new(restorer.clone(), OPERATOR_NAMESPACE, Provider::Local);
    let served = std::slice::from_ref(&namespace.name);
    store.load_or_create(Timestamp::now(), served, Unreadable::Refuse).await.unwrap();
    let named = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_NAME: "N"}}}));
    let own = Api::<Secret>::namespaced(restorer.clone(), OPERATOR_NAMESPACE);
    own.patch(keys::KEYRING_NAME, &params, &named).await.unwrap();
    let mut beside = secret("asked-keyring", keys::TYPE_KEYRING);
    own.create(&PostParams::default(), &beside).await.unwrap();
    beside.metadata.name = Some(keys::KEYRING_NAME.to_owned());
    let elsewhere = Api::<Secret>::namespaced(restorer, &namespace.name);
    elsewhere.create(&PostParams::default(), &beside).await.unwrap();

    let refused = refusal("secrets");
    for (place, name, may_ask) in [
        (OPERATOR_NAMESPACE, keys::KEYRING_NAME, true),
        (OPERATOR_NAMESPACE, "asked-keyring", false),
        (namespace.name.as_str(), keys::KEYRING_NAME, false),
    ] {
        let administrator = Api::<Secret>::namespaced(admin().await, place);
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let with = |data: Value, labels: Value, annotations: Value| {
            let mut change = json!({"metadata": {"annotations": annotations, "labels": labels}, "data": data});
            change["metadata"]["annotations"][keys::ANNO_KEYRING_REQUEST] = "nothing".into();
            change
        };
        let ask = with(json!({}), json!({}), json!({}));
        let expected = if may_ask { None } else { Some(refused.as_str()) };
        expect(&format!("{place}/{name}"), administrator.patch(name, &dry, &Patch::Merge(&ask)).await, expected);
        for more in [
            with(json!({"value": "Yg=="}), json!({}), json!({})),
            with(json!({}), json!({"more": "M"}), json!({})),
            with(json!({}), json!({}), json!({keys::ANNO_NAME: "M"})),
            with(json!({}), json!({}), json!({keys::ANNO_NAME: null})),
            with(json!({}), json!({}), json!({"more": "M"})),
        ] {
            let case = format!("{place}/{name}: {more}");
            expect(&case, administrator.patch(name, &dry, &Patch::Merge(&more)).await, Some(&refused));
        }
        if may_ask {
            administrator.patch(name, &params, &Patch::Merge(&ask)).await.unwrap();
            let withdraw = Patch::Merge(json!({"metadata": {"annotations": {keys::ANNO_KEYRING_REQUEST: null}}}));
            expect("withdrawn", administrator.patch(name, &params, &withdraw).await, None);
        }
    }
    own.delete("asked-keyring", &DeleteParams::default()).await.unwrap();
}

/// A ManagedSecret and a record that it owns.
async fn owned_record(namespace: &str) -> (Api<ManagedSecret>, Api<Secret>) {
    let objects = Api::<ManagedSecret>::namespaced(admin().await, namespace);
    let owner: ManagedSecret = object(json!({"metadata": {"name": "db"}, "spec": {"name": "N", "generate": {}}}));
    let owner = objects.create(&PostParams::default(), &owner).await.unwrap();
    let mut record = secret(RECORD, keys::TYPE_RECORD);
    record.metadata.owner_references = Some(vec![object(json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "name": "db", "uid": owner.metadata.uid,
    }))]);
    let secrets = Api::<Secret>::namespaced(operator().await, namespace);
    let apply = PatchParams::apply(keys::FIELD_MANAGER);
    secrets.patch(RECORD, &apply, &Patch::Apply(record)).await.unwrap();
    (objects, secrets)
}

#[tokio::test]
async fn the_garbage_collector_does_its_work() {
    let namespace = TestNamespace::create(control_plane().await, "collected").await.unwrap();
    let (objects, secrets) = owned_record(&namespace.name).await;
    objects.delete("db", &DeleteParams::default()).await.unwrap();
    poll("the record to be collected", PATIENCE, || async {
        Ok(secrets.get_opt(RECORD).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_garbage_collector_leaves_orphans() {
    let namespace = TestNamespace::create(control_plane().await, "orphan").await.unwrap();
    let (objects, secrets) = owned_record(&namespace.name).await;
    collector::has_seen_all(admin().await, &namespace.name).await;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    objects.delete("db", &orphan).await.unwrap();
    poll("the owner to go", PATIENCE, || async { Ok(objects.get_opt("db").await?.is_none().then_some(())) })
        .await
        .unwrap();
    let record = secrets.get(RECORD).await.unwrap();
    assert_eq!(record.metadata.owner_references.unwrap_or_default(), []);
}

#[tokio::test]
async fn a_record_deleted_in_the_foreground_goes() {
    let namespace = TestNamespace::create(control_plane().await, "foreground").await.unwrap();
    let (_objects, secrets) = owned_record(&namespace.name).await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    let by_admin = Api::<Secret>::namespaced(admin().await, &namespace.name);
    by_admin.delete(RECORD, &foreground).await.unwrap();
    poll("the record to go", PATIENCE, || async { Ok(secrets.get_opt(RECORD).await?.is_none().then_some(())) })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_namespace_with_records_goes() {
    let namespace = TestNamespace::create(control_plane().await, "going").await.unwrap();
    owned_record(&namespace.name).await;
    let namespaces = Api::<Namespace>::all(admin().await);
    namespaces.delete(&namespace.name, &DeleteParams::default()).await.unwrap();
    poll("the namespace to go", PATIENCE, || async {
        Ok(namespaces.get_opt(&namespace.name).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_public_key_is_written_by_operator_and_restorer_only() {
    let name = keys::PUBLIC_KEY_CONFIGMAP;
    let map = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    let by = |client: Client| Api::<ConfigMap>::namespaced(client, OPERATOR_NAMESPACE);
    let (administrator, operator) = (by(admin().await), by(operator().await));
    let dry_apply = PatchParams { dry_run: true, ..PatchParams::apply("somebody").force() };
    let new = Patch::Apply(map(json!({keys::PUBLIC_KEY_DATA_KEY: "forged"})));
    let refused = refusal("configmaps");
    expect("created", administrator.patch(name, &dry_apply, &new).await, Some(&refused));

    // An operator of another test may have published its key already: this adds a map without one, if there is none.
    operator.patch(name, &PatchParams::apply("probe"), &Patch::Apply(map(json!({})))).await.unwrap();
    expect("changed", administrator.patch(name, &dry_apply, &new).await, Some(&refused));
    expect("changed by a restorer", by(restorer().await).patch(name, &dry_apply, &new).await, None);
    let same = poll("a write that nobody else's comes between", PATIENCE, || async {
        let present = administrator.get(name).await?;
        let answer = administrator.replace(name, &dry_run(), &present).await;
        let conflict = matches!(&answer, Err(kube::Error::Api(status)) if status.is_conflict());
        Ok((!conflict).then_some(answer))
    });
    expect("nothing changed", same.await.unwrap(), None);
    let other: ConfigMap = object(json!({"metadata": {"name": "other"}}));
    expect("another one", administrator.create(&dry_run(), &other).await, None);

    let namespace = TestNamespace::create(control_plane().await, "elsewhere").await.unwrap();
    let posted: ConfigMap = object(json!({"metadata": {"name": name}}));
    let elsewhere = Api::<ConfigMap>::namespaced(admin().await, &namespace.name);
    expect("of the same name elsewhere", elsewhere.create(&dry_run(), &posted).await, None);
}

#[tokio::test]
async fn status_is_written_by_operator_and_restorer_only() {
    let namespace = TestNamespace::create(control_plane().await, "status").await.unwrap();
    let (objects, _) = owned_record(&namespace.name).await;
    let by = |client: Client| Api::<ManagedSecret>::namespaced(client, &namespace.name);
    let forged = json!({"apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "status": {"target": {"name": "theirs", "key": "value", "uid": "u", "resourceVersion": "1"}}});
    let refused = refusal("managedsecrets/status");
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("somebody").force() };
    for (who, client, refusal) in [
        ("administrator", objects.clone(), Some(refused.as_str())),
        ("operator", by(operator().await), None),
        ("restorer", by(restorer().await), None),
    ] {
        expect(who, client.patch_status("db", &params, &Patch::Merge(&forged)).await, refusal);
        expect(who, client.patch_status("db", &apply, &Patch::Apply(&forged)).await, refusal);
    }
    let present = objects.get("db").await.unwrap();
    let same = objects.replace_status("db", &dry_run(), &present).await;
    expect("nothing changed", same, None);
}
