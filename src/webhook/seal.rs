//! The sealing of one request: what is in clear, what it becomes. Pure.
//!
//! In: the object as it would be stored and as it is, then the keyring and whether the caller may read the value. Out:
//! what to replace, or why the request is refused. In between, [`Findings::right`] says which right has to be asked for.
//!
//! An unchanged plaintext keeps the stored sealed text, so that applying a manifest again changes nothing. That is a
//! comparison with a secret, so it is made only for callers who may read it: for others the stored text is not opened.

mod span;
mod unmoved;

use std::ops::Range;

use managed_secrets_api::{FieldReason, Violation, keys, limits::SEALED_PREFIX, types::Delivery};
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

/// Why a request is refused. The texts say the rule, never what was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A number, a boolean, a list or an object.
    #[error("must be a quoted string")]
    NotAString,
    /// Not within the limits of a value.
    #[error("{0}")]
    Value(ValueError),
    /// It begins as sealed text does, and is none.
    #[error(
        "{0}; seal the value again with `managed-secrets seal`, which also seals a value that begins with \
         \"{SEALED_PREFIX}\" itself"
    )]
    Malformed(FormatError),
    /// `generateName`: there is nothing to bind the sealed text to.
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

/// Why nothing was sealed although the request is valid.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The keyring has no active sealing key.
    #[error("the operator has no active sealing key")]
    NoKey,
    /// The cipher refused.
    #[error("the value was not sealed: {0}")]
    Seal(#[from] SealError),
}

impl From<Failure> for Violation {
    /// As for what is valid and not allowed at the moment. An internal error (500) would be more exact, but after one,
    /// `kubectl apply` prints the patch that it sent, value included.
    fn from(failure: Failure) -> Self {
        Self { path: VALUE_FIELD.to_owned(), message: failure.to_string(), reason: FieldReason::Forbidden }
    }
}

/// A right that shows who may read the stored value.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Right {
    /// `get` on the Secret of this name, which the value is delivered to.
    Secret(String),
    /// `get` on `managedsecrets/value` of the ManagedSecret of this name: its value is not delivered.
    Value(String),
}

/// What one request holds in clear.
pub struct Findings {
    namespace: String,
    name: String,
    /// What a value is sealed as: as the object's own `spec.delivery` has it.
    handling: Handling,
    value: Option<Plaintext>,
    copy: Option<Copy>,
    stored: Option<Stored>,
}

/// kubectl's copy of the manifest, and where in it values stand in clear.
struct Copy {
    text: String,
    /// In the order of the text. A repeated key counts with its last value; the others have no plaintext here, and are
    /// emptied: to seal each of them would let a small body ask for much work and a large answer.
    values: Vec<(Range<usize>, Option<Plaintext>)>,
}

/// Sealed text that is stored now, and belongs where it is.
struct Stored {
    text: String,
    sealed: Sealed,
    right: Right,
}

/// What the request becomes.
pub struct Outcome {
    /// JSON pointers and what to put there.
    pub replace: Vec<(&'static str, Value)>,
    /// A stored value was there to compare with, but the caller may not read it.
    pub unread: Option<Right>,
}

impl Findings {
    /// Looks for plaintext in `object`. `None`: there is none.
    pub fn of(
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

    /// What about the value is seldom meant, for a warning; see [`Plaintext::remark`].
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        self.value.as_ref()?.remark().map(|remark| format!("spec.value: {remark}"))
    }

    /// The right that decides whether stored text may be kept; `None` where there is none to keep.
    #[must_use]
    pub fn right(&self) -> Option<&Right> {
        self.stored.as_ref().map(|stored| &stored.right)
    }

    /// Whether the stored text was sealed for a key that this keyring lacks: it may be of another replica's making.
    #[must_use]
    pub fn lacks_a_key(&self, keyring: &Keyring) -> bool {
        let status = self.stored.as_ref().map(|stored| keyring.sealing_key(stored.sealed.key_id()));
        matches!(status, Some(SealingKeyStatus::Unknown))
    }

    /// Seals what is in clear. Whether the stored text may be kept is for `may_read` to say.
    pub fn seal(self, keyring: &Keyring, may_read: bool) -> Result<Outcome, Failure> {
        let Self { namespace, name, handling, value, copy, stored } = self;
        let key = keyring.current_public_key().ok_or(Failure::NoKey)?.key;
        let unread = stored.as_ref().filter(|_| !may_read).map(|stored| stored.right.clone());
        // Opened for those who may read it, and for nobody else: what is not computed cannot be measured.
        // Nor is text kept that was sealed for another delivery: text that may be delivered would undo `delivery: None`
        // as soon as the object is created again. A copy alone follows the text that stays in the object.
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
    /// Completes it for a write that changes nothing, so that nothing is written.
    #[must_use]
    pub fn unmoved(mut self, object: &Value, stored: Option<&Value>) -> Self {
        let managed = stored.and_then(|stored| unmoved::managed_fields(object, stored, &self.replace));
        self.replace.extend(managed.map(|managed| (unmoved::MANAGED_FIELDS, managed)));
        self
    }
}

impl Copy {
    /// `None`: nothing in it is in clear, or it is no JSON (a policy refuses what looks like plaintext there).
    fn of(text: &str) -> Result<Option<Self>, Refusal> {
        let mut values: Vec<(Range<usize>, Option<Plaintext>)> = Vec::new();
        for range in span::find(text, &["spec", "value"]).unwrap_or_default() {
            let part = &text[range.clone()];
            // Only text is decoded: what else it is, its first byte says, and in memory it could be many times as large.
            let value: Value = match part.as_bytes().first() {
                Some(b'"') => serde_json::from_str(part).unwrap_or_default(),
                Some(b'n') => Value::Null,
                _ => return Err(Refusal::NotAString),
            };
            // What begins as sealed text does was judged where it was a value.
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
        let right = match delivery(object) {
            Delivery::None => Right::Value(name.to_owned()),
            Delivery::Secret => Right::Secret(target.to_owned()),
        };
        Some(Self { text: text.to_owned(), sealed, right })
    }

    fn open(&self, keyring: &Keyring, namespace: &str, name: &str) -> Option<Plaintext> {
        match keyring.sealing_key(self.sealed.key_id()) {
            SealingKeyStatus::Usable(key) => self.sealed.open(key, namespace, name).ok(),
            SealingKeyStatus::Revoked | SealingKeyStatus::Unknown => None,
        }
    }
}

impl Right {
    /// API group, resource, subresource and name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str, &'static str, &str) {
        match self {
            Self::Secret(name) => ("", "secrets", "", name),
            Self::Value(name) => (keys::GROUP, keys::PLURAL, "value", name),
        }
    }
}

/// Whether an object's value is delivered. What is no delivery is refused by the CRD.
pub(super) fn delivery(object: &Value) -> Delivery {
    let given = object.pointer("/spec/delivery").map(Delivery::deserialize);
    given.and_then(Result::ok).unwrap_or_default()
}

/// The plaintext that a field holds; `None` where it is absent, null or sealed text.
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
