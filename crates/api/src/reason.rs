//! Why a condition is what it is: a closed set, documented one by one.
//!
//! The text of each variant is written once and serves rustdoc, `docs/reasons.md` and [`Reason::description`]: what the
//! reason means, then what to do about it.

use std::fmt;

/// Declares [`Reason`] so that a variant's documentation is also its description.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// Reason of the `Ready` condition, and of the events about a ManagedSecret.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason as a condition or an event carries it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            /// What it means and what to do, in one or a few sentences for users.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// Nothing is known yet: the operator has not looked at this object. If it stays so, the operator is not running or
    /// does not watch this namespace.
    Pending,
    /// The value is encrypted in its record and delivered as the spec says. Nothing to do.
    Served,
    /// `spec.suspend` is true: record and target are not written. Set it to false, or remove it, to go on.
    Suspended,
    /// The object lives in the operator's own namespace, which is never served because the keys live there. Move it to
    /// another namespace.
    NamespaceNotServed,
    /// The spec breaks a rule; the message names the field and the rule. Correct the field. What is served stays served.
    InvalidSpec,
    /// The source's content is not a value: it must be valid UTF-8 of 1 to 3500 characters. Correct the source; what is
    /// served stays served.
    InvalidValue,
    /// Another object of this namespace holds the name; the message says which. Rename or delete one of the two. A
    /// Secret that was retained holds its name until it is deleted.
    NameInUse,
    /// The backing Secret that this name would use holds a different name. Choose another name.
    NameCollision,
    /// The Secret that `spec.valueFrom` names does not exist. Create it; what is served stays served.
    SourceNotFound,
    /// The Secret that `spec.valueFrom` names lacks the key. Add the key; what is served stays served.
    SourceKeyNotFound,
    /// The object takes its value from the target of another, that one from a third, and so on, back to the first; the
    /// message names them. So no value is followed. Give one of them another source or target; what is delivered stays
    /// delivered.
    SourceRing,
    /// `spec.value` is not well-formed sealed text. Seal the value again.
    SealedMalformed,
    /// `spec.value` was sealed for another namespace or object; the message says for which. Seal the value for this
    /// object, or use it where it belongs.
    SealedForAnotherPlace,
    /// `spec.value` was sealed with cluster scope, which this operator does not allow. Seal it with a narrower scope, or
    /// run the operator with `--allow-cluster-scope`.
    SealedScopeNotAllowed,
    /// This cluster has no key that opens `spec.value`; the message holds the key's id. Seal the value with this
    /// cluster's public key, or restore the keyring that has the key.
    SealedWithUnknownKey,
    /// `spec.value` was sealed with a key that has been revoked. Seal the value with the present key; what is served
    /// stays served.
    SealedWithRevokedKey,
    /// `spec.value` does not open: it was altered or cut. Seal the value again.
    SealedTampered,
    /// The record's metadata is not what the operator wrote, or names another id than status. Restore the record, or
    /// delete it to have it rebuilt from the source.
    RecordTampered,
    /// The record's content is not in the MSE1 format. Restore the record, or delete it to have it rebuilt from the
    /// source.
    RecordMalformed,
    /// The record was moved here from another object, or its header was altered. Restore the right record, or delete it
    /// to have it rebuilt from the source.
    RecordMoved,
    /// The keyring lacks the key that the record was encrypted with. Restore the keyring; the message names the key.
    SeedUnknown,
    /// The record does not match its key commitment: it was altered. Restore the record, or delete it to have it rebuilt
    /// from the source.
    RecordCommitmentMismatch,
    /// The record's encrypted value was altered. Restore the record, or delete it to have it rebuilt from the source.
    RecordPayloadTampered,
    /// An older version of the record was put back. Restore the newest one, or delete it to have it rebuilt from the
    /// source.
    RecordRolledBack,
    /// The record is gone and cannot be rebuilt: the value was generated, and no target holds it any more. Restore the
    /// record, or delete this object and apply it again for a new value.
    RecordLost,
    /// A retained record was taken over with its id, dates and value. Nothing to do.
    RecordTakenOver,
    /// The record or target belongs to a deleted object of the same name and is about to go. Wait; if it stays, the
    /// cluster's garbage collector is not running.
    WaitingForDeletion,
    /// The target exists and is not ours, so it is not touched; the message names its holder. Choose another
    /// `target.name`, delete the Secret, or set `target.adoption: IfUnowned`. If the message says that a record is missing,
    /// keep the Secret: it may hold the only copy of its value. Or the target was adopted, and something in it is not ours
    /// to change; the message names it.
    TargetNotOwned,
    /// The target is held by another ManagedSecret; the message says which. Choose another `target.name`.
    TargetInUse,
    /// The target is immutable and was made so by someone else. Delete it, or choose another `target.name`.
    TargetImmutable,
    /// Someone had changed or deleted the target; it was put right. If it happens again and again, another program
    /// writes the same Secret; the message names it.
    TargetDriftCorrected,
    /// The namespace is being deleted, so nothing is written any more.
    NamespaceTerminating,
    /// A quota of the namespace forbids the write. Raise the quota or free some of it; it is tried again.
    QuotaExceeded,
    /// The API server, or an admission policy of someone else, refused the write; the message says why. `Stalled` means
    /// that the same write will be refused again: change what the message names. It is tried again.
    WriteRefused,
    /// An admission policy or webhook of someone else changes what the operator writes; the message names the Secret and
    /// the field. Exclude Secrets with the label `managedsecrets.dev/role` from it, or write in the spec what it wants.
    /// What is delivered stays delivered: a write that would spoil a record or the value of a target is not made. It is
    /// tried again with growing waits, at least every six minutes.
    AlteredByAdmission,
    /// The API server failed or could not be reached. It is tried again.
    ApiUnavailable,
    /// The operator lacks a permission; the message says which. Apply the roles that come with the operator.
    OperatorForbidden,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_valid_condition_reason_and_says_what_it_means() {
        for reason in Reason::ALL {
            // metav1.Condition: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$
            assert!(reason.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()), "{reason}");
            let text = reason.description();
            assert!(text.ends_with('.') && !text.contains("  "), "{reason}: {text}");
        }
    }
}
