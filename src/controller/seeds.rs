//! Replaces seeds: carries out the stages of [`crate::keyring::seeds`], and re-wraps the records.
//!
//! In: the operator's keyring. Out: a keyring with a new seed, and records under it. Only the leader does this. Every write has
//! preconditions, and the next step follows from what is stored: a rotation that is interrupted goes on where it was.

pub(crate) mod receipts;
pub(crate) mod stuck;
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
    keyring::{Document, Entry, Listed, Purpose},
};
use managed_secrets_engine::backoff::{Backoff, Jitter};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::sweep::Counts;
use self::{stuck::Stuck, sweep::Sweeper};
use super::{keys::Keys, run::Leader, sinks::Shared};
use crate::keyring::{
    KeyringError, OwnKeyring,
    seeds::{LastList, Left, Seen, Step, Timing, next},
};

/// Between tries after an error.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };
/// Between two looks at the keyring, however much news there is.
const PAUSE: Duration = Duration::from_millis(500);
/// How long nothing is done while the keyring is older than one that was seen before, unless it is read again.
const LONGEST: Duration = Duration::from_secs(3600);
/// Steps without a wait between them: more than a rotation has.
const MAX_STEPS: usize = 8;

/// What the rest of the operator knows of rotations.
#[derive(Default)]
pub struct Rotation {
    /// What metrics read of the records.
    pub counts: Counts,
    /// The records that cannot be moved.
    pub stuck: Stuck,
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
    listed: Option<(Instant, Left)>,
    met: bool,
    /// The seeds that only keyrings beside the operator's own have.
    joined: BTreeSet<SeedId>,
    /// Those of them that the last complete list showed no record under.
    clean: BTreeSet<SeedId>,
    /// When no seed that was replaced was in use.
    calm: Option<Timestamp>,
    /// It was logged that no seed is replaced because of its age.
    told: bool,
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
        let sweeper = Sweeper::new(leader.clone(), Arc::clone(&keys), shared, namespaces);
        let (joined, clean) = (BTreeSet::new(), BTreeSet::new());
        let began = Instant::now();
        let memory = Memory { began, pending: None, listed: None, met: false, joined, clean, calm: None, told: false };
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
            if self.keys.is_rolled_back() {
                // Nothing may be written until the keys are back; then the keyring is read again.
                return Ok(LONGEST);
            }
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
        if !outstanding {
            self.memory.calm = Some(now);
        }
        // A record that was restored begins it again.
        *self.rotation.since.lock() =
            document.newest_seed().filter(|_| outstanding).max(self.memory.calm.filter(|_| outstanding));
        let joined: BTreeSet<SeedId> = self.keys.get().joined_seeds().collect();
        // A keyring was restored: records are as well, perhaps.
        self.memory.met |= !joined.is_subset(&self.memory.joined);
        self.memory.joined = joined;
        let is_unrecoverable = self.is_unrecoverable(document);
        if is_unrecoverable && !self.memory.told && self.timing.period.is_some() {
            warn!(
                "the active seed is sealed to a recovery key, and this operator has none: it replaces no seed because of its \
                 age, because the recovery key could not open the new one. Start it with --recovery-recipient. To go on \
                 without a recovery key, request a new seed"
            );
        }
        self.memory.told = is_unrecoverable;
    }

    fn seen(&self, own: &OwnKeyring) -> Seen {
        Seen {
            leading: self.memory.began.elapsed(),
            pending: self.memory.pending.map(|(_, since)| since.elapsed()),
            listed: self.memory.listed.map(|(ended, left)| LastList { ago: ended.elapsed(), left }),
            asked: own.requests.iter().any(|request| *request == Request::Rotate(Kind::Seed)),
            met: self.memory.met,
            joined: !self.memory.joined.is_subset(&self.memory.clean),
            unrecoverable: self.is_unrecoverable(&own.document),
        }
    }

    /// Whether a new seed would have no copy for a recovery key, although the active one has.
    fn is_unrecoverable(&self, document: &Document) -> bool {
        let active = document.active_key(Purpose::Record, Timestamp::now());
        let has_copy = document.seeds().any(|entry| Some(entry.id.as_str()) == active && !entry.recovery.is_empty());
        has_copy && !self.keys.store().has_recipients()
    }

    /// Adds a pending seed, unless there is one, and removes the request.
    async fn begin(&self, document: &Document) -> Result<(), KeyringError> {
        let added = self.keys.store().begin(&self.leader.client, document, Purpose::Record).await?;
        if let Some(seed) = added {
            info!(seed, "added a new seed to the keyring; it becomes active once every replica has it");
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

    /// Lists all records, re-wraps those under a seed that was replaced or that only a keyring beside the operator's own has,
    /// and notes what the list showed.
    async fn list(&mut self, document: &Document) -> Result<(), KeyringError> {
        let began = Timestamp::now();
        let keyring = self.keys.get();
        let active = keyring.active_seed().map(managed_secrets_crypto::Seed::id);
        let replaced: BTreeSet<SeedId> = keyring.replaced_seeds().collect();
        let has_all = document.superseded_seeds(began).filter_map(Entry::seed_id).all(|id| replaced.contains(&id));
        let is_same = |active: &SeedId| has_all && is_active(document, *active, began) && self.keys.is_active(*active);
        let Some(active) = active.filter(is_same) else {
            // The keyring in use is not the one that was read.
            self.keys.read_again().await;
            return Err(KeyringError::Contended);
        };
        self.memory.met = false;
        let swept = self.sweeper.sweep(&keyring, &replaced).await;
        let listed = Listed { named: &swept.named, complete: swept.complete, began, ended: Timestamp::now() };
        let apart = SignedDuration::try_from(self.timing.apart).unwrap_or(SignedDuration::MAX);
        let lists = match self.memory.listed {
            Some((_, Left::Stuck(lists))) => lists,
            _ => 0,
        };
        let left = match swept.found {
            0 if swept.complete => Left::Nothing,
            found if swept.complete && found == swept.stuck.len() => Left::Stuck(lists + 1),
            _ => Left::Some,
        };
        self.memory.listed = Some((Instant::now(), left));
        if swept.complete {
            self.memory.clean = &self.memory.joined - &swept.named;
        }
        if swept.moved > 0 {
            info!(records = swept.moved, left = swept.found - swept.moved, "re-wrapped records under the active seed");
        }
        let retired = self
            .keys
            .store()
            .change(&self.leader.client, |own| {
                // What the list showed says nothing about a keyring that was put in the place of this one.
                if !is_active(&own.document, active, listed.ended) {
                    return Err(KeyringError::Changed);
                }
                let before: BTreeSet<String> = confirmed(&own.document);
                own.document.note_listed(&listed, apart);
                Ok(&confirmed(&own.document) - &before)
            })
            .await?;
        for seed in retired {
            info!(seed, "two lists have shown that no record is under this seed; it stays in the keyring for backups");
        }
        Ok(())
    }
}

fn is_active(document: &Document, seed: SeedId, now: Timestamp) -> bool {
    document.active_key(Purpose::Record, now) == Some(&seed.to_string())
}

fn confirmed(document: &Document) -> BTreeSet<String> {
    document.seeds().filter(|entry| entry.is_confirmed_unused()).map(|entry| entry.id.clone()).collect()
}
