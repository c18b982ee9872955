//! What must hold at every single write, whatever happened before: asked by the model's API server.
//!
//! In: each write of an operator, with the state before and after. Out: a list of what was wrong. It knows the keyring
//! and opens every record that is written, so it can follow values where no test could.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::{SignedDuration, Timestamp};
use managed_secrets_api::keys::{
    ANNO_OWNER, ANNO_UID, LABEL_ID, LABEL_ROLE, RECORD_DATA_KEY, ROLE_RECORD, ROLE_TARGET,
};
use managed_secrets_api::record::{KeptVersion, is_kept_key, kept_key, open_kept};
use managed_secrets_crypto::{
    Keyring,
    mse1::{self, Place, Record},
};
use serde_json::Value;

use super::{
    super::record::{Authenticity, RecordMeta, Source},
    play::PREVIOUS,
    store::{Field, Maker, NAMESPACE, Object, Stored},
    templates,
    versions::{Pass, Past, Served, Specs, beside, kept, since},
};
use crate::controller::view::SecretView;

/// A record that can be believed, opened.
#[derive(Clone, Debug)]
pub(super) struct OpenRecord {
    pub(super) meta: RecordMeta,
    pub(super) value: Vec<u8>,
    /// The earlier values that it keeps, by version; `None` where one does not open.
    pub(super) kept: BTreeMap<u64, Option<Vec<u8>>>,
    /// Every key of its data that an earlier value can have.
    pub(super) kept_keys: Vec<String>,
}

/// The period of every schedule of the model.
const PERIOD: SignedDuration = SignedDuration::from_hours(1);

/// Why a generated value may not be replaced by another one. Dates of records are all that counts: whatever a clock does, one
/// rotation follows another after a period.
fn not_rotated(writer: Option<&Object>, last: &RecordMeta, meta: &RecordMeta) -> Option<&'static str> {
    let (Source::Generate { revision: before }, Source::Generate { revision }) = (&last.source, &meta.source) else {
        return None;
    };
    if meta.version != last.version + 1 {
        return Some("not one version for one value");
    }
    if revision.is_some() && revision != before {
        return None;
    }
    if writer.is_some_and(|writer| !writer.scheduled_once) {
        return Some("nothing asks for it");
    }
    let date = |meta: &RecordMeta| meta.value_updated.parse::<Timestamp>().unwrap();
    (date(meta).duration_since(date(last)) < PERIOD).then_some("it is too early")
}

/// What has been seen so far.
pub(super) struct Oracle {
    keyring: Arc<Keyring>,
    /// Values by id and version.
    values: BTreeMap<(String, u64), Vec<u8>>,
    /// The version that each target, by uid, has held last.
    delivered: BTreeMap<String, u64>,
    /// Every id with each version that a target of it has held, under either key.
    held: BTreeSet<(String, u64)>,
    /// The records of each id.
    records: BTreeMap<String, Past<OpenRecord>>,
    /// Specs that were stored.
    specs: Specs,
    /// What the status of each object, by uid, has said to be delivered.
    said: BTreeMap<String, Past<Option<u64>>>,
    /// The id of each ManagedSecret, by uid, from its first record on.
    ids: BTreeMap<String, String>,
    /// Uids and ids of which both the record and its trace in status were taken away: nothing could be known of them.
    excused: BTreeSet<String>,
    /// Texts that must show nowhere but in targets and sources.
    canaries: BTreeSet<String>,
    /// Every operator has heard everything before it begins a pass, so an id stays from the first record on. Otherwise it
    /// stays while status or target tell it: an operator that has not heard of a record gives its object another id, under
    /// another name. Leader election makes that rare, and cannot exclude it: a new leader's watches may be behind.
    pub(super) attentive: bool,
    /// What was wrong.
    pub(super) wrong: Vec<String>,
}

impl Oracle {
    pub(super) fn new(keyring: Arc<Keyring>, canaries: impl IntoIterator<Item = String>) -> Self {
        Self {
            keyring,
            values: BTreeMap::new(),
            delivered: BTreeMap::new(),
            held: BTreeSet::new(),
            records: BTreeMap::new(),
            specs: Specs::new(),
            said: BTreeMap::new(),
            ids: BTreeMap::new(),
            excused: BTreeSet::new(),
            canaries: canaries.into_iter().collect(),
            attentive: false,
            wrong: Vec::new(),
        }
    }

    /// Nothing can be known any more of this uid or id: what held it in memory was taken away.
    pub(super) fn excuse(&mut self, uid_or_id: &str) {
        self.excused.insert(uid_or_id.to_owned());
    }

    pub(super) fn is_excused(&self, uid_or_id: &str) -> bool {
        self.excused.contains(uid_or_id)
    }

    /// An object is stored.
    pub(super) fn stored(&mut self, object: &Object) {
        self.specs.insert((object.uid.clone(), object.generation), object.spec.clone());
        let status = object.status.as_ref();
        let said = status.and_then(|status| status["delivered"].as_u64().or(status["version"].as_u64()));
        self.said.entry(object.uid.clone()).or_default().push((object.revision, said));
    }

    fn last(&self, id: &str) -> Option<&OpenRecord> {
        Some(&self.records.get(id)?.last()?.1)
    }

    fn say(&mut self, wrong: String) {
        self.wrong.push(wrong);
    }

    /// Opens a record, if it can be believed.
    pub(super) fn open(&self, secret: &Stored) -> Option<OpenRecord> {
        let view: SecretView = serde_json::from_value(secret.metadata()).ok()?;
        let Authenticity::Valid { meta, commitment } = Authenticity::of(&view, NAMESPACE, &self.keyring) else {
            return None;
        };
        let bytes = BASE64_STANDARD.decode(secret.data(RECORD_DATA_KEY)?).ok()?;
        let record = Record::parse(&bytes).ok()?;
        let place = Place { namespace: NAMESPACE, object: &meta.owner };
        let value = mse1::open(&record, &place, |id| self.keyring.seed(id)).ok()?;
        let same = *record.commitment() == commitment && record.version() == meta.version && record.uid() == meta.uid;
        let kept = |kept: &KeptVersion| {
            let bytes = BASE64_STANDARD.decode(secret.data(&kept.data_key())?).ok()?;
            let opened = open_kept(&bytes, &place, kept, |id| self.keyring.seed(id)).ok()?;
            Some(opened.value.as_bytes().to_vec())
        };
        let kept = meta.history.iter().map(|version| (version.version, kept(version))).collect();
        let keys = secret.fields.keys().filter_map(|field| if let Field::Data(key) = field { Some(key) } else { None });
        let kept_keys = keys.filter(|key| is_kept_key(key)).cloned().collect();
        same.then(|| OpenRecord { value: value.as_bytes().to_vec(), kept, kept_keys, meta: *meta })
    }

    /// An operator, at work on the ManagedSecret `about`, applies a Secret.
    pub(super) fn applied(
        &mut self,
        pass: &Pass,
        writer: Option<&Object>,
        before: Option<&Stored>,
        mut after: Stored,
        secrets: &BTreeMap<String, Stored>,
    ) -> Stored {
        let about = pass.about.as_str();
        if let Some(before) = before {
            self.may_write(about, writer, before, &mut after, secrets);
        }
        let role = after.label(LABEL_ROLE).map(str::to_owned);
        match role.as_deref() {
            Some(ROLE_RECORD) => {
                // What a cache that lags still makes for a deleted object goes with it.
                let alive = after.annotation(ANNO_UID) == writer.map(|writer| writer.uid.as_str());
                if !alive {
                    self.excuse(after.annotation(ANNO_UID).unwrap_or_default());
                }
                self.record(pass, writer, before, &after, secrets);
            }
            Some(ROLE_TARGET) => self.target(pass, writer, before, &after, secrets),
            // A release.
            _ => {}
        }
        let mut shown = after.metadata();
        shown["managedFields"] = Value::Null;
        self.shows_nothing(&format!("metadata of {}", after.name), &shown.to_string());
        after
    }

    fn shows_nothing(&mut self, place: &str, text: &str) {
        let shown = |canary: &&String| text.contains(canary.as_str()) || text.contains(&BASE64_STANDARD.encode(canary));
        if self.canaries.iter().find(shown).is_some() {
            self.say(format!("{place} shows a value"));
        }
    }

    /// Whether a Secret that exists may be written for the ManagedSecret `about`.
    fn may_write(
        &mut self,
        about: &str,
        writer: Option<&Object>,
        before: &Stored,
        after: &mut Stored,
        secrets: &BTreeMap<String, Stored>,
    ) {
        let name = &before.name;
        if before.deleting {
            self.say(format!("{name} is being deleted, and {about} wrote it"));
        }
        if let Maker::Operator(owner) = &before.maker {
            if owner != about {
                self.say(format!("{name} was made for {owner}, and {about} wrote it"));
            }
            return;
        }
        if !before.adopters.contains(about) {
            if let Some(problem) = self.not_adoptable(about, writer, before, after, secrets) {
                self.say(format!("{name} is not ours, and {about} wrote it although {problem}"));
                return;
            }
            after.adopters.insert(about.to_owned());
        }
        for (field, cell) in &before.fields {
            let ours = matches!(field, Field::Data(_) | Field::Label(_) | Field::Annotation(_))
                && (cell.managers.contains(managed_secrets_api::keys::FIELD_MANAGER)
                    || after
                        .fields
                        .get(field)
                        .is_some_and(|now| now.managers.contains(managed_secrets_api::keys::FIELD_MANAGER)));
            if !ours && after.fields.get(field).map(|now| &now.value) != Some(&cell.value) {
                self.say(format!("{name} was adopted, and its {field:?} was changed"));
            }
        }
    }

    fn not_adoptable(
        &self,
        about: &str,
        writer: Option<&Object>,
        before: &Stored,
        after: &Stored,
        secrets: &BTreeMap<String, Stored>,
    ) -> Option<String> {
        // The operator may act on a spec that was edited a moment ago.
        if writer.is_some_and(|writer| !writer.adopted_once) {
            return Some("its spec has never allowed adoption".to_owned());
        }
        let controlled = before
            .fields
            .iter()
            .any(|(field, cell)| matches!(field, Field::Owner(_)) && cell.value["controller"] == true);
        if controlled {
            return Some("a controller owns it".to_owned());
        }
        let recordless = before.label(LABEL_ROLE) == Some(ROLE_TARGET)
            && before.annotation(ANNO_OWNER) == Some(about)
            && !secrets
                .values()
                .filter_map(|secret| self.open(secret))
                .any(|record| Some(record.meta.id.as_str()) == before.label(LABEL_ID));
        if before.label(LABEL_ROLE).is_some() && !recordless {
            return Some("it has a role label".to_owned());
        }
        for (field, cell) in &before.fields {
            if matches!(field, Field::Data(_)) && after.fields.get(field).map(|now| &now.value) != Some(&cell.value) {
                return Some(format!("its {field:?} is another"));
            }
        }
        let recorded = secrets.values().filter_map(|secret| self.open(secret)).any(|record| {
            record.meta.owner == about
                && matches!(&record.meta.target, super::super::record::Delivered::Adopted { uid, .. } if *uid == before.uid)
        });
        (!recorded).then(|| "no record says so".to_owned())
    }

    /// The id that an object is known to have: the first one of all, or else what status says, or its target.
    fn known_id(&self, object: &Object, secrets: &BTreeMap<String, Stored>) -> Option<String> {
        if self.attentive {
            return self.ids.get(&object.uid).cloned();
        }
        let target = secrets.get(object.spec.target_name(&object.name)).filter(|target| {
            let owner = target.fields.get(&Field::Owner(object.uid.clone()));
            owner.is_some_and(|owner| owner.managers.contains(managed_secrets_api::keys::FIELD_MANAGER))
        });
        let delivered = || target.filter(|target| target.label(LABEL_ROLE) == Some(ROLE_TARGET))?.label(LABEL_ID);
        object.status_text("/id").or_else(delivered).map(str::to_owned)
    }

    fn record(
        &mut self,
        pass: &Pass,
        writer: Option<&Object>,
        before: Option<&Stored>,
        after: &Stored,
        secrets: &BTreeMap<String, Stored>,
    ) {
        let (name, about) = (&after.name, pass.about.as_str());
        let Some(record) = self.open(after) else {
            self.say(format!("record {name} was written and does not open"));
            return;
        };
        let OpenRecord { meta, value, .. } = &record;
        self.keeps(pass, &record, secrets);
        if meta.owner != about {
            self.say(format!("record {name} of {} was written for {about}", meta.owner));
        }
        if matches!(meta.source, Source::Generate { .. }) {
            self.canaries.insert(String::from_utf8(value.clone()).unwrap());
        }
        if self.is_excused(&meta.uid) || self.is_excused(&meta.id) {
            self.excuse(&meta.id.clone());
        } else {
            let living = writer.filter(|writer| writer.uid == meta.uid);
            let known = living.and_then(|writer| self.known_id(writer, secrets));
            let id = known.unwrap_or_else(|| meta.id.clone());
            self.ids.entry(meta.uid.clone()).or_insert_with(|| id.clone());
            let stale = writer.is_some_and(|writer| meta.generation < writer.generation);
            let told_by_none = || writer.is_some_and(|writer| writer.status_text("/id").is_none());
            let unheard = !self.attentive && before.is_none() && told_by_none();
            if id != meta.id && (stale || unheard) {
                // A second record under another name: it must be gone at rest, and nothing is said of its id.
                self.excuse(&meta.id.clone());
            } else if id != meta.id {
                self.say(format!("{about} had the id {id}, and has {} now", meta.id));
            }
            if let Some(last) = self.last(&meta.id).cloned() {
                if last.meta.version > meta.version {
                    self.say(format!("{about} went back from version {} to {}", last.meta.version, meta.version));
                }
                if last.meta.created != meta.created {
                    self.say(format!("{about} has another creation date"));
                }
                if last.meta.updated > meta.updated || last.meta.value_updated > meta.value_updated {
                    self.say(format!("a date of {about} went back"));
                }
                if (last.value != *value || last.meta.version != meta.version)
                    && let Some(problem) = not_rotated(writer, &last.meta, meta)
                {
                    self.say(format!("the generated value of {about} was generated again: {problem}"));
                }
            }
            let same = self.values.get(&(meta.id.clone(), meta.version)).is_none_or(|before| before == value);
            if !same {
                self.say(format!("version {} of {about} had another value", meta.version));
            }
        }
        self.values.insert((meta.id.clone(), meta.version), value.clone());
        self.records.entry(meta.id.clone()).or_default().push((after.revision, record));
    }

    /// A record keeps what its history names, each version with its own value, and nothing else: exactly those that the spec
    /// asks for, of those that the record before it had.
    fn keeps(&mut self, pass: &Pass, record: &OpenRecord, secrets: &BTreeMap<String, Stored>) {
        let (OpenRecord { meta, kept: has, kept_keys, .. }, about) = (record, &pass.about);
        let named: BTreeSet<String> = has.keys().map(|version| kept_key(*version)).collect();
        if named != kept_keys.iter().cloned().collect() {
            self.say(format!("the history of {about} names {named:?}, and its record has {kept_keys:?}"));
        }
        for (version, value) in has {
            if value.is_none() {
                self.say(format!("version {version} of {about} was lost"));
            }
            let known = self.values.get(&(meta.id.clone(), *version));
            if let (Some(value), Some(known)) = (value, known)
                && value != known
            {
                self.say(format!("version {version} of {about} is kept with another value"));
            }
        }
        if self.is_excused(&meta.uid) || self.is_excused(&meta.id) {
            return;
        }
        let Some(spec) = self.specs.get(&(meta.uid.clone(), meta.generation)) else {
            self.say(format!("{about} never had the generation {} that its record names", meta.generation));
            return;
        };
        // The record that it goes on from: of two that a rename has left, the later one. Without any it is made again, and
        // keeps nothing.
        let present = secrets.values().filter(|secret| !secret.deleting).filter_map(|secret| self.open(secret));
        let base = present.filter(|record| record.meta.id == meta.id).max_by_key(|record| {
            let OpenRecord { meta, .. } = record;
            (meta.version, meta.updated.clone(), meta.generation)
        });
        // An operator that is behind goes by an earlier status.
        let seen_since = if self.attentive { pass.since } else { 0 };
        let said = self.said.get(&meta.uid).map(|said| since(said, seen_since)).unwrap_or_default();
        let replaced = meta.history.replaced();
        let beside = beside(spec, replaced, pass.now);
        let said = said.iter().map(|(_, delivered)| *delivered);
        let held = self.versions_delivered(&meta.id).into_iter().chain(base.as_ref().map(|base| base.meta.version));
        let wanted: BTreeSet<_> = said
            .chain(held.map(Some))
            .chain([None])
            .map(|delivered| kept(spec, base.as_ref(), meta.version, delivered, beside))
            .collect();
        let was_delivered = replaced.is_none_or(|replaced| self.was_delivered(&meta.uid, &meta.id, replaced.version));
        let has: Vec<u64> = has.keys().rev().copied().collect();
        if !was_delivered {
            self.say(format!("{about} has never delivered what its newest value is said to replace: {replaced:?}"));
        }
        if !wanted.contains(&has) {
            self.say(format!("{about} keeps {has:?} besides {}, and {wanted:?} are wanted", meta.version));
        }
    }

    /// Whether a version was ever delivered: as a status said, or at a target.
    fn was_delivered(&self, uid: &str, id: &str, version: u64) -> bool {
        let said = self.said.get(uid).into_iter().flatten().any(|(_, said)| *said == Some(version));
        said || self.versions_delivered(id).contains(&version)
    }

    fn versions_delivered(&self, id: &str) -> BTreeSet<u64> {
        self.held.range((id.to_owned(), 0)..=(id.to_owned(), u64::MAX)).map(|(_, version)| *version).collect()
    }

    /// A target holds the version that its record and its spec ask for, and the one before it under its own key, only as long
    /// as both are to be accepted.
    fn target(
        &mut self,
        pass: &Pass,
        writer: Option<&Object>,
        before: Option<&Stored>,
        after: &Stored,
        secrets: &BTreeMap<String, Stored>,
    ) {
        let name = &after.name;
        let id = after.label(LABEL_ID).unwrap_or_default().to_owned();
        // A pass that began before the object was deleted and made again works for the one that is gone.
        let for_it = |writer: &&Object| self.last(&id).is_some_and(|record| record.meta.uid == writer.uid);
        let excused = |writer: &&Object| self.is_excused(&writer.uid) || self.is_excused(&id);
        if let Some(writer) = writer.filter(for_it).filter(|writer| !excused(writer))
            && let Some(known) = self.known_id(writer, secrets)
            && known != id
        {
            self.say(format!("target {name} of the id {known} carries {id}"));
        }
        // The versions whose value a key may hold, by key.
        let mut holds: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (field, cell) in &after.fields {
            let Field::Data(key) = field else { continue };
            if !cell.managers.contains(managed_secrets_api::keys::FIELD_MANAGER) {
                continue;
            }
            let value = BASE64_STANDARD.decode(cell.value.as_str().unwrap_or_default()).unwrap_or_default();
            let written = before.and_then(|before| before.data(key)) != cell.value.as_str();
            if templates::is_constant(key, &value) {
                continue;
            }
            let of_it =
                self.values.iter().filter(|((of, _), known)| *of == id && templates::may_hold(key, &value, known));
            let versions: BTreeSet<u64> = of_it.map(|((_, version), _)| *version).collect();
            if written && versions.is_empty() {
                self.say(format!("target {name} got a value that its secret never had"));
            }
            holds.insert(key, versions);
        }
        if self.is_excused(&id) || self.last(&id).is_some_and(|record| self.is_excused(&record.meta.uid)) {
            return;
        }
        let before = self.delivered.get(&after.uid).copied();
        let served = self.may_be_served(pass, &id, secrets);
        let fits = |served: &&Served| {
            let previous = holds.get(PREVIOUS);
            let beside = match served.previous {
                Some(version) => previous.is_some_and(|versions| versions.contains(&version)),
                None => previous.is_none(),
            };
            let mut others = holds.iter().filter(|(key, _)| **key != PREVIOUS);
            let goes_back = !served.is_named && Some(served.version) < before;
            beside && !goes_back && others.all(|(_, versions)| versions.contains(&served.version))
        };
        match served.iter().rfind(fits) {
            Some(served) => {
                let both = [Some(served.version), served.previous];
                self.held.extend(both.into_iter().flatten().map(|version| (id.clone(), version)));
                self.delivered.insert(after.uid.clone(), served.version);
            }
            None => self.say(format!("target {name} got {holds:?} over version {before:?}, and may have {served:?}")),
        }
    }

    /// What a target may hold that is written in a pass: what any record asks for that there was meanwhile.
    fn may_be_served(&self, pass: &Pass, id: &str, secrets: &BTreeMap<String, Stored>) -> Vec<Served> {
        let present = secrets.values().filter_map(|secret| self.open(secret)).filter(|record| record.meta.id == id);
        let meanwhile = self.records.get(id).map(|records| since(records, pass.since)).unwrap_or_default();
        let meanwhile = meanwhile.iter().map(|(_, record)| record.clone());
        let delivered = self.versions_delivered(id);
        let served = present.chain(meanwhile).filter_map(|record| {
            let spec = self.specs.get(&(record.meta.uid.clone(), record.meta.generation))?;
            // A pass that ended before its status may have delivered the newest.
            let delivered = &delivered | &BTreeSet::from([record.meta.version]);
            Some(Served::of(spec, &record, &delivered, pass.now))
        });
        served.flatten().collect()
    }

    /// An operator deletes a Secret.
    pub(super) fn deleted(&mut self, about: &str, live: &Stored) {
        match &live.maker {
            Maker::Operator(owner) if owner == about => {}
            maker => self.say(format!("{} was made by {maker:?}, and {about} deleted it", live.name)),
        }
    }

    /// An operator writes a status.
    pub(super) fn described(&mut self, before: &Object, after: &Object, secrets: &BTreeMap<String, Stored>) {
        let name = &after.name;
        let status = after.status.clone().unwrap_or_default();
        self.shows_nothing(&format!("status of {name}"), &status.to_string());
        if self.is_excused(&after.uid) {
            return;
        }
        let id = |object: &Object| object.status_text("/id").map(str::to_owned);
        if id(before).is_some() && id(before) != id(after) {
            self.say(format!("status.id of {name} was {:?} and is {:?}", id(before), id(after)));
        }
        if let Some(said) = id(after)
            && let Some(known) = self.known_id(before, secrets)
            && known != said
        {
            self.say(format!("status.id of {name} is {said}, and was known as {known}"));
        }
        let version = |object: &Object| object.status.as_ref().and_then(|status| status["version"].as_i64());
        if version(before) > version(after) {
            self.say(format!("status.version of {name} went back"));
        }
    }
}
