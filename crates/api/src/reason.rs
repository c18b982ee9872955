//! Why a condition is what it is: a closed set, documented one by one.
//!
//! The text of each variant is written once. Rustdoc, `docs/reasons.md` and [`Reason::description`] use it. It says what
//! the reason means, then what to do about it.

use std::fmt;

/// Declares [`Reason`] so that a variant's documentation is also its description.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// Reason of a condition, and of the events about a ManagedSecret.
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
    /// The operator has not processed this object yet. If it stays so, check that the operator runs and watches this
    /// namespace.
    Pending,
    /// The value is encrypted in its record and delivered as the spec says. Do nothing.
    Served,
    /// `spec.suspend` is true: the operator writes neither the record nor the target. Set it to false, or remove it, to
    /// continue.
    Suspended,
    /// The object is in the operator's own namespace. The operator manages no objects there, because the keys live there.
    /// Move the object to another namespace.
    NamespaceNotServed,
    /// The spec breaks a rule; the message names the field and the rule. Correct the field. The delivered value stays.
    InvalidSpec,
    /// The source's content is not a valid value: a value must be valid UTF-8 of 1 to 3500 characters. Correct the source.
    /// The delivered value stays.
    InvalidValue,
    /// Another object in this namespace holds the name; the message says which. Rename or delete one of the two. A
    /// retained Secret holds its name until you delete it.
    NameInUse,
    /// The backing Secret that this name would use holds a different name. Choose another name.
    NameCollision,
    /// The Secret that `spec.valueFrom` names does not exist. Create it. The delivered value stays.
    SourceNotFound,
    /// The Secret that `spec.valueFrom` names does not have the key. Add the key. The delivered value stays.
    SourceKeyNotFound,
    /// The object takes its value from the target of another object, that one from the next, and so on, back to the first.
    /// The message names them. The operator follows none of these sources. Give one of the objects another source or
    /// target. The delivered values stay.
    SourceRing,
    /// `spec.value` is not a well-formed sealed value. Seal the value again.
    SealedMalformed,
    /// `spec.value` was sealed for another namespace or object; the message says which. Seal the value for this object, or
    /// move the sealed value to the object that it was sealed for.
    SealedForAnotherPlace,
    /// `spec.value` was sealed with cluster scope, which this operator does not allow. Seal it with a narrower scope, or
    /// run the operator with `--allow-cluster-scope`.
    SealedScopeNotAllowed,
    /// This cluster has no key that opens `spec.value`; the message says the key's id. Seal the value with this cluster's
    /// public key, or restore the keyring that has the key.
    SealedWithUnknownKey,
    /// `spec.value` was sealed with a revoked key. Seal the value with the current key. The delivered value stays.
    SealedWithRevokedKey,
    /// `spec.value` was sealed with a key that was retired because no sealed value used it. Seal the value with the current
    /// key, or let the old key open again with `kubectl msec keys reinstate`. The delivered value stays.
    SealedWithRetiredKey,
    /// `spec.value` cannot be decrypted: it was changed or cut off. Seal the value again.
    SealedTampered,
    /// The record's metadata is not what the operator wrote, or its id differs from `status.id`. Restore the record, or
    /// delete it and the operator rebuilds it from the source, without its earlier values.
    RecordTampered,
    /// The record's content is not in the MSE1 format. Restore the record, or delete it and the operator rebuilds it from
    /// the source, without its earlier values.
    RecordMalformed,
    /// The record was moved here from another object, or its header was changed. Restore this object's record, or delete
    /// the record and the operator rebuilds it from the source, without its earlier values.
    RecordMoved,
    /// The keyring does not have the seed that the record was encrypted with; the message names the seed. Restore the
    /// keyring.
    SeedUnknown,
    /// The record does not match its key commitment: it was changed. Restore the record, or delete it and the operator
    /// rebuilds it from the source, without its earlier values.
    RecordCommitmentMismatch,
    /// The record's encrypted value was changed. Restore the record, or delete it and the operator rebuilds it from the
    /// source, without its earlier values.
    RecordPayloadTampered,
    /// The record was replaced by an older version of itself. Restore the newest version, or delete the record and the
    /// operator rebuilds it from the source, without its earlier values.
    RecordRolledBack,
    /// The record was deleted and the operator cannot rebuild it: the value was generated, and no target holds it. Restore
    /// the record, or delete this object and apply it again to get a new value.
    RecordLost,
    /// `spec.version` names a version that the record does not keep; the message says which versions it keeps. Name one of
    /// them, or remove `spec.version` to deliver the newest. What is delivered stays.
    VersionNotKept,
    /// An earlier value that the record keeps was deleted or changed; the message says which version. It cannot be delivered
    /// any more; the newest value and the other versions stay, and so does what is delivered. To get it back, restore the record from a backup.
    VersionLost,
    /// The object took over a retained record with its id, dates and value. Do nothing.
    RecordTakenOver,
    /// The record or target belongs to a deleted object of the same name, and Kubernetes is about to delete it. Wait. If
    /// it stays, check that the cluster's garbage collector runs.
    WaitingForDeletion,
    /// The target exists and the operator does not manage it, so the operator does not change it; the message names its
    /// holder. Choose another `target.name`, delete the Secret, or set `target.adoption: IfUnowned`. If the message says
    /// that a record is missing, keep the Secret unless you know where its value comes from: it may hold the only copy. Or the target was adopted, and
    /// the spec asks for a change that the operator does not make in an adopted Secret; the message names it.
    TargetNotOwned,
    /// Another ManagedSecret holds the target; the message says which. Choose another `target.name`.
    TargetInUse,
    /// `spec.target.template` makes too much data of this value: more than 256 KiB, with what each filter makes on the way.
    /// Shorten the template, or use the value and its filters less often. What is delivered stays.
    TemplateTooLarge,
    /// The target is immutable, and the operator did not make it so. Delete it, or choose another `target.name`.
    TargetImmutable,
    /// The target was changed or deleted, and the operator restored it. If this happens repeatedly, another program writes
    /// the same Secret; the message names it.
    TargetDriftCorrected,
    /// The target is missing or was changed, and the operator waits before it restores it, because it has restored it
    /// several times in a row: each wait is longer, and none is longer than six minutes. Another program writes or deletes the
    /// same Secret; events with the reason `TargetDriftCorrected` name it. Stop it, or choose another `target.name`. A new
    /// value, and every other change of the spec, is delivered at once.
    RepairDelayed,
    /// The namespace is being deleted, so the operator writes nothing in it.
    NamespaceTerminating,
    /// A quota of the namespace forbids the write. Raise the quota or free some of it. The operator retries.
    QuotaExceeded,
    /// The API server, or an admission policy that is not the operator's, refused the write; the message says why.
    /// `Stalled` means that the same write will be refused again: change what the message names. The operator retries.
    WriteRefused,
    /// An admission policy or webhook that is not the operator's changes what the operator writes; the message names the
    /// Secret and the field. Exclude Secrets with the label `managedsecrets.dev/role` from it, or write in the spec what it
    /// wants. The delivered value stays: the operator does not make a write that would damage a record or the value of a
    /// target. It retries with growing delays, at least every six minutes. If the status itself is changed, only an event
    /// and the log say so, and the operator writes it again with delays of up to a minute.
    AlteredByAdmission,
    /// The value expires soon: `spec.expires` is near. Set a new value, and move `spec.expires` to the date on which it
    /// expires. A new value alone does not end the warning.
    ExpiresSoon,
    /// The value has expired: `spec.expires` has passed. The operator still delivers it. Set a new value, and move
    /// `spec.expires`.
    Expired,
    /// A workload was restarted, because a new value was delivered. Do nothing.
    WorkloadRestarted,
    /// A workload of `spec.target.restart` does not exist, so there is nothing to restart; the message names it. Create it,
    /// or correct `spec.target.restart`. The value is delivered.
    WorkloadNotFound,
    /// The operator may not restart workloads: it was installed without `--restarts`. Install it with `--restarts`, or
    /// remove `spec.target.restart`. The value is delivered.
    RestartsOff,
    /// The API server, or an admission policy, does not let the operator restart a workload; the message says why. Correct
    /// it; the operator tries again every five minutes. The value is delivered.
    RestartRefused,
    /// A KMS plugin has not answered for longer than `--kms-grace`, so the operator encrypts nothing new; the message names
    /// the plugin. Repair the plugin or its KMS. The delivered value stays, and the operator retries.
    KmsUnreachable,
    /// The API server failed or could not be reached. The operator retries.
    ApiUnavailable,
    /// The operator does not have a permission; the message says which. Apply the roles that come with the operator.
    OperatorForbidden,
}

impl Reason {
    /// The reasons of the `Expiring` condition. `Ready` has none of them.
    pub const OF_EXPIRY: [Self; 2] = [Self::ExpiresSoon, Self::Expired];

    /// The reasons of the `RestartBlocked` condition, and of events about restarts. `Ready` has none of them.
    pub const OF_RESTARTS: [Self; 4] =
        [Self::WorkloadRestarted, Self::WorkloadNotFound, Self::RestartsOff, Self::RestartRefused];

    /// The reasons that the condition `Ready` can have.
    pub fn of_ready() -> impl Iterator<Item = Self> {
        let others = [&Self::OF_EXPIRY[..], &Self::OF_RESTARTS].concat();
        Self::ALL.iter().copied().filter(move |reason| !others.contains(reason))
    }
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
