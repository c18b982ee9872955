//! From a verdict to conditions: `Ready` always, `Reconciling` and `Stalled` while true (the kstatus convention).
//!
//! In: the conditions so far, the verdict of a pass, the time. Out: the conditions to write, and when to look again.
//! Pure. A transition time moves only when the condition's status does: anything else makes every pass a write.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use managed_secrets_api::{Reason, limits::STATUS_MESSAGE_BYTES_MAX};

use super::plan::Verdict;

/// How long an object may wait for another before it counts as stalled: the order within one commit must not matter,
/// and Flux gives up on the first failure that it sees.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often something is tried again that no watch shows, such as a Secret in the target's place that the operator does not manage.
pub const UNSEEN_RETRY: Duration = Duration::from_secs(300);

pub use managed_secrets_api::keys::{
    CONDITION_EXPIRING as EXPIRING, CONDITION_READY as READY, CONDITION_RECONCILING as RECONCILING,
    CONDITION_STALLED as STALLED,
};

/// The conditions that follow, and after how long they would change by themselves.
#[must_use]
pub fn follow(
    old: &[Condition],
    generation: i64,
    verdict: &Verdict,
    now: Timestamp,
) -> (Vec<Condition>, Option<Duration>) {
    let find = |type_: &str| old.iter().find(|condition| condition.type_ == type_);
    let make = |type_: &str, status: &str, reason: Reason, message: &str| {
        let since =
            find(type_).filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: bounded(message),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or_else(|| whole_seconds(now)),
        }
    };
    match verdict {
        Verdict::Served(message) => (vec![make(READY, "True", Reason::Served, message)], None),
        Verdict::Suspended => {
            let status = find(READY).map_or("Unknown", |ready| ready.status.as_str());
            let message = "spec.suspend is true: the operator writes nothing, and the delivered value stays";
            (vec![make(READY, status, Reason::Suspended, message)], None)
        }
        Verdict::Working(p) => {
            (vec![make(READY, "Unknown", p.reason, &p.message), make(RECONCILING, "True", p.reason, &p.message)], None)
        }
        Verdict::Transient(p) => {
            let delivered = find(READY)
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(generation));
            if delivered {
                let message = format!("the delivered value stays; {}", p.message);
                return (vec![make(READY, "True", p.reason, &message)], None);
            }
            let ready = make(READY, "Unknown", p.reason, &p.message);
            (vec![ready, make(RECONCILING, "True", p.reason, &p.message)], None)
        }
        Verdict::Terminal(p) => {
            (vec![make(READY, "False", p.reason, &p.message), make(STALLED, "True", p.reason, &p.message)], None)
        }
        Verdict::Pending(p) => {
            let ready = make(READY, "False", p.reason, &p.message);
            let of_this_generation = |before: &&Condition| before.observed_generation == Some(generation);
            let stalled_already =
                find(STALLED).filter(of_this_generation).is_some_and(|before| before.reason == p.reason.as_str());
            let mut reconciling = make(RECONCILING, "True", p.reason, &p.message);
            if !find(RECONCILING).is_some_and(|before| of_this_generation(&before)) {
                // Counted from zero for each generation, although the status stays `True`.
                reconciling.last_transition_time = whole_seconds(now);
            }
            let waited = now.duration_since(reconciling.last_transition_time.0);
            let left = PATIENCE.checked_sub(waited.try_into().unwrap_or_default()).filter(|left| !left.is_zero());
            match left {
                Some(left) if !stalled_already => (vec![ready, reconciling], Some(left)),
                _ => (vec![ready, make(STALLED, "True", p.reason, &p.message)], None),
            }
        }
    }
}

/// A message as it is written: names that users chose can make it long, and the operator keeps it in memory.
pub(super) fn bounded(message: &str) -> String {
    const CUT: &str = "…";
    if message.len() <= STATUS_MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let mut end = STATUS_MESSAGE_BYTES_MAX - CUT.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &message[..end])
}

/// Kubernetes keeps whole seconds: with a fraction, what we write would differ from what we read.
pub(super) fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::plan::Problem, *};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn waiting() -> Verdict {
        Verdict::Pending(Problem::new(Reason::NameInUse, "held"))
    }

    fn types(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect()
    }

    #[test]
    fn waiting_stalls_after_two_minutes_of_each_generation() {
        let (first, left) = follow(&[], 1, &waiting(), at(0));
        assert_eq!(types(&first), [(READY, "False"), (RECONCILING, "True")]);
        assert_eq!(left, Some(PATIENCE));
        let (same, left) = follow(&first, 1, &waiting(), at(100));
        assert_eq!(same, first);
        assert_eq!(left, Some(Duration::from_secs(20)));
        let (stalled, left) = follow(&same, 1, &waiting(), at(120));
        assert_eq!(types(&stalled), [(READY, "False"), (STALLED, "True")]);
        assert_eq!(left, None);
        assert_eq!(follow(&stalled, 1, &waiting(), at(500)).0, stalled);
        let (next, left) = follow(&stalled, 2, &waiting(), at(600));
        assert_eq!(types(&next), [(READY, "False"), (RECONCILING, "True")]);
        assert_eq!(left, Some(PATIENCE));
        let (later, left) = follow(&next, 3, &waiting(), at(700));
        assert_eq!(left, Some(PATIENCE));
        assert_eq!(later[0].last_transition_time, next[0].last_transition_time);
    }

    #[test]
    fn a_passing_failure_does_not_deny_what_is_delivered() {
        let failure = Verdict::Transient(Problem::new(Reason::ApiUnavailable, "no answer"));
        let (served, _) = follow(&[], 1, &Verdict::Served("there".into()), at(0));
        assert_eq!(types(&follow(&served, 1, &failure, at(1)).0), [(READY, "True")]);
        assert_eq!(types(&follow(&served, 2, &failure, at(1)).0), [(READY, "Unknown"), (RECONCILING, "True")]);
    }

    #[test]
    fn suspension_keeps_the_status_of_ready() {
        let (served, _) = follow(&[], 1, &Verdict::Served("there".into()), at(0));
        assert_eq!(types(&follow(&served, 2, &Verdict::Suspended, at(1)).0), [(READY, "True")]);
        let (failed, _) = follow(&[], 1, &Verdict::Terminal(Problem::new(Reason::InvalidSpec, "bad")), at(0));
        assert_eq!(types(&follow(&failed, 2, &Verdict::Suspended, at(1)).0), [(READY, "False")]);
    }

    #[test]
    fn a_long_message_is_cut_and_the_same_message_is_cut_alike() {
        let long = "é".repeat(STATUS_MESSAGE_BYTES_MAX);
        let verdict = Verdict::Terminal(Problem::new(Reason::SourceRing, long));
        let (conditions, _) = follow(&[], 1, &verdict, at(0));
        for condition in &conditions {
            assert!(condition.message.len() <= STATUS_MESSAGE_BYTES_MAX && condition.message.ends_with("é…"));
        }
        assert_eq!(follow(&conditions, 1, &verdict, at(1)).0, conditions);
        let most = "x".repeat(STATUS_MESSAGE_BYTES_MAX);
        let (conditions, _) = follow(&[], 1, &Verdict::Served(most.clone()), at(0));
        assert_eq!(conditions[0].message, most);
    }

    #[test]
    fn the_graver_verdict_wins_and_no_message_is_lost() {
        let person = Verdict::Terminal(Problem::new(Reason::TargetNotOwned, "target"));
        let both = waiting().and(person.clone());
        assert_eq!(both, Verdict::Terminal(Problem::new(Reason::TargetNotOwned, "target; held")));
        assert_eq!(Verdict::Served("x".into()).and(person.clone()), person);
    }
}
