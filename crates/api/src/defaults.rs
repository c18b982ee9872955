//! What absent fields mean. Nothing is defaulted in the stored object, so that it stays what the user applied; these
//! methods are the one place that knows the behaviour.

use std::{collections::BTreeMap, time::Duration};

use super::duration;
use super::keys::{DEFAULT_TARGET_KEY, DEFAULT_TARGET_TYPE};
use super::limits::{GENERATE_DEFAULT, HISTORY_DEFAULT};
use super::types::{
    Adoption, Alphabet, DeletionPolicy, Delivery, Generate, ManagedSecretSpec, ManagedSecretStatus, Target,
};

impl ManagedSecretSpec {
    /// The description; empty when absent, which is a wish and not "leave it as it was".
    #[must_use]
    pub fn description(&self) -> &str {
        self.description.as_deref().unwrap_or_default()
    }

    /// Whether the value is delivered.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery.unwrap_or_default()
    }

    /// What happens on deletion.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or_default()
    }

    /// Whether writes are suspended.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.suspend.unwrap_or(false)
    }

    /// How many earlier values the record keeps.
    #[must_use]
    pub fn history(&self) -> usize {
        usize::try_from(self.history.unwrap_or(HISTORY_DEFAULT)).unwrap_or_default()
    }

    /// The version to deliver; `None` is the newest.
    #[must_use]
    pub fn pinned(&self) -> Option<u64> {
        self.version.and_then(|version| version.try_into().ok())
    }

    /// Name of the target of the ManagedSecret called `metadata_name`, whether it is delivered or not.
    #[must_use]
    pub fn target_name<'a>(&'a self, metadata_name: &'a str) -> &'a str {
        self.of_target(|target| target.name.as_deref()).unwrap_or(metadata_name)
    }

    /// Key of the target's data that holds the value.
    #[must_use]
    pub fn target_key(&self) -> &str {
        self.of_target(|target| target.key.as_deref()).unwrap_or(DEFAULT_TARGET_KEY)
    }

    /// The template of the target: texts by their keys. `None` where there are none.
    #[must_use]
    pub fn template(&self) -> Option<&BTreeMap<String, String>> {
        self.of_target(|target| target.template.as_ref()).filter(|template| !template.is_empty())
    }

    /// Key of the target's data that holds the value as it is: [`target_key`](Self::target_key), unless the template
    /// replaces it.
    #[must_use]
    pub fn value_key(&self) -> Option<&str> {
        let key = self.target_key();
        self.template().is_none_or(|template| !template.contains_key(key)).then_some(key)
    }

    /// Type of the target.
    #[must_use]
    pub fn target_type(&self) -> &str {
        self.of_target(|target| target.type_.as_deref()).unwrap_or(DEFAULT_TARGET_TYPE)
    }

    /// Whether an existing Secret may be taken over as the target.
    #[must_use]
    pub fn adoption(&self) -> Adoption {
        self.of_target(|target| target.adoption).unwrap_or_default()
    }

    fn of_target<'a, T>(&'a self, field: impl FnOnce(&'a Target) -> Option<T>) -> Option<T> {
        self.target.as_ref().and_then(field)
    }
}

impl ManagedSecretStatus {
    /// The version that is delivered.
    #[must_use]
    pub fn delivered(&self) -> Option<i64> {
        self.delivered.or(self.version)
    }
}

impl Generate {
    /// How many characters to make.
    #[must_use]
    pub fn length(&self) -> usize {
        usize::try_from(self.length.unwrap_or(GENERATE_DEFAULT)).unwrap_or_default()
    }

    /// Which characters to choose from.
    #[must_use]
    pub fn alphabet(&self) -> Alphabet {
        self.alphabet.unwrap_or_default()
    }

    /// How old a value becomes before the next one is generated; `None` if there is no schedule.
    #[must_use]
    pub fn rotate_every(&self) -> Option<Duration> {
        self.rotate_every.as_deref().and_then(duration::parse)
    }
}

impl Alphabet {
    /// Its characters, each once, all ASCII.
    #[must_use]
    pub const fn characters(self) -> &'static str {
        match self {
            Self::Alphanumeric => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::AlphanumericSymbols => {
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&()*+,-./:;<=>?@[]^_{|}~"
            }
            Self::Hex => "0123456789abcdef",
            Self::Base64Url => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_alphabet_has_each_character_once_and_no_quotes() {
        for (alphabet, size) in [
            (Alphabet::Alphanumeric, 62),
            (Alphabet::AlphanumericSymbols, 90),
            (Alphabet::Hex, 16),
            (Alphabet::Base64Url, 64),
        ] {
            let characters = alphabet.characters();
            assert!(characters.bytes().all(|byte| byte.is_ascii_graphic() && !b"'\"`\\".contains(&byte)));
            assert_eq!(characters.bytes().collect::<BTreeSet<_>>().len(), characters.len());
            assert_eq!(characters.len(), size);
        }
    }

    #[test]
    fn absent_fields_mean_what_the_contract_says() {
        let spec = ManagedSecretSpec::default();
        assert_eq!(spec.description(), "");
        assert_eq!(spec.delivery(), Delivery::Secret);
        assert_eq!(spec.deletion_policy(), DeletionPolicy::Delete);
        assert_eq!(spec.adoption(), Adoption::Never);
        assert_eq!((spec.target_name("db"), spec.target_key(), spec.target_type()), ("db", "value", "Opaque"));
        assert!(!spec.suspended());
        assert_eq!(spec.history(), 1);
        assert_eq!(Generate::default().length(), 32);
        assert_eq!(Generate::default().alphabet(), Alphabet::Alphanumeric);
    }
}
