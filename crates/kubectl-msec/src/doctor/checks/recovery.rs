//! The recovery keys: whether there is one, and whether each key of the keyring is sealed to it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use managed_secrets_crypto::recovery::Recipient;

use super::super::facts::Facts;
use super::super::finding::{Finding, Level, Read};
use crate::operator::{arguments, logs_of, variables};

const FLAG: &str = "--recovery-recipient";
const VARIABLE: &str = "MANAGED_SECRETS_RECOVERY_RECIPIENT";

/// Whether a recovery key opens every key. That a copy exists is all that can be seen without the keys: the operator checks
/// more, and reports it in the metric `managed_secrets_keys_without_recovery`.
pub(super) fn recovery(check: &'static str, facts: &Facts) -> Result<Vec<Finding>, Finding> {
    let keyrings = facts.keyrings.known(check)?;
    let mut copies = BTreeMap::<&str, BTreeSet<&str>>::new();
    for entry in keyrings.iter().filter_map(|(_, keyring)| keyring.as_ref()).flat_map(|it| &it.document.entries) {
        copies.entry(&entry.id).or_default().extend(entry.recovery.iter().map(|copy| copy.recipient.as_str()));
    }
    let stored: BTreeSet<_> = copies.values().flatten().map(|id| (*id).to_owned()).collect();
    let named = match &facts.deployment {
        Read::Known(Some(deployment)) => named(deployment),
        // It runs elsewhere, or the caller may not see it.
        Read::Known(None) | Read::Unknown(_) => Some(stored.clone()),
    };
    let Some(named) = named else {
        let what = format!("the operator takes {FLAG} from elsewhere than its Deployment");
        return Ok(vec![Finding::ok(check, format!("{what}; the keyring has copies for: {}", list(&stored)))]);
    };
    if named.is_empty() {
        return Ok(vec![if stored.is_empty() {
            Finding::new(
                Level::Note,
                check,
                "no recovery key: if the key-encryption key is lost, the values of a backup cannot be read",
                format!("create one with kubectl msec recovery-key generate, and install the operator with {FLAG}"),
            )
        } else {
            Finding::new(
                Level::Warning,
                check,
                format!(
                    "the keyring has copies for the recovery keys {}, but the operator adds no new ones",
                    list(&stored)
                ),
                format!("install the operator with {FLAG}"),
            )
        }]);
    }
    let lacks = |copies: &BTreeSet<&str>| named.iter().any(|id| !copies.contains(id.as_str()));
    let uncovered: Vec<_> = copies.iter().filter(|(_, copies)| lacks(copies)).map(|(id, _)| *id).collect();
    Ok(vec![if uncovered.is_empty() {
        Finding::ok(check, format!("each of {} keys is sealed to the recovery keys {}", copies.len(), list(&named)))
    } else {
        Finding::new(
            Level::Warning,
            check,
            format!(
                "keys that a recovery key does not open: {} (recovery keys: {})",
                uncovered.join(", "),
                list(&named)
            ),
            format!(
                "the operator adds what is missing to its own keyring while it runs: read its log ({}). It does not change \
                 keyrings that were restored beside it",
                logs_of(&facts.own)
            ),
        )
    }])
}

fn list(ids: &BTreeSet<String>) -> String {
    ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Ids of the recovery keys that the Deployment names; `None` if it takes them from elsewhere. What is no recipient is not
/// counted: the operator does not start with it.
fn named(deployment: &Deployment) -> Option<BTreeSet<String>> {
    let variables: Option<Vec<&str>> = variables(deployment, VARIABLE).collect();
    let arguments =
        arguments(deployment).map(|text| text.strip_prefix(FLAG).map_or(text, |rest| rest.trim_start_matches('=')));
    let texts = arguments.chain(variables?).flat_map(|texts| texts.split(','));
    let recipients = texts.filter_map(|text| text.parse::<Recipient>().ok());
    Some(recipients.map(|recipient| recipient.id().to_string()).collect())
}
