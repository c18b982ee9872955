//! Writes that come back other than they were sent.
//!
//! In: what a write of a Secret means, and the API server's answer. Out: the first field that differs. The answer is the
//! object as it is stored, or, after a dry run, as it would be stored. What differs was changed on the way by an admission
//! policy or webhook of others. The same write again would be changed again; so the status names the field, and the
//! operator tries again with growing waits. A write over an existing Secret begins with a dry run: where admission control
//! would spoil the Secret, what it holds stays.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    keys::{LABEL_ROLE, POLICY_OPERATOR_WRITES},
};

use serde_json::Value;

use super::{
    conditions::READY,
    failure::Failure,
    plan::{Problem, Verdict},
    view::{LiveSecret, Own},
};

/// What a write of a Secret means.
pub(super) struct Intent<'a> {
    /// Labels of ours.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of ours.
    pub annotations: &'a BTreeMap<String, String>,
    /// Uid of the owner, if it has an owner reference of ours.
    pub owner: Option<&'a str>,
    /// The data keys of ours, and what they hold.
    pub data: Vec<(&'a str, &'a [u8])>,
    /// The type; absent where it is not ours to say.
    pub type_: Option<&'a str>,
    /// It was not immutable before.
    pub mutable: bool,
}

/// A field that came back other than it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Field {
    path: String,
    kind: FieldKind,
}

/// What a field is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FieldKind {
    /// The value; or the label by which the operator's own policy knows a Secret that the operator may write.
    Data,
    /// Labels, annotations and type. Of a record, its MAC covers them.
    Metadata,
    /// Whether the Secret can be changed later.
    Immutable,
    /// Whether Kubernetes collects the Secret with its ManagedSecret.
    Owner,
}

impl Intent<'_> {
    /// The first field that the answer to the write has otherwise, the gravest first; nothing where it is as it was written.
    #[must_use]
    pub(super) fn changed_in(&self, live: &LiveSecret) -> Option<Field> {
        let view = &live.view;
        let stands = |key: &str, sent: &[u8]| live.data.get(key).is_some_and(|bytes| bytes.as_slice() == sent);
        if let Some((key, _)) = self.data.iter().find(|(key, sent)| !stands(key, sent)) {
            return Some(Field { path: format!("data[{key}]"), kind: FieldKind::Data });
        }
        if self.mutable && view.immutable {
            return Some(Field { path: "immutable".to_owned(), kind: FieldKind::Immutable });
        }
        let metadata = differs("metadata.labels", self.labels, &view.labels, &view.ours.labels)
            .or_else(|| differs("metadata.annotations", self.annotations, &view.annotations, &view.ours.annotations))
            .or_else(|| {
                let other_type = self.type_.is_some_and(|type_| view.type_.as_deref() != Some(type_));
                other_type.then(|| "type".to_owned())
            });
        if let Some(path) = metadata {
            return Some(Field { path, kind: FieldKind::Metadata });
        }
        let owned = |uid: &str| view.owners.iter().any(|owner| owner.uid == uid) && view.ours.owner_uids.contains(uid);
        self.owner.is_some_and(|uid| !owned(uid)).then(Field::owner)
    }
}

impl Field {
    /// What was changed where a policy of the operator's own refuses a write by the operator: it admits every write that
    /// arrives as it was sent, and knows records and targets by this label.
    #[must_use]
    pub fn behind(failure: &Failure) -> Option<Self> {
        // An installation for some namespaces adds its own namespace to the policy's name.
        let is_ours = |policy: &str| {
            policy.strip_prefix(POLICY_OPERATOR_WRITES).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let ours = matches!(failure, Failure::Refused(policy) if is_ours(policy));
        ours.then(|| Self { path: format!("metadata.labels[{LABEL_ROLE}]"), kind: FieldKind::Data })
    }

    fn owner() -> Self {
        Self { path: "metadata.ownerReferences".to_owned(), kind: FieldKind::Owner }
    }

    /// Whether a Secret with this change must not be stored. A target without its value delivers a wrong one. A record is
    /// believed by its MAC, so any change of what the MAC covers loses the value; an immutable one can never change again.
    #[must_use]
    pub fn spoils(&self, part: Part) -> bool {
        match part {
            Part::Target => self.kind == FieldKind::Data,
            Part::Record | Part::NewRecord => self.kind != FieldKind::Owner,
        }
    }

    /// Its path in the Secret.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The first of `wanted` that is not there, or is not ours any more.
fn differs(
    path: &str,
    wanted: &BTreeMap<String, String>,
    live: &BTreeMap<String, String>,
    owned: &BTreeSet<String>,
) -> Option<String> {
    let stands = |key: &String, text: &String| live.get(key) == Some(text) && owned.contains(key);
    let changed = wanted.iter().find(|(key, text)| !stands(key, text));
    changed.map(|(key, _)| format!("{path}[{key}]"))
}

/// The first field of a status that the answer to its write has otherwise.
#[must_use]
pub(super) fn field_of_status(sent: &ManagedSecretStatus, stored: &ManagedSecretStatus) -> Option<String> {
    let json = |status: &ManagedSecretStatus| serde_json::to_value(status).unwrap_or_default();
    unlike("status", &json(sent), &json(stored))
}

/// The path of the first value that differs. Conditions are told apart by their type.
fn unlike(path: &str, sent: &Value, stored: &Value) -> Option<String> {
    match (sent, stored) {
        (Value::Object(sent), Value::Object(stored)) => {
            let field = |key: &String| (format!("{path}.{key}"), sent.get(key), stored.get(key));
            first_unlike(sent.keys().chain(stored.keys()).map(field))
        }
        (Value::Array(sent), Value::Array(stored)) if sent.iter().all(|item| item["type"].is_string()) => {
            let item = |type_: &Value| {
                let find = |list: &[Value]| list.iter().find(|item| item["type"] == *type_).cloned();
                (format!("{path}[{}]", type_.as_str().unwrap_or_default()), find(sent), find(stored))
            };
            let items: Vec<_> = sent.iter().chain(stored).map(|condition| item(&condition["type"])).collect();
            first_unlike(items.iter().map(|(path, sent, stored)| (path.clone(), sent.as_ref(), stored.as_ref())))
        }
        _ => (sent != stored).then(|| path.to_owned()),
    }
}

fn first_unlike<'a>(mut pairs: impl Iterator<Item = (String, Option<&'a Value>, Option<&'a Value>)>) -> Option<String> {
    pairs.find_map(|(path, sent, stored)| match (sent, stored) {
        (Some(sent), Some(stored)) => unlike(&path, sent, stored),
        _ => Some(path),
    })
}

/// A write of this pass that came back other than it was sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Altered {
    /// Name of the Secret.
    pub secret: String,
    /// What the Secret is, and what follows for it.
    pub part: Part,
    /// The field.
    pub field: Field,
}

/// What was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// A record, created by this write: where it is spoiled, it is removed again.
    NewRecord,
    /// A record that existed before.
    Record,
    /// The target.
    Target,
}

impl Altered {
    /// An existing record that has lost its owner reference on its way.
    #[must_use]
    pub fn unowned_record(name: &str) -> Self {
        Self { secret: name.to_owned(), part: Part::Record, field: Field::owner() }
    }

    /// Whether the Secret does not hold what was written; see [`Field::spoils`].
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.field.spoils(self.part)
    }

    /// What the condition says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let what = if self.part == Part::Target { "target Secret" } else { "record" };
        let stays = if self.is_spoiled() && self.part == Part::Record {
            ", so the operator does not change the record"
        } else {
            ""
        };
        let message = format!(
            "an admission policy or webhook changes {} of {what} {}{stays}: exclude the Secret from it, or make the spec agree \
             with it",
            self.field.path, self.secret
        );
        Verdict::Terminal(Problem::new(Reason::AlteredByAdmission, message))
    }
}

/// Whether the status says of this generation that admission alters what is written: then even a first write waits.
#[must_use]
pub(super) fn is_known(own: &Own) -> bool {
    own.status.conditions.iter().flatten().any(|condition| {
        condition.type_ == READY
            && condition.reason == Reason::AlteredByAdmission.as_str()
            && condition.observed_generation == Some(own.generation)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_field_of_a_status_that_was_changed() {
        let ready = |status: &str| {
            let time = "2026-01-01T00:00:00Z";
            json!({"type": "Ready", "status": status, "reason": "R", "message": "", "lastTransitionTime": time})
        };
        let earlier = |version: u64| json!({"version": version, "created": "2026-01-01T00:00:00Z", "source": "value"});
        let target = json!({"name": "db", "key": "value", "uid": "u", "resourceVersion": "1"});
        let sent = json!({"id": "1", "version": 1, "target": target, "conditions": [ready("True")], "history": [earlier(3), earlier(2)]});
        let changed = |path: &str, value: Value| {
            let mut stored = sent.clone();
            *stored.pointer_mut(path).unwrap() = value;
            let read = |status: &Value| serde_json::from_value(status.clone()).unwrap();
            field_of_status(&read(&sent), &read(&stored))
        };
        let mut stalled = ready("True");
        stalled["type"] = json!("Stalled");
        let cases = [
            ("/version", json!(1), None),
            ("/version", json!(2), Some("status.version")),
            ("/id", Value::Null, Some("status.id")),
            ("/target", Value::Null, Some("status.target")),
            ("/target/key", json!("other"), Some("status.target.key")),
            ("/conditions", json!([]), Some("status.conditions[Ready]")),
            ("/conditions/0", ready("False"), Some("status.conditions[Ready].status")),
            ("/history", json!([earlier(3), earlier(2)]), None),
            ("/history", json!([earlier(3), earlier(1)]), Some("status.history")),
            ("/history", json!([earlier(3)]), Some("status.history")),
            ("/conditions", json!([stalled.clone(), ready("True")]), Some("status.conditions[Stalled]")),
        ];
        for (path, value, field) in cases {
            assert_eq!(changed(path, value.clone()).as_deref(), field, "{path} {value}");
        }
        let (one, other) = (json!([ready("True"), stalled]), json!([stalled, ready("True")]));
        assert_eq!(unlike("", &one, &other), None, "the order of conditions means nothing");
    }
}
