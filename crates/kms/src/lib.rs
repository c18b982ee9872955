//! Client of the KMS v2 plugins of Kubernetes, and a conformance test for them.
//!
//! ```text
//!  Socket ──▶ Plugin ──Status, Encrypt, Decrypt (gRPC over a Unix socket)──▶ plugin ──▶ KMS or HSM
//!                │
//!                └──▶ check ──▶ Report
//! ```
//!
//! The contract is Kubernetes' own: [`proto`] has the messages of `k8s.io/kms/apis/v2/api.proto`, and [`limits`] what the
//! API server checks in the answers. A plugin that works with an API server therefore works here, unmodified.
//!
//! All errors mean "retry": plugins answer every failure, from a missing permission to a ciphertext that was altered, with
//! the gRPC code `Unknown`. No error says that a key is lost.
//!
//! This crate knows nothing of Kubernetes' objects and of keyrings, and could serve any other program.

pub mod check;
mod client;
mod error;
pub mod limits;
pub mod proto;
mod socket;

pub use client::{Encrypted, Plugin, Status};
pub use error::{Call, KmsError, Violation};
pub use socket::{Socket, SocketError};
