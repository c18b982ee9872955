//! `kubectl msec validate`: manifests checked without a cluster, for pre-commit and CI.
//!
//! ```text
//! files ─▶ streams ─┬─▶ each object: shape, rules, unknown fields, what spec.value holds, annotations ─┐
//!                   ├─▶ manifests inside other objects and texts: plain values ────────────────────────┤
//!                   └─▶ all objects: names, targets and objects that are given twice ──────────────────┴─▶ findings
//! ```
//!
//! A finding is something that the cluster would refuse, drop silently or never deliver, or a plaintext value. It is
//! reported with its location, so that editors and code reviews can show it, and never with the content.

mod report;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use managed_secrets_api::keys::{GROUP, KIND};
use managed_secrets_api::limits::NAMESPACE_MAX;
use managed_secrets_api::template;
use managed_secrets_api::types::Delivery;
use managed_secrets_api::{ManagedSecretSpec, is_namespace_name, unknown_fields, validate as violations};
use managed_secrets_cli::error::Exit;
use managed_secrets_cli::{CliError, say, sealing_key};
use managed_secrets_crypto::Plaintext;
use managed_secrets_crypto::mss1::{Handling, PublishedKey, Sealed};
use serde_json::Value;
use zeroize::Zeroizing;

use super::manifest::files::{FileArgs, Source};
use super::manifest::{Held, Kind, Nested, Object, Problem, Rule, Stream};
use super::session::ClusterArgs;

const EXAMPLES: &str = "\
Examples:
  # All that is in a folder
  kubectl msec validate -R -f deploy/

  # The version of a file that is about to be committed; plain Secrets are findings too
  git show :deploy/db.yaml | kubectl msec validate --no-secrets --stdin-name deploy/db.yaml -f -

  # The output of a kustomize overlay: its patches are not complete objects
  kubectl kustomize overlays/test | kubectl msec validate --no-secrets -f -

  # For the code scanning of a CI system
  kubectl msec validate -R -f deploy/ -o sarif > findings.sarif

Exit codes:
  0  nothing found
  1  something found
  2  wrong usage, or a file that cannot be read";

/// Fields of metadata that Kubernetes knows (`ObjectMeta`).
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Arguments of `validate`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct ValidateArgs {
    /// Files and folders, as with -f; files that are not YAML and do not concern secrets are skipped
    #[arg(value_name = "FILE")]
    pub paths: Vec<PathBuf>,

    /// Which manifests.
    #[command(flatten)]
    pub files: FileArgs,

    /// Accept plain values: the cluster's webhook seals them
    #[arg(long)]
    pub allow_plaintext: bool,

    /// Refuse also Secrets that hold data
    #[arg(long)]
    pub no_secrets: bool,

    /// Require that values are sealed for this public key (sealing-key.json); several times for several keys
    #[arg(long, value_name = "FILE", env = "MANAGED_SECRETS_PUBLIC_KEY")]
    pub public_key: Vec<PathBuf>,

    /// Refuse a --public-key whose SHA-256 is not this one; several times for several keys
    #[arg(long, value_name = "HEX", env = "MANAGED_SECRETS_FINGERPRINT")]
    pub fingerprint: Vec<String>,

    /// How findings are printed
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Report,

    /// Name of standard input in findings; it is read as a file of this name is read
    #[arg(long, value_name = "NAME")]
    pub stdin_name: Option<String>,
}

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Report {
    /// One a line, after its location
    #[default]
    Text,
    /// A list
    Json,
    /// SARIF 2.1.0, as code scanning reads it
    Sarif,
}

/// A problem, and its file.
pub(super) struct Finding {
    /// The file's name.
    pub(super) file: String,
    /// What is wrong.
    pub(super) problem: Problem,
}

/// What is required in addition to the API's rules.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    namespace: Option<&'a str>,
    allow_plaintext: bool,
    no_secrets: bool,
    keys: Vec<PublishedKey>,
}

impl<'a> Wanted<'a> {
    /// Of manifests that are meant for a cluster, whose webhook seals plain values.
    pub(super) fn with_plaintext(namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), allow_plaintext: true, ..Self::default() }
    }

    /// Whether a value is sealed for one of the keys that are named.
    fn has_key_of(&self, sealed: &Sealed) -> bool {
        self.keys.iter().any(|key| key.key.key_id() == sealed.key_id())
    }
}

/// Checks manifests without a cluster.
pub(super) fn validate(cluster: &ClusterArgs, args: &ValidateArgs) -> Result<(), CliError> {
    if args.files.files.is_empty() && args.paths.is_empty() {
        return Err(CliError::Usage("-f is missing; name the manifests to check".to_owned()));
    }
    let wanted = Wanted {
        namespace: cluster.namespace(),
        allow_plaintext: args.allow_plaintext,
        no_secrets: args.no_secrets,
        keys: keys(args)?,
    };
    let mut sources = args.files.read()?;
    let found = FileArgs { files: args.paths.clone(), recursive: args.files.recursive }.read()?;
    // A hook passes every changed file; the user did not choose manifests.
    sources.extend(found.into_iter().map(|source| Source { named: false, ..source }));
    if let Some(name) = &args.stdin_name {
        for source in sources.iter_mut().filter(|source| source.path.is_none()) {
            source.name.clone_from(name);
            source.named = false;
        }
    }
    let (findings, remarks) = check(&sources, &wanted);
    for remark in remarks.into_iter().chain(notes(&sources)) {
        say::tell(format_args!("note: {remark}"));
    }
    match args.output {
        Report::Text => report::text(&findings).print(),
        Report::Json => say::print_json(&report::json(&findings)),
        Report::Sarif => say::print_json(&report::sarif(&findings)),
    }?;
    if findings.is_empty() { Ok(()) } else { Err(CliError::Found(Exit::Failed)) }
}

/// What is valid and may be a mistake: sealed text whose value is kept, for an object that delivers it, and the other way
/// round; and a text of a template that may be a credential.
fn notes(sources: &[Source]) -> Vec<String> {
    let mut notes = Vec::new();
    for source in sources {
        let Ok(stream) = source.stream() else { continue };
        for object in stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret) {
            let template =
                object.json.pointer("/spec/target/template").and_then(Value::as_object).into_iter().flatten();
            let texts = template.filter_map(|(key, text)| Some((key.as_str(), text.as_str()?)));
            for key in template::plain_credentials(texts) {
                let field = format!("spec.target.template[{key}]");
                let note = stream.problem(object, Rule::Field, &field, template::PLAIN_CREDENTIAL);
                notes.push(note.in_file(&source.name));
            }
            let Ok(Held::Sealed { sealed, .. }) = stream.held(object) else { continue };
            let message = match (sealed.handling(), object.delivery()) {
                (Handling::Kept, Delivery::Secret) => {
                    "is kept (sealed with --no-delivery): delivering it needs the permission to get \
                     secretvalues.values.managedsecrets.dev"
                }
                (Handling::Deliverable, Delivery::None) => {
                    "was sealed for delivery, though spec.delivery is None: seal the value again with --no-delivery"
                }
                (Handling::Kept, Delivery::None) => "is kept (sealed with --no-delivery)",
                (Handling::Deliverable, Delivery::Secret) => continue,
            };
            notes.push(stream.problem(object, Rule::Field, VALUE, message).in_file(&source.name));
        }
    }
    notes
}

/// The keys that are named, each of them pinned where any pin is given.
fn keys(args: &ValidateArgs) -> Result<Vec<PublishedKey>, CliError> {
    let pins = args.fingerprint.iter().map(|pin| sealing_key::fingerprint(pin)).collect::<Result<Vec<_>, _>>()?;
    let key = |file: &PathBuf| {
        let document = sealing_key::read_file(file)?;
        let checked = pins.iter().map(|pin| sealing_key::check(&document, Some(pin)));
        checked.reduce(Result::or).unwrap_or_else(|| sealing_key::check(&document, None))
    };
    args.public_key.iter().map(key).collect()
}

/// All findings, file by file, in the order of the text; and remarks on plain values that are probably a mistake.
fn check(sources: &[Source], wanted: &Wanted<'_>) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut remarks, mut given) = (Vec::new(), Vec::new(), Given::default());
    // What cannot be read may hold what is checked here, where it has one of these.
    let words = if wanted.no_secrets { &[GROUP, KIND, "Secret"][..] } else { &[GROUP, KIND] };
    for source in sources {
        let mut problems = match source.stream() {
            Ok(stream) => {
                let nested = stream.nested();
                remarks.extend(nested.notes.iter().map(|note| note.in_file(&source.name)));
                let mut problems = of_nested(nested, wanted);
                for object in &stream.objects {
                    problems.extend(of_object(&stream, object, wanted));
                    problems.extend(given.twice(source, &stream, object, wanted));
                    remarks.extend(remark(&stream, object, wanted).map(|remark| remark.in_file(&source.name)));
                }
                problems
            }
            Err(_) if source.may_be_skipped(words) => Vec::new(),
            Err(problem) => vec![problem],
        };
        problems.sort_by_key(|problem| problem.place);
        findings.extend(problems.into_iter().map(|problem| Finding { file: source.name.clone(), problem }));
    }
    (findings, remarks)
}

/// What is probably a mistake in an object's plain value. If plain values are findings, the finding is enough.
fn remark(stream: &Stream<'_>, object: &Object, wanted: &Wanted<'_>) -> Option<Problem> {
    let Ok(Held::Plain { text, .. }) = stream.held(object) else { return None };
    let value = Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())).ok()?;
    let remark = value.remark().filter(|_| wanted.allow_plaintext && object.kind == Kind::ManagedSecret)?;
    Some(stream.problem(object, Rule::Field, VALUE, &remark))
}

/// What is wrong with one object.
pub(super) fn of_object(stream: &Stream<'_>, object: &Object, wanted: &Wanted<'_>) -> Vec<Problem> {
    match object.kind {
        Kind::ManagedSecret => of_managed_secret(stream, object, wanted),
        Kind::Secret => of_secret(stream, object, wanted),
    }
}

/// What is wrong with manifests inside other objects and inside texts. Plain values are findings there even where a
/// webhook would seal them: the API server stores the other object as it is.
fn of_nested(nested: Nested, wanted: &Wanted<'_>) -> Vec<Problem> {
    let mut problems = nested.problems;
    problems.extend(nested.secrets.into_iter().filter(|_| wanted.no_secrets));
    let others = nested.sealed.iter().filter(|inside| !wanted.keys.is_empty() && !wanted.has_key_of(&inside.sealed));
    problems.extend(others.map(|inside| inside.problem(Rule::OtherKey, other_key(&inside.sealed))));
    problems.truncate(PROBLEMS_MAX);
    problems
}

fn of_secret(stream: &Stream<'_>, object: &Object, wanted: &Wanted<'_>) -> Vec<Problem> {
    let holds = |field: &&str| object.json.get(*field).and_then(Value::as_object).is_some_and(|map| !map.is_empty());
    // What could not be read may hold anything.
    let unread = !object.problems.is_empty();
    let field = ["data", "stringData"].into_iter().find(holds).or(unread.then_some("data"));
    let message = "must not be in a repository; convert it to a ManagedSecret with `kubectl msec seal --from-secret`";
    let found = field.filter(|_| wanted.no_secrets);
    found.map(|field| stream.problem(object, Rule::PlainSecret, field, message)).into_iter().collect()
}

fn of_managed_secret(stream: &Stream<'_>, object: &Object, wanted: &Wanted<'_>) -> Vec<Problem> {
    let mut problems: Vec<_> = object.problems.iter().take(PROBLEMS_MAX).cloned().collect();
    let problem = |rule, field: &str, message: &str| stream.problem(object, rule, field, message);
    problems.extend(metadata(stream, object));
    problems.extend(unknown(stream, object));
    problems.extend(stream.copies(object));
    let held = match stream.held(object) {
        Ok(Held::Nothing) => None,
        Ok(Held::Plain { text, .. }) => Some(plaintext(text, wanted)),
        Ok(Held::Sealed { sealed, .. }) => Some(sealed_text(object, &sealed, wanted)),
        Err(found) => {
            problems.push(found);
            Some(Vec::new())
        }
    };
    let judged = held.is_some();
    let about = held.into_iter().flatten().map(|(rule, message)| problem(rule, VALUE, &message));
    problems.extend(about);
    for violation in violations(&object.json).into_iter().take(PROBLEMS_MAX) {
        let field = violation.path.as_str();
        // What spec.value holds was judged above, in more words. What has a problem of its own is not as it was
        // written.
        let said = field == VALUE && judged || object.problems.iter().any(|problem| problem.field == field);
        if !said {
            problems.push(problem(Rule::Field, field, &violation.message));
        }
    }
    problems
}

/// Fields that the API does not have, and a `spec` that is no map. A value may be in one of them, where nothing looks for it.
pub(super) fn unknown(stream: &Stream<'_>, object: &Object) -> Vec<Problem> {
    let problem = |rule, field: &str, message: &str| stream.problem(object, rule, field, message);
    let fields = unknown_fields(&object.json);
    let unknown =
        fields.iter().take(PROBLEMS_MAX).map(|field| problem(Rule::UnknownField, field, "is not a field of the API"));
    let spec = object.json.get("spec").filter(|spec| !spec.is_object() && !spec.is_null());
    unknown.chain(spec.map(|_| problem(Rule::Field, "spec", "must be a map"))).collect()
}

const VALUE: &str = "spec.value";
/// Limit on the reported problems of one kind for one object: each search for a location looks at all fields.
const PROBLEMS_MAX: usize = 50;

fn metadata(stream: &Stream<'_>, object: &Object) -> Vec<Problem> {
    let problem = |rule, field: &str, message: &str| stream.problem(object, rule, field, message);
    let mut problems = Vec::new();
    let metadata = object.json.get("metadata").and_then(Value::as_object);
    for (key, value) in metadata.into_iter().flatten() {
        let field = format!("metadata.{key}");
        if !METADATA.contains(&key.as_str()) && problems.len() < PROBLEMS_MAX {
            problems.push(problem(Rule::UnknownField, &field, "is not a field of the API"));
        }
        if matches!(key.as_str(), "labels" | "annotations") && !value.is_null() {
            let texts =
                value.as_object().is_some_and(|map| map.values().all(|value| value.is_string() || value.is_null()));
            if !texts {
                problems.push(problem(Rule::Field, &field, "must be a map of quoted strings"));
            }
        }
    }
    let namespace = metadata.and_then(|metadata| metadata.get("namespace")).filter(|namespace| !namespace.is_null());
    // kubectl takes an empty one for an absent one.
    let fits = |text: &str| text.is_empty() || is_namespace_name(text);
    if namespace.is_some_and(|namespace| !namespace.as_str().is_some_and(fits)) {
        let message = format!("must be at most {NAMESPACE_MAX} lower-case letters, digits and `-`");
        problems.push(problem(Rule::Field, "metadata.namespace", &message));
    }
    problems
}

fn plaintext(text: &str, wanted: &Wanted<'_>) -> Vec<(Rule, String)> {
    let mut broken = Vec::new();
    if !wanted.allow_plaintext {
        let message = "must be sealed: `kubectl msec seal -f FILE` seals it in place";
        broken.push((Rule::Plaintext, message.to_owned()));
    }
    if let Err(rule) = Plaintext::new(Zeroizing::new(text.as_bytes().to_vec())) {
        broken.push((Rule::Field, rule.to_string()));
    }
    broken
}

fn sealed_text(object: &Object, sealed: &Sealed, wanted: &Wanted<'_>) -> Vec<(Rule, String)> {
    let mut broken = Vec::new();
    let scope = sealed.scope();
    // Where the namespace is not known, the name can still be wrong.
    let namespace = object.namespace().or(wanted.namespace).or(scope.namespace()).unwrap_or_default();
    if let Err(place) = scope.fits(namespace, object.name().unwrap_or_default()) {
        broken.push((
            Rule::WrongPlace,
            format!("must be used in the object or namespace that it is sealed for: it is {place}"),
        ));
    }
    if !wanted.keys.is_empty() && !wanted.has_key_of(sealed) {
        broken.push((Rule::OtherKey, format!("{}: `kubectl msec reseal -f FILE`", other_key(sealed))));
    }
    broken
}

fn other_key(sealed: &Sealed) -> String {
    format!("must be sealed for the given public key, not for {}", sealed.key_id())
}

/// What all the files have given so far: each thing with the place that gave it.
#[derive(Default)]
struct Given(HashMap<(Rule, Within, String), String>);

/// Among which objects a name must be one object's.
#[derive(Eq, Hash, PartialEq)]
enum Within {
    /// Those of a namespace.
    Namespace(String),
    /// Those of a folder, or of standard input, that name no namespace: in another folder there are those of another
    /// overlay, which may be meant for another namespace.
    Folder(Option<PathBuf>),
}

impl Given {
    /// What this object gives that another one has given.
    fn twice(&mut self, source: &Source, stream: &Stream<'_>, object: &Object, wanted: &Wanted<'_>) -> Vec<Problem> {
        let (Kind::ManagedSecret, Some(name)) = (object.kind, object.name()) else { return Vec::new() };
        let within = || match object.namespace().or(wanted.namespace) {
            Some(namespace) => Within::Namespace(namespace.to_owned()),
            None => Within::Folder(source.folder()),
        };
        let mut things = vec![(Rule::DuplicateObject, "metadata.name", name.to_owned())];
        // The error would quote the spec.
        let spec = object.json.get("spec").cloned().unwrap_or_default();
        if let Ok(spec) = serde_json::from_value::<ManagedSecretSpec>(spec) {
            if spec.delivery() == Delivery::Secret {
                things.push((Rule::DuplicateTarget, "spec.target.name", spec.target_name(name).to_owned()));
            }
            things.push((Rule::DuplicateName, "spec.name", spec.name));
        }
        let mut problems = Vec::new();
        for (rule, field, thing) in things {
            let place = stream.place(object, field);
            let here = format!("{}:{}:{}", source.name, place.line, place.column);
            let first = self.0.entry((rule, within(), thing)).or_insert_with(|| here.clone());
            if *first != here {
                let message = format!("must not be the same as at {first}");
                problems.push(stream.problem(object, rule, field, &message));
                // One object given twice has everything twice.
                if rule == Rule::DuplicateObject {
                    break;
                }
            }
        }
        problems
    }
}
