//! The table of metrics.

use jiff::Timestamp;
use managed_secrets_api::Reason;
use managed_secrets_engine::{
    queue::{DueAge, Priority},
    requests::{CODES, NO_ANSWER, OTHER, VERBS},
    stats::{RESULTS, Stats},
    watch::WatchState,
};

use super::{Figures, Kind, RESOURCES, Reading, Row, Value};
use crate::{
    controller::{rotations, seeds::stuck::Cause},
    keyring::usage::STANDINGS,
    values::{self, DOORS, WATCH as FRONT_PROXY_WATCH},
    webhook::{
        certificates::API_SERVICE_WATCH,
        http::{SEAL, VERDICTS, WARN},
    },
};

/// A label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Label {
    /// The version of the program.
    Version,
    /// How a reconcile ended.
    Result,
    /// How urgent an object is.
    Priority,
    /// The verb of a request.
    Verb,
    /// The resource of a request.
    Resource,
    /// The HTTP status of an answer.
    Code,
    /// What a watch watches.
    Watch,
    /// The reason of the `Ready` condition.
    Reason,
    /// The reason of the `Expiring` condition.
    Expiry,
    /// The webhook that was called.
    Webhook,
    /// What a webhook answered.
    Verdict,
    /// A health check.
    Check,
    /// The way that a request for a value took: through the API server, or from the caller.
    Door,
    /// How a request for a value ended.
    ValueResult,
    /// How a rotation ended.
    RotationResult,
    /// What may be done with a sealing key.
    Standing,
    /// Why a record stays under a seed that was replaced.
    StuckCause,
}

/// The health checks, as the parts of the operator register them.
const CHECKS: &[&str] = &[
    "start",
    "shutdown",
    "watches",
    "workers",
    "keyring",
    "kms",
    "caches",
    "lists and watches",
    "webhook certificate",
    "front proxy",
    OTHER,
];

/// What the operator watches: the names of the watches, without their namespaces.
const WATCHES: &[&str] = &[
    "managedsecrets",
    "secrets",
    "sources",
    "keyring",
    "public key",
    "webhook secret",
    "sealing webhook",
    "warning webhook",
    "lease",
    API_SERVICE_WATCH,
    FRONT_PROXY_WATCH,
    OTHER,
];
const FRESH: &str = "fresh";
const NEW: &str = "new";
const WOKEN: &str = "woken";
const RESYNC: &str = "resync";
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Label {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Result | Self::ValueResult | Self::RotationResult => "result",
            Self::Priority => "priority",
            Self::Verb => "verb",
            Self::Resource => "resource",
            Self::Code => "code",
            Self::Watch => "watch",
            Self::Reason | Self::Expiry => "reason",
            Self::Webhook => "webhook",
            Self::Verdict => "verdict",
            Self::Check => "check",
            Self::Door => "door",
            Self::Standing => "key",
            Self::StuckCause => "cause",
        }
    }

    /// Returns every value that it can have.
    #[must_use]
    pub fn values(self) -> Vec<&'static str> {
        match self {
            Self::Version => vec![VERSION],
            Self::Result => RESULTS.to_vec(),
            Self::Priority => vec![FRESH, NEW, WOKEN, RESYNC],
            Self::Verb => VERBS.to_vec(),
            Self::Resource => [RESOURCES, &[OTHER]].concat(),
            Self::Code => CODES.iter().map(|(_, text)| *text).chain([OTHER, NO_ANSWER]).collect(),
            Self::Watch => WATCHES.to_vec(),
            Self::Reason => Reason::of_ready().map(Reason::as_str).chain([OTHER]).collect(),
            Self::Expiry => Reason::OF_EXPIRY.map(Reason::as_str).to_vec(),
            Self::Webhook => vec![SEAL, WARN],
            Self::Verdict => VERDICTS.to_vec(),
            Self::Check => CHECKS.to_vec(),
            Self::Door => DOORS.to_vec(),
            Self::ValueResult => values::RESULTS.to_vec(),
            Self::RotationResult => rotations::RESULTS.to_vec(),
            Self::Standing => STANDINGS.to_vec(),
            Self::StuckCause => Cause::ALL.map(Cause::as_str).to_vec(),
        }
    }
}

/// Every metric.
pub const TABLE: &[Row] = &[
    Row {
        name: "managed_secrets_build_info",
        kind: Kind::Gauge,
        labels: &[Label::Version],
        help: "The version of the operator; always 1",
        read: |_| Value::Series(vec![(vec![(Label::Version.name(), VERSION)], 1.0)]),
    },
    Row {
        name: "managed_secrets_leader",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether this replica may change the cluster (1) or not (0)",
        read: |figures| gauge(figures, |reading| Some(f64::from(u8::from(reading.leader)))),
    },
    Row {
        name: "managed_secrets_health_check",
        kind: Kind::Gauge,
        labels: &[Label::Check],
        help: "Whether a health check passes (1) or fails (0); /livez and /readyz say why",
        read: |figures| {
            let known = |check: &str| CHECKS.iter().copied().find(|known| *known == check).unwrap_or(OTHER);
            let of = |(check, passes): &(&str, bool)| {
                (vec![(Label::Check.name(), known(check))], f64::from(u8::from(*passes)))
            };
            Value::Series(figures.checks.iter().map(of).collect())
        },
    },
    Row {
        name: "managed_secrets_objects",
        kind: Kind::Gauge,
        labels: &[Label::Reason],
        help: "ManagedSecrets by the reason of their Ready condition; those without a condition are not included",
        read: |figures| {
            series(figures, |reading| {
                let of = |(reason, count): &(_, usize)| (vec![(Label::Reason.name(), *reason)], number(*count));
                reading.objects.iter().map(of).collect()
            })
        },
    },
    Row {
        name: "managed_secrets_expiring",
        kind: Kind::Gauge,
        labels: &[Label::Expiry],
        help: "ManagedSecrets whose value expires soon or has expired, by the reason of their Expiring condition",
        read: |figures| {
            series(figures, |reading| {
                let of = |(reason, count): &(_, usize)| (vec![(Label::Expiry.name(), *reason)], number(*count));
                reading.expiring.iter().map(of).collect()
            })
        },
    },
    Row {
        name: "managed_secrets_pinned",
        kind: Kind::Gauge,
        labels: &[],
        help: "ManagedSecrets with spec.version; while it is set, new values are stored and not delivered",
        read: |figures| figures.reading().map_or(Value::Absent, |reading| Value::Number(number(reading.pinned))),
    },
    Row {
        name: "managed_secrets_rotations",
        kind: Kind::Counter,
        labels: &[Label::RotationResult],
        help: "Rotations of generated values, by how they ended; one that failed is tried again",
        read: |figures| {
            let counts = |reading: &Reading| Value::Counts(Label::RotationResult, reading.rotations.to_vec());
            figures.reading().map_or(Value::Absent, counts)
        },
    },
    Row {
        name: "managed_secrets_restarts",
        kind: Kind::Counter,
        labels: &[],
        help: "Restarts of workloads after a new value was delivered",
        read: |figures| figures.reading().map_or(Value::Absent, |reading| Value::Count(reading.restarts)),
    },
    Row {
        name: "managed_secrets_namespaces_waiting",
        kind: Kind::Gauge,
        labels: &[],
        help: "Namespaces that are not served, because their objects are not listed yet; /readyz names them",
        read: |figures| gauge(figures, |reading| Some(number(reading.namespaces_waiting))),
    },
    Row {
        name: "managed_secrets_reconcile_duration_seconds",
        kind: Kind::Histogram,
        labels: &[Label::Result],
        help: "How long reconciles took, by how they ended",
        read: |figures| figures.sources().map_or(Value::Absent, |from| Value::Family(from.stats.durations.family())),
    },
    Row {
        name: "managed_secrets_reconcile_retries",
        kind: Kind::Counter,
        labels: &[],
        help: "Reconciles that failed and are done again after a delay",
        read: |figures| counter(figures, |stats| stats.failures.get()),
    },
    Row {
        name: "managed_secrets_repairs",
        kind: Kind::Counter,
        labels: &[],
        help: "Reconciles that put right a record or target that another client had changed",
        read: |figures| counter(figures, |stats| stats.repairs.get()),
    },
    Row {
        name: "managed_secrets_idle_writes",
        kind: Kind::Counter,
        labels: &[],
        help: "Writes that changed nothing; many of them mean that admission control changes what the operator writes",
        read: |figures| counter(figures, |stats| stats.idle_writes.get()),
    },
    Row {
        name: "managed_secrets_queue_due",
        kind: Kind::Gauge,
        labels: &[Label::Priority],
        help: "Objects that are due and wait for a worker",
        read: |figures| by_priority(figures, |due| number(due.keys)),
    },
    Row {
        name: "managed_secrets_queue_oldest_due_seconds",
        kind: Kind::Gauge,
        labels: &[Label::Priority],
        help: "How long the oldest due object has waited for a worker; 0 if none waits",
        read: |figures| by_priority(figures, |due| due.oldest.unwrap_or_default().as_secs_f64()),
    },
    Row {
        name: "managed_secrets_queue_waiting",
        kind: Kind::Gauge,
        labels: &[],
        help: "Objects that wait, due or not",
        read: |figures| gauge(figures, |reading| Some(number(reading.progress.depth.waiting))),
    },
    Row {
        name: "managed_secrets_queue_running",
        kind: Kind::Gauge,
        labels: &[],
        help: "Objects that workers reconcile at present",
        read: |figures| gauge(figures, |reading| Some(number(reading.progress.depth.in_flight))),
    },
    Row {
        name: "managed_secrets_api_requests",
        kind: Kind::Counter,
        labels: &[Label::Verb, Label::Resource, Label::Code],
        help: "Requests to the API server; each try counts, and one without an answer has the code none",
        read: |figures| figures.sources().map_or(Value::Absent, |from| Value::Family(from.requests.count())),
    },
    Row {
        name: "managed_secrets_api_request_duration_seconds",
        kind: Kind::Histogram,
        labels: &[Label::Verb, Label::Resource],
        help: "How long requests to the API server took until their answer began",
        read: |figures| {
            figures.sources().map_or(Value::Absent, |from| Value::Family(from.requests.durations().family()))
        },
    },
    Row {
        name: "managed_secrets_watch_unanswered_seconds",
        kind: Kind::Gauge,
        labels: &[Label::Watch],
        help: "Time since the API server last sent something, of the watch for which that was longest ago",
        read: |figures| by_watch(figures, |longest, watch| longest.max(watch.unanswered.as_secs_f64())),
    },
    Row {
        name: "managed_secrets_watches_failing",
        kind: Kind::Gauge,
        labels: &[Label::Watch],
        help: "Watches that do not follow their objects at present; /readyz says why",
        read: |figures| by_watch(figures, |count, watch| count + f64::from(u8::from(watch.trouble.is_some()))),
    },
    Row {
        name: "managed_secrets_watch_errors",
        kind: Kind::Counter,
        labels: &[],
        help: "Lists and watches that failed",
        read: |figures| counter(figures, |stats| stats.watch_errors.get()),
    },
    Row {
        name: "managed_secrets_watch_cuts",
        kind: Kind::Counter,
        labels: &[],
        help: "Watches that the API server or a proxy ended just after their start",
        read: |figures| counter(figures, |stats| stats.watch_cuts.get()),
    },
    Row {
        name: "managed_secrets_watch_relists",
        kind: Kind::Counter,
        labels: &[],
        help: "Lists after the first one",
        read: |figures| counter(figures, |stats| stats.relists.get()),
    },
    Row {
        name: "managed_secrets_watch_restarts",
        kind: Kind::Counter,
        labels: &[],
        help: "Watches that could not be resumed and began again",
        read: |figures| counter(figures, |stats| stats.watch_rebuilds.get()),
    },
    Row {
        name: "managed_secrets_webhook_request_duration_seconds",
        kind: Kind::Histogram,
        labels: &[Label::Webhook, Label::Verdict],
        help: "How long the webhooks took to answer, by what they answered",
        read: |figures| {
            let webhooks = figures.sources().and_then(|from| from.webhooks.as_ref());
            webhooks.map_or(Value::Absent, |stats| Value::Family(stats.durations.family()))
        },
    },
    Row {
        name: "managed_secrets_value_request_duration_seconds",
        kind: Kind::Histogram,
        labels: &[Label::Door, Label::ValueResult],
        help: "How long the value API took to answer requests for a value, by the way that they took and their result",
        read: |figures| {
            let values = figures.sources().and_then(|from| from.values.as_ref());
            values.map_or(Value::Absent, |stats| Value::Family(stats.durations.family()))
        },
    },
    Row {
        name: "managed_secrets_webhook_certificate_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the certificate of the webhooks expires, in seconds since 1970",
        read: |figures| gauge(figures, |reading| reading.certificate_expires.map(seconds)),
    },
    Row {
        name: "managed_secrets_oldest_seed_created_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the oldest seed of the keyring was created, in seconds since 1970",
        read: |figures| gauge(figures, |reading| reading.oldest_seed.map(seconds)),
    },
    Row {
        name: "managed_secrets_seed_rotation_started_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the active seed was created, in seconds since 1970, while records may be under a seed that it replaced",
        read: |figures| gauge(figures, |reading| reading.rotation_began.map(seconds)),
    },
    Row {
        name: "managed_secrets_rewrapped_records",
        kind: Kind::Counter,
        labels: &[],
        help: "Records whose keys were encrypted again under the active seed",
        read: |figures| figures.reading().map_or(Value::Absent, |reading| Value::Count(reading.rewrapped)),
    },
    Row {
        name: "managed_secrets_rewrap_records_left",
        kind: Kind::Gauge,
        labels: &[],
        help: "Records that the last list showed under a seed that was replaced, and that were not re-wrapped",
        read: |figures| gauge(figures, |reading| Some(number(reading.records_left))),
    },
    Row {
        name: "managed_secrets_rewrap_records_stuck",
        kind: Kind::Gauge,
        labels: &[Label::StuckCause],
        help: "Records left under a seed that was replaced because they cannot be moved, by the cause; the log names them",
        read: |figures| {
            series(figures, |reading| {
                let of = |(cause, count): &(_, usize)| (vec![(Label::StuckCause.name(), *cause)], number(*count));
                reading.records_stuck.iter().map(of).collect()
            })
        },
    },
    Row {
        name: "managed_secrets_oldest_sealing_key_created_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the oldest sealing key that is not revoked was created, in seconds since 1970",
        read: |figures| gauge(figures, |reading| reading.oldest_sealing_key.map(seconds)),
    },
    Row {
        name: "managed_secrets_sealing_key_due_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the active sealing key is to be replaced, in seconds since 1970; absent with --sealing-key-period 0",
        read: |figures| gauge(figures, |reading| reading.sealing_key_due.map(seconds)),
    },
    Row {
        name: "managed_secrets_sealed_values",
        kind: Kind::Gauge,
        labels: &[Label::Standing],
        help: "Sealed values in ManagedSecrets, by what their key does; kubectl msec keys list counts them by key",
        read: |figures| {
            series(figures, |reading| {
                let of = |(standing, count): &(_, usize)| (vec![(Label::Standing.name(), *standing)], number(*count));
                reading.sealed.iter().map(of).collect()
            })
        },
    },
    Row {
        name: "managed_secrets_keyring_rolled_back",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 if the keyring is older than one that was seen before: keys are missing, or revoked ones open again",
        read: |figures| gauge(figures, |reading| Some(f64::from(u8::from(reading.keyring_rolled_back)))),
    },
    Row {
        name: "managed_secrets_keys_under_other_kek",
        kind: Kind::Gauge,
        labels: &[],
        help: "Keys of the keyring that are under another key-encryption key than the one that encrypts new keys",
        read: |figures| gauge(figures, |reading| Some(number(reading.keys_under_other_kek))),
    },
    Row {
        name: "managed_secrets_kms_plugins_silent",
        kind: Kind::Gauge,
        labels: &[],
        help: "KMS plugins that do not answer as they should; absent without --kms",
        read: |figures| gauge(figures, |reading| reading.kms_silent.map(number)),
    },
    Row {
        name: "managed_secrets_kms_grace_over",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 if no new value is encrypted, because a KMS plugin has been silent for longer than --kms-grace; absent without \
               --kms",
        read: |figures| gauge(figures, |reading| reading.kms_refuses.map(|it| f64::from(u8::from(it)))),
    },
    Row {
        name: "managed_secrets_keys_without_recovery",
        kind: Kind::Gauge,
        labels: &[],
        help: "Keys of the keyring that not every recovery key opens, or that have no copy for one while others have; absent where there is no recovery key",
        read: |figures| gauge(figures, |reading| reading.without_recovery.map(number)),
    },
    Row {
        name: "process_cpu_seconds",
        kind: Kind::Counter,
        labels: &[],
        help: "CPU time of the process",
        read: |figures| figures.process.cpu.map_or(Value::Absent, Value::Seconds),
    },
    Row {
        name: "process_resident_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Resident memory of the process",
        read: |figures| of_process(figures.process.resident),
    },
    Row {
        name: "process_virtual_memory_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Virtual memory of the process",
        read: |figures| of_process(figures.process.memory),
    },
    Row {
        name: "process_open_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "Open file descriptors of the process",
        read: |figures| of_process(figures.process.fds),
    },
    Row {
        name: "process_max_fds",
        kind: Kind::Gauge,
        labels: &[],
        help: "How many file descriptors the process may have open; +Inf if there is no limit",
        read: |figures| figures.process.max_fds.map_or(Value::Absent, Value::Number),
    },
    Row {
        name: "managed_secrets_memory_limit_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Memory limit of the container; +Inf if there is none",
        read: |figures| figures.process.memory_limit.map_or(Value::Absent, Value::Number),
    },
    Row {
        name: "process_start_time_seconds",
        kind: Kind::Gauge,
        labels: &[],
        help: "When the process was started, in seconds since 1970",
        read: |figures| figures.process.started.map_or(Value::Absent, Value::Number),
    },
];

type Series = Vec<(Vec<(&'static str, &'static str)>, f64)>;

fn gauge<'f>(figures: &'f Figures<'_>, read: impl Fn(&Reading) -> Option<f64>) -> Value<'f> {
    figures.reading().and_then(read).map_or(Value::Absent, Value::Number)
}

fn counter<'f>(figures: &'f Figures<'_>, read: impl Fn(&Stats) -> u64) -> Value<'f> {
    figures.sources().map_or(Value::Absent, |from| Value::Count(read(&from.stats)))
}

fn series<'f>(figures: &'f Figures<'_>, read: impl Fn(&Reading) -> Series) -> Value<'f> {
    figures.reading().map_or(Value::Absent, |reading| Value::Series(read(reading)))
}

fn by_priority<'f>(figures: &'f Figures<'_>, read: impl Fn(&DueAge) -> f64) -> Value<'f> {
    series(figures, |reading| {
        let of = |due: &DueAge| (vec![(Label::Priority.name(), priority(due.priority))], read(due));
        reading.progress.due.iter().map(of).collect()
    })
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Fresh => FRESH,
        Priority::New => NEW,
        Priority::Woken => WOKEN,
        Priority::Resync => RESYNC,
    }
}

/// Folds the watches of each kind.
fn by_watch<'f>(figures: &'f Figures<'_>, fold: impl Fn(f64, &WatchState) -> f64) -> Value<'f> {
    series(figures, |reading| {
        let mut kinds: Vec<(&'static str, f64)> = Vec::new();
        for watch in &reading.watches {
            let kind = kind_of(&watch.name);
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, number)) => *number = fold(*number, watch),
                None => kinds.push((kind, fold(0.0, watch))),
            }
        }
        kinds.into_iter().map(|(kind, number)| (vec![(Label::Watch.name(), kind)], number)).collect()
    })
}

/// A watch of one namespace is called `KIND of NAMESPACE`.
fn kind_of(name: &str) -> &'static str {
    let kind = name.split_once(" of ").map_or(name, |(kind, _)| kind);
    WATCHES.iter().copied().find(|known| *known == kind).unwrap_or(OTHER)
}

#[allow(clippy::cast_precision_loss, reason = "no process has 2^53 bytes")]
fn of_process<'f>(figure: Option<u64>) -> Value<'f> {
    figure.map_or(Value::Absent, |figure| Value::Number(figure as f64))
}

#[allow(clippy::cast_precision_loss, reason = "there are no 2^53 objects")]
fn number(count: usize) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "dates have less than 2^53 seconds")]
fn seconds(time: Timestamp) -> f64 {
    time.as_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_a_watch_is_not_part_of_its_kind() {
        for (name, kind) in [
            ("managedsecrets of shop", "managedsecrets"),
            ("managedsecrets", "managedsecrets"),
            ("sources of of", "sources"),
            ("webhook secret", "webhook secret"),
            ("shop", OTHER),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }
}
