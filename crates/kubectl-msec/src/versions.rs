//! `kubectl msec versions`: the versions of a value that the record has. It reads the object only, and no value.

use clap::Args;
use managed_secrets_api::types::{EarlierVersion, SourceKind};
use managed_secrets_api::{ManagedSecret, ManagedSecretStatus};
use managed_secrets_cli::{CliError, say};

use super::completion;
use super::lookup;
use super::session::{ClusterArgs, Session};
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
    let row = |kept: &EarlierVersion| {
        let is = |version: Option<i64>, word: &'static str| (version == Some(kept.version)).then_some(word);
        let state: Vec<_> = [is(status.version, "newest"), is(delivered, "delivered")].into_iter().flatten().collect();
        let source = match kept.source {
            SourceKind::Value => "value",
            SourceKind::ValueFrom => "valueFrom",
            SourceKind::Generate => "generate",
        };
        vec![kept.version.to_string(), kept.created.clone(), source.to_owned(), state.join(", ")]
    };
    let columns = ["VERSION", "CREATED", "SOURCE", "STATE"].map(str::to_owned).to_vec();
    let earlier = status.history.iter().flatten();
    let rows = newest(object, &status).iter().chain(earlier).map(row).collect();
    Table { columns, rows }
}

/// The newest version, as the earlier ones are listed.
fn newest(object: &ManagedSecret, status: &ManagedSecretStatus) -> Option<EarlierVersion> {
    let spec = &object.spec;
    let source = if spec.generate.is_some() {
        SourceKind::Generate
    } else if spec.value_from.is_some() {
        SourceKind::ValueFrom
    } else {
        SourceKind::Value
    };
    Some(EarlierVersion { version: status.version?, created: status.value_updated_time.clone()?, source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_comes_first_and_the_delivered_one_is_marked() {
        let object: ManagedSecret = serde_json::from_value(json!({
            "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "spec": {"name": "DB", "generate": {}},
            "metadata": {"name": "db"}, "status": {
                "version": 4, "valueUpdatedTime": "2026-11-23T09:00:00Z", "delivered": 2, "history": [
                    {"version": 3, "created": "2026-11-23T08:30:00Z", "source": "value"},
                    {"version": 2, "created": "2026-11-23T08:00:00Z", "source": "valueFrom"},
                ],
            },
        }))
        .unwrap();
        assert_eq!(
            table(&object).rows,
            [
                ["4", "2026-11-23T09:00:00Z", "generate", "newest"],
                ["3", "2026-11-23T08:30:00Z", "value", ""],
                ["2", "2026-11-23T08:00:00Z", "valueFrom", "delivered"],
            ]
        );
    }
}
