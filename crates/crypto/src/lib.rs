//! Values, keys and the formats they rest in.
//!
//! ```text
//!  sealed value ─mss1──▶ Plaintext ──mse1──▶ record bytes        the record's metadata ──mac──▶ one annotation
//!                 ▲                    ▲                                                ▲
//!            SealingKey              Seed ──────────────────────────────────────────────┘
//!                 └──────── keyring ───┘ ◀── KEK (from [`provider`]), or the [`recovery`] key
//! ```
//!
//! This crate knows bytes and keys and nothing of Kubernetes: it has no client, no clock and no resource types, and
//! could serve any other program. AEADs, KDFs and HPKE come from crates; what is decided here is what they are fed.
//! `docs/formats.md` describes every format for other programs.
//!
//! Hygiene: keys and plaintexts are zeroized on drop and show nothing in `Debug`; errors name the step that failed,
//! never a value, a part of one, or its length.

mod aead;
mod codec;
pub mod encoding;
mod id;
pub mod keyring;
pub mod limits;
pub mod mac;
pub mod mse1;
pub mod mss1;
mod plaintext;
pub mod provider;
mod random;
pub mod recovery;
mod seed;

pub use codec::FieldTooLong;
pub use id::{KeyId, SeedId};
pub use keyring::{Kek, Keyring};
pub use plaintext::{GenerateError, Plaintext, ValueError};
pub use random::RandomError;
pub use seed::Seed;
