//! Answers of the API server that are kept for a short time, in bounded memory.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a question: users can have long lists of groups, and tokens must not stay in memory.
pub(crate) type Digest = [u8; 32];

/// Returns the digest of everything that an answer depends on.
pub(crate) fn digest(question: &impl Serialize) -> Option<Digest> {
    serde_json::to_vec(question).ok().map(|json| Sha256::digest(json).into())
}

/// Answers by the digest of their question, and until when each one may be used.
pub(crate) struct Cache<V> {
    max: usize,
    answers: HashMap<Digest, (V, Instant)>,
}

impl<V: Clone> Cache<V> {
    /// Creates a cache of at most `max` answers.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, answers: HashMap::new() }
    }

    /// Returns the answer, unless it is too old.
    pub(crate) fn get(&self, question: &Digest, now: Instant) -> Option<V> {
        let (answer, until) = self.answers.get(question)?;
        (now < *until).then(|| answer.clone())
    }

    /// Keeps an answer for `lifetime`.
    pub(crate) fn put(&mut self, question: Digest, answer: V, lifetime: Duration, now: Instant) {
        if self.answers.len() >= self.max {
            self.answers.retain(|_, (_, until)| now < *until);
        }
        if self.answers.len() >= self.max {
            // Too many questions in a short time: the answer that ends first makes place.
            let first = self.answers.iter().min_by_key(|(_, (_, until))| *until).map(|(question, _)| *question);
            first.map(|question| self.answers.remove(&question));
        }
        self.answers.insert(question, (answer, now + lifetime));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    #[test]
    fn an_answer_is_kept_for_its_time_and_for_one_question() {
        let (mut cache, now) = (Cache::new(10), Instant::now());
        let [asked, other] = ["ann", "bob"].map(|question| digest(&question).unwrap());
        cache.put(asked, true, LIFETIME, now);
        assert_eq!(cache.get(&asked, now + Duration::from_secs(29)), Some(true));
        assert_eq!(cache.get(&asked, now + LIFETIME), None);
        assert_eq!(cache.get(&other, now), None);
        cache.put(asked, false, LIFETIME, now);
        assert_eq!(cache.get(&asked, now), Some(false), "the newer answer");
    }

    #[test]
    fn the_number_of_answers_is_limited() {
        let (mut cache, now) = (Cache::new(100), Instant::now());
        for number in 0..350_u32 {
            let question = digest(&number).unwrap();
            cache.put(question, true, LIFETIME, now);
            assert!(cache.answers.len() <= 100);
            assert_eq!(cache.get(&question, now), Some(true), "the newest one stays");
        }
        // The one that ends first makes place, and no other.
        let mut small = Cache::new(3);
        let questions = [3_u64, 1, 2, 4].map(|number| (digest(&number).unwrap(), Duration::from_secs(number)));
        for (question, lifetime) in questions {
            small.put(question, true, lifetime, now);
        }
        assert_eq!(questions.map(|(question, _)| small.get(&question, now).is_some()), [true, false, true, true]);
        // Those that are too old make place first.
        let later = now + LIFETIME;
        let kept = digest(&"kept").unwrap();
        cache.put(kept, true, LIFETIME, later);
        for number in 0..99_u32 {
            cache.put(digest(&number).unwrap(), true, LIFETIME, later);
        }
        assert_eq!(cache.get(&kept, later), Some(true));
    }
}
