//! The rules of the election. Pure: what the API server stores and the time go in, the next step comes out.

use std::time::Duration;

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
use tokio::time::Instant;

use super::{Durations, Lost};

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Write this, if the Lease is still as it was seen (or is still missing). If that succeeds, call [`Candidate::won`].
    Write(LeaseSpec),
    /// Another replica is the leader.
    Wait {
        /// Its identity.
        holder: String,
    },
    /// The leadership is over.
    Stop(Lost),
}

/// One replica's view of the election.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    durations: Durations,
    /// The Lease as last seen, and since when it has been seen like this.
    seen: Option<(LeaseSpec, Instant)>,
    /// When the last successful write of this leader was sent.
    renewed: Option<Instant>,
}

impl Candidate {
    pub(super) fn new(identity: String, durations: Durations) -> Self {
        Self { identity, durations, seen: None, renewed: None }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether it has become the leader. The leadership may have expired, see [`leads_until`](Self::leads_until).
    pub(super) fn leads(&self) -> bool {
        self.renewed.is_some()
    }

    /// When the leadership ends, unless the Lease is renewed before. `None` if this is not the leader.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        Some(self.renewed? + self.durations.renew_deadline)
    }

    /// When something changes without a write: the own leadership ends, or the Lease of another expires.
    pub(super) fn until(&self) -> Option<Instant> {
        self.leads_until().or_else(|| {
            let (spec, since) = self.seen.as_ref()?;
            holder(spec).map(|_| *since + self.lasts(spec))
        })
    }

    /// Decides by the stored Lease (`None` if there is none), which was read before `now`. `time` is for people only.
    pub(super) fn step(&mut self, stored: Option<LeaseSpec>, now: Instant, time: Timestamp) -> Step {
        let Some(stored) = stored else {
            self.seen = None;
            return if self.leads() { Step::Stop(Lost::Removed) } else { Step::Write(self.acquired(None, time)) };
        };
        // Anything that changed shows that the holder was alive at some time before now.
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != stored) {
            self.seen = Some((stored.clone(), now));
        }
        match holder(&stored) {
            // Also if the answer to the write that acquired it was lost.
            Some(holder) if holder == self.identity => Step::Write(self.renewal(&stored, time)),
            Some(holder) if self.leads() => Step::Stop(Lost::Taken { holder: holder.to_owned() }),
            None if self.leads() => Step::Stop(Lost::Removed),
            Some(holder) if self.until().is_none_or(|until| now < until) => Step::Wait { holder: holder.to_owned() },
            _ => Step::Write(self.acquired(Some(&stored), time)),
        }
    }

    /// The API server stored `written`, in answer to a request that was sent at `sent`. Returns the end of the leadership,
    /// or `None` if what was stored does not name this replica.
    pub(super) fn won(&mut self, written: LeaseSpec, sent: Instant) -> Option<Instant> {
        if holder(&written) != Some(&self.identity) {
            return None;
        }
        self.seen = Some((written, sent));
        self.renewed = Some(sent);
        self.leads_until()
    }

    /// The Lease without its holder; `None` if it is not this replica's.
    pub(super) fn released(&self, stored: Option<&LeaseSpec>, time: Timestamp) -> Option<LeaseSpec> {
        let stored = stored.filter(|stored| holder(stored) == Some(&self.identity))?;
        Some(LeaseSpec {
            holder_identity: None,
            // As client-go: should anyone wait for it to expire nevertheless, it is not for long.
            lease_duration_seconds: Some(1),
            ..self.renewal(stored, time)
        })
    }

    fn acquired(&self, stored: Option<&LeaseSpec>, time: Timestamp) -> LeaseSpec {
        let before = stored.and_then(|stored| stored.lease_transitions);
        let renewal = self.renewal(stored.unwrap_or(&LeaseSpec::default()), time);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: Some(MicroTime(time)),
            lease_transitions: Some(before.map_or(0, |before| before.saturating_add(1))),
            ..renewal
        }
    }

    fn renewal(&self, stored: &LeaseSpec, time: Timestamp) -> LeaseSpec {
        LeaseSpec {
            lease_duration_seconds: Some(i32::try_from(self.durations.lease.as_secs()).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(after(stored.renew_time.as_ref(), time))),
            ..stored.clone()
        }
    }

    /// How long the holder may keep a Lease that it does not renew. It says so itself: its flags may differ from ours.
    fn lasts(&self, spec: &LeaseSpec) -> Duration {
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.filter(|seconds| *seconds > 0).map_or(self.durations.lease, Duration::from_secs)
    }
}

/// The holder that a Lease names.
pub(super) fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// Returns `time`, or what differs from `before` by a microsecond: others learn of a renewal by the change, also if the
/// clock stands still.
fn after(before: Option<&MicroTime>, time: Timestamp) -> Timestamp {
    // The API server stores microseconds.
    let is_same = |before: &&MicroTime| before.0.as_microsecond() == time.as_microsecond();
    let later = before.filter(is_same).and_then(|_| Timestamp::from_microsecond(time.as_microsecond() + 1).ok());
    later.unwrap_or(time)
}
