//! One user: it creates, edits, renames and deletes objects of its own and damages their targets, one after the other, and
//! waits each time until everything is as it must be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys};
use managed_secrets_crypto::mss1::PublicKey;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use testkit::Result;

use super::{
    checker::Violation,
    seen::{Seen, State, digest, version},
};
use crate::load::{self, Source};

/// The longest that an operation may take: also while a replica waits for the Lease of a killed leader.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// What a user does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operation {
    Create,
    Edit,
    Rename,
    Delete,
    /// Another program writes into the target.
    EditTarget,
    /// Another program deletes the target.
    DeleteTarget,
}

impl Operation {
    /// The next one for an object that exists, or does not.
    fn choose(random: &mut StdRng, exists: bool) -> Self {
        if !exists {
            return Self::Create;
        }
        match random.random_range(0..100) {
            0..50 => Self::Edit,
            50..65 => Self::Rename,
            65..80 => Self::Delete,
            80..90 => Self::EditTarget,
            _ => Self::DeleteTarget,
        }
    }
}

/// One object of a user.
struct Slot {
    name: String,
    exists: bool,
    /// The name of its secret.
    secret: String,
}

/// A user.
pub(super) struct Actor {
    seen: Arc<Seen>,
    namespace: String,
    objects: Api<ManagedSecret>,
    secrets: Api<Secret>,
    key: PublicKey,
    random: StdRng,
    slots: Vec<Slot>,
    /// Makes values and names unique.
    counter: usize,
}

impl Actor {
    /// A user with so many objects. The same seed and number do the same things.
    pub(super) fn new(
        watched: &Arc<Seen>,
        client: &Client,
        namespace: &str,
        key: &PublicKey,
        (seed, number, objects): (u64, usize, usize),
    ) -> Self {
        let slot = |slot| Slot { name: format!("user-{number}-{slot}"), exists: false, secret: String::new() };
        Self {
            seen: Arc::clone(watched),
            namespace: namespace.to_owned(),
            objects: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            key: key.clone(),
            random: StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(number).unwrap_or_default())),
            slots: (0..objects).map(slot).collect(),
            counter: 0,
        }
    }

    /// Does one thing, and waits until it is done. Returns what it did, and how long it took.
    pub(super) async fn act(&mut self) -> Result<(Operation, Duration)> {
        let index = self.random.random_range(0..self.slots.len());
        let operation = Operation::choose(&mut self.random, self.slots[index].exists);
        self.counter += 1;
        let began = Instant::now();
        match operation {
            Operation::Create | Operation::Edit => self.write_value(index).await?,
            Operation::Rename => self.rename(index).await?,
            Operation::Delete => self.delete(index).await?,
            Operation::EditTarget => self.edit_target(index).await?,
            Operation::DeleteTarget => self.delete_target(index).await?,
        }
        Ok((operation, began.elapsed()))
    }

    /// The objects that must exist, each with the name of its secret.
    pub(super) fn present(&self) -> impl Iterator<Item = (&str, &str)> {
        self.slots.iter().filter(|slot| slot.exists).map(|slot| (slot.name.as_str(), slot.secret.as_str()))
    }

    /// A text that no object had before.
    fn unique(&self, index: usize) -> String {
        format!("{}-{}", self.slots[index].name, self.counter)
    }

    async fn write_value(&mut self, index: usize) -> Result<()> {
        let value = self.unique(index);
        let slot = &mut self.slots[index];
        if !slot.exists {
            slot.secret.clone_from(&value);
        }
        slot.exists = true;
        let (name, secret) = (slot.name.clone(), slot.secret.clone());
        let text = load::sealed(&self.key, &self.namespace, &name, &value)?;
        self.seen.state.lock().checker.will_apply(&name, digest(value.as_bytes()));
        let mut spec = json!({"name": secret, "description": "soaked"});
        spec[Source::Value.field()] = json!(text);
        let generation = load::apply(&self.objects, &name, &spec).await?.metadata.generation.unwrap_or_default();
        self.until(&name, "a new value", |state| {
            let object = state.objects.get(&name);
            object.is_some_and(|object| object.delivered && object.generation >= generation)
                && state.target_is_latest(&name)
        })
        .await;
        Ok(())
    }

    async fn rename(&mut self, index: usize) -> Result<()> {
        let secret = self.unique(index);
        let slot = &mut self.slots[index];
        slot.secret.clone_from(&secret);
        let name = slot.name.clone();
        let patch = Patch::Merge(json!({"spec": {"name": secret}}));
        self.objects.patch(&name, &PatchParams::default(), &patch).await?;
        self.until(&name, "a new name", |state| {
            let object = state.objects.get(&name);
            object.is_some_and(|object| object.delivered && object.name.as_ref() == Some(&secret))
                && state.target_is_latest(&name)
        })
        .await;
        Ok(())
    }

    async fn delete(&mut self, index: usize) -> Result<()> {
        let slot = &mut self.slots[index];
        slot.exists = false;
        let name = slot.name.clone();
        self.objects.delete(&name, &DeleteParams::default()).await?;
        self.until(&name, "the deletion", |state| {
            !state.objects.contains_key(&name) && !state.targets.contains_key(&name)
        })
        .await;
        self.seen.state.lock().checker.forget(&name);
        Ok(())
    }

    async fn edit_target(&mut self, index: usize) -> Result<()> {
        let intruder = format!("intruder-{}", self.unique(index));
        let name = self.slots[index].name.clone();
        self.seen.state.lock().checker.will_drift(&name, digest(intruder.as_bytes()));
        let patch = Patch::Merge(json!({"stringData": {keys::DEFAULT_TARGET_KEY: intruder}}));
        let written = self.secrets.patch(&name, &PatchParams::default(), &patch).await?;
        let written = version(written.metadata.resource_version.as_deref());
        self.until(&name, "the repair of the target", |state| {
            let target = state.targets.get(&name);
            target.is_some_and(|target| target.resource_version > written) && state.target_is_latest(&name)
        })
        .await;
        Ok(())
    }

    async fn delete_target(&mut self, index: usize) -> Result<()> {
        let name = self.slots[index].name.clone();
        let before = self.seen.state.lock().targets.get(&name).map(|target| target.uid.clone());
        self.secrets.delete(&name, &DeleteParams::default()).await?;
        self.until(&name, "another target", |state| {
            let target = state.targets.get(&name);
            target.is_some_and(|target| Some(&target.uid) != before.as_ref()) && state.target_is_latest(&name)
        })
        .await;
        Ok(())
    }

    /// Waits until the state is as it must be. What is late is a violation.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&State) -> bool) {
        if self.seen.until(DEADLINE, is).await.is_err() {
            let lost = Violation::Lost { what: what.to_owned() };
            self.seen.state.lock().violations.push((name.to_owned(), lost));
        }
    }
}
