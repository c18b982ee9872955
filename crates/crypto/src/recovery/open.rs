//! The keys that a recovery key opens, and the same documents for a new KEK.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use super::{OpenError, RecoveryKey};
use crate::keyring::{Document, Entry, Envelope, Purpose, Wrapped};
use crate::mss1::SealingKey;
use crate::{KeyId, Seed, SeedId};

/// Every key of documents that a recovery key opens.
#[derive(Debug, Default)]
pub struct Recovered {
    seeds: BTreeMap<SeedId, Seed>,
    sealing: BTreeMap<KeyId, SealingKey>,
    lost: Vec<Lost>,
}

/// A key that the recovery key does not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the key {id} of the keyring {why}")]
pub struct Lost {
    /// Id of the entry.
    pub id: String,
    /// Why it does not open.
    pub why: OpenError,
}

impl Recovered {
    /// Opens what the key opens. One entry that does not open is no reason to lose the others.
    pub fn open<'d>(key: &RecoveryKey, documents: impl IntoIterator<Item = &'d Document>) -> Self {
        let mut all = Self::default();
        for entry in documents.into_iter().flat_map(|document| &document.entries) {
            if let Err(why) = all.add(key, entry) {
                all.lost.push(Lost { id: entry.id.clone(), why });
            }
        }
        // A key of two documents is lost only if it opens in neither.
        let (seeds, sealing) = (&all.seeds, &all.sealing);
        let has = |id: &str| {
            seeds.keys().any(|seed| seed.to_string() == id) || sealing.keys().any(|key| key.to_string() == id)
        };
        all.lost.retain(|lost| !has(&lost.id));
        all.lost.dedup();
        all
    }

    fn add(&mut self, key: &RecoveryKey, entry: &Entry) -> Result<(), OpenError> {
        let opened = open(key, entry)?;
        let envelope = Envelope::decode(&opened).ok_or(OpenError::Entry("the format"))?;
        envelope.check(entry).map_err(OpenError::Entry)?;
        match entry.purpose {
            Purpose::Record => {
                let seed = Seed::new(envelope.seed);
                same(seed.id(), entry)?;
                self.seeds.insert(seed.id(), seed);
            }
            Purpose::Sealing => {
                let key = SealingKey::new(envelope.seed).map_err(|_| OpenError::Entry("the key"))?;
                same(key.key_id(), entry)?;
                self.sealing.insert(key.key_id(), key);
            }
        }
        Ok(())
    }

    /// The seed with this id.
    #[must_use]
    pub fn seed(&self, id: SeedId) -> Option<&Seed> {
        self.seeds.get(&id)
    }

    /// The sealing key with this id, whatever its state was.
    #[must_use]
    pub fn sealing_key(&self, id: KeyId) -> Option<&SealingKey> {
        self.sealing.get(&id)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seeds.len() + self.sealing.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys that did not open.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// A document with the recovered keys of `document` under another KEK, for an operator that has lost its own. Keys that
    /// did not open are left out, because one entry that does not open makes the whole document useless.
    pub fn rewrap<E>(
        &self,
        document: &Document,
        mut wrap: impl FnMut(&[u8]) -> Result<Wrapped, E>,
    ) -> Result<Document, E> {
        let mut entries = Vec::with_capacity(document.entries.len());
        for entry in &document.entries {
            let Some(key) = self.bytes_of(entry) else { continue };
            let envelope = Envelope::encode(entry.purpose, &entry.id, &entry.created, key);
            entries.push(Entry { wrapped: wrap(&envelope)?, ..entry.clone() });
        }
        Ok(Document { entries, ..document.clone() })
    }

    fn bytes_of(&self, entry: &Entry) -> Option<&[u8; 32]> {
        match entry.purpose {
            Purpose::Record => self.seeds.values().find(|seed| seed.id().to_string() == entry.id).map(Seed::bytes),
            Purpose::Sealing => {
                self.sealing.values().find(|key| key.key_id().to_string() == entry.id).map(SealingKey::seed)
            }
        }
    }
}

/// What the copy of an entry for this recovery key holds.
fn open(key: &RecoveryKey, entry: &Entry) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let recipient = key.recipient().id().to_string();
    let mut found = Err(OpenError::OtherRecipient);
    for copy in entry.recovery.iter().filter(|copy| copy.recipient == recipient) {
        found = BASE64_STANDARD.decode(&copy.sealed).map_err(|_| OpenError::Tampered).and_then(|it| key.open(&it));
        if found.is_ok() {
            break;
        }
    }
    found
}

fn same(computed: impl std::fmt::Display, entry: &Entry) -> Result<(), OpenError> {
    if computed.to_string() == entry.id { Ok(()) } else { Err(OpenError::Entry("the id")) }
}
