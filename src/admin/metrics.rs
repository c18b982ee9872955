//! Metrics: one table that says what each one is called, what it means and how it is read.
//!
//! In: counters that the parts keep anyway, and a [`Reading`] of what changes with the cluster, which is made at each
//! scrape. Out: text in the text format of `OpenMetrics`. `docs/metrics.md` is generated from the same table.
//!
//! No label holds the name of an object or a namespace: every value is of a closed list ([`Label::values`]). So neither the number
//! of series nor their content depends on users.

mod process;
mod table;

use std::{
    fmt::{self, Debug},
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use managed_secrets_engine::{health::Health, queue::Progress, requests::Requests, stats::Stats, watch::WatchState};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

pub use self::table::{Label, TABLE};
use crate::{values, webhook};

/// Resources that the operator requests, which have metrics of their own.
pub const RESOURCES: &[&str] = &[
    "managedsecrets",
    "secrets",
    "configmaps",
    "events",
    "leases",
    "localsubjectaccessreviews",
    "subjectaccessreviews",
    "tokenreviews",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "apiservices",
    "clusterroles",
    "deployments",
    "statefulsets",
    "daemonsets",
];

/// What changes with the cluster.
#[derive(Debug)]
pub struct Reading {
    /// Whether this replica may change the cluster.
    pub leader: bool,
    /// The work of the controller.
    pub progress: Progress,
    /// The watches.
    pub watches: Vec<WatchState>,
    /// Namespaces that are not served yet; all of them count as one.
    pub namespaces_waiting: usize,
    /// ManagedSecrets, by the reason of their `Ready` condition; those without a condition are not included.
    pub objects: Vec<(&'static str, usize)>,
    /// How many workloads were restarted.
    pub restarts: u64,
    /// How many rotations of generated values ended in each way.
    pub rotations: [(&'static str, u64); 2],
    /// ManagedSecrets whose value expires soon or has expired, by the reason of their `Expiring` condition.
    pub expiring: Vec<(&'static str, usize)>,
    /// ManagedSecrets with `spec.version`; while it is set, new values are stored and not delivered.
    pub pinned: usize,
    /// When the oldest seed was created.
    pub oldest_seed: Option<Timestamp>,
    /// When the active seed was created, while a seed that it replaced may be in use.
    pub rotation_began: Option<Timestamp>,
    /// Records that were re-wrapped.
    pub rewrapped: u64,
    /// Records that the last list showed under a seed that was replaced, and that were not re-wrapped.
    pub records_left: usize,
    /// Those of them that cannot be moved, by the cause.
    pub records_stuck: [(&'static str, usize); 3],
    /// When the oldest sealing key was created.
    pub oldest_sealing_key: Option<Timestamp>,
    /// When the active sealing key is to be replaced; `None` if that is done on request only.
    pub sealing_key_due: Option<Timestamp>,
    /// Sealed values, by what may be done with their key: one of [`STANDINGS`](crate::keyring::usage::STANDINGS).
    pub sealed: [(&'static str, usize); 5],
    /// Whether the keyring is older than one that was seen before.
    pub keyring_rolled_back: bool,
    /// How many keys of the keyring are under another KEK than the one that wraps new keys.
    pub keys_under_other_kek: usize,
    /// How many KMS plugins do not answer; none if no plugin is configured.
    pub kms_silent: Option<usize>,
    /// Whether nothing new is encrypted, because a plugin has been silent for too long.
    pub kms_refuses: Option<bool>,
    /// How many keys of the keyring a recovery key cannot open; `None` without recovery keys.
    pub without_recovery: Option<usize>,
    /// When the certificate of the webhooks expires.
    pub certificate_expires: Option<Timestamp>,
}

/// Where the figures come from, once the operator has started.
pub struct Sources {
    /// The counters of the engine.
    pub stats: Arc<Stats>,
    /// The requests to the API server.
    pub requests: Arc<Requests>,
    /// The counters of the webhooks, where they are on.
    pub webhooks: Option<Arc<webhook::Stats>>,
    /// The counters of the value API, where it is on.
    pub values: Option<Arc<values::Stats>>,
    /// Reads what changes with the cluster.
    pub read: Box<dyn Fn() -> Reading + Send + Sync>,
}

/// The metrics of the process. Until [`Metrics::connect`], only those of the process itself and of its health.
pub struct Metrics {
    health: Arc<Health>,
    sources: OnceLock<Sources>,
}

impl Metrics {
    /// Reads the health of the process here.
    #[must_use]
    pub fn new(health: Arc<Health>) -> Self {
        Self { health, sources: OnceLock::new() }
    }

    /// Adds the figures of the operator. Only the first call counts.
    pub fn connect(&self, sources: Sources) {
        // An operator starts once in a process.
        let _ = self.sources.set(sources);
    }

    /// Describes all metrics at present, in the text format of `OpenMetrics`.
    pub fn text(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(Arc::clone(self))));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that a row of the table can read.
pub struct Figures<'a> {
    process: process::Process,
    /// The health checks, and whether each one passes.
    checks: Vec<(&'static str, bool)>,
    operator: Option<(&'a Sources, Reading)>,
}

impl Figures<'_> {
    fn reading(&self) -> Option<&Reading> {
        self.operator.as_ref().map(|(_, reading)| reading)
    }

    fn sources(&self) -> Option<&Sources> {
        self.operator.as_ref().map(|(sources, _)| *sources)
    }
}

/// What a metric is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A number that only grows. Its name in a scrape ends in `_total`.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// How many events there were, and how long they took. Its names in a scrape end in `_count`, `_sum` and `_bucket`.
    Histogram,
}

/// A row of the table.
pub struct Row {
    /// Its name, without what the format adds.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [Label],
    /// What it means: a sentence without its full stop.
    pub help: &'static str,
    /// Reads it.
    read: for<'f> fn(&'f Figures<'_>) -> Value<'f>,
}

/// What a row reads.
enum Value<'f> {
    /// Nothing is known.
    Absent,
    Count(u64),
    /// Counts by the value of one label.
    Counts(Label, Vec<(&'static str, u64)>),
    Seconds(f64),
    Number(f64),
    Series(Vec<(Vec<(&'static str, &'static str)>, f64)>),
    Family(&'f dyn EncodeMetric),
}

impl Row {
    fn encode(&self, figures: &Figures<'_>, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let value = (self.read)(figures);
        if matches!(&value, Value::Absent) || matches!(&value, Value::Family(family) if family.is_empty()) {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let help = format!("{}.", self.help);
        let mut encoder: MetricEncoder<'_> = encoder.encode_descriptor(self.name, &help, None::<&Unit>, kind)?;
        match value {
            Value::Absent => Ok(()),
            Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, u64>(&count, None),
            Value::Counts(label, counts) => counts.iter().try_for_each(|(of, count)| {
                encoder.encode_family(&[(label.name(), *of)])?.encode_counter::<NoLabelSet, _, u64>(count, None)
            }),
            Value::Seconds(seconds) => encoder.encode_counter::<NoLabelSet, _, f64>(&seconds, None),
            Value::Number(number) => encoder.encode_gauge(&number),
            Value::Series(series) => {
                series.iter().try_for_each(|(labels, number)| encoder.encode_family(labels)?.encode_gauge(number))
            }
            Value::Family(family) => family.encode(encoder),
        }
    }
}

/// One scrape.
struct Scrape(Arc<Metrics>);

impl Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let operator = self.0.sources.get().map(|sources| (sources, (sources.read)()));
        let figures = Figures { process: process::Process::read(), checks: self.0.health.checks(), operator };
        TABLE.iter().try_for_each(|row| row.encode(&figures, &mut encoder))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names = BTreeSet::new();
        for row in TABLE {
            assert!(names.insert(row.name), "{} twice", row.name);
            assert!(row.name.starts_with("managed_secrets_") || row.name.starts_with("process_"), "{}", row.name);
            assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", row.name);
            for suffix in ["_total", "_count", "_sum", "_bucket"] {
                assert!(!row.name.ends_with(suffix), "{}: the format adds {suffix}", row.name);
            }
            assert!(row.kind != Kind::Histogram || row.name.ends_with("_seconds"), "{}", row.name);
            assert!(!row.help.ends_with('.') && !row.help.is_empty(), "{}", row.name);
        }
        for label in TABLE.iter().flat_map(|row| row.labels) {
            assert!(!label.values().is_empty(), "{} has no closed list", label.name());
        }
    }

    #[test]
    fn before_the_operator_has_started_the_process_has_metrics() {
        let text = Arc::new(Metrics::new(Arc::default())).text().unwrap();
        assert!(text.contains("managed_secrets_health_check{check=\"start\"} 0"), "{text}");
        assert!(text.contains("managed_secrets_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n") && !text.contains("managed_secrets_queue"), "{text}");
        if cfg!(target_os = "linux") {
            let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            assert!(of("process_resident_memory_bytes").unwrap() > 1e6, "{text}");
            assert!(of("managed_secrets_memory_limit_bytes").unwrap() > 1e6, "{text}");
            assert!(
                of("process_open_fds").unwrap() >= 3.0 && of("process_start_time_seconds").unwrap() > 1e9,
                "{text}"
            );
        }
    }
}
