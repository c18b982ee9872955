//! Where the control plane's programs come from: `KUBEBUILDER_ASSETS`, else the cache, else Go.
//!
//! `hack/tools.sh` finds them in a cache outside the tree and builds what is missing. It is a script so that `make` can
//! start it while cargo still compiles these tests.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{Context, Error, Result};
use super::program::root;

/// The programs of one control plane.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
    /// kubectl of the same version.
    pub kubectl: PathBuf,
}

/// The Kubernetes version asked for by `K8S`, as its folder below `tests/controlplane` is called: `1.36` when it is unset.
pub fn kubernetes_minor() -> Result<&'static str> {
    let value = env::var("K8S").unwrap_or_default();
    match value.as_str() {
        "" | "1.36" => Ok("1.36"),
        "1.34" => Ok("1.34"),
        "1.37" => Ok("1.37"),
        _ => Err(Error::Setting { variable: "K8S", value, expected: "1.34, 1.36 or 1.37" }),
    }
}

/// Finds the programs, and builds what is missing: minutes, once per version. Blocks.
pub fn find_or_build() -> Result<Binaries> {
    if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").filter(|assets| !assets.is_empty()) {
        let program = |name: &str| {
            let path = Path::new(&assets).join(name);
            if path.is_file() { Ok(path) } else { Err(Error::AssetMissing(path)) }
        };
        return Ok(Binaries {
            etcd: program("etcd")?,
            apiserver: program("kube-apiserver")?,
            controller_manager: program("kube-controller-manager")?,
            kubectl: program("kubectl")?,
        });
    }
    kubernetes_minor()?;
    Ok(Binaries {
        etcd: tool("etcd")?,
        apiserver: tool("kube-apiserver")?,
        controller_manager: tool("kube-controller-manager")?,
        kubectl: tool("kubectl")?,
    })
}

/// A folder with a program called `jq`, for the commands of the documents: gojq, built like the rest. Blocks.
pub fn jq_folder() -> Result<PathBuf> {
    tool("jq").map(|program| program.parent().map(Path::to_owned).unwrap_or_default())
}

/// Helm of a major version, 3 or 4, built like the rest. Blocks.
pub fn helm(major: u8) -> Result<PathBuf> {
    tool(if major == 3 { "helm-3" } else { "helm-4" })
}

/// Our program that applies as Argo CD and Flux do, with their libraries; built again when its source changes. Blocks.
pub fn appliers() -> Result<PathBuf> {
    tool("appliers")
}

/// Our program that checks and evaluates alert rules with Prometheus' libraries; built again when its source changes. Blocks.
pub fn evaluator() -> Result<PathBuf> {
    tool("evaluator")
}

/// A KMS v2 plugin: Kubernetes' own server, with a file of keys; built again when its source changes. Blocks.
pub fn kms_plugin() -> Result<PathBuf> {
    tool("kms-plugin")
}

/// The path of a program that `hack/tools.sh` knows. Blocks while it is built.
fn tool(name: &str) -> Result<PathBuf> {
    let script = root().join("hack/tools.sh");
    let mut process = Command::new("bash")
        .arg(&script)
        .args(["--while-stdin", name])
        // The pipe closes when this process ends, and the build ends with it. Progress goes to our standard error.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("start", &script)?;
    // Kept open here: waiting would close it first.
    let held = process.stdin.take();
    let output = process.wait_with_output().context("run", &script)?;
    drop(held);
    if !output.status.success() {
        return Err(Error::Tool { name: name.to_owned() });
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}
