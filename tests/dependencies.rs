//! What each crate may depend on: Cargo keeps the direction, and this test what is not meant to come in by another crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use testkit::root;

/// Each crate, and what of the workspace it may depend on in the end.
const MAY_USE: &[(&str, &[&str])] = &[
    ("managed-secrets-crypto", &[]),
    ("managed-secrets-api", &["managed-secrets-crypto"]),
    ("managed-secrets-client", &["managed-secrets-api", "managed-secrets-crypto"]),
    ("managed-secrets-cli", &["managed-secrets-api", "managed-secrets-client", "managed-secrets-crypto"]),
    ("managed-secrets-engine", &[]),
    ("managed-secrets-kms", &[]),
    (
        "kubectl-msec",
        &["managed-secrets-api", "managed-secrets-cli", "managed-secrets-client", "managed-secrets-crypto"],
    ),
    ("testkit", &[]),
];

/// What serves, watches, and calls a KMS: nothing of it is in the plugin.
const OF_THE_OPERATOR: [&str; 5] = ["axum", "rcgen", "kube-runtime", "tonic", "tracing-subscriber"];

#[test]
fn crates_depend_on_those_below_them_alone() {
    for (name, allowed) in MAY_USE {
        let packages = packages(name);
        let ours: BTreeSet<_> = packages.keys().filter(|other| is_ours(other) && other.as_str() != *name).collect();
        let wrong: Vec<_> = ours.into_iter().filter(|other| !allowed.contains(&other.as_str())).collect();
        assert!(wrong.is_empty(), "{name} depends on {wrong:?}");
    }
    let known = MAY_USE.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>();
    let there: Vec<_> = packages("managed-secrets").into_keys().filter(|name| is_ours(name)).collect();
    assert!(there.len() >= 5, "the operator depends on {there:?}");
    for name in there.iter().filter(|name| *name != "managed-secrets") {
        assert!(known.contains(name.as_str()), "{name} is a crate that this test does not know");
        assert_ne!(name, "kubectl-msec", "the operator holds the plugin");
    }
}

#[test]
fn the_plugin_neither_serves_nor_watches() {
    let packages = packages("kubectl-msec");
    for name in OF_THE_OPERATOR {
        assert!(!packages.contains_key(name), "kubectl-msec depends on {name}");
    }
    assert!(packages["hyper"].split(',').all(|feature| feature != "server"), "hyper with {}", packages["hyper"]);
    // What the search finds, where it is.
    let operator = self::packages("managed-secrets");
    assert!(OF_THE_OPERATOR.iter().all(|name| operator.contains_key(*name)));
    assert!(operator["hyper"].split(',').any(|feature| feature == "server"));
}

fn is_ours(name: &str) -> bool {
    name.starts_with("managed-secrets") || MAY_USE.iter().any(|(ours, _)| *ours == name)
}

/// What a package is built from, itself too: names, and the features of each.
fn packages(name: &str) -> BTreeMap<String, String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", name, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}|{f}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    lines
        .map(|(package, features)| {
            let name = package.split(' ').next().unwrap_or_default();
            (name.to_owned(), features.trim_end_matches(" (*)").to_owned())
        })
        .collect()
}
