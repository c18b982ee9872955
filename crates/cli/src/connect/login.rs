//! A user and a password in a URL, as Go's `net/url` reads them: for a server, and for a proxy.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// A user and a password. Not `Debug`: it is a credential.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Login {
    /// The name of the user; may be empty.
    pub(super) user: String,
    /// The password; empty if the URL has none.
    pub(super) password: String,
}

/// The user or the password is not valid. It is not repeated.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("its user or its password is not percent-encoded UTF-8")]
pub struct LoginError;

impl Login {
    /// Those of a URL, percent-decoded; `None` if it has none.
    pub(super) fn of(url: &Uri) -> Result<Option<Self>, LoginError> {
        let Some((encoded, _)) = url.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
            return Ok(None);
        };
        let (user, password) = encoded.split_once(':').unwrap_or((encoded, ""));
        Ok(Some(Self { user: decoded(user)?, password: decoded(password)? }))
    }

    /// The value of a header `authorization` or `proxy-authorization` (RFC 7617).
    pub(super) fn basic(&self) -> Result<HeaderValue, LoginError> {
        let pair = STANDARD.encode(format!("{}:{}", self.user, self.password));
        let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| LoginError)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn decoded(text: &str) -> Result<String, LoginError> {
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    // The crate leaves an invalid escape as it is, and Go refuses it.
    if !text.split('%').skip(1).all(is_escape) {
        return Err(LoginError);
    }
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| LoginError)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_decoded() {
        for (url, expected) in [
            ("https://host:1", None),
            ("https://me:pw@host:1", Some(("me", "pw"))),
            ("https://me@host", Some(("me", ""))),
            ("https://me:@host", Some(("me", ""))),
            ("https://:pw@host", Some(("", "pw"))),
            ("https://me%40home:p%3Aw%25@host", Some(("me@home", "p:w%"))),
            ("https://me:p:w@host", Some(("me", "p:w"))),
        ] {
            let login = Login::of(&url.parse().unwrap()).ok().unwrap();
            let found = login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn what_is_not_percent_encoded_utf_8_is_refused() {
        for url in ["https://me:50%@host", "https://me:%zz@host", "https://me:%a@host", "https://%ff@host"] {
            assert!(Login::of(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}
