//! The secrets: which are not delivered and why, which records cannot be used, and what the user may do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use managed_secrets_api::keys::{CONDITION_READY, CONDITION_STALLED};
use managed_secrets_api::record::{RecordMeta, StoredRecord};
use managed_secrets_api::types::DeletionPolicy;
use managed_secrets_api::{ManagedSecret, Reason};

use super::super::facts::Facts;
use super::super::finding::{Finding, Level, Read};
use crate::archive::{StoredKeyring, Stray, place, strays};

/// A new object is not stuck yet.
const NEW: SignedDuration = SignedDuration::from_mins(2);
/// How many objects a finding names; it counts the others.
const NAMED: usize = 3;

/// The secrets that are not delivered, by reason.
pub(super) fn objects(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let objects = facts.objects.known(check)?;
    let mut waiting = BTreeMap::<(bool, String), Vec<String>>::new();
    for object in objects {
        let (reason, is_true) = condition(object, CONDITION_READY);
        // Without an operator, the status stays at its default.
        let is_new = object.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 + NEW > facts.now);
        let ignored = reason == Reason::Pending.as_str() && !is_new;
        let stuck = condition(object, CONDITION_STALLED).1 || ignored;
        if !is_true || stuck {
            let (namespace, name) = place(&object.metadata);
            waiting.entry((!stuck, reason)).or_default().push(format!("{namespace}/{name}"));
        }
    }
    let mut findings: Vec<_> = waiting
        .into_iter()
        .map(|((pending, reason), names)| {
            let what = format!("{reason}: {}", some(&names));
            let todo = format!(
                "kubectl msec explain {reason}; for one secret: kubectl msec describe msec/OBJECT -n NAMESPACE"
            );
            if pending {
                Finding::new(Level::Warning, check, format!("not delivered yet: {what}"), todo)
            } else {
                Finding::new(Level::Problem, check, format!("stuck until you act: {what}"), todo)
            }
        })
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("all {} are delivered", objects.len())));
    }
    Ok(findings)
}

/// The reason of a condition, and whether it is true.
fn condition(object: &ManagedSecret, type_: &str) -> (String, bool) {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let found = conditions.into_iter().flatten().find(|condition| condition.type_ == type_);
    found.map_or_else(
        || (Reason::Pending.as_str().to_owned(), false),
        |condition| (condition.reason.clone(), condition.status == "True"),
    )
}

/// How many, and the first by name.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(NAMED);
    if more > 0 { format!("{} ({shown} and {more} more)", names.len()) } else { format!("{} ({shown})", names.len()) }
}

/// Records with an unknown seed, and records without a ManagedSecret.
pub(super) fn records(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let records = facts.records.known(check)?;
    let mut findings = Vec::new();
    let seeds: Option<BTreeSet<_>> = match facts.keyrings.known(check) {
        Ok(keyrings) => {
            let stored = keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref());
            Some(stored.flat_map(StoredKeyring::ids).map(str::to_owned).collect())
        }
        Err(unknown) => {
            findings.push(unknown);
            None
        }
    };
    let owners: Option<BTreeMap<_, _>> = match (facts.objects.known(check), &facts.crd) {
        (Ok(objects), _) => Some(objects.iter().map(|it| (place(&it.metadata), it)).collect()),
        // Without the resource there is no ManagedSecret.
        (Err(_), Read::Known(None)) => Some(BTreeMap::new()),
        (Err(_), _) => None,
    };
    let (mut unread, mut broken, mut retained, mut orphans) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for metadata in records {
        let (namespace, name) = place(metadata);
        let Some(StoredRecord { meta, seed, .. }) = StoredRecord::of(metadata) else {
            broken.push(format!("{namespace}/{name}"));
            continue;
        };
        let called = format!("{namespace}/{} of {}", meta.name, meta.owner);
        if seeds.as_ref().is_some_and(|seeds| !seeds.contains(&seed.to_string())) {
            unread.push(called.clone());
        }
        let owned = owners.as_ref().is_none_or(|owners| {
            owners.get(&(namespace, meta.owner.clone())).is_some_and(|object| is_record_of(object, &meta))
        });
        // If the owner was deleted, Kubernetes is about to delete the record.
        let collected = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        match (owned || collected, meta.deletion_policy) {
            (true, _) => {}
            (false, DeletionPolicy::Retain) => retained.push(called),
            (false, DeletionPolicy::Delete) => orphans.push(called),
        }
    }
    let all = [
        (
            Level::Problem,
            unread,
            "were encrypted with a seed that is not in the keyring",
            "restore the keyring that has it, in addition to the current one: kubectl msec restore BACKUP",
        ),
        (
            Level::Problem,
            broken,
            "lack required metadata",
            "restore them from a backup; or delete them, and the operator rebuilds what it can",
        ),
        (
            Level::Warning,
            orphans,
            "have no ManagedSecret, and their names stay taken",
            "apply their ManagedSecrets (kubectl msec restore does this too); or delete them if you do not need the values",
        ),
        (
            Level::Note,
            retained,
            "are retained, and their names stay taken",
            "apply the ManagedSecret again to take one over; delete the Secret to free the name",
        ),
    ];
    for (level, names, what, todo) in all {
        if !names.is_empty() {
            findings.push(Finding::new(level, check, format!("{} {what}", some(&names)), todo));
        }
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok(check, format!("all {} belong to a ManagedSecret and have their seed", records.len())));
    }
    Ok(findings)
}

/// Whether a record that names this object as its owner belongs to it, or may be taken over by it.
fn is_record_of(object: &ManagedSecret, meta: &RecordMeta) -> bool {
    match object.status.as_ref().and_then(|status| status.id.as_ref()) {
        Some(id) => *id == meta.id,
        None => meta.fits(object.metadata.name.as_deref().unwrap_or_default(), &object.spec).is_ok(),
    }
}

/// Secrets with the labels of delivered ones that no record delivers.
pub(super) fn targets(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let (targets, records) = (facts.targets.known(check)?, facts.records.known(check)?);
    let (mut recordless, mut copies, mut collected) = (Vec::new(), Vec::new(), Vec::new());
    for ((namespace, name), stray) in strays(targets, records) {
        let called = format!("{namespace}/{name}");
        match stray {
            Stray::Recordless => recordless.push(called),
            Stray::CopyOf((namespace, name)) => copies.push(format!("{called} of {namespace}/{name}")),
            Stray::Collected => collected.push(called),
        }
    }
    let all = [
        (
            Level::Warning,
            recordless,
            "have the labels of a delivered Secret, but no record: each may contain the only copy of its value",
            "do not delete them: restore the records (kubectl msec restore BACKUP), or follow \"A target without its record\" \
             in docs/operations.md",
        ),
        (
            Level::Note,
            copies,
            "are copies of delivered Secrets with their labels: the operator neither updates nor deletes them",
            "when you copy a Secret, leave out the labels and annotations of managedsecrets.dev",
        ),
        (
            Level::Note,
            collected,
            "have an owner reference to a ManagedSecret that is not in their namespace: Kubernetes deletes them within seconds",
            "when you copy or restore a Secret, leave out its ownerReferences",
        ),
    ];
    let mut findings: Vec<_> = all
        .into_iter()
        .filter(|(_, names, ..)| !names.is_empty())
        .map(|(level, names, what, todo)| Finding::new(level, check, format!("{} {what}", some(&names)), todo))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("all {} have their record", targets.len())));
    }
    Ok(findings)
}

/// What the user may not do.
pub(super) fn permissions(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let permissions = facts.permissions.known(check)?;
    let lacking = permissions.iter().filter(|(_, allowed)| !allowed).map(|(need, _)| {
        let can_i = need.can_i(&facts.namespace, &facts.own);
        let todo = "if you need it, ask an administrator: docs/permissions.md lists the roles";
        Finding::new(Level::Note, check, format!("permission denied for {}: check `{can_i}`", need.command), todo)
    });
    let mut findings: Vec<_> = lacking.collect();
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("you may run every command in the namespace {}", facts.namespace)));
    }
    Ok(findings)
}
