//! Which namespaces are served: each as soon as its own stores are filled.
//!
//! In: the watches of a namespace, or of all. Out: [`Scopes`], which says whose objects may be looked at. A namespace that
//! cannot be watched, because it does not exist or because the operator lacks its permissions there, holds up no other; it
//! is served as soon as its watches have listed, without a restart.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use managed_secrets_engine::{
    waiting::Waiting,
    watch::{Stopped, WatchHandle},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::sinks::Shared;

/// How long a list may take until it is told that it is missing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the watches cover, and which part of it has been listed.
#[derive(Debug)]
pub struct Scopes {
    /// `None` is every namespace.
    unfilled: Mutex<BTreeSet<Option<String>>>,
    /// How many there were at the start.
    all: usize,
}

impl Scopes {
    /// Scopes of which nothing is listed yet: these namespaces, or, if there are none, all.
    #[must_use]
    pub fn new(namespaces: &[String]) -> Self {
        let mut scopes: BTreeSet<Option<String>> = namespaces.iter().cloned().map(Some).collect();
        if scopes.is_empty() {
            scopes.insert(None);
        }
        Self { all: scopes.len(), unfilled: Mutex::new(scopes) }
    }

    /// Whether the stores of this namespace are filled.
    #[must_use]
    pub fn is_filled(&self, namespace: &str) -> bool {
        let unfilled = self.unfilled();
        !unfilled.contains(&None) && !unfilled.contains(&Some(namespace.to_owned()))
    }

    /// The namespaces that are not served yet; `None` is every namespace.
    #[must_use]
    pub fn waiting(&self) -> Vec<Option<String>> {
        self.unfilled().iter().cloned().collect()
    }

    /// Whether the stores of at least one namespace are filled.
    #[must_use]
    pub fn is_any_filled(&self) -> bool {
        self.unfilled().len() < self.all
    }

    pub(super) fn filled(&self, scope: Option<&str>) {
        self.unfilled().remove(&scope.map(str::to_owned));
    }

    fn unfilled(&self) -> MutexGuard<'_, BTreeSet<Option<String>>> {
        self.unfilled.lock()
    }
}

/// Waits until a scope's watches have listed, and then has its objects looked at. Ends with `shutdown`.
pub(super) async fn fill(
    scope: Option<String>,
    watches: Vec<WatchHandle>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    // An error means that a watch was stopped, and so are we.
    if shutdown.run_until_cancelled(listed(scope.as_deref(), &watches)).await == Some(Ok(())) {
        shared.scopes.filled(scope.as_deref());
        let objects = shared.look_at_all(scope.as_deref());
        info!(namespace = scope, objects, "caches filled; reconciling");
    }
    shutdown.cancelled().await;
}

async fn listed(scope: Option<&str>, watches: &[WatchHandle]) -> Result<(), Stopped> {
    let (what, why) = match scope {
        Some(namespace) => (
            format!("the lists of namespace {namespace}, whose values are not delivered yet"),
            "cannot list its ManagedSecrets and Secrets: check that the namespace exists, and that its RoleBinding gives the \
             operator its permissions",
        ),
        None => (
            "the lists of all namespaces; no value is delivered yet".to_owned(),
            "cannot list ManagedSecrets and Secrets: check that the ClusterRoleBinding gives the operator its permissions",
        ),
    };
    let mut waiting = Waiting::new(what);
    let lists = async {
        for watch in watches {
            watch.ready().await?;
        }
        Ok(())
    };
    let told = async {
        loop {
            sleep(PATIENCE).await;
            waiting.because(why);
        }
    };
    let done = tokio::select! {
        done = lists => done,
        () = told => Ok(()),
    };
    waiting.over();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_served_as_soon_as_its_own_stores_are_filled() {
        let scopes = Scopes::new(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(scopes.waiting().len(), 2);
        scopes.filled(Some("b"));
        assert!(scopes.is_filled("b") && !scopes.is_filled("a"));
        assert_eq!(scopes.waiting(), [Some("a".to_owned())]);

        let scopes = Scopes::new(&[]);
        assert!(!scopes.is_filled("a"));
        scopes.filled(None);
        assert!(scopes.is_filled("a") && scopes.waiting().is_empty());
    }
}
