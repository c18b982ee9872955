//! The ways in which Git comes to a cluster.

use serde_json::{Value, json};

use super::{Bench, Entry, OWNER};

/// Kinds that `kubectl apply --prune` may delete: with Secrets, so that it would take ours if they looked like its own.
pub(super) const ALLOWED: [&str; 2] =
    ["--prune-allowlist=managedsecrets.dev/v1alpha1/ManagedSecret", "--prune-allowlist=core/v1/Secret"];

/// One way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    Kubectl,
    KubectlServerSide,
    Kustomize,
    PruneAllowlist,
    PruneApplySet,
    Helm(u8),
    Argocd { server_side: bool },
    Flux,
}

/// All of them, in the order of the page.
pub(super) const WAYS: [Way; 10] = [
    Way::Kubectl,
    Way::KubectlServerSide,
    Way::Kustomize,
    Way::PruneAllowlist,
    Way::PruneApplySet,
    Way::Helm(3),
    Way::Helm(4),
    Way::Argocd { server_side: false },
    Way::Argocd { server_side: true },
    Way::Flux,
];

/// What came of it.
#[derive(Debug)]
pub(super) struct Applied {
    /// Whether the tool says that all is well.
    pub(super) well: bool,
    /// What it says besides, for a message.
    pub(super) said: String,
}

impl Way {
    pub(super) fn title(self) -> String {
        match self {
            Self::Kubectl => "`kubectl apply`".to_owned(),
            Self::KubectlServerSide => "`kubectl apply --server-side`".to_owned(),
            Self::Kustomize => "`kubectl apply -k`".to_owned(),
            Self::PruneAllowlist => "`kubectl apply --prune`, by label and allowlist".to_owned(),
            Self::PruneApplySet => "`kubectl apply --prune --applyset`".to_owned(),
            Self::Helm(major) => format!("Helm {major}, `helm upgrade --install --wait`"),
            Self::Argocd { server_side: false } => "Argo CD".to_owned(),
            Self::Argocd { server_side: true } => "Argo CD, `ServerSideApply=true`".to_owned(),
            Self::Flux => "Flux, `wait: true`, `prune: true`".to_owned(),
        }
    }

    /// Brings all of `git` to the cluster; `before` is what Git held the last time. A tool that waits, waits that long.
    pub(super) async fn apply(self, bench: &Bench, git: &[Entry], before: &[Entry], seconds: u8) -> Applied {
        let list = Entry::list(git);
        let objects: Vec<Value> = git.iter().map(Entry::manifest).collect();
        match self {
            Self::Kubectl => kubectl(bench, &["apply", "-f", "-"], &list).await,
            Self::KubectlServerSide => kubectl(bench, &["apply", "--server-side", "-f", "-"], &list).await,
            Self::Kustomize => {
                bench.plugin.folder.file("all.json", &list);
                bench.plugin.folder.file("kustomization.yaml", "resources: [all.json]\n");
                kubectl(bench, &["apply", "-k", "."], "").await
            }
            Self::PruneAllowlist => {
                let selector = format!("app={OWNER}");
                let prune = [&["apply", "-f", "-", "--prune", "-l", &selector], &ALLOWED[..]].concat();
                kubectl(bench, &prune, &list).await
            }
            Self::PruneApplySet => kubectl(bench, &["apply", "-f", "-", "--prune", "--applyset", OWNER], &list).await,
            Self::Helm(major) => {
                let values = bench.plugin.folder.file("values.json", Entry::values(git));
                let timeout = format!("{seconds}s");
                let upgrade = ["upgrade", "--install", OWNER, Bench::chart(), "-f", &values];
                let ran = bench.helm(major, &[&upgrade[..], &["--wait", "--timeout", &timeout]].concat()).await;
                Applied { well: ran.code == 0, said: ran.err }
            }
            Self::Argocd { server_side } => {
                let found = bench.ask("argocd", json!({"objects": objects, "serverSideApply": server_side})).await;
                Applied { well: found["phase"] == "Succeeded", said: found.to_string() }
            }
            Self::Flux => {
                let gone = before.iter().filter(|it| !git.iter().any(|entry| entry.name == it.name));
                let stale: Vec<_> = gone.map(Entry::manifest).collect();
                let job = json!({"objects": objects, "stale": stale, "waitSeconds": seconds});
                let found = bench.ask("flux", job).await;
                Applied { well: found["failure"] == "", said: found.to_string() }
            }
        }
    }

    /// What the tool itself would say to differ from Git, where it compares. The operator must be done with the objects:
    /// every tool compares what it read with the answer to a later dry run, so a status written in between is a difference.
    pub(super) async fn compare(self, bench: &Bench, git: &[Entry]) -> Option<Vec<String>> {
        let list = Entry::list(git);
        let objects: Vec<Value> = git.iter().map(Entry::manifest).collect();
        match self {
            Self::Kubectl | Self::PruneAllowlist => Some(diff(bench, &["-f", "-"], &list).await),
            Self::KubectlServerSide => Some(diff(bench, &["--server-side", "-f", "-"], &list).await),
            Self::Kustomize => Some(diff(bench, &["-k", "."], "").await),
            // `kubectl diff` knows nothing of apply sets, and would take their label away. Helm compares nothing.
            Self::PruneApplySet | Self::Helm(_) => None,
            Self::Argocd { server_side } => {
                let job = json!({"objects": objects, "serverSideApply": server_side, "compareOnly": true});
                let found = bench.ask("argocd", job).await;
                let of =
                    |way: &str| -> Vec<String> { serde_json::from_value(found["outOfSync"][way].clone()).unwrap() };
                Some([of("default"), of("serverSide")].concat())
            }
            Self::Flux => {
                let found = bench.ask("flux", json!({"objects": objects, "compareOnly": true})).await;
                Some(found["outOfSync"].as_array().unwrap().iter().map(ToString::to_string).collect())
            }
        }
    }

    /// Whether the tool itself takes away what Git no longer holds.
    pub(super) fn prunes(self) -> bool {
        !matches!(self, Self::Kubectl | Self::KubectlServerSide | Self::Kustomize)
    }

    /// Whether it waits until what it applied is served.
    pub(super) fn waits(self) -> bool {
        matches!(self, Self::Helm(4) | Self::Flux)
    }
}

async fn kubectl(bench: &Bench, apply: &[&str], input: &str) -> Applied {
    let ran = bench.kubectl(apply, input).await;
    Applied { well: ran.code == 0, said: format!("{}{}", ran.out, ran.err) }
}

/// `kubectl diff`: exit code 0 is no difference, 1 is one.
async fn diff(bench: &Bench, arguments: &[&str], input: &str) -> Vec<String> {
    let compared = bench.kubectl(&[&["diff"], arguments].concat(), input).await;
    assert!([0, 1].contains(&compared.code), "{compared:?}");
    if compared.code == 0 { Vec::new() } else { vec![compared.out] }
}
