//! The checks, in the order of the output: each is a pure function over the facts.

mod install;
mod keys;
mod recovery;
mod secrets;
mod values;
mod webhooks;

use managed_secrets_api::names::cluster_object_name;

use super::facts::Facts;
use super::finding::Finding;

/// One check.
pub(super) struct Check {
    name: &'static str,
    look: Look,
}

/// Looks at the facts for the check of this name. If a fact could not be read, that is its finding.
type Look = fn(&'static str, &Facts) -> Result<Vec<Finding>, Finding>;

impl Check {
    /// What it finds.
    pub(super) fn findings(&self, facts: &Facts) -> Vec<Finding> {
        (self.look)(self.name, facts).unwrap_or_else(|unknown| vec![unknown])
    }
}

/// Every check.
pub(super) const CHECKS: [Check; 18] = [
    // First what the keys protect against.
    Check { name: "protection", look: keys::protection },
    Check { name: "server", look: install::server },
    Check { name: "resource", look: install::crd },
    Check { name: "operator", look: install::operator },
    Check { name: "namespaces", look: install::namespaces },
    Check { name: "policies", look: install::policies },
    Check { name: "webhooks", look: webhooks::configurations },
    Check { name: "endpoints", look: webhooks::endpoints },
    Check { name: "certificates", look: webhooks::certificates },
    Check { name: "value API", look: values::api },
    Check { name: "keyring", look: keys::keyring },
    Check { name: "recovery key", look: recovery::recovery },
    Check { name: "sealing key", look: keys::sealing_key },
    Check { name: "secrets", look: secrets::objects },
    Check { name: "records", look: secrets::records },
    Check { name: "targets", look: secrets::targets },
    Check { name: "your permissions", look: secrets::permissions },
    Check { name: "audit log", look: install::audit },
];

/// Whether an object belongs to this installation: it has the name, alone or with the operator's namespace.
fn is_named(found: Option<&String>, name: &str, own: &str) -> bool {
    found.is_some_and(|found| found == name || *found == cluster_object_name(name, own, false))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
