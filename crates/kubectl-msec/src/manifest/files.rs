//! Where manifests come from, and how they go back: files, folders, standard input.
//!
//! A file is replaced whole or not at all: the new text is written beside it and takes its place by a rename, so that a
//! crash leaves the old file or the new one. What is written never holds a value that was sealed. Symbolic links are
//! followed; permissions stay. Only regular files are replaced: a pipe gives its text once and has no
//! content to replace.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use managed_secrets_cli::CliError;
use managed_secrets_cli::text::not_utf8;
use managed_secrets_crypto::encoding::is_utf16;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::problem::Place;
use super::{Problem, Rule, Stream};

/// Ends of the names of manifests, as kubectl has them.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Which manifests.
#[derive(Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// File, folder, or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Read folders with all their subfolders
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// One manifest.
pub(crate) struct Source {
    /// Where it is; `None` for standard input.
    pub(crate) path: Option<PathBuf>,
    /// What messages call it.
    pub(crate) name: String,
    /// Whether it was named, as opposed to found in a folder.
    pub(crate) named: bool,
    /// Its text.
    pub(crate) text: Zeroizing<String>,
    /// Where it stops being UTF-8, and the message: from there on, `text` contains replacement characters.
    pub(crate) no_text: Option<(Place, &'static str)>,
}

impl FileArgs {
    /// Reads them all, to rewrite some of them: like [`FileArgs::read`], but accepts regular files only, checked before
    /// a byte is read.
    pub(crate) fn read_to_replace(&self) -> Result<Vec<Source>, CliError> {
        let special = self.files.iter().find(|path| !is_standard_input(path) && is_special(path));
        match special {
            Some(path) => Err(special_file(path)),
            None => self.read(),
        }
    }

    /// Reads them all, files of folders in the order of their names; each file once.
    pub(crate) fn read(&self) -> Result<Vec<Source>, CliError> {
        let (mut sources, mut seen) = (Vec::new(), HashSet::new());
        for path in &self.files {
            let mut add = |path: Option<&Path>, named| {
                // One file by two names is one file: to write it twice would be to overwrite a change.
                let one = path.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
                if seen.insert(one) {
                    sources.push(Source::read(path, named)?);
                }
                Ok::<_, CliError>(())
            };
            if is_standard_input(path) {
                add(None, true)?;
            } else if path.is_dir() {
                let mut found = Vec::new();
                find(path, self.recursive, &mut found).map_err(|error| unreadable(path, &error))?;
                for file in found {
                    add(Some(&file), false)?;
                }
            } else {
                add(Some(path), true)?;
            }
        }
        Ok(sources)
    }
}

/// Whether this names standard input. As a path it could be a terminal, a pipe, or a file, which `seal` would then
/// write.
pub(crate) fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin")
}

/// Whether this is neither file nor folder: a pipe, a device.
fn is_special(path: &Path) -> bool {
    // A missing file is an error when it is read.
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn special_file(path: &Path) -> CliError {
    CliError::Usage(format!(
        "{}: must be a regular file, because the command writes it; use `-f -` to read a pipe",
        path.display()
    ))
}

fn find(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Not through links, so that the way has an end.
        if entry.file_type()?.is_dir() {
            if recursive {
                find(&path, recursive, found)?;
            }
        } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
            && path.is_file()
        {
            found.push(path);
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::Usage(format!("{}: {error}", path.display()))
}

impl Source {
    /// Reads a file, or standard input.
    pub(crate) fn read(path: Option<&Path>, named: bool) -> Result<Self, CliError> {
        let name = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let mut bytes = Zeroizing::new(Vec::new());
        let read = match path {
            Some(path) => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
            None => io::stdin().lock().read_to_end(&mut bytes),
        };
        read.map_err(|error| CliError::Usage(format!("{name}: {error}")))?;
        let rule = not_utf8(&bytes);
        let (text, no_text) = match String::from_utf8(std::mem::take(&mut *bytes)) {
            // Without its byte-order mark, UTF-16 is UTF-8 with NUL in it.
            Ok(text) if is_utf16(text.as_bytes()) => (text, Some((Place { line: 1, column: 1 }, rule))),
            Ok(text) => (text, None),
            Err(error) => {
                let end = error.utf8_error().valid_up_to();
                let bytes = Zeroizing::new(error.into_bytes());
                let line = bytes.iter().take(end).filter(|byte| **byte == b'\n').count() + 1;
                (String::from_utf8_lossy(&bytes).into_owned(), Some((Place { line, column: 1 }, rule)))
            }
        };
        Ok(Self { path: path.map(Path::to_owned), name, named, text: Zeroizing::new(text), no_text })
    }

    /// Its folder, as a canonical path; `None` for standard input.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let folder = self.path.as_ref()?.parent()?;
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Some(fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()))
    }

    /// What it holds.
    pub(crate) fn stream(&self) -> Result<Stream<'_>, Problem> {
        if let Some((place, message)) = self.no_text {
            return Err(Problem { place, rule: Rule::Syntax, field: String::new(), message: message.to_owned() });
        }
        Stream::read(&self.text)
    }

    /// Whether it may be skipped if it cannot be read: it was not named, and it has none of these words. Many YAML
    /// files are templates, or for programs that read more than YAML.
    pub(crate) fn may_be_skipped(&self, words: &[&str]) -> bool {
        // UTF-16, which kubectl reads, puts a NUL beside each of these letters.
        let text = Zeroizing::new(self.text.replace('\0', ""));
        !self.named && !words.iter().any(|word| text.contains(word))
    }
}

/// A file's new text, on the disk beside it. Dropped, it is removed.
pub(crate) struct Replacement {
    file: PathBuf,
    beside: PathBuf,
    before: Zeroizing<String>,
    done: bool,
}

impl Replacement {
    /// Writes the new text beside the file. The file stays as it is.
    pub(crate) fn prepare(file: &Path, before: &str, after: &str) -> Result<Self, CliError> {
        let failed = |error: io::Error| CliError::Failed(format!("cannot write {}: {error}", file.display()));
        // Behind a link: the link stays one.
        let real = fs::canonicalize(file).map_err(failed)?;
        let found = fs::metadata(&real).map_err(failed)?;
        // It may have become one since it was read. A pipe would be waited for in vain.
        if !found.is_file() {
            return Err(special_file(file));
        }
        let permissions = found.permissions();
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let beside = real.with_file_name(format!(".{name}.{}.tmp", Uuid::new_v4().simple()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = options.open(&beside).map_err(failed)?;
        let this = Self { file: real, beside, before: Zeroizing::new(before.to_owned()), done: false };
        out.write_all(after.as_bytes()).map_err(failed)?;
        out.set_permissions(permissions).map_err(failed)?;
        // On the disk before the rename is: or a crash could leave an empty file.
        out.sync_all().map_err(failed)?;
        Ok(this)
    }

    /// Replaces the file with the new text, unless another program has changed the file since it was read.
    pub(crate) fn commit(mut self) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::Failed(format!("cannot write {}: {error}", self.file.display()));
        let now = Zeroizing::new(fs::read(&self.file).map_err(failed)?);
        if *now != self.before.as_bytes() {
            let file = self.file.display();
            return Err(CliError::Failed(format!(
                "{file} was changed by another program and stays unchanged; run the command again"
            )));
        }
        fs::rename(&self.beside, &self.file).map_err(failed)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done {
            // An error is ignored: the file holds no value that was sealed.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_permissions_and_through_links() {
        let folder = tempdir().unwrap();
        let (file, link) = (folder.path().join("a.yaml"), folder.path().join("link.yaml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a.yaml", &link).unwrap();
        Replacement::prepare(&link, "old", "new").unwrap().commit().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&folder).len(), 2, "nothing is left beside it");
    }

    #[test]
    fn a_crash_before_the_rename_loses_nothing_and_a_change_meanwhile_is_not_overwritten() {
        let folder = tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "old").unwrap();
        // As a crash would: nothing of it is run.
        std::mem::forget(Replacement::prepare(&file, "old", "new").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        drop(Replacement::prepare(&file, "old", "newer").unwrap());
        assert_eq!(names(&folder).len(), 2, "only what the crash left");

        let replacement = Replacement::prepare(&file, "old", "new").unwrap();
        assert_eq!(fs::read_to_string(&replacement.beside).unwrap(), "new", "and nothing of the old text");
        fs::write(&file, "edited").unwrap();
        let refused = replacement.commit().unwrap_err();
        assert!(refused.to_string().contains("changed by another program"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "edited");
    }

    #[test]
    fn folders_are_read_as_kubectl_reads_them() {
        let folder = tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        for name in ["b.yml", "a.yaml", "c.json", "d.txt", "deep/e.yaml"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let read = |recursive| {
            let twice = folder.path().join("deep/../a.yaml");
            let args =
                FileArgs { files: vec![folder.path().to_owned(), folder.path().join("a.yaml"), twice], recursive };
            args.read().unwrap().iter().map(|source| source.text.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(read(false), ["a.yaml", "b.yml", "c.json"]);
        assert_eq!(read(true), ["a.yaml", "b.yml", "c.json", "deep/e.yaml"]);
        assert!(FileArgs { files: vec![folder.path().join("none.yaml")], recursive: false }.read().is_err());
    }
}
