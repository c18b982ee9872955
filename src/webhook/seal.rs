//! Seals the plaintext of one request. Pure.
//!
//! In: the object as it would be stored and as it is stored, then the keyring and whether the caller may read the value.
//! Out: what to replace, or why the request is refused. In between, [`Findings::permission`] says which permission the
//! webhook must check.
//!
//! An unchanged plaintext keeps the stored sealed value, so applying a manifest again changes nothing. This compares the
//! plaintext with a secret, so the webhook does it only for callers who may read that secret: for other callers it does
//! not open the stored sealed value.

mod span;
mod unmoved;

use std::ops::Range;

use managed_secrets_api::{FieldReason, Violation, keys, limits::SEALED_PREFIX, types::Delivery, value};
use managed_secrets_crypto::{
    Keyring, Plaintext, ValueError,
    keyring::SealingKeyStatus,
    mss1::{self, FormatError, Handling, Scope, SealError, Sealed},
};
use serde::Deserialize as _;
use serde_json::Value;
use zeroize::Zeroizing;

/// JSON pointer to the value.
const VALUE: &str = "/spec/value";
/// The value as a field of a refusal.
const VALUE_FIELD: &str = "spec.value";
/// JSON pointer to kubectl's copy of the manifest.
const COPY: &str = "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration";

/// Why a request is refused. The texts say the rule and never repeat the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A number, a boolean, a list or an object.
    #[error("must be a quoted string")]
    NotAString,
    /// Not within the limits of a value.
    #[error("{0}")]
    Value(ValueError),
    /// It begins as a sealed value does, but is not one.
    #[error(
        "{0}; seal the value again with `managed-secrets seal`, which also seals a value that begins with \
         \"{SEALED_PREFIX}\" itself"
    )]
    Malformed(FormatError),
    /// `generateName`: there is no name to bind the sealed value to.
    #[error(
        "must be set, because the value is sealed for one object; with generateName, seal it with \
         `managed-secrets seal --scope namespace`"
    )]
    NoName,
}

impl From<Refusal> for Violation {
    fn from(refusal: Refusal) -> Self {
        let (path, reason) = match refusal {
            Refusal::NotAString => (VALUE_FIELD, FieldReason::TypeInvalid),
            Refusal::Value(ValueError::TooLong) => (VALUE_FIELD, FieldReason::TooLong),
            Refusal::Value(ValueError::Empty | ValueError::NotUtf8) | Refusal::Malformed(_) => {
                (VALUE_FIELD, FieldReason::Invalid)
            }
            Refusal::NoName => ("metadata.name", FieldReason::Required),
        };
        Self { path: path.to_owned(), message: refusal.to_string(), reason }
    }
}

/// Why a valid request was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The keyring has no active sealing key.
    #[error("the operator has no active sealing key; check the operator's log")]
    NoKey,
    /// Nothing new may be sealed at the moment.
    #[error("{0}")]
    Refused(String),
    /// The cipher refused.
    #[error("the value could not be sealed: {0}")]
    Seal(#[from] SealError),
}

impl From<Failure> for Violation {
    /// The violation says that a valid value is forbidden at the moment. An internal error (500) would be more exact, but
    /// after a 500 `kubectl apply` prints the patch that it sent, including the value.
    fn from(failure: Failure) -> Self {
        Self { path: VALUE_FIELD.to_owned(), message: failure.to_string(), reason: FieldReason::Forbidden }
    }
}

/// What a caller must be allowed to `get` in order to read the stored value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Permission {
    /// The Secret of this name: the value is delivered to it.
    Secret(String),
    /// The value itself: it is not delivered.
    Value(Handles),
}

/// How the value API calls a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Handles {
    /// `metadata.name` of the ManagedSecret.
    pub(super) object: String,
    /// Its name, and its current name if that differs.
    pub(super) names: Vec<String>,
    /// Its id, if it has one.
    pub(super) id: Option<String>,
}

/// An object that a permission is for: API group, resource, subresource and name.
pub(super) type Resource<'a> = (&'static str, &'static str, &'static str, &'a str);

/// The plaintext in one request.
pub(super) struct Findings {
    namespace: String,
    name: String,
    /// How the value is sealed: it follows the object's `spec.delivery`.
    handling: Handling,
    value: Option<Plaintext>,
    copy: Option<Copy>,
    stored: Option<Stored>,
}

/// kubectl's copy of the manifest, and the locations of plaintext values in it.
struct Copy {
    text: String,
    /// In the order of the text. Of a repeated key, the last value counts; the others have no plaintext here and are
    /// emptied: if each were sealed, a small body could cause much work and a large answer.
    values: Vec<(Range<usize>, Option<Plaintext>)>,
}

/// The sealed value that is stored now and was sealed for this object.
struct Stored {
    text: String,
    sealed: Sealed,
    permission: Permission,
}

/// What the request becomes.
pub(super) struct Outcome {
    /// JSON pointers and the new values.
    pub replace: Vec<(&'static str, Value)>,
    /// A stored value exists, but the caller may not read it, so it was not compared.
    pub unread: Option<Permission>,
}

impl Findings {
    /// Finds the plaintext in `object`. Returns `None` if it has no plaintext.
    pub(super) fn of(
        namespace: &str,
        object: &Value,
        stored: Option<&Value>,
        allow_cluster_scope: bool,
    ) -> Result<Option<Self>, Refusal> {
        let value = match object.pointer(VALUE) {
            Some(value) => plaintext(value)?,
            None => None,
        };
        let copy = object.pointer(COPY).and_then(Value::as_str).map(Copy::of).transpose()?.flatten();
        if value.is_none() && copy.is_none() {
            return Ok(None);
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::NoName);
        }
        let stored = stored.and_then(|stored| Stored::of(namespace, name, stored, allow_cluster_scope));
        let handling = match delivery(object) {
            Delivery::Secret => Handling::Deliverable,
            Delivery::None => Handling::Kept,
        };
        Ok(Some(Self { namespace: namespace.to_owned(), name: name.to_owned(), handling, value, copy, stored }))
    }

    /// Returns a warning about a property of the value that users rarely intend; see [`Plaintext::remark`].
    #[must_use]
    pub(super) fn remark(&self) -> Option<String> {
        self.value.as_ref()?.remark().map(|remark| format!("spec.value: {remark}"))
    }

    /// Returns the permission that decides whether the stored sealed value may be kept; `None` if none is stored.
    #[must_use]
    pub(super) fn permission(&self) -> Option<&Permission> {
        self.stored.as_ref().map(|stored| &stored.permission)
    }

    /// Whether the stored value was sealed with a key that this keyring lacks. Another replica may have created that key.
    #[must_use]
    pub(super) fn lacks_a_key(&self, keyring: &Keyring) -> bool {
        let status = self.stored.as_ref().map(|stored| keyring.sealing_key(stored.sealed.key_id()));
        matches!(status, Some(SealingKeyStatus::Unknown))
    }

    /// Seals the plaintext. `may_read` says whether the stored sealed value may be compared and kept.
    pub(super) fn seal(self, keyring: &Keyring, may_read: bool) -> Result<Outcome, Failure> {
        let Self { namespace, name, handling, value, copy, stored } = self;
        let key = keyring.current_public_key().ok_or(Failure::NoKey)?.key;
        let unread = stored.as_ref().filter(|_| !may_read).map(|stored| stored.permission.clone());
        // The stored value is opened only for callers who may read it: what is not computed cannot be measured.
        // A value that was sealed for another delivery is not kept either: a deliverable value would undo `delivery: None`
        // as soon as the object is created again. A copy alone follows the sealed value that stays in the object.
        let stored = stored.filter(|stored| may_read && (stored.sealed.handling() == handling || value.is_none()));
        let opened = stored.as_ref().and_then(|stored| stored.open(keyring, &namespace, &name));
        let mut done: Vec<(&Plaintext, String)> = Vec::new();
        done.extend(opened.as_ref().zip(stored.map(|stored| stored.text)));
        let scope = Scope::Strict { namespace, name };
        let mut seal = |plaintext| match done.iter().find(|(known, _)| known.same_as(plaintext)) {
            Some((_, text)) => Ok(text.clone()),
            None => mss1::seal(&key, &scope, handling, plaintext).inspect(|text| done.push((plaintext, text.clone()))),
        };
        let mut replace = Vec::new();
        if let Some(value) = &value {
            replace.push((VALUE, Value::from(seal(value)?)));
        }
        if let Some(copy) = &copy {
            let mut text = String::with_capacity(copy.text.len());
            let mut at = 0;
            for (range, plaintext) in &copy.values {
                let value = plaintext.as_ref().map(&mut seal).transpose()?;
                text.push_str(&copy.text[at..range.start]);
                text.push_str(&Value::from(value).to_string());
                at = range.end;
            }
            text.push_str(&copy.text[at..]);
            replace.push((COPY, Value::from(text)));
        }
        Ok(Outcome { replace, unread })
    }
}

impl Outcome {
    /// Whether it seals another value than the stored one.
    #[must_use]
    pub(super) fn is_new(&self, stored: Option<&Value>) -> bool {
        let before = stored.and_then(|stored| stored.pointer(VALUE));
        self.replace.iter().any(|(path, value)| *path == VALUE && Some(value) != before)
    }

    /// Adds the stored `managedFields` if the write changes nothing, so that the API server writes nothing.
    #[must_use]
    pub(super) fn unmoved(mut self, object: &Value, stored: Option<&Value>) -> Self {
        let managed = stored.and_then(|stored| unmoved::managed_fields(object, stored, &self.replace));
        self.replace.extend(managed.map(|managed| (unmoved::MANAGED_FIELDS, managed)));
        self
    }
}

impl Copy {
    /// Returns `None` if it has no plaintext or is not JSON. (A policy refuses a copy that looks like plaintext.)
    fn of(text: &str) -> Result<Option<Self>, Refusal> {
        let mut values: Vec<(Range<usize>, Option<Plaintext>)> = Vec::new();
        for range in span::find(text, &["spec", "value"]).unwrap_or_default() {
            let part = &text[range.clone()];
            // Only strings are decoded: the first byte tells the other types, which can be many times larger in memory.
            let value: Value = match part.as_bytes().first() {
                Some(b'"') => serde_json::from_str(part).unwrap_or_default(),
                Some(b'n') => Value::Null,
                _ => return Err(Refusal::NotAString),
            };
            // A text with the prefix of a sealed value was already checked as the value of an object.
            if value.as_str().is_some_and(|text| text.starts_with(SEALED_PREFIX)) {
                continue;
            }
            if let Some(plaintext) = plaintext(&value)? {
                if let Some((_, superseded)) = values.last_mut() {
                    *superseded = None;
                }
                values.push((range, Some(plaintext)));
            }
        }
        Ok((!values.is_empty()).then(|| Self { text: text.to_owned(), values }))
    }
}

impl Stored {
    fn of(namespace: &str, name: &str, object: &Value, allow_cluster_scope: bool) -> Option<Self> {
        let text = object.pointer(VALUE)?.as_str()?;
        let sealed = Sealed::parse(text).ok()?;
        sealed.fits(namespace, name).ok()?;
        if *sealed.scope() == Scope::Cluster && !allow_cluster_scope {
            return None;
        }
        let target = object.pointer("/spec/target/name").and_then(Value::as_str).unwrap_or(name);
        let permission = match delivery(object) {
            Delivery::None => Permission::Value(Handles::of(name, object)),
            Delivery::Secret => Permission::Secret(target.to_owned()),
        };
        Some(Self { text: text.to_owned(), sealed, permission })
    }

    fn open(&self, keyring: &Keyring, namespace: &str, name: &str) -> Option<Plaintext> {
        match keyring.sealing_key(self.sealed.key_id()) {
            SealingKeyStatus::Usable(key) => self.sealed.open(key, namespace, name).ok(),
            SealingKeyStatus::Revoked | SealingKeyStatus::Retired | SealingKeyStatus::Unknown => None,
        }
    }
}

impl Handles {
    fn of(name: &str, object: &Value) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let mut names: Vec<_> = ["/spec/name", "/status/name"].into_iter().filter_map(text).collect();
        names.dedup();
        Self { object: name.to_owned(), names, id: text("/status/id") }
    }

    /// Returns the name that messages use.
    pub(super) fn name(&self) -> &str {
        self.names.last().unwrap_or(&self.object)
    }
}

impl Permission {
    /// Returns the ways to this permission. Each is a list of objects that the caller must all be allowed to get.
    pub(super) fn ways(&self) -> Vec<Vec<Resource<'_>>> {
        match self {
            Self::Secret(name) => vec![vec![("", "secrets", "", name)]],
            Self::Value(Handles { object, names, id }) => {
                let by = |name| (value::GROUP, value::PLURAL, "", name);
                let by_name: Vec<_> = names.iter().map(|name| by(name.as_str())).collect();
                let by_id = id.iter().map(|id| vec![by(id)]);
                let formerly = vec![(keys::GROUP, keys::PLURAL, value::FORMER_SUBRESOURCE, object.as_str())];
                by_id.chain((!by_name.is_empty()).then_some(by_name)).chain([formerly]).collect()
            }
        }
    }
}

/// Returns whether the object's value is delivered. The CRD refuses an invalid `spec.delivery`.
pub(super) fn delivery(object: &Value) -> Delivery {
    let given = object.pointer("/spec/delivery").map(Delivery::deserialize);
    given.and_then(Result::ok).unwrap_or_default()
}

/// Returns the plaintext of a field; `None` if the field is absent, null or a sealed value.
fn plaintext(value: &Value) -> Result<Option<Plaintext>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.starts_with(SEALED_PREFIX) => {
            Sealed::parse(text).map(|_| None).map_err(Refusal::Malformed)
        }
        Value::String(text) => {
            Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).map(Some).map_err(Refusal::Value)
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Err(Refusal::NotAString),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
