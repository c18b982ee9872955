//! Waits until a change is ready, or until an object is deleted.
//!
//! The command reads the object repeatedly, with growing pauses: a watch would need one more permission, and ends with the
//! connection. A terminal shows each new state, a pipe only the last one. A short failure of the cluster does not end the
//! wait.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};
use jiff::SignedDuration;
use managed_secrets_api::{ManagedSecret, Reason};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};

use super::session::Session;
use super::state::State;

/// Pauses between two reads: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Whether to wait, and how long.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// Wait until it is done; --wait=false returns once the cluster has accepted it
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    pub wait: bool,

    /// How long to wait, such as 90s or 2m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = timeout)]
    pub timeout: Duration,
}

/// A duration as kubectl writes it.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<SignedDuration>().map_err(|_| "must be a duration such as 90s or 2m".to_owned())?;
    Duration::try_from(duration).map_err(|_| "must not be negative".to_owned())
}

/// Waits until the object's current generation is ready, and returns the object. `done` says in errors what was done
/// before: "created".
pub(super) async fn until_served(
    session: &Session,
    object: ManagedSecret,
    timeout: Duration,
    done: &str,
) -> Result<ManagedSecret, CliError> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let uid = object.metadata.uid.clone();
    let failed = |text: String| CliError::Failed(format!("msec/{name} is {done}, but not ready: {text}"));
    let mut clock = Clock::new(timeout);
    let mut now = object;
    let mut told = None;
    loop {
        let state = State::of(&now);
        match state {
            State::Served => return Ok(now),
            State::Stalled(_) | State::Suspended => return Err(failed(state.to_string())),
            State::Waiting(_) => {}
        }
        if told.as_ref() != Some(&state) && std::io::stderr().is_terminal() {
            say::tell(format_args!("waiting: {state}"));
        }
        if !clock.pause().await {
            return Err(failed(format!("waited for {timeout:?}; the last state is {state}{}", hint(&state))));
        }
        told = Some(state);
        match look(session, &name, done).await? {
            Looked::At(object) if object.metadata.uid == uid => now = *object,
            Looked::At(_) | Looked::Gone => return Err(failed("it was deleted while the command waited".to_owned())),
            Looked::NoAnswer => {}
        }
    }
}

/// Waits until the object is deleted.
pub(super) async fn until_gone(
    session: &Session,
    name: &str,
    uid: Option<&str>,
    timeout: Duration,
) -> Result<(), CliError> {
    let mut clock = Clock::new(timeout);
    loop {
        match look(session, name, "marked for deletion").await? {
            Looked::At(object) if object.metadata.uid.as_deref() == uid => {
                if !clock.pause().await {
                    let finalizers = object.metadata.finalizers.unwrap_or_default().join(", ");
                    return Err(CliError::Failed(format!(
                        "msec/{name} is marked for deletion but still exists after {timeout:?}; its finalizers are \
                         [{finalizers}]"
                    )));
                }
            }
            Looked::NoAnswer => {
                if !clock.pause().await {
                    return Err(CliError::Unreachable(format!(
                        "the cluster does not answer whether msec/{name} is deleted"
                    )));
                }
            }
            Looked::At(_) | Looked::Gone => return Ok(()),
        }
    }
}

enum Looked {
    At(Box<ManagedSecret>),
    Gone,
    NoAnswer,
}

async fn look(session: &Session, name: &str, done: &str) -> Result<Looked, CliError> {
    match session.find::<ManagedSecret>(name).await {
        Ok(Some(object)) => Ok(Looked::At(Box::new(object))),
        Ok(None) => Ok(Looked::Gone),
        Err(error @ kube::Error::Api(_)) => {
            let permission = Permission::to_objects("get").named(name).within(&session.namespace);
            Err(permission.explain(
                &format!("msec/{name} is {done}, but the command cannot wait for it (use --wait=false)"),
                &error,
            ))
        }
        Err(_) => Ok(Looked::NoAnswer),
    }
}

/// What to look at if nothing happens.
fn hint(state: &State) -> &'static str {
    match state {
        State::Waiting(why) if why.reason == Reason::Pending.as_str() => {
            " (run `kubectl msec doctor` to check the operator)"
        }
        _ => "",
    }
}

/// When a wait ends, and when it looks next.
pub(super) struct Clock {
    end: Instant,
    next: Duration,
}

impl Clock {
    /// Ends so much later.
    pub(super) fn new(timeout: Duration) -> Self {
        let now = Instant::now();
        // A timeout that a clock cannot represent is cut to a year.
        let end = now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600));
        Self { end, next: PAUSES.0 }
    }

    /// Sleeps; false once the time is over.
    pub(super) async fn pause(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(self.next.min(left)).await;
        self.next = self.next.saturating_mul(2).min(PAUSES.1);
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timeout_that_no_clock_can_represent_is_accepted() {
        assert!(Clock::new(timeout("9999999999h").unwrap()).pause().await);
        assert!(!Clock::new(Duration::ZERO).pause().await);
    }

    #[test]
    fn durations_are_kubectls() {
        for (text, seconds) in [("60s", 60), ("2m", 120), ("1m30s", 90), ("0s", 0), ("1h", 3600)] {
            assert_eq!(timeout(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "soon", "-5s", "60"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
