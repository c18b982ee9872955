//! Where a backup is written: standard output, one file, or a folder with a file for each kind of thing to keep apart.
//!
//! Files are for their owner alone (mode 0600), and take their name only when they are whole: what was there before stays
//! until then.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::msec::archive::Archive;
use crate::cli::{CliError, print};

/// Where it goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Destination {
    /// Standard output.
    Standard,
    /// One file.
    File(PathBuf),
    /// A folder, made where it is missing.
    Folder(PathBuf),
}

impl Destination {
    /// What `--out` means: a folder is one that exists, or ends in a slash.
    pub(super) fn of(out: Option<&Path>) -> Self {
        match out {
            None => Self::Standard,
            Some(path) if path == Path::new("-") => Self::Standard,
            Some(path) if path.is_dir() || path.to_string_lossy().ends_with('/') => Self::Folder(path.to_owned()),
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// Writes it; `header` goes above each file, as comments.
    pub(super) fn write(&self, archive: &Archive, header: &[String]) -> Result<(), CliError> {
        let whole = |archive: &Archive| {
            let comments: Vec<_> = header.iter().map(|line| format!("# {line}")).collect();
            Ok::<_, CliError>(Zeroizing::new(format!("{}\n{}", comments.join("\n"), archive.text()?)))
        };
        match self {
            Self::Standard => print(&whole(archive)?),
            Self::File(path) => write_file(path, &whole(archive)?),
            Self::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
                let Archive { objects, records, keyrings, keks } = archive.clone();
                let parts = [
                    ("managed-secrets.yaml", Archive { objects, records, ..Archive::default() }),
                    ("keyring.yaml", Archive { keyrings, ..Archive::default() }),
                    ("kek.yaml", Archive { keks, ..Archive::default() }),
                ];
                for (name, part) in
                    parts.iter().filter(|(name, part)| part.len() > 0 || *name == "managed-secrets.yaml")
                {
                    write_file(&folder.join(name), &whole(part)?)?;
                }
                Ok(())
            }
        }
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), CliError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.part", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|error| {
        // Half a backup is none.
        let _ = std::fs::remove_file(&unfinished);
        cannot_write(path, &error)
    })
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_alone_and_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("managed-secrets-backup-{}", std::process::id()));
        let out = folder.join("b.yaml");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&out, "before").unwrap();
        Destination::of(Some(&out)).write(&Archive::default(), &["one".to_owned(), "two".to_owned()]).unwrap();
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let (mode, text) = (std::fs::metadata(&out).unwrap().permissions().mode(), std::fs::read_to_string(&out));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((names.len(), mode & 0o777, text.unwrap().as_str()), (1, 0o600, "# one\n# two\n"));
        assert_eq!(Destination::of(Some(Path::new("new/"))), Destination::Folder("new/".into()));
        assert_eq!(Destination::of(Some(Path::new("-"))), Destination::Standard);
    }
}
