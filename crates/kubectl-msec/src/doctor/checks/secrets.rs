//! The secrets themselves: which are not served and why, and which records nobody can use. And what the caller may do.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use managed_secrets_api::keys::{CONDITION_READY, CONDITION_STALLED};
use managed_secrets_api::record::{RecordMeta, StoredRecord};
use managed_secrets_api::types::DeletionPolicy;
use managed_secrets_api::{ManagedSecret, Reason};

use super::super::facts::Facts;
use super::super::finding::{Finding, Level, Read};
use crate::archive::{StoredKeyring, Stray, place, strays};

/// An object that is new is not stuck yet.
const NEW: SignedDuration = SignedDuration::from_mins(2);
/// So many objects are named; the rest is counted.
const NAMED: usize = 3;

/// Those that are not served, by reason.
pub(super) fn objects(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let objects = facts.objects.known(check)?;
    let mut waiting = BTreeMap::<(bool, String), Vec<String>>::new();
    for object in objects {
        let (reason, is_true) = condition(object, CONDITION_READY);
        // Without an operator, status never says more than what the CRD gives it.
        let is_new = object.metadata.creation_timestamp.as_ref().is_some_and(|made| made.0 + NEW > facts.now);
        let ignored = reason == Reason::Pending.as_str() && !is_new;
        let stuck = condition(object, CONDITION_STALLED).1 || ignored;
        if !is_true || stuck {
            let (namespace, name) = place(&object.metadata);
            waiting.entry((!stuck, reason)).or_default().push(format!("{namespace}/{name}"));
        }
    }
    let mut findings: Vec<_> = waiting
        .into_iter()
        .map(|((passing, reason), names)| {
            let what = format!("{reason}: {}", some(&names));
            let todo =
                format!("kubectl msec explain {reason}; kubectl msec describe msec/OBJECT -n NAMESPACE tells more");
            if passing {
                Finding::new(Level::Warning, check, format!("not delivered (yet): {what}"), todo)
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

/// Records under an unknown seed, and records of nobody.
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
        // With an owner that is gone, Kubernetes is about to collect it.
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
            "were encrypted under a seed that the keyring lacks",
            "restore that keyring beside the current one: kubectl msec restore BACKUP",
        ),
        (
            Level::Problem,
            broken,
            "lack what a record must have",
            "restore them from a backup; or remove them, and the operator rebuilds what it can",
        ),
        (
            Level::Warning,
            orphans,
            "have no ManagedSecret, and hold their names",
            "apply their ManagedSecrets (kubectl msec restore does both); or remove them if the values are not needed",
        ),
        (
            Level::Note,
            retained,
            "are retained, and hold their names",
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

/// Whether a record that names this object as its owner is the object's own, or one that the object may take over.
fn is_record_of(object: &ManagedSecret, meta: &RecordMeta) -> bool {
    match object.status.as_ref().and_then(|status| status.id.as_ref()) {
        Some(id) => *id == meta.id,
        None => meta.fits(object.metadata.name.as_deref().unwrap_or_default(), &object.spec).is_ok(),
    }
}

/// Secrets that look delivered, and are not what a record delivers.
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
            "have the labels of a delivered Secret, and their record is missing: each may hold the only copy of its \
             value",
            "do not delete them: restore the records (kubectl msec restore BACKUP), or take the values over as \
             docs/operations.md says (A target without its record)",
        ),
        (
            Level::Note,
            copies,
            "are copies of delivered Secrets, with their labels: the operator neither updates nor removes them",
            "leave out labels and annotations of managedsecrets.dev when you copy a Secret",
        ),
        (
            Level::Note,
            collected,
            "are owned by a ManagedSecret that is not in their namespace: Kubernetes deletes them within seconds",
            "leave out ownerReferences when you copy or restore a Secret",
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

/// What the caller may not do.
pub(super) fn rights(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let rights = facts.rights.known(check)?;
    let lacking = rights.iter().filter(|(_, allowed)| !allowed).map(|(need, _)| {
        let can_i = need.can_i(&facts.namespace, &facts.own);
        let todo = "ask an administrator, if you need it: docs/permissions.md lists the roles";
        Finding::new(Level::Note, check, format!("you cannot {}: `{can_i}` says no", need.command), todo)
    });
    let mut findings: Vec<_> = lacking.collect();
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("you may run every command in the namespace {}", facts.namespace)));
    }
    Ok(findings)
}
