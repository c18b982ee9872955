use super::*;
use crate::keyring::{Document, Entry, Kek, KekError, Keyring, Purpose, State, Wrapped};
use crate::mss1::{self, Handling, Scope, Sealed};
use crate::{Plaintext, Seed};

fn key(byte: u8) -> RecoveryKey {
    RecoveryKey(SealingKey::new(Zeroizing::new([byte; 32])).unwrap())
}

fn kek(byte: u8) -> Kek {
    Kek::new(&[byte; 32]).unwrap()
}

fn wrap(kek: &Kek) -> impl FnMut(&[u8]) -> Result<Wrapped, KekError> {
    |bytes| Ok(Wrapped::new("file", kek.key_id().to_string(), kek.wrap(bytes)?))
}

/// A keyring as the first start creates it, and what it opens as.
fn fresh() -> (Document, Keyring) {
    let document = Keyring::generate_entries("2026-11-28T08:00:00Z".parse().unwrap(), wrap(&kek(9))).unwrap();
    let keyring = open(&document, &kek(9));
    (document, keyring)
}

fn open(document: &Document, kek: &Kek) -> Keyring {
    Keyring::open([document], |wrapped| kek.unwrap(&wrapped.ciphertext)).unwrap()
}

fn covered(recipients: &[Recipient]) -> (Document, Keyring) {
    let (mut document, keyring) = fresh();
    assert_eq!(cover(&mut document, &keyring, recipients), Ok(true));
    (document, keyring)
}

#[test]
fn a_key_and_its_recipient_read_back_from_their_texts() {
    let key = RecoveryKey::generate().unwrap();
    let text = key.to_text();
    let file = format!("# a comment\n\n  {}  \r\n", *text);
    assert_eq!(RecoveryKey::parse(&file).unwrap().recipient(), key.recipient());
    let (prefix, digits) = text.split_at(KEY_PREFIX.len());
    let groups: Vec<_> = digits.as_bytes().chunks(6).map(|group| std::str::from_utf8(group).unwrap()).collect();
    let typed = format!("{prefix}{}", groups.join(" ").to_uppercase());
    assert_eq!(RecoveryKey::parse(&typed).unwrap().recipient(), key.recipient());
    let recipient = key.recipient().to_string();
    assert_eq!(format!("{recipient}\n").parse::<Recipient>().unwrap(), key.recipient());
    assert_eq!(recipient.len(), RECIPIENT_PREFIX.len() + 1627);
    assert!(RecipientError.to_string().contains("1627"));
}

#[test]
fn a_mistyped_character_is_noticed_and_not_shown() {
    let key = key(0xaa);
    let text = key.to_text();
    for place in KEY_PREFIX.len()..text.len() {
        let mut typed = text.to_string().into_bytes();
        typed[place] = if typed[place] == b'0' { b'1' } else { b'0' };
        let error = RecoveryKey::parse(std::str::from_utf8(&typed).unwrap()).unwrap_err();
        assert_eq!(error, KeyTextError::Checksum, "{place}");
    }
    assert_eq!(RecoveryKey::parse(&text[..text.len() - 1]).unwrap_err(), KeyTextError::Checksum);
    assert_eq!(RecoveryKey::parse(&format!("{}\n{}", *text, *text)).unwrap_err(), KeyTextError::Several);
    for other in ["", "# only a comment", "hunter2", &text[1..]] {
        assert_eq!(RecoveryKey::parse(other).unwrap_err(), KeyTextError::Missing);
    }
    let recipient = key.recipient().to_string();
    let mut typed = recipient.clone().into_bytes();
    typed[500] = if typed[500] == b'A' { b'B' } else { b'A' };
    for wrong in [std::str::from_utf8(&typed).unwrap(), &recipient[1..], &recipient[..recipient.len() - 1], ""] {
        assert_eq!(wrong.parse::<Recipient>(), Err(RecipientError));
    }
    assert_eq!(format!("{key:?}"), format!("RecoveryKey({})", key.recipient().id()));
}

#[test]
fn a_recovery_key_opens_every_key_without_the_kek() {
    let (first, second) = (key(1), key(2));
    let (document, keyring) = covered(&[first.recipient(), second.recipient()]);
    for key in [&first, &second] {
        let recovered = Recovered::open(key, [&document]);
        assert_eq!((recovered.len(), recovered.lost()), (2, &[][..]));
        let seed = keyring.active_seed().unwrap();
        assert_eq!(recovered.seed(seed.id()).map(Seed::bytes), Some(seed.bytes()));
        let public = keyring.current_public_key().unwrap().key;
        assert!(recovered.sealing_key(public.key_id()).is_some());
    }
    let other = Recovered::open(&key(3), [&document]);
    assert!(other.is_empty());
    assert_eq!(other.lost().len(), 2);
    assert!(other.lost().iter().all(|lost| lost.why == OpenError::OtherRecipient));
    // The stored document has the copies, and an operator that does not know them reads it.
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    assert!(!serde_json::to_string(&fresh().0).unwrap().contains("recovery"), "absent where no recipient is given");
}

#[test]
fn copies_are_added_once_repaired_and_never_removed() {
    let (mut document, keyring) = covered(&[key(1).recipient()]);
    let before = document.clone();
    assert_eq!(cover(&mut document, &keyring, &[key(1).recipient()]), Ok(false));
    assert_eq!(cover(&mut document, &keyring, &[]), Ok(false));
    assert_eq!(document, before);
    assert_eq!(cover(&mut document, &keyring, &[key(2).recipient()]), Ok(true));
    assert!(document.entries.iter().all(|entry| entry.recovery.len() == 2));
    assert_eq!(document.entries[0].recovery[0], before.entries[0].recovery[0], "the other one stays as it is");
    // Every way in which a copy can be useless.
    let damage: [fn(&mut RecoveryCopy); 5] = [
        |copy| copy.sealed.replace_range(..1, "?"),
        |copy| copy.sealed.clear(),
        |copy| copy.mac.clear(),
        |copy| copy.recipient.clear(),
        |copy| {
            let mut bytes = BASE64_STANDARD.decode(&copy.sealed).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            copy.sealed = BASE64_STANDARD.encode(bytes);
        },
    ];
    for (index, damage) in damage.into_iter().enumerate() {
        let mut damaged = document.clone();
        damage(&mut damaged.entries[0].recovery[0]);
        let recipients = [key(1).recipient(), key(2).recipient()];
        let id = document.entries[0].id.clone();
        let found = coverage([&damaged], &keyring, &recipients);
        assert_eq!(found, Coverage { keys: 2, uncovered: vec![id] }, "{index}");
        assert_eq!(cover(&mut damaged, &keyring, &recipients), Ok(true), "{index}");
        assert_eq!(coverage([&damaged], &keyring, &recipients), Coverage { keys: 2, uncovered: vec![] }, "{index}");
        assert_eq!(Recovered::open(&key(1), [&damaged]).lost(), [], "{index}");
    }
}

#[test]
fn a_copy_of_another_key_or_for_another_recipient_covers_nothing() {
    let (mut document, keyring) = covered(&[key(1).recipient()]);
    let (first, second) = (document.entries[0].recovery.clone(), document.entries[1].recovery.clone());
    document.entries[0].recovery = second;
    document.entries[1].recovery = first;
    assert_eq!(coverage([&document], &keyring, &[key(1).recipient()]).uncovered.len(), 2);
    // Opened, the copy says which key it is of.
    let recovered = Recovered::open(&key(1), [&document]);
    assert!(recovered.is_empty() && recovered.lost().iter().all(|lost| matches!(lost.why, OpenError::Entry(_))));
    let (document, keyring) = covered(&[key(1).recipient()]);
    assert_eq!(coverage([&document], &keyring, &[key(1).recipient(), key(2).recipient()]).uncovered.len(), 2);
    assert_eq!(coverage([&document], &keyring, &[]).uncovered.len(), 2);
    // A key that stands in two documents is covered by one of them.
    let (mut bare, entries) = (document.clone(), document.entries.len());
    bare.entries.iter_mut().for_each(|entry| entry.recovery.clear());
    let found = coverage([&bare, &document], &keyring, &[key(1).recipient()]);
    assert_eq!(found, Coverage { keys: entries, uncovered: vec![] });
}

#[test]
fn an_entry_that_says_otherwise_than_its_copy_does_not_open() {
    type Edit = (&'static str, fn(&mut Entry));
    let (document, _) = covered(&[key(1).recipient()]);
    let edits: [Edit; 3] = [
        ("the purpose", |entry| entry.purpose = Purpose::Sealing),
        ("the id", |entry| entry.id = "0000000000000000".to_owned()),
        ("the creation date", |entry| entry.created = "2026-11-28T09:00:00Z".to_owned()),
    ];
    for (what, edit) in edits {
        let mut edited = document.clone();
        edit(&mut edited.entries[0]);
        let lost = Recovered::open(&key(1), [&edited]).lost().to_vec();
        assert_eq!(lost.iter().map(|lost| lost.why).collect::<Vec<_>>(), [OpenError::Entry(what)]);
    }
    // A state only narrows what an operator does; a revoked key opens for its administrator.
    let mut revoked = document;
    revoked.entries.iter_mut().for_each(|entry| entry.state = State::Revoked);
    assert_eq!(Recovered::open(&key(1), [&revoked]).len(), 2);
}

#[test]
fn every_single_bit_flip_of_a_header_or_ciphertext_is_refused() {
    let sealed = key(1).recipient().seal(b"a key").unwrap();
    assert_eq!(key(1).open(&sealed).unwrap().as_slice(), b"a key");
    // The encapsulated key is covered by its own tests; a flip there takes a millisecond, so one in 64 is tried.
    let header = 15 * 8;
    let enc = header + ENC * 8;
    for bit in (0..header).chain((header..enc).step_by(64)).chain(enc..sealed.len() * 8) {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(key(1).open(&flipped).unwrap_err(), OpenError::Tampered, "{bit}");
    }
    for length in [0, 7, 15, 15 + ENC, sealed.len() - 1] {
        assert_eq!(key(1).open(&sealed[..length]).unwrap_err(), OpenError::Tampered, "{length}");
    }
}

#[test]
fn a_copy_is_no_sealed_value_and_a_sealed_value_no_copy() {
    let recovery = key(1);
    let value = Plaintext::new(Zeroizing::new(b"hunter2".to_vec())).unwrap();
    let text = mss1::seal(&recovery.recipient().0, &Scope::Cluster, Handling::Deliverable, &value).unwrap();
    // The same key pair opens the sealed value as what it is.
    assert!(Sealed::parse(&text).unwrap().open(&recovery.0, "prod", "db").is_ok());
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix("mss1.").unwrap()).unwrap();
    let (head, rest) = bytes.split_at(15);
    // The header of a copy is what a sealed value begins with; scope and names follow there.
    let as_copy = [head, &rest[5..]].concat();
    assert_eq!(recovery.open(&as_copy).unwrap_err(), OpenError::Tampered);
}

#[test]
fn recovered_keys_serve_a_new_kek() {
    let (mut document, keyring) = covered(&[key(1).recipient()]);
    document.entries.push(Entry { id: "00".to_owned(), recovery: Vec::new(), ..document.entries[0].clone() });
    let recovered = Recovered::open(&key(1), [&document]);
    let rewrapped = recovered.rewrap(&document, wrap(&kek(5))).unwrap();
    assert_eq!(rewrapped.entries.len(), 2, "what did not open is left out");
    assert!(rewrapped.entries.iter().all(|entry| entry.wrapped.key_id == kek(5).key_id().to_string()));
    assert_eq!(rewrapped.entries[0].recovery, document.entries[0].recovery);
    let opened = open(&rewrapped, &kek(5));
    assert!(opened.holds_the_same(&keyring));
    assert_eq!(opened.active_seed().map(Seed::id), keyring.active_seed().map(Seed::id));
}

#[test]
fn the_frozen_vector_opens() {
    let key = RecoveryKey::parse(include_str!("../../tests/vectors/recovery-key.txt")).unwrap();
    let document: Document = serde_json::from_str(include_str!("../../tests/vectors/msk1-recovery.json")).unwrap();
    assert_eq!(key.0.seed(), &[0xaa; 32]);
    let recovered = Recovered::open(&key, [&document]);
    assert_eq!((recovered.len(), recovered.lost()), (2, &[][..]));
    let ids = [Seed::new(Zeroizing::new([0x11; 32])).id().to_string(), self::key(0x22).recipient().id().to_string()];
    assert_eq!(document.entries.iter().map(|entry| &entry.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    let keyring = open(&document, &kek(0x55));
    assert_eq!(coverage([&document], &keyring, &[key.recipient()]), Coverage { keys: 2, uncovered: vec![] });
}
