//! Dependencies between the rooms point downwards only: `cli → {admission, reconcile, engine} → {kek, crypto, api}`.
//!
//! Reads the sources, since the rooms of one crate can see each other and the compiler doesn't mind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Each room and what it may use of the others: a room, or one module of it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("crypto", &["api::limits"]),
    ("kek", &["api", "crypto"]),
    ("engine", &[]),
    ("reconcile", &["api", "crypto", "kek", "engine"]),
    ("admission", &["api", "crypto", "kek", "engine"]),
    ("cli", &["api", "crypto", "kek", "engine", "reconcile", "admission"]),
];

#[test]
fn dependencies_point_downwards() {
    let sources = sources();
    let rooms: Vec<_> = sources.keys().map(String::as_str).collect();
    let known: Vec<_> = MAY_USE.iter().map(|(room, _)| *room).collect();
    for room in &rooms {
        assert!(known.contains(room), "src/{room} is a room that tests/layers.rs does not know");
    }
    let mut wrong = Vec::new();
    for (room, allowed) in MAY_USE {
        for (file, text) in sources.get(*room).into_iter().flatten() {
            for used in uses(text) {
                let other = used.split("::").next().unwrap_or_default();
                let fits = |allowed: &&str| used == **allowed || used.starts_with(&format!("{allowed}::"));
                if other != *room && known.contains(&other) && !allowed.iter().any(fits) {
                    wrong.push(format!("{} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn uses_are_found_in_every_way_of_writing_them() {
    let text = "use crate::api::{limits, keys::{GROUP, KIND}};\nuse crate::{\n    kek,\n    engine::Queue,\n};\n\
                fn f() -> crate::crypto::Plaintext {} // crate::cli::x\n/// [`crate::reconcile`]\nfn g() {}";
    assert_eq!(
        uses(text),
        ["api::keys::GROUP", "api::keys::KIND", "api::limits", "crypto::Plaintext", "engine::Queue", "kek"]
    );
}

/// Every source file by its room: `src/api.rs` and `src/api/**` are `api`.
fn sources() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { visit(&path, files) } else { files.push(path) }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    visit(&folder, &mut files);
    let mut rooms: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let path = file.strip_prefix(&folder).unwrap().with_extension("");
        let room = path.iter().next().unwrap().to_str().unwrap().to_owned();
        if !matches!(room.as_str(), "lib" | "bin") {
            let text = fs::read_to_string(&file).unwrap();
            rooms.entry(room).or_default().push((path, text));
        }
    }
    rooms
}

/// The paths behind `crate::` in the code, comments aside, sorted; groups in braces are taken apart.
fn uses(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        expand("", &code[at + prefix.len()..], &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// Reads one path, which may end in a group, and returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(prefix, rest, found).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return rest;
    }
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    if let Some(rest) = rest.strip_prefix("::") {
        return expand(&path, rest, found);
    }
    found.push(path);
    // `name as other`
    let rest = rest.trim_start();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    rest.strip_prefix("as ").map_or(rest, |rest| rest.trim_start().trim_start_matches(is_word))
}
