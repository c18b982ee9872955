//! The workload of the model: its pods have the values of the time at which they were started.
//!
//! In: what the operator applies, and what users do. Out: its state as on the wire, and what was wrong. The rules: the
//! operator restarts pods once for each delivery and for nothing else, and once a workload has a mark, its pods get every
//! value. While it does not exist, nothing creates it but a user.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use managed_secrets_api::restarts::{Mark, key};
use serde_json::{Value, json};

/// The name of the one Deployment that objects can name.
pub(super) const SHOP: &str = "shop";

type Marks = BTreeMap<String, String>;

/// What a user does to it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Touch {
    /// Deletes it, if it exists, and creates it.
    Create,
    /// Deletes it.
    Delete,
    /// Writes its pod template without marks.
    Strip,
    /// `kubectl rollout undo`.
    Undo,
}

/// A Deployment, as far as it matters here.
#[derive(Clone, Debug)]
struct Live {
    uid: String,
    revision: u64,
    created: Timestamp,
    template: Marks,
    metadata: Marks,
    /// The pod template before the present one.
    earlier: Option<Marks>,
}

/// The workload, and what its pods have.
#[derive(Default)]
pub(super) struct Workload {
    live: Option<Live>,
    /// What each object, by name, has delivered last: a mark.
    delivered: BTreeMap<String, String>,
    /// How often each mark was delivered.
    deliveries: BTreeMap<String, usize>,
    /// How often the operator restarted the present workload for each mark.
    restarted: BTreeMap<String, usize>,
    /// Objects that have delivered a value that the pods do not have, and had a mark when they did.
    due: BTreeSet<String>,
}

/// An apply is refused: it names another uid or version. One with a uid never creates.
pub(super) struct Conflict;

fn marks(annotations: &Value) -> Marks {
    let annotations = annotations.as_object().into_iter().flatten();
    annotations.map(|(key, text)| (key.clone(), text.as_str().unwrap().to_owned())).collect()
}

impl Workload {
    pub(super) fn touch(&mut self, touch: Touch, uid: impl FnOnce() -> String, revision: u64, now: Timestamp) {
        match (touch, &mut self.live) {
            (Touch::Create, live) => {
                let (template, metadata) = (Marks::new(), Marks::new());
                *live = Some(Live { uid: uid(), revision, created: now, template, metadata, earlier: None });
                self.restarted.clear();
            }
            (Touch::Delete, live) => *live = None,
            (Touch::Strip, Some(live)) if !live.template.is_empty() => {
                live.earlier = Some(std::mem::take(&mut live.template));
                live.revision = revision;
            }
            (Touch::Undo, Some(Live { template, earlier: Some(earlier), revision: at, .. })) if earlier != template => {
                std::mem::swap(template, earlier);
                *at = revision;
            }
            _ => return,
        }
        // Pods start, or there are none.
        self.due.clear();
    }

    /// The status of an object says that it has delivered a version.
    pub(super) fn deliver(&mut self, object: &str, mark: String) {
        if self.delivered.get(object) == Some(&mark) {
            return;
        }
        *self.deliveries.entry(mark.clone()).or_default() += 1;
        let is_marked =
            |live: &Live| live.template.contains_key(&key(object)) || live.metadata.contains_key(&key(object));
        if self.live.as_ref().is_some_and(is_marked) {
            self.due.insert(object.to_owned());
        }
        self.delivered.insert(object.to_owned(), mark);
    }

    /// As on the wire.
    pub(super) fn wire(&self) -> Option<Value> {
        let Live { uid, revision, created, template, metadata, .. } = self.live.as_ref()?;
        Some(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": SHOP, "uid": uid, "resourceVersion": revision.to_string(),
                "creationTimestamp": created.to_string(), "annotations": metadata,
            },
            "spec": {"template": {"metadata": {"annotations": template}}},
        }))
    }

    /// The operator applies marks. What was wrong goes to `wrong`.
    pub(super) fn apply(&mut self, body: &Value, revision: u64, wrong: &mut Vec<String>) -> Result<(), Conflict> {
        let live = self.live.as_mut().ok_or(Conflict)?;
        let meta = &body["metadata"];
        if meta["uid"] != json!(live.uid) || meta["resourceVersion"] != json!(live.revision.to_string()) {
            return Err(Conflict);
        }
        let (metadata, template) = (&meta["annotations"], &body["spec"]["template"]["metadata"]["annotations"]);
        let (metadata, template) = (marks(metadata), marks(template));
        if metadata == live.metadata && template == live.template {
            return Ok(());
        }
        live.revision = revision;
        live.metadata = metadata;
        if template == live.template {
            return Ok(());
        }
        let before = std::mem::replace(&mut live.template, template);
        let is_new = |(key, text): &(&String, &String)| before.get(*key) != Some(*text);
        let new: Vec<_> = live.template.iter().filter(is_new).map(|(_, text)| text.clone()).collect();
        if new.is_empty() {
            wrong.push("the workload was restarted for no version".to_owned());
        }
        for mark in new.iter().filter_map(|text| Some(Mark::read(text)?.to_string())) {
            let times = self.restarted.entry(mark.clone()).or_default();
            *times += 1;
            if *times > self.deliveries.get(&mark).copied().unwrap_or_default() {
                wrong.push(format!("the workload was restarted {times} times for {mark}"));
            }
        }
        live.earlier = Some(before);
        self.due.clear();
        Ok(())
    }

    /// Whether it exists.
    pub(super) const fn exists(&self) -> bool {
        self.live.is_some()
    }

    /// Whether it was deleted, or was created and has no marks yet.
    pub(super) fn is_unseen(&self) -> bool {
        self.live.as_ref().is_none_or(|live| live.template.is_empty() && live.metadata.is_empty())
    }

    /// What is wrong at rest with an object that names it, and has delivered this.
    pub(super) fn at_rest(&self, object: &str, delivered: &str) -> Result<(), String> {
        // Then nothing is to be restarted.
        let Some(live) = &self.live else { return Ok(()) };
        let key = key(object);
        let has = live.metadata.get(&key).or_else(|| live.template.get(&key));
        if has.and_then(|text| Mark::read(text)) != Mark::read(delivered) {
            return Err(format!("its workload has the mark {has:?}, and {delivered} is delivered"));
        }
        if self.due.contains(object) {
            return Err("the pods of its workload do not have its value".to_owned());
        }
        Ok(())
    }
}
