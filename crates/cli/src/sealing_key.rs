//! The public key that a command seals with: from a file or from the cluster, and the one that was pinned.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, PUBLIC_KEY_CONFIGMAP, PUBLIC_KEY_DATA_KEY};
use managed_secrets_crypto::mss1::PublishedKey;

use super::permission::Permission;
use super::{CliError, say, text};
use crate::names;

/// Which key to seal with.
#[derive(Args, Clone, Debug)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct KeyArgs {
    /// File with the cluster's public key (sealing-key.json); when absent the command asks the cluster
    #[arg(long, value_name = "FILE", env = "MANAGED_SECRETS_PUBLIC_KEY")]
    pub public_key: Option<PathBuf>,

    /// Refuse a public key whose SHA-256 is not this one
    #[arg(long, value_name = "HEX", env = "MANAGED_SECRETS_FINGERPRINT")]
    pub fingerprint: Option<String>,

    /// Namespace that the cluster's public key is read from
    #[arg(long, value_name = "NAMESPACE", env = "MANAGED_SECRETS_OPERATOR_NAMESPACE",
        default_value = DEFAULT_OPERATOR_NAMESPACE, value_parser = names::namespace)]
    pub operator_namespace: String,
}

impl KeyArgs {
    /// The key of the file that is named, or of the cluster: `client` is called only where no file is.
    ///
    /// Says on standard error which key it is, unless that was pinned, and whether a key of a file is past its date.
    pub async fn key(&self, client: impl AsyncFnOnce() -> Result<Client, CliError>) -> Result<PublishedKey, CliError> {
        let pin = self.pin()?;
        let document = match &self.public_key {
            Some(file) => read_file(file)?,
            None => read_cluster(client().await?, &self.operator_namespace).await?,
        };
        let published = check(&document, pin.as_deref())?;
        if pin.is_none() {
            say::tell(format_args!("note: sealing with the public key with SHA-256 {}", published.key.fingerprint()));
        }
        // The cluster's current key is used even after its date: the operator replaces no key by itself.
        if self.public_key.is_some() && published.not_after < Timestamp::now() {
            say::tell(format_args!(
                "note: the date notAfter of this public key has passed ({}); run `kubectl msec public-key` to see the \
                 current key",
                published.not_after
            ));
        }
        Ok(published)
    }

    /// The SHA-256 that `--fingerprint` names, if it does.
    pub fn pin(&self) -> Result<Option<String>, CliError> {
        self.fingerprint.as_deref().map(fingerprint).transpose()
    }
}

/// A SHA-256 as people write it: 64 hex digits in either case, perhaps after `sha256:`.
pub fn fingerprint(text: &str) -> Result<String, CliError> {
    let digits = text.trim().trim_start_matches("sha256:").to_lowercase();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(CliError::Usage("--fingerprint must be a SHA-256: 64 hex digits".to_owned()))
    }
}

/// The document in a file.
pub fn read_file(file: &Path) -> Result<String, CliError> {
    text::read(&format!("--public-key {}", file.display()), file)
}

/// The document in the cluster's ConfigMap.
pub async fn read_cluster(client: Client, namespace: &str) -> Result<String, CliError> {
    let place = format!("the ConfigMap {namespace}/{PUBLIC_KEY_CONFIGMAP}");
    let permission = Permission::to("get", "configmaps").named(PUBLIC_KEY_CONFIGMAP).within(namespace);
    let found = Api::<ConfigMap>::namespaced(client, namespace)
        .get_opt(PUBLIC_KEY_CONFIGMAP)
        .await
        .map_err(|error| permission.explain(&format!("cannot read {place}"), &error))?;
    found.and_then(|map| map.data).and_then(|mut data| data.remove(PUBLIC_KEY_DATA_KEY)).ok_or_else(|| {
        CliError::Failed(format!(
            "{place} holds no public key; start the operator, or name its namespace with --operator-namespace, or a \
             key file with --public-key"
        ))
    })
}

/// The public key of the document, if it is the one that was pinned.
pub fn check(document: &str, pin: Option<&str>) -> Result<PublishedKey, CliError> {
    let published =
        PublishedKey::parse(document).map_err(|error| CliError::failed("cannot use the public key", &error))?;
    match pin {
        Some(pin) if pin != published.key.fingerprint() => Err(CliError::Failed(format!(
            "the public key has the SHA-256 {}, but --fingerprint names another one; check where the key comes from",
            published.key.fingerprint()
        ))),
        _ => Ok(published),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use managed_secrets_crypto::mss1::SealingKey;
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn only_the_pinned_key_is_used() {
        let key = SealingKey::new(Zeroizing::new([0x22; 32])).unwrap();
        let document = PublishedKey::new(key.public().clone(), Timestamp::UNIX_EPOCH).to_json().unwrap();
        let pin = "sha256:EFA4292736dc4550e9e73c92b3736fbe48757cc0516d9b5468be59ce270227ad";
        let pin = fingerprint(pin).unwrap();
        assert!(check(&document, Some(&pin)).is_ok());
        assert!(check(&document, None).is_ok());
        assert!(check(&document, Some(&"0".repeat(64))).is_err());
        for text in ["", "efa4", &"g".repeat(64), &"0".repeat(65)] {
            assert!(fingerprint(text).is_err());
        }
    }
}
