//! How a cache keeps views: each in one block of memory, a fifth of what it takes unpacked.
//!
//! In: an [`Own`] or a [`SecretView`], as `kept` leaves it. Out: a [`Packed`], which gives the same view again. Pure.
//!
//! Unpacked, a view is some thirty strings in a dozen maps and sets, each a block of memory of its own. A cache holds
//! three views for each ManagedSecret, and a pass looks at those of one. So a view is unpacked for a pass or for an
//! event, which takes microseconds, and packed again when it has changed. Nothing else has to know how.
//!
//! Every field is listed once in this module or in `shape`, and the compiler refuses a list that is not complete.

mod codec;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
mod text;

use std::{fmt, marker::PhantomData, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use managed_secrets_api::{
    ManagedSecretSpec, ManagedSecretStatus, Violation,
    types::{
        Adoption, Alphabet, DeletionPolicy, Delivery, EarlierVersion, Generate, RecordRef, SecretKeyRef, SourceKind,
        Target, TargetRef, ValueFrom, Workload, WorkloadKind,
    },
    validate::FieldReason,
};
use managed_secrets_crypto::KeyId;

use self::codec::codes;
pub(crate) use self::codec::{Pack, Reader, Writer, fields};
use super::{Own, OwnedFields, OwnerRef, SecretView};

/// A view as a cache keeps it. Clones share its memory.
pub(crate) struct Packed<T> {
    bytes: Arc<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T: Pack> Packed<T> {
    /// Packs a view, as its `kept` leaves it.
    #[must_use]
    pub(crate) fn new(view: &T) -> Self {
        let mut to = Writer::default();
        view.pack(&mut to);
        Self { bytes: to.bytes().into(), of: PhantomData }
    }

    /// The view that was packed.
    #[must_use]
    pub(crate) fn get(&self) -> T {
        T::unpack(&mut Reader::new(&self.bytes))
    }
}

impl Packed<Own> {
    /// The field `sealed_for` of the view.
    #[must_use]
    pub(crate) fn sealed_for(&self) -> Option<KeyId> {
        Pack::unpack(&mut Reader::new(&self.bytes))
    }
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), of: PhantomData }
    }
}

/// Equal are views that are equal, for each has one packed form.
impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<T: Pack + fmt::Debug> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

// `sealed_for` comes first: it is read without the rest.
fields!(Own {
    sealed_for,
    namespace,
    name,
    uid,
    resource_version,
    generation,
    deleting,
    spec,
    target_metadata,
    status,
} options { sealed_sha256, violation, template });
// Sealed text is never kept; of a target's labels and annotations what `target_metadata` has, and of its template what
// `template` has.
fields!(ManagedSecretSpec { name } options {
    description,
    value_from,
    generate,
    delivery,
    target,
    deletion_policy,
    suspend,
    expires,
    expiry_warning,
    history,
    version,
    overlap,
} without { value });
fields!(Target {} options { name, key, type_, adoption, restart, previous_key } without { labels, annotations, template });
fields!(Workload { kind, name });
fields!(ValueFrom { secret_key_ref });
fields!(SecretKeyRef { name, key });
fields!(Generate {} options { length, alphabet, rotate_every, revision });
fields!(ManagedSecretStatus {} options {
    id,
    name,
    created_date,
    updated_date,
    value_updated_time,
    version,
    observed_generation,
    deletion_policy,
    record,
    target,
    conditions,
    next_rotation,
    delivered,
    history,
    revision,
});
fields!(EarlierVersion { version, created, source } options { delivered_until });
fields!(RecordRef { name, uid, resource_version });
fields!(TargetRef { name, key, uid, resource_version });
fields!(Violation { path, message, reason });
fields!(SecretView {
    name,
    uid,
    resource_version,
    deleting,
    labels,
    annotations,
    owners,
    ours,
    shape,
    other_manager,
    type_,
    immutable,
} without { left_out, left });
fields!(OwnerRef { is_managed_secret, name, uid, controller });
fields!(OwnedFields { labels, annotations, data, owner_uids, type_ });

codes!(Adoption { Never, IfUnowned });
codes!(Alphabet { Alphanumeric, AlphanumericSymbols, Hex, Base64Url });
codes!(DeletionPolicy { Delete, Retain });
codes!(Delivery { Secret, None });
codes!(WorkloadKind { Deployment, StatefulSet, DaemonSet });
codes!(SourceKind { Value, ValueFrom, Generate });
codes!(FieldReason { Required, TypeInvalid, TooLong, TooMany, NotSupported, Invalid, Forbidden });

impl Pack for KeyId {
    fn pack(&self, to: &mut Writer) {
        self.0.pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Self(Pack::unpack(from))
    }
}

impl Pack for Condition {
    fn pack(&self, to: &mut Writer) {
        let Self { last_transition_time, message, observed_generation, reason, status, type_ } = self;
        last_transition_time.0.pack(to);
        message.pack(to);
        observed_generation.pack(to);
        reason.pack(to);
        status.pack(to);
        type_.pack(to);
    }

    fn unpack(from: &mut Reader<'_>) -> Self {
        Self {
            last_transition_time: Time(Pack::unpack(from)),
            message: Pack::unpack(from),
            observed_generation: Pack::unpack(from),
            reason: Pack::unpack(from),
            status: Pack::unpack(from),
            type_: Pack::unpack(from),
        }
    }
}
