//! One secret's life: created, updated, suspended, waited for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use managed_secrets_api::{ManagedSecret, keys, names::record_name};
use serde_json::{Value, json};

use super::{
    installation::{OPERATOR_NAMESPACE, admin},
    objects::{Site, conditions, id, message, moved, next_second, ready, status, version},
    operator::{Setup, Tap},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_value_is_recorded_delivered_and_described() {
    let site = Site::new("sealed").await;
    let operator = Setup::of(&site.namespace).start().await;
    let sealed = site.seal("weather", "grüße\n").await;
    site.apply("weather", json!({"name": "WEATHER_API_KEY", "description": "OpenWeather", "value": sealed})).await;
    let object = site.served("weather").await;
    site.delivers("weather", "value", "grüße\n").await;
    let status = object.status.clone().unwrap();
    let record = site.record("WEATHER_API_KEY").await.unwrap();
    assert_eq!(status.record.as_ref().unwrap().uid, record.metadata.uid.clone().unwrap());
    assert_eq!(status.version, Some(1));
    assert_eq!(status.created_date, status.updated_date);
    assert!(uuid::Uuid::parse_str(&status.id.unwrap()).is_ok());

    // Sealed again, the same value is no new value.
    let again = site.seal("weather", "grüße\n").await;
    site.apply("weather", json!({"name": "WEATHER_API_KEY", "description": "OpenWeather", "value": again})).await;
    assert_eq!(moved(&site.served("weather").await), moved(&object));

    site.delete("weather").await;
    site.gone("weather").await;
    operator.stop().await;
}

/// What of an object its dates describe.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    name: String,
    description: String,
    value: String,
    sealed: String,
}

impl Content {
    fn spec(&self) -> Value {
        json!({"name": self.name, "description": self.description, "value": self.sealed})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_description_and_value_move_exactly_their_dates() {
    let site = Site::new("dates").await;
    let operator = Setup::of(&site.namespace).start().await;
    let sealed = site.seal("db", "first").await;
    let mut now = Content { name: "NAME".to_owned(), description: "one".to_owned(), value: "first".to_owned(), sealed };
    site.apply("db", now.spec()).await;
    let first = site.served("db").await;
    let mut before = first.clone();
    for round in 1..8_u8 {
        let [name, description, value] = [1, 2, 4].map(|bit| round & bit != 0);
        if name {
            now.name = format!("NAME_{round}");
        }
        if description {
            now.description = format!("in round {round}");
        }
        if value {
            now.value = format!("value of round {round}");
            now.sealed = site.seal("db", &now.value).await;
        }
        next_second().await;
        site.apply("db", now.spec()).await;
        let after = site.served("db").await;
        let case = format!("name {name}, description {description}, value {value}");
        let (was, is) = (status(&before), status(&after));
        assert_eq!((&is.id, &is.created_date), (&was.id, &was.created_date), "{case}");
        assert!(is.updated_date > was.updated_date, "{case}");
        if value {
            assert_eq!((is.version, &is.value_updated_time), (was.version.map(|v| v + 1), &is.updated_date), "{case}");
        } else {
            assert_eq!((is.version, &is.value_updated_time), (was.version, &was.value_updated_time), "{case}");
        }
        assert_eq!(is.name.as_deref(), Some(now.name.as_str()), "{case}");
        let record = site.record(&now.name).await.unwrap();
        assert_eq!(record.annotations()[keys::ANNO_DESCRIPTION], now.description, "{case}");
        site.delivers("db", "value", &now.value).await;
        before = after;
    }

    // Absent means empty, not "leave as it was".
    next_second().await;
    site.apply("db", json!({"name": now.name, "value": now.sealed})).await;
    let after = site.served("db").await;
    assert_eq!(site.record(&now.name).await.unwrap().annotations()[keys::ANNO_DESCRIPTION], "");
    assert!(status(&after).updated_date > status(&before).updated_date);
    assert_eq!(status(&after).value_updated_time, status(&before).value_updated_time);

    // Nothing else moves a date, and an unchanged manifest changes nothing at all.
    next_second().await;
    for more in [
        json!({"target": {"labels": {"team": "a"}}}),
        json!({"target": {"key": "password"}}),
        json!({"target": {"name": "elsewhere"}}),
        json!({"delivery": "None"}),
        json!({"deletionPolicy": "Retain"}),
        json!({}),
        json!({}),
    ] {
        let mut spec = json!({"name": now.name, "value": now.sealed});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let applied = site.apply("db", spec.clone()).await;
        let served = site.served("db").await;
        assert_eq!(moved(&served), moved(&after), "{more}");
        let again = site.apply("db", spec).await;
        assert_eq!((again.metadata.generation, version(&again)), (applied.metadata.generation, version(&served)));
    }
    assert_eq!(site.labelled().await.len(), 2, "one record, one target");
    operator.stop().await;
}

/// Requests that write Secrets of a site's namespace.
fn secret_writes(tap: &Tap, site: &Site) -> usize {
    let path = format!("/namespaces/{}/secrets", site.namespace);
    tap.seen().iter().filter(|seen| seen.method != "GET" && seen.path.contains(&path)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_object_is_left_alone_and_catches_up() {
    let site = Site::new("suspend").await;
    let tap = Tap::recording();
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    let (first, second) = (site.seal("db", "first").await, site.seal("db", "second").await);
    site.apply("db", json!({"name": "NAME", "value": first})).await;
    let served = site.served("db").await;
    let writes = secret_writes(&tap, &site);

    let changed =
        json!({"name": "OTHER", "description": "new", "value": second, "target": {"key": "k"}, "suspend": true});
    let suspended = site.apply("db", changed.clone()).await;
    let object = site.reports("db", "True", "Suspended").await;
    assert_eq!(status(&object).observed_generation, suspended.metadata.generation);
    assert_eq!(conditions(&object), ["Ready"]);
    assert_eq!((status(&object).name.as_deref(), moved(&object)), (Some("NAME"), moved(&served)));

    // Neither drift nor a lost record is put right, nor does a restart: the next generation is seen, and nothing else.
    site.secrets().delete("db", &DeleteParams::default()).await.unwrap();
    operator.stop().await;
    let operator = Setup::of(&site.namespace).calls(&tap).start().await;
    let mut edited = changed.clone();
    edited["description"] = json!("newer");
    let edited = site.apply("db", edited).await;
    let seen = |object: &ManagedSecret| status(object).observed_generation == edited.metadata.generation;
    site.until("db", "the edit seen", seen).await;
    assert!(site.value("db", "value").await.is_none());
    assert_eq!(secret_writes(&tap, &site), writes);

    // An object that never was served is not served, but says so.
    site.apply("new", json!({"name": "NEW", "generate": {}, "suspend": true})).await;
    let object = site.reports("new", "Unknown", "Suspended").await;
    assert_eq!((conditions(&object), status(&object).id), (vec!["Ready".to_owned()], None));
    // What needs a person when it is suspended is not called stalled any more.
    site.apply("bad", json!({"name": "BAD", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}})).await;
    site.reports("bad", "False", "SourceNotFound").await;
    site.apply(
        "bad",
        json!({"name": "BAD", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}, "suspend": true}),
    )
    .await;
    assert_eq!(conditions(&site.reports("bad", "False", "Suspended").await), ["Ready"]);
    assert_eq!(secret_writes(&tap, &site), writes);

    let mut going_on = changed;
    going_on["suspend"] = json!(false);
    site.apply("db", going_on).await;
    let object = site.served("db").await;
    assert_eq!((id(&object), status(&object).version), (id(&served), Some(2)));
    assert_eq!(status(&object).name.as_deref(), Some("OTHER"));
    assert_eq!(site.value("db", "k").await.as_deref(), Some("second"));
    // The old record goes last, after the status.
    site.gone(&record_name("NAME")).await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_in_the_operators_own_namespace() {
    let site = Site { namespace: OPERATOR_NAMESPACE.to_owned(), client: admin().await };
    let operator = Setup::of(OPERATOR_NAMESPACE).start().await;
    site.apply("misplaced", json!({"name": "MISPLACED", "generate": {}})).await;
    let object = site.reports("misplaced", "False", "NamespaceNotServed").await;
    assert_eq!(conditions(&object), ["Ready", "Stalled"]);
    assert!(site.record("MISPLACED").await.is_none() && site.value("misplaced", "value").await.is_none());
    site.delete("misplaced").await;
    operator.stop().await;
}

/// Moves the transition times of an object's conditions three minutes back, as the restorer.
async fn age_conditions(site: &Site, object: &ManagedSecret) {
    let mut conditions: Vec<Condition> = status(object).conditions.unwrap();
    for condition in &mut conditions {
        condition.last_transition_time.0 -= jiff::SignedDuration::from_mins(3);
    }
    site.write_status(&object.name_any(), json!({"conditions": conditions})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_is_stalled_and_what_no_longer_holds_is_unsaid() {
    let site = Site::new("waiting").await;
    let operator = Setup::of(&site.namespace).start().await;
    let spec = |description: &str| json!({"name": "NAME", "description": description, "valueFrom": {"secretKeyRef": {"name": "up", "key": "k"}}});
    site.apply("db", spec("")).await;
    let object = site.reports("db", "False", "SourceNotFound").await;
    assert_eq!(conditions(&object), ["Ready", "Reconciling"]);
    assert!(message(&object).contains("Secret up does not exist"), "{}", message(&object));

    age_conditions(&site, &object).await;
    let object = site.until("db", "stalled", |object| conditions(object).contains(&"Stalled".to_owned())).await;
    assert_eq!(
        (conditions(&object), ready(&object).1.as_str()),
        (vec!["Ready".into(), "Stalled".into()], "SourceNotFound")
    );

    // Counted from zero for each generation.
    site.apply("db", spec("edited")).await;
    assert_eq!(conditions(&site.reports("db", "False", "SourceNotFound").await), ["Ready", "Reconciling"]);

    // The message follows at once: another cause, none.
    site.foreign_secret("up", &[("other", "x")]).await;
    let object = site.reports("db", "False", "SourceKeyNotFound").await;
    assert!(message(&object).contains("Secret up has no key k"), "{}", message(&object));
    let patch = Patch::Merge(json!({"stringData": {"k": "value"}}));
    site.secrets().patch("up", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(conditions(&site.served("db").await), ["Ready"]);
    operator.stop().await;
}
