//! Who holds the key-encryption key, and how the keyring is loaded, first made, and its public half published.
//!
//! ```text
//!  Provider (local: a Secret; file: --kek-file) ──KEK──┐
//!  Secrets of type managedsecrets.dev/keyring ─────────┴─▶ KeyringStore ──▶ crypto::Keyring ──▶ `ConfigMap` (public key)
//! ```
//!
//! This room talks to the API server, in the operator's own namespace (and asks the served ones whether records exist).
//! It creates what is missing at the very first start and never replaces anything: without a KEK or a keyring that
//! should be there, it says what is missing and how to restore it.

mod error;
mod publish;
mod store;

pub use error::KeyringError;
pub use publish::{publish, stands};
pub use store::{KeyringStore, OverRecords, Unreadable};
