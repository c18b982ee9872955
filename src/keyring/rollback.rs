//! Notices that the stored keyring is older than one that this process, or an operator before it, has seen.
//!
//! Guarantees: a leader that still has what the stored keyring lacks puts it back. Otherwise it changes no keyring, and no
//! replica forgets what it has seen, until the keys are back or an administrator accepts the loss by deleting the `ConfigMap`
//! of the public key. The leader then writes into the keyring which keys are given up, so every replica accepts it when it
//! reads it. A leader that did not see the later keyring knows none to give up: a replica that did accepts the loss when the
//! leader creates the `ConfigMap` again without the missing keys.

use kube::Client;
use managed_secrets_crypto::keyring::{Document, Entry, Origin, Part, Rollback, Seen};
use parking_lot::Mutex;

use super::{
    KeyringError, KeyringStore, OwnKeyring,
    change::Older,
    publish::{Published, published},
};

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
    /// The keys of the newest keyring, as they were stored when it was read.
    held: Vec<Entry>,
    /// Uid of the `ConfigMap` that was read last before the stored keyring became older.
    published: Option<String>,
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

    /// Takes note of what an operator has published about the newest keyring that it saw.
    fn witnessed(&self, witness: Seen, namespace: &str) {
        let mut state = self.state.lock();
        // One that has all its keys is no news: what is stored was read later.
        if witness.lost_in(state.parts()).is_some() {
            state.newest.get_or_insert_default().merge(witness);
        }
        state.compare(namespace);
    }

    /// Takes note of a `ConfigMap`: its uid, and what it says about the newest keyring that an operator saw.
    fn published(&self, uid: Option<&str>, witness: Option<Seen>, namespace: &str) {
        if let Some(uid) = uid {
            self.state.lock().published(uid, witness.as_ref(), namespace);
        }
        if let Some(witness) = witness {
            self.witnessed(witness, namespace);
        }
    }
}

impl State {
    /// Takes note of which `ConfigMap` there is. If an administrator has deleted it, and a leader that did not see the later
    /// keyring has created it again without what is missing, the loss is accepted.
    fn published(&mut self, uid: &str, witness: Option<&Seen>, namespace: &str) {
        if self.rollback.is_none() || self.published.is_none() {
            self.published = Some(uid.to_owned());
        }
        let is_new = self.published.as_deref() != Some(uid);
        if is_new && witness.is_some_and(|witness| witness.lost_in(self.parts()).is_none()) {
            tracing::warn!(namespace, "the leader has accepted that keys are lost");
            self.newest = None;
            self.published = Some(uid.to_owned());
            self.compare(namespace);
        }
    }

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
            // What stands beside is not forgotten: if that is deleted, the key is missing.
            let newest = Seen::of(own);
            self.newest = Some(match &self.newest {
                Some(before) => newest.and_beside(before, own),
                None => newest,
            });
            let is_seen = |entry: &&Entry| self.newest.iter().flat_map(Seen::ids).any(|id| id == entry.id);
            self.held = self.parts().flat_map(|part| &part.document.entries).filter(is_seen).cloned().collect();
        }
        self.rollback = rollback;
    }
}

/// What to do about it.
pub(crate) const RESTORE: &str = "the leader puts back what it still has. If this remains, restore a later backup of the \
     keyring beside it (kubectl msec restore BACKUP). Until then, the operator changes no key. If the keys are permanently lost, delete the ConfigMap managed-secrets-sealing-key: the \
     leader creates it again and accepts the keyring as it is";

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
        if let Some(witness) = witness {
            self.history.witnessed(witness, self.namespace());
        }
    }

    /// Takes note of what is published, and in which `ConfigMap`: a deleted one that is created again without the missing
    /// keys accepts that they are lost.
    pub fn note_published(&self, found: &Published) {
        self.history.published(found.uid(), found.seen(), self.namespace());
    }

    /// Accepts that keys of an earlier keyring are lost: writes which ones into the stored one, with `writer`. Every replica
    /// that reads it continues with the keys that there are.
    ///
    /// # Errors
    /// If the keyring cannot be read or written.
    pub async fn accept_loss(&self, writer: &Client) -> Result<(), KeyringError> {
        let lost = self.rollback().map(|rollback| rollback.missing).unwrap_or_default();
        let edit = |own: &mut OwnKeyring| {
            let new = lost.iter().filter(|id| !own.document.given_up.contains(id)).cloned();
            let new: Vec<_> = new.collect();
            own.document.given_up.extend(new);
            Ok::<_, KeyringError>(())
        };
        self.change_any(writer, Older::Accept, edit).await
    }

    /// Puts back into the stored keyring what it lacks of an earlier one, with `writer`, if this process still has all of
    /// that. Returns whether it did.
    ///
    /// # Errors
    /// If the keyring cannot be read or written.
    pub async fn put_back(&self, writer: &Client) -> Result<bool, KeyringError> {
        let Some(rollback) = self.rollback() else { return Ok(false) };
        let held = self.history.state.lock().held.clone();
        if !rollback.missing.iter().all(|id| held.iter().any(|entry| entry.id == *id)) {
            return Ok(false);
        }
        let edit = |own: &mut OwnKeyring| {
            own.document.put_back(&held, &rollback.reopened);
            Ok::<_, KeyringError>(())
        };
        self.change(writer, edit).await.map(|()| true)
    }

    /// The count of changes of the newest keyring that was seen.
    pub(super) fn newest_generation(&self) -> u64 {
        self.history.state.lock().newest.as_ref().map(Seen::generation).unwrap_or_default()
    }

    /// What this document, as the operator's own, lacks of a keyring that was seen before.
    pub(super) fn lost_in(&self, own: &Document) -> Option<Rollback> {
        let state = self.history.state.lock();
        let joined = state.parts().filter(|part| part.origin == Origin::Joined);
        let parts = joined.chain([Part { document: own, origin: Origin::Own }]);
        state.newest.as_ref().and_then(|newest| newest.lost_in(parts))
    }

    /// Whether the keyring that was read last lacks something of this. It may have been read before that was stored: read it
    /// again before you [take note](Self::witnessed) of that.
    #[must_use]
    pub fn is_behind(&self, witness: Option<&Seen>) -> bool {
        witness.is_some_and(|witness| witness.lost_in(self.history.state.lock().parts()).is_some())
    }

    /// An error if this document, which is to be written as the operator's own, is older than one that was seen before.
    pub(super) async fn refuse_if_older(&self, own: &Document) -> Result<(), KeyringError> {
        let witness = published(&self.client, self.namespace()).await?.seen();
        if self.rollback().is_none() && (self.is_behind(witness.as_ref()) || self.lost_in(own).is_some()) {
            // What stands beside may be new.
            self.load().await?;
        }
        self.witnessed(witness);
        match self.lost_in(own) {
            None => Ok(()),
            Some(rollback) => Err(KeyringError::RolledBack { rollback }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a replica reads. Keys are a text: `a b:revoked`.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// A keyring with these keys.
        Keyring(&'static str),
        /// A `ConfigMap` of this uid. It says that these keys were seen, or nothing.
        Map(&'static str, Option<&'static str>),
    }

    fn document(keys: &str) -> Document {
        let entries = keys.split_whitespace().map(|key| {
            let (id, state) = key.split_once(':').unwrap_or((key, "active"));
            json!({
                "id": id, "purpose": "sealing", "state": state, "created": "2026-11-28T08:00:00Z",
                "wrapped": {"provider": "local", "keyId": "k", "ciphertext": ""},
            })
        });
        let entries: Vec<_> = entries.collect();
        serde_json::from_value(json!({"format": "MSK1", "generation": entries.len(), "entries": entries})).unwrap()
    }

    /// What a replica that has read this reports as lost, and what it has seen.
    fn after(steps: &[Step]) -> (String, Option<Seen>) {
        let history = History::default();
        for step in steps {
            match step {
                Step::Keyring(keys) => {
                    history.read(&[Part { document: &document(keys), origin: Origin::Own }], "system");
                }
                Step::Map(uid, keys) => {
                    history.published(Some(uid), keys.map(|keys| Seen::of(&document(keys))), "system");
                }
            }
        }
        let state = history.state.into_inner();
        let lost = state.rollback.into_iter().flat_map(|rollback| [rollback.missing, rollback.reopened].concat());
        (lost.collect::<Vec<_>>().join(" "), state.newest)
    }

    #[test]
    fn a_loss_is_accepted_by_a_new_config_map_without_the_missing_keys_alone() {
        use Step::{Keyring, Map};
        // The key b was seen and published, and is missing.
        let lost = [Keyring("a b"), Map("1", Some("a b")), Keyring("a")];
        let rows: &[(&[Step], &str)] = &[
            (&[], "b"),
            // The same ConfigMap: an edited one accepts nothing, whatever it says.
            (&[Map("1", Some("a b"))], "b"),
            (&[Map("1", Some("a"))], "b"),
            (&[Map("1", None)], "b"),
            // A new one that does not say that the leader goes on without the key.
            (&[Map("2", Some("a b"))], "b"),
            (&[Map("2", None)], "b"),
            // A new one without it, also if the replica has seen another new one before.
            (&[Map("2", Some("a"))], ""),
            (&[Map("2", Some("a b")), Map("3", Some("a"))], ""),
            // One ConfigMap accepts what was missing then, and no later loss.
            (&[Map("2", Some("a")), Keyring("a c"), Map("2", Some("a c")), Keyring("a"), Map("2", Some("a"))], "c"),
            (&[Map("2", Some("a")), Keyring("a c"), Keyring("a"), Map("3", Some("a"))], ""),
            // The key comes back.
            (&[Map("1", Some("a")), Keyring("a b")], ""),
        ];
        for (steps, expected) in rows {
            assert_lost(&[&lost[..], *steps].concat(), expected);
        }
    }

    #[test]
    fn some_of_the_missing_keys_are_not_accepted_without_the_others() {
        use Step::{Keyring, Map};
        let lost = [Keyring("a b c"), Map("1", Some("a b c")), Keyring("a")];
        for (keys, expected) in [("a b", "b c"), ("a c", "b c"), ("a", "")] {
            assert_lost(&[&lost[..], &[Map("2", Some(keys))]].concat(), expected);
        }
    }

    #[test]
    fn a_config_map_that_was_there_before_the_loss_accepts_nothing() {
        use Step::{Keyring, Map};
        let rows: &[(&[Step], &str)] = &[
            // Nothing is missing: a new ConfigMap makes a replica forget nothing.
            (&[Keyring("a b"), Map("1", Some("a b")), Map("2", Some("a"))], ""),
            (&[Keyring("a b"), Map("1", Some("a b")), Map("2", Some("a")), Keyring("a")], "b"),
            (&[Keyring("a b"), Map("1", Some("a b")), Map("2", Some("a")), Keyring("a"), Map("2", Some("a"))], "b"),
            (&[Keyring("a b"), Map("1", Some("a b")), Map("2", Some("a")), Keyring("a"), Map("3", Some("a"))], ""),
            // The first one that the replica sees may have been there before: only another one is new.
            (&[Keyring("a b"), Keyring("a"), Map("1", Some("a"))], "b"),
            (&[Keyring("a b"), Keyring("a"), Map("1", Some("a")), Map("1", Some("a"))], "b"),
            (&[Keyring("a b"), Keyring("a"), Map("1", Some("a")), Map("2", Some("a"))], ""),
            // The replica learns of the key from the first ConfigMap alone.
            (&[Keyring("a"), Map("1", Some("a b"))], "b"),
            (&[Keyring("a"), Map("1", Some("a b")), Map("1", Some("a"))], "b"),
            (&[Keyring("a"), Map("1", Some("a b")), Map("2", Some("a b"))], "b"),
            (&[Keyring("a"), Map("1", Some("a b")), Map("2", Some("a"))], ""),
        ];
        for (steps, expected) in rows {
            assert_lost(steps, expected);
        }
    }

    #[test]
    fn a_revocation_that_is_missing_is_accepted_in_the_same_way() {
        use Step::{Keyring, Map};
        let lost = [Keyring("a b:revoked"), Map("1", Some("a b:revoked")), Keyring("a b")];
        for (uid, keys, expected) in
            [("1", "a b", "b"), ("2", "a b:revoked", "b"), ("2", "a b", ""), ("2", "a b:revoked c", "c b")]
        {
            assert_lost(&[&lost[..], &[Map(uid, Some(keys))]].concat(), expected);
        }
    }

    /// After these steps, the replica reports this as lost. If it reports nothing, the stored keyring is the newest that it
    /// knows.
    fn assert_lost(steps: &[Step], expected: &str) {
        let (lost, newest) = after(steps);
        assert_eq!(lost, expected, "{steps:?}");
        let is_keyring = |step: &Step| match step {
            Step::Keyring(keys) => Some(Seen::of(&document(keys))),
            Step::Map(..) => None,
        };
        if expected.is_empty() {
            assert_eq!(newest, steps.iter().rev().find_map(is_keyring), "{steps:?}");
        }
    }
}
