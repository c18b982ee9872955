//! Objects as watches decode them: reduced to what is kept while they are decoded, so that a page of a list holds views
//! and no objects.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, api::ObjectMeta};
use managed_secrets_api::ManagedSecret;
use serde::{Deserialize, Deserializer};

use super::{
    Own, SecretView,
    decode::{Doubtful, Head, Metadata},
};

/// An object of kind `K`, of which `T` is kept beside its identity and version.
#[derive(Clone, Debug)]
pub struct Watched<K, T> {
    head: ObjectMeta,
    /// What is kept of it.
    pub kept: T,
    kind: PhantomData<K>,
}

/// A ManagedSecret; nothing is kept of one that cannot be read.
pub type WatchedObject = Watched<ManagedSecret, Option<Own>>;
/// A record or target.
pub type WatchedSecret = Watched<Secret, SecretView>;
/// An object of which nothing counts but that it is there, and at which version.
pub type Stub<K> = Watched<K, ()>;

/// What can be kept of an object.
pub trait Kept: Sized {
    /// Whether metadata is all that is asked for.
    const METADATA_ONLY: bool;

    /// Reads an object: its identity and version, and what is kept of it.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error>;
}

impl Kept for Option<Own> {
    const METADATA_ONLY: bool = false;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        let doubtful = Doubtful::deserialize(deserializer)?;
        Ok((doubtful.metadata.clone().into(), doubtful.object().map(|object| Own::new(object).kept())))
    }
}

impl Kept for SecretView {
    const METADATA_ONLY: bool = true;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        let Object { metadata } = Object::deserialize(deserializer)?;
        Ok((metadata.head(), Self::from(metadata).kept()))
    }
}

impl Kept for () {
    const METADATA_ONLY: bool = true;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Head,
        }
        Object::deserialize(deserializer).map(|object| (object.metadata.into(), ()))
    }
}

impl<'de, K, T: Kept> Deserialize<'de> for Watched<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer).map(|(head, kept)| Self { head, kept, kind: PhantomData })
    }
}

impl<K: Resource, T: Kept> Resource for Watched<K, T> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        T::METADATA_ONLY
    }

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.head
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.head
    }
}
