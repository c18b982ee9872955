//! The values of one record. Each version opens on its own, whatever is wrong with the others and with the metadata.

use managed_secrets_api::keys::RECORD_DATA_KEY;
use managed_secrets_api::record::{KeptVersion, RecordMeta, StoredRecord, is_kept_key};
use managed_secrets_client::{SecretBytes, SecretObject};
use managed_secrets_crypto::mac::MacError;
use managed_secrets_crypto::mse1::{self, OpenError, Place, Record};
use managed_secrets_crypto::recovery::Recovered;
use managed_secrets_crypto::{Plaintext, SeedId};

use crate::archive::place;

/// A record of the archive, and whether its metadata is authentic.
pub(super) struct Opener<'a> {
    record: &'a SecretObject,
    stored: &'a StoredRecord,
    recovered: &'a Recovered,
    namespace: String,
    authentic: Result<(), String>,
}

/// One version of a record's value.
pub(super) struct Version {
    /// Its number: as the bytes say if they open, else as the metadata says.
    pub(super) number: u64,
    /// What the authentic metadata says of an earlier version.
    pub(super) kept: Option<KeptVersion>,
    /// Its value, or why it does not open.
    pub(super) value: Result<Opened, String>,
}

/// A value that the key of its record opens: the operator wrote it for this ManagedSecret.
pub(super) struct Opened {
    pub(super) plaintext: Plaintext,
    /// Why it is not proven that this is the value which the record should hold, under the name that it should have.
    pub(super) doubt: Option<String>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(record: &'a SecretObject, stored: &'a StoredRecord, recovered: &'a Recovered) -> Self {
        let (namespace, _) = place(&record.metadata);
        let authentic = stored.verify(&namespace, |id| recovered.seed(id)).map_err(|error| match error {
            MacError::SeedUnknown(id) => {
                format!("its metadata was authenticated with seed {id}, which the recovery key did not open")
            }
            MacError::Malformed | MacError::Mismatch => "its metadata was altered".to_owned(),
        });
        Self { record, stored, recovered, namespace, authentic }
    }

    /// Whether the record proves its newest value.
    pub(super) fn is_whole(&self) -> bool {
        let newest = self.version(RECORD_DATA_KEY, self.stored.meta.version, None);
        newest.value.is_ok_and(|opened| opened.doubt.is_none())
    }

    /// Every version, the newest first.
    pub(super) fn versions(&self) -> Vec<Version> {
        let RecordMeta { version, history, .. } = &self.stored.meta;
        let mut versions = vec![self.version(RECORD_DATA_KEY, *version, None)];
        if self.authentic.is_ok() {
            versions.extend(history.iter().map(|kept| self.version(&kept.data_key(), kept.version, Some(kept))));
            return versions;
        }
        // What the metadata says of earlier versions may be wrong, too: look for them.
        let kept = self.record.data.iter().filter(|(key, bytes)| is_kept_key(key) && !bytes.as_slice().is_empty());
        let number = |key: &str| key.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let mut kept: Vec<_> = kept.map(|(key, _)| (number(key), key)).collect();
        kept.sort_unstable_by(|one, other| other.cmp(one));
        versions.extend(kept.into_iter().map(|(number, key)| self.version(key, number, None)));
        versions
    }

    /// The bytes under a key of the record's data, which the metadata describes as this version.
    fn version(&self, key: &str, number: u64, kept: Option<&KeptVersion>) -> Version {
        let bytes = self.record.data.get(key).map(SecretBytes::as_slice).unwrap_or_default();
        let at = Place { namespace: &self.namespace, object: &self.stored.meta.owner };
        let opened = Record::parse(bytes).and_then(|record| {
            let plaintext = mse1::open(&record, &at, |id| self.recovered.seed(id))?;
            Ok((record, plaintext))
        });
        match opened {
            Err(error) => Version { number, kept: kept.cloned(), value: Err(unopened(&error)) },
            Ok((record, plaintext)) => {
                let doubt = self.doubt(&record, number, kept);
                let kept = kept.filter(|_| doubt.is_none()).cloned();
                Version { number: record.version(), kept, value: Ok(Opened { plaintext, doubt }) }
            }
        }
    }

    /// Whether authentic metadata describes exactly these bytes.
    fn doubt(&self, record: &Record, number: u64, kept: Option<&KeptVersion>) -> Option<String> {
        let stored = self.stored;
        let commitment = kept.map_or(&stored.commitment, |kept| &kept.commitment);
        // An earlier value stays as an earlier ManagedSecret wrote it.
        let same_uid = kept.is_some() || record.uid() == stored.meta.uid;
        match &self.authentic {
            Err(why) => Some(why.clone()),
            Ok(()) if record.version() != number => Some(format!("its metadata says version {number}")),
            Ok(()) if record.commitment() != commitment || !same_uid => {
                Some("its data is not what its metadata describes".to_owned())
            }
            Ok(()) => None,
        }
    }
}

fn unopened(error: &OpenError) -> String {
    match error {
        OpenError::SeedUnknown(id) => unknown(*id),
        error => error.to_string(),
    }
}

fn unknown(id: SeedId) -> String {
    format!("it was encrypted with seed {id}, which the recovery key did not open")
}
