//! One line on a terminal that says how far a command is; nothing at all in a pipe.

use std::io::{IsTerminal as _, Write as _};

/// A line that is written over, on standard error. It is wiped when dropped.
pub(super) struct Progress {
    what: &'static str,
    shown: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, shown: std::io::stderr().is_terminal() }
    }

    /// Nothing is ever shown.
    pub(super) fn silent() -> Self {
        Self { what: "", shown: false }
    }

    /// So many.
    pub(super) fn count(&self, done: usize) {
        self.say(&format!("{} {done}", self.what));
    }

    /// So many of all.
    pub(super) fn of(&self, done: usize, all: usize) {
        self.say(&format!("{} {done} of {all}", self.what));
    }

    fn say(&self, text: &str) {
        if self.shown {
            // Nothing depends on it: an error is ignored.
            let _ = write!(std::io::stderr().lock(), "\r{text}\x1b[K").and_then(|()| std::io::stderr().flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
