//! Notes about values that are probably a mistake, and errors about files that are not UTF-8.

use super::{CANARY, Folder, manifest};

/// What `seal` says besides which key it took.
fn notes(err: &str) -> Vec<&str> {
    err.lines().filter(|line| line.starts_with("note: ") && !line.contains("public key with SHA-256")).collect()
}

#[test]
fn one_note_tells_what_is_seldom_meant_about_a_value() {
    let folder = Folder::new();
    let pem = format!("-----BEGIN KEY-----\n{CANARY}\n-----END KEY-----\n");
    let place = ["--name", "db", "-n", "shop"];
    for (value, expected) in [
        (CANARY.to_owned(), None),
        (pem, None),
        (format!("{CANARY}\n"), Some("ends in a line break")),
        (format!("{CANARY}\r\n"), Some("ends in a line break")),
        (format!("{CANARY} "), Some("ends in white space")),
        (format!("\u{feff}{CANARY}"), Some("begins with a byte-order mark")),
        (format!("{CANARY}\0x"), Some("contains NUL, which no environment variable can hold")),
        (format!("\u{feff}{CANARY}\n"), Some("begins with a byte-order mark, and ends in a line break")),
    ] {
        let one = folder.seal(&place, &value);
        assert_eq!(folder.open(one.ok().trim_end(), "shop", "db"), value);
        // The same of a manifest, and of a Secret that is converted.
        let quoted = serde_json::to_string(&value).unwrap();
        folder.write("m.yaml", &manifest("db", &quoted));
        let plain = folder.run(&["validate", "--allow-plaintext", "-f", "m.yaml"]);
        let file = folder.seal(&["-f", "m.yaml"], "");
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: db, namespace: shop}}\nstringData: {{k: {quoted}}}\n"
        );
        let converted = folder.seal(&["--from-secret", "-", "--adopt"], &secret);
        for (ran, called) in [
            (&one, "the value "),
            (&plain, "m.yaml:8:3: spec.value: "),
            (&file, "m.yaml:8:3: spec.value: "),
            (&converted, "Secret shop/db, key k: the value "),
        ] {
            ran.ok();
            let notes = notes(&ran.err);
            assert_eq!(notes.len(), usize::from(expected.is_some()), "{ran:?}");
            let begins = expected.map(|expected| format!("note: {called}{expected}"));
            assert!(begins.is_none_or(|begins| notes[0].starts_with(&begins)), "{ran:?}");
            assert!(!ran.err.contains(CANARY), "{ran:?}");
        }
    }
}

#[test]
fn byte_order_marks_are_harmless_and_utf16_is_refused_by_name() {
    let folder = Folder::new();
    let utf16 =
        |text: &str, mark: &[u8]| [mark, &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat();
    let (key, text) = (folder.read("key.json"), manifest("a", CANARY));
    folder.write("bom.json", &format!("\u{feff}{key}"));
    folder.write("bom.yaml", &format!("\u{feff}{text}"));
    folder.run_with(&["seal", "--public-key", "bom.json", "--name", "a", "-n", "shop"], "v").ok();
    folder.run(&["validate", "--public-key", "bom.json", "/dev/null"]).ok();
    folder.seal(&["-f", "bom.yaml"], "").ok();
    assert!(folder.read("bom.yaml").starts_with("\u{feff}# a:"));
    for mark in [&[][..], &[0xff, 0xfe]] {
        std::fs::write(folder.path().join("key16.json"), utf16(&key, mark)).unwrap();
        std::fs::write(folder.path().join("m16.yaml"), utf16(&text, mark)).unwrap();
        for ran in [
            folder.run_with(&["seal", "--public-key", "key16.json", "--name", "a", "-n", "shop"], "v"),
            folder.run(&["validate", "--public-key", "key16.json", "/dev/null"]),
            folder.seal(&["-f", "m16.yaml"], ""),
        ] {
            assert!(ran.error(2).contains("must be UTF-8, not UTF-16"), "{ran:?}");
        }
        let ran = folder.run(&["validate", "-f", "m16.yaml"]);
        assert!(ran.code == 1 && ran.out.contains("m16.yaml:1:1: error: must be UTF-8, not UTF-16"), "{ran:?}");
    }
}
