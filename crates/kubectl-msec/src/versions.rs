//! `kubectl msec versions`: the versions of a value that the record has. It reads the object only, and no value.

use std::fmt;

use clap::Args;
use managed_secrets_api::types::{Delivery, SourceKind};
use managed_secrets_api::{ManagedSecret, ManagedSecretStatus};
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
    let readers = Readers::of(object);
    let row = |version: i64, created: &str, source: &str| {
        let newest = (status.version == Some(version)).then_some("newest");
        let state: Vec<_> = newest.into_iter().chain(readers.word(version)).collect();
        vec![version.to_string(), created.to_owned(), source.to_owned(), state.join(", ")]
    };
    let columns = ["VERSION", "CREATED", "SOURCE", "STATE"].map(str::to_owned).to_vec();
    let newest = status.version.zip(status.value_updated_time.as_deref());
    let newest = newest.map(|(version, created)| row(version, created, source_of_newest(object)));
    let earlier = status.history.iter().flatten();
    let earlier = earlier.map(|kept| row(kept.version, &kept.created, kept.source.as_str()));
    Table { rows: newest.into_iter().chain(earlier).collect(), columns }
}

/// Which version readers get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Readers {
    /// The Secret holds this one.
    Delivered(i64),
    /// `spec.delivery` is `None`, and this is the one that would be delivered.
    Current(i64),
    /// No Secret holds one yet.
    Nothing,
}

impl Readers {
    /// What the status of an object says.
    pub(super) fn of(object: &ManagedSecret) -> Self {
        let status = object.status.as_ref();
        let holds = status.is_some_and(|status| status.target.is_some());
        match status.and_then(ManagedSecretStatus::delivered) {
            Some(version) if holds => Self::Delivered(version),
            Some(version) if object.spec.delivery() == Delivery::None => Self::Current(version),
            _ => Self::Nothing,
        }
    }

    /// The word for this version, if it is the one.
    fn word(self, version: i64) -> Option<&'static str> {
        match self {
            Self::Delivered(delivered) if delivered == version => Some("delivered"),
            Self::Current(current) if current == version => Some("current"),
            _ => None,
        }
    }
}

impl fmt::Display for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(version) => write!(f, "version {version} is delivered"),
            Self::Current(version) => write!(f, "version {version} is current (spec.delivery: None)"),
            Self::Nothing => f.write_str("no version is delivered"),
        }
    }
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
                "version": 4, "valueUpdatedTime": "2026-11-23T09:00:00Z", "delivered": 2,
                "target": {"name": "db", "key": "value", "uid": "u", "resourceVersion": "7"}, "history": [
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

    /// A status names no version as delivered before the first delivery, or where a Secret of another program is in the way.
    #[test]
    fn a_version_that_no_secret_holds_is_not_called_delivered() {
        let with = |change: fn(&mut ManagedSecret)| {
            let mut object = object("False");
            let status = object.status.as_mut().unwrap();
            (status.target, status.delivered) = (None, None);
            change(&mut object);
            (table(&object).rows[0][3].clone(), Readers::of(&object).to_string())
        };
        assert_eq!(with(|_| {}), ("newest".to_owned(), "no version is delivered".to_owned()));
        let none = |object: &mut ManagedSecret| object.spec.delivery = Some(Delivery::None);
        let current = "version 4 is current (spec.delivery: None)".to_owned();
        assert_eq!(with(none), ("newest, current".to_owned(), current));
        let recorded = |object: &mut ManagedSecret| object.status.as_mut().unwrap().version = None;
        assert_eq!(with(recorded).1, "no version is delivered");
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
