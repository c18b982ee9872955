//! `create`, `update`, `rotate`, `delete`, `value`, `export`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod create;
mod delete;
mod export;
mod gateways;
mod hidden;
mod rollback;
mod rotate;
mod update;
mod value;

use managed_secrets_api::keys::GROUP;

pub(super) use self::delete::mounts;
use super::Plugin;
use crate::integration::{
    objects::Site,
    operator::{Running, Setup, public_key},
};

/// Rights to do this with ManagedSecrets, for `user_with`.
pub(super) fn may<'a>(verbs: &'a [&'a str]) -> (&'a [&'a str], &'static str, &'static str) {
    (verbs, GROUP, "managedsecrets")
}

/// A namespace with an operator that has published its key, and an administrator.
pub(super) async fn place(purpose: &str) -> (Site, Running, Plugin) {
    let site = Site::new(purpose).await;
    let operator = Setup::of(&site.namespace).start().await;
    public_key(&site.client).await;
    let plugin = Plugin::new(&site).await;
    (site, operator, plugin)
}

/// Names of the namespace's ManagedSecrets.
pub(super) async fn objects(site: &Site) -> Vec<String> {
    let list = site.objects().list(&kube::api::ListParams::default()).await.unwrap();
    list.items.iter().map(kube::ResourceExt::name_any).collect()
}
