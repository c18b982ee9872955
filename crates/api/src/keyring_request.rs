//! Changes of the keyring that are asked of the operator, as the text of an annotation.
//!
//! `kubectl msec keys` writes the annotation [`ANNO_KEYRING_REQUEST`](crate::keys::ANNO_KEYRING_REQUEST) on the operator's
//! own keyring. The leader carries a request out and removes it in the same write. A request that an operator does not know
//! stays, for a later version. The text is requests separated by commas: `rotate sealing, revoke efa4292736dc4550`.

use std::fmt;

/// Requests of one kind, in words.
const ROTATE: &str = "rotate";
const REVOKE: &str = "revoke";
const RETIRE: &str = "retire";
const REINSTATE: &str = "reinstate";

/// One change that is asked for. A key is named by its id, 16 hex digits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Replace a key by a new one.
    Rotate(Kind),
    /// A key has become known to others: it must open nothing new.
    Revoke(String),
    /// A key is no longer needed.
    Retire(String),
    /// A retired key is needed again.
    Reinstate(String),
    /// What another version asks for.
    Unknown(String),
}

/// Which key is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The key pair that values are sealed with.
    Sealing,
    /// The seed that records are encrypted under.
    Seed,
    /// The key-encryption key.
    Kek,
}

/// Most requests that are read of one annotation. There are fewer keys than that, and anyone who may change the annotation
/// chooses its length.
pub const MAX_REQUESTS: usize = 64;
/// Most characters of a request that [`Request::shown`] shows.
const MAX_SHOWN: usize = 60;

/// What is asked for at one time, in the order of the requests.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Requests(Vec<Request>);

impl Requests {
    /// Reads the annotation. Any text is read: what is no request of this version is [`Request::Unknown`]. Requests beyond
    /// [`MAX_REQUESTS`] do not count, and the next write of the annotation drops them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut requests = Self::default();
        text.split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .take(MAX_REQUESTS)
            .for_each(|text| requests.add(Request::parse(text)));
        requests
    }

    /// Adds a request, unless it is there already.
    pub fn add(&mut self, request: Request) {
        if !self.0.contains(&request) {
            self.0.push(request);
        }
    }

    /// Removes a request. Returns whether it was there.
    pub fn remove(&mut self, request: &Request) -> bool {
        let before = self.0.len();
        self.0.retain(|it| it != request);
        self.0.len() < before
    }

    /// The requests.
    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.0.iter()
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Request {
    /// The request in one line of bounded length, for reports: its text may be anything.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = self.to_string();
        let mut shown: String =
            text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_SHOWN).collect();
        if text.chars().nth(MAX_SHOWN).is_some() {
            shown.push('…');
        }
        shown
    }

    fn parse(text: &str) -> Self {
        let known = text.split_once(' ').and_then(|(verb, of)| match verb {
            ROTATE => Kind::ALL.into_iter().find(|kind| kind.as_str() == of).map(Self::Rotate),
            REVOKE => is_id(of).then(|| Self::Revoke(of.to_owned())),
            RETIRE => is_id(of).then(|| Self::Retire(of.to_owned())),
            REINSTATE => is_id(of).then(|| Self::Reinstate(of.to_owned())),
            _ => None,
        });
        known.unwrap_or_else(|| Self::Unknown(text.to_owned()))
    }
}

/// Whether this is the id of a key: 8 bytes in lower-case hex.
fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Sealing, Self::Seed, Self::Kek];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sealing => "sealing",
            Self::Seed => "seed",
            Self::Kek => "kek",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rotate(kind) => write!(f, "{ROTATE} {}", kind.as_str()),
            Self::Revoke(id) => write!(f, "{REVOKE} {id}"),
            Self::Retire(id) => write!(f, "{RETIRE} {id}"),
            Self::Reinstate(id) => write!(f, "{REINSTATE} {id}"),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, request) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{request}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back_as_they_were() {
        let id = "efa4292736dc4550".to_owned();
        let mut requests = Requests::default();
        for kind in Kind::ALL {
            requests.add(Request::Rotate(kind));
        }
        for request in [Request::Revoke(id.clone()), Request::Retire(id.clone()), Request::Reinstate(id.clone())] {
            requests.add(request);
        }
        let text = requests.to_string();
        assert!(text.starts_with("rotate sealing, rotate seed, rotate kek, revoke efa4292736dc4550, "), "{text}");
        assert_eq!(Requests::parse(&text), requests);
        assert!(!requests.iter().any(|request| matches!(request, Request::Unknown(_))));
        // Asked for twice, done once.
        let revoke = Request::Revoke(id);
        requests.add(revoke.clone());
        assert_eq!(requests.to_string(), text);
        assert!(requests.remove(&revoke) && !requests.remove(&revoke));
    }

    #[test]
    fn what_this_version_does_not_know_stays() {
        for text in ["rotate all", "revoke efa4", "revoke EFA4292736DC4550", "revoke", "pause sealing for 3 days"] {
            let requests = Requests::parse(&format!(" {text} ,, rotate kek"));
            assert_eq!(requests.to_string(), format!("{text}, rotate kek"));
            assert_eq!(requests.iter().next(), Some(&Request::Unknown(text.to_owned())));
        }
        let many: Vec<_> = (0..10_000).map(|number| format!("x{number}")).collect();
        assert_eq!(Requests::parse(&many.join(",")).iter().count(), MAX_REQUESTS);
        assert_eq!(Request::Unknown("a\nb".to_owned()).shown(), "a b");
        assert_eq!(Request::Unknown("x".repeat(1000)).shown().chars().count(), MAX_SHOWN + 1);
        assert!(Requests::parse(" , ").is_empty() && Requests::default().to_string().is_empty());
    }
}
