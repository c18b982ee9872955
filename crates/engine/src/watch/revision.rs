//! Detects that the API server went back in time, which no watch shows.
//!
//! When etcd is restored from a backup, the revision of its data is lower than before. The server accepts a watch from a
//! revision in the future, and sends no events until that revision comes, which may be never. So each watch records the
//! highest revision that it has seen, and one task per process asks for the present one with a list of one object. That
//! list is consistent: its resourceVersion is at least the newest at the time of the request, also from an API server whose
//! cache lags, because the server waits until the cache has caught up. An answer below the revision that a watch had seen
//! before the question means another history, and that watch lists again.
//!
//! The task asks every half minute, and at once after a watch was cut: a restore stops the API server, and on a busy cluster
//! the restored revision soon grows beyond the old one. Revisions are compared only within one resource, because the API
//! server can keep resources in several etcds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use kube::{Client, api::ListParams, client::Body, core::Request, runtime::watcher};
use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::backoff::Jitter;

/// The text before a namespace in a path.
const NAMESPACES: &str = "/namespaces/";
/// Lists that are tried to answer one question: a namespace may be missing, or the permission to list in it.
const TRIES: usize = 3;
/// The time between two questions, if nothing happens.
const EVERY: Duration = Duration::from_secs(30);
/// The delay before a question without an answer is repeated.
const AGAIN: Duration = Duration::from_secs(5);
/// The shortest time between two questions.
const LEAST: Duration = Duration::from_secs(1);

/// The highest revision that one watch has seen since its last list began.
#[derive(Debug, Default)]
pub(super) struct Seen {
    highest: AtomicU64,
    restored: Notify,
}

impl Seen {
    /// Records a revision. Versions are comparable numbers since Kubernetes 1.35, and were so before, undocumented. A version
    /// that is not a number is ignored.
    pub(super) fn note(&self, version: &str) {
        if let Ok(version) = version.parse() {
            self.highest.fetch_max(version, SeqCst);
        }
    }

    /// A list starts: the revisions before it do not count any more.
    pub(super) fn forget(&self) {
        self.highest.store(0, SeqCst);
    }

    /// Waits until the server's revision is lower than one that the watch has seen.
    pub(super) async fn restored(&self) {
        self.restored.notified().await;
    }
}

/// Every watch of a process, with the revision that it has seen.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    watches: Mutex<Vec<Registered>>,
    asked: Notify,
}

#[derive(Debug)]
struct Registered {
    /// Path of the list, with its namespace.
    path: String,
    params: ListParams,
    seen: Weak<Seen>,
}

impl Registered {
    fn highest(&self) -> u64 {
        self.seen.upgrade().map_or(0, |seen| seen.highest.load(SeqCst))
    }

    /// The resource without a namespace: `/api/v1/secrets`.
    fn resource(&self) -> String {
        match self.path.split_once(NAMESPACES) {
            Some((group, rest)) => format!("{group}/{}", rest.split_once('/').map_or(rest, |(_, resource)| resource)),
            None => self.path.clone(),
        }
    }
}

/// The question about one resource.
#[derive(Default)]
struct Question {
    /// Lists that would answer it. Those of watches that work come first, and of these those of one namespace: they cost
    /// the server less than one of all.
    lists: Vec<(String, ListParams)>,
    /// The revision that each watch had seen when the question was created, which is before it is sent.
    before: Vec<(Arc<Seen>, u64)>,
}

impl Revisions {
    /// A new watch of the list at `path`.
    pub(super) fn register(&self, path: &str, config: &watcher::Config, seen: &Arc<Seen>) {
        let params = ListParams {
            label_selector: config.label_selector.clone(),
            field_selector: config.field_selector.clone(),
            limit: Some(1),
            ..ListParams::default()
        };
        self.watches().push(Registered { path: path.to_owned(), params, seen: Arc::downgrade(seen) });
    }

    /// Reports an event that could be a restore.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Asks for the present revisions in a loop.
    ///
    /// A question must be answered within `limit`.
    pub(super) async fn follow(&self, client: Client, limit: Duration) {
        let mut wait = EVERY;
        loop {
            tokio::select! {
                () = sleep(Jitter::random().lengthen(wait)) => {}
                () = self.asked.notified() => {}
            }
            wait = EVERY;
            for (resource, question) in self.questions() {
                if let Some(now) = question.answer(&client, limit).await {
                    question.compare(&resource, now);
                } else {
                    // The watches log a server that does not answer.
                    debug!(resource, "could not read the present revision");
                    wait = AGAIN;
                }
            }
            sleep(Jitter::random().lengthen(LEAST)).await;
        }
    }

    /// By resource.
    fn questions(&self) -> BTreeMap<String, Question> {
        let mut watches = self.watches();
        watches.retain(|watch| watch.seen.strong_count() > 0);
        watches.sort_by_key(|watch| (watch.highest() == 0, !watch.path.contains(NAMESPACES)));
        let mut questions: BTreeMap<String, Question> = BTreeMap::new();
        for watch in watches.iter() {
            let Some(seen) = watch.seen.upgrade() else { continue };
            let highest = seen.highest.load(SeqCst);
            let question = questions.entry(watch.resource()).or_default();
            question.lists.push((watch.path.clone(), watch.params.clone()));
            question.before.push((seen, highest));
        }
        questions
    }

    fn watches(&self) -> MutexGuard<'_, Vec<Registered>> {
        self.watches.lock()
    }
}

impl Question {
    /// The present revision, from the first list that is answered.
    async fn answer(&self, client: &Client, limit: Duration) -> Option<u64> {
        for (path, params) in self.lists.iter().take(TRIES) {
            if let Ok(Some(now)) = timeout(limit, revision(client, path, params)).await {
                return Some(now);
            }
        }
        None
    }

    fn compare(&self, resource: &str, now: u64) {
        for (seen, before) in &self.before {
            // A watch that has started a list since then needs no other list.
            if *before > now && seen.highest.load(SeqCst) >= *before {
                warn!(
                    resource,
                    now,
                    seen = before,
                    "the API server is at an earlier revision than a watch has seen, so etcd was restored: listing again"
                );
                seen.restored.notify_one();
            }
        }
    }
}

/// Returns the present revision, from a list of at most one object's metadata.
async fn revision(client: &Client, path: &str, params: &ListParams) -> Option<u64> {
    #[derive(Deserialize)]
    struct List {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let request = Request::new(path).list_metadata(params).ok()?;
    let answer = client.send(request.map(Body::from)).await.ok().filter(|answer| answer.status().is_success())?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    serde_json::from_slice::<List>(&body).ok()?.metadata.resource_version.parse().ok()
}
