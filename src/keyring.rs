//! Loads the keyring, creates the first one, changes it, and publishes its public key.
//!
//! ```text
//!  Providers (local: a Secret; file: --kek-file; KMS plugins) ──KEK──┐
//!  Secrets of type managedsecrets.dev/keyring ───────────────────────┴─▶ KeyringStore ──▶ crypto::Keyring ──▶ `ConfigMap`
//! ```
//!
//! This module calls the API server for the operator's own namespace, and asks in the managed namespaces whether records
//! exist. It creates missing keys only at the very first start and never replaces one: if an expected KEK or keyring is
//! missing, the error names it and says how to restore it. [`KeyringStore::change`] is the one way to change a keyring.

mod change;
mod error;
pub mod kms;
pub mod providers;
mod publish;
mod recovery;
mod rewrap;
mod rollback;
pub mod sealing;
pub mod seeds;
mod store;
mod unwrapped;
pub(crate) mod usage;
mod wrapper;

pub use change::OwnKeyring;
pub use error::KeyringError;
pub use publish::{Published, publish, published};
pub use rewrap::Due;
pub(crate) use rollback::RESTORE;
pub use store::{KeyringStore, OverRecords, Unreadable};
pub use wrapper::Wrapper;
