//! The contract users see: the resource, its names and limits, its rules and condition reasons; and the metadata of
//! records, which the operator and `kubectl msec` both read.
//!
//! Knows serde and schemars, no client and no clock. Everything else in the tree draws limits, label keys, reasons and
//! defaults from here; a third party imports this room to talk to us.

pub mod crd;
mod defaults;
pub mod duration;
pub mod expiry;
pub mod keyring_request;
pub mod keys;
pub mod limits;
pub mod names;
pub mod overlap;
pub mod reason;
pub mod record;
pub mod restarts;
pub mod rules;
mod schema;
pub mod template;
pub mod types;
pub mod validate;
pub mod value;

pub use reason::Reason;
pub use types::{ManagedSecret, ManagedSecretSpec, ManagedSecretStatus};
pub use validate::{
    FieldReason, Violation, is_namespace_name, is_object_name, unknown_fields, validate, validate_spec,
};
