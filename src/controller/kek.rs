//! Asks KMS plugins whether they work, and replaces KEKs: carries out what [`crate::keyring::Due`] says.
//!
//! Every replica asks the plugins. Only the leader writes the keyring. What is due follows from the keyring, so a replacement
//! that was interrupted goes on where it was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use managed_secrets_engine::{
    backoff::{Backoff, Jitter},
    queue::Priority,
};
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{keys::Keys, run::Leader, sinks::Shared};
use crate::keyring::{Due, KeyringError, kms::Kms};

/// Between tries after an error.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };
/// The longest sleep without news.
const LONGEST: Duration = Duration::from_secs(3600);
/// Between two looks at the keyring, however much news there is.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks a plugin for its status until `shutdown`, and rings `news` when that changes.
pub(super) async fn ask(
    kms: Arc<Kms>,
    keys: Arc<Keys>,
    shared: Arc<Shared>,
    news: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let timing = keys.store().kms_timing();
    let mut told = None;
    let asking = async {
        loop {
            let before = kms.key_id();
            let answered = kms.poll().await;
            if kms.key_id() != before {
                news.notify_one();
            }
            let why = keys.refuses_new();
            if why != told {
                if let Some(why) = &why {
                    error!("{why}");
                } else {
                    info!("new values are encrypted again");
                    keys.read_again().await;
                    // Those that wait for it need not wait for their next try.
                    let objects: Vec<_> = shared.index().keys().collect();
                    for key in objects {
                        shared.queue.add(key, Priority::Resync);
                    }
                }
                told = why;
            }
            let pause = if answered.is_ok() { timing.healthy } else { timing.unhealthy };
            // Spread, so that replicas do not ask at the same moment; never sooner.
            sleep(Jitter::random().lengthen(pause)).await;
        }
    };
    shutdown.run_until_cancelled(asking).await;
}

/// The task that replaces KEKs.
pub(super) struct Replacer {
    pub(super) leader: Leader,
    pub(super) keys: Arc<Keys>,
    /// Rung when a plugin has a new key.
    pub(super) news: Arc<Notify>,
}

impl Replacer {
    /// Replaces KEKs until `shutdown`, once this process leads.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.work()).await;
    }

    async fn work(&self) {
        self.leader.leadership.acquired().await;
        let began = Instant::now();
        let mut renewals = self.keys.renewals();
        let mut failures = 0;
        loop {
            renewals.mark_unchanged();
            let (wait, failed) = match self.round(began.elapsed()).await {
                Ok(wait) => (wait, false),
                Err(error) => {
                    warn!(%error, "could not replace the key-encryption key; will retry");
                    (RETRY.delay(failures + 1, Jitter::random()), true)
                }
            };
            failures = if failed { failures + 1 } else { 0 };
            sleep(PAUSE).await;
            tokio::select! {
                () = sleep(wait) => {}
                () = self.news.notified(), if !failed => {}
                // Its sender lives as long as `keys`.
                _ = renewals.changed(), if !failed => {}
            }
        }
    }

    /// Does what is due. Returns how long there is nothing to do.
    async fn round(&self, leading: Duration) -> Result<Duration, KeyringError> {
        let store = self.keys.store();
        let due = store.due();
        if due.is_nothing() || self.keys.is_rolled_back() {
            return Ok(LONGEST);
        }
        let settle = store.kms_timing().settle.saturating_sub(leading);
        if matches!(due, Due { asked: false, stale: 0, .. }) && !settle.is_zero() {
            info!(
                keys = due.moves,
                provider = store.primary(),
                seconds = settle.as_secs(),
                "keys of the keyring are under another provider; they move to this one once this replica has led for a while"
            );
            return Ok(settle);
        }
        let keys = store.rewrap(&self.leader.client).await?;
        if keys > 0 {
            info!(
                keys,
                provider = store.primary(),
                "encrypted the keys of the keyring again with the present key-encryption key; the one from before is needed \
                 for backups only"
            );
        }
        self.keys.read_again().await;
        if store.due().keys() > 0 && keys == 0 { Err(KeyringError::Contended) } else { Ok(Duration::ZERO) }
    }
}
