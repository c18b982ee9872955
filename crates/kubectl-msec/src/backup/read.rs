//! A backup's objects, read from the cluster in pages; nothing is watched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use managed_secrets_api::ManagedSecret;
use managed_secrets_api::keys::{LABEL_ROLE, ROLE_TARGET, TYPE_KEK, TYPE_KEYRING, TYPE_RECORD};
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::{SecretApi, SecretObject};

use super::BackupArgs;
use crate::archive::{Archive, Object, place, stripped};
use crate::progress::Progress;
use crate::session::Session;

/// Objects of one page.
const PAGE: u32 = 500;

/// Everything that was asked for.
pub(super) async fn archive(session: &Session, args: &BackupArgs) -> Result<Archive, CliError> {
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let objects = objects(session, namespace).await?;
    let records = secrets(session, namespace, TYPE_RECORD, "records read:").await?;
    let own = Some(args.operator_namespace.as_str());
    let (keyrings, keks) = match (args.keys || args.with_kek, args.with_kek) {
        (false, _) => (Vec::new(), Vec::new()),
        (true, false) => (secrets(session, own, TYPE_KEYRING, "keyrings read:").await?, Vec::new()),
        (true, true) => (
            secrets(session, own, TYPE_KEYRING, "keyrings read:").await?,
            secrets(session, own, TYPE_KEK, "keys read:").await?,
        ),
    };
    Ok(Archive { objects, records, keyrings, keks })
}

/// Metadata of the Secrets that look delivered, of a namespace or of all. A backup leaves them out, and notes which of them
/// have no record to restore them from.
pub(super) async fn targets(session: &Session, args: &BackupArgs) -> Result<Vec<ObjectMeta>, CliError> {
    let (api, permission) = secrets_of(session, (!args.all_namespaces).then_some(session.namespace.as_str()));
    let found = api.list_labelled(&format!("{LABEL_ROLE}={ROLE_TARGET}")).await;
    found.map_err(|error| permission.explain_call("cannot list Secrets", &error))
}

fn secrets_of<'a>(session: &Session, namespace: Option<&'a str>) -> (SecretApi, Permission<'a>) {
    let all = Permission::to("list", "secrets");
    match namespace {
        Some(namespace) => (SecretApi::namespaced(session.client.clone(), namespace), all.within(namespace)),
        None => (SecretApi::all(session.client.clone()), all),
    }
}

/// ManagedSecrets of a namespace, or of all, in the order of their places. Without those that are being deleted.
pub(crate) async fn objects(session: &Session, namespace: Option<&str>) -> Result<Vec<Object>, CliError> {
    let found = dynamic_objects(session, namespace, &Progress::new("ManagedSecrets read:")).await?;
    let mut objects = Vec::with_capacity(found.len());
    for object in found.into_iter().filter(|object| !is_dying(&object.metadata)) {
        let (namespace, name) = place(&object.metadata);
        let value = serde_json::to_value(object).ok();
        let object = value.and_then(Object::parse).ok_or_else(|| {
            CliError::Failed(format!("ManagedSecret {namespace}/{name} has a spec that this version cannot read"))
        })?;
        objects.push(object);
    }
    objects.sort_by_key(Object::place);
    Ok(objects)
}

/// The same as the server has them, with status. Fields that this version does not know are kept.
pub(crate) async fn dynamic_objects(
    session: &Session,
    namespace: Option<&str>,
    progress: &Progress,
) -> Result<Vec<DynamicObject>, CliError> {
    let resource = ApiResource::erase::<ManagedSecret>(&());
    let (api, permission): (Api<DynamicObject>, _) = match namespace {
        Some(namespace) => (
            Api::namespaced_with(session.client.clone(), namespace, &resource),
            Permission::to_objects("list").within(namespace),
        ),
        None => (Api::all_with(session.client.clone(), &resource), Permission::to_objects("list")),
    };
    let (mut found, mut params) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let page = api.list(&params).await.map_err(|error| permission.explain("cannot list ManagedSecrets", &error))?;
        found.extend(page.items);
        progress.count(found.len());
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => return Ok(found),
        }
    }
}

/// Secrets of one type, of a namespace or of all, stripped, in the order of their places. By type and not by label:
/// policies protect the type of a record, but every user can set a label.
pub(crate) async fn secrets(
    session: &Session,
    namespace: Option<&str>,
    type_: &str,
    what: &'static str,
) -> Result<Vec<SecretObject>, CliError> {
    let (api, permission) = secrets_of(session, namespace);
    let progress = Progress::new(what);
    let found = api
        .pages(&format!("type={type_}"), |count| progress.count(count))
        .await
        .map_err(|error| permission.explain_call("cannot list Secrets", &error))?;
    let living = found.into_iter().filter(|secret| !is_dying(&secret.metadata));
    let mut secrets: Vec<_> = living.map(stripped).collect();
    secrets.sort_by_key(|secret| place(&secret.metadata));
    Ok(secrets)
}

fn is_dying(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}
