//! The files of the tree that the code writes: the CRD and the reference documentation.

mod reference;

use crate::api::crd;

/// Every generated file: its path in the project and its content.
///
/// Fails only if a document cannot be written as YAML.
pub fn generated() -> Result<Vec<(&'static str, String)>, serde_saphyr::ser::Error> {
    Ok(vec![
        ("crds/managedsecrets.yaml", crd::to_yaml()?),
        ("docs/api.md", reference::fields()),
        ("docs/reasons.md", reference::reasons()),
    ])
}
