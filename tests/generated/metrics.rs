//! `docs/metrics.md`, written from the table that `/metrics` is encoded from.

use std::fmt::Write;

use managed_secrets::admin::metrics::{Kind, TABLE};

/// Every metric with its labels.
pub(super) fn metrics() -> String {
    let mut page = String::from(
        "# Metrics\n\n`GET /metrics` on the port of `--admin-listen` answers in the OpenMetrics format; \
         [monitoring.md](monitoring.md#scrape) explains how to scrape it. No label contains the name of an object or a \
         namespace: every label has a closed list of values, given below.\n\n\
         | metric | kind | labels | what it means |\n|---|---|---|---|\n",
    );
    let mut labels = Vec::new();
    for row in TABLE {
        let (suffix, kind) = match row.kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let names: Vec<String> = row.labels.iter().map(|label| format!("`{}`", label.name())).collect();
        let _ = writeln!(page, "| `{}{suffix}` | {kind} | {} | {} |", row.name, names.join(", "), row.help);
        labels.extend(row.labels.iter().filter(|label| !labels.contains(*label)).copied().collect::<Vec<_>>());
    }
    page.push_str(
        "\nA histogram has three series: `_count`, `_sum` in seconds, and `_bucket`.\n\n| label | values |\n|---|---|\n",
    );
    for label in labels {
        let values = label.values().into_iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{}` | {values} |", label.name());
    }
    page
}
