//! What is wrong with a manifest, where, and by which rule. Says what to write, never what was written.

use std::fmt;

pub(crate) use super::tree::Place;

/// Declares [`Rule`], so that an id and its description stand beside each other, once.
macro_rules! rules {
    ($($variant:ident = $id:literal, $doc:literal;)+) => {
        /// Which rule is broken; its id is what CI and SARIF know it by.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub(crate) enum Rule {
            $(#[doc = $doc] $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The id.
            pub(crate) const fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// What must hold.
            pub(crate) const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }
        }
    };
}

rules! {
    Syntax = "syntax", "The file must be YAML or JSON, in UTF-8.";
    Template = "template", "A manifest must not be a template: render it first, then check or seal the result.";
    Field = "field", "Every field must obey the API's rules.";
    UnknownField = "unknown-field", "Every field must be one that the API knows: the server drops others silently.";
    Ambiguous = "ambiguous", "A file must have one meaning: text that kubectl (YAML 1.1) reads differently is not \
                              allowed.";
    DuplicateKey = "duplicate-key", "A key must be given once in a map.";
    Alias = "alias", "A value must be written in its object: anchors, aliases and merge keys would copy it elsewhere.";
    NoText = "no-text", "A value must be a quoted string: YAML does not read unquoted numbers and words such as `yes` \
                         as strings.";
    Plaintext = "plaintext", "A value must be sealed.";
    PlaintextCopy = "plaintext-copy", "An annotation must not hold a plain value, or a packed copy of the manifest.";
    Nested = "nested", "A ManagedSecret inside another object or inside a text must not hold a plain value.";
    PlainSecret = "plain-secret", "A Secret must not hold data: everyone who can read the file can read the data.";
    WrongPlace = "wrong-place", "A sealed value must be used in the object or namespace that it is sealed for.";
    OtherKey = "other-key", "A value must be sealed for the given public key.";
    DuplicateObject = "duplicate-object", "An object must be given once.";
    DuplicateName = "duplicate-name", "A name (spec.name) must belong to one object of its namespace.";
    DuplicateTarget = "duplicate-target", "A Secret must be the target of one object.";
}

/// One broken rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) place: Place,
    /// Which rule.
    pub(crate) rule: Rule,
    /// The field, as `spec.target.name`; empty for what is no field's.
    pub(crate) field: String,
    /// What must hold, for people.
    pub(crate) message: String,
}

impl Problem {
    /// The problem, after the name of its file: `file:line:column: field: message`.
    pub(crate) fn in_file(&self, file: &str) -> String {
        format!("{file}:{}:{}: {self}", self.place.line, self.place.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}
