//! The files of the tree that the code writes: the CRD, the manifests and the reference documentation.

use std::fmt::Write;

use super::{CliError, crd_text, manifests};
use crate::api::Reason;

/// Every generated file: its path in the project and its content.
///
/// Fails only if a document cannot be written as YAML.
pub fn generated() -> Result<Vec<(&'static str, String)>, CliError> {
    let mut files = vec![("crds/managedsecrets.yaml", crd_text()?), ("docs/reasons.md", reasons())];
    files.extend(manifests::generated()?);
    Ok(files)
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
