//! `create`, `update`, `delete`, `value`, `export`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
