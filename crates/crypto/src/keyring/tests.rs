use proptest::prelude::*;

use super::*;
use crate::keyring::document::base64;

const CREATED: &str = "2026-11-23T08:00:00Z";

fn kek() -> Kek {
    Kek::new(&[9; 32]).unwrap()
}

/// An entry wrapped as it says, for tests to spoil.
fn entry(purpose: Purpose, byte: u8, created: &str, state: State) -> Entry {
    let seed = Zeroizing::new([byte; 32]);
    let id = match purpose {
        Purpose::Record => Seed::new(seed.clone()).id().to_string(),
        Purpose::Sealing => SealingKey::new(seed.clone()).unwrap().key_id().to_string(),
    };
    let envelope = Envelope::encode(purpose, &id, created, &seed);
    Entry::new(id, purpose, state, created.to_owned(), wrap(&envelope))
}

fn wrap(envelope: &[u8]) -> Wrapped {
    Wrapped::new("local", kek().key_id().to_string(), kek().wrap(envelope).unwrap())
}

fn document(entries: Vec<Entry>) -> Document {
    Document { format: FORMAT.to_owned(), generation: 0, entries, given_up: Vec::new(), unknown: Map::new() }
}

fn open(documents: &[Document]) -> Result<Keyring, OpenError<KekError>> {
    Keyring::open(documents, |wrapped| kek().unwrap(&wrapped.ciphertext))
}

fn seed_id(byte: u8) -> SeedId {
    Seed::new(Zeroizing::new([byte; 32])).id()
}

fn key_id(byte: u8) -> KeyId {
    SealingKey::new(Zeroizing::new([byte; 32])).unwrap().key_id()
}

fn active_id(keyring: &Keyring) -> SeedId {
    keyring.active_seed().unwrap().id()
}

#[test]
fn the_first_entries_open_and_work() {
    let now: Timestamp = "2026-11-23T08:00:00.75Z".parse().unwrap();
    let made = Keyring::generate_entries(now, |bytes| Ok::<_, KekError>(wrap(bytes))).unwrap();
    let json = serde_json::to_string(&made).unwrap();
    let read: Document = serde_json::from_str(&json).unwrap();
    assert_eq!(read, made);
    assert!(read.entries.iter().all(|entry| entry.created == CREATED && entry.state == State::Active));
    let keyring = open(&[read]).unwrap();
    let published = keyring.current_public_key().unwrap();
    assert_eq!(published.not_before.to_string(), CREATED);
    assert_eq!(made.entries[1].public_key.as_deref(), Some(base64(published.key.as_bytes()).as_str()));
    assert!(matches!(keyring.sealing_key(published.key.key_id()), SealingKeyStatus::Usable(_)));
    assert_eq!(made.entries[0].id, active_id(&keyring).to_string());
}

#[test]
fn the_document_has_the_words_of_the_format() {
    let mut entry = entry(Purpose::Record, 1, CREATED, State::OpenOnly);
    entry.wrapped.ciphertext = "AAAA".to_owned();
    let json = serde_json::to_value(document(vec![entry])).unwrap();
    let expected = serde_json::json!({
        "format": "MSK1",
        "entries": [{
            "id": seed_id(1).to_string(), "purpose": "record", "state": "open-only", "created": CREATED,
            "wrapped": {"provider": "local", "keyId": kek().key_id().to_string(), "ciphertext": "AAAA"},
        }],
    });
    assert_eq!(json, expected);
    for (state, word) in [(State::Pending, "pending"), (State::Active, "active"), (State::Revoked, "revoked")] {
        assert_eq!(serde_json::to_value(state).unwrap(), word);
    }
}

#[test]
fn the_newest_active_key_is_used_and_the_others_open() {
    let record = |byte, created, state| entry(Purpose::Record, byte, created, state);
    let keyring = open(&[
        document(vec![
            record(1, "2026-01-01T00:00:00Z", State::Active),
            record(2, "2026-03-01T00:00:00Z", State::Active),
            record(3, "2026-04-01T00:00:00Z", State::OpenOnly),
        ]),
        document(vec![
            record(4, "2026-05-01T00:00:00Z", State::Pending),
            record(5, "2026-06-01T00:00:00Z", State::Revoked),
            // A later date in another zone's clothes is the earlier date that it is.
            record(6, "2026-03-01T01:00:00+02:00", State::Active),
        ]),
    ])
    .unwrap();
    assert_eq!(active_id(&keyring), seed_id(2));
    for byte in 1..=6 {
        assert!(keyring.seed(seed_id(byte)).is_some(), "{byte}");
    }
    assert!(keyring.seed(seed_id(7)).is_none());
    assert!(keyring.current_public_key().is_none());
}

/// Opens the operator's own document and one that joined it, in either order.
fn joined(own: &Document, beside: &Document) -> Keyring {
    let open = |parts: [Part<'_>; 2]| Keyring::open(parts, |wrapped| kek().unwrap(&wrapped.ciphertext)).unwrap();
    let (own, beside) = (Part::from(own), Part { document: beside, origin: Origin::Joined });
    let (keyring, other) = (open([own, beside]), open([beside, own]));
    assert_eq!(active_id(&keyring), active_id(&other));
    assert!(keyring.holds_the_same(&other));
    keyring
}

fn published(keyring: &Keyring) -> Option<KeyId> {
    keyring.current_public_key().map(|published| published.key.key_id())
}

#[test]
fn a_joined_key_opens_and_is_never_used_for_new_values() {
    let both = |byte, created, state| {
        vec![entry(Purpose::Record, byte, created, state), entry(Purpose::Sealing, byte, created, state)]
    };
    let own = document(both(1, CREATED, State::Active));
    for state in [State::Active, State::Pending, State::OpenOnly] {
        for created in [CREATED, "2027-01-01T00:00:00Z", "9000-01-01T00:00:00Z"] {
            let keyring = joined(&own, &document(both(2, created, state)));
            assert_eq!(
                (active_id(&keyring), published(&keyring)),
                (seed_id(1), Some(key_id(1))),
                "{state:?} {created}"
            );
            assert!(keyring.seed(seed_id(2)).is_some());
            assert!(matches!(keyring.sealing_key(key_id(2)), SealingKeyStatus::Usable(_)));
        }
    }
    // Nothing of it is published in the place of a key that the operator does not have.
    let seed_alone = document(vec![entry(Purpose::Record, 1, CREATED, State::Active)]);
    assert_eq!(published(&joined(&seed_alone, &document(both(2, CREATED, State::Active)))), None);
    // And without a document of its own there is nothing to encrypt with.
    let foreign = document(both(2, CREATED, State::Active));
    let alone = Keyring::open([Part { document: &foreign, origin: Origin::Joined }], |wrapped| {
        kek().unwrap(&wrapped.ciphertext)
    });
    assert!(matches!(alone, Err(OpenError::NoActiveSeed)));
}

#[test]
fn a_copy_of_the_own_keys_changes_nothing() {
    let both =
        |state| document(vec![entry(Purpose::Record, 1, CREATED, state), entry(Purpose::Sealing, 1, CREATED, state)]);
    for state in [State::Active, State::Pending, State::OpenOnly, State::Revoked] {
        let keyring = joined(&both(State::Active), &both(state));
        assert_eq!((active_id(&keyring), published(&keyring)), (seed_id(1), Some(key_id(1))), "{state:?}");
        assert!(matches!(keyring.sealing_key(key_id(1)), SealingKeyStatus::Usable(_)), "{state:?}");
        let ignored =
            if state == State::Revoked { vec![seed_id(1).to_string(), key_id(1).to_string()] } else { vec![] };
        assert_eq!(keyring.ignored_revocations(), ignored, "{state:?}");
    }
    // It may revoke what it alone holds.
    let beside = document(vec![entry(Purpose::Sealing, 2, CREATED, State::Revoked)]);
    let keyring = joined(&both(State::Active), &beside);
    assert!(matches!(keyring.sealing_key(key_id(2)), SealingKeyStatus::Revoked));
    assert!(keyring.ignored_revocations().is_empty());
    // What the operator has retired, a copy does not bring back.
    let mut own = document(vec![entry(Purpose::Record, 2, CREATED, State::Active)]);
    own.entries.extend(both(State::OpenOnly).entries);
    let keyring = joined(&own, &both(State::Active));
    assert_eq!((active_id(&keyring), published(&keyring)), (seed_id(2), None));
}

#[test]
fn a_key_of_the_future_opens_and_is_not_used() {
    let now: Timestamp = "2026-11-27T08:00:00Z".parse().unwrap();
    let both = |byte, created| {
        [entry(Purpose::Record, byte, created, State::Active), entry(Purpose::Sealing, byte, created, State::Active)]
    };
    let of = |entries: Vec<Entry>| open(&[document(entries)]).unwrap().as_of(now);
    let keyring = of([both(1, CREATED), both(2, "2026-11-27T08:05:01Z")].concat());
    assert_eq!((active_id(&keyring), published(&keyring)), (seed_id(1), Some(key_id(1))));
    assert!(keyring.seed(seed_id(2)).is_some());
    assert!(matches!(keyring.sealing_key(key_id(2)), SealingKeyStatus::Usable(_)));
    assert_eq!(keyring.ahead_of(now).len(), 2);
    // Clocks differ a little; and time passes.
    let keyring = of([both(1, CREATED), both(2, "2026-11-27T08:05:00Z")].concat());
    assert_eq!((active_id(&keyring), published(&keyring)), (seed_id(2), Some(key_id(2))));
    // If all are ahead, it is the clock that is wrong.
    let keyring = of(both(2, "2030-01-01T00:00:00Z").to_vec());
    assert_eq!((active_id(&keyring), published(&keyring)), (seed_id(2), Some(key_id(2))));
    // The end of time is no exception.
    assert!(of(both(1, CREATED).to_vec()).as_of(Timestamp::MAX).ahead_of(Timestamp::MAX).is_empty());
}

#[test]
fn an_unopened_document_names_the_key_that_the_operator_uses() {
    let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let dates = ["2026-01-01T00:00:00Z", "2026-06-01T00:05:00Z", "2026-06-01T00:05:01Z", "2026-06-01T09:00:00+09:00"];
    let states = [State::Active, State::Pending, State::OpenOnly, State::Revoked];
    for (first, second) in dates.iter().flat_map(|first| dates.iter().map(move |second| (first, second))) {
        for state in states {
            let document = document(vec![
                entry(Purpose::Record, 1, first, State::Active),
                entry(Purpose::Record, 2, second, state),
                entry(Purpose::Sealing, 3, first, state),
                entry(Purpose::Sealing, 4, second, State::Active),
            ]);
            let keyring = open(std::slice::from_ref(&document)).unwrap().as_of(now);
            let seed = document.active_key(Purpose::Record, now);
            assert_eq!(seed, Some(active_id(&keyring).to_string().as_str()), "{first} {second} {state:?}");
            let sealing = document.active_key(Purpose::Sealing, now).map(str::to_owned);
            assert_eq!(sealing, published(&keyring).map(|id| id.to_string()), "{first} {second} {state:?}");
        }
    }
}

#[test]
fn sealing_keys_open_unless_revoked() {
    let sealing = |byte, created, state| entry(Purpose::Sealing, byte, created, state);
    let keyring = open(&[document(vec![
        entry(Purpose::Record, 1, CREATED, State::Active),
        sealing(1, "2026-01-01T00:00:00Z", State::Active),
        sealing(2, "2026-02-01T00:00:00Z", State::OpenOnly),
        sealing(3, "2026-03-01T00:00:00Z", State::Revoked),
        sealing(4, "2026-04-01T00:00:00Z", State::Pending),
    ])])
    .unwrap();
    assert_eq!(keyring.current_public_key().unwrap().key.key_id(), key_id(1));
    for byte in [1, 2, 4] {
        let status = keyring.sealing_key(key_id(byte));
        assert!(matches!(status, SealingKeyStatus::Usable(key) if key.key_id() == key_id(byte)), "{byte}");
    }
    assert!(matches!(keyring.sealing_key(key_id(3)), SealingKeyStatus::Revoked));
    assert!(matches!(keyring.sealing_key(key_id(5)), SealingKeyStatus::Unknown));
}

#[test]
fn a_restored_copy_never_widens_a_state() {
    let with = |state| {
        document(vec![entry(Purpose::Record, 1, CREATED, State::Active), entry(Purpose::Sealing, 2, CREATED, state)])
    };
    for states in [[State::Revoked, State::Active], [State::Active, State::Revoked]] {
        let keyring = open(&states.map(with)).unwrap();
        assert!(matches!(keyring.sealing_key(key_id(2)), SealingKeyStatus::Revoked));
        assert!(keyring.current_public_key().is_none());
    }
}

#[test]
fn an_entry_that_says_other_than_what_is_wrapped_is_refused() {
    let good = || entry(Purpose::Record, 1, CREATED, State::Active);
    let refused = |entry: Entry| match open(&[document(vec![good(), entry])]) {
        Err(OpenError::Entry { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Entry { purpose: Purpose::Sealing, ..good() }), "the purpose");
    assert_eq!(refused(Entry { id: seed_id(2).to_string(), ..good() }), "the id");
    assert_eq!(refused(Entry { created: "2027-11-23T08:00:00Z".to_owned(), ..good() }), "the creation date");
    assert_eq!(
        refused(Entry { wrapped: entry(Purpose::Record, 2, CREATED, State::Active).wrapped, ..good() }),
        "the id"
    );

    // Wrapped honestly, but wrong in itself: another seed's id; no date; a byte too many, a byte too few.
    let rewrapped = |envelope: &[u8]| Entry { wrapped: wrap(envelope), ..good() };
    let id = seed_id(1).to_string();
    assert_eq!(refused(rewrapped(&Envelope::encode(Purpose::Record, &id, CREATED, &[2; 32]))), "the id");
    let dateless = rewrapped(&Envelope::encode(Purpose::Record, &id, "soon", &[1; 32]));
    assert_eq!(refused(Entry { created: "soon".to_owned(), ..dateless }), "the creation date");
    let envelope = Envelope::encode(Purpose::Record, &id, CREATED, &[1; 32]);
    assert_eq!(refused(rewrapped(&[envelope.as_slice(), &[0]].concat())), "the format");
    assert_eq!(refused(rewrapped(&envelope[..envelope.len() - 1])), "the format");

    let sealing = entry(Purpose::Sealing, 2, CREATED, State::Active);
    let envelope = Envelope::encode(Purpose::Sealing, &sealing.id, CREATED, &[3; 32]);
    assert_eq!(refused(Entry { wrapped: wrap(&envelope), ..sealing }), "the id");
}

#[test]
fn a_public_key_in_the_document_is_not_believed() {
    let mut sealing = entry(Purpose::Sealing, 2, CREATED, State::Active);
    sealing.public_key = Some(base64(SealingKey::new(Zeroizing::new([3; 32])).unwrap().public().as_bytes()));
    let keyring = open(&[document(vec![entry(Purpose::Record, 1, CREATED, State::Active), sealing])]).unwrap();
    assert_eq!(keyring.current_public_key().unwrap().key.key_id(), key_id(2));
}

#[test]
fn what_cannot_be_a_keyring_is_refused() {
    let good = entry(Purpose::Record, 1, CREATED, State::Active);
    let other_format = Document { format: "MSK2".to_owned(), ..document(vec![good.clone()]) };
    assert!(matches!(open(&[other_format]), Err(OpenError::Format)));
    assert!(matches!(open(&[]), Err(OpenError::NoActiveSeed)));
    let pending = Entry { state: State::Pending, ..good.clone() };
    assert!(matches!(open(&[document(vec![pending])]), Err(OpenError::NoActiveSeed)));
    let mut foreign = entry(Purpose::Record, 2, CREATED, State::Active);
    foreign.wrapped.ciphertext = Kek::new(&[8; 32]).unwrap().wrap(b"x").unwrap();
    let error = open(&[document(vec![good, foreign])]).unwrap_err();
    assert!(matches!(&error, OpenError::Unwrap { id, source: KekError::Refused } if *id == seed_id(2).to_string()));
}

#[test]
fn debug_shows_ids_only() {
    let keyring = open(&[document(vec![entry(Purpose::Record, 1, CREATED, State::Active)])]).unwrap();
    let shown = format!("{keyring:?}");
    assert!(shown.contains(&seed_id(1).to_string()), "{shown}");
    assert!(!shown.contains("1, 1") && !shown.contains("0101"), "{shown}");
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let dates = ["2020-01-01T00:00:00Z", CREATED, "2027-01-01T00:00:00Z", "9000-01-01T00:00:00Z"];
    let states = [State::Active, State::Pending, State::OpenOnly, State::Revoked];
    let purposes = [Purpose::Record, Purpose::Sealing];
    (0..2_usize, 1..5_u8, 0..4_usize, 0..4_usize)
        .prop_map(move |(purpose, byte, date, state)| entry(purposes[purpose], byte, dates[date], states[state]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_document_beside_decides_about_the_operators_own_keys(
        own in proptest::collection::vec(any_entry(), 0..4),
        beside in proptest::collection::vec(any_entry(), 0..6),
    ) {
        let first = entry(Purpose::Record, 9, CREATED, State::Active);
        let own = document(std::iter::once(first).chain(own).collect());
        let alone = open(std::slice::from_ref(&own)).unwrap();
        let keyring = joined(&own, &document(beside.clone()));
        prop_assert_eq!(active_id(&keyring), active_id(&alone));
        prop_assert_eq!(keyring.current_public_key(), alone.current_public_key());
        for byte in 1..5 {
            let state = |keyring: &Keyring| match keyring.sealing_key(key_id(byte)) {
                SealingKeyStatus::Usable(_) => State::OpenOnly,
                SealingKeyStatus::Revoked | SealingKeyStatus::Retired => State::Revoked,
                SealingKeyStatus::Unknown => State::Pending,
            };
            if own.entries.iter().any(|entry| entry.id == key_id(byte).to_string()) {
                prop_assert_eq!(state(&keyring), state(&alone));
            }
        }
        for entry in beside.iter().filter(|entry| entry.purpose == Purpose::Record) {
            prop_assert!((1..5).any(|byte| seed_id(byte).to_string() == entry.id && keyring.seed(seed_id(byte)).is_some()));
        }
    }
}

proptest! {
    #[test]
    fn no_unwrapped_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(envelope) = Envelope::decode(&bytes) {
            prop_assert!(envelope.check(&entry(Purpose::Record, 1, CREATED, State::Active)).is_err());
        }
    }
}
