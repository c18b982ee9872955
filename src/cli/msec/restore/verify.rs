//! After a restore: waits until what was restored is served, and compares it with the backup.
//!
//! What is compared is what the operator reports once it has opened the record: id, dates and version. The value needs no
//! look: it is authenticated with the version that it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::plan::{Item, Step, Verdict};
use crate::api::keys::CONDITION_READY;
use crate::api::{ManagedSecret, Reason};
use crate::cli::CliError;
use crate::cli::msec::archive::{Place, RecordInfo, place};
use crate::cli::msec::backup::read;
use crate::cli::msec::progress::Progress;
use crate::cli::msec::session::Session;
use crate::cli::msec::wait::Clock;

/// What is to be served, and what its record said in the backup.
pub(super) type Expected = BTreeMap<Place, Option<RecordInfo>>;

/// What was found in the end.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A line for each secret that is not as in the backup, and one for all others.
    pub(super) lines: Vec<String>,
    waiting: usize,
    differing: usize,
}

impl Found {
    /// What is wrong, if anything is.
    pub(super) fn error(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.waiting > 0 {
            parts.push(format!(
                "{} not served yet (does the operator run? The same command, again, waits and writes nothing)",
                secrets(self.waiting)
            ));
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
    /// Served as in the backup.
    Same,
    /// Served, with a newer value, name or description than the backup's.
    MovedOn(String),
    /// Not served: why.
    Waiting(String),
    /// Never to be served as it is: why.
    Paused,
    /// Served as something else.
    Differs(String),
}

/// What a restore leaves to be served.
pub(super) fn expected(steps: &[Step]) -> Expected {
    let lost: BTreeSet<_> = steps
        .iter()
        .filter(|step| matches!(step.verdict, Verdict::Conflict(_)))
        .filter_map(|step| match &step.item {
            Item::Record(_, info) => Some((step.item.place().0, info.owner.clone())),
            _ => None,
        })
        .collect();
    let objects = steps.iter().filter_map(|step| match (&step.item, &step.verdict) {
        (Item::Object(object, record), Verdict::Create | Verdict::There(_)) => Some((object.place(), record.clone())),
        _ => None,
    });
    objects.filter(|(place, _)| !lost.contains(place)).collect()
}

/// Looks until everything is served, or time is up. A cluster that does not answer for a moment ends no wait.
pub(super) async fn wait(session: &Session, expected: &Expected, timeout: Duration) -> Result<Found, CliError> {
    let progress = Progress::new("served");
    let mut clock = Clock::new(timeout);
    // What the last look that was answered has shown.
    let mut found = None;
    loop {
        let silence = match look(session, expected).await {
            Ok(states) => {
                let waiting = states.values().filter(|state| matches!(state, State::Waiting(_))).count();
                progress.of(expected.len() - waiting, expected.len());
                if waiting == 0 {
                    return Ok(report(&states));
                }
                found = Some(states);
                None
            }
            Err(error @ CliError::Unreachable(_)) => Some(error),
            Err(error) => return Err(error),
        };
        if !clock.pause().await {
            return match (found, silence) {
                (None, Some(error)) => Err(error),
                (found, _) => Ok(report(&found.unwrap_or_default())),
            };
        }
    }
}

async fn look<'a>(session: &Session, expected: &'a Expected) -> Result<BTreeMap<&'a Place, State>, CliError> {
    let namespaces: BTreeSet<_> = expected.keys().map(|(namespace, _)| namespace).collect();
    let mut objects = BTreeMap::new();
    for namespace in namespaces {
        for object in read::dynamic_objects(session, Some(namespace), &Progress::silent()).await? {
            if let Ok(object) = object.try_parse::<ManagedSecret>() {
                objects.insert(place(&object.metadata), object);
            }
        }
    }
    Ok(expected.iter().map(|(place, record)| (place, state(objects.get(place), record.as_ref()))).collect())
}

/// "1 secret is", "2 secrets are".
fn secrets(n: usize) -> String {
    if n == 1 { "1 secret is".to_owned() } else { format!("{n} secrets are") }
}

fn report(states: &BTreeMap<&Place, State>) -> Found {
    let mut found = Found::default();
    let mut same = 0;
    for ((namespace, name), state) in states {
        let line = match state {
            State::Same => {
                same += 1;
                continue;
            }
            State::MovedOn(what) => format!("has moved on since the backup: {what}"),
            State::Paused => "is suspended: nothing is served until spec.suspend is false".to_owned(),
            State::Waiting(why) => {
                found.waiting += 1;
                format!("is not served: {why}")
            }
            State::Differs(what) => {
                found.differing += 1;
                format!("differs from the backup: {what}")
            }
        };
        found.lines.push(format!("ManagedSecret {namespace}/{name} {line}"));
    }
    if same > 0 {
        found.lines.push(format!("{} served with the backup's ids, dates and versions", secrets(same)));
    }
    found
}

fn state(object: Option<&ManagedSecret>, record: Option<&RecordInfo>) -> State {
    let Some(object) = object else { return State::Waiting("it is not there any more".to_owned()) };
    let status = object.status.clone().unwrap_or_default();
    let ready = status.conditions.as_deref().unwrap_or_default().iter().find(|it| it.type_ == CONDITION_READY);
    let current = |ready: &&Condition| ready.observed_generation == object.metadata.generation;
    match ready.filter(current) {
        Some(ready) if ready.reason == Reason::Suspended.as_str() => return State::Paused,
        Some(ready) if ready.status == "True" => {}
        Some(ready) => return State::Waiting(format!("{}: {}", ready.reason, ready.message)),
        None => return State::Waiting("the operator has not looked at it yet".to_owned()),
    }
    let Some(record) = record else { return State::Same };
    let version = status.version.unwrap_or_default();
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
    use crate::api::keys::*;
    use crate::api::names::record_name;

    fn record() -> RecordInfo {
        let annotations = json!({
            ANNO_NAME: "DB", ANNO_OWNER: "db", ANNO_UID: "u", ANNO_CREATED: "2026-11-23T08:00:00Z",
            ANNO_UPDATED: "2026-11-23T09:00:00Z", ANNO_VALUE_UPDATED: "2026-11-23T08:30:00Z", ANNO_VERSION: "3",
            ANNO_DELETION_POLICY: "Delete", ANNO_TARGET: "none",
            ANNO_MAC: "o2XvHHnhG07q6N8G+RiuJj96iL2SYb7S9C+Ss3gqisoBzJMYcKYK7A==",
        });
        let metadata = json!({"name": record_name("DB"), "annotations": annotations, "labels": {LABEL_ID: "the-id"}});
        RecordInfo::of(&serde_json::from_value(metadata).unwrap()).unwrap()
    }

    fn object(ready: &Value, change: &Value) -> ManagedSecret {
        let mut object = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db", "generation": 2},
            "status": {
                "id": "the-id", "createdDate": "2026-11-23T08:00:00Z", "updatedDate": "2026-11-23T09:00:00Z",
                "valueUpdatedTime": "2026-11-23T08:30:00Z", "version": 3, "conditions": [{
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

    #[test]
    fn a_restored_secret_is_told_from_another_and_from_a_newer_one() {
        let served = json!(["True", "Served"]);
        let of = |ready: &Value, change: &Value| state(Some(&object(ready, change)), Some(&record()));
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
        assert!(matches!(state(None, None), State::Waiting(_)));
        assert_eq!(state(Some(&object(&served, &json!({"id": "fresh"}))), None), State::Same);
    }

    #[test]
    fn what_waits_or_differs_is_an_error() {
        let at = |name: &str| ("shop".to_owned(), name.to_owned());
        let (one, two, three) = (at("a"), at("b"), at("c"));
        let states = [(&one, State::Same), (&two, State::MovedOn("x".to_owned())), (&three, State::Paused)];
        let fine = report(&states.into());
        assert_eq!((fine.lines.len(), fine.error()), (3, None));
        let states = [(&one, State::Waiting("x".to_owned())), (&two, State::Differs("y".to_owned()))];
        let wrong = report(&states.into());
        assert!(
            wrong.error().is_some_and(|error| error.contains("1 secret is not served") && error.contains("not what"))
        );
    }
}
