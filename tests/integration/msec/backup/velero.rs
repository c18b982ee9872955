//! What Velero writes when it restores a namespace. Velero itself does not run here: these are its writes, in its order, as
//! its `pkg/restore/restore.go` of May 2026 makes them. Of metadata it leaves out `ownerReferences` and what the server
//! sets, it leaves out the status, adds two labels, creates, and then patches `managedFields` back. Secrets come before
//! ManagedSecrets. What exists is skipped.

use kube::{
    Resource,
    api::{Api, Patch, PatchParams, PostParams},
    core::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::integration::{
    objects::{Site, id, moved, next_second, status},
    operator::Setup,
};

/// Restores one object.
async fn create<K>(api: &Api<K>, mut object: K)
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let backup = object.meta().clone();
    let mut labels = backup.labels.clone().unwrap_or_default();
    labels.insert("velero.io/backup-name".to_owned(), "nightly".to_owned());
    labels.insert("velero.io/restore-name".to_owned(), "nightly-1".to_owned());
    *object.meta_mut() = ObjectMeta {
        name: backup.name.clone(),
        namespace: backup.namespace,
        labels: Some(labels),
        annotations: backup.annotations,
        ..ObjectMeta::default()
    };
    api.create(&PostParams::default(), &object).await.unwrap();
    let fields = Patch::Merge(json!({"metadata": {"managedFields": backup.managed_fields}}));
    api.patch(backup.name.as_deref().unwrap(), &PatchParams::default(), &fields).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writes_of_velero_restore_ids_dates_versions_and_values() {
    let site = Site::new("velero").await;
    let operator = Setup::of(&site.namespace).start().await;
    let first = site.seal("sealed", "the first").await;
    let second = site.seal("sealed", "the second").await;
    site.apply("sealed", json!({"name": "SEALED", "value": first})).await;
    site.apply("generated", json!({"name": "GENERATED", "generate": {}, "target": {"name": "login", "key": "token"}}))
        .await;
    site.in_step("sealed").await;
    next_second().await;
    site.apply("sealed", json!({"name": "SEALED", "value": second})).await;
    site.until("sealed", "a second version", |object| status(object).version == Some(2)).await;
    let places = [("sealed", "SEALED", "sealed", "value"), ("generated", "GENERATED", "login", "token")];
    let mut backup = Vec::new();
    for (name, secret, target, key) in places {
        let object = site.in_step(name).await;
        let (record, delivered) = (site.record(secret).await.unwrap(), site.secret(target).await.unwrap());
        backup.push((object, record, delivered, site.value(target, key).await.unwrap()));
    }
    for (name, secret, target, _) in places {
        site.delete(name).await;
        site.gone(&managed_secrets_api::names::record_name(secret)).await;
        site.gone(target).await;
    }
    next_second().await;

    let velero = site.as_restorer().await;
    for (_, record, delivered, _) in &backup {
        create(&velero.secrets(), delivered.clone()).await;
        create(&velero.secrets(), record.clone()).await;
    }
    for (object, ..) in &backup {
        create(&velero.objects(), managed_secrets_api::ManagedSecret { status: None, ..object.clone() }).await;
    }
    for ((name, secret, target, key), (object, _, delivered, value)) in places.into_iter().zip(&backup) {
        let after = site.in_step(name).await;
        assert_eq!((id(&after), moved(&after)), (id(object), moved(object)), "{name}");
        assert_eq!(status(&after).created_date, status(object).created_date, "{name}");
        assert!(site.value(target, key).await.as_ref() == Some(value), "{name} has another value");
        // Both belong to the new object, so they are deleted with it.
        let owners = [site.record(secret).await.unwrap(), site.secret(target).await.unwrap()];
        assert!(
            owners
                .iter()
                .all(|it| it.metadata.owner_references.as_ref().unwrap()[0].uid == after.metadata.uid.clone().unwrap())
        );
        assert_eq!(owners[1].type_, delivered.type_);
        site.delete(name).await;
        site.gone(target).await;
    }
    operator.stop().await;
}
