//! `kubectl msec create`: reads a value, creates a ManagedSecret with the sealed value, and waits until it is ready.
//!
//! ```text
//! NAME, flags ─▶ spec ─▶ rules (offline) ─▶ is the name free? ─▶ value, sealed here ─▶ create ─▶ wait until ready
//! ```
//!
//! The command asks for the value last, so that the user does not type it in vain. The command checks first whether the
//! name is free, as a courtesy: if two users create it at once, the operator decides, and the wait reports it.

use std::path::PathBuf;

use clap::Args;
use kube::api::PostParams;
use managed_secrets_api::keys::RECORD_PREFIX;
use managed_secrets_api::types::{DeletionPolicy, Delivery, Generate, Target};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec, validate_spec};
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, KeyArgs, say};

use super::change::{self, DryRun, DryRunArgs, FIELD_MANAGER, GenerateArgs};
use super::lookup::{self, Called};
use super::output::{Format, OutputArgs};
use super::session::{ClusterArgs, Session};
use super::wait::{self, WaitArgs};

const EXAMPLES: &str = "\
The value comes from standard input byte for byte, from a file, or from a prompt that does not show it; never from an \
argument, which every user of the machine could read. It is sealed before it leaves this process.

Examples:
  # Ask for the value, without showing it
  kubectl msec create WEATHER_API_KEY --description 'OpenWeather, production plan'

  # Take it from another program
  pass show weather | tr -d '\\n' | kubectl msec create WEATHER_API_KEY

  # Let the operator generate a value, and deliver it under another key
  kubectl msec create DB_PASSWORD --generate 40 --target-key password

  # A manifest for Git, with a sealed value
  kubectl msec create WEATHER_API_KEY --from-file key.txt --dry-run=client > weather-api-key.yaml";

/// Arguments of `create`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help, which is no Markdown")]
pub struct CreateArgs {
    /// Name of the secret: 1 to 50 letters, digits and _ + = - @ # $
    #[arg(value_name = "NAME")]
    pub name: String,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// Read the value from this file, byte for byte; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub from_file: Option<PathBuf>,

    /// Have it generated.
    #[command(flatten)]
    pub generate: GenerateArgs,

    /// Deliver it as a Secret that pods mount, or keep it encrypted only: Secret or None
    #[arg(long, value_name = "DELIVERY", value_parser = change::named::<Delivery>)]
    pub delivery: Option<Delivery>,

    /// What happens to record and Secret when it is deleted: Delete or Retain
    #[arg(long, value_name = "POLICY", value_parser = change::named::<DeletionPolicy>)]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Name of the Secret that pods mount; that of the object when absent
    #[arg(long, value_name = "NAME")]
    pub target_name: Option<String>,

    /// Key of its data; value when absent
    #[arg(long, value_name = "KEY")]
    pub target_key: Option<String>,

    /// Its type; Opaque when absent
    #[arg(long, value_name = "TYPE")]
    pub target_type: Option<String>,

    /// Name of the object; derived from NAME when absent: lower case, and - for _
    #[arg(long, value_name = "NAME")]
    pub object_name: Option<String>,

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

impl CreateArgs {
    /// The spec, without the value, which is read later.
    fn spec(&self) -> ManagedSecretSpec {
        let target = Target {
            name: self.target_name.clone(),
            key: self.target_key.clone(),
            type_: self.target_type.clone(),
            ..Target::default()
        };
        ManagedSecretSpec {
            name: self.name.clone(),
            description: self.description.clone().filter(|text| !text.is_empty()),
            generate: self.generate.wanted(),
            delivery: self.delivery,
            target: (target != Target::default()).then_some(target),
            deletion_policy: self.deletion_policy,
            ..ManagedSecretSpec::default()
        }
    }
}

/// Creates a secret and waits until it is ready.
pub(super) async fn create(cluster: &ClusterArgs, args: &CreateArgs) -> Result<(), CliError> {
    let format = args.output.format()?;
    let mut spec = args.spec();
    let object_name = rules(args, &spec)?;
    if lookup::looks_like_an_id(&args.name) {
        say::tell(format_args!(
            "warning: the name {} looks like an id; if another secret has this id, commands accept only msec/OBJECT",
            args.name
        ));
    }
    let dry_run = args.dry_run.dry_run;
    // Sealed offline with --public-key for a --namespace, a manifest needs no cluster.
    let namespace = match cluster.namespace() {
        Some(namespace) => namespace.to_owned(),
        None => cluster.connection()?.namespace().to_owned(),
    };
    if dry_run != DryRun::Client {
        free(&Session::open(cluster)?, &args.name, &object_name).await?;
    }
    if spec.generate.is_none() {
        let key = args.key.key(async || Ok(Session::open(cluster)?.client)).await?;
        let value = change::read_value(args.from_file.as_ref())?;
        spec.value = Some(change::seal_for(&key, &namespace, &object_name, spec.delivery(), &value)?);
    }
    let mut object = ManagedSecret::new(&object_name, spec);
    object.metadata.namespace = Some(namespace);
    if dry_run == DryRun::Client {
        return format.unwrap_or(&Format::Yaml).print(&change::as_json(&object)?);
    }
    let session = Session::open(cluster)?;
    let params = PostParams { dry_run: dry_run == DryRun::Server, field_manager: Some(FIELD_MANAGER.to_owned()) };
    let created = session.objects().create(&params, &object).await.map_err(|error| refused(&session, &error))?;
    let created_text = change::said(&object_name, "created", dry_run);
    if format.is_none() {
        created_text.print()?;
    }
    if dry_run == DryRun::Server || !args.wait.wait {
        return format.map_or(Ok(()), |format| format.print(&change::as_json(&created)?));
    }
    let served = wait::until_served(&session, created, args.wait.timeout, "created").await?;
    match format {
        Some(format) => format.print(&change::as_json(&served)?),
        None => say::print_line(identity(&served)),
    }
}

/// Id and version, in one line.
fn identity(object: &ManagedSecret) -> String {
    let status = object.status.clone().unwrap_or_default();
    format!("id {}, version {}", status.id.unwrap_or_default(), status.version.unwrap_or_default())
}

/// Checks everything but the value, and returns the name of the object.
fn rules(args: &CreateArgs, spec: &ManagedSecretSpec) -> Result<String, CliError> {
    let stand_in = ManagedSecretSpec { generate: spec.generate.clone().or(Some(Generate::default())), ..spec.clone() };
    if let Some(name) = &args.object_name {
        change::check(name, &stand_in)?;
        return Ok(name.clone());
    }
    let derived = object_name(&args.name);
    // Report a name that breaks its rule before its consequences; the check works with any object name.
    change::check(derived.as_deref().unwrap_or("object"), &stand_in)?;
    derived.ok_or_else(|| {
        CliError::Usage(format!(
            "--object-name is missing: {} does not give an object name, which has only lower-case letters, digits, - \
             and ., and does not begin with {RECORD_PREFIX}",
            args.name
        ))
    })
}

/// The object name derived from a NAME, if one can be derived.
fn object_name(name: &str) -> Option<String> {
    let derived = name.to_ascii_lowercase().replace('_', "-");
    // The rules of the smallest spec: what they find wrong is the object's name, which its target has, too.
    let least = ManagedSecretSpec {
        name: "NAME".to_owned(),
        generate: Some(Generate::default()),
        ..ManagedSecretSpec::default()
    };
    validate_spec(&derived, &least).is_empty().then_some(derived)
}

/// Refuses a NAME or an object that already exists.
async fn free(session: &Session, name: &str, object_name: &str) -> Result<(), CliError> {
    let holders = lookup::all(session, &Called::Name(name.to_owned())).await?;
    if let Some(holders) = lookup::holders(&holders) {
        return Err(CliError::Failed(format!("the name {name} is in use by {holders}")));
    }
    let objects = lookup::all(session, &Called::Object(object_name.to_owned())).await?;
    objects.first().map_or(Ok(()), |other| {
        Err(CliError::Failed(format!(
            "the object msec/{object_name} already exists and is called {}; choose another --object-name",
            other.spec.name
        )))
    })
}

fn refused(session: &Session, error: &kube::Error) -> CliError {
    Permission::to_objects("create").within(&session.namespace).explain("cannot create the secret", error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_made_where_they_can_be() {
        for (name, expected) in [
            ("WEATHER_API_KEY", Some("weather-api-key")),
            ("a", Some("a")),
            ("A-1", Some("a-1")),
            ("_A", None),
            ("A_", None),
            ("A=B", None),
            ("user@host", None),
            ("C#", None),
            ("MSEC_X", None),
            ("MSECX", Some("msecx")),
        ] {
            assert_eq!(object_name(name).as_deref(), expected, "{name}");
        }
    }
}
