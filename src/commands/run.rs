//! Runs the command `managed-secrets run`.

use std::{error::Error, future::pending, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, OPERATOR_NAME};
use managed_secrets_cli::names;
use managed_secrets_cli::{
    CliError,
    connect::{Connection, CredentialsError, Interaction, Wanted},
};
use managed_secrets_crypto::provider::Provider;
use managed_secrets_engine::{
    client,
    health::Health,
    lease,
    limit::Limiter,
    run::{self as workers, log_panics},
    shutdown::Signals,
    waiting::Waiting,
    watch::Timing,
};
use rustls::CertificateError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, instrument::WithSubscriber as _, subscriber::NoSubscriber};
use uuid::Uuid;

use super::webhooks::Plan;
use crate::{
    admin::{self, metrics::Metrics},
    args::{POD_NAME, RunArgs},
    controller,
    keyring::{OverRecords, kms::KmsTiming, providers::ProviderOptions},
    logging,
    port::Port,
    run::{self, Options},
};

/// File with the name of the pod's namespace, which Kubernetes mounts beside the service account's token.
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// How long the operator waits for an answer of the API server before it asks again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who this process is, for the Lease and the audit log: the pod or machine, and what tells it apart from its other
/// processes.
fn identity() -> String {
    let pod = std::env::var(POD_NAME).ok().filter(|name| !name.is_empty());
    let place = pod.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    format!("{place}_{}", Uuid::new_v4())
}

/// Runs the operator until it is told to stop.
pub(super) fn run(args: RunArgs) -> Result<(), CliError> {
    logging::init(args.log_format, &args.log_level)?;
    log_panics();
    let primary = args.primary()?;
    let file = match args.kek_file.as_deref().map(Provider::file).transpose() {
        Ok(Some(Provider::File(kek))) => Some(kek),
        Ok(Some(Provider::Local) | None) => None,
        Err(error) => return Err(CliError::Usage(error.to_string())),
    };
    let kms_timing = KmsTiming { grace: args.kms_grace.0, ..KmsTiming::default() };
    let providers = ProviderOptions { primary, file, kms: args.kms.clone(), timing: kms_timing };
    let own_namespace = operator_namespace(args.operator_namespace.clone(), Path::new(POD_NAMESPACE_FILE));
    for namespace in args.namespaces.iter().chain([&own_namespace]) {
        names::namespace(namespace).map_err(|rule| CliError::Usage(format!("{namespace:?}: {rule}")))?;
    }
    let plan = Plan::of(&args, &own_namespace)?;
    let (admin_address, metrics_address) = (args.admin_listen.0, args.metrics_listen.0);
    if metrics_address.is_some() && plan.is_none() {
        return Err(CliError::Usage(
            "--metrics-listen: the metrics use the certificate of the webhooks, which are off; remove one of the two"
                .to_owned(),
        ));
    }
    let durations = args.durations()?;
    let identity = identity();
    let election = args.leader_elect.then(|| lease::Options {
        namespace: own_namespace.clone(),
        name: OPERATOR_NAME.to_owned(),
        identity: identity.clone(),
        durations,
    });
    let health = Arc::<Health>::default();
    let mut options = Options {
        controller: controller::run::Options {
            namespaces: args.namespaces,
            operator_namespace: own_namespace,
            allow_cluster_scope: args.allow_cluster_scope,
            restarts: args.restarts,
            seeds: args.keys.seeds(),
            sealing: args.keys.sealing(),
            workers: workers::Options {
                limiter: Arc::new(Limiter::new(args.workers.get())),
                ..workers::Options::default()
            },
        },
        webhooks: None,
        values: None,
        providers,
        kek_file: args.kek_file,
        over_records: if args.allow_new_keyring { OverRecords::Allow } else { OverRecords::Refuse },
        recovery: args.recovery.recipients,
        clients: client::Options { replica: Some(identity), ..client::Options::default() },
        timing: Timing::default(),
        stats: Arc::default(),
        metrics: Arc::new(Metrics::new(Arc::clone(&health))),
        secure_metrics: None,
        health,
        election,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("cannot start", &error))?;
    let ended = runtime.block_on(async {
        let signals = Signals::catch().map_err(|error| CliError::failed("cannot catch signals", &error))?;
        let shutdown = CancellationToken::new();
        let working = CancellationToken::new();
        // First and to the end, so that a probe learns why the operator is not ready.
        let router = match metrics_address {
            None => admin::router(&options.health, &options.metrics),
            Some(_) => admin::probes(&options.health),
        };
        let admin = serve_admin(admin_address, router)?;
        // Already bound, so that a port that is taken is an error at the start.
        options.secure_metrics = metrics_address.map(bind_metrics).transpose()?;
        // A separate task, so that signals work whatever this one waits for.
        let work = tokio::spawn(operate(options, plan, shutdown.clone(), working.clone()));
        let told = async {
            shutdown.cancelled().await;
            if working.is_cancelled() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            ended = work => ended.unwrap_or_else(|error| Err(CliError::failed("the operator ended", &error))),
            // The work has not started, so there is nothing to finish.
            () = told => Ok(()),
            () = signals.run(shutdown.clone()) => Ok(()),
            error = admin => Err(error),
        }
    });
    // Not dropped: that would wait for a DNS lookup, which cannot be cancelled.
    runtime.shutdown_background();
    ended?;
    info!("stopped");
    Ok(())
}

fn bind_metrics(address: SocketAddr) -> Result<Port, CliError> {
    Port::bind(address).map_err(|error| CliError::failed(&format!("cannot serve metrics on {address}"), &error))
}

/// Serves the port for probes and metrics, if there is one. The future ends only if that fails.
fn serve_admin(
    address: Option<SocketAddr>,
    router: axum::Router,
) -> Result<impl Future<Output = CliError> + use<>, CliError> {
    let failed = |address| format!("cannot serve probes and metrics on {address}");
    let server = match address {
        None => None,
        Some(address) => {
            let listener = Port::bind(address).and_then(Port::open);
            let listener = listener.map_err(|error| CliError::failed(&failed(address), &error))?;
            // A task of its own, so that it answers whatever the others do.
            Some((address, tokio::spawn(admin::serve(listener, router))))
        }
    };
    Ok(async move {
        let Some((address, server)) = server else { return pending().await };
        match server.await {
            Ok(never) => match never {},
            Err(error) => CliError::failed(&failed(address), &error),
        }
    })
}

/// Waits for the API server, then runs the operator; cancels `working` between the two.
async fn operate(
    mut options: Options,
    plan: Option<Plan>,
    shutdown: CancellationToken,
    working: CancellationToken,
) -> Result<(), CliError> {
    let connection = Connection::open(&Wanted::default(), Interaction::Allowed)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        operator_namespace = options.controller.operator_namespace,
        namespaces = ?options.controller.namespaces,
        server = %connection.server(),
        "starting"
    );
    reachable(&connection, &options.health).await?;
    if let Some((webhooks, values)) = plan.map(Plan::bind).transpose()? {
        (options.webhooks, options.values) = (Some(webhooks), values);
    }
    let config = connection.config().clone();
    options.clients.connector = Arc::new(move |config| connection.client_of(config));
    working.cancel();
    let ended = Box::pin(run::run(&config, options, shutdown)).await;
    ended.map_err(|error| CliError::failed("the operator ended", &error))
}

/// Waits until the API server answers. A problem that waiting cannot solve is an error: unusable credentials, or a
/// certificate that the configuration does not trust, unless the authority is in a file, which is read again.
async fn reachable(connection: &Connection, health: &Health) -> Result<(), CliError> {
    let mut config = connection.config().clone();
    (config.connect_timeout, config.read_timeout) = (Some(PATIENCE), Some(PATIENCE));
    // This function itself waits between tries, and logs them.
    config.default_retry = false;
    let context = format!("cannot reach the cluster at {}", connection.server());
    let mut waiting = Waiting::new(format!("the API server at {}", connection.server()));
    let client = connection.client_of(config).map_err(|error| CliError::from_kube(&context, &error))?;
    loop {
        // The client would log the same error again.
        let asked = client.apiserver_version().with_subscriber(NoSubscriber::default());
        let why = match timeout(PATIENCE * 2, asked).await {
            Ok(Ok(_)) => break,
            Ok(Err(error)) if !may_pass(&error, connection.reads_authority_again()) => {
                return Err(CliError::from_kube(&context, &error));
            }
            Ok(Err(error)) => CliError::from_kube("no answer", &error).to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        health.starting(format!("waiting for the API server at {}: {why}", connection.server()));
        waiting.pause(&why).await;
    }
    waiting.over();
    Ok(())
}

/// Whether a call that failed in this way may succeed later with the same configuration. This includes refused credentials:
/// the client reads tokens again from their file, and an API server that has just started knows no roles yet. It includes a
/// certificate that is not valid now: the clock of this machine may be wrong, and an API server renews its certificate.
fn may_pass(error: &kube::Error, reads_authority_again: bool) -> bool {
    match error {
        kube::Error::Auth(_) | kube::Error::InferConfig(_) | kube::Error::InferKubeconfig(_) => false,
        error => !std::iter::successors(Some(error as &(dyn Error + 'static)), |error| cause(*error)).any(|error| {
            error.is::<kube::client::AuthError>()
                || error.is::<CredentialsError>()
                || matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(why))
                    if !reads_authority_again && !is_of_the_date(why))
        }),
    }
}

/// Whether the certificate may be valid at another time.
fn is_of_the_date(why: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// Returns the cause of an error. An `io::Error` hides the error that it wraps, and shows only the cause of that error.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Returns the given namespace, or else the pod's own, or else the default.
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
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("namespace");
        std::fs::write(&file, "vault\n").unwrap();
        assert_eq!(operator_namespace(Some("asked".to_owned()), &file), "asked");
        assert_eq!(operator_namespace(None, &file), "vault");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(operator_namespace(None, &file), DEFAULT_OPERATOR_NAMESPACE);
    }
}
