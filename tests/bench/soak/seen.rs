//! What watches see of all objects and their targets, and the checker that looks at each event.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use managed_secrets_api::{ManagedSecret, keys};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use testkit::Result;
use tokio::{sync::watch, task::JoinHandle};

use super::checker::{Checker, Digest, Violation};
use crate::{ground::format_error, load::is_delivered};

/// A ManagedSecret as it was seen last.
#[derive(Clone, Debug)]
pub(super) struct SeenObject {
    pub(super) generation: i64,
    /// Whether this generation is delivered.
    pub(super) delivered: bool,
    /// The name of the secret in its status.
    pub(super) name: Option<String>,
}

/// A target as it was seen last.
#[derive(Clone, Debug)]
pub(super) struct SeenTarget {
    pub(super) uid: String,
    pub(super) resource_version: u64,
    pub(super) value: Digest,
}

/// Everything that was seen.
#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, SeenObject>,
    pub(super) targets: BTreeMap<String, SeenTarget>,
    pub(super) checker: Checker,
    /// Objects and what is wrong with them.
    pub(super) violations: Vec<(String, Violation)>,
}

/// The state, and a signal that it changed.
pub(super) struct Seen {
    pub(super) state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Seen {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// Follows a namespace until the tasks are aborted.
    pub(super) fn follow(self: &Arc<Self>, client: &Client, namespace: &str) -> [JoinHandle<()>; 2] {
        let objects = Api::<ManagedSecret>::namespaced(client.clone(), namespace);
        let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
        let targets = watcher::Config::default().labels(&format!("{}={}", keys::LABEL_ROLE, keys::ROLE_TARGET));
        let (one, other) = (Arc::clone(self), Arc::clone(self));
        [
            tokio::spawn(async move { one.see(objects, watcher::Config::default(), State::saw_object).await }),
            tokio::spawn(async move { other.see(secrets, targets, State::saw_target).await }),
        ]
    }

    async fn see<K>(&self, api: Api<K>, config: watcher::Config, saw: fn(&mut State, K, Present))
    where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let mut events = pin!(watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            let (object, present) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, Present::Yes),
                Ok(Event::Delete(object)) => (object, Present::No),
                Ok(Event::Init | Event::InitDone) | Err(_) => continue,
            };
            saw(&mut self.state.lock(), object, present);
            self.changed.send_replace(());
        }
    }

    /// Waits until the state is as it must be.
    pub(super) async fn until(&self, deadline: Duration, is: impl Fn(&State) -> bool) -> Result<()> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !is(&self.state.lock()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.map_err(|error| format_error("the soak", &error))
    }
}

/// Whether an object exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Present {
    Yes,
    No,
}

impl State {
    fn saw_object(&mut self, object: ManagedSecret, present: Present) {
        let name = object.metadata.name.clone().unwrap_or_default();
        if present == Present::No {
            self.objects.remove(&name);
            return;
        }
        let delivered = is_delivered(&object);
        let status = object.status.unwrap_or_default();
        let checked = self.checker.saw_status(&name, status.id.as_deref(), status.version);
        self.violations.extend(checked.err().map(|violation| (name.clone(), violation)));
        let generation = object.metadata.generation.unwrap_or_default();
        self.objects.insert(name, SeenObject { generation, delivered, name: status.name });
    }

    fn saw_target(&mut self, secret: Secret, present: Present) {
        let name = secret.metadata.name.unwrap_or_default();
        if present == Present::No {
            self.targets.remove(&name);
            return;
        }
        let data = secret.data.unwrap_or_default();
        let value = digest(data.get(keys::DEFAULT_TARGET_KEY).map_or(&[], |value| value.0.as_slice()));
        let checked = self.checker.saw_target(&name, &value);
        self.violations.extend(checked.err().map(|violation| (name.clone(), violation)));
        let resource_version = version(secret.metadata.resource_version.as_deref());
        self.targets.insert(name, SeenTarget { uid: secret.metadata.uid.unwrap_or_default(), resource_version, value });
    }
}

/// SHA-256 of a value.
pub(super) fn digest(value: &[u8]) -> Digest {
    Sha256::digest(value).into()
}

/// A resourceVersion as a number, which compares in the order of the writes of one resource.
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
