//! The table of panels, and the Grafana dashboard that shows them.

use serde_json::{Value, json};

/// How a panel shows its series.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The newest number, large.
    Number,
    /// Lines over time.
    Lines,
}

/// A panel.
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// What it shows, and what is unusual.
    pub description: &'static str,
    /// The unit, as Grafana calls it.
    pub unit: &'static str,
    /// How it shows its series.
    pub kind: Kind,
    /// Queries in `PromQL`, and the names of their series.
    pub queries: &'static [(&'static str, &'static str)],
}

/// A row of panels.
pub struct Row {
    /// Its title.
    pub title: &'static str,
    /// Its panels.
    pub panels: &'static [Panel],
}

/// Every panel.
pub const ROWS: &[Row] = &[
    Row {
        title: "Overview",
        panels: &[
            Panel {
                title: "Replicas",
                description: "Replicas that Prometheus scrapes.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("sum(managed_secrets_build_info{namespace=~\"$namespace\"})", "replicas")],
            },
            Panel {
                title: "Leaders",
                description: "Replicas that reconcile. It must be 1 for each installation.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("sum(managed_secrets_leader{namespace=~\"$namespace\"})", "leaders")],
            },
            Panel {
                title: "ManagedSecrets delivered",
                description: "ManagedSecrets whose value is delivered as the spec says.",
                unit: "short",
                kind: Kind::Number,
                queries: &[(
                    "sum(max by (namespace) (managed_secrets_objects{namespace=~\"$namespace\",reason=\"Served\"}))",
                    "delivered",
                )],
            },
            Panel {
                title: "ManagedSecrets with a problem",
                description: "ManagedSecrets with any other reason, except suspended ones. The next row shows the reasons.",
                unit: "short",
                kind: Kind::Number,
                queries: &[(
                    "sum(max by (namespace, reason) (managed_secrets_objects{namespace=~\"$namespace\",reason!~\"Served|Suspended\"}))",
                    "not delivered",
                )],
            },
            Panel {
                title: "Certificate expires in",
                description: "Time until the certificate of the webhooks expires. The operator renews it when a third of its 14 \
                              days is left.",
                unit: "s",
                kind: Kind::Number,
                queries: &[(
                    "min(managed_secrets_webhook_certificate_expiry_timestamp_seconds{namespace=~\"$namespace\"}) - time()",
                    "left",
                )],
            },
            Panel {
                title: "Age of the oldest sealing key",
                description: "Time since the oldest sealing key that opens was created.",
                unit: "s",
                kind: Kind::Number,
                queries: &[(
                    "time() - min(managed_secrets_oldest_sealing_key_created_timestamp_seconds{namespace=~\"$namespace\"})",
                    "age",
                )],
            },
            Panel {
                title: "Time until the sealing key is replaced",
                description: "Negative if the operator should have replaced it; empty if it is replaced on request only.",
                unit: "s",
                kind: Kind::Number,
                queries: &[(
                    "max(managed_secrets_sealing_key_due_timestamp_seconds{namespace=~\"$namespace\"}) - time()",
                    "left",
                )],
            },
            Panel {
                title: "Sealed values by key",
                description: "Sealed values whose key is the active one, only opens, was retired or revoked, or is not in the keyring.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("max by (key) (managed_secrets_sealed_values{namespace=~\"$namespace\"})", "{{key}}")],
            },
            Panel {
                title: "Age of the oldest seed",
                description: "Time since the oldest seed of the keyring was created.",
                unit: "s",
                kind: Kind::Number,
                queries: &[(
                    "time() - min(managed_secrets_oldest_seed_created_timestamp_seconds{namespace=~\"$namespace\"})",
                    "age",
                )],
            },
            Panel {
                title: "Records to move to the active seed",
                description: "Records under a seed that was replaced, those of them that cannot be moved, and how many were moved.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[
                    ("max(managed_secrets_rewrap_records_left{namespace=~\"$namespace\"})", "left"),
                    ("sum(managed_secrets_rewrap_records_stuck{namespace=~\"$namespace\"})", "stuck"),
                    (
                        "sum(increase(managed_secrets_rewrapped_records_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        "moved",
                    ),
                ],
            },
            Panel {
                title: "Time since a seed was replaced",
                description: "How long records have been moved to the active seed; empty if no earlier seed is in use.",
                unit: "s",
                kind: Kind::Number,
                queries: &[(
                    "time() - max(managed_secrets_seed_rotation_started_timestamp_seconds{namespace=~\"$namespace\"})",
                    "time",
                )],
            },
            Panel {
                title: "Keys without recovery",
                description: "Keys of the keyring that not every recovery key opens. Empty without a recovery key.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("max(managed_secrets_keys_without_recovery{namespace=~\"$namespace\"})", "keys")],
            },
            Panel {
                title: "Keyring too old",
                description: "1 if the keyring is older than one that the operator has seen before.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("max(managed_secrets_keyring_rolled_back{namespace=~\"$namespace\"})", "too old")],
            },
            Panel {
                title: "KMS plugins that are silent",
                description: "KMS plugins that do not answer, and 1 while no new value is accepted because of that. Empty without \
                              a plugin.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[
                    ("max(managed_secrets_kms_plugins_silent{namespace=~\"$namespace\"})", "silent"),
                    ("max(managed_secrets_kms_grace_over{namespace=~\"$namespace\"})", "grace over"),
                ],
            },
            Panel {
                title: "Keys under an earlier KEK",
                description: "Keys of the keyring that the operator has yet to move to the present key-encryption key.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("max(managed_secrets_keys_under_other_kek{namespace=~\"$namespace\"})", "keys")],
            },
            Panel {
                title: "Versions",
                description: "Replicas by version. There are two versions only during an upgrade.",
                unit: "short",
                kind: Kind::Number,
                queries: &[("sum by (version) (managed_secrets_build_info{namespace=~\"$namespace\"})", "{{version}}")],
            },
        ],
    },
    Row {
        title: "ManagedSecrets",
        panels: &[
            Panel {
                title: "ManagedSecrets by reason",
                description: "ManagedSecrets by the reason of their Ready condition.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("max by (reason) (managed_secrets_objects{namespace=~\"$namespace\"}) > 0", "{{reason}}")],
            },
            Panel {
                title: "Repairs",
                description: "Records and targets that another program changed or deleted, and the operator repaired; and writes \
                              that changed nothing. Many of either mean that another program or an admission policy works against \
                              the operator.",
                unit: "cpm",
                kind: Kind::Lines,
                queries: &[
                    (
                        "sum(rate(managed_secrets_repairs_total{namespace=~\"$namespace\"}[$__rate_interval])) * 60",
                        "repairs",
                    ),
                    (
                        "sum(rate(managed_secrets_idle_writes_total{namespace=~\"$namespace\"}[$__rate_interval])) * 60",
                        "writes that changed nothing",
                    ),
                ],
            },
            Panel {
                title: "Values that expire",
                description: "ManagedSecrets whose value expires soon or has expired, by their spec.expires. `kubectl msec list \
                              -A --expiring` names them.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("max by (reason) (managed_secrets_expiring{namespace=~\"$namespace\"})", "{{reason}}")],
            },
            Panel {
                title: "Pinned versions",
                description: "ManagedSecrets with spec.version, as after a rollback: while it is set, new values are stored and \
                              not delivered, and scheduled rotation waits. `kubectl msec versions NAME` shows which version an \
                              object delivers.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("max(managed_secrets_pinned{namespace=~\"$namespace\"})", "pinned")],
            },
            Panel {
                title: "Rotations",
                description: "Generated values that a new one replaced, on schedule (spec.generate.rotateEvery) or on request; and \
                              tries whose new value could not be stored, which the operator repeats.",
                unit: "cpm",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (result) (rate(managed_secrets_rotations_total{namespace=~\"$namespace\"}[$__rate_interval])) * 60",
                    "{{result}}",
                )],
            },
            Panel {
                title: "Restarts of workloads",
                description: "Workloads that were restarted because a new value was delivered (spec.target.restart).",
                unit: "cpm",
                kind: Kind::Lines,
                queries: &[(
                    "sum(rate(managed_secrets_restarts_total{namespace=~\"$namespace\"}[$__rate_interval])) * 60",
                    "restarts",
                )],
            },
            Panel {
                title: "Namespaces that are not served",
                description: "Namespaces whose objects the operator could not list since its start. All namespaces count as one if \
                              the operator serves the whole cluster.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("max by (pod) (managed_secrets_namespaces_waiting{namespace=~\"$namespace\"})", "{{pod}}")],
            },
        ],
    },
    Row {
        title: "Reconciles",
        panels: &[
            Panel {
                title: "Reconciles",
                description: "Reconciles by result. Retries are normal for a moment; panics never are.",
                unit: "ops",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (result) (rate(managed_secrets_reconcile_duration_seconds_count{namespace=~\"$namespace\"}[$__rate_interval]))",
                    "{{result}}",
                )],
            },
            Panel {
                title: "Reconciles: duration",
                description: "How long half, and 99 of 100, of the reconciles took.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(managed_secrets_reconcile_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "half",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate(managed_secrets_reconcile_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "99 of 100",
                    ),
                ],
            },
            Panel {
                title: "Retries",
                description: "Reconciles that failed and are done again after a delay.",
                unit: "ops",
                kind: Kind::Lines,
                queries: &[(
                    "sum(rate(managed_secrets_reconcile_retries_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                    "retries",
                )],
            },
            Panel {
                title: "Queue",
                description: "Objects that are due by priority, objects that wait for a later time, and objects in work.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[
                    ("sum by (priority) (managed_secrets_queue_due{namespace=~\"$namespace\"})", "due: {{priority}}"),
                    ("sum(managed_secrets_queue_waiting{namespace=~\"$namespace\"})", "waiting"),
                    ("sum(managed_secrets_queue_running{namespace=~\"$namespace\"})", "in work"),
                ],
            },
            Panel {
                title: "Queue: oldest due object",
                description: "How long the oldest due object has waited for a worker. Edited objects (fresh) should wait for less \
                              than a second; new ones may come in large numbers.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[(
                    "max by (priority) (managed_secrets_queue_oldest_due_seconds{namespace=~\"$namespace\"})",
                    "{{priority}}",
                )],
            },
        ],
    },
    Row {
        title: "API server",
        panels: &[
            Panel {
                title: "API requests",
                description: "Requests to the API server by verb and resource. An idle leader renews its Lease 30 times a minute.",
                unit: "reqps",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (verb, resource) (rate(managed_secrets_api_requests_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                    "{{verb}} {{resource}}",
                )],
            },
            Panel {
                title: "API requests: errors",
                description: "Requests that were refused or failed, by code. 404 and 409 are part of normal work; the code none means \
                              no answer.",
                unit: "reqps",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (code, resource) (rate(managed_secrets_api_requests_total{namespace=~\"$namespace\",code!~\"200|201|202\"}[$__rate_interval]))",
                    "{{code}} {{resource}}",
                )],
            },
            Panel {
                title: "API requests: duration",
                description: "How long 99 of 100 requests took until their answer began.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[(
                    "histogram_quantile(0.99, sum by (le, verb, resource) (rate(managed_secrets_api_request_duration_seconds_bucket{namespace=~\"$namespace\",verb!=\"watch\"}[$__rate_interval])))",
                    "{{verb}} {{resource}}",
                )],
            },
            Panel {
                title: "Watches: time since the API server was heard",
                description: "Of each kind of watch the one that was heard longest ago. The API server ends a watch after at most 200 \
                              seconds.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[(
                    "max by (watch) (managed_secrets_watch_unanswered_seconds{namespace=~\"$namespace\"})",
                    "{{watch}}",
                )],
            },
            Panel {
                title: "Watches: problems",
                description: "Watches that fail at present; and how often lists or watches failed, were cut, listed again or began \
                              again.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[
                    (
                        "sum by (watch) (managed_secrets_watches_failing{namespace=~\"$namespace\"})",
                        "failing: {{watch}}",
                    ),
                    (
                        "sum(increase(managed_secrets_watch_errors_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        "errors",
                    ),
                    (
                        "sum(increase(managed_secrets_watch_cuts_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        "cuts",
                    ),
                    (
                        "sum(increase(managed_secrets_watch_relists_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        "lists again",
                    ),
                    (
                        "sum(increase(managed_secrets_watch_restarts_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        "restarts",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Webhooks",
        panels: &[
            Panel {
                title: "Webhook requests",
                description: "Requests of the API server to the webhooks, by webhook and verdict.",
                unit: "reqps",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (webhook, verdict) (rate(managed_secrets_webhook_request_duration_seconds_count{namespace=~\"$namespace\"}[$__rate_interval]))",
                    "{{webhook}} {{verdict}}",
                )],
            },
            Panel {
                title: "Webhook requests: duration",
                description: "How long half, and 99 of 100, of the answers took. The API server waits for 10 seconds.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le, webhook) (rate(managed_secrets_webhook_request_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "{{webhook}}, half",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le, webhook) (rate(managed_secrets_webhook_request_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "{{webhook}}, 99 of 100",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Value API",
        panels: &[
            Panel {
                title: "Reads",
                description: "Requests for values, by the way that they took and their result. Empty if the value API is off.",
                unit: "reqps",
                kind: Kind::Lines,
                queries: &[(
                    "sum by (door, result) (rate(managed_secrets_value_request_duration_seconds_count{namespace=~\"$namespace\"}[$__rate_interval]))",
                    "{{door}} {{result}}",
                )],
            },
            Panel {
                title: "Reads: duration",
                description: "How long half, and 99 of 100, of the answers took.",
                unit: "s",
                kind: Kind::Lines,
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le, door) (rate(managed_secrets_value_request_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "{{door}}, half",
                    ),
                    (
                        "histogram_quantile(0.99, sum by (le, door) (rate(managed_secrets_value_request_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                        "{{door}}, 99 of 100",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Replicas",
        panels: &[
            Panel {
                title: "Leader",
                description: "Which replica reconciles.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("managed_secrets_leader{namespace=~\"$namespace\"}", "{{pod}}")],
            },
            Panel {
                title: "Health checks that fail",
                description: "1 for each check that fails. /livez and /readyz of the replica say why.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[("1 - managed_secrets_health_check{namespace=~\"$namespace\"} > 0", "{{pod}} {{check}}")],
            },
            Panel {
                title: "Restarts",
                description: "How often each replica has started within an hour.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[(
                    "changes(process_start_time_seconds{namespace=~\"$namespace\"}[1h]) and on (job, namespace, pod, instance) managed_secrets_build_info",
                    "{{pod}}",
                )],
            },
            Panel {
                title: "CPU",
                description: "Processors in use. An idle replica uses less than a hundredth of one.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[(
                    "rate(process_cpu_seconds_total{namespace=~\"$namespace\"}[$__rate_interval]) and on (job, namespace, pod, instance) managed_secrets_build_info",
                    "{{pod}}",
                )],
            },
            Panel {
                title: "Memory",
                description: "Resident memory, and the limit of the container.",
                unit: "bytes",
                kind: Kind::Lines,
                queries: &[
                    (
                        "process_resident_memory_bytes{namespace=~\"$namespace\"} and on (job, namespace, pod, instance) managed_secrets_build_info",
                        "{{pod}}",
                    ),
                    ("min(managed_secrets_memory_limit_bytes{namespace=~\"$namespace\"}) < +Inf", "limit"),
                ],
            },
            Panel {
                title: "File descriptors",
                description: "Open file descriptors, and how many may be open.",
                unit: "short",
                kind: Kind::Lines,
                queries: &[
                    (
                        "process_open_fds{namespace=~\"$namespace\"} and on (job, namespace, pod, instance) managed_secrets_build_info",
                        "{{pod}}",
                    ),
                    (
                        "min(process_max_fds{namespace=~\"$namespace\"} and on (job, namespace, pod, instance) managed_secrets_build_info) < +Inf",
                        "limit",
                    ),
                ],
            },
        ],
    },
];

/// The width of the dashboard in Grafana's units.
const WIDTH: u32 = 24;

/// Returns the dashboard as Grafana imports it.
#[must_use]
pub fn dashboard() -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for row in ROWS {
        panels.push(json!({
            "id": panels.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }));
        y += 1;
        let mut x = 0;
        let mut height = 0;
        for shown in row.panels {
            let (width, tall) = match shown.kind {
                Kind::Number => (6, 4),
                Kind::Lines => (8, 8),
            };
            if x + width > WIDTH {
                (x, y, height) = (0, y + height, 0);
            }
            panels.push(panel(shown, panels.len() + 1, &json!({"x": x, "y": y, "w": width, "h": tall})));
            (x, height) = (x + width, height.max(tall));
        }
        y += height;
    }
    json!({
        "uid": "managed-secrets",
        "title": "managed-secrets",
        "description": "The operator managed-secrets: what it delivers, and how it works.",
        "tags": ["managed-secrets"],
        "schemaVersion": 39,
        "version": 1,
        "editable": true,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0},
            {
                "name": "namespace",
                "label": "Namespace of the operator",
                "type": "query",
                "datasource": source(),
                "query": {"query": "label_values(managed_secrets_build_info, namespace)", "refId": "namespaces"},
                "includeAll": true,
                // Also finds replicas whose series have no namespace.
                "allValue": ".*",
                "multi": true,
                "refresh": 2,
                "sort": 1,
                "current": {"text": "All", "value": "$__all"},
            },
        ]},
        "panels": panels,
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn panel(panel: &Panel, id: usize, position: &Value) -> Value {
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|((query, name), letter)| {
            json!({
                "refId": letter.to_string(), "datasource": source(), "expr": query, "legendFormat": name,
                "instant": panel.kind == Kind::Number, "range": panel.kind == Kind::Lines,
            })
        })
        .collect();
    let (kind, options) = match panel.kind {
        Kind::Number => ("stat", json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none"})),
        Kind::Lines => (
            "timeseries",
            json!({"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}, "tooltip": {"mode": "multi", "sort": "desc"}}),
        ),
    };
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": source(),
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": targets,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// At least four scrapes long, as Grafana chooses it.
    const RATE: &str = "$__rate_interval";

    #[test]
    fn every_panel_has_a_title_of_its_own_a_unit_and_a_description() {
        let mut titles = BTreeSet::new();
        for panel in ROWS.iter().flat_map(|row| row.panels) {
            assert!(titles.insert(panel.title), "{}", panel.title);
            assert!(panel.description.ends_with('.') && !panel.unit.is_empty(), "{}", panel.title);
            for (query, name) in panel.queries {
                assert!(query.contains("{namespace=~\"$namespace\""), "{query}");
                assert!(!name.is_empty() && (!query.contains("rate(") || query.contains(RATE)), "{query}");
            }
        }
    }

    #[test]
    fn no_panel_covers_another_one() {
        let dashboard = dashboard();
        let mut taken = BTreeSet::new();
        let (mut ids, mut panels) = (BTreeSet::new(), 0);
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let of = |key: &str| panel["gridPos"][key].as_u64().unwrap_or_default();
            assert!(of("x") + of("w") <= u64::from(WIDTH), "{panel}");
            for cell in (of("x")..of("x") + of("w")).flat_map(|x| (of("y")..of("y") + of("h")).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{panel}");
            }
            ids.insert(panel["id"].as_u64());
            panels += 1;
        }
        assert!(panels > 20 && ids.len() == panels, "{panels}");
    }
}
