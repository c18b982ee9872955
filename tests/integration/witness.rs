//! What a pod could have read: every state of every Secret of a namespace, seen by a watch of the test's own.
//!
//! The operator cannot take anything back from here: a wrong or empty value that was served for a moment is found.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, WatchEvent, WatchParams},
};
use testkit::poll;
use tokio::task::JoinHandle;

use super::{objects::Site, operator::PATIENCE};

/// One state of one Secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Its type.
    pub(crate) type_: String,
    /// Its data, as text.
    pub(crate) data: BTreeMap<String, String>,
    /// It is the last state, and it is gone.
    pub(crate) deleted: bool,
}

impl State {
    fn of(secret: Secret, deleted: bool) -> Self {
        Self {
            name: secret.name_any(),
            uid: secret.uid().unwrap_or_default(),
            type_: secret.type_.unwrap_or_default(),
            data: secret
                .data
                .unwrap_or_default()
                .into_iter()
                .map(|(key, bytes)| (key, String::from_utf8_lossy(&bytes.0).into_owned()))
                .collect(),
            deleted,
        }
    }
}

/// A watch on all Secrets of a namespace, from its making on.
pub(crate) struct Witness {
    site: Site,
    seen: Arc<Mutex<Vec<State>>>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Begins to watch.
    pub(crate) async fn of(site: &Site) -> Self {
        let secrets = site.secrets();
        let list = secrets.list(&ListParams::default()).await.unwrap();
        let from = list.metadata.resource_version.unwrap();
        let seen = Arc::new(Mutex::new(list.items.into_iter().map(|secret| State::of(secret, false)).collect()));
        let task = tokio::spawn(watch(secrets, from, Arc::clone(&seen)));
        Self { site: site.clone(), seen, task }
    }

    /// Every state until now, in order.
    pub(crate) async fn states(&self) -> Vec<State> {
        // What this watch has not shown yet comes before the end of a Secret made and removed now.
        let marker = format!("marker-{}", uuid::Uuid::new_v4().simple());
        self.site.foreign_secret(&marker, &[]).await;
        self.site.secrets().delete(&marker, &DeleteParams::default()).await.unwrap();
        poll("the witness to catch up", PATIENCE, || async {
            assert!(!self.task.is_finished(), "the witness has lost its watch");
            let caught_up = self.seen.lock().unwrap().iter().any(|state| state.name == marker && state.deleted);
            Ok(caught_up.then_some(()))
        })
        .await
        .unwrap();
        self.seen.lock().unwrap().iter().filter(|state| !state.name.starts_with("marker-")).cloned().collect()
    }

    /// Every value that the Secret `name` has had under `key` while it existed, repetitions left out; `None` where it
    /// existed without that key.
    pub(crate) async fn values(&self, name: &str, key: &str) -> Vec<Option<String>> {
        let mut values: Vec<_> = self
            .states()
            .await
            .into_iter()
            .filter(|state| state.name == name && !state.deleted)
            .map(|state| state.data.get(key).cloned())
            .collect();
        values.dedup();
        values
    }

    /// Uids that the Secret `name` has had.
    pub(crate) async fn uids(&self, name: &str) -> Vec<String> {
        let mut uids: Vec<_> =
            self.states().await.into_iter().filter(|state| state.name == name).map(|state| state.uid).collect();
        uids.dedup();
        uids
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(secrets: Api<Secret>, mut from: String, seen: Arc<Mutex<Vec<State>>>) {
    loop {
        let Ok(stream) = secrets.watch(&WatchParams::default(), &from).await else { return };
        let mut stream = stream.boxed();
        while let Some(Ok(event)) = stream.next().await {
            let (secret, deleted) = match event {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => (secret, false),
                WatchEvent::Deleted(secret) => (secret, true),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(_) => return,
            };
            from = secret.resource_version().unwrap_or(from);
            seen.lock().unwrap().push(State::of(secret, deleted));
        }
    }
}
