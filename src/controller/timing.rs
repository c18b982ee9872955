//! What `make bench` asks of the controller: the time of one look at an object, without a request, and the bytes that it
//! keeps for an object. Nothing else uses it.

use std::time::Instant;

use jiff::Timestamp;
use managed_secrets_crypto::keyring::Keyring;
use serde_json::Value;

use super::{
    decide::decide,
    facts::{Facts, Settings},
    index::{Index, Key},
    plan::{Finish, Step},
    view::watched::{WatchedObject, WatchedSecret},
};

/// Bytes that cache and queue take for each served object, as requested from the allocator. A test counts them
/// (`index/tests/memory.rs`), and the benchmark predicts the memory of large populations with them.
pub const OBJECT_BYTES: u32 = 2_750;

/// A cache that holds one object, and what a pass knows besides.
pub struct Look {
    index: Index,
    key: Key,
    keyring: Keyring,
}

impl Look {
    /// A ManagedSecret and Secrets of its namespace, as the API server sends them. `None` if the operator could not read the
    /// ManagedSecret.
    pub fn new(object: Value, secrets: Vec<Value>, keyring: Keyring) -> serde_json::Result<Option<Self>> {
        let Some(own) = serde_json::from_value::<WatchedObject>(object)?.kept else { return Ok(None) };
        let key = Key { namespace: own.namespace.as_str().into(), name: own.name.as_str().into() };
        let mut index = Index::default();
        index.put_object(own);
        for secret in secrets {
            index.put_secret(&key.namespace, serde_json::from_value::<WatchedSecret>(secret)?.kept, None);
        }
        Ok(Some(Self { index, key, keyring }))
    }

    /// What a pass begins with: it unpacks what the cache holds, and proves the record.
    #[must_use]
    pub fn facts(&self) -> Option<Facts> {
        let cached = self.index.snapshot(&self.key, Instant::now())?;
        let settings = Settings { operator_namespace: String::new(), allow_cluster_scope: false, restarts: false };
        Some(Facts::new(cached, settings, &self.keyring, Timestamp::now(), String::new()))
    }
}

/// Decides once. Returns whether nothing is left to do, now or soon.
#[must_use]
pub fn is_in_step(facts: &Facts) -> bool {
    matches!(decide(facts), Step::Finish(Finish { after: None, retry: false }))
}
