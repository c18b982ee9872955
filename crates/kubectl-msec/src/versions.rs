//! `kubectl msec versions`: the versions of a value that the record has. It reads the object only, and no value.

use clap::Args;
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::types::SourceKind;
use managed_secrets_cli::{CliError, say};

use super::completion;
use super::lookup;
use super::session::{ClusterArgs, Session};
use super::state::State;
use super::table::{Layout, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl msec versions WEATHER_API_KEY";

/// Arguments of `versions`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct VersionsArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,
}

/// Lists the versions of a secret, the newest first.
pub(super) async fn versions(cluster: &ClusterArgs, args: &VersionsArgs) -> Result<(), CliError> {
    let session = Session::open(cluster)?;
    let object = lookup::one(&session, &args.secret).await?;
    lookup::note_if_only_wanted(&args.secret, &object);
    say::print_document(&table(&object).render(Layout::of_standard_output(false)))
}

fn table(object: &ManagedSecret) -> Table {
    let status = object.status.clone().unwrap_or_default();
    let delivered = status.delivered();
    let row = |version: i64, created: &str, source: &str| {
        let is = |other: Option<i64>, word: &'static str| (other == Some(version)).then_some(word);
        let state: Vec<_> = [is(status.version, "newest"), is(delivered, "delivered")].into_iter().flatten().collect();
        vec![version.to_string(), created.to_owned(), source.to_owned(), state.join(", ")]
    };
    let columns = ["VERSION", "CREATED", "SOURCE", "STATE"].map(str::to_owned).to_vec();
    let newest = status.version.zip(status.value_updated_time.as_deref());
    let newest = newest.map(|(version, created)| row(version, created, source_of_newest(object)));
    let earlier = status.history.iter().flatten();
    let earlier = earlier.map(|kept| row(kept.version, &kept.created, kept.source.as_str()));
    Table { rows: newest.into_iter().chain(earlier).collect(), columns }
}

/// Where the newest value comes from. The status does not say it, and it is that of the spec only once the operator follows
/// the present spec.
fn source_of_newest(object: &ManagedSecret) -> &'static str {
    if !matches!(State::of(object), State::Served) {
        "unknown"
    } else if object.spec.generate.is_some() {
        SourceKind::Generate.as_str()
    } else if object.spec.value_from.is_some() {
        SourceKind::ValueFrom.as_str()
    } else {
        SourceKind::Value.as_str()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(ready: &str) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db", "generation": 7}, "status": {
                "version": 4, "valueUpdatedTime": "2026-11-23T09:00:00Z", "delivered": 2, "history": [
                    {"version": 3, "created": "2026-11-23T08:30:00Z", "source": "value"},
                    {"version": 2, "created": "2026-11-23T08:00:00Z", "source": "valueFrom"},
                ],
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "Served", "message": "", "observedGeneration": 7,
                    "lastTransitionTime": "2026-11-23T09:00:00Z",
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_comes_first_and_the_delivered_one_is_marked() {
        assert_eq!(
            table(&object("True")).rows,
            [
                ["4", "2026-11-23T09:00:00Z", "generate", "newest"],
                ["3", "2026-11-23T08:30:00Z", "value", ""],
                ["2", "2026-11-23T08:00:00Z", "valueFrom", "delivered"],
            ]
        );
    }

    /// A spec that is not followed yet names another source, perhaps.
    #[test]
    fn the_source_of_the_newest_is_unknown_while_the_spec_is_not_followed() {
        let failing = object("False");
        let mut edited = object("True");
        edited.metadata.generation = Some(8);
        for object in [failing, edited] {
            assert_eq!(table(&object).rows[0], ["4", "2026-11-23T09:00:00Z", "unknown", "newest"]);
        }
    }
}
