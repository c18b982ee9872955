//! What the cluster contains before a restore writes anything.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use managed_secrets_api::keys::{KEK_PREFIX, TYPE_KEK, TYPE_KEYRING, TYPE_RECORD};
use managed_secrets_api::record::StoredRecord;
use managed_secrets_cli::CliError;
use managed_secrets_cli::permission::Permission;
use managed_secrets_client::{CallError, RefusalKind, SecretApi};

use crate::archive::{Archive, Object, Place, StoredKeyring, place};
use crate::backup::read;
use crate::session::Session;

/// What a plan needs to know about the cluster.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Namespaces of the backup that do not exist.
    pub(super) missing_namespaces: Vec<String>,
    /// ManagedSecrets in the backup's namespaces.
    pub(super) objects: BTreeMap<Place, Object>,
    /// Records there; `None` for one that lacks required metadata.
    pub(super) records: BTreeMap<Place, Option<StoredRecord>>,
    /// Keyrings of the operator; `None` if the user may not read them.
    pub(super) keyrings: Option<Vec<StoredKeyring>>,
    /// Ids of its local key-encryption keys, from the names of their Secrets: the command never reads the keys.
    pub(super) keks: BTreeSet<String>,
}

/// Reads it.
pub(super) async fn of(session: &Session, archive: &Archive, own: &str) -> Result<Standing, CliError> {
    let mut standing = Standing::default();
    let of_objects = archive.objects.iter().map(|object| &object.metadata);
    let of_secrets = archive.records.iter().chain(&archive.keyrings).chain(&archive.keks).map(|it| &it.metadata);
    let namespaces: BTreeSet<_> = of_objects.clone().chain(of_secrets).map(|metadata| place(metadata).0).collect();
    for namespace in namespaces {
        if !exists(session, &namespace).await? {
            standing.missing_namespaces.push(namespace);
        }
    }
    let is_there = |namespace: &String| !standing.missing_namespaces.contains(namespace);
    let served: BTreeSet<_> = of_objects.map(|metadata| place(metadata).0).filter(is_there).collect();
    for namespace in &served {
        for object in read::objects(session, Some(namespace)).await? {
            standing.objects.insert(object.place(), object);
        }
    }
    let recorded: BTreeSet<_> =
        archive.records.iter().map(|record| place(&record.metadata).0).filter(is_there).collect();
    for namespace in &recorded {
        let found = metadata(session, namespace, TYPE_RECORD).await;
        let permission = Permission::to("list", "secrets").within(namespace);
        for record in found.map_err(|error| permission.explain_call("cannot list records", &error))? {
            standing.records.insert(place(&record), StoredRecord::of(&record));
        }
    }
    keys(session, archive, own, &mut standing).await?;
    Ok(standing)
}

async fn keys(session: &Session, archive: &Archive, own: &str, standing: &mut Standing) -> Result<(), CliError> {
    let permission = Permission::to("list", "secrets").within(own);
    let has_keys = archive.keyrings.len() + archive.keks.len() > 0;
    let api = SecretApi::namespaced(session.client.clone(), own);
    match api.list(&format!("type={TYPE_KEYRING}")).await {
        Ok(found) => standing.keyrings = Some(found.iter().filter_map(StoredKeyring::of).collect()),
        // A user who restores no keys need not see the existing ones.
        Err(CallError::Refused(refusal)) if refusal.kind == RefusalKind::Rbac && !has_keys => return Ok(()),
        Err(error) => return Err(permission.explain_call("cannot list the keyrings", &error)),
    }
    let found = metadata(session, own, TYPE_KEK).await;
    let found = found.map_err(|error| permission.explain_call("cannot list the key-encryption keys", &error))?;
    let names = found.into_iter().filter_map(|metadata| metadata.name);
    standing.keks = names.filter_map(|name| name.strip_prefix(KEK_PREFIX).map(str::to_owned)).collect();
    Ok(())
}

async fn metadata(session: &Session, namespace: &str, type_: &str) -> Result<Vec<ObjectMeta>, CallError> {
    SecretApi::namespaced(session.client.clone(), namespace).list_metadata(&format!("type={type_}")).await
}

/// Whether a namespace exists. If the user may not look, it counts as existing: a write there fails if it does not.
async fn exists(session: &Session, namespace: &str) -> Result<bool, CliError> {
    match Api::<Namespace>::all(session.client.clone()).get_metadata_opt(namespace).await {
        Ok(found) => Ok(found.is_some()),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
        Err(error) => Err(CliError::from_kube("cannot look for a namespace", &error)),
    }
}
