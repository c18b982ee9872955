//! A delivered Secret whose record is missing: a restore or a copy that left the record out, or what an adopted Secret
//! keeps when its ManagedSecret is deleted.
//!
//! In: the [`Facts`] and the Secret in the target's place. Out: whether it is one, and what to say of it. Pure. Its value
//! may have no other copy, so it is never overwritten, and nothing that is said advises to remove it first.

use managed_secrets_api::{
    Reason,
    keys::{ANNO_OWNER, ROLE_RECORD, ROLE_TARGET},
};

use super::super::super::{facts::Facts, plan::Problem, view::SecretView};

/// What a Secret with the marks of a target is, that is not the target of our record.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Marks<'a> {
    /// It has none of ours, or not all.
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
    let message = format!(
        "Secret {name} was delivered by an earlier ManagedSecret {object} with the id {id}, and its record is missing: the \
         Secret may hold the only copy of that value, so do not delete it yet. To restore the record, delete this ManagedSecret, and \
         run `kubectl msec restore BACKUP`. To take the value over, run `kubectl -n {namespace} get secret {name} -o \
         jsonpath='{{.data.{key}}}' | base64 -d | kubectl msec update msec/{object} -n {namespace} --value-stdin`, and set \
         spec.target.adoption: IfUnowned",
        object = own.name,
        namespace = own.namespace,
        key = own.spec.target_key().replace('.', "\\."),
    );
    Problem::new(Reason::TargetNotOwned, message)
}
