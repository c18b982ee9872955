use proptest::prelude::*;

use super::*;

/// Sealed by an independent implementation: "grüße" for prod/db, strict, under the X-Wing seed 22×32.
const VECTOR: &str = include_str!("../../tests/vectors/mss1.txt");

fn vector() -> &'static str {
    VECTOR.trim_end()
}

fn key_of(byte: u8) -> SealingKey {
    SealingKey::new(Zeroizing::new([byte; 32])).unwrap()
}

fn value(text: &str) -> Plaintext {
    Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).unwrap()
}

fn encoded(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn strict(namespace: &str, name: &str) -> Scope {
    Scope::Strict { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn in_namespace(namespace: &str) -> Scope {
    Scope::Namespace { namespace: namespace.to_owned() }
}

fn format_error(text: &str) -> &'static str {
    Sealed::parse(text).expect_err("must be a format error").0
}

#[test]
fn opens_the_frozen_vector() {
    let key = key_of(0x22);
    assert_eq!(key.public().fingerprint(), "efa4292736dc4550e9e73c92b3736fbe48757cc0516d9b5468be59ce270227ad");
    let sealed = Sealed::parse(vector()).unwrap();
    assert_eq!((sealed.scope(), sealed.handling()), (&strict("prod", "db"), Handling::Deliverable));
    assert_eq!(sealed.key_id().to_string(), "efa4292736dc4550");
    assert!(sealed.open(&key, "prod", "db").unwrap().same_as(&value("grüße")));
}

#[test]
fn the_key_is_named_by_the_beginning_of_a_text() {
    let id = Some(key_of(0x22).key_id());
    assert_eq!((Sealed::key_named(vector()), Sealed::key_named(&vector()[..25])), (id, id));
    let other_suite = encoded(&[&[2], &decoded(vector())[1..]].concat());
    for text in ["", "mss1.", &vector()[..24], "mss1.ä234567890123456789", &vector()[1..], &other_suite] {
        assert_eq!(Sealed::key_named(text), None, "{text}");
    }
}

#[test]
fn every_single_bit_flip_is_refused() {
    const HEADER: usize = 16 + 6 + 4;
    let key = key_of(0x22);
    let bytes = decoded(vector());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match Sealed::parse(&encoded(&flipped)) {
            Err(_) => assert!(bit / 8 < HEADER, "bit {bit}: only the header has a format"),
            Ok(sealed) => {
                let error = sealed.open(&key, "prod", "db").expect_err(&format!("bit {bit} opened"));
                let expected = match bit / 8 {
                    7..15 => matches!(error, OpenError::Key(_)),
                    // The bit that says "kept" leaves the text where it belongs.
                    15 if bit == 15 * 8 + 7 => error == OpenError::Tampered,
                    15..HEADER => matches!(error, OpenError::Place(_)),
                    _ => error == OpenError::Tampered,
                };
                assert!(expected, "bit {bit}: {error:?}");
            }
        }
    }
}

#[test]
fn the_scope_is_authentic() {
    // A text for one name, given the header of another place: its scope now fits, and it must not open.
    let key = key_of(0x22);
    let bytes = decoded(vector());
    let body = &bytes[26..];
    for (scope, namespace, name) in [
        (strict("prod", "db2"), "prod", "db2"),
        (strict("test", "db"), "test", "db"),
        (in_namespace("prod"), "prod", "db"),
        (Scope::Cluster, "prod", "db"),
    ] {
        let moved = [header(key.key_id(), &scope, Handling::Deliverable).unwrap().as_slice(), body].concat();
        let sealed = Sealed::parse(&encoded(&moved)).unwrap();
        assert_eq!(sealed.scope(), &scope);
        assert_eq!(sealed.open(&key, namespace, name).err(), Some(OpenError::Tampered), "{scope}");
    }
}

#[test]
fn that_a_text_is_kept_is_authentic() {
    let key = key_of(0x22);
    for (made, other) in [(Handling::Deliverable, Handling::Kept), (Handling::Kept, Handling::Deliverable)] {
        let scope = strict("prod", "db");
        let text = seal(key.public(), &scope, made, &value("x")).unwrap();
        let sealed = Sealed::parse(&text).unwrap();
        assert_eq!(sealed.handling(), made);
        assert!(sealed.open(&key, "prod", "db").unwrap().same_as_bytes(b"x"));
        let header = header(key.key_id(), &scope, other).unwrap();
        let moved = [header.as_slice(), &decoded(&text)[header.len()..]].concat();
        let forged = Sealed::parse(&encoded(&moved)).unwrap();
        assert_eq!(forged.handling(), other);
        assert_eq!(forged.open(&key, "prod", "db").err(), Some(OpenError::Tampered));
    }
}

#[test]
fn opens_the_frozen_vector_that_is_kept() {
    let sealed = Sealed::parse(include_str!("../../tests/vectors/mss1-kept.txt").trim_end()).unwrap();
    assert_eq!((sealed.scope(), sealed.handling()), (&strict("prod", "db"), Handling::Kept));
    assert!(sealed.open(&key_of(0x22), "prod", "db").unwrap().same_as(&value("grüße")));
}

#[test]
fn scope_says_where_it_fits_before_any_key_is_used() {
    let other_key = key_of(0x23);
    let sealed = Sealed::parse(vector()).unwrap();
    let wrong = sealed.open(&other_key, "prod", "db2").unwrap_err();
    assert_eq!(wrong.to_string(), "sealed for prod/db, used in prod/db2");
    assert!(matches!(wrong, OpenError::Place(_)));
    assert_eq!(sealed.open(&other_key, "prod", "db").err(), Some(OpenError::Key(sealed.key_id())));

    let fits = |scope: &Scope, namespace: &str, name: &str| scope.fits(namespace, name).is_ok();
    assert!(fits(&strict("a", "b"), "a", "b"));
    assert!(!fits(&strict("a", "b"), "a", "c") && !fits(&strict("a", "b"), "c", "b"));
    assert!(fits(&in_namespace("a"), "a", "b") && fits(&in_namespace("a"), "a", "c"));
    assert!(!fits(&in_namespace("a"), "b", "b"));
    assert!(fits(&Scope::Cluster, "a", "b"));
    assert_eq!(in_namespace("a").fits("b", "c").unwrap_err().to_string(), "sealed for namespace a, used in b/c");
}

#[test]
fn names_are_there_exactly_where_the_scope_needs_them() {
    let bytes = decoded(vector());
    let with = |code: u8, namespace: &[u8], name: &[u8]| {
        let mut out = bytes[..15].to_vec();
        out.push(code);
        codec::put(&mut out, namespace).unwrap();
        codec::put(&mut out, name).unwrap();
        out.extend_from_slice(&bytes[26..]);
        Sealed::from_bytes(out).map(|_| ()).map_err(|error| error.0)
    };
    assert_eq!(with(1, b"prod", b"db"), Ok(()));
    assert_eq!(with(2, b"prod", b""), Ok(()));
    assert_eq!(with(3, b"", b""), Ok(()));
    let namespace = Err("must name a namespace: 1 to 63 characters of a-z 0-9 -");
    let name = Err("must name an object: 1 to 253 characters of a-z 0-9 - .");
    let surplus = Err("must name only what its scope binds it to");
    assert_eq!(with(1, b"", b"db"), namespace);
    assert_eq!(with(1, b"prod", b""), name);
    assert_eq!(with(2, b"", b""), namespace);
    assert_eq!(with(2, b"prod", b"db"), surplus);
    assert_eq!(with(3, b"prod", b""), surplus);
    assert_eq!(with(3, b"", b"db"), surplus);
    assert_eq!(with(1, &[b'n'; 63], &[b'o'; 253]), Ok(()));
    assert_eq!(with(1, &[b'n'; 64], b"db"), namespace);
    assert_eq!(with(1, b"prod", &[b'o'; 254]), name);
    assert_eq!(with(1, b"prod\n", b"db"), namespace);
    assert_eq!(with(1, b"prod", b"db\x1b[2J"), name);
    assert_eq!(with(1, b"pr.od", b"db"), namespace);
    for code in [0, 4, 0x41, 0x7f, 0x80, 0x84, 255] {
        assert_eq!(with(code, b"prod", b"db"), Err("must have scope 1, 2 or 3"));
    }
    // Kept or not, the rules for names are the same.
    assert_eq!(with(0x81, b"prod", b"db"), Ok(()));
    assert_eq!(with(0x82, b"prod", b""), Ok(()));
    assert_eq!(with(0x83, b"", b""), Ok(()));
    assert_eq!(with(0x81, b"", b"db"), namespace);
    assert_eq!(with(0x82, b"prod", b"db"), surplus);
}

#[test]
fn only_canonical_base64_is_read() {
    // Names of three lengths give texts of all three remainders modulo 3.
    let key = key_of(0x22);
    for name in ["a", "ab", "abc"] {
        let text = seal(key.public(), &strict("prod", name), Handling::Deliverable, &value("x")).unwrap();
        assert!(Sealed::parse(&text).is_ok());
        let not_canonical = "must be canonical base64url without padding";
        assert_eq!(format_error(&format!("{text}=")), not_canonical);
        assert_eq!(format_error(&format!("{text}\n")), not_canonical);
        assert_eq!(format_error(&format!("{} {}", &text[..40], &text[40..])), not_canonical);
        let (body, last) = text.split_at(text.len() - 1);
        let unused_bits = match text.len() % 4 {
            3 => 4,
            0 => 2,
            _ => continue,
        };
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let index = alphabet.find(last).unwrap();
        assert_eq!(index % (1 << unused_bits), 0, "our own text is canonical");
        for surplus in 1..1 << unused_bits {
            let loose = &alphabet[index + surplus..=index + surplus];
            assert_eq!(format_error(&format!("{body}{loose}")), not_canonical);
        }
    }
    let plain_alphabet = vector().replacen('-', "+", 1);
    assert_eq!(format_error(&plain_alphabet), "must be canonical base64url without padding");
}

#[test]
fn every_rule_of_the_format_is_enforced() {
    let bytes = decoded(vector());
    for text in ["", "hunter2", "MSS1.", "mss2.AAAA", " mss1.AAAA"] {
        assert_eq!(format_error(text), "must begin with \"mss1.\"");
    }
    let size = "must be complete: it is shorter or longer than any sealed value";
    assert_eq!(format_error("mss1.hunter2"), size);
    assert_eq!(format_error(&format!("mss1.{}", "A".repeat(SEALED_MAX))), size);
    for place in 0..7 {
        let mut other = bytes.clone();
        other[place] ^= 1;
        assert_eq!(format_error(&encoded(&other)), "must have version 1 and suite 1", "{place}");
    }
    for length in 0..bytes.len() {
        assert!(Sealed::from_bytes(bytes[..length].to_vec()).is_err(), "{length}");
    }
    for extra in [1, 16, 63] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + extra, 0);
        assert_eq!(format_error(&encoded(&longer)), "must hold a value padded to 64, 128, 256 … 16384 bytes");
    }
}

#[test]
fn authentic_text_must_still_be_padded_and_a_value() {
    let key = key_of(0x22);
    let sealed = |length: u32, fill: &[u8], total: usize| {
        let mut padded = length.to_be_bytes().to_vec();
        padded.extend_from_slice(fill);
        padded.resize(total, 0);
        let text = seal_padded(key.public(), &Scope::Cluster, Handling::Deliverable, &padded).unwrap();
        Sealed::parse(&text).unwrap().open(&key, "a", "b").map(|_| ())
    };
    assert_eq!(sealed(2, b"ab", 64), Ok(()));
    assert_eq!(sealed(2, b"abc", 64), Err(OpenError::Padding("must be zeros")));
    assert_eq!(sealed(2, b"ab", 128), Err(OpenError::Padding("must be no longer than the value needs")));
    assert_eq!(sealed(0, b"", 64), Err(OpenError::Value(ValueError::Empty)));
    assert_eq!(sealed(1, b"\xff", 64), Err(OpenError::Value(ValueError::NotUtf8)));
    assert_eq!(sealed(4000, &[b'a'; 4000], 4096), Err(OpenError::Value(ValueError::TooLong)));
}

#[test]
fn nobody_seals_for_a_place_that_cannot_be() {
    let key = key_of(0x22);
    for scope in [strict("", "db"), strict("prod", ""), strict("Prod", "db"), in_namespace(""), strict("prod", "a/b")] {
        assert!(
            matches!(seal(key.public(), &scope, Handling::Deliverable, &value("x")), Err(SealError::Scope(_))),
            "{scope}"
        );
    }
}

#[test]
fn the_extremes_are_sealed_within_the_published_lengths() {
    let key = key_of(0x22);
    let longest = strict(&"n".repeat(63), &"o".repeat(253));
    for (scope, text, length) in
        [(Scope::Cluster, "x".to_owned(), SEALED_MIN), (longest, "😀".repeat(3500), SEALED_MAX)]
    {
        let sealed = seal(key.public(), &scope, Handling::Deliverable, &value(&text)).unwrap();
        assert_eq!(sealed.len(), length);
        let (namespace, name) = (scope.namespace().unwrap_or("a"), scope.name().unwrap_or("b"));
        let opened = Sealed::parse(&sealed).unwrap().open(&key, namespace, name).unwrap();
        assert!(opened.same_as_bytes(text.as_bytes()));
    }
}

#[test]
fn a_public_key_survives_its_encoding_and_no_other_bytes_pass() {
    let key = key_of(0x22);
    let bytes = key.public().as_bytes();
    assert_eq!(&PublicKey::from_bytes(bytes).unwrap(), key.public());
    assert!(PublicKey::from_bytes(&bytes[1..]).is_err());
    assert!(PublicKey::from_bytes(&[bytes, &[0]].concat()).is_err());
    // ML-KEM's modulus check (FIPS 203, section 7.2): coefficients of 4095 are none.
    assert!(PublicKey::from_bytes(&[0xff; 1216]).is_err());
}

#[test]
fn debug_shows_neither_keys_nor_ciphertext() {
    assert_eq!(format!("{:?}", key_of(0x22)), "SealingKey(efa4292736dc4550)");
    assert_eq!(format!("{:?}", key_of(0x22).public()), "PublicKey(efa4292736dc4550)");
    let shown = format!("{:?}", Sealed::parse(vector()).unwrap());
    assert!(shown.len() < 150 && shown.contains("prod"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_sealed_opens_to_the_same_value(text in "\\PC{1,200}", scope in 0..3, kept: bool, name in "[a-z0-9.-]{1,253}") {
        let key = key_of(0x22);
        let scope = match scope {
            0 => strict("prod", &name),
            1 => in_namespace("prod"),
            _ => Scope::Cluster,
        };
        let handling = if kept { Handling::Kept } else { Handling::Deliverable };
        let sealed = seal(key.public(), &scope, handling, &value(&text)).unwrap();
        let parsed = Sealed::parse(&sealed).unwrap();
        prop_assert_eq!((parsed.scope(), parsed.handling()), (&scope, handling));
        prop_assert!(parsed.open(&key, "prod", &name).unwrap().same_as_bytes(text.as_bytes()));
        prop_assert!(seal(key.public(), &scope, handling, &value(&text)).unwrap() != sealed, "each text is fresh");
    }

    #[test]
    fn whatever_parses_has_one_text(tail in proptest::collection::vec(any::<u8>(), 1205..1300)) {
        let bytes = [&decoded(vector())[..15], &tail].concat();
        let text = encoded(&bytes);
        if let Ok(sealed) = Sealed::parse(&text) {
            prop_assert_eq!(encoded(&sealed.bytes), text);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,300}", filler in "[A-Za-z0-9_-]{0,2000}") {
        prop_assert!(Sealed::parse(&text).is_err());
        let prefixed = format!("{PREFIX}{text}{filler}");
        prop_assert!(Sealed::parse(&prefixed).is_err());
        // A right beginning, and anything behind it.
        let _ = Sealed::parse(&format!("{}{filler}", &vector()[..30]));
    }
}
