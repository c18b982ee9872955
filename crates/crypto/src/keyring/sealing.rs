//! The sealing keys of a document: how one replaces another, and how one leaves use.
//!
//! ```text
//!  pending ──every replica has it──▶ active ──a newer one is active──▶ open-only ──nothing uses it──▶ retired
//!                                                                          │  ▲────────reinstated─────────┘
//!                                                                          └──others know it──▶ revoked
//! ```
//!
//! A key that was retired or revoked opens nothing. It stays in the document, wrapped and with its copies for recovery keys.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::document::{self, Document, Entry, Envelope, Purpose, State, Wrapped};
use super::{GenerateError, Unused};
use crate::mss1::SealingKey;
use crate::{KeyId, random};

impl Entry {
    /// The sealing key's id; `None` if this is no sealing key.
    #[must_use]
    pub fn sealing_key_id(&self) -> Option<KeyId> {
        let id = KeyId::parse(&self.id)?;
        (self.purpose == Purpose::Sealing).then_some(id)
    }
}

impl Document {
    /// Its sealing keys.
    pub fn sealing_keys(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.purpose == Purpose::Sealing)
    }

    /// The sealing key with this id.
    #[must_use]
    pub fn sealing_entry(&self, id: KeyId) -> Option<&Entry> {
        self.sealing_keys().find(|entry| entry.sealing_key_id() == Some(id))
    }

    /// The newest sealing key that is to become active.
    #[must_use]
    pub fn pending_sealing_key(&self) -> Option<&Entry> {
        self.pending(Purpose::Sealing)
    }

    /// Adds a new sealing key, which is pending, and returns its id. Its date is later than that of every other one. `wrap`
    /// receives the bytes to wrap.
    ///
    /// # Errors
    /// If there is no randomness, or if `wrap` fails.
    pub fn add_sealing_key<E>(
        &mut self,
        now: Timestamp,
        wrap: impl FnOnce(&[u8]) -> Result<Wrapped, E>,
    ) -> Result<KeyId, GenerateError<E>> {
        let created = self.created_after(Purpose::Sealing, now);
        let key = SealingKey::new(random::bytes()?)?;
        let id = key.key_id().to_string();
        let envelope = Envelope::encode(Purpose::Sealing, &id, &created, key.seed());
        let wrapped = wrap(&envelope).map_err(GenerateError::Wrap)?;
        let entry = Entry::new(id, Purpose::Sealing, State::Pending, created, wrapped);
        self.entries.push(Entry { public_key: Some(document::base64(key.public().as_bytes())), ..entry });
        Ok(key.key_id())
    }

    /// Makes a pending sealing key the active one; those that were active only open from now on. Returns whether it was
    /// pending.
    pub fn activate_sealing_key(&mut self, id: KeyId) -> bool {
        self.activate(Purpose::Sealing, &id.to_string())
    }

    /// Revokes a sealing key: it opens nothing from now on. A key that is used for new values at the time `now` is not
    /// revoked; it needs a successor first. Returns whether the key is revoked.
    pub fn revoke_sealing_key(&mut self, id: KeyId, now: Timestamp) -> bool {
        let is_active = self.active_key(Purpose::Sealing, now) == Some(&*id.to_string());
        let Some(entry) = self.sealing_entry_mut(id).filter(|_| !is_active) else { return false };
        (entry.state, entry.retired) = (State::Revoked, None);
        true
    }

    /// Retires a sealing key that only opens: from now on, it does not even open. Returns whether the key is retired.
    pub fn retire_sealing_key(&mut self, id: KeyId, now: Timestamp) -> bool {
        let Some(entry) = self.sealing_entry_mut(id) else { return false };
        if entry.state == State::OpenOnly {
            (entry.state, entry.retired) = (State::Revoked, Some(now.to_string()));
        }
        entry.is_retired()
    }

    /// Lets a retired sealing key open again. Returns whether the key opens.
    pub fn reinstate_sealing_key(&mut self, id: KeyId) -> bool {
        let Some(entry) = self.sealing_entry_mut(id) else { return false };
        if entry.is_retired() {
            (entry.state, entry.retired, entry.unused) = (State::OpenOnly, None, None);
        }
        entry.state != State::Revoked
    }

    /// Notes which sealing keys the sealed values of the cluster use: `used` are the keys that some use. Of a key that only
    /// opens and that none uses, the date `now` stays until one uses it again.
    pub fn note_used(&mut self, used: &BTreeSet<KeyId>, now: Timestamp) {
        for entry in self.entries.iter_mut().filter(|entry| entry.purpose == Purpose::Sealing) {
            if entry.is_unused(used) {
                // A date in the future is that of a clock that was set since.
                let since = entry.unused.as_ref().and_then(Unused::since).filter(|since| *since <= now).unwrap_or(now);
                entry.unused = Some(Unused { since: since.to_string(), confirmed: None });
            } else if entry.state == State::OpenOnly {
                entry.unused = None;
            }
        }
    }

    fn sealing_entry_mut(&mut self, id: KeyId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.sealing_key_id() == Some(id))
    }
}

impl Entry {
    /// Whether this is a sealing key that only opens, and that is not one of `used`.
    #[must_use]
    pub fn is_unused(&self, used: &BTreeSet<KeyId>) -> bool {
        self.state == State::OpenOnly && self.sealing_key_id().is_some_and(|id| !used.contains(&id))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::keyring::{Kek, KekError, Keyring, Origin, Part, SealingKeyStatus};

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().unwrap()
    }

    fn kek() -> Kek {
        Kek::new(&[7; 32]).unwrap()
    }

    fn wrap(bytes: &[u8]) -> Result<Wrapped, KekError> {
        Ok(Wrapped::new("local", kek().key_id().to_string(), kek().wrap(bytes)?))
    }

    fn open<'d>(parts: impl IntoIterator<Item = impl Into<Part<'d>>>) -> Keyring {
        Keyring::open(parts, |wrapped| kek().unwrap(&wrapped.ciphertext)).unwrap().as_of(at("12:00:00"))
    }

    fn current(document: &Document) -> KeyId {
        open([document]).current_public_key().unwrap().key.key_id()
    }

    /// A document with an earlier and an active key.
    fn rotated() -> (Document, KeyId, KeyId) {
        let mut document = Keyring::generate_entries(at("08:00:00"), wrap).unwrap();
        let old = current(&document);
        let new = document.add_sealing_key(at("09:00:00"), wrap).unwrap();
        assert!(document.activate_sealing_key(new));
        (document, old, new)
    }

    #[test]
    fn a_new_key_opens_while_it_is_pending_and_replaces_the_active_one_afterwards() {
        let mut document = Keyring::generate_entries(at("08:00:00"), wrap).unwrap();
        let old = current(&document);
        // A clock that was set back.
        let new = document.add_sealing_key(at("07:00:00"), wrap).unwrap();
        assert_eq!(document.pending_sealing_key().unwrap().sealing_key_id(), Some(new));
        assert!(matches!(open([&document]).sealing_key(new), SealingKeyStatus::Usable(_)));
        assert_eq!(current(&document), old);
        assert!(document.activate_sealing_key(new) && !document.activate_sealing_key(new));
        assert_eq!(current(&document), new);
        assert!(document.pending_sealing_key().is_none());
        assert_eq!(document.sealing_entry(old).unwrap().state, State::OpenOnly);
        assert!(matches!(open([&document]).sealing_key(old), SealingKeyStatus::Usable(_)));
        let public = document.sealing_entry(new).unwrap().public_key.clone().unwrap();
        let published = open([&document]).current_public_key().unwrap();
        assert_eq!(public, document::base64(published.key.as_bytes()));
    }

    #[test]
    fn a_key_in_use_is_not_revoked_or_retired_and_one_that_was_revoked_does_not_come_back() {
        let (mut document, old, new) = rotated();
        let now = at("10:00:00");
        assert!(!document.revoke_sealing_key(new, now) && !document.retire_sealing_key(new, now));
        assert_eq!(current(&document), new);
        assert!(document.revoke_sealing_key(old, now));
        assert!(matches!(open([&document]).sealing_key(old), SealingKeyStatus::Revoked));
        assert!(!document.retire_sealing_key(old, now) && !document.reinstate_sealing_key(old));
        assert!(matches!(open([&document]).sealing_key(old), SealingKeyStatus::Revoked));
        let unknown = KeyId([0; 8]);
        assert!(!document.revoke_sealing_key(unknown, now) && !document.retire_sealing_key(unknown, now));
        assert!(!document.reinstate_sealing_key(unknown));
    }

    #[test]
    fn a_retired_key_opens_nothing_until_it_is_reinstated_and_a_restored_copy_of_it_opens() {
        let (mut document, old, new) = rotated();
        assert!(document.retire_sealing_key(old, at("10:00:00")));
        assert!(matches!(open([&document]).sealing_key(old), SealingKeyStatus::Retired));
        // To a program that does not know the field, it is revoked.
        assert_eq!(document.sealing_entry(old).unwrap().state, State::Revoked);
        let other = Keyring::generate_entries(at("08:00:00"), wrap).unwrap();
        let beside = [Part::from(&other), Part { document: &document, origin: Origin::Joined }];
        assert!(matches!(open(beside).sealing_key(old), SealingKeyStatus::Usable(_)));
        assert!(document.reinstate_sealing_key(old));
        assert!(matches!(open([&document]).sealing_key(old), SealingKeyStatus::Usable(_)));
        assert_eq!(current(&document), new);
        // A key that leaks after it was retired.
        document.retire_sealing_key(old, at("10:00:00"));
        assert!(document.revoke_sealing_key(old, at("11:00:00")) && !document.reinstate_sealing_key(old));
    }

    #[test]
    fn a_key_is_unused_from_the_first_look_that_shows_no_value_under_it() {
        let (mut document, old, new) = rotated();
        let since =
            |document: &Document, id| document.sealing_entry(id).unwrap().unused.as_ref().map(|it| it.since.clone());
        document.note_used(&[old, new].into(), at("10:00:00"));
        assert_eq!(since(&document, old), None);
        document.note_used(&[].into(), at("11:00:00"));
        document.note_used(&[new].into(), at("12:00:00"));
        assert_eq!(since(&document, old), Some(at("11:00:00").to_string()));
        assert_eq!(since(&document, new), None, "the active key may be used at any time");
        document.note_used(&[old].into(), at("13:00:00"));
        assert_eq!(since(&document, old), None);
    }
}
