//! Completion, as kubectl asks a plugin for it.
//!
//! kubectl's own completion (bash, zsh and fish alike) runs `kubectl_complete-msec WORD… TO_COMPLETE` and reads a
//! candidate a line, a tab and a description behind it, and a last line with a directive of cobra's
//! (<https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/plugin/plugin_completion.go>). That program is this one
//! under another name. Subcommands, flags and their values come from the command line's definition; names, ids and
//! namespaces from the cluster, in one request, and nothing if it does not answer soon.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clap::FromArgMatches as _;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate, complete};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams};
use managed_secrets_api::Reason;
use managed_secrets_cli::connect::{Kubeconfig, Location};
use managed_secrets_cli::{CliError, arguments, say};

use super::session::Session;
use super::{Cli, ClusterArgs, block_on};

/// Name under which this program completes.
pub(super) const PROGRAM: &str = "kubectl_complete-msec";
/// When completion stops waiting for a cluster, counted from its start.
const PATIENCE: Duration = Duration::from_secs(2);
/// When completion ends without an answer: a read of a file can block for ever, for example if the kubeconfig is a pipe.
/// Later than [`PATIENCE`], so that a credential plugin is ended first.
const PATIENCE_IN_ALL: Duration = Duration::from_millis(2500);
/// Limit on the objects that completion offers: a shell cannot usefully show more.
const OBJECTS_MAX: u32 = 500;

/// Directives of cobra's, by which kubectl tells the shell what to do with the candidates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Directive {
    /// `ShellCompDirectiveDefault`: file names, if nothing else fits.
    Files = 0,
    /// `ShellCompDirectiveNoFileComp`: only these.
    NoFiles = 4,
}

/// The cluster that the words so far name: the library passes only the current word to completers.
static CLUSTER: OnceLock<ClusterArgs> = OnceLock::new();

/// When the process began to complete.
static BEGAN: OnceLock<Instant> = OnceLock::new();

/// Whether the program was called to complete.
pub(super) fn is_asked_for(program: Option<&OsString>) -> bool {
    program.and_then(|program| Path::new(program).file_name()).is_some_and(|name| name == PROGRAM)
}

/// Prints the candidates for the last word.
pub(super) fn complete_words(words: Vec<OsString>) -> Result<(), CliError> {
    BEGAN.get_or_init(Instant::now);
    let (found, answer) = mpsc::channel();
    // Not waited for: the process ends with this function, even if a read still blocks. Without a thread, nothing is
    // offered.
    let _ = thread::Builder::new().spawn(move || found.send(candidates(words)));
    let (candidates, directive) = answer.recv_timeout(PATIENCE_IN_ALL).unwrap_or((Vec::new(), Directive::Files));
    // A name of a kubeconfig that a terminal would obey, or that would forge a line, is not offered.
    let is_plain = |candidate: &&CompletionCandidate| {
        let value = candidate.get_value().to_string_lossy();
        say::visible(&value) == value
    };
    let lines = candidates.iter().filter(is_plain).map(|candidate| {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = say::visible(help.lines().next().unwrap_or_default());
        if help.is_empty() { format!("{value}\n") } else { format!("{value}\t{help}\n") }
    });
    say::print_document(&format!("{}:{}\n", lines.collect::<String>(), directive as u8))
}

fn candidates(mut words: Vec<OsString>) -> (Vec<CompletionCandidate>, Directive) {
    let mut command = arguments::command::<Cli>();
    // Incomplete words are not a valid command line: words that do not parse are skipped.
    let known = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(std::iter::once(OsString::from(PROGRAM)).chain(words.clone()));
    let cluster = known.ok().and_then(|matches| ClusterArgs::from_arg_matches(&matches).ok()).unwrap_or_default();
    // Set once: a process completes one word.
    let _ = CLUSTER.set(cluster);
    words.insert(0, OsString::from(PROGRAM));
    let last = words.len() - 1;
    // Where the library offers files it reads a folder: the shell does that better.
    let mut found = complete(&mut command, words, last, None).unwrap_or_default();
    found.retain(|candidate| !candidate.is_hide_set());
    let directive = if found.is_empty() { Directive::Files } else { Directive::NoFiles };
    (found, directive)
}

/// For an argument that calls a secret by name or id.
pub(super) fn secrets() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_string_lossy();
        let listed = ask(async |session: Session| {
            let objects = session.objects().list(&ListParams::default().limit(OBJECTS_MAX)).await.ok()?;
            Some(objects.items)
        });
        let mut found = Vec::new();
        for object in listed.unwrap_or_default() {
            let help = object.spec.description.as_deref().unwrap_or_default();
            // Several lines, or an escape sequence, must not reach a terminal.
            let help = say::visible(help);
            let name = object.spec.name;
            if name.starts_with(&*current) {
                found.push(CompletionCandidate::new(&name).help(Some(help.into())));
            }
            // Ids are long: they are offered once the user has begun one.
            let id = object
                .status
                .and_then(|status| status.id)
                .filter(|id| !current.is_empty() && id.starts_with(&*current));
            found.extend(id.map(|id| CompletionCandidate::new(id).help(Some(name.into()))));
        }
        found
    })
}

/// For `--namespace`.
pub(super) fn namespaces() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = ask(async |session: Session| {
            let namespaces = Api::<Namespace>::all(session.client);
            let listed = namespaces.list_metadata(&ListParams::default().limit(OBJECTS_MAX)).await.ok()?;
            Some(listed.items.into_iter().filter_map(|it| it.metadata.name).collect::<Vec<_>>())
        });
        names.unwrap_or_default().into_iter().map(CompletionCandidate::new).collect()
    })
}

/// For `--context`.
pub(super) fn contexts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| entries(Kubeconfig::contexts))
}

/// For `--cluster`.
pub(super) fn clusters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| entries(Kubeconfig::clusters))
}

/// For `--user`.
pub(super) fn users() -> ArgValueCandidates {
    ArgValueCandidates::new(|| entries(Kubeconfig::users))
}

/// Names in the kubeconfig that the words name; none if it cannot be read.
fn entries(names: fn(&Kubeconfig) -> Vec<String>) -> Vec<CompletionCandidate> {
    let file = CLUSTER.get().and_then(|cluster| cluster.kubeconfig.as_deref());
    let read = Location::of(file).read().ok().flatten().unwrap_or_default();
    names(&read).into_iter().map(CompletionCandidate::new).collect()
}

/// For an argument that is the reason of a condition.
pub(super) fn reasons() -> ArgValueCandidates {
    ArgValueCandidates::new(|| Reason::ALL.iter().map(|reason| CompletionCandidate::new(reason.as_str())).collect())
}

/// Asks the cluster that the words name; returns nothing if it does not answer in time.
fn ask<T>(question: impl AsyncFnOnce(Session) -> Option<T>) -> Option<T> {
    let cluster = CLUSTER.get().cloned().unwrap_or_default().without_interaction();
    let answer = block_on(async {
        // Credentials may take a program or a call of their own.
        let answer = async { question(Session::open(&cluster).ok()?).await };
        let left = PATIENCE.saturating_sub(BEGAN.get_or_init(Instant::now).elapsed());
        Ok(tokio::time::timeout(left, answer).await.ok().flatten())
    });
    answer.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(words: &[&str]) -> Vec<String> {
        let (candidates, _) = candidates(words.iter().map(OsString::from).collect());
        candidates.iter().map(|candidate| candidate.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert!(offered(&[""]).contains(&"list".to_owned()));
        assert_eq!(offered(&["expl"]), ["explain"]);
        assert!(offered(&["list", "--sort"]).contains(&"--sort-by".to_owned()));
        assert_eq!(offered(&["explain", "NameIn"]), ["NameInUse"]);
    }

    #[test]
    fn the_program_completes_under_another_name_only() {
        assert!(is_asked_for(Some(&OsString::from("/usr/bin/kubectl_complete-msec"))));
        assert!(!is_asked_for(Some(&OsString::from("kubectl-msec"))));
        assert!(!is_asked_for(None));
    }
}
