//! A backup with the same objects and records, whose keyrings have a new key-encryption key.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use managed_secrets_api::keys::{KEK_DATA_KEY, KEK_PREFIX, KEYRING_DATA_KEY, KEYRING_NAME, TYPE_KEK};
use managed_secrets_cli::CliError;
use managed_secrets_client::{SecretBytes, SecretObject};
use managed_secrets_crypto::Kek;
use managed_secrets_crypto::keyring::{KekError, Purpose, Wrapped};
use managed_secrets_crypto::provider::Provider;
use managed_secrets_crypto::recovery::Recovered;

use super::states;
use crate::archive::{Archive, StoredKeyring};

/// The archive, with one state of each object, under a new key-encryption key: that of `kek_file`, or one that is created and
/// added. Also a sentence for each object and key that is left out.
///
/// # Errors
/// If the operator could not start with it: the recovery key opens no active seed of the operator's own keyring.
pub(super) fn rekey(
    archive: &Archive,
    recovered: &Recovered,
    kek_file: Option<&Path>,
    now: Timestamp,
) -> Result<(Archive, Vec<String>), CliError> {
    let (archive, namespace) = archive.clone().of_operator(None).map_err(CliError::Failed)?;
    let (mut archive, mut left_out) = states::newest(archive, recovered)?;
    left_out.extend(recovered.lost().iter().map(|lost| format!("{lost}; the new backup does not contain this key")));
    let kek = match kek_file.map(Provider::file).transpose() {
        Ok(Some(Provider::File(kek))) => kek,
        Ok(_) => Kek::generate().map_err(|error| CliError::failed("cannot create a key-encryption key", &error))?,
        Err(error) => return Err(CliError::Usage(error.to_string())),
    };
    let provider = if kek_file.is_some() { Provider::FILE } else { Provider::LOCAL };
    let wrap = |bytes: &[u8]| Ok::<_, KekError>(Wrapped::new(provider, kek.key_id().to_string(), kek.wrap(bytes)?));
    let mut starts = false;
    for secret in std::mem::take(&mut archive.keyrings) {
        let Some(stored) = StoredKeyring::of(&secret) else { continue };
        let document =
            recovered.rewrap(&stored.document, wrap).map_err(|error| CliError::failed("cannot wrap a key", &error))?;
        starts |= stored.name == KEYRING_NAME && document.active_key(Purpose::Record, now).is_some();
        let json = serde_json::to_vec_pretty(&document)
            .map_err(|error| CliError::failed("cannot write the keyring", &error))?;
        if !document.entries.is_empty() {
            let data = [(KEYRING_DATA_KEY.to_owned(), SecretBytes::copy_of(&json))].into();
            archive.keyrings.push(SecretObject { data, ..secret });
        }
    }
    if !starts {
        return Err(CliError::Failed(format!(
            "the recovery key opens no active seed of {KEYRING_NAME}: an operator could not start with these keys. Write the \
             values with --out instead"
        )));
    }
    archive.keks = if kek_file.is_some() { Vec::new() } else { vec![secret_of(&kek, namespace)] };
    Ok((archive, left_out))
}

/// The Secret of a local key-encryption key, as the operator creates it.
fn secret_of(kek: &Kek, namespace: String) -> SecretObject {
    let name = format!("{KEK_PREFIX}{}", kek.key_id());
    SecretObject {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        type_: Some(TYPE_KEK.to_owned()),
        immutable: Some(true),
        data: [(KEK_DATA_KEY.to_owned(), SecretBytes::copy_of(kek.as_bytes()))].into(),
    }
}
