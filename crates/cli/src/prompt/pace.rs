//! Tells a paste that the terminal does not mark from keys: by how fast its characters arrive. Pure: the time goes in.

use std::time::{Duration, Instant};

/// How long no byte must arrive behind a line that arrived as fast as a paste before it counts as one line: over a slow
/// connection, a paste arrives in parts.
pub(super) const PASTE_PAUSE: Duration = Duration::from_secs(1);
/// Characters that follow each other within this time are a paste, or typed very fast, which costs a pause. A key that is
/// held down gives about 30 a second.
const BETWEEN_KEYS: Duration = Duration::from_millis(25);

/// How fast the characters of a line arrive.
#[derive(Default)]
pub(super) struct Pace {
    /// When the last character arrived outside of a marked paste.
    last: Option<Instant>,
    has_paste: bool,
}

impl Pace {
    /// So many characters arrived together, those of marked pastes left out.
    pub(super) fn arrived(&mut self, characters: usize, now: Instant) {
        if characters == 0 {
            return;
        }
        let follows = self.last.is_some_and(|last| now.duration_since(last) < BETWEEN_KEYS);
        self.has_paste |= characters > 1 || follows;
        self.last = Some(now);
    }

    /// Whether nothing has arrived for so long that nothing belongs to the same paste.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        !self.has_paste || self.last.is_none_or(|last| now.duration_since(last) >= PASTE_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the line counts as one line so long after its last character, which arrived behind these.
    fn is_over(arrivals: &[(usize, u64)], after: u64) -> bool {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for (characters, milliseconds) in arrivals {
            now += Duration::from_millis(*milliseconds);
            pace.arrived(*characters, now);
        }
        pace.is_silent(now + Duration::from_millis(after))
    }

    #[test]
    fn a_line_of_keys_is_over_at_once_and_a_paste_after_a_pause() {
        let keys = [(1, 0), (1, 120), (1, 33), (1, 200)];
        assert!(is_over(&keys, 100) && is_over(&[], 0) && is_over(&[(0, 0), (1, 500)], 100));
        for paste in [
            // At once; byte by byte over a serial line; in parts, with the line break alone; a part behind keys.
            &[(20, 0)][..],
            &[(1, 0), (1, 1), (1, 1)],
            &[(9, 0), (9, 300), (1, 300)],
            &[(1, 0), (1, 100), (9, 300)],
        ] {
            assert!(!is_over(paste, 100) && !is_over(paste, 999) && is_over(paste, 1000), "{paste:?}");
        }
    }
}
