//! One replica takes over from another, as in a rolling restart: no plain value is refused meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use kube::api::{Patch, PatchParams};
use managed_secrets::webhook::Stats;
use managed_secrets_api::{ManagedSecret, keys};
use serde_json::json;
use testkit::poll;
use tokio::{net::TcpStream, task::JoinSet};

use super::{Premises, balancer::Balancer};
use crate::integration::{
    objects::Site,
    operator::{PATIENCE, Running},
};

/// Plain values, applied without end, several at once: each another one, so that each needs the webhook.
struct Stream {
    tasks: JoinSet<()>,
    done: Arc<AtomicUsize>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Stream {
    fn of(site: &Site) -> Self {
        const AT_ONCE: usize = 4;
        let (mut tasks, done, refused) =
            (JoinSet::new(), Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        for number in 0..AT_ONCE {
            let objects = kube::Api::<ManagedSecret>::namespaced(site.client.clone(), &site.namespace);
            let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
            tasks.spawn(async move {
                let name = format!("db-{number}");
                for round in 0.. {
                    let value = format!("value-{round}");
                    let object = json!({
                        "apiVersion": format!("{}/{}", keys::GROUP, keys::VERSION), "kind": keys::KIND,
                        "metadata": {"name": name},
                        "spec": {"name": format!("DB_{number}"), "value": value, "delivery": "None"},
                    });
                    let apply = PatchParams::apply("stream").force();
                    if let Err(error) = objects.patch(&name, &apply, &Patch::Apply(&object)).await {
                        refused.lock().unwrap().push(error.to_string());
                    }
                    done.fetch_add(1, SeqCst);
                }
            });
        }
        Self { tasks, done, refused }
    }

    /// Waits until so many more are applied.
    async fn more(&self, count: usize) {
        let goal = self.done.load(SeqCst) + count;
        poll("more values to be applied", PATIENCE, || async { Ok((self.done.load(SeqCst) >= goal).then_some(())) })
            .await
            .unwrap();
    }
}

struct Replica {
    operator: Running,
    address: SocketAddr,
    stats: Arc<Stats>,
}

impl Replica {
    /// One that goes on for a while when it is told to stop; it is ready when its port is open, as the Deployment's probe
    /// says.
    async fn start(premises: &Premises, balancer: &Balancer) -> Self {
        let (mut setup, address, stats) = balancer.replica(premises);
        setup.webhooks.as_mut().unwrap().limits.drain = Duration::from_secs(8);
        let operator = setup.start_with(premises.config.clone());
        poll("the port to be open", PATIENCE, || async { Ok(TcpStream::connect(address).await.ok()) }).await.unwrap();
        Self { operator, address, stats }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_plain_value_is_refused_while_one_replica_takes_over_from_another() {
    /// Applies between two steps: some on each connection.
    const SOME: usize = 12;
    let premises = Premises::new("handover").await;
    let balancer = Balancer::start();
    let mut present = Replica::start(&premises, &balancer).await;
    balancer.send_to(&[present.address]);
    premises.called().await;
    let stream = Stream::of(&premises.site);
    stream.more(SOME).await;
    for _ in 0..2 {
        let next = Replica::start(&premises, &balancer).await;
        balancer.send_to(&[present.address, next.address]);
        stream.more(SOME).await;
        // Kubernetes sends the signal and removes the endpoint at the same time, and proxies learn of it later.
        let answered = present.stats.seal.get();
        let stopped = tokio::spawn(present.operator.stop());
        stream.more(SOME).await;
        balancer.send_to(&[next.address]);
        assert!(present.stats.seal.get() > answered, "it answers while it leaves");
        stopped.await.unwrap();
        stream.more(SOME).await;
        assert!(next.stats.seal.get() > 0);
        present = next;
    }
    let (applied, refused) = (stream.done.load(SeqCst), stream.refused.lock().unwrap().clone());
    drop(stream.tasks);
    assert_eq!(refused, [""; 0], "of {applied}");
    present.operator.kill().await;
}
