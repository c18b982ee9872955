//! Who holds KEKs: the one that wraps new keys, and those that only unwrap what they have wrapped before.

use std::sync::Arc;

use managed_secrets_crypto::{Kek, keyring::Document, provider::Provider};

use super::{
    KeyringStore,
    kms::{Kms, KmsAddress, KmsTiming},
};

/// The provider that wraps new keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Primary {
    /// A Secret of the operator's namespace.
    Local,
    /// The KEK file.
    File,
    /// The first KMS plugin.
    Kms,
}

/// The providers, as an administrator configures them. [`Primary`] names one of them.
#[derive(Debug)]
pub struct ProviderOptions {
    /// The one that wraps new keys.
    pub primary: Primary,
    /// The KEK file, as it was read.
    pub file: Option<Kek>,
    /// The plugins.
    pub kms: Vec<KmsAddress>,
    /// The times of plugins.
    pub timing: KmsTiming,
}

/// The providers. Local KEKs are Secrets, and need no configuration.
#[derive(Debug)]
pub struct Providers {
    pub(super) primary: Primary,
    pub(super) file: Option<Kek>,
    pub(super) kms: Vec<Arc<Kms>>,
    pub(super) timing: KmsTiming,
}

impl Providers {
    /// The plugin with this name in the keyring.
    pub(super) fn plugin(&self, provider: &str) -> Option<&Arc<Kms>> {
        let name = provider.strip_prefix(Provider::KMS)?;
        self.kms.iter().find(|kms| kms.name() == name)
    }

    /// What the keyring calls the provider that wraps new keys.
    pub(super) fn primary(&self) -> String {
        match (self.primary, self.kms.first()) {
            (Primary::Kms, Some(kms)) => kms.provider(),
            (Primary::File, _) => Provider::FILE.to_owned(),
            (Primary::Local | Primary::Kms, _) => Provider::LOCAL.to_owned(),
        }
    }
}

impl KeyringStore {
    /// The KMS plugins, the primary one first.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<Kms>] {
        &self.providers.kms
    }

    /// The times of plugins.
    #[must_use]
    pub fn kms_timing(&self) -> KmsTiming {
        self.providers.timing
    }

    /// What the keyring calls the provider that wraps new keys.
    #[must_use]
    pub fn primary(&self) -> String {
        self.providers.primary()
    }

    /// Why no new value may be encrypted, if so: a plugin has been silent for longer than the time of grace, and its KEK may
    /// be lost with everything that is under it. The text stays the same for as long as this lasts.
    #[must_use]
    pub fn refuses_new(&self) -> Option<String> {
        let grace = self.providers.timing.grace;
        let silent = |kms: &&Arc<Kms>| kms.trouble().is_some_and(|(time, _)| time >= grace);
        let silent: Vec<_> = self.providers.kms.iter().filter(silent).map(|kms| kms.provider()).collect();
        if silent.is_empty() {
            return None;
        }
        let needed = |document: &Document| {
            let needs = |provider: &&String| document.entries.iter().any(|entry| entry.wrapped.provider == **provider);
            silent.iter().find(needs).map(|provider| provider.trim_start_matches(Provider::KMS).to_owned())
        };
        let name = self.history.own(needed)??;
        Some(format!(
            "KMS plugin {name} has not answered for longer than --kms-grace, so no new value is encrypted until it does; what \
             is delivered stays"
        ))
    }
}

impl From<Provider> for ProviderOptions {
    fn from(provider: Provider) -> Self {
        let (primary, file) = match provider {
            Provider::Local => (Primary::Local, None),
            Provider::File(kek) => (Primary::File, Some(kek)),
        };
        Self { primary, file, kms: Vec::new(), timing: KmsTiming::default() }
    }
}

/// Needs a Tokio runtime if there are plugins.
impl<O: Into<ProviderOptions>> From<O> for Providers {
    fn from(options: O) -> Self {
        let ProviderOptions { primary, file, kms, timing } = options.into();
        let kms = kms.iter().map(|address| Arc::new(Kms::new(address, &timing))).collect();
        Self { primary, file, kms, timing }
    }
}
