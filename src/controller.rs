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

pub mod act;
pub mod altered;
pub mod cluster;
pub mod conditions;
pub mod decide;
pub mod events;
pub mod facts;
pub mod failure;
mod health;
pub mod index;
pub mod keys;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod model;
pub mod plan;
pub mod record;
pub mod run;
pub mod scopes;
pub mod sinks;
pub mod view;
