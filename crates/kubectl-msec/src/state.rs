//! What an object's status says of its present generation. Pure.
//!
//! A condition speaks of the generation that it carries: one of an older generation says nothing of what was asked for
//! since.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use managed_secrets_api::keys::{CONDITION_READY, CONDITION_STALLED};
use managed_secrets_api::{ManagedSecret, Reason};

/// Where the present generation of an object stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Served.
    Served,
    /// `spec.suspend` is true: it is not looked at.
    Suspended,
    /// Not ready yet; it may become ready without a change.
    Waiting(Why),
    /// Not ready, and a user must change something.
    Stalled(Why),
}

/// A condition's reason and message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Why {
    /// The reason, one of [`Reason`] unless the operator is newer than this program.
    pub(super) reason: String,
    /// The message.
    pub(super) message: String,
}

impl State {
    /// What status says.
    pub(super) fn of(object: &ManagedSecret) -> Self {
        let current = |condition: &&Condition| is_current(object, condition);
        let Some(ready) = condition(object, CONDITION_READY).filter(current) else {
            return Self::Waiting(Why {
                reason: Reason::Pending.as_str().to_owned(),
                message: "the operator has not looked at this generation yet".to_owned(),
            });
        };
        let why = Why { reason: ready.reason.clone(), message: ready.message.clone() };
        let stalled = condition(object, CONDITION_STALLED).filter(current).is_some_and(|it| it.status == "True");
        if ready.reason == Reason::Suspended.as_str() {
            // It keeps the status of Ready, which describes what was delivered before.
            Self::Suspended
        } else if ready.status == "True" {
            Self::Served
        } else if stalled {
            Self::Stalled(why)
        } else {
            Self::Waiting(why)
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str(Reason::Served.as_str()),
            Self::Suspended => write!(f, "{}: spec.suspend is true, so nothing is written", Reason::Suspended),
            Self::Waiting(why) | Self::Stalled(why) => write!(f, "{}: {}", why.reason, why.message),
        }
    }
}

/// Whether the operator has looked at the object's present generation.
pub(super) fn is_observed(object: &ManagedSecret) -> bool {
    condition(object, CONDITION_READY).is_some_and(|ready| is_current(object, ready))
}

fn is_current(object: &ManagedSecret, condition: &Condition) -> bool {
    condition.observed_generation == object.metadata.generation
}

/// A condition, of whichever generation.
pub(super) fn condition<'a>(object: &'a ManagedSecret, type_: &str) -> Option<&'a Condition> {
    let conditions = object.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(conditions: &[(&str, &str, &str, i64)]) -> ManagedSecret {
        let condition = |(type_, status, reason, generation): &(&str, &str, &str, i64)| {
            json!({"type": type_, "status": status, "reason": reason, "message": "so\nit is",
                "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "db", "generation": 2}, "spec": {"name": "DB"},
            "status": {"conditions": conditions.iter().map(condition).collect::<Vec<_>>()},
        }))
        .unwrap()
    }

    #[test]
    fn only_the_present_generation_counts() {
        assert_eq!(State::of(&object(&[("Ready", "True", "Served", 2)])), State::Served);
        for old in [&[("Ready", "True", "Served", 1)][..], &[], &[("Stalled", "True", "InvalidSpec", 2)]] {
            assert!(State::of(&object(old)).to_string().starts_with("Pending: the operator has not looked"), "{old:?}");
        }
        let of_old = State::of(&object(&[("Ready", "False", "NameInUse", 2), ("Stalled", "True", "NameInUse", 1)]));
        assert_eq!(of_old.to_string(), "NameInUse: so\nit is");
        assert!(matches!(of_old, State::Waiting(_)));
    }

    #[test]
    fn waiting_and_stalled_are_told_apart() {
        let stalled = object(&[("Ready", "False", "InvalidSpec", 2), ("Stalled", "True", "InvalidSpec", 2)]);
        assert!(matches!(State::of(&stalled), State::Stalled(_)));
        // Ready keeps its status while an object is suspended: it describes what was delivered before.
        for status in ["True", "False", "Unknown"] {
            assert_eq!(State::of(&object(&[("Ready", status, "Suspended", 2)])), State::Suspended);
        }
    }
}
