//! Opens a record's bytes, and checks that they are the ones that its authenticated metadata describes.

use managed_secrets_crypto::{
    Plaintext, Seed, SeedId,
    mse1::{self, OpenError, Place, Record},
};

use super::{KeptVersion, RecordMeta};

/// What a record holds.
pub struct Opened {
    /// The record's bytes.
    pub bytes: Record,
    /// The value.
    pub value: Plaintext,
}

/// Why a record's bytes give no value.
#[derive(Clone, Debug, PartialEq)]
pub enum Unopened {
    /// A stage of opening failed.
    Crypto(OpenError),
    /// The bytes are another version than the authenticated annotation says.
    OtherVersion,
    /// The bytes are not those that the MAC covers, or name another uid.
    Altered,
}

impl Unopened {
    /// Whether a keyring with more keys may open them.
    #[must_use]
    pub fn lacks_a_key(&self) -> bool {
        matches!(self, Self::Crypto(OpenError::SeedUnknown(_)))
    }
}

/// Opens the bytes of a record at `place`. `meta` and `commitment` come from metadata whose MAC is valid.
///
/// # Errors
/// If the bytes do not open, or if they are not those that the metadata describes.
pub fn open<'k>(
    bytes: &[u8],
    place: &Place<'_>,
    meta: &RecordMeta,
    commitment: &[u8; 32],
    lookup: impl FnOnce(SeedId) -> Option<&'k Seed>,
) -> Result<Opened, Unopened> {
    let record = Record::parse(bytes).map_err(Unopened::Crypto)?;
    let value = mse1::open(&record, place, lookup).map_err(Unopened::Crypto)?;
    if record.version() != meta.version {
        return Err(Unopened::OtherVersion);
    }
    if record.uid() != meta.uid || record.commitment() != commitment {
        return Err(Unopened::Altered);
    }
    Ok(Opened { bytes: record, value })
}

/// The bytes of one version, if they are those of this version and key commitment, which come from metadata whose MAC is
/// valid. They are not opened.
#[must_use]
pub fn stored(bytes: &[u8], version: u64, commitment: &[u8; 32]) -> Option<Record> {
    Record::parse(bytes).ok().filter(|record| record.version() == version && record.commitment() == commitment)
}

/// Opens an earlier value that a record at `place` keeps. `kept` comes from metadata whose MAC is valid. An earlier value
/// stays as an earlier ManagedSecret wrote it, so its uid may be another one: the key commitment covers it.
///
/// # Errors
/// If the bytes do not open, or if they are not those that the metadata describes.
pub fn open_kept<'k>(
    bytes: &[u8],
    place: &Place<'_>,
    kept: &KeptVersion,
    lookup: impl FnOnce(SeedId) -> Option<&'k Seed>,
) -> Result<Opened, Unopened> {
    let record = Record::parse(bytes).map_err(Unopened::Crypto)?;
    if record.version() != kept.version {
        return Err(Unopened::OtherVersion);
    }
    if *record.commitment() != kept.commitment {
        return Err(Unopened::Altered);
    }
    let value = mse1::open(&record, place, lookup).map_err(Unopened::Crypto)?;
    Ok(Opened { bytes: record, value })
}
