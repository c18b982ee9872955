//! The public key as it is published: the JSON document that `seal` reads.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{PublicKey, PublicKeyError};
use crate::keyring::DEFAULT_SEALING_PERIOD;

/// What the document calls its suite.
pub const SUITE_NAME: &str = "mss1/X-Wing/HKDF-SHA256/AES-256-GCM";
/// The date `notAfter` of a key that is replaced on request only, in seconds since 1970: the year 9999.
const NEVER: i64 = 253_370_764_800;

/// A sealing public key, and while which dates values should be sealed for it.
///
/// The dates are advice for sealing: values sealed with the key open after `notAfter` too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishedKey {
    /// The key.
    pub key: PublicKey,
    /// When it was created.
    pub not_before: Timestamp,
    /// When another should have taken its place.
    pub not_after: Timestamp,
}

/// The document is not a published key.
#[derive(Debug, thiserror::Error)]
pub enum PublishedKeyError {
    /// Not JSON of the expected shape.
    #[error("the sealing key document is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// Another suite: this program cannot seal for it.
    #[error("the sealing key document must have the suite \"{SUITE_NAME}\"")]
    Suite,
    /// The key is not base64, or no key.
    #[error("the sealing key document holds no key: {0}")]
    Key(#[from] PublicKeyError),
    /// The key id is another key's.
    #[error("the sealing key document's keyId must be that of its publicKey")]
    KeyId,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    key_id: String,
    suite: String,
    public_key: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl PublishedKey {
    /// The document of a key created at `created`, which is replaced at the age [`DEFAULT_SEALING_PERIOD`].
    #[must_use]
    pub fn new(key: PublicKey, created: Timestamp) -> Self {
        Self { key, not_before: created, not_after: created }.replaced_after(Some(DEFAULT_SEALING_PERIOD))
    }

    /// The same key, replaced at another age; on request only, if there is none.
    #[must_use]
    pub fn replaced_after(self, period: Option<SignedDuration>) -> Self {
        let never = Timestamp::from_second(NEVER).unwrap_or(Timestamp::MAX);
        let not_after = period.and_then(|period| self.not_before.checked_add(period).ok());
        Self { not_after: not_after.unwrap_or(never).min(never), ..self }
    }

    /// The date `notAfter`, unless the key is replaced on request only.
    #[must_use]
    pub fn replaced_by(&self) -> Option<Timestamp> {
        (self.not_after.as_second() < NEVER).then_some(self.not_after)
    }

    /// Reads the document; checks that suite, key and key id belong together.
    pub fn parse(json: &str) -> Result<Self, PublishedKeyError> {
        let document: Document = serde_json::from_str(json)?;
        if document.suite != SUITE_NAME {
            return Err(PublishedKeyError::Suite);
        }
        let bytes = BASE64_STANDARD.decode(document.public_key).map_err(|_| PublicKeyError)?;
        let key = PublicKey::from_bytes(&bytes)?;
        if document.key_id != key.key_id().to_string() {
            return Err(PublishedKeyError::KeyId);
        }
        Ok(Self { key, not_before: document.not_before, not_after: document.not_after })
    }

    /// The document.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(&Document {
            key_id: self.key.key_id().to_string(),
            suite: SUITE_NAME.to_owned(),
            public_key: BASE64_STANDARD.encode(self.key.as_bytes()),
            not_before: self.not_before,
            not_after: self.not_after,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::mss1::SealingKey;

    fn published() -> PublishedKey {
        let key = SealingKey::new(Zeroizing::new([0x22; 32])).unwrap();
        PublishedKey::new(key.public().clone(), "2026-11-23T08:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_document_comes_back_as_it_was() {
        let json = published().to_json().unwrap();
        assert_eq!(PublishedKey::parse(&json).unwrap(), published());
        let fields: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(fields["keyId"], "efa4292736dc4550");
        assert_eq!(fields["suite"], SUITE_NAME);
        assert_eq!(fields["notBefore"], "2026-11-23T08:00:00Z");
        assert_eq!(fields["notAfter"], "2026-12-23T08:00:00Z");
        assert_eq!(fields["publicKey"].as_str().unwrap().len(), 1624);
    }

    #[test]
    fn a_key_that_is_replaced_on_request_only_has_a_date_that_never_comes() {
        let of = |period| published().replaced_after(period);
        assert_eq!(of(Some(SignedDuration::from_hours(1))).replaced_by().unwrap().to_string(), "2026-11-23T09:00:00Z");
        for never in [of(None), of(Some(SignedDuration::MAX))] {
            assert_eq!(never.replaced_by(), None);
            assert_eq!(never.not_after.to_string(), "9999-01-01T00:00:00Z");
            assert_eq!(PublishedKey::parse(&never.to_json().unwrap()).unwrap(), never);
        }
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let json = published().to_json().unwrap();
        let changed = |from: &str, to: &str| {
            assert!(json.contains(from), "{from}");
            PublishedKey::parse(&json.replace(from, to)).unwrap_err()
        };
        assert!(matches!(changed(SUITE_NAME, "mss2"), PublishedKeyError::Suite));
        assert!(matches!(changed("efa4292736dc4550", "efa4292736dc4551"), PublishedKeyError::KeyId));
        assert!(matches!(changed("\"keyId\"", "\"key\""), PublishedKeyError::Json(_)));
        let key = BASE64_STANDARD.encode(published().key.as_bytes());
        assert!(matches!(changed(&key, "AAAA"), PublishedKeyError::Key(_)));
        assert!(matches!(changed(&key, "?"), PublishedKeyError::Key(_)));
        let other = SealingKey::new(Zeroizing::new([0x23; 32])).unwrap();
        let other = BASE64_STANDARD.encode(other.public().as_bytes());
        assert!(matches!(changed(&key, &other), PublishedKeyError::KeyId));
    }
}
