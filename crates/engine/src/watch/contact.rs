//! When each watch last heard from the API server, which health and metrics report.
//!
//! Two times are kept, because they mean different things. The server *answered*: a head or a part of a body arrived. The
//! watch *tried*: the server answered, or the connection failed. A watch that neither hears nor fails is stuck, and only a
//! restart repairs it; one that fails again and again works, and waits for the server.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The contact of one watch with the API server.
#[derive(Debug)]
pub(super) struct Contact {
    name: String,
    /// The times below are milliseconds from here.
    began: Instant,
    answered: AtomicU64,
    tried: AtomicU64,
    /// Why the last try failed; none since it succeeded.
    trouble: Mutex<Option<String>>,
}

impl Contact {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            began: Instant::now(),
            answered: AtomicU64::new(0),
            tried: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// The server sent something.
    pub(super) fn answered(&self) {
        let now = self.now();
        self.answered.store(now, Relaxed);
        self.tried.store(now, Relaxed);
    }

    /// The connection failed.
    pub(super) fn tried(&self) {
        self.tried.store(self.now(), Relaxed);
    }

    /// The watch failed. `why` must not contain content of objects.
    pub(super) fn failed(&self, why: String) {
        *self.trouble.lock() = Some(why);
    }

    /// The watch follows its objects again.
    pub(super) fn follows(&self) {
        self.trouble.lock().take();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> WatchState {
        let now = self.now();
        let since = |then: &AtomicU64| Duration::from_millis(now.saturating_sub(then.load(Relaxed)));
        WatchState {
            name: self.name.clone(),
            unanswered: since(&self.answered),
            inactive: since(&self.tried),
            trouble: self.trouble.lock().clone(),
        }
    }
}

/// How a watch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchState {
    /// Its name: what it watches, and the namespace if it watches only one.
    pub name: String,
    /// Time since the server last sent something, or since the watch was started.
    pub unanswered: Duration,
    /// Time since the server last sent something or the connection failed.
    pub inactive: Duration,
    /// Why the watch does not follow its objects at present: the last error, without content of objects.
    pub trouble: Option<String>,
}

/// The contacts of all watches of a process.
#[derive(Debug, Default)]
pub(super) struct Contacts(Mutex<Vec<Weak<Contact>>>);

impl Contacts {
    pub(super) fn register(&self, contact: &Arc<Contact>) {
        let mut contacts = self.0.lock();
        // Watches of sources come and go.
        contacts.retain(|contact| contact.strong_count() > 0);
        contacts.push(Arc::downgrade(contact));
    }

    pub(super) fn states(&self) -> Vec<WatchState> {
        self.0.lock().iter().filter_map(Weak::upgrade).map(|contact| contact.state()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_and_tries_are_told_apart() {
        let contacts = Contacts::default();
        let contact = Arc::new(Contact::new("secrets".to_owned()));
        contacts.register(&contact);
        let state = || contacts.states().pop().unwrap();
        advance(Duration::from_secs(10)).await;
        assert_eq!((state().unanswered, state().inactive), (Duration::from_secs(10), Duration::from_secs(10)));
        contact.tried();
        advance(Duration::from_secs(5)).await;
        assert_eq!((state().unanswered, state().inactive), (Duration::from_secs(15), Duration::from_secs(5)));
        contact.answered();
        assert_eq!((state().unanswered, state().inactive), (Duration::ZERO, Duration::ZERO));
        contact.failed("403 Forbidden".to_owned());
        assert_eq!(state().trouble.as_deref(), Some("403 Forbidden"));
        contact.follows();
        assert_eq!(state().trouble, None);
        drop(contact);
        assert!(contacts.states().is_empty(), "a watch that was stopped is forgotten");
    }
}
