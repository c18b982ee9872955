//! The address of a plugin.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

const SCHEME: &str = "unix://";

/// Most bytes of the path of a socket on Linux (`sun_path` without its final zero).
const MAX_PATH: usize = 107;

/// A Unix socket that a plugin listens on, as Kubernetes writes it: `unix:///run/kms/socket`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Socket(PathBuf);

/// Why a text is no address of a plugin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SocketError {
    /// It is not `unix://` and an absolute path.
    #[error("must be unix:// and an absolute path, such as unix:///run/kms/plugin.sock")]
    Format,
    /// An abstract socket, which has no permissions.
    #[error("must not be an abstract socket: every process of the machine can connect to it")]
    Abstract,
    /// The system allows no such path.
    #[error("the path of a socket must not be longer than {MAX_PATH} bytes")]
    Long,
}

impl Socket {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Socket {
    type Err = SocketError;

    fn from_str(text: &str) -> Result<Self, SocketError> {
        let path = text.strip_prefix(SCHEME).ok_or(SocketError::Format)?;
        if path.starts_with('@') || path.starts_with("/@") {
            return Err(SocketError::Abstract);
        }
        if !path.starts_with('/') || path.ends_with('/') || path.contains(char::is_control) {
            return Err(SocketError::Format);
        }
        if path.len() > MAX_PATH {
            return Err(SocketError::Long);
        }
        Ok(Self(PathBuf::from(path)))
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0.display())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_an_absolute_path() {
        let socket: Socket = "unix:///run/kms/plugin.sock".parse().unwrap();
        assert_eq!(socket.path(), Path::new("/run/kms/plugin.sock"));
        assert_eq!(socket.to_string(), "unix:///run/kms/plugin.sock");
        for text in
            ["", "/run/kms/socket", "unix://run/socket", "unix:///", "unix:///run/", "tcp://127.0.0.1:1", "unix:///a\n"]
        {
            assert_eq!(text.parse::<Socket>().unwrap_err(), SocketError::Format, "{text:?}");
        }
        for text in ["unix:///@kms", "unix://@kms"] {
            assert_eq!(text.parse::<Socket>().unwrap_err(), SocketError::Abstract);
        }
        assert!(format!("unix:///{}", "a".repeat(MAX_PATH - 1)).parse::<Socket>().is_ok());
        assert_eq!(format!("unix:///{}", "a".repeat(MAX_PATH)).parse::<Socket>().unwrap_err(), SocketError::Long);
    }
}
