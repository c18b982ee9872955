//! Why a condition is what it is: a closed set, documented one by one.

/// Reason of the `Ready` condition, and of the events about a ManagedSecret.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Nothing is known yet.
    Pending,
    /// Served and up to date.
    Served,
    /// `spec.suspend` is true: nothing is written.
    Suspended,
    /// The object lives in the operator's own namespace, which is not served.
    NamespaceNotServed,
    /// The spec breaks a rule; the message names field and rule.
    InvalidSpec,
    /// The source's content breaks the rule for values.
    InvalidValue,
    /// Another object holds the name.
    NameInUse,
    /// A different name's hash collides with this one.
    NameCollision,
    /// The source Secret does not exist.
    SourceNotFound,
    /// The source Secret lacks the key.
    SourceKeyNotFound,
    /// The sealed text is malformed.
    SealedMalformed,
    /// The sealed text was sealed for another namespace or object.
    SealedForAnotherPlace,
    /// The sealed text has cluster scope, which this operator does not allow.
    SealedScopeNotAllowed,
    /// This cluster has no key that opens the sealed text.
    SealedWithUnknownKey,
    /// The sealing key was revoked.
    SealedWithRevokedKey,
    /// The sealed text does not open: it was altered.
    SealedTampered,
    /// The record's metadata or bytes were altered.
    RecordTampered,
    /// The record's bytes are not in the MSE1 format.
    RecordMalformed,
    /// The record was moved here from another object, or its header was altered.
    RecordMoved,
    /// The keyring lacks the seed that the record was sealed under.
    SeedUnknown,
    /// The record does not match its commitment.
    RecordCommitmentMismatch,
    /// The record's payload was altered.
    RecordPayloadTampered,
    /// An older version of the record was put back.
    RecordRolledBack,
    /// The record is lost and cannot be rebuilt.
    RecordLost,
    /// A retained record was taken over (event).
    RecordTakenOver,
    /// The record's or target's former owner is being deleted.
    WaitingForDeletion,
    /// The target exists and is not ours.
    TargetNotOwned,
    /// The target is held by another ManagedSecret.
    TargetInUse,
    /// The target is immutable.
    TargetImmutable,
    /// A drifted target was put right (event).
    TargetDriftCorrected,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// A quota forbids the write.
    QuotaExceeded,
    /// Somebody else's admission control refused the write.
    WriteRefused,
    /// The API server failed or could not be reached.
    ApiUnavailable,
    /// The operator lacks a right.
    OperatorForbidden,
}
