//! `kubectl msec`, called as a user calls it: by the real kubectl, which finds the plugin in its `PATH`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(dead_code, reason = "each test uses a part")]

mod backup;
mod can_read;
mod changes;
mod completion;
mod connection;
mod describe;
mod doctor;
mod forged;
mod gitops;
mod golden;
mod keys;
mod list;
mod manifests;
mod missing_resource;
mod terminal;
mod value_api;
mod visible;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, api::PostParams};
use serde_json::json;
use tempfile::TempDir;
use testkit::{ControlPlane, poll};

use super::{
    installation::control_plane,
    objects::Site,
    operator::PATIENCE,
    program::{Ran, clean, finish},
};

/// A folder with the plugin and its completion under the names that kubectl looks for, and for a test's own files.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).unwrap();
        for name in ["kubectl-msec", "kubectl_complete-msec"] {
            symlink(testkit::plugin(), programs.join(name)).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file of the test's, made or overwritten; its path as text.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }
}

/// A user of the plugin in one namespace.
pub(crate) struct Plugin {
    pub(crate) folder: Folder,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    /// Whom to impersonate: an administrator where nobody is named.
    user: Option<String>,
    /// Environment variables besides.
    pub(crate) env: Vec<(String, String)>,
}

impl Plugin {
    /// The administrator, in the site's namespace on the installation's control plane.
    pub(crate) async fn new(site: &Site) -> Self {
        Self::on(control_plane().await, site)
    }

    /// The administrator, in the site's namespace on another control plane.
    pub(crate) fn on(control_plane: &ControlPlane, site: &Site) -> Self {
        let access = control_plane.access();
        Self {
            folder: Folder::new(),
            kubectl: access.kubectl_path().to_owned(),
            kubeconfig: access.kubeconfig_path().to_owned(),
            namespace: site.namespace.clone(),
            user: None,
            env: Vec::new(),
        }
    }

    /// The same place as another user.
    pub(crate) fn impersonating(&self, user: &str) -> Self {
        Self {
            folder: Folder::new(),
            kubectl: self.kubectl.clone(),
            kubeconfig: self.kubeconfig.clone(),
            namespace: self.namespace.clone(),
            user: Some(user.to_owned()),
            env: self.env.clone(),
        }
    }

    /// `kubectl msec ARGUMENTS -n NAMESPACE`.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, b"").await
    }

    /// The same, with a standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let user = self.user.as_deref().map_or_else(Vec::new, |user| vec!["--as", user]);
        let place = ["-n", &self.namespace];
        self.kubectl(&[&["msec"], arguments, &place, &user].concat(), input).await
    }

    /// The real kubectl, which finds the plugin, and knows which cluster is meant.
    pub(crate) async fn kubectl(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments);
        clean(&mut command);
        command.env("PATH", self.path()).env("KUBECONFIG", &self.kubeconfig).env("KUBERC", "off");
        command.envs(self.env.iter().map(|(name, value)| (name, value))).current_dir(self.folder.path());
        finish(command, input).await
    }

    fn path(&self) -> String {
        let kubectl = self.kubectl.parent().unwrap_or(Path::new("/"));
        let others = env::var("PATH").unwrap_or_default();
        format!("{}:{}:{others}", self.folder.path().join("bin").display(), kubectl.display())
    }
}

/// A new user with these rules in every namespace, each `(verbs, group, resource)`.
pub(crate) async fn user_with(site: &Site, granted: &[(&[&str], &str, &str)]) -> String {
    let user = format!("user-{}", uuid::Uuid::new_v4().simple());
    let rules: Vec<_> = granted
        .iter()
        .map(|(verbs, group, resource)| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs}))
        .collect();
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": user}, "rules": rules})).unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))
    .unwrap();
    Api::all(site.client.clone()).create(&PostParams::default(), &role).await.unwrap();
    Api::all(site.client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    // The API server takes up roles in the background, and asks all that it knows: one review tells of the whole role.
    let Some((verbs, group, resource)) = granted.last() else { return user };
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {"user": user, "resourceAttributes": {
        "namespace": site.namespace, "verb": verbs.last(), "group": group, "resource": resource,
        "subresource": subresource,
    }}}))
    .unwrap();
    let reviews = Api::<SubjectAccessReview>::all(site.client.clone());
    poll("the rights to be in force", PATIENCE, || async {
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed).then_some(()))
    })
    .await
    .unwrap();
    user
}
