//! What is there: every ManagedSecret, every Secret and every Deployment of a namespace, without what differs from run to
//! run.
//!
//! Ids, uids, generated values and dates are told apart only by whether they are those from before the scenario's act.
//! Records are verified and opened, with the earlier values that they keep, so their bytes are compared by what they hold.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{Api, ResourceExt as _, api::ListParams};
use managed_secrets::controller::{
    facts::rfc3339,
    record::Authenticity,
    view::{Own, SecretView},
};
use managed_secrets_api::{
    ManagedSecret, keys,
    record::{StoredRecord, open_kept},
};
use managed_secrets_crypto::{
    Keyring, Plaintext,
    mse1::{self, Place, Record},
};
use serde_json::{Map, Value, json};

use super::super::{installation::keyring, objects::Site};

/// What is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot(BTreeMap<String, Value>);

/// What was there before the act.
#[derive(Clone, Debug)]
pub(super) struct Before {
    began: String,
    /// Uids, ids and generated values.
    known: Vec<String>,
}

/// A namespace as it is now.
struct Found {
    objects: Vec<ManagedSecret>,
    secrets: Vec<Secret>,
    workloads: Vec<Deployment>,
    /// Names of the Secrets that are valid records, with what each holds.
    opened: BTreeMap<String, Opened>,
}

/// What a record holds.
struct Opened {
    version: u64,
    value: String,
    /// The earlier values that it keeps, by version; nothing where one does not open.
    kept: BTreeMap<u64, Option<String>>,
}

impl Found {
    async fn at(site: &Site) -> Self {
        let objects = site.objects().list(&ListParams::default()).await.unwrap().items;
        let secrets = site.secrets().list(&ListParams::default()).await.unwrap().items;
        let workloads = Api::<Deployment>::namespaced(site.client.clone(), &site.namespace);
        let workloads = workloads.list(&ListParams::default()).await.unwrap().items;
        let keyring = keyring().await;
        let opened =
            secrets.iter().filter_map(|it| Some((it.name_any(), open(keyring, &site.namespace, it)?))).collect();
        Self { objects, secrets, workloads, opened }
    }

    /// What identifies things: uids, ids, generated values; each with a name for it.
    fn identities(&self) -> Vec<(String, String)> {
        let mut identities = Vec::new();
        let mut say = |text: Option<String>, name: String| identities.extend(text.map(|text| (text, name)));
        for object in &self.objects {
            let name = object.name_any();
            say(object.uid(), format!("uid of {name}"));
            say(object.status.as_ref().and_then(|status| status.id.clone()), format!("id of {name}"));
        }
        for secret in &self.secrets {
            let name = secret.name_any();
            let owner = secret.annotations().get(keys::ANNO_OWNER).unwrap_or(&name);
            say(secret.labels().get(keys::LABEL_ID).cloned(), format!("id of {owner}"));
            say(secret.annotations().get(keys::ANNO_UID).cloned(), format!("uid of {owner}"));
            say(secret.uid(), format!("uid of Secret {name}"));
            if secret
                .annotations()
                .get(keys::ANNO_SOURCE)
                .is_some_and(|source| source == "generate" || source.starts_with("generate:"))
                && let Some(Opened { version, value, kept }) = self.opened.get(&name)
            {
                say(Some(value.clone()), format!("value {version} of {owner}"));
                for (version, value) in kept {
                    say(value.clone(), format!("value {version} of {owner}"));
                }
            }
        }
        identities
    }
}

fn open(keyring: &Keyring, namespace: &str, secret: &Secret) -> Option<Opened> {
    let view: SecretView = serde_json::from_value(serde_json::to_value(&secret.metadata).unwrap()).unwrap();
    let Authenticity::Valid { meta, commitment } = Authenticity::of(&view, namespace, keyring) else { return None };
    let record = Record::parse(&secret.data.as_ref()?.get(keys::RECORD_DATA_KEY)?.0).ok()?;
    let place = Place { namespace, object: &meta.owner };
    let value = mse1::open(&record, &place, |id| keyring.seed(id)).ok()?;
    let fits = record.version() == meta.version && record.uid() == meta.uid && *record.commitment() == commitment;
    let text = |value: &Plaintext| String::from_utf8(value.as_bytes().to_vec()).unwrap();
    let kept = meta.history.iter().map(|kept| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(&kept.data_key()));
        let opened = bytes.and_then(|bytes| open_kept(&bytes.0, &place, kept, |id| keyring.seed(id)).ok());
        (kept.version, opened.map(|opened| text(&opened.value)))
    });
    fits.then(|| Opened { version: meta.version, value: text(&value), kept: kept.collect() })
}

impl Before {
    /// Notes what is there; to be called in a second that is over before the act begins.
    pub(super) async fn of(site: &Site) -> Self {
        let known = Found::at(site).await.identities().into_iter().map(|(text, _)| text).collect();
        Self { began: rfc3339(jiff::Timestamp::now()), known }
    }

    /// Whether the second of [`Before::of`] is over.
    pub(super) fn is_over(&self) -> bool {
        rfc3339(jiff::Timestamp::now()) > self.began
    }

    fn date(&self, date: &str) -> Value {
        json!(if date > self.began.as_str() { "after the act" } else { "before the act" })
    }
}

impl Snapshot {
    /// What is there now.
    pub(super) async fn of(site: &Site, before: &Before) -> Self {
        let found = Found::at(site).await;
        let names = found.identities();
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        for object in &found.objects {
            all.insert(format!("ManagedSecret {}", object.name_any()), describe(object, &found, before));
        }
        for secret in &found.secrets {
            all.insert(format!("Secret {}", secret.name_any()), describe_secret(secret, &found, before));
        }
        for workload in &found.workloads {
            all.insert(format!("Deployment {}", workload.name_any()), describe_workload(workload));
        }
        for value in all.values_mut() {
            rename(value, &names, before);
        }
        Self(all)
    }

    /// Whether every status speaks of the present record and target.
    pub(super) fn is_in_step(&self) -> bool {
        self.0.values().all(|value| !value.to_string().contains(STALE))
    }

    /// Whether every labelled Secret is the record or the target that some status speaks of.
    pub(super) fn is_tidy(&self) -> bool {
        let described: Vec<_> =
            self.0.values().flat_map(|it| ["record", "target"].map(|of| &it["status"][of]["name"])).collect();
        let labelled = self.0.iter().filter(|(_, it)| it["labels"].get(keys::LABEL_ROLE).is_some());
        labelled.into_iter().all(|(name, _)| {
            described.iter().any(|it| it.as_str().map(|it| format!("Secret {it}")).as_ref() == Some(name))
        })
    }

    /// What is described under this name, at this JSON pointer.
    pub(super) fn get(&self, name: &str, pointer: &str) -> Option<&Value> {
        self.0.get(name)?.pointer(pointer)
    }

    /// What another one has that this has not, and the other way round; empty where they are equal.
    pub(super) fn difference(&self, other: &Self) -> String {
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let differing = keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key));
        let show = |it: &Self, key: &str| it.0.get(key).map_or("absent".to_owned(), |value| format!("{value:#}"));
        let texts = differing.map(|key| {
            let (left, right) = (show(self, key), show(other, key));
            let only = |these: &str, those: &str, mark: &str| -> Vec<String> {
                let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
                lines.map(|line| format!("  {mark} {}", line.trim())).collect()
            };
            format!("{key}\n{}", [only(&left, &right, "-"), only(&right, &left, "+")].concat().join("\n"))
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

const STALE: &str = "(stale)";

fn describe(object: &ManagedSecret, found: &Found, before: &Before) -> Value {
    let mut spec = json!(object.spec);
    if spec.get("value").is_some() {
        spec["value"] = json!("(sealed)");
    }
    let mut status = json!(object.status);
    for date in ["createdDate", "updatedDate", "valueUpdatedTime", "nextRotation"] {
        if let Some(text) = status.get(date).and_then(Value::as_str).map(str::to_owned) {
            status[date] = before.date(&text);
        }
    }
    for kept in status.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(text) = kept["created"].as_str().map(str::to_owned) {
            kept["created"] = before.date(&text);
        }
        // A replacement after a crash between record and target says when it delivered; else the order of versions tells.
        if let Some(kept) = kept.as_object_mut() {
            kept.remove("deliveredUntil");
        }
    }
    for reference in ["record", "target"] {
        let Some(it) = status.get(reference).filter(|it| it.is_object()).cloned() else { continue };
        let current = found.secrets.iter().any(|secret| {
            it["name"] == json!(secret.name_any())
                && it["uid"] == json!(secret.uid())
                && it["resourceVersion"] == json!(secret.resource_version())
        });
        status[reference]["resourceVersion"] = json!(if current { "(current)" } else { STALE });
    }
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        condition.as_object_mut().unwrap().remove("lastTransitionTime");
    }
    json!({
        "uid": object.uid(),
        "generation": object.metadata.generation,
        "deleting": object.metadata.deletion_timestamp.is_some(),
        "finalizers": object.metadata.finalizers,
        "spec": spec,
        "status": status,
    })
}

fn describe_secret(secret: &Secret, found: &Found, before: &Before) -> Value {
    let name = secret.name_any();
    let mut annotations: Map<String, Value> =
        secret.annotations().iter().map(|(key, text)| (key.clone(), json!(text))).collect();
    for key in [keys::ANNO_MAC, keys::ANNO_COMMITMENT] {
        annotations.remove(key);
    }
    for key in [keys::ANNO_CREATED, keys::ANNO_UPDATED, keys::ANNO_VALUE_UPDATED] {
        if let Some(date) = annotations.get(key).and_then(Value::as_str).map(str::to_owned) {
            annotations.insert(key.to_owned(), before.date(&date));
        }
    }
    if annotations.contains_key(keys::ANNO_HISTORY)
        && let Some(stored) = StoredRecord::of(&secret.metadata)
    {
        let kept =
            stored.meta.history.iter().map(
                |kept| json!({"version": kept.version, "created": before.date(&kept.created), "source": kept.source}),
            );
        annotations.insert(keys::ANNO_HISTORY.to_owned(), kept.collect());
    }
    if let Some(Value::String(source)) = annotations.get_mut(keys::ANNO_SOURCE) {
        let owner = found.objects.iter().find(|it| secret.annotations().get(keys::ANNO_OWNER) == Some(&it.name_any()));
        let sealed =
            owner.and_then(|owner| Own::new(owner.clone()).sealed_sha256).map(|it| format!("value:sha256:{it}"));
        let followed = owner.and_then(|owner| owner.spec.value_from.as_ref()).and_then(|from| {
            let from = &from.secret_key_ref;
            let upstream = found.secrets.iter().find(|secret| secret.name_any() == from.name)?;
            Some(format!("valueFrom:{}:{}:{}", upstream.uid()?, upstream.resource_version()?, from.key))
        });
        if source != "generate" {
            let current = Some(&*source) == sealed.as_ref() || Some(&*source) == followed.as_ref();
            if current { "(current source)" } else { "(earlier source)" }.clone_into(source);
        }
    }
    let view: SecretView = serde_json::from_value(serde_json::to_value(&secret.metadata).unwrap()).unwrap();
    let is_record = secret.type_.as_deref() == Some(keys::TYPE_RECORD);
    let data: Map<String, Value> = match found.opened.get(&name) {
        Some(Opened { value, kept, .. }) => {
            let kept = kept.iter().map(|(version, value)| (format!("(opened, version {version})"), json!(value)));
            std::iter::once(("(opened)".to_owned(), json!(value))).chain(kept).collect()
        }
        None if is_record => Map::from_iter([("(invalid)".to_owned(), Value::Null)]),
        None => {
            let data = secret.data.clone().unwrap_or_default();
            data.into_iter().map(|(key, bytes)| (key, json!(String::from_utf8_lossy(&bytes.0)))).collect()
        }
    };
    json!({
        "uid": secret.uid(),
        "type": secret.type_,
        "immutable": secret.immutable,
        "deleting": secret.metadata.deletion_timestamp.is_some(),
        "finalizers": secret.metadata.finalizers,
        "labels": secret.labels(),
        "annotations": annotations,
        "owners": secret.metadata.owner_references,
        "data": data,
        "ours": {
            "labels": view.ours.labels,
            "annotations": view.ours.annotations,
            "data": view.ours.data,
            "owners": view.ours.owner_uids,
            "type": view.ours.type_,
        },
    })
}

/// A Deployment: its generation counts the changes of its spec, so how often it was restarted.
fn describe_workload(workload: &Deployment) -> Value {
    json!({
        "generation": workload.metadata.generation,
        "annotations": workload.annotations(),
        "template": workload.spec.template.metadata,
    })
}

/// Puts names in the place of what identifies things.
fn rename(value: &mut Value, names: &[(String, String)], before: &Before) {
    match value {
        Value::String(text) => {
            for (identity, name) in names.iter().filter(|(identity, _)| !identity.is_empty()) {
                if text.contains(identity.as_str()) {
                    let age = if before.known.contains(identity) { "old" } else { "new" };
                    *text = text.replace(identity, &format!("({age} {name})"));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names, before)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, names, before)),
        _ => {}
    }
}
