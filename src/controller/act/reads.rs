//! Reads: what they find becomes facts.

use futures::future;
use managed_secrets_api::{
    ManagedSecret, Reason,
    keys::{ANNO_PREVIOUS, RECORD_DATA_KEY},
    overlap,
    record::{self, KeptVersion, Unopened, is_kept_key, kept_key},
    types::Alphabet,
};
use managed_secrets_crypto::{
    Plaintext,
    keyring::{Keyring, SealingKeyStatus},
    mse1::{Place, Record},
    mss1::{self, Scope, Sealed},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    sync::Arc,
};
use tracing::debug;

use super::{
    super::{
        facts::{Confirmed, Content, Facts, Freshness, Held, Incoming, Known, SourceSeen},
        failure::Failure,
        plan::{Contents, Problem, Read},
        record::{Authenticity, RecordMeta, Source},
        view::{LiveSecret, Own, SecretView},
    },
    actor::{Actor, Call},
};

impl Actor<'_> {
    /// Reads, and puts what it finds into the facts.
    pub(super) async fn read(&self, facts: &mut Facts, read: &Read) -> Result<(), Failure> {
        match read {
            Read::Secret(name) => self.read_secret(facts, name).await,
            Read::Spec => {
                let (object, record) = future::join(self.fetch_object(facts), self.fetch_record(facts)).await;
                self.learn_object(facts, object?);
                self.learn_record(facts, record);
                Ok(())
            }
            Read::Source => {
                let (incoming, record) = future::join(self.fetch_source(facts), self.fetch_record(facts)).await;
                facts.learned.incoming = incoming?;
                self.learn_record(facts, record);
                Ok(())
            }
            Read::Generate => generate(facts),
        }
    }

    /// Reads a Secret that may be record or target.
    pub(super) async fn read_secret(&self, facts: &mut Facts, name: &str) -> Result<(), Failure> {
        let fetched = self.fetch_secret(facts, name).await?;
        self.learn_secret(facts, name, fetched);
        Ok(())
    }

    async fn fetch_secret(&self, facts: &Facts, name: &str) -> Result<Fetched<'_>, Failure> {
        let call = self.call(facts, name);
        let mut keys = facts.snapshot.own.keys_to_read();
        keys.insert(RECORD_DATA_KEY);
        keys.extend(facts.present(name).and_then(|seen| previous_key(&seen.view)));
        let keys: Vec<&str> = keys.into_iter().collect();
        let live = self.cluster.secret(name, &keys).await?;
        debug!(secret = name, found = live.is_some(), "read live");
        Ok(Fetched { call, live })
    }

    fn learn_secret(&self, facts: &mut Facts, name: &str, Fetched { call, live }: Fetched<'_>) {
        let labelled =
            live.as_ref().map(|live| &live.view).filter(|view| view.is_watched()).cloned().map(SecretView::kept);
        let concerned = call.answered(|index, sent| index.learn(&facts.snapshot.own.namespace, name, labelled, sent));
        self.wake_others(facts, concerned);
        learn(facts, name, live, self.keyring);
    }

    /// The record, if this pass has not read it: the value of a source is compared with its value, so both are read at the
    /// same time. An error is not kept: what needs the record reads it again, and reports it.
    async fn fetch_record(&self, facts: &Facts) -> Option<(String, Fetched<'_>)> {
        let name = &facts.snapshot.own.status.record.as_ref()?.name;
        facts.present(name)?.record().filter(|_| facts.learned.record.is_none())?;
        Some((name.clone(), self.fetch_secret(facts, name).await.ok()?))
    }

    fn learn_record(&self, facts: &mut Facts, fetched: Option<(String, Fetched<'_>)>) {
        if let Some((name, fetched)) = fetched {
            self.learn_secret(facts, &name, fetched);
        }
    }

    /// Reads the ManagedSecret, and opens its sealed text.
    pub(super) async fn read_object(&self, facts: &mut Facts) -> Result<(), Failure> {
        let object = self.fetch_object(facts).await?;
        self.learn_object(facts, object);
        Ok(())
    }

    async fn fetch_object(&self, facts: &Facts) -> Result<Option<ManagedSecret>, Failure> {
        self.cluster.object(&facts.snapshot.own.name).await
    }

    fn learn_object(&self, facts: &mut Facts, object: Option<ManagedSecret>) {
        let Some(object) = object.filter(|object| object.metadata.uid.as_ref() == Some(&facts.snapshot.own.uid)) else {
            facts.learned.own = Freshness::Gone;
            return;
        };
        let sealed = object.spec.value.as_ref().map(|sealed| sealed.0.clone());
        let own = Own::new(object);
        // Who else wants the name, is known of the old one.
        let renamed = own.spec.name != facts.snapshot.own.spec.name;
        if own.spec.value_from != facts.snapshot.own.spec.value_from {
            // The watch will tell of the new source; until then nothing is known of it.
            facts.snapshot.source = SourceSeen::Unsynced;
        }
        facts.learned.incoming = match (sealed, own.sealed_sha256.clone()) {
            (Some(sealed), Some(sha256)) => Some(Incoming {
                source: Source::Sealed { sha256 },
                value: unseal(self.keyring, facts.snapshot.settings.allow_cluster_scope, &own, &sealed).map(Arc::new),
            }),
            _ => None,
        };
        facts.follow(own);
        facts.learned.own = if renamed { Freshness::Renamed } else { Freshness::Live };
    }

    /// Reads the source; `None` if the spec has none.
    async fn fetch_source(&self, facts: &Facts) -> Result<Option<Incoming>, Failure> {
        let Some(from) = facts.snapshot.own.spec.value_from.clone() else { return Ok(None) };
        let reference = from.secret_key_ref;
        let live = self.cluster.secret(&reference.name, &[&reference.key]).await?;
        Ok(Some(source_value(&reference.name, reference.key, live)))
    }
}

/// A Secret as the API server answered; the answer is not in the index yet.
struct Fetched<'a> {
    call: Call<'a>,
    live: Option<LiveSecret>,
}

/// Puts in what a live read of a Secret found: of a record that can be believed, its contents; of any other, the values
/// under the keys that may be ours.
fn learn(facts: &mut Facts, name: &str, live: Option<LiveSecret>, keyring: &Keyring) {
    let Some(live) = live else {
        facts.snapshot.secrets.insert(name.to_owned(), Known::Absent);
        return;
    };
    let own = &facts.snapshot.own;
    let authenticity = Authenticity::for_object(&live.view, own, keyring);
    if let Authenticity::Valid { meta, commitment } = &authenticity {
        let contents = open(keyring, own, meta, commitment, &live);
        let versions = versions(meta, commitment, &live);
        let opened = opened(keyring, own, meta, &versions);
        let (uid, strays) = (live.view.uid.clone(), strays(&versions, &live));
        facts.learned.record = Some(Confirmed { uid, commitment: *commitment, contents, versions, opened, strays });
    } else {
        let held = |key: &str| Some((key.to_owned(), Held::new(live.data.get(key)?.clone())));
        let keys = own.keys_to_read().into_iter().chain(previous_key(&live.view));
        let values = keys.filter_map(held).collect();
        facts.learned.content = Some(Content { uid: live.view.uid.clone(), values });
    }
    facts.put(live.view, authenticity);
}

/// The key at which a target has a previous value, as it says itself.
fn previous_key(view: &SecretView) -> Option<&str> {
    view.annotation(ANNO_PREVIOUS)?.split_once(':').map(|(_, key)| key)
}

/// The bytes of a record's value and of the earlier values that it keeps, by version: those alone that its authenticated
/// metadata speaks of.
fn versions(meta: &RecordMeta, commitment: &[u8; 32], live: &LiveSecret) -> BTreeMap<u64, Arc<Record>> {
    let value = (RECORD_DATA_KEY.to_owned(), meta.version, commitment);
    let kept = meta.history.iter().map(|kept| (kept.data_key(), kept.version, &kept.commitment));
    let stored = |(key, version, commitment): (String, u64, &[u8; 32])| {
        let bytes = record::stored(live.data.get(&key)?, version, commitment)?;
        Some((version, Arc::new(bytes)))
    };
    iter::once(value).chain(kept).filter_map(stored).collect()
}

/// The data keys of a record that hold anything but the earlier values of which its metadata speaks, which are `versions`.
pub(super) fn strays(versions: &BTreeMap<u64, Arc<Record>>, live: &LiveSecret) -> BTreeSet<String> {
    let is_kept = |key: &str| versions.keys().any(|version| kept_key(*version) == key);
    let strays = live.data.iter().filter(|(key, bytes)| is_kept_key(key) && !bytes.is_empty() && !is_kept(key));
    strays.map(|(key, _)| key.clone()).collect()
}

/// The earlier values that the spec asks for, by version.
pub(super) fn opened(
    keyring: &Keyring,
    own: &Own,
    meta: &RecordMeta,
    versions: &BTreeMap<u64, Arc<Record>>,
) -> BTreeMap<u64, Result<Arc<Plaintext>, Unopened>> {
    let place = Place { namespace: &own.namespace, object: &own.name };
    let open = |kept: &KeptVersion| {
        let bytes = versions.get(&kept.version).ok_or(Unopened::Altered)?;
        let opened = record::open_kept(bytes.as_bytes(), &place, kept, |id| keyring.seed(id))?;
        Ok(Arc::new(opened.value))
    };
    let overlaps = overlap::key(&own.spec).is_some();
    let previous = meta.history.previous(meta.version, &meta.value_updated).map(|(kept, _)| kept.version);
    let delivered = own.status.delivered().and_then(|version| version.try_into().ok());
    let pinned = own.spec.pinned();
    let wanted = [
        pinned,
        // What the next value, or the one that the spec does not name any more, replaces.
        delivered.filter(|_| overlaps || pinned.is_some()),
        previous.filter(|_| overlaps),
    ];
    let wanted: BTreeSet<u64> = wanted.into_iter().flatten().collect();
    let kept = wanted.into_iter().filter_map(|version| meta.history.get(version));
    kept.map(|kept| (kept.version, open(kept))).collect()
}

/// Opens a record's bytes and checks that they are the very ones that its authenticated metadata speaks of.
fn open(
    keyring: &Keyring,
    own: &Own,
    meta: &RecordMeta,
    commitment: &[u8; 32],
    live: &LiveSecret,
) -> Result<Contents, Unopened> {
    let bytes = live.data.get(RECORD_DATA_KEY).map(|bytes| bytes.as_slice()).unwrap_or_default();
    let place = Place { namespace: &own.namespace, object: &own.name };
    let opened = record::open(bytes, &place, meta, commitment, |id| keyring.seed(id))?;
    Ok(Contents { bytes: Arc::new(opened.bytes), value: Arc::new(opened.value) })
}

/// Opens sealed text for the object that holds it; the problem names the field, the rule, and who can mend it.
fn unseal(keyring: &Keyring, allow_cluster_scope: bool, own: &Own, text: &str) -> Result<Plaintext, Problem> {
    let problem = |reason, message: String| Problem::new(reason, format!("spec.value: {message}"));
    let sealed = Sealed::parse(text).map_err(|error| problem(Reason::SealedMalformed, error.to_string()))?;
    sealed
        .fits(&own.namespace, &own.name)
        .map_err(|error| problem(Reason::SealedForAnotherPlace, error.to_string()))?;
    if *sealed.scope() == Scope::Cluster && !allow_cluster_scope {
        let message = "sealed with cluster scope, which this operator does not allow: seal the value for this object, or run the operator with --allow-cluster-scope";
        return Err(problem(Reason::SealedScopeNotAllowed, message.to_owned()));
    }
    let key = match keyring.sealing_key(sealed.key_id()) {
        SealingKeyStatus::Usable(key) => key,
        SealingKeyStatus::Revoked => {
            let message =
                format!("sealed with the revoked key {}: seal the value again with the current key", sealed.key_id());
            return Err(problem(Reason::SealedWithRevokedKey, message));
        }
        SealingKeyStatus::Retired => {
            let id = sealed.key_id();
            let message = format!(
                "sealed with the retired key {id}: seal the value again with the current key, or let the old key open again with kubectl msec keys reinstate {id}"
            );
            return Err(problem(Reason::SealedWithRetiredKey, message));
        }
        SealingKeyStatus::Unknown => {
            let message = format!(
                "sealed with the key {}, which this cluster does not have: seal the value again with this cluster's key, or restore that keyring",
                sealed.key_id()
            );
            return Err(problem(Reason::SealedWithUnknownKey, message));
        }
    };
    sealed.open(key, &own.namespace, &own.name).map_err(|error| match error {
        mss1::OpenError::Place(place) => problem(Reason::SealedForAnotherPlace, place.to_string()),
        mss1::OpenError::Value(rule) => problem(Reason::InvalidValue, format!("the sealed value {rule}")),
        error => problem(Reason::SealedTampered, error.to_string()),
    })
}

/// The value in a source Secret, as it was read.
fn source_value(name: &str, key: String, live: Option<LiveSecret>) -> Incoming {
    let Some(mut live) = live else {
        let message = format!("spec.valueFrom: Secret {name} does not exist");
        let source = Source::Secret { uid: String::new(), resource_version: String::new(), key };
        return Incoming { source, value: Err(Problem::new(Reason::SourceNotFound, message)) };
    };
    let value = match live.data.remove(&key) {
        None => {
            let message = format!("spec.valueFrom: Secret {name} has no key {key}");
            Err(Problem::new(Reason::SourceKeyNotFound, message))
        }
        Some(bytes) => Plaintext::new(bytes).map(Arc::new).map_err(|rule| {
            Problem::new(
                Reason::InvalidValue,
                format!("spec.valueFrom: the value under key {key} of Secret {name} {rule}"),
            )
        }),
    };
    let source = Source::Secret { uid: live.view.uid, resource_version: live.view.resource_version, key };
    Incoming { source, value }
}

fn generate(facts: &mut Facts) -> Result<(), Failure> {
    let wanted = facts.snapshot.own.spec.generate.clone().unwrap_or_default();
    let alphabet: Alphabet = wanted.alphabet();
    let value = Plaintext::generate(wanted.length(), alphabet.characters().as_bytes())
        .map_err(|error| Failure::Crypto(error.to_string()))?;
    let source = Source::Generate { revision: wanted.revision };
    facts.learned.incoming = Some(Incoming { source, value: Ok(Arc::new(value)) });
    Ok(())
}
