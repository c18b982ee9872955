use proptest::prelude::*;

use super::*;

const UID: &str = "6f1c3f0e-0000-4000-8000-000000000001";
const PLACE: Place<'static> = Place { namespace: "prod", object: "db" };

fn seed_of(byte: u8) -> Seed {
    Seed::new(Zeroizing::new([byte; 32]))
}

fn value(text: &str) -> Plaintext {
    Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

fn material() -> Material {
    Material { dek: Zeroizing::new([0x33; 32]), salt: [0x44; 32], wrap_nonce: [0x66; 12], payload_nonce: [0x77; 12] }
}

fn vector() -> Vec<u8> {
    hex::decode(include_str!("../../tests/vectors/mse1.hex").split_whitespace().collect::<String>()).unwrap()
}

/// Parses and opens with the vector's seed alone.
fn open_at(bytes: &[u8], place: &Place<'_>) -> Result<Plaintext, OpenError> {
    let seed = seed_of(0x11);
    open(&Record::parse(bytes)?, place, |id| (id == seed.id()).then_some(&seed))
}

#[test]
fn matches_the_frozen_vector() {
    let record = seal_with(&material(), &seed_of(0x11), &PLACE, UID, 7, &value("hunter2")).unwrap();
    assert_eq!(hex::encode(record.as_bytes()), hex::encode(vector()));
    assert_eq!(record.as_bytes().len(), 276);
    assert_eq!((record.version(), record.uid(), record.seed_id()), (7, UID, seed_of(0x11).id()));
    assert!(open_at(&vector(), &PLACE).unwrap().same_as(&value("hunter2")));
}

#[test]
fn every_single_bit_flip_is_refused_at_its_step() {
    // Where a field begins: magic, version, uid, seed id, salt … wrapped DEK, commitment, nonce and payload.
    const VERSION: usize = 6;
    const UID_LENGTH: usize = 14;
    const UID_TEXT: usize = 16;
    const SEED_ID: usize = 52;
    const SALT: usize = 60;
    const COMMITMENT: usize = 152;
    const PAYLOAD: usize = 184;
    for bit in 0..vector().len() * 8 {
        let (byte, mut flipped) = (bit / 8, vector());
        flipped[byte] ^= 1 << (bit % 8);
        let error = open_at(&flipped, &PLACE).expect_err(&format!("bit {bit} opened"));
        let expected = match byte {
            0..VERSION | UID_LENGTH..UID_TEXT => matches!(error, OpenError::Format(_)),
            VERSION..UID_LENGTH | SALT..COMMITMENT => error == OpenError::Wrap,
            // A uid that is no longer UTF-8 is a matter of format.
            UID_TEXT..SEED_ID => matches!(error, OpenError::Wrap | OpenError::Format(_)),
            SEED_ID..SALT => matches!(error, OpenError::SeedUnknown(_)),
            COMMITMENT..PAYLOAD => error == OpenError::Commitment,
            _ => error == OpenError::Payload,
        };
        assert!(expected, "bit {bit}: {error:?}");
    }
}

#[test]
fn every_truncation_and_every_trailing_byte_is_a_format_error() {
    for length in 0..vector().len() {
        let error = open_at(&vector()[..length], &PLACE).err();
        assert!(matches!(error, Some(OpenError::Format(_))), "{length}: {error:?}");
    }
    for extra in [1, 2, 16, 63] {
        let mut longer = vector();
        longer.resize(longer.len() + extra, 0);
        assert!(matches!(open_at(&longer, &PLACE), Err(OpenError::Format(_))), "{extra}");
    }
    // Another bucket is a right length; then the payload does not open.
    let mut longer = vector();
    longer.resize(longer.len() + 64, 0);
    assert_eq!(open_at(&longer, &PLACE).err(), Some(OpenError::Payload));
}

#[test]
fn a_record_opens_at_its_own_place_only() {
    for place in [
        Place { namespace: "prod", object: "db2" },
        Place { namespace: "prod2", object: "db" },
        Place { namespace: "prodd", object: "b" },
        Place { namespace: "db", object: "prod" },
        Place { namespace: "", object: "" },
    ] {
        assert_eq!(open_at(&vector(), &place).err(), Some(OpenError::Wrap), "{place:?}");
    }
    let long = "x".repeat(65_536);
    let place = Place { namespace: &long, object: "db" };
    assert_eq!(open_at(&vector(), &place).err(), Some(OpenError::Wrap));
}

#[test]
fn headers_do_not_go_with_another_record() {
    // Two records of one object: another version; another writer. Swapping their headers must not pass.
    let seed = seed_of(0x11);
    let older = vector();
    let newer = seal(&seed, &PLACE, UID, 8, &value("hunter3")).unwrap();
    let other = seal(&seed, &PLACE, &UID.replace("01", "02"), 7, &value("hunter4")).unwrap();
    for donor in [newer.as_bytes(), other.as_bytes()] {
        let header = [&donor[..52], &older[52..]].concat();
        assert_eq!(open_at(&header, &PLACE).err(), Some(OpenError::Wrap));
        let wrapping = [&older[..52], &donor[52..152], &older[152..]].concat();
        assert_eq!(open_at(&wrapping, &PLACE).err(), Some(OpenError::Wrap));
        let commitment = [&older[..152], &donor[152..184], &older[184..]].concat();
        assert_eq!(open_at(&commitment, &PLACE).err(), Some(OpenError::Commitment));
        let payload = [&older[..184], &donor[184..]].concat();
        assert_eq!(open_at(&payload, &PLACE).err(), Some(OpenError::Payload));
    }
}

#[test]
fn a_missing_seed_is_named_and_a_wrong_one_does_not_open() {
    let record = Record::parse(&vector()).unwrap();
    let id = seed_of(0x11).id();
    assert_eq!(id.to_string(), "a365ef1c79e11b4e");
    assert_eq!(open(&record, &PLACE, |_| None).err(), Some(OpenError::SeedUnknown(id)));
    let wrong = seed_of(0x12);
    assert_eq!(open(&record, &PLACE, |_| Some(&wrong)).err(), Some(OpenError::Wrap));
}

#[test]
fn authentic_bytes_must_still_be_padded_and_a_value() {
    let sealed = |padded: Vec<u8>| {
        let bytes = seal_padded(&material(), &seed_of(0x11), &PLACE, UID, 7, Zeroizing::new(padded)).unwrap();
        open_at(&bytes, &PLACE).map(|_| ())
    };
    let padded = |length: u32, fill: &[u8], total: usize| {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(fill);
        bytes.resize(total, 0);
        bytes
    };
    assert_eq!(sealed(padded(2, b"ab", 64)), Ok(()));
    assert_eq!(sealed(padded(2, b"abc", 64)), Err(OpenError::Padding("must be zeros")));
    assert_eq!(sealed(padded(2, b"ab", 128)), Err(OpenError::Padding("must be no longer than the value needs")));
    assert_eq!(sealed(padded(61, b"ab", 64)), Err(OpenError::Padding("must hold the complete value")));
    assert_eq!(sealed(padded(0, b"", 64)), Err(OpenError::Value(ValueError::Empty)));
    assert_eq!(sealed(padded(1, b"\xff", 64)), Err(OpenError::Value(ValueError::NotUtf8)));
    assert_eq!(sealed(padded(4000, &[b'a'; 4000], 4096)), Err(OpenError::Value(ValueError::TooLong)));
    assert!(matches!(sealed(padded(2, b"ab", 65)), Err(OpenError::Format(_))));
}

#[test]
fn no_two_sealings_share_anything_random() {
    let seed = seed_of(0x11);
    let one = seal(&seed, &PLACE, UID, 7, &value("hunter2")).unwrap();
    let two = seal(&seed, &PLACE, UID, 7, &value("hunter2")).unwrap();
    for range in [60..92, 92..104, 104..152, 152..184, 184..196, 196..276] {
        assert_ne!(one.as_bytes()[range.clone()], two.as_bytes()[range.clone()], "{range:?}");
    }
}

#[test]
fn what_fits_no_field_is_not_sealed() {
    let seal_at = |place: &Place<'_>, uid: &str| seal(&seed_of(0x11), place, uid, 1, &value("x")).err();
    assert_eq!(seal_at(&PLACE, &"u".repeat(64)), None);
    assert_eq!(seal_at(&PLACE, &"u".repeat(65)), Some(SealError::Uid));
    let long = "x".repeat(65_536);
    assert_eq!(seal_at(&Place { namespace: "a", object: &long }, UID), Some(SealError::Field(FieldTooLong)));
}

#[test]
fn debug_shows_no_ciphertext() {
    let shown = format!("{:?}", Record::parse(&vector()).unwrap());
    assert_eq!(shown, format!("Record {{ version: 7, uid: \"{UID}\", seed_id: SeedId(a365ef1c79e11b4e), .. }}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_sealed_opens_to_the_same_value(
        text in "\\PC{1,200}|[a-z]{3500}|😀{3500}",
        namespace in "[a-z]{1,63}",
        object in "[a-z.]{1,253}",
        uid in "[0-9a-f-]{0,64}",
        version in any::<u64>(),
    ) {
        let seed = seed_of(0x21);
        let place = Place { namespace: &namespace, object: &object };
        let sealed = seal(&seed, &place, &uid, version, &value(&text)).unwrap();
        let record = Record::parse(sealed.as_bytes()).unwrap();
        prop_assert_eq!(&record, &sealed);
        prop_assert_eq!((record.version(), record.uid()), (version, uid.as_str()));
        prop_assert!(open(&record, &place, |_| Some(&seed)).unwrap().same_as_bytes(text.as_bytes()));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Record::parse(&bytes).is_err());
    }

    #[test]
    fn no_header_makes_the_parser_panic(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        // What parses at random is refused when opened.
        let bytes = [&vector()[..14], &tail].concat();
        prop_assert!(open_at(&bytes, &PLACE).is_err());
    }
}
