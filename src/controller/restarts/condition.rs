//! The condition `RestartBlocked`: a workload of `spec.target.restart` that the operator cannot restart. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use managed_secrets_api::{
    ManagedSecretStatus, Reason,
    keys::CONDITION_RESTART_BLOCKED as BLOCKED,
    restarts::Mark,
    types::{Delivery, Workload},
};

use super::Outcome;
use crate::controller::{
    conditions::{bounded, whole_seconds},
    view::Own,
};

/// What a pass knows about the restarts of its object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Restarting {
    /// Whether the operator restarts workloads at all.
    pub(crate) on: bool,
    /// What became of the last look at each workload that the object names.
    pub(crate) outcomes: Vec<(Workload, Option<Outcome>)>,
}

/// The condition that follows, where there is something to say. `status` is the one that it becomes a part of.
#[must_use]
pub(crate) fn follow(
    own: &Own,
    status: &ManagedSecretStatus,
    restarting: &Restarting,
    now: Timestamp,
) -> Option<Condition> {
    let named = own.spec.target.as_ref().is_some_and(|target| target.restart.as_ref().is_some_and(|it| !it.is_empty()));
    if !named || own.spec.delivery() == Delivery::None {
        return None;
    }
    let before = own.status.conditions.iter().flatten().find(|condition| condition.type_ == BLOCKED);
    let make = |reason: Reason, message: &str| Condition {
        type_: BLOCKED.to_owned(),
        status: "True".to_owned(),
        reason: reason.as_str().to_owned(),
        message: bounded(message),
        observed_generation: Some(own.generation),
        last_transition_time: before.map_or_else(|| whole_seconds(now), |before| before.last_transition_time.clone()),
    };
    if !restarting.on {
        let message = "spec.target.restart has no effect: this operator was installed without --restarts";
        return Some(make(Reason::RestartsOff, message));
    }
    // Nothing is restarted for a value that is not delivered, whatever other objects have learned of the workload.
    Mark::delivered(&own.spec, status)?;
    let outcomes = &restarting.outcomes;
    if outcomes.iter().any(|(_, outcome)| outcome.is_none()) {
        // After a start: what was said stays until each workload was looked at.
        let before = before.filter(|before| before.reason != Reason::RestartsOff.as_str())?;
        return Some(Condition { observed_generation: Some(own.generation), ..before.clone() });
    }
    let refused = outcomes.iter().filter_map(|(workload, outcome)| match outcome {
        Some(Outcome::Refused(why)) => Some(format!("{workload} cannot be restarted: {why}")),
        _ => None,
    });
    let missing = outcomes.iter().filter(|(_, outcome)| *outcome == Some(Outcome::Missing));
    let missing = missing.map(|(workload, _)| format!("{workload} not found"));
    let (refused, missing): (Vec<_>, Vec<_>) = (refused.collect(), missing.collect());
    let reason = match (refused.is_empty(), missing.is_empty()) {
        (true, true) => return None,
        (false, _) => Reason::RestartRefused,
        (true, false) => Reason::WorkloadNotFound,
    };
    let all: Vec<_> = refused.into_iter().chain(missing).collect();
    Some(make(reason, &format!("the value is delivered; {}", all.join("; "))))
}
