//! Texts in a packed view: most are ids, digests, numbers, dates or well-known words, and take a half or less as such.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use managed_secrets_api::{
    Reason,
    keys::{
        ANNOTATIONS, CONDITIONS, DEFAULT_TARGET_KEY, DEFAULT_TARGET_TYPE, FIELD_MANAGER, LABELS, ROLES, TYPE_RECORD,
    },
};
use uuid::Uuid;

use super::codec::{Reader, Writer};

/// Words that occur in most views, besides the reasons. The first ones take one byte, all others two.
const WORDS: [&[&str]; 6] = [
    &[DEFAULT_TARGET_KEY],
    &ANNOTATIONS,
    &LABELS,
    &ROLES,
    &CONDITIONS,
    &[
        "",
        "True",
        "False",
        "Unknown",
        "Delete",
        "Retain",
        "none",
        "generate",
        DEFAULT_TARGET_TYPE,
        TYPE_RECORD,
        FIELD_MANAGER,
    ],
];

static KNOWN: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    WORDS.into_iter().flatten().copied().chain(reasons).collect()
});
static NUMBERS: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| KNOWN.iter().enumerate().map(|(number, word)| (*word, number)).collect());

/// Shorter digests are not worth a look.
const DIGEST_MIN: usize = 16;
/// Bits of the first number that say which form a text has. The rest is its length, or the number that it is.
const FORM_BITS: u32 = 3;

/// A text by what it means.
enum Form<'t> {
    Raw(&'t str),
    /// By its place among the known words.
    Known(usize),
    Decimal(u64),
    /// Seconds since 1970.
    Date(u64),
    Id(Uuid),
    Hex(Cow<'t, [u8]>),
    Base64(Cow<'t, [u8]>),
}

impl<'t> Form<'t> {
    /// The shortest form that means exactly this text.
    fn of(text: &'t str) -> Self {
        if let Some(number) = NUMBERS.get(text) {
            return Self::Known(*number);
        }
        let forms = [Self::decimal, Self::date, Self::id, Self::hex, Self::base64];
        let exact = forms.iter().filter_map(|form| form(text)).find(|form| form.text() == text);
        exact.unwrap_or(Self::Raw(text))
    }

    fn decimal(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| number >> (u64::BITS - FORM_BITS) == 0).map(Self::Decimal)
    }

    fn date(text: &str) -> Option<Self> {
        let text = Some(text).filter(|text| text.len() == "2026-01-01T00:00:00Z".len() && text.ends_with('Z'))?;
        text.parse::<Timestamp>().ok()?.as_second().try_into().ok().map(Self::Date)
    }

    fn id(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self::Id)
    }

    fn hex(text: &str) -> Option<Self> {
        hex::decode(Some(text).filter(|text| text.len() >= DIGEST_MIN)?).ok().map(|bytes| Self::Hex(bytes.into()))
    }

    fn base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(Some(text).filter(|text| text.len() >= DIGEST_MIN)?).ok()?;
        Some(Self::Base64(bytes.into()))
    }

    /// The text that it means.
    fn text(&self) -> Cow<'t, str> {
        match self {
            Self::Raw(text) => Cow::Borrowed(text),
            Self::Known(number) => Cow::Borrowed(KNOWN.get(*number).copied().unwrap_or_default()),
            Self::Decimal(number) => number.to_string().into(),
            Self::Date(seconds) => {
                let date = seconds.to_owned().try_into().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
                date.unwrap_or_default().to_string().into()
            }
            Self::Id(id) => id.to_string().into(),
            Self::Hex(bytes) => hex::encode(bytes).into(),
            Self::Base64(bytes) => STANDARD.encode(bytes).into(),
        }
    }
}

pub(super) fn pack(text: &str, to: &mut Writer) {
    let mut head = |form: u64, number: u64| to.number(number << FORM_BITS | form);
    match Form::of(text) {
        Form::Raw(text) => {
            head(0, text.len() as u64);
            to.raw(text.as_bytes());
        }
        Form::Known(number) => head(1, number as u64),
        Form::Decimal(number) => head(2, number),
        Form::Date(seconds) => head(3, seconds),
        Form::Id(id) => {
            head(4, 0);
            to.raw(id.as_bytes());
        }
        Form::Hex(bytes) => {
            head(5, bytes.len() as u64);
            to.raw(&bytes);
        }
        Form::Base64(bytes) => {
            head(6, bytes.len() as u64);
            to.raw(&bytes);
        }
    }
}

pub(super) fn unpack(from: &mut Reader<'_>) -> String {
    let head = from.number();
    let number = head >> FORM_BITS;
    let length = usize::try_from(number).unwrap_or_default();
    let form = match head & ((1 << FORM_BITS) - 1) {
        0 => Form::Raw(str::from_utf8(from.raw(length)).unwrap_or_default()),
        1 => Form::Known(length),
        2 => Form::Decimal(number),
        3 => Form::Date(number),
        4 => Form::Id(Uuid::from_slice(from.raw(size_of::<Uuid>())).unwrap_or_default()),
        5 => Form::Hex(from.raw(length).into()),
        _ => Form::Base64(from.raw(length).into()),
    };
    form.text().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes a text takes, packed; and that it comes back.
    fn size(text: &str) -> usize {
        let mut to = Writer::default();
        pack(text, &mut to);
        let bytes = to.bytes();
        assert_eq!(unpack(&mut Reader::new(&bytes)), text);
        bytes.len()
    }

    #[test]
    fn what_is_well_known_takes_a_byte_or_two_and_what_has_a_form_takes_what_it_means() {
        assert_eq!(size("value"), 1);
        assert!(KNOWN.iter().all(|word| size(word) <= 2));
        assert_eq!(size("6e6fcec5-4f59-452e-b760-01087152958a"), 17);
        assert_eq!(size(&hex::encode([7; 32])), 34);
        assert_eq!(size(&STANDARD.encode([7; 32])), 34);
        assert_eq!(size("123456"), 3);
        assert_eq!(size("2026-11-28T11:30:00Z"), 5);
    }

    #[test]
    fn what_only_resembles_a_form_stays_as_it_is() {
        let all = [
            "00123",
            "+5",
            "2305843009213693952",
            "6E6FCEC5-4F59-452E-B760-01087152958A",
            "{6e6fcec5-4f59-452e-b760-01087152958a}",
            "2026-11-28T11:30:00z",
            "2026-11-28 11:30:00Z",
            "2026-11-28T11:30:60Z",
            "1926-11-28T11:30:00Z",
            "QUJDREVGR0hJSktMTU5PUFFSU1RVVk==",
            "QUJDREVGR0hJSktMTU5PUFFSU1RVVg",
        ];
        for text in all {
            assert_eq!(size(text), if text.len() < 16 { 1 } else { 2 } + text.len(), "{text}");
        }
    }
}
