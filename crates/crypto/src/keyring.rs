//! The keyring: every seed, wrapped by the KEK, in documents of the format MSK1.
//!
//! ```text
//!  documents ──unwrap each──▶ check against what is wrapped ──merge──▶ Keyring
//! ```
//!
//! What is wrapped is what counts: purpose, id and creation date stand inside the ciphertext, and an entry that says
//! otherwise is refused. A document's public key is never believed; a document's state can only narrow what a key does.
//! Of a key that the operator's own document holds, that document alone decides state and date.
//! One document that does not open fails the whole: an operator with half its keys would take good records for bad.

mod document;
mod kek;
mod sealing;
mod seeds;
mod seen;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Map;
use zeroize::Zeroizing;

pub(crate) use self::document::Envelope;
pub use self::document::{Document, Entry, FORMAT, Purpose, State, Wrapped};
pub use self::kek::{Kek, KekError};
pub use self::seeds::{Listed, Unused};
pub use self::seen::{Rollback, Seen};
use super::mss1::{PublicKeyError, PublishedKey, SealingKey};
use super::{KeyId, RandomError, Seed, SeedId, random};

/// How far ahead of this machine's clock a key's creation date may be: clocks of a cluster's machines differ by
/// seconds, and no key needs to be used within minutes of its creation.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The age at which a sealing key is replaced, unless the administrator says otherwise: 30 days.
pub const DEFAULT_SEALING_PERIOD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Which document a key stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The operator's own, the only one that it writes: its keys may be active.
    Own,
    /// One that joined it, from a backup: its keys open, and nothing else. It may revoke a sealing key that the
    /// operator's own document does not hold.
    Joined,
}

/// A document and where it stands. A bare document counts as [`Origin::Own`].
#[derive(Clone, Copy, Debug)]
pub struct Part<'d> {
    /// The document.
    pub document: &'d Document,
    /// Where it stands.
    pub origin: Origin,
}

impl<'d> From<&'d Document> for Part<'d> {
    fn from(document: &'d Document) -> Self {
        Self { document, origin: Origin::Own }
    }
}

/// Every key of every document, opened and merged.
#[derive(Debug)]
pub struct Keyring {
    seeds: BTreeMap<SeedId, Held<Seed>>,
    sealing: BTreeMap<KeyId, Held<SealingKey>>,
    active_seed: SeedId,
    active_sealing: Option<KeyId>,
    /// How long after its creation a sealing key should be replaced.
    sealing_period: Option<SignedDuration>,
    ignored_revocations: Vec<String>,
    /// An earlier one that opens what this one lacks.
    earlier: Option<Arc<Self>>,
}

/// A key and what may be done with it.
#[derive(Debug)]
struct Held<K> {
    key: K,
    created: Timestamp,
    state: State,
    /// It is revoked as one that was retired.
    retired: bool,
    origin: Origin,
}

/// A key that was unwrapped.
enum Key {
    Record(Seed),
    Sealing(Box<SealingKey>),
}

/// Why documents do not open as a keyring. `E` is the error of the unwrap function.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    /// The document says another format.
    #[error("a keyring document must have the format \"{FORMAT}\"")]
    Format,
    /// The seed was not unwrapped.
    #[error("cannot unwrap the key {id} of the keyring: {source}")]
    Unwrap {
        /// Id of the entry.
        id: String,
        /// What the unwrapping said.
        source: E,
    },
    /// What was unwrapped is not in the format, or is not what its entry says.
    #[error("the key {id} of the keyring does not match its entry: {what} differs")]
    Entry {
        /// Id of the entry.
        id: String,
        /// What differs.
        what: &'static str,
    },
    /// No record seed of the operator's own document is active: nothing could be encrypted.
    #[error("the keyring has no active key with purpose \"record\"")]
    NoActiveSeed,
}

/// Why no entries were created. `E` is the error of the wrap function.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError<E> {
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// X-Wing refused its own key. Never happens.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// The wrapping failed.
    #[error("cannot wrap a new key: {0}")]
    Wrap(E),
}

impl Keyring {
    /// Opens and merges documents. `unwrap` turns an entry's ciphertext into what [`Keyring::generate_entries`] gave to
    /// be wrapped. Creation dates are believed as they are; [`as_of`](Self::as_of) compares them with a clock.
    pub fn open<'d, E>(
        documents: impl IntoIterator<Item = impl Into<Part<'d>>>,
        mut unwrap: impl FnMut(&Wrapped) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Self, OpenError<E>> {
        let (mut seeds, mut sealing) = (BTreeMap::new(), BTreeMap::new());
        let mut revoked_beside = BTreeSet::new();
        for Part { document, origin } in documents.into_iter().map(Into::into) {
            if document.format != FORMAT {
                return Err(OpenError::Format);
            }
            for entry in &document.entries {
                let differs = |what| OpenError::Entry { id: entry.id.clone(), what };
                let unwrapped =
                    unwrap(&entry.wrapped).map_err(|source| OpenError::Unwrap { id: entry.id.clone(), source })?;
                let (created, key) = opened(entry, &unwrapped).map_err(differs)?;
                let state = stated(entry, origin);
                let retired = state == State::Revoked && entry.is_retired();
                if origin == Origin::Joined && entry.state == State::Revoked && !entry.is_retired() {
                    revoked_beside.insert((entry.purpose, entry.id.clone()));
                }
                match key {
                    Key::Record(key) => merge(&mut seeds, key.id(), Held { key, created, state, retired, origin }),
                    Key::Sealing(key) => {
                        merge(&mut sealing, key.key_id(), Held { key: *key, created, state, retired, origin });
                    }
                }
            }
        }
        let active_seed = active(&seeds, Timestamp::MAX).ok_or(OpenError::NoActiveSeed)?;
        let ignored_revocations = not_revoked(Purpose::Record, &seeds).chain(not_revoked(Purpose::Sealing, &sealing));
        let ignored_revocations =
            ignored_revocations.filter(|key| revoked_beside.contains(key)).map(|(_, id)| id).collect();
        Ok(Self {
            active_sealing: active(&sealing, Timestamp::MAX),
            active_seed,
            seeds,
            sealing,
            sealing_period: Some(DEFAULT_SEALING_PERIOD),
            ignored_revocations,
            earlier: None,
        })
    }

    /// The same keys, where a sealing key is replaced at another age than [`DEFAULT_SEALING_PERIOD`]; `None` if it is
    /// replaced on request only.
    #[must_use]
    pub fn with_sealing_period(self, sealing_period: Option<SignedDuration>) -> Self {
        Self { sealing_period, ..self }
    }

    /// The same keys, and those of an earlier keyring that this one lacks: they open what they opened, and nothing else.
    #[must_use]
    pub fn beside(self, earlier: Arc<Self>) -> Self {
        Self { earlier: Some(earlier), ..self }
    }

    /// The same keys at a time: a key that was created later than that, by more than [`MAX_CLOCK_SKEW`], opens, and is
    /// used for new values only where no other key could be. (If all dates are ahead, the clock is wrong, and the keys
    /// are as good as ever.)
    #[must_use]
    pub fn as_of(mut self, now: Timestamp) -> Self {
        let latest = latest(now);
        self.active_seed = active(&self.seeds, latest).unwrap_or(self.active_seed);
        self.active_sealing = active(&self.sealing, latest);
        self
    }

    /// Ids of the keys that were created later than `now`, by more than [`MAX_CLOCK_SKEW`].
    #[must_use]
    pub fn ahead_of(&self, now: Timestamp) -> Vec<String> {
        let latest = latest(now);
        let seeds = self.seeds.iter().filter(|(_, held)| held.created > latest).map(|(id, _)| id.to_string());
        let sealing = self.sealing.iter().filter(|(_, held)| held.created > latest).map(|(id, _)| id.to_string());
        seeds.chain(sealing).collect()
    }

    /// Ids of keys of the operator's own document that a document beside it calls revoked. That changes nothing: what a
    /// backup says must not take the operator's keys from it.
    #[must_use]
    pub fn ignored_revocations(&self) -> &[String] {
        &self.ignored_revocations
    }

    /// Creates the first entries, one seed and one sealing key, both active. `wrap` receives the bytes to wrap.
    pub fn generate_entries<E>(
        now: Timestamp,
        mut wrap: impl FnMut(&[u8]) -> Result<Wrapped, E>,
    ) -> Result<Document, GenerateError<E>> {
        // Whole seconds, like every date of this project; the text itself is authenticated.
        let created = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        let mut entry = |purpose, id: String, seed: &[u8; 32], public_key: Option<&[u8]>| {
            let envelope = Envelope::encode(purpose, &id, &created, seed);
            let wrapped = wrap(&envelope).map_err(GenerateError::Wrap)?;
            let public_key = public_key.map(document::base64);
            let entry = Entry::new(id, purpose, State::Active, created.clone(), wrapped);
            Ok::<_, GenerateError<E>>(Entry { public_key, ..entry })
        };
        let seed = Seed::generate()?;
        let sealing = SealingKey::new(random::bytes()?)?;
        Ok(Document {
            format: FORMAT.to_owned(),
            generation: 0,
            given_up: Vec::new(),
            unknown: Map::new(),
            entries: vec![
                entry(Purpose::Record, seed.id().to_string(), seed.bytes(), None)?,
                entry(
                    Purpose::Sealing,
                    sealing.key_id().to_string(),
                    sealing.seed(),
                    Some(sealing.public().as_bytes()),
                )?,
            ],
        })
    }

    /// The seed that new records are sealed under: of those active, the newest.
    #[must_use]
    pub fn active_seed(&self) -> Option<&Seed> {
        self.seed(self.active_seed)
    }

    /// The seed with this id, whatever its state: what was sealed under it stays readable.
    #[must_use]
    pub fn seed(&self, id: SeedId) -> Option<&Seed> {
        self.seeds.get(&id).map(|entry| &entry.key).or_else(|| self.earlier.as_ref()?.seed(id))
    }

    /// Whether the active seed has replaced this one: it was active before, or it is only in a document beside the operator's
    /// own. Records under it are re-wrapped.
    #[must_use]
    pub fn is_replaced(&self, id: SeedId) -> bool {
        let replaced = |held: &Held<Seed>| held.origin == Origin::Joined || held.state != State::Pending;
        id != self.active_seed && self.seeds.get(&id).is_some_and(replaced)
    }

    /// Every seed that [was replaced](Self::is_replaced).
    pub fn replaced_seeds(&self) -> impl Iterator<Item = SeedId> {
        self.seeds.keys().copied().filter(|id| self.is_replaced(*id))
    }

    /// The seeds that only documents beside the operator's own have.
    pub fn joined_seeds(&self) -> impl Iterator<Item = SeedId> {
        self.seeds.iter().filter(|(_, held)| held.origin == Origin::Joined).map(|(id, _)| *id)
    }

    /// The sealing key with this id, and whether it may still open.
    #[must_use]
    pub fn sealing_key(&self, id: KeyId) -> SealingKeyStatus<'_> {
        match self.sealing.get(&id) {
            None => self.earlier.as_ref().map_or(SealingKeyStatus::Unknown, |earlier| earlier.sealing_key(id)),
            Some(Held { state: State::Revoked, retired: true, .. }) => SealingKeyStatus::Retired,
            Some(Held { state: State::Revoked, .. }) => SealingKeyStatus::Revoked,
            Some(entry) => SealingKeyStatus::Usable(&entry.key),
        }
    }

    /// The 32 bytes of a key of a document, for sealing them to a recovery key.
    pub(crate) fn bytes_of(&self, entry: &Entry) -> Option<&[u8; 32]> {
        match entry.purpose {
            Purpose::Record => {
                self.seeds.iter().find(|(id, _)| id.to_string() == entry.id).map(|(_, held)| held.key.bytes())
            }
            Purpose::Sealing => {
                self.sealing.iter().find(|(id, _)| id.to_string() == entry.id).map(|(_, held)| held.key.seed())
            }
        }
    }

    /// When the oldest seed was created.
    #[must_use]
    pub fn oldest_seed(&self) -> Option<Timestamp> {
        self.seeds.values().map(|held| held.created).min()
    }

    /// When the oldest sealing key was created that is not revoked.
    #[must_use]
    pub fn oldest_sealing_key(&self) -> Option<Timestamp> {
        self.sealing.values().filter(|held| held.state != State::Revoked).map(|held| held.created).min()
    }

    /// Whether both hold the same keys, which may do the same.
    #[must_use]
    pub fn holds_the_same(&self, other: &Self) -> bool {
        let state = |(id, held): (&KeyId, &Held<SealingKey>)| (*id, held.state, held.retired);
        let sealing = |keyring: &Self| keyring.sealing.iter().map(state).collect::<Vec<_>>();
        self.seeds.keys().eq(other.seeds.keys()) && sealing(self) == sealing(other)
    }

    /// The public key to publish: of the sealing keys active, the newest. `None` if there is none.
    #[must_use]
    pub fn current_public_key(&self) -> Option<PublishedKey> {
        let entry = self.sealing.get(&self.active_sealing?)?;
        Some(PublishedKey::new(entry.key.public().clone(), entry.created).replaced_after(self.sealing_period))
    }
}

/// What the keyring says of a sealing key.
#[derive(Clone, Copy, Debug)]
pub enum SealingKeyStatus<'a> {
    /// It opens.
    Usable(&'a SealingKey),
    /// It was revoked: it opens nothing new, and what is delivered stays.
    Revoked,
    /// It was retired: it opens nothing new until it is reinstated, and what is delivered stays.
    Retired,
    /// The keyring does not have it.
    Unknown,
}

impl Entry {
    /// Whether these bytes are what was wrapped as this entry; an error says what differs. For providers that do not
    /// authenticate what they unwrap.
    pub fn verify(&self, unwrapped: &[u8]) -> Result<(), &'static str> {
        opened(self, unwrapped).map(|_| ())
    }
}

/// The key in what was unwrapped, and when it was created; an error says what is not as the entry says.
fn opened(entry: &Entry, unwrapped: &[u8]) -> Result<(Timestamp, Key), &'static str> {
    let envelope = Envelope::decode(unwrapped).ok_or("the format")?;
    let created = envelope.check(entry)?;
    let key = match entry.purpose {
        Purpose::Record => {
            let key = Seed::new(envelope.seed);
            same_id(key.id(), entry)?;
            Key::Record(key)
        }
        Purpose::Sealing => {
            let key = SealingKey::new(envelope.seed).map_err(|PublicKeyError| "the key")?;
            same_id(key.key_id(), entry)?;
            Key::Sealing(Box::new(key))
        }
    };
    Ok((created, key))
}

fn same_id(computed: impl std::fmt::Display, entry: &Entry) -> Result<(), &'static str> {
    if computed.to_string() == entry.id { Ok(()) } else { Err("the id") }
}

/// The latest creation date that is believed at a time.
fn latest(now: Timestamp) -> Timestamp {
    now.checked_add(MAX_CLOCK_SKEW).unwrap_or(Timestamp::MAX)
}

/// What a document can say of a key. One that joined cannot make a key active. Nor can it revoke a seed: that would
/// keep the operator from encrypting, and a revoked seed opens its records all the same. A key that was retired elsewhere
/// was restored because it is needed.
fn stated(entry: &Entry, origin: Origin) -> State {
    match (origin, entry.purpose) {
        (Origin::Own, _) => entry.state,
        (Origin::Joined, Purpose::Sealing) if entry.is_retired() => State::OpenOnly,
        (Origin::Joined, Purpose::Sealing) => entry.state.narrower(State::OpenOnly),
        (Origin::Joined, Purpose::Record) => State::OpenOnly,
    }
}

/// The keys of the operator's own document that it does not revoke.
fn not_revoked<I: std::fmt::Display, K>(
    purpose: Purpose,
    keys: &BTreeMap<I, Held<K>>,
) -> impl Iterator<Item = (Purpose, String)> {
    let own = keys.iter().filter(|(_, held)| held.origin == Origin::Own && held.state != State::Revoked);
    own.map(move |(id, _)| (purpose, id.to_string()))
}

/// Adds a key. Of one that is there already (a restored copy), the operator's own document alone decides; two documents
/// of one origin give it the narrower state and the earlier date.
fn merge<I: Ord, K>(keys: &mut BTreeMap<I, Held<K>>, id: I, key: Held<K>) {
    match keys.entry(id) {
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(key);
        }
        std::collections::btree_map::Entry::Occupied(mut known) => {
            let known = known.get_mut();
            match (known.origin, key.origin) {
                (Origin::Own, Origin::Joined) => {}
                (Origin::Joined, Origin::Own) => *known = key,
                (Origin::Own, Origin::Own) | (Origin::Joined, Origin::Joined) => {
                    let narrower = |held: &Held<K>| (held.state, !held.retired);
                    if narrower(&key) > narrower(known) {
                        (known.state, known.retired) = (key.state, key.retired);
                    }
                    known.created = known.created.min(key.created);
                }
            }
        }
    }
}

fn active<I: Copy + Ord, K>(keys: &BTreeMap<I, Held<K>>, latest: Timestamp) -> Option<I> {
    newest_active(keys.iter().map(|(id, key)| (*id, key.state, key.created)), latest)
}

/// Of the active keys the newest that is not later than `latest`, and only if all are later, the newest of all; of two of
/// one second, the one with the greater id, so that all replicas agree.
fn newest_active<I: Copy + Ord>(keys: impl Iterator<Item = (I, State, Timestamp)>, latest: Timestamp) -> Option<I> {
    keys.filter(|(_, state, _)| *state == State::Active)
        .max_by_key(|(id, _, created)| (*created <= latest, *created, *id))
        .map(|(id, ..)| id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
