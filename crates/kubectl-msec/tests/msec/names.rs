//! Names from the command line and from files become parts of URLs: what would be another path is refused before
//! anything is sent.

use super::Folder;

/// What is no name of a namespace, nor of an object.
const RUBBISH: [&str; 9] =
    ["..", "../kube-system", "a/b", "a/secrets/b?x=", "a%2fb", "a#b", "Kube", "x b", "a\u{1b}[2J"];

#[test]
fn an_operator_namespace_that_would_be_another_path_is_refused() {
    let folder = Folder::new();
    folder.write("backup.yaml", "");
    for name in RUBBISH {
        let flag = format!("--operator-namespace={name}");
        for command in [
            &["doctor"][..],
            &["backup"],
            &["describe", "DB"],
            &["restore", "backup.yaml"],
            &["seal", "--name", "db", "-n", "shop"],
            &["public-key"],
        ] {
            let ran = folder.run(&[command, &[flag.as_str()]].concat());
            let error = ran.error(2);
            assert!(
                error.contains("--operator-namespace") && error.contains("the name of a namespace must be"),
                "{ran:?}"
            );
            assert!(!error.contains(name), "{ran:?}");
        }
    }
}

#[test]
fn a_backup_with_a_name_that_would_be_another_path_is_refused() {
    let folder = Folder::new();
    for name in RUBBISH {
        for (namespace, object, rule) in
            [(name, "db", "the name of a namespace must be"), ("shop", name, "the name of an object must be")]
        {
            let backup = serde_json::json!({
                "apiVersion": "managedsecrets.dev/v1alpha1", "kind": "ManagedSecret",
                "metadata": {"namespace": namespace, "name": object}, "spec": {"name": "DB", "generate": {}},
            });
            folder.write("backup.yaml", &backup.to_string());
            let ran = folder.run(&["restore", "backup.yaml", "--yes"]);
            assert!(ran.error(2).contains(rule), "{ran:?}");
            assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
        }
    }
}

#[test]
fn an_option_without_its_value_does_not_swallow_another_option() {
    let folder = Folder::new();
    for (words, option, other) in [
        (&["update", "DB", "--description", "--value-stdin"][..], "--description", "--value-stdin"),
        (&["update", "DB", "--description", "--from-file=k4n4ry-plaintext"], "--description", "--from-file"),
        (&["create", "DB", "--token", "-n", "shop"], "--token", "--namespace"),
        (&["seal", "-n", "-f", "x.yaml"], "--namespace", "--filename"),
        (&["validate", "-Rf", "--no-secrets"], "--filename", "--no-secrets"),
    ] {
        let ran = folder.run_with(words, super::CANARY);
        let says = format!("{option} needs a value, and {other} is another option; a value may follow {option}=");
        assert_eq!(ran.error(2), says, "{words:?}");
    }
    // Written with `=`, it is a value, and the error is another one.
    let ran = folder.run(&["update", "DB", "--description=--value-stdin"]);
    assert!(!ran.err.contains("needs a value"), "{ran:?}");
    // An unknown word is a value, as for kubectl.
    let ran = folder.run(&["seal", "--public-key", "key.json", "-n", "shop", "-f", "-x.yaml"]);
    assert!(ran.error(2).starts_with("-x.yaml: "), "{ran:?}");
    folder.write("-x.yaml", &super::manifest("x", super::CANARY));
    folder.run(&["seal", "--public-key", "key.json", "-f", "-x.yaml"]).ok();
}
