//! Carries out what [`decide`] says, step by step, and puts what it learns back into the world.
//!
//! In: a [`World`] and the keyring. Out: reads and writes at the API server, entries in the index, events, log lines. A
//! refused precondition is nothing special: the object is read live and `decide` is asked again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    keys::{
        ANNO_COMMITMENT, ANNO_MAC, GROUP, KIND, LABEL_ID, LABEL_ROLE, RECORD_DATA_KEY, ROLE_RECORD, TYPE_RECORD,
        VERSION,
    },
    types::Alphabet,
};
use managed_secrets_client::Run;
use managed_secrets_crypto::{
    Plaintext,
    keyring::{Keyring, SealingKeyStatus},
    mac,
    mse1::{self, Place, Record},
    mss1::{self, Scope, Sealed},
};
use managed_secrets_engine::stats::Stats;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::{
    altered::{Altered, Field, Intent, Part},
    cluster::Cluster,
    conditions::READY,
    decide::{self, Bytes, Finish, Read, RecordWrite, Slot, Step, TargetWrite, Why, Write},
    events::Events,
    failure::Failure,
    index::{Index, Key, Sent},
    record::{Authenticity, RecordMeta, Source},
    view::{LiveSecret, Own, SecretView},
    world::{Holds, Incoming, Known, Opened, Problem, Refused, Unopened, World},
};

/// Steps after which a pass gives up: more than any real one takes, so a circle in `decide` ends here.
const MOST_STEPS: usize = 48;
/// Refused preconditions after which a pass gives up and comes back later.
const MOST_CONFLICTS: usize = 6;

/// What a pass works with.
pub struct Actor<'a> {
    /// Calls in the object's namespace.
    pub cluster: Cluster,
    /// The keys.
    pub keyring: &'a Keyring,
    /// Where answers to our writes go, so that no later pass acts on less.
    pub index: &'a Mutex<Index>,
    /// Where events go.
    pub events: &'a Events,
    /// What is counted.
    pub stats: &'a Stats,
    /// Told of other objects that have to be looked at, for what a pass learned and the watches will not show again.
    pub wake: &'a (dyn Fn(Vec<Key>) + Send + Sync),
}

/// What became of a write of a Secret.
enum Applied {
    /// The Secret as it is now, and what admission control of others changed of it on its way.
    Stored(Box<LiveSecret>, Option<Field>),
    /// Nothing was written: admission control of others would have spoiled the Secret by changing this field.
    Kept(Field),
}

/// How a pass ended.
#[derive(Debug, Eq, PartialEq)]
pub enum End {
    /// As `decide` said.
    Finished(Finish),
    /// A call failed; the failure has been said in the status where that was possible.
    Failed(Failure),
}

impl Actor<'_> {
    /// Runs a pass to its end.
    pub async fn pass(&self, world: &mut World) -> End {
        let mut conflicts = 0;
        for _ in 0..MOST_STEPS {
            let done = match decide::decide(world) {
                Step::Finish(finish) => return End::Finished(finish),
                Step::Read(read) => self.read(world, &read).await,
                Step::Write(write) => match self.write(world, &write).await {
                    // Somebody is changing it right now: their next change is not answered at full speed either. The
                    // event of this one brings the next pass.
                    Err(Failure::Conflict) if write.is_repair() => {
                        world.repaired = true;
                        return End::Finished(Finish { after: Some(Duration::ZERO), retry: false });
                    }
                    Err(Failure::Conflict) if conflicts < MOST_CONFLICTS => {
                        conflicts += 1;
                        self.look_again(world, &write).await
                    }
                    done => done,
                },
            };
            if let Err(failure) = done {
                self.say_failure(world, &failure).await;
                return End::Failed(failure);
            }
        }
        warn!("gave up after {MOST_STEPS} steps; will retry");
        End::Finished(Finish { after: None, retry: true })
    }

    async fn read(&self, world: &mut World, read: &Read) -> Result<(), Failure> {
        match read {
            Read::Secret(name) => self.read_secret(world, name).await,
            Read::Spec => self.read_object(world).await,
            Read::Source => self.read_source(world).await,
            Read::Generate => generate(world),
        }
    }

    async fn read_secret(&self, world: &mut World, name: &str) -> Result<(), Failure> {
        let call = self.call(world, name);
        let live = self.cluster.secret(name).await?;
        debug!(secret = name, found = live.is_some(), "read live");
        let labelled = live.as_ref().map(|live| &live.view).filter(|view| view.is_watched()).cloned();
        let concerned = call.answered(|index, sent| index.learn(&world.own.namespace, name, labelled, sent));
        self.wake_others(world, concerned);
        let place = (world.own.namespace.clone(), world.own.name.clone());
        world.learn(name, live, self.keyring, |meta, commitment, live| {
            open(self.keyring, &place, meta, commitment, live)
        });
        Ok(())
    }

    async fn read_object(&self, world: &mut World) -> Result<(), Failure> {
        let object = self.cluster.object(&world.own.name).await?;
        let Some(object) = object.filter(|object| object.metadata.uid.as_ref() == Some(&world.own.uid)) else {
            world.gone = true;
            return Ok(());
        };
        let sealed = object.spec.value.as_ref().map(|sealed| sealed.0.clone());
        let own = Own::new(object);
        // Who else wants the name, is known of the old one.
        world.peers.outdated |= own.spec.name != world.own.spec.name;
        if own.spec.value_from != world.own.spec.value_from {
            // The watch will tell of the new source; until then nothing is known of it.
            world.source = super::world::SourceSeen::Unsynced;
        }
        world.incoming = match (sealed, own.sealed_sha256.clone()) {
            (Some(sealed), Some(sha256)) => Some(Incoming {
                source: Source::Sealed { sha256 },
                value: unseal(self.keyring, world.settings.allow_cluster_scope, &own, &sealed),
            }),
            _ => None,
        };
        world.own = own;
        world.own_live = true;
        Ok(())
    }

    async fn read_source(&self, world: &mut World) -> Result<(), Failure> {
        let Some(from) = world.own.spec.value_from.clone() else { return Ok(()) };
        let reference = from.secret_key_ref;
        let live = self.cluster.secret(&reference.name).await?;
        world.incoming = Some(source_value(&reference.name, reference.key, live));
        Ok(())
    }

    async fn write(&self, world: &mut World, write: &Write) -> Result<(), Failure> {
        match write {
            Write::Record(record, why) => self.write_record(world, record, *why).await,
            Write::Target(target, why) => self.write_target(world, target, *why).await,
            Write::Release { name, slot } => self.release(world, name, slot).await,
            Write::Delete { name, slot, why } => self.delete(world, name, slot, *why).await,
            Write::Status(status) => self.write_status(world, status).await,
        }
    }

    async fn write_record(&self, world: &mut World, write: &RecordWrite, why: Why) -> Result<(), Failure> {
        let sealed = self.seal(world, write)?;
        let commitment = *sealed.commitment();
        let seed =
            self.keyring.active_seed().ok_or_else(|| Failure::Crypto("the keyring has no active seed".to_owned()))?;
        let mac = write
            .meta
            .with_mac_input(&world.own.namespace, |input| mac::sign(seed, input, &commitment))
            .map_err(|error| Failure::Crypto(error.to_string()))?;
        let mut annotations = write.meta.annotations();
        annotations.insert(ANNO_COMMITMENT.to_owned(), mac::commitment_text(&commitment));
        annotations.insert(ANNO_MAC.to_owned(), mac);
        let labels = BTreeMap::from(
            [(LABEL_ROLE, ROLE_RECORD), (LABEL_ID, &write.meta.id)]
                .map(|(key, text)| (key.to_owned(), text.to_owned())),
        );
        let body = json!({
            "metadata": {
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": owner_references(&world.own, write.owner_reference),
            },
            "type": TYPE_RECORD,
            "data": {RECORD_DATA_KEY: BASE64_STANDARD.encode(sealed.as_bytes())},
        });
        let name = write.meta.object_name();
        // A record that only the cache shows may have been immutable before.
        let mutable = world.present(&name).is_none_or(|seen| seen.live && !seen.view.immutable);
        let intent = Intent {
            labels: &labels,
            annotations: &annotations,
            owner: write.owner_reference.then_some(world.own.uid.as_str()),
            key: RECORD_DATA_KEY,
            value: sealed.as_bytes(),
            type_: Some(TYPE_RECORD),
            mutable,
        };
        let part = if write.slot == Slot::Free { Part::NewRecord } else { Part::Record };
        let call = self.call(world, &name);
        let (live, changed) = match self.apply(&name, &write.slot, body, &intent, part).await {
            Ok(Applied::Stored(live, changed)) => (*live, changed),
            Ok(Applied::Kept(field)) => {
                note_altered(world, Altered { secret: name, part, field });
                world.kept_out = Some(write.meta.source.clone());
                return Ok(());
            }
            Err(failure) => {
                stopped(world, &name, part, failure)?;
                world.kept_out = Some(write.meta.source.clone());
                return Ok(());
            }
        };
        let unchanged = write.slot == Slot::over(&live.view);
        if let Some(field) = changed {
            let altered = Altered { secret: name.clone(), part, field };
            let is_spoiled = altered.is_spoiled();
            note_altered(world, altered);
            if is_spoiled {
                world.kept_out = Some(write.meta.source.clone());
                self.written(world, call, live.view);
                return Ok(());
            }
        }
        world.kept_out = None;
        info!(record = name, ?why, version = write.meta.version, bytes = ?write.bytes, "record written");
        if why == Why::TakenOver {
            let note = format!("took over record {name} of an earlier ManagedSecret: id, dates and version continue");
            self.events.say(&world.own, Reason::RecordTakenOver, "TakeOver", false, &note);
        }
        let value = match write.bytes {
            Bytes::Keep | Bytes::Reseal => world.opened.take().map(|opened| opened.value),
            Bytes::Incoming => world.incoming.take().and_then(|incoming| incoming.value.ok()).map(Ok),
            Bytes::FromTarget => survivor_value(world).map(Ok),
        };
        world.opened = value.map(|value| Opened { commitment, bytes: sealed.as_bytes().to_vec(), value });
        world.record_confirmed = Some(live.view.uid.clone());
        world.record_written = Some((live.view.resource_version.clone(), why));
        world.repaired |= why == Why::OutOfStep || unchanged;
        self.written(world, call, live.view);
        Ok(())
    }

    /// The record's bytes: kept, or sealed afresh.
    fn seal(&self, world: &World, write: &RecordWrite) -> Result<Record, Failure> {
        let broken = |what: &str| Failure::Crypto(what.to_owned());
        let opened = world.opened.as_ref();
        let value = match write.bytes {
            Bytes::Keep => {
                let opened = opened.ok_or_else(|| broken("the record's bytes are not available"))?;
                return Record::parse(&opened.bytes).map_err(|_| broken("the record's bytes are not available"));
            }
            Bytes::Reseal => opened.and_then(|opened| opened.value.as_ref().ok()),
            Bytes::Incoming => world.incoming.as_ref().and_then(|incoming| incoming.value.as_ref().ok()),
            Bytes::FromTarget => world
                .own
                .status
                .target
                .as_ref()
                .and_then(|target| world.content.as_ref()?.values.get(&target.key)?.as_ref()),
        };
        let value = value.ok_or_else(|| broken("the value is not available"))?;
        let seed = self.keyring.active_seed().ok_or_else(|| broken("the keyring has no active seed"))?;
        let place = Place { namespace: &world.own.namespace, object: &world.own.name };
        mse1::seal(seed, &place, &world.own.uid, write.meta.version, value)
            .map_err(|error| Failure::Crypto(error.to_string()))
    }

    async fn write_target(&self, world: &mut World, write: &TargetWrite, why: Why) -> Result<(), Failure> {
        let version = world.all_present().filter_map(|seen| seen.record().map(|meta| (seen, meta)));
        let version = version
            .filter(|(seen, _)| world.record_confirmed.as_ref() == Some(&seen.view.uid))
            .map(|(_, meta)| meta.version)
            .max();
        let opened = world.opened.as_ref().and_then(|opened| opened.value.as_ref().ok());
        let (Some(value), Some(version)) = (opened, version) else {
            return Err(Failure::Crypto("the value is not available".to_owned()));
        };
        let mut body = json!({
            "metadata": {
                "labels": write.labels,
                "annotations": write.annotations,
                "ownerReferences": owner_references(&world.own, write.owner_reference),
            },
            "data": {write.key.clone(): BASE64_STANDARD.encode(value.as_bytes())},
        });
        if let Some(type_) = &write.type_ {
            body["type"] = json!(type_);
        }
        let before = world.present(&write.name).map(|seen| (seen.view.clone(), seen.live));
        let intent = Intent {
            labels: &write.labels,
            annotations: &write.annotations,
            owner: write.owner_reference.then_some(world.own.uid.as_str()),
            key: &write.key,
            value: value.as_bytes(),
            type_: write.type_.as_deref(),
            // While it holds the right value, an immutable target is as good as another.
            mutable: false,
        };
        // The value moves to another key of an adopted Secret, and the key that was there before stays.
        let found = before.as_ref().and_then(|(view, _)| view.found_key()).filter(|found| *found != write.key);
        let slot = match found {
            Some(found) => self.leave(&write.name, &write.slot, found).await?,
            None => write.slot.clone(),
        };
        let call = self.call(world, &write.name);
        let (live, changed) = match self.apply(&write.name, &slot, body, &intent, Part::Target).await {
            Ok(Applied::Stored(live, changed)) => (*live, changed),
            Ok(Applied::Kept(field)) => {
                note_altered(world, Altered { secret: write.name.clone(), part: Part::Target, field });
                return Ok(());
            }
            Err(Failure::Invalid(fields)) => {
                // The type may be another, or the Secret immutable: a live look tells. What still is refused then, is
                // refused for good.
                if matches!(before, Some((_, false))) {
                    return self.read_secret(world, &write.name).await;
                }
                let type_ = write.type_.as_deref().unwrap_or("of the Secret");
                let message = format!(
                    "target Secret {}: the API server refuses it: the value must be valid for its type {type_} ({fields})",
                    write.name
                );
                let problem = Problem::new(Reason::WriteRefused, message);
                world.refused = Some(Refused { secret: write.name.clone(), problem });
                return Ok(());
            }
            Err(failure @ Failure::BadRequest(_)) => {
                let message = format!("target Secret {}: {failure}", write.name);
                let problem = Problem::new(Reason::WriteRefused, message);
                world.refused = Some(Refused { secret: write.name.clone(), problem });
                return Ok(());
            }
            Err(failure) => return stopped(world, &write.name, Part::Target, failure),
        };
        let moved = before.as_ref().is_none_or(|(view, _)| view.resource_version != live.view.resource_version);
        info!(secret = write.name, ?why, version, changed = moved, "target written");
        let altered = changed.map(|field| Altered { secret: write.name.clone(), part: Part::Target, field });
        if !altered.as_ref().is_some_and(Altered::is_spoiled) {
            let resource_version = live.view.resource_version.clone();
            world.holds = Some(Holds { uid: live.view.uid.clone(), resource_version, version });
        }
        if let Some(altered) = altered {
            note_altered(world, altered);
            self.written(world, call, live.view);
            return Ok(());
        }
        if why == Why::Drift && moved {
            let who = before.and_then(|(view, _)| view.other_manager).unwrap_or_else(|| "another writer".to_owned());
            let note =
                format!("Secret {} was changed, unlabelled or deleted by {who}; the operator restored it", write.name);
            self.events.say(&world.own, Reason::TargetDriftCorrected, "Repair", true, &note);
        }
        // Also where nothing moved: whoever edits what is not ours of it in a loop is not followed at full speed.
        world.repaired |= why == Why::Drift || !moved;
        self.written(world, call, live.view);
        Ok(())
    }

    /// Applies a whole Secret. Over an existing one, a dry run comes first: what admission control of others would spoil is
    /// not written, for what the Secret holds may have no other copy.
    async fn apply(
        &self,
        name: &str,
        slot: &Slot,
        body: Value,
        intent: &Intent<'_>,
        part: Part,
    ) -> Result<Applied, Failure> {
        let body = self.cluster.whole(name, slot, body);
        if *slot != Slot::Free {
            let stored = self.cluster.apply_secret(name, slot, Run::Dry, &body).await?;
            if let Some(field) = intent.changed_in(&stored).filter(|field| field.spoils(part)) {
                return Ok(Applied::Kept(field));
            }
        }
        let live = self.cluster.apply_secret(name, slot, Run::Real, &body).await?;
        self.count(slot, &live.view);
        let changed = intent.changed_in(&live);
        Ok(Applied::Stored(Box::new(live), changed))
    }

    /// Counts a write that changed nothing.
    fn count(&self, slot: &Slot, after: &SecretView) {
        if *slot == Slot::over(after) {
            self.stats.idle_writes.increment();
        }
    }

    async fn release(&self, world: &mut World, name: &str, slot: &Slot) -> Result<(), Failure> {
        let found = world.present(name).and_then(|seen| seen.view.found_key());
        let slot = &match found {
            Some(found) => self.leave(name, slot, found).await?,
            None => slot.clone(),
        };
        // An apply of nothing gives up every field that is ours and touches no other.
        let mut body = json!({"metadata": {}});
        let apply = async |body: Value| {
            self.cluster.apply_secret(name, slot, Run::Real, &self.cluster.whole(name, slot, body)).await
        };
        let live = match apply(body.clone()).await {
            // Somebody made it immutable, and our key cannot be taken away any more: it stays, as it is.
            Err(Failure::Invalid(fields)) => {
                let Some(frozen) = self.cluster.secret(name).await?.filter(|live| live.view.immutable) else {
                    return Err(Failure::Invalid(fields));
                };
                let ours = frozen.data.iter().filter(|(key, _)| frozen.view.ours.data.contains(*key));
                body["data"] = ours.map(|(key, bytes)| (key.clone(), json!(BASE64_STANDARD.encode(bytes)))).collect();
                apply(body).await?
            }
            released => released?,
        };
        self.count(slot, &live.view);
        info!(secret = name, "adopted target released");
        let concerned = self.index().remove_secret(&world.own.namespace, &live.view);
        self.wake_others(world, concerned);
        let authenticity = Authenticity::for_object(&live.view, &world.own, self.keyring);
        world.put(live.view, authenticity);
        Ok(())
    }

    /// Has another field manager own a key of an adopted Secret, so that the value under it stays when ours gives it up;
    /// the Secret as it is then.
    async fn leave(&self, name: &str, slot: &Slot, key: &str) -> Result<Slot, Failure> {
        let live = self.cluster.secret(name).await?.filter(|live| Slot::over(&live.view) == *slot);
        let live = live.ok_or(Failure::Conflict)?;
        let Some(bytes) = live.data.get(key) else { return Ok(slot.clone()) };
        let body = json!({"metadata": {}, "data": {key: BASE64_STANDARD.encode(bytes)}});
        let live = self.cluster.leave_in_secret(name, slot, body).await?;
        Ok(Slot::over(&live.view))
    }

    async fn delete(&self, world: &mut World, name: &str, slot: &Slot, why: Why) -> Result<(), Failure> {
        self.cluster.delete_secret(name, slot).await?;
        info!(secret = name, ?why, "Secret deleted");
        if let Some(seen) = world.present(name) {
            let concerned = self.index().bury(&world.own.namespace, &seen.view);
            self.wake_others(world, concerned);
        }
        world.secrets.insert(name.to_owned(), Known::Absent);
        Ok(())
    }

    async fn write_status(&self, world: &mut World, status: &ManagedSecretStatus) -> Result<(), Failure> {
        let before = world.own.status.clone();
        let call = self.call(world, &world.own.name);
        let own = match self.cluster.write_status(&world.own, status).await {
            Ok(own) => own,
            Err(Failure::Absent) => {
                world.gone = true;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        if own.resource_version == world.own.resource_version {
            self.stats.idle_writes.increment();
        }
        self.say_status(&own, &before);
        let concerned = call.answered(|index, sent| index.put_described(own.clone(), sent));
        self.wake_others(world, concerned);
        // What the server gave back may lack what an older CRD does not know: what was written counts, or this would
        // be written again and again.
        world.own = Own { status: status.clone(), ..own };
        world.own_live = true;
        Ok(())
    }

    /// Logs and announces what a status says that the one before did not.
    fn say_status(&self, own: &Own, before: &ManagedSecretStatus) {
        let ready = |status: &ManagedSecretStatus| {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            conditions
                .iter()
                .find(|condition| condition.type_ == READY)
                .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        };
        let Some((status, reason, message)) = ready(&own.status) else { return };
        info!(ready = status, reason, version = own.status.version, "status written");
        let Some(reason) = Reason::ALL.iter().copied().find(|known| known.as_str() == reason) else { return };
        let same_state = ready(before).is_some_and(|(old, cause, _)| old == status && cause == reason.as_str());
        let new_version = before.version != own.status.version;
        match (status.as_str(), same_state) {
            ("True", _) if new_version => {
                let note = format!("version {}: {message}", own.status.version.unwrap_or_default());
                self.events.say(own, reason, "NewValue", false, &note);
            }
            ("True", false) => {
                let warning = !matches!(reason, Reason::Served | Reason::Suspended);
                self.events.say(own, reason, "Serve", warning, &message);
            }
            ("False", false) => self.events.say(own, reason, "Reconcile", true, &message),
            _ => {}
        }
    }

    /// After a refused precondition: what is there now?
    ///
    /// Whoever was here before may have moved the record too: it has to be read again before anything is written by it.
    /// But a refused create-only write of a target tells of nobody's haste: that Secret may have stood there for long.
    async fn look_again(&self, world: &mut World, write: &Write) -> Result<(), Failure> {
        if !matches!(write, Write::Target(target, _) if target.slot == Slot::Free) {
            world.record_confirmed = None;
        }
        let name = match write {
            Write::Record(record, _) => record.meta.object_name(),
            Write::Target(target, _) => target.name.clone(),
            Write::Release { name, .. } | Write::Delete { name, .. } => name.clone(),
            Write::Status(_) => return self.read_object(world).await,
        };
        debug!(secret = name, "the API server refused a precondition; reading the Secret again");
        self.read_secret(world, &name).await
    }

    /// Says a failure in the status, where that can be done.
    async fn say_failure(&self, world: &mut World, failure: &Failure) {
        warn!(%failure, "pass failed");
        if matches!(failure, Failure::Conflict | Failure::Unavailable { .. }) && world.failures == 0 {
            // Often over by the next try, and then nobody needs to have read of it.
            return;
        }
        if let Step::Write(write) = decide::failed(world, &failure.verdict())
            && let Write::Status(status) = &*write
            && let Err(second) = self.write_status(world, status).await
        {
            debug!(failure = %second, "the failure was not written to the status");
        }
    }

    fn written(&self, world: &mut World, call: Call<'_>, view: SecretView) {
        let put = |index: &mut Index, sent: &Sent| {
            index.put_written(&world.own.namespace, view.clone(), sent, Instant::now())
        };
        let concerned = call.answered(put);
        self.wake_others(world, concerned);
        let authenticity = Authenticity::for_object(&view, &world.own, self.keyring);
        world.put(view, authenticity);
    }

    /// Has those looked at whom it concerns what this pass did or found: but for its own object, which knows.
    fn wake_others(&self, world: &World, mut concerned: Vec<Key>) {
        concerned.retain(|key| key.name != world.own.name);
        (self.wake)(concerned);
    }

    /// Announces a call to the index, about the Secret or ManagedSecret `name`.
    fn call(&self, world: &World, name: &str) -> Call<'_> {
        let sent = self.index().send(&world.own.namespace, name);
        Call { index: self.index, sent: Some(sent) }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }
}

/// A call that is on its way, and whose answer goes into the index. Given up where it is dropped: at an error, or with the
/// pass at its deadline.
struct Call<'a> {
    index: &'a Mutex<Index>,
    sent: Option<Sent>,
}

impl Call<'_> {
    /// Puts the answer in.
    fn answered(mut self, put: impl FnOnce(&mut Index, &Sent) -> Vec<Key>) -> Vec<Key> {
        let Some(sent) = self.sent.take() else { return Vec::new() };
        let mut index = self.index.lock();
        let concerned = put(&mut index, &sent);
        index.answered(sent);
        concerned
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.index.lock().answered(sent);
        }
    }
}

/// A write that failed: because others changed it before our own policy saw it, or for another reason.
fn stopped(world: &mut World, secret: &str, part: Part, failure: Failure) -> Result<(), Failure> {
    let Some(field) = Field::behind(&failure) else { return Err(failure) };
    note_altered(world, Altered { secret: secret.to_owned(), part, field });
    Ok(())
}

/// Admission control of others changes what a write says.
fn note_altered(world: &mut World, altered: Altered) {
    let (secret, field) = (&altered.secret, altered.field.path());
    warn!(secret, field, "an admission policy or webhook changes what the operator writes");
    world.altered.push(altered);
    world.repaired = true;
}

fn owner_references(own: &Own, wanted: bool) -> serde_json::Value {
    if !wanted {
        return json!([]);
    }
    // Without `blockOwnerDeletion`: that would need a right on finalizers, and hold up a foreground deletion.
    json!([{"apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "name": own.name, "uid": own.uid}])
}

/// Opens a record's bytes and checks that they are the very ones that its authenticated metadata speaks of.
fn open(
    keyring: &Keyring,
    place: &(String, String),
    meta: &RecordMeta,
    commitment: &[u8; 32],
    live: &LiveSecret,
) -> Result<Plaintext, Unopened> {
    let bytes = live.data.get(RECORD_DATA_KEY).map(|bytes| bytes.as_slice()).unwrap_or_default();
    let record = Record::parse(bytes).map_err(Unopened::Crypto)?;
    let place = Place { namespace: &place.0, object: &place.1 };
    let value = mse1::open(&record, &place, |id| keyring.seed(id)).map_err(Unopened::Crypto)?;
    if record.version() != meta.version {
        return Err(Unopened::OtherVersion);
    }
    if record.uid() != meta.uid || record.commitment() != commitment {
        return Err(Unopened::Altered);
    }
    Ok(value)
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
        Some(bytes) => Plaintext::new(bytes).map_err(|rule| {
            Problem::new(
                Reason::InvalidValue,
                format!("spec.valueFrom: the value under key {key} of Secret {name} {rule}"),
            )
        }),
    };
    let source = Source::Secret { uid: live.view.uid, resource_version: live.view.resource_version, key };
    Incoming { source, value }
}

fn generate(world: &mut World) -> Result<(), Failure> {
    let wanted = world.own.spec.generate.clone().unwrap_or_default();
    let alphabet: Alphabet = wanted.alphabet();
    let value = Plaintext::generate(wanted.length(), alphabet.characters().as_bytes())
        .map_err(|error| Failure::Crypto(error.to_string()))?;
    world.incoming = Some(Incoming { source: Source::Generate, value: Ok(value) });
    Ok(())
}

fn survivor_value(world: &mut World) -> Option<Plaintext> {
    let key = &world.own.status.target.as_ref()?.key;
    world.content.as_mut()?.values.remove(key)?
}
