//! Files that only their owner can read, and that replace nothing: recovery keys and recovered values.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use managed_secrets_cli::CliError;

/// Writes a new file with mode 0600.
///
/// # Errors
/// If something has this name already, or if the file cannot be written; what was written of it is removed.
pub(super) fn create(path: &Path, text: &str) -> Result<(), CliError> {
    let cannot = |error: std::io::Error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(CliError::Usage(format!(
                "{} already exists, and is not overwritten; name another file",
                path.display()
            )));
        }
        Err(error) => return Err(cannot(error)),
    };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        cannot(error)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_for_its_owner_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path, "one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = create(&path, "two").unwrap_err();
        assert!(matches!(&error, CliError::Usage(why) if why.contains("already exists")), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        // Nor what a link leads to, whether it exists or not.
        for target in ["key", "missing"] {
            let link = folder.path().join(format!("link-to-{target}"));
            symlink(folder.path().join(target), &link).unwrap();
            create(&link, "two").unwrap_err();
        }
        assert!(!folder.path().join("missing").exists());
        let error = create(&folder.path().join("no/such/folder"), "one").unwrap_err();
        assert!(matches!(error, CliError::Failed(_)));
    }
}
