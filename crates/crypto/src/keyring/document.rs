//! MSK1 documents as they are stored, and what stands inside a wrapped key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::seeds::Unused;
use crate::codec::{self, Reader};
use crate::recovery::RecoveryCopy;

/// What a document calls its format.
pub const FORMAT: &str = "MSK1";

/// One stored keyring.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// Counts the changes of the document; 0 as it was created.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Its keys.
    pub entries: Vec<Entry>,
    /// Ids of keys that an administrator accepts as lost. A document that lacks them is not older than one that has them.
    #[serde(default, rename = "givenUp", skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<String>,
    /// Fields of later versions. A program that writes the document keeps them.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// One key. Only [`Entry::wrapped`] is authentic; the rest must agree with it, or narrow it (the state).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Hex of 8 bytes: the seed id, or the sealing key's id.
    pub id: String,
    /// What the key is for.
    pub purpose: Purpose,
    /// What may be done with it.
    pub state: State,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Base64 of the public key (sealing only), for people to look at. Never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The seed under a KEK.
    pub wrapped: Wrapped,
    /// Since when no record names the seed, or no sealed value of the cluster uses the sealing key, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<Unused>,
    /// When a sealing key was retired, RFC 3339. Its state is then [`State::Revoked`], so that a program that does not know
    /// this field opens nothing with it either. Unlike a key that was revoked, it can be reinstated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<String>,
    /// The same, sealed to recovery keys; see [`crate::recovery`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<RecoveryCopy>,
    /// Fields of later versions, kept like [`Document::unknown`].
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Document {
    /// Id of the key that an operator uses for new values at the time `now`, if this is its own document: what
    /// [`Keyring::as_of`](super::Keyring::as_of) chooses, read without a KEK. An entry without a date does not open, and is
    /// passed over.
    #[must_use]
    pub fn active_key(&self, purpose: Purpose, now: Timestamp) -> Option<&str> {
        let of_purpose = self.entries.iter().filter(|entry| entry.purpose == purpose);
        let keys = of_purpose.filter_map(|entry| Some((entry.id.as_str(), entry.state, entry.created_at()?)));
        super::newest_active(keys, super::latest(now))
    }
}

impl Entry {
    /// An entry with nothing but what every entry has.
    #[must_use]
    pub fn new(id: String, purpose: Purpose, state: State, created: String, wrapped: Wrapped) -> Self {
        Self {
            id,
            purpose,
            state,
            created,
            public_key: None,
            wrapped,
            unused: None,
            retired: None,
            recovery: Vec::new(),
            unknown: Map::new(),
        }
    }

    /// Whether this is a sealing key that was retired.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.purpose == Purpose::Sealing && self.state == State::Revoked && self.retired.is_some()
    }

    /// Whether the key was revoked: unlike a retired one, it does not come back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.state == State::Revoked && !self.is_retired()
    }

    /// The creation date; `None` if it is not a date.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.created.parse().ok()
    }

    /// Whether the key was created later than `now`, by more than [`MAX_CLOCK_SKEW`](super::MAX_CLOCK_SKEW).
    #[must_use]
    pub fn is_ahead_of(&self, now: Timestamp) -> bool {
        self.created_at().is_some_and(|created| created > super::latest(now))
    }
}

/// A seed under a KEK.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wrapped {
    /// Who holds the KEK.
    pub provider: String,
    /// Which KEK: hex of SHA-256(KEK)[..8]; of a KMS plugin, what the plugin calls its key.
    pub key_id: String,
    /// Base64 of the seed as the provider wrapped it.
    pub ciphertext: String,
    /// What a KMS plugin wants back with the ciphertext, each value in base64. Not secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields of later versions, kept like [`Document::unknown`].
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Wrapped {
    /// A seed that a provider wrapped under one of its KEKs. `ciphertext` is base64.
    #[must_use]
    pub fn new(provider: impl Into<String>, key_id: impl Into<String>, ciphertext: String) -> Self {
        let (provider, key_id) = (provider.into(), key_id.into());
        Self { provider, key_id, ciphertext, annotations: BTreeMap::new(), unknown: Map::new() }
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A seed that records are sealed under.
    Record,
    /// A key that opens sealed values.
    Sealing,
}

/// What may be done with a key, from most to least.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The newest of these is used for everything new.
    Active,
    /// It opens; it is to become active when every replica has it.
    Pending,
    /// It opens.
    OpenOnly,
    /// A sealing key opens nothing new. A seed still opens records: they have no other copy.
    Revoked,
}

impl State {
    /// The one that allows less.
    pub(super) fn narrower(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Purpose {
    /// As the document and the wrapped bytes have it.
    fn text(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Sealing => "sealing",
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// What is wrapped: `LP(purpose) || LP(id) || LP(created) || seed`, each as the text of its entry.
pub(crate) struct Envelope<'a> {
    purpose: &'a [u8],
    id: &'a [u8],
    created: &'a [u8],
    pub(crate) seed: Zeroizing<[u8; 32]>,
}

impl<'a> Envelope<'a> {
    pub(crate) fn encode(purpose: Purpose, id: &str, created: &str, seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        for field in [purpose.text(), id, created] {
            let put = codec::put(&mut out, field.as_bytes());
            debug_assert!(put.is_ok(), "the texts that the keyring writes are short");
        }
        out.extend_from_slice(seed);
        out
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (purpose, id, created) = (reader.field()?, reader.field()?, reader.field()?);
        let seed = Zeroizing::new(*reader.array::<32>()?);
        reader.rest().is_empty().then_some(Self { purpose, id, created, seed })
    }

    /// Whether the entry says the same; the creation date if so, else what differs.
    pub(crate) fn check(&self, entry: &Entry) -> Result<Timestamp, &'static str> {
        if self.purpose != entry.purpose.text().as_bytes() {
            return Err("the purpose");
        }
        if self.id != entry.id.as_bytes() {
            return Err("the id");
        }
        if self.created != entry.created.as_bytes() {
            return Err("the creation date");
        }
        entry.created_at().ok_or("the creation date")
    }
}
