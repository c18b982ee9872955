//! A real control plane for tests, demo and benchmark, and what the tests of several crates share.
//!
//! ```text
//!  binaries ──▶ supervisor ──▶ control_plane ──▶ access    clients, kubeconfigs, kubectl
//!  find, or     ends all       etcd, API         audit     what was asked, by whom
//!  build        with us        server, …         shared    one for many tests, a namespace each
//!                                                guest     what is made on a given cluster, and removed
//!                                                operator  its program, as a process
//!                                            front_proxy   certificates for the aggregator
//! ```
//!
//! It starts programs and writes below a temporary folder and the cache. Of the operator it knows only that it is a
//! program with a command `run`. Environment: `K8S`, `KUBEBUILDER_ASSETS`, `MANAGED_SECRETS_CACHE`,
//! `USE_EXISTING_CLUSTER` with `KUBECONFIG`.

pub mod access;
pub mod audit;
pub mod binaries;
pub mod child;
pub mod control_plane;
pub mod error;
pub mod front_proxy;
pub mod guest;
pub mod markdown;
pub mod operator;
pub mod program;
pub mod shared;
pub mod supervisor;

pub use access::Access;
pub use child::{child, is_child};
pub use control_plane::{Component, ControlPlane, Options, Serving, poll};
pub use error::{Error, Result};
pub use guest::Guest;
pub use operator::Operator;
pub use program::{operator, plugin, root};
