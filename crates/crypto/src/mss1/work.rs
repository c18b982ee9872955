//! How often text is sealed and opened: for tests of what a request costs. Counted by thread, since tests run beside
//! each other.

use std::cell::Cell;

thread_local! {
    static DONE: Cell<Work> = const { Cell::new(Work { sealed: 0, opened: 0 }) };
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Work {
    /// Values sealed.
    pub sealed: usize,
    /// How many sealed values were opened.
    pub opened: usize,
}

pub(super) fn count(add: impl FnOnce(&mut Work)) {
    let mut work = DONE.get();
    add(&mut work);
    DONE.set(work);
}

/// What this thread did since it was last asked.
#[must_use]
pub fn take() -> Work {
    DONE.take()
}
