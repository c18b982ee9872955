//! Leader election: of several replicas, one at a time may change the cluster.
//!
//! The replicas compete for a `Lease` object by the rules of client-go (`k8s.io/client-go/tools/leaderelection`):
//!
//! * The leader renews the Lease every few seconds. If it cannot for the *renew deadline*, it stops: [`Elector::run`] returns
//!   [`Lost`], and the process must end. It stops before others may take the Lease, which takes the longer *lease duration*.
//! * No clock of another machine is trusted. A candidate measures with its own monotonic clock how long it has seen the Lease
//!   unchanged; `renewTime` is for people.
//! * Every write of the Lease carries the resourceVersion that it was decided on, so one of several candidates wins.
//! * A leader that stops as it should releases the Lease, and the next one takes it at once.
//!
//! ```text
//!  API server ◀──get, create, replace── Elector ──▶ Candidate (pure): step
//!      │ watch: the Lease is free ─────────▲ │
//!                                            ▼
//!                                       Leadership ──▶ reconciles; the guard of `Clients::lead`
//! ```
//!
//! # Guarantee and assumption
//!
//! At no instant do two replicas have a valid [`Leadership`], if the monotonic clock of no machine runs faster or slower
//! than that of another by the ratio of lease duration and renew deadline (15 to 10). The wall clocks may show anything.
//!
//! A Lease is no fence: a request that was sent in time may be carried out late, and a process can be stopped between the
//! check and the system call that sends the request, while the request waits in its connection. Therefore every write should
//! have preconditions as well.

mod candidate;
mod leadership;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{pin::pin, sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams, runtime::watcher};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::candidate::{Candidate, Step};
pub use self::leadership::{Leadership, NotLeading, Term};
use super::{
    backoff::{Backoff, Jitter},
    waiting::Waiting,
    watch::{Sink, Watcher},
};

/// The longest that one request for the Lease may take. Where etcd is slow, a write takes seconds.
const ANSWER: Duration = Duration::from_secs(5);
/// How many requests without an answer fit into the renew deadline. As the timeout of clients with leader election in
/// controller-runtime (`pkg/cluster`: half of the renew deadline).
const TRIES: u32 = 2;
/// The factor by which a random delay may exceed [`Durations::retry`].
const JITTER: f64 = 1.2;

/// How long a Lease lasts, and how often it is renewed. The default is that of Kubernetes' own components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durations {
    lease: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Durations that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationsError {
    /// The leader would still write when others may already take the Lease.
    #[error("the lease duration must be longer than the renew deadline")]
    Lease,
    /// The leader would stop after one failed try.
    #[error("the renew deadline must be longer than 1.2 times the retry period")]
    RenewDeadline,
    /// The replicas would send requests without a pause.
    #[error("the retry period must not be zero")]
    Retry,
}

impl Durations {
    /// Checks the durations: `lease` (whole seconds; a fraction is dropped), after which others may take a Lease that is not
    /// renewed; `renew_deadline`, after which a leader stops that cannot renew it; `retry`, the delay between two tries.
    pub fn new(lease: Duration, renew_deadline: Duration, retry: Duration) -> Result<Self, DurationsError> {
        let lease = Duration::from_secs(lease.as_secs().min(i32::MAX.unsigned_abs().into()));
        if lease <= renew_deadline {
            return Err(DurationsError::Lease);
        }
        if renew_deadline <= retry.mul_f64(JITTER) {
            return Err(DurationsError::RenewDeadline);
        }
        if retry.is_zero() {
            return Err(DurationsError::Retry);
        }
        Ok(Self { lease, renew_deadline, retry })
    }
}

impl Default for Durations {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What a replica competes for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this replica is. No other process may ever have the same identity, including an earlier one of the same pod.
    pub identity: String,
    /// The durations.
    pub durations: Durations,
}

/// Why a replica is no longer the leader. The process must end: another replica may be the leader now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The Lease was not renewed in time.
    #[error("lost the leadership: could not renew the lease within {} s: {why}", .deadline.as_secs_f32())]
    NotRenewed {
        /// The renew deadline.
        deadline: Duration,
        /// Why the last try failed.
        why: String,
    },
    /// The Lease names another holder.
    #[error("lost the leadership: {holder} took the lease")]
    Taken {
        /// The identity of the other.
        holder: String,
    },
    /// Another program deleted the Lease, or removed the holder from it.
    #[error("lost the leadership: the lease was released or deleted by another program")]
    Removed,
}

/// Why one try failed.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("no answer from the API server in time")]
    NoAnswer,
    #[error("another program changed the lease at the same time")]
    Conflict,
    #[error("admission control changed the holder of the lease")]
    Altered,
    #[error("{0}")]
    Api(kube::Error),
    #[error(transparent)]
    Lost(Lost),
}

impl From<kube::Error> for TryError {
    fn from(error: kube::Error) -> Self {
        match error {
            // 404: the Lease was deleted since it was read.
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Self::Conflict,
            error => Self::Api(error),
        }
    }
}

/// Competes for the leadership on behalf of one replica.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    durations: Durations,
    term: Term,
    /// The Lease as the leader wrote it last: it needs no read before the next write.
    written: Option<Lease>,
    freed: Arc<Notify>,
    waiting: Waiting,
    /// The leader that was logged last.
    leader: Option<String>,
    /// Why the last try failed.
    why: String,
}

impl Elector {
    /// Creates an elector that tells `term` about the leadership. The client must not retry by itself:
    /// [`Clients::lease`](super::client::Clients::lease).
    #[must_use]
    pub fn new(client: Client, options: Options, term: Term) -> Self {
        let Options { namespace, name, identity, durations } = options;
        let waiting = Waiting::new(format!("the leadership (lease {namespace}/{name})"));
        Self {
            api: Api::namespaced(client, &namespace),
            name,
            candidate: Candidate::new(identity, durations),
            durations,
            term,
            written: None,
            freed: Arc::default(),
            waiting,
            leader: None,
            why: String::new(),
        }
    }

    /// Starts a watch of the Lease, so that the elector learns at once when the leader releases it. Without the watch, it
    /// learns it after [`Durations::retry`].
    pub fn watch(&self, watcher: &Watcher) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let namespace = self.api.namespace().unwrap_or_default();
        let leases = |client| Api::<Lease>::namespaced(client, namespace);
        watcher.watch("lease", leases, config, Arc::new(Freed(Arc::clone(&self.freed))));
    }

    /// Competes until `release` completes, and then releases the Lease. Before that, the caller must have finished all work
    /// of a leader. Returns an error as soon as the leadership is lost: end the process then.
    pub async fn run(mut self, release: impl Future<Output = ()>) -> Result<(), Lost> {
        let mut release = pin!(release);
        let freed = Arc::clone(&self.freed);
        loop {
            let pause = tokio::select! {
                biased;
                () = &mut release => break,
                pause = self.compete() => pause.inspect_err(|_| self.term.end())?,
            };
            tokio::select! {
                biased;
                () = &mut release => break,
                () = sleep(pause) => {}
                () = freed.notified(), if !self.candidate.leads() => {}
            }
        }
        self.release().await;
        Ok(())
    }

    /// Tries once. Returns the delay until the next try.
    ///
    /// [`Durations::retry`] counts from the start of this try, as client-go's does while a leader cannot renew: a slow try must
    /// not cost a leader even more of its deadline.
    async fn compete(&mut self) -> Result<Duration, Lost> {
        let began = Instant::now();
        let mut tried = self.attempt().await;
        if matches!(tried, Err(TryError::Conflict)) && self.candidate.leads() {
            // Either the answer to an earlier write was lost, or the leadership is. The latter must be known at once.
            tried = self.attempt().await;
        }
        match tried {
            Ok(()) => {}
            Err(TryError::Lost(lost)) => return Err(lost),
            Err(error) => {
                self.why = error.to_string();
                if self.candidate.leads() {
                    warn!(%error, "could not renew the lease; will retry");
                } else {
                    self.waiting.because(&self.why);
                }
            }
        }
        let retry = Backoff { base: self.durations.retry, cap: self.durations.retry }.delay(1, Jitter::random());
        let retry = retry.saturating_sub(began.elapsed());
        let left = self.candidate.until().map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if !left.is_zero() => Ok(retry.min(left)),
            _ if self.candidate.leads() => Err(self.not_renewed()),
            // The Lease has expired, and could not be taken.
            _ => Ok(retry),
        }
    }

    /// Reads the Lease, unless the leader knows it, and writes it if the rules allow.
    async fn attempt(&mut self) -> Result<(), TryError> {
        let stored = match self.written.take() {
            Some(written) => Some(written),
            None => answer(self.time()?, self.api.get_opt(&self.name)).await?,
        };
        let spec = stored.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match self.candidate.step(spec, Instant::now(), Timestamp::now()) {
            Step::Wait { holder } => {
                if self.leader.as_ref() != Some(&holder) {
                    info!(lease = self.name, leader = holder, "standing by");
                    self.leader = Some(holder);
                }
                Ok(())
            }
            Step::Stop(lost) => Err(TryError::Lost(lost)),
            Step::Write(spec) => {
                // Before the request is sent: the time of the renewal must not be later than what others see.
                let sent = Instant::now();
                let written = self.put(stored, spec, self.time()?).await?;
                self.won(written, sent)
            }
        }
    }

    fn won(&mut self, written: Lease, sent: Instant) -> Result<(), TryError> {
        let led = self.candidate.leads();
        let Some(until) = self.candidate.won(written.spec.clone().unwrap_or_default(), sent) else {
            return Err(TryError::Altered);
        };
        if !led {
            let transitions = written.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
            info!(lease = self.name, identity = self.candidate.identity(), transitions, "became the leader");
        }
        self.term.begin(until);
        self.written = Some(written);
        Ok(())
    }

    async fn put(&self, stored: Option<Lease>, spec: LeaseSpec, time: Duration) -> Result<Lease, TryError> {
        if let Some(lease) = stored {
            // The rest of the object, such as labels, stays. Its resourceVersion is the precondition.
            let lease = Lease { spec: Some(spec), ..lease };
            answer(time, self.api.replace(&self.name, &PostParams::default(), &lease)).await
        } else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            answer(time, self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await
        }
    }

    /// How long any request may take.
    fn longest(&self) -> Duration {
        ANSWER.min(self.durations.renew_deadline / TRIES)
    }

    /// How long a request of a try may take. A leader has no more time than its deadline.
    fn time(&self) -> Result<Duration, TryError> {
        let time = self.longest();
        let left = self.candidate.leads_until().map(|until| until.saturating_duration_since(Instant::now()));
        match left {
            Some(left) if left.is_zero() => Err(TryError::Lost(self.not_renewed())),
            Some(left) => Ok(left.min(time)),
            None => Ok(time),
        }
    }

    fn not_renewed(&self) -> Lost {
        let why = if self.why.is_empty() { "the process was stopped or too slow" } else { &self.why };
        Lost::NotRenewed { deadline: self.durations.renew_deadline, why: why.to_owned() }
    }

    /// Ends the leadership of this process, and then lets others know. A failure only costs the others the lease duration.
    async fn release(mut self) {
        self.term.end();
        if !self.candidate.leads() {
            return;
        }
        match self.give_up().await {
            Ok(()) => info!(lease = self.name, "released the lease"),
            Err(error) => warn!(%error, "could not release the lease; another replica takes it when it expires"),
        }
    }

    /// The deadline of the leadership, which is over, does not matter here: the resourceVersion protects what others have
    /// written since.
    async fn give_up(&mut self) -> Result<(), TryError> {
        loop {
            let (stored, is_known) = match self.written.take() {
                Some(written) => (written, true),
                None => match answer(self.longest(), self.api.get_opt(&self.name)).await? {
                    Some(stored) => (stored, false),
                    None => return Ok(()),
                },
            };
            let Some(spec) = self.candidate.released(stored.spec.as_ref(), Timestamp::now()) else { return Ok(()) };
            match self.put(Some(stored), spec, self.longest()).await {
                // The release cut off a renewal whose answer was still to come.
                Err(TryError::Conflict) if is_known => {}
                done => return done.map(drop),
            }
        }
    }
}

async fn answer<T>(time: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, TryError> {
    timeout(time, request).await.map_err(|_| TryError::NoAnswer)?.map_err(TryError::from)
}

/// Notifies when a Lease has no holder.
struct Freed(Arc<Notify>);

impl Freed {
    fn see(&self, lease: &Lease) {
        if lease.spec.as_ref().is_none_or(|spec| candidate::holder(spec).is_none()) {
            self.0.notify_one();
        }
    }
}

impl Sink<Lease> for Freed {
    fn init(&self) {}

    fn init_apply(&self, lease: Lease) {
        self.see(&lease);
    }

    fn init_done(&self) {}

    fn apply(&self, lease: Lease) {
        self.see(&lease);
    }

    fn delete(&self, _: Lease) {
        self.0.notify_one();
    }
}
