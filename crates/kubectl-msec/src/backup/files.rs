//! Where a backup is written: standard output, one file, or a folder with a file for each kind of thing to keep apart.
//!
//! Only their owner can read the files (mode 0600). A file gets its name when it is complete; until then, an earlier file of
//! that name stays. The target of a symbolic link is replaced, and the link stays. Pipes and devices are written to.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use managed_secrets_cli::{CliError, say};
use zeroize::Zeroizing;

use crate::archive::{Archive, manifests_in};

/// Where it goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// Standard output.
    Standard,
    /// One file.
    File(PathBuf),
    /// A folder, created if it is missing.
    Folder(PathBuf),
}

impl Destination {
    /// What `--out` means: a folder is one that exists, or ends in a slash.
    pub(crate) fn of(out: Option<&Path>) -> Self {
        match out {
            None => Self::Standard,
            Some(path) if path == Path::new("-") => Self::Standard,
            Some(path) if path.is_dir() || path.to_string_lossy().ends_with('/') => Self::Folder(path.to_owned()),
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// Writes it; `header` goes above each file, as comments.
    pub(crate) fn write(&self, archive: &Archive, header: &[String]) -> Result<(), CliError> {
        let whole = |archive: &Archive| {
            let comments: Vec<_> = header.iter().map(|line| format!("# {line}")).collect();
            Ok::<_, CliError>(Zeroizing::new(format!("{}\n{}", comments.join("\n"), archive.text()?)))
        };
        match self {
            Self::Standard => say::print_document(&whole(archive)?),
            Self::File(path) => write_to(path, archive, &whole(archive)?),
            Self::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error))?;
                let Archive { objects, records, keyrings, keks } = archive.clone();
                let parts = [
                    ("managed-secrets.yaml", Archive { objects, records, ..Archive::default() }),
                    ("keyring.yaml", Archive { keyrings, ..Archive::default() }),
                    ("kek.yaml", Archive { keks, ..Archive::default() }),
                ];
                let parts: Vec<_> =
                    parts.iter().filter(|(name, part)| part.len() > 0 || *name == "managed-secrets.yaml").collect();
                let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
                holds_nothing_else(folder, &names)?;
                parts.iter().try_for_each(|(name, part)| write_to(&folder.join(name), part, &whole(part)?))
            }
        }
    }
}

/// Refuses a folder with other manifests. A restore reads every manifest of a folder: those of an earlier backup would become
/// part of this one, and an earlier key-encryption key would be stored with the records that it opens.
fn holds_nothing_else(folder: &Path, names: &[&str]) -> Result<(), CliError> {
    let others: Vec<_> = manifests_in(folder)?
        .iter()
        .filter_map(|path| path.file_name())
        .filter(|name| !names.iter().any(|own| OsStr::new(own) == *name))
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "the folder {} contains {}, which is not part of this backup and would be restored with it; move it, or name another \
         folder",
        folder.display(),
        others.join(", ")
    )))
}

fn write_to(path: &Path, archive: &Archive, text: &str) -> Result<(), CliError> {
    // Follows links, those of /dev/stdout and /dev/fd among them.
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            replace(&path.canonicalize().map_err(|error| cannot_write(path, &error))?, text)
        }
        // A file that takes the name of a device would replace it.
        Ok(_) => write_into(path, archive, text),
        Err(_) if path.is_symlink() => {
            Err(CliError::Failed(format!("cannot write {}: it is a broken symbolic link", path.display())))
        }
        Err(_) => replace(path, text),
    }
}

fn write_into(path: &Path, archive: &Archive, text: &str) -> Result<(), CliError> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(|error| cannot_write(path, &error))?;
    if file.is_terminal() && !archive.keks.is_empty() {
        return Err(CliError::Usage("the key-encryption key is never written to a terminal".to_owned()));
    }
    file.write_all(text.as_bytes()).map_err(|error| cannot_write(path, &error))
}

fn replace(path: &Path, text: &str) -> Result<(), CliError> {
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
        // A part of a backup is useless.
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
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    use tempfile::{TempDir, tempdir};

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_alone_and_replaced_as_a_whole() {
        let folder = tempdir().unwrap();
        let out = folder.path().join("b.yaml");
        std::fs::write(&out, "before").unwrap();
        Destination::of(Some(&out)).write(&Archive::default(), &["one".to_owned(), "two".to_owned()]).unwrap();
        let (mode, text) = (std::fs::metadata(&out).unwrap().permissions().mode(), std::fs::read_to_string(&out));
        assert_eq!((names(&folder).len(), mode & 0o777, text.unwrap().as_str()), (1, 0o600, "# one\n# two\n"));
        assert_eq!(Destination::of(Some(Path::new("new/"))), Destination::Folder("new/".into()));
        assert_eq!(Destination::of(Some(Path::new("-"))), Destination::Standard);
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn write(out: &Path) -> Result<(), CliError> {
        Destination::of(Some(out)).write(&Archive::default(), &["one".to_owned()])
    }

    #[test]
    fn a_pipe_stays_a_pipe_and_a_link_a_link() {
        let folder = tempdir().unwrap();
        let (pipe, real, link, nowhere) = (
            folder.path().join("pipe"),
            folder.path().join("real"),
            folder.path().join("link"),
            folder.path().join("nowhere"),
        );
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Without a reader a pipe cannot be opened for writing.
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || std::fs::read_to_string(pipe).unwrap())
        };
        let written = write(&pipe);
        let is_pipe = std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo();
        // Else its name is another file's now, and who reads it waits for ever.
        assert!(is_pipe, "{written:?}");
        assert_eq!(reader.join().unwrap(), "# one\n");

        std::fs::write(&real, "before").unwrap();
        symlink("real", &link).unwrap();
        write(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "# one\n");

        symlink("missing", &nowhere).unwrap();
        assert!(write(&nowhere).unwrap_err().to_string().contains("broken symbolic link"));
        assert_eq!(names(&folder), ["link", "nowhere", "pipe", "real"]);
    }

    #[test]
    fn a_folder_that_holds_another_backups_key_is_refused_before_anything_is_written() {
        let folder = tempdir().unwrap();
        write(folder.path()).unwrap();
        write(folder.path()).unwrap();
        assert_eq!(names(&folder), ["managed-secrets.yaml"]);
        for stale in ["kek.yaml", "keyring.yaml", "older.json"] {
            let ours = folder.path().join("managed-secrets.yaml");
            std::fs::write(&ours, "before").unwrap();
            std::fs::write(folder.path().join(stale), "").unwrap();
            let error = write(folder.path()).unwrap_err().to_string();
            assert!(error.contains(stale), "{error}");
            assert_eq!(std::fs::read_to_string(&ours).unwrap(), "before");
            std::fs::remove_file(folder.path().join(stale)).unwrap();
        }
    }
}
