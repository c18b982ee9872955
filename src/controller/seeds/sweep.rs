//! Lists all records, and re-wraps those under a seed that was replaced.
//!
//! In: the keyring. Out: what the list showed. A record is listed whole, because its bytes name seeds as well as its MAC; its
//! values stay encrypted. So a re-wrap needs no read of its own: a dry run and a write, over the version that was listed. A
//! record that does not verify, or that admission control of others would spoil, stays as it is ([`super::stuck`]).
//!
//! The keyring may be deleted or go back to an older one meanwhile. It is read before the records of each page are written,
//! and what this process knows of it is asked before each record: no record moves to a seed that is not stored.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, stream};
use managed_secrets_api::{
    keys::{ANNO_MAC, GROUP, KIND, TYPE_RECORD, VERSION},
    record::{Rewrapped, StoredRecord, seeds_in},
};
use managed_secrets_client::{CallError, Run, SecretApi, SecretObject};
use managed_secrets_crypto::{Keyring, Seed, SeedId, mac};
use managed_secrets_engine::queue::Priority;
use serde_json::{Map, json};
use tokio::{sync::Mutex as AsyncMutex, time::Interval};
use tracing::{debug, warn};

use super::{
    super::{
        altered::{Intent, Part},
        cluster::Cluster,
        failure::Failure,
        index::Key,
        keys::Keys,
        plan::Slot,
        run::Leader,
        sinks::Shared,
        view::LiveSecret,
    },
    receipts::Receipt,
    stuck::Cause,
};
use crate::keyring::KeyringError;

/// Records of one page: with 16 KiB of value and some kept versions each, a page is a few MB at most.
const PAGE: u32 = 50;
/// Re-wraps in flight.
const IN_FLIGHT: usize = 2;
/// Re-wraps begin no faster than one in this time.
const PACE: Duration = Duration::from_millis(5);
/// A re-wrap gives way to objects that users wait for, this long at most.
const GIVE_WAY: Duration = Duration::from_secs(2);
/// Between two looks whether they still wait.
const LOOK: Duration = Duration::from_millis(20);

/// What re-wraps records.
pub(super) struct Sweeper {
    leader: Leader,
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    /// The namespaces that are served; all if empty.
    namespaces: Vec<String>,
    pace: AsyncMutex<Interval>,
}

/// What metrics read.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records that this process has re-wrapped.
    pub rewrapped: AtomicU64,
    /// Records that the last list showed under a seed that was replaced, and that are still there.
    pub left: AtomicUsize,
}

/// What a list showed.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// The seeds that the records named.
    pub(super) named: BTreeSet<SeedId>,
    /// Whether every namespace was listed to its end.
    pub(super) complete: bool,
    /// Records under a seed that was replaced.
    pub(super) found: usize,
    /// Those of them that were moved.
    pub(super) moved: usize,
    /// Those of them that cannot be moved, by uid.
    pub(super) stuck: HashSet<String>,
}

/// A list of one scope that was not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    /// Also where a list took so long that the API server has forgotten its version.
    #[error("could not list the records to re-wrap: {0}")]
    Unlisted(#[from] CallError),
    #[error("stopped to re-wrap records: {0}")]
    Keyring(#[from] KeyringError),
}

/// What became of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    /// It is under the active seed.
    Rewrapped,
    /// Another writer was faster, or the API server did not answer: the next list shows it.
    Later,
    /// It does not verify, or it cannot be written.
    Stuck(String),
}

impl Sweeper {
    pub(super) fn new(leader: Leader, keys: Arc<Keys>, shared: Arc<Shared>, namespaces: Vec<String>) -> Self {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { leader, keys, shared, namespaces, pace: AsyncMutex::new(pace) }
    }

    /// Lists every record of the namespaces that are served, and re-wraps those under a seed of `superseded`.
    pub(super) async fn sweep(&self, keyring: &Keyring, superseded: &BTreeSet<SeedId>) -> Swept {
        let mut swept = Swept { complete: true, ..Swept::default() };
        let client = || self.leader.client.clone();
        let mut scopes: Vec<(&str, SecretApi)> =
            self.namespaces.iter().map(|it| (it.as_str(), SecretApi::namespaced(client(), it))).collect();
        if scopes.is_empty() {
            scopes.push(("all namespaces", SecretApi::all(client())));
        }
        for (scope, secrets) in scopes {
            if let Err(error) = self.sweep_scope(&secrets, keyring, superseded, &mut swept).await {
                warn!(namespaces = scope, %error, "left records under earlier seeds; will retry");
                swept.complete = false;
                if matches!(error, Unfinished::Keyring(_)) {
                    break;
                }
            }
        }
        if swept.complete {
            self.shared.rotation.stuck.retain(|uid| swept.stuck.contains(uid));
        }
        swept
    }

    /// The same for one scope; adds to what was found before.
    async fn sweep_scope(
        &self,
        secrets: &SecretApi,
        keyring: &Keyring,
        superseded: &BTreeSet<SeedId>,
        swept: &mut Swept,
    ) -> Result<(), Unfinished> {
        let counts = &self.shared.rotation.counts;
        let mut next = None;
        loop {
            let (records, more) = secrets.page(&format!("type={TYPE_RECORD}"), PAGE, next.as_deref()).await?;
            let mut todo = Vec::new();
            for record in records {
                let seeds = seeds_of(&record);
                if !seeds.is_disjoint(superseded) {
                    todo.push(record);
                }
                swept.named.extend(seeds);
            }
            swept.found += todo.len();
            counts.left.store(swept.found - swept.moved, Relaxed);
            if !todo.is_empty()
                && let Some(to) = keyring.active_seed()
            {
                self.keys.store().check_active(to.id()).await?;
                let rewraps = todo.into_iter().map(|record| self.rewrap(record, keyring, to, superseded));
                let mut outcomes = stream::iter(rewraps).buffer_unordered(IN_FLIGHT);
                while let Some(outcome) = outcomes.next().await {
                    match outcome {
                        Outcome::Rewrapped => {
                            swept.moved += 1;
                            counts.rewrapped.fetch_add(1, Relaxed);
                        }
                        Outcome::Later => {}
                        Outcome::Stuck(uid) => {
                            swept.stuck.insert(uid);
                        }
                    }
                    counts.left.store(swept.found - swept.moved, Relaxed);
                }
            }
            match more.filter(|more| !more.is_empty()) {
                Some(more) => next = Some(more),
                None => return Ok(()),
            }
        }
    }

    async fn rewrap(
        &self,
        record: SecretObject,
        keyring: &Keyring,
        to: &Seed,
        superseded: &BTreeSet<SeedId>,
    ) -> Outcome {
        let name = record.metadata.name.as_deref().unwrap_or_default();
        let namespace = record.metadata.namespace.as_deref().unwrap_or_default();
        if record.metadata.deletion_timestamp.is_some() {
            // It goes.
            return Outcome::Later;
        }
        let Some(stored) = StoredRecord::of(&record.metadata) else {
            return self.stuck(&record, Cause::Unreadable, &"its metadata cannot be read");
        };
        if !stored.is_under(data_of(&record), superseded) {
            let why = "it holds bytes under an earlier seed that its metadata does not describe";
            return self.stuck(&record, Cause::Unverified, &why);
        }
        let rewrapped = match stored.rewrap(namespace, data_of(&record), |id| keyring.seed(id), to) {
            Ok(rewrapped) => rewrapped,
            Err(error) => return self.stuck(&record, Cause::Unverified, &error),
        };
        self.give_way().await;
        if !self.keys.is_active(to.id()) {
            return Outcome::Later;
        }
        match self.write(namespace, name, &record, &stored, &rewrapped, to).await {
            Ok(()) => Outcome::Rewrapped,
            Err(Failure::Conflict | Failure::Absent | Failure::Terminating) => Outcome::Later,
            Err(Failure::Unavailable { what, retry_after }) => {
                debug!(namespace, record = name, what, "the API server did not answer a re-wrap; will retry");
                tokio::time::sleep(retry_after.unwrap_or(LOOK)).await;
                Outcome::Later
            }
            Err(failure) => self.stuck(&record, Cause::Unwritable, &failure),
        }
    }

    /// Takes note of a record that stays under its seed, and logs it once.
    fn stuck(&self, record: &SecretObject, cause: Cause, why: &dyn fmt::Display) -> Outcome {
        let metadata = &record.metadata;
        let uid = metadata.uid.clone().unwrap_or_default();
        if self.shared.rotation.stuck.note(&uid, metadata.resource_version.as_deref().unwrap_or_default(), cause) {
            let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
            warn!(namespace, record = name, cause = cause.as_str(), %why, "left a record under an earlier seed");
        }
        Outcome::Stuck(uid)
    }

    /// Writes the record over the version that was listed.
    async fn write(
        &self,
        namespace: &str,
        name: &str,
        record: &SecretObject,
        stored: &StoredRecord,
        rewrapped: &Rewrapped,
        to: &Seed,
    ) -> Result<(), Failure> {
        let metadata = &record.metadata;
        let (Some(uid), Some(version)) = (metadata.uid.clone(), metadata.resource_version.clone()) else {
            return Err(Failure::Conflict);
        };
        let slot = Slot::Over { uid: uid.clone(), resource_version: version.clone() };
        let owned = metadata.owner_references.iter().flatten().any(|it| it.kind == KIND && it.uid == stored.meta.uid);
        let owners = if owned {
            let api_version = format!("{GROUP}/{VERSION}");
            json!([{"apiVersion": api_version, "kind": KIND, "name": stored.meta.owner, "uid": stored.meta.uid}])
        } else {
            json!([])
        };
        let labels = stored.meta.labels();
        let values = rewrapped.data.iter().map(|(key, record)| (key.as_str(), record.as_bytes()));
        let data: Vec<_> = values.chain(rewrapped.emptied.iter().map(|key| (key.as_str(), &[][..]))).collect();
        let encoded: Map<_, _> =
            data.iter().map(|(key, bytes)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(bytes)))).collect();
        let cluster = Cluster::new(self.leader.client.clone(), namespace);
        let body = json!({
            "metadata": {"labels": labels, "annotations": rewrapped.annotations, "ownerReferences": owners},
            "type": TYPE_RECORD,
            "data": encoded,
        });
        let body = cluster.whole(name, &slot, body);
        let intent = Intent {
            labels: &labels,
            annotations: &rewrapped.annotations,
            owner: owned.then_some(stored.meta.uid.as_str()),
            data,
            type_: Some(TYPE_RECORD),
            mutable: record.immutable != Some(true),
        };
        let key = Key { namespace: namespace.into(), name: stored.meta.owner.as_str().into() };
        let in_step = self.shared.index().object(namespace, &stored.meta.owner).is_some_and(|own| {
            own.status.record.is_some_and(|it| it.name == name && it.uid == uid && it.resource_version == version)
        });
        let writing = self.shared.receipts.write(key.clone());
        let dry = cluster.apply_secret(name, &slot, Run::Dry, &body).await?;
        if let Some(field) = intent.changed_in(&dry).filter(|field| field.spoils(Part::Record)) {
            return Err(Failure::Refused(format!("an admission policy or webhook that changes {}", field.path())));
        }
        let sent = self.shared.index().send(namespace, name);
        let written = cluster.apply_secret(name, &slot, Run::Real, &body).await;
        let concerned = {
            let mut index = self.shared.index();
            let put = |live: &LiveSecret| index.put_written(namespace, live.view.clone().kept(), &sent, Instant::now());
            let concerned = written.as_ref().map(put).unwrap_or_default();
            index.answered(sent);
            concerned
        };
        self.shared.wake(concerned);
        let after = written?.view.resource_version;
        debug!(namespace, record = name, seed = %to.id(), "re-wrapped");
        // Where a value was lost, the pass that follows finds a record that status does not know, and reports the loss.
        if in_step && rewrapped.emptied.is_empty() {
            writing.written(Receipt { uid, before: version, after });
        } else {
            drop(writing);
        }
        self.shared.queue.add(key, Priority::Resync);
        Ok(())
    }

    /// Waits for its turn: objects that users wait for come first, and the API server gets a pause between two writes.
    async fn give_way(&self) {
        let began = Instant::now();
        let is_busy = || {
            let due = self.shared.queue.progress().due;
            due.iter().any(|due| due.priority != Priority::Resync && due.keys > 0)
        };
        while is_busy() && began.elapsed() < GIVE_WAY {
            tokio::time::sleep(LOOK).await;
        }
        self.pace.lock().await.tick().await;
    }
}

fn data_of(record: &SecretObject) -> impl Iterator<Item = (&str, &[u8])> {
    record.data.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice()))
}

/// Every seed that a record names, authentic or not: one that only seems to need a seed keeps it from being retired.
fn seeds_of(record: &SecretObject) -> BTreeSet<SeedId> {
    let mac = record.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNO_MAC));
    seeds_in(data_of(record)).chain(mac.and_then(|mac| mac::seed_named(mac))).collect()
}
