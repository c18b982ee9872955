//! What a pass works with, and the calls that every write of a Secret makes.

use std::time::Instant;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use managed_secrets_api::keys::{GROUP, KIND, VERSION};
use managed_secrets_client::Run;
use managed_secrets_crypto::keyring::Keyring;
use managed_secrets_engine::stats::Stats;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Map, Value, json};
use tracing::warn;

use super::super::{
    altered::{Altered, Field, Intent, Part},
    cluster::Cluster,
    events::Events,
    facts::{Asked, Facts},
    failure::Failure,
    index::{Index, Key, Sent},
    plan::Slot,
    record::Authenticity,
    view::{LiveSecret, Own, SecretView},
};

/// What a pass works with.
pub(crate) struct Actor<'a> {
    /// Calls in the object's namespace.
    pub cluster: Cluster,
    /// The keys.
    pub keyring: &'a Keyring,
    /// Why no new value may be encrypted, if so.
    pub refused: Option<String>,
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
pub(super) enum Applied {
    /// The Secret as it is now, and what admission control of others changed of it on its way.
    Stored(Box<LiveSecret>, Option<Field>),
    /// Nothing was written: admission control of others would have spoiled the Secret by changing this field.
    Kept(Field),
}

impl Actor<'_> {
    /// Applies a whole Secret. Over an existing one, a dry run comes first: what admission control of others would spoil is
    /// not written, for what the Secret holds may have no other copy. `asked` is a dry run of this pass, which counts if it
    /// was about the very same write.
    pub(super) async fn apply(
        &self,
        name: &str,
        slot: &Slot,
        body: Value,
        intent: &Intent<'_>,
        part: Part,
        asked: Option<Asked>,
    ) -> Result<Applied, Failure> {
        let body = self.cluster.whole(name, slot, body);
        if *slot != Slot::Free {
            let stored = match asked {
                Some(asked) if asked.body == body => asked.stored,
                _ => self.cluster.apply_secret(name, slot, Run::Dry, &body).await?,
            };
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
    pub(super) fn count(&self, slot: &Slot, after: &SecretView) {
        if *slot == Slot::over(after) {
            self.stats.idle_writes.increment();
        }
    }

    /// Has another field manager own keys of an adopted Secret, so that what is under them stays when ours gives them up;
    /// the Secret as it is then. What was left before stays that manager's.
    pub(super) async fn leave(&self, name: &str, slot: &Slot, keys: &[&str]) -> Result<Slot, Failure> {
        let live = self.cluster.secret(name, keys).await?.filter(|live| Slot::over(&live.view) == *slot);
        let live = live.ok_or(Failure::Conflict)?;
        if !keys.iter().any(|key| live.data.contains_key(*key)) {
            return Ok(slot.clone());
        }
        let stays = |key: &String| keys.contains(&key.as_str()) || live.view.left.contains(key);
        let left = live.data.iter().filter(|(key, _)| stays(key));
        let data: Map<_, _> = left.map(|(key, bytes)| (key.clone(), json!(BASE64_STANDARD.encode(bytes)))).collect();
        let body = json!({"metadata": {}, "data": data});
        let live = self.cluster.leave_in_secret(name, slot, body).await?;
        Ok(Slot::over(&live.view))
    }

    pub(super) fn written(&self, facts: &mut Facts, call: Call<'_>, view: SecretView) {
        let put = |index: &mut Index, sent: &Sent| {
            index.put_written(&facts.snapshot.own.namespace, view.clone().kept(), sent, Instant::now())
        };
        let concerned = call.answered(put);
        self.wake_others(facts, concerned);
        let authenticity = Authenticity::for_object(&view, &facts.snapshot.own, self.keyring);
        facts.put(view, authenticity);
    }

    /// Has those looked at whom it concerns what this pass did or found: but for its own object, which knows.
    pub(super) fn wake_others(&self, facts: &Facts, mut concerned: Vec<Key>) {
        concerned.retain(|key| *key.name != *facts.snapshot.own.name);
        (self.wake)(concerned);
    }

    /// Announces a call to the index, about the Secret or ManagedSecret `name`.
    pub(super) fn call(&self, facts: &Facts, name: &str) -> Call<'_> {
        let sent = self.index().send(&facts.snapshot.own.namespace, name);
        Call { index: self.index, sent: Some(sent) }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }
}

/// A call that is on its way, and whose answer goes into the index. Given up where it is dropped: at an error, or with the
/// pass at its deadline.
pub(super) struct Call<'a> {
    index: &'a Mutex<Index>,
    sent: Option<Sent>,
}

impl Call<'_> {
    /// Puts the answer in.
    pub(super) fn answered(mut self, put: impl FnOnce(&mut Index, &Sent) -> Vec<Key>) -> Vec<Key> {
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
pub(super) fn stopped(facts: &mut Facts, secret: &str, part: Part, failure: Failure) -> Result<(), Failure> {
    let Some(field) = Field::behind(&failure) else { return Err(failure) };
    note_altered(facts, Altered { secret: secret.to_owned(), part, field });
    Ok(())
}

/// Admission control of others changes what a write says.
pub(super) fn note_altered(facts: &mut Facts, altered: Altered) {
    let (secret, field) = (&altered.secret, altered.field.path());
    warn!(secret, field, "an admission policy or webhook changes what the operator writes");
    facts.written.altered.push(altered);
    facts.written.repaired = true;
}

pub(super) fn owner_references(own: &Own, wanted: bool) -> serde_json::Value {
    if !wanted {
        return json!([]);
    }
    // Without `blockOwnerDeletion`: that would need a right on finalizers, and hold up a foreground deletion.
    json!([{"apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "name": own.name, "uid": own.uid}])
}
