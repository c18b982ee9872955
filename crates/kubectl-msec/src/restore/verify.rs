//! After a restore: waits until what was restored is delivered, and compares it with the backup.
//!
//! It compares what the operator reports after it has opened the record: id, dates and version. It need not compare the
//! value, which is authenticated together with its version.
//!
//! A status counts only if it names the record and the target Secret that exist: an older status may be about others. If
//! every status is older than this restore, none shows that the operator runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use managed_secrets_api::keys::{CONDITION_READY, LABEL_ROLE};
use managed_secrets_api::record::RecordMeta;
use managed_secrets_api::{ManagedSecret, Reason};
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::{CallError, RefusalKind, SecretApi};

use super::operator::Operator;
use super::plan::{Item, Step, Verdict};
use crate::archive::{Place, place};
use crate::backup::read;
use crate::progress::Progress;
use crate::session::Session;
use crate::wait::Clock;

/// What is to be delivered.
pub(super) type Expected = BTreeMap<Place, Wanted>;

/// One secret that is to be delivered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// What its record said in the backup.
    record: Option<RecordMeta>,
    /// Whether this restore created the ManagedSecret: then its whole status is newer than the restore.
    created: bool,
}

/// What was found in the end.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A line for each secret that differs from the backup, and one line for all others.
    pub(super) lines: Vec<String>,
    waiting: usize,
    differing: usize,
    /// Delivered after this restore wrote, which only a running operator does.
    fresh: usize,
    /// Delivered already at this restore's first look.
    old: usize,
}

impl Found {
    /// Whether no status shows that the operator runs, or something waits for it.
    pub(super) fn asks_for_the_operator(&self) -> bool {
        self.waiting > 0 || self.old > 0 && self.fresh == 0
    }

    /// What is wrong, if anything is.
    pub(super) fn error(&self, operator: &Operator) -> Option<String> {
        let mut parts = Vec::new();
        if self.waiting > 0 {
            parts.push(operator.of_waiting(&secrets(self.waiting)));
        } else if self.fresh == 0 {
            parts.extend(operator.of_old_status());
        }
        if self.differing > 0 {
            parts.push(format!("{} not what the backup has", secrets(self.differing)));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The state of one restored secret.
#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// Delivered as in the backup.
    Same,
    /// Delivered, with a newer value, name or description than the backup's.
    MovedOn(String),
    /// Not delivered: why.
    Waiting(String),
    /// Suspended: not delivered.
    Paused,
    /// Delivered as something else.
    Differs(String),
}

/// What a restore leaves to be delivered.
pub(super) fn expected(steps: &[Step]) -> Expected {
    let lost: BTreeSet<_> = steps
        .iter()
        .filter(|step| matches!(step.verdict, Verdict::Conflict(_)))
        .filter_map(|step| match &step.item {
            Item::Record(_, record) => Some((step.item.place().0, record.meta.owner.clone())),
            _ => None,
        })
        .collect();
    let objects = steps.iter().filter_map(|step| match (&step.item, &step.verdict) {
        (Item::Object(object, record), verdict @ (Verdict::Create | Verdict::There(_))) => {
            Some((object.place(), Wanted { record: record.clone(), created: *verdict == Verdict::Create }))
        }
        _ => None,
    });
    objects.filter(|(place, _)| !lost.contains(place)).collect()
}

/// Looks until everything is delivered or the time is over. The wait continues if the cluster does not answer for a moment.
pub(super) async fn wait(session: &Session, expected: &Expected, timeout: Duration) -> Result<Found, CliError> {
    let progress = Progress::new("delivered");
    let mut clock = Clock::new(timeout);
    // The result of the last successful look, and what any look has found waiting.
    let (mut found, mut waited) = (None, BTreeSet::new());
    loop {
        let silence = match look(session, expected).await {
            Ok(states) => {
                let waiting = states.iter().filter(|(_, state)| matches!(state, State::Waiting(_)));
                let waiting: Vec<_> = waiting.map(|(place, _)| *place).collect();
                progress.of(expected.len() - waiting.len(), expected.len());
                if waiting.is_empty() {
                    return Ok(report(&states, expected, &waited));
                }
                waited.extend(waiting);
                found = Some(states);
                None
            }
            Err(error @ CliError::Unreachable(_)) => Some(error),
            Err(error) => return Err(error),
        };
        if !clock.pause().await {
            return match (found, silence) {
                (None, Some(error)) => Err(error),
                (found, _) => Ok(report(&found.unwrap_or_default(), expected, &waited)),
            };
        }
    }
}

async fn look<'a>(session: &Session, expected: &'a Expected) -> Result<BTreeMap<&'a Place, State>, CliError> {
    let namespaces: BTreeSet<_> = expected.keys().map(|(namespace, _)| namespace).collect();
    let (mut objects, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for namespace in namespaces {
        for object in read::dynamic_objects(session, Some(namespace), &Progress::silent()).await? {
            if let Ok(object) = object.try_parse::<ManagedSecret>() {
                objects.insert(place(&object.metadata), object);
            }
        }
        if let Some(uids) = uids_of_secrets(session, namespace).await? {
            secrets.insert(namespace, uids);
        }
    }
    let state_of = |place: &Place, wanted: &Wanted| state(objects.get(place), wanted, secrets.get(&place.0));
    Ok(expected.iter().map(|(place, wanted)| (place, state_of(place, wanted))).collect())
}

/// Uids of the records and targets of a namespace; `None` if the user may not list them, which is enough for a restore
/// without records.
async fn uids_of_secrets(session: &Session, namespace: &str) -> Result<Option<BTreeSet<String>>, CliError> {
    match SecretApi::namespaced(session.client.clone(), namespace).list_labelled(LABEL_ROLE).await {
        Ok(found) => Ok(Some(found.into_iter().filter(is_living).filter_map(|metadata| metadata.uid).collect())),
        Err(CallError::Refused(refusal)) if refusal.kind == RefusalKind::Rbac => Ok(None),
        Err(error) => {
            Err(Permission::to("list", "secrets").within(namespace).explain_call("cannot list Secrets", &error))
        }
    }
}

fn is_living(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_none()
}

/// "1 secret is", "2 secrets are".
fn secrets(n: usize) -> String {
    if n == 1 { "1 secret is".to_owned() } else { format!("{n} secrets are") }
}

fn report(states: &BTreeMap<&Place, State>, expected: &Expected, waited: &BTreeSet<&Place>) -> Found {
    let mut found = Found::default();
    let (mut same, mut same_before) = (0, 0);
    for (&place, state) in states {
        let is_fresh = waited.contains(place) || expected.get(place).is_some_and(|wanted| wanted.created);
        match state {
            State::Same | State::MovedOn(_) | State::Differs(_) if is_fresh => found.fresh += 1,
            State::Same | State::MovedOn(_) | State::Differs(_) => found.old += 1,
            State::Waiting(_) | State::Paused => {}
        }
        let line = match state {
            State::Same => {
                same += 1;
                same_before += usize::from(!is_fresh);
                continue;
            }
            State::MovedOn(what) => format!("has changed since the backup: {what}"),
            State::Paused => "is suspended: nothing is delivered until spec.suspend is false".to_owned(),
            State::Waiting(why) => {
                found.waiting += 1;
                format!("is not delivered: {why}")
            }
            State::Differs(what) => {
                found.differing += 1;
                format!("differs from the backup: {what}")
            }
        };
        let (namespace, name) = place;
        found.lines.push(format!("ManagedSecret {namespace}/{name} {line}"));
    }
    if same > 0 {
        let before = match same_before {
            0 => String::new(),
            all if all == same => ", as before this restore".to_owned(),
            part => format!(", {part} of them as before this restore"),
        };
        found.lines.push(format!("{} delivered with the backup's ids, dates and versions{before}", secrets(same)));
    }
    found
}

fn state(object: Option<&ManagedSecret>, wanted: &Wanted, secrets: Option<&BTreeSet<String>>) -> State {
    let Some(object) = object else { return State::Waiting("it was deleted".to_owned()) };
    let status = object.status.clone().unwrap_or_default();
    let ready = status.conditions.as_deref().unwrap_or_default().iter().find(|it| it.type_ == CONDITION_READY);
    let current = |ready: &&Condition| ready.observed_generation == object.metadata.generation;
    match ready.filter(current) {
        Some(ready) if ready.reason == Reason::Suspended.as_str() => return State::Paused,
        Some(ready) if ready.status == "True" => {}
        Some(ready) => return State::Waiting(format!("{}: {}", ready.reason, ready.message)),
        None => return State::Waiting("the operator has not looked at it yet".to_owned()),
    }
    if let Some(secrets) = secrets {
        let stands = |uid: &String| secrets.contains(uid);
        if !status.record.as_ref().is_some_and(|record| stands(&record.uid)) {
            return State::Waiting("the operator has not looked at its record yet".to_owned());
        }
        if let Some(target) = status.target.as_ref().filter(|target| !stands(&target.uid)) {
            return State::Waiting(format!("the Secret {} that its status names was deleted", target.name));
        }
    }
    let Some(record) = &wanted.record else { return State::Same };
    let version = status.version.and_then(|version| u64::try_from(version).ok()).unwrap_or_default();
    let rows = [
        ("id", status.id, &record.id),
        ("createdDate", status.created_date, &record.created),
        ("updatedDate", status.updated_date.clone(), &record.updated),
        ("valueUpdatedTime", status.value_updated_time, &record.value_updated),
        ("version", Some(version.to_string()), &record.version.to_string()),
    ];
    let same_secret = rows.iter().take(2).all(|(_, here, backup)| here.as_ref() == Some(*backup));
    // Dates of one form sort as times do.
    let newer =
        version > record.version || version == record.version && status.updated_date.as_ref() > Some(&record.updated);
    let differing: Vec<_> = rows
        .into_iter()
        .filter(|(_, here, backup)| here.as_ref() != Some(*backup))
        .map(|(field, here, backup)| format!("{field} is {}, was {backup}", here.unwrap_or_default()))
        .collect();
    match (differing.is_empty(), same_secret && newer) {
        (true, _) => State::Same,
        (false, true) => State::MovedOn(differing.join(", ")),
        (false, false) => State::Differs(differing.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::archive::testing::meta;

    fn object(ready: &Value, change: &Value) -> ManagedSecret {
        let mut object = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db", "generation": 2},
            "status": {
                "id": "the-id", "createdDate": "2026-11-23T08:00:00Z", "updatedDate": "2026-11-23T09:00:00Z",
                "valueUpdatedTime": "2026-11-23T08:30:00Z", "version": 3,
                "record": {"name": "r", "uid": "record-uid", "resourceVersion": "1"},
                "target": {"name": "db", "key": "value", "uid": "target-uid", "resourceVersion": "2"}, "conditions": [{
                    "type": "Ready", "status": ready[0], "reason": ready[1], "message": "m", "observedGeneration": 2,
                    "lastTransitionTime": "2026-11-23T09:00:00Z",
                }],
            },
        });
        for (key, value) in change.as_object().unwrap() {
            object["status"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn wanted(record: Option<RecordMeta>) -> Wanted {
        Wanted { record, created: true }
    }

    fn standing(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn a_restored_secret_is_told_from_another_and_from_a_newer_one() {
        let served = json!(["True", "Served"]);
        let secrets = standing(&["record-uid", "target-uid"]);
        let of =
            |ready: &Value, change: &Value| state(Some(&object(ready, change)), &wanted(Some(meta())), Some(&secrets));
        assert_eq!(of(&served, &json!({})), State::Same);
        assert_eq!(of(&json!(["True", "Suspended"]), &json!({})), State::Paused);
        assert_eq!(of(&json!(["False", "SeedUnknown"]), &json!({})), State::Waiting("SeedUnknown: m".to_owned()));
        for (change, text) in [
            (json!({"id": "x"}), "id is x, was the-id"),
            (json!({"createdDate": "2026-11-24T08:00:00Z", "version": 9}), "createdDate is"),
            (json!({"version": 2}), "version is 2, was 3"),
            (json!({"valueUpdatedTime": "2026-11-23T08:31:00Z"}), "valueUpdatedTime is"),
        ] {
            assert!(matches!(of(&served, &change), State::Differs(what) if what.contains(text)), "{change}");
        }
        for change in [json!({"version": 4}), json!({"updatedDate": "2026-11-24T09:00:00Z"})] {
            assert!(matches!(of(&served, &change), State::MovedOn(_)), "{change}");
        }
        assert!(matches!(state(None, &wanted(None), Some(&secrets)), State::Waiting(_)));
        assert_eq!(state(Some(&object(&served, &json!({"id": "new"}))), &wanted(None), Some(&secrets)), State::Same);
    }

    #[test]
    fn a_status_that_names_another_record_or_target_than_stands_is_not_believed() {
        let served = object(&json!(["True", "Served"]), &json!({}));
        let of = |uids: &[&str]| state(Some(&served), &wanted(Some(meta())), Some(&standing(uids)));
        let waits = |state: State, says: &str| {
            assert!(matches!(&state, State::Waiting(why) if why.contains(says)), "{state:?}");
        };
        waits(of(&["another", "target-uid"]), "its record");
        waits(of(&["record-uid", "another"]), "the Secret db");
        let undelivered = object(&json!(["True", "Served"]), &json!({"target": null}));
        assert_eq!(state(Some(&undelivered), &wanted(None), Some(&standing(&["record-uid"]))), State::Same);
        let recordless = object(&json!(["True", "Served"]), &json!({"record": null}));
        waits(state(Some(&recordless), &wanted(None), Some(&standing(&["target-uid"]))), "its record");
        // A user who may not list Secrets gets what status says.
        assert_eq!(state(Some(&served), &wanted(None), None), State::Same);
    }

    fn at(name: &str) -> Place {
        ("shop".to_owned(), name.to_owned())
    }

    /// These secrets, of which the first was created by the restore.
    fn found(states: &[State], waited: &[usize]) -> Found {
        let places: Vec<_> = (0..states.len()).map(|n| at(&n.to_string())).collect();
        let expected = places.iter().enumerate();
        let expected = expected.map(|(n, place)| (place.clone(), Wanted { record: None, created: n == 0 })).collect();
        let waited = waited.iter().map(|n| &places[*n]).collect();
        report(&places.iter().zip(states.iter().cloned()).collect(), &expected, &waited)
    }

    fn unavailable() -> Operator {
        Operator::Unavailable { why: "none of 1 replicas is available".to_owned(), check: "logs".to_owned() }
    }

    #[test]
    fn what_waits_or_differs_is_an_error() {
        let fine = found(&[State::Same, State::MovedOn("x".to_owned()), State::Paused], &[]);
        assert_eq!((fine.lines.len(), fine.error(&Operator::Proven)), (3, None));
        assert!(!fine.asks_for_the_operator());
        let wrong = found(&[State::Waiting("x".to_owned()), State::Differs("y".to_owned())], &[0]);
        assert!(wrong.asks_for_the_operator());
        let says = |operator: &Operator, text: &str| {
            let error = wrong.error(operator).unwrap();
            assert!(
                error.starts_with("1 secret is restored, but not delivered yet") && error.contains(text),
                "{error}"
            );
            assert!(error.contains("1 secret is not what the backup has"), "{error}");
        };
        says(&unavailable(), "the operator is not available: none of 1 replicas is available; check `logs`");
        says(&Operator::Unknown("no Deployment".to_owned()), "unknown whether the operator runs: no Deployment");
        says(&Operator::Available(None), "kubectl msec doctor");
        assert_eq!((Operator::Proven.note(), unavailable().note()), (None, None));
    }

    #[test]
    fn an_old_status_shows_no_running_operator() {
        // The first is created by the restore, so it is not old: leave it suspended.
        let old = found(&[State::Paused, State::Same, State::MovedOn("x".to_owned())], &[]);
        assert!(old.asks_for_the_operator());
        assert!(old.lines.iter().any(|line| line.ends_with("versions, as before this restore")), "{:?}", old.lines);
        assert!(old.error(&unavailable()).unwrap().starts_with("the operator is not available"));
        // Neither an error nor silence: what is known is said.
        let since = Some("2026-11-23T09:00:00Z".parse().unwrap());
        for (operator, says) in [
            (Operator::Available(since), "; its Deployment reports an available replica, since 2026-11-23T09:00:00Z"),
            (Operator::Available(None), "; its Deployment reports an available replica"),
            (Operator::Unknown("no permission".to_owned()), ", and it is unknown whether it runs: no permission"),
        ] {
            assert_eq!(old.error(&operator), None);
            let note = operator.note().unwrap();
            assert!(note.starts_with("every status is older than this restore") && note.ends_with(says), "{note}");
        }
        // One that was seen to wait was delivered meanwhile.
        let moved = found(&[State::Paused, State::Same, State::Same], &[1]);
        assert!(!moved.asks_for_the_operator());
        assert!(
            moved.lines.iter().any(|line| line.ends_with(", 1 of them as before this restore")),
            "{:?}",
            moved.lines
        );
    }
}
