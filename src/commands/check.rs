//! `managed-secrets check`: whether the API server seals plain values.
//!
//! A dry run shows it: the request passes admission like any other, so the webhook seals the value and the CRD's rule
//! checks the result, and the API server answers with what it would store. Nothing is stored, and no Secret is created.

use std::time::{Duration, Instant};

use kube::{Api, Client, ResourceExt as _, api::PostParams, core::Status};
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

/// The field of the value, and the reason of the CRD's rule on it (`FieldReason::Forbidden`).
const VALUE: &str = "spec.value";
const FORBIDDEN: &str = "FieldValueForbidden";

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
        Err(kube::Error::Api(status)) if is_refused_by_the_rule(&status) => Ok(Outcome::Refused),
        Err(error) => {
            let context =
                format!("cannot create the ManagedSecret {:?} in {namespace:?} as a dry run", object.name_any());
            Err(CliError::from_kube(&context, &error))
        }
    }
}

/// Whether the CRD's rule on the value is what refuses the object. Policies and webhooks, also those of others, refuse with
/// the same code and may name the field in their message, but report no cause with a field.
fn is_refused_by_the_rule(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.into_iter().any(|cause| cause.field == VALUE && cause.reason == FORBIDDEN)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(code: u16, message: &str, causes: &Value) -> Status {
        let status = json!({
            "status": "Failure", "reason": "Invalid", "code": code, "message": message,
            "details": {"name": "check", "group": "managedsecrets.dev", "kind": "ManagedSecret", "causes": causes},
        });
        serde_json::from_value(status).unwrap()
    }

    /// What Kubernetes 1.36 answers, shortened.
    #[test]
    fn only_the_rule_on_the_value_counts_as_a_refusal_of_plain_values() {
        let rule =
            json!([{"reason": "FieldValueForbidden", "field": "spec.value", "message": "Forbidden: must be sealed"}]);
        assert!(is_refused_by_the_rule(&status(422, "spec.value: Forbidden: must be sealed", &rule)));
        for (code, message, causes) in [
            (
                422,
                "ValidatingAdmissionPolicy 'x' denied request: spec.value is not allowed here",
                json!([{"message": "x"}]),
            ),
            (422, "denied request: spec.value is not allowed here", Value::Null),
            (
                422,
                "spec.valueFrom: Forbidden: must not be the object's own target",
                json!([{"reason": "FieldValueForbidden", "field": "spec.valueFrom", "message": "Forbidden"}]),
            ),
            (
                422,
                "spec.value: Too long: may not be more than 1 bytes",
                json!([{"reason": "FieldValueTooLong", "field": "spec.value", "message": "Too long"}]),
            ),
            (403, "spec.value: Forbidden", rule),
        ] {
            let causes = if causes.is_null() { json!([]) } else { causes };
            assert!(!is_refused_by_the_rule(&status(code, message, &causes)), "{message}");
        }
    }
}
