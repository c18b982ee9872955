//! `kubectl msec update`: name, description and value, each alone or together, in one write.
//!
//! ```text
//! lookup ─▶ spec as it is ─▶ spec as it is wanted ─▶ rules ─▶ what differs (merge patch) ─▶ wait ─▶ what moved
//! ```
//!
//! The patch carries uid and resourceVersion, so it changes what was looked at: a spec has one source of its value, and
//! two who change it at once would otherwise leave two. The operator's status writes move the resourceVersion as well,
//! so a conflict is read again and tried again, a few times.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use kube::api::{Patch, PatchParams};
use managed_secrets_api::keys::CONDITION_READY;
use managed_secrets_api::types::{Generate, SealedValue};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::{CliError, KeyArgs, say};
use serde_json::{Value, json};

use super::change::{self, DryRun, DryRunArgs, FIELD_MANAGER, GenerateArgs};
use super::completion;
use super::lookup::{self, Called};
use super::output::{Format, OutputArgs};
use super::session::{ClusterArgs, Session};
use super::state::{condition, is_observed};
use super::wait::{self, WaitArgs};

/// Limit on attempts if other writes come between.
const ATTEMPTS: usize = 5;

const EXAMPLES: &str = "\
The new value may equal the current one; the command then says so. The same value sealed again is not a new value.

Examples:
  # Ask for a new value, without showing it
  kubectl msec update WEATHER_API_KEY --value-stdin

  # Rename, and say what it is for
  kubectl msec update WEATHER_API_KEY --name OPENWEATHER_KEY --description 'OpenWeather, all plans'

  # See what would be sent
  kubectl msec update WEATHER_API_KEY --from-file key.txt --dry-run=client";

/// Arguments of `update`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES, override_usage = "kubectl msec update [OPTIONS] <NAME|ID>")]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["description", "new_name", "value_stdin", "from_file", "generate"]))]
#[command(group = ArgGroup::new("source").args(["value_stdin", "from_file", "generate"]))]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct UpdateArgs {
    /// The secret, by NAME, ID or msec/OBJECT
    #[arg(value_name = "NAME|ID", add = completion::secrets())]
    pub secret: String,

    /// What it is for; '' for nothing
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// Rename it
    #[arg(long = "name", value_name = "NEW")]
    pub new_name: Option<String>,

    /// Read a new value from standard input, byte for byte; on a terminal, ask for it without showing it
    #[arg(long)]
    pub value_stdin: bool,

    /// Read a new value from this file, byte for byte; - is standard input
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,

    /// Have it generated.
    #[command(flatten)]
    pub generate: GenerateArgs,

    /// Whether to wait.
    #[command(flatten)]
    pub wait: WaitArgs,

    /// Whether to do it.
    #[command(flatten)]
    pub dry_run: DryRunArgs,

    /// How it is shown.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Which key to seal with.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// A new source of the value.
enum Source {
    Sealed(SealedValue),
    Generate(Generate),
}

/// Changes a secret, waits until the change is ready, and says what changed.
pub(super) async fn update(cluster: &ClusterArgs, args: &UpdateArgs) -> Result<(), CliError> {
    let format = args.output.format()?;
    let dry_run = args.dry_run.dry_run;
    let session = Session::open(cluster)?;
    let before = lookup::one(&session, &args.secret).await?;
    lookup::note_if_only_wanted(&args.secret, &before);
    let name = before.metadata.name.clone().unwrap_or_default();
    // Report other errors before the command asks for a value.
    change::check(&name, &wanted(args, args.generate.wanted().map(Source::Generate).as_ref(), &before.spec))?;
    warn_if_taken(&session, args, &before).await?;
    let source = source(&session, args, &before, &name).await?;
    let spec = wanted(args, source.as_ref(), &before.spec);
    if dry_run == DryRun::Client {
        let object = ManagedSecret { spec, ..before };
        let text = change::said(&name, "updated", dry_run);
        return format.map_or_else(|| text.print(), |format| format.print(&change::as_json(&object)?));
    }
    let changed =
        send(&session, &before, dry_run == DryRun::Server, |spec| wanted(args, source.as_ref(), spec)).await?;
    let is_changed = changed.metadata.generation != before.metadata.generation;
    let done = if is_changed { "updated" } else { "unchanged" };
    if format.is_none() {
        change::said(&name, done, dry_run).print()?;
    }
    if dry_run == DryRun::Server || !args.wait.wait {
        return show(format, &changed);
    }
    let after = wait::until_served(&session, changed, args.wait.timeout, done).await?;
    show(format, &after)?;
    if format.is_none() && is_changed { moved(&before, &after, source.is_some()).print() } else { Ok(()) }
}

fn show(format: Option<&Format>, object: &ManagedSecret) -> Result<(), CliError> {
    format.map_or(Ok(()), |format| format.print(&change::as_json(object)?))
}

/// A taken name is no reason to refuse: it may be free a moment later, in the same commit.
async fn warn_if_taken(session: &Session, args: &UpdateArgs, object: &ManagedSecret) -> Result<(), CliError> {
    let Some(new) = args.new_name.as_ref().filter(|new| **new != object.spec.name) else { return Ok(()) };
    let others = lookup::all(session, &Called::Name(new.clone())).await?;
    if let Some(holders) = lookup::holders(&others) {
        say::tell(format_args!(
            "warning: the name {new} is in use by {holders}: the secret keeps its old name until the new one is free"
        ));
    }
    Ok(())
}

async fn source(
    session: &Session,
    args: &UpdateArgs,
    before: &ManagedSecret,
    object: &str,
) -> Result<Option<Source>, CliError> {
    if args.value_stdin || args.from_file.is_some() {
        let key = args.key.key(async || Ok(session.client.clone())).await?;
        let value = change::read_value(args.from_file.as_ref())?;
        return change::seal_for(&key, &session.namespace, object, before.spec.delivery(), &value)
            .map(Source::Sealed)
            .map(Some);
    }
    Ok(args.generate.wanted().map(Source::Generate))
}

/// The wanted spec.
fn wanted(args: &UpdateArgs, source: Option<&Source>, spec: &ManagedSecretSpec) -> ManagedSecretSpec {
    let mut wanted = spec.clone();
    if let Some(name) = &args.new_name {
        wanted.name.clone_from(name);
    }
    if let Some(description) = &args.description {
        wanted.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    if let Some(source) = source {
        (wanted.value, wanted.value_from, wanted.generate) = match source {
            Source::Sealed(value) => (Some(value.clone()), None, None),
            Source::Generate(generate) => {
                // Fields without a flag stay unchanged.
                let before = spec.generate.clone().unwrap_or_default();
                let length = generate.length.or(before.length);
                let alphabet = generate.alphabet.or(before.alphabet);
                let rotate_every = generate.rotate_every.clone().or(before.rotate_every);
                (None, None, Some(Generate { length, alphabet, rotate_every, revision: before.revision }))
            }
        };
    }
    wanted
}

/// Writes the differences to the wanted spec. If another write came between, reads the object and tries again.
pub(super) async fn send(
    session: &Session,
    before: &ManagedSecret,
    dry_run: bool,
    wanted: impl Fn(&ManagedSecretSpec) -> ManagedSecretSpec,
) -> Result<ManagedSecret, CliError> {
    let name = before.metadata.name.clone().unwrap_or_default();
    let params = PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let permission = Permission::to_objects("patch").named(&name).within(&session.namespace);
    let mut now = before.clone();
    for _ in 0..ATTEMPTS {
        let patch = difference(&now, &wanted(&now.spec))?;
        match session.objects().patch(&name, &params, &Patch::Merge(&patch)).await {
            Ok(changed) => return Ok(changed),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(permission.explain("cannot update the secret", &error)),
        }
        let found = lookup::all(session, &Called::Object(name.clone())).await?;
        let same = found.into_iter().find(|object| object.metadata.uid == before.metadata.uid);
        now = same.ok_or_else(|| CliError::Failed(format!("msec/{name} was deleted while the command ran")))?;
    }
    Err(CliError::Failed(format!("msec/{name} keeps changing; nothing was written; try again")))
}

/// The patch from an object's spec to the wanted one, valid for this object and resourceVersion only.
fn difference(object: &ManagedSecret, wanted: &ManagedSecretSpec) -> Result<Value, CliError> {
    let json = |spec: &ManagedSecretSpec| {
        serde_json::to_value(spec).map_err(|_| CliError::Failed("the spec cannot be written as JSON".to_owned()))
    };
    let metadata = &object.metadata;
    Ok(json!({
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "spec": change::merge_patch(&json(&object.spec)?, &json(wanted)?),
    }))
}

/// What changed between two states of an object, a line each.
fn moved(before: &ManagedSecret, after: &ManagedSecret, with_source: bool) -> Lines {
    let (old, new) = (before.status.clone().unwrap_or_default(), after.status.clone().unwrap_or_default());
    let mut lines = Vec::new();
    let mut tell = |what: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            let text = |side: Option<String>| side.unwrap_or_else(|| "none".to_owned());
            lines.push(format!("{what}: {} -> {}", text(old), text(new)));
        }
    };
    tell("name", old.name, new.name);
    let description = |object: &ManagedSecret| object.spec.description.clone();
    tell("description", description(before), description(after));
    let value_moved = old.version != new.version;
    tell("version", old.version.map(|it| it.to_string()), new.version.map(|it| it.to_string()));
    tell("value updated", old.value_updated_time, new.value_updated_time);
    // Dates do not tell: they are whole seconds, and two changes can have the same one.
    let nothing_moved = lines.is_empty();
    if with_source && !value_moved {
        lines.push("value: the same as before".to_owned());
    }
    if value_moved && let Some(pinned) = new.delivered {
        let object = after.metadata.name.as_deref().unwrap_or_default();
        lines.push(format!(
            "note: the new value is recorded and not delivered: spec.version says {pinned}; to deliver the newest: kubectl \
             msec rollback msec/{object} --undo"
        ));
    }
    if before.spec.generate.is_some() && before.spec.generate != after.spec.generate {
        lines.extend(condition(after, CONDITION_READY).map(|ready| format!("note: {}", ready.message)));
    }
    if nothing_moved {
        lines.push("nothing changed".to_owned());
    } else if !is_observed(before) {
        lines.push("note: an earlier change was still pending; its effects are listed too".to_owned());
    }
    lines.into_iter().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Cli, Command};

    fn args(arguments: &[&str]) -> Result<UpdateArgs, clap::Error> {
        let cli = Cli::try_parse_from([&["kubectl-msec", "update"], arguments].concat())?;
        let Command::Update(args) = cli.command else { unreachable!("update") };
        Ok(args)
    }

    #[test]
    fn something_must_change_and_a_value_has_one_source() {
        for wrong in [
            &["DB"][..],
            &["DB", "--value-stdin", "--generate"],
            &["DB", "--value-stdin", "--from-file", "f"],
            &["DB", "--alphabet", "Hex"],
            &["DB", "--value-stdin=hunter2"],
            &["DB", "--value-stdin", "hunter2"],
        ] {
            let error = args(wrong).unwrap_err();
            assert!(!managed_secrets_cli::error::usage(&error).to_string().contains("hunter"), "{wrong:?}");
        }
        assert!(args(&["DB", "--name", "X", "--description", "", "--generate", "8"]).is_ok());
    }

    #[test]
    fn a_new_source_replaces_the_old_one() {
        let spec: ManagedSecretSpec = serde_json::from_value(
            json!({"name": "DB", "description": "old", "generate": {"alphabet": "Hex"}, "suspend": false}),
        )
        .unwrap();
        let object = ManagedSecret::new("db", spec);
        let value = Source::Sealed(SealedValue("mss1.x".to_owned()));
        let sealed = wanted(&args(&["DB", "--value-stdin"]).unwrap(), Some(&value), &object.spec);
        assert_eq!(difference(&object, &sealed).unwrap()["spec"], json!({"value": "mss1.x", "generate": null}));
        let longer = args(&["DB", "--generate", "8", "--description", ""]).unwrap();
        let generated = wanted(&longer, longer.generate.wanted().map(Source::Generate).as_ref(), &object.spec);
        assert_eq!(
            difference(&object, &generated).unwrap()["spec"],
            json!({"description": null, "generate": {"length": 8}})
        );
    }
}
