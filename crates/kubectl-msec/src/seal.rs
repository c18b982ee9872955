//! `kubectl msec seal`: one value, every plain value of manifests in place, or Secrets as ManagedSecrets.
//!
//! ```text
//! one value:      standard input, or a prompt ────────────▶ sealed value on standard output
//! -f:             files ─▶ streams ─▶ jobs ─▶ sealed ─────▶ the same files, or standard output
//! --from-secret:  file ─▶ Secrets ─▶ ManagedSecrets ──────▶ standard output
//! ```
//!
//! With `-f`, all is read, checked and sealed before the first file is written: if anything is wrong, no file is written.
//! The namespace is the manifest's, or `--namespace`, and never a kubeconfig's: a sealed value in Git must not depend
//! on where the user's kubectl pointed. With `--public-key`, the command asks no cluster.

mod from_secret;
mod names;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_cli::connect::block_on;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::seal::{HandlingArgs, handling, sealed};
use managed_secrets_cli::{CliError, KeyArgs, SealScope, say, value};
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::{self, Handling, PublishedKey, Scope};
use zeroize::Zeroizing;

use super::manifest::files::{FileArgs, Replacement, Source};
use super::manifest::{Held, Kind, NodeId, Object, Problem, Rule, Stream};
use super::session::{ClusterArgs, Session};
use super::validate;

const EXAMPLES: &str = "\
Examples:
  # One value, read from standard input or asked for
  printf %s \"$KEY\" | kubectl msec seal --name weather-api-key -n shop

  # One value that must not be delivered
  printf %s \"$KEY\" | kubectl msec seal --no-delivery --name break-glass -n shop

  # Every plain value of a file, in place; comments and order stay
  kubectl msec seal -f weather-api-key.yaml

  # Without a cluster: its public key is in the repository, and pinned
  kubectl msec seal -R -f deploy/ --public-key sealing-key.json --fingerprint \"$SHA256\"

  # In a pipe
  kustomize build . | kubectl msec seal -f - | kubectl apply -f -

  # Secrets that exist as manifests become ManagedSecrets, which take over the Secrets on the cluster
  kubectl msec seal --from-secret secrets.yaml --adopt > managed-secrets.yaml";

/// Arguments of `seal`. A value is never an argument.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct SealArgs {
    /// metadata.name of the ManagedSecret that one value is for (scope strict)
    #[arg(long, value_name = "OBJECT", conflicts_with_all = ["files", "from_secret"])]
    pub name: Option<String>,

    /// Where sealed values may be used
    #[arg(long, value_enum, default_value_t)]
    pub scope: SealScope,

    /// Which manifests: every plain spec.value is sealed in place, standard input to standard output.
    #[command(flatten)]
    pub files: FileArgs,

    /// Whether values may be delivered. With -f, the value of an object with spec.delivery: None is kept without it.
    #[command(flatten)]
    pub handling: HandlingArgs,

    /// Print the one file that -f names instead of writing it
    #[arg(long, requires = "files")]
    pub stdout: bool,

    /// Print the Secrets of this file (- for standard input) as ManagedSecrets
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    pub from_secret: Option<PathBuf>,

    /// File with names for them, where the derived ones do not fit: lines of SECRET/KEY NAME [OBJECT]
    #[arg(long, value_name = "FILE", requires = "from_secret")]
    pub names: Option<PathBuf>,

    /// Let them take over the Secrets that exist on the cluster (target.adoption: IfUnowned)
    #[arg(long, requires = "from_secret")]
    pub adopt: bool,

    /// Which key to seal with.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// Seals one value, or every plain value of manifests in place.
pub(super) fn seal(cluster: &ClusterArgs, args: &SealArgs) -> Result<(), CliError> {
    let namespace = cluster.namespace();
    if let Some(file) = &args.from_secret {
        if args.handling.no_delivery {
            return Err(CliError::Usage(
                "--no-delivery is not allowed with --from-secret: the values are delivered as Secrets".to_owned(),
            ));
        }
        return from_secret::convert(cluster, args, file);
    }
    if !args.files.files.is_empty() {
        return seal_files(cluster, args);
    }
    let scope = args.scope.of(namespace, args.name.as_deref())?;
    let key = key(cluster, args)?;
    say::print_document(&format!("{}\n", sealed(&key, &scope, args.handling.into(), &value::from_standard_input()?)?))
}

/// The key to seal with; of the cluster only where no file is named.
fn key(cluster: &ClusterArgs, args: &SealArgs) -> Result<PublishedKey, CliError> {
    block_on(args.key.key(async || Ok(Session::open(cluster)?.client)))
}

/// One value to seal.
pub(super) struct Job {
    node: NodeId,
    /// What for.
    scope: Scope,
    handling: Handling,
    value: Plaintext,
    /// What notes call the object.
    called: String,
    /// What is probably a mistake in the value, with its location.
    remark: Option<Problem>,
}

fn seal_files(cluster: &ClusterArgs, args: &SealArgs) -> Result<(), CliError> {
    // A file that is only printed need not be a regular file.
    let sources = if args.stdout { args.files.read()? } else { args.files.read_to_replace()? };
    if args.stdout && sources.len() != 1 {
        return Err(CliError::Usage("--stdout needs exactly one file".to_owned()));
    }
    let mut work = Vec::new();
    for source in &sources {
        let Some(stream) = read(source)? else { continue };
        for note in stream.nested().notes {
            say::tell(format_args!("note: {}", note.in_file(&source.name)));
        }
        let mut jobs =
            jobs(&stream, cluster.namespace(), args.scope).map_err(|problems| refusal(&source.name, &problems))?;
        if args.handling.no_delivery {
            for job in &mut jobs {
                job.handling = Handling::Kept;
            }
        }
        work.push((source, stream, jobs));
    }
    // Nothing to seal: no key is needed, and no cluster.
    let key = if work.iter().all(|(.., jobs)| jobs.is_empty()) { None } else { Some(key(cluster, args)?) };
    let mut done = Vec::new();
    for (source, stream, jobs) in &work {
        let mut replaced = HashMap::new();
        for job in jobs {
            // There is a key where there is a job.
            let Some(key) = &key else { break };
            let text = mss1::seal(&key.key, &job.scope, job.handling, &job.value).map_err(|error| match error {
                mss1::SealError::Scope(rule) => CliError::Usage(format!("{}: {} {rule}", source.name, job.called)),
                other => CliError::failed("cannot seal", &other),
            })?;
            replaced.insert(job.node, text);
        }
        done.push((*source, rewritten(source, stream, &replaced)?, jobs));
    }
    write(&done, args.stdout)
}

/// The objects of a file. `None` for a file of a folder that cannot be read and holds no ManagedSecret.
pub(super) fn read(source: &Source) -> Result<Option<Stream<'_>>, CliError> {
    match source.stream() {
        Ok(stream) => Ok(Some(stream)),
        Err(problem) if source.may_be_skipped(&[GROUP, KIND]) => {
            say::tell(format_args!("note: skipped: {}", problem.in_file(&source.name)));
            Ok(None)
        }
        Err(problem) => Err(refusal(&source.name, &[problem])),
    }
}

/// The error when nothing is written: the first problem, and how many more were found.
pub(super) fn refusal(file: &str, problems: &[Problem]) -> CliError {
    let first = problems.first().map(|problem| problem.in_file(file)).unwrap_or_default();
    CliError::Usage(match problems.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more: `kubectl msec validate` shows all)", more - 1),
    })
}

/// The file's text with other values.
pub(super) fn rewritten(
    source: &Source,
    stream: &Stream<'_>,
    replaced: &HashMap<NodeId, String>,
) -> Result<Option<String>, CliError> {
    if replaced.is_empty() {
        return Ok(None);
    }
    let unproven = |_| {
        let name = &source.name;
        CliError::Usage(format!("{name}: a value cannot be replaced in this notation; write it in quotes, on one line"))
    };
    stream.with(replaced).map(Some).map_err(unproven)
}

/// What is to seal in a stream, or everything that keeps it from being sealed.
fn jobs(stream: &Stream<'_>, namespace: Option<&str>, scope: SealScope) -> Result<Vec<Job>, Vec<Problem>> {
    // What is sealed in place is an object's own value. A plain value elsewhere would stay in the file.
    let (mut jobs, mut problems) = (Vec::new(), stream.nested().problems);
    for object in stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret) {
        problems.extend(object.problems.iter().cloned());
        problems.extend(stream.copies(object));
        problems.extend(validate::unknown(stream, object));
        match stream.held(object) {
            Ok(Held::Plain { text, node }) => match job(stream, object, namespace, scope, text, node) {
                Ok(job) => jobs.push(job),
                Err(problem) => problems.push(problem),
            },
            Ok(Held::Nothing) if has_null_alone(object) => {
                problems.push(stream.problem(object, Rule::NoText, "spec.value", "must be a quoted string, not null"));
            }
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(jobs) } else { Err(problems) }
}

/// Whether `spec.value` is null and nothing else is the source of the value: the cluster would refuse the object.
fn has_null_alone(object: &Object) -> bool {
    let source = |field: &str| object.json.get("spec").and_then(|spec| spec.get(field));
    let has_other = ["valueFrom", "generate"].into_iter().filter_map(source).any(|source| !source.is_null());
    source("value").is_some() && !has_other
}

fn job(
    stream: &Stream<'_>,
    object: &Object,
    namespace: Option<&str>,
    scope: SealScope,
    text: &str,
    node: NodeId,
) -> Result<Job, Problem> {
    let problem = |field: &str, message: &str| stream.problem(object, Rule::Field, field, message);
    let value = Plaintext::new(Zeroizing::new(text.as_bytes().to_vec()))
        .map_err(|rule| problem("spec.value", &rule.to_string()))?;
    let namespace = || {
        let given = object.namespace().or(namespace).map(str::to_owned);
        given.ok_or_else(|| {
            problem("metadata.namespace", "must be given, here or with -n: a value is sealed for one namespace")
        })
    };
    let name = || {
        let text = "must be given: a value is sealed for one object (--scope namespace seals for all of a namespace)";
        object.name().map(str::to_owned).ok_or_else(|| problem("metadata.name", text))
    };
    let scope = match scope {
        SealScope::Strict => Scope::Strict { namespace: namespace()?, name: name()? },
        SealScope::Namespace => Scope::Namespace { namespace: namespace()? },
        SealScope::Cluster => Scope::Cluster,
    };
    let called = object.called(scope.namespace());
    let remark = value.remark().map(|remark| problem("spec.value", &remark));
    Ok(Job { node, scope, handling: handling(object.delivery()), value, called, remark })
}

/// Writes all files, or prints the one; says what was sealed.
fn write(done: &[(&Source, Option<String>, &Vec<Job>)], stdout: bool) -> Result<(), CliError> {
    let mut replacements = Vec::new();
    for (source, after, _) in done {
        if let (Some(path), Some(after), false) = (&source.path, after, stdout) {
            replacements.push(Replacement::prepare(path, &source.text, after)?);
        }
    }
    // From here on, only a full or failing disk can keep a file from being replaced.
    for replacement in replacements {
        replacement.commit()?;
    }
    let printed = |source: &Source| stdout || source.path.is_none();
    // Where manifests are printed, nothing else is: the user applies the output.
    let to_stderr = done.iter().any(|(source, ..)| printed(source));
    let mut said = Lines::new();
    for (source, after, jobs) in done {
        if printed(source) {
            say::print_document(after.as_deref().unwrap_or(&source.text))?;
        }
        for job in *jobs {
            if let Some(remark) = &job.remark {
                say::tell(format_args!("note: {}", remark.in_file(&source.name)));
            }
            let line = format!("{}: sealed {}", source.name, job.called);
            if to_stderr { say::tell(format_args!("note: {line}")) } else { said.line(line) }
        }
    }
    said.print()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn manifest(value: &str) -> String {
        format!(
            "apiVersion: {GROUP}/v1alpha1\nkind: ManagedSecret\nmetadata: {{name: db}}\nspec:\n  name: DB\n  value: \
             {value}\n"
        )
    }

    #[test]
    fn the_namespace_is_the_manifests_or_the_flags_and_never_guessed() {
        let text = manifest("hunter2");
        let stream = Stream::read(&text).unwrap();
        let scope_of = |namespace, scope| jobs(&stream, namespace, scope).map(|jobs| jobs[0].scope.to_string());
        assert_eq!(scope_of(Some("shop"), SealScope::Strict).unwrap(), "shop/db");
        assert_eq!(scope_of(Some("shop"), SealScope::Namespace).unwrap(), "namespace shop");
        assert_eq!(scope_of(None, SealScope::Cluster).unwrap(), "the whole cluster");
        let problems = scope_of(None, SealScope::Strict).unwrap_err();
        assert_eq!(
            problems[0].in_file("x.yaml"),
            "x.yaml:3:1: metadata.namespace: must be given, here or with -n: a value is sealed for one namespace"
        );
    }

    #[test]
    fn a_refusal_says_the_first_problem_and_no_value() {
        for (value, says) in [
            ("12345678", "must be a quoted string"),
            ("\"\"", "must not be empty"),
            ("*hunter2", "must be in quotes"),
            ("&a hunter2", "without an anchor"),
            ("\"{{ .Values.hunter2 }}\"", "must not be a template"),
            ("{{ .Values.hunter2 }}", "must not be a template"),
            ("[hunter2]", "must be a quoted string"),
            ("!vault hunter2", "without a tag"),
            ("mss1.hunter2", "sealed value"),
            (&"hunter2".repeat(600), "at most 3500"),
        ] {
            let text = manifest(value);
            let stream = Stream::read(&text).unwrap();
            let problems = jobs(&stream, Some("shop"), SealScope::Strict).err().unwrap();
            let said = refusal("x.yaml", &problems).to_string();
            assert!(said.starts_with("x.yaml:6:10: spec.value: ") || said.starts_with("x.yaml:6:"), "{said}");
            assert!(said.contains(says), "{value}: {said}");
            assert!(!said.contains("hunter") && !said.contains("1234"), "{said}");
        }
    }
}
