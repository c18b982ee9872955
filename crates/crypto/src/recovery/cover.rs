//! Which keys of a keyring a recovery key opens, and the copies that are missing.

use super::{Recipient, RecoveryCopy, SealError};
use crate::keyring::{Document, Entry, Envelope, Keyring};

/// How many keys of documents every recipient can open.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Coverage {
    /// How many keys there are.
    pub keys: usize,
    /// Ids of the keys that lack a copy for at least one recipient.
    pub uncovered: Vec<String>,
}

/// Adds the missing copies to a document whose keys `keyring` holds, and replaces copies that are damaged. Returns whether
/// the document changed.
///
/// Copies for other recipients stay: a recipient that is left out of the operator's flags by mistake must not lose its
/// copies, and to delete a copy takes nothing back from its recipient.
pub fn cover(document: &mut Document, keyring: &Keyring, recipients: &[Recipient]) -> Result<bool, SealError> {
    let mut changed = false;
    for entry in &mut document.entries {
        let Some(key) = keyring.bytes_of(entry) else { continue };
        for recipient in recipients.iter().filter(|recipient| !has_copy(entry, recipient, key)).collect::<Vec<_>>() {
            let envelope = Envelope::encode(entry.purpose, &entry.id, &entry.created, key);
            let copy = RecoveryCopy::seal(recipient, key, &envelope)?;
            entry.recovery.retain(|other| other.recipient != copy.recipient);
            entry.recovery.push(copy);
            changed = true;
        }
    }
    Ok(changed)
}

/// What the recipients can open of documents whose keys `keyring` holds. A key of several documents is covered if one of
/// them has its copies. Without recipients, no key is covered.
#[must_use]
pub fn coverage<'d>(
    documents: impl IntoIterator<Item = &'d Document>,
    keyring: &Keyring,
    recipients: &[Recipient],
) -> Coverage {
    let mut keys = std::collections::BTreeMap::<_, bool>::new();
    for entry in documents.into_iter().flat_map(|document| &document.entries) {
        let covered = keyring.bytes_of(entry).is_some_and(|key| {
            !recipients.is_empty() && recipients.iter().all(|recipient| has_copy(entry, recipient, key))
        });
        *keys.entry((entry.purpose, entry.id.as_str())).or_default() |= covered;
    }
    let uncovered = keys.iter().filter(|(_, covered)| !**covered).map(|((_, id), _)| (*id).to_owned()).collect();
    Coverage { keys: keys.len(), uncovered }
}

/// The same for a program that knows no recipients: how many keys have a copy for any recovery key; `None` if none has.
#[must_use]
pub fn copied<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Option<Coverage> {
    let mut keys = std::collections::BTreeMap::<_, bool>::new();
    for entry in documents.into_iter().flat_map(|document| &document.entries) {
        *keys.entry((entry.purpose, entry.id.as_str())).or_default() |= !entry.recovery.is_empty();
    }
    let uncovered = keys.iter().filter(|(_, copied)| !**copied).map(|((_, id), _)| (*id).to_owned()).collect();
    keys.values().any(|copied| *copied).then_some(Coverage { keys: keys.len(), uncovered })
}

fn has_copy(entry: &Entry, recipient: &Recipient, key: &[u8; 32]) -> bool {
    entry.recovery.iter().any(|copy| copy.is_of(recipient, key))
}
