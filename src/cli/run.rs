//! `managed-secrets run`: from arguments to a running operator.

use std::{path::Path, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, instrument::WithSubscriber as _, subscriber::NoSubscriber};

use super::{
    CliError, RunArgs,
    connect::{Connection, Interaction, Wanted},
    logging,
    webhooks::{Plan, beside},
};
use crate::{
    api::keys::DEFAULT_OPERATOR_NAMESPACE,
    engine::{self, run::log_panics, shutdown::Signals},
    kek::{OverRecords, Provider},
    reconcile::{self, run::Options},
};

/// Where Kubernetes mounts the name of the pod's namespace, beside the service account's token.
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Runs the operator until it is told to stop.
pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    logging::init(args.log_format, &args.log_level)?;
    log_panics();
    let provider = match &args.kek_file {
        Some(file) => Provider::file(file).map_err(|error| CliError::Usage(error.to_string()))?,
        None => Provider::Local,
    };
    let own_namespace = operator_namespace(args.operator_namespace.clone(), Path::new(POD_NAMESPACE_FILE));
    let plan = Plan::of(&args, &own_namespace)?;
    let mut options = Options {
        namespaces: args.namespaces,
        operator_namespace: own_namespace,
        provider,
        over_records: if args.allow_new_keyring { OverRecords::Allow } else { OverRecords::Refuse },
        allow_cluster_scope: args.allow_cluster_scope,
        workers: engine::run::Options { workers: args.workers.get(), ..engine::run::Options::default() },
        clients: engine::client::Options::default(),
        timing: engine::watch::Timing::default(),
        beside: None,
        beside_drain: plan.as_ref().map_or(Duration::ZERO, Plan::drain),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start", &error))?;
    runtime.block_on(async {
        let signals = Signals::catch().map_err(|error| CliError::failed("cannot catch signals", &error))?;
        let shutdown = CancellationToken::new();
        let connection = Connection::open(&Wanted::default(), Interaction::Allowed)?;
        // The error says it all; the client's own line about it would make two of one.
        reachable(&connection).with_subscriber(NoSubscriber::default()).await?;
        if let Some(plan) = plan {
            options.beside = Some(beside(plan.bind()?));
        }
        info!(
            version = env!("CARGO_PKG_VERSION"),
            operator_namespace = options.operator_namespace,
            namespaces = ?options.namespaces,
            server = %connection.server(),
            "starting"
        );
        let config = connection.config().clone();
        options.clients.connector = Arc::new(move |config| connection.client_of(config));
        tokio::select! {
            ended = reconcile::run::run(&config, options, shutdown.clone()) => {
                ended.map_err(|error| CliError::failed("the operator ended", &error))
            }
            () = signals.run(shutdown) => Ok(()),
        }
    })?;
    info!("stopped");
    Ok(())
}

/// One call, so that a cluster that cannot be reached is one clear line and not a loop of retries.
async fn reachable(connection: &Connection) -> Result<(), CliError> {
    let client = connection.client()?;
    let context = format!("cannot reach the cluster at {}", connection.server());
    client.apiserver_version().await.map_err(|error| CliError::from_kube(&context, &error))?;
    Ok(())
}

/// The namespace that is asked for, else the pod's own, else the default.
fn operator_namespace(asked_for: Option<String>, pod_namespace: &Path) -> String {
    asked_for
        .or_else(|| std::fs::read_to_string(pod_namespace).ok().map(|text| text.trim().to_owned()))
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| DEFAULT_OPERATOR_NAMESPACE.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_operators_namespace_is_the_pods_unless_another_is_asked_for() {
        let file = std::env::temp_dir().join(format!("managed-secrets-namespace-{}", std::process::id()));
        std::fs::write(&file, "vault\n").unwrap();
        assert_eq!(operator_namespace(Some("asked".to_owned()), &file), "asked");
        assert_eq!(operator_namespace(None, &file), "vault");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(operator_namespace(None, &file), DEFAULT_OPERATOR_NAMESPACE);
    }
}
