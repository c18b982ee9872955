//! Ways of writing, and what is written.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::installed::{Installed, Outcome};
use crate::integration::admission::Scratch;

/// What becomes of the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Unchanged,
    /// The same, for the second time.
    Again,
    Changed,
    AnotherSource,
    /// The same, after a write of the value unchanged.
    AnotherSourceThen,
    Sealed,
}

/// Every one.
pub(super) const CHANGES: [Change; 6] = [
    Change::Unchanged,
    Change::Again,
    Change::Changed,
    Change::AnotherSource,
    Change::AnotherSourceThen,
    Change::Sealed,
];

impl Change {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Again => "again",
            Self::Changed => "changed",
            Self::AnotherSource => "another source",
            Self::AnotherSourceThen => "another source, then",
            Self::Sealed => "sealed",
        }
    }

    /// Whether a write of the value unchanged goes before.
    pub(super) const fn is_second(self) -> bool {
        matches!(self, Self::Again | Self::AnotherSourceThen)
    }

    /// The source of the value in `spec`.
    pub(super) fn source(self, old: &str, new: &str, sealed: &str) -> Value {
        match self {
            Self::Unchanged | Self::Again => json!({ "value": old }),
            Self::Changed => json!({ "value": new }),
            Self::AnotherSource | Self::AnotherSourceThen => json!({"generate": {}}),
            Self::Sealed => json!({ "value": sealed }),
        }
    }
}

/// One way of writing.
pub(super) struct Way {
    /// As users know it.
    pub(super) title: &'static str,
    /// What kubectl made the object with.
    pub(super) made: &'static [&'static str],
    /// What is done then.
    pub(super) act: Act,
}

/// What is done to an object.
pub(super) enum Act {
    /// kubectl with these arguments and the manifest.
    Write(&'static [&'static str]),
    /// The same, and nothing is stored; the answer is looked at.
    DryRun(&'static [&'static str]),
    /// `kubectl diff` with these arguments.
    Diff(&'static [&'static str]),
    /// `kubectl edit`: the sealed text in the editor is replaced.
    Edit,
    /// `kubectl patch --type=merge`.
    MergePatch,
    /// `kubectl patch --type=json`.
    JsonPatch,
}

const CREATE: &[&str] = &["create", "-f", "-"];
const APPLY: &[&str] = &["apply", "-f", "-"];
const SERVER_SIDE: &[&str] = &["apply", "--server-side", "-f", "-"];
const SECOND: &[&str] = &["apply", "--server-side", "--field-manager=second", "--force-conflicts", "-f", "-"];

/// Every one.
pub(super) const WAYS: &[Way] = &[
    Way { title: "client-side apply", made: APPLY, act: Act::Write(APPLY) },
    Way { title: "server-side apply", made: SERVER_SIDE, act: Act::Write(SERVER_SIDE) },
    Way { title: "client-side, then server-side apply", made: APPLY, act: Act::Write(SERVER_SIDE) },
    Way { title: "`kubectl apply --force-conflicts`, second manager", made: SERVER_SIDE, act: Act::Write(SECOND) },
    Way { title: "`kubectl replace`", made: CREATE, act: Act::Write(&["replace", "-f", "-"]) },
    Way { title: "create, then apply", made: CREATE, act: Act::Write(APPLY) },
    Way { title: "`kubectl edit`", made: CREATE, act: Act::Edit },
    Way { title: "`kubectl patch --type=merge`", made: CREATE, act: Act::MergePatch },
    Way { title: "`kubectl patch --type=json`", made: CREATE, act: Act::JsonPatch },
    Way { title: "`kubectl diff`", made: APPLY, act: Act::Diff(&["diff", "-f", "-"]) },
    Way {
        title: "`kubectl diff --server-side`",
        made: SERVER_SIDE,
        act: Act::Diff(&["diff", "--server-side", "-f", "-"]),
    },
    Way {
        title: "`kubectl apply --dry-run=server`",
        made: APPLY,
        act: Act::DryRun(&["apply", "--dry-run=server", "-o=json", "-f", "-"]),
    },
    Way {
        title: "`kubectl apply --server-side --dry-run=server`",
        made: SERVER_SIDE,
        act: Act::DryRun(&["apply", "--server-side", "--dry-run=server", "-o=json", "-f", "-"]),
    },
];

impl Way {
    /// Whether anything is stored.
    pub(super) const fn writes(&self) -> bool {
        !matches!(self.act, Act::Diff(_) | Act::DryRun(_))
    }

    /// `kubectl diff` as it goes with this way; `None` where there is no manifest to compare.
    pub(super) fn diff(&self) -> Option<Vec<&'static str>> {
        match self.act {
            Act::Write(arguments) | Act::DryRun(arguments) if arguments[0] == "apply" => {
                let rest = arguments[1..].iter().filter(|it| !["--dry-run=server", "-o=json"].contains(it)).copied();
                Some(std::iter::once("diff").chain(rest).collect())
            }
            _ => None,
        }
    }
}

impl Act {
    /// Does it with the object `name`, whose value is to come from `source` instead of `sealed`.
    pub(super) async fn run(&self, installed: &mut Installed, name: &str, source: &Value, sealed: &str) -> Outcome {
        let manifest = || super::manifest(name, source).to_string();
        let patch = async |installed: &mut Installed, type_: &str, patch: Value| {
            installed.tried(&[], &["patch", "msec", name, type_, "-p", &patch.to_string()], "").await.0
        };
        match self {
            Self::Write(arguments) | Self::Diff(arguments) => installed.tried(&[], arguments, &manifest()).await.0,
            Self::DryRun(arguments) => {
                let (outcome, printed) = installed.tried(&[], arguments, &manifest()).await;
                let answer: Value = serde_json::from_str(&printed).unwrap();
                match (&answer["spec"]["value"], &source["value"]) {
                    (Value::String(text), Value::String(wanted)) if wanted != sealed => {
                        assert_eq!(installed.open(text, name), *wanted, "{name}");
                    }
                    (answered, wanted) => assert_eq!(answered, wanted, "{name}"),
                }
                outcome
            }
            Self::Edit => {
                // As the editor is shown it.
                let shown = installed.ok(&["get", "msec", name, "-o=json"], "").await;
                let (before, after) = (json!({ "value": sealed }).to_string(), source.to_string());
                let field = |object: &str| object[1..object.len() - 1].replacen(':', ": ", 1);
                assert!(shown.contains(&field(&before)), "{name}");
                let edited = Scratch::new("edited.json", &shown.replacen(&field(&before), &field(&after), 1));
                let script = format!("#!/bin/sh\ncp '{}' \"$1\"\n", edited.path.display());
                let script = Scratch::new("editor.sh", &script);
                let editor = format!("sh {}", script.path.display());
                installed.tried(&[("KUBE_EDITOR", &editor)], &["edit", "msec", name, "-o=json"], "").await.0
            }
            Self::MergePatch => {
                let mut spec = source.clone();
                if spec.get("value").is_none() {
                    spec["value"] = Value::Null;
                }
                patch(installed, "--type=merge", json!({ "spec": spec })).await
            }
            Self::JsonPatch => {
                let operations = match source.get("value") {
                    Some(value) => json!([{"op": "replace", "path": "/spec/value", "value": value}]),
                    None => json!([
                        {"op": "remove", "path": "/spec/value"},
                        {"op": "add", "path": "/spec/generate", "value": {}},
                    ]),
                };
                patch(installed, "--type=json", operations).await
            }
        }
    }
}
