//! The API server of the model: one namespace in memory, with the rules that the operator's safety rests on.
//!
//! In: HTTP requests of the real calls, and what users, other programs and the garbage collector do. Out: answers with
//! the real codes, and the log of changes from which watches are fed. Each rule here is pinned on a real API server by a
//! test in `tests/integration/facts`.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use jiff::Timestamp;
use managed_secrets_api::{
    ManagedSecretSpec,
    keys::{FIELD_MANAGER, FIELD_MANAGER_LEFT, LABEL_ROLE, ROLES},
    restarts::Mark,
    types::Adoption,
    validate_spec,
};
use serde_json::{Value, json};

use super::{
    oracle::Oracle,
    store::{Field, Invalid, Maker, Object, Stored, fields_of},
    versions::Pass,
    workload::{Conflict, SHOP, Touch, Workload},
};

/// One change, as a watch tells it: before and after.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a few dozen of them, in tests")]
pub(super) enum Change {
    Object(Option<Object>, Option<Object>),
    Secret(Option<Stored>, Option<Stored>),
}

/// How a ManagedSecret is deleted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deletion {
    Background,
    /// `--cascade=orphan`: owner references are taken away first.
    Orphan,
}

/// Everything that is stored.
pub(super) struct Server {
    pub(super) revision: u64,
    uids: u64,
    pub(super) secrets: BTreeMap<String, Stored>,
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) workload: Workload,
    pub(super) log: Vec<Change>,
    pub(super) oracle: Oracle,
    /// Requests and answers, for a reader.
    pub(super) story: Vec<String>,
}

type Answer = (StatusCode, Value);

fn refusal(code: StatusCode, reason: &str, causes: &Value) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": reason, "details": { "causes": causes },
    });
    (code, body)
}

fn absent() -> Answer {
    refusal(StatusCode::NOT_FOUND, "NotFound", &json!([]))
}

fn conflict() -> Answer {
    refusal(StatusCode::CONFLICT, "Conflict", &json!([]))
}

fn invalid(field: &str) -> Answer {
    let causes = json!([{ "field": field, "reason": "FieldValueInvalid", "message": "is immutable" }]);
    refusal(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &causes)
}

impl Server {
    pub(super) fn new(oracle: Oracle) -> Self {
        // No live object ever has the version 1: create-only writes rest on it.
        Self {
            revision: 1,
            uids: 0,
            secrets: BTreeMap::new(),
            objects: BTreeMap::new(),
            workload: Workload::default(),
            log: Vec::new(),
            oracle,
            story: Vec::new(),
        }
    }

    fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012}", self.uids)
    }

    fn put_secret(&mut self, before: Option<Stored>, mut after: Stored) -> Stored {
        self.revision += 1;
        after.revision = self.revision;
        self.secrets.insert(after.name.clone(), after.clone());
        self.log.push(Change::Secret(before, Some(after.clone())));
        after
    }

    fn drop_secret(&mut self, name: &str) {
        let Some(before) = self.secrets.remove(name) else { return };
        self.revision += 1;
        self.log.push(Change::Secret(Some(before), None));
    }

    fn put_object(&mut self, before: Option<Object>, mut after: Object) -> Object {
        self.revision += 1;
        after.revision = self.revision;
        self.oracle.stored(&after);
        self.objects.insert(after.name.clone(), after.clone());
        self.log.push(Change::Object(before, Some(after.clone())));
        after
    }

    /// Answers a request of an operator.
    pub(super) fn answer(&mut self, pass: &Pass, method: &Method, path: &str, body: &[u8]) -> Answer {
        let (answer, about) = (self.answered(pass, method, path, body), &pass.about);
        let ready = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
            let ready = &body["status"]["conditions"][0];
            ready["reason"].as_str().map(|reason| format!(" {reason}: {}", ready["message"]))
        });
        let last = path.split('/').skip(6).collect::<Vec<_>>().join("/");
        self.story.push(format!("  {about}: {method} {last}{} -> {}", ready.unwrap_or_default(), answer.0.as_u16()));
        answer
    }

    fn answered(&mut self, pass: &Pass, method: &Method, path: &str, body: &[u8]) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let left = query.split('&').any(|part| part.strip_prefix("fieldManager=") == Some(FIELD_MANAGER_LEFT));
        let manager = if left { FIELD_MANAGER_LEFT } else { FIELD_MANAGER };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let body = || serde_json::from_slice::<Value>(body).unwrap();
        match (method, parts.as_slice()) {
            (&Method::GET, ["api", "v1", "namespaces", _, "secrets", name]) => {
                self.secrets.get(*name).map_or_else(absent, |secret| (StatusCode::OK, secret.wire()))
            }
            (&Method::PATCH, ["api", "v1", "namespaces", _, "secrets", name]) => {
                self.apply(pass, manager, name, &body(), is_dry_run(query))
            }
            (&Method::DELETE, ["api", "v1", "namespaces", _, "secrets", name]) => {
                self.delete(&pass.about, name, &body())
            }
            (&Method::GET, [.., "managedsecrets", name]) => {
                self.objects.get(*name).map_or_else(absent, |object| (StatusCode::OK, object.wire()))
            }
            (&Method::GET, [.., "deployments", SHOP]) => {
                self.workload.wire().map_or_else(absent, |workload| (StatusCode::OK, workload))
            }
            (&Method::PATCH, [.., "deployments", SHOP]) => self.apply_marks(&body()),
            (&Method::PATCH, [.., "managedsecrets", name, "status"]) => self.apply_status(name, &body()),
            other => panic!("the model knows no such request: {other:?}"),
        }
    }

    fn apply(&mut self, pass: &Pass, manager: &'static str, name: &str, body: &Value, dry: bool) -> Answer {
        let (uid, version) = (body["metadata"]["uid"].as_str(), body["metadata"]["resourceVersion"].as_str());
        let wanted = fields_of(body);
        let before = self.secrets.get(name).cloned();
        let mut after = match &before {
            // A uid never creates; a version alone does, also a stale one.
            None if uid.is_some() => return conflict(),
            None => Stored::new(name, self.new_uid(), Maker::Operator(pass.about.clone())),
            Some(live) if uid.is_some_and(|uid| uid != live.uid) => return invalid("metadata.uid"),
            Some(live) if version.is_some_and(|version| version != live.revision.to_string()) => return conflict(),
            Some(live) => live.clone(),
        };
        if let Err(Invalid(field)) = after.apply(manager, wanted) {
            return invalid(field);
        }
        if before.is_none() && !after.fields.contains_key(&Field::Type) {
            after.edit(Field::Type, Some(json!("Opaque")));
        }
        if dry || before.as_ref() == Some(&after) {
            return (StatusCode::OK, after.wire());
        }
        let writer = self.objects.get(&pass.about).cloned();
        after.revision = self.revision + 1;
        let after = self.oracle.applied(pass, writer.as_ref(), before.as_ref(), after, &self.secrets);
        let code = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
        let after = self.put_secret(before, after);
        (code, after.wire())
    }

    fn delete(&mut self, about: &str, name: &str, body: &Value) -> Answer {
        let Some(live) = self.secrets.get(name).cloned() else { return absent() };
        let preconditions = &body["preconditions"];
        let differs = |key: &str, is: &str| preconditions[key].as_str().is_some_and(|wanted| wanted != is);
        if differs("uid", &live.uid) || differs("resourceVersion", &live.revision.to_string()) {
            return conflict();
        }
        self.oracle.deleted(about, &live);
        self.remove_secret(name);
        (StatusCode::OK, json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" }))
    }

    fn apply_status(&mut self, name: &str, body: &Value) -> Answer {
        let Some(live) = self.objects.get(name).cloned() else { return absent() };
        if body["metadata"]["resourceVersion"].as_str().is_some_and(|version| version != live.revision.to_string()) {
            return conflict();
        }
        let mut status = body["status"].clone();
        // Absent and null are one to the API server.
        status.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let after = Object { status: Some(status), ..live.clone() };
        if after == live {
            return (StatusCode::OK, live.wire());
        }
        self.oracle.described(&live, &after, &self.secrets);
        let typed = after.typed();
        if let Some(mark) = Mark::delivered(&typed.spec, &typed.status.unwrap_or_default()) {
            self.workload.deliver(name, mark.to_string());
        }
        (StatusCode::OK, self.put_object(Some(live), after).wire())
    }

    fn apply_marks(&mut self, body: &Value) -> Answer {
        self.revision += 1;
        match self.workload.apply(body, self.revision, &mut self.oracle.wrong) {
            Ok(()) => (StatusCode::OK, self.workload.wire().unwrap()),
            Err(Conflict) => conflict(),
        }
    }

    /// A user does something to the workload.
    pub(super) fn touch(&mut self, touch: Touch, now: Timestamp) {
        self.revision += 1;
        let uid = self.new_uid();
        self.workload.touch(touch, || uid, self.revision, now);
    }

    /// Deletes a Secret, or marks it while a finalizer holds it.
    pub(super) fn remove_secret(&mut self, name: &str) {
        match self.secrets.get(name).cloned() {
            Some(live) if live.finalizer => {
                let marked = Stored { deleting: true, ..live.clone() };
                if marked != live {
                    self.put_secret(Some(live), marked);
                }
            }
            _ => self.drop_secret(name),
        }
    }

    /// A user creates or edits a Secret.
    pub(super) fn edit_secret(&mut self, name: &str, edit: impl FnOnce(&mut Stored)) {
        let before = self.secrets.get(name).cloned();
        let mut after = if let Some(live) = &before {
            live.clone()
        } else {
            let mut made = Stored::new(name, self.new_uid(), Maker::User);
            made.edit(Field::Type, Some(json!("Opaque")));
            made
        };
        edit(&mut after);
        if before.as_ref() == Some(&after) {
            return;
        }
        if after.deleting && !after.finalizer {
            self.drop_secret(name);
        } else {
            self.put_secret(before, after);
        }
    }

    /// A user applies a spec; one that breaks a rule is refused.
    pub(super) fn apply_spec(&mut self, name: &str, spec: ManagedSecretSpec) {
        if !validate_spec(name, &spec).is_empty() {
            return;
        }
        let adopts = spec.adoption() == Adoption::IfUnowned;
        let is_scheduled = spec.generate.as_ref().is_some_and(|generate| generate.rotate_every.is_some());
        match self.objects.get(name).cloned() {
            None => {
                let uid = self.new_uid();
                let made = Object {
                    name: name.to_owned(),
                    uid,
                    revision: 0,
                    generation: 1,
                    spec,
                    status: None,
                    finalizer: false,
                    deleting: false,
                    adopted_once: adopts,
                    scheduled_once: is_scheduled,
                };
                self.put_object(None, made);
            }
            Some(live) if live.spec == spec => {}
            Some(live) => {
                let adopted_once = live.adopted_once || adopts;
                let scheduled_once = live.scheduled_once || is_scheduled;
                let generation = live.generation + 1;
                let after = Object { generation, spec, adopted_once, scheduled_once, ..live.clone() };
                self.put_object(Some(live), after);
            }
        }
    }

    /// A user edits what no spec says: finalizers, status.
    pub(super) fn edit_object(&mut self, name: &str, edit: impl FnOnce(&mut Object)) {
        let Some(before) = self.objects.get(name).cloned() else { return };
        let mut after = before.clone();
        edit(&mut after);
        if after == before {
            return;
        }
        if after.deleting && !after.finalizer {
            self.objects.remove(name);
            self.revision += 1;
            self.log.push(Change::Object(Some(before), None));
        } else {
            self.put_object(Some(before), after);
        }
    }

    pub(super) fn delete_object(&mut self, name: &str, how: Deletion) {
        let Some(live) = self.objects.get(name).cloned() else { return };
        if matches!(how, Deletion::Orphan) {
            let children: Vec<String> = self.secrets.values().map(|secret| secret.name.clone()).collect();
            for child in children {
                self.edit_secret(&child, |secret| secret.edit(Field::Owner(live.uid.clone()), None));
            }
        }
        // Being deleted is a new generation.
        self.edit_object(name, |object| {
            if !object.deleting {
                object.deleting = true;
                object.generation += 1;
            }
        });
    }

    pub(super) fn has_a_frozen_record(&self) -> bool {
        let frozen = |secret: &Stored| secret.fields.contains_key(&Field::Immutable);
        self.secrets.values().any(|secret| frozen(secret) && self.oracle.open(secret).is_some())
    }

    /// One round of the garbage collector: what has owners, none of them alive, goes; a dead one beside a live one is
    /// taken away.
    pub(super) fn collect(&mut self) {
        let alive: Vec<String> = self.objects.values().map(|object| object.uid.clone()).collect();
        for secret in self.secrets.values().cloned().collect::<Vec<_>>() {
            let owners = secret.owner_uids();
            let dead: Vec<String> = owners.iter().filter(|uid| !alive.contains(uid)).map(ToString::to_string).collect();
            if dead.is_empty() {
                continue;
            }
            if dead.len() == owners.len() {
                self.remove_secret(&secret.name);
            } else {
                self.edit_secret(&secret.name, |secret| {
                    for uid in dead {
                        secret.edit(Field::Owner(uid), None);
                    }
                });
            }
        }
    }
}

/// Whether a request with this query changes nothing.
pub(super) fn is_dry_run(query: &str) -> bool {
    query.split('&').any(|part| part == "dryRun=All")
}

/// Whether the watch on labelled Secrets shows it.
pub(super) fn is_labelled(secret: &Stored) -> bool {
    secret.label(LABEL_ROLE).is_some_and(|role| ROLES.contains(&role))
}
