//! How one key of a document replaces another, whatever the keys are for.

use jiff::{SignedDuration, Timestamp};

use super::document::{Document, Entry, Purpose, State};

impl Document {
    /// The newest key that is to become active.
    #[must_use]
    pub fn pending(&self, purpose: Purpose) -> Option<&Entry> {
        let pending = self.of(purpose).filter(|entry| entry.state == State::Pending);
        pending.max_by_key(|entry| (entry.created_at(), entry.id.clone()))
    }

    /// The creation date of a new key: later than that of every other key of its purpose, whatever the clock shows, so that
    /// it will be the newest.
    pub(super) fn created_after(&self, purpose: Purpose, now: Timestamp) -> String {
        let after = self.of(purpose).filter_map(Entry::created_at).max();
        let after = after.and_then(|newest| newest.checked_add(SignedDuration::from_secs(1)).ok());
        let created = after.map_or(now, |after| after.max(now));
        // Whole seconds, like every date of this project. Rounded up, it is still later than the others.
        let created = Timestamp::from_second(created.as_second() + i64::from(created.subsec_nanosecond() > 0));
        created.unwrap_or(now).to_string()
    }

    /// Makes a pending key the active one; those that were active only open from now on. Returns whether it was pending.
    pub(super) fn activate(&mut self, purpose: Purpose, id: &str) -> bool {
        if !self.of(purpose).any(|entry| entry.id == id && entry.state == State::Pending) {
            return false;
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.purpose == purpose) {
            if entry.id == id {
                entry.state = State::Active;
            } else if entry.state == State::Active {
                // Not by its date alone: a clock that is set back would make the earlier one active again.
                entry.state = State::OpenOnly;
            }
        }
        true
    }

    fn of(&self, purpose: Purpose) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.purpose == purpose)
    }
}
