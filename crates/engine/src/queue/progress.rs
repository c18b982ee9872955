//! How the work of a queue goes, for health and metrics.

use std::time::Duration;

use super::core::{Depth, Priority};

/// Due keys of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueAge {
    /// The priority.
    pub priority: Priority,
    /// How many keys are due and not in flight.
    pub keys: usize,
    /// How long the oldest of them has been due.
    pub oldest: Option<Duration>,
}

/// How the work goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is due, by priority.
    pub due: [DueAge; Priority::ALL.len()],
    /// The keys that wait, due or not, and those in flight.
    pub depth: Depth,
    /// How long the oldest key in flight has been so.
    pub oldest_in_flight: Option<Duration>,
    /// Time since a key was handed out, or since the workers began; `None` before they begin.
    pub since_taken: Option<Duration>,
}

impl Progress {
    /// Whether the workers are stuck, and why: a key is in flight longer than `limit`, or keys are due and none was handed
    /// out for that long. A long queue by itself is no reason: it is busy, and a restart would only make it longer.
    #[must_use]
    pub fn stuck(&self, limit: Duration) -> Option<String> {
        let seconds = |time: Duration| time.as_secs();
        if let Some(age) = self.oldest_in_flight.filter(|age| *age > limit) {
            return Some(format!("a reconcile has been running for {} s", seconds(age)));
        }
        let oldest = self.due.iter().filter_map(|due| due.oldest).max()?;
        let idle = self.since_taken?.min(oldest);
        (idle > limit).then(|| {
            format!("a key has been due for {} s, and no worker has taken one for {} s", seconds(oldest), seconds(idle))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn due(age: Option<u64>) -> [DueAge; Priority::ALL.len()] {
        Priority::ALL.map(|priority| {
            let age = age.filter(|_| priority == Priority::Resync);
            DueAge { priority, keys: usize::from(age.is_some()), oldest: age.map(Duration::from_secs) }
        })
    }

    #[test]
    fn workers_are_stuck_when_nothing_moves_and_not_when_there_is_much_to_do() {
        let seconds = |age: Option<u64>| age.map(Duration::from_secs);
        // The oldest due key, the oldest in flight, since a key was taken.
        for (oldest, in_flight, taken, stuck) in [
            (None, None, None, None),
            (None, None, Some(9999), None),
            (Some(9999), None, None, None),
            (Some(9999), Some(59), Some(1), None),
            (Some(119), None, Some(9999), None),
            (Some(500), None, Some(130), Some("due for 500 s, and no worker has taken one for 130 s")),
            (None, Some(121), Some(121), Some("running for 121 s")),
        ] {
            let progress = Progress {
                due: due(oldest),
                depth: Depth::default(),
                oldest_in_flight: seconds(in_flight),
                since_taken: seconds(taken),
            };
            let said = progress.stuck(LIMIT);
            assert_eq!(said.is_some(), stuck.is_some(), "{progress:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(stuck.unwrap_or_default()), "{progress:?}");
        }
    }
}
