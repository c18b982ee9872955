//! The keyring or its key is lost while records stand: the operator starts nothing afresh, says what is missing, and goes
//! on where it was once that is restored, also beside a keyring made since.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Config,
    api::{DeleteParams, ListParams, PostParams},
    core::ObjectMeta,
};
use managed_secrets::keyring::OverRecords;
use managed_secrets_api::{keys, names::record_name};
use serde_json::json;

use super::{
    installation::{RESTORER, control_plane},
    objects::{Site, message, ready},
    operator::{Running, Setup},
    rollback::until_it_says,
    witness::Witness,
};

/// An operator with a namespace of its own for its keys. It runs as an identity that the policies of the shared
/// installation trust with records.
pub(super) struct Keys {
    pub(super) site: Site,
    pub(super) config: Config,
}

impl Keys {
    pub(super) async fn new() -> Self {
        let mut config = control_plane().await.access().config().await.unwrap();
        config.auth_info.impersonate = Some(RESTORER.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        Self { site: Site::new("keys").await.as_restorer().await, config }
    }

    pub(super) fn serve(&self, site: &Site) -> Running {
        self.serve_with(site, OverRecords::Refuse)
    }

    fn serve_with(&self, site: &Site, over_records: OverRecords) -> Running {
        let operator_namespace = self.site.namespace.clone();
        let setup = Setup { operator_namespace, over_records, ..Setup::of(&site.namespace) };
        setup.start_with(self.config.clone())
    }

    /// A start that fails; what it says. Nothing is made.
    async fn refuses(&self, site: &Site) -> String {
        let before = self.names().await;
        let error = self.serve(site).ended().await.unwrap_err().to_string();
        assert_eq!(self.names().await, before, "{error}");
        error
    }

    async fn names(&self) -> Vec<String> {
        let list = self.site.secrets().list(&ListParams::default()).await.unwrap();
        list.items.iter().map(kube::ResourceExt::name_any).collect()
    }

    pub(super) async fn take(&self, name: &str) -> Secret {
        let secret = self.site.secret(name).await.unwrap();
        self.site.secrets().delete(name, &DeleteParams::default()).await.unwrap();
        secret
    }

    pub(super) async fn restore(&self, secret: &Secret, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, ..secret.clone() };
        self.site.secrets().create(&PostParams::default(), &secret).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_afresh_over_records_whose_keys_are_lost() {
    let (keys, site) = (Keys::new().await, Site::new("lost-keys").await);
    let operator = keys.serve(&site);
    site.apply("db", json!({"name": "NAME", "generate": {}})).await;
    let before = site.in_step("db").await;
    let value = site.value("db", "value").await;
    operator.stop().await;
    let witness = Witness::of(&site).await;
    let kek_name = keys.names().await.into_iter().find(|name| name.starts_with(keys::KEK_PREFIX)).unwrap();

    let keyring = keys.take(keys::KEYRING_NAME).await;
    let said = keys.refuses(&site).await;
    assert!(said.contains(&format!("record {}/{} exists", site.namespace, record_name("NAME"))), "{said}");
    assert!(said.contains(&format!("restore Secret {}/{}", keys.site.namespace, keys::KEYRING_NAME)), "{said}");

    keys.restore(&keyring, keys::KEYRING_NAME).await;
    let kek = keys.take(&kek_name).await;
    let said = keys.refuses(&site).await;
    assert!(said.contains(&format!("restore Secret {}/{kek_name} from a backup", keys.site.namespace)), "{said}");

    // Restored, it goes on as if nothing had been: not one write.
    keys.restore(&kek, &kek_name).await;
    let operator = keys.serve(&site);
    site.apply("probe", json!({"name": "PROBE", "generate": {}})).await;
    site.served("probe").await;
    assert_eq!(site.get("db").await, before);
    site.delete("probe").await;
    site.gone(&record_name("PROBE")).await;
    operator.stop().await;

    // Another keyring was made meanwhile, for a namespace without records.
    let elsewhere = Site::new("no-records").await;
    keys.take(keys::KEYRING_NAME).await;
    keys.take(&kek_name).await;
    let operator = keys.serve(&elsewhere);
    elsewhere.apply("new", json!({"name": "NEW", "generate": {}})).await;
    elsewhere.served("new").await;
    operator.stop().await;
    let operator = keys.serve(&site);
    site.nudge("db").await;
    let object = site.until("db", "SeedUnknown", |object| ready(object).1 == "SeedUnknown").await;
    assert!(message(&object).contains("restore that keyring"), "{}", message(&object));
    assert_eq!(object.status.unwrap().record, before.status.clone().unwrap().record);

    // The lost one beside it: found by the running operator, without a restart, and what lacked it is looked at.
    keys.restore(&kek, &kek_name).await;
    keys.restore(&keyring, "restored-keyring").await;
    site.served("db").await;
    let after = site.in_step("db").await.status.unwrap();
    let before = before.status.unwrap();
    assert_eq!((after.id, after.version, after.created_date), (before.id, before.version, before.created_date));
    assert_eq!(witness.values("db", "value").await, [value]);
    // Both keyrings' objects are served together.
    site.apply("db", json!({"name": "RENAMED", "generate": {}})).await;
    site.served("db").await;
    operator.stop().await;
}

/// Uninstalled with its keys, and installed again where a secret is retained: nothing is read and nothing is deleted, and
/// an administrator decides whether the keys are given up.
#[tokio::test(flavor = "multi_thread")]
async fn lost_keys_are_given_up_by_an_explicit_act_and_nothing_is_deleted() {
    let (keys, site) = (Keys::new().await, Site::new("given-up").await);
    let operator = keys.serve(&site);
    for (name, policy) in [("kept", "Retain"), ("live", "Delete")] {
        site.apply(name, json!({"name": name, "generate": {}, "deletionPolicy": policy})).await;
        site.in_step(name).await;
    }
    site.delete("kept").await;
    let lost = keys.published().await;
    operator.stop().await;
    let kept = (site.record("kept").await.unwrap(), site.secret("kept").await.unwrap());
    let live = (site.record("live").await.unwrap(), site.secret("live").await.unwrap());
    let (mut secrets, names) = (Vec::new(), keys.names().await);
    for name in names.iter().filter(|name| name.starts_with("managed-secrets-ke")) {
        secrets.push((name.clone(), keys.take(name).await));
    }
    assert_eq!(secrets.len(), 2, "{names:?}");

    let said = keys.refuses(&site).await;
    assert!(said.contains("kubectl msec restore BACKUP") && said.contains("--allow-new-keyring"), "{said}");
    let operator = keys.serve_with(&site, OverRecords::Allow);
    site.apply("new", json!({"name": "NEW", "generate": {}})).await;
    site.served("new").await;
    // The new keys are not an older keyring.
    keys.published_after(&lost).await;
    until_it_says(&operator, 0.0).await;
    // What cannot be read says so, keeps its name, and goes on being delivered.
    site.nudge("live").await;
    let object = site.until("live", "SeedUnknown", |object| ready(object).1 == "SeedUnknown").await;
    assert!(message(&object).contains("restore that keyring"), "{}", message(&object));
    site.apply("kept", json!({"name": "kept", "generate": {}, "deletionPolicy": "Retain"})).await;
    let object = site.until("kept", "SeedUnknown", |object| ready(object).1 == "SeedUnknown").await;
    for says in ["restore that keyring", "delete the record"] {
        assert!(message(&object).contains(says), "{}", message(&object));
    }
    for (name, (record, target)) in [("kept", &kept), ("live", &live)] {
        assert_eq!(site.record(name).await.as_ref(), Some(record), "{name}");
        assert_eq!(site.secret(name).await.as_ref(), Some(target), "{name}");
    }
    operator.stop().await;
    // The flag is not needed again.
    let operator = keys.serve(&site);
    site.apply("next", json!({"name": "NEXT", "generate": {}})).await;
    site.served("next").await;

    // Found after all: the keys join those made since, and everything is served as it was.
    for (name, secret) in &secrets {
        let beside = if name == keys::KEYRING_NAME { "restored-keyring" } else { name };
        keys.restore(secret, beside).await;
    }
    for name in ["kept", "live", "new", "next"] {
        site.served(name).await;
    }
    assert_eq!(site.secret("kept").await.unwrap().data, kept.1.data);
    assert_eq!(site.secret("live").await.unwrap().data, live.1.data);
    operator.stop().await;
}
