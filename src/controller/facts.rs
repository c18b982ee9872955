//! What a pass knows: what the caches held when it began ([`Snapshot`]), what it has read since ([`Learned`]), and what
//! its writes came to ([`Written`]). No logic.
//!
//! In: what the index holds, results of reads and writes. Out: facts for [`decide`](super::decide). Facts never ask:
//! where something is not known they say so, and `decide` names the read that finds out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use managed_secrets_api::{Reason, keys, record::Unopened};
use managed_secrets_crypto::{
    Plaintext, SeedId,
    keyring::Keyring,
    mac,
    mse1::{OpenError, Record},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{
    altered::Altered,
    plan::{Contents, Problem, Why},
    record::{Authenticity, RecordMeta, Source},
    restarts::condition::Restarting,
    seeds::receipts::Receipt,
    view::{LiveSecret, Own, SecretView},
};

/// What is known of a Secret by its name.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Not in the cache of labelled Secrets. It may exist all the same.
    Unseen,
    /// A live read in this pass found nothing.
    Absent,
    /// It exists.
    Present(Box<Seen>),
}

/// A Secret that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Its metadata.
    pub view: SecretView,
    /// Whether it is a record that can be believed.
    pub authenticity: Authenticity,
    /// Read live, or written, in this pass: type and immutability are known.
    pub live: bool,
}

impl Seen {
    /// The metadata of a record that can be believed.
    #[must_use]
    pub fn record(&self) -> Option<&RecordMeta> {
        match &self.authenticity {
            Authenticity::Valid { meta, .. } => Some(meta),
            _ => None,
        }
    }

    /// The seed that the MAC of a record names that can be believed.
    #[must_use]
    pub fn seed(&self) -> Option<SeedId> {
        self.record()?;
        mac::seed_named(self.view.annotation(keys::ANNO_MAC)?)
    }

    /// The key commitment of a record that can be believed.
    #[must_use]
    pub fn commitment(&self) -> Option<&[u8; 32]> {
        match &self.authenticity {
            Authenticity::Valid { commitment, .. } => Some(commitment),
            _ => None,
        }
    }
}

/// What the watch on source Secrets says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum SourceSeen {
    /// The spec has no `valueFrom`.
    #[default]
    NotWanted,
    /// The watch has not listed yet.
    Unsynced,
    /// It does not exist.
    Absent,
    /// It exists.
    Present {
        /// Its uid.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// The value that the spec's source gives now, read in this pass.
pub struct Incoming {
    /// The source it came from, with its fingerprint.
    pub source: Source,
    /// The value, or why there is none.
    pub value: Result<Arc<Plaintext>, Problem>,
}

/// A source that gave no value in an earlier pass. As long as it has not moved it need not be read again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rejected {
    /// The source, with its fingerprint.
    pub source: Source,
    /// Why it gave none.
    pub problem: Problem,
}

impl Incoming {
    /// What is worth remembering for later passes: a refusal that only another state of the source can heal, and no new
    /// key.
    #[must_use]
    pub fn rejected(&self) -> Option<Rejected> {
        let problem = self.value.as_ref().err()?;
        let by_key = matches!(
            problem.reason,
            Reason::SealedWithUnknownKey | Reason::SealedWithRevokedKey | Reason::SealedWithRetiredKey
        );
        (!by_key).then(|| Rejected { source: self.source.clone(), problem: problem.clone() })
    }
}

/// A record that was read live or written in this pass: the leave to write or remove a target.
pub struct Confirmed {
    /// Its uid.
    pub uid: String,
    /// Its commitment: which ciphertext this is about.
    pub commitment: [u8; 32],
    /// What it holds, or why it does not open.
    pub contents: Result<Contents, Unopened>,
    /// The bytes of its value and of the earlier values that it keeps, by version, as far as they are those that its
    /// metadata describes.
    pub versions: BTreeMap<u64, Arc<Record>>,
    /// The earlier values that the spec asks for, by version, or why they do not open.
    pub opened: BTreeMap<u64, Result<Arc<Plaintext>, Unopened>>,
    /// Data keys that hold an earlier value of which its metadata does not speak, or another one than that. Where another
    /// field manager owns them, for example that of a backup program, an apply without them does not remove them.
    pub strays: BTreeSet<String>,
}

/// What a Secret that is not a record holds, read in this pass.
pub struct Content {
    /// Its uid.
    pub uid: String,
    /// What it holds under the keys that may be ours.
    pub values: BTreeMap<String, Held>,
}

/// What a Secret holds under one key; wiped when it is dropped.
pub enum Held {
    /// A valid value.
    Value(Arc<Plaintext>),
    /// Any other bytes.
    Other(Zeroizing<Vec<u8>>),
}

impl Held {
    /// Of these bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Plaintext::new(bytes.clone()).map_or_else(|_| Self::Other(bytes), |value| Self::Value(Arc::new(value)))
    }

    /// The value, if it is a valid one.
    #[must_use]
    pub fn value(&self) -> Option<&Arc<Plaintext>> {
        match self {
            Self::Value(value) => Some(value),
            Self::Other(_) => None,
        }
    }

    /// Whether it is these bytes; the time taken depends on lengths only.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Value(value) => value.same_as_bytes(bytes),
            Self::Other(other) => other.as_slice().ct_eq(bytes).into(),
        }
    }
}

/// A target that is known to hold a version of the value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holds {
    /// The target's uid.
    pub uid: String,
    /// The resourceVersion at which it is known.
    pub resource_version: String,
    /// The record's version that it holds.
    pub version: u64,
}

/// What other ManagedSecrets of the namespace want.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Peers {
    /// The ManagedSecret that a free `spec.name` is kept for: the one whose lost record held it, or a mover.
    pub reserved_for: Option<String>,
    /// `spec.name` is held by an object that waits, directly or through others, for the name that this one holds.
    pub cycle: bool,
    /// Uids of the ManagedSecrets that exist, of those that want `spec.name` or hold it: one whose secrets are retained
    /// holds a name like any other as long as it lives.
    pub living: BTreeSet<String>,
    /// The ring of values that this object is a member of, by `metadata.name`, beginning with it; empty where there is none.
    pub ring: Vec<String>,
}

/// A write that the API server refused for good in this pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// Name of the Secret.
    pub secret: String,
    /// Reason and message for the condition.
    pub problem: Problem,
}

/// Settings of the operator that decide something.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's namespace, where no ManagedSecret is served.
    pub operator_namespace: String,
    /// `--allow-cluster-scope`.
    pub allow_cluster_scope: bool,
    /// `--restarts`.
    pub restarts: bool,
}

/// What an index holds for one pass.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The ManagedSecret.
    pub own: Own,
    /// Labelled Secrets that may concern it.
    pub secrets: Vec<SecretView>,
    /// Types of those Secrets by uid, where they are known.
    pub types: BTreeMap<String, String>,
    /// The source of `valueFrom`.
    pub source: SourceSeen,
    /// What others want.
    pub peers: Peers,
}

/// How long to wait before something is done again that happened less than a minute ago.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// Before what was put out of step is written again.
    pub repair: Option<Duration>,
    /// Before it is recorded again that the source moved with the same value in it.
    pub source: Option<Duration>,
    /// Before a new value of the source is followed.
    pub value: Option<Duration>,
    /// Before a status is written, after one that admission control of others changed on its way.
    pub status: Option<Duration>,
}

/// The objects as the caches showed them, brought up to date by each answer; and what else a pass begins with.
pub struct Snapshot {
    /// The time of this pass.
    pub now: Timestamp,
    /// The operator's settings.
    pub settings: Settings,
    /// The ManagedSecret.
    pub own: Own,
    /// Secrets of its namespace that may concern it, by name. What is not here is [`Known::Unseen`].
    pub secrets: BTreeMap<String, Known>,
    /// Types of Secrets by uid, learned from earlier writes and reads.
    pub types: BTreeMap<String, String>,
    /// The source of `valueFrom`, from the watch.
    pub source: SourceSeen,
    /// What others want.
    pub peers: Peers,
    /// An id to give, should one be needed.
    pub fresh_id: String,
    /// What is not done again yet.
    pub waits: Waits,
    /// How many passes before this one have failed in a row.
    pub failures: u32,
    /// A source that gave no value in an earlier pass.
    pub rejected: Option<Rejected>,
    /// The record was re-wrapped outside a pass, over the version that the status names.
    pub rewrapped: Option<Receipt>,
    /// What is known about the restarts of workloads.
    pub(crate) restarting: Restarting,
}

/// What this pass knows of the ManagedSecret beyond the cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Freshness {
    /// Nothing: it is as the cache showed it.
    #[default]
    Cached,
    /// It was read live, or its status was written.
    Live,
    /// It was read live, and its `spec.name` is another than the one that [`Peers`] are about.
    Renamed,
    /// It is gone, or is another one now.
    Gone,
}

/// What this pass has read.
#[derive(Default)]
pub struct Learned {
    /// How the ManagedSecret is known.
    pub own: Freshness,
    /// The source's value.
    pub incoming: Option<Incoming>,
    /// The record.
    pub record: Option<Confirmed>,
    /// Values of a Secret that is not a record: for a lost record, or an adoption.
    pub content: Option<Content>,
    /// What a write of the target would store, asked before it was its turn.
    pub asked: Option<Asked>,
}

/// The answer to a dry run. It is about one write, and no other may rely on it.
pub struct Asked {
    /// The body of the write, with the version of the Secret that it replaces.
    pub body: serde_json::Value,
    /// What it would store.
    pub stored: LiveSecret,
}

/// The record as this pass wrote it.
pub struct RecordReceipt {
    /// Its resourceVersion.
    pub resource_version: String,
    /// Why it was written.
    pub why: Why,
    /// Whether a generated value replaced another one.
    pub rotates: bool,
}

/// What the writes of this pass came to.
#[derive(Default)]
pub struct Written {
    /// The record's write.
    pub record: Option<RecordReceipt>,
    /// What the target is known to hold: by a write of this pass, or because record and target are what status says.
    pub holds: Option<Holds>,
    /// A write that was refused for good.
    pub refused: Option<Refused>,
    /// Writes that came back other than they were sent.
    pub altered: Vec<Altered>,
    /// The source whose value admission control of others keeps out of the record: in an earlier pass, until this one has
    /// written it.
    pub kept_out: Option<Source>,
    /// Something that had been put out of step was written again.
    pub repaired: bool,
    /// The API server stored another status than was written.
    pub status_altered: bool,
}

/// All that a pass knows.
pub struct Facts {
    /// From the caches.
    pub snapshot: Snapshot,
    /// Read in this pass.
    pub learned: Learned,
    /// Written in this pass.
    pub written: Written,
}

impl Facts {
    /// What a pass begins with.
    #[must_use]
    pub fn new(cached: Cached, settings: Settings, keyring: &Keyring, now: Timestamp, fresh_id: String) -> Self {
        let Cached { own, secrets, types, source, peers } = cached;
        let secrets: BTreeMap<String, Known> = secrets
            .into_iter()
            .map(|view| {
                let authenticity = Authenticity::for_object(&view, &own, keyring);
                (view.name.clone(), Known::Present(Box::new(Seen { view, authenticity, live: false })))
            })
            .collect();
        let restarting = Restarting { on: settings.restarts, outcomes: Vec::new() };
        let snapshot = Snapshot {
            now,
            settings,
            own,
            secrets,
            types,
            source,
            peers,
            fresh_id,
            waits: Waits::default(),
            failures: 0,
            rejected: None,
            rewrapped: None,
            restarting,
        };
        let mut facts = Self { snapshot, learned: Learned::default(), written: Written::default() };
        facts.written.holds = facts.in_step();
        facts
    }

    /// Notes that the record was re-wrapped outside a pass.
    pub fn was_rewrapped(&mut self, receipt: Receipt) {
        self.snapshot.rewrapped = Some(receipt);
        self.written.holds = self.in_step();
    }

    /// Whether a record is the one that status says we last wrote, or what a re-wrap made of that very version.
    #[must_use]
    pub fn is_current(&self, view: &SecretView) -> bool {
        let Some(record) = &self.snapshot.own.status.record else { return false };
        let rewrapped = |receipt: &Receipt| {
            receipt.uid == view.uid
                && receipt.before == record.resource_version
                && receipt.after == view.resource_version
        };
        let same =
            record.resource_version == view.resource_version || self.snapshot.rewrapped.as_ref().is_some_and(rewrapped);
        record.name == view.name && record.uid == view.uid && same
    }

    /// What the target holds, if record and target are both what status says we last wrote. An earlier version of the
    /// operator and its CRD drop `delivered`, together with `history`: without a history that is the record's, nothing says
    /// which version it is.
    fn in_step(&self) -> Option<Holds> {
        let record = self.snapshot.own.status.record.as_ref()?;
        let target = self.snapshot.own.status.target.as_ref()?;
        let seen = self.present(&record.name)?;
        let same_record = self.is_current(&seen.view);
        let delivered = &self.present(&target.name)?.view;
        let same_target = delivered.uid == target.uid && delivered.resource_version == target.resource_version;
        (same_record && same_target).then_some(Holds {
            uid: target.uid.clone(),
            resource_version: target.resource_version.clone(),
            version: match self.snapshot.own.status.delivered {
                Some(delivered) => delivered.try_into().ok()?,
                None => seen.record().filter(|meta| self.describes_history(meta))?.version,
            },
        })
    }

    /// Whether status names the earlier versions that a record keeps.
    fn describes_history(&self, meta: &RecordMeta) -> bool {
        let said = self.snapshot.own.status.history.iter().flatten().map(|kept| u64::try_from(kept.version).ok());
        said.eq(meta.history.iter().map(|kept| Some(kept.version)))
    }

    /// Goes on with the ManagedSecret as the API server answered. Of a target, only the keys of the spec and status before
    /// were read: where others count now, a key that was not read is not one that is absent.
    pub fn follow(&mut self, own: Own) {
        if own.keys_to_read() != self.snapshot.own.keys_to_read() {
            self.learned.content = None;
        }
        self.snapshot.own = own;
    }

    /// Whether something here was made under a key that the keyring lacks: worth one fresh look at the keyring.
    #[must_use]
    pub fn lacks_a_key(&self) -> bool {
        let sealing = |incoming: &Incoming| {
            incoming.value.as_ref().is_err_and(|problem| problem.reason == Reason::SealedWithUnknownKey)
        };
        let no_seed = |why: &Unopened| matches!(why, Unopened::Crypto(OpenError::SeedUnknown(_)));
        let unopened = |record: &Confirmed| {
            let earlier = record.opened.values().filter_map(|opened| opened.as_ref().err());
            record.contents.as_ref().err().into_iter().chain(earlier).any(no_seed)
        };
        self.all_present().any(|seen| matches!(seen.authenticity, Authenticity::SeedUnknown { .. }))
            || self.learned.incoming.as_ref().is_some_and(sealing)
            || self.learned.record.as_ref().is_some_and(unopened)
    }

    /// What is known of a Secret.
    #[must_use]
    pub fn secret(&self, name: &str) -> &Known {
        self.snapshot.secrets.get(name).unwrap_or(&Known::Unseen)
    }

    /// A Secret that is known to exist.
    #[must_use]
    pub fn present(&self, name: &str) -> Option<&Seen> {
        match self.secret(name) {
            Known::Present(seen) => Some(seen),
            Known::Unseen | Known::Absent => None,
        }
    }

    /// All Secrets that are known to exist.
    pub fn all_present(&self) -> impl Iterator<Item = &Seen> {
        self.snapshot.secrets.values().filter_map(|known| match known {
            Known::Present(seen) => Some(&**seen),
            Known::Unseen | Known::Absent => None,
        })
    }

    /// The type of a Secret, where it is known.
    #[must_use]
    pub fn type_of<'a>(&'a self, view: &'a SecretView) -> Option<&'a str> {
        view.type_.as_deref().or_else(|| self.snapshot.types.get(&view.uid).map(String::as_str))
    }

    /// Whether the status says this reason already, of this generation.
    #[must_use]
    pub fn says(&self, reason: Reason) -> bool {
        let ready = |condition: &&Condition| condition.type_ == keys::CONDITION_READY;
        let ready = self.snapshot.own.status.conditions.iter().flatten().find(ready);
        ready.is_some_and(|ready| {
            ready.reason == reason.as_str() && ready.observed_generation == Some(self.snapshot.own.generation)
        })
    }

    /// Puts in a Secret as the API server just gave it.
    pub fn put(&mut self, view: SecretView, authenticity: Authenticity) {
        if let Some(type_) = &view.type_ {
            self.snapshot.types.insert(view.uid.clone(), type_.clone());
        }
        self.snapshot
            .secrets
            .insert(view.name.clone(), Known::Present(Box::new(Seen { view, authenticity, live: true })));
    }

    /// The time of this pass, in whole seconds as dates are kept.
    #[must_use]
    pub fn date(&self) -> String {
        rfc3339(self.snapshot.now)
    }
}

/// A time as the API shows it: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
