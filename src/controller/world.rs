//! All that one pass knows: what the caches held when it began, and what it has read and written since.
//!
//! In: snapshots from the index, results of reads and writes. Out: facts for [`decide`](super::decide). A world never
//! asks anybody: where something is not known it says so, and `decide` names the read that finds out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use managed_secrets_api::{Reason, keys};
use managed_secrets_crypto::{Plaintext, keyring::Keyring, mse1::OpenError};

use super::{
    altered::Altered,
    decide::Why,
    index::Snapshot,
    record::{Authenticity, RecordMeta, Source},
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

/// Why something that a user gave cannot be used: reason and message for a condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The condition's reason.
    pub reason: Reason,
    /// The condition's message; never a value or a part of one.
    pub message: String,
}

impl Problem {
    /// A problem with its message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The value that the spec's source gives now, read in this pass.
pub struct Incoming {
    /// The source it came from, with its fingerprint.
    pub source: Source,
    /// The value, or why there is none.
    pub value: Result<Plaintext, Problem>,
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
        let by_key = matches!(problem.reason, Reason::SealedWithUnknownKey | Reason::SealedWithRevokedKey);
        (!by_key).then(|| Rejected { source: self.source.clone(), problem: problem.clone() })
    }
}

/// A record's value, opened in this pass.
pub struct Opened {
    /// The record's commitment: which ciphertext this is about.
    pub commitment: [u8; 32],
    /// The MSE1 bytes.
    pub bytes: Vec<u8>,
    /// The value, or why the record does not open.
    pub value: Result<Plaintext, Unopened>,
}

/// Why a record's bytes give no value.
#[derive(Clone, Debug, PartialEq)]
pub enum Unopened {
    /// A stage of opening failed.
    Crypto(OpenError),
    /// The bytes are another version than the authenticated annotation says.
    OtherVersion,
    /// The bytes are not those that the MAC covers, or name another uid.
    Altered,
}

/// What a Secret that is not a record holds, read in this pass.
pub struct Content {
    /// Its uid.
    pub uid: String,
    /// Its values under the keys that may be ours; `None` where the bytes are no valid value.
    pub values: BTreeMap<String, Option<Plaintext>>,
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
    /// The ManagedSecret was read live, and its `spec.name` is another than the one that this is about.
    pub outdated: bool,
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
}

/// All that a pass knows.
pub struct World {
    /// The time of this pass.
    pub now: Timestamp,
    /// The operator's settings.
    pub settings: Settings,
    /// The ManagedSecret.
    pub own: Own,
    /// Secrets of its namespace that may concern it, by name. What is not here is [`Known::Unseen`].
    pub secrets: BTreeMap<String, Known>,
    /// The source of `valueFrom`, from the watch.
    pub source: SourceSeen,
    /// What others want.
    pub peers: Peers,
    /// An id to give, should one be needed.
    pub fresh_id: String,
    /// How long to wait before what was put out of step is written again, when that happened less than a minute ago.
    pub repair_wait: Option<Duration>,
    /// How long to wait before it is recorded again that the source moved with the same value in it, when that happened
    /// less than a minute ago.
    pub source_wait: Option<Duration>,
    /// How long to wait before a new value of the source is followed, when the last one came less than a minute ago.
    pub value_wait: Option<Duration>,
    /// The source's value, once read.
    pub incoming: Option<Incoming>,
    /// A source that is known to give no value.
    pub rejected: Option<Rejected>,
    /// The record's value, once opened.
    pub opened: Option<Opened>,
    /// Uid of the record that was read live or written in this pass: the leave to write or remove a target.
    pub record_confirmed: Option<String>,
    /// The resourceVersion of the record as this pass wrote it, and why it did.
    pub record_written: Option<(String, Why)>,
    /// Values of a Secret that is not a record, once read: for a lost record, or an adoption.
    pub content: Option<Content>,
    /// What the target is known to hold.
    pub holds: Option<Holds>,
    /// Types of Secrets by uid, learned from earlier writes and reads.
    pub types: BTreeMap<String, String>,
    /// A write that was refused for good.
    pub refused: Option<Refused>,
    /// Writes that came back other than they were sent.
    pub altered: Vec<Altered>,
    /// The source whose value admission control of others kept out of the record in an earlier pass.
    pub kept_out: Option<Source>,
    /// Something that had been put out of step was written again in this pass.
    pub repaired: bool,
    /// How many passes before this one have failed in a row.
    pub failures: u32,
    /// The ManagedSecret was seen gone, or is another one now.
    pub gone: bool,
    /// The ManagedSecret was read live, or its status written, in this pass.
    pub own_live: bool,
}

impl World {
    /// The world as a pass finds it.
    #[must_use]
    pub fn new(snapshot: Snapshot, settings: Settings, keyring: &Keyring, now: Timestamp, fresh_id: String) -> Self {
        let Snapshot { own, secrets, types, source, peers } = snapshot;
        let secrets: BTreeMap<String, Known> = secrets
            .into_iter()
            .map(|view| {
                let authenticity = Authenticity::for_object(&view, &own, keyring);
                (view.name.clone(), Known::Present(Box::new(Seen { view, authenticity, live: false })))
            })
            .collect();
        let mut world = Self {
            now,
            settings,
            own,
            secrets,
            source,
            peers,
            fresh_id,
            repair_wait: None,
            source_wait: None,
            value_wait: None,
            incoming: None,
            rejected: None,
            opened: None,
            record_confirmed: None,
            record_written: None,
            content: None,
            holds: None,
            types,
            refused: None,
            altered: Vec::new(),
            kept_out: None,
            repaired: false,
            failures: 0,
            gone: false,
            own_live: false,
        };
        world.holds = world.in_step();
        world
    }

    /// What the target holds, if record and target are both what status says we last wrote.
    fn in_step(&self) -> Option<Holds> {
        let record = self.own.status.record.as_ref()?;
        let target = self.own.status.target.as_ref()?;
        let seen = self.present(&record.name)?;
        let same_record = seen.view.uid == record.uid && seen.view.resource_version == record.resource_version;
        let delivered = &self.present(&target.name)?.view;
        let same_target = delivered.uid == target.uid && delivered.resource_version == target.resource_version;
        (same_record && same_target).then_some(Holds {
            uid: target.uid.clone(),
            resource_version: target.resource_version.clone(),
            version: seen.record()?.version,
        })
    }

    /// Whether something here was made under a key that the keyring lacks: worth one fresh look at the keyring.
    #[must_use]
    pub fn lacks_a_key(&self) -> bool {
        let sealing = |incoming: &Incoming| {
            incoming.value.as_ref().is_err_and(|problem| problem.reason == Reason::SealedWithUnknownKey)
        };
        let unopened = |opened: &Opened| matches!(opened.value, Err(Unopened::Crypto(OpenError::SeedUnknown(_))));
        self.all_present().any(|seen| matches!(seen.authenticity, Authenticity::SeedUnknown { .. }))
            || self.incoming.as_ref().is_some_and(sealing)
            || self.opened.as_ref().is_some_and(unopened)
    }

    /// What is known of a Secret.
    #[must_use]
    pub fn secret(&self, name: &str) -> &Known {
        self.secrets.get(name).unwrap_or(&Known::Unseen)
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
        self.secrets.values().filter_map(|known| match known {
            Known::Present(seen) => Some(&**seen),
            Known::Unseen | Known::Absent => None,
        })
    }

    /// The type of a Secret, where it is known.
    #[must_use]
    pub fn type_of<'a>(&'a self, view: &'a SecretView) -> Option<&'a str> {
        view.type_.as_deref().or_else(|| self.types.get(&view.uid).map(String::as_str))
    }

    /// Whether the status says this reason already, of this generation.
    #[must_use]
    pub fn says(&self, reason: Reason) -> bool {
        let ready = |condition: &&Condition| condition.type_ == keys::CONDITION_READY;
        let ready = self.own.status.conditions.iter().flatten().find(ready);
        ready.is_some_and(|ready| {
            ready.reason == reason.as_str() && ready.observed_generation == Some(self.own.generation)
        })
    }

    /// The opened value of a record with this commitment.
    #[must_use]
    pub fn opened(&self, commitment: &[u8; 32]) -> Option<&Result<Plaintext, Unopened>> {
        self.opened.as_ref().filter(|opened| opened.commitment == *commitment).map(|opened| &opened.value)
    }

    /// Puts in what a live read found. `open` is asked for the value of a record that can be believed.
    pub fn learn(
        &mut self,
        name: &str,
        live: Option<LiveSecret>,
        keyring: &Keyring,
        open: impl FnOnce(&RecordMeta, &[u8; 32], &LiveSecret) -> Result<Plaintext, Unopened>,
    ) {
        let Some(live) = live else {
            self.secrets.insert(name.to_owned(), Known::Absent);
            return;
        };
        let authenticity = Authenticity::for_object(&live.view, &self.own, keyring);
        if let Authenticity::Valid { meta, commitment } = &authenticity {
            let bytes = live.data.get(keys::RECORD_DATA_KEY).map(|bytes| bytes.to_vec()).unwrap_or_default();
            self.opened = Some(Opened { commitment: *commitment, bytes, value: open(meta, commitment, &live) });
            self.record_confirmed = Some(live.view.uid.clone());
        } else {
            let before = self.own.status.target.as_ref().map(|target| target.key.as_str());
            let values = [Some(self.own.spec.target_key()), before]
                .into_iter()
                .flatten()
                .filter_map(|key| Some((key.to_owned(), Plaintext::new(live.data.get(key)?.clone()).ok())))
                .collect();
            self.content = Some(Content { uid: live.view.uid.clone(), values });
        }
        self.put(live.view, authenticity);
    }

    /// Puts in a Secret as the API server just gave it.
    pub fn put(&mut self, view: SecretView, authenticity: Authenticity) {
        if let Some(type_) = &view.type_ {
            self.types.insert(view.uid.clone(), type_.clone());
        }
        self.secrets.insert(view.name.clone(), Known::Present(Box::new(Seen { view, authenticity, live: true })));
    }

    /// The time of this pass, in whole seconds as dates are kept.
    #[must_use]
    pub fn date(&self) -> String {
        rfc3339(self.now)
    }
}

/// A time as the API shows it: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
