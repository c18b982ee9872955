//! `managed-secrets check`: whether the API server seals plain values.
//!
//! A dry run shows it: the request passes admission like any other, so the webhook seals the value and the CRD's rule
//! checks the result, and the API server answers with what it would store. Nothing is stored, and no Secret is created.

use std::time::{Duration, Instant};

use kube::{Api, Client, ResourceExt as _, api::PostParams};
use managed_secrets_api::{ManagedSecret, ManagedSecretSpec, limits::SEALED_PREFIX, types::SealedValue};
use managed_secrets_cli::{
    CliError,
    connect::{self, Connection, Interaction, Wanted},
    names, say,
};
use uuid::Uuid;

use crate::args::CheckArgs;

/// The time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// What the API server does with a plain value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Sealed,
    Refused,
    /// It would store the value as it is.
    Stored,
}

/// Runs the command.
pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let namespace = args.namespace.as_str();
    names::namespace(namespace).map_err(|rule| CliError::Usage(format!("{namespace:?}: {rule}")))?;
    let wanted = if args.without_webhooks { Outcome::Refused } else { Outcome::Sealed };
    let done = match wanted {
        Outcome::Refused => "refuses",
        Outcome::Sealed | Outcome::Stored => "seals",
    };
    connect::block_on(async {
        let client = Connection::open(&Wanted::default(), Interaction::Allowed)?.client()?;
        let until = Instant::now() + Duration::from_secs(args.timeout.into());
        loop {
            let last = match ask(&client, namespace).await {
                Ok(found) if found == wanted => break,
                found => found,
            };
            if Instant::now() >= until {
                return Err(last.map_or_else(|error| error, |found| problem(found, namespace)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        say::print_document(&format!("the API server {done} plain values in the namespace \"{namespace}\"\n"))
    })
}

/// Asks the API server what it would store.
async fn ask(client: &Client, namespace: &str) -> Result<Outcome, CliError> {
    let random = Uuid::new_v4().simple();
    let spec = ManagedSecretSpec {
        name: format!("CHECK_{random}"),
        value: Some(SealedValue(format!("check-{random}"))),
        ..ManagedSecretSpec::default()
    };
    let object = ManagedSecret::new(&format!("check-{random}"), spec);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match Api::<ManagedSecret>::namespaced(client.clone(), namespace).create(&params, &object).await {
        Ok(stored) => {
            let value = stored.spec.value.as_ref().map(|value| value.0.as_str()).unwrap_or_default();
            Ok(if value.starts_with(SEALED_PREFIX) { Outcome::Sealed } else { Outcome::Stored })
        }
        // The CRD's rule: its message names the field.
        Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains("spec.value") => {
            Ok(Outcome::Refused)
        }
        Err(error) => {
            let context =
                format!("cannot create the ManagedSecret {:?} in {namespace:?} as a dry run", object.name_any());
            Err(CliError::from_kube(&context, &error))
        }
    }
}

/// Why an outcome that is not the wanted one is a problem.
fn problem(found: Outcome, namespace: &str) -> CliError {
    CliError::Failed(match found {
        Outcome::Refused => format!(
            "the API server refuses plain values in the namespace \"{namespace}\", because no webhook seals them; run \
             \"kubectl msec doctor\" to see why"
        ),
        Outcome::Sealed => format!(
            "the API server seals plain values in the namespace \"{namespace}\", although the webhooks are off; another \
             installation watches this namespace"
        ),
        Outcome::Stored => format!(
            "the API server stores plain values in the namespace \"{namespace}\"; apply the CustomResourceDefinition of \
             this version: managed-secrets crd | kubectl apply -f -"
        ),
    })
}
