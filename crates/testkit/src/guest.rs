//! A guest on a cluster that outlives it: makes only what is not there, and takes away what it has made, nothing else.

use super::access::Access;
use super::error::{Error, Result};

/// Remembers what it has made.
#[derive(Debug)]
pub struct Guest {
    access: Access,
    /// `TYPE/NAME`, as kubectl writes it, in the order of making.
    made: Vec<String>,
}

impl Guest {
    /// One that has made nothing yet.
    #[must_use]
    pub fn new(access: &Access) -> Self {
        Self { access: access.clone(), made: Vec::new() }
    }

    /// Refuses a cluster that holds one of these objects, which are given as arguments of `kubectl get` and `create`.
    pub async fn expect_none(&self, objects: &[Vec<&str>]) -> Result<()> {
        for object in objects {
            let get = [&["get"], &object[..], &["--ignore-not-found", "-o", "name"]].concat();
            if let Some(present) = self.access.kubectl_ok(&get).await?.lines().next() {
                return Err(Error::Occupied(present.to_owned()));
            }
        }
        Ok(())
    }

    /// Creates objects, given as arguments of `kubectl create`; fails where one exists.
    pub async fn create(&mut self, object: &[&str]) -> Result<()> {
        let create = [&["create"], object, &["-o", "name"]].concat();
        let output = self.access.kubectl(&create).await?;
        // Of several objects, those before the one that was refused.
        self.made.extend(String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned));
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Format { what: format!("kubectl {}", create.join(" ")), why })
    }

    /// Removes what was made, the last first, and waits until it is gone.
    pub async fn leave(self) -> Result<()> {
        for object in self.made.iter().rev() {
            self.access.kubectl_ok(&["delete", "--ignore-not-found", object]).await?;
        }
        Ok(())
    }
}
