//! The operator dies at its n-th request, before it is sent or after it is answered, for every n; another one starts,
//! and all ends as if nothing had happened. No target holds a wrong value on the way.
//!
//! And the real program: killed under load, told to end, told twice.
//!
//! ```text
//!  scenarios ──▶ sweep ──▶ snapshot     what is there in the end, without what may differ
//!  what users    dies at   history      what a pod could have read on the way
//!  and others do each n
//! ```
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod ending;
mod history;
mod load;
mod scenarios;
mod snapshot;
mod sweep;
