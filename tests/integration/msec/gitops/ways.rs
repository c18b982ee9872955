//! The ways in which Git comes to a cluster.

use serde_json::{Value, json};

use super::{Bench, Entry, OWNER};

/// Kinds that `kubectl apply --prune` may delete: with Secrets, so that it would take ours if they looked like its own.
pub(super) const ALLOWED: [&str; 2] = [
    "--prune-allowlist=managedsecrets.dev/v1alpha1/ManagedSecret",
    "--prune-allowlist=core/v1/Secret",
];

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
    /// What the tool's own comparison shows afterwards, where it has one.
    pub(super) drift: Option<Vec<String>>,
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
            Self::Kubectl => kubectl(bench, &["apply", "-f", "-"], &["diff", "-f", "-"], &list).await,
            Self::KubectlServerSide => {
                let server_side = "--server-side";
                kubectl(bench, &["apply", server_side, "-f", "-"], &["diff", server_side, "-f", "-"], &list).await
            }
            Self::Kustomize => {
                bench.plugin.folder.file("all.json", &list);
                bench.plugin.folder.file("kustomization.yaml", "resources: [all.json]\n");
                kubectl(bench, &["apply", "-k", "."], &["diff", "-k", "."], "").await
            }
            Self::PruneAllowlist => {
                let selector = format!("app={OWNER}");
                let prune = [&["apply", "-f", "-", "--prune", "-l", &selector], &ALLOWED[..]].concat();
                kubectl(bench, &prune, &["diff", "-f", "-"], &list).await
            }
            Self::PruneApplySet => {
                let prune = ["apply", "-f", "-", "--prune", "--applyset", OWNER];
                let ran = bench.kubectl(&prune, &list).await;
                // `kubectl diff` knows nothing of apply sets: it would take their label away.
                Applied { well: ran.code == 0, said: ran.err, drift: None }
            }
            Self::Helm(major) => {
                let values = bench.plugin.folder.file("values.json", Entry::values(git));
                let timeout = format!("{seconds}s");
                let upgrade = ["upgrade", "--install", OWNER, Bench::chart(), "-f", &values];
                let ran = bench.helm(major, &[&upgrade[..], &["--wait", "--timeout", &timeout]].concat()).await;
                Applied { well: ran.code == 0, said: ran.err, drift: None }
            }
            Self::Argocd { server_side } => {
                let job = json!({"objects": objects, "serverSideApply": server_side});
                let found = bench.ask("argocd", job).await;
                let names = |of: &str| -> Vec<String> { serde_json::from_value(found["after"][of].clone()).unwrap() };
                Applied {
                    well: found["phase"] == "Succeeded",
                    said: found.to_string(),
                    drift: Some([names("default"), names("serverSide")].concat()),
                }
            }
            Self::Flux => {
                let gone = before.iter().filter(|it| !git.iter().any(|entry| entry.name == it.name));
                let stale: Vec<_> = gone.map(Entry::manifest).collect();
                let job = json!({"objects": objects, "stale": stale, "waitSeconds": seconds});
                let found = bench.ask("flux", job).await;
                let drift = found["after"].as_array().unwrap().iter().map(ToString::to_string).collect();
                Applied { well: found["failure"] == "", said: found.to_string(), drift: Some(drift) }
            }
        }
    }

    /// Whether the tool itself takes away what Git no longer holds.
    pub(super) fn prunes(self) -> bool {
        !matches!(self, Self::Kubectl | Self::KubectlServerSide | Self::Kustomize)
    }
}

/// Applies, and compares by `kubectl diff`: exit code 0 is no difference, 1 is one.
async fn kubectl(bench: &Bench, apply: &[&str], diff: &[&str], input: &str) -> Applied {
    let ran = bench.kubectl(apply, input).await;
    let compared = bench.kubectl(diff, input).await;
    assert!([0, 1].contains(&compared.code), "{compared:?}");
    let drift = if compared.code == 0 { Vec::new() } else { vec![compared.out] };
    Applied { well: ran.code == 0, said: format!("{}{}", ran.out, ran.err), drift: Some(drift) }
}
