//! Reads the value of a secret through the value API.
//!
//! ```text
//! cargo run --example read-value NAME|ID
//! ```
//!
//! In a pod, it uses the token of the service account. Elsewhere, it uses the kubeconfig. The standard library has no TLS, so
//! it uses kube's client.
#![allow(clippy::print_stdout, reason = "it prints the value")]

use std::error::Error;

use kube::{Client, Config};
use managed_secrets_api::value::{Handle, SecretValue, path};

/// Returns the value of a secret of the namespace that the configuration names, with its version and dates.
pub(crate) async fn read_value(config: Config, name_or_id: &str) -> Result<SecretValue, Box<dyn Error>> {
    let handle = Handle::parse(name_or_id).ok_or("this is neither a name nor an id")?;
    let path = path(&config.default_namespace, handle).ok_or("the namespace is invalid")?;
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(Client::try_from(config)?.request(request).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name_or_id = std::env::args().nth(1).ok_or("usage: read-value NAME|ID")?;
    let found = read_value(Config::infer().await?, &name_or_id).await?;
    print!("{}", found.status.value.as_str());
    Ok(())
}
