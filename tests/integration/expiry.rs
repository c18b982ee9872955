//! A value that expires: what is said of it and when, and that nothing is delivered less.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use jiff::SignedDuration;
use kube::ResourceExt as _;
use managed_secrets::controller::conditions::EXPIRING;
use managed_secrets_api::ManagedSecret;
use serde_json::json;
use testkit::poll;

use super::{
    objects::{Site, conditions, in_time, next_second, ready, status},
    operator::{PATIENCE, Setup},
};

/// Reason and message of the condition.
fn said(object: &ManagedSecret) -> Option<(String, String)> {
    let conditions = status(object).conditions.unwrap_or_default();
    let said = conditions.into_iter().find(|condition| condition.type_ == EXPIRING)?;
    assert_eq!((said.status.as_str(), said.observed_generation), ("True", status(object).observed_generation));
    Some((said.reason, said.message))
}

async fn until(site: &Site, reason: Option<&str>, part: &str) -> ManagedSecret {
    let what = format!("{reason:?} with {part:?}");
    site.until("token", &what, |object| {
        let said = said(object);
        let fits = said.as_ref().map(|(reason, _)| reason.as_str()) == reason
            && said.is_none_or(|(_, message)| message.contains(part));
        fits && ready(object) == ("True".to_owned(), "Served".to_owned())
    })
    .await
}

/// Waits for the event, and checks that it is the only one.
async fn one_event(site: &Site, reason: &str) {
    let what = format!("an event {reason}");
    let notes = poll(&what, PATIENCE, || async {
        Ok(Some(site.events("token", reason).await).filter(|notes| !notes.is_empty()))
    });
    let notes = notes.await.unwrap();
    assert_eq!((notes.len(), site.repetitions("token", reason).await), (1, 0), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_expires_is_warned_of_once_and_stays_delivered() {
    let site = Site::new("expiry").await;
    let operator = Setup::of(&site.namespace).start().await;
    let (first, second) = (site.seal("token", "one").await, site.seal("token", "two").await);
    let spec = |value: &str, expires: Option<&str>| {
        let mut spec = json!({"name": "TOKEN", "value": value});
        if let Some(expires) = expires {
            spec["expires"] = json!(expires);
        }
        spec
    };
    let later = in_time(SignedDuration::from_hours(24 * 31));
    site.apply("token", spec(&first, Some(&later))).await;
    let object = site.in_step("token").await;
    assert_eq!((conditions(&object), said(&object)), (vec!["Ready".to_owned()], None));
    let target = site.secret("token").await.unwrap().resource_version();

    // The value was set after a warning with this date would have begun. But it is the first one, and has replaced none.
    let soon = in_time(SignedDuration::from_hours(24));
    site.apply("token", spec(&first, Some(&soon))).await;
    let object = until(&site, Some("ExpiresSoon"), &format!("expires at {soon}: set a new value")).await;
    one_event(&site, "ExpiresSoon").await;
    assert_eq!(site.secret("token").await.unwrap().resource_version(), target, "delivered as before");

    // A new value with the old date keeps the condition, and the message says that the value was changed.
    next_second().await;
    let before = status(&object).value_updated_time.unwrap();
    site.apply("token", spec(&second, Some(&soon))).await;
    let changed = |object: &ManagedSecret| status(object).value_updated_time.filter(|date| *date != before);
    let object = site.until("token", "the new value", |object| changed(object).is_some()).await;
    until(&site, Some("ExpiresSoon"), &format!("changed at {}", changed(&object).unwrap())).await;

    // The date comes by itself: no event of a watch says so.
    site.apply("token", spec(&second, Some(&in_time(SignedDuration::from_secs(3))))).await;
    until(&site, Some("Expired"), "still delivers it").await;
    one_event(&site, "Expired").await;
    one_event(&site, "ExpiresSoon").await;
    site.delivers("token", "value", "two").await;

    // A restart says nothing again.
    operator.stop().await;
    let object = site.get("token").await;
    let operator = Setup::of(&site.namespace).start().await;
    site.apply("marker", json!({"name": "MARKER", "generate": {}})).await;
    site.served("marker").await;
    site.nudge("token").await;
    site.apply("token", spec(&second, None)).await;
    let free = until(&site, None, "").await;
    assert_eq!(conditions(&free), ["Ready"]);
    one_event(&site, "Expired").await;
    assert_eq!(status(&free).version, status(&object).version);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_suspended_or_not_delivered_is_warned_of_as_well() {
    let site = Site::new("expiry-held").await;
    let operator = Setup::of(&site.namespace).start().await;
    let expires = in_time(SignedDuration::from_hours(-1));
    site.apply("held", json!({"name": "HELD", "generate": {}, "suspend": true, "expires": expires})).await;
    let from = json!({"secretKeyRef": {"name": "nowhere", "key": "key"}});
    site.apply("waits", json!({"name": "WAITS", "valueFrom": from, "expires": expires})).await;
    for (name, reason) in [("held", "Suspended"), ("waits", "SourceNotFound")] {
        let object = site.until(name, reason, |object| ready(object).1 == reason && said(object).is_some()).await;
        assert_eq!(said(&object).unwrap().0, "Expired", "{name}");
    }
    operator.stop().await;
}
