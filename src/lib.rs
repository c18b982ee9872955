//! managed-secrets: a Kubernetes operator that turns a `ManagedSecret` into an encrypted record and a Secret that
//! pods mount.
//!
//! ```text
//!   kubectl apply                                                              a pod
//!        │                                                                       ▲
//!        ▼                                                                       │ mounts
//!  ManagedSecret ──watch──▶ queue ──▶ facts ───▶ decide ──▶ act ──▶ record ──▶ target Secret
//!        ▲                 (engine)  (known)     (pure)    (calls)    │ MSE1, under a seed
//!        │                                                    │       │ of the keyring, under
//!        └──────────────────── status ◀───────────────────────┘       ▼ the KEK
//!                                                                    etcd
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`controller`] | facts → decide (pure) → act → status |
//! | [`webhook`] | the webhooks that seal plaintext before it is stored, and their certificates |
//! | [`values`] | the value API: reads a value by name or id |
//! | [`keyring`] | how the keyring is loaded and first created, and its public key published |
//! | [`admin`] | the port for kubelets and Prometheus: health and metrics |
//! | [`access`] | who sent a request and what they may do, by TokenReview and SubjectAccessReview |
//! | [`install`] | what a cluster installs: the CRD, manifests, permissions and policies |
//! | [`run`] | the composition root: builds all of these, starts them and waits |
//! | [`args`], [`main`] | the command line |
//!
//! What the operator shares with its kubectl plugin is in the crates below it: `managed-secrets-api`, `-crypto`, `-client` and
//! `-cli`; what knows nothing of secrets in `managed-secrets-engine`.

// What people read goes through `cli::say`, which makes every character of text that others wrote visible.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod access;
pub mod admin;
pub mod args;
mod commands;
pub mod controller;
pub mod install;
pub mod keyring;
mod logging;
pub mod port;
pub mod run;
pub mod values;
pub mod webhook;

pub use commands::main;
