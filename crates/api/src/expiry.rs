//! When a value stops being good, and from when on that is said. Pure; the operator, `kubectl msec` and the CRD's rule use
//! the same definition.

use jiff::Timestamp;

use super::{
    Reason,
    duration::{self, hours},
    limits::{DATE_CHARACTERS, EXPIRY_WARNING_HOURS_DEFAULT},
    types::ManagedSecretSpec,
};

/// What a date looks like, for CEL (RE2): it exists in the calendar, and it has one form, so that texts compare as dates do.
pub(super) const DATE: &str = concat!(
    r"^(2[0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))",
    r"|2([0-9](0[48]|[2468][048]|[13579][26])|[048]00)-02-29)",
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"
);

/// Reads a date as `spec.expires` has it; nothing if the text is none.
#[must_use]
pub fn date(text: &str) -> Option<Timestamp> {
    // The form first: the parser also reads other offsets, fractions and leap seconds.
    let form = "2000-00-00T00:00:00Z";
    let fits = |(at, is): (usize, u8)| match form.as_bytes()[at] {
        _ if at == 0 => is == b'2',
        b'0' => is.is_ascii_digit(),
        fixed => is == fixed,
    };
    if text.len() != DATE_CHARACTERS || !text.bytes().enumerate().all(fits) || &text[17..19] > "59" {
        return None;
    }
    text.parse().ok()
}

/// When a value expires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expiry {
    /// When it stops being good.
    pub at: Timestamp,
    /// When the warning begins.
    pub warns_from: Timestamp,
}

impl Expiry {
    /// Of a spec; nothing if the value does not expire, or the date is not valid.
    #[must_use]
    pub fn of(spec: &ManagedSecretSpec) -> Option<Self> {
        let at = date(spec.expires.as_deref()?)?;
        let warning = spec.expiry_warning.as_deref().and_then(duration::parse);
        let warning = warning.unwrap_or(hours(EXPIRY_WARNING_HOURS_DEFAULT));
        Some(Self { at, warns_from: at.checked_sub(warning).unwrap_or(Timestamp::MIN) })
    }

    /// What is to be said at a time; nothing before the warning begins.
    #[must_use]
    pub fn reason(&self, now: Timestamp) -> Option<Reason> {
        if now >= self.at { Some(Reason::Expired) } else { (now >= self.warns_from).then_some(Reason::ExpiresSoon) }
    }

    /// When [`Expiry::reason`] changes next; nothing once the value has expired.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        [self.warns_from, self.at].into_iter().find(|at| *at > now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn a_date_is_one_of_the_calendar_and_has_one_form() {
        for valid in ["2027-03-01T00:00:00Z", "2000-02-29T23:59:59Z", "2028-02-29T00:00:00Z", "2999-12-31T23:59:59Z"] {
            assert_eq!(date(valid).unwrap().to_string(), valid);
        }
        for wrong in [
            "",
            "2027-03-01",
            "2027-03-01T00:00:00",
            "2027-03-01t00:00:00z",
            "2027-03-01T00:00:00+00:00",
            "2027-03-01T00:00:00.5Z",
            "2027-03-01 00:00:00Z",
            "2027-02-29T00:00:00Z",
            "2100-02-29T00:00:00Z",
            "2027-04-31T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-00-01T00:00:00Z",
            "2027-03-00T00:00:00Z",
            "2027-03-01T24:00:00Z",
            "2027-03-01T00:60:00Z",
            "2027-03-01T00:00:60Z",
            "1999-12-31T00:00:00Z",
            "3000-01-01T00:00:00Z",
            "2027-03-01T00:00:00é",
        ] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_warning_begins_30_days_before_unless_the_spec_says_otherwise() {
        let spec = |warning: Option<&str>| ManagedSecretSpec {
            expires: Some("2027-03-31T00:00:00Z".to_owned()),
            expiry_warning: warning.map(str::to_owned),
            ..ManagedSecretSpec::default()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let expiry = Expiry::of(&spec(None)).unwrap();
        assert_eq!(expiry.warns_from, at("2027-03-01T00:00:00Z"));
        for (now, reason, next) in [
            ("2027-02-28T23:59:59Z", None, Some(expiry.warns_from)),
            ("2027-03-01T00:00:00Z", Some(Reason::ExpiresSoon), Some(expiry.at)),
            ("2027-03-30T23:59:59Z", Some(Reason::ExpiresSoon), Some(expiry.at)),
            ("2027-03-31T00:00:00Z", Some(Reason::Expired), None),
        ] {
            assert_eq!((expiry.reason(at(now)), expiry.next_change(at(now))), (reason, next), "{now}");
        }
        assert_eq!(Expiry::of(&spec(Some("1h"))).unwrap().warns_from, at("2027-03-30T23:00:00Z"));
        // Without a warning, it is said when it has expired.
        let expiry = Expiry::of(&spec(Some("0s"))).unwrap();
        assert_eq!(expiry.reason(at("2027-03-30T23:59:59Z")), None);
        assert_eq!(expiry.next_change(at("2027-03-30T23:59:59Z")), Some(expiry.at));
        assert_eq!(Expiry::of(&ManagedSecretSpec::default()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_pattern_and_the_parser_agree(
            text in prop_oneof![
                "2[0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z",
                "2[0-9]{3}-02-(28|29|30)T00:00:00Z",
                "[0-9TZ:-]{20}",
            ],
        ) {
            prop_assert_eq!(Regex::new(DATE).unwrap().is_match(&text), date(&text).is_some(), "{}", text);
        }
    }
}
