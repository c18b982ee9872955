//! One fault after the other, each until everything is in step again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kube::api::{Patch, PatchParams};
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::json;
use testkit::{Component, audit::Mark};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Length,
    cluster::{Cluster, Pod, lasts},
    report::{Report, Row},
};
use crate::integration::installation::OPERATOR_NAMESPACE;

/// The object that is edited all the time.
const EDITED: &str = "probe-edited";
/// Watches of a replica: ManagedSecrets, Secrets, sources, keyring, public key, Lease, Secret and configurations of the webhooks.
const WATCHES: usize = 9;
/// Resources of these watches, of which each replica asks for the revision.
const RESOURCES: usize = 6;
/// Other requests of a start: the version, the keyring, the public key, the webhooks' certificate and configurations.
const START: usize = 20;

/// Edits without end, and when each was carried out.
struct Edits {
    done: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl Edits {
    async fn begin(cluster: &Cluster) -> Self {
        cluster.apply(EDITED, json!({"generate": {}})).await;
        cluster.served(EDITED).await;
        let done = Arc::<Mutex<Vec<Instant>>>::default();
        let task = tokio::spawn(edit(cluster.objects(), Arc::clone(&done)));
        Self { done, task }
    }

    /// The longest time without one since then.
    fn longest_gap(&self, since: Instant) -> Duration {
        let done = self.done.lock().unwrap();
        let times: Vec<Instant> =
            [since].into_iter().chain(done.iter().copied().filter(|at| *at > since)).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Edits {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn edit(objects: kube::Api<ManagedSecret>, done: Arc<Mutex<Vec<Instant>>>) {
    for number in 0.. {
        let patch = Patch::Merge(json!({"spec": {"description": format!("edit {number}")}}));
        let params = PatchParams::default();
        let edited = timeout(Duration::from_secs(5), objects.patch(EDITED, &params, &patch)).await;
        if let Ok(Ok(edited)) = edited {
            loop {
                let now = timeout(Duration::from_secs(5), objects.get(EDITED)).await;
                let Ok(Ok(now)) = now else { break };
                if now.status.is_some_and(|status| status.observed_generation >= edited.metadata.generation) {
                    done.lock().unwrap().push(Instant::now());
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What was counted at one moment.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    answered: f64,
    failed: f64,
}

impl Moment {
    fn now(cluster: &Cluster) -> Self {
        let (answered, failed) = cluster.sent();
        Self { at: Instant::now(), answered, failed }
    }

    /// Requests a second since then: answered, and without an answer.
    fn rates_since(self, then: Self) -> (f64, f64) {
        let seconds = (self.at - then.at).as_secs_f64().max(0.001);
        ((self.answered - then.answered) / seconds, (self.failed - then.failed) / seconds)
    }
}

/// A fault that lasts. [`Fault::ends`] is called immediately before what ends it.
struct Fault<'c> {
    cluster: &'c Cluster,
    /// Requests without an answer, and restarts, of each replica before it.
    before: Vec<(f64, usize)>,
    end: Option<(Moment, Mark)>,
}

impl Fault<'_> {
    fn ends(&mut self) {
        self.end = Some((Moment::now(self.cluster), self.cluster.control_plane.audit_end().unwrap()));
    }

    /// For so long; or until each replica has noticed it, by requests without an answer or by its end, and none leads any more.
    async fn lasts(&self, duration: Option<Duration>) {
        if let Some(duration) = duration {
            return lasts(duration).await;
        }
        let pods = || self.cluster.pods.iter().zip(&self.before);
        let is_restarted = |(pod, (_, restarts)): (&Pod, &(f64, usize))| pod.restarts() > *restarts;
        for (pod, before) in pods() {
            let noticed = || pod.failed() > before.0 + 2.0 || is_restarted((pod, before));
            self.cluster.until("a replica to notice", async || noticed().then_some(())).await;
        }
        // The leader may have ended just before the fault, and no other taken its place yet.
        for pod in &self.cluster.pods {
            self.cluster.until("the leader to end", async || (!pod.leads().await).then_some(())).await;
        }
    }
}

/// Requests after a fault that are no more than what there is to do: each process fills its caches, and renews or reads the
/// Lease. No object that did not change costs a request.
fn bound(cluster: &Cluster, restarts: usize, lasted: Duration) -> usize {
    let processes = cluster.pods.len() + restarts;
    let seconds = usize::try_from(lasted.as_secs()).unwrap() + 1;
    let pages = cluster.length.objects.div_ceil(250) + 1;
    // Each watch may list again, once after its start; each break of a watch may ask for the revisions, once a second.
    let watches = WATCHES * 2 * (pages + 1);
    let revisions = RESOURCES * (seconds / 30 + WATCHES);
    processes * (watches + revisions + START) + cluster.pods.len() * (seconds + 2) * 2
}

/// The course of the faults.
struct Course<'c> {
    cluster: &'c Cluster,
    edits: Edits,
    report: Report,
}

impl Course<'_> {
    /// Causes a fault, waits until everything is in step again, and checks what that cost. Returns how often a replica ended.
    async fn meets(&mut self, label: &str, fault: impl AsyncFnOnce(&mut Fault<'_>)) -> usize {
        let cluster = self.cluster;
        let (restarts, calm) = (cluster.restarts(), Moment::now(cluster));
        lasts(cluster.length.before).await;
        let began = Moment::now(cluster);
        let before = cluster.pods.iter().map(|pod| (pod.failed(), pod.restarts())).collect();
        let mut now = Fault { cluster, before, end: None };
        fault(&mut now).await;
        let (ended, mark) = now.end.expect("an end");
        cluster.in_step().await;
        let in_step = Instant::now();
        lasts(cluster.length.after).await;
        let over = Moment::now(cluster);
        let restarts = cluster.restarts() - restarts;
        let requests = cluster.control_plane.requests_since(mark).await.unwrap();
        let operator = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{}", keys::OPERATOR_NAME);
        let unchanged: BTreeSet<String> = (0..cluster.length.objects)
            .flat_map(|number| [format!("object-{number}"), record_name(&format!("OBJECT_{number}"))])
            .collect();
        let (mut count, mut needless) = (0, Vec::new());
        for request in requests.iter().filter(|request| request.username() == operator) {
            let object = request.object();
            if unchanged.contains(&object.name) {
                needless.push(request.summary());
            }
            let is_of_probes = object.namespace == cluster.site.namespace && !object.name.is_empty();
            count += usize::from(!is_of_probes);
        }
        let (during, failed) = ended.rates_since(began);
        let row = Row {
            fault: label.to_owned(),
            before: began.rates_since(calm).0,
            during,
            failed,
            after: over.rates_since(ended).0,
            requests: count,
            bound: bound(cluster, restarts, over.at - ended.at),
            lasted: ended.at - began.at,
            in_step: in_step - ended.at,
            gap: self.edits.longest_gap(began.at),
            restarts,
            peak: cluster.pods.iter().map(|pod| pod.operator.peak_memory().unwrap()).max().unwrap(),
        };
        println!("{row:?}");
        assert!(needless.is_empty(), "{label}: requests for objects that did not change: {needless:#?}");
        assert!(row.requests <= row.bound, "{row:?}");
        self.report.0.push(row);
        restarts
    }
}

/// The API server is not there, or does not answer; for so long, or until each replica has noticed it.
async fn outages(course: &mut Course<'_>, duration: Option<Duration>) {
    let cluster = course.cluster;
    let plane = &cluster.control_plane;
    let label = |what: &str| format!("{what}{}", duration.map(|it| format!(" {it:?}")).unwrap_or_default());
    course
        .meets(&label("API server away"), async |fault| {
            plane.kill_component(Component::Apiserver).await.unwrap();
            fault.lasts(duration).await;
            fault.ends();
            plane.start_component(Component::Apiserver).await.unwrap();
        })
        .await;
    course
        .meets(&label("API server frozen"), async |fault| {
            plane.pause(Component::Apiserver).await.unwrap();
            fault.lasts(duration).await;
            fault.ends();
            plane.resume(Component::Apiserver).await.unwrap();
        })
        .await;
    course
        .meets(&label("API server away at the start"), async |fault| {
            plane.kill_component(Component::Apiserver).await.unwrap();
            cluster.restart().await;
            for pod in &cluster.pods {
                cluster.until("a replica to wait", async || says(pod, "waiting for the API server").await).await;
            }
            lasts(duration.unwrap_or_default()).await;
            fault.ends();
            plane.start_component(Component::Apiserver).await.unwrap();
        })
        .await;
}

/// The API server identifies itself in another way.
async fn certificates(course: &mut Course<'_>) {
    let cluster = course.cluster;
    let plane = &cluster.control_plane;
    course
        .meets("API server restarts with another certificate", async |fault| {
            plane.kill_component(Component::Apiserver).await.unwrap();
            cluster.replace_serving(0);
            fault.ends();
            plane.start_component(Component::Apiserver).await.unwrap();
        })
        .await;
    course
        .meets("API server restarts with another authority", async |fault| {
            plane.kill_component(Component::Apiserver).await.unwrap();
            cluster.replace_serving(1);
            plane.start_component(Component::Apiserver).await.unwrap();
            fault.lasts(cluster.length.outages[0]).await;
            fault.ends();
            for pod in &cluster.pods {
                pod.mount("ca.crt", &cluster.authorities[1].certificate);
            }
        })
        .await;
}

/// The tokens of all replicas are refused, and replaced later.
async fn tokens(course: &mut Course<'_>) {
    let cluster = course.cluster;
    course
        .meets("tokens refused, then replaced", async |fault| {
            let token = cluster.mount_token().await;
            // They read the file at their start, and then once a minute.
            cluster.restart().await;
            cluster.ready().await;
            cluster.revoke(token).await;
            for pod in &cluster.pods {
                let refused = async || match pod.ask("/metrics").await {
                    Some((_, text)) if text.lines().any(|line| line.contains("code=\"401\"")) => Some(()),
                    _ => says(pod, "401").await,
                };
                cluster.until("the token to be refused", refused).await;
            }
            fault.ends();
            cluster.mount_token().await;
        })
        .await;
}

/// etcd is not there.
async fn etcd(course: &mut Course<'_>) {
    let cluster = course.cluster;
    let (plane, duration) = (&cluster.control_plane, cluster.length.outages[0]);
    course
        .meets("etcd away", async |fault| {
            plane.kill_component(Component::Etcd).await.unwrap();
            fault.lasts(duration).await;
            fault.ends();
            plane.start_component(Component::Etcd).await.unwrap();
        })
        .await;
}

/// It writes, and takes its time.
async fn slow_etcd(course: &mut Course<'_>) {
    let (cluster, duration) = (course.cluster, course.cluster.length.outages[0]);
    let restarts = course
        .meets("etcd takes 1 s for an fsync", async |fault| {
            cluster.slow_down_etcd(1000);
            cluster.in_step().await;
            lasts(duration.unwrap_or_default()).await;
            fault.ends();
            cluster.slow_down_etcd(0);
        })
        .await;
    assert_eq!(restarts, 0, "a leader cannot renew its Lease");
}

/// The clocks of the replicas differ by two days, and are corrected.
async fn clocks(course: &mut Course<'_>) {
    let cluster = course.cluster;
    course
        .meets("clocks a day ahead and a day behind", async |fault| {
            for (pod, day) in cluster.pods.iter().zip([1, -1]) {
                pod.set_clock(day * 24 * 3600);
            }
            cluster.in_step().await;
            // Certificates are issued at the start.
            cluster.restart().await;
            cluster.ready().await;
            cluster.in_step().await;
            fault.ends();
            for pod in &cluster.pods {
                pod.set_clock(0);
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_no_storm_follows_whatever_fails() {
    let length = Length::asked_for();
    let cluster = Cluster::start(length).await;
    cluster.probe().await;
    let edits = Edits::begin(&cluster).await;
    let mut course = Course { cluster: &cluster, edits, report: Report::default() };
    for duration in length.outages {
        outages(&mut course, *duration).await;
    }
    certificates(&mut course).await;
    tokens(&mut course).await;
    etcd(&mut course).await;
    if length.is_whole {
        slow_etcd(&mut course).await;
        clocks(&mut course).await;
    }
    println!("{}", course.report);
    drop(course);
    cluster.stop().await;
}

/// Whether a replica that starts says so.
async fn says(pod: &Pod, text: &str) -> Option<()> {
    pod.ask("/readyz").await.filter(|(_, said)| said.contains(text)).map(drop)
}
