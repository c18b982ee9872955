//! Limits of the contract, and the times that Kubernetes uses.
//!
//! Source: `k8s.io/kms/apis/v2/api.proto`, and `kmsv2/envelope.go` of `k8s.io/apiserver`, which refuses what is beyond them.

use std::time::Duration;

/// Most bytes of the id of a key.
pub const MAX_KEY_ID: usize = 1024;
/// Most bytes of a ciphertext.
pub const MAX_CIPHERTEXT: usize = 1024;
/// Most bytes of the keys and values of all annotations together.
pub const MAX_ANNOTATIONS: usize = 32 * 1024;
/// The versions of the contract that are accepted; the two are equal.
pub const VERSIONS: [&str; 2] = ["v2", "v2beta1"];
/// What a healthy plugin answers.
pub const HEALTHY: &str = "ok";

/// How long a call may take, in seconds, by default.
pub const CALL_SECONDS: u16 = 10;
/// Time between two questions for the status of a healthy plugin. Never ask more often: for most plugins, one answer costs
/// an encryption by the remote KMS.
pub const POLL_HEALTHY: Duration = Duration::from_secs(60);
/// Time between two questions for the status of a plugin that is not healthy.
pub const POLL_UNHEALTHY: Duration = Duration::from_secs(10);

/// Most bytes of a message that is read: what the contract allows, and its encoding.
pub(crate) const MAX_MESSAGE: usize = 256 * 1024;
