//! Reads workloads and writes their marks.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Duration};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::Client;
use managed_secrets_api::{
    ManagedSecret, Reason,
    restarts::{GROUP, Mark, PREFIX},
    types::{Workload, WorkloadKind},
};
use managed_secrets_client::ObjectApi;
use managed_secrets_engine::{
    limit::Limiter,
    run::{self, Next, Reconciler},
    stats::Stats,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Outcome, Place, Restarts,
    judge::{self, Marks, Seen, judge, without_restarts},
};
use crate::controller::{events::Events, failure::Failure, index::Key, run::Leader, sinks::Shared, view::decode::Lean};

/// Workloads that are read or written at the same time.
const WORKERS: usize = 4;
/// Longest action of an event, in characters; all of ours are ASCII.
const ACTION_MAX: usize = 128;
/// How long until a workload is looked at again that does not exist, or that the API server does not let the operator
/// restart, or for which an object does not deliver what the caches show.
const BLOCKED_RETRY: Duration = Duration::from_secs(300);

/// Looks at workloads, one after the other, as the leader.
pub(in crate::controller) struct Restarter {
    pub(in crate::controller) restarts: Arc<Restarts>,
    pub(in crate::controller) leader: Leader,
    pub(in crate::controller) shared: Arc<Shared>,
    pub(in crate::controller) events: Events,
}

/// A workload, as far as it matters here.
#[derive(Deserialize)]
struct Live {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    template: Template,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    metadata: TemplateMetadata,
}

#[derive(Default, Deserialize)]
struct TemplateMetadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The answer to a write: nothing of it is needed.
#[derive(Deserialize)]
struct Written {}

fn marks(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.retain(|key, _| key.starts_with(PREFIX));
    annotations
}

impl Restarter {
    /// Works until `shutdown` is cancelled.
    pub(in crate::controller) async fn run(self, shutdown: CancellationToken) {
        let queue = self.restarts.queue.clone();
        let options = run::Options { limiter: Arc::new(Limiter::new(WORKERS)), ..run::Options::default() };
        // Not among the reconciles of ManagedSecrets, whose figures have a meaning of their own.
        run::run(queue, Arc::new(self), Arc::new(Stats::default()), options, shutdown).await;
    }

    fn api(client: Client, place: &Place) -> ObjectApi {
        match place.workload.kind {
            WorkloadKind::Deployment => ObjectApi::namespaced::<Deployment>(client, &place.namespace),
            WorkloadKind::StatefulSet => ObjectApi::namespaced::<StatefulSet>(client, &place.namespace),
            WorkloadKind::DaemonSet => ObjectApi::namespaced::<DaemonSet>(client, &place.namespace),
        }
    }

    /// Looks at a workload, and restarts it if that is due. Returns what became of it, and when to look again; nothing
    /// became of it yet if a restart is due that waits for other values.
    async fn look(&self, place: &Place) -> Result<(Option<Outcome>, Next), Failure> {
        let Workload { kind, name } = &place.workload;
        let api = Self::api(self.leader.client.clone(), place);
        let wait = self.restarts.collects_for(place);
        let before = self.restarts.objects(place);
        let doing = |verb: &str| format!("{verb} {}.{GROUP}", kind.plural());
        let live = api.get::<Live>(name).await.map_err(|error| Failure::of(error, &doing("get")))?;
        let Some(Live { metadata, spec }) = live else {
            // Once it is created, its pods have what is delivered by now.
            self.restarts.settled(place, &before, &[]);
            return Ok((Some(Outcome::Missing), Next::After(BLOCKED_RETRY)));
        };
        let seen = Seen { template: marks(spec.template.metadata.annotations), metadata: marks(metadata.annotations) };
        // After the read: what was delivered meanwhile is part of the same restart.
        let mut objects = self.restarts.objects(place);
        let mut next = Next::Done;
        // For those, the workload says first that a restart is due: if the answer to it is lost, there is none more.
        let again = objects.values().any(|known| known.again);
        let (marks, due) = if wait.is_zero() && !again {
            for name in judge::due(&seen, &objects) {
                // A cache that is behind must not restart for a version that is not delivered any more. It comes here again once
                // it shows what is delivered.
                if self.delivered(place, &name).await? != objects.get(&name).map(|known| known.mark.clone()) {
                    objects.remove(&name);
                    next = Next::After(BLOCKED_RETRY);
                }
            }
            (judge(&seen, &objects), Vec::new())
        } else {
            without_restarts(&seen, &objects)
        };
        if let Some(marks) = marks {
            let body = body(place, &metadata.uid, &metadata.resource_version, &marks);
            let written = api.apply_marks::<Written>(name, &body).await;
            written.map_err(|error| Failure::of(error, &doing("patch")))?;
            self.report(place, &marks);
        }
        self.restarts.settled(place, &objects, &due);
        Ok(if due.is_empty() { (Some(Outcome::Marked), next) } else { (None, Next::After(wait)) })
    }

    /// What an object has delivered, read live.
    async fn delivered(&self, place: &Place, object: &str) -> Result<Option<Mark>, Failure> {
        let api = ObjectApi::namespaced::<ManagedSecret>(self.leader.client.clone(), &place.namespace);
        let live = api.get::<Lean>(object).await.map_err(|error| Failure::of(error, "get managedsecrets"))?;
        Ok(live.map(ManagedSecret::from).and_then(|live| Mark::delivered(&live.spec, &live.status.unwrap_or_default())))
    }

    /// Says for which objects a workload was restarted, if it was.
    fn report(&self, place: &Place, marks: &Marks) {
        if !marks.restarts.is_empty() {
            self.restarts.done.fetch_add(1, Ordering::Relaxed);
            info!(namespace = &*place.namespace, workload = %place.workload, "restarted");
        }
        // Events of one action are counted as repetitions of the first.
        let mut action = format!("Restart {}", place.workload);
        action.truncate(ACTION_MAX);
        for (object, version) in &marks.restarts {
            if let Some(own) = self.shared.index().object(&place.namespace, object) {
                let note = format!("restarted {} for version {version}", place.workload);
                self.events.say(&own, Reason::WorkloadRestarted, &action, false, &note);
            }
        }
    }
}

/// All marks: an apply takes away what it does not name. The uid keeps it from creating anything, and the version from
/// writing marks that follow from an earlier state of the workload.
fn body(place: &Place, uid: &str, version: &str, marks: &Marks) -> Value {
    let Workload { kind, name } = &place.workload;
    let mut body = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind.as_str(),
        "metadata": {"name": name, "namespace": &*place.namespace, "uid": uid, "resourceVersion": version},
    });
    if !marks.metadata.is_empty() {
        body["metadata"]["annotations"] = json!(marks.metadata);
    }
    if !marks.template.is_empty() {
        body["spec"] = json!({"template": {"metadata": {"annotations": marks.template}}});
    }
    body
}

impl Reconciler for Restarter {
    type Key = Place;

    async fn reconcile(&self, place: Place) -> Next {
        if !self.leader.leadership.is_leader() || self.restarts.objects(&place).is_empty() {
            // Once it is, every object is looked at, and so every workload.
            return Next::Done;
        }
        let (outcome, next) = match self.look(&place).await {
            Ok((None, next)) => return next,
            Ok((Some(outcome), next)) => (outcome, next),
            Err(Failure::Terminating) => return Next::Done,
            Err(
                failure @ (Failure::Forbidden(_) | Failure::Refused(_) | Failure::Invalid(_) | Failure::BadRequest(_)),
            ) => {
                warn!(namespace = &*place.namespace, workload = %place.workload, %failure, "could not restart");
                (Outcome::Refused(failure.to_string()), Next::After(BLOCKED_RETRY))
            }
            Err(failure) => {
                debug!(namespace = &*place.namespace, workload = %place.workload, %failure, "could not restart yet");
                return Next::Retry { after: failure.retry_after() };
            }
        };
        let say: Vec<Key> = self.restarts.looked_at(&place, outcome);
        self.shared.wake(say);
        next
    }
}
