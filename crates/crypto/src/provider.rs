//! Where a KEK comes from that this process holds: a Secret beside the keyring, or a mounted file.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::Kek;
use crate::encoding::{is_utf16, without_byte_order_mark};

/// Who holds the KEK that new seeds are wrapped by. Seeds wrapped by the other one are opened all the same.
#[derive(Debug)]
pub enum Provider {
    /// A Secret of the operator's namespace, created at the first start.
    ///
    /// It protects against people and backups that see tenants' namespaces only; not against a person who has all of
    /// an etcd that is not encrypted.
    Local,
    /// A file, as it was read.
    File(Kek),
}

/// Why a KEK file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KekFileError {
    /// It cannot be read.
    #[error("the KEK file {path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is text in an encoding that is not read.
    #[error("the KEK file {path} must be UTF-8 or 32 bytes, not UTF-16", path = path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// Its content is no KEK.
    #[error(
        "the KEK file {path} must hold 32 random bytes, raw or in base64 (create one with: head -c 32 /dev/urandom > \
         {path})",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
}

impl Provider {
    /// What the provider is called in a keyring when it is [`Provider::Local`].
    pub const LOCAL: &str = "local";
    /// What the provider is called in a keyring when it is [`Provider::File`].
    pub const FILE: &str = "file";
    /// With which a keyring calls a KMS plugin by its name: `kms:NAME`. A plugin keeps its KEK to itself.
    pub const KMS: &str = "kms:";

    /// Reads a KEK file: 32 bytes, or their base64 with or without a line end or a byte-order mark.
    pub fn file(path: &Path) -> Result<Self, KekFileError> {
        let content = std::fs::read(path)
            .map(Zeroizing::new)
            .map_err(|source| KekFileError::Read { path: path.to_owned(), source })?;
        parse(&content).map(Self::File).ok_or_else(|| {
            let path = path.to_owned();
            if is_utf16(&content) { KekFileError::Utf16 { path } } else { KekFileError::Content { path } }
        })
    }
}

fn parse(content: &[u8]) -> Option<Kek> {
    if content.len() == 32 {
        // 32 bytes of text are a password, or another encoding cut short. Random bytes are all text once in 10^12.
        let is_text = content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        return if is_text { None } else { Kek::new(content).ok() };
    }
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(without_byte_order_mark(content).trim_ascii()).ok()?);
    Kek::new(&decoded).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_the_bytes_or_their_base64() {
        let bytes: Vec<u8> = (100..132).collect();
        let id = Kek::new(&bytes).unwrap().key_id();
        let text = BASE64_STANDARD.encode(&bytes);
        let texts = [text.clone(), format!("{text}\n"), format!("\u{feff}{text}\r\n")].map(String::into_bytes);
        // Random bytes may begin as UTF-16 does.
        let random = [&[0xff, 0xfe][..], &bytes[2..]].concat();
        assert!(parse(&random).is_some());
        for content in texts.into_iter().chain([bytes.clone()]) {
            assert_eq!(parse(&content).unwrap().key_id(), id);
        }
        for content in [
            &b""[..],
            &bytes[1..],
            &[&bytes[..], &[0]].concat(),
            hex::encode(&bytes).as_bytes(),
            b"correct horse battery staple 123",
            b"correct horse battery staple 12\n",
            text.trim_end_matches('=').as_bytes(),
        ] {
            assert!(parse(content).is_none());
        }
    }

    #[test]
    fn errors_name_the_file_and_show_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        std::fs::write(&path, "hunter2").unwrap();
        let content = Provider::file(&path).unwrap_err().to_string();
        assert!(content.contains("must hold 32 random bytes") && !content.contains("hunter2"), "{content}");
        let text: Vec<u8> = "hunter2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, text).unwrap();
        let encoded = Provider::file(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(encoded.ends_with("must be UTF-8 or 32 bytes, not UTF-16"), "{encoded}");
        let read = Provider::file(&path).unwrap_err().to_string();
        assert!(read.contains(&path.display().to_string()) && read.contains("cannot be read"), "{read}");
    }
}
