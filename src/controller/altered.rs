//! Writes that come back other than they were sent.
//!
//! In: what a write of a Secret means, and the API server's answer. Out: the first field that differs. The answer is the
//! object as it is stored, or, after a dry run, as it would be stored. What differs was changed on the way by an admission
//! policy or webhook of others. The same write again would be changed again; so the status names the field, and the
//! operator tries again with growing waits. A write over an existing Secret begins with a dry run: where admission control
//! would spoil the Secret, what it holds stays.

use std::collections::{BTreeMap, BTreeSet};

use managed_secrets_api::{
    Reason,
    keys::{LABEL_ROLE, POLICY_OPERATOR_WRITES},
};

use super::{
    conditions::READY,
    failure::Failure,
    plan::{Problem, Verdict},
    view::{LiveSecret, Own},
};

/// What a write of a Secret means.
pub struct Intent<'a> {
    /// Labels of ours.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of ours.
    pub annotations: &'a BTreeMap<String, String>,
    /// Uid of the owner, if it has an owner reference of ours.
    pub owner: Option<&'a str>,
    /// The one data key of ours.
    pub key: &'a str,
    /// What it holds.
    pub value: &'a [u8],
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
    pub fn changed_in(&self, live: &LiveSecret) -> Option<Field> {
        let view = &live.view;
        if live.data.get(self.key).is_none_or(|bytes| bytes.as_slice() != self.value) {
            return Some(Field { path: format!("data[{}]", self.key), kind: FieldKind::Data });
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
pub fn is_known(own: &Own) -> bool {
    own.status.conditions.iter().flatten().any(|condition| {
        condition.type_ == READY
            && condition.reason == Reason::AlteredByAdmission.as_str()
            && condition.observed_generation == Some(own.generation)
    })
}
