//! ManagedSecrets as users apply them, and the moment at which each is delivered.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use managed_secrets_api::{ManagedSecret, keys};
use managed_secrets_crypto::{
    Plaintext,
    mss1::{self, PublicKey},
};
use serde_json::{Value, json};
use testkit::{Error, Result};
use tokio::{sync::mpsc, task::JoinHandle};
use zeroize::Zeroizing;

use crate::ground::{PATIENCE, format_error};

/// The key of the sources.
const SOURCE_KEY: &str = "token";

/// Where values come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// Sealed text in `spec.value`.
    Value,
    /// Another Secret; each object has one of its own.
    ValueFrom,
    /// The operator generates it.
    Generate,
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Value, Self::ValueFrom, Self::Generate];

    /// Its field in the spec.
    pub(crate) const fn field(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::ValueFrom => "valueFrom",
            Self::Generate => "generate",
        }
    }
}

/// The name of an object.
pub(crate) fn name(number: usize) -> String {
    format!("secret-{number}")
}

/// A spec without a source.
pub(crate) fn spec(number: usize) -> Value {
    json!({"name": format!("SECRET_{number}"), "description": "measured"})
}

/// Specs of a namespace with this source. What clients do first (seal, create source Secrets) is done.
pub(crate) async fn specs(
    client: &Client,
    namespace: &str,
    source: Source,
    key: &PublicKey,
    count: usize,
) -> Result<Vec<(String, Value)>> {
    let mut specs: Vec<_> = (0..count).map(|number| (name(number), spec(number))).collect();
    if source == Source::ValueFrom {
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
        stream::iter(0..count)
            .map(|number| {
                let secrets = &secrets;
                async move { apply_source(secrets, &format!("source-{number}"), "upstream").await }
            })
            .buffer_unordered(16)
            .try_collect::<Vec<()>>()
            .await?;
    }
    for (number, (name, spec)) in specs.iter_mut().enumerate() {
        spec[source.field()] = match source {
            Source::Value => json!(sealed(key, namespace, name, "a-value-of-usual-length")?),
            Source::ValueFrom => from_source(&format!("source-{number}")),
            Source::Generate => json!({}),
        };
    }
    Ok(specs)
}

/// What takes a value from a source.
pub(crate) fn from_source(name: &str) -> Value {
    json!({"secretKeyRef": {"name": name, "key": SOURCE_KEY}})
}

/// Creates or changes a source.
pub(crate) async fn apply_source(secrets: &Api<Secret>, name: &str, value: &str) -> Result<()> {
    let body = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {SOURCE_KEY: value},
    });
    secrets.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&body)).await?;
    Ok(())
}

/// Seals a value for an object.
pub(crate) fn sealed(key: &PublicKey, namespace: &str, name: &str, value: &str) -> Result<String> {
    let value =
        Plaintext::new(Zeroizing::new(value.as_bytes().to_vec())).map_err(|error| format_error("a value", &error))?;
    let scope = mss1::Scope::Strict { namespace: namespace.to_owned(), name: name.to_owned() };
    mss1::seal(key, &scope, mss1::Handling::default(), &value).map_err(|error| format_error("a value", &error))
}

/// Applies a ManagedSecret as users do.
pub(crate) async fn apply(objects: &Api<ManagedSecret>, name: &str, spec: &Value) -> Result<ManagedSecret> {
    let body = json!({
        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
        "metadata": {"name": name}, "spec": spec,
    });
    Ok(objects.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&body)).await?)
}

/// Applies all of them, so many at once.
pub(crate) async fn apply_all(objects: &Api<ManagedSecret>, specs: &[(String, Value)], at_once: usize) -> Result<()> {
    stream::iter(specs)
        .map(|(name, spec)| async move { apply(objects, name, spec).await.map(drop) })
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}

/// A delivery as a watch sees it.
struct Delivery {
    name: String,
    generation: i64,
    version: i64,
    at: Instant,
}

/// Sees in a watch which objects of a namespace are delivered: the status of their generation is written, and says so.
pub(crate) struct Deliveries {
    /// Of each object, the version of the value that is delivered.
    versions: BTreeMap<String, i64>,
    seen: mpsc::UnboundedReceiver<Delivery>,
    watch: JoinHandle<()>,
}

impl Deliveries {
    pub(crate) fn watch(client: Client, namespace: &str) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let objects = Api::<ManagedSecret>::namespaced(client, namespace);
        let watch = tokio::spawn(async move {
            let events = watcher(objects, watcher::Config::default()).default_backoff().applied_objects();
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                let at = Instant::now();
                let Some(object) = event.ok().filter(is_delivered) else { continue };
                let delivery = Delivery {
                    generation: object.metadata.generation.unwrap_or_default(),
                    name: object.metadata.name.unwrap_or_default(),
                    version: object.status.and_then(|status| status.version).unwrap_or_default(),
                    at,
                };
                if sender.send(delivery).is_err() {
                    return;
                }
            }
        });
        Self { versions: BTreeMap::new(), seen, watch }
    }

    /// Waits until so many objects are delivered. Returns when each of those was that were not before.
    pub(crate) async fn until_count(&mut self, count: usize) -> Result<Vec<Instant>> {
        self.until_version(1, count).await
    }

    /// Waits until this version or a later one of so many objects is delivered. Returns when each of those was that had an
    /// earlier one before.
    pub(crate) async fn until_version(&mut self, version: i64, count: usize) -> Result<Vec<Instant>> {
        let mut moments = Vec::new();
        let mut done = self.versions.values().filter(|had| **had >= version).count();
        while done < count {
            let delivery = self.next().await?;
            let had = self.versions.insert(delivery.name, delivery.version).unwrap_or_default();
            if had < version && delivery.version >= version {
                done += 1;
                moments.push(delivery.at);
            }
        }
        Ok(moments)
    }

    /// Waits until this generation of an object is delivered. Returns when it was.
    pub(crate) async fn until_generation(&mut self, name: &str, generation: i64) -> Result<Instant> {
        loop {
            let delivery = self.next().await?;
            let found = delivery.name == name && delivery.generation >= generation;
            self.versions.insert(delivery.name, delivery.version);
            if found {
                return Ok(delivery.at);
            }
        }
    }

    async fn next(&mut self) -> Result<Delivery> {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        let late = || Error::Deadline { what: "a delivery".to_owned(), seconds: PATIENCE.as_secs() };
        next.ok().flatten().ok_or_else(late)
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Whether the status of the object's generation is written, and says that it is delivered.
pub(crate) fn is_delivered(object: &ManagedSecret) -> bool {
    let Some(status) = &object.status else { return false };
    let mut conditions = status.conditions.iter().flatten();
    status.observed_generation == object.metadata.generation
        && conditions.any(|it| it.type_ == keys::CONDITION_READY && it.status == "True")
}

/// Seconds of each moment after the beginning.
pub(crate) fn seconds_since(began: Instant, moments: &[Instant]) -> Vec<f64> {
    moments.iter().map(|at| at.saturating_duration_since(began).as_secs_f64()).collect()
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
