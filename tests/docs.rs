//! README and docs say what is so: links lead somewhere, commands and flags exist, reasons and make targets too.
//!
//! Whether the commands do what the text says is shown by `tests/integration/stories.rs`, which runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, Parser as _};
use managed_secrets::{args::Cli, install::monitoring::alerts::ALERTS};
use managed_secrets_api::Reason;
use testkit::{markdown::Document, root};

/// Names in inline code that look like reasons and are none.
const OTHER_NAMES: &[&str] = &[
    // Kinds and roles of Kubernetes, conditions of kstatus, levels of its audit policy.
    "ManagedSecret",
    "CustomResourceDefinition",
    "StatefulSet",
    "DaemonSet",
    // A condition of ours.
    "RestartBlocked",
    // Values of the API's fields, and a type of the source.
    "AlphanumericSymbols",
    "Base64Url",
    "IfUnowned",
    // What Kubernetes says of a container that used too much memory.
    "OOMKilled",
];

fn documents() -> Vec<Document> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = docs
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.strip_prefix(root()).unwrap().to_owned())
        .chain(["README.md", "CONTRIBUTING.md"].map(PathBuf::from))
        .collect();
    paths.sort();
    paths.into_iter().map(|path| Document::read(path).unwrap()).collect()
}

/// Every violation in every document, as one assertion: a reader wants the whole list.
fn check(of: impl Fn(&Document) -> Vec<String>) {
    let documents = documents();
    assert!(documents.len() >= 8, "documents are missing: {documents:?}");
    let wrong: Vec<_> = documents
        .iter()
        .flat_map(|document| of(document).into_iter().map(|what| format!("{}: {what}", document.path.display())))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let leads = |from: &Path, link: &str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = if path.is_empty() { from.to_owned() } else { from.parent().unwrap().join(path) };
        if !root().join(&path).exists() {
            return false;
        }
        anchor.is_empty() || Document::read(path).unwrap().anchors().any(|known| known == anchor)
    };
    check(|document| {
        let links = document.links().filter(|link| !link.contains("://"));
        links.filter(|link| !leads(&document.path, link)).map(|link| format!("link to {link}")).collect()
    });
}

#[test]
fn every_document_is_linked_and_every_example_is_used() {
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (readme, guide) = (text("README.md"), text("docs/guide.md"));
    for document in documents().iter().filter(|document| document.path.starts_with("docs")) {
        let path = document.path.to_str().unwrap();
        assert!(readme.contains(&format!("({path}")), "{path} is not in README.md");
    }
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(guide.contains(&format!("examples/{name}")), "examples/{name} is not in docs/guide.md");
    }
}

/// What our programs are called by.
const PROGRAMS: [&str; 3] = ["managed-secrets ", "kubectl msec ", "kubectl-msec "];

/// The calls of our programs in a text of shell or prose: each as its words.
fn calls(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let mut starts: Vec<_> = PROGRAMS.iter().flat_map(|program| text.match_indices(program)).collect();
    starts.sort_unstable();
    let starts = starts.into_iter().filter(|(at, _)| {
        // A word of its own, and a command: not the end of a path, nor an argument of kubectl.
        let (all, before) = (&text[..*at], text[..*at].trim_end_matches([' ', '`']));
        let is_word = all.is_empty() || all.ends_with(['\n', '`', '(', ' ', '$']);
        let is_command = before.is_empty() || before.ends_with(['\n', '|', '$', '(']) || all.ends_with('`');
        is_word && is_command
    });
    starts.map(|(at, _)| words(&text[at..])).collect()
}

/// The words of one simple command: until a pipe, a redirection, a closing parenthesis, or the end of the line.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut depth) = (Vec::new(), String::new(), None, 0);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open && depth == 0 => quote = None,
            (None, '"' | '\'') if depth == 0 => quote = Some(c),
            (_, '(') => depth += 1,
            (_, ')') if depth > 0 => depth -= 1,
            (None, '|' | '<' | '>' | ')' | '`' | ';' | '\n') if depth == 0 => break,
            (None, ' ') if depth == 0 => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[test]
fn calls_are_found_and_taken_apart() {
    let text = "x: $(printf %s 'a b' | managed-secrets seal --name \"b c\" \\\n  --scope strict)\nkubectl get managed-secrets x\n";
    assert_eq!(calls(text), [["managed-secrets", "seal", "--name", "b c", "--scope", "strict"]]);
    assert_eq!(calls("kubectl msec get A -n b | cat\n"), [["kubectl", "msec", "get", "A", "-n", "b"]]);
    assert_eq!(calls("$ managed-secrets public-key > key.json\n"), [["managed-secrets", "public-key"]]);
    assert_eq!(words("a --user \"$(b -o 'c d')\" > e"), ["a", "--user", "$b -o 'c d'"]);
}

#[test]
fn every_call_of_our_program_is_one_that_it_takes() {
    check(|document| {
        let blocks = document.blocks.iter().filter(|block| ["sh", "console"].contains(&block.language.as_str()));
        let shell = blocks.flat_map(|block| calls(&block.text));
        let inline = document.inline_code().filter(|code| PROGRAMS.iter().any(|program| code.starts_with(program)));
        let all = shell.chain(inline.map(words).filter(|call| !is_a_name(call)));
        all.filter(|call| is_refused(call)).map(|call| call.join(" ")).collect()
    });
}

/// Which of our two programs a call is of, and its words as that program gets them.
fn taken(call: &[String]) -> (&[String], bool) {
    match call[0].as_str() {
        "kubectl" => (&call[1..], true),
        program => (call, program == "kubectl-msec"),
    }
}

/// Whether the program that is called does not take the call.
fn is_refused(call: &[String]) -> bool {
    let error = match taken(call) {
        (words, true) => kubectl_msec::Cli::try_parse_from(words).err(),
        (words, false) => Cli::try_parse_from(words).err(),
    };
    // `--help` and `--version` are printed instead of an error.
    error.is_some_and(|error| error.use_stderr())
}

/// In prose, `kubectl msec create` names a command, and is no call of it. In a block it is one.
fn is_a_name(call: &[String]) -> bool {
    let (words, is_plugin) = taken(call);
    let cli = if is_plugin { kubectl_msec::Cli::command() } else { Cli::command() };
    let mut commands = words.iter().skip(1);
    words.len() > 1 && commands.try_fold(&cli, |command, word| command.find_subcommand(word)).is_some()
}

/// A command, and the commands below it.
fn with_all(command: &clap::Command) -> Vec<&clap::Command> {
    command.get_subcommands().flat_map(with_all).chain([command]).collect()
}

#[test]
fn commands_of_the_other_program_are_refused() {
    let call = |text: &str| calls(text).remove(0);
    for text in ["$ managed-secrets public-key > key.json\n", "kubectl msec manifests\n", "kubectl-msec run\n"] {
        assert!(is_refused(&call(text)) && !is_a_name(&call(text)), "{text}");
    }
    assert!(!is_refused(&call("$ kubectl msec public-key --out key.json\n")));
    // A name in prose alone: a call would name what to create.
    assert!(is_refused(&call("kubectl msec create\n")) && is_a_name(&call("kubectl msec create\n")));
}

#[test]
fn every_flag_and_variable_is_one_of_ours() {
    let commands = [Cli::command(), kubectl_msec::Cli::command()];
    let arguments: Vec<_> = commands.iter().flat_map(with_all).flat_map(clap::Command::get_arguments).collect();
    let own = ["help", "version"];
    let flags: BTreeSet<_> = arguments.iter().filter_map(|arg| arg.get_long()).chain(own).collect();
    let variables: BTreeSet<_> = arguments.iter().filter_map(|arg| arg.get_env()?.to_str()).collect();
    check(|document| {
        let unknown_flag = |code: &&str| {
            let flag = code.strip_prefix("--").map(|rest| rest.split([' ', '=']).next().unwrap_or_default());
            // Alone, -- ends the options.
            flag.is_some_and(|flag| !flag.is_empty() && !flags.contains(flag))
        };
        let unknown_variable =
            |code: &&str| code.starts_with("MANAGED_SECRETS_") && !code.ends_with('…') && !variables.contains(*code);
        document.inline_code().filter(|code| unknown_flag(code) || unknown_variable(code)).map(str::to_owned).collect()
    });
}

#[test]
fn every_flag_of_run_and_manifests_is_documented() {
    for (name, page) in [("run", "docs/operations.md"), ("manifests", "docs/install.md")] {
        let document = Document::read(page).unwrap();
        let code: BTreeSet<_> = document.inline_code().collect();
        for flag in Cli::command().find_subcommand(name).unwrap().get_arguments().filter_map(|arg| arg.get_long()) {
            assert!(code.contains(format!("--{flag}").as_str()), "{page} does not describe --{flag} of {name}");
        }
    }
}

#[test]
fn every_reason_exists() {
    let reasons: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let humps = |code: &str| {
        code.starts_with(|c: char| c.is_ascii_uppercase())
            && code.chars().all(|c| c.is_ascii_alphanumeric())
            && code.chars().skip(1).any(|c| c.is_ascii_uppercase())
            && code.chars().any(|c| c.is_ascii_lowercase())
    };
    check(|document| {
        let names = document.inline_code().filter(|code| humps(code));
        let is_alert = |name: &str| ALERTS.iter().any(|alert| alert.name == name);
        let unknown = names.filter(|name| !reasons.contains(name) && !OTHER_NAMES.contains(name) && !is_alert(name));
        unknown.map(str::to_owned).collect()
    });
    let page = fs::read_to_string(root().join("docs/reasons.md")).unwrap();
    for reason in reasons {
        assert!(page.contains(&format!("| `{reason}` |")), "{reason} is not in docs/reasons.md");
    }
}

#[test]
fn every_make_target_exists() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    check(|document| {
        let targets = document.inline_code().filter_map(|code| code.split_once("make ").map(|(_, target)| target));
        let targets = targets.filter_map(|target| target.split(' ').next());
        targets.filter(|target| !makefile.contains(&format!("\n{target}:"))).map(|t| format!("make {t}")).collect()
    });
}
