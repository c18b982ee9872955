//! A value that is typed, piped or read is in nothing that others see: arguments, output, files.

use std::{fs, path::Path};

use testkit::poll;

use super::{objects, place};
use crate::integration::{
    msec::terminal::Terminal,
    operator::{PATIENCE, Setup},
};

/// Arguments and environments of every process of this machine that mentions the namespace.
fn processes(namespace: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    // A process may end while it is looked at, and another user's environment is not ours to read.
    entries
        .filter_map(|path| Some((read(&path.join("cmdline")).ok()?, read(&path.join("environ")).unwrap_or_default())))
        .filter(|(arguments, _)| arguments.contains(namespace))
        .map(|(arguments, environment)| format!("{arguments}\n{environment}"))
        .collect()
}

/// The content of every file of a folder, followed by its name.
fn files(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&files(&path));
        } else if !path.is_symlink() {
            text.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        }
        text.push_str(&path.display().to_string());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_in_no_argument_output_or_file() {
    let (site, operator, mut plugin) = place("hidden").await;
    // Nobody serves it, so that the command waits and can be looked at.
    operator.stop().await;
    let temporary = plugin.folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    plugin.env.push(("TMPDIR".to_owned(), temporary.display().to_string()));
    plugin.env.push(("HOME".to_owned(), plugin.folder.path().display().to_string()));
    let canary = format!("canary-{}", uuid::Uuid::new_v4().simple());
    let create = plugin.run_with(&["create", "DB"], canary.as_bytes());
    let look = async {
        poll("the object", PATIENCE, || async { Ok((objects(&site).await == ["db"]).then_some(())) }).await.unwrap();
        let processes = processes(&site.namespace);
        let operator = Setup::of(&site.namespace).start().await;
        (processes, operator)
    };
    let (created, (processes, operator)) = tokio::join!(create, look);
    assert!(created.ok().contains("version 1"));
    assert!(processes.iter().any(|it| it.contains("msec") && it.contains("create DB")), "{processes:?}");
    assert!(!processes.concat().contains(&canary));

    let update = plugin.run_with(&["update", "DB", "--value-stdin"], format!("{canary}-2").as_bytes()).await;
    let mut shown = created.ok() + &created.err + &update.ok() + &update.err;
    for arguments in [
        &["describe", "DB"][..],
        &["export", "DB"],
        &["get", "DB", "-o", "yaml"],
        &["update", "DB", "--description", "x", "-o", "json"],
        &["delete", "DB", "--dry-run=server"],
    ] {
        let ran = plugin.run(arguments).await;
        shown += &(ran.ok() + &ran.err);
    }
    // Errors of every kind, with the value on its way.
    for (arguments, code) in [
        (&["create", "DB"][..], 1),
        (&["create", "OTHER", "--fingerprint", &"0".repeat(64)], 1),
        (&["create", "OTHER", "--target-key", "/"], 2),
        (&["update", "NOBODY", "--value-stdin"], 1),
        (&["update", "DB", "--value-stdin", "--operator-namespace", "nowhere"], 1),
    ] {
        let ran = plugin.run_with(arguments, canary.as_bytes()).await;
        assert_eq!(ran.code, code, "{ran:?}");
        shown += &ran.err;
    }
    assert!(!shown.contains(&canary));
    assert!(files(plugin.folder.path()).contains("kubectl-msec") && !files(plugin.folder.path()).contains(&canary));
    // That it was the value is known by the one command that shows it.
    assert_eq!(plugin.run(&["value", "DB"]).await.ok(), format!("{canary}-2"));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_does_not_show_what_is_typed_and_progress_is_shown() {
    let (site, operator, plugin) = place("typed").await;
    operator.stop().await;
    let mut terminal = Terminal::run(&plugin, &["create", "TYPED"]);
    terminal.shows("Value (not shown): ").await;
    terminal.hides().await;
    terminal.types("typed, not shown");
    terminal.shows("managedsecret.managedsecrets.dev/typed created").await;
    terminal.shows("waiting: Pending: ").await;
    let operator = Setup::of(&site.namespace).start().await;
    let (code, shown) = terminal.end().await;
    assert!(code == 0 && shown.contains("version 1"), "{shown}");
    assert!(!shown.contains("typed, not"), "{shown}");
    // The end of the line is not part of it.
    assert_eq!(site.value("typed", "value").await.as_deref(), Some("typed, not shown"));

    // A name that is taken is said before anybody types in vain.
    let (code, shown) = Terminal::run(&plugin, &["create", "TYPED"]).end().await;
    assert!(code == 1 && shown.contains("in use by msec/typed") && !shown.contains("Value"), "{shown}");
    operator.stop().await;
}
