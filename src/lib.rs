//! managed-secrets: a Kubernetes operator that turns a `ManagedSecret` into an encrypted record and a Secret that
//! pods mount.
//!
//! ```text
//!   kubectl apply                                                              a pod
//!        │                                                                       ▲
//!        ▼                                                                       │ mounts
//!  ManagedSecret ──watch──▶ queue ──▶ observe ──▶ decide ──▶ act ──▶ record ──▶ target Secret
//!        ▲                 (engine)   (reads)     (pure)    (writes)   │ MSE1, under a seed
//!        │                                                    │        │ of the keyring, under
//!        └──────────────────── status ◀───────────────────────┘        ▼ the KEK (kek)
//!                                                                    etcd
//! ```
//!
//! | room | what it is for |
//! |---|---|
//! | [`api`] | the contract: resource types, names, limits and rules, condition reasons |
//! | [`crypto`] | `Plaintext`, the MSE1 and mss1 formats, keyring documents; bytes and keys only |
//! | [`kek`] | who holds the key-encryption key, and how the keyring is loaded and first made |
//! | [`engine`] | watches, queue, workers, clients, supervision; knows nothing of secrets |
//! | [`reconcile`] | observe → decide (pure) → act → status |
//! | [`admission`] | the webhooks that seal plaintext before it is stored, and their certificates |
//! | [`cli`] | the commands and what they print |
//!
//! Dependencies point downwards only: `cli → {admission, reconcile, engine} → {kek, crypto, api}`; `tests/layers.rs` keeps it so.

// What people read goes through `cli::say`, which makes every character of text that others wrote visible.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "operator")]
pub mod admission;
pub mod api;
pub mod cli;
pub mod crypto;
#[cfg(feature = "operator")]
pub mod engine;
pub mod kek;
#[cfg(feature = "operator")]
pub mod reconcile;
