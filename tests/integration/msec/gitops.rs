//! GitOps tools: kubectl, kustomize, Helm 3 and 4, Argo CD and Flux apply sealed text, each as it does in production,
//! and twice. What comes of it is in the tables of `docs/gitops.md`, which `UPDATE=1` rewrites; any other run compares.
//!
//! The tools are the real ones. Helm is built from its module; of Argo CD and Flux, whose controllers do not run here,
//! `tests/gitops/appliers` calls the libraries with which those apply, compare, wait and judge health.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod health;
mod helm;
mod kustomize;
mod page;
mod plain;
mod prune;
mod recreate;
mod table;
mod waves;
mod ways;

use std::process::Command;

use managed_secrets_api::keys;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{binaries, control_plane::blocking};

use super::Plugin;
use crate::integration::{
    objects::Site,
    program::{Ran, clean, finish},
};

/// What Argo CD runs to see how a ManagedSecret is.
const HEALTH_CHECK: &str = include_str!("../../../deploy/argocd/health.lua");

/// Whose objects they are: the release, the Application, the Kustomization.
const OWNER: &str = "shop";

/// What Git holds of one ManagedSecret.
#[derive(Clone, Debug)]
struct Entry {
    /// `metadata.name`; `spec.name` is the same in capitals.
    name: &'static str,
    description: String,
    sealed: String,
}

impl Entry {
    /// A value, sealed for this object.
    async fn of(site: &Site, name: &'static str, value: &str) -> Self {
        Self { name, description: "as in Git".to_owned(), sealed: site.seal(name, value).await }
    }

    fn manifest(&self) -> Value {
        json!({
            "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
            "metadata": {"name": self.name, "labels": {"app": OWNER}},
            "spec": {
                "name": self.name.to_uppercase(), "description": self.description, "value": self.sealed,
            },
        })
    }

    /// All of Git, as one file.
    fn list(entries: &[Self]) -> String {
        let items: Vec<_> = entries.iter().map(Self::manifest).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }

    /// All of Git, as the chart's values.
    fn values(entries: &[Self]) -> String {
        let secrets: serde_json::Map<_, _> = entries
            .iter()
            .map(|entry| {
                let value = json!({
                    "name": entry.name.to_uppercase(), "description": entry.description, "sealed": entry.sealed,
                });
                (entry.name.to_owned(), value)
            })
            .collect();
        json!({ "secrets": secrets }).to_string()
    }
}

/// One namespace with the tools in reach.
struct Bench {
    site: Site,
    plugin: Plugin,
}

impl Bench {
    async fn new(purpose: &str) -> Self {
        let site = Site::new(purpose).await;
        let mut plugin = Plugin::new(&site).await;
        // `--applyset` is behind a gate.
        plugin.env.push(("KUBECTL_APPLYSET".to_owned(), "true".to_owned()));
        Self { site, plugin }
    }

    /// `kubectl -n NAMESPACE ARGUMENTS`.
    async fn kubectl(&self, arguments: &[&str], input: &str) -> Ran {
        self.plugin.kubectl(&[&["-n", &self.site.namespace], arguments].concat(), input.as_bytes()).await
    }

    /// Helm of a major version, in this namespace.
    async fn helm(&self, major: u8, arguments: &[&str]) -> Ran {
        let helm = blocking(move || binaries::helm(major)).await.unwrap();
        let mut command = Command::new(helm);
        command.args(arguments).args(["-n", &self.site.namespace]);
        clean(&mut command);
        command.env("KUBECONFIG", &self.plugin.kubeconfig).current_dir(self.plugin.folder.path());
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, self.plugin.folder.path().join("helm"));
        }
        finish(command, b"").await
    }

    /// The folder of the chart.
    fn chart() -> &'static str {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gitops/chart")
    }

    /// What Argo CD or Flux does: a job for `tests/gitops/appliers`.
    async fn ask(&self, command: &str, job: Value) -> Value {
        let mut whole = json!({
            "kubeconfig": self.plugin.kubeconfig, "namespace": self.site.namespace, "owner": OWNER,
            "lua": HEALTH_CHECK,
        });
        whole.as_object_mut().unwrap().extend(job.as_object().unwrap().clone());
        ask(command, &whole).await
    }
}

/// Gives our Go program a job; its findings.
async fn ask<T: DeserializeOwned>(command: &str, job: &Value) -> T {
    let program = blocking(binaries::appliers).await.unwrap();
    let mut run = Command::new(program);
    run.arg(command);
    clean(&mut run);
    let ran = finish(run, job.to_string().as_bytes()).await;
    assert_eq!(ran.code, 0, "{command}: {}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}
