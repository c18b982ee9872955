//! Opens a record's bytes, and checks that they are the ones that its authenticated metadata describes.

use managed_secrets_crypto::{
    Plaintext, Seed, SeedId,
    mse1::{self, OpenError, Place, Record},
};

use super::RecordMeta;

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
