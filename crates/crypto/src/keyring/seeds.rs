//! The seeds of a document: how one replaces another.
//!
//! ```text
//!  pending ──every replica has it──▶ active ──a newer one is active──▶ open-only ──no record names it──▶ unused
//! ```
//!
//! A seed that is unused stays in the document: it costs nothing there, and a backup may hold records that need it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::document::{Document, Entry, Envelope, Purpose, State, Wrapped};
use super::{GenerateError, MAX_CLOCK_SKEW};
use crate::{Seed, SeedId};

/// That no record names a seed. Dates are RFC 3339; one that is none counts as absent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Unused {
    /// When the first complete list ended that showed no record under the seed.
    pub since: String,
    /// When a second one confirmed it, so much later that no write was under way any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
}

impl Unused {
    /// When the first list ended; `None` if that is no date.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.since.parse().ok()
    }
}

/// What a list of all records showed.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'l> {
    /// The seeds that the records name.
    pub named: &'l BTreeSet<SeedId>,
    /// Whether every namespace was listed.
    pub complete: bool,
    /// When the list began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

impl Entry {
    /// The seed's id; `None` if this is no seed.
    #[must_use]
    pub fn seed_id(&self) -> Option<SeedId> {
        let mut id = [0; 8];
        hex::decode_to_slice(&self.id, &mut id).ok()?;
        (self.purpose == Purpose::Record).then_some(SeedId(id))
    }

    /// Whether two lists have shown that no record names this seed.
    #[must_use]
    pub fn is_confirmed_unused(&self) -> bool {
        self.unused.as_ref().is_some_and(|unused| unused.confirmed.is_some())
    }
}

impl Document {
    /// Its seeds.
    pub fn seeds(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.purpose == Purpose::Record)
    }

    /// The newest seed that is to become active.
    #[must_use]
    pub fn pending_seed(&self) -> Option<&Entry> {
        self.pending(Purpose::Record)
    }

    /// When the newest seed was created that is not pending.
    #[must_use]
    pub fn newest_seed(&self) -> Option<Timestamp> {
        self.seeds().filter(|entry| entry.state != State::Pending).filter_map(Entry::created_at).max()
    }

    /// The seeds that another one has replaced: records under them are re-wrapped.
    pub fn superseded_seeds(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        let active = self.active_key(Purpose::Record, now).map(str::to_owned);
        self.seeds().filter(move |entry| entry.state != State::Pending && Some(&entry.id) != active.as_ref())
    }

    /// Adds a new seed, which is pending, and returns its id. Its date is later than that of every other seed, whatever the
    /// clock shows, so that it will be the newest. `wrap` receives the bytes to wrap.
    ///
    /// # Errors
    /// If there is no randomness, or if `wrap` fails.
    pub fn add_seed<E>(
        &mut self,
        now: Timestamp,
        wrap: impl FnOnce(&[u8]) -> Result<Wrapped, E>,
    ) -> Result<SeedId, GenerateError<E>> {
        let created = self.created_after(Purpose::Record, now);
        let seed = Seed::generate()?;
        let id = seed.id().to_string();
        let envelope = Envelope::encode(Purpose::Record, &id, &created, seed.bytes());
        let wrapped = wrap(&envelope).map_err(GenerateError::Wrap)?;
        self.entries.push(Entry::new(id, Purpose::Record, State::Pending, created, wrapped));
        Ok(seed.id())
    }

    /// Makes a pending seed the active one; those that were active only open from now on. Returns whether it was pending.
    pub fn activate_seed(&mut self, id: SeedId) -> bool {
        self.activate(Purpose::Record, &id.to_string())
    }

    /// Notes what a list of all records showed of the seeds that were replaced. A seed that no record names is unused; a
    /// second list that began `apart` after the end of the first confirms it. A record that names a seed ends that, also when
    /// it was confirmed.
    pub fn note_listed(&mut self, listed: &Listed<'_>, apart: SignedDuration) {
        let superseded: Vec<String> = self.superseded_seeds(listed.ended).map(|entry| entry.id.clone()).collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.purpose == Purpose::Record) {
            let is_named = entry.seed_id().is_none_or(|id| listed.named.contains(&id));
            if is_named || !superseded.contains(&entry.id) {
                entry.unused = None;
                continue;
            }
            if !listed.complete {
                continue;
            }
            let since = entry.unused.as_ref().and_then(Unused::since);
            // A date in the future is that of a clock that was set since.
            let since =
                since.filter(|since| *since <= listed.ended.checked_add(MAX_CLOCK_SKEW).unwrap_or(listed.ended));
            match (since, &mut entry.unused) {
                (Some(since), Some(unused)) => {
                    if unused.confirmed.is_none() && listed.began.duration_since(since) >= apart {
                        unused.confirmed = Some(listed.ended.to_string());
                    }
                }
                (_, unused) => *unused = Some(Unused { since: listed.ended.to_string(), confirmed: None }),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::keyring::{Kek, KekError, Keyring};

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().unwrap()
    }

    fn kek() -> Kek {
        Kek::new(&[7; 32]).unwrap()
    }

    fn wrap(bytes: &[u8]) -> Result<Wrapped, KekError> {
        Ok(Wrapped::new("local", kek().key_id().to_string(), kek().wrap(bytes)?))
    }

    fn first() -> Document {
        Keyring::generate_entries(at("08:00:00"), wrap).unwrap()
    }

    fn active(document: &Document, now: Timestamp) -> SeedId {
        let keyring = Keyring::open([document], |wrapped| kek().unwrap(&wrapped.ciphertext)).unwrap().as_of(now);
        keyring.active_seed().unwrap().id()
    }

    fn states(document: &Document) -> Vec<State> {
        document.seeds().map(|entry| entry.state).collect()
    }

    #[test]
    fn a_new_seed_is_pending_then_active_and_the_earlier_ones_open() {
        let (mut document, now) = (first(), at("09:00:00"));
        let old = active(&document, now);
        let new = document.add_seed(now, wrap).unwrap();
        assert_eq!((active(&document, now), states(&document)), (old, vec![State::Active, State::Pending]));
        assert_eq!(document.pending_seed().and_then(Entry::seed_id), Some(new));
        assert_eq!(document.superseded_seeds(now).count(), 0);
        assert!(document.activate_seed(new));
        assert_eq!((active(&document, now), states(&document)), (new, vec![State::OpenOnly, State::Active]));
        assert!(!document.activate_seed(new), "it is done once");
        assert!(!document.activate_seed(old), "and not undone");
        assert_eq!(document.superseded_seeds(now).filter_map(Entry::seed_id).collect::<Vec<_>>(), [old]);
        // Sealing keys are none of this.
        let states = document.entries.iter().filter(|entry| entry.purpose == Purpose::Sealing).map(|entry| entry.state);
        assert_eq!(states.collect::<Vec<_>>(), [State::Active]);
    }

    #[test]
    fn a_clock_that_is_set_does_not_make_an_earlier_seed_active() {
        let mut document = first();
        let ahead = "2026-01-02T08:00:00Z".parse().unwrap();
        let new = document.add_seed(ahead, wrap).unwrap();
        document.activate_seed(new);
        // The clock was a day ahead, and is right again.
        assert_eq!(active(&document, at("09:00:00")), new);
        let newer = document.add_seed(at("09:00:00"), wrap).unwrap();
        assert_eq!(document.pending_seed().unwrap().created, "2026-01-02T08:00:01Z");
        document.activate_seed(newer);
        for now in [at("09:00:00"), ahead, "2026-03-01T00:00:00Z".parse().unwrap()] {
            assert_eq!(active(&document, now), newer);
        }
    }

    #[test]
    fn a_seed_that_cannot_be_wrapped_is_not_added() {
        let mut document = first();
        let before = document.clone();
        assert!(document.add_seed(at("09:00:00"), |_| Err(KekError::Refused)).is_err());
        assert_eq!(document, before);
        let as_is = |bytes: &[u8]| Ok::<_, Infallible>(Wrapped::new("local", "id", hex::encode(bytes)));
        assert!(document.add_seed(at("09:00:00"), as_is).is_ok());
    }

    #[test]
    fn two_lists_an_hour_apart_confirm_that_a_seed_is_unused() {
        let (mut document, start) = (first(), at("09:00:00"));
        let old = active(&document, start);
        let new = document.add_seed(start, wrap).unwrap();
        document.activate_seed(new);
        let mut list = |named: &[SeedId], complete: bool, began: &str, ended: &str| {
            let named = named.iter().copied().collect();
            let listed = Listed { named: &named, complete, began: at(began), ended: at(ended) };
            document.note_listed(&listed, HOUR);
            assert!(document.seeds().nth(1).unwrap().unused.is_none(), "the active seed is in use");
            let unused = document.seeds().next().unwrap().unused.clone();
            unused.map(|unused| (unused.since, unused.confirmed.is_some()))
        };
        let since = |time: &str, confirmed: bool| Some((at(time).to_string(), confirmed));
        assert_eq!(list(&[old, new], true, "10:00:00", "10:01:00"), None);
        assert_eq!(list(&[new], false, "10:02:00", "10:03:00"), None, "not every namespace was listed");
        assert_eq!(list(&[new], true, "10:04:00", "10:05:00"), since("10:05:00", false));
        assert_eq!(list(&[new], true, "11:04:59", "11:06:00"), since("10:05:00", false), "it began too early");
        assert_eq!(list(&[new], false, "11:10:00", "11:11:00"), since("10:05:00", false));
        // A record from a backup, and it begins again.
        assert_eq!(list(&[old], false, "11:12:00", "11:13:00"), None);
        assert_eq!(list(&[], true, "11:14:00", "11:15:00"), since("11:15:00", false));
        assert_eq!(list(&[], true, "12:15:00", "12:16:00"), since("11:15:00", true));
        assert_eq!(list(&[], true, "13:15:00", "13:16:00"), since("11:15:00", true));
        assert_eq!(list(&[old], true, "14:00:00", "14:01:00"), None, "also when it was confirmed");
        // The clock is set back by some hours: the date in the future counts for nothing.
        assert_eq!(list(&[], true, "15:00:00", "15:00:00"), since("15:00:00", false));
        assert_eq!(list(&[], true, "10:00:00", "10:00:00"), since("10:00:00", false));
        assert_eq!(list(&[], true, "11:00:00", "11:00:00"), since("10:00:00", true));
    }

    #[test]
    fn marks_are_left_out_where_there_are_none_and_a_date_that_is_none_counts_as_absent() {
        let mut document = first();
        let json = serde_json::to_string(&document).unwrap();
        assert!(!json.contains("unused"), "{json}");
        let new = document.add_seed(at("09:00:00"), wrap).unwrap();
        document.activate_seed(new);
        document.entries[0].unused = Some(Unused { since: "yesterday".to_owned(), confirmed: None });
        let document_read: Document = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(document_read, document);
        let named = BTreeSet::new();
        let now = at("10:00:00");
        document.note_listed(&Listed { named: &named, complete: true, began: now, ended: now }, HOUR);
        assert_eq!(document.entries[0].unused.as_ref().unwrap().since, now.to_string());
    }
}
