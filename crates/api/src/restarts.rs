//! The marks by which a workload is restarted once for each version of a value.
//!
//! The mark of a ManagedSecret on the metadata of a workload says which version its pods have. It restarts nothing there, and no
//! rollout takes it back. The same mark on the pod template restarts the pods; it is there once the operator has done so. A mark
//! is an annotation: [`PREFIX`] with the object's name, and `ID/VERSION`. A pod template that has this text already, and whose
//! pods have another version, gets `ID/VERSION/again`. `ID/VERSION/pending` says that the workload is due for a restart whatever
//! version is delivered. It never depends on the value.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::limits::METADATA_KEY_NAME_MAX;
use super::types::{Delivery, ManagedSecretSpec, ManagedSecretStatus, Workload, WorkloadKind};

/// What the annotations begin with.
pub const PREFIX: &str = "restarts.managedsecrets.dev/";
/// API group of the workloads.
pub const GROUP: &str = "apps";
/// What follows the mark on a pod template that has the same mark already.
const AGAIN: &str = "/again";
/// What follows the mark of a workload that is due for a restart although it has this mark.
const PENDING: &str = "/pending";
/// Hexadecimal digits of the digest in a name that is too long.
const DIGITS: usize = 16;

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// The kind, as in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }

    /// The resource, as in a rule of RBAC.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

/// The key of the annotation of the ManagedSecret called `object` (`metadata.name`).
///
/// The part of a key behind its prefix has at most 63 characters. A longer name is cut, and a digest of it follows.
#[must_use]
pub fn key(object: &str) -> String {
    if object.len() <= METADATA_KEY_NAME_MAX {
        return format!("{PREFIX}{object}");
    }
    let cut: String = object.chars().take(METADATA_KEY_NAME_MAX - 1 - DIGITS).collect();
    let digest = Sha256::digest(object.as_bytes());
    let first = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
    format!("{PREFIX}{}-{first:0DIGITS$x}", cut.trim_end_matches(['-', '.']))
}

/// A version of a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The secret's id.
    pub id: String,
    /// The version.
    pub version: i64,
}

impl Mark {
    /// Reads an annotation; nothing if it is no mark.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (id, version) = text.strip_suffix(AGAIN).unwrap_or(text).rsplit_once('/')?;
        Some(Self { id: id.to_owned(), version: version.parse().ok()? })
    }

    /// The annotation of a pod template that has the text `present` there, or none. It is always another one: Kubernetes
    /// restarts pods only if their template changes, and `kubectl rollout undo` may have put back one with this very mark.
    #[must_use]
    pub fn restarting(&self, present: Option<&str>) -> String {
        let text = self.to_string();
        if present == Some(text.as_str()) { text + AGAIN } else { text }
    }

    /// The annotation of a workload that is due for a restart although it has this mark. [`Mark::read`] finds no version in it.
    #[must_use]
    pub fn pending(&self) -> String {
        format!("{self}{PENDING}")
    }

    /// What the target holds; nothing if it does not hold the version that it should, or the value is not delivered.
    #[must_use]
    pub fn delivered(spec: &ManagedSecretSpec, status: &ManagedSecretStatus) -> Option<Self> {
        let holds = status.target.as_ref().is_some_and(|target| !target.resource_version.is_empty());
        (holds && spec.delivery() == Delivery::Secret)
            .then(|| Some(Self { id: status.id.clone()?, version: status.delivered()? }))?
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.version)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_object_has_a_key_of_its_own_that_the_api_server_accepts() {
        let long = "a".repeat(62);
        let names = [
            "db".to_owned(),
            "a.b-c".to_owned(),
            "a".repeat(63),
            "a".repeat(64),
            format!("{long}-b"),
            format!("{long}.b"),
            format!("{}.{}", "a".repeat(45), "b".repeat(60)),
            format!("{}.{}", "a".repeat(45), "c".repeat(60)),
            "x".repeat(253),
        ];
        let keys: std::collections::BTreeSet<_> = names.iter().map(|name| key(name)).collect();
        assert_eq!(keys.len(), names.len(), "{keys:?}");
        for key in &keys {
            let name = key.strip_prefix(PREFIX).unwrap();
            let ends = [name.bytes().next(), name.bytes().last()];
            assert!(ends.iter().all(|end| end.unwrap().is_ascii_alphanumeric()), "{key}");
            assert!(name.len() <= METADATA_KEY_NAME_MAX, "{key}");
        }
        assert_eq!(key("db"), "restarts.managedsecrets.dev/db");
    }

    #[test]
    fn a_mark_reads_back() {
        let mark = Mark { id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".to_owned(), version: 7 };
        assert_eq!(Mark::read(&mark.to_string()), Some(mark));
        let mark = Mark { id: "x".to_owned(), version: 1 };
        for wrong in ["", "x", "x/", "x/y", "1", "x/again", "x/1/more", &mark.pending()] {
            assert_eq!(Mark::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_restart_changes_the_pod_template_whatever_is_there() {
        let mark = Mark { id: "2f0f6a0e-6f0e-4a3c-9d5b-0d3d6f6f3a11".to_owned(), version: 7 };
        let mut present: Option<String> = None;
        for _ in 0..3 {
            let text = mark.restarting(present.as_deref());
            assert_ne!(Some(&text), present.as_ref());
            assert_eq!(Mark::read(&text), Some(mark.clone()), "{text}");
            present = Some(text);
        }
    }
}
