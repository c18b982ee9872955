//! Where a sealed value may be used.

use std::fmt;

use crate::limits::{NAMESPACE_MAX, SECRET_NAME_MAX as NAME_MAX};

/// Where a sealed value may be used. Its `Display` reads after "sealed for".
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// In one `ManagedSecret`.
    Strict {
        /// Its namespace.
        namespace: String,
        /// Its `metadata.name`.
        name: String,
    },
    /// In any `ManagedSecret` of one namespace.
    Namespace {
        /// The namespace.
        namespace: String,
    },
    /// The whole cluster: everyone who may create a `ManagedSecret` in some namespace can have it opened.
    Cluster,
}

/// The value was sealed for another object or namespace.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sealed for {sealed_for}, used in {used_in}")]
pub struct WrongPlace {
    /// Where it belongs.
    pub sealed_for: Scope,
    /// `namespace/name` of the `ManagedSecret` that has it.
    pub used_in: String,
}

impl Scope {
    /// The namespace it is bound to, if any.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Strict { namespace, .. } | Self::Namespace { namespace } => Some(namespace),
            Self::Cluster => None,
        }
    }

    /// The `metadata.name` it is bound to, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Strict { name, .. } => Some(name),
            Self::Namespace { .. } | Self::Cluster => None,
        }
    }

    /// Whether a `ManagedSecret` `namespace/name` may use it.
    pub fn fits(&self, namespace: &str, name: &str) -> Result<(), WrongPlace> {
        let fits = self.namespace().is_none_or(|own| own == namespace) && self.name().is_none_or(|own| own == name);
        if fits { Ok(()) } else { Err(WrongPlace { sealed_for: self.clone(), used_in: format!("{namespace}/{name}") }) }
    }

    /// What stands for it in the low bits of the header's scope byte.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Strict { .. } => 0x01,
            Self::Namespace { .. } => 0x02,
            Self::Cluster => 0x03,
        }
    }

    /// The scope in a header, or which rule it breaks.
    pub(super) fn from_fields(code: u8, namespace: &[u8], name: &[u8]) -> Result<Self, &'static str> {
        let text = |field: &[u8]| String::from_utf8(field.to_vec()).map_err(|_| "must have names in ASCII");
        let (namespace, name) = (text(namespace)?, text(name)?);
        let scope = match (code, namespace.is_empty(), name.is_empty()) {
            (0x01, _, _) => Self::Strict { namespace, name },
            (0x02, _, true) => Self::Namespace { namespace },
            (0x03, true, true) => Self::Cluster,
            (0x02 | 0x03, ..) => return Err("must name only what its scope binds it to"),
            _ => return Err("must have scope 1, 2 or 3"),
        };
        scope.check()?;
        Ok(scope)
    }

    /// The rules for names. They are Kubernetes' own characters, so a message that shows a scope shows nothing odd.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let label = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        if let Some(namespace) = self.namespace()
            && !((1..=NAMESPACE_MAX).contains(&namespace.len()) && namespace.as_bytes().iter().all(label))
        {
            return Err("must name a namespace: 1 to 63 characters of a-z 0-9 -");
        }
        if let Some(name) = self.name()
            && !((1..=NAME_MAX).contains(&name.len()) && name.as_bytes().iter().all(|b| label(b) || *b == b'.'))
        {
            return Err("must name an object: 1 to 253 characters of a-z 0-9 - .");
        }
        Ok(())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Namespace { namespace } => write!(f, "namespace {namespace}"),
            Self::Cluster => f.write_str("the whole cluster"),
        }
    }
}
