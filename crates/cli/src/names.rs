//! Names that become part of the path of a request.
//!
//! kube puts them there as they are, so a text such as `../x`, `a/b`, `a?x` or `a%2fb` would be another path. What
//! comes from outside (flags, files, a status) is checked here before it can get there.

use std::fmt;

use managed_secrets_api::limits::{NAMESPACE_MAX, SECRET_NAME_MAX};
use managed_secrets_api::{is_namespace_name, is_object_name};

/// Why a text is not a valid name. It does not repeat the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InvalidName {
    /// Of a namespace.
    Namespace,
    /// Of an object in a namespace.
    Object,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => write!(
                f,
                "the name of a namespace must be at most {NAMESPACE_MAX} lower-case letters, digits and `-`, with a \
                 letter or digit at both ends"
            ),
            Self::Object => write!(
                f,
                "the name of an object must be at most {SECRET_NAME_MAX} lower-case letters, digits, `-` and `.`, with \
                 a letter or digit at both ends of each part"
            ),
        }
    }
}

impl std::error::Error for InvalidName {}

/// The name of a namespace. Flags that name one take their value through this.
pub fn namespace(text: &str) -> Result<String, InvalidName> {
    if is_namespace_name(text) { Ok(text.to_owned()) } else { Err(InvalidName::Namespace) }
}

/// The name of an object.
pub fn object(text: &str) -> Result<String, InvalidName> {
    if is_object_name(text) { Ok(text.to_owned()) } else { Err(InvalidName::Object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that would be another path, or none.
    const RUBBISH: [&str; 15] = [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/a",
        "a/",
        "a?x=y",
        "a#b",
        "a%2fb",
        "a b",
        "a\u{0}",
        "A",
        "\u{e4}",
        "a/../../b",
    ];

    #[test]
    fn what_would_be_another_path_is_no_name() {
        for text in RUBBISH {
            assert_eq!(namespace(text), Err(InvalidName::Namespace), "{text:?}");
            assert_eq!(object(text), Err(InvalidName::Object), "{text:?}");
        }
        assert_eq!(namespace("a.b"), Err(InvalidName::Namespace));
        for text in ["a", "0", "a-b"] {
            assert_eq!((namespace(text).as_deref(), object(text).as_deref()), (Ok(text), Ok(text)));
        }
        assert_eq!(object("a.b").as_deref(), Ok("a.b"));
        let long = "a".repeat(NAMESPACE_MAX + 1);
        assert!(
            namespace(&long).is_err() && object(&long).is_ok() && object(&"a".repeat(SECRET_NAME_MAX + 1)).is_err()
        );
    }
}
