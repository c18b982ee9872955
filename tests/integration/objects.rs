//! ManagedSecrets and Secrets in the tests: made, waited for, looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{core::v1::Secret, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use managed_secrets_api::{
    ManagedSecret, ManagedSecretStatus, keys,
    limits::{ANNOTATIONS_BYTES_MAX, LABEL_VALUE_MAX, SECRET_NAME_MAX, TARGET_METADATA_MAX},
    names::record_name,
};
use managed_secrets_crypto::{Plaintext, mss1};
use serde_json::{Value, json};
use testkit::{ControlPlane, poll};
use zeroize::Zeroizing;

use super::{
    collector,
    operator::{PATIENCE, public_key},
};

/// The field manager of a user who changes what is not theirs.
pub(crate) const INTRUDER: &str = "intruder";

/// Labels and annotations of a target, as many and as long as the API allows; `mark` stands at the end of each value.
pub(crate) fn largest_metadata(mark: char) -> Value {
    let entry = |n: usize, key: usize, value: usize| {
        let (domain, name) = ("d".repeat(63), format!("{n:0>63}"));
        let domain = [domain.as_str(); 4].join(".");
        let prefix = &domain[..key - 64];
        (format!("{prefix}/{name}"), format!("{mark:x>value$}"))
    };
    let map = |key: usize, value: usize| -> BTreeMap<String, String> {
        (0..TARGET_METADATA_MAX).map(|n| entry(n, key, value)).collect()
    };
    let annotation = ANNOTATIONS_BYTES_MAX / TARGET_METADATA_MAX;
    json!({
        "labels": map(SECRET_NAME_MAX + 64, LABEL_VALUE_MAX),
        "annotations": map(SECRET_NAME_MAX + 64, annotation - SECRET_NAME_MAX - 64),
    })
}

/// One namespace, as an administrator sees it.
#[derive(Clone)]
pub(crate) struct Site {
    /// Its name.
    pub(crate) namespace: String,
    /// The administrator's client.
    pub(crate) client: Client,
}

impl Site {
    /// A namespace of this name on the installation's control plane, with a suffix of its own.
    pub(crate) async fn new(purpose: &str) -> Self {
        Self::on(super::installation::control_plane().await, purpose).await
    }

    /// A namespace of this name on another control plane, with a suffix of its own.
    pub(crate) async fn on(control_plane: &ControlPlane, purpose: &str) -> Self {
        let client = control_plane.access().admin_client().await.unwrap();
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("{purpose}-{}", &unique[..8]);
        let object: k8s_openapi::api::core::v1::Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
        Self { namespace, client }
    }

    /// ManagedSecrets.
    pub(crate) fn objects(&self) -> Api<ManagedSecret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Secrets.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The scope of one object of this namespace.
    pub(crate) fn strict(&self, name: &str) -> mss1::Scope {
        mss1::Scope::Strict { namespace: self.namespace.clone(), name: name.to_owned() }
    }

    /// Seals a value for an object of this namespace.
    pub(crate) async fn seal(&self, name: &str, value: &str) -> String {
        self.seal_for(&self.strict(name), value).await
    }

    /// Seals a value for an object of this namespace, to be kept.
    pub(crate) async fn seal_kept(&self, name: &str, value: &str) -> String {
        sealed_as(mss1::Handling::Kept, &public_key(&self.client).await, &self.strict(name), value)
    }

    /// Seals a value with a scope.
    pub(crate) async fn seal_for(&self, scope: &mss1::Scope, value: &str) -> String {
        sealed(&public_key(&self.client).await, scope, value)
    }

    /// Applies a ManagedSecret by server-side apply; `spec` is the whole spec.
    pub(crate) async fn apply(&self, name: &str, spec: Value) -> ManagedSecret {
        let object = json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        self.objects().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap()
    }

    /// Merges `status` into an object's status, as the restorer.
    pub(crate) async fn write_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.as_restorer().await.objects().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A Secret that the operator does not manage.
    pub(crate) async fn foreign_secret(&self, name: &str, data: &[(&str, &str)]) -> Secret {
        let data: BTreeMap<&str, &str> = data.iter().copied().collect();
        let object: Secret =
            serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data, "type": "Opaque"})).unwrap();
        self.secrets().create(&PostParams::default(), &object).await.unwrap()
    }

    /// The same namespace, as seen by an identity that may write records and status.
    pub(crate) async fn as_restorer(&self) -> Self {
        Self { namespace: self.namespace.clone(), client: super::installation::restorer().await }
    }

    /// A Secret now.
    pub(crate) async fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets().get_opt(name).await.unwrap()
    }

    /// A source Secret with one value under `key`, made or changed.
    pub(crate) async fn source(&self, name: &str, value: &str) -> Secret {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": value},
        });
        self.secrets().patch(name, &PatchParams::apply("upstream").force(), &Patch::Apply(&object)).await.unwrap()
    }

    /// A user's change of a Secret (a merge patch), under the field manager `intruder`.
    pub(crate) async fn intrude(&self, name: &str, change: Value) -> Secret {
        let params = PatchParams { field_manager: Some(INTRUDER.to_owned()), ..PatchParams::default() };
        self.secrets().patch(name, &params, &Patch::Merge(change)).await.unwrap()
    }

    /// A change of the object's metadata that means nothing, so that the operator looks at it.
    pub(crate) async fn nudge(&self, name: &str) {
        let annotation = json!({"metadata": {"annotations": {"example.com/nudge": uuid::Uuid::new_v4().to_string()}}});
        self.objects().patch(name, &PatchParams::default(), &Patch::Merge(annotation)).await.unwrap();
    }

    async fn events_about(&self, name: &str, reason: &str) -> Vec<Event> {
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        let list = events.list(&ListParams::default().fields(&format!("reason={reason}"))).await.unwrap();
        let about = |event: &Event| event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some(name));
        list.items.into_iter().filter(about).collect()
    }

    /// Notes of the events about an object that have this reason.
    pub(crate) async fn events(&self, name: &str, reason: &str) -> Vec<String> {
        self.events_about(name, reason).await.into_iter().filter_map(|event| event.note).collect()
    }

    /// How often such events were repeated, beside the first of each series.
    pub(crate) async fn repetitions(&self, name: &str, reason: &str) -> i32 {
        let events = self.events_about(name, reason).await;
        events.into_iter().filter_map(|event| event.series).map(|series| series.count - 1).sum()
    }

    /// The object now.
    pub(crate) async fn get(&self, name: &str) -> ManagedSecret {
        self.objects().get(name).await.unwrap()
    }

    /// A condition of the object now.
    pub(crate) async fn condition(&self, name: &str, type_: &str) -> Option<Condition> {
        let conditions = status(&self.get(name).await).conditions.unwrap_or_default();
        conditions.into_iter().find(|condition| condition.type_ == type_)
    }

    /// Waits until the object fits.
    pub(crate) async fn until(&self, name: &str, what: &str, fits: impl Fn(&ManagedSecret) -> bool) -> ManagedSecret {
        let objects = self.objects();
        let waited = poll(&format!("{name}: {what}"), PATIENCE, || async {
            Ok(objects.get_opt(name).await?.filter(|object| fits(object)))
        })
        .await;
        match waited {
            Ok(object) => object,
            Err(error) => {
                let now = objects.get(name).await.map(|object| (object.metadata.generation, object.status));
                panic!("{error}; generation and status now: {now:?}")
            }
        }
    }

    /// Waits until the object's present generation is served.
    pub(crate) async fn served(&self, name: &str) -> ManagedSecret {
        self.until(name, "served", |object| ready(object) == ("True".to_owned(), "Served".to_owned())).await
    }

    /// Waits until status describes the present generation, record and target, and the value is served.
    pub(crate) async fn in_step(&self, name: &str) -> ManagedSecret {
        poll(&format!("{name} to be in step"), PATIENCE, || async {
            let Some(object) = self.objects().get_opt(name).await? else { return Ok(None) };
            let status = object.status.clone().unwrap_or_default();
            let current = |found: Option<Secret>, uid: &str, version: &str| {
                found.is_some_and(|secret| {
                    secret.metadata.uid.as_deref() == Some(uid)
                        && secret.metadata.resource_version.as_deref() == Some(version)
                })
            };
            let Some(record) = &status.record else { return Ok(None) };
            let stands = current(self.secrets().get_opt(&record.name).await?, &record.uid, &record.resource_version);
            let delivered = match &status.target {
                None => true,
                Some(target) => {
                    current(self.secrets().get_opt(&target.name).await?, &target.uid, &target.resource_version)
                }
            };
            let served = ready(&object) == ("True".to_owned(), "Served".to_owned());
            Ok((stands && delivered && served).then_some(object))
        })
        .await
        .unwrap()
    }

    /// Waits until `Ready` of the object's present generation has this status and reason.
    pub(crate) async fn reports(&self, name: &str, status: &str, reason: &str) -> ManagedSecret {
        self.until(name, &format!("{status} {reason}"), |object| {
            ready(object) == (status.to_owned(), reason.to_owned())
        })
        .await
    }

    /// A value of a Secret.
    pub(crate) async fn value(&self, secret: &str, key: &str) -> Option<String> {
        let data = self.secrets().get_opt(secret).await.unwrap()?.data?;
        data.get(key).map(|bytes| String::from_utf8(bytes.0.clone()).unwrap())
    }

    /// Waits until a value of a Secret is this.
    pub(crate) async fn delivers(&self, secret: &str, key: &str, value: &str) {
        let waited = poll("the value to be delivered", PATIENCE, || async {
            Ok((self.value(secret, key).await.as_deref() == Some(value)).then_some(()))
        })
        .await;
        assert!(waited.is_ok(), "{secret}/{key} does not deliver the expected value");
    }

    /// The record of a name.
    pub(crate) async fn record(&self, name: &str) -> Option<Secret> {
        self.secrets().get_opt(&record_name(name)).await.unwrap()
    }

    /// Names of all Secrets of ours.
    pub(crate) async fn labelled(&self) -> Vec<String> {
        let list = self.secrets().list(&ListParams::default().labels(keys::LABEL_ROLE)).await.unwrap();
        list.items.iter().map(kube::ResourceExt::name_any).collect()
    }

    /// Deletes the object, and waits until it is gone.
    pub(crate) async fn delete(&self, name: &str) {
        self.objects().delete(name, &DeleteParams::default()).await.unwrap();
        poll("the object to be gone", PATIENCE, || async {
            Ok(self.objects().get_opt(name).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
    }

    /// Deletes a ManagedSecret with a propagation policy, and waits until it is gone.
    pub(crate) async fn delete_by(&self, name: &str, policy: PropagationPolicy) {
        if matches!(policy, PropagationPolicy::Orphan) {
            collector::has_seen_all(self.secrets().into_client(), &self.namespace).await;
        }
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        self.objects().delete(name, &params).await.unwrap();
        poll("the object to be gone", PATIENCE, || async {
            Ok(self.objects().get_opt(name).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until a Secret is gone.
    pub(crate) async fn gone(&self, secret: &str) {
        poll("the Secret to be gone", PATIENCE, || async {
            Ok(self.secrets().get_opt(secret).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
    }
}

/// Seals a value that may be delivered under a key.
pub(crate) fn sealed(key: &mss1::PublicKey, scope: &mss1::Scope, value: &str) -> String {
    sealed_as(mss1::Handling::Deliverable, key, scope, value)
}

fn sealed_as(handling: mss1::Handling, key: &mss1::PublicKey, scope: &mss1::Scope, value: &str) -> String {
    let value = Plaintext::new(Zeroizing::new(value.as_bytes().to_vec())).unwrap();
    mss1::seal(key, scope, handling, &value).unwrap()
}

/// A date in this time from now, as a spec has it.
pub(crate) fn in_time(left: jiff::SignedDuration) -> String {
    let date = jiff::Timestamp::now() + left;
    jiff::Timestamp::from_second(date.as_second()).unwrap().to_string()
}

/// The status, empty where there is none.
pub(crate) fn status(object: &ManagedSecret) -> ManagedSecretStatus {
    object.status.clone().unwrap_or_default()
}

/// The id.
pub(crate) fn id(object: &ManagedSecret) -> String {
    status(object).id.expect("an id")
}

/// The types of the conditions that are there.
pub(crate) fn conditions(object: &ManagedSecret) -> Vec<String> {
    status(object).conditions.unwrap_or_default().into_iter().map(|condition| condition.type_).collect()
}

/// Waits for the next whole second: dates are no finer.
pub(crate) async fn next_second() {
    let now = || jiff::Timestamp::now().as_second();
    let began = now();
    poll("the next second", PATIENCE, || async { Ok((now() > began).then_some(())) }).await.unwrap();
}

/// Status and reason of `Ready`, if it speaks of the present generation.
pub(crate) fn ready(object: &ManagedSecret) -> (String, String) {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "Ready" && condition.observed_generation == object.metadata.generation)
        .map(|condition| (condition.status, condition.reason))
        .unwrap_or_default()
}

/// The message of `Ready`.
pub(crate) fn message(object: &ManagedSecret) -> String {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.into_iter().find(|condition| condition.type_ == "Ready").map(|c| c.message).unwrap_or_default()
}

/// The dates of an object that move: updated, value updated, version.
pub(crate) fn moved(object: &ManagedSecret) -> (String, String, i64) {
    let status = object.status.clone().unwrap_or_default();
    (
        status.updated_date.unwrap_or_default(),
        status.value_updated_time.unwrap_or_default(),
        status.version.unwrap_or_default(),
    )
}

/// The resourceVersion as the number that it is: of two of one type, the later has the higher.
pub(crate) fn revision(object: &impl kube::ResourceExt) -> u64 {
    object.resource_version().unwrap().parse().unwrap()
}

/// The object's resourceVersion.
pub(crate) fn version(object: &ManagedSecret) -> String {
    object.resource_version().unwrap_or_default()
}
