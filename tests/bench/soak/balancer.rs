//! What a Service is in a cluster: one address in front of all replicas.

use std::{net::SocketAddr, path::Path, sync::Arc};

use parking_lot::Mutex;
use testkit::{Result, error::Context as _};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// One address. It passes each connection on to the first of the replicas that accepts it.
pub(super) struct Balancer {
    pub(super) address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// Without replicas.
    pub(super) async fn start() -> Result<Self> {
        let here = Path::new("127.0.0.1");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen on", here)?;
        let address = listener.local_addr().context("find the port of", here)?;
        let replicas = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let known = Arc::clone(&replicas);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let replicas = known.lock().clone();
                tokio::spawn(join(client, replicas));
            }
        });
        Ok(Self { address, replicas, task })
    }

    /// Sends connections to another replica as well. Those that have ended refuse theirs.
    pub(super) fn add(&self, replica: SocketAddr) {
        self.replicas.lock().push(replica);
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn join(mut client: TcpStream, replicas: Vec<SocketAddr>) {
    for replica in replicas {
        if let Ok(mut server) = TcpStream::connect(replica).await {
            // An end without notice is that of the replica: the API server connects again.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
