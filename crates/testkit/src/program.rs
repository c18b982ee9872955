//! The project's folder, and its programs as they were built with the tests.

use std::{env, fs, io, path::Path, sync::OnceLock};

/// The project's root folder.
pub fn root() -> &'static Path {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    this.parent().and_then(Path::parent).unwrap_or(this)
}

/// The path of the operator `managed-secrets`, for tests of another package than its own.
///
/// # Panics
///
/// As [`plugin`] does.
pub fn operator() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| built("managed-secrets"))
}

/// The path of the plugin `kubectl-msec`, for tests of another package than its own.
///
/// Cargo names a program only to the tests of its package (`CARGO_BIN_EXE_…`); of others it builds what is asked for.
///
/// # Panics
///
/// If it is not there, or older than its sources: cargo was asked to build a part of the workspace.
pub fn plugin() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| built("kubectl-msec"))
}

#[allow(clippy::panic, clippy::expect_used, reason = "a test cannot go on without its program")]
fn built(name: &str) -> String {
    let here = env::current_exe().expect("the path of this program");
    // target/debug/deps/TEST-HASH, or target/debug/examples/EXAMPLE.
    let path = here.ancestors().nth(2).expect("a target folder").join(name);
    if let Err(error) = is_current(&path) {
        panic!("{}: {error}; run `cargo build --workspace`", path.display());
    }
    path.display().to_string()
}

/// Fails if a program is not there, or older than a source file that it was built from. `cargo build` names these beside
/// it, in the format of make: `PROGRAM: FILE FILE…`. `cargo test` does not, and builds the program together with the tests.
fn is_current(path: &Path) -> io::Result<()> {
    let built = fs::metadata(path)?.modified()?;
    let Ok(sources) = fs::read_to_string(path.with_extension("d")) else { return Ok(()) };
    let (_, files) = sources.split_once(": ").unwrap_or_default();
    // A blank in a name is escaped.
    let files = files.replace("\\ ", "\0");
    for file in files.split_whitespace().map(|file| file.replace('\0', " ")) {
        // A file that was removed is a change, too.
        if fs::metadata(&file)?.modified()? > built {
            return Err(io::Error::other(format!("it is older than {file}")));
        }
    }
    Ok(())
}
