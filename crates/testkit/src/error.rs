//! What can go wrong before a test has begun: each message says what to do about it.

use std::path::{Path, PathBuf};

/// Result of the harness.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the harness, not of what is tested.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting in the environment makes no sense.
    #[error("{variable}={value}: must be {expected}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it may hold.
        expected: &'static str,
    },
    /// `KUBEBUILDER_ASSETS` is incomplete.
    #[error(
        "{} is missing, but KUBEBUILDER_ASSETS says that the control plane's programs are there; add it (envtest's \
         archives lack kube-controller-manager), or unset KUBEBUILDER_ASSETS to have all of them built with Go", .0.display()
    )]
    AssetMissing(PathBuf),
    /// `hack/tools.sh` could not find or build a program; it has said why.
    #[error(
        "cannot find or build {name}; the lines above say why. With a folder of your own that holds etcd, \
         kube-apiserver, kube-controller-manager and kubectl, set KUBEBUILDER_ASSETS"
    )]
    Tool {
        /// Which program.
        name: String,
    },
    /// A program ended while it was waited for.
    #[error("{name} ended while the control plane was starting; the end of its log:\n{log}")]
    Ended {
        /// Which program.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not happen in time.
    #[error("waited {seconds} s in vain for {what}")]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// A given cluster has no insides to look into.
    #[error("{0} needs a control plane of the tests' own; USE_EXISTING_CLUSTER=true gives them an existing one")]
    NotOurs(&'static str),
    /// The given cluster is in use.
    #[error("the given cluster has {0} already; this needs a cluster without it, and removes it in the end")]
    Occupied(String),
    /// The supervisor does not answer: it was killed.
    #[error("the supervisor of the control plane is gone")]
    SupervisorGone,
    /// Files and processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A key could not be made.
    #[error("could not make a service account key")]
    Key,
    /// Something that should be JSON or YAML isn't.
    #[error("{what} cannot be read: {why}")]
    Format {
        /// What was read.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// The cluster's address and credentials could not be read.
    #[error(transparent)]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server refused, or was not reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Adds to an input/output error what was tried with which path.
pub trait Context<T> {
    /// `what` is a verb: "create", "read".
    fn context(self, what: &str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: &str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { what: format!("{what} {}", path.display()), source })
    }
}
