//! What watches see of all objects and their targets, and the checker that looks at each event.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

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
    pub(super) uid: String,
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
    /// The uids of deleted objects.
    gone: BTreeSet<String>,
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
    /// Whether the target has the value that was applied last.
    pub(super) fn target_is_latest(&self, name: &str) -> bool {
        self.targets.get(name).is_some_and(|target| self.checker.is_latest(name, &target.value))
    }

    /// An object was deleted. A pass that was under way may still write its target, which Kubernetes then deletes with its
    /// owner: no later object is judged by it, and [`sweep`](Self::sweep) finds one that stays.
    pub(super) fn forget(&mut self, name: &str, uid: Option<String>) {
        self.checker.forget(name);
        self.gone.extend(uid);
    }

    /// Whether an object is delivered under this name of its secret, with the value that was applied last.
    fn is_in_step(&self, name: &str, secret: &str) -> bool {
        let object = self.objects.get(name);
        object.is_some_and(|object| object.delivered && object.name.as_deref() == Some(secret))
            && self.target_is_latest(name)
    }

    /// What differs from the objects that must exist (each with the name of its secret), once nothing happens any more.
    pub(super) fn sweep(&self, present: &BTreeMap<&str, &str>) -> Vec<(String, Violation)> {
        let late = present.iter().filter(|(name, secret)| !self.is_in_step(name, secret)).map(|(name, _)| *name);
        let late = late.map(|name| (name, "the last state"));
        let names = self.objects.keys().chain(self.targets.keys()).map(String::as_str);
        let extra = names.filter(|name| !present.contains_key(name)).map(|name| (name, "the deletion"));
        let lost = |what: &str| Violation::Lost { what: what.to_owned() };
        late.chain(extra).map(|(name, what)| (name.to_owned(), lost(what))).collect()
    }

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
        let uid = object.metadata.uid.unwrap_or_default();
        self.objects.insert(name, SeenObject { uid, generation, delivered, name: status.name });
    }

    fn saw_target(&mut self, secret: Secret, present: Present) {
        let name = secret.metadata.name.unwrap_or_default();
        if present == Present::No {
            self.targets.remove(&name);
            return;
        }
        let data = secret.data.unwrap_or_default();
        let value = digest(data.get(keys::DEFAULT_TARGET_KEY).map_or(&[], |value| value.0.as_slice()));
        let mut owners = secret.metadata.owner_references.iter().flatten();
        if !owners.any(|owner| self.gone.contains(&owner.uid)) {
            let checked = self.checker.saw_target(&name, &value);
            self.violations.extend(checked.err().map(|violation| (name.clone(), violation)));
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const VALUE: Digest = [1; 32];

    /// An object that is in step.
    fn state() -> State {
        let mut state = State::default();
        state.checker.will_apply("db", VALUE);
        let object = SeenObject { uid: "o".to_owned(), generation: 1, delivered: true, name: Some("DB".to_owned()) };
        state.objects.insert("db".to_owned(), object);
        let target = SeenTarget { uid: "u".to_owned(), resource_version: 1, value: VALUE };
        state.targets.insert("db".to_owned(), target);
        state
    }

    /// Which objects a sweep finds, after this happened to one that is in step.
    fn found(change: impl Fn(&mut State)) -> Vec<String> {
        let mut state = state();
        change(&mut state);
        state.sweep(&BTreeMap::from([("db", "DB")])).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_sweep_finds_what_is_not_in_its_last_state() {
        assert_eq!(found(|_| ()), Vec::<String>::new());
        let changes: [fn(&mut State); 5] = [
            |state| drop(state.objects.remove("db")),
            |state| drop(state.targets.remove("db")),
            |state| state.checker.will_apply("db", [2; 32]),
            |state| state.objects.values_mut().for_each(|object| object.delivered = false),
            |state| state.objects.values_mut().for_each(|object| object.name = Some("OTHER".to_owned())),
        ];
        for change in changes {
            assert_eq!(found(change), ["db"]);
        }
    }

    #[test]
    fn the_target_of_a_deleted_object_is_not_judged_as_that_of_the_next_one() {
        let mut state = state();
        state.forget("db", Some("o".to_owned()));
        state.checker.will_apply("db", [2; 32]);
        for (owner, violations) in [("o", 0), ("next", 1)] {
            let secret = serde_json::json!({
                "metadata": {
                    "name": "db",
                    "ownerReferences": [{"apiVersion": "v1", "kind": "ManagedSecret", "name": "db", "uid": owner}],
                },
                "data": {keys::DEFAULT_TARGET_KEY: "b2xk"},
            });
            state.saw_target(serde_json::from_value(secret).unwrap(), Present::Yes);
            assert_eq!(state.violations.len(), violations, "{owner}");
        }
    }

    #[test]
    fn a_sweep_finds_what_was_deleted() {
        assert_eq!(state().sweep(&BTreeMap::new()).len(), 2, "the object and its target");
    }
}
