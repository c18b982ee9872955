//! Policies of others that change the status: it cannot say so itself, so an event does, and nothing else waits for it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures::future::join_all;
use managed_secrets_api::keys;
use serde_json::json;
use testkit::poll;

use super::{
    super::{
        objects::Site,
        operator::{PATIENCE, Setup, Tap},
    },
    Policy, spec,
};

/// Each change of a status, in CEL, and the field that the event names.
const CASES: [(&str, &str, &str); 4] = [
    // The transition time that the operator writes changes with it each time, so the stored object does, too.
    (
        "ready",
        "[JSONPatch{op: 'replace', path: '/status/conditions/0/status', value: 'False'}]",
        "status.conditions[Ready].status",
    ),
    (
        "generation",
        "[JSONPatch{op: 'replace', path: '/status/observedGeneration', value: 0}]",
        "status.observedGeneration",
    ),
    (
        "date",
        "[JSONPatch{op: 'add', path: '/status/updatedDate', value: '2020-01-01T00:00:00Z'}]",
        "status.updatedDate",
    ),
    ("target", "has(object.status.target) ? [JSONPatch{op: 'remove', path: '/status/target'}] : []", "status.target"),
];

/// When the operator wrote the status.
fn writes(tap: &Tap) -> Vec<Instant> {
    let tries = tap.tries("/managedsecrets/db/status");
    tries.iter().filter(|seen| seen.code == 200).map(|seen| seen.at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_admission_changes_is_announced_and_not_written_at_full_speed() {
    join_all(CASES.iter().map(|(name, patch, field)| async move {
        let site = Site::new(&format!("status-{name}")).await;
        let tap = Tap::recording();
        let operator = Setup::of(&site.namespace).calls(&tap).start().await;
        site.source("source", "one").await;
        site.apply("db", spec("")).await;
        site.in_step("db").await;
        let policy = Policy { site: &site, name: format!("alters-{}", site.namespace) };
        let rule = json!({
            "apiGroups": [keys::GROUP], "apiVersions": [keys::VERSION], "resources": ["managedsecrets/status"],
            "operations": ["UPDATE"],
        });
        policy.create(&rule, "object.metadata.name == 'db'", patch).await;
        // A pass takes longer than it takes to ask for events: edits without a pause would outdate each status.
        let edited = Cell::new(Instant::now());
        let announced = poll("an event", PATIENCE, || async {
            let events = site.events("db", "AlteredByAdmission").await;
            if events.is_empty() && edited.get().elapsed() > Duration::from_secs(1) {
                // The policy is not effective yet: another edit has the status written again.
                site.apply("db", spec(&uuid::Uuid::new_v4().to_string())).await;
                edited.set(Instant::now());
            }
            Ok(events.into_iter().next())
        })
        .await
        .unwrap();
        assert!(announced.contains(&format!("changes {field} of this ManagedSecret")), "{name}: {announced}");

        // A new value does not wait for the status.
        site.source("source", "two").await;
        site.delivers("db", "value", "two").await;

        // Edits above had passes of their own; what follows comes from what was stored.
        let before = writes(&tap).len();
        let enough = || async { Ok((writes(&tap).len() >= before + 3).then_some(())) };
        poll("more writes of the status", PATIENCE, enough).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let times = writes(&tap);
        let took = times[before + 2].duration_since(times[before]);
        assert!(took.as_millis() >= 1500, "{name}: three writes within {took:?}");

        policy.delete().await;
        site.in_step("db").await;
        site.until("db", "its new status", |object| {
            let status = object.status.clone().unwrap_or_default();
            status.observed_generation == object.metadata.generation && status.updated_date > Some("2021".to_owned())
        })
        .await;
        operator.stop().await;
    }))
    .await;
}
