//! One secret's life: created from each source, updated, renamed, deleted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::json;

use super::{
    objects::{Site, moved},
    operator::Setup,
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
