//! From a ManagedSecret to its record, its target and its status.
//!
//! ```text
//! watches ──▶ index ──▶ facts ──▶ decide ──▶ act ──▶ status
//!             (cache)             (pure)     (reads and writes)
//!                         ▲                    │
//!                         └── what was learned ┘
//! ```
//!
//! A pass is a loop: [`decide`] looks at all that is known (the [`facts`]) and names one next step, a read or a write;
//! [`act`] performs it and puts what it learned back into the facts; until `decide` has nothing left to do. So every
//! rule of the API lives in a pure function, and a crash between two steps is nothing special: the next pass sees the
//! world as it is and goes on from there.

mod act;
mod altered;
mod cluster;
pub mod conditions;
mod decide;
mod events;
mod expiry;
pub mod facts;
mod failure;
pub(crate) mod health;
pub(crate) mod index;
mod kek;
pub(crate) mod keys;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod model;
mod plan;
pub mod record;
pub(crate) mod restarts;
pub mod rotations;
pub mod run;
mod scopes;
mod sealing_keys;
pub(crate) mod seeds;
pub(crate) mod sinks;
#[doc(hidden)]
pub mod timing;
pub mod view;
