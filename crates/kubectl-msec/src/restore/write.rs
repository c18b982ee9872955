//! The writes of a restore: each creates an object, or fails because an object of the name exists.
//!
//! The command writes Secrets as the operator does: by a server-side apply that only creates, and with the operator's field
//! manager. So the operator owns each of their fields, as in the cluster of the backup.

use std::collections::BTreeSet;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{DEFAULT_OPERATOR_NAMESPACE, POLICIES, TYPE_KEYRING, TYPE_RECORD};
use managed_secrets_api::record::StoredRecord;
use managed_secrets_cli::permission::Permission;
use managed_secrets_cli::{CliError, say};
use managed_secrets_client::{CallError, Created, RefusalKind, SecretApi, SecretObject};

use super::plan::{Item, Step, Verdict};
use crate::archive::StoredKeyring;
use crate::change::DryRun;
use crate::progress::Progress;
use crate::session::Session;

/// Field manager of restored ManagedSecrets, until another manager applies them.
const MANAGER: &str = "kubectl-msec-restore";

/// Why a write did not create its object.
enum Trouble {
    /// For this object only.
    Conflict(String),
    /// For all that follow as well.
    Fatal(CliError),
}

/// Carries out the plan, and prints the result for each object. Returns the steps with their final verdicts.
pub(super) async fn all(
    session: &Session,
    steps: Vec<Step>,
    missing_namespaces: &[String],
    dry_run: DryRun,
    own: &str,
) -> Result<Vec<Step>, CliError> {
    for name in missing_namespaces {
        if dry_run == DryRun::None {
            create_namespace(session, name).await?;
        }
        told(&format!("namespace {name}"), "created", dry_run)?;
    }
    let writer = Writer { session, dry_run, missing: missing_namespaces.iter().collect(), own };
    let (all, progress) = (steps.len(), Progress::new("restored"));
    let mut done = Vec::with_capacity(all);
    let mut lost = BTreeSet::new();
    for mut step in steps {
        progress.of(done.len(), all);
        if step.verdict == Verdict::Create {
            step.verdict = match writer.create(&mut step.item, &lost).await {
                Ok(verdict) => verdict,
                Err(Trouble::Conflict(why)) => Verdict::Conflict(why),
                Err(Trouble::Fatal(error)) => return Err(stopped(error, done.len(), all)),
            };
        }
        if let (Item::Record(_, record), Verdict::Conflict(_)) = (&step.item, &step.verdict) {
            lost.insert((step.item.place().0, record.meta.owner.clone()));
        }
        match &step.verdict {
            Verdict::Create => told(&step.item.called(), "created", dry_run)?,
            Verdict::There(note) if note.is_empty() => told(&step.item.called(), "already there", DryRun::None)?,
            Verdict::There(note) => told(&step.item.called(), &format!("already there, {note}"), DryRun::None)?,
            Verdict::Conflict(why) => told(&step.item.called(), &format!("not restored: {why}"), DryRun::None)?,
        }
        done.push(step);
    }
    Ok(done)
}

fn told(what: &str, came_of_it: &str, dry_run: DryRun) -> Result<(), CliError> {
    say::print_line(format_args!("{what}: {came_of_it}{}", dry_run.suffix()))
}

/// The error of a restore that ends early: how far it came, and that it can continue.
fn stopped(error: CliError, done: usize, all: usize) -> CliError {
    let more =
        format!("{done} of {all} objects were processed; created objects stay; run the same command to continue");
    match error {
        CliError::Failed(text) => CliError::Failed(format!("{text} ({more})")),
        CliError::Unreachable(text) => CliError::Unreachable(format!("{text} ({more})")),
        other @ (CliError::Usage(_) | CliError::Found(_)) => other,
    }
}

struct Writer<'a> {
    session: &'a Session,
    dry_run: DryRun,
    missing: BTreeSet<&'a String>,
    own: &'a str,
}

impl Writer<'_> {
    async fn create(&self, item: &mut Item, lost: &BTreeSet<(String, String)>) -> Result<Verdict, Trouble> {
        let (namespace, _) = item.place();
        // No server can check an object whose namespace does not exist yet.
        if self.dry_run == DryRun::Client || self.dry_run != DryRun::None && self.missing.contains(&namespace) {
            return Ok(Verdict::Create);
        }
        match item {
            Item::Object(object, _) => {
                if lost.contains(&object.place()) {
                    let why = "its record was not restored; without the record, it would be a new secret";
                    return Err(Trouble::Conflict(why.to_owned()));
                }
                let mut sent: DynamicObject = serde_json::from_value(object.manifest())
                    .map_err(|_| Trouble::Conflict("it cannot be sent as it is".to_owned()))?;
                sent.metadata.namespace = Some(namespace.clone());
                self.create_object(&namespace, &sent).await
            }
            Item::Keyring(secret) => match self.create_secret(secret, &namespace).await? {
                Created::Yes(_) => Ok(Verdict::Create),
                Created::Exists if self.stands(secret, &namespace).await? => Ok(there()),
                // The operator was faster: this keyring gets another name.
                Created::Exists => {
                    secret.metadata.name = StoredKeyring::of(secret).as_ref().map(StoredKeyring::name_beside);
                    self.create_or_find(secret, &namespace).await
                }
            },
            Item::Kek(secret) | Item::Record(secret, _) => self.create_or_find(secret, &namespace).await,
        }
    }

    async fn create_or_find(&self, secret: &SecretObject, namespace: &str) -> Result<Verdict, Trouble> {
        match self.create_secret(secret, namespace).await? {
            Created::Yes(_) => Ok(Verdict::Create),
            Created::Exists if self.stands(secret, namespace).await? => Ok(there()),
            Created::Exists => Err(Trouble::Conflict("a Secret of this name exists and stays unchanged".to_owned())),
        }
    }

    /// Whether the existing Secret of this name is the same: another restore may run, or the operator may have created it.
    async fn stands(&self, secret: &SecretObject, namespace: &str) -> Result<bool, Trouble> {
        let api = SecretApi::namespaced(self.session.client.clone(), namespace);
        let (name, type_) = (secret.metadata.name.as_deref().unwrap_or_default(), secret.type_.as_deref());
        let permission = Permission::to("list", "secrets").within(namespace);
        let fatal = |error| Trouble::Fatal(permission.explain_call("cannot read the existing Secret", &error));
        if type_ == Some(TYPE_KEYRING) {
            let here = api.get(name).await.map_err(fatal)?;
            let content = |secret: &SecretObject| StoredKeyring::of(secret).map(|it| it.fingerprint);
            return Ok(here.is_some_and(|here| here.type_ == secret.type_ && content(&here) == content(secret)));
        }
        // Metadata is enough: its name identifies a key-encryption key, and its annotations a record.
        let selector = format!("metadata.name={name},type={}", type_.unwrap_or_default());
        let here = api.list_metadata(&selector).await.map_err(fatal)?.into_iter().next();
        let of = |metadata: &ObjectMeta| StoredRecord::of(metadata).map(|it| (it.meta.id, it.meta.owner));
        Ok(here.is_some_and(|here| type_ != Some(TYPE_RECORD) || of(&here) == of(&secret.metadata)))
    }

    async fn create_secret(&self, secret: &SecretObject, namespace: &str) -> Result<Created, Trouble> {
        let api = SecretApi::namespaced(self.session.client.clone(), namespace);
        let write = if self.dry_run == DryRun::None {
            api.create(secret.clone()).await
        } else {
            api.create_dry_run(secret.clone()).await
        };
        match write {
            Ok(created) => Ok(created),
            Err(CallError::Refused(refusal)) => match &refusal.kind {
                RefusalKind::Admission(policy) if is_ours(policy) => {
                    Err(Trouble::Fatal(self.not_a_restorer(policy).await))
                }
                RefusalKind::Rbac => {
                    let permission = |verb| Permission::to(verb, "secrets").within(namespace);
                    let text = format!(
                        "cannot create a Secret: permission denied: check `{}` and `{}`",
                        permission("patch"),
                        permission("create")
                    );
                    Err(Trouble::Fatal(CliError::Failed(text)))
                }
                _ => Err(Trouble::Conflict(refusal.to_string())),
            },
            Err(error @ CallError::Unreachable(_)) => {
                Err(Trouble::Fatal(CliError::unreachable("cannot create a Secret", &error)))
            }
            Err(error) => Err(Trouble::Conflict(error.to_string())),
        }
    }

    async fn create_object(&self, namespace: &str, object: &DynamicObject) -> Result<Verdict, Trouble> {
        let resource = ApiResource::erase::<ManagedSecret>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.session.client.clone(), namespace, &resource);
        let params = PostParams { dry_run: self.dry_run != DryRun::None, field_manager: Some(MANAGER.to_owned()) };
        let permission = Permission::to_objects("create").within(namespace);
        let Err(error) = api.create(&params, object).await else { return Ok(Verdict::Create) };
        let said = permission.explain("refused", &error);
        match &error {
            kube::Error::Api(status) if status.code == 409 => {
                Err(Trouble::Conflict("it was created during the restore: run restore again".to_owned()))
            }
            kube::Error::Api(status) if status.message.contains(" cannot create resource ") => {
                Err(Trouble::Fatal(said))
            }
            kube::Error::Api(_) => Err(Trouble::Conflict(said.to_string())),
            _ => Err(Trouble::Fatal(said)),
        }
    }

    /// The user is not a restorer: who the user is, and how to add them.
    async fn not_a_restorer(&self, policy: &str) -> CliError {
        let reviews = Api::<SelfSubjectReview>::all(self.session.client.clone());
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok();
        let user = review.and_then(|review| review.status?.user_info?.username).unwrap_or_else(|| "USER".to_owned());
        let elsewhere = if self.own == DEFAULT_OPERATOR_NAMESPACE {
            String::new()
        } else {
            format!(" --operator-namespace {}", self.own)
        };
        CliError::Failed(format!(
            "the policy {policy} lets only the operator and restorers write records and keys, and you are {user}: add \
             yourself for the time of the restore, with the installation's other options: \
             `managed-secrets manifests{elsewhere} --restorer {user} | kubectl apply -f -`"
        ))
    }
}

fn there() -> Verdict {
    Verdict::There(String::new())
}

/// Whether a policy belongs to an installation of this operator: `NAME`, or `NAME.NAMESPACE`.
fn is_ours(policy: &str) -> bool {
    POLICIES.iter().any(|name| policy.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

async fn create_namespace(session: &Session, name: &str) -> Result<(), CliError> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match Api::<Namespace>::all(session.client.clone()).create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Permission::to("create", "namespaces").explain("cannot create a namespace", &error)),
        Ok(_) => Ok(()),
    }
}
