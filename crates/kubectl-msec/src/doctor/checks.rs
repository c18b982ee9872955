//! The checks: each a pure function over what was read, listed in the order in which they are shown.

mod install;
mod keys;
mod secrets;
mod webhooks;

use managed_secrets_api::names::cluster_object_name;

use super::facts::Facts;
use super::finding::Finding;

/// One check.
pub(super) struct Check {
    name: &'static str,
    look: Look,
}

/// Looks at the facts for the check of this name. What could not be read ends it with that as its finding.
type Look = fn(&'static str, &Facts) -> Result<Vec<Finding>, Finding>;

impl Check {
    /// What it finds.
    pub(super) fn findings(&self, facts: &Facts) -> Vec<Finding> {
        (self.look)(self.name, facts).unwrap_or_else(|unknown| vec![unknown])
    }
}

/// Every check.
pub(super) const CHECKS: [Check; 16] = [
    // What the keys protect against is said before anything else.
    Check { name: "protection", look: keys::protection },
    Check { name: "server", look: install::server },
    Check { name: "resource", look: install::crd },
    Check { name: "operator", look: install::operator },
    Check { name: "namespaces", look: install::namespaces },
    Check { name: "policies", look: install::policies },
    Check { name: "webhooks", look: webhooks::configurations },
    Check { name: "endpoints", look: webhooks::endpoints },
    Check { name: "certificates", look: webhooks::certificates },
    Check { name: "keyring", look: keys::keyring },
    Check { name: "sealing key", look: keys::sealing_key },
    Check { name: "secrets", look: secrets::objects },
    Check { name: "records", look: secrets::records },
    Check { name: "targets", look: secrets::targets },
    Check { name: "your rights", look: secrets::rights },
    Check { name: "audit log", look: install::audit },
];

/// Whether an object of the cluster is this installation's: it bears the name, alone or with the operator's namespace.
fn is_named(found: Option<&String>, name: &str, own: &str) -> bool {
    found.is_some_and(|found| found == name || *found == cluster_object_name(name, own, false))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
