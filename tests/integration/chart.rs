//! The Helm chart: what it renders, what it refuses, and a release from its installation to its end. Helm 3 and 4 do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cluster;
mod refused;
mod release;
mod rendered;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use testkit::{binaries, control_plane::blocking, root};

use super::program::{Ran, clean, finish};

/// Where the chart is, from the project's root.
const CHART: &str = "deploy/charts/managed-secrets";
/// The supported versions of Helm.
const MAJORS: [u8; 2] = [3, 4];
/// The name of the release.
const RELEASE: &str = "secrets";
/// The namespace of the release. A test that finds this name elsewhere has found the default namespace.
const NAMESPACE: &str = "vault";

/// Helm of a major version, with a home of its own.
struct Helm {
    major: u8,
    home: TempDir,
    chart: PathBuf,
    namespace: &'static str,
}

impl Helm {
    fn new(major: u8) -> Self {
        Self { major, home: tempfile::tempdir().unwrap(), chart: root().join(CHART), namespace: NAMESPACE }
    }

    /// Runs `helm COMMAND ARGUMENTS -n NAMESPACE`, with these values if the command takes the chart.
    async fn run(&self, kubeconfig: Option<&Path>, arguments: &[&str], values: Option<&Value>) -> Ran {
        let major = self.major;
        let helm = blocking(move || binaries::helm(major)).await.unwrap();
        let mut command = Command::new(helm);
        command.args(arguments).args(["-n", self.namespace]);
        if let Some(values) = values {
            let file = tempfile::NamedTempFile::new_in(self.home.path()).unwrap().into_temp_path().keep().unwrap();
            std::fs::write(&file, values.to_string()).unwrap();
            command.arg(&self.chart).arg("-f").arg(file);
        }
        clean(&mut command);
        command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nonexistent/kubeconfig")));
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, self.home.path());
        }
        finish(command, b"").await
    }

    /// What the chart renders, without the objects of `helm test`.
    async fn template(&self, values: &Value) -> Ran {
        self.run(None, &["template", RELEASE, "--skip-tests", "--kube-version", "1.36.0"], Some(values)).await
    }
}
