//! The files of the tree that the code writes: the CRD and the reference documentation.

use std::fmt::Write;

use crate::api::{Reason, crd};

/// Every generated file: its path in the project and its content.
///
/// Fails only if a document cannot be written as YAML.
pub fn generated() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    Ok(vec![("crds/managedsecrets.yaml", crd::to_yaml()?), ("docs/reasons.md", reasons())])
}

/// `docs/reasons.md`.
fn reasons() -> String {
    let mut page = String::from(
        "# Reasons\n\nWhat the `Ready` condition of a ManagedSecret, and the events about it, give as reason.\n\n\
         | reason | what it means, and what to do |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} |", reason.description());
    }
    page
}
