//! The files of the tree that the code writes: the CRD, the manifests and the reference documentation.

use managed_secrets::install::{crd_text, manifests};
use managed_secrets_cli::CliError;

use crate::{commands, metrics, reference};

/// Every generated file: its path in the project and its content.
///
/// Fails only if a document cannot be written as YAML.
pub(crate) fn generated() -> Result<Vec<(&'static str, String)>, CliError> {
    let mut files = vec![
        ("crds/managedsecrets.yaml", crd_text()?),
        ("docs/api.md", reference::fields()),
        ("docs/commands.md", commands::commands()),
        ("docs/metrics.md", metrics::metrics()),
        ("docs/reasons.md", reference::reasons()),
    ];
    files.extend(manifests::generated()?);
    Ok(files)
}
