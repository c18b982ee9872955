//! `kubectl msec diff`: describes what manifests would change on the cluster, never a value.
//!
//! ```text
//! files ─▶ streams ─▶ rules (as validate) ─▶ each object: the live one ─▶ words (pure) ─▶ lines
//!                                                  └─ its delivered value, for a plain value and who may read it
//! ```
//!
//! A plain value of a file never leaves the process: it is compared here, in constant time, with the value that the
//! live object delivers. The plugin cannot open a sealed value, so it does not know whether another sealed value holds
//! another value.

mod words;

use clap::Args;
use kube::{Api, Client};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec};
use managed_secrets_cli::CliError;
use managed_secrets_cli::connect::block_on;
use managed_secrets_cli::error::Exit;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::say::Lines;
use managed_secrets_crypto::Plaintext;
use zeroize::Zeroizing;

use self::words::Value;
use super::delivered;
use super::manifest::files::FileArgs;
use super::manifest::{Held, Kind, Object, Stream};
use super::seal::{read, refusal};
use super::session::{self, ClusterArgs, Session};
use super::validate::{Wanted, of_object};

const EXAMPLES: &str = "\
Examples:
  kubectl msec diff -f weather-api-key.yaml
  kustomize build . | kubectl msec diff -f -

Exit codes, as of kubectl diff:
  0  nothing would change
  1  something would change, or is unknown
  2  wrong usage, a file that breaks a rule, or a failure
  3  the cluster could not be reached";

/// Arguments of `diff`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct DiffArgs {
    /// Which manifests.
    #[command(flatten)]
    pub files: FileArgs,
}

/// Describes what manifests would change on the cluster.
pub(super) fn diff(cluster: &ClusterArgs, args: &DiffArgs) -> Result<(), CliError> {
    // 1 is for differences alone.
    match block_on(differences(cluster, args)) {
        Err(CliError::Failed(text)) => Err(CliError::Usage(text)),
        Ok(true) => Err(CliError::Found(Exit::Failed)),
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Prints the differences; whether there are any.
async fn differences(cluster: &ClusterArgs, args: &DiffArgs) -> Result<bool, CliError> {
    if args.files.files.is_empty() {
        return Err(CliError::Usage("-f is missing; name the manifests to compare".to_owned()));
    }
    let sources = args.files.read()?;
    let session = Session::open(cluster)?;
    let (mut out, mut differs) = (Lines::new(), false);
    for source in &sources {
        let Some(stream) = read(source)? else { continue };
        let objects = stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret);
        for object in objects {
            let wanted = Wanted::with_plaintext(&session.namespace);
            let problems = of_object(&stream, object, &wanted);
            if !problems.is_empty() {
                return Err(refusal(&source.name, &problems));
            }
            let namespace = object.namespace().unwrap_or(&session.namespace);
            let called = object.called(Some(namespace));
            let lines = of_object_lines(&session.client, &stream, object, namespace).await?;
            differs |= !matches!(lines, Differences::Of(ref lines) if lines.is_empty());
            match lines {
                Differences::New => out.line(format_args!("{called}: new")),
                Differences::Of(lines) if lines.is_empty() => out.line(format_args!("{called}: unchanged")),
                Differences::Of(lines) => {
                    out.line(format_args!("{called}:"));
                    for line in &lines {
                        out.line(format_args!("  {line}"));
                    }
                }
            }
        }
    }
    out.print()?;
    Ok(differs)
}

enum Differences {
    /// The object does not exist.
    New,
    /// What changes.
    Of(Vec<String>),
}

async fn of_object_lines(
    client: &Client,
    stream: &Stream<'_>,
    object: &Object,
    namespace: &str,
) -> Result<Differences, CliError> {
    // An object without a name is created again each time.
    let Some(name) = object.name() else { return Ok(Differences::New) };
    let permission = Permission::to_objects("get").named(name).within(namespace);
    let objects = Api::<ManagedSecret>::namespaced(client.clone(), namespace);
    let live = session::find(objects, name)
        .await
        .map_err(|error| permission.explain(&format!("cannot read {}", object.called(Some(namespace))), &error))?;
    let Some(live) = live else { return Ok(Differences::New) };
    // All rules hold, so this reads; its error would quote the spec.
    let spec = object.json.get("spec").cloned().unwrap_or_default();
    let spec: ManagedSecretSpec = serde_json::from_value(words::without_nulls(spec))
        .map_err(|_| CliError::Failed(format!("{}: the spec cannot be read", object.called(Some(namespace)))))?;
    let value = value(client, stream, object, &live).await?;
    let mut lines = words::of_spec(name, &live.spec, &spec, &value);
    let labels = live.metadata.labels.unwrap_or_default();
    let annotations = live.metadata.annotations.unwrap_or_default();
    lines.extend(words::of_map("labels", &labels, object.json.pointer("/metadata/labels")));
    lines.extend(words::of_map("annotations", &annotations, object.json.pointer("/metadata/annotations")));
    Ok(Differences::Of(lines))
}

/// What happens to the value.
async fn value(client: &Client, stream: &Stream<'_>, object: &Object, live: &ManagedSecret) -> Result<Value, CliError> {
    let stored = live.spec.value.as_ref().map(|value| value.0.as_str());
    Ok(match stream.held(object) {
        Ok(Held::Sealed { text, .. }) if stored == Some(text) => Value::Same,
        Ok(Held::Sealed { .. }) => Value::OtherText,
        Ok(Held::Plain { text, .. }) => {
            let plain = Plaintext::new(Zeroizing::new(text.as_bytes().to_vec()));
            let plain = plain.map_err(|rule| CliError::Usage(format!("spec.value: {rule}")))?;
            match delivered::value(client, live).await? {
                Ok(delivered) if delivered.same_as(&plain) => Value::Same,
                Ok(_) => Value::Changes,
                Err(why) => Value::Untold(why),
            }
        }
        _ => Value::FromElsewhere,
    })
}
