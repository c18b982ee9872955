//! `seal`: one value, and files in place.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use managed_secrets_api::limits::SEALED_PREFIX;
use managed_secrets_crypto::mss1::{Handling, Sealed};

use super::{CANARY, Folder, PLUGIN, Value, documents, finish, manifest};

#[test]
fn one_value_is_sealed_from_standard_input() {
    let folder = Folder::new();
    let value = format!("{CANARY}\r\n");
    let ran = folder.seal(&["--name", "db", "-n", "shop"], &value);
    assert_eq!(folder.open(ran.ok().trim_end(), "shop", "db"), value);
    assert!(ran.err.contains(&folder.key.public().fingerprint()));
    let ran = folder.seal(&["--scope", "namespace", "-n", "shop"], &value);
    assert_eq!(folder.open(ran.ok().trim_end(), "shop", "other"), value);
    for (arguments, says) in [
        (&["-n", "shop"][..], "--name is missing"),
        (&["--name", "db"], "--namespace is missing"),
        (&["--name", "db", "-n", "shop", CANARY], "standard input"),
        (&["--name", "db", "-f", "x.yaml"], "cannot be used with"),
        (&["--adopt"], "--from-secret"),
        (&["--from-secret", "x.yaml", "--no-delivery"], "--no-delivery is not allowed"),
        (&["--stdout"], "--filename"),
    ] {
        let ran = folder.seal(arguments, &value);
        assert!(ran.error(2).contains(says), "{ran:?}");
        assert!(ran.out.is_empty());
    }
}

/// The sealed text says whether its value may be delivered.
#[test]
fn a_value_that_is_not_to_be_delivered_is_kept() {
    let folder = Folder::new();
    let handling = |text: &str| Sealed::parse(text.trim_end()).unwrap().handling();
    for (arguments, expected) in [(&["--no-delivery"][..], Handling::Kept), (&[], Handling::Deliverable)] {
        let ran = folder.seal(&[&["--name", "db", "-n", "shop"], arguments].concat(), CANARY);
        assert_eq!(handling(ran.ok()), expected);
        assert_eq!(folder.open(ran.ok().trim_end(), "shop", "db"), CANARY);
    }
    // A manifest says it by its delivery.
    let plain = |delivery: &str| format!("{}  delivery: {delivery}\n", manifest("db", CANARY));
    for (delivery, arguments, expected, note) in [
        ("None", &[][..], Handling::Kept, "is kept (sealed with --no-delivery)\n"),
        ("Secret", &[], Handling::Deliverable, ""),
        (
            "Secret",
            &["--no-delivery"],
            Handling::Kept,
            "needs the permission to get secretvalues.values.managedsecrets.dev\n",
        ),
    ] {
        folder.write("db.yaml", &plain(delivery));
        folder.seal(&[&["-f", "db.yaml"], arguments].concat(), "").ok();
        let document = documents(&folder.read("db.yaml")).remove(0);
        assert_eq!(handling(document["spec"]["value"].as_str().unwrap()), expected);
        let ran = folder.run(&["validate", "db.yaml"]);
        assert_eq!(ran.ok(), "");
        assert!(ran.err.ends_with(note) && ran.err.is_empty() == note.is_empty(), "{}", ran.err);
    }
    folder.write("db.yaml", &plain("Secret"));
    folder.seal(&["-f", "db.yaml"], "").ok();
    let text = folder.read("db.yaml").replace("delivery: Secret", "delivery: None");
    folder.write("db.yaml", &text);
    let ran = folder.run(&["validate", "db.yaml"]);
    assert!(ran.err.starts_with("note: db.yaml:8:3: "), "{}", ran.err);
    assert!(ran.err.contains("seal the value again with --no-delivery"), "{}", ran.err);
}

#[test]
fn a_thousand_manifests_keep_comments_and_order_and_all_but_the_values() {
    let folder = Folder::new();
    let styles: [fn(&str) -> String; 6] = [
        str::to_owned,
        |value| format!("'{value}'"),
        |value| format!("\"{value}\""),
        |value| format!("|-\n    {value}"),
        |value| format!(">- # folded\n    {value}"),
        |value| format!("!!str {value}"),
    ];
    let value = |number: usize| format!("{CANARY}-{number}");
    let object = |number: usize| {
        let written = styles[number % styles.len()](&value(number));
        let text = manifest(&format!("object-{number}"), &written);
        // In a block scalar, a comment would be content.
        if written.contains('\n') { text.replacen(" # why", "", 1) } else { text }
    };
    let before: String = (0..1000).flat_map(|number| [format!("--- # {number}\n"), object(number)]).collect();
    folder.write("all.yaml", &before);
    let ran = folder.seal(&["-f", "all.yaml"], "");
    assert_eq!(ran.ok().lines().count(), 1000);
    assert!(ran.out.starts_with("all.yaml: sealed shop/object-0\nall.yaml: sealed shop/object-1\n"));
    let after = folder.read("all.yaml");
    assert!(!after.contains(CANARY));
    let (old, new) = (documents(&before), documents(&after));
    assert_eq!((old.len(), new.len()), (1000, 1000));
    for (number, (mut old, mut new)) in old.into_iter().zip(new).enumerate() {
        let sealed = new["spec"]["value"].take();
        assert_eq!(folder.open(sealed.as_str().unwrap(), "shop", &format!("object-{number}")), value(number));
        assert_eq!(old["spec"]["value"].take(), value(number));
        assert_eq!(old, new);
    }
    // Every byte around the values, comments above all.
    let around = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with(CANARY));
        lines.map(|line| if line.contains("value:") { "value" } else { line }).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(around(&before), around(&after));
    assert_eq!(before.matches('#').count(), after.matches('#').count());
}

#[test]
fn a_file_with_nothing_to_seal_is_not_touched_and_needs_no_key() {
    let folder = Folder::new();
    folder.write("a.yaml", &manifest("a", CANARY));
    folder.seal(&["-f", "a.yaml"], "").ok();
    let (text, file) = (folder.read("a.yaml"), folder.path().join("a.yaml"));
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    let modified = || fs::metadata(&file).unwrap().modified().unwrap();
    let before = modified();
    for arguments in [&["seal", "-f", "a.yaml"][..], &["seal", "-f", "a.yaml", "--public-key", "key.json"]] {
        let ran = folder.run(arguments);
        assert_eq!((ran.ok(), ran.err.as_str()), ("", ""));
    }
    assert_eq!((folder.read("a.yaml"), modified()), (text.clone(), before));
    assert_eq!(folder.run_with(&["seal", "-f", "-"], &text).ok(), text);
}

#[test]
fn a_pipe_goes_to_standard_output_and_a_file_can() {
    let folder = Folder::new();
    let text = format!("{}---\nkind: ConfigMap\napiVersion: v1\ndata: {{value: x}}\n", manifest("a", CANARY));
    folder.write("a.yaml", &text);
    let mode = |mode| fs::set_permissions(folder.path().join("a.yaml"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    for ran in [folder.seal(&["-f", "-"], &text), folder.seal(&["-f", "a.yaml", "--stdout"], "")] {
        let sealed = documents(ran.ok());
        assert_eq!(folder.open(sealed[0]["spec"]["value"].as_str().unwrap(), "shop", "a"), CANARY);
        assert!(ran.err.contains("sealed shop/a") && ran.out.ends_with("data: {value: x}\n"), "{ran:?}");
    }
    assert_eq!(folder.read("a.yaml"), text);
    folder.seal(&["-f", "a.yaml"], "").ok();
    assert_eq!(fs::metadata(folder.path().join("a.yaml")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(folder.files(), ["a.yaml", "key.json"]);
}

#[test]
fn a_file_that_is_sealed_beside_a_pipe_says_so_on_standard_error() {
    let folder = Folder::new();
    for arguments in [["-f", "-", "-f", "a.yaml"], ["-f", "a.yaml", "-f", "-"]] {
        folder.write("a.yaml", &manifest("a", CANARY));
        let ran = folder.seal(&arguments, &manifest("b", CANARY));
        let printed = documents(ran.ok());
        assert_eq!(printed.len(), 1, "{ran:?}");
        assert_eq!(printed[0]["metadata"]["name"], "b");
        assert!(!ran.out.contains(": sealed shop/"), "{ran:?}");
        assert!(ran.err.contains("note: a.yaml: sealed shop/a\n"), "{ran:?}");
        assert!(ran.err.contains("note: standard input: sealed shop/b\n"), "{ran:?}");
        assert!(!folder.read("a.yaml").contains(CANARY));
    }
}

#[test]
fn a_pipe_by_a_name_is_no_file_to_write() {
    let folder = Folder::new();
    let pipe = folder.path().join("pipe.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo, of coreutils, is needed").success());
    // No process writes to it: opening it to read waits for ever.
    for command in ["seal", "reseal"] {
        let arguments = ["60", PLUGIN, command, "-f", "pipe.yaml", "--public-key", "key.json"];
        let ran = finish(folder.command("timeout", &arguments), "");
        assert!(ran.error(2).contains("pipe.yaml: must be a regular file"), "{ran:?}");
    }
    assert_eq!(folder.files(), ["key.json", "pipe.yaml"]);

    // A file behind standard input is not written, under either name.
    folder.write("a.yaml", &manifest("a", CANARY));
    for name in ["-", "/dev/stdin"] {
        let mut command = folder.command(PLUGIN, &["seal", "-f", name, "--public-key", "key.json"]);
        let output = command.stdin(fs::File::open(folder.path().join("a.yaml")).unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(documents(&String::from_utf8(output.stdout).unwrap())[0]["metadata"]["name"], "a");
        assert_eq!(folder.read("a.yaml"), manifest("a", CANARY), "{name}");
    }
    // What is only read may come from a pipe.
    let script = format!(
        "'{PLUGIN}' validate -f <(cat a.yaml) --allow-plaintext && '{PLUGIN}' seal --stdout -f <(cat a.yaml) --public-key key.json"
    );
    let ran = finish(folder.command("bash", &["-e", "-c", &script]), "");
    assert_eq!(documents(ran.ok()).len(), 1, "{ran:?}");
}

#[test]
fn where_anything_is_wrong_no_file_is_written() {
    let folder = Folder::new();
    let good = manifest("good", CANARY);
    let cases = [
        (manifest("bad", "12345678"), "bad.yaml:8:10: spec.value: must be a quoted string"),
        (manifest("bad", "yes"), "must be a quoted string"),
        (manifest("bad", &format!("&anchor {CANARY}")), "without an anchor"),
        (manifest("bad", &format!("*{CANARY}")), "must be in quotes"),
        (manifest("bad", &format!("'{{{{ {CANARY} }}}}'")), "must not be a template"),
        (manifest("bad", "''"), "must not be empty"),
        (manifest("bad", CANARY).replace("  namespace: shop\n", ""), "metadata.namespace: must be given, here or with -n"),
        (manifest("bad", CANARY).replace("  name: bad # the handle", "  generateName: bad-"), "metadata.name: must be given"),
        (manifest("bad", CANARY).replace("spec:\n", "spec:\n  value: x\n"), "spec.value: must be given once"),
        (manifest("bad", CANARY).replace("spec:\n", "spec:\n  <<: {}\n"), "must not be a merge key"),
        (manifest("bad", CANARY) + "broken: [\n", "invalid YAML"),
        (manifest("bad", CANARY).replace("managedsecrets", "managedsecret"), "apiVersion: must be managedsecrets.dev"),
        (manifest("bad", CANARY).replace("kind: ManagedSecret", "kind: ManagedSecrets"), "kind: must be ManagedSecret"),
        (
            manifest("bad", "mss1.x").replace("  namespace:", &format!("  annotations: {{a: '{{\"apiVersion\":\"managedsecrets.dev/v1alpha1\",\"kind\":\"ManagedSecret\",\"spec\":{{\"value\":\"{CANARY}\"}}}}'}}\n  namespace:")),
            "metadata.annotations.a: must not hold a plain value",
        ),
    ];
    for (bad, says) in cases {
        folder.write("good.yaml", &good);
        folder.write("bad.yaml", &bad);
        let ran = folder.seal(&["-f", "good.yaml", "-f", "bad.yaml"], "");
        assert!(ran.error(2).contains(says), "{says}: {ran:?}");
        assert_eq!((folder.read("good.yaml"), folder.read("bad.yaml")), (good.clone(), bad));
        assert_eq!(folder.files(), ["bad.yaml", "good.yaml", "key.json"]);
    }
    assert!(folder.seal(&["-f", "none.yaml"], "").error(2).contains("none.yaml"));
    let unreachable = folder.run(&["seal", "-f", "good.yaml"]);
    assert!(unreachable.error(3).contains("no file that KUBECONFIG names exists"), "{unreachable:?}");
}

#[test]
fn a_value_that_is_no_string_is_an_error_with_its_field_and_rule_and_the_file_stays() {
    let folder = Folder::new();
    let yaml = |value: &str| manifest("x", value);
    let json = |value: &str| {
        format!(
            r#"{{"apiVersion":"managedsecrets.dev/v1alpha1","kind":"ManagedSecret","metadata":{{"name":"x","namespace":"shop"}},"spec":{{"name":"X","value":{value}}}}}"#
        )
    };
    let both = ["12345678", "0.12345678", "-1e5", "true", "[12345678]", "{\"12345678\": 1}"];
    let yaml_only = ["0x12345678", "yes", "~", "!!int '12345678'", "!!timestamp 2001-01-01"];
    let texts = both.iter().flat_map(|value| [yaml(value), json(value)]);
    let nulls = ["null", "null "].into_iter().flat_map(|value| [yaml(value), json(value)]);
    for text in texts.chain(yaml_only.iter().map(|value| yaml(value))).chain(nulls) {
        folder.write("x.yaml", &text);
        let ran = folder.seal(&["-f", "x.yaml"], "");
        assert!(ran.error(2).contains(": spec.value: must be a quoted string"), "{text}: {ran:?}");
        let found = folder.run(&["validate", "--allow-plaintext", "x.yaml"]);
        assert!(found.code == 1 && found.out.contains(": error: spec"), "{text}: {found:?}");
        assert!(!format!("{ran:?}{found:?}").contains("345678"), "{text}: the value is repeated");
        assert_eq!(folder.read("x.yaml"), text);
    }
    // kubectl reads a date as text.
    folder.write("x.yaml", &yaml("2001-01-01"));
    folder.seal(&["-f", "x.yaml"], "").ok();
    let sealed = folder.read("x.yaml");
    assert_eq!(folder.open(documents(&sealed)[0]["spec"]["value"].as_str().unwrap(), "shop", "x"), "2001-01-01");
    // Null is no value where another source is given.
    let generated = yaml("null").replace("spec:\n", "spec:\n  generate: {}\n");
    folder.write("x.yaml", &generated);
    folder.seal(&["-f", "x.yaml"], "").ok();
    assert_eq!(folder.read("x.yaml"), generated);
}

#[test]
fn folders_are_sealed_and_what_is_no_manifest_is_left_alone() {
    let folder = Folder::new();
    folder.write("deploy/a.yaml", &manifest("a", CANARY));
    folder.write("deploy/chart/template.yaml", "{{- if .Values.x }}\nkind: ConfigMap\n{{- end }}\n");
    folder.write("deploy/chart/b.yml", &manifest("b", CANARY));
    folder.write("deploy/readme.txt", &manifest("c", CANARY));
    assert_eq!(folder.seal(&["-f", "deploy"], "").ok(), "deploy/a.yaml: sealed shop/a\n");
    let ran = folder.seal(&["-R", "-f", "deploy"], "");
    assert_eq!(ran.ok(), "deploy/chart/b.yml: sealed shop/b\n");
    assert!(ran.err.contains("note: skipped: deploy/chart/template.yaml:1:"), "{ran:?}");
}

/// Arguments that give a program a network namespace without a network. Users other than root need a user namespace for
/// it, which some systems do not grant (`AppArmor` of Ubuntu 24.04, seccomp of Docker).
fn alone() -> &'static [&'static str] {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if root { &["--net"] } else { &["--map-root-user", "--net"] }
}

#[test]
fn sealing_and_validating_need_no_network_and_no_kubeconfig() {
    let folder = Folder::new();
    let unshare = |arguments: &[&str]| folder.command("unshare", &[alone(), arguments].concat());
    let granted = finish(unshare(&["cat", "/proc/net/dev"]), "");
    assert!(
        granted.code == 0,
        "this test needs `unshare --net` of util-linux, and the permission to use it: be root with CAP_SYS_ADMIN, or allow \
         user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0). It says: {}",
        granted.err
    );
    let devices: Vec<_> = granted.out.lines().filter_map(|line| line.split_once(':')).collect();
    assert!(devices.iter().all(|(name, _)| name.trim() == "lo"), "there is a network: {granted:?}");
    folder.write("a.yaml", &manifest("a", CANARY));
    let alone = |arguments: &[&str]| {
        let mut command = unshare(&[&[PLUGIN], arguments].concat());
        command.env_remove("KUBECONFIG");
        finish(command, CANARY)
    };
    let pin = folder.key.public().fingerprint();
    assert_eq!(
        alone(&["seal", "-f", "a.yaml", "--public-key", "key.json", "--fingerprint", &pin]).ok(),
        "a.yaml: sealed shop/a\n"
    );
    assert_eq!(alone(&["validate", "-f", "a.yaml", "--public-key", "key.json"]).ok(), "");
    let one = alone(&["seal", "--name", "db", "-n", "shop", "--public-key", "key.json"]);
    assert_eq!(folder.open(one.ok().trim_end(), "shop", "db"), CANARY);
    let wrong = alone(&["seal", "-f", "a.yaml", "--name", "x"]);
    assert_eq!(wrong.code, 2);
}

#[test]
fn the_value_is_on_no_command_line_and_in_no_other_file() {
    let folder = Folder::new();
    let text: String = (0..300)
        .flat_map(|number| ["---\n".to_owned(), manifest(&format!("o-{number}"), &format!("{CANARY}-{number}"))])
        .collect();
    // Whether both can be seen hangs on who is given the processor when, so it is done until they were.
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut commands, mut others) = (0, 0);
    while commands == 0 || others == 0 {
        assert!(Instant::now() < deadline, "seen: {commands} command lines, {others} other files");
        folder.write("alone/a.yaml", &text);
        let mut command = folder.command(PLUGIN, &["seal", "-f", "alone/a.yaml", "--public-key", "key.json"]);
        let mut child = command.spawn().unwrap();
        let (commands_file, beside) = (format!("/proc/{}/cmdline", child.id()), folder.path().join("alone"));
        while child.try_wait().unwrap().is_none() {
            let command = fs::read(&commands_file).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&command).contains(CANARY));
            commands += usize::from(command.windows(4).any(|word| word == b"seal"));
            for entry in fs::read_dir(&beside).unwrap().flatten().filter(|entry| entry.file_name() != "a.yaml") {
                // Gone again, perhaps, or not written yet.
                let other = fs::read_to_string(entry.path()).unwrap_or_default();
                assert!(!other.contains(CANARY), "{:?}", entry.path());
                others += usize::from(other.contains(SEALED_PREFIX));
            }
        }
        assert!(child.wait().unwrap().success());
        assert!(!folder.read("alone/a.yaml").contains(CANARY));
    }
}

#[test]
fn json_stays_json() {
    let folder = Folder::new();
    let text = format!(
        "{{\n\t\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\t\t{{\"apiVersion\": \"managedsecrets.dev/v1alpha1\", \"kind\": \"ManagedSecret\", \
         \"metadata\": {{\"name\": \"a\", \"namespace\": \"shop\"}},\n\t\t\"spec\": {{\"name\": \"A\", \"value\": \"{CANARY}\\u00e9\\/\\n\"}}}}]\n}}\n"
    );
    folder.write("a.json", &text);
    folder.seal(&["-f", "a.json"], "").ok();
    let after = folder.read("a.json");
    let object: Value = serde_json::from_str(&after).unwrap();
    let sealed = object["items"][0]["spec"]["value"].as_str().unwrap();
    assert_eq!(folder.open(sealed, "shop", "a"), format!("{CANARY}é/\n"));
    assert_eq!(after.replace(sealed, &format!("{CANARY}\\u00e9\\/\\n")), text);
    assert!(Sealed::parse(sealed).is_ok());
}

/// A value in a field that the API does not have would stay plain, and go to Git.
#[test]
fn a_value_in_a_wrong_field_is_refused_with_its_place_and_the_file_stays() {
    let folder = Folder::new();
    for (rest, says) in [
        ("spec: {name: A, vaule: CANARY}", "spec.vaule: is not a field"),
        ("spec: {Value: CANARY}", "spec.Value: is not a field"),
        ("Spec: {value: CANARY}", "Spec: is not a field"),
        ("value: CANARY", "value: is not a field"),
        ("spec: {generate: {value: CANARY}}", "spec.generate.value: is not a field"),
        ("spec: [{value: CANARY}]", "spec: must be a map"),
        ("spec: |\n  value: CANARY", "spec: must be a map"),
    ] {
        let head =
            "apiVersion: managedsecrets.dev/v1alpha1\nkind: ManagedSecret\nmetadata: {name: db, namespace: shop}\n";
        let text = format!("{head}{}\n", rest.replace("CANARY", CANARY));
        folder.write("wrong.yaml", &text);
        let ran = folder.seal(&["-f", "wrong.yaml"], "");
        assert!(ran.error(2).contains(says), "{rest}: {ran:?}");
        assert!(!ran.err.contains(CANARY) && folder.read("wrong.yaml") == text, "{rest}");
    }
}
