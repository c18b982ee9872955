//! `backup` and `restore`: from one cluster into another, with the operator there before or after, twice, interrupted, and
//! where something stands in the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod estate;
mod obstacles;
mod recovered;
mod tampered;
mod velero;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use managed_secrets_api::keys;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use testkit::ControlPlane;
use tokio::sync::OnceCell;

use super::Plugin;
use crate::integration::{
    installation::{OPERATOR_NAMESPACE, RESTORER, install, options},
    objects::Site,
    operator::{Running, Setup},
    program::Ran,
};

/// Another cluster, where an operator has made keys of its own. Every test restores into a namespace of its own there.
async fn other_cluster() -> &'static ControlPlane {
    static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    let start = || async {
        let plane = install(&options(), &[]).await.unwrap();
        let site = Site::on(&plane, "first").await;
        let operator = serve(&plane, &site).await;
        site.apply("first", serde_json::json!({"name": "FIRST", "generate": {}})).await;
        site.served("first").await;
        operator.stop().await;
        report_replicas(&plane, 2).await;
        plane
    };
    CONTROL_PLANE.get_or_init(start).await
}

/// An operator on another control plane.
async fn serve(plane: &ControlPlane, site: &Site) -> Running {
    let kubeconfig = plane.access().kubeconfig_for(OPERATOR_NAMESPACE, keys::OPERATOR_NAME).await.unwrap();
    Setup::of(&site.namespace).start_with(testkit::access::config_of(&kubeconfig).await.unwrap())
}

/// What the Deployment of a cluster with nodes would report of an operator that runs here.
async fn report_replicas(plane: &ControlPlane, available: i32) {
    let deployments = Api::<Deployment>::namespaced(plane.access().admin_client().await.unwrap(), OPERATOR_NAMESPACE);
    let status = serde_json::json!({"status": {
        "replicas": 2, "readyReplicas": available, "availableReplicas": available, "unavailableReplicas": 2 - available,
    }});
    deployments.patch_status(keys::OPERATOR_NAME, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// The site's namespace in another cluster: not made yet.
async fn elsewhere(plane: &ControlPlane, site: &Site) -> Site {
    Site { namespace: site.namespace.clone(), client: plane.access().admin_client().await.unwrap() }
}

impl Plugin {
    /// `restore`, as the restorer with an administrator's rights.
    async fn restore(&self, arguments: &[&str]) -> Ran {
        let who = ["--as", RESTORER, "--as-group", "system:masters"];
        self.run(&[&["restore"], arguments, &who].concat()).await
    }

    /// The same of a backup in a folder, whose keyring is confirmed.
    async fn restore_trusted(&self, backup: &str, arguments: &[&str]) -> Ran {
        let who = ["--as", RESTORER, "--as-group", "system:masters"];
        self.restore_trusted_as(backup, &[arguments, &who].concat()).await
    }

    /// The same as the user of the plugin, or as these arguments say.
    async fn restore_trusted_as(&self, backup: &str, arguments: &[&str]) -> Ran {
        let keyring = std::fs::read_to_string(format!("{backup}/keyring.yaml")).unwrap();
        let content = documents(&keyring)[0]["data"][keys::KEYRING_DATA_KEY].as_str().unwrap().to_owned();
        let fingerprint = hex::encode(Sha256::digest(BASE64_STANDARD.decode(content).unwrap()));
        self.run(&[&["restore", backup, "--yes", "--accept-keyring", &fingerprint], arguments].concat()).await
    }

    /// A backup of the namespace, with the keyring and the KEK where asked; what the file holds.
    async fn backup_into(&self, file: &str, arguments: &[&str]) -> String {
        let path = self.folder.path().join(file);
        self.run(&[&["backup", "--out", path.to_str().unwrap()], arguments].concat()).await.ok();
        if path.is_dir() { String::new() } else { self.folder.read(file) }
    }

    fn file_path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_owned()
    }
}

/// The documents of a stream.
fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}
