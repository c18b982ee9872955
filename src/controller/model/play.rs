//! Plays a sequence of steps on the model, brings it to rest, and asks whether all is well.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use managed_secrets_api::{
    ManagedSecretSpec,
    expiry::Expiry,
    keys::{ANNO_OWNER, LABEL_ID, LABEL_ROLE, ROLE_RECORD},
    names::record_name,
    overlap::Overlap,
    types::{
        Adoption, DeletionPolicy, Delivery, Generate, SealedValue, SecretKeyRef, Target, ValueFrom, Workload,
        WorkloadKind,
    },
};
use managed_secrets_crypto::{
    Keyring, Plaintext,
    keyring::{Kek, Wrapped},
    mss1::{self, Handling, Scope},
};
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    line::{Plan, When},
    operator::{Clock, Operator},
    oracle::Oracle,
    rest,
    server::{Server, is_labelled},
    steps::{Edit, Event, From, Meanwhile, Meddle, OBJECTS, Pick, Step, Work},
    store::{Field, Maker, Object, Stored, USER},
    templates,
    workload::{SHOP, Touch},
};
use crate::controller::{model::store::NAMESPACE, run::RESYNC, view::shape::TEXT_KEPT_BYTES};

/// ManagedSecrets.
pub(super) const NAMES: [&str; OBJECTS] = ["a", "b", "c"];
const SPEC_NAMES: [&str; 3] = ["ONE", "TWO", "THREE"];
/// Names of targets: those of the objects, and two more.
const TARGETS: [&str; 5] = ["a", "b", "c", "shared", "legacy"];
/// An annotation that a target may have.
pub(super) const NOTE: &str = "note";
/// The key of a previous value.
pub(super) const PREVIOUS: &str = "previous";
const SOURCES: [&str; 2] = ["upstream", "other-upstream"];
/// What sources hold, and what is sealed. Two of them are used as either.
pub(super) const VALUES: [&str; 3] = ["canary-5a1f8e", "canary-c07d42", "canary-9be366"];
/// Passes in which everything must come to rest.
const MAX_PASSES: usize = 200;
/// In seconds.
const HOUR: i64 = 3600;
/// Longer than the checks at rest take, in seconds.
const SOON: i64 = 900;
/// The model's first second.
const START: i64 = 1_795_420_800;
const DAY: i64 = 86_400;

/// A keyring and texts sealed to it: made once, for sealing is slow.
struct Keys {
    keyring: Arc<Keyring>,
    sealed: Vec<String>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let kek = Kek::new(&[7; 32]).unwrap();
        let wrap = |bytes: &[u8]| {
            kek.wrap(bytes).map(|ciphertext| Wrapped::new("local", kek.key_id().to_string(), ciphertext))
        };
        let document = Keyring::generate_entries(Timestamp::from_second(START).unwrap(), wrap).unwrap();
        let keyring = Keyring::open([&document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap();
        let public = keyring.current_public_key().unwrap().key;
        let scope = Scope::Namespace { namespace: NAMESPACE.to_owned() };
        let seal = |text: &str| {
            let value = Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap();
            mss1::seal(&public, &scope, Handling::Deliverable, &value).unwrap()
        };
        // The second is another text of the first one's value.
        let sealed = vec![seal(VALUES[0]), seal(VALUES[0]), seal(VALUES[1])];
        Keys { keyring: Arc::new(keyring), sealed }
    })
}

/// A model with two operators.
#[derive(Clone)]
pub(super) struct Play {
    pub(super) server: Arc<Mutex<Server>>,
    pub(super) operators: [Arc<Operator>; 2],
    clock: Arc<Mutex<Clock>>,
    /// Only the first operator works, and it hears everything before each pass.
    attentive: bool,
}

pub(super) fn base64(text: &str) -> serde_json::Value {
    json!(BASE64_STANDARD.encode(text))
}

impl Play {
    /// An empty namespace. Needs a runtime.
    pub(super) fn new(attentive: bool) -> Self {
        let keyring = &keys().keyring;
        let mut oracle = Oracle::new(Arc::clone(keyring), VALUES.map(str::to_owned));
        oracle.attentive = attentive;
        let server = Arc::new(Mutex::new(Server::new(oracle)));
        let clock = Arc::new(Mutex::new(Clock { passed: 0, set: START, leapt: false }));
        let now = clock.lock().wall();
        server.lock().touch(Touch::Create, now);
        let operator =
            |looks| Arc::new(Operator::new(Arc::clone(&server), Arc::clone(keyring), Arc::clone(&clock), looks));
        Self { operators: [operator(true), operator(false)], server, clock, attentive }
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock()
    }

    pub(super) fn tick(&self, seconds: i64) {
        self.clock.lock().passed += seconds;
    }

    /// One step.
    pub(super) async fn step(&self, step: &Step) {
        self.server().story.push(format!("* {step:?}"));
        match step {
            Step::Event(event) => self.event(event),
            Step::Work(which, work) => self.work(*which, work).await,
        }
        self.tick(1);
    }

    async fn work(&self, which: usize, work: &Work) {
        let which = if self.attentive { 0 } else { which };
        let operator = &self.operators[which];
        match work {
            Work::Hear(stream, most) => operator.hear(*stream, *most),
            Work::CatchUp => operator.catch_up(),
            Work::ListAgain => operator.list_again(),
            Work::Restart => operator.restart(),
            Work::Pass { object, late, fault, meanwhile } => {
                let meanwhile = meanwhile.as_ref().map(|(at, meanwhile)| {
                    let when = if matches!(**meanwhile, Meanwhile::Shown(_)) { When::After } else { When::Before };
                    (*at, when, self.meanwhile(which, meanwhile))
                });
                let plan = Plan { fault: *fault, meanwhile };
                if self.attentive {
                    operator.catch_up();
                }
                operator.pass(NAMES[*object], plan, *late).await;
            }
            Work::Look { seconds, fault, meanwhile } => {
                self.tick(i64::from(*seconds));
                let meanwhile = meanwhile.map(|(at, touch)| {
                    let touched = Meanwhile::Event(Event::Workload(touch));
                    (at, When::Before, self.meanwhile(which, &touched))
                });
                operator.look(Plan { fault: *fault, meanwhile }).await;
            }
            Work::Settle => {
                // Not to rest, but as far as a busy moment comes.
                operator.ring();
                for _ in 0..6 {
                    operator.catch_up();
                    let Some(name) = operator.next() else { break };
                    operator.pass(&name, Plan::default(), false).await;
                }
            }
        }
    }

    fn meanwhile(&self, which: usize, meanwhile: &Meanwhile) -> BoxFuture<'static, ()> {
        let (play, meanwhile) = (self.clone(), meanwhile.clone());
        async move {
            match meanwhile {
                Meanwhile::Event(event) => play.event(&event),
                Meanwhile::Shown(event) => {
                    play.event(&event);
                    play.server().collect();
                    play.operators[which].catch_up();
                }
                Meanwhile::Other { .. } if play.attentive => {}
                Meanwhile::Other { object, fresh, fault } => {
                    let other = &play.operators[1 - which];
                    if fresh {
                        other.catch_up();
                    }
                    other.pass(NAMES[object], Plan { fault, meanwhile: None }, false).await;
                }
            }
        }
        .boxed()
    }

    /// Something happens that no operator does.
    pub(super) fn event(&self, event: &Event) {
        let mut server = self.server();
        match *event {
            Event::Apply(object, ref edits) => {
                let name = NAMES[object];
                let live = server.objects.get(name).map(|object| object.spec.clone());
                let mut spec = live.unwrap_or_else(|| first_spec(object));
                for edit in edits {
                    apply_edit(&mut spec, name, *edit);
                }
                server.apply_spec(name, spec);
            }
            Event::DeleteObject(object, how) => server.delete_object(NAMES[object], how),
            Event::HoldObject(object, hold) => server.edit_object(NAMES[object], |object| object.finalizer = hold),
            Event::LoseStatus(object) => lose_status(&mut server, NAMES[object]),
            Event::Source { source, value, other_key } => server.edit_secret(SOURCES[source], |secret| {
                let key = if other_key { "other" } else { "token" };
                secret.edit(Field::Data(key.to_owned()), Some(base64(VALUES[value])));
            }),
            Event::DropSource(source) => server.remove_secret(SOURCES[source]),
            Event::Meddle(which, meddle) => {
                let names: Vec<String> =
                    server.secrets.keys().filter(|name| !SOURCES.contains(&name.as_str())).cloned().collect();
                if !names.is_empty() {
                    let name = &names[which % names.len()];
                    if matches!(meddle, Meddle::Delete | Meddle::RemoveRole) {
                        self.excuse_loss(&mut server, name);
                    }
                    apply_meddle(&mut server, name, meddle);
                }
            }
            Event::Squat { target, value, controlled } => {
                let name = TARGETS[target];
                if !server.secrets.contains_key(name) {
                    server.edit_secret(name, |secret| {
                        secret.edit(Field::Data("theirs".to_owned()), Some(base64("theirs")));
                        if let Some(value) = value {
                            let text = if value { VALUES[0] } else { "something else" };
                            secret.edit(Field::Data("value".to_owned()), Some(base64(text)));
                        }
                        if controlled {
                            let uid = "00000000-0000-4000-9000-000000000000";
                            let owner = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "theirs", "uid": uid, "controller": true });
                            secret.edit(Field::Owner(uid.to_owned()), Some(owner));
                        }
                    });
                }
            }
            Event::SquatRecord(name) => {
                let name = record_name(SPEC_NAMES[name]);
                if !server.secrets.contains_key(&name) {
                    server.edit_secret(&name, |secret| {
                        secret.edit(Field::Data("theirs".to_owned()), Some(base64("theirs")));
                    });
                }
            }
            Event::Copy { which, to } => copy(&mut server, which, TARGETS[to]),
            Event::Workload(touch) => {
                let now = self.clock.lock().wall();
                server.touch(touch, now);
            }
            Event::Collect => server.collect(),
            Event::Tick(seconds) => self.tick(i64::from(seconds)),
            Event::Pass(hours) => {
                self.tick(i64::from(hours) * HOUR);
                self.clock.lock().leapt = true;
            }
            Event::Jump(hours) => {
                let mut clock = self.clock.lock();
                clock.set += i64::from(hours) * HOUR;
                clock.leapt = true;
            }
        }
    }

    /// A record is about to go, or to be shown by no watch: unless status knows what it says, and every cache that
    /// status, no event will.
    fn excuse_loss(&self, server: &mut Server, name: &str) {
        let Some(record) = server.secrets.get(name).and_then(|secret| server.oracle.open(secret)) else { return };
        let meta = record.meta;
        let known = server.objects.values().find(|object| object.uid == meta.uid).is_some_and(|object| {
            let status = object.status.clone().unwrap_or_default();
            status["id"] == json!(meta.id) && status["version"] == json!(meta.version)
        });
        let heard = self.operators.iter().all(|operator| operator.known_id(&meta.owner).as_ref() == Some(&meta.id));
        if !known || !heard {
            server.oracle.excuse(&meta.uid);
            server.oracle.excuse(&meta.id);
        }
    }

    /// Stops what goes on outside, lets both operators work until nothing is left, and says what is wrong.
    pub(super) async fn come_to_rest(&self) -> Result<(), String> {
        self.server().story.push("* to rest".to_owned());
        for operator in &self.operators {
            // At any time between passes: what another operator does later may hide what is wrong here.
            operator.catch_up();
            operator.shows_what_is_stored()?;
        }
        for name in NAMES {
            self.server().edit_object(name, |object| object.finalizer = false);
        }
        let held: Vec<String> = self
            .server()
            .secrets
            .values()
            .filter(|secret| secret.finalizer)
            .map(|secret| secret.name.clone())
            .collect();
        for name in held {
            self.server().edit_secret(&name, |secret| secret.finalizer = false);
        }
        self.server().collect();
        // Woken by events and by nothing else; then by the timers that are set for what no watch shows.
        for _ in 0..3 {
            self.work_off().await?;
            self.tick(301);
            self.operators.iter().for_each(|operator| operator.ring());
        }
        self.work_off().await?;
        self.pass_dates().await?;
        self.restart_workloads().await?;
        // The operator does not watch workloads: one that was created again gets its marks when an operator starts, and
        // of one that was deleted the status says so then.
        let is_unseen = self.server().workload.is_unseen();
        if is_unseen {
            for operator in &self.operators {
                operator.restart();
                operator.wake_all();
            }
            self.work_off().await?;
            self.restart_workloads().await?;
        }
        // Looked at all over again, nothing is written.
        for restart in [false, true] {
            for operator in &self.operators {
                if restart {
                    operator.restart();
                }
                operator.wake_all();
            }
            let writes = self.work_off().await? + self.restart_workloads().await?;
            if writes != 0 {
                return Err(format!("at rest, and yet {writes} writes (restarted: {restart})"));
            }
        }
        let now = self.clock.lock().wall();
        rest::check(&self.server(), now)
    }

    /// Looks at workloads until nothing is left to do. Returns the number of writes.
    async fn restart_workloads(&self) -> Result<usize, String> {
        let mut writes = 0;
        // Longer than the operator waits for more values, and than it leaves one alone that does not exist.
        for seconds in [0, 11, 301, 11, 11] {
            self.tick(seconds);
            for operator in &self.operators {
                writes += operator.look(Plan::default()).await;
            }
            writes += self.work_off().await?;
        }
        Ok(writes)
    }

    /// Lets come what dates in the past ask for, or dates so close that they would fall into what follows.
    async fn pass_dates(&self) -> Result<(), String> {
        self.tick(i64::try_from(RESYNC.as_secs()).unwrap() + 1);
        self.wake_dated();
        self.work_off().await?;
        loop {
            let now = self.clock.lock().wall();
            let left = |date: Timestamp| date.as_second() - now.as_second();
            let soon = {
                let server = self.server();
                let rotation = |object: &Object| object.status_text("/nextRotation")?.parse().ok();
                let expiry = |object: &Object| Expiry::of(&object.spec)?.next_change(now);
                let overlap = |object: &Object| {
                    let kept = object.status.as_ref()?["history"].as_array().cloned().unwrap_or_default();
                    let until = kept.iter().find_map(|kept| kept["deliveredUntil"].as_str());
                    let since = until.or_else(|| object.status_text("/valueUpdatedTime"))?;
                    match Overlap::of(&object.spec, since, now) {
                        Overlap::Until(end) => Some(end),
                        Overlap::None | Overlap::Open => None,
                    }
                };
                let dates = |object| [rotation(object), expiry(object), overlap(object)].into_iter().flatten();
                server.objects.values().flat_map(dates).map(left).filter(|left| (0..SOON).contains(left)).max()
            };
            let Some(left) = soon else { return Ok(()) };
            self.tick(left + 1);
            self.wake_dated();
            self.work_off().await?;
        }
    }

    /// Has objects looked at of which something depends on the wall clock.
    fn wake_dated(&self) {
        let rotates =
            |spec: &ManagedSecretSpec| spec.generate.as_ref().is_some_and(|generate| generate.rotate_every.is_some());
        let is_dated = |spec: &ManagedSecretSpec| rotates(spec) || spec.expires.is_some() || spec.overlap.is_some();
        let server = self.server();
        let dated: Vec<String> =
            server.objects.values().filter(|object| is_dated(&object.spec)).map(|object| object.name.clone()).collect();
        drop(server);
        let leapt = self.clock.lock().leapt;
        for operator in &self.operators {
            operator.ring();
            operator.wake(dated.clone());
            if leapt {
                operator.wake_all();
            }
        }
    }

    /// Works off both queues. Returns the number of writes.
    async fn work_off(&self) -> Result<usize, String> {
        let (mut passes, mut writes, mut last) = (0, 0, String::new());
        loop {
            let mut idle = true;
            for operator in &self.operators {
                operator.catch_up();
                let Some(name) = operator.next() else { continue };
                idle = false;
                let done = operator.pass(&name, Plan::default(), false).await;
                writes += done.writes;
                passes += 1;
                last = format!("{name}: {} writes, {:?}", done.writes, done.end);
                self.tick(1);
            }
            self.server().collect();
            if idle {
                let quiet = self.operators.iter().all(|operator| {
                    operator.catch_up();
                    operator.is_idle()
                });
                if quiet {
                    return Ok(writes);
                }
            }
            if passes > MAX_PASSES {
                return Err(format!("no rest after {passes} passes; the last: {last}"));
            }
        }
    }

    /// Every request and answer, for a reader who wonders.
    pub(super) fn story(&self) -> String {
        self.server().story.join("\n")
    }

    /// What was wrong so far.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let wrong = &self.server().oracle.wrong;
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

fn first_spec(object: Pick) -> ManagedSecretSpec {
    let mut spec = ManagedSecretSpec {
        name: SPEC_NAMES[object].to_owned(),
        generate: Some(Generate::default()),
        ..ManagedSecretSpec::default()
    };
    expire(&mut spec, object);
    spec
}

/// A date on which the value expires: while steps are played; later, and the warning has begun; much later; or none.
fn expire(spec: &mut ManagedSecretSpec, pick: Pick) {
    let seconds = [100, 20 * DAY, 1000 * DAY].get(pick);
    spec.expires = seconds.map(|seconds| Timestamp::from_second(START + seconds).unwrap().to_string());
    spec.expiry_warning = (pick == 0).then(|| "50s".to_owned());
}

fn apply_edit(spec: &mut ManagedSecretSpec, name: &str, edit: Edit) {
    match edit {
        Edit::Name(pick) => spec.name = SPEC_NAMES[pick].to_owned(),
        Edit::Description(pick) => {
            spec.description = (pick > 0).then(|| format!("number {pick}"));
            expire(spec, pick + 1);
        }
        Edit::From(from) => {
            (spec.value, spec.value_from, spec.generate) = (None, None, None);
            match from {
                From::Generate { long } => {
                    spec.generate = Some(Generate { length: long.then_some(48), ..Generate::default() });
                }
                From::Source { source, other_key } => {
                    let key = if other_key { "other" } else { "token" };
                    let reference = SecretKeyRef { name: SOURCES[source].to_owned(), key: key.to_owned() };
                    spec.value_from = Some(ValueFrom { secret_key_ref: reference });
                }
                From::Sealed(pick) => spec.value = Some(SealedValue(keys().sealed[pick].clone())),
            }
        }
        Edit::Deliver(yes) => spec.delivery = (!yes).then_some(Delivery::None),
        Edit::Retain(yes) => spec.deletion_policy = yes.then_some(DeletionPolicy::Retain),
        Edit::Suspend(yes) => spec.suspend = yes.then_some(true),
        Edit::RotateEvery(yes) => {
            if let Some(generate) = &mut spec.generate {
                generate.rotate_every = yes.then(|| "1h".to_owned());
            }
        }
        Edit::Revision(pick) => {
            if let Some(generate) = &mut spec.generate {
                generate.revision = pick.map(|pick| format!("r{pick}"));
            }
        }
        Edit::History(number) => spec.history = number,
        Edit::Version(version) => spec.version = version,
        Edit::Restart(yes) => {
            let shop = Workload { kind: WorkloadKind::Deployment, name: SHOP.to_owned() };
            target(spec).restart = yes.then(|| vec![shop]);
        }
        Edit::Previous { key, overlap } => {
            target(spec).previous_key = key.then(|| PREVIOUS.to_owned());
            spec.overlap = overlap.then(|| "30m".to_owned());
        }
        Edit::TargetName(pick) => {
            target(spec).name = Some(TARGETS[pick].to_owned()).filter(|target| target != name);
        }
        Edit::TargetKey(other) => target(spec).key = other.then(|| "token".to_owned()),
        Edit::TargetType(other) => target(spec).type_ = other.then(|| "example.com/other".to_owned()),
        Edit::TargetLabel(yes) => {
            target(spec).labels = yes.then(|| BTreeMap::from([("team".to_owned(), "blue".to_owned())]));
        }
        Edit::TargetNote(pick) => {
            let note = pick.map(|pick| pick.to_string().repeat(TEXT_KEPT_BYTES));
            target(spec).annotations = note.map(|note| BTreeMap::from([(NOTE.to_owned(), note)]));
        }
        Edit::TargetTexts(pick) => {
            apply_edit(spec, name, Edit::TargetNote(pick.filter(|pick| *pick != 1)));
            target(spec).template = pick.map(templates::texts);
        }
        Edit::Adopt(yes) => target(spec).adoption = yes.then_some(Adoption::IfUnowned),
    }
}

fn target(spec: &mut ManagedSecretSpec) -> &mut Target {
    spec.target.get_or_insert_default()
}

/// The records that carry a ManagedSecret's uid: names, versions and ids.
fn records_of(server: &Server, uid: &str) -> Vec<(String, u64, String)> {
    let open = server.secrets.values().filter_map(|secret| Some((secret, server.oracle.open(secret)?)));
    open.filter(|(secret, record)| record.meta.uid == uid && !secret.deleting && is_labelled(secret))
        .map(|(secret, record)| (secret.name.clone(), record.meta.version, record.meta.id))
        .collect()
}

fn lose_status(server: &mut Server, name: &str) {
    let Some(object) = server.objects.get(name).cloned() else { return };
    // With the record gone as well, nothing is left that could know the id.
    if records_of(server, &object.uid).is_empty() {
        server.oracle.excuse(&object.uid);
    }
    server.edit_object(name, |object| object.status = None);
}

fn apply_meddle(server: &mut Server, name: &str, meddle: Meddle) {
    let live = server.secrets[name].clone();
    let is_record = live.name.starts_with("msec-");
    match meddle {
        // What a forged record leads to is its own test's matter.
        Meddle::EditValue | Meddle::Label | Meddle::RemoveLabels | Meddle::RemoveOwners if is_record => {}
        Meddle::EditValue => server.edit_secret(name, |secret| {
            let frozen = secret.fields.contains_key(&Field::Immutable);
            let ours = secret.fields.keys().find(|field| matches!(field, Field::Data(key) if key != "theirs")).cloned();
            if let Some(field) = ours.filter(|_| !frozen) {
                secret.edit(field, Some(base64("edited")));
            }
        }),
        Meddle::AddKey => server.edit_secret(name, |secret| {
            if !secret.fields.contains_key(&Field::Immutable) {
                secret.edit(Field::Data("theirs".to_owned()), Some(base64("theirs")));
            }
        }),
        Meddle::RemoveRole => server.edit_secret(name, |secret| secret.edit(Field::Label(LABEL_ROLE.to_owned()), None)),
        Meddle::RemoveLabels => server.edit_secret(name, |secret| {
            for label in [LABEL_ROLE, LABEL_ID] {
                secret.edit(Field::Label(label.to_owned()), None);
            }
            secret.edit(Field::Annotation(ANNO_OWNER.to_owned()), None);
        }),
        Meddle::RemoveOwners => server.edit_secret(name, |secret| {
            secret.fields.retain(|field, _| !matches!(field, Field::Owner(_)));
        }),
        Meddle::Label => server.edit_secret(name, |secret| {
            secret.edit(Field::Label("theirs".to_owned()), Some(json!("yes")));
        }),
        Meddle::Delete => server.remove_secret(name),
        Meddle::Freeze => server.edit_secret(name, |secret| secret.edit(Field::Immutable, Some(json!(true)))),
        Meddle::Hold(hold) => server.edit_secret(name, |secret| secret.finalizer = hold),
    }
}

/// A copy as people make them: all of it but uid and name, and all of it a user's.
fn copy(server: &mut Server, which: usize, to: &str) {
    let all: Vec<&Stored> = server.secrets.values().filter(|secret| secret.label(LABEL_ROLE).is_some()).collect();
    if all.is_empty() || server.secrets.contains_key(to) {
        return;
    }
    let original = all[which % all.len()].clone();
    if original.label(LABEL_ROLE) == Some(ROLE_RECORD) {
        return;
    }
    server.edit_secret(to, |secret| {
        secret.maker = Maker::User;
        secret.fields = original.fields;
        for cell in secret.fields.values_mut() {
            cell.managers = [USER].into();
        }
    });
}
