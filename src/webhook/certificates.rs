//! Manages the certificate of the webhooks and their secret path.
//!
//! In: the operator's own authorities, stored in a Secret, or a folder that another program fills; the time. Out: the
//! certificate and paths that [`server`](super::server) uses ([`Served`]), and `clientConfig` in the webhook configurations.
//!
//! One task works in rounds: it reads the stored authorities, creates or removes one when it is time, updates the webhook
//! configurations, and only then, when the API server knows the new authority, serves a certificate of it. It sleeps until
//! the next date, or until the Secret or a configuration changes, so an idle operator sends no requests. All replicas do the
//! same. Each write carries the resourceVersion that it was decided on; a replica whose write is refused reads again.

pub mod api_service;
pub mod authority;
mod clock;
pub mod folder;
pub mod inject;
pub mod retained;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client, core::PartialObjectMeta, runtime::watcher};
use managed_secrets_api::{
    keys::{TYPE_WEBHOOK, WEBHOOK_DATA_KEY, WEBHOOK_SECRET},
    value::API_SERVICE,
};
use managed_secrets_client::{CallError, Created, SecretApi, SecretBytes, SecretObject};
use managed_secrets_engine::{
    backoff::{Backoff, Retries},
    health::Verdict,
    watch::{Sink, Watcher},
};
use parking_lot::RwLock;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    authority::{AuthorityError, Document, Lifetimes},
    folder::FolderError,
    inject::Registration,
    retained::RetainedBundles,
};

/// The delay between rounds that failed.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(30) };
/// The shortest time between two rounds, however often the objects change.
const BREATHER: Duration = Duration::from_millis(200);
/// The longest sleep.
const LOOK: Duration = Duration::from_secs(3600);
/// How often the rotator reads a mounted folder. Kubernetes itself takes a minute to update it.
const FOLDER_LOOK: Duration = Duration::from_secs(5);
/// How long API servers have to learn a bundle before the operator serves a certificate that only this bundle trusts. They
/// watch the configurations, so it takes milliseconds unless an API server is busy.
pub const TAKE_NOTE: Duration = Duration::from_secs(5);

/// Options of the certificates and the webhook configurations.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's own namespace.
    pub operator_namespace: String,
    /// Where the certificate comes from.
    pub source: Source,
    /// How the API server reaches the webhooks.
    pub reached: Reached,
    /// Whether the webhooks are on. If they are off, nothing is written into their configurations.
    pub webhooks: bool,
    /// Further names by which clients call the operator: those of the value API's Services.
    pub also_named: Vec<String>,
    /// The APIService of the value API; `None` if the operator has none.
    pub api_service: Option<api_service::Options>,
    /// Name of the MutatingWebhookConfiguration.
    pub seal_configuration: String,
    /// Name of the ValidatingWebhookConfiguration.
    pub warn_configuration: String,
    /// How long authorities, certificates and paths last.
    pub lifetimes: Lifetimes,
}

impl Options {
    /// Returns the names that clients expect in the certificate.
    fn names(&self) -> Vec<String> {
        let mut names = self.reached.names();
        names.extend(self.also_named.iter().cloned());
        names.dedup();
        names
    }
}

/// Name of the watch of the APIService, for logs and metrics.
pub(crate) const API_SERVICE_WATCH: &str = "api service";

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The operator issues it.
    Own,
    /// Another program puts it into this folder.
    Folder(PathBuf),
}

/// How the API server reaches the webhooks.
#[derive(Clone, Debug)]
pub enum Reached {
    /// By a Service for the operator's pods.
    Service {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// By a URL without path: an operator outside the cluster.
    Url {
        /// `https://HOST:PORT`.
        url: String,
        /// HOST: a DNS name or an IP address.
        host: String,
    },
}

impl Reached {
    /// Returns the names that the API server expects in the certificate.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Service { name, namespace } => vec![format!("{name}.{namespace}.svc")],
            Self::Url { host, .. } => vec![host.clone()],
        }
    }

    /// Returns `clientConfig` of a webhook, without `caBundle`.
    fn client_config(&self, path: &str) -> Value {
        match self {
            Self::Service { name, namespace } => {
                json!({"service": {"name": name, "namespace": namespace, "port": 443, "path": format!("/{path}")}})
            }
            Self::Url { url, .. } => json!({"url": format!("{}/{path}", url.trim_end_matches('/'))}),
        }
    }
}

/// The current certificate and secret paths.
#[derive(Default)]
pub struct Served {
    paths: RwLock<Vec<String>>,
    certificate: watch::Sender<Option<Arc<CertifiedKey>>>,
    /// The authorities to trust, in PEM; `None` if another program creates the certificate and does not tell them.
    bundle: watch::Sender<Option<String>>,
    /// Why the last round failed.
    trouble: RwLock<Option<String>>,
}

impl Served {
    /// Whether this is a secret path. The comparison takes constant time, so its duration tells nothing about a guess.
    #[must_use]
    pub fn knows(&self, path: &str) -> bool {
        let paths = self.paths.read();
        paths.iter().fold(false, |known, secret| known | bool::from(secret.as_bytes().ct_eq(path.as_bytes())))
    }

    /// Returns the current certificate (DER); `None` before the first round.
    #[must_use]
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let certified = self.certificate.borrow();
        certified.as_ref().and_then(|certified| certified.end_entity_cert().ok()).map(|der| der.to_vec())
    }

    /// Returns when the current certificate expires; `None` if there is none, or if its dates cannot be read.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        let der = self.certificate()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    }

    /// Whether API servers can call the webhooks at `now`: there is a certificate, and it has not expired.
    #[must_use]
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        let trouble = self.trouble.read();
        if self.certificate.borrow().is_none() {
            let why = trouble.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            return Verdict::Failed(format!("there is no certificate yet{why}"));
        }
        match (self.expires(), &*trouble) {
            (Some(expires), _) if expires <= now => Verdict::Failed(format!("the certificate expired at {expires}")),
            (_, Some(why)) => Verdict::Degraded(why.clone()),
            (None, None) => Verdict::Degraded("the dates of the certificate cannot be read".to_owned()),
            (Some(_), None) => Verdict::Good,
        }
    }

    /// Follows the authorities to trust.
    #[must_use]
    pub fn bundles(&self) -> watch::Receiver<Option<String>> {
        self.bundle.subscribe()
    }

    fn set_bundle(&self, bundle: Option<&str>) {
        self.bundle.send_if_modified(|known| {
            let changed = known.as_deref() != bundle;
            *known = bundle.map(str::to_owned);
            changed
        });
    }

    /// Waits until there is a certificate.
    pub async fn certified(&self) {
        // An error would mean that the sender was dropped, but `self` owns it.
        let _ = self.certificate.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn set_paths(&self, document: &Document) {
        let paths = document.paths().map(ToOwned::to_owned).collect();
        *self.paths.write() = paths;
    }

    pub(super) fn set_certificate(&self, certified: CertifiedKey) {
        self.certificate.send_replace(Some(Arc::new(certified)));
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate.borrow().clone()
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The Secret with the authorities could not be read or written.
    #[error("Secret \"{WEBHOOK_SECRET}\" of the webhooks: {0}")]
    Secret(CallError),
    /// The operator did not create the Secret of this name.
    #[error(
        "Secret \"{WEBHOOK_SECRET}\" in the operator's namespace was not created by this operator; delete it and the \
         operator creates a new one"
    )]
    NotManaged,
    /// The APIService could not be read or written.
    #[error("APIService {API_SERVICE}: {0}")]
    ApiService(CallError),
    /// A webhook configuration could not be read or written.
    #[error("webhook configuration {name}: {source}")]
    Configuration {
        /// Its name.
        name: String,
        /// Why.
        source: CallError,
    },
    /// The authority or certificate could not be created.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The folder holds no usable certificate.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The TLS library does not accept the certificate.
    #[error("the webhook certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Keeps certificates, paths and webhook configurations current.
pub struct Rotator {
    client: Client,
    options: Options,
    served: Arc<Served>,
    /// The current certificate.
    leaf: Option<Serving>,
    /// The bundle of a folder that was written to the configurations, and when. Its certificate is served shortly after.
    told: Option<(String, Instant)>,
    /// The other certificates that each configuration trusts.
    retained: [RetainedBundles; 2],
    /// The other certificates that the APIService trusts.
    retained_by_api: RetainedBundles,
}

/// Facts about the current certificate.
struct Serving {
    /// The path of the authority that issued it, or the bundle of the folder that it comes from.
    of: String,
    /// When the validity of the operator's own certificate begins, and when the certificate must be replaced.
    validity: Option<(Timestamp, Timestamp)>,
    /// Fingerprint of the folder's content.
    fingerprint: folder::Fingerprint,
}

impl Rotator {
    /// Creates a rotator. It serves no certificate until the first round of [`Rotator::keep`].
    #[must_use]
    pub fn new(client: Client, options: Options, served: Arc<Served>) -> Self {
        debug_assert!(options.lifetimes.are_sound(), "an authority expires before the certificates that it issued");
        Self {
            client,
            options,
            served,
            leaf: None,
            told: None,
            retained: Default::default(),
            retained_by_api: RetainedBundles::default(),
        }
    }

    /// Watches the objects that others can change. Returns a notification of changes.
    #[must_use]
    pub fn watch(&self, watcher: &Watcher) -> Arc<Notify> {
        let moved = Arc::new(Notify::new());
        let sink = Arc::new(Trigger(Arc::clone(&moved)));
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let Options { operator_namespace, seal_configuration, warn_configuration, webhooks, api_service, .. } =
            &self.options;
        let secrets = |client| Api::<PartialObjectMeta<Secret>>::namespaced(client, operator_namespace);
        watcher.watch("webhook secret", secrets, named(WEBHOOK_SECRET), Arc::clone(&sink));
        if *webhooks {
            let mutating = |client| Api::<PartialObjectMeta<MutatingWebhookConfiguration>>::all(client);
            watcher.watch("sealing webhook", mutating, named(seal_configuration), Arc::clone(&sink));
            let validating = |client| Api::<PartialObjectMeta<ValidatingWebhookConfiguration>>::all(client);
            watcher.watch("warning webhook", validating, named(warn_configuration), Arc::clone(&sink));
        }
        if api_service.is_some() {
            let services = |client| Api::<PartialObjectMeta<APIService>>::all(client);
            watcher.watch(API_SERVICE_WATCH, services, named(API_SERVICE), sink);
        }
        moved
    }

    /// Runs rounds until `shutdown`.
    pub async fn keep(mut self, moved: Arc<Notify>, shutdown: CancellationToken) {
        let mut retries = Retries::new(RETRY);
        loop {
            // From before the round: a clock that is set during it decided about the certificate.
            let clock_is_set = clock::set(Timestamp::now);
            let Some(done) = shutdown.run_until_cancelled(self.round(Timestamp::now())).await else { return };
            let wait = match done {
                Ok(next) => {
                    retries.succeeded();
                    *self.served.trouble.write() = None;
                    next
                }
                Err(error) => {
                    warn!(%error, "could not update the webhooks; will retry");
                    *self.served.trouble.write() = Some(error.to_string());
                    retries.failed()
                }
            };
            let rest = async {
                sleep(BREATHER).await;
                tokio::select! {
                    () = moved.notified() => {}
                    () = sleep(wait.saturating_sub(BREATHER)) => {}
                    () = clock_is_set => info!("the clock of this machine was set; checking the webhook certificate"),
                    () = self.folder_changed() => {}
                }
            };
            if shutdown.run_until_cancelled(rest).await.is_none() {
                return;
            }
        }
    }

    /// Runs one round, which [`keep`](Self::keep) repeats. Returns the time until the next round, unless an object changes.
    pub async fn round(&mut self, now: Timestamp) -> Result<Duration, RoundError> {
        let document = self.document(now).await?;
        self.served.set_paths(&document);
        match self.options.source.clone() {
            Source::Own => self.serve_own(&document, now).await,
            Source::Folder(folder) => self.serve_folder(&folder, &document, now).await,
        }
    }

    async fn serve_own(&mut self, document: &Document, now: Timestamp) -> Result<Duration, RoundError> {
        let lives = self.options.lifetimes;
        let bundle = document.bundle();
        self.served.set_bundle(Some(&bundle));
        let path = document.path(now, lives).to_owned();
        // This must happen before a certificate of a new authority is served.
        let injected = self.inject(&path, |_, _| Some(bundle.clone())).await;
        // A certificate from the future was issued before the clock was set back.
        let is_current = |leaf: &Serving| leaf.validity.is_some_and(|(from, renew)| from <= now && now < renew);
        let fits = |leaf: &Serving| leaf.of == path && is_current(leaf);
        // A server that no API server trusts yet is better than no server. A new certificate of an authority that is
        // already trusted needs no change of the configurations.
        let is_known = self.leaf.as_ref().is_none_or(|leaf| leaf.of == path);
        if !self.leaf.as_ref().is_some_and(fits) && (injected.is_ok() || is_known) {
            let leaf = document.issue(&self.options.names(), now, lives)?;
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.to_vec()));
            self.served.set_certificate(folder::certified(vec![CertificateDer::from(leaf.certificate)], key)?);
            self.leaf = Some(Serving {
                of: path,
                validity: Some((leaf.valid_from, leaf.renew)),
                fingerprint: folder::Fingerprint::default(),
            });
            info!(renew = %leaf.renew, "issued a new webhook certificate");
        }
        injected?;
        let dates =
            document.next(now, lives).into_iter().chain(self.leaf.as_ref().and_then(|leaf| Some(leaf.validity?.1)));
        let next = dates.min().map_or(LOOK, |next| Duration::try_from(next - now).unwrap_or_default());
        Ok(next.clamp(BREATHER, LOOK))
    }

    /// Waits until the folder's content differs from the current certificate.
    async fn folder_changed(&self) {
        let Source::Folder(folder) = &self.options.source else { return std::future::pending().await };
        loop {
            sleep(FOLDER_LOOK).await;
            let served = self.leaf.as_ref().map(|leaf| leaf.fingerprint);
            // A round reports a folder that cannot be read.
            if folder::read(folder).ok().map(|content| content.fingerprint) != served {
                return;
            }
        }
    }

    async fn serve_folder(&mut self, path: &Path, document: &Document, now: Timestamp) -> Result<Duration, RoundError> {
        let found = folder::read(path)?;
        let lives = self.options.lifetimes;
        let bundle = found.bundle.as_deref();
        self.served.set_bundle(bundle);
        let secret = document.path(now, lives);
        let injected =
            self.inject(secret, |retained, present| Some(retained.join(bundle?, present, now, lives.overlap)));
        let injected = injected.await;
        // As with the operator's own authority. If the folder has no bundle, the operator writes none.
        let is_known = self.leaf.as_ref().is_none_or(|leaf| found.bundle.as_ref().is_none_or(|it| *it == leaf.of));
        if !is_known {
            if injected.is_err() {
                return injected.map(|()| LOOK);
            }
            let left = TAKE_NOTE.saturating_sub(self.told_since(found.bundle.as_deref()).elapsed());
            if !left.is_zero() {
                return Ok(left);
            }
        }
        self.told = None;
        if self.leaf.as_ref().is_none_or(|leaf| leaf.fingerprint != found.fingerprint) {
            self.served.set_certificate(found.certified);
            info!("loaded a new webhook certificate from the folder");
        }
        let of = found.bundle.or_else(|| self.leaf.take().map(|leaf| leaf.of)).unwrap_or_default();
        self.leaf = Some(Serving { of, validity: None, fingerprint: found.fingerprint });
        injected?;
        let ends =
            self.retained.iter().chain([&self.retained_by_api]).filter_map(|retained| retained.next(lives.overlap));
        let next = document.next(now, lives).into_iter().chain(ends).min();
        Ok(next.map_or(LOOK, |next| Duration::try_from(next - now).unwrap_or_default()).clamp(BREATHER, LOOK))
    }

    /// Returns when this bundle of the folder was first written to the configurations.
    fn told_since(&mut self, bundle: Option<&str>) -> Instant {
        let bundle = bundle.unwrap_or_default();
        match &self.told {
            Some((told, since)) if told == bundle => *since,
            _ => self.told.insert((bundle.to_owned(), Instant::now())).1,
        }
    }

    /// Updates the configurations and the APIService, even if the first update fails. Returns the first error.
    async fn inject(
        &mut self,
        path: &str,
        trust: impl Fn(&mut RetainedBundles, &str) -> Option<String>,
    ) -> Result<(), RoundError> {
        let Options { seal_configuration, warn_configuration, reached, webhooks, api_service, .. } = &self.options;
        let registrations =
            [Registration::sealing(seal_configuration.clone()), Registration::warning(warn_configuration.clone())];
        let mut done = Ok(());
        let registrations = registrations.into_iter().filter(|_| *webhooks);
        for (registration, retained) in registrations.zip(&mut self.retained) {
            let told = registration.inject(&self.client, reached, path, |present| trust(retained, present)).await;
            let told = told.map_err(|source| RoundError::Configuration { name: registration.configuration, source });
            done = done.and(told);
        }
        if let Some(options) = api_service {
            let retained = &mut self.retained_by_api;
            let told = api_service::inject(&self.client, options, |present| trust(retained, present)).await;
            done = done.and(told.map_err(RoundError::ApiService));
        }
        done
    }

    /// Returns the stored authorities. Creates or renews them if it is time.
    async fn document(&self, now: Timestamp) -> Result<Document, RoundError> {
        let secrets = SecretApi::namespaced(self.client.clone(), &self.options.operator_namespace);
        loop {
            let stored = secrets.get(WEBHOOK_SECRET).await.map_err(RoundError::Secret)?;
            if stored.as_ref().is_some_and(|secret| secret.type_.as_deref() != Some(TYPE_WEBHOOK)) {
                return Err(RoundError::NotManaged);
            }
            let content = stored.as_ref().and_then(|secret| secret.data.get(WEBHOOK_DATA_KEY));
            let present = content.and_then(|content| Document::parse(content.as_slice()));
            let Some(wanted) = Document::due(present.as_ref(), now, self.options.lifetimes)? else {
                return present.ok_or(RoundError::Authority(AuthorityError::None));
            };
            let secret = secret(&wanted, stored.map(|secret| secret.metadata))?;
            let written = if secret.metadata.resource_version.is_some() {
                secrets.apply(&secret).await.map(|_| true)
            } else {
                secrets.create(secret).await.map(|created| matches!(created, Created::Yes(_)))
            };
            match written {
                Ok(true) => {
                    info!(secret = WEBHOOK_SECRET, "renewed the webhooks' certificate authorities");
                    return Ok(wanted);
                }
                // Another replica was faster: use its authorities.
                Ok(false) => {}
                Err(CallError::Refused(refusal)) if refusal.is_conflict() => {}
                Err(error) => return Err(RoundError::Secret(error)),
            }
            sleep(BREATHER).await;
        }
    }
}

fn secret(document: &Document, stored: Option<ObjectMeta>) -> Result<SecretObject, RoundError> {
    let content = serde_json::to_vec(document).map_err(|_| RoundError::NotManaged)?;
    let (uid, resource_version) = stored.map_or((None, None), |stored| (stored.uid, stored.resource_version));
    Ok(SecretObject {
        metadata: ObjectMeta { name: Some(WEBHOOK_SECRET.to_owned()), uid, resource_version, ..ObjectMeta::default() },
        type_: Some(TYPE_WEBHOOK.to_owned()),
        data: [(WEBHOOK_DATA_KEY.to_owned(), SecretBytes::copy_of(&content))].into(),
        ..SecretObject::default()
    })
}

/// Notifies about every event.
struct Trigger(Arc<Notify>);

impl<K> Sink<K> for Trigger {
    fn init(&self) {}

    fn init_apply(&self, _: K) {}

    fn init_done(&self) {
        self.0.notify_one();
    }

    fn apply(&self, _: K) {
        self.0.notify_one();
    }

    fn delete(&self, _: K) {
        self.0.notify_one();
    }
}
