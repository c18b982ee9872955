//! From watch events to the index and the queue.
//!
//! In: events of the engine's watches. Out: entries in the index, keys in the queue: edited objects first, then new ones,
//! then those that depend on what changed, and last those found in step at a start or a new list.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use managed_secrets_engine::{
    queue::{Priority, Queue},
    watch::Sink,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::warn;

use super::{
    index::{Index, Key},
    scopes::Scopes,
    seeds::{Rotation, receipts::Receipts},
    view::{
        Own, SecretView,
        packed::Packed,
        watched::{Stub, WatchedObject, WatchedSecret},
    },
};

/// What all watches feed.
pub struct Shared {
    /// The cache.
    pub index: Mutex<Index>,
    /// What has to be looked at.
    pub queue: Queue<Key>,
    /// Rung when an object with a `valueFrom` came or went.
    pub sources_moved: Notify,
    /// Which namespaces are served.
    pub scopes: Scopes,
    /// How the replacement of seeds goes.
    pub rotation: Arc<Rotation>,
    /// Records that were re-wrapped outside a pass.
    pub receipts: Receipts,
}

impl Shared {
    /// The cache, locked.
    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// Has every object of a namespace looked at (`None`: of all namespaces), new and edited ones first. Returns how many
    /// there are.
    pub(super) fn look_at_all(&self, namespace: Option<&str>) -> usize {
        let index = self.index();
        let keys: Vec<Key> =
            index.keys().filter(|key| namespace.is_none_or(|namespace| *namespace == *key.namespace)).collect();
        let count = keys.len();
        for key in keys {
            let priority = index.urgency(&key).unwrap_or(Priority::Resync);
            self.queue.add(key, priority);
        }
        count
    }

    /// Has these looked at, ahead of resyncs: first those that a user changed, then those that a user created.
    pub fn wake(&self, keys: Vec<Key>) {
        let index = self.index();
        for key in keys {
            let priority = index.urgency(&key).unwrap_or(Priority::Woken);
            self.queue.add(key, priority);
        }
    }
}

/// What was gathered of a list that is not complete yet.
type Gathered<T> = Mutex<Vec<T>>;

/// ManagedSecrets. Objects that cannot be decoded are skipped: one of them must not stop all.
pub(crate) struct Objects {
    shared: Arc<Shared>,
    namespace: Option<String>,
    list: Gathered<Packed<Own>>,
}

impl Objects {
    /// Of one namespace, or of all.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, namespace: Option<String>) -> Self {
        Self { shared, namespace, list: Mutex::default() }
    }
}

fn decoded(object: WatchedObject) -> Option<Own> {
    if object.kept.is_none() {
        let (namespace, name) = (object.namespace(), object.name_any());
        warn!(
            namespace,
            name, "skipped a ManagedSecret that cannot be read: check that the installed CRD is that of this version"
        );
    }
    object.kept
}

impl Sink<WatchedObject> for Objects {
    fn init(&self) {
        self.list.lock().clear();
    }

    fn init_apply(&self, object: WatchedObject) {
        let Some(own) = decoded(object) else { return };
        let packed = self.shared.index().pack_object(own);
        self.list.lock().push(packed);
    }

    fn init_done(&self) {
        let listed = std::mem::take(&mut *self.list.lock());
        let mut index = self.shared.index();
        let keys = index.replace_objects(self.namespace.as_deref(), listed);
        for key in keys {
            let priority = index.urgency(&key).unwrap_or(Priority::Resync);
            self.shared.queue.add(key, priority);
        }
        self.shared.sources_moved.notify_one();
    }

    fn apply(&self, object: WatchedObject) {
        let Some(own) = decoded(object) else { return };
        let keys = self.shared.index().put_object(own);
        self.shared.wake(keys);
        self.shared.sources_moved.notify_one();
    }

    fn delete(&self, object: WatchedObject) {
        let namespace = object.namespace().unwrap_or_default();
        let uid = object.uid();
        let keys = self.shared.index().remove_object(&namespace, &object.name_any(), uid.as_deref());
        self.shared.wake(keys);
        self.shared.sources_moved.notify_one();
    }
}

/// Records and targets: Secrets with a role label of ours, metadata only.
pub(crate) struct Labelled {
    shared: Arc<Shared>,
    namespace: Option<String>,
    list: Gathered<(String, Packed<SecretView>)>,
}

impl Labelled {
    /// Of one namespace, or of all.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, namespace: Option<String>) -> Self {
        Self { shared, namespace, list: Mutex::default() }
    }
}

fn viewed(object: WatchedSecret) -> (String, SecretView) {
    (object.namespace().unwrap_or_default(), object.kept)
}

impl Sink<WatchedSecret> for Labelled {
    fn init(&self) {
        self.list.lock().clear();
    }

    fn init_apply(&self, object: WatchedSecret) {
        let (namespace, view) = viewed(object);
        let packed = self.shared.index().pack_secret(&namespace, view);
        self.list.lock().push((namespace, packed));
    }

    fn init_done(&self) {
        let listed = std::mem::take(&mut *self.list.lock());
        let keys = self.shared.index().replace_secrets(self.namespace.as_deref(), listed);
        for key in keys {
            self.shared.queue.add(key, Priority::Resync);
        }
    }

    fn apply(&self, object: WatchedSecret) {
        let (namespace, view) = viewed(object);
        let keys = self.shared.index().put_secret(&namespace, view, None);
        self.shared.wake(keys);
    }

    fn delete(&self, object: WatchedSecret) {
        let (namespace, view) = viewed(object);
        let keys = self.shared.index().remove_secret(&namespace, &view);
        self.shared.wake(keys);
    }
}

/// Secrets of a namespace in which some object has a `valueFrom`: uid and version only.
pub(crate) struct Sources {
    shared: Arc<Shared>,
    namespace: String,
    list: Mutex<HashMap<String, (String, String)>>,
}

impl Sources {
    /// Of one namespace.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, namespace: String) -> Self {
        Self { shared, namespace, list: Mutex::default() }
    }
}

fn version(object: &Stub<Secret>) -> (String, String) {
    (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default())
}

impl Sink<Stub<Secret>> for Sources {
    fn init(&self) {
        self.list.lock().clear();
    }

    fn init_apply(&self, object: Stub<Secret>) {
        self.list.lock().insert(object.name_any(), version(&object));
    }

    fn init_done(&self) {
        let listed = std::mem::take(&mut *self.list.lock());
        let keys = self.shared.index().replace_sources(&self.namespace, listed);
        self.shared.wake(keys);
    }

    fn apply(&self, object: Stub<Secret>) {
        let (uid, resource_version) = version(&object);
        let keys = self.shared.index().put_source(&self.namespace, &object.name_any(), uid, resource_version);
        self.shared.wake(keys);
    }

    fn delete(&self, object: Stub<Secret>) {
        let keys = self.shared.index().remove_source(&self.namespace, &object.name_any());
        self.shared.wake(keys);
    }
}

/// What is looked at live whenever it changes, whatever has changed: the ConfigMap that publishes the sealing key, the
/// keyring.
pub(crate) struct Trigger(pub Arc<Notify>);

impl<K> Sink<Stub<K>> for Trigger {
    fn init(&self) {}

    fn init_apply(&self, _: Stub<K>) {}

    fn init_done(&self) {
        self.0.notify_one();
    }

    fn apply(&self, _: Stub<K>) {
        self.0.notify_one();
    }

    fn delete(&self, _: Stub<K>) {
        self.0.notify_one();
    }
}
