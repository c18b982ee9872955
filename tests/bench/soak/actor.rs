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
use testkit::{Result, poll};

use super::{
    checker::Violation,
    late::Scene,
    seen::{Seen, State, digest, version},
};
use crate::{
    load::{self, Source},
    rows::progress,
};

/// The longest that an operation may take: also while a replica waits for the Lease of a killed leader.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// After this time, the operator follows a source and restores a target without delay. What comes sooner waits longer each
/// time, up to some minutes: then a late object would say nothing.
const REST: Duration = Duration::from_secs(61);

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
    fn choose(random: &mut StdRng, slot: &Slot) -> Self {
        if !slot.exists {
            return Self::Create;
        }
        match random.random_range(0..100) {
            50..65 => Self::Rename,
            65..80 => Self::Delete,
            80..90 if has_rested(slot.damaged) => Self::EditTarget,
            90.. if has_rested(slot.damaged) => Self::DeleteTarget,
            _ => Self::Edit,
        }
    }
}

/// Where the value of an object comes from, from its creation to its deletion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Sealed,
    /// Plaintext, which the webhook seals.
    Plain,
    Generated,
    /// A Secret of its own.
    Referenced,
}

impl Origin {
    fn choose(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0..4 => Self::Sealed,
            4..6 => Self::Plain,
            6..8 => Self::Generated,
            _ => Self::Referenced,
        }
    }
}

/// One object of a user.
struct Slot {
    name: String,
    exists: bool,
    /// The name of its secret.
    secret: String,
    origin: Origin,
    /// When its source had a new value.
    followed: Option<Instant>,
    /// When its target was last damaged, and restored.
    damaged: Option<Instant>,
}

/// Whether what happened at this time, if ever, is long enough ago to happen again.
fn has_rested(at: Option<Instant>) -> bool {
    at.is_none_or(|at| at.elapsed() > REST)
}

impl Slot {
    /// The Secret that a referenced value comes from.
    fn source(&self) -> String {
        format!("source-of-{}", self.name)
    }

    /// Whether its next edit is a new value. The operator delays the values of one source that come within a minute of each
    /// other, and does not replace a generated one.
    fn takes_a_new_value(&self) -> bool {
        match self.origin {
            Origin::Sealed | Origin::Plain => true,
            Origin::Generated => !self.exists,
            Origin::Referenced => !self.exists || has_rested(self.followed),
        }
    }
}

/// A user.
pub(super) struct Actor {
    seen: Arc<Seen>,
    scene: Arc<Scene>,
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
        scene: &Arc<Scene>,
        client: &Client,
        namespace: &str,
        key: &PublicKey,
        (seed, number, objects): (u64, usize, usize),
    ) -> Self {
        let slot = |slot| Slot {
            name: format!("user-{number}-{slot}"),
            exists: false,
            secret: String::new(),
            origin: Origin::Sealed,
            followed: None,
            damaged: None,
        };
        Self {
            seen: Arc::clone(watched),
            scene: Arc::clone(scene),
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
        let operation = Operation::choose(&mut self.random, &self.slots[index]);
        self.counter += 1;
        let began = Instant::now();
        match operation {
            Operation::Create | Operation::Edit => self.write(index).await?,
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

    /// Creates an object, or gives it a new value or, where it takes none now, a new description.
    async fn write(&mut self, index: usize) -> Result<()> {
        let text = self.unique(index);
        if !self.slots[index].exists {
            self.slots[index].origin = Origin::choose(&mut self.random);
        }
        let slot = &mut self.slots[index];
        let new_value = slot.takes_a_new_value();
        if !slot.exists {
            slot.secret.clone_from(&text);
        }
        slot.exists = true;
        let (name, source) = (slot.name.clone(), slot.source());
        let mut spec = json!({"name": slot.secret, "description": format!("soaked: {}", self.counter)});
        let origin = slot.origin;
        if new_value {
            slot.followed = Some(Instant::now());
            let mut state = self.seen.state.lock();
            match origin {
                Origin::Generated => state.checker.will_generate(&name),
                _ => state.checker.will_apply(&name, digest(text.as_bytes())),
            }
        }
        let field = match origin {
            Origin::Sealed => (Source::Value, json!(load::sealed(&self.key, &self.namespace, &name, &text)?)),
            Origin::Plain => (Source::Value, json!(text)),
            Origin::Generated => (Source::Generate, json!({})),
            Origin::Referenced => (Source::ValueFrom, load::from_source(&source)),
        };
        spec[field.0.field()] = field.1;
        if origin == Origin::Referenced && new_value {
            load::apply_source(&self.secrets, &source, &text).await?;
        }
        let object = match origin {
            // While no replica answers, the API server refuses plaintext.
            Origin::Plain => {
                poll("a plain value to be accepted", DEADLINE, || async {
                    Ok(load::apply(&self.objects, &name, &spec).await.ok())
                })
                .await?
            }
            _ => load::apply(&self.objects, &name, &spec).await?,
        };
        let generation = object.metadata.generation.unwrap_or_default();
        self.until(&name, "an edit", |state| {
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
        let (name, source) = (slot.name.clone(), (slot.origin == Origin::Referenced).then(|| slot.source()));
        let uid = self.seen.state.lock().objects.get(&name).map(|object| object.uid.clone());
        self.objects.delete(&name, &DeleteParams::default()).await?;
        self.until(&name, "the deletion", |state| {
            !state.objects.contains_key(&name) && !state.targets.contains_key(&name)
        })
        .await;
        self.seen.state.lock().forget(&name, uid);
        if let Some(source) = source {
            self.secrets.delete(&source, &DeleteParams::default()).await?;
        }
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
        self.seen.state.lock().checker.repaired(&name);
        self.slots[index].damaged = Some(Instant::now());
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
        self.slots[index].damaged = Some(Instant::now());
        Ok(())
    }

    /// Waits until the state is as it must be. What is late is a violation.
    async fn until(&self, name: &str, what: &str, is: impl Fn(&State) -> bool) {
        if self.seen.until(DEADLINE, is).await.is_err() {
            let lost = Violation::Lost { what: what.to_owned() };
            progress(&format!("soak: {name}: {lost}\n{}", self.scene.describe(name).await));
            self.seen.state.lock().violations.push((name.to_owned(), lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each of two operations is chosen of a thousand, for an object whose target was damaged at this time.
    fn chosen(damaged: Option<Instant>) -> [usize; 2] {
        let slot = Slot {
            name: "db".to_owned(),
            exists: true,
            secret: "DB".to_owned(),
            origin: Origin::Generated,
            followed: None,
            damaged,
        };
        let mut random = StdRng::seed_from_u64(1);
        let all: Vec<Operation> = (0..1000).map(|_| Operation::choose(&mut random, &slot)).collect();
        [Operation::EditTarget, Operation::DeleteTarget].map(|wanted| all.iter().filter(|it| **it == wanted).count())
    }

    #[test]
    fn a_target_is_left_alone_until_a_repair_waits_for_nothing() {
        assert_eq!(chosen(Some(Instant::now())), [0, 0]);
        for rested in [None, Instant::now().checked_sub(REST * 2)] {
            assert!(chosen(rested).iter().all(|times| (50..200).contains(times)), "{rested:?}");
        }
    }
}
