//! Durations as users write them: hours, minutes and seconds in Go's notation, `720h` or `1h30m`.
//!
//! Whole numbers in this order are the part of Go's notation that every reader of a manifest understands, and that a
//! regular expression can check.

use std::time::Duration;

/// Digits of one number.
const DIGITS_MAX: usize = 6;

/// What a duration looks like, for CEL (RE2). An empty text is refused by its length.
pub(super) const PATTERN: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$";

/// So many hours.
#[must_use]
pub const fn hours(hours: u32) -> Duration {
    Duration::from_secs(3600 * hours as u64)
}

/// Reads a duration; nothing if the text is none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0;
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((digits, after)) = rest.split_once(unit) else { continue };
        if !(1..=DIGITS_MAX).contains(&digits.len()) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        seconds += digits.parse::<u64>().ok()? * length;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn hours_minutes_and_seconds_are_added_up() {
        for (text, seconds) in [("0s", 0), ("720h", 2_592_000), ("1h30m", 5400), ("90m", 5400), ("1h0m1s", 3601)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "h", "30m1h", "1h1h", "1.5h", "-1h", "1d", "1ms", " 1h", "1h ", "1H", "1000000h", "1hm"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(hours(2), Duration::from_secs(7200));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pattern_and_the_parser_agree(text in prop_oneof!["[0-9hms]{1,12}", "([0-9]{1,7}h)?([0-9]{1,7}m)?([0-9]{1,7}s)?"]) {
            prop_assert_eq!(Regex::new(PATTERN).unwrap().is_match(&text) && !text.is_empty(), parse(&text).is_some());
        }
    }
}
