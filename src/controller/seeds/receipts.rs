//! Records that were re-wrapped outside a pass of their object.
//!
//! A pass that finds its record at another version than the status says writes record and target again: another program may
//! have changed them. For a re-wrap it need not: this process wrote the record, over the very version that the status names.
//! A receipt says so, and the pass writes the status alone. Receipts are in memory only: without one, the pass does more than
//! it must, and nothing wrong.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::super::index::Key;

/// A record that was re-wrapped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Its uid.
    pub uid: String,
    /// The resourceVersion that it had, and that the status names.
    pub before: String,
    /// The resourceVersion that the re-wrap gave it.
    pub after: String,
}

/// What is known about the record of an object.
enum State {
    /// A re-wrap is being written.
    Writing,
    /// It was written.
    Written(Receipt),
}

/// The receipts, by object.
#[derive(Default)]
pub struct Receipts(Mutex<HashMap<Key, State>>);

impl Receipts {
    /// Announces the write of a record. Until the answer is here, passes of the object wait.
    pub(super) fn write(&self, key: Key) -> Writing<'_> {
        self.0.lock().insert(key.clone(), State::Writing);
        Writing { receipts: self, key }
    }

    /// Whether the record of this object is being written.
    #[must_use]
    pub fn is_writing(&self, key: &Key) -> bool {
        matches!(self.0.lock().get(key), Some(State::Writing))
    }

    /// The receipt for the record of this object.
    #[must_use]
    pub fn of(&self, key: &Key) -> Option<Receipt> {
        match self.0.lock().get(key) {
            Some(State::Written(receipt)) => Some(receipt.clone()),
            _ => None,
        }
    }

    /// A pass that knew of this receipt is over. One that came meanwhile is for the next pass.
    pub fn spent(&self, key: &Key, receipt: &Receipt) {
        let mut states = self.0.lock();
        if matches!(states.get(key), Some(State::Written(written)) if written == receipt) {
            states.remove(key);
        }
    }

    /// The object does not exist any more.
    pub fn forget(&self, key: &Key) {
        let mut states = self.0.lock();
        if matches!(states.get(key), Some(State::Written(_))) {
            states.remove(key);
        }
    }
}

/// A write that is under way. Dropped without [`Writing::written`], it leaves nothing.
pub(super) struct Writing<'r> {
    receipts: &'r Receipts,
    key: Key,
}

impl Writing<'_> {
    /// The record was written.
    pub(super) fn written(self, receipt: Receipt) {
        self.receipts.0.lock().insert(self.key.clone(), State::Written(receipt));
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut states = self.receipts.0.lock();
        if matches!(states.get(&self.key), Some(State::Writing)) {
            states.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_there_from_the_answer_to_the_end_of_a_pass() {
        let (receipts, key) = (Receipts::default(), Key { namespace: "shop".into(), name: "db".into() });
        let receipt = Receipt { uid: "u".to_owned(), before: "1".to_owned(), after: "2".to_owned() };
        let writing = receipts.write(key.clone());
        receipts.forget(&key);
        assert!(receipts.is_writing(&key) && receipts.of(&key).is_none());
        writing.written(receipt.clone());
        assert_eq!((receipts.is_writing(&key), receipts.of(&key)), (false, Some(receipt.clone())));
        // A pass that began before the re-wrap knew of an earlier one, or of none.
        receipts.spent(&key, &Receipt { after: "1".to_owned(), ..receipt.clone() });
        assert_eq!(receipts.of(&key), Some(receipt.clone()));
        receipts.spent(&key, &receipt);
        assert_eq!(receipts.of(&key), None);
        receipts.write(key.clone()).written(receipt);
        receipts.forget(&key);
        assert_eq!(receipts.of(&key), None);

        drop(receipts.write(key.clone()));
        assert!(!receipts.is_writing(&key) && receipts.of(&key).is_none());
    }
}
