//! The files of the tree that the code writes: the CRD, the manifests and the reference documentation.

use managed_secrets::install::{crd_text, monitoring};
use managed_secrets_cli::CliError;

use crate::{chart, commands, deploy, metrics, reference};

/// Every generated file: its path in the project and its content.
///
/// Fails only if a document cannot be written as YAML.
pub(crate) fn generated() -> Result<Vec<(String, String)>, CliError> {
    let files = [
        ("crds/managedsecrets.yaml", crd_text()?),
        ("docs/api.md", reference::fields()),
        ("docs/commands.md", commands::commands()),
        ("docs/metrics.md", metrics::metrics()),
        ("docs/reasons.md", reference::reasons()),
    ];
    let rules = monitoring::generated()?;
    let mut files: Vec<_> = files.into_iter().chain(rules).map(|(path, content)| (path.to_owned(), content)).collect();
    files.extend(deploy::generated()?);
    files.extend(chart::generated()?);
    Ok(files)
}
