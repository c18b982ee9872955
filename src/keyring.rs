//! Loads the keyring, creates the first one, changes it, and publishes its public key.
//!
//! ```text
//!  Provider (local: a Secret; file: --kek-file) ──KEK──┐
//!  Secrets of type managedsecrets.dev/keyring ─────────┴─▶ KeyringStore ──▶ crypto::Keyring ──▶ `ConfigMap` (public key)
//! ```
//!
//! This module calls the API server for the operator's own namespace, and asks in the managed namespaces whether records
//! exist. It creates missing keys only at the very first start and never replaces one: if an expected KEK or keyring is
//! missing, the error names it and says how to restore it. [`KeyringStore::change`] is the one way to change a keyring.

mod change;
mod error;
mod publish;
mod recovery;
mod rollback;
pub mod sealing;
pub mod seeds;
mod store;
pub(crate) mod usage;
mod wrapper;

pub use change::OwnKeyring;
pub use error::KeyringError;
pub use publish::{Published, publish, published};
pub(crate) use rollback::RESTORE;
pub use store::{KeyringStore, OverRecords, Unreadable};
pub use wrapper::Wrapper;
