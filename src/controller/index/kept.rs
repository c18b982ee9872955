//! What the cache keeps of one object and of one Secret: its view, packed, and beside it what is asked for of many at
//! once.

use std::{borrow::Cow, time::Instant};

use managed_secrets_api::{
    Reason,
    keys::{CONDITION_EXPIRING, CONDITION_READY, DEFAULT_TARGET_KEY, DEFAULT_TARGET_TYPE, TYPE_RECORD},
};
use managed_secrets_engine::queue::Priority;

use super::{Name, namespace::Place};
use crate::controller::view::{Own, SecretView, packed::Packed};

/// An object.
#[derive(Debug)]
pub(super) struct KeptObject {
    pub(super) packed: Packed<Own>,
    /// The reason of its `Ready` condition; nothing where it has no such condition.
    pub(super) ready: Option<Said>,
    /// The reason of its `Expiring` condition.
    pub(super) expiring: Option<Reason>,
    /// Whether it has `spec.version`.
    pub(super) pinned: bool,
    /// How urgently a user waits for it.
    pub(super) urgency: Option<Priority>,
    /// What it takes its value from.
    pub(super) source: Option<Box<Place>>,
}

/// What a condition says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Said {
    Known(Reason),
    /// A reason that this version does not know.
    Unknown,
}

impl KeptObject {
    /// Of an object that is `packed`.
    pub(super) fn new(own: &Own, packed: Packed<Own>, source: Option<Place>) -> Self {
        let condition = |type_| own.status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
        let ready = condition(CONDITION_READY).map(|ready| {
            let known = Reason::ALL.iter().find(|reason| reason.as_str() == ready.reason);
            known.map_or(Said::Unknown, |reason| Said::Known(*reason))
        });
        let expiring = condition(CONDITION_EXPIRING)
            .and_then(|said| Reason::OF_EXPIRY.into_iter().find(|reason| reason.as_str() == said.reason));
        let urgency = match own.status.observed_generation {
            None => Some(Priority::New),
            Some(observed) => (observed != own.generation).then_some(Priority::Fresh),
        };
        let pinned = own.spec.version.is_some();
        Self { packed, ready, expiring, pinned, urgency, source: source.map(Box::new) }
    }
}

/// A Secret.
#[derive(Debug)]
pub(super) struct KeptSecret {
    pub(super) packed: Packed<SecretView>,
    /// The object that it names as its owner by annotation.
    pub(super) owner: Option<Name>,
    pub(super) unconfirmed: Option<Instant>,
    pub(super) type_: Option<Cow<'static, str>>,
}

/// A Secret that is unpacked, and how it came here.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) view: SecretView,
    /// The same view.
    packed: Packed<SecretView>,
    /// When we wrote it, until a watch shows it.
    pub(super) unconfirmed: Option<Instant>,
    /// Its type, where a write or a live read has told; no part of what a watch shows.
    pub(super) type_: Option<Cow<'static, str>>,
}

impl Entry {
    /// Of a view as `kept` leaves it.
    pub(super) fn new(view: SecretView, unconfirmed: Option<Instant>, type_: Option<Cow<'static, str>>) -> Self {
        Self { packed: Packed::new(&view), view, unconfirmed, type_ }
    }

    /// As a list shows it.
    pub(super) fn listed(view: SecretView, packed: Packed<SecretView>, type_: Option<Cow<'static, str>>) -> Self {
        Self { view, packed, unconfirmed: None, type_ }
    }

    pub(super) fn keep(self, owner: Option<Name>) -> KeptSecret {
        KeptSecret { packed: self.packed, owner, unconfirmed: self.unconfirmed, type_: self.type_ }
    }
}

impl KeptSecret {
    pub(super) fn entry(&self) -> Entry {
        let (packed, type_) = (self.packed.clone(), self.type_.clone());
        Entry { view: packed.get(), packed, unconfirmed: self.unconfirmed, type_ }
    }
}

/// The type of a Secret, or a key of its data: without memory of its own where it is what nearly all have.
pub(super) fn word(text: &str) -> Cow<'static, str> {
    let known = [TYPE_RECORD, DEFAULT_TARGET_TYPE, DEFAULT_TARGET_KEY].into_iter().find(|known| *known == text);
    known.map_or_else(|| Cow::Owned(text.to_owned()), Cow::Borrowed)
}
