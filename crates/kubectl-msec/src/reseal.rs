//! `kubectl msec reseal`: seals the values of manifests again, for the current key.
//!
//! The plugin cannot open a sealed value. But the cluster has the value: if the live object has the same sealed value
//! as the file, and the operator has applied it, then its Secret holds the plaintext. The command reads it, if the user
//! may, and seals it again for the same scope and handling; it neither shows nor stores it. The resealed value is not a
//! new value: the operator compares what both open to.

use std::collections::HashMap;

use clap::Args;
use kube::{Api, Client};
use managed_secrets_api::ManagedSecret;
use managed_secrets_cli::connect::block_on;
use managed_secrets_cli::names;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::say::Lines;
use managed_secrets_cli::seal::sealed;
use managed_secrets_cli::{CliError, KeyArgs};
use managed_secrets_crypto::mss1::PublishedKey;

use super::delivered;
use super::manifest::files::{FileArgs, Replacement};
use super::manifest::{Held, Kind, NodeId, Object, Rule, Stream};
use super::seal::{read, rewritten};
use super::session::{ClusterArgs, Session};

const EXAMPLES: &str = "\
Examples:
  # After the sealing key was replaced
  kubectl msec reseal -R -f deploy/
  git commit -am 'Seal for the current key'

You need the permission to read each value's Secret: `kubectl auth can-i get secrets/NAME -n NAMESPACE`.
The command cannot read values that are not delivered (delivery: None): seal them again with `kubectl msec seal`.";

/// Arguments of `reseal`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ResealArgs {
    /// Which manifests.
    #[command(flatten)]
    pub files: FileArgs,

    /// Which key to seal with.
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What happened to one value.
enum Outcome {
    Resealed(NodeId, String),
    Current,
    Skipped(String),
}

/// Seals the values of manifests again, for the current key.
pub(super) fn reseal(cluster: &ClusterArgs, args: &ResealArgs) -> Result<(), CliError> {
    if args.files.files.is_empty() {
        return Err(CliError::Usage("-f is missing; name the manifests to reseal".to_owned()));
    }
    let sources = args.files.read_to_replace()?;
    if sources.iter().any(|source| source.path.is_none()) {
        return Err(CliError::Usage("reseal works on files and folders, not on standard input".to_owned()));
    }
    block_on(async {
        let session = Session::open(cluster)?;
        let key = args.key.key(async || Ok(session.client.clone())).await?;
        let (mut said, mut replacements, mut skipped) = (Lines::new(), Vec::new(), 0);
        for source in &sources {
            let Some(stream) = read(source)? else { continue };
            for (called, why) in nested(&stream, &key) {
                skipped += 1;
                said.line(format_args!("{}: skipped {called}: {why}", source.name));
            }
            let mut replaced = HashMap::new();
            for object in stream.objects.iter().filter(|object| object.kind == Kind::ManagedSecret) {
                let namespace = object.namespace().unwrap_or(&session.namespace);
                let Some(outcome) = outcome(&session.client, &key, &stream, object, namespace)
                    .await
                    .map_err(|error| prefixed(&source.name, error))?
                else {
                    continue;
                };
                let called = object.called(Some(namespace));
                let what = match outcome {
                    Outcome::Resealed(node, text) => {
                        replaced.insert(node, text);
                        format!("resealed {called}")
                    }
                    Outcome::Current => format!("already current: {called}"),
                    Outcome::Skipped(why) => {
                        skipped += 1;
                        format!("skipped {called}: {why}")
                    }
                };
                said.line(format_args!("{}: {what}", source.name));
            }
            if let (Some(path), Some(after)) = (&source.path, rewritten(source, &stream, &replaced)?) {
                replacements.push(Replacement::prepare(path, &source.text, &after)?);
            }
        }
        for replacement in replacements {
            replacement.commit()?;
        }
        said.print()?;
        match skipped {
            0 => Ok(()),
            1 => Err(CliError::Failed("1 value was not resealed; see above".to_owned())),
            more => Err(CliError::Failed(format!("{more} values were not resealed; see above"))),
        }
    })
}

/// Values inside other objects and texts that are sealed for an older key or plain: the location, and why the command
/// skips it.
fn nested(stream: &Stream<'_>, key: &PublishedKey) -> Vec<(String, String)> {
    let nested = stream.nested();
    let old = nested.sealed.into_iter().filter(|inside| inside.sealed.key_id() != key.key.key_id());
    let problems = old.map(|inside| inside.problem(Rule::OtherKey, INSIDE.to_owned())).chain(nested.problems);
    problems.map(|problem| (format!("{}:{}", problem.place.line, problem.place.column), problem.to_string())).collect()
}

/// Why the command does not reseal a value inside another object or a text.
const INSIDE: &str =
    "is the value of a ManagedSecret inside another object or a text: seal the value again with `kubectl msec seal`";

fn prefixed(file: &str, error: CliError) -> CliError {
    match error {
        CliError::Usage(text) => CliError::Usage(format!("{file}: {text}")),
        other => other,
    }
}

/// What happens to an object's value; `None` if it has none.
async fn outcome(
    client: &Client,
    key: &PublishedKey,
    stream: &Stream<'_>,
    object: &Object,
    namespace: &str,
) -> Result<Option<Outcome>, CliError> {
    let skipped = |why: &str| Ok(Some(Outcome::Skipped(why.to_owned())));
    if let Some(problem) = object.problems.first() {
        return skipped(&problem.to_string());
    }
    let (text, sealed_text, node) = match stream.held(object) {
        Ok(Held::Nothing) => return Ok(None),
        Ok(Held::Plain { .. }) => return skipped("its value is plaintext; seal it with `kubectl msec seal -f`"),
        Ok(Held::Sealed { text, sealed, node }) => (text, sealed, node),
        Err(problem) => return skipped(&problem.to_string()),
    };
    if sealed_text.key_id() == key.key.key_id() {
        return Ok(Some(Outcome::Current));
    }
    let Some(node) = node else {
        return skipped("its value has an anchor or is an alias; write the sealed value in the object");
    };
    let Some(name) = object.name() else { return skipped("it has no name") };
    // They become part of the URL of a request as they are.
    if names::namespace(namespace).is_err() || names::object(name).is_err() {
        return skipped("its namespace or name is invalid");
    }
    let permission = Permission::to_objects("get").named(name).within(namespace);
    let live = match Api::<ManagedSecret>::namespaced(client.clone(), namespace).get_opt(name).await {
        Ok(live) => live,
        Err(error) => match permission.explain("it cannot be read", &error) {
            CliError::Failed(why) => return skipped(&why),
            other => return Err(other),
        },
    };
    let Some(live) = live else { return skipped("it is not on the cluster") };
    if live.spec.value.as_ref().is_none_or(|value| value.0 != text) {
        return skipped("the cluster has another value: apply the file first");
    }
    match delivered::value(client, &live).await? {
        Ok(value) => {
            Ok(Some(Outcome::Resealed(node, sealed(key, sealed_text.scope(), sealed_text.handling(), &value)?)))
        }
        Err(why) => skipped(&why),
    }
}
