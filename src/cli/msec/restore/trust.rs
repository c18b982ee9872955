//! Which keyrings a restore adds, and whether they may be.
//!
//! A backup is as trustworthy as the place that it was kept in. A keyring that joins the operator's own can open what is
//! encrypted under its keys, so records that its maker wrote are believed from then on. It is therefore named by its
//! fingerprint, and a person confirms it. Pure, but for the question that [`confirm`](super::confirm) asks.

use jiff::Timestamp;

use crate::api::keys::KEYRING_NAME;
use crate::cli::CliError;
use crate::cli::msec::archive::StoredKeyring;

/// A keyring that a restore creates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NewKeyring {
    /// The name that it gets.
    pub(super) name: String,
    /// SHA-256 of its document.
    pub(super) fingerprint: String,
    /// Ids of its keys.
    ids: Vec<String>,
    /// Why it is confirmed by its fingerprint; none where `--yes` is enough.
    doubt: Option<Doubt>,
}

/// Why a keyring is not simply restored.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Doubt {
    /// It stands beside the operator's own keyring, in the cluster or in the backup.
    Foreign,
    /// A key that was created later than now.
    Future {
        /// Its id.
        id: String,
        /// The date.
        created: String,
    },
}

impl NewKeyring {
    /// Of a keyring that is created under this name, beside those that are `present`.
    pub(super) fn of(stored: &StoredKeyring, name: &str, present: &[StoredKeyring], now: Timestamp) -> Self {
        let doubt = match stored.ahead_of(now).next() {
            Some(entry) => Some(Doubt::Future { id: entry.id.clone(), created: entry.created.clone() }),
            None if name != KEYRING_NAME || present.iter().any(|it| it.name == KEYRING_NAME) => Some(Doubt::Foreign),
            None => None,
        };
        Self {
            name: name.to_owned(),
            fingerprint: stored.fingerprint.clone(),
            ids: stored.ids().map(str::to_owned).collect(),
            doubt,
        }
    }

    /// What is said of it before anything is written.
    pub(super) fn note(&self) -> String {
        let role = if self.name == KEYRING_NAME {
            "becomes the operator's own, under which new values are encrypted"
        } else {
            "joins the operator's own; its keys open, nothing new is encrypted under them, and a sealing key that it revokes is revoked"
        };
        format!("keyring {} ({}) {role}. SHA-256 fingerprint: {}", self.name, self.ids.join(", "), self.fingerprint)
    }

    fn reason(&self) -> String {
        match &self.doubt {
            Some(Doubt::Future { id, created }) => {
                format!("its key {id} has the creation date {created}, in the future")
            }
            Some(Doubt::Foreign) | None => {
                "it has keys that this cluster does not know, and whoever made them can write \
                 records that the operator believes"
                    .to_owned()
            }
        }
    }
}

/// The keyrings that a person has still to confirm: those in doubt that are not accepted by fingerprint. Where any is
/// accepted by fingerprint, every other one is in doubt.
pub(super) fn unconfirmed<'a>(new: &'a [NewKeyring], accepted: &[Fingerprint]) -> Vec<&'a NewKeyring> {
    let is_accepted = |keyring: &NewKeyring| accepted.iter().any(|it| it.0 == keyring.fingerprint);
    new.iter().filter(|it| (it.doubt.is_some() || !accepted.is_empty()) && !is_accepted(it)).collect()
}

/// The question about one of them.
pub(super) fn question(keyring: &NewKeyring) -> String {
    format!("Trust keyring {}? {}. Fingerprint: {}", keyring.name, capitalised(&keyring.reason()), keyring.fingerprint)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The refusal where nobody can be asked.
pub(super) fn refusal(unconfirmed: &[&NewKeyring]) -> CliError {
    let why: Vec<_> = unconfirmed.iter().map(|it| format!("keyring {}: {}", it.name, it.reason())).collect();
    let flags: Vec<_> = unconfirmed.iter().map(|it| format!("--accept-keyring {}", it.fingerprint)).collect();
    CliError::Usage(format!(
        "{}. Nothing was written. Compare the fingerprint with the one that `kubectl msec backup` printed, and confirm it: {}",
        why.join("; "),
        flags.join(" ")
    ))
}

/// SHA-256 of a keyring, in lower-case hex.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fingerprint(String);

impl std::str::FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { Ok(Self(text.to_lowercase())) } else { Err("must be the 64 hex digits of a SHA-256".to_owned()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::keys::KEYRING_DATA_KEY;
    use crate::kek::secret_api::{SecretBytes, SecretObject};

    fn stored(name: &str, id: &str, created: &str) -> StoredKeyring {
        let document = json!({"format": "MSK1", "entries": [{
            "id": id, "purpose": "record", "state": "active", "created": created,
            "wrapped": {"provider": "local", "keyId": "k1", "ciphertext": "AAAA"},
        }]});
        let mut secret = SecretObject {
            data: [(KEYRING_DATA_KEY.to_owned(), SecretBytes::copy_of(document.to_string().as_bytes()))].into(),
            ..SecretObject::default()
        };
        secret.metadata.name = Some(name.to_owned());
        StoredKeyring::of(&secret).unwrap()
    }

    fn accepted(keyring: &NewKeyring) -> Vec<Fingerprint> {
        vec![keyring.fingerprint.to_uppercase().parse().unwrap()]
    }

    const NOW: &str = "2026-11-27T08:00:00Z";

    fn new(stored: &StoredKeyring, name: &str, present: &[StoredKeyring]) -> NewKeyring {
        NewKeyring::of(stored, name, present, NOW.parse().unwrap())
    }

    #[test]
    fn a_foreign_keyring_is_confirmed_by_its_fingerprint() {
        let (own, other) = (stored(KEYRING_NAME, "1", NOW), stored(KEYRING_NAME, "2", NOW));
        let joins = new(&other, "managed-secrets-keyring-restored-1", std::slice::from_ref(&own));
        assert!(joins.note().contains("joins") && joins.note().contains(&joins.fingerprint));
        assert_eq!(unconfirmed(std::slice::from_ref(&joins), &[]), [&joins]);
        assert!(unconfirmed(std::slice::from_ref(&joins), &accepted(&joins)).is_empty());
        let said = refusal(&[&joins]).to_string();
        assert!(said.contains(&format!("--accept-keyring {}", joins.fingerprint)), "{said}");
        // A fingerprint of another one accepts nothing.
        let another = new(&own, KEYRING_NAME, &[]);
        assert_eq!(unconfirmed(std::slice::from_ref(&joins), &accepted(&another)), [&joins]);
    }

    #[test]
    fn the_first_keyring_of_a_cluster_is_confirmed_only_if_a_fingerprint_is_given() {
        let first = new(&stored(KEYRING_NAME, "1", NOW), KEYRING_NAME, &[]);
        assert!(first.note().contains("becomes the operator's own"));
        assert!(unconfirmed(std::slice::from_ref(&first), &[]).is_empty());
        assert!(unconfirmed(std::slice::from_ref(&first), &accepted(&first)).is_empty());
        let another = new(&stored(KEYRING_NAME, "2", NOW), KEYRING_NAME, &[]);
        assert_eq!(unconfirmed(std::slice::from_ref(&first), &accepted(&another)), [&first]);
    }

    #[test]
    fn a_key_of_the_future_is_in_doubt_everywhere() {
        for (created, in_doubt) in [("2026-11-27T08:10:00Z", false), ("2026-11-27T08:10:01Z", true)] {
            let first = new(&stored(KEYRING_NAME, "1", created), KEYRING_NAME, &[]);
            assert_eq!(unconfirmed(std::slice::from_ref(&first), &[]).len(), usize::from(in_doubt), "{created}");
            if in_doubt {
                assert!(refusal(&[&first]).to_string().contains("in the future"));
            }
        }
    }

    #[test]
    fn a_fingerprint_is_a_sha256() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
