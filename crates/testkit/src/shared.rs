//! One control plane for all tests that only need objects of their own: each works in a namespace of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::OnceCell;

use super::access::Access;
use super::control_plane::{ControlPlane, Options};
use super::error::{Context, Error, Result};
use super::program::root;

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
static EMBEDDED: OnceCell<ControlPlane> = OnceCell::const_new();

/// The shared control plane, with the CRDs installed; started by the first test that asks. It ends with the process.
///
/// Namespaces keep tests apart, so a test must not stop its programs, nor change what all see (CRDs, policies, roles).
pub async fn control_plane() -> Result<&'static ControlPlane> {
    SHARED
        .get_or_try_init(|| async { ControlPlane::start(&Options { manifests: crds()?, ..Options::default() }).await })
        .await
}

/// The shared control plane if it is ours, else a second one that is: for tests that look into the audit log or etcd.
pub async fn embedded() -> Result<&'static ControlPlane> {
    if !ControlPlane::is_given_one() {
        return control_plane().await;
    }
    EMBEDDED
        .get_or_try_init(|| async {
            ControlPlane::start_own(&Options { manifests: crds()?, ..Options::default() }).await
        })
        .await
}

/// The CRDs of the product, and the one that the tests of the API server's rules use.
pub fn crds() -> Result<Vec<PathBuf>> {
    let root = root();
    let mut manifests = vec![root.join("tests/integration/facts/gadget.yaml")];
    let product = root.join("crds");
    if product.is_dir() {
        for entry in fs::read_dir(&product).context("read", &product)? {
            let path = entry.context("read", &product)?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                manifests.push(path);
            }
        }
    }
    Ok(manifests)
}

/// A namespace of one test. On a cluster that was given to us, it is deleted in the end.
#[derive(Debug)]
pub struct TestNamespace {
    /// Its name.
    pub name: String,
    access: Access,
    given: bool,
}

impl TestNamespace {
    /// Makes a namespace called `PURPOSE-…`.
    pub async fn create(control_plane: &ControlPlane, purpose: &str) -> Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{purpose}-{}", &unique[..8]);
        let object: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))
            .map_err(|error| Error::Format { what: "a namespace".to_owned(), why: error.to_string() })?;
        let access = control_plane.access().clone();
        Api::all(access.admin_client().await?).create(&PostParams::default(), &object).await?;
        Ok(Self { name, access, given: control_plane.is_given() })
    }

    /// A namespace of the shared control plane, and an administrator's client.
    pub async fn shared(purpose: &str) -> Result<(Self, Client)> {
        let control_plane = control_plane().await?;
        let namespace = Self::create(control_plane, purpose).await?;
        Ok((namespace, control_plane.access().admin_client().await?))
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if self.given {
            let _ = Command::new(self.access.kubectl_path())
                .arg("--kubeconfig")
                .arg(self.access.kubeconfig_path())
                .args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"])
                .stdout(Stdio::null())
                .status();
        }
    }
}
