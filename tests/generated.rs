//! The generated files of the tree are what the code generates. `UPDATE=1 cargo test --test generated` rewrites them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{env, fs, path::Path};

#[path = "generated/chart/mod.rs"]
mod chart;
#[path = "generated/commands.rs"]
mod commands;
#[path = "generated/components.rs"]
mod components;
#[path = "generated/deploy.rs"]
mod deploy;
#[path = "generated/files.rs"]
mod files;
#[path = "generated/metrics.rs"]
mod metrics;
#[path = "generated/reference.rs"]
mod reference;

use files::generated;

#[test]
fn files_on_disk_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let update = env::var_os("UPDATE").is_some_and(|update| update == "1");
    let mut stale = Vec::new();
    for (path, content) in generated().unwrap() {
        let file = root.join(&path);
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, content).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != content {
            stale.push(path);
        }
    }
    assert!(stale.is_empty(), "out of date: {stale:?}; run `make generate`");
}

/// A template of an object that the installation no longer has would install it for ever.
#[test]
fn every_file_of_the_chart_is_generated_or_known() {
    const BY_HAND: [&str; 3] = ["templates/_helpers.tpl", "templates/NOTES.txt", ".helmignore"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let chart = root.join(chart::FOLDER);
    let mut known: Vec<_> = BY_HAND.iter().map(|path| chart.join(path)).collect();
    known.extend(chart::generated().unwrap().into_iter().map(|(path, _)| root.join(path)));
    let (mut found, mut folders) = (Vec::new(), vec![chart]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    known.sort();
    found.sort();
    assert_eq!(found, known);
}
