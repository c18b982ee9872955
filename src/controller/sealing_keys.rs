//! Replaces sealing keys, and takes them out of use: carries out the steps of [`crate::keyring::sealing`].
//!
//! In: the operator's keyring, the requests on it, and which keys the sealed values of the cluster use. Out: a changed
//! keyring. Only the leader does this. Every write has preconditions, and the next step follows from what is stored: what is
//! interrupted goes on where it was.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use managed_secrets_api::keyring_request::Request;
use managed_secrets_crypto::{
    KeyId,
    keyring::{Document, Purpose},
};
use managed_secrets_engine::backoff::{Backoff, Jitter};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{keys::Keys, run::Leader, sinks::Shared};
use crate::keyring::{
    KeyringError, OwnKeyring,
    sealing::{Seen, Step, Timing, next},
};

/// Between tries after an error.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };
/// Between two looks at the keyring, however much news there is.
const PAUSE: Duration = Duration::from_millis(500);
/// Steps without a wait between them.
const MAX_STEPS: usize = 16;

/// The task.
pub(super) struct Rotator {
    leader: Leader,
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    timing: Timing,
    renewals: watch::Receiver<()>,
    began: Instant,
    /// The pending key, and since when this process knows it.
    pending: Option<(String, Instant)>,
    /// The active key, likewise.
    active: Option<(String, Instant)>,
}

impl Rotator {
    pub(super) fn new(leader: Leader, keys: Arc<Keys>, shared: Arc<Shared>, timing: Timing) -> Self {
        let renewals = keys.renewals();
        Self { leader, keys, shared, timing, renewals, began: Instant::now(), pending: None, active: None }
    }

    /// Replaces sealing keys until `shutdown`, once this process leads.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.work()).await;
    }

    async fn work(&mut self) {
        self.leader.leadership.acquired().await;
        self.began = Instant::now();
        let mut failures = 0;
        loop {
            self.renewals.mark_unchanged();
            let wait = match self.round().await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures += 1;
                    warn!(%error, "could not check whether sealing keys are to be replaced; will retry");
                    RETRY.delay(failures, Jitter::random())
                }
            };
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(wait) => {}
                // Its sender lives as long as `keys`.
                _ = self.renewals.changed() => {}
            }
        }
    }

    /// Takes steps until there is something to wait for.
    async fn round(&mut self) -> Result<Duration, KeyringError> {
        for _ in 0..MAX_STEPS {
            let own = self.keys.store().change(&self.leader.client, |own| Ok::<_, KeyringError>(own.clone())).await?;
            let now = Timestamp::now();
            self.note(&own.document, now);
            match next(&own.document, &own.requests, &self.seen(), &self.timing, now) {
                Step::Wait(wait) => return Ok(wait),
                Step::Begin => self.begin(&own.document).await?,
                step => self.take(&step, now).await?,
            }
        }
        Ok(PAUSE)
    }

    /// Notes what the document shows.
    fn note(&mut self, document: &Document, now: Timestamp) {
        let since = |known: Option<(String, Instant)>, id: Option<&str>| match (known, id) {
            (Some((known, since)), Some(id)) if known == id => Some((known, since)),
            (_, id) => id.map(|id| (id.to_owned(), Instant::now())),
        };
        self.pending = since(self.pending.take(), document.pending_sealing_key().map(|entry| &*entry.id));
        self.active = since(self.active.take(), document.active_key(Purpose::Sealing, now));
    }

    fn seen(&self) -> Seen {
        Seen {
            leading: self.began.elapsed(),
            pending: self.pending.as_ref().map(|(_, since)| since.elapsed()),
            active: self.active.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default(),
            used: self.used(),
        }
    }

    /// How many sealed values use each key, once every namespace has been listed.
    fn used(&self) -> Option<BTreeMap<KeyId, usize>> {
        self.shared.scopes.waiting().is_empty().then(|| self.shared.index().sealed())
    }

    /// Adds a pending key, unless there is one, and removes the request.
    async fn begin(&self, document: &Document) -> Result<(), KeyringError> {
        let added = self.keys.store().begin(&self.leader.client, document, Purpose::Sealing).await?;
        if let Some(key) = added {
            info!(key, "added a new sealing key to the keyring; it becomes active once every replica has it");
            self.keys.read_again().await;
        }
        Ok(())
    }

    /// Changes the keyring as a step says.
    async fn take(&self, step: &Step, now: Timestamp) -> Result<(), KeyringError> {
        let edit = |own: &mut OwnKeyring| Ok::<_, KeyringError>(edit(own, step, now));
        if !self.keys.store().change(&self.leader.client, edit).await? {
            return Ok(());
        }
        match step {
            Step::Begin | Step::Wait(_) | Step::Note(_) => {}
            Step::Activate(key) => info!(%key, "the new sealing key is active: values are sealed with it"),
            Step::Revoke(key) => info!(%key, "revoked a sealing key: it opens nothing more"),
            Step::Retire(key) => info!(%key, "retired a sealing key: it opens nothing until it is reinstated"),
            Step::Reinstate(key) => info!(%key, "reinstated a sealing key: it opens again"),
            Step::Refuse(request, why) => {
                warn!(%request, why, "could not carry out what was asked of the keyring; removed the request");
            }
        }
        self.keys.read_again().await;
        Ok(())
    }
}

/// Takes a step, and removes the request that it answers. Returns whether there was anything to do. What another writer has
/// done meanwhile decides, so a step that no longer fits does nothing, and the next look finds the right one.
fn edit(own: &mut OwnKeyring, step: &Step, now: Timestamp) -> bool {
    let OwnKeyring { document, requests } = own;
    let before = document.clone();
    let answered = match step {
        Step::Begin | Step::Wait(_) => None,
        Step::Activate(id) => {
            document.activate_sealing_key(*id);
            None
        }
        Step::Note(used) => {
            document.note_used(used, now);
            None
        }
        Step::Revoke(id) => document.revoke_sealing_key(*id, now).then(|| Request::Revoke(id.to_string())),
        Step::Retire(id) => document.retire_sealing_key(*id, now).then(|| Request::Retire(id.to_string())),
        Step::Reinstate(id) => document.reinstate_sealing_key(*id).then(|| Request::Reinstate(id.to_string())),
        Step::Refuse(request, _) => Some(request.clone()),
    };
    answered.is_some_and(|request| requests.remove(&request)) || *document != before
}
