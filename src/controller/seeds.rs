//! Replaces seeds: carries out the stages of [`crate::keyring::seeds`], and re-wraps the records.
//!
//! In: the operator's keyring. Out: a keyring with a new seed, and records under it. Only the leader does this. Every write has
//! preconditions, and the next step follows from what is stored: a rotation that is interrupted goes on where it was.

pub(crate) mod receipts;
mod sweep;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::keyring_request::{Kind, Request};
use managed_secrets_crypto::{
    SeedId,
    keyring::{Document, Entry, Listed},
};
use managed_secrets_engine::backoff::{Backoff, Jitter};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::sweep::Counts;
use self::sweep::Sweeper;
use super::{keys::Keys, run::Leader, sinks::Shared};
use crate::keyring::{
    KeyringError, OwnKeyring,
    seeds::{LastList, Seen, Step, Timing, next},
};

/// Between tries after an error.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };
/// Between two looks at the keyring, however much news there is.
const PAUSE: Duration = Duration::from_millis(500);
/// Steps without a wait between them: more than a rotation has.
const MAX_STEPS: usize = 8;

/// What the rest of the operator knows of rotations.
#[derive(Default)]
pub struct Rotation {
    /// What metrics read of the records.
    pub counts: Arc<Counts>,
    /// When the active seed was created, while a seed that it replaced may be in use.
    pub since: Mutex<Option<Timestamp>>,
    /// Rung when a pass met a record under a seed that was replaced.
    pub(super) met: Notify,
}

/// The task.
pub(super) struct Rotator {
    leader: Leader,
    keys: Arc<Keys>,
    rotation: Arc<Rotation>,
    sweeper: Sweeper,
    timing: Timing,
    memory: Memory,
}

/// What this process has seen.
struct Memory {
    began: Instant,
    pending: Option<(SeedId, Instant)>,
    listed: Option<(Instant, bool)>,
    met: bool,
}

impl Rotator {
    pub(super) fn new(
        leader: Leader,
        keys: Arc<Keys>,
        shared: Arc<Shared>,
        namespaces: Vec<String>,
        timing: Timing,
    ) -> Self {
        let rotation = Arc::clone(&shared.rotation);
        let sweeper = Sweeper::new(leader.clone(), shared, namespaces, Arc::clone(&rotation.counts));
        let memory = Memory { began: Instant::now(), pending: None, listed: None, met: false };
        Self { leader, keys, rotation, sweeper, timing, memory }
    }

    /// Replaces seeds until `shutdown`, once this process leads.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        self.leader.leadership.acquired().await;
        self.memory.began = Instant::now();
        let mut failures = 0;
        loop {
            let wait = match self.round().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    warn!(%error, "could not check whether seeds are to be replaced; will retry");
                    RETRY.delay(failures, Jitter::random())
                }
            };
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(wait) => {}
                () = self.keys.changed() => {}
                () = self.rotation.met.notified() => self.memory.met = true,
            }
        }
    }

    /// Takes steps until there is something to wait for.
    async fn round(&mut self) -> Result<Duration, KeyringError> {
        for _ in 0..MAX_STEPS {
            let own = self.keys.store().change(&self.leader.client, |own| Ok::<_, KeyringError>(own.clone())).await?;
            let now = Timestamp::now();
            self.note(&own.document, now);
            match next(&own.document, &self.seen(&own), &self.timing, now) {
                Step::Wait(wait) => return Ok(wait),
                Step::Begin => self.begin(&own.document).await?,
                Step::Activate(id) => self.activate(id).await?,
                Step::List => self.list(&own.document).await?,
            }
        }
        Ok(PAUSE)
    }

    /// Notes what the document shows.
    fn note(&mut self, document: &Document, now: Timestamp) {
        let pending = document.pending_seed().and_then(Entry::seed_id);
        if self.memory.pending.map(|(id, _)| id) != pending {
            self.memory.pending = pending.map(|id| (id, Instant::now()));
        }
        let outstanding = document.superseded_seeds(now).any(|entry| !entry.is_confirmed_unused());
        *self.rotation.since.lock() = document.newest_seed().filter(|_| outstanding);
    }

    fn seen(&self, own: &OwnKeyring) -> Seen {
        Seen {
            leading: self.memory.began.elapsed(),
            pending: self.memory.pending.map(|(_, since)| since.elapsed()),
            listed: self.memory.listed.map(|(ended, is_clean)| LastList { ago: ended.elapsed(), is_clean }),
            asked: own.requests.iter().any(|request| *request == Request::Rotate(Kind::Seed)),
            met: self.memory.met,
        }
    }

    /// Adds a pending seed, unless there is one, and removes the request.
    async fn begin(&self, document: &Document) -> Result<(), KeyringError> {
        let store = self.keys.store();
        let wrap = store.wrapper(document).await?;
        let now = Timestamp::now();
        let added = store
            .change(&self.leader.client, |own| {
                own.requests.remove(&Request::Rotate(Kind::Seed));
                if own.document.pending_seed().is_some() {
                    return Ok(None);
                }
                let added = own.document.add_seed(now, |bytes| wrap.wrap(bytes));
                added.map(Some).map_err(KeyringError::from)
            })
            .await?;
        if let Some(seed) = added {
            info!(%seed, "added a new seed to the keyring; it becomes active once every replica has it");
            self.keys.read_again().await;
        }
        Ok(())
    }

    async fn activate(&mut self, id: SeedId) -> Result<(), KeyringError> {
        let change = |own: &mut OwnKeyring| Ok::<_, KeyringError>(own.document.activate_seed(id));
        if self.keys.store().change(&self.leader.client, change).await? {
            info!(seed = %id, "the new seed is active: new values are encrypted under it, and records are re-wrapped");
        }
        self.memory.listed = None;
        self.keys.read_again().await;
        Ok(())
    }

    /// Lists all records, re-wraps those under a seed that was replaced, and notes what the list showed.
    async fn list(&mut self, document: &Document) -> Result<(), KeyringError> {
        let began = Timestamp::now();
        let superseded: BTreeSet<SeedId> = document.superseded_seeds(began).filter_map(Entry::seed_id).collect();
        let keyring = self.keys.get();
        let has_all = superseded.iter().all(|id| keyring.seed(*id).is_some());
        let active = keyring.active_seed().map(managed_secrets_crypto::Seed::id);
        if !has_all || active.is_none_or(|active| superseded.contains(&active)) {
            // The keyring in use is older than the one that was read.
            self.keys.read_again().await;
            return Err(KeyringError::Contended);
        }
        self.memory.met = false;
        let swept = self.sweeper.sweep(&keyring, &superseded).await;
        let listed = Listed { named: &swept.named, complete: swept.complete, began, ended: Timestamp::now() };
        let apart = SignedDuration::try_from(self.timing.apart).unwrap_or(SignedDuration::MAX);
        let retired = self
            .keys
            .store()
            .change(&self.leader.client, |own| {
                let before: BTreeSet<String> = confirmed(&own.document);
                own.document.note_listed(&listed, apart);
                Ok::<_, KeyringError>(&confirmed(&own.document) - &before)
            })
            .await?;
        let is_clean = swept.complete && swept.found == 0;
        self.memory.listed = Some((Instant::now(), is_clean));
        if swept.found > 0 {
            let left = self.rotation.counts.left.load(std::sync::atomic::Ordering::Relaxed);
            info!(records = swept.found, left, "re-wrapped records under the active seed");
        }
        for seed in retired {
            info!(seed, "two lists have shown that no record is under this seed; it stays in the keyring for backups");
        }
        Ok(())
    }
}

fn confirmed(document: &Document) -> BTreeSet<String> {
    document.seeds().filter(|entry| entry.is_confirmed_unused()).map(|entry| entry.id.clone()).collect()
}
