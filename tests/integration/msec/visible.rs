//! JSON and YAML that commands print: text of objects drives no terminal there, and reads back as what it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::Plugin;
use crate::integration::{objects::Site, operator::Setup};

/// C1 controls, characters that turn text, and invisible ones.
const HOSTILE: &str = "a\u{9b}2Jb\u{202e}c\u{2066}d\u{200b}e\u{200d}f\u{7f}g\u{e0041}h\u{1b}[2J";

/// How each command is called that has `--output` with a format, but for the format.
const CALLS: [(&str, &[&str]); 8] = [
    ("create", &["create", "NEW", "--generate", "--wait=false", "--description", HOSTILE]),
    ("update", &["update", "DB", "--description", HOSTILE, "--wait=false"]),
    ("get", &["get", "DB"]),
    ("list", &["list"]),
    ("value", &["value", "DB"]),
    ("can-read", &["can-read", "DB"]),
    ("validate", &["validate", "x.yaml"]),
    ("doctor", &["doctor"]),
];

#[test]
fn every_command_with_an_output_format_is_called_here() {
    let cli = kubectl_msec::Cli::command();
    let with_output = cli.get_subcommands().filter(|command| {
        // The output of `backup` is a file.
        command.get_name() != "backup" && command.get_arguments().any(|arg| arg.get_id() == "output")
    });
    assert_eq!(with_output.map(clap::Command::get_name).collect::<Vec<_>>(), CALLS.map(|(name, _)| name));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_objects_drives_no_terminal_in_json_and_yaml() {
    let site = Site::new("visible").await;
    let operator = Setup::of(&site.namespace).start().await;
    // The second key makes the plugin write the object as JSON where YAML is asked for.
    let object = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "db", "namespace": site.namespace, "annotations": {"a": HOSTILE, "on": HOSTILE}},
        "spec": {"name": "DB", "description": HOSTILE, "generate": {}},
    });
    let plugin = Plugin::new(&site).await;
    plugin.kubectl(&["create", "-f", "-"], object.to_string().as_bytes()).await.ok();
    site.served("db").await;
    let manifest = json!({
        "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret", "metadata": {"name": "x"},
        "spec": {"name": "X", "generate": {}, HOSTILE: 1},
    });
    // The reader of files refuses raw control characters.
    let escaped = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().fold(String::new(), |text, unit| text + &format!("\\u{unit:04x}")),
    };
    plugin.folder.file("x.yaml", manifest.to_string().chars().map(escaped).collect::<String>());
    for (name, call) in CALLS {
        let formats: &[&str] = match name {
            "validate" => &["json", "sarif"],
            "doctor" | "create" | "value" | "can-read" => &["json"],
            _ => &["json", "yaml"],
        };
        for format in formats {
            let ran = plugin.run(&[call, &["-o", *format]].concat()).await;
            let is_shown = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ' || c == '·' || c == '—';
            assert!(ran.out.chars().all(is_shown), "{name} -o {format}: {:?}", ran.out);
            let read: Value = match *format {
                "yaml" => serde_saphyr::from_str(&ran.out).unwrap(),
                _ => serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{name}: {error}: {ran:?}")),
            };
            let items =
                read.get("items").map_or_else(|| vec![&read], |items| items.as_array().unwrap().iter().collect());
            match name {
                "validate" => assert!(ran.out.contains("\\u202e"), "{}", ran.out),
                // What they print of an object is an id, a name and a value, which may hold any character.
                "doctor" | "value" | "can-read" => {}
                _ => assert!(items.iter().all(|item| item["spec"]["description"] == HOSTILE), "{name}: {read}"),
            }
            if name == "get" {
                assert_eq!(read["metadata"]["annotations"]["on"], HOSTILE);
            }
        }
    }
    let exported = plugin.run(&["export"]).await;
    assert!(exported.out.contains("\\u202") || exported.out.contains("\\u202E"), "{exported:?}");
    assert!(!exported.out.contains(['\u{9b}', '\u{202e}', '\u{200b}', '\u{1b}']), "{exported:?}");
    operator.stop().await;
}
