//! The end of a secret, and what comes after: deletion, retention, take-over, restore.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::{Value, json};
use testkit::poll;

use super::{
    objects::{Site, id, message, moved, next_second, ready, status},
    operator::{PATIENCE, Setup, Tap},
};

fn generated(name: &str) -> Value {
    json!({"name": name, "generate": {}})
}

fn retained(name: &str) -> Value {
    json!({"name": name, "generate": {}, "deletionPolicy": "Retain"})
}

impl Site {
    /// Adds or removes a finalizer.
    async fn finalizers(&self, name: &str, finalizers: &[&str]) {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        self.objects().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Puts Secrets back as a restore from a backup does: without owner references, with uids of their own.
    async fn restore(&self, secrets: &[Secret]) {
        let restorer = self.as_restorer().await;
        for secret in secrets {
            let mut secret = secret.clone();
            let meta = &mut secret.metadata;
            (meta.owner_references, meta.managed_fields, meta.uid) = (None, None, None);
            (meta.resource_version, meta.creation_timestamp) = (None, None);
            restorer.secrets().create(&PostParams::default(), &secret).await.unwrap();
        }
    }

    /// The record of a name and the target, as a backup holds them.
    async fn backup(&self, name: &str, target: &str) -> Vec<Secret> {
        vec![self.record(name).await.unwrap(), self.secret(target).await.unwrap()]
    }
}

/// What a taken-over or restored secret keeps.
fn identity(object: &ManagedSecret) -> (String, Option<String>, (String, String, i64)) {
    (id(object), status(object).created_date, moved(object))
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_applied_again_is_a_new_secret_each_time() {
    let site = Site::new("again").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", generated("NAME")).await;
    let mut before = site.served("db").await;
    for round in 0..6 {
        let (was, value) = (id(&before), site.value("db", "value").await);
        site.objects().delete("db", &DeleteParams::background()).await.unwrap();
        let applied = site.apply("db", generated("NAME")).await;
        assert_ne!(applied.uid(), before.uid());
        before = site.served("db").await;
        assert_ne!(id(&before), was, "round {round}");
        assert_ne!(site.value("db", "value").await, value, "round {round}");
        assert_eq!(status(&before).version, Some(1));
        assert!(status(&before).created_date == status(&before).updated_date);
        // What is served now is not about to be collected.
        for secret in [site.record("NAME").await.unwrap(), site.secret("db").await.unwrap()] {
            assert_eq!(secret.owner_references()[0].uid, before.uid().unwrap());
        }
    }
    // And while no operator runs.
    let was = id(&before);
    operator.stop().await;
    site.objects().delete("db", &DeleteParams::background()).await.unwrap();
    site.apply("db", generated("NAME")).await;
    let operator = Setup::of(&site.namespace).start().await;
    assert_ne!(id(&site.served("db").await), was);
    site.delete("db").await;
    site.gone("db").await;
    site.gone(&record_name("NAME")).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_secret_outlives_its_object_and_is_taken_over() {
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground, PropagationPolicy::Orphan] {
        let site = Site::new("retain").await;
        let operator = Setup::of(&site.namespace).start().await;
        // Effective when the status says so, at once or by an edit.
        site.apply("db", generated("NAME")).await;
        assert_eq!(status(&site.served("db").await).deletion_policy.map(|p| format!("{p:?}")), Some("Delete".into()));
        site.apply("db", retained("NAME")).await;
        let retained_status =
            |o: &ManagedSecret| status(o).deletion_policy.is_some_and(|policy| format!("{policy:?}") == "Retain");
        site.until("db", "Retain effective", retained_status).await;
        let first = site.served("db").await;
        let value = site.value("db", "value").await.unwrap();
        let before = site.backup("NAME", "db").await;
        assert!(before.iter().all(|secret| secret.owner_references().is_empty()));

        site.delete_by("db", policy.clone()).await;
        // Another wants the name: it is told who holds it, and how to free it.
        site.apply("other", generated("NAME")).await;
        let object = site.reports("other", "False", "NameInUse").await;
        let said = message(&object);
        for part in [record_name("NAME").as_str(), "retained from ManagedSecret db", "delete the Secret"] {
            assert!(said.contains(part), "{said}");
        }
        let after = site.backup("NAME", "db").await;
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(
                (before.uid(), before.resource_version()),
                (after.uid(), after.resource_version()),
                "{policy:?}"
            );
        }

        // With another target or another name it is another secret's value.
        let elsewhere = json!({"name": "NAME", "generate": {}, "target": {"name": "elsewhere"}});
        site.apply("db", elsewhere).await;
        let object = site.reports("db", "False", "NameInUse").await;
        let said = message(&object);
        for part in [record_name("NAME").as_str(), "with another target", "delete the Secret"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(site.secret("elsewhere").await.is_none() && status(&object).id.is_none());
        site.apply("db", json!({"name": "NAME", "generate": {}, "target": {"key": "another"}})).await;
        let object = site.until("db", "waits", |o| status(o).observed_generation == o.metadata.generation).await;
        assert_eq!((ready(&object).1.as_str(), status(&object).id), ("NameInUse", None));

        // As it was, it is taken over: the same secret, under the new object.
        next_second().await;
        let applied = site.apply("db", generated("NAME")).await;
        let taken = site.served("db").await;
        assert_eq!(identity(&taken), identity(&first), "{policy:?}");
        site.delivers("db", "value", &value).await;
        let now = site.backup("NAME", "db").await;
        for (now, before) in now.iter().zip(&before) {
            assert_eq!(now.uid(), before.uid());
            assert_eq!(now.owner_references()[0].uid, applied.uid().unwrap());
        }
        assert_eq!(now[0].annotations()[keys::ANNO_UID], applied.uid().unwrap());
        assert_ne!(now[0].data, before[0].data, "sealed again under the new uid");
        poll("the event", PATIENCE, || async {
            Ok((site.events("db", "RecordTakenOver").await.len() == 1).then_some(()))
        })
        .await
        .unwrap();
        // The one that waits is told of the living holder.
        site.until("other", "names the holder", |o| message(o) == "the name NAME is held by ManagedSecret db").await;
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_holder_is_named_as_such_although_it_is_retained() {
    let site = Site::new("living").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", retained("NAME")).await;
    site.served("db").await;
    site.apply("other", generated("NAME")).await;
    let object = site.reports("other", "False", "NameInUse").await;
    assert_eq!(message(&object), "the name NAME is held by ManagedSecret db");
    site.delete("db").await;
    site.until("other", "says how to free the name", |o| message(o).contains("delete the Secret")).await;
    site.secrets().delete(&record_name("NAME"), &DeleteParams::default()).await.unwrap();
    site.served("other").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_secret_under_another_name_stays_as_it_is() {
    let site = Site::new("renamed").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", retained("NAME")).await;
    let first = site.served("db").await;
    let before = site.backup("NAME", "db").await;
    site.delete("db").await;
    // The same handle with another name is another secret; its target is not free.
    site.apply("db", generated("OTHER")).await;
    let object = site.until("db", "blocked", |o| ready(o).0 == "False").await;
    assert_ne!(status(&object).id, status(&first).id, "{:?}", ready(&object));
    let after = site.backup("NAME", "db").await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((before.uid(), before.resource_version()), (after.uid(), after.resource_version()));
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_orphaned_is_taken_over() {
    let site = Site::new("orphan").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("db", generated("NAME")).await;
    let first = site.served("db").await;
    let value = site.value("db", "value").await.unwrap();
    next_second().await;
    site.delete_by("db", PropagationPolicy::Orphan).await;
    let orphans = site.backup("NAME", "db").await;
    assert!(orphans.iter().all(|secret| secret.owner_references().is_empty()));
    site.apply("db", generated("NAME")).await;
    assert_eq!(identity(&site.served("db").await), identity(&first));
    assert_eq!(site.value("db", "value").await, Some(value));
    for (secret, before) in site.backup("NAME", "db").await.iter().zip(&orphans) {
        assert_eq!((secret.uid(), secret.owner_references().len()), (before.uid(), 1));
    }
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_value_of_a_taken_over_secret_is_its_next_version() {
    let site = Site::new("next").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |value: &str| json!({"name": "NAME", "value": value, "deletionPolicy": "Retain"});
    site.apply("db", spec(&site.seal("db", "one").await)).await;
    let first = site.served("db").await;
    site.delete("db").await;
    site.apply("db", spec(&site.seal("db", "two").await)).await;
    let second = site.served("db").await;
    assert_eq!((id(&second), status(&second).version), (id(&first), Some(2)));
    assert_eq!(status(&second).created_date, status(&first).created_date);
    site.delivers("db", "value", "two").await;
    operator.stop().await;
}

/// What a restore brings back of the status.
#[derive(Clone, Copy, Debug, PartialEq)]
enum StatusRestored {
    Nothing,
    ButTarget,
    Whole,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_secret_keeps_id_dates_and_value() {
    for case in [StatusRestored::Nothing, StatusRestored::ButTarget, StatusRestored::Whole] {
        let site = Site::new("restore").await;
        let operator = Setup::of(&site.namespace).start().await;
        site.apply("db", generated("NAME")).await;
        let first = site.served("db").await;
        let value = site.value("db", "value").await.unwrap();
        let backup = site.backup("NAME", "db").await;
        operator.stop().await;
        site.delete("db").await;
        for secret in &backup {
            site.gone(&secret.name_any()).await;
        }
        next_second().await;

        site.restore(&backup).await;
        let restored = site.apply("db", generated("NAME")).await;
        let mut old = status(&first);
        if case == StatusRestored::ButTarget {
            old.target = None;
        }
        if case != StatusRestored::Nothing {
            site.write_status("db", serde_json::to_value(old).unwrap()).await;
        }
        let operator = Setup::of(&site.namespace).start().await;
        let bound = |o: &ManagedSecret| status(o).record.is_some_and(|r| Some(r.uid) != backup[0].uid());
        site.until("db", "bound to the restored record", bound).await;
        if case == StatusRestored::Whole {
            // The status names a target with another uid: one that only carries our labels is not believed to be ours.
            let object = site.reports("db", "False", "TargetNotOwned").await;
            assert_eq!(identity(&object), identity(&first));
            assert_eq!(site.value("db", "value").await.as_ref(), Some(&value));
            site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
        }
        let object = site.served("db").await;
        assert_eq!(identity(&object), identity(&first), "{case:?}");
        site.delivers("db", "value", &value).await;
        for secret in site.backup("NAME", "db").await {
            assert_eq!(secret.owner_references()[0].uid, restored.uid().unwrap(), "{case:?}");
        }
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_being_deleted_gets_no_writes_and_keeps_its_name() {
    let site = Site::new("finalizer").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    site.apply("db", generated("NAME")).await;
    site.served("db").await;
    site.finalizers("db", &["example.com/hold"]).await;
    site.objects().delete("db", &DeleteParams::background()).await.unwrap();
    site.apply("waiter", generated("NAME")).await;
    let object = site.reports("waiter", "False", "NameInUse").await;
    assert_eq!(message(&object), "the name NAME is held by ManagedSecret db");
    let mark = tap.seen().len();

    // Neither an edit, nor drift, nor a lost record moves it.
    let edited = site.apply("db", json!({"name": "OTHER", "description": "edited", "generate": {}})).await;
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    site.apply("later", generated("LATER")).await;
    site.served("later").await;
    assert!(site.secret("db").await.is_none());
    assert_eq!(site.get("db").await.resource_version(), edited.resource_version());
    let about_it = |path: &str| {
        path.contains("/db") || path.contains(&record_name("NAME")) || path.contains(&record_name("OTHER"))
    };
    let writes: Vec<_> =
        tap.seen()[mark..].iter().filter(|s| s.method != "GET" && about_it(&s.path)).cloned().collect();
    assert!(writes.is_empty(), "{writes:?}");

    // Its end hands the name on.
    site.finalizers("db", &[]).await;
    site.served("waiter").await;
    operator.stop().await;
}
