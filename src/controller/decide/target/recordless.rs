//! A delivered Secret whose record is missing: a restore or a copy that left the record out, or what an adopted Secret
//! keeps when its ManagedSecret is deleted.
//!
//! In: the [`Facts`] and the Secret in the target's place. Out: whether it is one, and what to say of it. Pure. Its value
//! may have no other copy, or be a copy that is not needed: the operator cannot tell, so it never overwrites the Secret, and its
//! advice is safe in both cases.

use managed_secrets_api::{
    Reason,
    keys::{ANNO_OWNER, ROLE_RECORD, ROLE_TARGET},
    types::Adoption,
};

use super::super::super::{
    facts::Facts,
    plan::Problem,
    view::{Own, SecretView},
};

/// What a Secret with the marks of a target is, that is not the target of our record.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Marks<'a> {
    /// It does not have all of them.
    None,
    /// An earlier ManagedSecret of our name delivered it, and its record is here: by name.
    Recorded(&'a str),
    /// An earlier ManagedSecret of our name delivered it, and its record is missing: the id.
    Recordless(&'a str),
}

/// Reads the marks of a Secret that is not ours. Every record that names us as owner is part of a facts.
pub(super) fn marks<'a>(facts: &'a Facts, view: &'a SecretView) -> Marks<'a> {
    let Some(id) = view.id().filter(|_| {
        view.role() == Some(ROLE_TARGET) && view.annotation(ANNO_OWNER) == Some(facts.snapshot.own.name.as_str())
    }) else {
        return Marks::None;
    };
    let records = facts.all_present().map(|seen| &seen.view).filter(|view| view.role() == Some(ROLE_RECORD));
    match records.into_iter().find(|record| record.id() == Some(id)) {
        Some(record) => Marks::Recorded(&record.name),
        None => Marks::Recordless(id),
    }
}

/// What to say of a delivered Secret whose record is missing, and how to keep its value.
pub(super) fn problem(facts: &Facts, view: &SecretView, id: &str) -> Problem {
    let (own, name) = (&facts.snapshot.own, &view.name);
    let (object, namespace) = (&own.name, &own.namespace);
    let what = format!(
        "Secret {name} was delivered by an earlier ManagedSecret {object} with the id {id}, and its record is missing: the \
         Secret may hold the only copy of that value, so keep it until you know where the value comes from"
    );
    let known = format!(
        "If you know, and still have the value there, delete the Secret: the operator then delivers {}",
        Present::of(own).text()
    );
    let unknown = if own.status.target.as_ref().is_some_and(|target| target.name != *name) {
        // What keeps the value of the Secret would cost the value that is delivered now.
        "If you do not know, choose another spec.target.name: this ManagedSecret delivers a value of its own".to_owned()
    } else {
        // A copy can have our owner reference, and Kubernetes would delete it with this object.
        let owned = view.owners.iter().any(|owner| owner.uid == own.uid);
        let first = if owned { "remove the owner reference from the Secret, " } else { "" };
        let restore = format!(
            "If you do not know, restore the record: {first}delete this ManagedSecret, which deletes its own value, and run \
             `kubectl msec restore BACKUP`"
        );
        match own.value_key() {
            // The Secret does not hold the value as it is.
            None => restore,
            Some(key) => format!(
                "{restore}. Without a backup, replace the value of this ManagedSecret by that of the Secret: run \
                 `kubectl -n {namespace} get secret {name} -o jsonpath='{{.data.{key}}}' | base64 -d | kubectl msec update \
                 msec/{object} -n {namespace} --value-stdin`, and set spec.target.adoption: IfUnowned",
                key = key.replace('.', "\\."),
            ),
        }
    };
    let equal = match (Present::of(own), own.spec.adoption()) {
        (Present::Generated, _) | (_, Adoption::IfUnowned) => String::new(),
        (given, Adoption::Never) => format!(
            "If it holds {}, set spec.target.adoption: IfUnowned: the operator then adopts it unless the values differ. ",
            given.text()
        ),
    };
    Problem::new(Reason::TargetNotOwned, format!("{what}. {equal}{known}. {unknown}"))
}

/// The value that a ManagedSecret has now.
#[derive(Clone, Copy)]
enum Present {
    Given,
    Followed,
    Generated,
}

impl Present {
    fn of(own: &Own) -> Self {
        match &own.spec {
            spec if spec.value_from.is_some() => Self::Followed,
            spec if spec.generate.is_some() => Self::Generated,
            _ => Self::Given,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Given => "the value of spec.value",
            Self::Followed => "the value of spec.valueFrom",
            Self::Generated => "the generated value of this ManagedSecret",
        }
    }
}
