//! Tests that concern a whole process run in one of their own: the test starts its own program again, for itself alone.

use std::{
    env, io,
    process::{Command, Output},
};

/// Tells the second process which test it is.
const CHILD: &str = "TESTKIT_CHILD";

/// Whether this process is the child that [`child`] started for the test `name`.
#[must_use]
pub fn is_child(name: &str) -> bool {
    env::var(CHILD).is_ok_and(|child| child == name)
}

/// Runs the test `name` (with its whole path) in a process of its own, and returns what it printed.
pub fn child(name: &str) -> io::Result<Output> {
    Command::new(env::current_exe()?).args(["--exact", name, "--nocapture"]).env(CHILD, name).output()
}
