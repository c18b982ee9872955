//! Notices that the stored keyring is older than one that this process, or an operator before it, has seen.
//!
//! Guarantees: an operator whose keyring goes back changes no keyring, and forgets nothing that it has seen, until the keys
//! are back or an administrator accepts the loss by deleting the `ConfigMap` of the public key.

use managed_secrets_crypto::keyring::{Document, Origin, Part, Rollback, Seen};
use parking_lot::Mutex;

use super::{KeyringError, KeyringStore, publish::published};

/// What the store remembers.
#[derive(Debug, Default)]
pub(super) struct History {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest keyring that was seen.
    newest: Option<Seen>,
    /// What the stored one lacks of it.
    rollback: Option<Rollback>,
    /// The documents that were read last.
    stored: Vec<(Document, Origin)>,
}

impl History {
    /// Compares the documents that were just read with what was seen before.
    pub(super) fn read(&self, parts: &[Part<'_>], namespace: &str) {
        let mut state = self.state.lock();
        state.stored = parts.iter().map(|part| (part.document.clone(), part.origin)).collect();
        state.compare(namespace);
    }

    /// What a function says of the operator's own document that was read last.
    pub(super) fn own<T>(&self, of: impl FnOnce(&Document) -> T) -> Option<T> {
        let state = self.state.lock();
        state.stored.iter().find(|(_, origin)| *origin == Origin::Own).map(|(document, _)| of(document))
    }

    /// Takes note of what an operator has published about the newest keyring that it saw. `None` accepts what is stored.
    fn witnessed(&self, witness: Option<Seen>, namespace: &str) {
        let mut state = self.state.lock();
        match witness {
            None => state.newest = None,
            // One that has all its keys is no news: what is stored was read later.
            Some(witness) if witness.lost_in(state.parts()).is_some() => {
                state.newest.get_or_insert_default().merge(witness);
            }
            Some(_) => {}
        }
        state.compare(namespace);
    }
}

impl State {
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.stored.iter().map(|(document, origin)| Part { document, origin: *origin })
    }

    fn compare(&mut self, namespace: &str) {
        let rollback = self.newest.as_ref().and_then(|newest| newest.lost_in(self.parts()));
        match (&self.rollback, &rollback) {
            (before, Some(rollback)) if before.as_ref() != Some(rollback) => {
                tracing::error!(namespace, missing = ?rollback.missing, reopened = ?rollback.reopened, "{rollback}; {RESTORE}");
            }
            (Some(_), None) => {
                tracing::info!(namespace, "the keyring is no longer older than one that was seen before");
            }
            _ => {}
        }
        if rollback.is_none()
            && let Some((own, _)) = self.stored.iter().find(|(_, origin)| *origin == Origin::Own)
        {
            self.newest = Some(Seen::of(own));
        }
        self.rollback = rollback;
    }
}

/// What to do about it.
pub(crate) const RESTORE: &str = "restore a later backup of the keyring beside it (kubectl msec restore BACKUP). Until then, \
     the operator changes no key. If the keys are permanently lost, delete the ConfigMap managed-secrets-sealing-key: the \
     operator creates it again";

impl KeyringStore {
    /// What the stored keyring lacks of one that was seen before, if it is older.
    #[must_use]
    pub fn rollback(&self) -> Option<Rollback> {
        self.history.state.lock().rollback.clone()
    }

    /// What to publish about the newest keyring that was seen.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.history.state.lock().newest.clone()
    }

    /// Takes note of what is published about the newest keyring that an operator saw.
    pub fn witnessed(&self, witness: Option<Seen>) {
        self.history.witnessed(witness, self.namespace());
    }

    /// Whether the keyring that was read last lacks something of this. It may have been read before that was stored: read it
    /// again before you [take note](Self::witnessed) of that.
    #[must_use]
    pub fn is_behind(&self, witness: Option<&Seen>) -> bool {
        witness.is_some_and(|witness| witness.lost_in(self.history.state.lock().parts()).is_some())
    }

    /// An error if the stored keyring is older than one that was seen before: then nothing may change it.
    pub(super) async fn refuse_if_older(&self) -> Result<(), KeyringError> {
        let witness = published(&self.client, self.namespace()).await?.seen();
        if self.rollback().is_none() && self.is_behind(witness.as_ref()) {
            self.load().await?;
        }
        self.witnessed(witness);
        match self.rollback() {
            None => Ok(()),
            Some(rollback) => Err(KeyringError::RolledBack { rollback }),
        }
    }
}
