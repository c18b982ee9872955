//! The condition `Expiring`: the value expires soon, or has expired.
//!
//! In: what the spec says about it, when the value last changed, the time. Out: the condition, where there is something to
//! say, and when to look again. Pure. It depends on the time alone, so a clock that was wrong leaves no trace once it is
//! right. Nothing is delivered less because of it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use managed_secrets_api::{Reason, expiry::Expiry, types::ManagedSecretStatus};

use super::{
    conditions::{EXPIRING, bounded, whole_seconds},
    facts::rfc3339,
    view::Own,
};

/// The condition that follows, and after how long it would change by itself. `status` tells about the present value.
#[must_use]
pub(super) fn follow(own: &Own, status: &ManagedSecretStatus, now: Timestamp) -> (Option<Condition>, Option<Duration>) {
    let Some(expiry) = Expiry::of(&own.spec) else { return (None, None) };
    let left = expiry.next_change(now).and_then(|at| now.duration_until(at).try_into().ok());
    let Some(reason) = expiry.reason(now) else { return (None, left) };
    let before = own.status.conditions.iter().flatten().find(|condition| condition.type_ == EXPIRING);
    let condition = Condition {
        type_: EXPIRING.to_owned(),
        status: "True".to_owned(),
        reason: reason.as_str().to_owned(),
        message: bounded(&message(&expiry, reason, status)),
        observed_generation: Some(own.generation),
        last_transition_time: before.map_or_else(|| whole_seconds(now), |before| before.last_transition_time.clone()),
    };
    (Some(condition), left)
}

fn message(expiry: &Expiry, reason: Reason, status: &ManagedSecretStatus) -> String {
    let at = rfc3339(expiry.at);
    let expires = match reason {
        Reason::Expired => format!("the value expired at {at}, and the operator still delivers it"),
        _ => format!("the value expires at {at}"),
    };
    // The first value of a secret changed nothing: its date belongs to it.
    let changed = status.value_updated_time.as_deref().filter(|_| status.version > Some(1));
    match changed.filter(|changed| changed.parse().is_ok_and(|changed: Timestamp| changed >= expiry.warns_from)) {
        None => format!("{expires}: set a new value, and move spec.expires to the date on which the new value expires"),
        Some(changed) => format!(
            "{expires}; the value was changed at {changed}, after the warning began: if the new value expires later, move \
             spec.expires"
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_api::ManagedSecret;
    use serde_json::json;

    use super::*;

    fn own(spec: &serde_json::Value) -> Own {
        let mut object = json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "db", "namespace": "shop", "generation": 3}, "spec": spec, "status": {},
        });
        object["spec"]["name"] = json!("DB");
        Own::new(serde_json::from_value::<ManagedSecret>(object).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The status of a value with this version that was set at this time.
    fn value(version: i64, updated: &str) -> ManagedSecretStatus {
        let value_updated_time = Some(updated.to_owned());
        ManagedSecretStatus { version: Some(version), value_updated_time, ..ManagedSecretStatus::default() }
    }

    fn none() -> ManagedSecretStatus {
        ManagedSecretStatus::default()
    }

    const EXPIRES: &str = "2027-03-31T00:00:00Z";

    #[test]
    fn without_a_date_there_is_nothing_to_say_and_nothing_to_wait_for() {
        assert_eq!(follow(&own(&json!({"expiryWarning": "1h"})), &none(), at(EXPIRES)), (None, None));
    }

    #[test]
    fn it_is_said_from_the_warning_on_and_the_timer_is_set_for_the_next_change() {
        let hour = Duration::from_secs(3600);
        let spec = json!({"expires": EXPIRES, "expiryWarning": "2h"});
        let mut object = own(&spec);
        assert_eq!(follow(&object, &none(), at("2027-03-30T21:00:00Z")), (None, Some(hour)));
        let (soon, left) = follow(&object, &value(2, "2027-01-01T00:00:00Z"), at("2027-03-30T22:00:00.25Z"));
        let soon = soon.unwrap();
        assert_eq!(left, Some(Duration::from_millis(7_199_750)));
        assert_eq!(
            (soon.type_.as_str(), soon.status.as_str(), soon.reason.as_str()),
            ("Expiring", "True", "ExpiresSoon")
        );
        assert_eq!((soon.observed_generation, soon.last_transition_time.0), (Some(3), at("2027-03-30T22:00:00Z")));
        assert!(soon.message.contains("expires at 2027-03-31T00:00:00Z: set a new value"), "{}", soon.message);

        object.status.conditions = Some(vec![soon.clone()]);
        let (same, left) = follow(&object, &value(2, "2027-01-01T00:00:00Z"), at("2027-03-30T23:00:00Z"));
        assert_eq!((same, left), (Some(soon.clone()), Some(hour)));
        let (expired, left) = follow(&object, &value(2, "2027-01-01T00:00:00Z"), at("2027-03-31T00:00:00Z"));
        let expired = expired.unwrap();
        assert_eq!((expired.reason.as_str(), left), ("Expired", None));
        assert_eq!(expired.last_transition_time, soon.last_transition_time, "its status is the same");
        assert!(expired.message.contains("expired at 2027-03-31T00:00:00Z, and the operator still delivers it"));
    }

    #[test]
    fn a_value_that_was_changed_since_the_warning_began_needs_another_date() {
        let object = own(&json!({"expires": EXPIRES}));
        for now in ["2027-03-20T00:00:00Z", "2027-04-20T00:00:00Z"] {
            let message =
                |version| follow(&object, &value(version, "2027-03-10T00:00:00Z"), at(now)).0.unwrap().message;
            assert!(message(1).contains(": set a new value"), "the first value of a secret: {}", message(1));
            let message = message(2);
            assert!(
                message.contains("changed at 2027-03-10T00:00:00Z") && message.ends_with("move spec.expires"),
                "{message}"
            );
        }
    }

    /// A clock that is set says what it would have said all along.
    #[test]
    fn a_clock_that_is_set_leaves_no_trace() {
        let mut object = own(&json!({"expires": EXPIRES, "expiryWarning": "1h"}));
        let (said, _) = follow(&object, &none(), at("2027-04-01T00:00:00Z"));
        object.status.conditions = Some(said.into_iter().collect());
        let hours = Duration::from_secs(23 * 3600);
        assert_eq!(follow(&object, &none(), at("2027-03-30T00:00:00Z")), (None, Some(hours)));
    }
}
