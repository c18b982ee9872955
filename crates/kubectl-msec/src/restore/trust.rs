//! Which keyrings a restore adds, and whether it may add them.
//!
//! A backup is as trustworthy as its storage. If a keyring joins the operator's own, the operator accepts records that its
//! creator encrypted with its keys. Therefore the command shows its fingerprint, and the user confirms it. The command
//! refuses what no honest backup contains, whatever the user confirms. Pure, except for the question.

use jiff::Timestamp;
use managed_secrets_api::keys::KEYRING_NAME;
use managed_secrets_cli::CliError;
use managed_secrets_crypto::Kek;
use managed_secrets_crypto::keyring::{KekError, Keyring, OpenError, Origin, Part, Wrapped};
use managed_secrets_crypto::provider::Provider;

use crate::archive::StoredKeyring;

/// A keyring that a restore creates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NewKeyring {
    /// The name that it gets.
    pub(super) name: String,
    /// SHA-256 of its document.
    pub(super) fingerprint: String,
    /// Ids of its keys.
    ids: Vec<String>,
    /// It exists in addition to the operator's own keyring, in the cluster or in the backup. The user confirms it by its
    /// fingerprint; for the first keyring, `--yes` is enough.
    is_foreign: bool,
}

impl NewKeyring {
    /// A keyring that the command creates under this name, in addition to those that are `present`.
    pub(super) fn of(stored: &StoredKeyring, name: &str, present: &[StoredKeyring]) -> Self {
        Self {
            name: name.to_owned(),
            fingerprint: stored.fingerprint.clone(),
            ids: stored.ids().map(str::to_owned).collect(),
            is_foreign: name != KEYRING_NAME || present.iter().any(|it| it.name == KEYRING_NAME),
        }
    }

    /// What the command prints about it before it writes anything.
    pub(super) fn note(&self) -> String {
        let role = if self.name == KEYRING_NAME {
            "becomes the operator's own, and the operator encrypts new values with it"
        } else {
            "joins the operator's own; its keys open values, and the operator encrypts nothing new with them"
        };
        format!("keyring {} ({}) {role}. SHA-256 fingerprint: {}", self.name, self.ids.join(", "), self.fingerprint)
    }
}

/// Why the user must confirm a keyring.
const REASON: &str = "it has keys that this cluster does not know; with these keys, another person can write records that the operator accepts";

/// Refuses a keyring whose keys have dates that no honest key has: later than `now`, by more than clocks differ, or no
/// date at all. The newest key of the operator's own keyring is used for new values, so a date decides what is used,
/// for as long as the date is ahead. `namespace` is the operator's.
pub(super) fn check_dates(stored: &StoredKeyring, namespace: &str, now: Timestamp) -> Result<(), String> {
    let Some((entry, problem)) = stored.implausible(now).next() else { return Ok(()) };
    Err(format!(
        "keyring Secret {namespace}/{} of the backup is not restored: the creation date \"{}\" of its key {} \
         {problem}. Nothing was written. If the clock of this machine is wrong, correct it; otherwise use a backup \
         that you trust. If a wrong clock caused the date, see \"A key with a date in the future\" in docs/operations.md",
        stored.name, entry.created, entry.id
    ))
}

/// Refuses a keyring that the operator could not open, as far as the key-encryption keys of the backup show.
pub(super) fn check_opens(stored: &StoredKeyring, namespace: &str, keks: &[Kek]) -> Result<(), String> {
    let kek_of = |wrapped: &Wrapped| {
        let is_it = |kek: &&Kek| wrapped.provider == Provider::LOCAL && kek.key_id().to_string() == wrapped.key_id;
        keks.iter().find(is_it)
    };
    let mut document = stored.document.clone();
    document.entries.retain(|entry| kek_of(&entry.wrapped).is_some());
    let joined = Part { document: &document, origin: Origin::Joined };
    let opened =
        Keyring::open([joined], |wrapped| kek_of(wrapped).ok_or(KekError::Refused)?.unwrap(&wrapped.ciphertext));
    match opened {
        // One that joins has no active key.
        Ok(_) | Err(OpenError::NoActiveSeed) => Ok(()),
        Err(error) => Err(format!(
            "keyring Secret {namespace}/{} of the backup is not restored: {error}; with it, the operator would \
             not start. Nothing was written; use a backup that was not changed",
            stored.name
        )),
    }
}

/// The keyrings that the user must still confirm: foreign ones that are not accepted by fingerprint. If one is accepted by
/// fingerprint, the user must confirm every other one.
pub(super) fn unconfirmed<'a>(new: &'a [NewKeyring], accepted: &[Fingerprint]) -> Vec<&'a NewKeyring> {
    let is_accepted = |keyring: &NewKeyring| accepted.iter().any(|it| it.0 == keyring.fingerprint);
    new.iter().filter(|it| (it.is_foreign || !accepted.is_empty()) && !is_accepted(it)).collect()
}

/// The question about one of them.
pub(super) fn question(keyring: &NewKeyring) -> String {
    format!("Trust keyring {}? {}. Fingerprint: {}", keyring.name, capitalised(REASON), keyring.fingerprint)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The refusal if no terminal can ask the user to confirm.
pub(super) fn refusal(unconfirmed: &[&NewKeyring]) -> CliError {
    let why: Vec<_> = unconfirmed.iter().map(|it| format!("keyring {}: {}", it.name, REASON)).collect();
    let flags: Vec<_> = unconfirmed.iter().map(|it| format!("--accept-keyring {}", it.fingerprint)).collect();
    CliError::Usage(format!(
        "{}. Nothing was written. Compare the fingerprint with the one that `kubectl msec backup` printed, and confirm \
         it: {}",
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
    use managed_secrets_api::keyring_request::Requests;
    use managed_secrets_api::keys::KEYRING_DATA_KEY;
    use managed_secrets_client::{SecretBytes, SecretObject};
    use managed_secrets_crypto::keyring::Document;
    use serde_json::json;

    use super::*;

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
        NewKeyring::of(stored, name, present)
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
    fn a_key_whose_date_is_in_the_future_is_refused_and_named() {
        let check = |created| check_dates(&stored("joins", "k7", created), "system", NOW.parse().unwrap());
        for created in ["2020-01-01T00:00:00Z", NOW, "2026-11-27T08:05:00Z", "2026-11-27T10:05:00+02:00"] {
            assert_eq!(check(created), Ok(()), "{created}");
        }
        for (created, problem) in [
            ("2026-11-27T08:05:01Z", "is in the future"),
            ("2026-11-27T08:05:01-01:00", "is in the future"),
            ("9999-12-30T22:00:00Z", "is in the future"),
            ("soon", "is not a date"),
            ("", "is not a date"),
        ] {
            let said = check(created).unwrap_err();
            for part in ["system/joins", "k7", created, problem, "Nothing was written"] {
                assert!(said.contains(part), "{said}");
            }
        }
    }

    #[test]
    fn a_keyring_that_would_not_open_is_refused() {
        let kek = Kek::new(&[7; 32]).unwrap();
        let wrap = |bytes: &[u8]| {
            let (provider, key_id) = ("local".to_owned(), kek.key_id().to_string());
            Ok::<_, KekError>(Wrapped::new(provider, key_id, kek.wrap(bytes)?))
        };
        let document = Keyring::generate_entries(NOW.parse().unwrap(), wrap).unwrap();
        let stored = |document| StoredKeyring {
            name: "joins".to_owned(),
            document,
            fingerprint: String::new(),
            requests: Requests::default(),
        };
        let check = |document: &Document, keks: &[Kek]| check_opens(&stored(document.clone()), "system", keks);
        let keks = [Kek::new(&[7; 32]).unwrap()];
        assert_eq!(check(&document, &keks), Ok(()));
        // Another date than the one that is wrapped.
        let mut changed = document;
        changed.entries[1].created = "2026-11-27T07:00:00Z".to_owned();
        let said = check(&changed, &keks).unwrap_err();
        assert!(said.contains("system/joins") && said.contains(&changed.entries[1].id), "{said}");
        // What the backup has no key for is not judged.
        assert_eq!(check(&changed, &[]), Ok(()));
        assert_eq!(check(&changed, &[Kek::new(&[8; 32]).unwrap()]), Ok(()));
    }

    #[test]
    fn a_fingerprint_is_a_sha256() {
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
